/** What goes wrong in a world, and when. */
import { perform } from "./commander.ts";
import type { ModelNode } from "./node.ts";
import type { ModelProxy } from "./proxy.ts";
import type { World } from "./world.ts";

type Fault = (world: World) => void;

/** When the last fault is over, ms. */
export const HEALED_AT_MS = 8_000;

export function scheduleFaults(world: World): void {
  const { time, plot } = world;
  switch (plot) {
    case "planned":
      return;
    case "clean-crash":
      return void time.at(time.between(3_000, 4_000), () => cleanly(world, (node) => node.crash()));
    case "clean-hang":
      return void time.at(time.between(3_000, 4_000), () => cleanly(world, (node) => node.hang()));
    case "takeover":
      return void time.at(time.between(3_000, 4_000), () => takeOver(world));
    case "race":
      return race(world);
    case "mixed":
    case "rivals": {
      const count = time.pick(plot === "rivals" ? [2, 3, 4, 5] : [1, 2, 2, 3, 4]);
      // Proxies that come at the same time have not looked at all nodes yet.
      const fromMs = plot === "rivals" ? time.pick([1_000, 1_300, 2_000]) : 1_300;
      for (let i = 0; i < count; i++) {
        time.at(time.between(fromMs, world.healedAtMs - 500), () => pickFault(world)(world));
      }
      for (const node of world.members) time.at(time.between(1_000, 2_500), () => node.save());
    }
  }
}

/** The node gets what it was just told, and carries it out later. */
export function delay(world: World, proxy: ModelProxy, node: ModelNode): void {
  const { time } = world;
  if (!world.hasRivals || world.isClean || time.nowMs > world.healedAtMs || !time.chance(0.5)) return;
  const forMs = time.pick([time.between(500, world.healedAtMs / 2), time.between(2_000, 4_000)]);
  if (time.chance(0.6)) hangFor(world, node, forMs);
  else time.after(time.between(0, 2), () => cut(world, proxy.name, node.name, forMs));
}

/** Just when a planned switch begins somebody else hands over, too, or a node is lost. */
export function disturbSwitch(world: World): void {
  const { time, plot, members } = world;
  if (plot !== "mixed" || !time.chance(0.3)) return;
  const what = time.pick(["failover by others", "crash", "hang"] as const);
  const node = time.pick(members);
  const forMs = time.between(900, 6_000);
  time.after(time.between(0, 4), () => {
    world.checks.note(`just now: ${what}`);
    switch (what) {
      case "failover by others":
        return failoverByOthers(world);
      case "crash":
        return crash(world, node);
      case "hang":
        // An heir that does not answer keeps FAILOVER waiting.
        if (time.chance(0.5))
          for (const one of members) if (one !== world.truth) hangFor(world, one, time.between(5, 400));
        return hangFor(world, world.truth ?? node, forMs);
    }
  });
}

/** Something goes wrong with a node just when it was asked for something, or soon after it was promoted. */
export function disturb(world: World, proxy: ModelProxy, node: ModelNode, isMaster: boolean): void {
  const { time, checks } = world;
  const isWild = world.plot === "mixed" || world.plot === "rivals" || world.plot === "race";
  const probability = isMaster ? 0.15 : world.hasRivals ? 0.3 : 0.06;
  if (!isWild || proxy.isDead || time.nowMs > world.healedAtMs || !time.chance(probability)) return;
  checks.count(isMaster ? "disturbed masters" : "disturbed commands");
  const what = time.pick([
    ...(["crash", "hang", "cut", "cut", "stall", "crash of another"] as const),
    ...(world.hasRivals ? (["end", "hang"] as const) : []),
  ]);
  const lastsMs = time.pick([time.between(20, 900), time.between(900, world.healedAtMs / 2)]);
  time.after(isMaster ? time.between(0, 1_500) : time.between(0, 3), () => {
    checks.note(`just now: ${what}`);
    switch (what) {
      case "crash":
        return crash(world, node);
      case "hang":
        return hangFor(world, node, lastsMs);
      case "cut":
        return cut(world, proxy.name, node.name, lastsMs);
      case "stall":
        return standStill(world, proxy, lastsMs);
      case "end":
        return end(world, proxy);
      case "crash of another":
        return crash(world, time.pick(world.members));
    }
  });
}

function cleanly(world: World, act: (node: ModelNode) => void): void {
  const { truth, members } = world;
  if (truth === undefined || members.every((one) => one === truth || one.priority === 0)) return;
  world.checks.count(world.plot);
  world.checks.note(`${world.plot} of ${truth.name}`);
  world.watchGap();
  act(truth);
}

/** The survivor was refused, and may promote as soon as the markers of the other one are gone. */
function takeOver(world: World): void {
  const { time, proxies, truth, members } = world;
  const first = proxies.find(({ isSole }) => isSole);
  if (truth === undefined || members.every((one) => one === truth || one.priority === 0)) return;
  // The younger one may be about to step back: it looks every 2 s.
  if (first === undefined && time.nowMs < 6_000) return void time.after(300, () => takeOver(world));
  if (first === undefined) return world.checks.violation("none of two may promote");
  const what = time.pick(["process", "machine"] as const);
  const delayMs = time.between(0, 1_500);
  time.after(time.chance(0.5) ? delayMs : 0, () => world.lose(first, what, null));
  // Before the crash is sure enough to be acted on, the first one is gone.
  time.after(time.chance(0.5) ? delayMs : 0, () => {
    world.checks.count("takeover");
    world.checks.note(`${truth.name} is gone`);
    world.watchGap(proxies.find((one) => one !== first));
    if (time.chance(0.5)) truth.crash();
    else truth.hang();
  });
}

/** Each proxy looks, stands still or not, marks; meanwhile the master goes. */
function race(world: World): void {
  const { time, proxies, members } = world;
  if (time.chance(0.5)) return photoFinish(world);
  const [, ...replicas] = members;
  const isDivided = time.chance(0.5);
  const forMs = time.between(1_000, 6_000);
  for (const [i, proxy] of proxies.entries()) {
    const untilMs = time.nowMs + time.between(300, 4_000);
    // Besides the master each one reaches a replica of its own.
    const far = replicas.filter((_, k) => k !== i % replicas.length);
    if (isDivided) for (const node of far) cut(world, proxy.name, node.name, forMs);
    if (time.chance(0.4))
      time.after(time.between(1, 12), () => standStill(world, proxy, untilMs - time.nowMs));
  }
  time.after(time.between(10, 2_500), () => crash(world, victim(world)));
  if (time.chance(0.5)) time.at(time.between(2_000, 6_000), () => pickFault(world)(world));
}

/**
 * The oldest proxy has looked and stands still before it marks; another one comes, and is promoting when the
 * oldest one goes on. The order in which the rules of the lease are all needed.
 */
function photoFinish(world: World): void {
  const { time, proxies, members, checks } = world;
  const crashAtMs = time.nowMs + time.between(300, 600);
  const [first] = [...proxies].sort((a, b) => (a.markerId < b.markerId ? -1 : 1));
  // Within the last of its looks or right after them.
  let left = members.length - time.pick([0, 0, 1]);
  checks.onLook = (proxy) => {
    if (proxy !== first || --left !== 0) return;
    standStill(world, proxy, crashAtMs + 250 + time.between(10, 1_000) - time.nowMs);
  };
  time.at(crashAtMs, () => {
    checks.note("the master crashes");
    members[0]?.crash();
  });
}

const FAULTS: readonly (readonly [weight: number, name: string, fault: Fault])[] = [
  [8, "crash", (world) => crash(world, victim(world))],
  [5, "hang", hang],
  [3, "cut from a proxy", cutProxy],
  [2, "cut between nodes", cutNodes],
  [2, "slow network", slow],
  [3, "stall", stall],
  [3, "lost connections", loseConnections],
  [2, "failover by others", failoverByOthers],
  [1, "pause by others", (world) => void victim(world).pause(world.time.between(50, 2_000))],
  [
    1,
    "all crash",
    (world) => {
      for (const node of world.members) if (node.isRunning) crash(world, node);
    },
  ],
];

/** Where several proxies may promote, besides. */
const RIVAL_FAULTS: typeof FAULTS = [
  [8, "divide", divide],
  [4, "a proxy ends", (world) => end(world, pickProxy(world))],
  [4, "stall", stall],
];

/** What people do that they should not; where the proxy promotes it is not to be put right by it alone. */
const FOLLIES: readonly (readonly [weight: number, name: string, fault: Fault])[] = [
  [1, "promote live", (world) => promoteOthers(world, 1)],
  [1, "promote two", (world) => promoteOthers(world, 2)],
  [1, "promote the last", promoteLast],
];

function pickFault(world: World): Fault {
  const { time, mode, checks } = world;
  const isFolly = !world.hasRivals && time.chance(mode === "self" ? 0.06 : 0.15);
  const list = isFolly ? FOLLIES : world.hasRivals ? [...FAULTS, ...RIVAL_FAULTS] : FAULTS;
  let left = time.random() * list.reduce((sum, [weight]) => sum + weight, 0);
  const found = list.find(([weight]) => {
    left -= weight;
    return left < 0;
  });
  if (found === undefined) return () => undefined;
  if (isFolly) world.isMeddledWith = true;
  checks.count(`fault ${found[1]}`);
  checks.note(`fault: ${found[1]}`);
  return found[2];
}

/** The master more often than others. */
function victim(world: World): ModelNode {
  const { time, truth, members } = world;
  return truth !== undefined && time.chance(0.65) ? truth : time.pick(members);
}

function crash(world: World, node: ModelNode): void {
  const { time, checks } = world;
  if (!node.isRunning) return;
  checks.note(`${node.name} crashes at ${node.applied}`);
  node.crash();
  const { life } = node;
  const kind = time.pick(["data", "data", "empty", "rolled-back"] as const);
  time.after(time.pick([time.between(20, 400), time.between(400, 6_000)]), () => {
    if (node.isRunning || node.life !== life) return;
    checks.note(`${node.name} is restarted: ${kind}`);
    checks.count(`restart ${kind}`);
    node.restart(kind);
  });
}

function hang(world: World): void {
  const { time } = world;
  const mostMs = world.healedAtMs * 0.75;
  hangFor(world, victim(world), time.pick([time.between(50, 900), time.between(900, mostMs)]));
}

function hangFor(world: World, node: ModelNode, forMs: number): void {
  const { time, checks } = world;
  if (!node.isRunning || node.isHung) return;
  checks.note(`${node.name} hangs`);
  node.hang();
  time.after(forMs, () => {
    if (node.isHung) checks.note(`${node.name} wakes`);
    node.wake();
  });
}

function pickProxy({ proxies, time }: World): ModelProxy | undefined {
  return proxies.length === 0 ? undefined : time.pick(proxies);
}

function cutProxy(world: World): void {
  const proxy = pickProxy(world);
  if (proxy !== undefined) cut(world, proxy.name, victim(world).name);
}

/** Each proxy reaches some nodes only, often when the master is gone. */
function divide(world: World): void {
  const { time, proxies, members } = world;
  const forMs = time.between(200, 5_000);
  for (const proxy of proxies) {
    for (const node of members) if (time.chance(0.4)) cut(world, proxy.name, node.name, forMs);
  }
  if (time.chance(0.5)) time.after(time.between(0, 1_500), () => crash(world, victim(world)));
}

/** A proxy is gone, and comes again as a new one, or not. */
function end(world: World, proxy: ModelProxy | undefined): void {
  const { time, proxies } = world;
  if (proxy === undefined || proxy.isDead) return;
  const isReplaced = proxies.length === 1 || time.chance(0.7);
  world.lose(
    proxy,
    time.pick(["process", "process", "machine"] as const),
    isReplaced ? time.between(5, 2_000) : null,
  );
}

function cutNodes(world: World): void {
  const { time, members } = world;
  const one = time.pick(members);
  const other = time.pick(members);
  if (one !== other) cut(world, one.name, other.name);
}

function cut(world: World, a: string, b: string, forMs = world.time.between(50, 5_000)): void {
  const { time, network, checks } = world;
  checks.note(`${a} and ${b} are cut off from each other`);
  network.cut(a, b);
  time.after(forMs, () => {
    checks.note(`${a} and ${b} are connected again`);
    network.heal(a, b);
  });
}

function slow(world: World): void {
  const { time, network } = world;
  network.leastMs = 5;
  network.mostMs = time.between(20, 200);
  time.after(time.between(300, 3_000), () => {
    network.leastMs = 0.1;
    network.mostMs = 1;
  });
}

function standStill(world: World, proxy: ModelProxy, forMs: number): void {
  const { time, checks } = world;
  if (proxy.isDead) return;
  const untilMs = Math.min(time.nowMs + forMs, world.healedAtMs);
  // Never less than before: what is put off already would come after what is put off now.
  proxy.stalledUntilMs = Math.max(proxy.stalledUntilMs, untilMs);
  checks.note(`${proxy.name} stands still until ${proxy.stalledUntilMs.toFixed(0)}`);
}

function stall(world: World): void {
  const { time } = world;
  const proxy = pickProxy(world);
  if (proxy !== undefined) standStill(world, proxy, time.between(100, world.healedAtMs / 2));
  // Often just when something happens.
  if (time.chance(0.4)) time.after(time.between(0, 500), () => crash(world, victim(world)));
}

/** In the middle of traffic: replies on their way are lost, or the server itself closes after them. */
function loseConnections(world: World): void {
  const { time, network } = world;
  const node = victim(world);
  const isSnapped = time.chance(0.7);
  network.leastMs = 5;
  network.mostMs = 20;
  time.after(time.between(20, 60), () => {
    network.leastMs = 0.1;
    network.mostMs = 1;
    for (const connection of [...node.connections]) {
      if (isSnapped) connection.snap();
      else connection.serverGone();
    }
  });
}

function failoverByOthers(world: World): void {
  const { truth, members, time } = world;
  const target = members.find((one) => one.master === truth?.name && one.link === "up");
  if (truth === undefined || target === undefined || truth.isLoading) return;
  perform(truth, { kind: "failover", to: target.id, timeoutMs: time.between(5, 1_500) });
}

function promoteOthers(world: World, count: number): void {
  const replicas = world.members.filter((one) => !one.isMaster && one.isWell);
  for (const node of replicas.slice(0, count)) perform(node, { kind: "promote" });
}

function promoteLast(world: World): void {
  const replicas = world.members.filter((one) => !one.isMaster && one.isWell);
  const [last] = replicas.sort((a, b) => a.applied - b.applied);
  if (last !== undefined) perform(last, { kind: "promote" });
}
