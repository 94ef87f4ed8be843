/** The keys of requests, compared with what a real server says of every command and of many calls. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Command, SPECIAL, WRITE } from "../../src/commands/command.ts";
import { changedKeys, keysOf } from "../../src/commands/keys.ts";
import { CommandTable } from "../../src/commands/table.ts";
import { RawClient } from "../support/client.ts";
import { type Call, callsOf, DATA_SET, SERVER_STATE } from "../support/command-calls.ts";
import { type CommandSpec, readCommandSpecs } from "../support/command-specs.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { type Argument, type Reply, ReplyError } from "../support/resp.ts";

const builtin = new CommandTable();
const learnt = new CommandTable();
let redis: RedisServer;
let client: RawClient;
let specs: CommandSpec[];
let calls: Map<CommandSpec, Call[]>;

beforeAll(async () => {
  redis = await startRedis();
  client = await RawClient.connect({ port: redis.port });
  expect(learnt.learn(await client.command("COMMAND"))).toBe(true);
  specs = await readCommandSpecs(redis.port);
  await client.pipeline([...DATA_SET, ...SERVER_STATE]);
  const payloads = { string: Buffer.from("payload"), library: Buffer.from("payload") };
  calls = new Map(specs.map((spec) => [spec, callsOf(spec, payloads)]));
});
afterAll(async () => {
  client?.close();
  await redis?.close();
});

function look(table: CommandTable, name: string): Command {
  const bytes = Buffer.from(name);
  return table.lookup(bytes, 0, bytes.length);
}

function asBuffers(args: readonly Argument[]): Buffer[] {
  return args.map((arg) => Buffer.from(typeof arg === "number" ? String(arg) : arg));
}

/** The server's own word: [key, flags] of each key; null = it cannot say, as the call is wrong. */
async function askKeys(args: readonly Argument[]): Promise<{ key: string; isWritten: boolean }[] | null> {
  const reply: Reply = await client.command("COMMAND", "GETKEYSANDFLAGS", ...args);
  if (reply instanceof ReplyError) {
    return /no key arguments/.test(reply.message) ? [] : null;
  }
  return (reply as [string, string[]][]).map(([key, flags]) => ({ key, isWritten: !flags.includes("RO") }));
}

function nameOf(spec: CommandSpec): string {
  return spec.name.split("|")[0] ?? "";
}

/** A command of Redis 7.0. */
function isBuiltin(spec: CommandSpec): boolean {
  return look(builtin, nameOf(spec)).known;
}

/** By table: what is built in, and what the server told. */
const TABLES = [
  ["built in", builtin],
  ["learnt", learnt],
] as const;

describe("what is built in and what a server tells", () => {
  it("are the same, of every command; what is not built in may be anything", () => {
    for (const spec of specs) {
      const name = nameOf(spec);
      if (!isBuiltin(spec)) {
        const { kind, keys, changes } = look(builtin, name);
        const isAsked = name === "waitaof";
        expect([name, kind, keys.kind, changes]).toEqual(
          isAsked ? [name, SPECIAL, "none", "nothing"] : [name, WRITE, "unknown", "everything"],
        );
        continue;
      }
      const [ours, theirs] = [look(builtin, name), look(learnt, name)];
      expect([name, ours.singleKey]).toEqual([name, theirs.singleKey]);
      // Of containers the table has one plan for all sub-commands; their calls are compared below.
      if (theirs.keys.kind === "container") continue;
      expect([name, ours.keys, ours.changes]).toEqual([name, theirs.keys, theirs.changes]);
    }
    expect(specs.length).toBeGreaterThan(300);
  });

  it("say the same of every call", () => {
    let compared = 0;
    for (const [spec, list] of calls) {
      // Built in is less of sub-commands: the server's own word is compared with both below.
      if (spec.isContainer || spec.words.length > 1 || !isBuiltin(spec)) continue;
      for (const { args } of list) {
        const words = asBuffers(args);
        const [ours, theirs] = TABLES.map(([, table]) => {
          const command = look(table, nameOf(spec));
          return [keysOf(command, words, "declared"), changedKeys(command, words, "declared")];
        });
        expect([args.join(" "), ours]).toEqual([args.join(" "), theirs]);
        compared++;
      }
    }
    expect(compared).toBeGreaterThan(1_000);
  });
});

describe.each(TABLES)("of every call of every command, by what is %s,", (_, table) => {
  it("no key that the server knows is missed, and no written one", async () => {
    let [known, written] = [0, 0];
    const writers = new Set<string>();
    for (const [spec, list] of calls) {
      const command = look(table, nameOf(spec));
      for (const { args } of list) {
        const theirs = await askKeys(args);
        if (theirs === null) continue;
        const words = asBuffers(args);
        const line = words.join(" ");
        const found = keysOf(command, words, "declared");
        const changed = changedKeys(command, words, "declared");
        for (const { key, isWritten } of theirs) {
          known++;
          if (found !== "unknown")
            expect([line, found.map(String)]).toEqual([line, expect.arrayContaining([key])]);
          // PFCOUNT keeps its result within the value, which is no other value for that.
          if (!isWritten || command.plainKind !== WRITE) continue;
          written++;
          writers.add(spec.name);
          if (changed === "everything") continue;
          expect([line, changed.map(String)]).toEqual([line, expect.arrayContaining([key])]);
        }
      }
    }
    expect(known).toBeGreaterThan(1_500);
    expect(written).toBeGreaterThan(700);
    // Each of them had a call; XREADGROUP's keys are flagged as read though its groups are in them.
    const missing = specs.filter((spec) => {
      const { changes } = look(table, nameOf(spec));
      return changes === "keys" && !spec.isContainer && !spec.readsOnly && !writers.has(spec.name);
    });
    // In Valkey one sub-command of CLUSTER writes; outside of a cluster none of them does anything.
    const names = missing.map(({ name }) => name).filter((name) => !name.startsWith("cluster|"));
    expect(names).toEqual(["xgroup|help", "xreadgroup"]);
  });
});

it("whatever a call really changes is among what it may change", async () => {
  const outside: string[] = [];
  let changes = 0;
  const all = [...new Set(DATA_SET.slice(1).map((args) => String(args[1])))];
  const keys = [...all, "group", "new", "missing", "restored", "key", "k"];
  for (const [spec, list] of calls) {
    const command = look(learnt, nameOf(spec));
    if (command.changes !== "keys" || spec.isContainer || command.name === "migrate") continue;
    for (const { args, kind } of list) {
      if (kind !== "plausible" || args.some((arg) => String(arg).toUpperCase() === "BLOCK")) continue;
      await client.pipeline(DATA_SET);
      const before = await digests(keys);
      await client.command(...args);
      const after = await digests(keys);
      const changed = changedKeys(command, asBuffers(args), "any");
      for (const [i, key] of keys.entries()) {
        if (before[i] === after[i]) continue;
        changes++;
        const isNamed = changed === "everything" || changed.some((one) => one.toString() === key);
        if (!isNamed) outside.push(`${key} by ${args.join(" ")}`);
      }
    }
  }
  expect(outside).toEqual([]);
  expect(changes).toBeGreaterThan(150);
});

/** What the keys hold; groups of streams are not part of a digest. */
async function digests(keys: readonly string[]): Promise<string[]> {
  const digest = (await client.command("DEBUG", "DIGEST-VALUE", ...keys)) as string[];
  const times = await client.pipeline(keys.map((key) => ["PEXPIRETIME", key]));
  const streams = await client.pipeline(["stream", "stream2"].map((key) => ["XINFO", "STREAM", key, "FULL"]));
  const groups = streams.map((reply) => JSON.stringify(reply, (_, value) => withoutTimes(value)));
  return digest.map((one, i) => {
    const stream = ["stream", "stream2"].indexOf(keys[i] ?? "");
    return `${one} ${String(times[i])} ${groups[stream] ?? ""}`;
  });
}

/** A stream's times and idle times pass by themselves. */
function withoutTimes(value: unknown): unknown {
  return typeof value === "number" && value > 1_000_000 ? 0 : value;
}
