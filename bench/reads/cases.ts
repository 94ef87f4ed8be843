/** What is measured: which loads, through which proxies. */
import type { Load } from "./traffic.ts";

/**
 * `eventual`, `session`, `strong`: reads.consistency, with two replicas. `again` is another process of
 * `eventual`: how much two that are alike differ. `no-replica` reads the master (reads.from), and
 * `one-replica` has a group with one; both are `session`.
 */
export const SYSTEMS = ["eventual", "again", "session", "strong", "no-replica", "one-replica"] as const;
export type SystemName = (typeof SYSTEMS)[number];

export const PARTS = ["plain", "mixed", "back", "scale", "hot"] as const;
export type Part = (typeof PARTS)[number];

export interface Case {
  readonly part: Part;
  readonly about: string;
  readonly load: Load;
}

const MODES: readonly SystemName[] = ["eventual", "session", "strong"];

export function systemsOf(part: Part): readonly SystemName[] {
  switch (part) {
    case "plain":
      return ["eventual", "again", "session", "strong"];
    case "mixed":
    case "back":
    case "hot":
      return MODES;
    case "scale":
      return ["no-replica", "one-replica", "session"];
  }
}

/** Whether the part's figures are so close that every round takes them several times. */
export function isRepeated(part: Part): boolean {
  return part === "plain";
}

export const KEYS = 10_000;
const CLIENTS = 50;
const PIPELINE = 16;
/** Of YCSB. */
const HOT_SKEW = 0.99;

const READS: Load = {
  clients: CLIENTS,
  pipeline: 1,
  rate: 0,
  writePercent: 0,
  keys: KEYS,
  skew: 0,
  order: "mixed",
};
const HALF: Load = { ...READS, writePercent: 50 };
const APART: Load = { ...HALF, pipeline: PIPELINE, order: "apart" };
const BACK: Load = { ...READS, writePercent: 100, order: "back" };
const HOT: Load = { ...HALF, skew: HOT_SKEW };

function aboutOf({ pipeline, rate, writePercent, order }: Load): string {
  const offered = rate === 0 ? "as fast as answered" : `${rate / 1000},000/s offered`;
  if (pipeline === 1) return offered;
  const kinds = writePercent === 0 ? "" : order === "apart" ? " reads or writes" : " mixed";
  return `${offered}, pipelines of ${pipeline}${kinds}`;
}

/**
 * Pipelines with reads behind writes: those reads go where the writes went in every mode, since what one
 * client has under way is answered in its order by one node.
 */
export function isBoundByOrder({ pipeline, order }: Load): boolean {
  return pipeline > 1 && order === "mixed";
}

function cases(part: Part, loads: readonly Load[]): Case[] {
  return loads.map((load) => ({ part, about: aboutOf(load), load }));
}

export const CASES: readonly Case[] = [
  ...cases("plain", [READS, { ...READS, pipeline: PIPELINE }]),
  ...cases("mixed", [
    ...[2_000, 10_000, 20_000, 0].map((rate) => ({ ...HALF, rate })),
    ...[10_000, 20_000, 0].map((rate) => ({ ...APART, rate })),
    ...[20_000, 0].map((rate) => ({ ...HALF, rate, pipeline: PIPELINE })),
  ]),
  ...cases("back", [{ ...BACK, rate: 2_000 }, BACK]),
  ...cases("scale", [READS, { ...READS, pipeline: PIPELINE }]),
  ...cases(
    "hot",
    [10_000, 0].map((rate) => ({ ...HOT, rate })),
  ),
];

/** What makes a process ready: every path that is measured later has been compiled. */
export const WARM_UPS: readonly Load[] = [HALF, { ...HALF, pipeline: PIPELINE }, READS];
