/** What can happen next in a small world: by the servers, the proxy, time, operators, and as a fault. */
import { goneAtMs } from "../../../../src/failover/diagnosis.ts";
import type { CommandResult } from "../../../../src/failover/model.ts";
import { IDS, type MNode, type Model, type MWrite, type Sent, type World } from "./world.ts";

export interface Move {
  readonly name: string;
  /** It takes one of the faults left. */
  readonly isFault: boolean;
  readonly to: World;
}

const DONE: CommandResult = { kind: "done" };
const OVERDUE: CommandResult = { kind: "unknown", error: "no answer in time" };

export function movesFrom(model: Model, before: World): Move[] {
  const world = model.moved(before);
  const moves: Move[] = [];
  if (isOver(model, world)) return moves;
  const add = (name: string, to: World | null): void => {
    if (to !== null) moves.push({ name, isFault: false, to });
  };
  const fault = (name: string, to: World | null): void => {
    if (to !== null && world.faults > 0 && model.setup.only?.test(name) !== false) {
      moves.push({ name, isFault: true, to: { ...to, faults: world.faults - 1 } });
    }
  };
  for (const index of world.nodes.keys()) {
    if (model.setup.probes === "each") add(`probe ${index}`, model.probe(world, index));
    serve(model, world, index, add, fault);
    disturb(model, world, index, add, fault);
  }
  if (model.setup.probes === "all") add("look", lookAtAll(model, world));
  for (const one of world.sent) command(model, world, one, add, fault);
  for (const index of world.writes.keys()) write(model, world, index, add);
  ask(model, world, add, fault);
  for (const atMs of deadlines(model, world)) {
    // Time passes where the machine asked to be woken; a timer may be late, but none comes by itself.
    if (world.wakeAtMs <= atMs) add(`at ${atMs}`, wake(model, world, atMs));
  }
  return moves;
}

type Add = (name: string, to: World | null) => void;

/** Who promotes nobody has nothing more to do after the planned switch. */
export function isOver(model: Model, { asked, machine }: World): boolean {
  return model.setup.mode !== "self" && asked !== "no" && asked !== "open" && machine.job.kind === "none";
}

/** In more time than this all nodes are looked at again, ms. */
const ROUND_MS = 50;

function wake(model: Model, world: World, atMs: number): World {
  let now = world;
  if (atMs - world.nowMs > ROUND_MS) now = lookAtAll(model, { ...world, nowMs: atMs - 1 });
  return model.take({ ...now, nowMs: atMs, wakeAtMs: Number.POSITIVE_INFINITY }, { kind: "tick" });
}

function lookAtAll(model: Model, world: World): World {
  return [...world.nodes.keys()].reduce((seen, index) => model.probe(seen, index), world);
}

/** All the times that anything depends on, of those to come. */
export function deadlines(model: Model, world: World): readonly number[] {
  const { job, care, duty, outage } = world.machine;
  const times = [world.wakeAtMs];
  if (job.kind === "switchover") times.push(job.deadlineMs, job.deadlineMs + 2_000);
  if (job.kind === "promoting" && job.endedAtMs !== null) times.push(job.endedAtMs + 2_000);
  for (const { nextAtMs } of care.values()) times.push(nextAtMs);
  if (duty !== null) times.push(duty.untilMs);
  if (outage !== null) {
    times.push(
      goneAtMs(model.sight(world), outage, model.settings),
      outage.refusal?.untilMs ?? Number.NEGATIVE_INFINITY,
      ...outage.failed.values(),
    );
  }
  for (const { pausedUntilMs } of world.nodes) times.push(pausedUntilMs);
  return [...new Set(times.filter((time) => time > world.nowMs && Number.isFinite(time)))];
}

/** What only people can put right: nobody has the history any more, or somebody promoted behind our back. */
export function isForPeople({ nodes, belief, isMeddledWith }: World): boolean {
  const replid = belief.master?.replid;
  return isMeddledWith || !nodes.some((node) => node.replid === replid || node.replid2 === replid);
}

function withNode(world: World, index: number, change: Partial<MNode>): World {
  const nodes = world.nodes.map((node, i) => (i === index ? { ...node, ...change } : node));
  return { ...world, nodes: nodes.map((node) => unlinked(node, nodes)) };
}

/** A link to what is no fit master any more is down. */
function unlinked(node: MNode, nodes: readonly MNode[]): MNode {
  if (!node.link) return node;
  const master = nodes[node.of];
  const isWell = node.state !== "down" && master !== undefined && master.state !== "down";
  return isWell && master.replid === node.replid ? node : { ...node, link: false };
}

function isPaused(world: World, node: MNode): boolean {
  return node.handover !== null || node.pausedUntilMs > world.nowMs;
}

// What servers do by themselves

function serve(model: Model, world: World, index: number, add: Add, fault: Add): void {
  const node = world.nodes[index]!;
  if (node.state !== "up") return;
  const master = world.nodes[node.of];
  if (master?.state === "up" && node.handover === null) {
    if (node.link) {
      if (node.log !== master.log) add(`replicate ${index}`, withNode(world, index, { log: master.log }));
    } else if (master.of === -1 || (master.link && master.of !== index)) {
      add(`sync ${index}`, withNode(world, index, synced(node, master)));
    }
  }
  const { handover } = node;
  if (handover === null) return;
  const to = world.nodes[handover.to]!;
  if (handover.state === "waiting") {
    fault(`FAILOVER of ${index} times out`, withNode(world, index, { handover: null }));
    if (to.link && to.of === index && to.log === node.log) {
      const asked = { ...handover, state: "asked" } as const;
      add(`demotes itself ${index}`, withNode(world, index, { handover: asked, of: handover.to }));
    }
    return;
  }
  const back = withNode(world, index, { handover: null, of: -1 });
  fault(`FAILOVER of ${index} is refused`, back);
  if (to.state !== "up") return;
  if (to.replid !== node.replid || to.of === -1) return add(`FAILOVER of ${index} is rejected`, back);
  const promoted = withNode(world, handover.to, asMaster(model, to));
  add(`takes over ${handover.to}`, withNode(promoted, index, { handover: null }));
}

function synced(node: MNode, master: MNode): Partial<MNode> {
  const own = node.replid === master.replid && node.log.length <= master.log.length;
  const continued = node.replid === master.replid2 && node.log.length <= master.fork;
  const partly = continued ? { replid2: node.replid, fork: node.log.length } : {};
  const wholly = own || continued ? {} : { replid2: null, fork: 0 };
  return { ...partly, ...wholly, replid: master.replid, log: master.log, link: true };
}

function asMaster(model: Model, node: MNode): Partial<MNode> {
  if (node.of === -1) return {};
  const { replid, log } = node;
  return { of: -1, link: false, replid: model.nextReplid(), replid2: replid, fork: log.length };
}

// Faults, and their end

function disturb(model: Model, world: World, index: number, add: Add, fault: Add): void {
  const node = world.nodes[index]!;
  const disturbed: World = { ...world, isDisturbed: true };
  if (node.state === "up") {
    fault(`crash ${index}`, crash(model, disturbed, index));
    fault(`hang ${index}`, withNode(world, index, { state: "hung" }));
    if (node.of >= 0 && node.handover === null) {
      fault(
        `somebody promotes ${index}`,
        withNode({ ...disturbed, isMeddledWith: true }, index, asMaster(model, node)),
      );
    }
  }
  if (node.state === "hung") add(`wake ${index}`, withNode(world, index, { state: "up" }));
  if (node.cut) add(`heal ${index}`, withNode(world, index, { cut: false }));
  else fault(`cut ${index}`, withNode(world, index, { cut: true }));
  if (node.state !== "down") return;
  const again = { state: "up", life: node.life + 1, handover: null, pausedUntilMs: 0, link: false } as const;
  const replid = node.of >= 0 ? node.replid : model.nextReplid();
  const second = (fork: number) => (node.of >= 0 ? {} : { replid2: node.replid, fork });
  add(`restart ${index}`, withNode(world, index, { ...again, replid, ...second(node.log.length) }));
  const log = node.log.slice(0, -1);
  if (log !== "") {
    fault(`restart ${index} older`, withNode(world, index, { ...again, replid, log, ...second(log.length) }));
  }
  const empty = { log: "", replid: model.nextReplid(), replid2: null, fork: 0 };
  fault(`restart ${index} empty`, withNode(world, index, { ...again, ...empty }));
}

function crash(model: Model, before: World, index: number): World {
  let world = withNode(before, index, { state: "down", link: false, handover: null });
  const isOpen = (one: MWrite): boolean =>
    one.node === index && ["sent", "ran", "refused"].includes(one.stage);
  const hadWrites = world.writes.some(isOpen);
  const writes = world.writes.map((one) => (isOpen(one) ? ({ ...one, stage: "uncertain" } as const) : one));
  world = { ...world, writes, sent: world.sent.filter((one) => one.stage !== "late" || one.node !== index) };
  return hadWrites && model.masterOf(world) === index ? model.suspect(world, index) : world;
}

// Commands of the machine

function command(model: Model, world: World, one: Sent, add: Add, fault: Add): void {
  const node = world.nodes[one.node]!;
  const name = `${one.command.kind} on ${one.node}`;
  const others = world.sent.filter(({ id, stage }) => id !== one.id || stage !== one.stage);
  const ended = (from: World, result: CommandResult): World => {
    return model.take(from, { kind: "ended", id: one.id, result });
  };
  const { job } = world.machine;
  const isLonger = one.command.kind === "pause-writes" && !("command" in job && job.command === one.id);
  const isAside = one.command.kind === "acknowledge" || one.command.kind === "unpause" || isLonger;
  if (isAside) return add(name, ended(aside(model, { ...world, sent: others }, one), DONE));
  // Done and answered at one moment, or never: a reply that is lost is to the machine like one that is late,
  // which a replica that is cut off or hangs gives; and a link that is dropped late is one that was dropped.
  if (one.command.kind === "relink") {
    const result = node.state === "up" && !node.cut ? DONE : OVERDUE;
    return add(name, ended(aside(model, { ...world, sent: others }, one), result));
  }
  if (one.stage === "back") {
    add(`${name} ends`, ended({ ...world, sent: others }, one.result));
    return fault(`the reply to ${name} is lost`, ended({ ...world, sent: others }, OVERDUE));
  }
  const isUp = node.state === "up";
  if (one.stage === "late") {
    if (isUp) add(`${name} late`, carryOut(model, { ...world, sent: others }, one).world);
    return;
  }
  const late: World = { ...world, sent: [...others, { ...one, stage: "late" }] };
  if (node.state === "down") {
    const error = { kind: "unreachable", error: "refused" } as const;
    return add(`${name} reaches nobody`, ended({ ...world, sent: others }, error));
  }
  if (!isUp || node.cut) return add(`${name} is not answered`, ended(late, OVERDUE));
  fault(`${name} is delayed`, ended(late, OVERDUE));
  fault(`${name} is refused`, ended({ ...world, sent: others }, { kind: "refused", error: "NOPERM" }));
  const { world: after, result } = carryOut(model, { ...world, sent: others }, one);
  add(name, { ...after, sent: [...others, { ...one, stage: "back", result }] });
}

/** What nothing waits for: it is done and answered at once, or never. */
function aside(model: Model, world: World, one: Sent): World {
  const node = world.nodes[one.node];
  return node?.state === "up" && !node.cut ? carryOut(model, world, one).world : world;
}

function carryOut(model: Model, world: World, { node: index, command: asked }: Sent) {
  const node = world.nodes[index]!;
  const refused = (error: string) => ({ world, result: { kind: "refused", error } as const });
  const done = (change: Partial<MNode>) => ({ world: withNode(world, index, change), result: DONE });
  switch (asked.kind) {
    case "promote":
      return node.handover === null ? done(asMaster(model, node)) : refused("ERR failing over");
    case "follow": {
      const of = IDS.indexOf(asked.master);
      if (node.handover !== null) return refused("ERR failing over");
      return node.of === of ? done({}) : done({ of, link: false });
    }
    case "failover": {
      const to = IDS.indexOf(asked.to);
      const target = world.nodes[to];
      if (node.of >= 0 || node.handover !== null) return refused("ERR no master");
      if (target?.of !== index || !target.link) return refused("ERR no such replica");
      return done({ handover: { to, state: "waiting" } });
    }
    case "abort-failover":
      if (node.handover === null) return done({});
      return done({ handover: null, ...(node.handover.state === "asked" ? { of: -1 } : {}) });
    case "pause-writes":
      return done({ pausedUntilMs: Math.max(node.pausedUntilMs, world.nowMs + asked.forMs) });
    case "unpause":
      return done({ pausedUntilMs: 0 });
    case "relink":
      // Where the master lives it is there again at once; a hung one answers nobody.
      return node.of < 0 ? done({}) : done({ link: node.link && world.nodes[node.of]?.state === "up" });
    case "acknowledge":
    case "keep-role":
      return done({});
  }
}

// Writes of clients

function write(model: Model, world: World, index: number, add: Add): void {
  const one = world.writes[index]!;
  const set = (change: Partial<MWrite>, from = world): World => {
    return { ...from, writes: from.writes.map((old, i) => (i === index ? { ...old, ...change } : old)) };
  };
  const isFirst = world.writes
    .slice(0, index)
    .every(({ stage }) => stage === "acked" || stage === "uncertain");
  const node = world.nodes[one.node];
  switch (one.stage) {
    case "unsent": {
      const to = model.masterOf(world);
      if (!isFirst || !model.canWrite(world)) return;
      if (world.nodes[to]?.state === "down") return add(`${index} finds nobody`, model.suspect(world, to));
      return add(`send ${index}`, set({ stage: "sent", node: to }));
    }
    case "sent": {
      if (node?.state !== "up" || node.cut || isPaused(world, node)) return;
      if (node.of >= 0) return add(`${index} is refused`, set({ stage: "refused" }));
      if (node.log.includes(`${index}`)) model.found.violation(`write ${index} runs twice`);
      return add(
        `${index} runs`,
        set({ stage: "ran" }, withNode(world, one.node, { log: `${node.log}${index}` })),
      );
    }
    case "ran":
      return add(`${index} is answered`, set({ stage: "acked" }));
    case "refused": {
      const told = one.node === model.masterOf(world) ? model.suspect(world, one.node) : world;
      return add(`${index} is sent again`, set({ stage: "unsent", node: -1 }, told));
    }
    case "acked":
    case "uncertain":
      return;
  }
}

// What is asked for, and what is answered to the machine

function ask(model: Model, world: World, add: Add, fault: Add): void {
  const { setup } = model;
  if (setup.asks && world.asked === "no") {
    const askedIn = world.belief.epoch.number;
    const asked: World = { ...world, asked: "open", hasAsked: true, askedIn };
    const request = { to: null, timeoutMs: 100 };
    add("a switchover is asked for", model.take(asked, { kind: "asked", ticket: 1, request }));
  }
  if (world.isDrainAwaited) {
    const master = model.masterOf(world);
    const isOwing = world.writes.some(
      ({ stage, node }) => node === master && (stage === "sent" || stage === "ran" || stage === "refused"),
    );
    if (!isOwing) add("drained", model.take({ ...world, isDrainAwaited: false }, { kind: "drained" }));
  }
  if (world.isConfirming) {
    const free: World = { ...world, isConfirming: false };
    add("alone", model.take(free, { kind: "confirmed", standing: { kind: "sole" } }));
    const standing = { kind: "refused", reason: "another proxy" } as const;
    fault("not alone", model.take(free, { kind: "confirmed", standing }));
    fault("the leases change", model.take(world, { kind: "standing", standing }));
  }
  if (model.setup.mode === "self" && world.machine.standing.kind === "refused") {
    add("the leases allow it", model.take(world, { kind: "standing", standing: { kind: "sole" } }));
  }
  askSentinel(model, world, add, fault);
}

function askSentinel(model: Model, world: World, add: Add, fault: Add): void {
  const { sentinel } = world;
  if (sentinel === null) return;
  const answered = (from: World, result: CommandResult): World => {
    return model.take(from, { kind: "ended", id: sentinel.id, result });
  };
  switch (sentinel.stage) {
    case "way":
      add("Sentinel is asked", answered({ ...world, sentinel: { ...sentinel, stage: "later" } }, DONE));
      return fault(
        "Sentinel refuses",
        answered({ ...world, sentinel: null }, { kind: "refused", error: "NOGOODSLAVE" }),
      );
    case "later":
      for (const [index, node] of world.nodes.entries()) {
        if (node.state !== "up" || node.of < 0 || node.handover !== null) continue;
        const promoted = withNode(world, index, asMaster(model, node));
        add(`Sentinel promotes ${index}`, { ...promoted, sentinel: null });
      }
      return;
    case "back":
      return;
  }
}
