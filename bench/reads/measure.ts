/** One load through one proxy, and what it cost whom. */
import type { RedisGroup, RedisServer } from "../../test/support/redis.ts";
import { sleep } from "../../test/support/wait.ts";
import { fineCpuSeconds, machineCpuSeconds } from "../support/proc.ts";
import { quantile } from "../support/stats.ts";
import type { System } from "../support/systems.ts";
import type { Case, Part, SystemName } from "./cases.ts";
import { LagWatch } from "./lag.ts";
import type { Answers, Traffic } from "./traffic.ts";

/** After the keys were filled behind the proxy's back: several of its probes pass. */
const SETTLE_MS = 300;

/** A proxy and the nodes behind it. */
export interface Stand {
  readonly name: SystemName;
  readonly system: System;
  readonly group: RedisGroup;
}

/** What one node did for one sample. */
export interface NodeShare {
  /** GET calls, by the node's own count (INFO commandstats). */
  readonly reads: number;
  readonly cpuSeconds: number;
}

export interface Sample extends Answers {
  readonly round: number;
  /** Which of the round's measurements of this case. */
  readonly slice: number;
  readonly part: Part;
  readonly about: string;
  readonly system: SystemName;
  readonly proxyCpuSeconds: number;
  /** The master, then the replicas. */
  readonly nodes: readonly NodeShare[];
  /** NaN where it was not watched. */
  readonly lagP50Ms: number;
  readonly lagMaxMs: number;
  /** Cores that were busy with what has nothing to do with us. */
  readonly otherCores: number;
}

export interface Turn {
  readonly round: number;
  readonly slice: number;
  readonly seconds: number;
  /** Of all processes that belong to us, those without a part in it too. */
  readonly pids: readonly number[];
}

export async function measure(
  { part, about, load }: Case,
  { name, system, group }: Stand,
  traffic: Traffic,
  turn: Turn,
): Promise<Sample> {
  await fill(group, traffic, load.keys);
  await sleep(SETTLE_MS);
  const watch = load.writePercent > 0 ? await LagWatch.start(group) : null;
  const before = await Promise.all(group.all.map(stateOf));
  const others = () => machineCpuSeconds() - turn.pids.reduce((sum, pid) => sum + fineCpuSeconds(pid), 0);
  const [cpuBefore, othersBefore, startMs] = [fineCpuSeconds(system.pid), others(), performance.now()];
  const answers = await traffic.run(system.port, load, turn.seconds);
  const proxyCpuSeconds = fineCpuSeconds(system.pid) - cpuBefore;
  const passedSeconds = (performance.now() - startMs) / 1000;
  const otherCores = (others() - othersBefore - answers.cpuSeconds) / passedSeconds;
  const after = await Promise.all(group.all.map(stateOf));
  const lagsMs = (await watch?.end()) ?? [];
  const nodes = after.map((state, i): NodeShare => {
    const { reads = Number.NaN, cpuSeconds = Number.NaN } = before[i] ?? {};
    return { reads: state.reads - reads, cpuSeconds: state.cpuSeconds - cpuSeconds };
  });
  const { round, slice } = turn;
  return {
    ...{ round, slice, part, about, system: name, ...answers, proxyCpuSeconds, nodes },
    lagP50Ms: quantile(lagsMs, 0.5),
    otherCores,
    lagMaxMs: lagsMs.length === 0 ? Number.NaN : Math.max(...lagsMs),
  };
}

/** Sets all keys to the value of no write, on all nodes. */
export async function fill(group: RedisGroup, traffic: Traffic, keys: number): Promise<void> {
  await traffic.fill(group.master.ownPort, keys);
  for (const replica of group.replicas) await replica.untilCaughtUp(group.master);
}

async function stateOf(node: RedisServer): Promise<NodeShare> {
  const get = (await node.info("commandstats")).get("cmdstat_get") ?? "";
  return { reads: Number(/calls=(\d+)/.exec(get)?.[1] ?? 0), cpuSeconds: fineCpuSeconds(node.pid) };
}

// What follows from a sample

export function requestsOf({ reads, writes }: Sample): number {
  return reads + writes;
}

/** CPU of the proxy for each request, µs. */
export function proxyCpuUs(sample: Sample): number {
  return (sample.proxyCpuSeconds * 1e6) / requestsOf(sample);
}

/** CPU of one node for each request that the proxy answered, whoever served it, µs. */
export function nodeCpuUs(sample: Sample, node: number): number {
  return ((sample.nodes[node]?.cpuSeconds ?? Number.NaN) * 1e6) / requestsOf(sample);
}

/** The share of the reads that replicas served, 0 to 1. */
export function replicaShare({ nodes }: Sample): number {
  const all = nodes.reduce((sum, { reads }) => sum + reads, 0);
  return 1 - (nodes[0]?.reads ?? Number.NaN) / all;
}
