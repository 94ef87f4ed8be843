/**
 * What reads see, judged by checkers that know every write: own writes, no way back in time, what others were
 * told, and one order for all when reads are strong; while replicas lag, go and come, and masters change.
 */
import { rm } from "node:fs/promises";
import path from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import {
  crash,
  crashByHand,
  freezeOne,
  type Lag,
  pauseClients,
  slowLink,
  stallInTurns,
  stallOne,
  switchover,
  withoutForeign,
} from "../support/consistency/faults.ts";
import { expectTrustworthy, type Judgement, Trial, type TrialOptions } from "../support/consistency/trial.ts";
import type { WorkloadOptions } from "../support/consistency/workload.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { SEED } from "../support/random.ts";
import { type Sentinels, startSentinels } from "../support/sentinel.ts";
import { report as figure, Stage } from "../support/stage.ts";
import { OPERATIONS } from "../support/switches.ts";
import { sleep, until } from "../support/wait.ts";

/** A group that serves several tests, one after the other, as long as each leaves it as it was. */
type Place = "linked" | "session" | "eventual" | "observed" | "sentinel" | "self" | "strong";

const SELF: ConfigObject = { failover: { promote: "self", crashGrace: "250ms", downAfter: "1s" } };

const PLACES: Readonly<Record<Place, Omit<TrialOptions, "seed">>> = {
  linked: { consistency: "proxy", isLinked: true },
  session: { consistency: "session", isLinked: true },
  eventual: { consistency: "eventual", isLinked: true },
  observed: { consistency: "proxy" },
  sentinel: { consistency: "proxy", before: sentinelsOf },
  self: { consistency: "proxy", config: SELF },
  strong: { consistency: "strong", config: SELF },
};

let trial: Trial | undefined;
let place: Place | undefined;
/** The load has ended and was judged: what comes after that leaves nothing behind. */
let isJudged = true;
let stage: Stage | undefined;
let sentinels: Sentinels | undefined;

async function leave(): Promise<void> {
  const [one, its] = [trial, sentinels];
  [trial, place, sentinels] = [undefined, undefined, undefined];
  await one?.close();
  await its?.close();
}

afterEach(async () => {
  await stage?.close();
  stage = undefined;
  if (!isJudged) await leave();
  isJudged = true;
});

afterAll(leave);

async function begin(where: Place, load: Partial<WorkloadOptions> = {}): Promise<Trial> {
  if (place !== where || trial === undefined) {
    await leave();
    trial = await Trial.open({ seed: SEED, ...PLACES[where] });
    place = where;
  }
  isJudged = false;
  return trial.begin(load);
}

/** Pairs compared, at least, by each rule: else nothing was tested. */
const PAIRS_MIN = 400;
/** Reads after which there are so many pairs, however slow the machine is. */
const READS_MIN = 4_000;
/** Operations on registers, at least. */
const REGISTER_MIN = 200;
/** Of reads, by replicas; it would be 1 if nobody wrote. */
const SHARE_MIN = 0.05;

async function judged(one: Trial, what: string, share?: number): Promise<Judgement> {
  await one.readsGoOn(Math.max(0, READS_MIN - one.load.answered.reads));
  const judgement = await one.judge();
  isJudged = true;
  const { order, linear, losses } = judgement;
  const served = share === undefined ? "" : `, ${(100 * share).toFixed(0)} % by replicas`;
  const { own, monotonic, recent } = order.violations;
  figure(
    `${what}: ${order.reads} reads${served}, ${order.pairs} pairs; behind: ${own} own, ${monotonic} back, ` +
      `${recent} others; ${order.excused} excused by ${losses.length} losses; registers ${linear.operations}`,
  );
  if (share !== undefined) expect(share, "share of reads that replicas served").toBeGreaterThan(SHARE_MIN);
  expect(order.pairsOf.monotonic, "pairs compared").toBeGreaterThan(PAIRS_MIN);
  expect(order.pairsOf.recent, "pairs compared").toBeGreaterThan(PAIRS_MIN);
  expect(order.pairsOf.own, "pairs compared").toBeGreaterThan(PAIRS_MIN / 10);
  return judgement;
}

/** Keys for strong reads: of several writers each, beside the others. */
const REGISTERS = { keys: { string: 60, counter: 20, list: 5, foreign: 5, register: 20, moved: 1 } };

// Lag

const LAGS: readonly (readonly [name: string, lag: Lag])[] = [
  ["nothing happens", () => sleep(800)],
  ["replication to one replica stands still now and then", stallOne],
  ["replication to one replica is slow all the time", slowLink],
  ["both replicas fall behind in turns", stallInTurns],
  ["replicas freeze now and then", freezeOne],
  ["a replica pauses its clients now and then", pauseClients],
];

describe(`proxy reads (HOLDFAST_SEED=${SEED})`, () => {
  it.each(LAGS)("show what was written, and never less than before, while %s (7)", async (name, lag) => {
    const one = await begin("linked");
    const share = await one.shareOfReplicas(() => lag(one));
    expectTrustworthy(await judged(one, name, share), "proxy");
  });

  it("also while a replica is lost, copies everything anew and is back (7, 47)", async () => {
    const one = await begin("observed");
    const [replica, other] = one.group.replicas;
    const copies = async () => Number((await one.group.master.info("stats")).get("sync_full"));
    const before = await copies();
    await replica.kill("SIGKILL");
    await one.stage.untilReadable(1);
    await one.readsGoOn(200);
    // What it had got when it first copied everything would do for a partial one.
    await rm(path.join(replica.dir, "dump.rdb"), { force: true });
    await replica.restart([...one.serverArgs, "--replicaof", "127.0.0.1", `${one.group.master.port}`]);
    await one.stage.untilReadable(2);
    await one.freeze(other, 100);
    expect(await copies(), "full copies").toBe(before + 1);
    const share = await one.shareOfReplicas(() => one.readsGoOn(1_500));
    expectTrustworthy(await judged(one, "replica lost", share), "proxy");
  });
});

describe(`session reads (HOLDFAST_SEED=${SEED})`, () => {
  const lags = LAGS.filter(([, lag]) => lag === stallOne || lag === slowLink || lag === stallInTurns);
  it.each(lags)("show own writes, and never less than before, while %s (7)", async (name, lag) => {
    const one = await begin("session");
    const share = await one.shareOfReplicas(() => lag(one));
    expectTrustworthy(await judged(one, `session, ${name}`, share), "session");
  });
});

describe(`eventual reads (HOLDFAST_SEED=${SEED})`, () => {
  it("are found to be old when replication stands still: the checkers can fail (7)", async () => {
    const one = await begin("eventual");
    const share = await one.shareOfReplicas(async () => {
      for (const index of [0, 1]) await stallOne(one, index);
    });
    const judgement = await judged(one, "eventual", share);
    expect(judgement.order.violations.own, "reads behind an own write").toBeGreaterThan(0);
    expect(judgement.order.violations.recent, "behind another's").toBeGreaterThan(0);
    expectTrustworthy(judgement, "eventual");
  });

  it("on registers, too, contradictions are found (7)", async () => {
    const one = await begin("eventual", REGISTERS);
    for (const index of [0, 1]) await stallOne(one, index);
    const { linear } = await one.judge();
    isJudged = true;
    expect(linear.operations).toBeGreaterThan(REGISTER_MIN);
    expect(linear.violations).toBeGreaterThan(0);
  });
});

// Switches

interface Switch {
  readonly where: Place;
  readonly run: (one: Trial) => Promise<void>;
  /** Clients may be told UNCERTAIN. */
  readonly mayCut?: true;
  /** Writes may be lost, and if so, it is reported. */
  readonly mayLose?: true;
}

async function sentinelsOf(group: Stage["group"]): Promise<ConfigObject> {
  sentinels = await startSentinels(group, { downAfterMs: 1_500, failoverTimeoutMs: 3_000 });
  for (const { cli } of sentinels.all.map((one) => ({ cli: one.cli.bind(one) }))) {
    await cli("SENTINEL", "DEBUG", "PUBLISH-PERIOD", 200, "INFO-PERIOD", 500);
  }
  return {
    failover: { promote: "sentinel" },
    sentinel: { name: sentinels.name, nodes: sentinels.addresses },
  };
}

const SWITCHES: Readonly<Record<string, Switch>> = {
  "PROXY SWITCHOVER": { where: "observed", run: switchover },
  FAILOVER: { where: "observed", run: (one) => OPERATIONS.failover.run(one) },
  "demoting first": {
    where: "observed",
    run: (one) => withoutForeign(one, () => OPERATIONS.demoteFirst.run(one)),
  },
  "promotion by hand, the old master alive": {
    where: "observed",
    run: (one) => withoutForeign(one, () => OPERATIONS.promoteWhileTheMasterLives.run(one)),
    mayLose: true,
  },
  "promotion by hand, the old master dead": {
    where: "observed",
    run: crashByHand,
    ...{ mayCut: true, mayLose: true },
  },
  "SENTINEL FAILOVER": {
    where: "sentinel",
    run: (one) => withoutForeign(one, () => sentinelFailover(one)),
    mayLose: true,
  },
  "a crash that the proxy repairs": { where: "self", run: crash, mayCut: true, mayLose: true },
};

async function sentinelFailover(one: Trial): Promise<void> {
  const old = one.group.master;
  await sentinels?.failover();
  await one.untilSwitched();
  const isReplica = async () => (await old.info()).get("role") === "slave";
  await until(isReplica, { deadlineMs: 20_000, what: "the old master as a replica" });
}

/** Calls that wait count what they were told, which a loss would make wrong. */
const WITHOUT_WAITING = { string: 200, hash: 50, counter: 50, list: 20, foreign: 10 };

/** @returns the share of reads that replicas serve when all is well again. */
async function runSwitch(one: Trial, { run, mayLose }: Switch): Promise<number> {
  await run(one);
  await one.settle();
  const share = await one.shareOfReplicas(() => one.readsGoOn(3_000));
  expect(await one.switchCount(), "switches").toBe(1);
  const [record] = await one.switches();
  if (mayLose !== true) expect(record?.lostBytes, "lost bytes").toBe(0);
  return share;
}

describe(`over a switch (HOLDFAST_SEED=${SEED})`, () => {
  it.each(Object.entries(SWITCHES))(
    "proxy reads lose nothing but reported losses: %s (7, 16)",
    async (name, its) => {
      const one = await begin(its.where, its.mayLose ? { keys: WITHOUT_WAITING } : {});
      const share = await runSwitch(one, its);
      const allowed = its.mayCut ? ["UNCERTAIN"] : [];
      expectTrustworthy(await judged(one, name, share), "proxy", allowed);
    },
  );

  const strong: readonly (readonly [string, Switch])[] = [
    ["PROXY SWITCHOVER", { where: "strong", run: switchover }],
    ["a crash that the proxy repairs", { where: "strong", run: crash, mayCut: true, mayLose: true }],
  ];
  it.each(strong)("strong reads and writes have one order: %s (7, 16)", async (name, its) => {
    const one = await begin("strong", { keys: { ...REGISTERS.keys, ...(its.mayLose ? { moved: 0 } : {}) } });
    expect(await runSwitch(one, its), "no read is served by a replica").toBe(0);
    const judgement = await judged(one, `strong, ${name}`);
    expect(judgement.linear.operations).toBeGreaterThan(REGISTER_MIN);
    expectTrustworthy(judgement, "strong", its.mayCut ? ["UNCERTAIN"] : []);
  });

  it("strong reads and writes have one order when replicas freeze (7)", async () => {
    const one = await begin("strong", REGISTERS);
    const share = await one.shareOfReplicas(() => freezeOne(one));
    expect(share, "no read is served by a replica").toBe(0);
    const judgement = await judged(one, "strong, freezing replicas");
    expect(judgement.linear.operations).toBeGreaterThan(REGISTER_MIN);
    expectTrustworthy(judgement, "strong");
  });
});

describe("everything at once", () => {
  it("FLUSHDB, FLUSHALL and SWAPDB are seen by every session at once (7)", async () => {
    stage = await Stage.open();
    const [writer, ...readers] = await stage.clients(5);
    const [first, second] = readers;
    if (writer === undefined || first === undefined || second === undefined) throw new Error("no clients");
    await second.command("SELECT", 1);
    const ways = [["FLUSHDB"], ["FLUSHALL"], ["SWAPDB", "0", "1"]] as const;
    for (let round = 1; round <= 60; round++) {
      await writer.command("SET", "a", `${round}`);
      const way = ways[round % 3] ?? ways[0];
      await writer.command(...way);
      expect(await first.command("GET", "a"), `${way[0]}, round ${round}`).toBeNull();
      if (way[0] === "SWAPDB") expect(await second.command("GET", "a"), "there").toBe(`${round}`);
      await writer.command("FLUSHALL");
    }
    expect(await stage.number("reads")).toBeGreaterThanOrEqual(60);
  });
});
