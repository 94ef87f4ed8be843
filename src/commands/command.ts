/**
 * What the proxy has to know of a command to treat it rightly. One object per command, shared by all
 * requests; the hot path compares `kind` only.
 */
import type { Idempotence } from "./idempotence.ts";
import type { Changes, KeyPlan } from "./keys.ts";

/** Where a command may run and what repeating it does. */
export const READ = 0; // no effect; any node fit to be read, else the master
export const WRITE = 1; // may have an effect; the master only
export const MASTER_READ = 2; // no effect; the master only (a replica would answer otherwise)
export const PREFER_MASTER = 3; // no effect; the master, while there is none any node fit to be read
export const SPECIAL = 4; // `handler` says how the session treats it

export type Kind = typeof READ | typeof WRITE | typeof MASTER_READ | typeof PREFER_MASTER | typeof SPECIAL;

/** The ways a session treats commands that are more than a request and its reply. */
export type Handler =
  | "none"
  | "hello"
  | "auth"
  | "select"
  | "quit"
  | "reset"
  | "client"
  | "info" // may get a section of the proxy's own
  | "multi"
  | "exec"
  | "discard"
  | "watch"
  | "unwatch"
  | "subscribe"
  | "counting" // its reply counts connections of which many clients may share one
  | "monitor"
  | "blocking" // always blocks its connection
  | "xread" // blocks its connection with the option BLOCK
  | "eval" // brings a script's body
  | "evalsha" // names a script that the server may not have
  | "scan" // its cursor belongs to one node
  | "script" // SCRIPT DEBUG changes the connection, SCRIPT KILL ends what others have sent, the rest are plain
  | "function" // FUNCTION KILL and STATS must not wait behind the function they are about
  | "wait"
  | "proxy"
  | "topology" // changes who is the master, or ends it
  | "replication" // turns its connection into a replication link
  | "debug" // it may answer with more frames than one
  | "unlisted" // a name the server did not list: it may be any command, renamed
  | "unsafe" // by its flags it does something to its connection, nobody knows what
  | "forbidden"; // what a browser says to a port it mistakes for a web server's

export interface Command {
  /** Lower case. */
  readonly name: string;
  readonly kind: Kind;
  readonly handler: Handler;
  /**
   * The kind it has where its handler lets it through as a plain request (inside MULTI, XREAD without
   * BLOCK).
   */
  readonly plainKind: Exclude<Kind, typeof SPECIAL>;
  /** As in COMMAND: the exact number of words, negative = at least that many. */
  readonly arity: number;
  /** Arity by the name of the sub-command, lower case; null = it has none, or they are not known. */
  readonly subcommands: ReadonlyMap<string, number> | null;
  /** Its flags say `write` or `may_replicate`: CLIENT PAUSE … WRITE stops it (server.c, processCommand). */
  readonly mayReplicate: boolean;
  /** The sub-commands of which the same holds, lower case; null = none. */
  readonly replicating: ReadonlySet<string> | null;
  /** Runs a script, whose own errors may look like the server's (a script can answer any text). */
  readonly script: boolean;
  /** Whether a run more changes nothing, for a write of which nobody knows whether it ran. */
  readonly idempotence: Idempotence;
  /** Where its keys are, for `keysOf` and `changedKeys`. */
  readonly keys: KeyPlan;
  /** It has exactly one key, its first argument, and changes no other data: no need to ask `keysOf`. */
  readonly singleKey: boolean;
  readonly changes: Changes;
  /** Redis does not queue it inside MULTI. */
  readonly noMulti: boolean;
  /** False for the objects that stand for every name the table does not have. */
  readonly known: boolean;
}

/** A request of the proxy's own, without effect: how the table sees its name does not matter. */
export const OWN_REQUEST: Command = {
  name: "",
  kind: MASTER_READ,
  handler: "none",
  plainKind: MASTER_READ,
  arity: -1,
  subcommands: null,
  mayReplicate: false,
  replicating: null,
  script: false,
  idempotence: "never",
  keys: { kind: "none" },
  singleKey: false,
  changes: "nothing",
  noMulti: false,
  known: true,
};

/** Whether running it twice changes nothing, so that it may be sent again after a connection is lost. */
export function isRepeatable(kind: Kind): boolean {
  return kind !== WRITE && kind !== SPECIAL;
}

/**
 * Redis's check of the number of words, the name included (server.c, commandCheckArity).
 * @param arity the exact number, negative = at least that many.
 */
export function arityFits(arity: number, argc: number): boolean {
  return arity >= 0 ? argc === arity : argc >= -arity;
}
