/** Real redis-server processes on free ports, each in a temporary folder of its own. */
import { execFileSync } from "node:child_process";
import { RawClient } from "./client.ts";
import { freePort } from "./ports.ts";
import { type Argument, type Reply, ReplyError } from "./resp.ts";
import { ServerProcess } from "./server-process.ts";
import { until } from "./wait.ts";

export interface RedisOptions {
  /** More arguments for redis-server, after the defaults (the last one wins). */
  readonly args?: readonly string[];
  /** A port of the caller's choice; it is not changed when taken. Default: a free one. */
  readonly port?: number;
  /** The program; default `redis-server`, or TEST_REDIS_SERVER from the environment. */
  readonly program?: string;
}

const HOST = "127.0.0.1";

export class RedisServer {
  readonly host = HOST;
  readonly #program: string;
  readonly #fixedPort: number | undefined;
  #args: readonly string[];
  #port = 0;
  #publicPort: number | undefined;
  readonly #process = new ServerProcess(() => `redis-server on port ${this.#port}`);

  constructor(options: RedisOptions = {}) {
    this.#program = options.program ?? process.env.TEST_REDIS_SERVER ?? "redis-server";
    this.#fixedPort = options.port;
    this.#args = options.args ?? [];
  }

  /** Where others reach it: its own port, or that of the link it stands behind. */
  get port(): number {
    return this.#publicPort ?? this.#port;
  }

  /** `127.0.0.1:PORT`, as the proxy's configuration takes it. */
  get address(): string {
    return `${HOST}:${this.port}`;
  }

  /** The port it listens on itself, to put a link before it. */
  get ownPort(): number {
    return this.#port;
  }

  get dir(): string {
    return this.#process.dir;
  }

  get pid(): number {
    return this.#process.pid;
  }

  get running(): boolean {
    return this.#process.running;
  }

  /** Everything the server has written to its log since it was first started. */
  get output(): string {
    return this.#process.output;
  }

  /** Starts the server and waits until it answers. */
  async start(): Promise<this> {
    if (this.running) throw new Error(`already running on port ${this.#port}`);
    if (this.dir === "") await this.#process.makeDir("holdfast-redis-");
    if (this.#port !== 0) {
      await this.#launch();
      return this;
    }
    for (let tries = 0; ; tries++) {
      this.#port = this.#fixedPort ?? (await freePort());
      try {
        await this.#launch();
        return this;
      } catch (error) {
        const isTaken = String(error).includes("Address already in use");
        if (!isTaken || this.#fixedPort !== undefined || tries === 5) throw error;
      }
    }
  }

  /**
   * Sends a signal. Waits until the process is gone, or stands still for SIGSTOP; SIGCONT returns at
   * once.
   */
  kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    return this.#process.kill(signal);
  }

  /** Starts again on the same port and folder, with other arguments if given; kills it first if it runs. */
  async restart(args: readonly string[] = this.#args): Promise<void> {
    if (this.running) await this.kill("SIGKILL");
    this.#args = args;
    await this.start();
  }

  /** From now on it is known to others by the port of a link; `cli` goes to the server itself as ever. */
  async standBehind(publicPort: number): Promise<void> {
    this.#publicPort = publicPort;
    await this.#expectOk("CONFIG", "SET", "replica-announce-port", publicPort);
  }

  /** One command on a connection of its own; an error reply is returned as a value. */
  async cli(...args: Argument[]): Promise<Reply> {
    const client = await RawClient.connect({ port: this.#port, deadlineMs: 10_000 });
    try {
      return await client.command(...args);
    } finally {
      client.close();
    }
  }

  /** The fields of an INFO section. */
  async info(section = "replication"): Promise<Map<string, string>> {
    const text = await this.cli("INFO", section);
    if (typeof text !== "string") throw new Error(`INFO ${section} answered ${String(text)}`);
    return parseInfo(text);
  }

  async replicaOf(master: RedisServer): Promise<void> {
    await this.#expectOk("SLAVEOF", master.host, master.port);
  }

  async promote(): Promise<void> {
    await this.#expectOk("SLAVEOF", "NO", "ONE");
  }

  /** Waits until this replica's link to its master is up (and it has synced). */
  async untilLinkUp(deadlineMs = 15_000): Promise<void> {
    const what = `link of replica ${this.#port} up`;
    await until(async () => (await this.info()).get("master_link_status") === "up", { deadlineMs, what });
  }

  /** Waits until this replica has applied everything the master had written when called. */
  async untilCaughtUp(master: RedisServer, deadlineMs = 15_000): Promise<void> {
    const target = Number((await master.info()).get("master_repl_offset"));
    const isThere = async () => Number((await this.info()).get("slave_repl_offset")) >= target;
    await until(isThere, { deadlineMs, what: `replica ${this.#port} reaching offset ${target}` });
  }

  /** Ends the process if it runs and removes its folder. */
  close(): Promise<void> {
    return this.#process.close();
  }

  async #expectOk(...args: Argument[]): Promise<void> {
    const reply = await this.cli(...args);
    if (reply instanceof ReplyError) throw reply;
  }

  async #launch(): Promise<void> {
    const outputStart = this.output.length;
    this.#process.spawn(this.#program, [...this.#defaultArgs(), ...this.#args]);
    const output = () => this.output.slice(outputStart);
    const hasBegun = () =>
      this.#process.failure !== null || !this.running || /ready to accept connections/i.test(output());
    await until(hasBegun, { deadlineMs: 15_000, what: `redis-server on port ${this.#port} starting` });
    if (this.#process.failure !== null) throw this.#process.failure;
    if (!this.running) {
      await this.#process.outputEnd();
      throw new Error(`redis-server on port ${this.#port} ended at once: ${output()}`);
    }
    // It may still be loading a data set: answering PING with an error is an answer.
    await until(() => this.cli("PING"), { what: `redis-server on port ${this.#port} answering` });
  }

  #defaultArgs(): string[] {
    const args = ["--port", String(this.#port), "--bind", HOST, "--dir", this.dir, "--daemonize", "no"];
    args.push("--protected-mode", "no", "--save", "", "--appendonly", "no", "--tcp-backlog", "1024");
    args.push("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0");
    args.push("--repl-ping-replica-period", "1", "--loglevel", "notice");
    if (this.#publicPort !== undefined) args.push("--replica-announce-port", String(this.#publicPort));
    // From Redis 7 on, DEBUG must be allowed.
    if (serverKind(this.#program).major >= 7) args.push("--enable-debug-command", "yes");
    return args;
  }
}

/** What the log says of a promotion (replication.c); Valkey says PRIMARY in newer versions. */
export const PROMOTED = /(?:MASTER|PRIMARY) MODE enabled/;

/**
 * From Redis 7.2 on a wrong AUTH gets no reply at all while another reply of its connection has yet to be
 * written, as that of EXEC (acl.c, addAuthErrReply); Valkey answers it from 9 on.
 */
export function losesWrongLogins(): boolean {
  const { isValkey, major, minor } = serverKind();
  return !(isValkey && major >= 9) && (major > 7 || (major === 7 && minor >= 2));
}

/** Fields that newer servers have in a line of CLIENT LIST, of which the proxy tells none. */
export const NEWER_CLIENT_FIELDS =
  / (?:capa|watch|io-thread|tot-net-in|tot-net-out|tot-cmds|read-events|avg-pipeline-len-(?:sum|cnt))=\S*/g;

/** A new server, started. */
export function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  return new RedisServer(options).start();
}

export interface RedisGroup {
  /** The master and replicas the group was started with; roles may change later. */
  readonly master: RedisServer;
  readonly replicas: readonly RedisServer[];
  /** The master, then the replicas. */
  readonly all: readonly RedisServer[];
  readonly addresses: readonly string[];
  replica(index: number): RedisServer;
  close(): Promise<void>;
}

/** A master and its replicas with their links up. */
export async function startGroup(replicas = 2, options: RedisOptions = {}): Promise<RedisGroup> {
  const all: RedisServer[] = [];
  const close = async () => {
    await Promise.all(all.map((server) => server.close()));
  };
  try {
    for (let i = 0; i <= replicas; i++) all.push(await startRedis(options));
    const [master, ...rest] = all as [RedisServer, ...RedisServer[]];
    for (const replica of rest) await replica.replicaOf(master);
    for (const replica of rest) await replica.untilLinkUp();
    const online = async () => Number((await master.info()).get("connected_slaves")) === replicas;
    await until(online, { what: "the master counting its replicas" });
    const replica = (index: number): RedisServer => {
      const server = rest[index];
      if (server === undefined) throw new Error(`no replica ${index}`);
      return server;
    };
    return { master, replicas: rest, all, addresses: all.map((server) => server.address), replica, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** `key:value` lines of an INFO reply. */
export function parseInfo(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of text.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0 && !line.startsWith("#")) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  return fields;
}

export interface ServerKind {
  readonly isValkey: boolean;
  readonly major: number;
  readonly minor: number;
}

const kinds = new Map<string, ServerKind>();

/** Which server the tests run on, as it says itself: "Redis server v=7.0.15 …", "Valkey server v=9.1.2 …". */
export function serverKind(program = process.env.TEST_REDIS_SERVER ?? "redis-server"): ServerKind {
  let kind = kinds.get(program);
  if (kind === undefined) {
    const text = execFileSync(program, ["--version"], { encoding: "utf8" });
    const [, major = 0, minor = 0] = /v=(\d+)\.(\d+)/.exec(text) ?? [];
    kind = { isValkey: text.startsWith("Valkey"), major: Number(major), minor: Number(minor) };
    kinds.set(program, kind);
  }
  return kind;
}
