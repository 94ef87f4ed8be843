/** `failover.promote: self` against real servers: the proxy replaces a master that is gone. */
import { afterEach, describe, expect, it } from "vitest";
import { abilities, needs } from "../support/abilities.ts";
import { FROM_REPLICA_SOURCE, Gate } from "../support/gate.ts";
import { type ChaosLink, layLink } from "../support/link.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import {
  calls,
  errorText,
  expectBooksBalance,
  expectNoticedNothing,
  fields,
  report as figure,
  offsetOf,
  Stage,
  type StageOptions,
} from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";
import type { Workload, WorkloadOptions } from "../support/workload.ts";

const CRASH_GRACE_MS = 250;
const DOWN_AFTER_MS = 1_000;
/**
 * What may come on top on a quiet machine, and where one process stands still meanwhile, ms; the median of
 * several has to do without that.
 */
const CRASH_MORE_MS = 200;
const HANG_MORE_MS = 300;
/** Replicas are asked whether they reach a master that hangs: how long they may take to know, ms. */
const RELINK_MS = abilities.relinksAtOnce ? 0 : 1_300;
const NOISE_MS = 700;
const READ_GAP_MS = 50;
/** upstream.retireTimeout. */
const RETIRE_MS = 1_000;

const FAILOVER = { promote: "self", crashGrace: `${CRASH_GRACE_MS}ms`, downAfter: `${DOWN_AFTER_MS}ms` };
const SELF: ConfigObject = { failover: FAILOVER };

let stage: Stage;
let load: Workload | undefined;
let link: ChaosLink | undefined;

async function setUp(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open({ ...options, config: { ...SELF, ...options.config } });
}

async function withLoad(options: Partial<WorkloadOptions> = {}): Promise<Workload> {
  load = await stage.load(options);
  await load.underWay(40, 150);
  return load;
}

afterEach(async () => {
  load = undefined;
  await stage?.close();
  await link?.close();
  link = undefined;
});

async function untilFollows(server: RedisServer, master: RedisServer): Promise<void> {
  const follows = async () => {
    const info = await server.info();
    return info.get("master_port") === `${master.port}` && info.get("master_link_status") === "up";
  };
  await until(follows, { deadlineMs: 15_000, what: `${server.address} following ${master.address}` });
}

/** The proxy sends nothing to a node that is back before it is a synchronised replica. */
async function untilFollowsUnasked(server: RedisServer, master: RedisServer): Promise<void> {
  const before = await stage.sentTo(server);
  const follows = async () => {
    // In this order: what was sent until now was sent to a node that does not follow yet.
    const sent = await stage.sentTo(server);
    const info = await server.info();
    if (info.get("master_port") === `${master.port}` && info.get("master_link_status") === "up") return true;
    expect(sent, "requests before it followed").toBe(before);
    return false;
  };
  const endMs = performance.now() + 15_000;
  while (!(await follows())) {
    if (performance.now() > endMs) throw new Error(`${server.address} does not follow ${master.address}`);
  }
}

/** A probe during which the proxy itself stood still proves nothing and is done again: ms to allow for it. */
function stallMs(): number {
  const stalls = stage.proxy.logged("problem").filter(({ kind }) => kind === "stalled");
  return stalls.length > 0 ? 1_200 : 0;
}

/** The gaps so far, printed; readers never wait. */
function gaps(what: string): { writerMs: number; readerMs: number } {
  const { kinds } = load?.report() ?? { kinds: null };
  const writerMs = Math.round(kinds?.writer.longestGapMs ?? Number.NaN);
  const readerMs = Math.round(kinds?.reader.longestGapMs ?? Number.NaN);
  figure(`${what}: writes stood still for ${writerMs} ms, reads for ${readerMs} ms`);
  return { writerMs, readerMs };
}

async function finish(allowedErrors: readonly string[] = ["UNCERTAIN"]) {
  if (load === undefined) throw new Error("no load");
  const report = await load.stop();
  const audit = await load.audit((await stage.currentMaster()).port);
  // What was answered but not yet on its way to a replica, Redis itself loses: who wrote it misses it.
  const isLost = (text: string) => audit.lost > 0 && text.includes("behind its own");
  const mismatches = report.mismatches.filter((text) => !isLost(text));
  expectNoticedNothing({ ...report, mismatches }, allowedErrors);
  return { report, audit };
}

async function switches(): Promise<number> {
  return stage.number("switches");
}

/** It holds for so long, at every look. */
async function expectStays(what: string, forMs: number, test: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + forMs;
  while (performance.now() < endMs) {
    if (!(await test())) throw new Error(`it did not stay so: ${what}`);
    await sleep(20);
  }
}

describe("the master crashes", () => {
  it("a replica is promoted after crashGrace, the other follows it, and so does the old master when it is back (40)", async () => {
    await setUp();
    await withLoad();
    const old = stage.master;
    await old.kill();
    await stage.untilReplaced(old);
    await load?.next("writer");
    const { writerMs, readerMs } = gaps("crash");
    const now = await stage.currentMaster();
    expect(now).not.toBe(old);
    expect(writerMs).toBeGreaterThanOrEqual(CRASH_GRACE_MS);
    expect(writerMs).toBeLessThan(CRASH_GRACE_MS + CRASH_MORE_MS + NOISE_MS);
    expect(readerMs).toBeLessThan(READ_GAP_MS + NOISE_MS);
    const third = stage.group.replicas.find((replica) => replica !== now);
    if (third !== undefined) await untilFollows(third, now);
    await old.restart();
    await untilFollowsUnasked(old, now);
    await stage.untilReadable(2);
    expect(await switches()).toBe(1);
    const [failover] = await stage.failovers();
    expect(failover).toMatchObject({ from: old.address, to: now.address, reason: "promoted" });
    const { audit } = await finish();
    expect(audit.unexplained).toBe(0);
  });

  it("five times over: the gap as measured", async () => {
    const writers: number[] = [];
    const readers: number[] = [];
    await setUp();
    await withLoad();
    for (let round = 0; round < 5; round++) {
      await sleep(300 + Math.random() * 200);
      load?.resetGaps();
      const old = await stage.currentMaster();
      await old.kill();
      await stage.untilReplaced(old);
      await load?.next("writer");
      const { kinds } = load?.report() ?? {};
      writers.push(Math.round(kinds?.writer.longestGapMs ?? Number.NaN));
      readers.push(Math.round(kinds?.reader.longestGapMs ?? Number.NaN));
      await old.restart();
      await untilFollows(old, await stage.currentMaster());
      await stage.untilReadable(2);
    }
    figure(`5 crashes: writes stood still for ${writers.join(", ")} ms, reads for ${readers.join(", ")} ms`);
    expect([...writers].sort((a, b) => a - b)[2]).toBeLessThan(CRASH_GRACE_MS + CRASH_MORE_MS);
    expect([...readers].sort((a, b) => a - b)[2]).toBeLessThan(READ_GAP_MS);
    expect(await switches()).toBe(5);
    await finish();
  });

  it("the most advanced replica is promoted, wherever it stands in the list (39)", async () => {
    await setUp({
      before: async (group) => {
        link = await layLink(group.master, group.replica(0));
        return undefined;
      },
    });
    const [behind, ahead] = [stage.replica(0), stage.replica(1)];
    await behind.cli("CONFIG", "SET", "replica-priority", "1");
    link?.stall();
    await withLoad();
    expect(await offsetOf(ahead)).toBeGreaterThan(await offsetOf(behind));
    await stage.master.kill();
    await stage.untilReplaced(stage.master);
    await load?.next("writer");
    gaps("crash with a replica behind");
    expect(await stage.currentMaster()).toBe(ahead);
    await link?.close();
    await untilFollows(behind, ahead);
    const { audit } = await finish();
    expect(audit.unexplained).toBe(0);
  });

  it("a replica of priority 0 is never promoted: held, and said why, until it may be", async () => {
    await setUp();
    const [b, c] = [stage.replica(0), stage.replica(1)];
    for (const replica of [b, c]) await replica.cli("CONFIG", "SET", "replica-priority", "0");
    await sleep(300);
    await withLoad();
    await stage.master.kill();
    await until(async () => (await stage.problems()).includes("no-candidate"), {
      what: "the problem being told",
    });
    expect(await stage.problems()).toMatch(/no-candidate.*never-promote/);
    await expectStays("nobody is promoted", 800, async () => (await switches()) === 0);
    const { readerMs } = gaps("nobody may be promoted");
    expect(readerMs).toBeLessThan(READ_GAP_MS + NOISE_MS);
    await c.cli("CONFIG", "SET", "replica-priority", "100");
    await stage.untilMaster(c);
    await until(async () => !(await stage.problems()).includes("no-candidate"), {
      what: "the problem being over",
    });
    await untilFollows(b, c);
    await finish();
  });

  it("two nodes only: the other one is promoted, and the first follows it when it is back", async () => {
    await setUp({ replicas: 1 });
    await withLoad();
    const [old, other] = [stage.master, stage.replica(0)];
    await old.kill();
    await stage.untilReplaced(old);
    await load?.next("writer");
    const { writerMs } = gaps("crash of one of two");
    expect(await stage.currentMaster()).toBe(other);
    expect(writerMs).toBeLessThan(CRASH_GRACE_MS + CRASH_MORE_MS + NOISE_MS);
    await old.restart();
    await untilFollows(old, other);
    await finish();
  });

  it("the next one crashes right afterwards: held while nobody has its history, answered at once when one has", async () => {
    await setUp();
    await withLoad();
    const first = stage.master;
    await first.kill();
    await stage.untilReplaced(first);
    await load?.next("writer");
    const second = await stage.currentMaster();
    const third = stage.group.replicas.find((replica) => replica !== second);
    if (third === undefined) throw new Error("no third node");
    await untilFollows(third, second);
    await stage.untilReadable(1);
    load?.resetGaps();
    await second.kill();
    await stage.untilReplaced(second);
    await load?.next("writer");
    gaps("second crash as soon as a replica has followed");
    expect(await stage.currentMaster()).toBe(third);
    await third.kill();
    await until(async () => (await stage.problems()).includes("no-candidate"), {
      what: "the problem being told",
    });
    await first.restart();
    await second.restart();
    await expectStays("neither of the two that came back empty is taken", 1_000, async () => {
      const { master, hold_cause } = await stage.epoch();
      return master === third.address && hold_cause !== null;
    });
    expect(await calls(first, "incr", "set", "exec")).toBe(0);
    expect(await switches()).toBe(2);
    expect(await stage.adopt(first.address)).toBe("OK");
    await untilFollows(second, first);
  });
});

describe("the master hangs", () => {
  it("a replica is promoted after downAfter; woken up, the old one is demoted before it gets a request (40)", async () => {
    await setUp();
    await withLoad();
    const old = stage.master;
    const late = await stage.client();
    await old.kill("SIGSTOP");
    const hungAtMs = performance.now();
    // What was sent to it before waits for upstream.retireTimeout after the switch, too.
    await stage.untilCause("silent");
    expect(await late.command("INCR", "late")).toBe(1);
    const lateMs = performance.now() - hungAtMs;
    figure(
      `hang: a write that was not sent to the hung master is answered ${Math.round(lateMs)} ms after the hang`,
    );
    expect(lateMs).toBeLessThan(DOWN_AFTER_MS + HANG_MORE_MS + RELINK_MS + NOISE_MS + stallMs());
    const now = await stage.currentMaster();
    expect(now).not.toBe(old);
    await load?.next("writer");
    const { writerMs, readerMs } = gaps("hang, with writes in flight");
    expect(writerMs).toBeLessThan(
      DOWN_AFTER_MS + RETIRE_MS + HANG_MORE_MS + RELINK_MS + NOISE_MS + stallMs(),
    );
    expect(readerMs).toBeLessThan(READ_GAP_MS + NOISE_MS);
    await old.kill("SIGCONT");
    await untilFollowsUnasked(old, now);
    expect(await switches()).toBe(1);
    await stage.untilReadable(2);
    const { audit } = await finish();
    expect(audit.unexplained).toBe(0);
  });

  it("a downAfter shorter than probe.timeout is kept", async () => {
    const config = { failover: { ...FAILOVER, downAfter: "300ms" }, probe: { timeout: "10s" } };
    await setUp({ config });
    const [old, client] = [stage.master, await stage.client()];
    await old.kill("SIGSTOP");
    const hungAtMs = performance.now();
    await stage.untilCause("silent");
    expect(await client.command("INCR", "late")).toBe(1);
    const lateMs = performance.now() - hungAtMs;
    figure(
      `hang, downAfter 300 ms, probe.timeout 10 s: a write is answered ${Math.round(lateMs)} ms after it`,
    );
    expect(lateMs).toBeLessThan(9_000);
    await old.kill("SIGCONT");
    await untilFollows(old, await stage.currentMaster());
  });

  it("woken up within downAfter it goes on as the master", async () => {
    await setUp({ config: { failover: { ...FAILOVER, downAfter: "3s" } } });
    await withLoad();
    await stage.master.kill("SIGSTOP");
    await sleep(1_300);
    await stage.master.kill("SIGCONT");
    await load?.next("writer");
    gaps("hang of 1300 ms");
    expect(await switches()).toBe(0);
    const { report, audit } = await finish([]);
    expect(report.uncertain).toBe(0);
    expectBooksBalance(audit);
  });

  it("a loaded group whose first candidate hangs too: the other replica is promoted", async () => {
    await setUp();
    await withLoad();
    const [b, c] = [stage.replica(0), stage.replica(1)];
    await b.cli("CONFIG", "SET", "replica-priority", "1");
    await b.kill("SIGSTOP");
    await stage.master.kill("SIGSTOP");
    await stage.untilMaster(c);
    gaps("master and a replica hang");
    await b.kill("SIGCONT");
    await untilFollows(b, c);
    await stage.master.kill("SIGCONT");
    await untilFollows(stage.master, c);
    const { audit } = await finish();
    expect(audit.unexplained).toBe(0);
  });
});

describe("the master is back before it was replaced", () => {
  it("with all of its data: it goes on, nothing is promoted (13)", async (context) => {
    needs(context, "history in RDB files");
    await setUp({ config: { failover: { ...FAILOVER, crashGrace: "5s", downAfter: "10s" } } });
    await withLoad();
    await load?.stop();
    // One that is seen shutting down is replaced at once, without crashGrace.
    await stage.master.cli("SHUTDOWN", "SAVE", "NOW").catch(() => undefined);
    await until(() => !stage.master.running, { what: "the end of the master" });
    await stage.untilCause("connection-lost");
    await stage.master.restart();
    await stage.untilMaster(stage.master);
    expect(await switches()).toBe(0);
    await stage.untilReadable(2);
    const audit = await load?.audit(stage.master.port);
    if (audit !== undefined) expectBooksBalance(audit);
  });

  for (const [how, prepare] of [
    ["empty", async () => undefined],
    ["rolled back", async () => stage.master.cli("SAVE")],
  ] as const) {
    it(`${how}: a replica is promoted, the old one becomes its replica, nothing is lost (41)`, async () => {
      // The sync that empties a replica begins so late that the proxy, not chance, is what is tested.
      const args = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "5"];
      await setUp({ config: { failover: { ...FAILOVER, crashGrace: "5s", downAfter: "10s" } } });
      await prepare();
      await withLoad();
      await load?.stop();
      for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
      const old = stage.master;
      await old.kill();
      await old.restart(args);
      const startedAtMs = performance.now();
      await until(async () => (await switches()) === 1, { what: "another master" });
      const now = await stage.currentMaster();
      figure(
        `restarted ${how}: replaced ${Math.round(performance.now() - startedAtMs)} ms after it answered`,
      );
      expect(now).not.toBe(old);
      await untilFollows(old, now);
      const audit = await load?.audit(now.port);
      if (audit !== undefined) expectBooksBalance(audit);
    });
  }

  it("all three are down and back with all of their data: one is the master, the others follow it", async (context) => {
    needs(context, "history in RDB files");
    await setUp({ config: { failover: { ...FAILOVER, crashGrace: "5s", downAfter: "10s" } } });
    await withLoad();
    await load?.stop();
    for (const server of [...stage.group.replicas, stage.master]) {
      await server.cli("SHUTDOWN", "SAVE").catch(() => undefined);
      await until(() => !server.running, { what: "the end of a server" });
    }
    // The replicas come back as masters: nobody has told their files what they were.
    for (const server of stage.group.all) await server.restart();
    await until(async () => (await stage.epoch()).hold_cause === null, { what: "a master" });
    // Whoever of those that have everything was seen first.
    const now = await stage.currentMaster();
    for (const server of stage.group.all) if (server !== now) await untilFollows(server, now);
    await stage.untilReadable(2);
    const audit = await load?.audit(now.port);
    if (audit !== undefined) expectBooksBalance(audit);
  });
});

describe("only the proxy is cut off from the master", () => {
  it("nothing is promoted while replicas reach it, and it is said; writes go on when it is over", async (context) => {
    needs(context, "setting bind-source-addr");
    let gate: Gate | undefined;
    try {
      await setUp({
        // As servers have it by default: an idle master is not heard for ten seconds.
        redis: { args: ["--repl-ping-replica-period", "10", ...FROM_REPLICA_SOURCE] },
        before: async (group) => {
          gate = await new Gate(group.master.port).start();
          for (const replica of group.replicas) {
            await replica.cli("REPLICAOF", "127.0.0.1", gate.port);
            await replica.untilLinkUp();
          }
          return [`127.0.0.1:${gate.port}`, ...group.replicas.map(({ address }) => address)];
        },
      });
      await withLoad();
      const before = await stage.epoch();
      const fullSyncs = async () => Number((await stage.master.info("stats")).get("sync_full"));
      const syncs = await fullSyncs();
      gate?.closeToOthers();
      await until(async () => (await stage.problems()).includes("master-heard-elsewhere"), {
        what: "the problem being told",
      });
      expect(await stage.problems()).toContain(`master-heard-elsewhere ${String(before.master)}`);
      const readyz = await stage.proxy.http("/readyz");
      expect(readyz.status).toBe(503);
      expect(await readyz.text()).toContain("master-heard-elsewhere");
      await expectStays("nobody is promoted", 5 * DOWN_AFTER_MS, async () => (await switches()) === 0);
      const { readerMs } = gaps("the proxy cut off from the master");
      expect(readerMs).toBeLessThan(READ_GAP_MS + NOISE_MS);
      gate?.open();
      await until(async () => (await stage.epoch()).hold_cause === null, { what: "writes going on" });
      expect(await stage.epoch()).toMatchObject({ number: before.number, master: before.master });
      await until(async () => !(await stage.problems()).includes("heard-elsewhere"), {
        what: "the problem being over",
      });
      expect(await fullSyncs(), "replicas that made their link anew lost nothing by it").toBe(syncs);
      const report = await load?.stop();
      if (report === undefined) throw new Error("no load");
      expectNoticedNothing(report, ["UNCERTAIN"]);
      expectBooksBalance(await (load as Workload).audit(stage.master.port));
    } finally {
      gate?.close();
    }
  });
});

describe("replicas that an operator has put elsewhere", () => {
  const follows = async (server: RedisServer, master: RedisServer) =>
    (await server.info()).get("master_port") === `${master.port}`;

  it("one that is given to a master outside of the group is left to it, from the first moment", async () => {
    await setUp();
    const c = stage.replica(1);
    const foreign = await startRedis({ args: ["--repl-diskless-sync-delay", "1"] });
    try {
      await foreign.cli("SET", "k", "foreign");
      await c.replicaOf(foreign);
      await expectStays("it is about to follow", 2_500, () => follows(c, foreign));
      await c.untilLinkUp();
      expect(await c.cli("GET", "k")).toBe("foreign");
      await expectStays("it follows", 500, () => follows(c, foreign));
    } finally {
      await foreign.close();
    }
    // Nobody is there any more: it is a replica without a master, and one of ours.
    await untilFollows(c, stage.master);
  });

  it("one that is chained to another replica is left there, until that one becomes the master", async () => {
    await setUp();
    const [b, c] = [stage.replica(0), stage.replica(1)];
    await c.replicaOf(b);
    await c.untilLinkUp();
    await expectStays("it is chained", 1_000, () => follows(c, b));
    await stage.master.kill();
    await until(async () => (await switches()) === 1, { what: "another master" });
    const now = await stage.currentMaster();
    await untilFollows(now === b ? c : b, now);
  });
});

describe("a planned switch is no outage", () => {
  /** What the proxy did about its master by itself. */
  const alarms = () =>
    stage.proxy
      .logged("failover")
      .map(({ what }) => what)
      .filter((what) => what === "promoting" || what === "promotion-failed");

  it("PROXY SWITCHOVER, ten times: nothing is promoted besides, nothing is lost", async (context) => {
    needs(context, "failover");
    await setUp();
    await withLoad();
    const admin = await stage.client({ protocol: 3 });
    for (let round = 0; round < 10; round++) {
      await sleep(Math.random() * 150);
      const answer = fields(await admin.command("PROXY", "SWITCHOVER"));
      expect(answer, `round ${round}`).toMatchObject({ result: "done", lost_bytes: 0 });
    }
    gaps("ten planned switches, promote: self");
    expect(alarms()).toEqual([]);
    expect(await switches()).toBe(10);
    const { report, audit } = await finish([]);
    expect(report.uncertain).toBe(0);
    expectBooksBalance(audit);
  });

  it("FAILOVER by hand: followed, the third node is re-pointed, nothing is promoted besides (37, 49)", async (context) => {
    needs(context, "failover");
    await setUp();
    await withLoad();
    const [b, c] = [stage.replica(0), stage.replica(1)];
    expect(await stage.master.cli("FAILOVER", "TO", "127.0.0.1", b.port)).toBe("OK");
    await stage.untilMaster(b);
    await untilFollows(c, b);
    await untilFollows(stage.master, b);
    gaps("FAILOVER by hand, promote: self");
    expect(alarms()).toEqual([]);
    const { report, audit } = await finish([]);
    expect(report.uncertain).toBe(0);
    expectBooksBalance(audit);
  });

  it("FAILOVER by hand to a replica that hangs, given up later: the same master goes on (38)", async (context) => {
    needs(context, "failover");
    await setUp();
    await withLoad();
    const b = stage.replica(0);
    await b.kill("SIGSTOP");
    expect(await stage.master.cli("FAILOVER", "TO", "127.0.0.1", b.port, "TIMEOUT", 2_500)).toBe("OK");
    await until(async () => (await stage.master.info()).get("master_failover_state") === "no-failover");
    await load?.next("writer");
    gaps("FAILOVER by hand, given up after 2500 ms");
    expect([alarms(), await switches()]).toEqual([[], 0]);
    const { report, audit } = await finish([]);
    expect(report.uncertain).toBe(0);
    expectBooksBalance(audit);
  });
});

describe("a master that is lost in the middle of a planned switch is replaced as if there was none", () => {
  const TIMEOUT_MS = 20_000;

  it.for([
    ["hangs", "SIGSTOP"],
    ["crashes", "SIGKILL"],
  ] as const)(
    "it %s while it waits for the heir, long before TIMEOUT is over (12, 40)",
    async ([what, signal], context) => {
      needs(context, "failover");
      await setUp();
      await withLoad();
      const [old, heir] = [stage.master, stage.replica(0)];
      const admin = await stage.client({ protocol: 3 });
      // FAILOVER waits for its word.
      await heir.kill("SIGSTOP");
      const asked = admin.command("PROXY", "SWITCHOVER", "TO", heir.address, "TIMEOUT", TIMEOUT_MS);
      const state = async () => (await old.info()).get("master_failover_state");
      await until(async () => (await state()) === "waiting-for-sync", { what: "the master handing over" });
      await old.kill(signal);
      const lostAtMs = performance.now();
      await heir.kill("SIGCONT");
      const text = errorText(await asked);
      const answeredMs = Math.round(performance.now() - lostAtMs);
      expect(text).toMatch(/the master (is absent \(.*\)|was lost) while it handed over/);
      await stage.untilReplaced(old);
      const replacedMs = Math.round(performance.now() - lostAtMs);
      figure(`it ${what} in a switch: answered after ${answeredMs} ms, replaced after ${replacedMs} ms`);
      // TIMEOUT and two seconds more, if it was waited for.
      expect(replacedMs).toBeLessThan(TIMEOUT_MS / 2);
      const now = await stage.currentMaster();
      await load?.next("writer");
      if (signal === "SIGSTOP") await old.kill("SIGCONT");
      else await old.restart();
      for (const server of stage.group.all) if (server !== now) await untilFollows(server, now);
      expect(await switches()).toBe(1);
      const { audit } = await finish([]);
      expect(audit.unexplained).toBe(0);
    },
  );
});

describe("an operator promotes by hand", () => {
  it("the proxy follows at once and demotes the old one", async () => {
    await setUp();
    // What the old one answers beside the new one, Redis loses: nobody here reads it back.
    await withLoad({ ownReaders: 0, pipeliners: 0 });
    const [old, next, third] = [stage.master, stage.replica(0), stage.replica(1)];
    await next.promote();
    await stage.untilMaster(next);
    await untilFollows(old, next);
    await untilFollows(third, next);
    gaps("promotion by hand");
    expect(await switches()).toBe(1);
    const { audit } = await finish();
    expect(audit.unexplained).toBe(0);
  });
});
