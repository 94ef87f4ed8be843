/**
 * A group under load behind a proxy, to which something is done: who puts it right differs by mode, what the
 * clients may notice does not.
 */
import { rm } from "node:fs/promises";
import path from "node:path";
import { expect } from "vitest";
import { type ChaosLink, startLink } from "../link.ts";
import type { ConfigObject } from "../proxy.ts";
import { randomFrom } from "../random.ts";
import type { RedisGroup, RedisServer } from "../redis.ts";
import { type Sentinels, startSentinels } from "../sentinel.ts";
import { Messages } from "../sessions/messages.ts";
import { Jobs } from "../sessions/queues.ts";
import { offsetOf, Stage } from "../stage.ts";
import { StatefulLoad } from "../stateful.ts";
import type { Chaos, Group } from "../switches.ts";
import { sleep, until } from "../wait.ts";
import { startWorkload, type Workload } from "../workload.ts";
import { PULSE_KEY, Pulse, type PulseReport } from "./pulse.ts";
import { askedOf, expectNotAsked } from "./strays.ts";
import type { Outcome } from "./verdict.ts";

/** Who promotes: an operator (this test), real Sentinels, or the proxy itself. */
export type Mode = "observe" | "sentinel" | "self";

/** Where links stand: nowhere, before every node, or between the first master and its replicas. */
export type Links = "none" | "nodes" | "replication";

export const DOWN_AFTER_MS = 1_000;
export const CRASH_GRACE_MS = 250;

export interface FieldOptions {
  readonly mode: Mode;
  readonly seed: number;
  readonly links: Links;
  readonly config: ConfigObject;
  /** Errors of single clients that are no fault. */
  readonly errors: readonly string[];
  /** Clients whose sessions hold state: queues and subscriptions. */
  readonly sessions: boolean;
}

/** Clients of `Jobs` and `Messages` that write: a producer, consumers, a publisher, two subscribers. */
const STATEFUL_WRITERS = 1 + 10 + 1 + 2;
export const PROBE_TIMEOUT_MS = 300;
/** Until a node follows the master, at most: Sentinels take their time. */
const FOLLOW_MS = 20_000;

export class Field implements Chaos {
  readonly mode: Mode;
  readonly stage: Stage;
  readonly group: Group;
  readonly serverArgs: readonly string[] = ["--repl-diskless-sync", "no"];
  readonly links: ReadonlyMap<RedisServer, ChaosLink>;
  readonly load: Workload;
  readonly sessions: StatefulLoad;
  readonly pulse: Pulse;
  readonly #random: () => number;
  readonly #sentinels: Sentinels | undefined;
  readonly #hasSessions: boolean;
  #heldBefore = 0;
  #isLoadOver = false;

  static async open(options: FieldOptions): Promise<Field> {
    const links = new Map<RedisServer, ChaosLink>();
    let sentinels: Sentinels | undefined;
    let stage: Stage | undefined;
    const closeAll = async () => {
      await stage?.close();
      await sentinels?.close();
      for (const link of links.values()) await link.close();
    };
    try {
      let config: ConfigObject = { probe: { timeout: `${PROBE_TIMEOUT_MS}ms` }, ...options.config };
      stage = await Stage.open({
        config: () => config,
        before: async (group) => {
          if (options.links !== "none") await layLinks(group, options.links, links);
          if (options.mode === "sentinel") sentinels = await startQuickSentinels(group);
          config = { ...config, ...configOf(options.mode, sentinels) };
          return group.all.map(({ address }) => address);
        },
      });
      const { port } = stage.proxy;
      const load = await startWorkload({ port });
      const random = randomFrom(options.seed);
      const sessions = new StatefulLoad({ port, random: randomFrom(options.seed + 1) }, [Jobs, Messages]);
      const pulse = new Pulse(port, options.errors).start();
      const field = new Field(options, { stage, links, sentinels, load, sessions, pulse, random });
      if (options.sessions) await sessions.start();
      return field;
    } catch (error) {
      await closeAll().catch(() => undefined);
      throw error;
    }
  }

  private constructor(
    { mode, sessions: hasSessions }: FieldOptions,
    parts: {
      stage: Stage;
      links: ReadonlyMap<RedisServer, ChaosLink>;
      sentinels: Sentinels | undefined;
      load: Workload;
      sessions: StatefulLoad;
      pulse: Pulse;
      random: () => number;
    },
  ) {
    const [master, one, two] = parts.stage.group.all as [RedisServer, RedisServer, RedisServer];
    this.group = { master, replicas: [one, two] };
    this.mode = mode;
    this.stage = parts.stage;
    this.links = parts.links;
    this.load = parts.load;
    this.sessions = parts.sessions;
    this.pulse = parts.pulse;
    this.#hasSessions = hasSessions;
    this.#sentinels = parts.sentinels;
    this.#random = parts.random;
  }

  // Chance

  pause(mostMs = 300): Promise<void> {
    return sleep(this.#random() * mostMs);
  }

  chance(): boolean {
    return this.#random() < 0.5;
  }

  // The load

  readsGoOn(): Promise<void> {
    return this.#progress("reader", 20);
  }

  writesGoOn(): Promise<void> {
    return this.#progress("writer", 20);
  }

  async #progress(kind: "reader" | "writer" | "ownReader" | "pipeliner" | "transaction", steps: number) {
    const target = this.load.report().kinds[kind].count + steps;
    const what = `${steps} more steps of ${kind}`;
    await until(() => this.load.report().kinds[kind].count >= target, { deadlineMs: 20_000, what });
  }

  /** Everybody works; what is measured from now on is the fault's. */
  async warmUp(): Promise<void> {
    await this.everybodyGoesOn();
    this.#heldBefore = (await this.stage.accounts()).held;
    this.load.resetGaps();
    this.pulse.resetGaps();
  }

  async everybodyGoesOn(): Promise<void> {
    for (const kind of ["writer", "ownReader", "reader", "pipeliner", "transaction"] as const) {
      await this.#progress(kind, 3);
    }
    await this.sessions.allGoOn();
  }

  /** Ends those who work all the time; single clients go on coming. */
  async endLoad(): Promise<void> {
    this.#isLoadOver = true;
    await this.load.stop();
  }

  // What happens

  link(server: RedisServer): ChaosLink {
    const link = this.links.get(server);
    if (link === undefined) throw new Error(`no link before ${server.address}`);
    return link;
  }

  /** Proof that clients waited because of what was done. */
  async untilHolding(): Promise<void> {
    const isHolding = async () => (await this.stage.accounts()).held > this.#heldBefore;
    await until(isHolding, { what: "clients being held", everyMs: 5 });
  }

  async crash(...servers: readonly RedisServer[]): Promise<void> {
    await Promise.all(servers.map((server) => server.kill("SIGKILL")));
    for (const server of servers) expect(server.running, "dead").toBe(false);
  }

  /** A server that is down forgets what it had on disk. */
  async wipe(server: RedisServer): Promise<void> {
    expect(server.running).toBe(false);
    await rm(path.join(server.dir, "dump.rdb"), { force: true });
  }

  /** The proxy knows of all that the master has written so far. */
  async untilSeen(server: RedisServer): Promise<void> {
    const target = await offsetOf(server);
    const isSeen = async () => Number((await this.stage.node(server)).offset) >= target;
    await until(isSeen, { what: `the proxy having seen offset ${target} of ${server.address}` });
  }

  /**
   * Whoever is entitled to makes one of the replicas the master, and those others that run follow it.
   * @param isNoticed whether Sentinels see by themselves that something is wrong; if not, they are told.
   */
  async succession(isNoticed = true): Promise<RedisServer> {
    const { group } = this;
    const candidates = group.replicas.filter((replica) => replica.running);
    if (this.mode === "observe") {
      await this.pause();
      await candidates[0]?.promote();
    } else if (this.mode === "sentinel" && !isNoticed) await this.#sentinels?.failover();
    const next = await this.#untilPromoted(candidates);
    const rest = group.replicas.filter((replica) => replica !== next);
    for (const replica of rest) if (replica.running) await this.follow(replica, next);
    await this.stage.untilMaster(next);
    this.#enthrone(next);
    return next;
  }

  async #untilPromoted(candidates: readonly RedisServer[]): Promise<RedisServer> {
    let next: RedisServer | undefined;
    const look = async () => {
      for (const server of candidates) {
        if ((await server.info()).get("role") === "master") next = server;
      }
      return next !== undefined;
    };
    await until(look, { deadlineMs: 30_000, everyMs: 5, what: "a replica being promoted" });
    if (next === undefined) throw new Error("nobody was promoted");
    return next;
  }

  #enthrone(next: RedisServer): void {
    const { group } = this;
    const [one, two] = [group.master, ...group.replicas].filter((server) => server !== next);
    if (one === undefined || two === undefined) throw new Error(`${next.address} is a stranger`);
    group.master = next;
    // Who was a replica before is the next to be promoted.
    group.replicas = [two, one];
  }

  /** SENTINEL FAILOVER. */
  async sentinelFailover(): Promise<void> {
    expect(this.#sentinels, "Sentinels").toBeDefined();
    await this.succession(false);
  }

  /** PROXY SWITCHOVER. */
  async switchover(): Promise<void> {
    const client = await this.stage.client({ protocol: 3 });
    const { replicas } = this.group;
    const reply = await client.command("PROXY", "SWITCHOVER");
    expect(reply, "PROXY SWITCHOVER").not.toBeInstanceOf(Error);
    const next = await this.#untilPromoted(replicas);
    await this.stage.untilMaster(next);
    this.#enthrone(next);
  }

  /**
   * A node that is there again, or was left behind, becomes a replica of the master: by the operator, or by
   * itself. Until it has synced nobody asks it anything.
   */
  async follow(server: RedisServer, master: RedisServer): Promise<void> {
    // What was in its socket buffers when it stood still is run first; it was sent in its own time.
    await askedOf(server);
    const before = await askedOf(server);
    if (this.mode === "observe") {
      if (before.role === "master") {
        await this.writesGoOn();
        await this.readsGoOn();
        expectNotAsked(server, before, await askedOf(server));
      }
      await server.replicaOf(master);
    }
    const endMs = performance.now() + FOLLOW_MS;
    for (;;) {
      const now = await askedOf(server);
      if (before.role === "master") expectNotAsked(server, before, now);
      if (now.role === "slave" && now.masterPort === master.port && now.linkUp) return;
      const text = `${server.address} does not follow ${master.address}: ${JSON.stringify(now)}`;
      if (performance.now() > endMs) throw new Error(text);
      await sleep(5);
    }
  }

  /** All are where they belong, the proxy knows, and nobody writes to any other node than the master. */
  async settle(): Promise<void> {
    const { stage, group, load } = this;
    await stage.untilMaster(group.master);
    expect((await group.master.info()).get("role"), "the true master").toBe("master");
    for (const replica of group.replicas) {
      await replica.untilLinkUp();
      await replica.untilCaughtUp(group.master);
      const { role, masterPort } = await askedOf(replica);
      const isPlaced = role === "slave" && (masterPort === group.master.port || this.links.size > 0);
      expect(isPlaced, `${replica.address} following ${group.master.address}`).toBe(true);
    }
    await stage.untilReadable(2);
    if (this.#isLoadOver) return;
    const before = await Promise.all(group.replicas.map(askedOf));
    await this.everybodyGoesOn();
    expect(load.stopping).toBe(false);
    const now = await Promise.all(group.replicas.map(askedOf));
    for (const [i, replica] of group.replicas.entries()) expectNotAsked(replica, before[i]!, now[i]!);
  }

  // The end

  /** Compares all books with the master's. */
  async outcome(): Promise<Outcome> {
    const { stage, group, load, sessions } = this;
    const gaps = this.pulse.report();
    if (this.#hasSessions && !this.#isLoadOver) await sessions.audit(group.master);
    await sessions.stop();
    const pulse = await this.pulse.stop();
    const report = await load.stop();
    const audit = await load.audit(group.master.port);
    const own = await this.#auditPulse(pulse);
    const errors = new Map(report.errors);
    if (sessions.uncertain > 0) errors.set("UNCERTAIN", (errors.get("UNCERTAIN") ?? 0) + sessions.uncertain);
    const { writers, ownReaders, pipeliners, transactions } = load.options;
    const unknown = await stage.proxy.metric("holdfast_switches_loss_unknown_total");
    return {
      disconnects: report.disconnectReasons,
      errors,
      writers: writers + ownReaders + pipeliners + transactions + STATEFUL_WRITERS,
      visitorsUncertain: pulse.uncertain,
      acked: report.acked + pulse.acked,
      lost: audit.lost + own.lost,
      unexplained: audit.unexplained + own.unexplained,
      details: [...audit.details, ...own.details],
      mismatches: report.mismatches,
      faults: [...sessions.faults, ...pulse.faults],
      lostBytes: unknown > 0 ? null : await stage.proxy.metric("holdfast_lost_bytes_total"),
      switches: await stage.number("switches"),
      writeGapMs: gaps.writeGapMs,
      readGapMs: gaps.readGapMs,
    };
  }

  async #auditPulse({ acked, uncertain }: PulseReport) {
    const final = Number((await this.group.master.cli("GET", PULSE_KEY)) ?? 0);
    const isRight = final >= acked && final <= acked + uncertain;
    return {
      lost: Math.max(0, acked - final),
      unexplained: Math.max(0, final - acked - uncertain),
      details: isRight ? [] : [`pulse: acked ${acked}, uncertain ${uncertain}, final ${final}`],
    };
  }

  async close(): Promise<void> {
    for (const link of this.links.values()) link.resume();
    for (const server of this.stage.group.all) if (server.running) await server.kill("SIGCONT");
    await this.sessions.stop();
    await this.pulse.stop();
    await this.load.stop();
    try {
      await this.stage.close();
    } finally {
      await this.#sentinels?.close();
      for (const link of this.links.values()) await link.close();
    }
  }
}

async function layLinks(
  group: RedisGroup,
  where: Exclude<Links, "none">,
  links: Map<RedisServer, ChaosLink>,
): Promise<void> {
  for (const server of where === "nodes" ? group.all : [group.master]) {
    const link = await startLink(server.ownPort);
    links.set(server, link);
    if (where === "nodes") await server.standBehind(link.port);
  }
  const port = links.get(group.master)?.port ?? group.master.port;
  for (const replica of group.replicas) {
    await replica.cli("REPLICAOF", group.master.host, port);
    await replica.untilLinkUp();
  }
  await group.master.cli("PUBLISH", "nobody", "something to replicate");
  for (const replica of group.replicas) await replica.untilCaughtUp(group.master);
}

/** Sentinels connect again once a second: a master that was away for less must not be down for them. */
const SENTINEL_DOWN_AFTER_MS = 1_500;

/** Sentinels that put right an old master within a second instead of eight. */
async function startQuickSentinels(group: RedisGroup): Promise<Sentinels> {
  const downAfterMs = SENTINEL_DOWN_AFTER_MS;
  const sentinels = await startSentinels(group, { downAfterMs, failoverTimeoutMs: 3_000 });
  for (const sentinel of sentinels.all) {
    await sentinel.cli("SENTINEL", "DEBUG", "PUBLISH-PERIOD", 200, "INFO-PERIOD", 500);
  }
  return sentinels;
}

function configOf(mode: Mode, sentinels: Sentinels | undefined): ConfigObject {
  switch (mode) {
    case "observe":
      return {};
    case "sentinel":
      return {
        failover: { promote: "sentinel" },
        sentinel: { name: sentinels?.name ?? "", nodes: sentinels?.addresses ?? [] },
      };
    case "self": {
      const [downAfter, crashGrace] = [`${DOWN_AFTER_MS}ms`, `${CRASH_GRACE_MS}ms`];
      return { failover: { promote: "self", downAfter, crashGrace } };
    }
  }
}
