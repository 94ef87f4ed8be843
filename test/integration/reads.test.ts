/** Where reads go, what they see there, and what becomes of them when a replica is not what it was. */
import { afterEach, describe, expect, it } from "vitest";
import { RawClient } from "../support/client.ts";
import { type ChaosLink, layLink } from "../support/link.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import type { Reply } from "../support/resp.ts";
import {
  calls,
  expectNoticedNothing,
  report as figure,
  offsetOf,
  resetCalls,
  Stage,
  type StageOptions,
} from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";
import { startWorkload, type Workload } from "../support/workload.ts";

let stage: Stage;
const cleanups: (() => Promise<unknown>)[] = [];

/** Where shares are counted: a node that a busy machine makes late for a while keeps its own. */
const EVEN: ConfigObject = { slowAfter: 0 };

async function setUp(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open(options);
}

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await stage?.close();
});

/** A group whose first replica gets its replication through a link that can be stalled or cut. */
async function setUpLinked(options: StageOptions = {}): Promise<ChaosLink> {
  let link!: ChaosLink;
  await setUp({
    ...options,
    before: async (group) => {
      link = await layLink(group.master, group.replica(0));
      await untilStreaming(group.master, group.replica(0));
      return group.addresses;
    },
  });
  cleanups.push(() => link.close());
  return link;
}

async function untilStreaming(master: RedisServer, replica: RedisServer): Promise<void> {
  await until(async () => {
    await master.cli("PUBLISH", "nobody", "something to replicate");
    return (await offsetOf(replica)) === (await offsetOf(master));
  });
}

/** Readers only, of keys that exist. */
async function startReaders(count = 6): Promise<Workload> {
  const load = await startWorkload({
    port: stage.proxy.port,
    readers: count,
    writers: 1,
    ownReaders: 0,
    pipeliners: 0,
    transactions: 0,
    paceMs: 1,
  });
  cleanups.push(() => load.stop());
  await until(() => load.report().kinds.reader.count > 20 && load.report().kinds.writer.count > 5);
  load.resetGaps();
  return load;
}

/** How many of `count` GETs of each client arrive at each server. */
async function spread(clients: readonly RawClient[], count = 10): Promise<Map<RedisServer, number>> {
  await resetCalls(...stage.group.all);
  for (let i = 0; i < count; i++) for (const client of clients) await client.command("GET", "k");
  const counts = new Map<RedisServer, number>();
  for (const server of stage.group.all) counts.set(server, await calls(server, "get"));
  return counts;
}

async function untilFit(server: RedisServer, fit: 0 | 1, reason?: string): Promise<void> {
  let last: unknown;
  const isSo = async () => {
    const node = await stage.node(server);
    last = node.reason;
    return node.fit === fit && (reason === undefined || node.reason === reason);
  };
  await until(isSo, { what: `${server.address}: fit ${fit} ${reason ?? ""}`, everyMs: 5 }).catch((error) => {
    throw new Error(`${(error as Error).message}, but ${String(last)}`);
  });
}

describe("where reads go", () => {
  it("sessions are spread over both replicas, each stays on its own, the master gets none (6)", async () => {
    await setUp({ config: { reads: EVEN } });
    const clients = await stage.clients(6);
    const counts = await spread(clients);
    expect(counts.get(stage.master)).toBe(0);
    expect(counts.get(stage.replica(0))).toBeGreaterThanOrEqual(10);
    expect(counts.get(stage.replica(1))).toBe(60 - (counts.get(stage.replica(0)) ?? 0));
    expect(counts.get(stage.replica(1))).toBeGreaterThanOrEqual(10);
    await resetCalls(...stage.group.all);
    for (let i = 0; i < 10; i++) await clients[0]!.command("GET", "k");
    const one = [await calls(stage.replica(0), "get"), await calls(stage.replica(1), "get")];
    expect(
      one.sort((a, b) => a - b),
      "one session, one replica",
    ).toEqual([0, 10]);
  });

  it("reads.from master: replicas get none; without a master reads wait like writes (6)", async () => {
    await setUp({ config: { reads: { from: "master" } }, readable: 2 });
    const clients = await stage.clients(4);
    const counts = await spread(clients, 5);
    expect(counts.get(stage.master)).toBe(20);
    expect((counts.get(stage.replica(0)) ?? 0) + (counts.get(stage.replica(1)) ?? 0)).toBe(0);
    await stage.master.kill("SIGKILL");
    const read = clients[0]!.command("GET", "k");
    await stage.untilHeld();
    await stage.replica(0).promote();
    expect(await read).toBeNull();
  });

  it("reads.from any: master and replicas share them (6)", async () => {
    await setUp({ config: { reads: { ...EVEN, from: "any" } } });
    const counts = await spread(await stage.clients(18), 5);
    for (const server of stage.group.all)
      expect(counts.get(server), server.address).toBeGreaterThanOrEqual(10);
  });

  it("a replica that joins is found through the master and read without being configured (6)", async () => {
    await setUp({ replicas: 1 });
    // Each of them moves or stays by lot: that none moves happens once in 2 ** 24 runs.
    const load = await startReaders(24);
    const newcomer = await startRedis();
    cleanups.push(() => newcomer.close());
    await newcomer.replicaOf(stage.master);
    await stage.untilReadable(2);
    expect(await stage.node(newcomer)).toMatchObject({ role: "replica", fit: 1 });
    await until(async () => (await calls(newcomer, "get")) > 20, { what: "reads of the newcomer" });
    expectNoticedNothing(await load.stop());
  });

  it("without any replica left the master serves the reads, and gives them back (3, 47)", async () => {
    await setUp({ replicas: 1 });
    const load = await startReaders();
    await stage.replica(0).kill("SIGKILL");
    await stage.untilReadable(0);
    await until(async () => (await calls(stage.master, "get")) > 20, { what: "reads of the master" });
    await stage.replica(0).restart(["--replicaof", "127.0.0.1", `${stage.master.port}`]);
    await stage.untilReadable(1);
    await until(async () => (await calls(stage.replica(0), "get")) > 20, { what: "reads of the replica" });
    const report = await load.stop();
    expectNoticedNothing(report);
    expect(report.kinds.reader.longestGapMs).toBeLessThan(1_000);
  });
});

describe("what a read sees", () => {
  it("session: own writes at once, though the replica lags; others may see the past (7)", async () => {
    const link = await setUpLinked({ replicas: 1 });
    const [writer, other] = (await stage.clients(2)) as [RawClient, RawClient];
    expect(await writer.command("INCR", "n")).toBe(1);
    await until(async () => (await other.command("GET", "n")) === "1");
    await stage.untilFresh(writer, "n");
    link.stall();
    await resetCalls(...stage.group.all);
    for (let i = 2; i <= 200; i++) {
      expect(await writer.command("INCR", "n")).toBe(i);
      expect(await writer.command("GET", "n")).toBe(String(i));
    }
    expect(await stage.replica(0).cli("GET", "n"), "the replica really lags").toBe("1");
    expect(await calls(stage.master, "get")).toBe(199);
    expect(await stage.proxy.metric("holdfast_freshness_reads_total")).toBeGreaterThanOrEqual(199);
    // Who has written nothing reads what the replica has.
    expect(await other.command("GET", "n")).toBe("1");
    // A pipeline does not overtake itself either.
    const replies = await writer.pipeline([
      ["SET", "p", "x"],
      ["GET", "p"],
      ["SET", "p", "y"],
      ["GET", "p"],
    ]);
    expect(replies).toEqual(["OK", "x", "OK", "y"]);
    link.resume();
    await stage.untilFresh(writer, "n");
    const isBack = async (): Promise<boolean> => {
      await resetCalls(...stage.group.all);
      expect(await writer.command("GET", "n")).toBe("200");
      return (await calls(stage.master, "get")) === 0;
    };
    await until(isBack, { what: "it reading from the replica again, which has caught up", everyMs: 30 });
  });

  it("eventual: reads stay on the replica and may be old; strong: all go to the master (7)", async () => {
    const link = await setUpLinked({ replicas: 1, config: { reads: { consistency: "eventual" } } });
    const client = await stage.client();
    expect(await client.command("SET", "n", "1")).toBe("OK");
    await until(async () => (await stage.replica(0).cli("GET", "n")) === "1");
    link.stall();
    expect(await client.command("SET", "n", "2")).toBe("OK");
    expect(await client.command("GET", "n")).toBe("1");
    link.resume();
    await until(async () => (await client.command("GET", "n")) === "2");
    await stage.close();
    cleanups.length = 0;

    await setUp({ replicas: 1, config: { reads: { consistency: "strong" } } });
    const clients = await stage.clients(3);
    const counts = await spread(clients, 5);
    expect(counts.get(stage.master)).toBe(15);
    expect(counts.get(stage.replica(0))).toBe(0);
  });

  it("monotonic: what a client has read it does not un-read, while replicas freeze, stop and change (7, 49)", async () => {
    const link = await setUpLinked();
    const readers = await stage.clients(6);
    const writer = await stage.client();
    let going = true;
    let highest = 0;
    let reads = 0;
    const backwards: string[] = [];
    const write = async () => {
      while (going) {
        highest = Number(await writer.command("INCR", "n"));
        await sleep(1);
      }
    };
    const read = async (client: RawClient, id: number) => {
      let last = 0;
      while (going) {
        const value = Number((await client.command("GET", "n")) ?? 0);
        if (!(value >= last)) backwards.push(`reader ${id}: ${value} after ${last}`);
        last = Math.max(last, value);
        reads++;
        await sleep(1);
      }
    };
    const all = Promise.all([write(), ...readers.map(read)]);
    await until(() => highest > 50);
    // The first replica stays behind, then the second one stands still: its readers have to go elsewhere.
    link.stall();
    await until(() => highest > 150);
    const behind = Number(await stage.replica(0).cli("GET", "n"));
    expect(behind).toBeLessThan(highest);
    await stage.replica(1).kill("SIGKILL");
    await stage.untilReadable(1);
    const readsThen = reads;
    const highestThen = highest;
    await until(() => highest > highestThen + 100 && reads > readsThen + 200);
    expect(Number(await stage.replica(0).cli("GET", "n")), "still behind").toBe(behind);
    link.resume();
    await stage.replica(1).restart(["--replicaof", "127.0.0.1", `${stage.master.port}`]);
    await stage.untilReadable(2);
    const readsLater = reads;
    await until(() => reads > readsLater + 200);
    going = false;
    await all;
    expect(backwards).toEqual([]);
  });

  it("replicas left chained to the old master: reads go on, and never back in time (49)", async () => {
    await setUp();
    const [r1, r2] = stage.group.replicas as [RedisServer, RedisServer];
    // Whether one of them reads from the chained replica is drawn by lot twice.
    const readers = await stage.clients(32);
    const writer = await stage.client();
    expect(await writer.command("INCR", "n")).toBe(1);
    let going = true;
    let reads = 0;
    const backwards: string[] = [];
    const read = async (client: RawClient, id: number) => {
      let last = 0;
      while (going) {
        const reply: Reply = await client.command("GET", "n");
        const value = Number(reply ?? 0);
        if (!(value >= last)) backwards.push(`reader ${id}: ${String(reply)} after ${last}`);
        last = Math.max(last, value);
        reads++;
        await sleep(1);
      }
    };
    const all = Promise.all(readers.map(read));
    await r1.untilCaughtUp(stage.master);
    await stage.master.replicaOf(r1);
    await r1.promote();
    await stage.untilMaster(r1);
    await stage.untilReadable(2);
    // r1 → old master → r2, and the last one is read, with what is written to the first.
    expect((await r2.info()).get("master_port")).toBe(String(stage.master.port));
    for (let i = 2; i <= 100; i++) expect(await writer.command("INCR", "n")).toBe(i);
    await until(async () => (await r2.cli("GET", "n")) === "100", { what: "the chain passing writes on" });
    const before = await calls(r2, "get");
    await until(async () => (await calls(r2, "get")) > before + 20, { what: "reads of the chained replica" });
    going = false;
    await all;
    expect(backwards).toEqual([]);
    expect(reads).toBeGreaterThan(100);
  });
});

describe("a replica that is not what it was", () => {
  it("that loses its link to the master is not read, and is read again when it has it back (47)", async () => {
    const link = await setUpLinked();
    const load = await startReaders();
    await link.refuse();
    link.cut();
    await untilFit(stage.replica(0), 0, "link-down");
    await resetCalls(...stage.group.all);
    const readsBefore = load.report().kinds.reader.count;
    await until(() => load.report().kinds.reader.count > readsBefore + 100);
    expect(await calls(stage.replica(0), "get")).toBe(0);
    expect(await calls(stage.replica(1), "get")).toBeGreaterThan(0);
    await link.accept();
    await untilFit(stage.replica(0), 1);
    await until(async () => (await calls(stage.replica(0), "get")) > 20, { what: "reads again" });
    expectNoticedNothing(await load.stop());
  });

  it("that lags more than reads.maxLag is not read until it has caught up (47)", async () => {
    const link = await setUpLinked({ config: { reads: { maxLag: "300ms" } } });
    const load = await startReaders();
    link.stall();
    await untilFit(stage.replica(0), 0, "lagging-time");
    expect((await stage.replica(0).info()).get("master_link_status"), "though its link is up").toBe("up");
    expect(Number((await stage.node(stage.replica(0))).lag_ms)).toBeGreaterThanOrEqual(300);
    await resetCalls(...stage.group.all);
    const readsBefore = load.report().kinds.reader.count;
    await until(() => load.report().kinds.reader.count > readsBefore + 100);
    expect(await calls(stage.replica(0), "get")).toBe(0);
    link.resume();
    await untilFit(stage.replica(0), 1);
    await until(async () => (await calls(stage.replica(0), "get")) > 20, { what: "reads again" });
    const report = await load.stop();
    expectNoticedNothing(report);
    expect(report.kinds.reader.longestGapMs).toBeLessThan(1_000);
  });

  it("that resyncs from scratch is not read before it has everything (47)", async () => {
    await setUp();
    const client = await stage.client();
    for (let i = 0; i < 200; i++) expect(await client.command("SET", `k${i}`, "value")).toBe("OK");
    const load = await startReaders();
    // A snapshot that takes two seconds, and a replica that has to have one: the history has another name.
    await stage.master.cli("CONFIG", "SET", "rdb-key-save-delay", 10_000);
    const port = String(stage.master.port);
    const direct = await RawClient.connect({ port: stage.replica(0).port });
    await direct.pipeline([
      ["MULTI"],
      ["REPLICAOF", "NO", "ONE"],
      ["REPLICAOF", "127.0.0.1", port],
      ["EXEC"],
    ]);
    direct.close();
    const syncing = async () => (await stage.replica(0).info()).get("master_sync_in_progress") === "1";
    await until(syncing, { what: "the replica syncing", everyMs: 5 });
    await untilFit(stage.replica(0), 0);
    await resetCalls(stage.replica(0));
    const readsBefore = load.report().kinds.reader.count;
    await until(() => load.report().kinds.reader.count > readsBefore + 50);
    expect(await syncing(), "still").toBe(true);
    expect(await calls(stage.replica(0), "get")).toBe(0);
    await stage.replica(0).untilLinkUp();
    await untilFit(stage.replica(0), 1);
    await until(async () => (await calls(stage.replica(0), "get")) > 20, { what: "reads again" });
    expectNoticedNothing(await load.stop());
  });

  it("that starts again and loads is not read before it is done, and nobody sees LOADING (9, 47)", async () => {
    await setUp({ redis: { args: ["--save", "3600", "1"] } });
    const client = await stage.client();
    for (let i = 0; i < 300; i++) await client.command("SET", `k${i}`, "x".repeat(2_000));
    const [, second] = stage.group.replicas as [RedisServer, RedisServer];
    await second.untilCaughtUp(stage.master);
    const readers = await stage.clients(8);
    let going = true;
    const wrong: Reply[] = [];
    let reads = 0;
    const all = Promise.all(
      readers.map(async (reader) => {
        while (going) {
          const reply = await reader.command("GET", `k${reads % 300}`);
          if (reply !== "x".repeat(2_000)) wrong.push(reply);
          reads++;
          await sleep(1);
        }
      }),
    );
    await second.cli("SHUTDOWN", "SAVE").catch(() => undefined);
    await until(() => !second.running);
    const slowly = ["--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024"];
    const replicaof = ["--replicaof", "127.0.0.1", `${stage.master.port}`];
    const restarted = second.restart(["--save", "3600", "1", ...slowly, ...replicaof]);
    await until(async () => (await stage.node(second)).reason === "loading", {
      what: "it loading",
      everyMs: 2,
    });
    expect(await stage.node(second)).toMatchObject({ fit: 0 });
    const readsBefore = reads;
    await until(() => reads > readsBefore + 50);
    await restarted;
    await stage.untilReadable(2);
    await until(async () => (await calls(second, "get")) > 20, { what: "reads of the restarted replica" });
    going = false;
    await all;
    expect(wrong).toEqual([]);
  });

  it("that stands still: its readers move on within the probe time-out, and nothing is doubled afterwards (3, 4)", async () => {
    const timeoutMs = 300;
    await setUp({ config: { probe: { timeout: `${timeoutMs}ms` } } });
    expect(await stage.master.cli("SET", "k", "v")).toBe("OK");
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    const clients = await stage.clients(6);
    for (const client of clients) expect(await client.command("GET", "k")).toBe("v");
    const sent = await stage.sentTo(stage.replica(0));
    // Asked in the same moment: whatever comes between would be time in which it is found out.
    process.kill(stage.replica(0).pid, "SIGSTOP");
    const startedAtMs = performance.now();
    const tookMs: number[] = [];
    const replies = clients.map(async (client, i) => {
      const got = await client.pipeline([
        ["GET", "k"],
        ["ECHO", `a${i}`],
        ["GET", "k"],
        ["ECHO", `b${i}`],
      ]);
      tookMs.push(performance.now() - startedAtMs);
      return got;
    });
    for (const [i, reply] of replies.entries()) expect(await reply).toEqual(["v", `a${i}`, "v", `b${i}`]);
    expect(await stage.sentTo(stage.replica(0)), "requests were in flight there").toBeGreaterThanOrEqual(
      sent + 4,
    );
    const slowestMs = Math.max(...tookMs);
    expect(slowestMs).toBeGreaterThan(50);
    // An interval until it is probed, and the machine may stand still for a while: the hold ends after 20 s.
    expect(slowestMs).toBeLessThan(timeoutMs + 1_500);
    await untilFit(stage.replica(0), 0);
    await stage.replica(0).kill("SIGCONT");
    await untilFit(stage.replica(0), 1);
    // What it answers late is nobody's any more.
    for (const [i, client] of clients.entries()) {
      for (let n = 0; n < 20; n++) {
        const tag = `c${i}-${n}`;
        expect(
          await client.pipeline([
            ["ECHO", tag],
            ["GET", "k"],
          ]),
        ).toEqual([tag, "v"]);
      }
      expect(client.unclaimed).toBe(0);
    }
    await until(
      async () => {
        for (const client of clients) await client.command("GET", "k");
        return (await stage.sentTo(stage.replica(0))) > sent + 20;
      },
      { what: "the replica being read again" },
    );
    figure(
      `replica stopped: its readers answered after ${slowestMs.toFixed(0)} ms (probe time-out ${timeoutMs} ms)`,
    );
  });

  it("whose connections are killed, again and again: nobody notices (4, 48)", async () => {
    await setUp();
    const load = await startReaders(8);
    let killed = 0;
    for (let i = 0; i < 20; i++) {
      const replica = stage.replica(i % 2);
      killed += Number(await replica.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"));
      const target = load.report().kinds.reader.count + 20;
      await until(() => load.report().kinds.reader.count > target, { everyMs: 1 });
    }
    expect(killed).toBeGreaterThan(20);
    await stage.untilReadable(2);
    const report = await load.stop();
    expectNoticedNothing(report);
    expect(report.kinds.reader.longestGapMs).toBeLessThan(1_000);
    expect(await stage.proxy.metric("holdfast_upstream_lost_total")).toBeGreaterThanOrEqual(10);
    figure(
      `replicas' connections killed ${killed} times: ${await stage.number("resent_reads")} reads re-sent, longest gap of one reader ${report.kinds.reader.longestClientGapMs.toFixed(0)} ms`,
    );
  });

  it("that is promoted while it is read, Sentinel's way: its reads finish (48)", async () => {
    await setUp();
    const load = await startReaders(8);
    const [r1, r2] = stage.group.replicas as [RedisServer, RedisServer];
    // SLAVEOF NO ONE, then CLIENT KILL TYPE normal and pubsub in one transaction, as sentinel.c does it.
    for (const [server, command] of [
      [r1, ["SLAVEOF", "NO", "ONE"]],
      [r2, ["SLAVEOF", "127.0.0.1", String(r1.port)]],
    ] as const) {
      const client = await RawClient.connect({ port: server.port });
      await client.pipeline([
        ["MULTI"],
        [...command],
        ["CLIENT", "KILL", "TYPE", "normal"],
        ["CLIENT", "KILL", "TYPE", "pubsub"],
        ["EXEC"],
      ]);
      client.close();
    }
    await stage.untilMaster(r1);
    await stage.untilReadable(1);
    const target = load.report().kinds.reader.count + 200;
    await until(() => load.report().kinds.reader.count > target);
    const report = await load.stop();
    expect(report.disconnectReasons).toEqual([]);
    expect(report.mismatches).toEqual([]);
    // A write on its way to the promoted node when its connections were killed may be UNCERTAIN; a read
    // never is.
    expect([...report.errors.keys()].filter((word) => word !== "UNCERTAIN")).toEqual([]);
    expect(report.kinds.reader.longestGapMs).toBeLessThan(1_000);
  });
});
