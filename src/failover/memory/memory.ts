/**
 * PURE. What a proxy remembers of its group over a restart, and its text in the state file. A file is
 * untrusted: whatever is not as it should be makes the whole memory an error value, because half a memory
 * could vouch for the wrong master.
 */

import { parseNodeId } from "../../topology/address.ts";
import type { History, NodeId } from "../../topology/epoch.ts";
import {
  type Belief,
  FIRST_BELIEF,
  MAX_INSTANCES,
  MAX_REFUSED_CLAIMS,
  type MasterBelief,
  type NodeView,
} from "../../topology/rules/model.ts";
import { MAX_RENOUNCED } from "../../topology/rules/renounced.ts";

/** The master as it was last verified; what only means something to a running process is left out. */
export type RememberedMaster = Omit<MasterBelief, "samples">;

/** An order that may be carried out however late: see rules/renounced.ts. */
export interface RememberedOrder {
  readonly runId: string;
  /** Of the master's history, when it was given up. */
  readonly offset: number;
}

export interface GroupMemory {
  /** Of the form of the file. */
  readonly version: typeof VERSION;
  /** The nodes that were configured. */
  readonly seeds: readonly NodeId[];
  /** Of the last epoch, at least 1. */
  readonly epoch: number;
  readonly master: RememberedMaster;
  /** Run ids that were seen as members of this group. */
  readonly instances: readonly string[];
  /** Claims ("run id:replid") refused while the master was well. */
  readonly refusedClaims: readonly string[];
  /** Processes told to become the master by an order that was given up; files of before have none. */
  readonly renounced: readonly RememberedOrder[];
  /** Addresses that were members of the group, the configured ones that answered included. */
  readonly members: readonly NodeId[];
  /** Wall-clock ms. */
  readonly savedAtMs: number;
}

export type MemoryResult =
  | { readonly ok: true; readonly memory: GroupMemory }
  | { readonly ok: false; readonly error: string };

const VERSION = 1;
/** Longest text looked at, in characters; a full memory has about 60 000. */
export const MAX_MEMORY_TEXT = 256 * 1024;
const MAX_ADDRESSES = 256;
/** Of any number; as a time it is still a date. */
const MAX_NUMBER = 2 ** 52;
const REPLID = /^[0-9a-f]{40}$/;
const CLAIM = /^[0-9a-f]{40}:[0-9a-f]{40}$/;

/** Null while there is nothing worth remembering: no master was ever found. */
export function memoryOf(
  belief: Belief,
  views: readonly NodeView[],
  seeds: readonly NodeId[],
  wallMs: number,
): GroupMemory | null {
  const { master } = belief;
  if (master === null) return null;
  const { samples: _, ...remembered } = master;
  const isMember = ({ id, report }: NodeView): boolean =>
    id === master.id || (report !== null && belief.instances.has(report.runId));
  return {
    version: VERSION,
    seeds: seeds.slice(0, MAX_ADDRESSES),
    epoch: belief.epoch.number,
    master: remembered,
    instances: [...belief.instances],
    refusedClaims: [...belief.refusedClaims],
    renounced: [...belief.renounced].map(([runId, offset]) => ({ runId, offset })),
    members: views
      .filter(isMember)
      .map(({ id }) => id)
      .slice(0, MAX_ADDRESSES),
    savedAtMs: wallMs,
  };
}

/**
 * What a restarted proxy believes to begin with: the remembered master, of which nothing is verified yet. So
 * the usual rules judge whoever is the master now by the history that is known.
 */
export function beliefOf({ epoch, master, instances, refusedClaims, renounced }: GroupMemory): Belief {
  return {
    ...FIRST_BELIEF,
    epoch: {
      number: epoch,
      master: master.id,
      history: { replid: master.replid, offset: master.lastSeenOffset },
      holdCause: "no-master-yet",
      stoppedAtMs: null,
      readable: [],
    },
    master: { ...master, samples: [] },
    instances: new Set(instances),
    refusedClaims: new Set(refusedClaims),
    renounced: new Map(renounced.map(({ runId, offset }) => [runId, offset])),
  };
}

/**
 * Whether this is the memory of the group that is configured now: one of the nodes must have been configured,
 * or a member, then. Where no nodes are configured (Sentinel names them) none must have been.
 */
export function isMemoryOf(memory: GroupMemory, seeds: readonly NodeId[]): boolean {
  if (seeds.length === 0) return memory.seeds.length === 0;
  return seeds.some((id) => memory.seeds.includes(id) || memory.members.includes(id));
}

/** Whether they differ in more than the time of saving. */
export function isDifferent(before: GroupMemory | null, now: GroupMemory): boolean {
  return before === null || JSON.stringify({ ...before, savedAtMs: now.savedAtMs }) !== JSON.stringify(now);
}

export function writeMemory(memory: GroupMemory): string {
  return `${JSON.stringify(memory, null, 2)}\n`;
}

/** Something missing or senseless; caught inside this file, never seen outside. */
class Nonsense extends Error {}

export function readMemory(text: string): MemoryResult {
  if (text.length > MAX_MEMORY_TEXT) return { ok: false, error: `it has ${text.length} characters` };
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return { ok: false, error: "it is not JSON" };
  }
  try {
    return { ok: true, memory: toMemory(fieldsOf(parsed, "it")) };
  } catch (error) {
    return { ok: false, error: error instanceof Nonsense ? error.message : "it cannot be read" };
  }
}

type Fields = Readonly<Record<string, unknown>>;

function toMemory(fields: Fields): GroupMemory {
  if (fields.version !== VERSION) {
    throw new Nonsense(`its version is ${shown(fields.version)}, not ${VERSION}`);
  }
  const instances = list(fields.instances, "instances", MAX_INSTANCES, replid);
  return {
    version: VERSION,
    seeds: list(fields.seeds, "seeds", MAX_ADDRESSES, address),
    epoch: count(fields.epoch, "epoch", 1),
    master: toMaster(fieldsOf(fields.master, "master")),
    instances,
    refusedClaims: list(fields.refusedClaims, "refusedClaims", MAX_REFUSED_CLAIMS, claim),
    renounced: list(fields.renounced ?? [], "renounced", MAX_RENOUNCED, toOrder),
    members: list(fields.members, "members", MAX_ADDRESSES, address),
    savedAtMs: count(fields.savedAtMs, "savedAtMs", 0),
  };
}

function toMaster(fields: Fields): RememberedMaster {
  return {
    id: address(fields.id, "master.id"),
    runId: replid(fields.runId, "master.runId"),
    replid: replid(fields.replid, "master.replid"),
    lastSeenOffset: count(fields.lastSeenOffset, "master.lastSeenOffset", 0),
    keys: count(fields.keys, "master.keys", 0),
    forkedFrom:
      fields.forkedFrom === null ? null : toHistory(fieldsOf(fields.forkedFrom, "master.forkedFrom")),
  };
}

function toOrder(value: unknown, name: string): RememberedOrder {
  const fields = fieldsOf(value, name);
  return {
    runId: replid(fields.runId, `${name}.runId`),
    offset: count(fields.offset, `${name}.offset`, 0),
  };
}

function toHistory(fields: Fields): History {
  return {
    replid: replid(fields.replid, "master.forkedFrom.replid"),
    offset: count(fields.offset, "master.forkedFrom.offset", 0),
  };
}

function fieldsOf(value: unknown, name: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Nonsense(`${name} is ${shown(value)}, not an object`);
  }
  return value as Fields;
}

function list<T>(
  value: unknown,
  name: string,
  limit: number,
  item: (value: unknown, name: string) => T,
): readonly T[] {
  if (!Array.isArray(value)) throw new Nonsense(`${name} is ${shown(value)}, not a list`);
  if (value.length > limit) throw new Nonsense(`${name} has ${value.length} items, more than ${limit}`);
  return value.map((one: unknown, index) => item(one, `${name}[${index}]`));
}

function count(value: unknown, name: string, least: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > MAX_NUMBER) {
    throw new Nonsense(`${name} is ${shown(value)}`);
  }
  return value;
}

function address(value: unknown, name: string): NodeId {
  const id = typeof value === "string" ? parseNodeId(value) : null;
  // Another spelling would be another node to whoever compares.
  if (id === null || id !== value) throw new Nonsense(`${name} is ${shown(value)}`);
  return id;
}

function replid(value: unknown, name: string): string {
  if (typeof value !== "string" || !REPLID.test(value)) throw new Nonsense(`${name} is ${shown(value)}`);
  return value;
}

function claim(value: unknown, name: string): string {
  if (typeof value !== "string" || !CLAIM.test(value)) throw new Nonsense(`${name} is ${shown(value)}`);
  return value;
}

/** A value for people, bounded. */
function shown(value: unknown): string {
  if (value === undefined) return "missing";
  if (typeof value === "string") return `"${value.slice(0, 60)}"`;
  return typeof value === "number" || value === null
    ? `${value}`
    : Array.isArray(value)
      ? "a list"
      : typeof value;
}
