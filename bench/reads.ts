/**
 * What reads cost and who serves them under `reads.consistency` eventual, session and strong.
 *
 *   npm run bench:reads -- [--quick] [--rounds 3] [--seconds 2.5] [--parts plain,mixed,back,scale,hot]
 *
 *   plain   only reads: what the rule of `session` costs where it has nothing to do
 *   mixed   half writes, half reads on 10,000 keys, at several rates
 *   back    every client reads back what it wrote, at once
 *   scale   only reads, through no replica, one and two
 *   hot     as mixed, with keys as hot as in YCSB (Zipf)
 *
 * One master and two replicas, and another master with one; a Holdfast for every line of the tables, new in
 * every round, since two processes of the same program differ too. Within a round they take turns, in random
 * order; a ratio is the median of the ratios of neighbours. Who served a read is what the nodes count
 * themselves.
 */
import { parseArgs } from "node:util";
import { type RedisGroup, startGroup } from "../test/support/redis.ts";
import { CASES, type Case, isRepeated, PARTS, type SystemName, systemsOf, WARM_UPS } from "./reads/cases.ts";
import { fill, measure, type Sample, type Stand } from "./reads/measure.ts";
import { judge, render } from "./reads/tables.ts";
import { Traffic } from "./reads/traffic.ts";
import { progress, publish, setting } from "./support/report.ts";
import { shuffled } from "./support/stats.ts";
import { startHoldfast } from "./support/systems.ts";

const PROBE_INTERVAL = "100ms";
/** What is repeated is so many times as short, and turns come the sooner: the machine's speed drifts. */
const REPEATED_SHORTER = 2;

interface Options {
  readonly rounds: number;
  /** How long each load lasts. */
  readonly seconds: number;
  /** How often a round measures what is repeated. */
  readonly slices: number;
  /** Each of the loads that warm a new process up. */
  readonly warmUpSeconds: number;
  readonly cases: readonly Case[];
}

interface Groups {
  readonly two: RedisGroup;
  readonly one: RedisGroup;
}

async function main(): Promise<void> {
  const options = readOptions();
  const about = setting();
  const samples: Sample[] = [];
  const traffic = new Traffic();
  const groups: Groups = { two: await startGroup(2), one: await startGroup(1) };
  try {
    for (let round = 1; round <= options.rounds; round++) {
      progress(`Round ${round} of ${options.rounds}`);
      await runRound(options, groups, traffic, round, (sample) => samples.push(sample));
    }
  } finally {
    await Promise.all([groups.two.close(), groups.one.close()]);
    traffic.close();
  }
  const verdicts = judge(samples);
  publish("reads", about, render(options, samples, verdicts), { options, verdicts, samples });
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      seconds: { type: "string" },
      parts: { type: "string", default: PARTS.join(",") },
    },
  });
  const parts = values.parts.split(",");
  return {
    rounds: Number(values.rounds ?? (values.quick ? 2 : 3)),
    seconds: Number(values.seconds ?? (values.quick ? 0.7 : 2.5)),
    slices: values.quick ? 4 : 8,
    warmUpSeconds: values.quick ? 0.5 : 1,
    cases: CASES.filter(({ part }) => parts.includes(part)),
  };
}

async function runRound(
  options: Options,
  groups: Groups,
  traffic: Traffic,
  round: number,
  keep: (sample: Sample) => void,
): Promise<void> {
  const names = new Set(options.cases.flatMap(({ part }) => systemsOf(part)));
  const stands: Stand[] = [];
  try {
    for (const name of names) stands.push(await start(name, groups));
    for (const stand of shuffled(stands)) await warmUp(stand, traffic, options.warmUpSeconds);
    const nodes = [...groups.two.all, ...groups.one.all];
    const pids = [process.pid, ...[...nodes, ...stands.map(({ system }) => system)].map(({ pid }) => pid)];
    for (const each of options.cases) {
      progress(`  ${each.part}: ${each.about}`);
      const slices = isRepeated(each.part) ? options.slices : 1;
      const seconds = isRepeated(each.part) ? options.seconds / REPEATED_SHORTER : options.seconds;
      for (let slice = 1; slice <= slices; slice++) {
        const mine = stands.filter(({ name }) => systemsOf(each.part).includes(name));
        for (const stand of shuffled(mine)) {
          keep(await measure(each, stand, traffic, { round, slice, seconds, pids }));
        }
      }
    }
  } finally {
    await Promise.all(stands.map(({ system }) => system.close()));
  }
}

async function start(name: SystemName, groups: Groups): Promise<Stand> {
  const group = name === "one-replica" ? groups.one : groups.two;
  const settings = { HOLDFAST_PROBE_INTERVAL: PROBE_INTERVAL, ...settingsOf(name) };
  return { name, group, system: await startHoldfast(group.addresses, { settings }) };
}

function settingsOf(name: SystemName): Readonly<Record<string, string>> {
  switch (name) {
    case "eventual":
    case "again":
      return { HOLDFAST_READS_CONSISTENCY: "eventual" };
    case "session":
    case "one-replica":
      return { HOLDFAST_READS_CONSISTENCY: "session" };
    case "strong":
      return { HOLDFAST_READS_CONSISTENCY: "strong" };
    case "no-replica":
      return { HOLDFAST_READS_CONSISTENCY: "session", HOLDFAST_READS_FROM: "master" };
  }
}

async function warmUp({ system, group }: Stand, traffic: Traffic, seconds: number): Promise<void> {
  for (const load of WARM_UPS) {
    await fill(group, traffic, load.keys);
    await traffic.run(system.port, load, seconds);
  }
}

await main();
