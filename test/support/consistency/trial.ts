/** A group behind a proxy under a recorded load, to which something is done, and what the checkers say. */
import { expect } from "vitest";
import { type ChaosLink, layLink } from "../link.ts";
import type { ConfigObject } from "../proxy.ts";
import { randomFrom } from "../random.ts";
import type { RedisGroup, RedisServer } from "../redis.ts";
import { calls, offsetOf, resetCalls, Stage } from "../stage.ts";
import type { Chaos, Group } from "../switches.ts";
import { sleep, until } from "../wait.ts";
import { checkLinear, type LinearVerdict } from "./linear.ts";
import { type Loss, lossesOf, type SwitchRecord } from "./losses.ts";
import { checkOrder, type Verdict } from "./order.ts";
import {
  type ConsistencyWorkload,
  type Report,
  startConsistencyWorkload,
  type WorkloadOptions,
} from "./workload.ts";

/** `reads.consistency`. */
export type Consistency = "session" | "proxy" | "eventual" | "strong";

export interface TrialOptions {
  readonly consistency: Consistency;
  readonly seed: number;
  readonly config?: ConfigObject;
  /** Replication goes through a link for each replica. */
  readonly isLinked?: boolean;
  /** Runs when the servers are up; may say more configuration. */
  readonly before?: (group: RedisGroup) => Promise<ConfigObject>;
}

export interface Judgement {
  readonly order: Verdict;
  readonly linear: LinearVerdict;
  readonly losses: readonly Loss[];
  readonly report: Report;
  readonly checkMs: number;
}

/** What reads are counted by on a server. */
const READS = ["get", "mget", "hget", "llen"] as const;

export class Trial implements Chaos {
  readonly stage: Stage;
  readonly group: Group;
  /** Between the master and each of `group.replicas`, in their order; none unless asked for. */
  links: readonly ChaosLink[];
  readonly serverArgs: readonly string[] = ["--repl-diskless-sync", "no"];
  readonly random: () => number;
  readonly #isStopped = new Set<RedisServer>();
  readonly #seed: number;
  #load: ConsistencyWorkload | null = null;
  #loads = 0;
  #switchesBefore = 0;

  static async open(options: TrialOptions): Promise<Trial> {
    const links: ChaosLink[] = [];
    const { consistency, seed } = options;
    let stage: Stage | undefined;
    try {
      stage = await Stage.open({
        config: { reads: { consistency } },
        before: async (group) => {
          if (options.isLinked === true) links.push(...(await layLinks(group.master, group.replicas)));
          const more = (await options.before?.(group)) ?? {};
          return { nodes: group.addresses, config: { ...options.config, ...more, reads: { consistency } } };
        },
      });
      return new Trial(stage, links, seed);
    } catch (error) {
      await stage?.close();
      for (const link of links) await link.close();
      throw error;
    }
  }

  private constructor(stage: Stage, links: readonly ChaosLink[], seed: number) {
    const [master, one, two] = stage.group.all as [RedisServer, RedisServer, RedisServer];
    this.stage = stage;
    this.links = links;
    this.group = { master, replicas: [one, two] };
    this.random = randomFrom(seed);
    this.#seed = seed;
  }

  /** Sets sessions to work, on keys of their own; one load at a time. */
  async begin(options: Partial<WorkloadOptions> = {}): Promise<this> {
    if (this.#load !== null) throw new Error("there is a load already");
    this.#switchesBefore = await this.stage.number("switches");
    this.#loads++;
    this.#load = await startConsistencyWorkload({
      port: this.stage.proxy.port,
      foreignPort: this.group.master.ownPort,
      seed: this.#seed + this.#loads,
      prefix: `load${this.#loads}.`,
      ...options,
    });
    await this.readsGoOn();
    await this.writesGoOn();
    return this;
  }

  get load(): ConsistencyWorkload {
    if (this.#load === null) throw new Error("no load");
    return this.#load;
  }

  /** Since the load began. */
  async switchCount(): Promise<number> {
    return (await this.stage.number("switches")) - this.#switchesBefore;
  }

  pause(mostMs = 300): Promise<void> {
    return sleep(this.random() * mostMs);
  }

  chance(): boolean {
    return this.random() < 0.5;
  }

  readsGoOn(count = 50): Promise<void> {
    return this.#progress("reads", count);
  }

  writesGoOn(count = 20): Promise<void> {
    return this.#progress("writes", count);
  }

  async #progress(what: "reads" | "writes", count: number): Promise<void> {
    const target = this.load.answered[what] + count;
    await until(() => this.load.answered[what] >= target, { deadlineMs: 20_000, what: `${count} ${what}` });
  }

  /** The share of reads that replicas served meanwhile; the master must be the same all the time. */
  async shareOfReplicas(meanwhile: () => Promise<void>): Promise<number> {
    const { master, replicas } = this.group;
    await resetCalls(master, ...replicas);
    await meanwhile();
    const byReplicas = await Promise.all(replicas.map((replica) => calls(replica, ...READS)));
    const count = byReplicas.reduce((sum, one) => sum + one, 0);
    return count / Math.max(1, count + (await calls(master, ...READS)));
  }

  async behindBytes(replica: RedisServer): Promise<number> {
    const there = await offsetOf(replica);
    return (await offsetOf(this.group.master)) - there;
  }

  /** A node stands still; `close` wakes it up whatever happens. */
  async freeze(server: RedisServer, forMs: number): Promise<void> {
    this.#isStopped.add(server);
    await server.kill("SIGSTOP");
    try {
      await sleep(forMs);
    } finally {
      await server.kill("SIGCONT");
      this.#isStopped.delete(server);
    }
  }

  /** The group is as it should be, and the proxy knows; the foreign writer has found the master. */
  async settle(): Promise<void> {
    const { stage, group, load } = this;
    await stage.untilMaster(group.master);
    for (const replica of group.replicas) await replica.untilLinkUp();
    await stage.untilReadable(2);
    load.foreignTo(group.master.ownPort);
    await this.writesGoOn();
  }

  /** After a switch: the replicas follow the master through links again. */
  async relink(): Promise<void> {
    const old = this.links;
    this.links = await layLinks(this.group.master, this.group.replicas);
    for (const link of old) await link.close();
  }

  /** The replicas follow the master itself: behind a link the proxy takes it for a stranger. */
  async unlink(): Promise<void> {
    const { master, replicas } = this.group;
    for (const replica of replicas) await replica.replicaOf(master);
    for (const replica of replicas) {
      await replica.untilLinkUp();
      await replica.untilCaughtUp(master);
    }
    for (const link of this.links) await link.close();
    this.links = [];
  }

  /** The former master's place is taken by one of the replicas. */
  enthrone(next: RedisServer): void {
    const { group } = this;
    const [one, two] = [group.master, ...group.replicas].filter((server) => server !== next);
    if (one === undefined || two === undefined) throw new Error(`${next.address} is a stranger`);
    group.master = next;
    group.replicas = [two, one];
  }

  /** Waits until another node is the master, for the proxy too. */
  async untilSwitched(): Promise<RedisServer> {
    const { group, stage } = this;
    const isOther = async () => {
      const { master, hold_cause: cause } = await stage.epoch();
      return cause === null && group.replicas.find(({ address }) => address === master);
    };
    const next = await until(isOther, { deadlineMs: 30_000, what: "another master" });
    this.enthrone(next);
    return next;
  }

  async switches(): Promise<SwitchRecord[]> {
    return (await this.stage.failovers()).map((record) => ({
      wallMs: Date.parse(String(record.at)),
      lostBytes: record.lost_bytes === null ? null : Number(record.lost_bytes),
      doubtMs: record.doubt_ms === null ? null : Number(record.doubt_ms),
    }));
  }

  /** Ends the load of a test that did not get so far. */
  async abandon(): Promise<void> {
    await this.#load?.stop();
    this.#load = null;
  }

  /** Ends the load and judges all that it saw. */
  async judge(): Promise<Judgement> {
    const { load } = this;
    const report = await load.stop();
    this.#load = null;
    const losses = lossesOf(await this.switches(), Date.now() - performance.now(), load.answeredMs());
    const startMs = performance.now();
    const order = checkOrder(load.history, losses);
    const linear = checkLinear(load.history, losses);
    return { order, linear, losses, report, checkMs: performance.now() - startMs };
  }

  async close(): Promise<void> {
    for (const link of this.links) link.resume();
    for (const server of this.#isStopped) if (server.running) await server.kill("SIGCONT");
    try {
      await this.#load?.stop();
      await this.stage.close();
    } finally {
      for (const link of this.links) await link.close();
    }
  }
}

async function layLinks(master: RedisServer, replicas: readonly RedisServer[]): Promise<ChaosLink[]> {
  const links: ChaosLink[] = [];
  for (const replica of replicas) {
    const link = await layLink(master, replica);
    links.push(link);
    // Nothing is sent to a replica before its first acknowledgement.
    await master.cli("PUBLISH", "nobody", "something to replicate");
    await replica.untilCaughtUp(master);
  }
  return links;
}

/** What the checkers must not find, and that there was something to find; in words. */
export function complaints(judgement: Judgement, consistency: Consistency): string[] {
  const { order, linear, report } = judgement;
  const { own, monotonic, recent, agreed, phantom } = order.violations;
  const wrong: string[] = [];
  const must = (count: number, what: string) => {
    if (count > 0) wrong.push(`${count} ${what}`);
  };
  must(phantom, "reads of what nobody wrote");
  if (consistency !== "eventual") {
    must(own, "reads behind an own write");
    must(monotonic, "reads back in time");
  }
  if (consistency === "proxy" || consistency === "strong") {
    must(recent, "reads behind another session's answered write");
  }
  if (consistency === "strong") {
    must(agreed, "reads behind another session's read");
    must(linear.violations, "contradictions on registers");
  }
  must(report.garbled.length, `replies of another request: ${report.garbled.join("; ")}`);
  must(report.disconnects.length, `disconnects: ${report.disconnects.join("; ")}`);
  if (wrong.length === 0) return [];
  const contradictions = consistency === "strong" ? linear.examples : [];
  return [...wrong, ...order.examples.slice(0, 8), ...contradictions.slice(0, 8)];
}

export function expectTrustworthy(
  judgement: Judgement,
  consistency: Consistency,
  allowedErrors: readonly string[] = [],
): void {
  expect(complaints(judgement, consistency)).toEqual([]);
  const strange = [...judgement.report.errors].filter(([word]) => !allowedErrors.includes(word));
  expect(strange, "errors the clients have seen").toEqual([]);
}
