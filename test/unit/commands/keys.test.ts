import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BUILTIN_COMMANDS } from "../../../src/commands/builtin.ts";
import type { Command } from "../../../src/commands/command.ts";
import { changedKeys, changesEverything, keysOf, type ScriptKeys } from "../../../src/commands/keys.ts";
import { CommandTable } from "../../../src/commands/table.ts";

const builtin = new CommandTable();

function look(name: string, table = builtin): Command {
  const bytes = Buffer.from(name);
  return table.lookup(bytes, 0, bytes.length);
}

function split(line: string): Buffer[] {
  return line.split(" ").map((word) => Buffer.from(word === '""' ? "" : word));
}

function texts<T extends string>(keys: readonly Buffer[] | T): string | T {
  return typeof keys === "string" ? keys : keys.map(String).join(" ");
}

function keys(line: string, scriptKeys: ScriptKeys = "any", table = builtin): string {
  return texts(keysOf(look(line.split(" ")[0] ?? "", table), split(line), scriptKeys));
}

function changed(line: string, scriptKeys: ScriptKeys = "any", table = builtin): string {
  return texts(changedKeys(look(line.split(" ")[0] ?? "", table), split(line), scriptKeys));
}

function isEverything(line: string, scriptKeys: ScriptKeys = "any", table = builtin): boolean {
  return changesEverything(look(line.split(" ")[0] ?? "", table), split(line), scriptKeys);
}

describe("the keys of a request", () => {
  it.each([
    ["GET k", "k"],
    ["get k", "k"],
    ["SET k v EX 10", "k"],
    ["MGET a b c", "a b c"],
    ["MSET a 1 b 2", "a b"],
    ["DEL a b", "a b"],
    ["LCS a b LEN", "a b"],
    ["BITOP AND d a b", "d a b"],
    ["BLPOP a b 0", "a b"],
    ["BLMPOP 0 2 a b LEFT", "a b"],
    ["LMPOP 2 a b LEFT COUNT 3", "a b"],
    ["ZINTER 2 a b WEIGHTS 1 2", "a b"],
    ["ZUNIONSTORE d 2 a b AGGREGATE MAX", "d a b"],
    ["XREAD COUNT 2 STREAMS a b 0 0", "a b"],
    ["XREAD BLOCK 0 streams a $", "a"],
    ["XREADGROUP GROUP streams streams COUNT 1 STREAMS a b > >", "a b"],
    ["XREADGROUP GROUP g c STREAMS STREAMS STREAMS 0 0", "STREAMS STREAMS"],
    ["GEORADIUS g 1 2 3 km STORE d", "g d"],
    ["GEORADIUS g 1 2 3 km STORE d STOREDIST e STORE f", "g d f e"],
    ["GEORADIUSBYMEMBER g m 3 km storedist d", "g d"],
    ["OBJECT ENCODING k", "k"],
    ["XINFO STREAM k FULL", "k"],
    ["MEMORY USAGE k", "k"],
    ["MEMORY DOCTOR", ""],
    ["MIGRATE h 1 k 0 10", "k"],
    ['MIGRATE h 1 "" 0 10 COPY KEYS a b', " a b"],
    ["SORT_RO k LIMIT 0 1 ALPHA", "k"],
    ["SORT_RO k BY w_*", "unknown"],
    ["SORT_RO k get #", "unknown"],
    ["SORT k STORE d", "k d"],
    ["SORT k BY w_* STORE d", "unknown"],
  ])("%s: %j", (line, expected) => {
    expect(keys(line)).toBe(expected);
  });

  it.each([
    ...["KEYS *", "SCAN 0", "DBSIZE", "RANDOMKEY", "FLUSHALL", "SWAPDB 0 1", "DEBUG RELOAD", "NOSUCH k"],
    ...["EVAL s 1 k", "EVAL_RO s 1 k", "EVALSHA_RO s 0", "FCALL_RO f 1 k"],
  ])("%s: may be any", (line) => {
    expect(keys(line)).toBe("unknown");
  });

  it.each([
    "PING",
    "ECHO k",
    "TIME",
    "LOLWUT",
    "COMMAND GETKEYS GET k",
    "CONFIG GET k",
    "PUBLISH c m",
    "SSUBSCRIBE c",
  ])("%s: none, it looks at no data", (line) => {
    expect(keys(line)).toBe("");
  });

  it("of a script are those it declares, where scripts declare all", () => {
    expect(keys("EVAL_RO s 2 a b c", "declared")).toBe("a b");
    expect(keys("FCALL_RO f 0 c", "declared")).toBe("");
    expect(keys("EVALSHA s 1 a", "declared")).toBe("a");
  });

  it.each(["-1", "+1", "01", " 1", "1.0", "x", "", "9999999999"])(
    "cannot be known when their number is %j: the server's way of reading it decides",
    (count) => {
      const args = ["EVAL_RO", "s", count, "a"].map((word) => Buffer.from(word));
      expect(keysOf(look("eval_ro"), args, "declared")).toBe("unknown");
    },
  );

  it("end where the request ends", () => {
    expect(keys("GET")).toBe("");
    expect(keys("ZINTER 99 a b")).toBe("a b");
    expect(keys("BLPOP a")).toBe("");
    expect(keys("XREAD STREAMS")).toBe("");
    expect(keys("XREAD COUNT 1 KEYS a 0")).toBe("");
  });
});

describe("what a request may change", () => {
  it.each([
    // Nothing that replicas have.
    ...["CONFIG SET a b", "ACL SETUSER x", "BGSAVE", "SAVE", "PUBLISH c m", "SPUBLISH c m", "SCRIPT LOAD s"],
    ...[
      "SCRIPT FLUSH",
      "WAIT 1 0",
      "CLIENT NO-EVICT on",
      "FUNCTION LIST",
      "function dump",
      "PFCOUNT a",
      "GET a",
    ],
    ...["EVAL_RO s 1 a", "SORT_RO a", "OBJECT FREQ a"],
    ...["SELECT 1", "LATENCY RESET", "SLOWLOG RESET", "MEMORY PURGE", "XINFO STREAM a", "XGROUP HELP"],
  ])("%s: nothing", (line) => {
    expect(changed(line)).toBe("");
  });

  it.each([
    ["SET a v", "a"],
    ["SET a v GET", "a"],
    ["MSETNX a 1 b 2", "a b"],
    ["UNLINK a b", "a b"],
    ["EXPIRE a 1", "a"],
    ["RESTORE a 0 x REPLACE", "a"],
    ["MOVE a 1", "a"],
    ["COPY a b DB 1", "a b"],
    ["RENAME a b", "a b"],
    ["SMOVE a b m", "a b"],
    ["LMOVE a b LEFT RIGHT", "a b"],
    ["BLMOVE a b LEFT RIGHT 0", "a b"],
    ["BRPOP a b 0", "a b"],
    ["BZMPOP 0 2 a b MIN", "a b"],
    ["ZMPOP 1 a MIN", "a"],
    ["PFMERGE d a b", "d a b"],
    ["BITOP NOT d a", "d a"],
    ["SINTERSTORE d a b", "d a b"],
    ["ZUNIONSTORE d 2 a b", "d a b"],
    ["ZDIFFSTORE d 1 a", "d a"],
    ["ZRANGESTORE d a 0 -1", "d a"],
    ["GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 km", "d a"],
    ["GEORADIUS g 1 2 3 km", "g"],
    ["GEORADIUS g 1 2 3 km STORE d", "g d"],
    ["GEORADIUSBYMEMBER g m 3 km STOREDIST d", "g d"],
    ["SORT a", "a"],
    ["SORT a store d", "a d"],
    ["SORT a STORE STORE STORE d", "a STORE STORE d"],
    ["XREADGROUP GROUP g c COUNT 1 STREAMS a b > >", "a b"],
    ["XGROUP CREATE a g 0", "a"],
    ["XADD a * f v", "a"],
    ["GETEX a PERSIST", "a"],
    ["BITFIELD a GET u8 0", "a"],
    ["PFDEBUG GETREG a", "a"],
    ["MIGRATE h 1 a 0 10", "a"],
    ['MIGRATE h 1 "" 0 10 AUTH keys KEYS a', " KEYS a"],
  ])("%s: %j", (line, expected) => {
    expect(changed(line)).toBe(expected);
  });

  it.each([
    ...[
      "FLUSHALL",
      "FLUSHDB ASYNC",
      "SWAPDB 0 1",
      "DEBUG SET-ACTIVE-EXPIRE 0",
      "NOSUCH a",
      "REPLICAOF NO ONE",
    ],
    ...["EVAL s 1 a", "EVALSHA s 0", "FCALL f 1 a", "FUNCTION LOAD x", "FUNCTION delete x", "FUNCTION NEW"],
    ...["FUNCTION FLUSH", "FUNCTION RESTORE x", "FUNCTION"],
  ])("%s: everything", (line) => {
    expect(isEverything(line)).toBe(true);
    expect(changed(line)).toBe("everything");
  });

  it.each(["ZMPOP x a MIN", "ZUNIONSTORE d x a", "SORT a BY w_* GET #", "SORT a BY STORE GET STORE STORE d"])(
    "%s: everything, as its keys cannot be known",
    (line) => {
      expect(changed(line)).toBe("everything");
    },
  );

  it("by a script is what it declares, where scripts declare all", () => {
    expect(changed("EVAL s 2 a b c", "declared")).toBe("a b");
    expect(changed("FCALL f 0", "declared")).toBe("");
    expect(changed("EVALSHA s x a", "declared")).toBe("everything");
    const table = new CommandTable();
    expect(table.learn([["eval", -3, [], 0, 0, 0, [], [], [], []]])).toBe(true);
    expect(isEverything("EVAL s 1 a", "declared", table), "which has no place for keys").toBe(true);
  });
});

const index = (at: number) => ["type", "index", "spec", ["index", at]];
const range = (last: number) => ["type", "range", "spec", ["lastkey", last, "keystep", 1, "limit", 0]];
const spec = (flags: string[], search: unknown, run: unknown) => [
  ...["flags", flags, "begin_search", search, "find_keys", run],
];
const UNKNOWN = ["type", "unknown", "spec", []];

describe("what a server says of its keys", () => {
  function learn(...rows: unknown[]): CommandTable {
    const table = new CommandTable();
    expect(table.learn(rows)).toBe(true);
    return table;
  }

  it("is learnt of commands that are not known here, in RESP2 and RESP3", () => {
    const specs = [spec(["RO"], index(1), range(0)), spec(["OW"], index(2), range(-1))];
    const asMap = (value: unknown): unknown =>
      Array.isArray(value) && typeof value[0] === "string" && value.length % 2 === 0 && value.length > 2
        ? new Map(Array.from({ length: value.length / 2 }, (_, i) => [value[2 * i], asMap(value[2 * i + 1])]))
        : value;
    for (const shape of [specs, specs.map(asMap)]) {
      const table = learn(["m.copy", -3, ["write"], 1, 2, 1, [], [], shape, []]);
      expect(keys("m.copy a b c", "any", table)).toBe("a b c");
      expect(changed("m.copy a b c", "any", table)).toBe("a b c");
    }
  });

  it.each([
    ["flags that say it is not all", [spec(["RW", "incomplete"], index(1), range(0))], ["write"]],
    ["a search nobody describes", [spec(["RW"], UNKNOWN, range(0))], ["write"]],
    ["a run nobody describes", [spec(["RW"], index(1), UNKNOWN)], ["write"]],
    ["nonsense", [7, null, "x"], ["write"]],
    [
      "no step",
      [spec(["RW"], index(1), ["type", "range", "spec", ["lastkey", 0, "keystep", 0, "limit", 0]])],
      [],
    ],
    ["a name's place instead of a key's", [spec(["RW"], index(0), range(0))], ["write"]],
    ["no key, though it writes", [], ["write"]],
    ["no key and no flags", [], []],
    [
      "a fixed place, and that there are others",
      [spec(["RW"], index(1), range(0))],
      ["write", "movablekeys"],
    ],
  ])("makes it everything with %s", (_, specs, flags) => {
    const table = learn(["m.x", -2, flags, 1, 1, 1, [], [], specs, []]);
    expect([keys("m.x a", "any", table), changed("m.x a", "any", table)]).toEqual(["unknown", "everything"]);
    expect(look("m.x", table).singleKey).toBe(false);
  });

  it("is first, last and step before Redis 7.0; what moves is known here or not at all", () => {
    const table = learn(
      ["m.set", -3, ["write"], 1, -1, 2],
      ["m.move", -3, ["write", "movablekeys"], 1, 1, 1],
      ["m.find", -2, ["readonly"], 0, 0, 0],
      ["xread", -4, ["readonly", "movablekeys"], 1, 1, 1],
      ["xgroup", -2, ["write"], 2, 2, 1],
      ["zunionstore", -4, ["write", "movablekeys"], 0, 0, 0],
    );
    expect(changed("m.set a 1 b 2", "any", table)).toBe("a b");
    expect(changed("m.move a", "any", table)).toBe("everything");
    expect(keys("m.find a", "any", table)).toBe("unknown");
    expect(keys("xread streams a 0", "any", table)).toBe("a");
    expect(changed("xgroup create a g 0", "any", table)).toBe("a");
    expect(changed("zunionstore d 1 a", "any", table)).toBe("d a");
  });

  it("is told by sub-command: one that reads changes no more than its keys, one that nobody knows everything", () => {
    const one = [spec(["RW"], index(2), range(0))];
    const table = learn([
      ...["box", -2, [], 0, 0, 0, [], [], []],
      [
        ["box|put", 3, ["write"], 2, 2, 1, [], [], one, []],
        ["box|look", 3, ["readonly"], 2, 2, 1, [], [], one, []],
        ["box|clear", 2, ["write"], 0, 0, 0, [], [], [], []],
      ],
    ]);
    expect(changed("box PUT a", "any", table)).toBe("a");
    expect(changed("box look a", "any", table)).toBe("a");
    for (const line of ["box clear", "box other a", "box"]) {
      expect(isEverything(line, "any", table)).toBe(true);
      expect(changed(line, "any", table)).toBe("everything");
    }
  });
});

describe("commands of exactly one key", () => {
  const commands = BUILTIN_COMMANDS.split(",").map((row) => look(row.trim().split(" ")[0] ?? ""));
  const single = commands.filter(({ singleKey }) => singleKey);

  it("are most commands on data, and none whose keys depend on more than their place", () => {
    const names = single.map(({ name }) => name);
    expect(names.length).toBeGreaterThan(110);
    for (const name of ["get", "set", "hset", "zadd", "expire", "getex", "xadd"])
      expect(names).toContain(name);
    for (const name of [
      "mget",
      "sort",
      "sort_ro",
      "georadius",
      "eval",
      "object",
      "spublish",
      "xread",
      "ping",
    ]) {
      expect(names).not.toContain(name);
    }
  });

  it("have it as their first argument whatever the others are, as the slow way says", () => {
    const word = fc.oneof(fc.constantFrom("STORE", "KEYS", "STREAMS", "GET", "1"), fc.string());
    fc.assert(
      fc.property(fc.constantFrom(...single), fc.array(word, { minLength: 1 }), (command, rest) => {
        const args = [command.name, ...rest].map((text) => Buffer.from(text));
        expect(keysOf(command, args, "any")).toEqual([args[1]]);
        expect(changesEverything(command, args, "any")).toBe(false);
      }),
    );
  });

  it("change it exactly when the server flags them as writes", () => {
    const flags = new Map(
      BUILTIN_COMMANDS.split(",").map((row) => [row.trim().split(" ")[0], row.trim().split(" ")[2]]),
    );
    for (const { name, changes } of single) {
      expect([name, changes]).toEqual([name, flags.get(name)?.includes("w") === true ? "keys" : "nothing"]);
    }
  });
});

it("no request makes it throw, or gives keys that are no arguments of it, or more than three times as many", () => {
  const names = BUILTIN_COMMANDS.split(",").map((row) => row.trim().split(" ")[0] ?? "");
  const options = [
    "STORE",
    "KEYS",
    "STREAMS",
    "GET",
    "BY",
    "CREATE",
    "LOAD",
    "-1",
    "0",
    "1",
    "2",
    "99999999",
  ];
  const word = fc.oneof(fc.constantFrom(...options), fc.uint8Array({ maxLength: 80 }));
  const scriptKeys = fc.constantFrom<ScriptKeys>("any", "declared");
  fc.assert(
    fc.property(fc.constantFrom(...names, "nosuch"), fc.array(word), scriptKeys, (name, rest, how) => {
      const args = [name, ...rest].map((one) => Buffer.from(one as string));
      const found = keysOf(look(name), args, how);
      if (typeof found !== "string") {
        expect(found.length).toBeLessThanOrEqual(3 * args.length);
        for (const key of found) expect(args).toContain(key);
      }
      // What may change everything may look at everything.
      if (changesEverything(look(name), args, how)) expect(found).toBe("unknown");
    }),
    { numRuns: 2_000 },
  );
});
