/** What a server says of its commands: COMMAND and COMMAND DOCS put together. */
import { RawClient } from "./client.ts";
import type { Reply } from "./resp.ts";

/** One argument as COMMAND DOCS describes it (redis.io, "COMMAND DOCS"). */
export interface ArgumentSpec {
  readonly name: string;
  /** `key`, `string`, `integer`, `double`, `pattern`, `unix-time`, `pure-token`, `oneof` or `block`. */
  readonly type: string;
  /** The word that stands before the value, or is all of it. */
  readonly token: string | null;
  readonly optional: boolean;
  readonly multiple: boolean;
  /** With `multiple`: the token is said each time. */
  readonly multipleToken: boolean;
  /** What a `oneof` or a `block` is made of. */
  readonly parts: readonly ArgumentSpec[];
}

export interface CommandSpec {
  /** Lower case; a sub-command's is `container|name`. */
  readonly name: string;
  /** The words it is called by. */
  readonly words: readonly string[];
  /** As in COMMAND: the exact number of words, negative = at least that many. */
  readonly arity: number;
  readonly readsOnly: boolean;
  /** `string`, `list`, `sorted-set`, `server`, … */
  readonly group: string;
  /** It only holds sub-commands. */
  readonly isContainer: boolean;
  readonly args: readonly ArgumentSpec[];
}

/** Every command of a server, each sub-command for itself, in the order of the alphabet. */
export async function readCommandSpecs(port: number): Promise<CommandSpec[]> {
  const client = await RawClient.connect({ port, protocol: 3, deadlineMs: 10_000 });
  try {
    const docs = map(await client.command("COMMAND", "DOCS"));
    const specs: CommandSpec[] = [];
    for (const row of list(await client.command("COMMAND"))) {
      const doc = map(docs.get(text(list(row)[0])));
      const subcommands = list(list(row)[9]);
      const subdocs = subcommands.length === 0 ? null : map(doc.get("subcommands"));
      specs.push(specOf(row, doc, subcommands.length > 0));
      for (const sub of subcommands) specs.push(specOf(sub, map(subdocs?.get(text(list(sub)[0]))), false));
    }
    return specs.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  } finally {
    client.close();
  }
}

function specOf(row: Reply, doc: ReadonlyMap<Reply, Reply>, isContainer: boolean): CommandSpec {
  const [name, arity, flags] = list(row);
  return {
    name: text(name),
    words: text(name).toUpperCase().split("|"),
    arity: Number(arity),
    readsOnly: list(flags).includes("readonly"),
    group: text(doc.get("group")),
    isContainer,
    args: list(doc.get("arguments") ?? []).map(argumentOf),
  };
}

function argumentOf(reply: Reply): ArgumentSpec {
  const doc = map(reply);
  const flags = list(doc.get("flags") ?? []);
  return {
    name: text(doc.get("name")),
    type: text(doc.get("type")),
    token: doc.has("token") ? text(doc.get("token")) : null,
    optional: flags.includes("optional"),
    multiple: flags.includes("multiple"),
    multipleToken: flags.includes("multiple_token"),
    parts: list(doc.get("arguments") ?? []).map(argumentOf),
  };
}

function list(reply: Reply | undefined): Reply[] {
  if (Array.isArray(reply)) return reply;
  if (reply instanceof Set) return [...reply];
  throw new Error(`not a list: ${String(reply)}`);
}

function map(reply: Reply | undefined): ReadonlyMap<Reply, Reply> {
  if (reply instanceof Map) return reply;
  throw new Error(`not a map: ${String(reply)}`);
}

function text(reply: Reply | undefined): string {
  if (typeof reply === "string") return reply;
  throw new Error(`not a text: ${String(reply)}`);
}
