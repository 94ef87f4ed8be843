import {
  type Command,
  type Handler,
  type Kind,
  MASTER_READ,
  PREFER_MASTER,
  READ,
  SPECIAL,
  WRITE,
} from "./command.ts";
import { idempotenceOf } from "./idempotence.ts";
import { type Changes, hasSingleKey, type KeyPlan } from "./keys.ts";

/** What a server's COMMAND says of a command, as far as it matters here. */
export interface CommandFacts {
  readonly name: string;
  readonly arity: number;
  /** Writes, or has a sub-command that writes. */
  readonly writes: boolean;
  readonly readsOnly: boolean;
  readonly blocks: boolean;
  /** A command of Redis 7.0, or the proxy's own. */
  readonly builtin: boolean;
  /** Not a command of Redis 7.0, and flagged as those are that do something to their connection. */
  readonly unsafe: boolean;
  /** May not stand inside MULTI. */
  readonly noMulti: boolean;
  /** Writes by itself, or may add to the replication stream in another way. */
  readonly mayReplicate: boolean;
  /** Its sub-commands that write or may replicate; null = none. */
  readonly replicating: ReadonlySet<string> | null;
  /** Sub-commands and their arity; null where there are none. */
  readonly subcommands: ReadonlyMap<string, number> | null;
  readonly keys: KeyPlan;
}

/** Commands that change the connection they run on, or whose connection cannot be shared while they run. */
const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ["hello", "hello"],
  ["auth", "auth"],
  ["select", "select"],
  ["quit", "quit"],
  ["reset", "reset"],
  ["client", "client"],
  ["info", "info"],
  ["multi", "multi"],
  ["exec", "exec"],
  ["discard", "discard"],
  ["watch", "watch"],
  ["unwatch", "unwatch"],
  ["subscribe", "subscribe"],
  ["psubscribe", "subscribe"],
  ["ssubscribe", "subscribe"],
  ["unsubscribe", "subscribe"],
  ["punsubscribe", "subscribe"],
  ["sunsubscribe", "subscribe"],
  ["debug", "debug"],
  ["publish", "counting"],
  ["spublish", "counting"],
  ["pubsub", "counting"],
  ["monitor", "monitor"],
  ["xread", "xread"],
  ["xreadgroup", "xread"],
  ["eval", "eval"],
  ["eval_ro", "eval"],
  ["evalsha", "evalsha"],
  ["evalsha_ro", "evalsha"],
  ["scan", "scan"],
  ["hscan", "scan"],
  ["sscan", "scan"],
  ["zscan", "scan"],
  ["script", "script"],
  ["function", "function"],
  ["wait", "wait"],
  ["waitaof", "wait"],
  ["proxy", "proxy"],
  // Redis closes a connection on which it hears these (server.c, securityWarningCommand).
  ["post", "forbidden"],
  ["host:", "forbidden"],
  ["replicaof", "topology"],
  ["slaveof", "topology"],
  ["failover", "topology"],
  ["shutdown", "topology"],
  ["sync", "replication"],
  ["psync", "replication"],
  ["replconf", "replication"],
]);

/**
 * Commands without effect that only the master answers as the client expects. What a replica has applied it
 * answers alike otherwise: keys whose time is over it takes for missing, though it keeps them until the
 * master's DEL (db.c, expireIfNeeded), which TTL, TYPE, EXISTS, DUMP, KEYS and all that read a value heed.
 */
const MASTER_READS = new Set([
  // Cursors are made of a node's own hash seed.
  ...["scan", "hscan", "sscan", "zscan"],
  // Counts keys whose time is over, which wait on a replica for the master's DEL.
  "dbsize",
  // Encodings and idle times are a node's own: a replica has loaded what the master made step by step, and
  // its own reads count. TOUCH is there to be noted where keys are evicted.
  ...["object", "touch"],
  // XREADGROUP's look at what is pending already counts and dates deliveries, consumers are dated by every
  // call: neither is passed on to replicas (t_stream.c, streamReplyWithRangeFromConsumerPEL).
  ...["xinfo", "xpending"],
  // About the node.
  ...["memory", "pubsub", "role", "time", "lastsave"],
]);

/*
 * Read from replicas although it may look risky:
 * - EVAL_RO, EVALSHA_RO, FCALL_RO: they may call nothing that writes or may replicate (script.c,
 *   scriptVerifyWriteCommandAllow). Functions are replicated, scripts are brought along where they are
 *   missing. SCRIPT KILL and FUNCTION KILL reach the master only: a script that never ends makes its replica
 *   unfit instead.
 * - PFCOUNT may replicate since it keeps its result within the value; a replica counts the same and keeps it
 *   for itself (hyperloglog.c, pfcountCommand).
 * - BITFIELD_RO, SORT_RO, GEORADIUS_RO, GEORADIUSBYMEMBER_RO. Without _RO a replica refuses them as writes,
 *   also where they would store nothing.
 * - RANDOMKEY: where all keys have a time to live a replica may name one whose time is over (db.c,
 *   dbRandomKey gives up after 100 of them); a client must expect that of any key it is told.
 * - XREAD without BLOCK, LCS, DUMP: its bytes may differ, what RESTORE makes of them does not.
 */

/** Answered alike by every node, though COMMAND does not flag them as read-only. */
const PLAIN_READS = new Set(["ping", "echo", "command", "lolwut"]);

const SCRIPTS = new Set(["eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"]);

/** Flagged `may_replicate` in the server's own table, which its COMMAND does not show (Redis 7.0). */
const MAY_REPLICATE = new Set(["eval", "evalsha", "fcall", "publish", "spublish", "pfcount"]);

/** Decides how a command is treated, from what a server says of it and the lists above. */
export function classify(facts: CommandFacts): Command {
  const handler = HANDLERS.get(facts.name) ?? handlerByFlags(facts);
  const plainKind = plainKindOf(facts);
  const keyed = { keys: facts.keys, changes: changesOf(facts), script: SCRIPTS.has(facts.name) };
  return {
    name: facts.name,
    kind: handler === "none" ? plainKind : SPECIAL,
    handler,
    plainKind,
    arity: facts.arity,
    subcommands: facts.subcommands,
    mayReplicate: facts.mayReplicate || MAY_REPLICATE.has(facts.name),
    replicating: facts.replicating,
    ...keyed,
    singleKey: hasSingleKey(keyed),
    idempotence: idempotenceOf(facts.name),
    noMulti: facts.noMulti,
    known: true,
  };
}

function handlerByFlags(facts: CommandFacts): Handler {
  if (facts.unsafe) return "unsafe";
  return facts.blocks ? "blocking" : "none";
}

function plainKindOf(facts: CommandFacts): Exclude<Kind, typeof SPECIAL> {
  if (facts.name === "info") return PREFER_MASTER;
  if (MASTER_READS.has(facts.name)) return MASTER_READ;
  if (PLAIN_READS.has(facts.name)) return READ;
  return facts.readsOnly && !facts.writes ? READ : WRITE;
}

/** They may change data in ways of their own, or bring other data in. */
const CHANGING_EVERYTHING = new Set(["debug", "replicaof", "slaveof", "failover"]);

/** They are passed on to replicas, and change no data. */
const MESSAGES = new Set(["publish", "spublish"]);

/** PFCOUNT, which keeps the result it counted within the value, is taken for the read that it is. */
function changesOf(facts: CommandFacts): Changes {
  const { name, readsOnly, writes, builtin, mayReplicate, replicating } = facts;
  if (name === "function") return "functions";
  if (CHANGING_EVERYTHING.has(name)) return "everything";
  if (MESSAGES.has(name) || (readsOnly && !writes)) return "nothing";
  if (SCRIPTS.has(name)) return "script";
  if (builtin && !mayReplicate && replicating === null) return "nothing";
  // Of a module's command that is no write by its flags nobody knows what it does.
  if (!writes && !mayReplicate) return "everything";
  const isKeyless = facts.keys.kind === "none" || facts.keys.kind === "unknown";
  return isKeyless ? "everything" : "keys";
}
