/** Every command of a real server that may do something to the connection it comes on is handled by name. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { arityFits, type Command, type Handler, SPECIAL } from "../../src/commands/command.ts";
import { CommandTable } from "../../src/commands/table.ts";
import { RawClient } from "../support/client.ts";
import { startProxy } from "../support/proxy.ts";
import { type RedisServer, serverKind, startRedis } from "../support/redis.ts";

/** Flags of commands that do something to their connection, or that keep it for as long as they like. */
const SUSPICIOUS = ["noscript", "blocking", "pubsub", "no_multi", "no_auth"];

const words = (text: string): string[] => text.trim().split(/\s+/);

/** How each of them is treated: by a handler, or passed on like any other, and why that is harmless. */
const HANDLED: Readonly<Partial<Record<Handler, readonly string[]>>> = {
  auth: ["auth"],
  blocking: words("blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin"),
  client: ["client"],
  discard: ["discard"],
  eval: ["eval", "eval_ro"],
  evalsha: ["evalsha", "evalsha_ro"],
  exec: ["exec"],
  function: ["function"],
  hello: ["hello"],
  counting: words("publish spublish pubsub"),
  debug: ["debug"],
  monitor: ["monitor"],
  multi: ["multi"],
  quit: ["quit"],
  replication: words("sync psync replconf"),
  reset: ["reset"],
  script: ["script"],
  subscribe: words("subscribe psubscribe ssubscribe unsubscribe punsubscribe sunsubscribe"),
  topology: words("replicaof slaveof failover shutdown"),
  unwatch: ["unwatch"],
  wait: ["wait"],
  watch: ["watch"],
  xread: ["xread", "xreadgroup"],
};

/** Of these, what only newer servers than Redis 7.0 flag like that: looked at where it is there. */
const NEWER: Readonly<Partial<Record<Handler, readonly string[]>>> = { wait: ["waitaof"] };

const HARMLESS: Readonly<Record<string, readonly string[]>> = {
  "they act on the server, not on their connection": words(
    "acl bgrewriteaof bgsave config latency module role save",
  ),
  "they run a script, in which nothing of that kind may stand": ["fcall", "fcall_ro"],
  "the server refuses what it says about clusters outside of one": ["cluster"],
};

interface Row {
  readonly name: string;
  readonly arity: number;
  /** Its own, and those of its sub-commands. */
  readonly flags: ReadonlySet<string>;
}

type Listed = readonly [string, number, readonly string[], ...unknown[]];

let redis: RedisServer;
let client: RawClient;
const table = new CommandTable();
let rows: Row[];

beforeAll(async () => {
  redis = await startRedis();
  client = await RawClient.connect({ port: redis.port });
  const listed = (await client.command("COMMAND")) as unknown as Listed[];
  expect(table.learn(listed)).toBe(true);
  rows = listed.map(([name, arity, flags, ...rest]) => {
    const subcommands = (rest[6] ?? []) as readonly Listed[];
    return { name, arity, flags: new Set([...flags, ...subcommands.flatMap((one) => one[2])]) };
  });
});
afterAll(async () => {
  client?.close();
  await redis?.close();
});

function look(name: string): Command {
  const bytes = Buffer.from(name);
  return table.lookup(bytes, 0, bytes.length);
}

describe("of the commands that COMMAND lists", () => {
  it("every one that may touch its connection is handled by name, or named as harmless", () => {
    const suspicious = rows.filter(({ flags }) => SUSPICIOUS.some((flag) => flags.has(flag)));
    const isListed = (name: string) => rows.some((row) => row.name === name);
    const newer = Object.values(NEWER).flat().filter(isListed);
    const named = [...Object.values(HANDLED).flat(), ...Object.values(HARMLESS).flat(), ...newer];
    expect(named.toSorted()).toEqual(suspicious.map(({ name }) => name).toSorted());
  });

  it("every one is treated as it says here", () => {
    for (const [handler, names] of [...Object.entries(HANDLED), ...Object.entries(NEWER)]) {
      for (const name of names) expect(look(name)).toMatchObject({ name, kind: SPECIAL, handler });
    }
    for (const name of Object.values(HARMLESS).flat()) {
      expect(look(name)).toMatchObject({ name, handler: "none", known: true });
    }
  });

  it("what is not flagged and yet changes the connection or its database is handled", () => {
    expect(look("select").handler).toBe("select");
    // Outside of a cluster the server refuses these.
    for (const name of ["readonly", "readwrite", "asking"]) expect(look(name).handler).toBe("none");
  });

  it("those outside of a cluster are refused by the server", async () => {
    const { isValkey, major } = serverKind();
    for (const name of ["READONLY", "READWRITE", "ASKING", "CLUSTER NODES", "CLUSTER RESET"]) {
      const reply = String(await client.command(...name.split(" ")));
      // To Valkey these two mean something behind CLIENT CAPA REDIRECT, which our connections never say.
      const isTaken = isValkey && major >= 8 && name.startsWith("READ");
      if (isTaken) expect(reply).toBe("OK");
      else expect(reply).toContain("cluster support disabled");
    }
  });

  it("every one has the arity the server says", () => {
    for (const { name, arity } of rows) {
      expect([name, look(name).arity]).toEqual([name, arity]);
      expect(arityFits(look(name).arity, Math.abs(arity))).toBe(true);
    }
  });
});

it("a renamed MONITOR, MULTI or SELECT does nothing to the connections that others share", async () => {
  const renamed = [
    ["MONITOR", "watcher"],
    ["MULTI", "begin"],
    ["SELECT", "choose"],
  ];
  const args = renamed.flatMap(([name = "", other = ""]) => ["--rename-command", name, other]);
  const server = await startRedis({ args });
  const proxy = await startProxy({ nodes: [server.address] });
  try {
    const [one, two] = [await proxy.connect(), await proxy.connect()];
    expect(await two.command("SET", "k", "1")).toBe("OK");
    const piped = [
      ["WATCHER"],
      ["GET", "k"],
      ["BEGIN"],
      ["GET", "k"],
      ["CHOOSE", "3"],
      ["GET", "k"],
      ["NONE"],
    ];
    const replies = await one.pipeline(piped);
    expect(replies.slice(0, 6)).toEqual(["OK", "1", "OK", "1", "OK", "1"]);
    expect(String(replies[6])).toContain("ERR unknown command 'NONE'");
    expect(await two.pipeline([["INCR", "k"], ["GET", "k"], ["PING"]])).toEqual([2, "2", "PONG"]);
    expect([one.unclaimed, two.unclaimed]).toEqual([0, 0]);
    one.close();
    two.close();
  } finally {
    await proxy.close();
    await server.close();
  }
});

it("a command of an unknown name that is listed with the flags of such a one is not passed on; others are", () => {
  const other = new CommandTable();
  const handlerOf = (name: string, arity: number, flags: readonly string[]): Handler => {
    expect(other.learn([[name, arity, flags]])).toBe(true);
    return other.lookup(Buffer.from(name), 0, name.length).handler;
  };
  // The flags of MONITOR, SUBSCRIBE, SYNC, HELLO, MULTI.
  expect(handlerOf("other", 1, ["admin", "noscript", "loading", "stale"])).toBe("unsafe");
  expect(handlerOf("other", -2, ["pubsub", "noscript", "loading", "stale"])).toBe("unsafe");
  expect(handlerOf("other", 1, ["noscript", "no_async_loading", "no_multi"])).toBe("unsafe");
  expect(handlerOf("other", -1, ["noscript", "fast", "no_auth"])).toBe("unsafe");
  expect(handlerOf("other", 1, ["noscript", "fast", "allow_busy"])).toBe("unsafe");
  expect(handlerOf("mod.read", -2, ["readonly", "noscript"])).toBe("none");
  expect(handlerOf("mod.info", -1, ["readonly", "admin"])).toBe("none");
  expect(handlerOf("mod.pop", 3, ["write", "noscript", "blocking"])).toBe("blocking");
  expect(handlerOf("save", 1, ["admin", "noscript", "no_multi"])).toBe("none");
});
