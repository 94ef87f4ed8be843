/**
 * What Holdfast keeps in memory: idle clients, and values of 100 MB in both directions; and whether a client
 * that sends such a value slowly keeps others waiting.
 *
 *   npm run bench:memory -- [--quick] [--clients 5000] [--megabytes 100]
 */
import net from "node:net";
import { parseArgs } from "node:util";
import { RawClient } from "../test/support/client.ts";
import { startRedis } from "../test/support/redis.ts";
import { sleep, within } from "../test/support/wait.ts";
import { memory, resetPeak } from "./support/proc.ts";
import { progress, publish, setting, table, type Verdict, verdictTable } from "./support/report.ts";
import { quantile } from "./support/stats.ts";
import { COLLECT_ON_SIGNAL, type System, settledRss, startHoldfast } from "./support/systems.ts";

const MB = 1024 * 1024;
const IDLE_CLIENT_BYTES_MOST = 15 * 1024;
const COPIES_MOST = 3;
/** How much longer another client may wait at worst than on Redis directly, which is not idle either. */
const DELAY_MS_MOST = 20;
const CHUNK_BYTES = 64 * 1024;

interface Options {
  readonly clients: number;
  readonly valueBytes: number;
  /** How long the slow client takes for its value. */
  readonly slowMs: number;
}

interface Idle {
  readonly baseBytes: number;
  readonly rssBytes: number;
  readonly perClientBytes: number;
}

interface Large {
  readonly way: "to Redis" | "from Redis";
  readonly baseBytes: number;
  readonly peakBytes: number;
  readonly copies: number;
}

interface Delay {
  readonly through: string;
  readonly beside: "nobody" | "slow";
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      clients: { type: "string" },
      megabytes: { type: "string", default: "100" },
    },
  });
  const options: Options = {
    clients: Number(values.clients ?? (values.quick ? 1_000 : 5_000)),
    valueBytes: Number(values.megabytes) * MB,
    slowMs: values.quick ? 2_000 : 6_000,
  };
  const about = setting();
  const redis = await startRedis();
  try {
    const idle = await withHoldfast(redis.address, (system) => measureIdle(system, options.clients));
    const large = await withHoldfast(redis.address, (system) => measureLarge(system, options.valueBytes));
    const delays = await withHoldfast(redis.address, async (system) => [
      ...(await measureDelays(redis.port, "Redis directly", options)),
      ...(await measureDelays(system.port, "Holdfast", options)),
    ]);
    const verdicts = judge(idle, large, delays, options);
    publish("memory", about, render(options, idle, large, delays, verdicts), {
      options,
      verdicts,
      idle,
      large,
      delays,
    });
  } finally {
    await redis.close();
  }
}

/** Each measurement has a process of its own: what one leaves behind is not the next one's base. */
async function withHoldfast<T>(node: string, measure: (system: System) => Promise<T>): Promise<T> {
  const system = await startHoldfast([node], { nodeArgs: COLLECT_ON_SIGNAL });
  try {
    return await measure(system);
  } finally {
    await system.close();
  }
}

async function measureIdle(system: System, count: number): Promise<Idle> {
  progress(`${count} idle clients …`);
  // A process that has served a little is the base: its code is compiled, its lanes are open.
  await connectAndUse(system.port, 100).then(closeAll);
  const baseBytes = await settledRss(system.pid);
  const clients: RawClient[] = [];
  while (clients.length < count) {
    clients.push(...(await connectAndUse(system.port, Math.min(200, count - clients.length))));
  }
  const rssBytes = await settledRss(system.pid);
  closeAll(clients);
  return { baseBytes, rssBytes, perClientBytes: (rssBytes - baseBytes) / count };
}

/** Idle clients have usually done something before: each asks twice. */
function connectAndUse(port: number, count: number): Promise<RawClient[]> {
  const one = async () => {
    const client = await RawClient.connect({ port });
    await client.pipeline([["PING"], ["GET", "bench:started"]]);
    return client;
  };
  return Promise.all(Array.from({ length: count }, one));
}

function closeAll(clients: readonly RawClient[]): void {
  for (const client of clients) client.close();
}

async function measureLarge(system: System, bytes: number): Promise<Large[]> {
  const base = await settledRss(system.pid);
  const results: Large[] = [];
  for (const way of ["to Redis", "from Redis"] as const) {
    progress(`${bytes / MB} MB ${way} …`);
    resetPeak(system.pid);
    if (way === "to Redis") await sendLarge(system.port, bytes, 0);
    else await receiveLarge(system.port, bytes);
    const { peakBytes } = memory(system.pid);
    // The base is that of the idle process, so that memory kept from the first way counts in the second.
    results.push({ way, baseBytes: base, peakBytes, copies: (peakBytes - base) / bytes });
  }
  return results;
}

/** SET of a value of so many bytes, spread over `durationMs`; resolves with its reply. */
async function sendLarge(port: number, bytes: number, durationMs: number): Promise<void> {
  const socket = net.connect({ port, host: "127.0.0.1" });
  const reply = firstReply(socket);
  socket.write(`*3\r\n$3\r\nSET\r\n$11\r\nbench:large\r\n$${bytes}\r\n`);
  const chunk = Buffer.alloc(CHUNK_BYTES, "v");
  const start = performance.now();
  for (let sent = 0; sent < bytes; sent += CHUNK_BYTES) {
    const hasRoom = socket.write(chunk.subarray(0, Math.min(CHUNK_BYTES, bytes - sent)));
    if (!hasRoom) await new Promise((resolve) => socket.once("drain", resolve));
    const aheadMs = (sent / bytes) * durationMs - (performance.now() - start);
    if (aheadMs > 1) await sleep(aheadMs);
  }
  socket.write("\r\n");
  const text = await within(reply, 60_000, "the reply to a large SET");
  socket.destroy();
  if (!text.startsWith("+OK")) throw new Error(`a large SET was answered ${text}`);
}

function firstReply(socket: net.Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    socket.once("data", (chunk: Buffer) => resolve(chunk.toString()));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("closed without a reply")));
  });
}

async function receiveLarge(port: number, bytes: number): Promise<void> {
  const socket = net.connect({ port, host: "127.0.0.1" });
  const expected = `$${bytes}\r\n`.length + bytes + 2;
  let received = 0;
  const whole = new Promise<void>((resolve, reject) => {
    socket.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received === expected) resolve();
    });
    socket.once("error", reject);
    socket.once("close", () => reject(new Error(`closed after ${received} of ${expected} bytes`)));
  });
  socket.write("*2\r\n$3\r\nGET\r\n$11\r\nbench:large\r\n");
  await within(whole, 60_000, "the reply to a large GET");
  socket.destroy();
}

/** What another client waits for its replies: alone, and while one sends a large value slowly. */
async function measureDelays(port: number, through: string, options: Options): Promise<Delay[]> {
  progress(`Delays through ${through} …`);
  const client = await RawClient.connect({ port });
  const alone = await probe(client, () => sleep(options.slowMs / 2));
  const beside = await probe(client, () => sendLarge(port, options.valueBytes, options.slowMs));
  client.close();
  return [
    { through, beside: "nobody", ...summary(alone) },
    { through, beside: "slow", ...summary(beside) },
  ];
}

/** Reply times of one client's SET and GET, from now to the end of something else. */
async function probe(client: RawClient, somethingElse: () => Promise<void>): Promise<number[]> {
  const samples: number[] = [];
  let isOver = false;
  const end = somethingElse().finally(() => {
    isOver = true;
  });
  for (let i = 0; !isOver; i++) {
    const start = performance.now();
    await client.command(...(i % 2 === 0 ? ["SET", "bench:probe", i] : ["GET", "bench:probe"]));
    samples.push(performance.now() - start);
    await sleep(2);
  }
  await end;
  return samples;
}

function summary(samples: readonly number[]): Pick<Delay, "p50Ms" | "p99Ms" | "maxMs"> {
  return { p50Ms: quantile(samples, 0.5), p99Ms: quantile(samples, 0.99), maxMs: Math.max(...samples) };
}

function judge(idle: Idle, large: readonly Large[], delays: readonly Delay[], options: Options): Verdict[] {
  const verdicts: Verdict[] = [
    {
      what: `${options.clients} idle clients, resident memory each`,
      bound: `≤ ${IDLE_CLIENT_BYTES_MOST / 1024} KB`,
      measured: `${(idle.perClientBytes / 1024).toFixed(1)} KB`,
      isMet: idle.perClientBytes <= IDLE_CLIENT_BYTES_MOST,
    },
  ];
  for (const { way, copies } of large) {
    verdicts.push({
      what: `${options.valueBytes / MB} MB ${way}, peak above the base`,
      bound: `≤ ${COPIES_MOST} copies`,
      measured: `${copies.toFixed(2)} copies`,
      isMet: copies <= COPIES_MOST,
    });
  }
  const [direct, proxied] = delays.filter((delay) => delay.beside === "slow");
  const longerMs = (proxied?.maxMs ?? Number.NaN) - (direct?.maxMs ?? Number.NaN);
  verdicts.push({
    what: `${options.valueBytes / MB} MB sent slowly by another client, longest wait beyond Redis directly`,
    bound: `≤ ${DELAY_MS_MOST} ms`,
    measured: `${longerMs.toFixed(1)} ms`,
    isMet: longerMs <= DELAY_MS_MOST,
  });
  return verdicts;
}

function render(
  options: Options,
  idle: Idle,
  large: readonly Large[],
  delays: readonly Delay[],
  verdicts: readonly Verdict[],
): string {
  const megabytes = (bytes: number) => `${(bytes / MB).toFixed(1)} MB`;
  const idleRow = [`${options.clients} idle clients`, megabytes(idle.baseBytes), megabytes(idle.rssBytes)];
  const largeRows = large.map((each) => [
    `${options.valueBytes / MB} MB ${each.way} (peak)`,
    megabytes(each.baseBytes),
    megabytes(each.peakBytes),
  ]);
  const delayRows = delays.map((delay) => [
    delay.through,
    delay.beside === "slow" ? `another client sends ${options.valueBytes / MB} MB slowly` : "it is alone",
    ...[delay.p50Ms, delay.p99Ms, delay.maxMs].map((ms) => `${ms.toFixed(2)} ms`),
  ]);
  return [
    table(["resident memory", "before", "with it"], [idleRow, ...largeRows]),
    "Before each figure that is no peak the garbage was collected.",
    "What another client waits for its replies:",
    table(["through", "while", "p50", "p99", "longest"], delayRows),
    "## Bounds",
    verdictTable(verdicts),
  ].join("\n\n");
}

await main();
