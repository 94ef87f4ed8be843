/**
 * PURE. From the text of INFO to a NodeReport. The text is untrusted: this never throws, looks at a bounded
 * part, and gives an error value for anything that does not make sense. A node that answers nonsense is not a
 * node until it makes sense.
 */

import type { Address } from "../config/address.ts";
import type { NodeId } from "./epoch.ts";

export type Role = "master" | "replica";

/** master_failover_state, of the FAILOVER command (Redis 6.2 and later). */
export type FailoverState = "no-failover" | "waiting-for-sync" | "failover-in-progress" | "unknown";

/** A replica as its master lists it (slaveN:...). */
export interface AttachedReplica {
  readonly host: string;
  readonly port: number;
  readonly state: string;
  /** Acknowledged offset in bytes; replicas acknowledge once per second. */
  readonly offset: number;
  /** Seconds since the last acknowledgement. */
  readonly lag: number;
}

/**
 * What cannot change behind an open connection (run id, version) or is asked for less often (loading, keys).
 * A report from `INFO replication` alone is completed with the base of the last full one.
 */
export interface ReportBase {
  readonly runId: string;
  readonly version: string;
  /** loading or async_loading: the data set is not whole. */
  readonly loading: boolean;
  /** Keys in all databases. */
  readonly keys: number;
  /** It keeps an append-only file, from which a restart reads its data, and nothing of its history. */
  readonly aof: boolean;
}

export interface NodeReport extends ReportBase {
  readonly node: NodeId;
  /** Monotonic ms, taken just before INFO was written: the report shows the node at or after this moment. */
  readonly sentAtMs: number;
  readonly receivedAtMs: number;
  readonly role: Role;
  readonly replid: string;
  /** The history it continues; null when it is all zeros. */
  readonly replid2: string | null;
  /** The first offset of its own history: it shares replid2 up to this minus one. Null when there is none. */
  readonly secondReplOffset: number | null;
  readonly masterReplOffset: number;
  /**
   * What its data set contains, in bytes of history: slave_repl_offset of replicas, else masterReplOffset.
   */
  readonly appliedOffset: number;
  /** Replicas: what has arrived, applied or not (slave_read_repl_offset, Redis 7); else appliedOffset. */
  readonly receivedOffset: number;
  /** Replicas: seconds since the link last brought anything; null while it is down, and for masters. */
  readonly heardSecondsAgo: number | null;
  /** Replicas: the master it follows, as it names it. */
  readonly masterAddress: Address | null;
  /** Replicas: master_link_status is up, which it is only after the synchronisation. False for masters. */
  readonly linkUp: boolean;
  /** Replicas: how long ago the link went down, ms; null while it is up, and when it never was. */
  readonly linkDownForMs: number | null;
  readonly syncInProgress: boolean;
  readonly readOnly: boolean;
  /** 0 = never promote. */
  readonly priority: number;
  readonly failoverState: FailoverState;
  /**
   * It was told to end (SIGTERM, SHUTDOWN) and waits for its replicas, for so many ms at most; until then
   * it writes nothing. Null: it goes on, or is older than Redis 7.
   */
  readonly shutdownInMs: number | null;
  readonly replicas: readonly AttachedReplica[];
}

export interface Envelope {
  readonly node: NodeId;
  readonly sentAtMs: number;
  readonly receivedAtMs: number;
}

export type ReportResult =
  | { readonly ok: true; readonly report: NodeReport }
  | { readonly ok: false; readonly error: string };

/** Longest text looked at, in characters; INFO of these sections has a few thousand. */
const MAX_TEXT = 1024 * 1024;
const MAX_FIELDS = 4096;
const MAX_REPLICAS = 256;
const REPLID = /^[0-9a-f]{40}$/;
const SHUTDOWN = "shutdown_in_milliseconds";
const NO_REPLID = "0".repeat(40);

/** A field that is missing or senseless; caught inside this file, never seen outside. */
class Nonsense extends Error {}

/**
 * Reads the sections replication and, unless `base` is given, server, persistence and keyspace, in any order.
 */
export function parseReport(envelope: Envelope, text: string, base: ReportBase | null): ReportResult {
  if (text.length > MAX_TEXT) return { ok: false, error: `INFO is ${text.length} characters long` };
  const fields = readFields(text);
  if (fields === null) return { ok: false, error: `INFO has more than ${MAX_FIELDS} fields` };
  try {
    return { ok: true, report: { ...envelope, ...(base ?? readBase(fields)), ...readReplication(fields) } };
  } catch (error) {
    return { ok: false, error: error instanceof Nonsense ? error.message : "INFO cannot be read" };
  }
}

type Fields = ReadonlyMap<string, string>;

function readFields(text: string): Fields | null {
  const fields = new Map<string, string>();
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0 || line.startsWith("#")) continue;
    if (fields.size >= MAX_FIELDS) return null;
    const name = line.slice(0, colon);
    // The first one counts: a later duplicate cannot overwrite what was said.
    if (!fields.has(name)) fields.set(name, line.slice(colon + 1).trimEnd());
  }
  return fields;
}

function readBase(fields: Fields): ReportBase {
  const runId = need(fields, "run_id");
  if (!REPLID.test(runId)) throw new Nonsense(`run_id is "${clip(runId)}"`);
  return {
    runId,
    // Valkey keeps redis_version at 7.2.4 for old clients and has its own beside it.
    version: clip(fields.get("valkey_version") ?? need(fields, "redis_version")),
    loading: flag(fields, "loading") || (fields.has("async_loading") && flag(fields, "async_loading")),
    keys: countKeys(fields),
    aof: fields.get("aof_enabled") === "1",
  };
}

type Replication = Omit<NodeReport, keyof ReportBase | keyof Envelope>;

function readReplication(fields: Fields): Replication {
  const role = readRole(need(fields, "role"));
  const replid = need(fields, "master_replid");
  if (!REPLID.test(replid) || replid === NO_REPLID) {
    throw new Nonsense(`master_replid is "${clip(replid)}"`);
  }
  const masterReplOffset = integer(need(fields, "master_repl_offset"), "master_repl_offset", 0);
  const isReplica = role === "replica";
  const applied = isReplica
    ? Math.max(0, integer(need(fields, "slave_repl_offset"), "slave_repl_offset", -1))
    : masterReplOffset;
  return {
    role,
    replid,
    ...readSecondId(fields),
    masterReplOffset,
    appliedOffset: applied,
    receivedOffset: isReplica ? readReceived(fields, applied) : applied,
    heardSecondsAgo: isReplica ? readHeard(fields) : null,
    masterAddress: isReplica ? readMasterAddress(fields) : null,
    linkUp: isReplica && need(fields, "master_link_status") === "up",
    linkDownForMs: isReplica ? readLinkDown(fields) : null,
    syncInProgress: isReplica && flag(fields, "master_sync_in_progress"),
    readOnly: !fields.has("slave_read_only") || flag(fields, "slave_read_only"),
    priority: fields.has("slave_priority")
      ? integer(need(fields, "slave_priority"), "slave_priority", 0)
      : 100,
    shutdownInMs: fields.has(SHUTDOWN)
      ? Math.max(0, integer(need(fields, SHUTDOWN), SHUTDOWN, Number.MIN_SAFE_INTEGER))
      : null,
    failoverState: readFailoverState(fields.get("master_failover_state")),
    replicas: readReplicas(fields),
  };
}

function readReceived(fields: Fields, applied: number): number {
  const text = fields.get("slave_read_repl_offset");
  return text === undefined ? applied : Math.max(applied, integer(text, "slave_read_repl_offset", -1));
}

/** -1 stands for "no link". */
function readHeard(fields: Fields): number | null {
  const text = fields.get("master_last_io_seconds_ago");
  const seconds = text === undefined ? -1 : integer(text, "master_last_io_seconds_ago", -1);
  return seconds < 0 ? null : seconds;
}

/** Whole seconds; -1 stands for "it never was up". */
function readLinkDown(fields: Fields): number | null {
  const text = fields.get("master_link_down_since_seconds");
  const seconds = text === undefined ? -1 : integer(text, "master_link_down_since_seconds", -1);
  return seconds < 0 ? null : seconds * 1_000;
}

function readRole(text: string): Role {
  if (text === "master") return "master";
  if (text === "slave" || text === "replica") return "replica";
  throw new Nonsense(`role is "${clip(text)}"`);
}

function readSecondId(fields: Fields): { replid2: string | null; secondReplOffset: number | null } {
  const replid2 = need(fields, "master_replid2");
  if (!REPLID.test(replid2)) throw new Nonsense(`master_replid2 is "${clip(replid2)}"`);
  const offset = integer(need(fields, "second_repl_offset"), "second_repl_offset", -1);
  if (replid2 === NO_REPLID || offset < 0) return { replid2: null, secondReplOffset: null };
  return { replid2, secondReplOffset: offset };
}

function readMasterAddress(fields: Fields): Address {
  const host = clip(need(fields, "master_host"));
  return { host, port: integer(need(fields, "master_port"), "master_port", 0) };
}

function readFailoverState(text: string | undefined): FailoverState {
  switch (text) {
    case undefined: // before Redis 6.2
    case "no-failover":
      return "no-failover";
    case "waiting-for-sync":
    case "failover-in-progress":
      return text;
    default:
      return "unknown";
  }
}

function readReplicas(fields: Fields): AttachedReplica[] {
  const replicas: AttachedReplica[] = [];
  for (let i = 0; i < MAX_REPLICAS; i++) {
    const text = fields.get(`slave${i}`);
    if (text === undefined) break;
    const part = readParts(text);
    replicas.push({
      host: clip(part.get("ip") ?? ""),
      port: integer(part.get("port") ?? "", `slave${i} port`, 0),
      state: clip(part.get("state") ?? ""),
      offset: integer(part.get("offset") ?? "0", `slave${i} offset`, -1),
      lag: integer(part.get("lag") ?? "0", `slave${i} lag`, -1),
    });
  }
  return replicas;
}

/** db0:keys=3,expires=0,avg_ttl=0 */
function countKeys(fields: Fields): number {
  let keys = 0;
  for (const [name, text] of fields) {
    if (!/^db\d{1,9}$/.test(name)) continue;
    keys += integer(readParts(text).get("keys") ?? "", `${name} keys`, 0);
  }
  return keys;
}

function readParts(text: string): Map<string, string> {
  const parts = new Map<string, string>();
  for (const part of text.slice(0, 1024).split(",")) {
    const equals = part.indexOf("=");
    if (equals > 0) parts.set(part.slice(0, equals), part.slice(equals + 1));
  }
  return parts;
}

function need(fields: Fields, name: string): string {
  const text = fields.get(name);
  if (text === undefined) throw new Nonsense(`${name} is missing`);
  return text;
}

function flag(fields: Fields, name: string): boolean {
  const text = need(fields, name);
  if (text !== "0" && text !== "1") throw new Nonsense(`${name} is "${clip(text)}"`);
  return text === "1";
}

function integer(text: string, name: string, least: number): number {
  const value = /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value) || value < least) throw new Nonsense(`${name} is "${clip(text)}"`);
  return value;
}

function clip(text: string): string {
  return text.slice(0, 255);
}
