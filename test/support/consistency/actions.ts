/**
 * The ways in which keys are written and read. A value says which key, writer and version it is: whoever
 * reads it knows which write it saw.
 */
import { ReplyError } from "../resp.ts";
import { type Kind, NOTHING, UNKNOWN } from "./history.ts";
import type { WireReply } from "./wire.ts";

/**
 * string, hash: one writer each · counter, list: every session writes, the server counts · register: every
 * session writes, nobody counts · foreign: written on the master, behind the proxy's back · moved: grows by
 * calls that wait, of one session.
 */
export type KeyType = "string" | "hash" | "counter" | "list" | "register" | "foreign" | "moved";

export const KEY_TYPES: readonly KeyType[] = [
  ...(["string", "hash", "counter", "list", "register", "foreign", "moved"] as const),
];

export interface Key {
  readonly id: number;
  readonly name: string;
  readonly type: KeyType;
  /** Session that alone writes it; -1 = every one does. */
  readonly owner: number;
  /** The last version its writer has taken. */
  taken: number;
}

export interface Effect {
  readonly key: Key;
  readonly kind: Kind;
  /** UNKNOWN: the reply says it. */
  readonly version: number;
}

export interface Action {
  readonly commands: readonly (readonly string[])[];
  readonly effects: readonly Effect[];
  /** The version of each effect, of the last command's reply; null = it is not what it should be. */
  readonly versions: (reply: WireReply) => readonly (number | null)[];
}

export type Random = () => number;

export function textOf(key: Key, session: number, version: number): string {
  return `${key.name}|${session}|${version}`;
}

/** The version of a value that was read; null when it is no value of the key. */
export function versionOf(key: Key, value: WireReply): number | null {
  if (value === null) return NOTHING;
  if (typeof value !== "string") return null;
  const [name, , version] = value.split("|");
  const number = Number(version);
  return name === key.name && number > 0 ? number : null;
}

function countOf(value: WireReply): number | null {
  const count = Number(value);
  return typeof value === "string" || typeof value === "number" ? (count >= 0 ? count : null) : null;
}

// Reads

export function readOf(key: Key): Action {
  const effects = [{ key, kind: "read" as const, version: UNKNOWN }];
  const reading = (command: readonly string[], version: (reply: WireReply) => number | null): Action => ({
    commands: [command],
    effects,
    versions: (reply) => [version(reply)],
  });
  switch (key.type) {
    case "string":
    case "register":
    case "foreign":
      return reading(["GET", key.name], (reply) => versionOf(key, reply));
    case "hash":
      return reading(["HGET", key.name, "f"], (reply) => versionOf(key, reply));
    case "counter":
      return reading(["GET", key.name], (reply) => (reply === null ? NOTHING : countOf(reply)));
    case "list":
    case "moved":
      return reading(["LLEN", key.name], (reply) => (reply === 0 ? NOTHING : countOf(reply)));
  }
}

/** MGET of keys that are read by GET, each once. */
export function readAllOf(keys: readonly Key[]): Action {
  return {
    commands: [["MGET", ...keys.map(({ name }) => name)]],
    effects: keys.map((key) => ({ key, kind: "read", version: UNKNOWN })),
    versions: (reply) => keys.map((key, i) => (isList(reply) ? versionOf(key, reply[i] ?? null) : null)),
  };
}

// Writes

const SET_SCRIPT = "return redis.call('SET', KEYS[1], ARGV[1])";
const INCR_SCRIPT = "return redis.call('INCR', KEYS[1])";

/** @param keys the first is written; a way that takes several writes all of them. */
export function writeOf(keys: readonly [Key, ...Key[]], session: number, random: Random): Action {
  const [key] = keys;
  switch (key.type) {
    case "string":
      return writeStrings(keys, session, random);
    case "hash": {
      const version = ++key.taken;
      return fixed([["HSET", key.name, "f", textOf(key, session, version)]], [written(key, version)]);
    }
    case "register":
    case "foreign": {
      const version = ++key.taken;
      return fixed([["SET", key.name, textOf(key, session, version)]], [written(key, version)]);
    }
    case "counter":
      return writeCounter(key, random);
    case "list":
      return counted(key, [[random() < 0.5 ? "LPUSH" : "RPUSH", key.name, "x"]], countOf);
    case "moved":
      return writeMoved(key);
  }
}

/** Waits until the source has something, up to 200 ms. */
function writeMoved(key: Key): Action {
  return {
    commands: [["BLMOVE", sourceOf(key), key.name, "RIGHT", "LEFT", "0.2"]],
    effects: [written(key, key.taken + 1)],
    versions: (reply) => [reply === "x" ? ++key.taken : null],
  };
}

export function sourceOf(key: Key): string {
  return `${key.name}:source`;
}

function writeStrings(keys: readonly [Key, ...Key[]], session: number, random: Random): Action {
  const [key] = keys;
  const way = random();
  const take = (one: Key): Effect => written(one, ++one.taken);
  const valued = ({ key: one, version }: Effect): [string, string] => [
    one.name,
    textOf(one, session, version),
  ];
  if (way < 0.1) return fixed([["DEL", key.name]], [{ key, kind: "erase", version: ++key.taken }]);
  const isMany = way > 0.7 && keys.length > 1;
  const effects = isMany ? keys.map(take) : [take(key)];
  const sets = effects.map((effect) => ["SET", ...valued(effect)]);
  if (isMany && way < 0.85) return fixed([["MSET", ...effects.flatMap(valued)]], effects);
  if (isMany) return fixed([["MULTI"], ...sets, ["EXEC"]], effects);
  const [name, value] = valued(effects[0]!);
  if (way < 0.2) return fixed([["EVAL", SET_SCRIPT, "1", name, value]], effects);
  if (way < 0.3) return fixed([["SET", name, value, "EX", "1000"]], effects);
  if (way < 0.4) return fixed([["MULTI"], ["SET", name, value], ["EXPIRE", name, "1000"], ["EXEC"]], effects);
  return fixed(sets, effects);
}

function writeCounter(key: Key, random: Random): Action {
  const way = random();
  const { name } = key;
  if (way < 0.2) return counted(key, [["EVAL", INCR_SCRIPT, "1", name]], countOf);
  if (way > 0.3) return counted(key, [["INCR", name]], countOf);
  const last = (reply: WireReply): number | null => (isList(reply) ? countOf(reply[0] ?? null) : null);
  return counted(key, [["MULTI"], ["INCR", name], ["EXEC"]], last);
}

function written(key: Key, version: number): Effect {
  return { key, kind: "write", version };
}

/** Its versions are known beforehand. */
function fixed(commands: readonly (readonly string[])[], effects: readonly Effect[]): Action {
  return { commands, effects, versions: () => effects.map(({ version }) => version) };
}

/** The reply says the version. */
function counted(
  key: Key,
  commands: readonly (readonly string[])[],
  version: (reply: WireReply) => number | null,
): Action {
  return { commands, effects: [written(key, UNKNOWN)], versions: (reply) => [version(reply)] };
}

export function isList(reply: WireReply): reply is readonly WireReply[] {
  return Array.isArray(reply) && !(reply instanceof ReplyError);
}
