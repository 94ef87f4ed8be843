/**
 * Every command that the server has, called in every way that can be made of what it says of itself: to a
 * server directly, and through the proxy to another one with the same data set. The replies must be equal
 * byte for byte, but for what is listed here by name.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Call,
  type CallKind,
  callsOf,
  changesDataOnly,
  DATA_SET,
  type Payloads,
  SERVER_STATE,
} from "../support/command-calls.ts";
import { type CommandSpec, readCommandSpecs } from "../support/command-specs.ts";
import { FrameSocket } from "../support/frames.ts";
import { type LogLine, type ProxyProcess, startProxy } from "../support/proxy.ts";
import {
  losesWrongLogins,
  NEWER_CLIENT_FIELDS,
  parseInfo,
  type RedisServer,
  serverKind,
  startRedis,
} from "../support/redis.ts";
import {
  anyBulk,
  anyNumber,
  anyTime,
  anyValueOf,
  deep,
  kindOnly,
  type Normaliser,
  parseReply,
  printReply,
  type ReplyNode,
  sorted,
  sortedPairs,
} from "../support/reply-tree.ts";
import { type Argument, encodeCommand } from "../support/resp.ts";
import { until } from "../support/wait.ts";

type Protocol = 2 | 3;
type Situation = "alone" | "in MULTI" | "after WATCH" | "subscribed" | "from a replica";
const ON_THE_MASTER: readonly Situation[] = ["alone", "in MULTI", "after WATCH", "subscribed"];
const SITUATIONS: readonly Situation[] = [...ON_THE_MASTER, "from a replica"];

/** One call in one situation. */
interface Case {
  readonly command: string;
  readonly kind: CallKind;
  readonly args: readonly Argument[];
  readonly situation: Situation;
  readonly protocol: Protocol;
}

// What is not sent to a server

/** Commands of which the proxy refuses every call that the server would take, and the reason it gives. */
interface Refused {
  readonly reason: string;
  /** Calls that would harm the server; what the proxy says to them is asserted. */
  readonly calls: readonly string[];
  /** The server takes it into no transaction (server.c, CMD_NO_MULTI). */
  readonly noMulti: boolean;
}

const nodeOnly = (instead: string): string =>
  ` (commands.topology: refuse): use PROXY ${instead}, or send it to the node itself, the proxy follows`;
const NODE_ONLY = nodeOnly("SWITCHOVER");
const REPLICATION = ": it would turn a connection that clients share into a replication link";

/** They are only sent to the server with so many words that it refuses them itself. */
const REFUSED: Readonly<Record<string, Refused>> = {
  shutdown: {
    reason: nodeOnly("RESTARTABLE"),
    calls: ["SHUTDOWN", "SHUTDOWN NOSAVE", "shutdown NOW FORCE"],
    noMulti: true,
  },
  failover: { reason: NODE_ONLY, calls: ["FAILOVER", "FAILOVER ABORT"], noMulti: false },
  replicaof: { reason: NODE_ONLY, calls: ["REPLICAOF NO ONE", "replicaof 127.0.0.1 1"], noMulti: false },
  slaveof: { reason: NODE_ONLY, calls: ["SLAVEOF NO ONE", "SLAVEOF 127.0.0.1 1"], noMulti: false },
  replconf: { reason: REPLICATION, calls: ["REPLCONF", "REPLCONF GETACK *"], noMulti: false },
  psync: { reason: REPLICATION, calls: ["PSYNC ? -1"], noMulti: true },
  sync: { reason: REPLICATION, calls: ["SYNC"], noMulti: true },
};

/** Commands of which less is walked than can be made of what the server says of them. */
const IN_PART: Readonly<Record<string, { readonly why: string; readonly onlyWrongWords: boolean }>> = {
  debug: {
    why: "only sub-commands that leave the server as it was; the rest is passed on",
    onlyWrongWords: false,
  },
  pfselftest: { why: "it keeps the server busy for seconds", onlyWrongWords: true },
};

/** Commands that a server by itself can only refuse. */
const NEVER_DONE: readonly { readonly why: string; readonly names: RegExp }[] = [
  { why: "the server is not part of a cluster", names: /^(?:cluster(?:\|.*)?|asking|readonly|readwrite)$/ },
  { why: "no transaction is open, no script runs", names: /^(?:exec|discard|(?:script|function)\|kill)$/ },
  { why: "there is no file of users or of settings", names: /^(?:acl\|(?:load|save)|config\|rewrite)$/ },
  { why: "the server's settings do not allow modules", names: /^module\|(?:load|loadex|unload)$/ },
  { why: "nothing took long enough", names: /^latency\|graph$/ },
  { why: "nothing is tracked", names: /^client\|caching$/ },
];

/** The same of newer servers, where they have the command. */
const NEVER_DONE_NEWER: typeof NEVER_DONE = [
  { why: "the server is not part of a cluster", names: /^clusterscan$/ },
  { why: "nothing is written to a file", names: /^waitaof$/ },
  { why: "a module's, of whose arguments nothing is said", names: /^V[A-Z]+$/ },
];

// What is not compared as it is

/** Shared by all, so that equal bytes are compared where nothing is said. */
const NORMALISED: Readonly<Record<string, readonly [why: string, ...how: Normaliser[]]>> = {
  ...same(["time", "lastsave"], "the time", anyNumber),
  ...same(["ttl", "pttl"], "what is left of a time", anyNumber),
  ...same(["xadd"], "an id made of the time", anyTime),
  ...same(["xpending"], "idle times", deep(pendingEntry)),
  ...same(["xinfo|consumers", "xinfo|stream"], "times", anyTime, anyValueOf("idle", "inactive")),
  ...same(["object|idletime"], "seconds since the last look", anyNumber),
  ...same(["randomkey", "spop", "srandmember", "hrandfield"], "random", anyBulk),
  ...same(["zrandmember"], "random", anyBulk, anyNumber),
  ...same(["smembers", "sinter", "sunion", "sdiff", "keys"], "order by the hash seed", sorted),
  ...same(["hscan", "zscan"], "order by the hash seed", deep(sorted)),
  ...same(["scan", "sscan"], "cursors and how much comes at once, by the hash seed", wholeScan),
  ...same(["dump"], "order by the hash seed", anyBulk),
  ...same(["sort", "sort_ro"], "order by the hash seed where nothing else is asked for", sorted),
  ...same(["acl|genpass"], "random", anyBulk),
  ...same(["acl|cat", "command|list", "command|info", "command"], "order by the hash seed", deep(sorted)),
  ...same(["command|docs"], "order by the hash seed", deep(sortedPairs), deep(sorted)),
  ...same(["config|get"], "order by the hash seed", sortedPairs),
  ...same(
    ["latency|histogram", "memory|malloc-stats", "memory|doctor", "latency|doctor"],
    "counts",
    kindOnly,
  ),
  ...same(["memory|stats", "memory|usage"], "memory sizes", anyNumber),
  ...same(["lolwut"], "a random picture", kindOnly),
  ...same(["role"], "the replication offset", anyNumber),
  ...same(["hello"], "the client's id is the proxy's", anyValueOf("id")),
  ...same(["client|id"], "ids are the proxy's own", anyNumber),
  ...same(["client|info"], "addresses, ages and buffers; ids are the proxy's own", deep(clientLines)),
  ...same(["client|list"], "the same; the server has other clients", deep(onlyWhoAsks), deep(clientLines)),
  ...same(
    ["info"],
    "values; statistics of single commands; the proxy's section",
    deep(withoutProxy),
    deep(infoFields),
  ),
};

function same(
  commands: readonly string[],
  why: string,
  ...how: Normaliser[]
): Record<string, [string, ...Normaliser[]]> {
  return Object.fromEntries(commands.map((command) => [command, [why, ...how] as [string, ...Normaliser[]]]));
}

/** An iteration that is over at once is compared, of one that goes on only that it does. */
function wholeScan(node: ReplyNode): ReplyNode {
  const [cursor, elements] = node.items ?? [];
  if (cursor === undefined || elements === undefined) return node;
  return cursor.text === "0" ? { ...node, items: [cursor, sorted(elements)] } : kindOnly(node);
}

/** Id, consumer, idle time, deliveries. */
function pendingEntry(node: ReplyNode): ReplyNode {
  const idle = node.items?.[2];
  if (node.items?.length !== 4 || idle?.type !== ":") return node;
  return { ...node, items: node.items.with(2, { ...idle, text: "IDLE" }) };
}

/** What of a client is the same at the server and at the proxy; every field in its place. */
function clientLines(node: ReplyNode): ReplyNode {
  const others =
    /\b(id|l?addr|fd|age|idle|qbuf|qbuf-free|argv-mem|multi-mem|rb[sp]|o[bl]l|omem|tot-mem|events)=\S+/g;
  // To Valkey a client that watches is one whose transaction has no command yet.
  const text = node.text.replace(others, "$1=?").replace(NEWER_CLIENT_FIELDS, "");
  return { ...node, text: text.replace(" multi=0 ", " multi=-1 ") };
}

/** Of all clients the last that asks for the list: one that asked before may be closing. */
function onlyWhoAsks(node: ReplyNode): ReplyNode {
  if (!node.text.includes(" cmd=")) return node;
  const [format = ""] = /^txt:/.exec(node.text) ?? [];
  const line = node.text.split("\n").findLast((text) => text.includes(" cmd=client|list "));
  return { ...node, text: format + (line === undefined ? "" : `${line.replace(/^txt:/, "")}\n`) };
}

/** INFO without the section that the proxy adds at its end. */
function withoutProxy(node: ReplyNode): ReplyNode {
  return { ...node, text: node.text.replace(/\r\n# Proxy\r\n[^#]*$/, "") };
}

/** INFO's names of sections and fields, without those that are there only when something has happened. */
function infoFields(node: ReplyNode): ReplyNode {
  const lines = node.text
    .split("\r\n")
    .filter((line) => !/^(?:cmdstat_|errorstat_|latency_percentiles_)/.test(line));
  const names = lines.map((line) => (line.startsWith("#") ? line : line.replace(/:.*/s, "")));
  return { ...node, text: names.join("\r\n"), items: null };
}

// What differs

/**
 * Commands that the proxy says are not supported yet, at least in one of their calls. Exactly these: whoever
 * adds one takes its name away here.
 */
const NOT_YET: Readonly<Record<Situation, readonly string[]>> = {
  alone: ["script|debug"],
  "in MULTI": [
    ...["client", "client|caching", "client|getredir", "client|help", "client|info", "client|kill"],
    ...["client|list", "client|no-evict", "client|pause", "client|reply", "client|tracking"],
    ...["client|trackinginfo", "client|unblock", "client|unpause", "script|debug"],
    ...["psubscribe", "punsubscribe", "subscribe", "sunsubscribe", "unsubscribe"],
  ],
  "after WATCH": ["script|debug"],
  "from a replica": [],
  subscribed: ["script|debug"],
};

/** The same of what only newer servers have. */
const NOT_YET_NEWER: typeof NOT_YET = {
  alone: ["client|import-source"],
  "in MULTI": [
    ...["client|capa", "client|import-source", "client|no-touch"],
    ...(losesWrongLogins() ? ["auth", "hello"] : []),
  ],
  "after WATCH": ["client|import-source"],
  "from a replica": [],
  subscribed: ["client|import-source"],
};

interface Difference {
  readonly why: string;
  /** Whether this difference is the one that is meant; replies as text, made comparable. */
  readonly isMeant: (one: Case, proxied: string, direct: string) => boolean;
}

const isPush = ({ command, args, protocol }: Case) =>
  command === "debug" && args[2] === "push" && protocol === 3;
const PUSH = ">2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n";
const PUSHED_FOR = "$40\r\nSome real reply following the push reply\r\n";
const NO_MODULES =
  '-ERR MODULE command not allowed. If the enable-module-command option is set to "local", you can run it ' +
  "from a local connection, otherwise you need to set this option in the configuration file, and then " +
  "restart the server.";
const ABORTED = "-EXECABORT Transaction discarded because of previous errors.\r\n";

/** Everything else that a client sees otherwise than from Redis. Each of them must happen. */
const DIFFERENCES: Readonly<Record<string, Difference>> = {
  "a command that the server's own settings forbid, in MULTI": {
    why: "only the server knows, and it hears of the command at EXEC",
    isMeant: ({ command, situation }, proxied, direct) =>
      command.startsWith("module|") &&
      situation === "in MULTI" &&
      proxied === `+OK\r\n+QUEUED\r\n${ABORTED}` &&
      direct === `+OK\r\n${NO_MODULES}\r\n${ABORTED}`,
  },
  "a command that the server's own settings forbid, from a subscriber in RESP2": {
    why: "Redis looks at its settings before it looks at what a subscriber may say (server.c, processCommand)",
    isMeant: ({ command, situation, protocol }, proxied, direct) =>
      command.startsWith("module|") &&
      situation === "subscribed" &&
      protocol === 2 &&
      direct === proxied.replace(/^-ERR Can't execute .*$/m, NO_MODULES),
  },
  "a push and a reply to one request": {
    why: "one request has one reply, and that is no push; to EXEC it is the array that the push stands in",
    isMeant: (one, proxied, direct) =>
      isPush(one) && proxied === direct.replace(one.situation === "in MULTI" ? PUSHED_FOR : PUSH, ""),
  },
};

/** Filters of CLIENT LIST that Redis 7.0 does not have. */
const ONLY_NEWER = new Set([
  ...[
    "user",
    "addr",
    "laddr",
    "skipme",
    "maxage",
    "name",
    "idle",
    "flags",
    "lib-name",
    "lib-ver",
    "db",
    "ip",
  ],
  ...["capa", "not-type", "not-id", "not-addr", "not-laddr", "not-name", "not-flags", "not-lib-name"],
  ...["not-lib-ver", "not-db", "not-ip", "not-user", "not-capa"],
]);

/** On newer servers only. */
const NEWER_DIFFERENCES: Readonly<Record<string, Difference>> = {
  "an option of CLIENT LIST": {
    why: "what the server's newer filters mean the proxy does not guess",
    isMeant: ({ command, args }, proxied) =>
      command === "client|list" &&
      ONLY_NEWER.has(String(args[2]).toLowerCase()) &&
      proxied.includes("-ERR proxy: an option of CLIENT LIST is not known to the proxy\r\n"),
  },
  "a push behind the reply to EXEC": {
    why: "as alone: Valkey 9 and Redis 8 write the push behind the array, not into it",
    isMeant: (one, proxied, direct) =>
      isPush(one) && one.situation === "in MULTI" && proxied === direct.replace(PUSH, ""),
  },
};

/** What the proxy's log may say in warning, and why. */
const WARNINGS: Readonly<Record<string, string>> = {
  "problem: stalled": "the machine has too much to do",
  "the master is back with a new history": "it takes one when its first replica comes (replication.c)",
};

// The walk

/** Commands after which a connection is not what it was: each of their calls has one of its own. */
const OWN_CONNECTION = new Set([
  ...["hello", "auth", "select", "quit", "reset", "multi", "exec", "discard", "watch", "unwatch", "monitor"],
  ...["subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe"],
  ...["client", "script|debug", "readonly", "readwrite", "asking"],
]);

/** Commands that answer otherwise while a child of the server saves, or while others are subscribed. */
const NEEDS_QUIET = new Set(["save", "bgsave", "bgrewriteaof", "publish", "spublish", "pubsub"]);

const NOT_SUPPORTED_YET = /^-ERR proxy: .* not supported yet/;

let direct: RedisServer;
let behind: RedisServer;
let replica: RedisServer;
let proxy: ProxyProcess;
let specs: readonly CommandSpec[];

/** What the walk has found out. */
const walked = new Map<string, number>();
const succeeded = new Set<string>();
const refusedYet = new Set<string>();
const seenDifferences = new Set<string>();
const problems = new Map<string, string[]>();

beforeAll(async () => {
  const args = ["--slowlog-log-slower-than", "-1"];
  const start = () => startRedis({ args });
  [direct, behind, replica] = await Promise.all([start(), start(), start()]);
  proxy = await startProxy({ nodes: [behind.address], config: { log: { level: "info" } } });
  specs = await readCommandSpecs(direct.port);
  for (const protocol of [2, 3] as const) await walk(protocol);
  await walkReplica();
});

afterAll(async () => {
  await proxy?.close();
  await Promise.all([direct?.close(), behind?.close(), replica?.close()]);
});

async function walk(protocol: Protocol): Promise<void> {
  const filler = await Filler.connect();
  try {
    const payloads = await filler.payloads();
    for (const spec of specs) {
      await filler.fillAll();
      const pair = new Pair(protocol, filler, spec);
      await pair.playAll(casesOf(spec, payloads, protocol, ON_THE_MASTER));
      pair.destroy();
    }
  } finally {
    filler.destroy();
  }
}

/** Everything that only reads, with a replica that may be read; nothing is written while it is asked. */
async function walkReplica(): Promise<void> {
  const filler = await Filler.connect();
  try {
    const payloads = await filler.payloads();
    await replica.replicaOf(behind);
    await replica.untilLinkUp();
    await until(isRead, { what: "a read that the replica answers" });
    for (const protocol of [2, 3] as const) {
      for (const spec of specs.filter(({ readsOnly }) => readsOnly)) {
        // Even a read may change how a value is stored: SORT_RO makes a skiplist of a sorted set (sort.c).
        await filler.fillAll();
        await replica.untilCaughtUp(behind);
        const pair = new Pair(protocol, filler, spec);
        await pair.playAll(casesOf(spec, payloads, protocol, ["from a replica"]));
        pair.destroy();
      }
    }
  } finally {
    filler.destroy();
  }
}

async function isRead(): Promise<boolean> {
  const client = await proxy.connect({ deadlineMs: 3_000 });
  await client.command("GET", "string");
  client.close();
  return (await callsOnReplica()).has("cmdstat_get");
}

/** What the replica has run, by the names of INFO commandstats, and how often. */
async function callsOnReplica(): Promise<Map<string, number>> {
  const calls = new Map<string, number>();
  for (const [name, text] of parseInfo(String(await replica.cli("INFO", "commandstats")))) {
    calls.set(name, Number(/^calls=(\d+)/.exec(text)?.[1]));
  }
  return calls;
}

function casesOf(
  spec: CommandSpec,
  payloads: Payloads,
  protocol: Protocol,
  situations: readonly Situation[],
): Case[] {
  const onlyWrongWords = spec.name in REFUSED || IN_PART[spec.name]?.onlyWrongWords === true;
  const isPlayed = ({ kind, args }: Call) => !onlyWrongWords || isRefusedByArity(spec, kind, args.length);
  const calls = callsOf(spec, payloads).filter(isPlayed);
  return situations.flatMap((situation) =>
    calls
      .filter((call) => isOf(situation, call, calls))
      .map((call): Case => ({ ...call, command: spec.name, situation, protocol })),
  );
}

/** What a command says only when it runs is no other thing for being run by EXEC. */
function isOf(situation: Situation, call: Call, calls: readonly Call[]): boolean {
  const { kind } = call;
  switch (situation) {
    case "alone":
    case "from a replica":
      return true;
    case "in MULTI":
      return kind !== "malformed" && kind !== "missing key";
    case "after WATCH":
      return kind === "plausible";
    case "subscribed":
      return kind === "no arguments" || call === calls.find((one) => one.kind === "plausible");
  }
}

function isRefusedByArity({ arity }: CommandSpec, kind: CallKind, words: number): boolean {
  const fits = arity < 0 ? words >= -arity : words === arity;
  return !fits && (kind === "no arguments" || kind === "too few" || kind === "too many");
}

/** Only the last command is answered, to spare reading the replies of all. */
const DATA_QUIETLY = Buffer.concat(
  [["CLIENT", "REPLY", "OFF"], ...DATA_SET, ["CLIENT", "REPLY", "ON"]].map((args) => encodeCommand(args)),
);
const ALL = [...DATA_SET, ...SERVER_STATE];
const ALL_BYTES = Buffer.concat(ALL.map((args) => encodeCommand(args)));

/** What tells whether a server is busy with something that was asked before. */
const QUESTIONS = [
  ["INFO", "persistence"],
  ["PUBSUB", "NUMPAT"],
  ["PUBSUB", "CHANNELS"],
  ["PUBSUB", "SHARDCHANNELS"],
];

function isQuiet(answers: readonly string[]): boolean {
  const [persistence = "", ...subscribed] = answers;
  return !/_(?:in_progress|scheduled):1/.test(persistence) && subscribed.join("") === ":0\r\n*0\r\n*0\r\n";
}

function savesOf(answers: readonly string[]): number {
  return Number(/\brdb_saves:(\d+)/.exec(answers[0] ?? "")?.[1]);
}

/** Fills both servers with the same data set. */
class Filler {
  readonly #sockets: readonly [FrameSocket, FrameSocket];
  /** How often each server has saved, when it was quiet last. */
  #saves: readonly number[] = [];

  static async connect(): Promise<Filler> {
    const both = [FrameSocket.connect(direct.port, 2), FrameSocket.connect(behind.port, 2)] as const;
    return new Filler(await Promise.all(both));
  }

  private constructor(sockets: readonly [FrameSocket, FrameSocket]) {
    this.#sockets = sockets;
  }

  /** The data set is made anew. */
  async fillData(): Promise<void> {
    await this.#ask(DATA_QUIETLY, 1);
  }

  /** The data set, and whatever else a command may look at. */
  async fillAll(): Promise<void> {
    for (const replies of await this.#ask(ALL_BYTES, ALL.length)) {
      const errors = replies.filter((reply) => reply.startsWith("-"));
      if (errors.length > 0) throw new Error(`the data set was not taken: ${errors.join("")}`);
    }
  }

  /** Waits until nothing that has ended before is still seen. */
  async untilQuiet(): Promise<void> {
    const bytes = Buffer.concat(QUESTIONS.map((args) => encodeCommand(args)));
    const areQuiet = async () => {
      const answers = await this.#ask(bytes, QUESTIONS.length);
      this.#saves = answers.map(savesOf);
      return answers.every(isQuiet);
    };
    await until(areQuiet, { everyMs: 2, what: "servers without children and subscribers" });
  }

  /** Waits for what was to be saved later, the servers being quiet: nothing else says that it will be. */
  async untilSaved(): Promise<void> {
    const bytes = Buffer.concat(QUESTIONS.map((args) => encodeCommand(args)));
    const hasBegun = async () => {
      const answers = await this.#ask(bytes, QUESTIONS.length);
      return answers.every((answer, i) => savesOf(answer) > (this.#saves[i] ?? 0));
    };
    await until(hasBegun, { everyMs: 2, what: "the save that a transaction asked for" });
  }

  async payloads(): Promise<Payloads> {
    await this.fillAll();
    const asked = Buffer.concat([encodeCommand(["DUMP", "string"]), encodeCommand(["FUNCTION", "DUMP"])]);
    const [[string = "", library = ""] = []] = await this.#ask(asked, 2);
    const bytesOf = (frame: string) => Buffer.from(parseReply(frame).text, "latin1");
    return { string: bytesOf(string), library: bytesOf(library) };
  }

  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #ask(bytes: Buffer, replies: number): Promise<string[][]> {
    return Promise.all(
      this.#sockets.map(async (socket) => {
        await socket.send(bytes);
        return socket.take(replies, "the test's own questions");
      }),
    );
  }
}

/** A connection to the server and one to the proxy that are told the same. */
class Pair {
  readonly #protocol: Protocol;
  readonly #filler: Filler;
  readonly #spec: CommandSpec;
  readonly #isOwn: boolean;
  readonly #needsQuiet: boolean;
  #sockets: readonly [FrameSocket, FrameSocket] | null = null;
  /** The data set is as it was made. */
  #isFilled = true;

  constructor(protocol: Protocol, filler: Filler, spec: CommandSpec) {
    const container = spec.name.replace(/\|.*/, "");
    this.#protocol = protocol;
    this.#filler = filler;
    this.#spec = spec;
    this.#isOwn = OWN_CONNECTION.has(spec.name) || OWN_CONNECTION.has(container);
    this.#needsQuiet = NEEDS_QUIET.has(container);
  }

  async playAll(cases: readonly Case[]): Promise<void> {
    const isSafe = this.#spec.readsOnly && !this.#isOwn;
    if (isSafe && (await this.#playAtOnce(cases))) return;
    for (const one of cases) await this.#play(one);
  }

  /** All in one write. @returns whether every one of them was answered. */
  async #playAtOnce(cases: readonly Case[]): Promise<boolean> {
    this.#sockets = await this.#connect();
    const bytes = Buffer.concat(cases.map(bytesOf));
    const recordAll = async (socket: FrameSocket) => {
      await socket.send(bytes);
      const all: string[][] = [];
      for (const one of cases) all.push(await socket.takeUntil(END_REPLY, titleOf(one)));
      if (socket.ended) throw new Error("the connection was closed");
      return all;
    };
    try {
      const [told, proxied] = await Promise.all([recordAll(this.#sockets[0]), recordAll(this.#sockets[1])]);
      for (const [i, one] of cases.entries()) judge(one, proxied[i] ?? [], told[i] ?? []);
      return true;
    } catch {
      this.destroy();
      return false;
    }
  }

  async #play(one: Case): Promise<void> {
    if (this.#isOwn || this.#sockets?.some((socket) => socket.ended)) this.destroy();
    if (!this.#isFilled) {
      await (changesDataOnly(this.#spec) ? this.#filler.fillData() : this.#filler.fillAll());
    }
    this.#isFilled = false;
    if (this.#needsQuiet) await this.#filler.untilQuiet();
    try {
      this.#sockets ??= await this.#connect();
      const [told, proxied] = await Promise.all([
        record(this.#sockets[0], one),
        record(this.#sockets[1], one),
      ]);
      judge(one, proxied, told);
      if (told.join("").includes("saving scheduled")) await this.#filler.untilSaved();
      this.#isFilled =
        this.#spec.readsOnly ||
        (changesDataOnly(this.#spec) && isRefused(one, told) && isRefused(one, proxied));
    } catch (error) {
      this.destroy();
      report(one, (error as Error).message);
    }
  }

  destroy(): void {
    for (const socket of this.#sockets ?? []) socket.destroy();
    this.#sockets = null;
  }

  #connect(): Promise<[FrameSocket, FrameSocket]> {
    return Promise.all([
      FrameSocket.connect(direct.port, this.#protocol),
      FrameSocket.connect(proxy.port, this.#protocol),
    ]);
  }
}

/** The last thing that is said, allowed in every mode. */
const END = encodeCommand(["PING", "the-end"]);
const END_REPLY = "$7\r\nthe-end\r\n";

async function record(socket: FrameSocket, one: Case): Promise<string[]> {
  await socket.send(bytesOf(one));
  const frames = await socket.takeUntil(END_REPLY, titleOf(one));
  return socket.ended ? [...frames, "(closed)"] : frames;
}

/** Whether the call was refused, so that the data set is as it was before. */
function isRefused({ situation }: Case, frames: readonly string[]): boolean {
  if (situation === "in MULTI") return frames.at(-1)?.startsWith("-EXECABORT ") === true;
  return situation === "alone" && frames.every((frame) => frame.startsWith("-"));
}

function bytesOf({ command, args, situation }: Case): Buffer {
  const call = encodeCommand(args);
  const after: Argument[][] = [];
  // A connection that queues, or was silenced, cannot say that it has come to the end.
  if (command === "multi") after.push(["EXEC"]);
  if (command === "client|reply") after.push(["CLIENT", "REPLY", "ON"], ["CLIENT", "REPLY", "ON"]);
  const rest = [...after.map((words) => encodeCommand(words)), END];
  switch (situation) {
    case "alone":
    case "from a replica":
      return Buffer.concat([call, ...rest]);
    case "in MULTI":
      return Buffer.concat([encodeCommand(["MULTI"]), call, encodeCommand(["EXEC"]), ...rest]);
    case "after WATCH": {
      const unit = [["MULTI"], ["GET", "watched"], ["EXEC"]].map((words) => encodeCommand(words));
      return Buffer.concat([encodeCommand(["WATCH", "watched"]), call, ...unit, ...rest]);
    }
    case "subscribed": {
      const [begin, end] = [encodeCommand(["SUBSCRIBE", "mine"]), encodeCommand(["UNSUBSCRIBE", "mine"])];
      return Buffer.concat([begin, call, ...rest.slice(0, -1), end, END]);
    }
  }
}

function titleOf({ protocol, situation, kind, args }: Case): string {
  const words = args.map((arg) =>
    JSON.stringify(Buffer.from(typeof arg === "object" ? arg : String(arg)).toString("latin1")),
  );
  return `RESP${protocol}, ${situation}, ${kind}: ${words.join(" ").slice(0, 200)}`;
}

function judge(one: Case, proxied: readonly string[], told: readonly string[]): void {
  if (one.situation === "alone" && told.some((frame) => !frame.startsWith("-"))) succeeded.add(one.command);
  walked.set(one.command, (walked.get(one.command) ?? 0) + 1);
  if (proxied.some((frame) => NOT_SUPPORTED_YET.test(frame))) {
    refusedYet.add(`${one.situation}: ${one.command}`);
    return;
  }
  const [a, b] = [comparable(one, proxied), inWordsOf70(comparable(one, told))];
  if (a === b) return;
  for (const [name, difference] of Object.entries({ ...DIFFERENCES, ...NEWER_DIFFERENCES })) {
    if (!difference.isMeant(one, a, b)) continue;
    seenDifferences.add(name);
    return;
  }
  report(one, `through the proxy ${escaped(proxied)}\n   directly          ${escaped(told)}`);
}

/** Valkey 9.1 names the command in the one; the name of Redis 8's vector commands is in upper case. */
function inWordsOf70(text: string): string {
  return text
    .replace(
      /^-ERR Command '[^']+' not allowed inside a transaction\r\n/m,
      "-ERR Command not allowed inside a transaction\r\n",
    )
    .replace(/^-ERR Can't execute '\S+':/m, (start) => start.replace(/'\S+'/, (name) => name.toLowerCase()));
}

function escaped(frames: readonly string[]): string {
  const text = JSON.stringify(frames.join(""));
  return text.length > 1_000 ? `${text.slice(0, 1_000)}… (${text.length})` : text;
}

function comparable(one: Case, frames: readonly string[]): string {
  const [, ...how] = NORMALISED[one.command] ?? [""];
  const kept = one.command === "monitor" ? frames.flatMap(monitorLine) : frames;
  if (how.length === 0) return kept.join("");
  const change: Normaliser = (node) => how.reduce((changed, by) => by(changed), node);
  return kept
    .map((frame) => {
      if (frame === "(closed)") return frame;
      const node = parseReply(frame);
      const isResult = one.situation === "in MULTI" && node.items !== null;
      return printReply(isResult ? { ...node, items: node.items.map(change) } : change(node));
    })
    .join("");
}

/** Of what a monitor sees, only what its own connection says at the end; that is said by nobody else. */
function monitorLine(frame: string): string[] {
  const line = /^\+\d+\.\d+ \[\d+ [^\]]+\](.*)$/s.exec(frame);
  if (line === null) return [frame];
  return line[1]?.includes("the-end") ? [`+TIME [ADDRESS]${line[1]}`] : [];
}

function report(one: Case, text: string): void {
  const key = keyOf(one.protocol, one.situation);
  const list = problems.get(key) ?? [];
  list.push(`${titleOf(one)}\n   ${text}`);
  problems.set(key, list);
}

function keyOf(protocol: Protocol, situation: Situation): string {
  return `RESP${protocol}, ${situation}`;
}

describe.each([2, 3] as const)(
  "RESP%i: every command through the proxy and directly, byte for byte",
  (protocol) => {
    it.each(SITUATIONS)("%s: the replies are the server's own", (situation) => {
      expect((problems.get(keyOf(protocol, situation)) ?? []).join("\n")).toBe("");
    });
  },
);

it("3, 6: the reads were the replica's to answer", async () => {
  const calls = await callsOnReplica();
  const isOurs = (name: string) => specs.some((spec) => spec.readsOnly && name === `cmdstat_${spec.name}`);
  const answered = [...calls.keys()].filter(isOurs);
  expect(answered.length).toBeGreaterThan(70);
});

it("no command of the server is left out, and nothing is listed that it does not have", () => {
  const names = new Set(specs.map(({ name }) => name));
  expect(names.size).toBeGreaterThan(350);
  const listed = { ...REFUSED, ...IN_PART };
  const leftOut = [...names].filter((name) => !(name in listed) && (walked.get(name) ?? 0) < 6);
  expect(leftOut).toEqual([]);
  const allListed = [...Object.keys(listed), ...Object.keys(NORMALISED), ...OWN_CONNECTION, ...NEEDS_QUIET];
  expect(allListed.filter((name) => !names.has(name))).toEqual([]);
  const cases = [...walked.values()].reduce((sum, count) => sum + count, 0);
  expect(cases).toBeGreaterThan(14_000);
});

it("every command was called so that the server did it, but for those that it cannot do", () => {
  const listed = (name: string) => name in REFUSED || name in IN_PART;
  const isNeverDone = (name: string) => NEVER_DONE.some(({ names }) => names.test(name));
  const isNewer = (name: string) => NEVER_DONE_NEWER.some(({ names }) => names.test(name));
  const failed = specs.map(({ name }) => name).filter((name) => !succeeded.has(name) && !listed(name));
  expect(failed.filter((name) => !isNeverDone(name) && !isNewer(name))).toEqual([]);
  // Valkey takes these outside of a cluster too.
  const taken = serverKind().isValkey ? ["cluster|keyslot", "readonly", "readwrite"] : [];
  expect([...succeeded].filter((name) => isNeverDone(name) && !taken.includes(name))).toEqual([]);
  for (const { names } of NEVER_DONE) expect(failed.some((name) => names.test(name))).toBe(true);
});

it("what is said not to be supported yet is exactly what is listed", () => {
  const names = new Set(specs.map(({ name }) => name));
  const listed = SITUATIONS.flatMap((situation) =>
    [...NOT_YET[situation], ...NOT_YET_NEWER[situation].filter((name) => names.has(name))].map(
      (name) => `${situation}: ${name}`,
    ),
  );
  expect([...refusedYet].toSorted()).toEqual(listed.toSorted());
});

it("every listed difference is still there", () => {
  const seen = [...seenDifferences].filter((name) => !(name in NEWER_DIFFERENCES));
  expect(seen.toSorted()).toEqual(Object.keys(DIFFERENCES).toSorted());
});

describe("36: what would end a server or take it out of its group is refused and not sent", () => {
  it.each(Object.entries(REFUSED))("%s", async (name, { reason, calls, noMulti }) => {
    const refusal = `-ERR proxy: ${name.toUpperCase()} is not passed on${reason}\r\n`;
    const inMulti = noMulti ? "-ERR Command not allowed inside a transaction\r\n" : refusal;
    const requests = calls.map((call) => encodeCommand(call.split(" ")));
    const [multi, exec] = [encodeCommand(["MULTI"]), encodeCommand(["EXEC"])];
    const expected = [...calls.map(() => refusal), "+OK\r\n", ...calls.map(() => inMulti), ABORTED];
    for (const protocol of [2, 3] as const) {
      const socket = await FrameSocket.connect(proxy.port, protocol);
      await socket.send(Buffer.concat([...requests, multi, ...requests, exec]));
      expect(await socket.take(expected.length, name)).toEqual(expected);
      socket.destroy();
    }
    expect(await behind.cli("PING")).toBe("PONG");
    expect(behind.running).toBe(true);
    expect((await behind.info()).get("role")).toBe("master");
  });
});

it("the proxy found nothing out of the way while it was walked through, but what is listed", () => {
  expect(proxy.stray).toBe("");
  const isWarning = ({ level }: LogLine) => level !== "debug" && level !== "info";
  const nameOf = ({ msg, kind }: LogLine) => (kind === undefined ? String(msg) : `${msg}: ${kind}`);
  const said = proxy.logs.filter(isWarning).map(nameOf);
  expect(said.filter((text) => !(text in WARNINGS))).toEqual([]);
});
