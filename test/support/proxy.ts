/**
 * The proxy as its users run it: a process of its own with a configuration file. `src/main.ts` through tsx,
 * or `dist/main.js` when TEST_DIST is set.
 */
import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { exited, spawnOwned } from "./children.ts";
import { RawClient, type RawClientOptions } from "./client.ts";
import { canListen, freePort } from "./ports.ts";
import { until, within } from "./wait.ts";

const CHECKOUT = fileURLToPath(new URL("../../", import.meta.url));

/** What a start may take, ms: its sources are compiled, and other programs may have the processors. */
const START_MS = 40_000;

export interface ConfigObject {
  readonly [key: string]: ConfigValue;
}
export type ConfigValue = string | number | boolean | readonly ConfigValue[] | ConfigObject;

export interface ProxyOptions {
  /** Where it starts looking for nodes, as `host:port`. */
  readonly nodes?: readonly string[];
  /** Merged over the defaults of the tests (ports of its own, debug log); objects key by key. */
  readonly config?: ConfigObject;
  readonly env?: Readonly<Record<string, string>>;
  /** More arguments after `--config FILE`. */
  readonly args?: readonly string[];
  /** Wait until it can route writes; default true. Otherwise only until it accepts connections. */
  readonly waitReady?: boolean;
}

/** One JSON line of the log. */
export type LogLine = Readonly<Record<string, unknown>>;

export class ProxyProcess {
  readonly port: number;
  readonly httpPort: number;
  readonly logs: LogLine[] = [];
  readonly #child: ChildProcess;
  readonly #dir: string;
  /** What it wrote that is no JSON line: a crash, a warning of Node. */
  #stray = "";
  #partialLine = "";

  constructor(child: ChildProcess, port: number, httpPort: number, dir: string) {
    this.#child = child;
    this.port = port;
    this.httpPort = httpPort;
    this.#dir = dir;
    child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#onOutput(text));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stray += text;
    });
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error("not running");
    return this.#child.pid;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Output that is not a log line; empty as long as all is well. */
  get stray(): string {
    return this.#stray;
  }

  /** Log lines whose message contains `text`. */
  logged(text: string): LogLine[] {
    return this.logs.filter((line) => String(line.msg).includes(text));
  }

  /** GET /api/status. */
  async status<T = Record<string, unknown>>(): Promise<T> {
    return (await (await this.http("/api/status")).json()) as T;
  }

  /** GET /metrics: each series as printed, `name{label="value"}`, to its value. */
  async metrics(): Promise<Map<string, number>> {
    return parseMetrics(await (await this.http("/metrics")).text());
  }

  /** The sum over all series of one metric; 0 when there is none. */
  async metric(name: string): Promise<number> {
    let sum = 0;
    for (const [series, value] of await this.metrics()) {
      if (series === name || series.startsWith(`${name}{`)) sum += value;
    }
    return sum;
  }

  http(pathname: string): Promise<Response> {
    const url = `http://127.0.0.1:${this.httpPort}${pathname}`;
    return fetch(url, { signal: AbortSignal.timeout(5_000), headers: { connection: "close" } });
  }

  connect(options: Omit<RawClientOptions, "port"> = {}): Promise<RawClient> {
    return RawClient.connect({ ...options, port: this.port });
  }

  /** Waits until it can route writes (/readyz answers 200). */
  async ready(deadlineMs = START_MS): Promise<void> {
    const what = `the proxy on port ${this.port} being ready`;
    await this.#orExplain(async () => (await this.http("/readyz")).status === 200, deadlineMs, what);
  }

  /** Waits until it answers over HTTP. */
  async answering(deadlineMs = 15_000): Promise<void> {
    const what = `the proxy answering on port ${this.httpPort}`;
    await this.#orExplain(async () => (await this.http("/livez")).status > 0, deadlineMs, what);
  }

  /** Waits until it accepts connections. */
  async listening(deadlineMs = START_MS): Promise<void> {
    const what = `the proxy listening on port ${this.port}`;
    const accepts = async () => {
      const client = await this.connect({ deadlineMs: 1_000 });
      client.close();
      return true;
    };
    await this.#orExplain(accepts, deadlineMs, what);
  }

  /** Sends a signal (SIGSTOP and SIGCONT make it stand still and go on). */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ends it as an operator would, and insists that it ends well: exit code 0 within the deadline. */
  async close(deadlineMs = 10_000): Promise<void> {
    try {
      if (this.running) this.#child.kill("SIGTERM");
      const what = `the proxy ending after SIGTERM\n${this.tail()}`;
      const code = await within(exited(this.#child), deadlineMs, what);
      if (code !== 0) throw new Error(`the proxy ended with ${code}\n${this.tail()}`);
    } finally {
      await this.kill();
    }
  }

  /** Ends it at once, without asking. */
  async kill(): Promise<void> {
    if (this.running) this.#child.kill("SIGKILL");
    await exited(this.#child);
    await rm(this.#dir, { recursive: true, force: true });
  }

  /** Resolves with its exit code or signal when it ends by itself. */
  exited(): Promise<number | NodeJS.Signals> {
    return exited(this.#child);
  }

  /** The end of its output, for error messages. */
  tail(lines = 30): string {
    const last = this.logs.slice(-lines).map((line) => JSON.stringify(line));
    return [...last, this.#stray.slice(-4_000)].join("\n");
  }

  async #orExplain(condition: () => Promise<boolean>, deadlineMs: number, what: string): Promise<void> {
    try {
      await until(async () => !this.running || (await condition()), { deadlineMs, what });
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.tail()}`, { cause: error });
    }
    if (!this.running) throw new Error(`the proxy ended at once\n${this.tail()}`);
  }

  #onOutput(text: string): void {
    const lines = (this.#partialLine + text).split("\n");
    this.#partialLine = lines.pop() ?? "";
    for (const line of lines) {
      try {
        this.logs.push(JSON.parse(line) as LogLine);
      } catch {
        this.#stray += `${line}\n`;
      }
    }
  }
}

/** Starts the proxy on free ports and waits until it is ready (or only listens: `waitReady: false`). */
export async function startProxy(options: ProxyOptions = {}): Promise<ProxyProcess> {
  for (let tries = 0; ; tries++) {
    const [port, httpPort] = [await freePort(), await freePort()];
    const proxy = await launch(options, port, httpPort);
    try {
      await proxy.listening();
      if (options.waitReady !== false) await proxy.ready();
      else if (options.config?.http === undefined) await proxy.answering();
      return proxy;
    } catch (error) {
      const endedItself = !proxy.running;
      await proxy.kill();
      // Somebody may have taken the port between our look and its start.
      const taken = endedItself && !((await canListen(port)) && (await canListen(httpPort)));
      if (!taken || tries === 3) throw error;
    }
  }
}

/** How the proxy is run: the program and its first arguments. */
export function proxyCommand(): string[] {
  if (process.env.TEST_DIST) return [process.execPath, path.join(CHECKOUT, "dist/main.js")];
  return [process.execPath, "--import", "tsx", path.join(CHECKOUT, "src/main.ts")];
}

async function launch(options: ProxyOptions, port: number, httpPort: number): Promise<ProxyProcess> {
  const defaults: ConfigObject = {
    listen: `127.0.0.1:${port}`,
    http: `127.0.0.1:${httpPort}`,
    log: { level: "debug", format: "json" },
    ...(options.nodes ? { nodes: options.nodes } : {}),
  };
  const dir = await mkdtemp(path.join(os.tmpdir(), "holdfast-proxy-"));
  const file = path.join(dir, "holdfast.yaml");
  await writeFile(file, stringify(merge(defaults, options.config ?? {})));
  const [program, ...first] = proxyCommand() as [string, ...string[]];
  const child = spawnOwned(program, [...first, "--config", file, ...(options.args ?? [])], {
    stdio: ["ignore", "pipe", "pipe"],
    cwd: CHECKOUT,
    env: { ...environment(), ...options.env },
  });
  return new ProxyProcess(child, port, httpPort, dir);
}

/** Ours without HOLDFAST_…: those are settings of the proxy, and only the test gives it settings. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("HOLDFAST_")));
}

function merge(base: ConfigObject, over: ConfigObject): ConfigObject {
  const merged: Record<string, ConfigValue> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    merged[key] = isObject(below) && isObject(value) ? merge(below, value) : value;
  }
  return merged;
}

function isObject(value: ConfigValue | undefined): value is ConfigObject {
  return typeof value === "object" && !Array.isArray(value);
}

/** Prometheus text to series and values; timestamps and comments are dropped. */
export function parseMetrics(text: string): Map<string, number> {
  const series = new Map<string, number>();
  for (const line of text.split("\n")) {
    const match = /^([A-Za-z_:][\w:]*(?:\{.*\})?) (\S+)/.exec(line);
    if (match?.[1] && match[2]) series.set(match[1], metricValue(match[2]));
  }
  return series;
}

function metricValue(text: string): number {
  if (text === "+Inf") return Number.POSITIVE_INFINITY;
  if (text === "-Inf") return Number.NEGATIVE_INFINITY;
  return Number(text);
}
