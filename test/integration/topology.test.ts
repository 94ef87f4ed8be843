import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/clock.ts";
import { parseNodeId } from "../../src/topology/address.ts";
import type { Epoch, NodeId } from "../../src/topology/epoch.ts";
import { createProbeFactory } from "../../src/topology/probe.ts";
import type { NodeFacts, ProbeOutcome } from "../../src/topology/probing.ts";
import type { Problem } from "../../src/topology/rules/model.ts";
import { type SwitchFacts, Watcher } from "../../src/topology/watcher.ts";
import { freePort } from "../support/ports.ts";
import { type RedisServer, startGroup, startRedis } from "../support/redis.ts";
import { sleep, until } from "../support/wait.ts";

const INTERVAL_MS = 100;
const TIMEOUT_MS = 1_000;

interface Watched {
  readonly watcher: Watcher;
  readonly epochs: { readonly epoch: Epoch; readonly atMs: number }[];
  readonly switches: SwitchFacts[];
  readonly returns: SwitchFacts[];
  readonly problems: string[];
  readonly facts: NodeFacts[];
}

const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function idOf(server: RedisServer): NodeId {
  return parseNodeId(server.address)!;
}

function watch(seeds: readonly NodeId[], login: { username?: string; password?: string } = {}): Watched {
  const watched: Omit<Watched, "watcher"> = {
    epochs: [],
    switches: [],
    returns: [],
    problems: [],
    facts: [],
  };
  const note = (problem: Problem, change: string) => {
    // That says something of the machine that the tests run on.
    if (problem.kind === "stalled") return;
    watched.problems.push(`${change} ${problem.kind} ${problem.node ?? ""}`.trim());
  };
  const watcher = new Watcher(
    { seeds, intervalMs: INTERVAL_MS, timeoutMs: TIMEOUT_MS, maxLagMs: 10_000 },
    {
      onEpoch: (epoch) => watched.epochs.push({ epoch, atMs: performance.now() }),
      onSwitch: (facts) => watched.switches.push(facts),
      onReturn: (facts) => watched.returns.push(facts),
      onProblem: note,
      onFacts: (facts) => watched.facts.push(facts),
    },
    {
      clock: systemClock,
      createProbe: createProbeFactory({ timeoutMs: TIMEOUT_MS, clock: systemClock, ...login }),
    },
  );
  cleanups.push(() => watcher.close());
  watcher.start();
  return { watcher, ...watched };
}

async function groupOf(replicas: number, args: readonly string[] = []) {
  const group = await startGroup(replicas, { args });
  cleanups.push(group.close);
  return group;
}

async function untilWritable(watched: Watched, master: NodeId, readers: number): Promise<void> {
  await until(
    () => {
      const { master: now, holdCause, readable } = watched.watcher.current();
      return now === master && holdCause === null && readable.length === readers;
    },
    { what: `${master} as master with ${readers} readers` },
  );
}

/** How long the slowest of our own questions to a server takes while something is so, ms. */
async function slowestWhile(server: RedisServer, isSo: () => boolean): Promise<number> {
  const endMs = performance.now() + 10_000;
  let slowestMs = 0;
  while (isSo()) {
    const askedAtMs = performance.now();
    await server.cli("PING");
    slowestMs = Math.max(slowestMs, performance.now() - askedAtMs);
    if (performance.now() > endMs) throw new Error("it stays so");
  }
  return slowestMs;
}

describe("finding the group", () => {
  it("finds master, replicas, their facts, and what was not configured", async () => {
    const group = await groupOf(2);
    const watched = watch([idOf(group.replica(0))]);
    await untilWritable(watched, idOf(group.master), 2);
    expect(watched.switches).toHaveLength(1);
    expect(watched.switches[0]).toMatchObject({ epochNumber: 1, from: null, reason: "first", lostBytes: 0 });
    await until(() => watched.facts.length === 3, { what: "facts of three nodes" });
    for (const facts of watched.facts) {
      expect(facts.server).toBe("redis");
      expect(facts.version).toMatch(/^\d+\.\d+\.\d+$/);
      const commands = facts.commands as unknown[][];
      expect(commands.find(([name]) => name === "get")?.slice(1, 6)).toEqual([2, expect.any(Array), 1, 1, 1]);
    }
    await until(() => watched.watcher.current().readable.every((node) => node.provenAtMs > 0));
    expect(watched.problems).toEqual([]);
  });

  it("knows a node by two addresses as one", async () => {
    const group = await groupOf(1);
    const watched = watch([`localhost:${group.master.port}` as NodeId, idOf(group.master)]);
    await untilWritable(watched, `localhost:${group.master.port}` as NodeId, 1);
    const second = watched.watcher.nodes().find(({ id }) => id === idOf(group.master));
    expect(second).toMatchObject({ aliasOf: `localhost:${group.master.port}`, fit: "alias" });
    expect(watched.problems).toEqual([]);
  });

  it("logs in where a password is required, and names the problem where the password is wrong", async () => {
    const server = await startRedis({ args: ["--requirepass", "secret"] });
    cleanups.push(() => server.close());
    const right = watch([idOf(server)], { password: "secret" });
    await untilWritable(right, idOf(server), 0);
    const wrong = watch([idOf(server)], { password: "guess" });
    const none = watch([idOf(server)]);
    for (const watched of [wrong, none]) {
      await until(() => watched.problems.includes(`raised probe-no-access ${idOf(server)}`));
      expect(watched.watcher.current()).toMatchObject({ number: 0, holdCause: "no-master-yet" });
    }
  });

  it("names the problem where its user may not run INFO, and goes on when it may", async () => {
    const server = await startRedis();
    cleanups.push(() => server.close());
    await server.cli("ACL", "SETUSER", "watch", "on", ">pw", "+client", "+hello");
    const watched = watch([idOf(server)], { username: "watch", password: "pw" });
    await until(() => watched.problems.includes(`raised probe-no-access ${idOf(server)}`));
    await server.cli("ACL", "SETUSER", "watch", "+info");
    await untilWritable(watched, idOf(server), 0);
    expect(watched.problems).toContain(`cleared probe-no-access ${idOf(server)}`);
    // COMMAND stays refused: then there is no table to learn, and that is all.
    await until(() => watched.facts.length === 1);
    expect(watched.facts[0]).toMatchObject({ server: "redis", commands: null });
  });
});

describe("following a promotion", () => {
  it("sees SLAVEOF NO ONE within milliseconds when the master is dead (12)", async () => {
    const group = await groupOf(2);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, idOf(group.master), 2);
    await group.master.kill("SIGKILL");
    await until(() => watched.watcher.current().holdCause === "connection-lost");
    // Reads go on: the links of the replicas are down, and what they have is still there (6).
    await until(async () => (await group.replica(0).info()).get("master_link_status") === "down");
    await sleep(2 * INTERVAL_MS);
    expect(watched.watcher.current().readable).toHaveLength(2);

    await group.replica(0).promote();
    const promotedAtMs = performance.now();
    const noiseMs = await slowestWhile(group.replica(0), () => watched.switches.length < 2);
    const seen = watched.epochs.find(({ epoch }) => epoch.number === 2)!;
    // 25 ms on a free machine; the unit test of the watcher proves that number with a clock of its own.
    expect(seen.atMs - promotedAtMs).toBeLessThan(75 + noiseMs);
    expect(watched.switches[1]).toMatchObject({
      epochNumber: 2,
      from: idOf(group.master),
      to: idOf(group.replica(0)),
      reason: "promoted",
      lostBytes: 0,
    });
    await group.replica(1).replicaOf(group.replica(0));
    await untilWritable(watched, idOf(group.replica(0)), 1);
    expect(watched.watcher.current().number).toBe(2);
  });

  it("sees a promotion while the old master lives on, and refuses that until it synced (40)", async () => {
    const group = await groupOf(2);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, idOf(group.master), 2);
    await group.replica(0).promote();
    const promotedAtMs = performance.now();
    const noiseMs = await slowestWhile(group.replica(0), () => watched.watcher.current().number !== 2);
    expect(performance.now() - promotedAtMs).toBeLessThan(2 * INTERVAL_MS + 2 * noiseMs);
    await group.master.cli("SET", "stray", "1");
    await until(() => watched.problems.includes(`raised claimant-refused ${idOf(group.master)}`));
    expect(watched.watcher.current().readable).toEqual([]);

    await group.master.replicaOf(group.replica(0));
    // The other replica was left behind the old master and now is a replica of a replica (49).
    await untilWritable(watched, idOf(group.replica(0)), 2);
    expect(watched.watcher.current().readable.map(({ id }) => id)).toContain(idOf(group.master));
    expect(watched.problems).toContain(`cleared claimant-refused ${idOf(group.master)}`);
    // Restarted as a master by mistake, it is refused again, whatever it says.
    await group.master.restart();
    await until(
      () =>
        watched.problems.filter((text) => text === `raised claimant-refused ${idOf(group.master)}`).length >
        1,
    );
    expect(watched.watcher.current()).toMatchObject({
      number: 2,
      master: idOf(group.replica(0)),
      holdCause: null,
    });
  });

  it("follows FAILOVER without an alarm and counts no loss (37)", async () => {
    const group = await groupOf(2);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, idOf(group.master), 2);
    // Refused until the master itself counts the target as online.
    const failover = ["FAILOVER", "TO", "127.0.0.1", String(group.replica(0).port)];
    await until(async () => (await group.master.cli(...failover)) === "OK", { what: "FAILOVER accepted" });
    await until(() => watched.watcher.current().number === 2);
    expect(watched.switches[1]).toMatchObject({ to: idOf(group.replica(0)), lostBytes: 0 });
    await until(() => watched.watcher.current().readable.some(({ id }) => id === idOf(group.master)));
    expect(watched.problems).toEqual([]);
  });

  it("takes the end of a chain of promotions while the old master hangs (39)", async () => {
    const group = await groupOf(2);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, idOf(group.master), 2);
    // Whether the probes see each promotion or only the end of the chain is up to chance here.
    await group.master.kill("SIGSTOP");
    cleanups.push(async () => group.master.kill("SIGCONT"));
    await until(() => watched.watcher.current().holdCause === "silent");
    await group.replica(0).promote();
    await group.replica(1).replicaOf(group.replica(0));
    await group.replica(1).untilLinkUp();
    await group.replica(1).promote();
    await until(() => watched.watcher.current().master === idOf(group.replica(1)));
    expect(watched.watcher.current().holdCause).toBeNull();
  });
});

describe("the same master again", () => {
  it("holds while the master hangs, never switches for it, and goes on when it wakes", async () => {
    const group = await groupOf(1);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, idOf(group.master), 1);
    await group.master.kill("SIGSTOP");
    await until(() => watched.watcher.current().holdCause === "silent");
    expect(watched.watcher.current().readable).toHaveLength(1);
    await group.master.kill("SIGCONT");
    await untilWritable(watched, idOf(group.master), 1);
    expect(watched.switches).toHaveLength(1);
    expect(watched.returns).toEqual([]);
  });

  it("takes a master that restarted with all its data as the same one (13)", async () => {
    const group = await groupOf(1, ["--save", "3600", "1"]);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, idOf(group.master), 1);
    await group.master.cli("SET", "a", "1");
    await group.master.kill("SIGTERM");
    await until(() => watched.watcher.current().holdCause === "connection-lost");
    await group.master.restart();
    await untilWritable(watched, idOf(group.master), 1);
    expect(watched.switches).toHaveLength(1);
    expect(watched.returns).toHaveLength(1);
    expect(watched.returns[0]).toMatchObject({ epochNumber: 1, reason: "restarted", lostBytes: 0 });
  });

  it("refuses a master that restarted empty, and emptied its replicas, until adopted (41)", async () => {
    const group = await groupOf(2);
    const master = idOf(group.master);
    await group.master.cli("SET", "a", "1");
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, master, 2);
    await group.master.restart();
    await until(() => watched.problems.includes(`raised history-refused ${master}`));
    for (const replica of group.replicas) await replica.untilLinkUp();
    await sleep(5 * INTERVAL_MS);
    expect(watched.watcher.current()).toMatchObject({ number: 1, master, holdCause: "history-refused" });
    expect(watched.watcher.adopt(idOf(group.replica(0)))).toEqual({ ok: false, reason: "not-a-master" });
    expect(watched.watcher.adopt(master)).toEqual({ ok: true });
    await untilWritable(watched, master, 2);
    expect(watched.returns[0]).toMatchObject({ epochNumber: 1, reason: "operator", lostBytes: null });
  });

  it("takes an AOF restart, whose history is not provable, when no replica has more keys (13)", async () => {
    const group = await groupOf(1, ["--appendonly", "yes", "--appendfsync", "always"]);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, idOf(group.master), 1);
    await group.master.cli("SET", "a", "1");
    await group.master.restart();
    await untilWritable(watched, idOf(group.master), 1);
    // With its first replica it takes another replication id once more (replication.c, syncCommand).
    await until(() => watched.returns.length === 2);
    expect(watched.returns).toMatchObject([
      { reason: "reloaded", lostBytes: null },
      { reason: "renamed", lostBytes: 0 },
    ]);
  });
});

describe("evidence", () => {
  it("holds at once and goes on when a later probe verifies the master (13)", async () => {
    const group = await groupOf(1);
    const master = idOf(group.master);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, master, 1);
    const startedAtMs = performance.now();
    watched.watcher.evidence({ kind: "connection-lost", node: master, epoch: 1 });
    expect(watched.watcher.current().holdCause).toBe("connection-lost");
    const noiseMs = await slowestWhile(group.master, () => watched.watcher.current().holdCause !== null);
    expect(performance.now() - startedAtMs).toBeLessThan(INTERVAL_MS + 2 * noiseMs);

    const replica = idOf(group.replica(0));
    watched.watcher.evidence({ kind: "connection-lost", node: replica, epoch: 1 });
    expect(watched.watcher.current().readable).toEqual([]);
    await until(() => watched.watcher.current().readable.length === 1, { everyMs: 1 });
  });

  it("dials a replica anew after it was away, and reads from it when it has synced (47)", async () => {
    const group = await groupOf(1);
    const watched = watch(group.all.map(idOf));
    await untilWritable(watched, idOf(group.master), 1);
    await group.replica(0).kill("SIGKILL");
    await until(() => watched.watcher.current().readable.length === 0);
    await group.replica(0).restart(["--replicaof", `127.0.0.1 ${group.master.port}`]);
    await untilWritable(watched, idOf(group.master), 1);
    expect(watched.switches).toHaveLength(1);
  });
});

describe("a probe", () => {
  /** A listener that treats each connection its own way. */
  async function listen(onConnection: (socket: net.Socket) => void): Promise<NodeId> {
    const sockets = new Set<net.Socket>();
    const server = net.createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
      onConnection(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    cleanups.push(async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    });
    return `127.0.0.1:${(server.address() as net.AddressInfo).port}` as NodeId;
  }

  function ask(node: NodeId): Promise<ProbeOutcome> {
    const create = createProbeFactory({ timeoutMs: 1_500, clock: systemClock });
    const probe = create(node, { onFacts: () => {}, onClosed: () => {} });
    cleanups.push(async () => probe.close());
    return new Promise((resolve) => probe.probe(true, resolve));
  }

  const answers = (text: string) => (socket: net.Socket) => socket.on("data", () => socket.write(text));

  it.each<[string, string, (socket: net.Socket) => void]>([
    ["timeout", "accepts and never answers", () => {}],
    ["closed", "accepts and hangs up", (socket) => socket.end()],
    [
      "closed",
      "resets in the middle of an answer",
      (socket) => {
        socket.once("data", () => socket.write("+OK\r\n$100\r\nrole:", () => socket.resetAndDestroy()));
      },
    ],
    ["closed", "does not speak RESP", answers("HTTP/1.1 400 Bad Request\r\n\r\n")],
    ["nonsense", "answers INFO with something else", answers(":1\r\n".repeat(9))],
    ["nonsense", "answers INFO with nothing of a node", answers("$3\r\nfoo\r\n".repeat(9))],
    ["busy", "runs a script", answers("-BUSY Redis is busy running a script.\r\n".repeat(9))],
    ["loading", "refuses INFO while it loads", answers("-LOADING Redis is loading\r\n".repeat(9))],
    [
      "no-access",
      "is in protected mode",
      answers("-DENIED Redis is running in protected mode\r\n".repeat(9)),
    ],
  ])("is answered %s by a node that %s", async (kind, _, behaviour) => {
    expect(await ask(await listen(behaviour))).toMatchObject({ ok: false, kind });
  });

  it("is answered unreachable where nobody listens or the name does not exist", async () => {
    const port = await freePort();
    expect(await ask(`127.0.0.1:${port}` as NodeId)).toMatchObject({
      kind: "unreachable",
      detail: expect.stringContaining("ECONNREFUSED"),
    });
    const unknown = await ask("no-such-host.invalid:6379" as NodeId);
    expect(["unreachable", "timeout"]).toContain(unknown.ok ? "" : unknown.kind);
  });

  it("dials anew after a time-out, so that a black hole ends", async () => {
    let isHole = true;
    const server = await startRedis();
    cleanups.push(() => server.close());
    let dials = 0;
    const node = await listen((socket) => {
      dials++;
      if (isHole) return;
      const upstream = net.connect(server.port, server.host);
      upstream.on("error", () => {});
      socket.pipe(upstream).pipe(socket);
      socket.on("close", () => upstream.destroy());
    });
    const watched = watch([node]);
    await until(() => watched.watcher.nodes()[0]?.contact === "silent");
    isHole = false;
    await untilWritable(watched, node, 0);
    expect(dials).toBeGreaterThan(1);
  });
});
