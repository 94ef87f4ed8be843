/** Real Sentinels on free ports, each with a configuration file of its own in a temporary folder. */
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { RawClient } from "./client.ts";
import { freePort } from "./ports.ts";
import type { RedisGroup, RedisServer } from "./redis.ts";
import { type Argument, type Reply, ReplyError } from "./resp.ts";
import { ServerProcess } from "./server-process.ts";
import { until } from "./wait.ts";

/** Files in PEM form; clients must show a certificate of the same authority. */
export interface SentinelTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface SentinelOptions {
  /** Default 3. */
  readonly count?: number;
  /** Name of the group; default mymaster. */
  readonly name?: string;
  /** Where they are told that the master is, as host:port; default its own address. */
  readonly monitored?: string;
  /** Default: more than half of `count`. */
  readonly quorum?: number;
  /**
   * How long the master must be silent to be down for one Sentinel; default 2 s. It asks once a second
   * (sentinel.c, SENTINEL_PING_PERIOD), and where its connection is cut, as at a promotion, it counts from
   * the last answer: with less a master that has just been promoted may be replaced at once.
   */
  readonly downAfterMs?: number;
  /** Default 10 000 ms; a second attempt comes only after twice as long. */
  readonly failoverTimeoutMs?: number;
  /** `requirepass` of the Sentinels. */
  readonly password?: string;
  /** Lines for their ACL, without the word `user`: `watcher on >secret +@all`. */
  readonly users?: readonly string[];
  /** How they log in on the nodes. */
  readonly nodeUsername?: string;
  readonly nodePassword?: string;
  /** A second port with TLS, which is then `address`; among each other they use the plain one. */
  readonly tls?: SentinelTls;
  /** More lines for each configuration file. */
  readonly lines?: readonly string[];
}

const HOST = "127.0.0.1";
const QUICK_MS = 100;
/** What Sentinel itself has: sentinel.c, sentinel_publish_period and sentinel_info_period. */
const PUBLISH_PERIOD_MS = 2_000;
const INFO_PERIOD_MS = 10_000;

export class Sentinel {
  readonly host = HOST;
  readonly #name: string;
  readonly #config: (port: number, tlsPort: number) => string[];
  readonly #options: SentinelOptions;
  #port = 0;
  #tlsPort = 0;
  readonly #process = new ServerProcess(() => `the Sentinel on port ${this.#port}`);

  constructor(name: string, master: RedisServer, options: SentinelOptions) {
    this.#name = name;
    this.#options = options;
    this.#config = (port, tlsPort) => configOf(name, master, options, port, tlsPort);
  }

  /** The plain port. */
  get port(): number {
    return this.#port;
  }

  /** What the proxy is to be given: with TLS, the port that speaks it. */
  get address(): string {
    return `${HOST}:${this.#options.tls === undefined ? this.#port : this.#tlsPort}`;
  }

  get pid(): number {
    return this.#process.pid;
  }

  get running(): boolean {
    return this.#process.running;
  }

  /** Its log since it was first started. */
  get output(): string {
    return this.#process.output;
  }

  /** Starts it, anew with the file that it has rewritten itself, and waits until it answers. */
  async start(): Promise<this> {
    if (this.running) throw new Error(`already running on port ${this.#port}`);
    if (this.#process.dir === "") {
      await this.#process.makeDir("holdfast-sentinel-");
      this.#port = await freePort();
      this.#tlsPort = await freePort();
      const lines = [...this.#config(this.#port, this.#tlsPort), `dir ${this.#process.dir}`];
      await writeFile(this.#file, `${lines.join("\n")}\n`);
    }
    const program = process.env.TEST_REDIS_SERVER ?? "redis-server";
    this.#process.spawn(program, [this.#file, "--sentinel"]);
    const answers = async () => !this.running || (await this.cli("PING")) === "PONG";
    await until(answers, { what: `the Sentinel on port ${this.#port} answering` });
    if (!this.running) throw new Error(`the Sentinel on port ${this.#port} ended at once: ${this.output}`);
    return this;
  }

  /** For a signal that ends it, waits until it is gone. */
  kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    return this.#process.kill(signal);
  }

  /** It stands still, its connections stay open. */
  pause(): Promise<void> {
    return this.kill("SIGSTOP");
  }

  continue(): Promise<void> {
    return this.kill("SIGCONT");
  }

  /** One command on a connection of its own, logged in; an error reply is returned as a value. */
  async cli(...args: Argument[]): Promise<Reply> {
    const client = await RawClient.connect({ port: this.#port, deadlineMs: 10_000 });
    try {
      const { password } = this.#options;
      if (password !== undefined) await client.command("AUTH", password);
      return await client.command(...args);
    } finally {
      client.close();
    }
  }

  /** The fields of SENTINEL MASTER. */
  async master(): Promise<ReadonlyMap<string, string>> {
    const reply = await this.cli("SENTINEL", "MASTER", this.#name);
    if (!Array.isArray(reply)) throw new Error(`SENTINEL MASTER answered ${String(reply)}`);
    const fields = new Map<string, string>();
    for (let i = 0; i + 1 < reply.length; i += 2) fields.set(String(reply[i]), String(reply[i + 1]));
    return fields;
  }

  /** What it names as the master, as `host:port`. */
  async masterAddress(): Promise<string> {
    const reply = await this.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", this.#name);
    if (!Array.isArray(reply)) throw new Error(`no address: ${String(reply)}`);
    return reply.map(String).join(":");
  }

  close(): Promise<void> {
    return this.#process.close();
  }

  get #file(): string {
    return path.join(this.#process.dir, "sentinel.conf");
  }
}

export class Sentinels {
  readonly name: string;
  readonly all: readonly Sentinel[];
  readonly #replicas: number;

  constructor(name: string, all: readonly Sentinel[], replicas: number) {
    this.name = name;
    this.all = all;
    this.#replicas = replicas;
  }

  /** As the proxy's setting `sentinel.nodes` takes them. */
  get addresses(): readonly string[] {
    return this.all.map(({ address }) => address);
  }

  at(index: number): Sentinel {
    const sentinel = this.all[index];
    if (sentinel === undefined) throw new Error(`no Sentinel ${index}`);
    return sentinel;
  }

  /** SENTINEL FAILOVER: returns when it was accepted, which is before anything has happened. */
  async failover(index = 0): Promise<void> {
    const reply = await this.at(index).cli("SENTINEL", "FAILOVER", this.name);
    if (reply instanceof ReplyError) throw reply;
  }

  /** Waits until all that run name this node. */
  async untilMaster(server: RedisServer, deadlineMs = 20_000): Promise<void> {
    const names = async () => {
      const running = this.all.filter((sentinel) => sentinel.running);
      const named = await Promise.all(running.map((sentinel) => sentinel.masterAddress()));
      return named.every((address) => address === server.address);
    };
    await until(names, { deadlineMs, what: `all Sentinels naming ${server.address}` });
  }

  /** Waits until they know each other and all replicas, and none has anything to object to. */
  async untilWell(deadlineMs = 20_000): Promise<void> {
    const isWell = async (sentinel: Sentinel) => {
      const fields = await sentinel.master();
      const others = Number(fields.get("num-other-sentinels"));
      const isComplete =
        others === this.all.length - 1 && Number(fields.get("num-slaves")) === this.#replicas;
      if (!isComplete || fields.get("flags") !== "master") return false;
      return String(await sentinel.cli("SENTINEL", "CKQUORUM", this.name)).startsWith("OK");
    };
    const areWell = async () => (await Promise.all(this.all.map(isWell))).every(Boolean);
    await until(areWell, { deadlineMs, everyMs: 50, what: "all Sentinels knowing all" });
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map((sentinel) => sentinel.close()));
  }
}

/** Sentinels that watch the group's master, know each other and all replicas. */
export async function startSentinels(group: RedisGroup, options: SentinelOptions = {}): Promise<Sentinels> {
  const { count = 3, name = "mymaster" } = options;
  const all = Array.from({ length: count }, () => new Sentinel(name, group.master, options));
  const sentinels = new Sentinels(name, all, group.replicas.length);
  try {
    for (const sentinel of all) await sentinel.start();
    // They say hello every 2 s and ask for replicas every 10 s; getting to know each other may be quicker.
    await setPeriods(all, QUICK_MS, QUICK_MS);
    await sentinels.untilWell();
    await setPeriods(all, PUBLISH_PERIOD_MS, INFO_PERIOD_MS);
    return sentinels;
  } catch (error) {
    await sentinels.close();
    throw error;
  }
}

/** SENTINEL DEBUG, from Redis 7 on; older ones take their time. */
async function setPeriods(all: readonly Sentinel[], publishMs: number, infoMs: number): Promise<void> {
  const periods = ["PUBLISH-PERIOD", publishMs, "INFO-PERIOD", infoMs] as const;
  await Promise.all(all.map((sentinel) => sentinel.cli("SENTINEL", "DEBUG", ...periods)));
}

function configOf(
  name: string,
  master: RedisServer,
  options: SentinelOptions,
  port: number,
  tlsPort: number,
): string[] {
  const count = options.count ?? 3;
  const quorum = options.quorum ?? Math.floor(count / 2) + 1;
  const { tls } = options;
  const withValue = (line: string, value: string | undefined) =>
    value === undefined ? [] : [`${line} ${value}`];
  return [
    ...[`port ${port}`, `bind ${HOST}`, "protected-mode no", "daemonize no"],
    ...(tls === undefined
      ? []
      : [
          ...[`tls-port ${tlsPort}`, `tls-cert-file ${tls.cert}`, `tls-key-file ${tls.key}`],
          ...[`tls-ca-cert-file ${tls.ca}`, "tls-auth-clients yes"],
        ]),
    ...withValue("requirepass", options.password),
    ...(options.users ?? []).map((user) => `user ${user}`),
    `sentinel monitor ${name} ${(options.monitored ?? master.address).replace(":", " ")} ${quorum}`,
    `sentinel down-after-milliseconds ${name} ${options.downAfterMs ?? 2_000}`,
    `sentinel failover-timeout ${name} ${options.failoverTimeoutMs ?? 10_000}`,
    ...withValue(`sentinel auth-user ${name}`, options.nodeUsername),
    ...withValue(`sentinel auth-pass ${name}`, options.nodePassword),
    ...(options.lines ?? []),
  ];
}
