/**
 * PURE. What Sentinels say, read with care: it is untrusted, so nothing here throws, looks at more than a
 * bounded part, or believes anything. Shapes are those of sentinel.c (sentinelCommand, sentinelEvent), RESP2.
 */

import type { Address } from "../../config/address.ts";
import { announcedAddress } from "../address.ts";
import type { NodeId } from "../epoch.ts";

/** Nodes and other Sentinels read from one answer at most. */
const MAX_INSTANCES = 64;
/** Fields of one of them looked at; sentinel.c writes about 30. */
const MAX_FIELDS = 128;
const MAX_TEXT = 4_096;
const RUN_ID = /^[0-9a-f]{40}$/;

/** An instance as SENTINEL MASTER, REPLICAS or SENTINELS describe it. */
export interface Instance {
  /** What to dial for it. */
  readonly node: NodeId;
  /** Null when it is not known yet. */
  readonly runId: string | null;
  /** s_down, o_down, disconnected, failover_in_progress, … */
  readonly flags: readonly string[];
}

export interface MasterWord {
  /** What to dial for the master that it is about. Null = no address. */
  readonly node: NodeId | null;
  /** Of the master, as it was when it was asked last. Null when it is not known. */
  readonly runId: string | null;
  readonly configEpoch: number | null;
  readonly quorum: number | null;
  readonly others: number | null;
  readonly flags: readonly string[];
}

/** SENTINEL GET-MASTER-ADDR-BY-NAME: null = it does not know the name, "nonsense" = no address at all. */
export function readAddress(sentinel: NodeId, reply: unknown): NodeId | null | "nonsense" {
  if (reply === null) return null;
  if (!Array.isArray(reply) || reply.length !== 2) return "nonsense";
  return dialled(sentinel, reply[0], reply[1]) ?? "nonsense";
}

/** SENTINEL MASTER; null = nonsense. */
export function readMaster(sentinel: NodeId, reply: unknown): MasterWord | null {
  const fields = readFields(reply);
  if (fields === null) return null;
  return {
    node: dialled(sentinel, fields.get("ip"), fields.get("port")),
    runId: readRunId(fields.get("runid")),
    configEpoch: wholeNumber(fields.get("config-epoch")),
    quorum: wholeNumber(fields.get("quorum")),
    others: wholeNumber(fields.get("num-other-sentinels")),
    flags: readFlags(fields),
  };
}

/** SENTINEL REPLICAS (SLAVES), SENTINEL SENTINELS: what of it makes sense. */
export function readInstances(sentinel: NodeId, reply: unknown): Instance[] {
  if (!Array.isArray(reply)) return [];
  const instances: Instance[] = [];
  for (const item of reply.slice(0, MAX_INSTANCES)) {
    const fields = readFields(item);
    const node = fields === null ? null : dialled(sentinel, fields.get("ip"), fields.get("port"));
    if (fields === null || node === null) continue;
    instances.push({ node, runId: readRunId(fields.get("runid")), flags: readFlags(fields) });
  }
  return instances;
}

/** SENTINEL MYID, and the field runid; null = none. */
export function readRunId(reply: unknown): string | null {
  return typeof reply === "string" && RUN_ID.test(reply) ? reply : null;
}

/** INFO sentinel: whether it is in TILT, which means that it does not trust its own clock; null = unknown. */
export function readTilt(reply: unknown): boolean | null {
  if (typeof reply !== "string") return null;
  const digit = /^sentinel_tilt:([01])\s*$/m.exec(reply.slice(0, MAX_TEXT))?.[1];
  return digit === undefined ? null : digit === "1";
}

/** Channels a Sentinel tells its events on that are about masters and nodes. */
export const CHANNELS = {
  "+switch-master": "done",
  "+promoted-slave": "done",
  "+config-update-from": "done",
  "+failover-end": "done",
  "+failover-end-for-timeout": "done",
  "+convert-to-slave": "done",
  "+slave": "done",
  "+reset-master": "done",
  "+reboot": "done",
  "-failover-abort-not-elected": "done",
  "-failover-abort-no-good-slave": "done",
  "-failover-abort-slave-timeout": "done",
  "+odown": "running",
  "+try-failover": "running",
  "+selected-slave": "running",
  "+sdown": "look",
  "-sdown": "look",
  "-odown": "look",
  "+tilt": "tilt",
  "-tilt": "tilt",
} as const satisfies Readonly<Record<string, EventKind>>;

/** done = something has just changed; running = a failover is on its way; tilt = ask it again. */
export type EventKind = "running" | "done" | "look" | "tilt";

export interface SentinelEvent {
  readonly kind: EventKind;
  /** Nodes it names. */
  readonly nodes: readonly NodeId[];
}

/**
 * An event about the group `name`, or null. `+switch-master` has "name ip port ip port"; the others have
 * "master name ip port" or "slave ip:port ip port @ name ip port"; TILT is about the Sentinel itself.
 */
export function readEvent(
  sentinel: NodeId,
  name: string,
  channel: string,
  text: string,
): SentinelEvent | null {
  if (!Object.hasOwn(CHANNELS, channel)) return null;
  const kind = CHANNELS[channel as keyof typeof CHANNELS];
  if (kind === "tilt") return { kind, nodes: [] };
  const words = text.slice(0, MAX_TEXT).split(" ");
  const found = channel === "+switch-master" ? switched(words, name) : described(words, name);
  if (found === null) return null;
  const nodes = found.map(([host, port]) => dialled(sentinel, host, port)).filter((node) => node !== null);
  return { kind, nodes };
}

type Pair = readonly [host: string | undefined, port: string | undefined];

function switched(words: readonly string[], name: string): Pair[] | null {
  const [group, oldHost, oldPort, newHost, newPort] = words;
  if (group !== name) return null;
  return [
    [newHost, newPort],
    [oldHost, oldPort],
  ];
}

function described(words: readonly string[], name: string): Pair[] | null {
  const [type, own, host, port, at, group, masterHost, masterPort] = words;
  if (type === "master") return own === name ? [[host, port]] : null;
  if (at !== "@" || group !== name) return null;
  const master: Pair = [masterHost, masterPort];
  return type === "slave" ? [[host, port], master] : [master];
}

function dialled(sentinel: NodeId, host: unknown, port: unknown): NodeId | null {
  const number = wholeNumber(port);
  if (typeof host !== "string" || number === null) return null;
  const address: Address = { host, port: number };
  return announcedAddress(sentinel, address);
}

/** A flat list of names and values. */
function readFields(reply: unknown): ReadonlyMap<string, string> | null {
  if (!Array.isArray(reply) || reply.length === 0) return null;
  const fields = new Map<string, string>();
  for (let i = 0; i + 1 < Math.min(reply.length, 2 * MAX_FIELDS); i += 2) {
    const [field, value]: unknown[] = [reply[i], reply[i + 1]];
    if (typeof field === "string" && typeof value === "string" && !fields.has(field))
      fields.set(field, value);
  }
  return fields;
}

function readFlags(fields: ReadonlyMap<string, string>): string[] {
  return (fields.get("flags") ?? "").slice(0, 255).split(",");
}

function wholeNumber(value: unknown): number | null {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0 ? value : null;
  if (typeof value !== "string" || !/^\d{1,15}$/.test(value)) return null;
  return Number(value);
}
