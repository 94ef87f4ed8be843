import { BUILTIN_COMMANDS } from "./builtin.ts";
import { type CommandFacts, classify } from "./classify.ts";
import { type Command, SPECIAL, WRITE } from "./command.ts";
import { hasSpecs, NONE, planOf, specsOfRow, specsOfText, UNKNOWN_KEYS } from "./key-plans.ts";
import type { KeyPlan } from "./keys.ts";

/** A name the table does not have goes to the master, which knows what it is or says that it does not. */
const UNKNOWN: Command = {
  name: "",
  kind: WRITE,
  handler: "none",
  plainKind: WRITE,
  arity: -1,
  subcommands: null,
  mayReplicate: true,
  replicating: null,
  script: false,
  idempotence: "never",
  keys: UNKNOWN_KEYS,
  singleKey: false,
  changes: "everything",
  noMulti: false,
  known: false,
};

/**
 * A name that the server itself did not list. COMMAND lists what `rename-command` has renamed under its old
 * name: behind an unlisted one may be MULTI or MONITOR.
 */
const UNLISTED: Command = { ...UNKNOWN, kind: SPECIAL, handler: "unlisted" };

/** Most commands accepted from a server's COMMAND (Redis with all its modules has some 600). */
const MAX_COMMANDS = 10_000;

/** Longest name of a command that is known. */
const MAX_NAME_BYTES = 64;

/** Finds a command by its name's bytes as they stand in a request, in any case, without making a string. */
export class CommandTable {
  private slots: (Command | undefined)[] = [];
  private mask = 0;
  private missing = UNKNOWN;
  private byName = new Map<string, Command>();

  constructor() {
    this.replace(builtinFacts());
  }

  get size(): number {
    return this.byName.size;
  }

  lookup(buf: Uint8Array, start: number, end: number): Command {
    if (end - start > MAX_NAME_BYTES) return this.missing;
    let slot = hashBytes(buf, start, end) & this.mask;
    for (;;) {
      const command = this.slots[slot];
      if (command === undefined) return this.missing;
      if (sameName(command.name, buf, start, end)) return command;
      slot = (slot + 1) & this.mask;
    }
  }

  /**
   * Takes over what a server's COMMAND answered (decoded). The proxy's own names stay. A reply that makes no
   * sense changes nothing.
   *
   * @returns whether the reply was taken over.
   */
  learn(reply: unknown): boolean {
    const facts = factsOfReply(reply);
    if (facts.length === 0) return false;
    this.replace(facts);
    this.missing = UNLISTED;
    return true;
  }

  private replace(facts: readonly CommandFacts[]): void {
    this.byName = new Map();
    this.byName.set(WAITAOF.name, WAITAOF);
    for (const fact of OWN_COMMANDS) this.byName.set(fact.name, classify(fact));
    for (const fact of facts) this.byName.set(fact.name, classify(fact));
    let size = 64;
    while (size < this.byName.size * 4) size *= 2;
    const slots = new Array<Command | undefined>(size).fill(undefined);
    this.mask = size - 1;
    for (const command of this.byName.values()) {
      const name = Buffer.from(command.name);
      let slot = hashBytes(name, 0, name.length) & this.mask;
      while (slots[slot] !== undefined) slot = (slot + 1) & this.mask;
      slots[slot] = command;
    }
    this.slots = slots;
  }
}

/**
 * Names that are treated by the proxy even when a server does not list them: its own command, and those that
 * change a connection (a server may have renamed or hidden them; a shared connection must not be changed).
 */
const OWN_COMMANDS: readonly CommandFacts[] = [
  ...builtinFacts().filter((fact) => classify(fact).handler !== "none"),
  withoutFlags("post", -1),
  withoutFlags("host:", -1),
  withoutFlags("proxy", -2),
];

const BUILTIN: ReadonlyMap<string, CommandFacts> = new Map(builtinFacts().map((fact) => [fact.name, fact]));

/** Known as soon as a server lists it (Redis 7.2); until then the server is asked all the same. */
const WAITAOF: Command = { ...classify(withoutFlags("waitaof", -1)), known: false };

function withoutFlags(name: string, arity: number): CommandFacts {
  const flags = { writes: false, readsOnly: false, blocks: false, mayReplicate: false };
  const none = { noMulti: false, unsafe: false, replicating: null, subcommands: null };
  return { name, arity, ...flags, ...none, builtin: true, keys: NONE };
}

function hashBytes(buf: Uint8Array, start: number, end: number): number {
  let hash = end - start;
  for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + (buf[i]! | 0x20)) | 0;
  return hash ^ (hash >>> 15);
}

function sameName(name: string, buf: Uint8Array, start: number, end: number): boolean {
  const length = end - start;
  if (name.length !== length) return false;
  for (let i = 0; i < length; i++) {
    const byte = buf[start + i]!;
    const lower = byte >= 65 && byte <= 90 ? byte | 0x20 : byte;
    if (name.charCodeAt(i) !== lower) return false;
  }
  return true;
}

function builtinFacts(): CommandFacts[] {
  return BUILTIN_COMMANDS.split(",").map((row) => {
    const [name = "", arity = "", flags = "", keys = ""] = row.trim().split(" ");
    const onData = /[rw]/.test(flags);
    return {
      name,
      arity: Number(arity),
      writes: flags.includes("w"),
      readsOnly: flags.includes("r"),
      blocks: flags.includes("b"),
      noMulti: flags.includes("m"),
      builtin: true,
      unsafe: false,
      mayReplicate: flags.includes("w"),
      replicating: null,
      subcommands: null,
      keys: planOf({ name, onData, builtin: true }, specsOfText(keys)),
    };
  });
}

/** What may add to the replication stream and is flagged neither as that nor as a write before Redis 6.2. */
const REPLICATING: ReadonlySet<string> = new Set(["eval", "evalsha", "pfcount", "publish", "script"]);

/**
 * Reads COMMAND's reply: [name, arity, flags, …], sub-commands in the tenth element since Redis 7.0. Rows
 * that make no sense are left out. Servers before that have no flag for what blocks (server.c,
 * redisCommandTable), nor before Redis 6.2 for what may replicate: then what is known here counts.
 */
function factsOfReply(reply: unknown): CommandFacts[] {
  if (!Array.isArray(reply) || reply.length > MAX_COMMANDS) return [];
  const facts: CommandFacts[] = [];
  for (const row of reply as unknown[]) {
    if (!Array.isArray(row)) continue;
    const [name, arity, flags] = row as unknown[];
    if (typeof name !== "string" || !/^[\x21-\x7e]{1,64}$/.test(name)) continue;
    if (typeof arity !== "number" || !Number.isInteger(arity) || arity === 0) continue;
    const words = flagWords(flags);
    const subcommands = (row as unknown[])[9];
    const builtin = BUILTIN.get(name.toLowerCase());
    const untold = hasSpecs(row) ? undefined : builtin;
    facts.push({
      name: name.toLowerCase(),
      arity,
      writes: words.has("write") || subcommandsWrite(subcommands),
      readsOnly: words.has("readonly"),
      blocks: words.has("blocking") || untold?.blocks === true,
      noMulti: words.has("no_multi") || untold?.noMulti === true,
      builtin: builtin !== undefined,
      unsafe: builtin === undefined && touchesConnection(words),
      mayReplicate: mayReplicate(words) || (untold !== undefined && REPLICATING.has(untold.name)),
      replicating: replicatingSubcommands(subcommands),
      subcommands: subcommandArities(subcommands),
      keys: keysOfRow(name.toLowerCase(), row as unknown[], words),
    });
  }
  return facts;
}

/** @param flags of the row. */
function keysOfRow(name: string, row: readonly unknown[], flags: ReadonlySet<string>): KeyPlan {
  const builtin = BUILTIN.get(name);
  // Servers before Redis 7.0 tell less than is known here.
  if (builtin !== undefined && !hasSpecs(row)) return builtin.keys;
  const subcommands = row[9];
  if (Array.isArray(subcommands) && subcommands.length > 0) {
    return { kind: "container", plans: keysOfSubcommands(name, subcommands) };
  }
  return planOfRow(name, row, flags, builtin !== undefined);
}

function keysOfSubcommands(container: string, rows: readonly unknown[]): ReadonlyMap<string, KeyPlan> {
  const plans = new Map<string, KeyPlan>();
  for (const row of rows) {
    if (!Array.isArray(row) || typeof row[0] !== "string") continue;
    const name = shortName(row[0]);
    plans.set(name, planOfRow(`${container}|${name}`, row, flagWords(row[2]), BUILTIN.has(container)));
  }
  return plans;
}

function planOfRow(
  name: string,
  row: readonly unknown[],
  flags: ReadonlySet<string>,
  builtin: boolean,
): KeyPlan {
  const onData = flags.has("write") || flags.has("readonly");
  return planOf({ name, onData, builtin }, specsOfRow(row, flags.has("movablekeys"), builtin));
}

/**
 * Whether a command carries the flags of those that do something to the connection they come on: MONITOR and
 * SYNC, SUBSCRIBE, HELLO and RESET, MULTI and WATCH. None of them may stand in a script.
 */
function touchesConnection(flags: ReadonlySet<string>): boolean {
  return flags.has("noscript") && CONNECTION_FLAGS.some((flag) => flags.has(flag));
}

const CONNECTION_FLAGS = ["admin", "pubsub", "no_multi", "no_auth", "allow_busy"];

function subcommandsWrite(subcommands: unknown): boolean {
  if (!Array.isArray(subcommands)) return false;
  return (subcommands as unknown[]).some((row) => Array.isArray(row) && flagWords(row[2]).has("write"));
}

/** Sub-commands are listed as "config|get". */
function subcommandArities(subcommands: unknown): ReadonlyMap<string, number> | null {
  if (!Array.isArray(subcommands) || subcommands.length === 0) return null;
  const arities = new Map<string, number>();
  for (const row of subcommands as unknown[]) {
    if (!Array.isArray(row)) continue;
    const [name, arity] = row as unknown[];
    if (typeof name !== "string" || typeof arity !== "number") continue;
    arities.set(shortName(name), arity);
  }
  return arities;
}

/** The sub-command's own name, lower case. */
function shortName(name: string): string {
  return name.slice(name.indexOf("|") + 1).toLowerCase();
}

function mayReplicate(flags: ReadonlySet<string>): boolean {
  return flags.has("write") || flags.has("may_replicate");
}

function replicatingSubcommands(subcommands: unknown): ReadonlySet<string> | null {
  if (!Array.isArray(subcommands)) return null;
  const names = new Set<string>();
  for (const row of subcommands as unknown[]) {
    if (!Array.isArray(row) || !mayReplicate(flagWords(row[2]))) continue;
    const name: unknown = row[0];
    if (typeof name === "string") names.add(shortName(name));
  }
  return names.size === 0 ? null : names;
}

function flagWords(flags: unknown): ReadonlySet<string> {
  if (flags instanceof Set) return flags as ReadonlySet<string>;
  return new Set(Array.isArray(flags) ? (flags as unknown[]).filter((flag) => typeof flag === "string") : []);
}
