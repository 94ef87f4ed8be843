/**
 * PURE. Writes that leave the same data behind when they run twice in a row, so that one of which nobody
 * knows whether it ran may be sent again (`inFlight.onUnknown: retry-idempotent`). The second reply may be
 * another one (how many were added, say), and a time to live that is given as a span begins anew.
 *
 * In doubt a command is not among them: not what depends on what is there (SETNX, SET … NX, RENAME,
 * COPY), nor what changes it step by step (INCR, LPOP, LTRIM 1 -1), nor what nobody has thought of here.
 */

/** arguments: only with some arguments, see `isIdempotent`. */
export type Idempotence = "never" | "always" | "arguments";

const ALWAYS: ReadonlySet<string> = new Set([
  ...["mset", "setex", "psetex", "setrange", "setbit", "del", "unlink", "persist"],
  ...["hset", "hmset", "hdel", "sadd", "srem", "lset", "pfadd", "pfmerge", "xack", "xdel"],
  ...["zrem", "zremrangebyscore", "zremrangebylex"],
]);

/** What is written goes to its first key, from the others. */
const STORES: ReadonlySet<string> = new Set([
  ...["sdiffstore", "sinterstore", "sunionstore", "zdiffstore", "zinterstore", "zunionstore"],
  ...["zrangestore", "geosearchstore"],
]);

const BY_ARGUMENTS: ReadonlySet<string> = new Set([
  ...["set", "expire", "pexpire", "expireat", "pexpireat", "zadd", "geoadd", "ltrim", "bitop"],
  ...STORES,
]);

export function idempotenceOf(name: string): Idempotence {
  if (ALWAYS.has(name)) return "always";
  return BY_ARGUMENTS.has(name) ? "arguments" : "never";
}

/**
 * @param command its name, lower case, and what `idempotenceOf` says of that.
 * @param argsOf the whole request, the name first; only asked where the arguments matter.
 */
export function isIdempotent(
  command: { readonly name: string; readonly idempotence: Idempotence },
  argsOf: () => readonly Buffer[],
): boolean {
  switch (command.idempotence) {
    case "always":
      return true;
    case "never":
      return false;
    case "arguments":
      return areIdempotent(command.name, argsOf());
  }
}

function areIdempotent(name: string, args: readonly Buffer[]): boolean {
  const [, first, second, third] = args;
  if (first === undefined || second === undefined) return false;
  if (STORES.has(name)) return !args.slice(2).some((arg) => arg.equals(first));
  switch (name) {
    case "set":
      return isPlainSet(args.slice(3).map(word));
    // With NX, XX, GT or LT the second run may do nothing, or the first may have made it possible.
    case "expire":
    case "pexpire":
    case "expireat":
    case "pexpireat":
      return args.length === 3;
    case "zadd":
    case "geoadd":
      return !SET_OPTIONS.has(word(second));
    case "ltrim":
      return third !== undefined && isStableRange(word(second), word(third));
    // BITOP operation destination source …
    case "bitop":
      return !args.slice(3).some((arg) => arg.equals(second));
    default:
      return false;
  }
}

interface Words {
  readonly command: { readonly name: string; readonly idempotence: Idempotence };
  readonly args: readonly Buffer[];
}

/**
 * Whether writes leave the same behind when all of them run, and then all of them once more. Each of them
 * alone must, and what one of them looks at must not be written by one behind it: EXPIRE k 10, HSET k f v
 * gives a new hash no time to live the first time.
 */
export function areIdempotentTogether(writes: Iterable<Words>): boolean {
  const seen = new Set<string>();
  for (const { command, args } of writes) {
    if (!isIdempotent(command, () => args)) return false;
    // All words count as what it writes: one too many is no harm.
    if (seen.size > 0 && args.some((arg, i) => i > 0 && seen.has(arg.toString("latin1", 0, MAX_KEY)))) {
      return false;
    }
    for (const key of lookedAt(command.name, args)) {
      if (key.length > MAX_KEY) return false;
      seen.add(key.toString("latin1"));
    }
  }
  return true;
}

/** Longest key that is remembered, bytes. */
const MAX_KEY = 1024;

/** Words among which are all the keys whose content decides what a command does. */
function lookedAt(name: string, args: readonly Buffer[]): readonly Buffer[] {
  if (STORES.has(name)) return args.slice(2);
  switch (name) {
    case "expire":
    case "pexpire":
    case "expireat":
    case "pexpireat":
    case "lset":
    case "ltrim":
      return args.slice(1, 2);
    case "pfmerge":
      return args.slice(2);
    case "bitop":
      return args.slice(3);
    default:
      return [];
  }
}

/** Options that come before the scores. */
const SET_OPTIONS: ReadonlySet<string> = new Set(["NX", "XX", "GT", "LT", "CH", "INCR"]);

const TIMES: ReadonlySet<string> = new Set(["EX", "PX", "EXAT", "PXAT"]);

function isPlainSet(options: readonly string[]): boolean {
  for (let i = 0; i < options.length; i++) {
    const option = options[i] ?? "";
    if (TIMES.has(option)) i++;
    else if (option !== "KEEPTTL") return false;
  }
  return true;
}

/** Whether a list that was cut to the range stays as it is when it is cut again: it keeps a whole end. */
function isStableRange(start: string, stop: string): boolean {
  if (!/^-?\d{1,15}$/.test(start) || !/^-?\d{1,15}$/.test(stop)) return false;
  const [from, to] = [Number(start), Number(stop)];
  return (from === 0 && (to >= 0 || to === -1)) || (from < 0 && to === -1);
}

/** Longest option. */
const MAX_WORD = 16;

function word(arg: Buffer): string {
  return arg.length > MAX_WORD ? "" : arg.toString("latin1").toUpperCase();
}
