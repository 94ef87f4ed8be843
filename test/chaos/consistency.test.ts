/**
 * Reads under one fault after the other, at moments nobody chose, until enough of them have been compared
 * with what they had to see.
 *
 *   HOLDFAST_PAIRS=1000000   so many comparisons; the default for `npm run chaos`, else a few
 *   HOLDFAST_SEED=123        the same moments again
 */
import { afterEach, describe, expect, it } from "vitest";
import {
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
import { type Consistency, complaints, Trial } from "../support/consistency/trial.ts";
import { SEED } from "../support/random.ts";
import { report as figure } from "../support/stage.ts";
import { OPERATIONS, untilWell } from "../support/switches.ts";

const IS_LONG = process.env.HOLDFAST_CELLS === "all";
const PAIRS = Number(process.env.HOLDFAST_PAIRS ?? (IS_LONG ? 1_000_000 : 50_000));
const FAULTS_PER_ROUND = 4;
/** Of the reads at the end of each round, by replicas. */
const SHARE_MIN = 0.05;
/** Of one round, at most. */
const ROUND_MS = 120_000;

const LAGS: Readonly<Record<string, Lag>> = {
  "replication stands still": stallOne,
  "both in turns": stallInTurns,
  "a slow link": slowLink,
  "replicas freeze": freezeOne,
  "a replica pauses its clients": pauseClients,
  "a replica dies": (one) => OPERATIONS.killReplica.run(one),
  "connections are killed": (one) => OPERATIONS.killAllConnections.run(one),
  "the master hangs": (one) => one.freeze(one.group.master, 50 + 600 * one.random()),
};

const SWITCHES: Readonly<Record<string, Lag>> = {
  "PROXY SWITCHOVER": switchover,
  FAILOVER: (one) => OPERATIONS.failover.run(one),
  "demoting first": (one) => withoutForeign(one, () => OPERATIONS.demoteFirst.run(one)),
  "promotion beside a living master": (one) =>
    withoutForeign(one, () => OPERATIONS.promoteWhileTheMasterLives.run(one)),
  "promotion after a crash": crashByHand,
};

const KEYS = { string: 200, hash: 50, counter: 50, list: 20, foreign: 10, register: 50 };

let trial: Trial | undefined;

afterEach(async () => {
  await trial?.close();
  trial = undefined;
});

function chosen(one: Trial, faults: Readonly<Record<string, Lag>>): [string, Lag] {
  const entries = Object.entries(faults);
  const entry = entries[Math.floor(one.random() * entries.length)];
  if (entry === undefined) throw new Error("no faults");
  return entry;
}

/** Some lag, one switch, and links laid anew. @returns what it was, and who served the reads after it. */
async function runRound(one: Trial): Promise<{ readonly names: string[]; readonly share: number }> {
  const names: string[] = [];
  for (let i = 0; i < FAULTS_PER_ROUND; i++) {
    const isSwitch = i === FAULTS_PER_ROUND - 1;
    const [name, fault] = chosen(one, isSwitch ? SWITCHES : LAGS);
    names.push(name);
    await fault(one);
    await untilWell(one);
    await one.settle();
    await one.relink();
    await one.stage.untilReadable(2);
    await one.pause();
  }
  return { names, share: await one.shareOfReplicas(() => one.readsGoOn(500)) };
}

async function runUntil(pairsWanted: number, consistency: Consistency): Promise<void> {
  trial = await Trial.open({ consistency, seed: SEED, isLinked: true });
  const sum = { pairs: 0, reads: 0, excused: 0, registers: 0, rounds: 0, loadMs: 0, checkMs: 0 };
  while (sum.pairs < pairsWanted) {
    const startMs = performance.now();
    await trial.begin({ keys: KEYS, sessions: 12 });
    const { names, share } = await runRound(trial);
    const judgement = await trial.judge();
    const { order, linear, checkMs } = judgement;
    sum.rounds++;
    sum.loadMs += performance.now() - startMs - checkMs;
    sum.checkMs += checkMs;
    sum.pairs += order.pairs;
    sum.reads += order.reads;
    sum.excused += order.excused;
    sum.registers += linear.operations;
    const what = `${consistency}, round ${sum.rounds} (${names.join(", ")})`;
    figure(`${what}: ${order.pairs} pairs, ${order.excused} excused by ${judgement.losses.length} losses`);
    expect(order.pairs, "pairs").toBeGreaterThan(1_000);
    if (consistency !== "strong") expect(share, "reads by replicas").toBeGreaterThan(SHARE_MIN);
    expect(complaints(judgement, consistency), what).toEqual([]);
    const strange = [...judgement.report.errors.keys()].filter((word) => word !== "UNCERTAIN");
    expect(strange, `errors, ${what}`).toEqual([]);
  }
  const perSecond = (1000 * sum.pairs) / sum.loadMs;
  figure(
    `${consistency}: ${sum.pairs} pairs of ${sum.reads} reads in ${sum.rounds} rounds, ` +
      `${perSecond.toFixed(0)}/s, judged in ${sum.checkMs.toFixed(0)} ms; ${sum.excused} excused`,
  );
}

describe(`reads under any fault (HOLDFAST_SEED=${SEED})`, () => {
  const timeout = ROUND_MS * Math.max(3, PAIRS / 50_000);

  it("proxy: own writes, no way back, and what others were told (7, 16, 40, 47–49)", { timeout }, () =>
    runUntil(PAIRS, "proxy"),
  );

  it("session: own writes and no way back (7, 16, 40, 47–49)", { timeout }, () => runUntil(PAIRS, "session"));

  it("strong: one order for all (7, 16, 40)", { timeout }, () => runUntil(PAIRS / 2, "strong"));
});
