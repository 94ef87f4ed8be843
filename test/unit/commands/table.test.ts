import { describe, expect, it } from "vitest";
import { BUILTIN_COMMANDS } from "../../../src/commands/builtin.ts";
import {
  arityFits,
  type Command,
  isRepeatable,
  MASTER_READ,
  PREFER_MASTER,
  READ,
  SPECIAL,
  WRITE,
} from "../../../src/commands/command.ts";
import { CommandTable } from "../../../src/commands/table.ts";

function look(table: CommandTable, name: string): Command {
  // In the middle of other bytes, as in a request.
  const buf = Buffer.from(`$x\r\n${name}\r\n$1`, "latin1");
  return table.lookup(buf, 4, 4 + name.length);
}

const words = (text: string): string[] => text.trim().split(/\s+/);

const READS = words(`
  bitcount bitfield_ro bitpos command dump echo exists expiretime fcall_ro geodist geohash geopos georadius_ro
  georadiusbymember_ro geosearch get getbit getrange hexists hget hgetall hkeys hlen hmget hrandfield hstrlen
  hvals keys lcs lindex llen lolwut lpos lrange mget pexpiretime pfcount ping pttl scard sdiff sinter
  sintercard sismember smembers smismember sort_ro srandmember strlen substr sunion ttl type xlen
  xrange xrevrange zcard zcount zdiff zinter zintercard zlexcount zmscore zrandmember zrange zrangebylex
  randomkey zrangebyscore zrank zrevrange zrevrangebylex zrevrangebyscore zrevrank zscore zunion`);

const MASTER_READS = words(`
  dbsize lastsave memory object role time touch xinfo xpending`);

const WRITES = words(`
  acl append asking bgrewriteaof bgsave bitfield bitop cluster config copy decr decrby del
  expire expireat fcall flushall flushdb geoadd georadius georadiusbymember geosearchstore getdel
  getex getset hdel hincrby hincrbyfloat hmset hset hsetnx incr incrby incrbyfloat latency linsert lmove lmpop
  lpop lpush lpushx lrem lset ltrim migrate module move mset msetnx persist pexpire pexpireat pfadd pfdebug
  pfmerge pfselftest psetex readonly readwrite rename renamenx restore restore-asking rpop rpoplpush
  rpush rpushx sadd save sdiffstore set setbit setex setnx setrange sinterstore slowlog smove sort spop
  srem sunionstore swapdb unlink xack xadd xautoclaim xclaim xdel xgroup xsetid xtrim zadd zdiffstore
  zincrby zinterstore zmpop zpopmax zpopmin zrangestore zrem zremrangebylex zremrangebyrank zremrangebyscore
  zunionstore`);

/** Handler → commands. */
const SPECIALS: Readonly<Record<string, string[]>> = {
  hello: ["hello"],
  auth: ["auth"],
  select: ["select"],
  quit: ["quit"],
  reset: ["reset"],
  client: ["client"],
  info: ["info"],
  multi: ["multi"],
  exec: ["exec"],
  discard: ["discard"],
  watch: ["watch"],
  unwatch: ["unwatch"],
  subscribe: words("subscribe psubscribe ssubscribe unsubscribe punsubscribe sunsubscribe"),
  counting: ["publish", "spublish", "pubsub"],
  debug: ["debug"],
  monitor: ["monitor"],
  blocking: words("blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin"),
  xread: ["xread", "xreadgroup"],
  eval: ["eval", "eval_ro"],
  evalsha: ["evalsha", "evalsha_ro"],
  scan: words("scan hscan sscan zscan"),
  script: ["script"],
  function: ["function"],
  wait: ["wait", "waitaof"],
  proxy: ["proxy"],
  forbidden: ["post", "host:"],
  topology: words("replicaof slaveof failover shutdown"),
  replication: words("sync psync replconf"),
};

const SPECIAL_NAMES = Object.values(SPECIALS).flat();

/** name → flags, read here once more and independently of the table. */
const BUILTIN = new Map(
  BUILTIN_COMMANDS.split(",").map((row) => {
    const [name = "", arity = "", flags = ""] = words(row);
    return [name, { arity: Number(arity), flags }] as const;
  }),
);

describe("the built-in table", () => {
  const table = new CommandTable();

  it("has exactly the commands of Redis 7.0 and PROXY, each classified here", () => {
    const classified = [...READS, ...MASTER_READS, ...WRITES, ...SPECIAL_NAMES];
    expect(classified.toSorted()).toEqual(
      [...BUILTIN.keys(), "proxy", "post", "host:", "waitaof"].toSorted(),
    );
    expect(table.size).toBe(classified.length);
  });

  it.each([
    ["READ", READ, READS],
    ["MASTER_READ", MASTER_READ, MASTER_READS],
    ["WRITE", WRITE, WRITES],
  ] as const)("classifies as %s what is listed here", (_, kind, names) => {
    for (const name of names) {
      expect(look(table, name)).toMatchObject({ name, kind, plainKind: kind, handler: "none", known: true });
    }
  });

  it.each(Object.entries(SPECIALS))("gives to the handler %s: %j", (handler, names) => {
    for (const name of names) expect(look(table, name)).toMatchObject({ name, kind: SPECIAL, handler });
  });

  it("never takes a command that Redis flags as a write for one without effect", () => {
    const writers = [...BUILTIN].filter(([, { flags }]) => flags.includes("w"));
    expect(writers.length).toBeGreaterThan(90);
    for (const [name] of writers) {
      const { kind, plainKind } = look(table, name);
      expect([name, isRepeatable(kind), plainKind]).toEqual([name, false, WRITE]);
    }
  });

  it("reads from replicas only what Redis flags as read-only, and three that have no key", () => {
    const unflagged = READS.filter((name) => !BUILTIN.get(name)?.flags.includes("r"));
    expect(unflagged.toSorted()).toEqual(["command", "echo", "ping"]);
  });

  it("keeps all that Redis flags as blocking away from shared connections", () => {
    for (const [name, { flags }] of BUILTIN) {
      if (flags.includes("b")) expect([name, look(table, name).kind]).toEqual([name, SPECIAL]);
    }
  });

  it("knows what Redis does not queue inside MULTI", () => {
    const names = [...BUILTIN.keys()].filter((name) => look(table, name).noMulti);
    expect(names.toSorted()).toEqual(words("psync save shutdown sync"));
  });

  it("asks the master with INFO while there is one", () => {
    expect(look(table, "info").plainKind).toBe(PREFER_MASTER);
  });

  it("treats XREAD without BLOCK as a read, XREADGROUP as a write", () => {
    expect(look(table, "xread").plainKind).toBe(READ);
    expect(look(table, "xreadgroup").plainKind).toBe(WRITE);
  });

  it("reads from replicas with scripts that cannot write, not with others", () => {
    for (const name of ["eval_ro", "evalsha_ro"]) expect(look(table, name).plainKind).toBe(READ);
    for (const name of ["eval", "evalsha"]) expect(look(table, name).plainKind).toBe(WRITE);
    for (const name of ["scan", "hscan", "sscan", "zscan"]) {
      expect(look(table, name).plainKind).toBe(MASTER_READ);
    }
  });

  it("knows the commands that run scripts, whose errors may be made up", () => {
    const scripts = [...BUILTIN.keys()].filter((name) => look(table, name).script);
    expect(scripts.toSorted()).toEqual(words("eval eval_ro evalsha evalsha_ro fcall fcall_ro"));
  });

  it("has every command's arity", () => {
    for (const [name, { arity }] of BUILTIN) expect([name, look(table, name).arity]).toEqual([name, arity]);
    expect(look(table, "proxy").arity).toBe(-2);
  });
});

describe("looking a name up", () => {
  const table = new CommandTable();

  it("does not mind the case", () => {
    for (const name of BUILTIN.keys()) {
      const mixed = [...name].map((letter, i) => (i % 2 === 0 ? letter.toUpperCase() : letter)).join("");
      expect(look(table, name.toUpperCase())).toBe(look(table, name));
      expect(look(table, mixed)).toBe(look(table, name));
    }
  });

  it("folds letters only: bytes that differ from a name's by the same bit are another name", () => {
    // "_" and DEL, "-" and CR, differ by 0x20 as letters of two cases do.
    for (const name of ["sort\x7fro", "restore\rasking", "g%t", "GE\x14", "\x47\x45\x54\0", "g\xe5t"]) {
      expect([name, look(table, name).known]).toEqual([name, false]);
    }
  });

  it.each(["", "ge", "gett", "get ", "xget", "foo", "é", "x".repeat(5000)])(
    "sends a name that nobody has to the master: %j",
    (name) => {
      expect(look(table, name)).toMatchObject({ kind: WRITE, handler: "none", known: false, script: false });
    },
  );

  it("finds every one of thousands of names, whose hashes must collide, and none that is not there", () => {
    const large = new CommandTable();
    const names = Array.from({ length: 9_000 }, (_, i) => `mod${i}.cmd${(i * 7919) % 9_001}`);
    expect(large.learn(names.map((name) => [name, 2, ["readonly"]]))).toBe(true);
    for (const name of names) expect(look(large, name)).toMatchObject({ name, kind: READ });
    for (const name of names) expect(look(large, `${name}x`).known).toBe(false);
  });

  it("tells names apart whose hashes are the same", () => {
    // "[" and "{" differ by the bit that the hash ignores.
    const twins = new CommandTable();
    twins.learn([
      ["m[a", 2, ["readonly"]],
      ["m{a", 3, ["write"]],
    ]);
    expect(look(twins, "M[A")).toMatchObject({ name: "m[a", kind: READ, arity: 2 });
    expect(look(twins, "M{A")).toMatchObject({ name: "m{a", kind: WRITE, arity: 3 });
  });
});

/** Rows as Redis 7.0.15 answers COMMAND, decoded. */
const GET = ["get", 2, ["readonly", "fast"], 1, 1, 1, ["@read", "@string", "@fast"], [], [], []];
const SET = ["set", -3, ["write", "denyoom"], 1, 1, 1, ["@write", "@string", "@slow"], [], [], []];
const XGROUP_CREATE = ["xgroup|create", -5, ["write", "denyoom"], 2, 2, 1, ["@write"], [], [], []];
const XGROUP_HELP = ["xgroup|help", 2, ["loading", "stale"], 0, 0, 0, ["@stream"], [], [], []];
const XGROUP = ["xgroup", -2, [], 0, 0, 0, ["@slow"], [], [], [XGROUP_HELP, XGROUP_CREATE]];
const BLPOP = ["blpop", -3, ["write", "noscript", "blocking"], 1, -2, 1, ["@write"], [], [], []];
const SELECT = ["select", 2, ["loading", "stale", "fast"], 0, 0, 0, ["@fast", "@connection"], [], [], []];
const GRAPH = ["GRAPH.QUERY", -3, ["write", "module"], 1, 1, 1, [], [], [], []];
const JSON_GET = ["json.get", -2, ["readonly", "module"], 1, 1, 1, [], [], [], []];
const MODULE_POP = ["mod.bpop", 3, ["write", "module", "blocking"], 1, 1, 1, [], [], [], []];
const ROWS = [GET, SET, XGROUP, BLPOP, SELECT, GRAPH, JSON_GET, MODULE_POP];

function learnt(reply: unknown): CommandTable {
  const table = new CommandTable();
  expect(table.learn(reply)).toBe(true);
  return table;
}

describe("learning a server's COMMAND", () => {
  it("takes over kinds and arities, and forgets what the server does not have", () => {
    const table = learnt(ROWS);
    expect(look(table, "GET")).toMatchObject({ kind: READ, arity: 2, known: true });
    expect(look(table, "SET")).toMatchObject({ kind: WRITE, arity: -3, known: true });
    expect(look(table, "BLPOP")).toMatchObject({ kind: SPECIAL, handler: "blocking", plainKind: WRITE });
    expect(look(table, "INCR").known).toBe(false);
  });

  it("classifies a module's commands by their flags, whatever the case of their names", () => {
    const table = learnt(ROWS);
    expect(look(table, "graph.query")).toMatchObject({ kind: WRITE, known: true });
    expect(look(table, "JSON.GET")).toMatchObject({ kind: READ, known: true });
    expect(look(table, "mod.bpop")).toMatchObject({ kind: SPECIAL, handler: "blocking" });
  });

  it("takes a container with a sub-command that writes for a write, even where it says it only reads", () => {
    const claims = ["box", -2, ["readonly"], 0, 0, 0, [], [], [], [XGROUP_HELP, XGROUP_CREATE]];
    const reads = ["shelf", -2, ["readonly"], 0, 0, 0, [], [], [], [XGROUP_HELP]];
    const table = learnt([XGROUP, claims, reads]);
    expect(look(table, "xgroup").kind).toBe(WRITE);
    expect(look(table, "box").kind).toBe(WRITE);
    expect(look(table, "shelf").kind).toBe(READ);
  });

  it("knows a container's sub-commands and their arity, in lower case", () => {
    const mixed = [
      "Box",
      -2,
      [],
      0,
      0,
      0,
      [],
      [],
      [],
      [
        ["box|GET", 3, []],
        ["put", -4, []],
      ],
    ];
    const table = learnt([XGROUP, mixed, GET]);
    expect(look(table, "xgroup").subcommands).toEqual(
      new Map([
        ["help", 2],
        ["create", -5],
      ]),
    );
    expect(look(table, "box").subcommands).toEqual(
      new Map([
        ["get", 3],
        ["put", -4],
      ]),
    );
    expect(look(table, "get").subcommands).toBeNull();
  });

  it("takes it that nothing is known of sub-commands that servers before 7.0 do not list", () => {
    const table = learnt([
      ["xgroup", -2, ["write"], 2, 2, 1],
      ["config", -2, ["admin"], 0, 0, 0, [], [], [], null],
    ]);
    expect(look(table, "xgroup").subcommands).toBeNull();
    expect(look(table, "config").subcommands).toBeNull();
    expect(look(new CommandTable(), "xgroup").subcommands).toBeNull();
  });

  it("knows of itself what blocks, may replicate or stands outside of MULTI where the server is too old to tell", () => {
    const table = learnt([
      ["blpop", -3, ["write", "noscript"], 1, -2, 1, ["@write", "@blocking"]],
      ["xread", -4, ["readonly", "movablekeys"], 0, 0, 0, ["@read", "@blocking"]],
      ["publish", 3, ["pubsub", "loading", "stale", "fast"], 0, 0, 0, ["@pubsub"]],
      ["save", 1, ["admin", "noscript"], 0, 0, 0, ["@admin"]],
      ["get", 2, ["readonly", "fast"], 1, 1, 1, ["@read"]],
    ]);
    const newest = new CommandTable();
    for (const name of ["blpop", "xread", "save"]) expect(look(table, name)).toEqual(look(newest, name));
    expect(look(table, "blpop")).toMatchObject({ kind: SPECIAL, handler: "blocking", plainKind: WRITE });
    expect(look(table, "publish").mayReplicate).toBe(true);
    expect(look(table, "save").noMulti).toBe(true);
    expect(look(table, "get")).toMatchObject({ handler: "none", mayReplicate: false, noMulti: false });
  });

  it("leaves out rows of sub-commands that make no sense", () => {
    const odd = ["box", -2, [], 0, 0, 0, [], [], [], [null, "x", ["only"], ["box|ok", 2, []], [7, 7]]];
    expect(look(learnt([odd]), "box").subcommands).toEqual(new Map([["ok", 2]]));
  });

  it("takes a command flagged both ways for a write", () => {
    expect(look(learnt([["odd", 2, ["readonly", "write"]]]), "odd").kind).toBe(WRITE);
  });

  it("takes a command without flags for a write", () => {
    const table = learnt([
      ["nothing", 2, []],
      ["less", 2],
      ["strange", 2, "readonly"],
      ["numbers", 2, [1, null]],
    ]);
    for (const name of ["nothing", "less", "strange", "numbers"]) {
      expect([name, look(table, name).kind, look(table, name).known]).toEqual([name, WRITE, true]);
    }
  });

  it("understands flags that were decoded as a set, as RESP3 sends them", () => {
    expect(look(learnt([["get", 2, new Set(["readonly", "fast"])]]), "get").kind).toBe(READ);
  });

  it("goes on handling what changes a connection, even when the server hides it", () => {
    const table = learnt([GET]);
    for (const [handler, names] of Object.entries(SPECIALS)) {
      for (const name of names) expect(look(table, name)).toMatchObject({ kind: SPECIAL, handler });
    }
  });

  it("gives a name that the server does not list to a handler: it may be renamed; a known one stays plain", () => {
    const table = learnt([GET]);
    expect(look(table, "foo")).toMatchObject({ kind: SPECIAL, handler: "unlisted", known: false });
    expect(look(table, "x".repeat(300))).toMatchObject({ handler: "unlisted", known: false });
    expect(look(table, "get").handler).toBe("none");
  });

  it("goes on handling PROXY, even when the server has a command of that name", () => {
    const table = learnt([GET, ["proxy", 1, ["readonly"]]]);
    expect(look(table, "proxy")).toMatchObject({ kind: SPECIAL, handler: "proxy", known: true });
  });

  it("goes on asking the master what only the master knows, whatever the flags", () => {
    const table = learnt([
      ["dbsize", 1, ["readonly"]],
      ["scan", -2, ["readonly"]],
      ["info", -1, []],
      ["ping", -1, []],
    ]);
    expect(look(table, "dbsize").kind).toBe(MASTER_READ);
    expect(look(table, "scan").plainKind).toBe(MASTER_READ);
    expect(look(table, "info").plainKind).toBe(PREFER_MASTER);
    expect(look(table, "ping").kind).toBe(READ);
  });

  it("can be repeated; the last answer counts", () => {
    const table = learnt([["thing", 2, ["readonly"]]]);
    expect(table.learn([["thing", 2, ["write"]]])).toBe(true);
    expect(look(table, "thing").kind).toBe(WRITE);
  });
});

describe("nonsense in place of a COMMAND reply", () => {
  it.each([
    ["nothing", null],
    ["an error", new Error("NOPERM")],
    ["a text", "OK"],
    ["a number", 240],
    ["an object", { get: 2 }],
    ["an empty list", []],
    ["a flat list", ["get", 2, ["readonly"]]],
    ["rows of nulls", [null, null]],
    ["rows without an arity", [["get"], ["set", "3", []]]],
    [
      "an arity of zero or a fraction",
      [
        ["get", 0, ["readonly"]],
        ["set", 1.5, []],
      ],
    ],
    [
      "names that are none",
      [
        ["", 2, []],
        ["a b", 2, []],
        ["é", 2, []],
        ["x".repeat(65), 2, []],
        [7, 2, []],
      ],
    ],
    ["more commands than any server has", Array.from({ length: 10_001 }, (_, i) => [`c${i}`, 2, []])],
  ])("changes nothing: %s", (_, reply) => {
    const table = new CommandTable();
    const size = table.size;
    expect(table.learn(reply)).toBe(false);
    expect(table.size).toBe(size);
    expect(look(table, "get")).toMatchObject({ kind: READ, known: true });
  });

  it("in some rows is left out, the others are taken", () => {
    const table = learnt([GET, null, ["bad name", 2, []], ["set", "x", []], SET]);
    expect(look(table, "get").kind).toBe(READ);
    expect(look(table, "set")).toMatchObject({ kind: WRITE, arity: -3 });
    expect(look(table, "bad name").known).toBe(false);
  });
});

describe("the number of words", () => {
  const table = new CommandTable();

  it.each([
    ["get", 2, [2], [1, 3, 100]],
    ["ping", -1, [1, 2, 3], [0]],
    ["set", -3, [3, 4, 50], [1, 2]],
    ["multi", 1, [1], [0, 2]],
  ] as const)("%s takes what its arity %i says", (name, arity, fitting, others) => {
    const command = look(table, name);
    expect(command.arity).toBe(arity);
    for (const argc of fitting) expect([argc, arityFits(command.arity, argc)]).toEqual([argc, true]);
    for (const argc of others) expect([argc, arityFits(command.arity, argc)]).toEqual([argc, false]);
  });
});

describe("whether a request may be run twice", () => {
  it("is answered yes for what has no effect only", () => {
    expect(([READ, MASTER_READ, PREFER_MASTER] as const).map((kind) => isRepeatable(kind))).toEqual([
      true,
      true,
      true,
    ]);
    expect(([WRITE, SPECIAL] as const).map((kind) => isRepeatable(kind))).toEqual([false, false]);
  });
});
