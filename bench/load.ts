/**
 * Requests per second, latency and CPU per request: Redis directly, HAProxy, twemproxy, Holdfast.
 *
 *   npm run bench:load -- [--quick] [--rounds 5] [--cases plain,pipeline,large,many] [--replicas 0]
 *
 * One redis-server, one redis-benchmark at a time. Every round runs every case on every system in random
 * order; a ratio is the median of the ratios within the rounds, so that a machine whose speed drifts (or is
 * shared) moves both sides of it.
 */
import { execFile } from "node:child_process";
import { parseArgs, promisify } from "node:util";
import { type RedisGroup, startGroup } from "../test/support/redis.ts";
import { cpuSeconds } from "./support/proc.ts";
import { progress, publish, setting, table, type Verdict, verdictTable } from "./support/report.ts";
import { median, round, shuffled } from "./support/stats.ts";
import {
  type System,
  type SystemName,
  startHaproxy,
  startHoldfast,
  startTwemproxy,
} from "./support/systems.ts";

const run = promisify(execFile);

interface Case {
  readonly name: string;
  readonly about: string;
  readonly clients: number;
  readonly pipeline: number;
  readonly valueBytes: number;
  readonly requests: number;
}

const CASES: readonly Case[] = [
  { name: "plain", about: "50 clients", clients: 50, pipeline: 1, valueBytes: 3, requests: 150_000 },
  {
    name: "pipeline",
    about: "50 clients, pipelines of 16",
    clients: 50,
    pipeline: 16,
    valueBytes: 3,
    requests: 1_200_000,
  },
  {
    name: "large",
    about: "50 clients, 4 KB values",
    clients: 50,
    pipeline: 1,
    valueBytes: 4096,
    requests: 120_000,
  },
  { name: "many", about: "500 clients", clients: 500, pipeline: 1, valueBytes: 3, requests: 150_000 },
];

const SYSTEMS: readonly SystemName[] = ["redis", "haproxy", "twemproxy", "holdfast"];
const COMMANDS = ["set", "get"] as const;
type Command = (typeof COMMANDS)[number];

interface Sample {
  readonly round: number;
  readonly case: string;
  readonly command: Command;
  readonly system: SystemName;
  readonly requestsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU of the system's process per request. */
  readonly cpuUs: number;
}

type Measure = "requestsPerSecond" | "cpuUs";

/** Ratios of Holdfast to another system; `least` or `most` is the promise. */
interface Bound {
  readonly case: string;
  readonly measure: Measure;
  readonly against: SystemName;
  readonly least?: number;
  readonly most?: number;
}

const BOUNDS: readonly Bound[] = [
  { case: "plain", measure: "requestsPerSecond", against: "twemproxy", least: 1.0 },
  { case: "plain", measure: "cpuUs", against: "twemproxy", most: 1.25 },
  { case: "pipeline", measure: "requestsPerSecond", against: "twemproxy", least: 1.4 },
  { case: "pipeline", measure: "requestsPerSecond", against: "haproxy", least: 0.9 },
  { case: "pipeline", measure: "cpuUs", against: "twemproxy", most: 0.45 },
  { case: "large", measure: "cpuUs", against: "twemproxy", most: 1.15 },
  { case: "many", measure: "cpuUs", against: "twemproxy", most: 1.15 },
];

interface Options {
  readonly rounds: number;
  readonly cases: readonly Case[];
  readonly systems: readonly SystemName[];
  readonly replicas: number;
}

async function main(): Promise<void> {
  const options = readOptions();
  const about = setting();
  const group = await startGroup(options.replicas);
  const systems: System[] = [];
  const samples: Sample[] = [];
  try {
    for (const name of options.systems) systems.push(await startSystem(group, name));
    progress("Warming up …");
    for (const each of options.cases) await runCase(each, systems, 0, () => {});
    for (let number = 1; number <= options.rounds; number++) {
      for (const each of options.cases) {
        progress(`Round ${number} of ${options.rounds}: ${each.about}`);
        await runCase(each, systems, number, (sample) => samples.push(sample));
      }
    }
  } finally {
    await Promise.all(systems.map((system) => system.close()));
    await group.close();
  }
  const verdicts = judge(samples);
  publish("load", about, render(options, samples, verdicts), { options, verdicts, samples });
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      cases: { type: "string", default: CASES.map((each) => each.name).join(",") },
      systems: { type: "string", default: SYSTEMS.join(",") },
      replicas: { type: "string", default: "0" },
    },
  });
  const names = values.cases.split(",");
  const cases = CASES.filter((each) => names.includes(each.name));
  const shorter = (each: Case): Case => ({ ...each, requests: each.requests / 3 });
  return {
    rounds: Number(values.rounds ?? (values.quick ? 3 : 5)),
    cases: values.quick ? cases.map(shorter) : cases,
    systems: SYSTEMS.filter((name) => values.systems.split(",").includes(name)),
    replicas: Number(values.replicas),
  };
}

async function startSystem({ master, addresses }: RedisGroup, name: SystemName): Promise<System> {
  switch (name) {
    case "redis":
      return { name, port: master.port, pid: master.pid, close: async () => {} };
    case "haproxy":
      return startHaproxy(master.address);
    case "twemproxy":
      return startTwemproxy(master.address);
    case "holdfast":
      return startHoldfast(addresses);
  }
}

async function runCase(
  each: Case,
  systems: readonly System[],
  number: number,
  keep: (sample: Sample) => void,
): Promise<void> {
  // The warm-up is round 0: enough for the just-in-time compiler, whatever the case.
  const requests = number === 0 ? each.requests / 3 : each.requests;
  for (const system of shuffled(systems)) {
    for (const command of COMMANDS) {
      keep(await measure({ ...each, requests: Math.round(requests) }, system, command, number));
    }
  }
}

async function measure(each: Case, system: System, command: Command, number: number): Promise<Sample> {
  const args = ["-h", "127.0.0.1", "-p", String(system.port), "-t", command, "--csv"];
  args.push("-c", String(each.clients), "-n", String(each.requests));
  args.push("-P", String(each.pipeline), "-d", String(each.valueBytes));
  const cpuBefore = cpuSeconds(system.pid);
  const { stdout, stderr } = await run("redis-benchmark", args, { timeout: 120_000 });
  const cpuUsed = cpuSeconds(system.pid) - cpuBefore;
  const result = stdout.split("\n").find((line) => line.toLowerCase().startsWith(`"${command}"`));
  if (result === undefined) throw new Error(`redis-benchmark on ${system.name}: ${stdout}${stderr}`);
  // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max…"
  const fields = result.split(",").map((field) => Number(field.replaceAll('"', "")));
  return {
    round: number,
    case: each.name,
    command,
    system: system.name,
    requestsPerSecond: fields[1] ?? Number.NaN,
    p50Ms: fields[4] ?? Number.NaN,
    p99Ms: fields[6] ?? Number.NaN,
    cpuUs: (cpuUsed * 1e6) / each.requests,
  };
}

/** The median over the rounds of (Holdfast / other). */
function ratio(samples: readonly Sample[], bound: Bound, command: Command): number {
  const of = (system: SystemName, number: number) =>
    samples.find(
      (sample) =>
        sample.system === system &&
        sample.round === number &&
        sample.case === bound.case &&
        sample.command === command,
    )?.[bound.measure] ?? Number.NaN;
  const rounds = [...new Set(samples.map((sample) => sample.round))];
  const ratios = rounds.map((number) => of("holdfast", number) / of(bound.against, number));
  return median(ratios.filter(Number.isFinite));
}

function judge(samples: readonly Sample[]): Verdict[] {
  const verdicts: Verdict[] = [];
  for (const bound of BOUNDS) {
    const about = CASES.find((each) => each.name === bound.case)?.about ?? bound.case;
    const unit = bound.measure === "cpuUs" ? "CPU per request" : "requests per second";
    for (const command of COMMANDS) {
      const measured = ratio(samples, bound, command);
      if (Number.isNaN(measured)) continue;
      verdicts.push({
        what: `${about}, ${command.toUpperCase()}: ${unit}`,
        bound: `${bound.least !== undefined ? `≥ ${bound.least}` : `≤ ${bound.most}`} × ${bound.against}`,
        measured: `${measured.toFixed(2)} ×`,
        isMet: measured >= (bound.least ?? 0) && measured <= (bound.most ?? Number.POSITIVE_INFINITY),
      });
    }
  }
  return verdicts;
}

function render(options: Options, samples: readonly Sample[], verdicts: readonly Verdict[]): string {
  const head = ["case", "command", "system", "requests/s", "p50 ms", "p99 ms", "CPU µs/request"];
  const rows: string[][] = [];
  for (const each of options.cases) {
    for (const command of COMMANDS) {
      for (const system of options.systems) {
        const mine = samples.filter(
          (sample) => sample.case === each.name && sample.command === command && sample.system === system,
        );
        const middle = (pick: (sample: Sample) => number) => median(mine.map(pick));
        rows.push([
          each.about,
          command.toUpperCase(),
          system,
          String(Math.round(middle((sample) => sample.requestsPerSecond))),
          String(
            round(
              middle((sample) => sample.p50Ms),
              3,
            ),
          ),
          String(
            round(
              middle((sample) => sample.p99Ms),
              3,
            ),
          ),
          middle((sample) => sample.cpuUs).toFixed(2),
        ]);
      }
    }
  }
  const what =
    `Medians of ${options.rounds} rounds; one redis-server with ${options.replicas} replicas, one thread ` +
    "for each system. CPU is the system's own process, user and system time (for redis: the server's).";
  return [what, table(head, rows), "## Bounds", verdictTable(verdicts)].join("\n\n");
}

await main();
