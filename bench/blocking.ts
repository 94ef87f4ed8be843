/**
 * Clients that wait in BRPOP: what each costs in memory, and how soon it has what is pushed.
 *
 *   npm run bench:blocking -- [--quick] [--rounds 5] [--clients 1000] [--wakeups 4000]
 *                             [--push system|redis]
 *
 *   own   every client waits on a key of its own; each push goes to a random one that has waited for a while
 *   same  all wait on one key; each push is for the one that has waited longest
 *
 * Clients wait on Redis directly and, as many, through Holdfast; pushes to the ones and the others take
 * turns, so that what else the machine does meets both alike. One comes every few ms: nothing is busy. A
 * latency runs from the write of LPUSH to the element's arrival at the client, which then waits again; both
 * ends are in this process. Whoever pushes does it where the clients wait, so that the way of the push
 * counts too; with `--push redis` all push at Redis, and what counts is the way back to the client alone.
 * Every round starts everything anew; a ratio is the median of the ratios within the rounds.
 */
import { parseArgs } from "node:util";
import { RawClient } from "../test/support/client.ts";
import { type RedisServer, startRedis } from "../test/support/redis.ts";
import { type Reply, ReplyError } from "../test/support/resp.ts";
import { sleep, until } from "../test/support/wait.ts";
import { cpuSeconds, machineCpuSeconds } from "./support/proc.ts";
import {
  progress,
  publish,
  setting,
  table,
  type Verdict,
  verdictOnRatio,
  verdictTable,
} from "./support/report.ts";
import { median, medianRatio, quantile, shuffled } from "./support/stats.ts";
import { COLLECT_ON_SIGNAL, type System, settledRss, startHoldfast } from "./support/systems.ts";

const BLOCKED_CLIENT_BYTES_MOST = 30 * 1024;
const P99_RATIO_MOST = 2;
/** A client is pushed to when it has waited so long: then it surely waits at the server. */
const WAITED_MS_LEAST = 50;
/** Between two pushes. */
const PAUSE_MS = 2;
const WARM_UP_WAKEUPS = 1_000;
/** Clients of ours besides those that wait. */
const OTHER_CLIENTS = 50;
const CONNECT_AT_ONCE = 100;
/** No reply comes for as long as nobody pushes. */
const CLIENT_DEADLINE_MS = 3_600_000;

const SYSTEMS = ["redis", "holdfast"] as const;
type SystemName = (typeof SYSTEMS)[number];
const SCENARIOS = ["own", "same"] as const;
type Scenario = (typeof SCENARIOS)[number];

interface Options {
  readonly rounds: number;
  readonly clients: number;
  /** Measured pushes in every round and scenario. */
  readonly wakeups: number;
  /** Where those push whose clients wait through Holdfast. */
  readonly push: "system" | "redis";
}

interface Sample {
  readonly round: number;
  readonly system: SystemName;
  readonly scenario: Scenario;
  readonly latenciesMs: readonly number[];
  /** Cores that were busy with what has nothing to do with us. */
  readonly otherCores: number;
}

/** The proxy's resident memory, garbage collected before each look. */
interface Footprint {
  readonly baseBytes: number;
  readonly idleBytes: number;
  readonly blockedBytes: number;
  /** Blocked again, after every push of the round. */
  readonly wokenBytes: number;
  /** Connections Redis has while the clients wait. */
  readonly upstream: number;
}

async function main(): Promise<void> {
  const options = readOptions();
  const about = setting();
  const samples: Sample[] = [];
  const footprints: Footprint[] = [];
  for (let round = 1; round <= options.rounds; round++) {
    progress(`Round ${round} of ${options.rounds}`);
    const measured = await runOnce(options, round);
    samples.push(...measured.samples);
    footprints.push(measured.footprint);
  }
  const verdicts = judge(options, samples, footprints);
  const kept = samples.map(({ latenciesMs, ...sample }) => ({ ...sample, ...summary(latenciesMs) }));
  const body = render(options, samples, footprints, verdicts);
  publish("blocking", about, body, { options, verdicts, footprints, samples: kept });
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      clients: { type: "string", default: "1000" },
      wakeups: { type: "string" },
      push: { type: "string", default: "system" },
    },
  });
  return {
    rounds: Number(values.rounds ?? (values.quick ? 2 : 5)),
    clients: Number(values.clients),
    wakeups: Number(values.wakeups ?? (values.quick ? 1_500 : 4_000)),
    push: values.push === "redis" ? "redis" : "system",
  };
}

async function runOnce(options: Options, round: number) {
  const redis = await startRedis();
  const most = String(options.clients + OTHER_CLIENTS);
  const settings = { HOLDFAST_UPSTREAM_MAX_PRIVATE: most };
  const all: Waiting[] = [];
  let system: System | undefined;
  try {
    system = await startHoldfast([redis.address], { nodeArgs: COLLECT_ON_SIGNAL, settings });
    const baseBytes = await baseRss(system);
    const proxied = await Waiting.connect(
      "holdfast",
      system.port,
      options.clients,
      options.push === "redis" ? redis.port : system.port,
    );
    all.push(proxied);
    const idleBytes = await settledRss(system.pid);
    proxied.block("own");
    await untilBlocked(redis, options.clients);
    const blockedBytes = await settledRss(system.pid);
    const upstream = Number((await redis.info("clients")).get("connected_clients"));
    all.push(await Waiting.connect("redis", redis.port, options.clients));
    const samples: Sample[] = [];
    for (const scenario of SCENARIOS) {
      const pids = [redis.pid, system.pid, process.pid];
      samples.push(...(await wakeInTurns(all, options, scenario, pids, round)));
    }
    const wokenBytes = await settledRss(system.pid);
    return { samples, footprint: { baseBytes, idleBytes, blockedBytes, wokenBytes, upstream } };
  } finally {
    for (const waiting of all) waiting.close();
    await system?.close();
    await redis.close();
  }
}

/** A process that has served a little is the base: its code is compiled, its lanes are open. */
async function baseRss(system: System): Promise<number> {
  const few = await Waiting.connect("holdfast", system.port, CONNECT_AT_ONCE);
  few.block("own");
  for (let i = 0; i < WARM_UP_WAKEUPS; i++) await few.wakeOne();
  await few.latencies();
  few.close();
  return settledRss(system.pid);
}

async function untilBlocked(redis: RedisServer, count: number): Promise<void> {
  const areBlocked = async () => Number((await redis.info("clients")).get("blocked_clients")) === count;
  await until(areBlocked, { deadlineMs: 30_000, what: `${count} clients blocked at Redis`, everyMs: 50 });
}

async function wakeInTurns(
  all: readonly Waiting[],
  options: Options,
  scenario: Scenario,
  pids: readonly number[],
  round: number,
): Promise<Sample[]> {
  const others = () => machineCpuSeconds() - pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  for (const waiting of all) await waiting.turnTo(scenario);
  await wake(all, WARM_UP_WAKEUPS);
  for (const waiting of all) await waiting.latencies();
  const [othersBefore, startMs] = [others(), performance.now()];
  await wake(all, options.wakeups);
  const otherCores = (others() - othersBefore) / ((performance.now() - startMs) / 1000);
  const samples: Sample[] = [];
  for (const waiting of all) {
    const latenciesMs = await waiting.latencies();
    samples.push({ round, system: waiting.system, scenario, latenciesMs, otherCores });
  }
  return samples;
}

async function wake(all: readonly Waiting[], count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    for (const waiting of shuffled(all)) await waiting.wakeOne();
  }
}

interface Waiter {
  readonly client: RawClient;
  readonly key: string;
  /** Null while it does not wait. */
  sinceMs: number | null;
}

/** Clients that wait in BRPOP, and one that pushes. */
class Waiting {
  readonly system: SystemName;
  readonly #waiters: readonly Waiter[];
  readonly #pusher: RawClient;
  #scenario: Scenario = "own";
  /** Whether a client that got its element waits again. */
  #isGoingOn = true;
  #isClosed = false;
  #failure: Error | null = null;
  #sentMs: number[] = [];
  #latenciesMs: number[] = [];

  static async connect(
    system: SystemName,
    port: number,
    count: number,
    pushPort: number = port,
  ): Promise<Waiting> {
    const connect = () => RawClient.connect({ port, deadlineMs: CLIENT_DEADLINE_MS });
    const pusher = await RawClient.connect({ port: pushPort, deadlineMs: CLIENT_DEADLINE_MS });
    const clients: RawClient[] = [];
    while (clients.length < count) {
      const length = Math.min(CONNECT_AT_ONCE, count - clients.length);
      const batch = await Promise.all(Array.from({ length }, connect));
      // Idle clients have usually done something before.
      await Promise.all(batch.map((client) => client.command("PING")));
      clients.push(...batch);
    }
    return new Waiting(system, clients, pusher);
  }

  private constructor(system: SystemName, clients: readonly RawClient[], pusher: RawClient) {
    this.system = system;
    this.#waiters = clients.map((client, i) => ({ client, key: `bench:${system}:${i}`, sinceMs: null }));
    this.#pusher = pusher;
  }

  /** Lets every client wait, on its own key or on that of all. */
  block(scenario: Scenario): void {
    this.#scenario = scenario;
    this.#isGoingOn = true;
    for (const waiter of this.#waiters) this.#wait(waiter);
  }

  /** Ends all waiting, by a push for each, and lets them wait as the other scenario says. */
  async turnTo(scenario: Scenario): Promise<void> {
    this.#isGoingOn = false;
    for (const waiter of this.#waiters.filter(({ sinceMs }) => sinceMs !== null)) await this.#push(waiter);
    await until(() => this.#waiters.every(({ sinceMs }) => sinceMs === null), { what: "nobody waiting" });
    this.block(scenario);
    await sleep(WAITED_MS_LEAST * 4);
  }

  /** One push to one that has waited for a while, and a pause. */
  async wakeOne(): Promise<void> {
    const waiter = await until(() => this.#pick(), { what: "a client that has waited for a while" });
    await this.#push(waiter);
    await sleep(PAUSE_MS);
    if (this.#failure !== null) throw this.#failure;
  }

  /** @returns those of all pushes since it was last asked, ms. */
  async latencies(): Promise<readonly number[]> {
    const areThere = () => this.#latenciesMs.length === this.#sentMs.length;
    await until(areThere, { what: "all pushed elements at the clients" });
    const latenciesMs = this.#latenciesMs;
    this.#sentMs = [];
    this.#latenciesMs = [];
    return latenciesMs;
  }

  /** A random client among those that have waited for a while; null when there happens to be none. */
  #pick(): Waiter | null {
    const latestMs = performance.now() - WAITED_MS_LEAST;
    for (let tries = 0; tries < this.#waiters.length; tries++) {
      const waiter = this.#waiters[Math.floor(Math.random() * this.#waiters.length)];
      if (waiter !== undefined && waiter.sinceMs !== null && waiter.sinceMs < latestMs) return waiter;
    }
    return null;
  }

  async #push(waiter: Waiter): Promise<void> {
    const element = this.#sentMs.length;
    this.#sentMs.push(performance.now());
    const reply = await this.#pusher.command("LPUSH", this.#keyOf(waiter), element);
    if (reply instanceof ReplyError) throw reply;
  }

  #keyOf(waiter: Waiter): string {
    return this.#scenario === "own" ? waiter.key : `bench:${this.system}:all`;
  }

  #wait(waiter: Waiter): void {
    const woken = (reply: Reply) => {
      const nowMs = performance.now();
      waiter.sinceMs = null;
      if (!Array.isArray(reply)) throw new Error(`BRPOP was answered ${String(reply)}`);
      this.#latenciesMs.push(nowMs - (this.#sentMs[Number(reply[1])] ?? Number.NaN));
      if (this.#isGoingOn) this.#wait(waiter);
    };
    waiter.sinceMs = performance.now();
    const reply = waiter.client.command("BRPOP", this.#keyOf(waiter), 0);
    reply.then(woken).catch((error: Error) => {
      if (!this.#isClosed) this.#failure ??= error;
    });
  }

  close(): void {
    this.#isClosed = true;
    for (const { client } of this.#waiters) client.close();
    this.#pusher.close();
  }
}

interface Summary {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
}

function summary(latenciesMs: readonly number[]): Summary {
  return {
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
    p999Ms: quantile(latenciesMs, 0.999),
    maxMs: Math.max(...latenciesMs),
  };
}

function only(samples: readonly Sample[], system: SystemName, scenario: Scenario): Sample[] {
  return samples.filter((sample) => sample.system === system && sample.scenario === scenario);
}

/** The median over the rounds of (Holdfast / Redis). */
function ratio(samples: readonly Sample[], scenario: Scenario, measure: keyof Summary): number {
  const [mine, others] = [only(samples, "holdfast", scenario), only(samples, "redis", scenario)];
  return medianRatio(mine, others, ({ latenciesMs }) => summary(latenciesMs)[measure]);
}

function middle(footprints: readonly Footprint[], pick: (footprint: Footprint) => number): number {
  return median(footprints.map(pick));
}

function judge(options: Options, samples: readonly Sample[], footprints: readonly Footprint[]): Verdict[] {
  const each =
    middle(footprints, ({ blockedBytes, baseBytes }) => blockedBytes - baseBytes) / options.clients;
  const memory: Verdict = {
    what: `${options.clients} blocked clients, resident memory each`,
    bound: `≤ ${BLOCKED_CLIENT_BYTES_MOST / 1024} KB`,
    measured: `${(each / 1024).toFixed(1)} KB`,
    isMet: each <= BLOCKED_CLIENT_BYTES_MOST,
  };
  const waits = SCENARIOS.map((scenario) => {
    const what = `${scenario} key, p99 from LPUSH to the blocked client`;
    return verdictOnRatio(what, ratio(samples, scenario, "p99Ms"), P99_RATIO_MOST);
  });
  return [memory, ...waits];
}

function render(
  options: Options,
  samples: readonly Sample[],
  footprints: readonly Footprint[],
  verdicts: readonly Verdict[],
): string {
  return [
    `Pushed at ${options.push === "redis" ? "Redis itself by all" : "the system on which the clients wait"}. ` +
      `Medians of ${options.rounds} rounds; ${options.clients} clients in BRPOP, ${options.wakeups} pushes in ` +
      `every round, ${PAUSE_MS} ms between two. p99.9 and the longest are those of all rounds together. Others: cores ` +
      "busy with processes that do not belong to the bench, and the hypervisor.",
    latencyTable(samples),
    "Resident memory of Holdfast, the garbage collected before each figure. What the process itself grew by " +
      "while it served the pushes is in the last one, which is the most a client can have cost:",
    footprintTable(options, footprints),
    "## Bounds",
    verdictTable(verdicts),
  ].join("\n\n");
}

function latencyTable(samples: readonly Sample[]): string {
  const ms = (value: number) => `${value.toFixed(2)} ms`;
  const rows = SCENARIOS.flatMap((scenario) =>
    SYSTEMS.map((system) => {
      const mine = only(samples, system, scenario);
      const each = mine.map(({ latenciesMs }) => summary(latenciesMs));
      const all = summary(mine.flatMap(({ latenciesMs }) => latenciesMs));
      const [p50, p99] = [median(each.map(({ p50Ms }) => p50Ms)), median(each.map(({ p99Ms }) => p99Ms))];
      const others = median(mine.map(({ otherCores }) => otherCores));
      return [scenario, system, ...[p50, p99, all.p999Ms, all.maxMs].map(ms), others.toFixed(2)];
    }),
  );
  return table(["keys", "system", "p50", "p99", "p99.9", "longest", "cores: others"], rows);
}

function footprintTable(options: Options, footprints: readonly Footprint[]): string {
  const row = (what: string, pick: (footprint: Footprint) => number, isOfClients: boolean) => {
    const perClient = middle(footprints, (each) => pick(each) - each.baseBytes) / options.clients;
    const resident = `${(middle(footprints, pick) / 2 ** 20).toFixed(1)} MB`;
    return [what, resident, isOfClients ? `${(perClient / 1024).toFixed(1)} KB` : "–"];
  };
  const rows = [
    row("before the clients", ({ baseBytes }) => baseBytes, false),
    row("clients idle", ({ idleBytes }) => idleBytes, true),
    row("clients blocked", ({ blockedBytes }) => blockedBytes, true),
    row("blocked, after all pushes", ({ wokenBytes }) => wokenBytes, true),
  ];
  const connections = middle(footprints, ({ upstream }) => upstream);
  const text = `Connections at Redis while they are blocked: ${connections}.`;
  return `${table(["state", "resident", "for each client"], rows)}\n\n${text}`;
}

await main();
