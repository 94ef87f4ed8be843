/**
 * Calls of a command made from what COMMAND DOCS says of its arguments, and the data set they are made for.
 * Nothing here is left to chance: the same specs give the same calls.
 */
import { createHash } from "node:crypto";
import type { ArgumentSpec, CommandSpec } from "./command-specs.ts";
import type { Argument } from "./resp.ts";

export type CallKind =
  | "no arguments"
  | "too few"
  | "too many"
  | "surplus word"
  | "unknown sub-command"
  | "help"
  | "plausible"
  | "missing key"
  | "wrong type"
  | "malformed";

export interface Call {
  readonly kind: CallKind;
  readonly args: readonly Argument[];
}

const SCRIPT = "return {KEYS[1] or 'no key', ARGV[1] or 'no argument', redis.call('get', 'string')}";
export const SCRIPT_SHA = createHash("sha1").update(SCRIPT).digest("hex");
const LIBRARY = [
  "#!lua name=library",
  "redis.register_function{function_name='f',callback=function(k,a)return {k[1],a[1]} end,flags={'no-writes'}}",
].join("\n");
const OTHER_LIBRARY = LIBRARY.replace("library", "other").replace("'f'", "'g'");

/** 2100-01-01: the same for both servers, and not soon. */
const FAR_SECONDS = "4102444800";

/** What a server holds besides data, as it is before a command that is not about data. */
export const SERVER_STATE: readonly (readonly Argument[])[] = [
  ["SCRIPT", "LOAD", SCRIPT],
  ["FUNCTION", "FLUSH"],
  ["FUNCTION", "LOAD", LIBRARY],
  ["ACL", "LOG", "RESET"],
  ["ACL", "DELUSER", "tester"],
  ["CONFIG", "SET", "maxmemory-samples", "5"],
];

/** Every type, twice where a command takes two of it; times and ids are given, so that all are equal. */
export const DATA_SET: readonly (readonly Argument[])[] = [
  ["FLUSHALL"],
  ["SET", "string", "hello"],
  ["SET", "string2", "hallo"],
  ["SET", "number", "42"],
  ["SET", "expiring", "v", "EXAT", FAR_SECONDS],
  ["RPUSH", "list", "a", "b", "c", "a"],
  ["RPUSH", "list2", "3", "1", "2"],
  ["HSET", "hash", "f", "1", "g", "w"],
  ["SADD", "set", "a", "b", "c"],
  ["SADD", "set2", "b", "c", "d"],
  ["SADD", "integers", "1", "2", "3"],
  ["ZADD", "zset", "1", "a", "2", "b", "3.5", "c"],
  ["ZADD", "zset2", "1", "b", "2", "d"],
  ["XADD", "stream", "1-1", "f", "v"],
  ["XADD", "stream", "2-1", "f", "w"],
  ["XADD", "stream2", "1-1", "f", "v"],
  ["XGROUP", "CREATE", "stream", "group", "0"],
  ["XGROUP", "CREATE", "stream2", "group", "0"],
  ["XREADGROUP", "GROUP", "group", "consumer", "COUNT", "1", "STREAMS", "stream", ">"],
  ["PFADD", "hll", "a", "b", "c"],
  ["PFADD", "hll2", "c", "d"],
  ["GEOADD", "geo", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania"],
  ["GEOADD", "geo2", "12.5", "41.9", "Rome"],
  ["SETBIT", "bitmap", "7", "1"],
  ["SETBIT", "bitmap2", "9", "1"],
  ["SET", "watched", "1"],
];

/** Groups of commands that change nothing but data. */
const DATA_GROUPS = new Set([
  ...["string", "list", "hash", "set", "sorted-set", "stream", "hyperloglog", "geo", "bitmap", "generic"],
]);

export function changesDataOnly({ group }: CommandSpec): boolean {
  return DATA_GROUPS.has(group);
}

const ONE_OF_EACH_TYPE = [
  ...["string", "number", "expiring", "list", "hash", "set", "integers", "zset", "stream", "hll", "geo"],
  "bitmap",
];

const KEYS_OF_GROUP: Readonly<Record<string, readonly [string, string]>> = {
  string: ["string", "string2"],
  list: ["list", "list2"],
  hash: ["hash", "hash"],
  set: ["set", "set2"],
  "sorted-set": ["zset", "zset2"],
  stream: ["stream", "stream2"],
  hyperloglog: ["hll", "hll2"],
  geo: ["geo", "geo2"],
  bitmap: ["bitmap", "bitmap2"],
};

const KEYS_OF_COMMAND: Readonly<Record<string, readonly [string, string]>> = {
  incr: ["number", "number"],
  decr: ["number", "number"],
  incrby: ["number", "number"],
  decrby: ["number", "number"],
  incrbyfloat: ["number", "number"],
  sort: ["list2", "list2"],
  sort_ro: ["list2", "list2"],
  restore: ["restored", "restored"],
  "restore-asking": ["restored", "restored"],
};

const DESTINATIONS = new Set(["destination", "dst", "destkey", "newkey"]);

/** What servers have made themselves: DUMP and FUNCTION DUMP of the data set. */
export interface Payloads {
  readonly string: Buffer;
  readonly library: Buffer;
}

/** By `command:argument` or `argument`, the second value for the second time. The rest go by type. */
const VALUES: Readonly<Record<string, readonly [string, string?]>> = {
  "acl|cat:categoryname": ["read"],
  "acl|deluser:username": ["tester"],
  "acl|dryrun:command": ["get"],
  "acl|dryrun:arg": ["string"],
  "acl|genpass:bits": ["64"],
  "acl|setuser:username": ["tester"],
  "acl|setuser:rule": ["on", "+get"],
  "bitfield:encoding": ["u8"],
  "bitfield_ro:encoding": ["u8"],
  "bitfield:offset": ["0"],
  "bitfield_ro:offset": ["0"],
  "command|list:module-name": ["nosuch"],
  "config|get:parameter": ["maxmemory", "appendonly"],
  "config|set:parameter": ["maxmemory-samples", "maxmemory"],
  "config|set:value": ["6", "0"],
  "function|load:function-code": [OTHER_LIBRARY],
  "geoadd:longitude": ["11", "12"],
  "geoadd:member": ["Florence", "Rome"],
  "geodist:member2": ["Catania"],
  "lpos:num-matches": ["0"],
  "lpos:element": ["a"],
  "lrem:element": ["a"],
  "linsert:pivot": ["b"],
  "object|freq:key": ["string"],
  "psubscribe:pattern": ["news.*", "more.*"],
  "punsubscribe:pattern": ["news.*", "more.*"],
  "setrange:offset": ["2"],
  "setbit:value": ["1"],
  "bitfield:value": ["7"],
  "scan:type": ["string"],
  "scan:count": ["1000"],
  "hscan:count": ["1000"],
  "sscan:count": ["1000"],
  "zscan:count": ["1000"],
  "migrate:timeout": ["1000"],
  "select:index": ["1"],
  "sort:pattern": ["weight_*", "#"],
  "sort_ro:pattern": ["weight_*", "#"],
  "swapdb:index1": ["0"],
  "swapdb:index2": ["1"],
  "xadd:id": ["9-1"],
  "xgroup|create:groupname": ["new-group"],
  "xread:milliseconds": ["10"],
  "xreadgroup:milliseconds": ["10"],
  "xreadgroup:id": [">", "0"],
  "xread:id": ["0", "0"],
  "xsetid:last-id": ["9-9"],
  "zadd:member": ["a", "new"],
  "zrevrange:start": ["0"],
  "zrange:start": ["0"],
  "zrange:stop": ["-1"],
  "zrangestore:min": ["0"],
  "zrangestore:max": ["-1"],
  arg: ["argument", "another"],
  bit: ["1"],
  category: ["read"],
  channel: ["channel", "channel2"],
  "client-id": ["999999999", "999999998"],
  clientname: ["name"],
  "command-name": ["get", "nosuch"],
  "connection-name": ["name"],
  consumer: ["consumer"],
  consumername: ["consumer"],
  count: ["2"],
  cursor: ["0"],
  db: ["1"],
  "destination-db": ["1"],
  element: ["x", "y"],
  end: ["-1"],
  entries_added: ["5"],
  event: ["command"],
  field: ["f", "new"],
  function: ["f"],
  group: ["group"],
  groupname: ["group"],
  height: ["400000"],
  host: ["127.0.0.1"],
  id: ["1-1", "2-1"],
  index: ["1"],
  "last-id": ["1-1"],
  latitude: ["37", "38"],
  len: ["2"],
  "library-name": ["library"],
  "library-name-pattern": ["lib*"],
  longitude: ["15", "16"],
  max: ["+", "+inf"],
  max_deleted_entry_id: ["1-1"],
  member: ["a", "b"],
  member1: ["Palermo"],
  message: ["message"],
  milliseconds: ["100000"],
  min: ["-"],
  "min-idle-time": ["0"],
  "node-id": ["0".repeat(40)],
  offset: ["1"],
  operation: ["AND"],
  password: ["secret"],
  path: ["/nosuch.so"],
  pattern: ["*"],
  port: ["1"],
  protover: ["3"],
  radius: ["200000"],
  script: [SCRIPT],
  seconds: ["1000"],
  section: ["server", "memory"],
  sha1: [SCRIPT_SHA, "0".repeat(40)],
  shardchannel: ["shard", "shard2"],
  start: ["0"],
  stop: ["-1"],
  subcommand: ["GETREG"],
  threshold: ["1"],
  timeout: ["10"],
  ttl: ["0"],
  "unix-time-milliseconds": [`${FAR_SECONDS}000`],
  "unix-time-seconds": [FAR_SECONDS],
  username: ["default", "nosuch"],
  value: ["value", "value2"],
  width: ["400000"],
};

/** The same for all commands of a group. */
const VALUES_OF_GROUP: Readonly<Record<string, Readonly<Record<string, readonly [string, string?]>>>> = {
  geo: { member: ["Palermo", "Catania"] },
  stream: { start: ["-"], end: ["+"] },
};

const NUMBERS = new Set(["integer", "double", "unix-time"]);

/** Bounds of scores and waiting times, which other types of argument have other names for. */
const DOUBLES: Readonly<Record<string, readonly [string, string?]>> = {
  min: ["-inf"],
  max: ["+inf"],
  timeout: ["0.01"],
};

/** Calls that COMMAND DOCS does not describe, or whose making at random would harm the walk itself. */
const BY_HAND: Readonly<Record<string, readonly string[]>> = {
  // What it kills is picked so that it is nobody.
  "client|kill": [
    ...["127.0.0.1:1", "ID 999999999", "ADDR 127.0.0.1:1", "LADDR 127.0.0.1:1", "TYPE master"],
    ...["USER nosuch", "ID 999999999 SKIPME no", "ID abc", "TYPE nosuch", "SKIPME maybe", "ID"],
  ],
  "client|pause": ["1", "1 WRITE", "1 ALL", "abc", "-1", "1 NOSUCH"],
  "command|getkeys": ["GET k", "MSET a 1 b 2", "EVAL x 1 k", "NOSUCH k", "PING", "GET"],
  "command|getkeysandflags": ["GET k", "MSET a 1 b 2", "PING"],
  debug: [
    ...["HELP", "NOSUCH", "SLEEP 0", "DIGEST-VALUE string list", "OBJECT missing"],
    ...["PROTOCOL string", "PROTOCOL integer", "PROTOCOL double", "PROTOCOL null", "PROTOCOL array"],
    ...["PROTOCOL set", "PROTOCOL map", "PROTOCOL attrib", "PROTOCOL push", "PROTOCOL verbatim"],
    ...["PROTOCOL true", "PROTOCOL false", "PROTOCOL bignum", "PROTOCOL nosuch", "ERROR BROKEN"],
    ...["SET-ACTIVE-EXPIRE 1", "QUICKLIST-PACKED-THRESHOLD 10k", "LISTPACK missing", "SDSLEN string"],
  ],
  monitor: [""],
  // It counts for seconds.
  pfselftest: [],
};

interface Word {
  readonly value: Argument;
  readonly role: "name" | "token" | "key" | "numkeys" | "number" | "text";
}

/** Which optional arguments are there, and which of the alternatives. */
interface Choice {
  readonly included: ReadonlySet<ArgumentSpec>;
  readonly alternatives: ReadonlyMap<ArgumentSpec, number>;
  /** Every optional argument, and the last of all alternatives. */
  readonly all: boolean;
  /** How often a repeatable argument is repeated. */
  readonly times: 1 | 2;
}

const LEAST: Choice = { included: new Set(), alternatives: new Map(), all: false, times: 1 };

/** All calls that are made of a command. */
export function callsOf(spec: CommandSpec, payloads: Payloads): Call[] {
  const byHand = BY_HAND[spec.name];
  const least = wordsOf(spec, LEAST, payloads);
  const calls: Call[] = [...arityCalls(spec, least)];
  if (spec.isContainer) {
    const help = [...spec.words, "HELP"];
    const names = [["NOSUCH"], ["NOSUCH", "x"], [""], ["a\r\nb"]];
    for (const words of names) calls.push({ kind: "unknown sub-command", args: [...spec.words, ...words] });
    calls.push({ kind: "help", args: help }, { kind: "help", args: [...help, "extra"] });
  } else if (byHand !== undefined) {
    for (const line of byHand) {
      const words = line === "" ? [] : line.split(" ");
      calls.push({ kind: "plausible", args: [...spec.words, ...words] });
    }
  } else calls.push(...describedCalls(spec, least, payloads));
  return withoutDoubles(calls).map((call, i) => (i % 3 === 2 ? inLowerCase(call, spec) : call));
}

function arityCalls(spec: CommandSpec, least: readonly Word[]): Call[] {
  const words = values(least);
  const named = spec.words.length;
  const calls: Call[] = [{ kind: "no arguments", args: spec.words }];
  const tooFew = Math.abs(spec.arity) - 1;
  if (tooFew > named) calls.push({ kind: "too few", args: padded(words, tooFew) });
  if (spec.arity > 0) calls.push({ kind: "too many", args: padded(words, spec.arity + 1) });
  else if (!(spec.name in BY_HAND)) calls.push({ kind: "surplus word", args: [...words, "extra"] });
  return calls;
}

function padded(words: readonly Argument[], count: number): Argument[] {
  return [...words, ...new Array<string>(count).fill("extra")].slice(0, count);
}

function describedCalls(spec: CommandSpec, least: readonly Word[], payloads: Payloads): Call[] {
  const variants = choicesOf(spec).map((choice) => wordsOf(spec, choice, payloads));
  const calls: Call[] = variants.map((words) => ({ kind: "plausible", args: values(words) }));
  const firstKey = least.findIndex(({ role }) => role === "key");
  if (firstKey >= 0 && !(spec.group in KEYS_OF_GROUP)) {
    for (const key of ONE_OF_EACH_TYPE) {
      calls.push({ kind: "plausible", args: values(least).with(firstKey, key) });
    }
  }
  for (const words of variants) calls.push(...withoutNumbers(words));
  for (const words of [least, variants.at(-1) ?? least]) calls.push(...withOtherKeys(spec, words));
  return calls;
}

/** The same call with what is no number, or too large a one, in each place where a number is asked. */
function withoutNumbers(words: readonly Word[]): Call[] {
  const args = values(words);
  return words.flatMap(({ role }, i): Call[] => {
    if (role !== "number" && role !== "numkeys") return [];
    const wrong = ["notanumber", "99999999999999999999"];
    return wrong.map((text) => ({ kind: "malformed", args: args.with(i, text) }));
  });
}

/** The same call with keys of another type, one after the other, and with keys that are missing. */
function withOtherKeys(spec: CommandSpec, words: readonly Word[]): Call[] {
  const args = values(words);
  const isKey = ({ role }: Word) => role === "key";
  if (!words.some(isKey)) return [];
  const missing = words.map((word) => (isKey(word) ? "missing" : word.value));
  const calls: Call[] = [{ kind: "missing key", args: missing }];
  if (!(spec.group in KEYS_OF_GROUP)) return calls;
  const other = spec.group === "list" ? "string" : "list";
  for (const [i, word] of words.entries()) {
    if (isKey(word)) calls.push({ kind: "wrong type", args: args.with(i, other) });
  }
  return calls;
}

function withoutDoubles(calls: readonly Call[]): Call[] {
  const seen = new Set<string>();
  return calls.filter(({ args }) => {
    const key = JSON.stringify(args.map(String));
    return !seen.has(key) && seen.add(key) !== undefined;
  });
}

function inLowerCase(call: Call, spec: CommandSpec): Call {
  const named = spec.words.length;
  return { ...call, args: call.args.map((arg, i) => (i < named ? String(arg).toLowerCase() : arg)) };
}

function values(words: readonly Word[]): Argument[] {
  return words.map(({ value }) => value);
}

/** The least; each optional argument and each alternative for itself; everything at once. */
function choicesOf(spec: CommandSpec): Choice[] {
  const choices: Choice[] = [LEAST];
  const visit = (arg: ArgumentSpec, path: Choice): void => {
    let here = path;
    if (arg.optional) {
      here = { ...here, included: new Set([...here.included, arg]) };
      choices.push(here);
    }
    for (const [i, part] of arg.parts.entries()) {
      if (arg.type !== "oneof") visit(part, here);
      else {
        const chosen = { ...here, alternatives: new Map([...here.alternatives, [arg, i]]) };
        if (i > 0) choices.push(chosen);
        visit(part, chosen);
      }
    }
  };
  for (const arg of spec.args) visit(arg, LEAST);
  choices.push({ ...LEAST, times: 2 }, { ...LEAST, all: true, times: 2 });
  return choices;
}

function wordsOf(spec: CommandSpec, choice: Choice, payloads: Payloads): Word[] {
  const maker = new WordMaker(spec, choice, payloads);
  const words: Word[] = [
    ...spec.words.map((value): Word => ({ value, role: "name" })),
    ...spec.args.flatMap((arg) => maker.expand(arg)),
  ];
  return words.map((word, i) => {
    if (word.role !== "numkeys") return word;
    const keys = words.slice(i).filter(({ role }) => role === "key").length;
    return { role: "numkeys", value: String(keys) };
  });
}

class WordMaker {
  readonly #spec: CommandSpec;
  readonly #choice: Choice;
  readonly #payloads: Payloads;
  #keys = 0;

  constructor(spec: CommandSpec, choice: Choice, payloads: Payloads) {
    this.#spec = spec;
    this.#choice = choice;
    this.#payloads = payloads;
  }

  /** @param round how often what it is part of was there before. */
  expand(arg: ArgumentSpec, round = 0): Word[] {
    if (arg.optional && !this.#choice.all && !this.#choice.included.has(arg)) return [];
    if (arg.type === "pure-token") return token(arg);
    const times = arg.multiple ? this.#choice.times : 1;
    const words: Word[] = arg.multipleToken ? [] : token(arg);
    for (let nth = 0; nth < times; nth++) {
      if (arg.multipleToken) words.push(...token(arg));
      words.push(...this.#body(arg, round + nth));
    }
    return words;
  }

  #body(arg: ArgumentSpec, nth: number): Word[] {
    switch (arg.type) {
      case "block":
        return arg.parts.flatMap((part) => this.expand(part, nth));
      case "oneof": {
        const last = this.#choice.all ? arg.parts.length - 1 : 0;
        const part = arg.parts[this.#choice.alternatives.get(arg) ?? last];
        return part === undefined ? [] : this.expand(part, nth);
      }
      case "key":
        return [{ role: "key", value: this.#key(arg) }];
      default:
        return [{ role: this.#role(arg), value: this.#value(arg, nth) }];
    }
  }

  #role(arg: ArgumentSpec): Word["role"] {
    if (arg.name === "numkeys") return "numkeys";
    return NUMBERS.has(arg.type) ? "number" : "text";
  }

  #key(arg: ArgumentSpec): string {
    if (DESTINATIONS.has(arg.name) || arg.token?.startsWith("STORE")) return "new";
    const { name, group } = this.#spec;
    const [first, second] = KEYS_OF_COMMAND[name] ?? KEYS_OF_GROUP[group] ?? ["string", "string2"];
    return this.#keys++ === 0 ? first : second;
  }

  #value(arg: ArgumentSpec, nth: number): Argument {
    const { name, group } = this.#spec;
    if (arg.name === "serialized-value") {
      return group === "scripting" ? this.#payloads.library : this.#payloads.string;
    }
    const found =
      VALUES[`${name}:${arg.name}`] ??
      VALUES_OF_GROUP[group]?.[arg.name] ??
      (arg.type === "double" ? DOUBLES[arg.name] : undefined) ??
      VALUES[arg.name];
    if (found !== undefined) return (nth > 0 ? found[1] : undefined) ?? found[0];
    return NUMBERS.has(arg.type) ? "1" : "text";
  }
}

function token(arg: ArgumentSpec): Word[] {
  return arg.token === null ? [] : [{ value: arg.token, role: "token" }];
}
