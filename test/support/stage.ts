/**
 * A group of real servers behind a proxy, and what a test asks about both: the proxy in the words of PROXY …,
 * the nodes by their own counters.
 */
import { expect } from "vitest";
import type { RawClient } from "./client.ts";
import { type ConfigObject, type ProxyProcess, startProxy } from "./proxy.ts";
import { type RedisGroup, type RedisOptions, type RedisServer, startGroup } from "./redis.ts";
import { type Reply, ReplyError } from "./resp.ts";
import { until } from "./wait.ts";
import { type Audit, type Report, startWorkload, type Workload, type WorkloadOptions } from "./workload.ts";

export interface StageOptions {
  /** Default 2. */
  readonly replicas?: number;
  readonly redis?: RedisOptions;
  /** A function is asked when `before` has run. */
  readonly config?: ConfigObject | (() => ConfigObject);
  /** Runs when the servers are up, before the proxy is started; may say what the proxy is given. */
  readonly before?: (group: RedisGroup) => Promise<Given> | Given;
  /** Replicas to be read before the test begins; default all. */
  readonly readable?: number;
}

/** Which nodes the proxy is given (none: no setting), or also more configuration. */
export type Given =
  | readonly string[]
  | { readonly nodes: readonly string[]; readonly config: ConfigObject }
  | undefined;

/** A map of PROXY …, as an object. */
export type Fields = Readonly<Record<string, Reply>>;

export interface HoldAccounts {
  readonly held: number;
  readonly released: number;
  readonly expired: number;
  readonly left: number;
  readonly failed: number;
  readonly now: number;
}

/** A quick look at everything: faster than the default so that tests are, and a hold that ends within one. */
const CONFIG: ConfigObject = { hold: { maxTime: "20s" } };

export class Stage {
  readonly group: RedisGroup;
  readonly proxy: ProxyProcess;
  readonly #admin: RawClient;
  readonly #clients: RawClient[] = [];
  readonly #loads: Workload[] = [];

  static async open(options: StageOptions = {}): Promise<Stage> {
    const replicas = options.replicas ?? 2;
    const group = await openGroup(replicas, options.redis);
    try {
      const given = (await options.before?.(group)) ?? group.addresses;
      const own = typeof options.config === "function" ? options.config() : options.config;
      const { nodes, config } = "nodes" in given ? given : { nodes: given, config: {} };
      const proxy = await startProxy({
        ...(nodes.length === 0 ? {} : { nodes }),
        config: { ...CONFIG, ...own, ...config },
      });
      const stage = new Stage(group, proxy, await proxy.connect({ protocol: 3 }));
      await stage.untilReadable(options.readable ?? replicas);
      return stage;
    } catch (error) {
      await group.close();
      throw error;
    }
  }

  private constructor(group: RedisGroup, proxy: ProxyProcess, admin: RawClient) {
    this.group = group;
    this.proxy = proxy;
    this.#admin = admin;
  }

  get master(): RedisServer {
    return this.group.master;
  }

  replica(index: number): RedisServer {
    return this.group.replica(index);
  }

  /** A client of the proxy; that it was never disconnected is checked at the end. */
  async client(options: Parameters<ProxyProcess["connect"]>[0] = {}): Promise<RawClient> {
    const client = await this.proxy.connect(options);
    this.#clients.push(client);
    return client;
  }

  /** `count` clients of the proxy, in the order in which the proxy accepted them. */
  async clients(count: number): Promise<RawClient[]> {
    const clients: RawClient[] = [];
    for (let i = 0; i < count; i++) clients.push(await this.client());
    return clients;
  }

  /** Clients at work through the proxy, until `close`. */
  async load(options: Partial<WorkloadOptions> = {}): Promise<Workload> {
    const load = await startWorkload({ port: this.proxy.port, ...options });
    this.#loads.push(load);
    return load;
  }

  // What the proxy says

  /** Whom it has as the master now. */
  async currentMaster(): Promise<RedisServer> {
    return serverAt(this.group, (await this.epoch()).master);
  }

  status(): Promise<Fields> {
    return this.#ask("STATUS");
  }

  epoch(): Promise<Fields> {
    return this.#ask("EPOCH");
  }

  async number(field: string): Promise<number> {
    return Number((await this.status())[field]);
  }

  /** Newest first. */
  async failovers(): Promise<Fields[]> {
    return ((await this.#admin.command("PROXY", "FAILOVERS")) as Reply[]).map(fields);
  }

  async nodes(): Promise<Fields[]> {
    return ((await this.#admin.command("PROXY", "NODES")) as Reply[]).map(fields);
  }

  async node(server: RedisServer): Promise<Fields> {
    const found = (await this.nodes()).find(({ node }) => node === server.address);
    if (found === undefined) throw new Error(`PROXY NODES does not know ${server.address}`);
    return found;
  }

  async adopt(address: string): Promise<Reply> {
    return this.#admin.command("PROXY", "ADOPT", address);
  }

  async problems(): Promise<string> {
    return ((await this.status()).problems as string[]).join("\n");
  }

  async #ask(what: string): Promise<Fields> {
    return fields(await this.#admin.command("PROXY", what));
  }

  /** From /metrics. */
  async accounts(): Promise<HoldAccounts> {
    const series = await this.proxy.metrics();
    const get = (name: string): number => {
      const value = series.get(name);
      if (value === undefined) throw new Error(`no series ${name}`);
      return value;
    };
    const ended = (outcome: string) => get(`holdfast_holds_ended_total{outcome="${outcome}"}`);
    return {
      held: get("holdfast_holds_total"),
      released: ended("released"),
      expired: ended("expired"),
      left: ended("left"),
      failed: ended("failed"),
      now: get("holdfast_held"),
    };
  }

  /** Held = released + expired + left + failed, and nobody is held any more. */
  async expectBalancedAccounts(): Promise<HoldAccounts> {
    await until(async () => (await this.accounts()).now === 0, { what: "nobody being held" });
    const accounts = await this.accounts();
    const { released, expired, left, failed } = accounts;
    expect(accounts).toMatchObject({ held: released + expired + left + failed, now: 0 });
    expect(await this.proxy.metric("holdfast_held_bytes")).toBe(0);
    return accounts;
  }

  // Waiting

  async untilReadable(count: number, deadlineMs?: number): Promise<void> {
    const what = `${count} nodes fit to be read`;
    await this.#untilStatus(what, (status) => status.readable_nodes === count, deadlineMs);
  }

  async untilHeld(sessions = 1): Promise<void> {
    await this.#untilStatus(`${sessions} sessions held`, (status) => Number(status.held_now) >= sessions);
  }

  async untilCause(cause: string): Promise<void> {
    await this.#untilStatus(`writes held: ${cause}`, (status) => status.hold_cause === cause);
  }

  async untilMaster(server: RedisServer): Promise<void> {
    const isMaster = (status: Fields) => status.master === server.address && status.writable === 1;
    await this.#untilStatus(`${server.address} as the master`, isMaster);
  }

  /** Replies of the former master may still arrive after its end: only the epoch tells that it has one. */
  async untilReplaced(old: RedisServer): Promise<void> {
    const isReplaced = (status: Fields) => status.master !== old.address && status.writable === 1;
    await this.#untilStatus(`another master than ${old.address}`, isReplaced);
  }

  async #untilStatus(what: string, test: (status: Fields) => boolean, deadlineMs = 10_000): Promise<void> {
    let last: Fields = {};
    const look = async () => {
      last = await this.status();
      return test(last);
    };
    try {
      await until(look, { what, everyMs: 5, deadlineMs });
    } catch (error) {
      const nodes = JSON.stringify(await this.nodes(), null, 1);
      throw new Error(`${(error as Error).message}\n${JSON.stringify(last)}\n${nodes}`, { cause: error });
    }
  }

  /** Waits until a client's reads of a key go to a replica again: its last write of it is proven there. */
  async untilFresh(client: RawClient, key: string): Promise<void> {
    const fromReplica = async () => {
      const before = await this.proxy.metric("holdfast_freshness_reads_total");
      await client.command("EXISTS", key);
      return (await this.proxy.metric("holdfast_freshness_reads_total")) === before;
    };
    await until(fromReplica, { what: "a read from a replica behind an own write" });
  }

  /** Waits until a node has been probed less than `agoMs` ago: where probes are rare, none comes soon. */
  async untilProbed(server: RedisServer, agoMs = 1_000): Promise<void> {
    const isFresh = async () => Number((await this.node(server)).seen_ms_ago) < agoMs;
    await until(isFresh, { deadlineMs: 30_000, what: `a probe of ${server.address}` });
  }

  /** Waits for a report of a node that the proxy has asked for after this call. */
  async untilReport(server: RedisServer): Promise<void> {
    // One that comes after the call may have been asked for before it; they are asked for one by one.
    for (const what of ["a report", "the report after it"]) {
      const sinceMs = performance.now();
      const hasCome = async () => {
        const agoMs = performance.now() - sinceMs;
        return Number((await this.node(server)).seen_ms_ago) < agoMs;
      };
      await until(hasCome, { what: `${what} of ${server.address}`, everyMs: 5 });
    }
  }

  /** Requests the proxy has written to a node. */
  async sentTo(server: RedisServer): Promise<number> {
    return Number((await this.node(server)).requests);
  }

  /**
   * Ends everything; the proxy must end well, without a bug in its log, and without having dropped anybody.
   * Servers that were stopped go on before that.
   */
  async close(): Promise<void> {
    for (const server of this.group.all) if (server.running) await server.kill("SIGCONT");
    for (const load of this.#loads) await load.stop();
    const dropped = this.#clients.filter((client) => client.disconnected).map((one) => one.disconnectReason);
    try {
      for (const client of [...this.#clients, this.#admin]) client.close();
      if (this.proxy.running) await this.proxy.close();
      expect(this.proxy.logged("a bug")).toEqual([]);
      expect(this.proxy.stray).toBe("");
      expect(dropped).toEqual([]);
    } finally {
      await this.proxy.kill();
      await this.group.close();
    }
  }

  /** After a test in which the proxy is expected to end: takes its clients out of the check of `close`. */
  forgetClients(): void {
    for (const client of this.#clients.splice(0)) client.close();
  }
}

/**
 * After a diskless sync a master sends nothing to a replica before its first acknowledgement, up to a second
 * after the link is up: killed in that second, it loses what nobody had a chance to get.
 */
const STREAMING_AT_ONCE = ["--repl-diskless-sync", "no"];

/** A group in which every replica has everything, and goes on getting it. */
export async function openGroup(replicas = 2, options: RedisOptions = {}): Promise<RedisGroup> {
  const group = await startGroup(replicas, {
    ...options,
    args: [...STREAMING_AT_ONCE, ...(options.args ?? [])],
  });
  try {
    await group.master.cli("PUBLISH", "nobody", "something to replicate");
    for (const replica of group.replicas) await replica.untilCaughtUp(group.master);
    return group;
  } catch (error) {
    await group.close();
    throw error;
  }
}

/** The one that PROXY … names. */
export function serverAt(group: RedisGroup, address: Reply | undefined): RedisServer {
  const found = group.all.find((server) => server.address === address);
  if (found === undefined) throw new Error(`who is ${String(address)}?`);
  return found;
}

export function fields(reply: Reply): Fields {
  if (!(reply instanceof Map)) throw new Error(`not a map: ${String(reply)}`);
  return Object.fromEntries([...reply].map(([key, value]) => [String(key), value]));
}

/** How often a server has run each of the commands since CONFIG RESETSTAT. */
export async function calls(server: RedisServer, ...commands: string[]): Promise<number> {
  const stats = await server.info("commandstats");
  let sum = 0;
  for (const command of commands)
    sum += Number(/^calls=(\d+)/.exec(stats.get(`cmdstat_${command}`) ?? "")?.[1] ?? 0);
  return sum;
}

export async function resetCalls(...servers: readonly RedisServer[]): Promise<void> {
  await Promise.all(servers.map((server) => server.cli("CONFIG", "RESETSTAT")));
}

/** Bytes of the replication stream a server has written or applied. */
export async function offsetOf(server: RedisServer): Promise<number> {
  const info = await server.info();
  return Number(info.get(info.get("role") === "master" ? "master_repl_offset" : "slave_repl_offset"));
}

/** No disconnect, no wrong reply, and no error besides the words allowed. */
export function expectNoticedNothing(report: Report, allowedErrors: readonly string[] = []): void {
  const strange = [...report.errorTexts].filter(([word]) => !allowedErrors.includes(word));
  expect(strange, "errors the clients have seen").toEqual([]);
  expect(report.disconnectReasons, "clients that were disconnected").toEqual([]);
  expect(report.mismatches, "replies that do not fit their request").toEqual([]);
}

/** Nothing acknowledged is missing and nothing ran that nobody asked for. */
export function expectBooksBalance(audit: Audit): void {
  expect(audit).toMatchObject({ lost: 0, unexplained: 0, details: [] });
}

export function errorText(reply: Reply | undefined): string {
  if (!(reply instanceof ReplyError)) throw new Error(`not an error: ${JSON.stringify(reply)}`);
  return reply.message;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** A figure worth knowing beside pass or fail. */
export function report(figure: string): void {
  process.stderr.write(`    ${figure}\n`);
}
