/** PURE. Where commands have their keys, as a server's COMMAND says it and as the built-in table does. */
import type { KeyPlan, KeyRun, KeySearch, KeySpec } from "./keys.ts";

export const NONE: KeyPlan = { kind: "none" };
export const UNKNOWN_KEYS: KeyPlan = { kind: "unknown" };

/** Most specs of one command (Redis has three at most). */
const MAX_SPECS = 16;

/** Largest index that makes sense in a spec. */
const MAX_INDEX = 1_000_000;

/**
 * Known better than servers describe them: SORT's patterns and destination are beyond what specs can say, and
 * MIGRATE's are flagged incomplete, since a password may read KEYS (here what follows counts as keys then).
 */
const BY_NAME: ReadonlyMap<string, KeyPlan> = new Map<string, KeyPlan>([
  ["sort", { kind: "sort" }],
  ["sort_ro", { kind: "sort" }],
  ["migrate", planOfText("3+KEYS@6:-1")],
]);

/** What decides about a command's keys besides its specs. */
export interface KeyedFacts {
  readonly name: string;
  /** Flagged as one that reads or writes data. */
  readonly onData: boolean;
  /** A command of Redis 7.0, or the proxy's own: without keys and flags it has nothing to do with data. */
  readonly builtin: boolean;
}

/** The plan of a command whose specs are these; null = they make no sense, or do not say all. */
export function planOf(facts: KeyedFacts, specs: readonly KeySpec[] | null): KeyPlan {
  const known = BY_NAME.get(facts.name);
  if (known !== undefined) return known;
  if (specs === null) return UNKNOWN_KEYS;
  if (specs.length > 0) return { kind: "specs", specs };
  // LOLWUT is flagged as a read and reads nothing.
  if (facts.name === "lolwut") return NONE;
  return facts.onData || !facts.builtin ? UNKNOWN_KEYS : NONE;
}

// The built-in table

/**
 * Reads specs as the built-in table has them, joined by "+":
 * `1` one key; `1:-1:2` from 1 to the last, every second; `2#` as many as argument 2 says, behind it;
 * `STREAMS@4:-1:1:2` behind the word STREAMS, found from argument 4 on, in the first half of what follows.
 */
export function specsOfText(text: string): KeySpec[] {
  if (text === "") return [];
  return text.split("+").map((one): KeySpec => {
    const match = /^(?:([A-Z]+)@)?(\d+)(#?)(?::(-?\d+))?(?::(\d+))?(?::(\d+))?$/.exec(one);
    if (match === null) throw new Error(`not a key spec: ${one}`);
    const [, keyword, at, keynum, last = "0", step = "1", limit = "0"] = match;
    const search: KeySearch =
      keyword === undefined
        ? { kind: "index", index: Number(at) }
        : { kind: "keyword", keyword, start: Number(at) };
    const run: KeyRun =
      keynum === "#"
        ? { kind: "keynum", count: 0, first: 1, step: 1 }
        : { kind: "range", last: Number(last), step: Number(step), limit: Number(limit) };
    return { search, run };
  });
}

function planOfText(text: string): KeyPlan {
  return { kind: "specs", specs: specsOfText(text) };
}

// A server's COMMAND

/**
 * The specs of a row of COMMAND: [name, arity, flags, first key, last key, step, …], key specs in the ninth
 * element since Redis 7.0; null = it makes no sense, or does not say all.
 */
export function specsOfRow(row: readonly unknown[], isMovable: boolean, builtin: boolean): KeySpec[] | null {
  if (!hasSpecs(row)) return specsOfRange(row[3], row[4], row[5], isMovable);
  const specs = specsOfReply(row[8]);
  // A module that says its keys have no fixed place, and names one, may have others ("getkeys-api").
  const isElsewhere =
    isMovable && !builtin && specs?.every(({ search, run }) => isFixed(search, run)) === true;
  return isElsewhere ? null : specs;
}

export function hasSpecs(row: readonly unknown[]): row is [...unknown[]] & { readonly 8: unknown[] } {
  return Array.isArray(row[8]);
}

function isFixed(search: KeySearch, run: KeyRun): boolean {
  return search.kind === "index" && run.kind === "range";
}

/** The keys that rows of servers before Redis 7.0 tell: first, last and step; null = others too. */
function specsOfRange(first: unknown, last: unknown, step: unknown, isMovable: boolean): KeySpec[] | null {
  if (isMovable || !isNumber(first) || !isNumber(last) || !isNumber(step)) return null;
  if (first === 0) return [];
  if (first < 0 || step < 1 || (last >= 0 && last < first)) return null;
  const run: KeyRun = { kind: "range", last: last < 0 ? last : last - first, step, limit: 0 };
  return [{ search: { kind: "index", index: first }, run }];
}

function specsOfReply(reply: readonly unknown[]): KeySpec[] | null {
  if (reply.length > MAX_SPECS) return null;
  const specs: KeySpec[] = [];
  for (const one of reply) {
    const fields = fieldsOf(one);
    const flags = wordsOf(fields.get("flags"));
    if (flags.has("not_key")) continue;
    const search = searchOf(fieldsOf(fields.get("begin_search")));
    const run = runOf(fieldsOf(fields.get("find_keys")));
    if (flags.has("incomplete") || search === null || run === null) return null;
    specs.push({ search, run });
  }
  return specs;
}

function searchOf(fields: ReadonlyMap<unknown, unknown>): KeySearch | null {
  const spec = fieldsOf(fields.get("spec"));
  switch (fields.get("type")) {
    case "index": {
      const index = spec.get("index");
      return isNumber(index) && index > 0 ? { kind: "index", index } : null;
    }
    case "keyword": {
      const [keyword, start] = [spec.get("keyword"), spec.get("startfrom")];
      if (typeof keyword !== "string" || keyword === "" || !isNumber(start) || start < 1) return null;
      return { kind: "keyword", keyword: keyword.toUpperCase(), start };
    }
    default:
      return null;
  }
}

function runOf(fields: ReadonlyMap<unknown, unknown>): KeyRun | null {
  const spec = fieldsOf(fields.get("spec"));
  const step = spec.get("keystep");
  if (!isNumber(step) || step < 1) return null;
  switch (fields.get("type")) {
    case "range": {
      const [last, limit] = [spec.get("lastkey"), spec.get("limit")];
      if (!isNumber(last) || !isNumber(limit) || limit < 0) return null;
      return { kind: "range", last, step, limit };
    }
    case "keynum": {
      const [count, first] = [spec.get("keynumidx"), spec.get("firstkey")];
      if (!isNumber(count) || !isNumber(first) || count < 0 || first < 0) return null;
      return { kind: "keynum", count, first, step };
    }
    default:
      return null;
  }
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && Math.abs(value) <= MAX_INDEX;
}

/** A map, as RESP3 has it, or as RESP2's list of names and values. */
function fieldsOf(value: unknown): ReadonlyMap<unknown, unknown> {
  if (value instanceof Map) return value as ReadonlyMap<unknown, unknown>;
  const fields = new Map<unknown, unknown>();
  if (!Array.isArray(value)) return fields;
  for (let i = 0; i + 1 < value.length; i += 2) fields.set(value[i], value[i + 1]);
  return fields;
}

function wordsOf(value: unknown): ReadonlySet<unknown> {
  if (value instanceof Set) return value;
  return new Set(Array.isArray(value) ? (value as unknown[]) : []);
}
