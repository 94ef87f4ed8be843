/**
 * What reads see, judged by checkers that know every write: own writes, no way back in time, what others were
 * told, and one order for all when reads are strong; while replicas lag, go and come, and masters change.
 */
import { afterEach, describe, expect, it } from "vitest";
import { RawClient } from "../support/client.ts";
import { expectTrustworthy, type Judgement, Trial, type TrialOptions } from "../support/consistency/trial.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { SEED } from "../support/random.ts";
import { type Sentinels, startSentinels } from "../support/sentinel.ts";
import { report as figure, Stage } from "../support/stage.ts";
import { OPERATIONS } from "../support/switches.ts";
import { sleep, until } from "../support/wait.ts";

let trial: Trial | undefined;
let stage: Stage | undefined;
let sentinels: Sentinels | undefined;

afterEach(async () => {
  await trial?.close();
  await stage?.close();
  await sentinels?.close();
  [trial, stage, sentinels] = [undefined, undefined, undefined];
});

async function open(options: Omit<TrialOptions, "seed" | "consistency"> & Partial<TrialOptions> = {}) {
  trial = await Trial.open({ consistency: "session", seed: SEED, ...options });
  await trial.readsGoOn();
  await trial.writesGoOn();
  return trial;
}

/** Pairs compared, at least, by each rule: else nothing was tested. */
const PAIRS_MIN = 500;
/** Of reads, by replicas; it would be 1 if nobody wrote. */
const SHARE_MIN = 0.1;

async function judged(one: Trial, what: string, share?: number): Promise<Judgement> {
  const judgement = await one.judge();
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

/** Something that makes a replica lag, for about a second. */
type Lag = (one: Trial) => Promise<void>;

/** The replication of one replica stands still now and then. */
async function stallOne(one: Trial, index = 0): Promise<void> {
  const link = one.links[index];
  if (link === undefined) throw new Error("no link");
  const replica = one.group.replicas[index];
  if (replica === undefined) throw new Error("no replica");
  for (let round = 0; round < 6; round++) {
    link.stall();
    await one.pause(250);
    await one.writesGoOn();
    expect(await one.behindBytes(replica), "bytes behind").toBeGreaterThan(0);
    expect((await replica.info()).get("master_link_status"), "and still linked").toBe("up");
    link.resume();
    await one.pause(100);
  }
}

async function stallInTurns(one: Trial): Promise<void> {
  const [first, second] = one.links;
  const { replicas } = one.group;
  for (let round = 0; round < 8; round++) {
    const [link, replica] = round % 2 === 0 ? [first, replicas[0]] : [second, replicas[1]];
    link?.stall();
    await one.pause(150);
    await one.writesGoOn();
    expect(await one.behindBytes(replica), "bytes behind").toBeGreaterThan(0);
    link?.resume();
  }
}

/** Always behind, never without a link. */
async function slowLink(one: Trial): Promise<void> {
  const [link] = one.links;
  const [replica] = one.group.replicas;
  link?.delay(60);
  let behind = 0;
  for (let look = 0; look < 10; look++) {
    await sleep(100);
    if ((await one.behindBytes(replica)) > 0) behind++;
  }
  link?.delay(0);
  expect(behind, "looks at which it was behind").toBeGreaterThan(5);
}

async function freezeOne(one: Trial): Promise<void> {
  const { replicas } = one.group;
  for (let round = 0; round < 8; round++) {
    await one.freeze(one.chance() ? replicas[0] : replicas[1], 20 + one.random() * 120);
    await one.pause(80);
  }
}

async function pauseClients(one: Trial): Promise<void> {
  const [replica] = one.group.replicas;
  for (let round = 0; round < 5; round++) {
    const direct = await RawClient.connect({ port: replica.ownPort });
    expect(await direct.command("CLIENT", "PAUSE", "120", "ALL")).toBe("OK");
    direct.close();
    await sleep(200);
  }
}

const LAGS: readonly (readonly [name: string, lag: Lag, isLinked: boolean])[] = [
  ["nothing happens", () => sleep(1_000), false],
  ["replication to one replica stands still now and then", stallOne, true],
  ["replication to one replica is slow all the time", slowLink, true],
  ["both replicas fall behind in turns", stallInTurns, true],
  ["replicas freeze now and then", freezeOne, false],
  ["a replica pauses its clients now and then", pauseClients, false],
];

describe(`session reads (HOLDFAST_SEED=${SEED})`, () => {
  it.each(LAGS)(
    "show what was written, and never less than before, while %s (7)",
    async (name, lag, isLinked) => {
      const one = await open({ isLinked });
      const share = await one.shareOfReplicas(() => lag(one));
      expectTrustworthy(await judged(one, name, share), "session");
    },
  );

  it("also while a replica is lost, copies everything anew and is back (7, 47)", async () => {
    const one = await open();
    const [replica, other] = one.group.replicas;
    await replica.kill("SIGKILL");
    await one.stage.untilReadable(1);
    await one.readsGoOn(200);
    await replica.restart([...one.serverArgs, "--replicaof", `127.0.0.1 ${one.group.master.port}`]);
    await one.stage.untilReadable(2);
    await one.freeze(other, 100);
    const share = await one.shareOfReplicas(() => one.readsGoOn(1_500));
    expect(replica.output.match(/Full resync/g)?.length, "full copies").toBeGreaterThanOrEqual(2);
    expectTrustworthy(await judged(one, "replica lost", share), "session");
  });
});

describe(`eventual reads (HOLDFAST_SEED=${SEED})`, () => {
  it("are found to be old when replication stands still: the checkers can fail (7)", async () => {
    const one = await open({ isLinked: true, consistency: "eventual" });
    const share = await one.shareOfReplicas(() => stallOne(one));
    const judgement = await judged(one, "eventual", share);
    expect(judgement.order.violations.own, "reads behind an own write").toBeGreaterThan(0);
    expect(judgement.order.violations.recent, "behind another's").toBeGreaterThan(0);
    expectTrustworthy(judgement, "eventual");
  });

  it("on registers, too, contradictions are found (7)", async () => {
    const one = await open({ isLinked: true, consistency: "eventual", load: REGISTERS });
    await stallOne(one);
    const { linear } = await one.judge();
    expect(linear.operations).toBeGreaterThan(PAIRS_MIN);
    expect(linear.violations).toBeGreaterThan(0);
  });
});

// Switches

interface Switch {
  readonly config?: ConfigObject;
  readonly before?: TrialOptions["before"];
  readonly run: (one: Trial) => Promise<void>;
  /** Clients may be told UNCERTAIN. */
  readonly mayCut?: true;
  /** Writes may be lost, and if so, it is reported. */
  readonly mayLose?: true;
}

const SELF: ConfigObject = { failover: { promote: "self", crashGrace: "250ms", downAfter: "1s" } };

/** The foreign writer must not go on writing to the old one. */
async function withoutForeign(one: Trial, run: () => Promise<unknown>): Promise<void> {
  one.load.foreignTo(0);
  await sleep(20);
  await run();
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

/** A master that died comes back as a replica of the new one. */
async function crash(one: Trial): Promise<void> {
  const old = one.group.master;
  await old.kill("SIGKILL");
  const next = await one.untilSwitched();
  await one.readsGoOn(100);
  await old.restart([...one.serverArgs, "--replicaof", `127.0.0.1 ${next.port}`]);
}

const SWITCHES: Readonly<Record<string, Switch>> = {
  "PROXY SWITCHOVER": {
    run: async (one) => {
      const client = await one.stage.client();
      expect(await client.command("PROXY", "SWITCHOVER")).not.toBeInstanceOf(Error);
      await one.untilSwitched();
    },
  },
  FAILOVER: { run: (one) => OPERATIONS.failover.run(one) },
  "demoting first": { run: (one) => withoutForeign(one, () => OPERATIONS.demoteFirst.run(one)) },
  "promotion by hand, the old master alive": {
    run: (one) => withoutForeign(one, () => OPERATIONS.promoteWhileTheMasterLives.run(one)),
    mayLose: true,
  },
  "promotion by hand, the old master dead": {
    run: (one) => OPERATIONS.killAndPromote.run(one),
    mayCut: true,
    mayLose: true,
  },
  "SENTINEL FAILOVER": {
    before: sentinelsOf,
    run: (one) =>
      withoutForeign(one, async () => {
        const old = one.group.master;
        await sentinels?.failover();
        await one.untilSwitched();
        const isReplica = async () => (await old.info()).get("role") === "slave";
        await until(isReplica, { deadlineMs: 20_000, what: "the old master as a replica" });
      }),
    mayLose: true,
  },
  "a crash that the proxy repairs": { config: SELF, run: crash, mayCut: true, mayLose: true },
};

/** Calls that wait count what they were told, which a loss would make wrong. */
const WITHOUT_WAITING = { string: 120, hash: 30, counter: 30, list: 10, foreign: 10 };

function optionsOf({ config, before, mayLose }: Switch): Partial<TrialOptions> {
  return {
    ...(config === undefined ? {} : { config }),
    ...(before === undefined ? {} : { before }),
    ...(mayLose ? { load: { keys: WITHOUT_WAITING } } : {}),
  };
}

async function runSwitch(one: Trial, { run, mayLose }: Switch): Promise<number> {
  await run(one);
  await one.settle();
  const share = await one.shareOfReplicas(() => one.readsGoOn(800));
  expect(await one.stage.number("switches"), "switches").toBe(1);
  const [record] = await one.switches();
  if (mayLose !== true) expect(record?.lostBytes, "lost bytes").toBe(0);
  return share;
}

describe(`over a switch (HOLDFAST_SEED=${SEED})`, () => {
  it.each(Object.entries(SWITCHES))(
    "session reads lose nothing but reported losses: %s (7, 16)",
    async (name, its) => {
      const one = await open(optionsOf(its));
      const share = await runSwitch(one, its);
      const allowed = its.mayCut ? ["UNCERTAIN"] : [];
      expectTrustworthy(await judged(one, name, share), "session", allowed);
    },
  );

  const strong = ["PROXY SWITCHOVER", "a crash that the proxy repairs"] as const;
  it.each(strong)("strong reads and writes have one order: %s (7, 16)", async (name) => {
    const its = SWITCHES[name];
    if (its === undefined) throw new Error(name);
    const keys = { ...REGISTERS.keys, ...(its.mayLose ? { moved: 0 } : {}) };
    const one = await open({ ...optionsOf(its), consistency: "strong", load: { keys } });
    await its.run(one);
    await one.settle();
    await one.readsGoOn(300);
    expect(await one.stage.number("switches"), "switches").toBe(1);
    const judgement = await judged(one, `strong, ${name}`);
    expect(judgement.linear.operations).toBeGreaterThan(PAIRS_MIN);
    expectTrustworthy(judgement, "strong", its.mayCut ? ["UNCERTAIN"] : []);
  });

  it("strong reads and writes have one order when all is well, and replicas lag (7)", async () => {
    const one = await open({ isLinked: true, consistency: "strong", load: REGISTERS });
    const share = await one.shareOfReplicas(() => stallOne(one));
    expect(share, "no read is served by a replica").toBe(0);
    const judgement = await judged(one, "strong, lag");
    expect(judgement.linear.operations).toBeGreaterThan(PAIRS_MIN);
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
