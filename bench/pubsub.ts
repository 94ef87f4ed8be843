/**
 * Fan-out: one channel, thousands of subscribers, on Redis directly and through Holdfast.
 *
 *   npm run bench:pubsub -- [--quick] [--rounds 3] [--subscribers 10000] [--payload 64]
 *                           [--gentle 10] [--rate 1000] [--backlog 200]
 *
 * Every round starts each system anew, in random order and alone beside the load generator, and offers two
 * loads: a gentle one, each message when the one before has reached everybody, and the given rate. Ten
 * million deliveries a second are more than two cores can do: what was delivered is counted at the
 * subscribers, CPU is per delivered message, and what is due while `backlog` messages have not reached
 * everybody is not published, so that both systems are equally far behind (a large backlog is a flood). Every
 * load is measured until all of it has arrived. A ratio is the median of the ratios within the rounds.
 */
import { parseArgs } from "node:util";
import { RawClient } from "../test/support/client.ts";
import { type RedisServer, startRedis } from "../test/support/redis.ts";
import { encodeCommand, type Reply, ReplyError } from "../test/support/resp.ts";
import { sleep, until } from "../test/support/wait.ts";
import { cpuSeconds, machineCpuSeconds, memory, openFilesMost, resetPeak } from "./support/proc.ts";
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
import { clockMs, compileSubscribers, Subscribers } from "./support/subscribers.ts";
import { COLLECT_ON_SIGNAL, type System, settledRss, startHoldfast } from "./support/systems.ts";

const CHANNEL = "bench";
const CPU_RATIO_MOST = 2;
/** Not one for each subscriber: a few that all of them share. */
const UPSTREAM_MOST = 8;
/** How long what was published may take to arrive after the publisher has stopped. */
const DRAIN_MS_MOST = 30_000;
/** How often the publisher asks what has arrived. */
const ASK_EVERY_MS = 20;
/** Clients of ours besides the subscribers. */
const OTHER_CLIENTS = 50;
const WARM_UP_SUBSCRIBERS = 50;

const SYSTEMS = ["redis", "holdfast"] as const;
type SystemName = (typeof SYSTEMS)[number];
const LOADS = ["gentle", "full"] as const;
type LoadName = (typeof LOADS)[number];

interface Options {
  readonly rounds: number;
  readonly subscribers: number;
  readonly payloadBytes: number;
  readonly ratePerSecond: Readonly<Record<LoadName, number>>;
  /** Messages at most that have not reached all subscribers. */
  readonly backlog: Readonly<Record<LoadName, number>>;
  readonly seconds: Readonly<Record<LoadName, number>>;
}

/** One load on one system. */
interface Sample {
  readonly round: number;
  readonly system: SystemName;
  readonly load: LoadName;
  readonly publishedPerSecond: number;
  readonly deliveredPerSecond: number;
  /** CPU of the system's process per delivered message. */
  readonly cpuUs: number;
  /** As above, of redis-server: behind the proxy for Holdfast, itself for Redis directly. */
  readonly redisCpuUs: number;
  /** Cores that were busy: with the system, with the subscribers, with what has nothing to do with us. */
  readonly systemCores: number;
  readonly subscriberCores: number;
  readonly otherCores: number;
  /** From PUBLISH to the last subscriber, of the messages that all subscribers got. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Published and not delivered when the time for it was over. */
  readonly missing: number;
  /** Subscribers whose connection was closed on them. */
  readonly cut: number;
}

/** What the subscribers cost a system. */
interface Footprint {
  readonly round: number;
  readonly system: SystemName;
  readonly perSubscriberBytes: number;
  readonly peakBytes: number;
  /** Connections of Redis that have subscribed. */
  readonly upstream: number;
}

async function main(): Promise<void> {
  const options = readOptions();
  const about = setting();
  const { program, remove } = compileSubscribers();
  const samples: Sample[] = [];
  const footprints: Footprint[] = [];
  try {
    for (let number = 1; number <= options.rounds; number++) {
      for (const name of shuffled(SYSTEMS)) {
        progress(`Round ${number} of ${options.rounds}: ${name}`);
        const measured = await runOnce(options, program, name, number);
        samples.push(...measured.samples);
        footprints.push(measured.footprint);
      }
    }
  } finally {
    remove();
  }
  const verdicts = judge(samples, footprints);
  const body = render(options, samples, footprints, verdicts);
  publish("pubsub", about, body, { options, verdicts, samples, footprints });
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      subscribers: { type: "string" },
      payload: { type: "string", default: "64" },
      gentle: { type: "string", default: "10" },
      rate: { type: "string", default: "1000" },
      backlog: { type: "string", default: "200" },
    },
  });
  const subscribers = Number(values.subscribers ?? (values.quick ? 2_000 : 10_000));
  if (subscribers + OTHER_CLIENTS > openFilesMost()) {
    throw new Error(`${subscribers} subscribers need more open files than ${openFilesMost()} (ulimit -n)`);
  }
  return {
    rounds: Number(values.rounds ?? (values.quick ? 2 : 3)),
    subscribers,
    payloadBytes: Number(values.payload),
    ratePerSecond: { gentle: Number(values.gentle), full: Number(values.rate) },
    // Messages that queue up leave in one write: only without a queue is the CPU that of each.
    backlog: { gentle: 1, full: Number(values.backlog) },
    seconds: values.quick ? { gentle: 4, full: 4 } : { gentle: 12, full: 8 },
  };
}

async function runOnce(options: Options, program: string, name: SystemName, round: number) {
  const clients = String(options.subscribers + OTHER_CLIENTS);
  const redis = await startRedis({ args: ["--maxclients", clients] });
  let system: System | undefined;
  let fanOut: FanOut | undefined;
  try {
    system = await startSystem(name, redis, clients);
    const subscription = subscribersOf(options, system);
    // A process that has served a few is the base: its code is compiled.
    const few = await Subscribers.start(program, { ...subscription, count: WARM_UP_SUBSCRIBERS });
    await few.close();
    const baseBytes = await restingBytes(system);
    const subscribers = await Subscribers.start(program, subscription);
    fanOut = await FanOut.start(options, system, redis, subscribers);
    const perSubscriberBytes = ((await restingBytes(system)) - baseBytes) / options.subscribers;
    const upstream = await subscribedConnections(redis);
    const samples: Sample[] = [];
    resetPeak(system.pid);
    for (const load of LOADS) samples.push({ round, system: name, ...(await fanOut.measure(load)) });
    const { peakBytes } = memory(system.pid);
    return { samples, footprint: { round, system: name, perSubscriberBytes, peakBytes, upstream } };
  } finally {
    await fanOut?.close();
    await system?.close();
    await redis.close();
  }
}

async function startSystem(name: SystemName, redis: RedisServer, clients: string): Promise<System> {
  if (name === "redis") return { name, port: redis.port, pid: redis.pid, close: async () => {} };
  // A private connection for each subscriber is allowed as well: the bench shows how many there are.
  const settings = { HOLDFAST_LIMITS_MAX_CLIENTS: clients, HOLDFAST_UPSTREAM_MAX_PRIVATE: clients };
  return startHoldfast([redis.address], { nodeArgs: COLLECT_ON_SIGNAL, settings });
}

/** Redis leaves no garbage to collect. */
async function restingBytes({ name, pid }: System): Promise<number> {
  return name === "holdfast" ? settledRss(pid) : memory(pid).rssBytes;
}

function subscribersOf({ subscribers, payloadBytes }: Options, { port }: System) {
  return { port, count: subscribers, channel: CHANNEL, payloadBytes };
}

async function subscribedConnections(redis: RedisServer): Promise<number> {
  const list = await redis.cli("CLIENT", "LIST", "TYPE", "pubsub");
  return String(list)
    .split("\n")
    .filter((line) => line !== "").length;
}

/** Counters at one moment; CPU in seconds. */
interface Look {
  readonly atMs: number;
  readonly delivered: number;
  readonly systemCpu: number;
  readonly redisCpu: number;
  readonly subscriberCpu: number;
  /** Of all processes of this bench. */
  readonly oursCpu: number;
  readonly machineCpu: number;
}

/** A publisher, its subscribers, and the counting of both. */
class FanOut {
  readonly #options: Options;
  readonly #system: System;
  readonly #redis: RedisServer;
  readonly #subscribers: Subscribers;
  readonly #publisher: RawClient;
  readonly #message: Buffer;
  /** When each message was published, in order. */
  readonly #sentMs: number[] = [];
  #refused = "";

  static async start(options: Options, system: System, redis: RedisServer, subscribers: Subscribers) {
    try {
      const publisher = await RawClient.connect({ port: system.port });
      return new FanOut(options, system, redis, subscribers, publisher);
    } catch (error) {
      await subscribers.close();
      throw error;
    }
  }

  private constructor(
    options: Options,
    system: System,
    redis: RedisServer,
    subscribers: Subscribers,
    publisher: RawClient,
  ) {
    this.#options = options;
    this.#system = system;
    this.#redis = redis;
    this.#subscribers = subscribers;
    this.#publisher = publisher;
    this.#message = encodeCommand(["PUBLISH", CHANNEL, "m".repeat(options.payloadBytes)]);
  }

  /** Publishes at the load's rate, first to warm up, then measured, each until all has arrived. */
  async measure(load: LoadName): Promise<Omit<Sample, "round" | "system">> {
    const seconds = this.#options.seconds[load];
    await this.#publish(load, Math.min(2, seconds / 2));
    await this.#drain();
    const [before, firstMessage] = [await this.#look(), this.#sentMs.length];
    await this.#publish(load, seconds);
    const publishedSeconds = (clockMs() - before.atMs) / 1000;
    const missing = await this.#drain();
    const [after, endMessage] = [await this.#look(), this.#sentMs.length];
    const { lost } = await this.#subscribers.received();
    const delivered = after.delivered - before.delivered;
    const elapsed = (after.atMs - before.atMs) / 1000;
    const used = (pick: (look: Look) => number) => pick(after) - pick(before);
    const ours = used((look) => look.oursCpu);
    const latencies = await this.#latencies(firstMessage, endMessage);
    return {
      load,
      publishedPerSecond: (endMessage - firstMessage) / publishedSeconds,
      deliveredPerSecond: delivered / elapsed,
      cpuUs: (used((look) => look.systemCpu) / delivered) * 1e6,
      redisCpuUs: (used((look) => look.redisCpu) / delivered) * 1e6,
      systemCores: used((look) => look.systemCpu) / elapsed,
      subscriberCores: used((look) => look.subscriberCpu) / elapsed,
      otherCores: (used((look) => look.machineCpu) - ours) / elapsed,
      p50Ms: quantile(latencies, 0.5),
      p99Ms: quantile(latencies, 0.99),
      missing,
      cut: lost,
    };
  }

  /** Sends what is due every millisecond; what finds no room in the backlog is not published. */
  async #publish(load: LoadName, seconds: number): Promise<void> {
    const { subscribers } = this.#options;
    const [perSecond, backlog] = [this.#options.ratePerSecond[load], this.#options.backlog[load]];
    const startMs = clockMs();
    let arrived = await this.#subscribers.received();
    for (let offered = 0, askedMs = startMs; ; ) {
      const nowMs = clockMs();
      if (nowMs - startMs >= seconds * 1000) return;
      const due = Math.floor(((nowMs - startMs) / 1000) * perSecond) + 1 - offered;
      // Those that were cut get nothing more: the publisher must not wait for them.
      const room = Math.floor(
        backlog - this.#sentMs.length + arrived.messages / (subscribers - arrived.lost),
      );
      for (let i = Math.min(due, room); i > 0; i--) this.#send(nowMs);
      offered += due;
      if (this.#refused !== "") throw new Error(`PUBLISH was answered ${this.#refused}`);
      await sleep(1);
      if (nowMs - askedMs < ASK_EVERY_MS) continue;
      askedMs = nowMs;
      arrived = await this.#subscribers.received();
    }
  }

  async #arrived(): Promise<number> {
    return (await this.#subscribers.received()).messages;
  }

  #send(nowMs: number): void {
    this.#sentMs.push(nowMs);
    this.#publisher.send(this.#message);
    const answered = (reply: Reply) => {
      if (reply instanceof ReplyError) this.#refused = reply.message;
    };
    this.#publisher.reply().then(answered, (error: Error) => {
      this.#refused = error.message;
    });
  }

  /** @returns how many deliveries are missing when all have arrived or the time for it is over. */
  async #drain(): Promise<number> {
    const expected = () => this.#sentMs.length * this.#options.subscribers;
    const missing = async () => expected() - (await this.#arrived());
    const isThere = async () => (await missing()) === 0;
    await until(isThere, { deadlineMs: DRAIN_MS_MOST, everyMs: 50 }).catch(() => {});
    return missing();
  }

  async #latencies(from: number, end: number): Promise<number[]> {
    const completed = (await this.#subscribers.completedMs()).slice(from, end);
    const latencies = completed.map((at, i) => at - (this.#sentMs[from + i] ?? Number.NaN));
    return latencies.filter(Number.isFinite);
  }

  async #look(): Promise<Look> {
    const delivered = await this.#arrived();
    const systemCpu = cpuSeconds(this.#system.pid);
    const redisCpu = cpuSeconds(this.#redis.pid);
    const subscriberCpu = this.#subscribers.cpuSeconds;
    const proxyCpu = this.#system.pid === this.#redis.pid ? 0 : systemCpu;
    return {
      atMs: clockMs(),
      delivered,
      systemCpu,
      redisCpu,
      subscriberCpu,
      oursCpu: proxyCpu + redisCpu + subscriberCpu + cpuSeconds(process.pid),
      machineCpu: machineCpuSeconds(),
    };
  }

  async close(): Promise<void> {
    this.#publisher.close();
    await this.#subscribers.close();
  }
}

function only(samples: readonly Sample[], system: SystemName, load: LoadName): Sample[] {
  return samples.filter((sample) => sample.system === system && sample.load === load);
}

/** The median over the rounds of (Holdfast / Redis), CPU per delivered message. */
function cpuRatio(samples: readonly Sample[], load: LoadName): number {
  const [mine, others] = [only(samples, "holdfast", load), only(samples, "redis", load)];
  return medianRatio(mine, others, ({ cpuUs }) => cpuUs);
}

function judge(samples: readonly Sample[], footprints: readonly Footprint[]): Verdict[] {
  const mine = samples.filter((sample) => sample.system === "holdfast");
  const verdicts = LOADS.map((load) => {
    const what = `${load} load: CPU per delivered message`;
    return verdictOnRatio(what, cpuRatio(samples, load), CPU_RATIO_MOST);
  });
  const cut = Math.max(...mine.map((sample) => sample.cut));
  const missing = Math.max(...mine.map((sample) => sample.missing));
  const upstream = median(
    footprints.filter(({ system }) => system === "holdfast").map((each) => each.upstream),
  );
  verdicts.push(
    { what: "subscribers cut", bound: "0", measured: String(cut), isMet: cut === 0 },
    { what: "deliveries missing", bound: "0", measured: String(missing), isMet: missing === 0 },
    {
      what: "upstream Pub/Sub connections",
      bound: `≤ ${UPSTREAM_MOST}`,
      measured: String(upstream),
      isMet: upstream <= UPSTREAM_MOST,
    },
  );
  return verdicts;
}

function render(
  options: Options,
  samples: readonly Sample[],
  footprints: readonly Footprint[],
  verdicts: readonly Verdict[],
): string {
  const { gentle, full } = options.ratePerSecond;
  return [
    `Medians of ${options.rounds} rounds; ${options.subscribers} subscribers of one channel, messages of ` +
      `${options.payloadBytes} bytes. The gentle load is ${gentle} messages/s, each when the one before has ` +
      `reached everybody; the full one offers ${full}, never more than ${options.backlog.full} ahead of ` +
      "that. CPU is the system's own process, user and system time; Redis's behind the proxy stands apart.",
    throughputTable(samples),
    "From PUBLISH to the last subscriber, and who was busy. With the full load the wait is that of the " +
      "backlog. Others: processes that do not belong to the bench, and the hypervisor.",
    latencyTable(samples),
    "Missing: published, and not delivered within " +
      `${DRAIN_MS_MOST / 1000} s of the publisher's end. The worst round counts.`,
    lossTable(samples),
    footprintTable(footprints),
    "## Bounds",
    verdictTable(verdicts),
  ].join("\n\n");
}

/** A row for each load and system. */
function rows(samples: readonly Sample[], cells: (mine: Middle, worst: Middle, load: LoadName) => string[]) {
  return LOADS.flatMap((load) =>
    SYSTEMS.map((system) => {
      const mine = only(samples, system, load);
      const middle: Middle = (pick) => median(mine.map(pick));
      const worst: Middle = (pick) => Math.max(...mine.map(pick));
      return [load, system, ...cells(middle, worst, load)];
    }),
  );
}

type Middle = (pick: (sample: Sample) => number) => number;

function throughputTable(samples: readonly Sample[]): string {
  const head = ["load", "system", "published/s", "delivered/s", "CPU µs/delivery", "CPU of Redis behind it"];
  const body = rows(samples, (middle) => [
    middle((sample) => sample.publishedPerSecond).toFixed(1),
    middle((sample) => sample.deliveredPerSecond).toFixed(0),
    middle((sample) => sample.cpuUs).toFixed(2),
    middle((sample) => sample.redisCpuUs).toFixed(2),
  ]);
  return table(
    head,
    body.map((row) => (row[1] === "redis" ? [...row.slice(0, -1), "–"] : row)),
  );
}

function latencyTable(samples: readonly Sample[]): string {
  const head = ["load", "system", "p50", "p99", "cores: system", "cores: subscribers", "cores: others"];
  const ms = (value: number) => (Number.isNaN(value) ? "–" : `${value.toFixed(1)} ms`);
  const body = rows(samples, (middle) => [
    ms(middle((sample) => sample.p50Ms)),
    ms(middle((sample) => sample.p99Ms)),
    middle((sample) => sample.systemCores).toFixed(2),
    middle((sample) => sample.subscriberCores).toFixed(2),
    middle((sample) => sample.otherCores).toFixed(2),
  ]);
  return table(head, body);
}

function lossTable(samples: readonly Sample[]): string {
  const body = rows(samples, (_, worst) => [
    String(worst((sample) => sample.missing)),
    String(worst((sample) => sample.cut)),
  ]);
  return table(["load", "system", "missing", "subscribers cut"], body);
}

function footprintTable(footprints: readonly Footprint[]): string {
  const head = ["system", "resident KB per subscriber", "peak MB under load", "Pub/Sub connections at Redis"];
  const body = SYSTEMS.map((system) => {
    const mine = footprints.filter((each) => each.system === system);
    return [
      system,
      (median(mine.map((each) => each.perSubscriberBytes)) / 1024).toFixed(1),
      (median(mine.map((each) => each.peakBytes)) / 2 ** 20).toFixed(0),
      String(median(mine.map((each) => each.upstream))),
    ];
  });
  return table(head, body);
}

await main();
