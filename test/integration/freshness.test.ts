/**
 * A read right behind a write shows it, whoever reads and whatever the write was, while the only replica is
 * provably behind; and what was not written is still read from that replica.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { RawClient } from "../support/client.ts";
import { type ChaosLink, layLink } from "../support/link.ts";
import { type Argument, encodeCommand, type Reply } from "../support/resp.ts";
import { calls, offsetOf, resetCalls, Stage } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

type Command = readonly Argument[];
type Expected = readonly (readonly [Command, Reply])[];

interface Clients {
  readonly writer: RawClient;
  readonly other: RawClient;
}

interface Row {
  readonly name: string;
  /** Is there, on the replica too, before the write. */
  readonly setup?: readonly Command[];
  readonly write: readonly Command[] | ((clients: Clients) => Promise<void>);
  /** What anybody must read afterwards; the replica would answer at least one of them in another way. */
  readonly reads: Expected;
  /** Which keys were written is not known, or all of them were. */
  readonly isEverything?: true;
  readonly waitMs?: number;
  readonly protocol?: 2 | 3;
  readonly db?: number;
}

const SET_DECLARED = "return redis.call('SET', KEYS[1], ARGV[1])";
const SET_UNDECLARED = "return redis.call('SET', ARGV[1], ARGV[2])";
const LIBRARY = `#!lua name=freshness
redis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)`;
const MEGABYTE = "v".repeat(1024 * 1024);
const SHORT_MS = 40;

/** Runs commands whose replies are no errors. */
async function run(client: RawClient, commands: readonly Command[]): Promise<void> {
  for (const command of commands) {
    expect(await client.command(...command), command.join(" ").slice(0, 80)).not.toBeInstanceOf(Error);
  }
}

/** One or several keys, each written by one command. */
function plain(k: string): Row[] {
  const [a, b, c] = [`${k}:a`, `${k}:b`, `${k}:c`] as const;
  const pair = ["MSET", a, "1", b, "2"];
  return [
    { name: "SET", write: [["SET", a, "x"]], reads: [[["GET", a], "x"]] },
    {
      name: "MSET",
      write: [pair],
      reads: [
        [
          ["MGET", a, b],
          ["1", "2"],
        ],
      ],
    },
    { name: "DEL of several", setup: [pair], write: [["DEL", a, b]], reads: [[["EXISTS", b, a], 0]] },
    {
      name: "UNLINK",
      setup: [pair],
      write: [["UNLINK", a, b]],
      reads: [
        [
          ["MGET", a, b],
          [null, null],
        ],
      ],
    },
    {
      name: "RENAME",
      setup: [["SET", a, "x"]],
      write: [["RENAME", a, b]],
      reads: [
        [["GET", a], null],
        [["GET", b], "x"],
      ],
    },
    { name: "COPY", setup: [["SET", a, "x"]], write: [["COPY", a, b]], reads: [[["GET", b], "x"]] },
    { name: "INCR", setup: [["SET", a, 1]], write: [["INCR", a]], reads: [[["GET", a], "2"]] },
    { name: "APPEND", setup: [["SET", a, "x"]], write: [["APPEND", a, "y"]], reads: [[["STRLEN", a], 2]] },
    { name: "SETRANGE", write: [["SETRANGE", a, 1, "y"]], reads: [[["GETRANGE", a, 1, 1], "y"]] },
    {
      name: "SETBIT",
      write: [["SETBIT", a, 7, 1]],
      reads: [
        [["GETBIT", a, 7], 1],
        [["BITCOUNT", a], 1],
      ],
    },
    { name: "BITOP", setup: [pair], write: [["BITOP", "AND", c, a, b]], reads: [[["STRLEN", c], 1]] },
    { name: "BITFIELD", write: [["BITFIELD", a, "SET", "u8", 0, 65]], reads: [[["GET", a], "A"]] },
    { name: "GETSET", setup: [pair], write: [["GETSET", a, "x"]], reads: [[["GET", a], "x"]] },
    { name: "GETDEL", setup: [pair], write: [["GETDEL", a]], reads: [[["GET", a], null]] },
    { name: "HSET", write: [["HSET", a, "f", "x"]], reads: [[["HGET", a, "f"], "x"]] },
    { name: "LPUSH", write: [["LPUSH", a, "x", "y"]], reads: [[["LLEN", a], 2]] },
    {
      name: "LMOVE",
      setup: [["RPUSH", a, "x"]],
      write: [["LMOVE", a, b, "LEFT", "LEFT"]],
      reads: [
        [["LLEN", a], 0],
        [["LLEN", b], 1],
      ],
    },
    {
      name: "LMPOP, which counts its keys",
      setup: [["RPUSH", b, "x", "y"]],
      write: [["LMPOP", 2, a, b, "LEFT"]],
      reads: [[["LRANGE", b, 0, -1], ["y"]]],
    },
    {
      name: "SORT STORE",
      setup: [["RPUSH", a, 3, 1, 2]],
      write: [["SORT", a, "STORE", b]],
      reads: [
        [
          ["LRANGE", b, 0, -1],
          ["1", "2", "3"],
        ],
      ],
    },
    { name: "SMOVE", setup: [["SADD", a, "x"]], write: [["SMOVE", a, b, "x"]], reads: [[["SCARD", b], 1]] },
    {
      name: "SINTERSTORE",
      setup: [
        ["SADD", a, "x"],
        ["SADD", b, "x"],
      ],
      write: [["SINTERSTORE", c, a, b]],
      reads: [[["SMEMBERS", c], ["x"]]],
    },
    {
      name: "ZUNIONSTORE, which counts its keys",
      setup: [
        ["ZADD", a, 1, "x"],
        ["ZADD", b, 2, "y"],
      ],
      write: [["ZUNIONSTORE", c, 2, a, b]],
      reads: [[["ZCARD", c], 2]],
    },
    {
      name: "GEORADIUS STORE",
      setup: [["GEOADD", a, 13, 38, "x"]],
      write: [["GEORADIUS", a, 13, 38, 10, "km", "STORE", b]],
      reads: [[["ZCARD", b], 1]],
    },
    { name: "PFADD", setup: [["PFADD", a, "x"]], write: [["PFADD", a, "y"]], reads: [[["PFCOUNT", a], 2]] },
    {
      name: "PFMERGE",
      setup: [
        ["PFADD", a, "x"],
        ["PFADD", b, "y"],
      ],
      write: [["PFMERGE", c, a, b]],
      reads: [[["PFCOUNT", c], 2]],
    },
    { name: "XADD", write: [["XADD", a, "1-1", "f", "x"]], reads: [[["XLEN", a], 1]] },
    {
      name: "XREADGROUP",
      setup: [
        ["XGROUP", "CREATE", a, "g", "$", "MKSTREAM"],
        ["XADD", a, "1-1", "f", "x"],
      ],
      write: [["XREADGROUP", "GROUP", "g", "one", "STREAMS", a, ">"]],
      reads: [
        [
          ["XPENDING", a, "g"],
          [1, "1-1", "1-1", [["one", "1"]]],
        ],
      ],
    },
    {
      name: "a value of 1 MB",
      write: [["SET", a, MEGABYTE]],
      reads: [
        [["STRLEN", a], MEGABYTE.length],
        [["GET", a], MEGABYTE],
      ],
    },
    {
      name: "RESP3",
      protocol: 3,
      write: [["HSET", a, "f", "x"]],
      reads: [[["HGETALL", a], new Map([["f", "x"]])]],
    },
  ];
}

/** What ends by itself, and what changes that. */
function expiring(k: string): Row[] {
  const setup = [["SET", k, "x"]];
  const gone: Expected = [
    [["GET", k], null],
    [["EXISTS", k], 0],
  ];
  const waitMs = 2 * SHORT_MS;
  return [
    {
      name: "EXPIRE",
      setup,
      write: [["EXPIRE", k, 1000]],
      // Rounded: half a second makes it one less.
      reads: [[["TTL", k], expect.toBeOneOf([1000, 999, 998, 997, 996, 995])]],
    },
    { name: "PEXPIRE, when it has expired", setup, write: [["PEXPIRE", k, SHORT_MS]], waitMs, reads: gone },
    { name: "GETEX, when it has expired", setup, write: [["GETEX", k, "PX", SHORT_MS]], waitMs, reads: gone },
    {
      name: "SET PX, when it has expired",
      setup,
      write: [["SET", k, "y", "PX", SHORT_MS]],
      waitMs,
      reads: gone,
    },
    { name: "EXPIRE in the past", setup, write: [["EXPIRE", k, -1]], reads: gone },
    {
      name: "PERSIST",
      setup: [["SET", k, "x", "EX", 1000]],
      write: [["PERSIST", k]],
      reads: [[["TTL", k], -1]],
    },
  ];
}

/** Ways of sending. */
function waysOf(k: string): Row[] {
  const [a, b] = [`${k}:a`, `${k}:b`] as const;
  return [
    {
      name: "an inline command",
      write: async ({ writer }) => {
        writer.send(`SET ${a} x\r\n`);
        expect(await writer.reply()).toBe("OK");
      },
      reads: [[["GET", a], "x"]],
    },
    {
      name: "a pipeline",
      write: async ({ writer }) => {
        const commands = [
          ["SET", a, 1],
          ["GET", a],
          ["INCR", a],
          ["GET", a],
          ["DEL", b],
          ["EXISTS", b],
        ];
        expect(await writer.pipeline(commands)).toEqual(["OK", "1", 2, "2", 1, 0]);
      },
      setup: [["SET", b, "x"]],
      reads: [
        [
          ["MGET", a, b],
          ["2", null],
        ],
      ],
    },
    {
      name: "MULTI, EXEC one by one",
      write: [["MULTI"], ["SET", a, "x"], ["INCR", b], ["EXEC"]],
      reads: [
        [
          ["MGET", a, b],
          ["x", "1"],
        ],
      ],
    },
    {
      name: "MULTI, EXEC in one write, and a read behind it",
      write: async ({ writer }) => {
        const commands = [["MULTI"], ["SET", a, "x"], ["INCR", b], ["EXEC"], ["MGET", a, b]];
        const replies = await writer.pipeline(commands);
        expect(replies.slice(3)).toEqual([
          ["OK", 1],
          ["x", "1"],
        ]);
      },
      reads: [
        [
          ["MGET", a, b],
          ["x", "1"],
        ],
      ],
    },
    {
      name: "RESTORE",
      setup: [["SET", a, "x"]],
      write: async ({ writer }) => {
        const dump = await writer.rawCommand("DUMP", a);
        const bytes = dump.subarray(dump.indexOf("\n") + 1, -2);
        expect(await writer.command("RESTORE", b, 0, bytes)).toBe("OK");
      },
      reads: [[["GET", b], "x"]],
    },
    {
      name: "another database",
      db: 1,
      write: [["SET", a, "x"]],
      reads: [[["GET", a], "x"]],
    },
    {
      name: "MOVE",
      setup: [["SET", a, "x"]],
      write: [["MOVE", a, 1]],
      reads: [
        [["GET", a], null],
        [["SELECT", 1], "OK"],
        [["GET", a], "x"],
        [["SELECT", 0], "OK"],
      ],
    },
    {
      name: "COPY into another database",
      setup: [["SET", a, "x"]],
      write: [["COPY", a, b, "DB", 1]],
      reads: [
        [["SELECT", 1], "OK"],
        [["GET", b], "x"],
        [["SELECT", 0], "OK"],
      ],
    },
  ];
}

/** Calls that wait for what somebody else brings: their effect comes long after they were sent. */
function waiting(k: string): Row[] {
  const [a, b] = [`${k}:a`, `${k}:b`] as const;
  /** The call is on its way, then the other one brings what it waits for. */
  const bring =
    (call: Command, bringing: Command) =>
    async ({ writer, other }: Clients) => {
      const blocked = async () => Number((await stage.master.info("clients")).get("blocked_clients")) > 0;
      writer.send(encodeCommand(call));
      await until(blocked, { what: "the call waiting on the master" });
      expect(await other.command(...bringing)).not.toBeInstanceOf(Error);
      expect(await writer.reply()).not.toBeNull();
    };
  return [
    {
      name: "BLPOP, answered later",
      write: bring(["BLPOP", a, 5], ["RPUSH", a, "x", "y"]),
      reads: [[["LRANGE", a, 0, -1], ["y"]]],
    },
    {
      name: "BLMOVE, answered later",
      setup: [["RPUSH", b, "x"]],
      write: bring(["BLMOVE", a, b, "LEFT", "LEFT", 5], ["RPUSH", a, "x"]),
      reads: [
        [["LLEN", b], 2],
        [["LLEN", a], 0],
      ],
    },
    {
      name: "BZPOPMIN, answered later",
      write: bring(["BZPOPMIN", a, 5], ["ZADD", a, 1, "x", 2, "y"]),
      reads: [[["ZRANGE", a, 0, -1], ["y"]]],
    },
    {
      name: "XREADGROUP BLOCK, answered later",
      setup: [["XGROUP", "CREATE", a, "g", "$", "MKSTREAM"]],
      write: bring(
        ["XREADGROUP", "GROUP", "g", "one", "BLOCK", 5000, "STREAMS", a, ">"],
        ["XADD", a, "1-1", "f", "x"],
      ),
      reads: [
        [
          ["XPENDING", a, "g"],
          [1, "1-1", "1-1", [["one", "1"]]],
        ],
      ],
    },
  ];
}

/** After these, nobody knows what has changed, or was shown, or everything has. */
function everything(k: string): Row[] {
  const setup = [["SET", k, "x"]];
  const isEverything = true;
  return [
    {
      name: "a write that KEYS must list, which names no key itself",
      write: [["SET", k, "x"]],
      reads: [[["KEYS", `${k}*`], [k]]],
      isEverything,
    },
    {
      name: "EVAL with its keys",
      write: [["EVAL", SET_DECLARED, 1, k, "x"]],
      reads: [[["GET", k], "x"]],
      isEverything,
    },
    {
      name: "EVAL without its keys",
      write: [["EVAL", SET_UNDECLARED, 0, k, "x"]],
      reads: [[["GET", k], "x"]],
      isEverything,
    },
    {
      name: "EVAL with another key than it writes",
      write: [["EVAL", SET_UNDECLARED, 1, `${k}:other`, k, "x"]],
      reads: [[["GET", k], "x"]],
      isEverything,
    },
    {
      name: "EVALSHA",
      write: async ({ writer }) => {
        const sha = await writer.command("SCRIPT", "LOAD", SET_UNDECLARED);
        expect(await writer.command("EVALSHA", String(sha), 0, k, "x")).toBe("OK");
      },
      reads: [[["GET", k], "x"]],
      isEverything,
    },
    {
      name: "FCALL",
      setup: [["FUNCTION", "LOAD", "REPLACE", LIBRARY]],
      write: [["FCALL", "put", 1, k, "x"]],
      reads: [[["GET", k], "x"]],
      isEverything,
    },
    {
      name: "EVAL inside MULTI",
      write: [["MULTI"], ["EVAL", SET_UNDECLARED, 0, k, "x"], ["EXEC"]],
      reads: [[["GET", k], "x"]],
      isEverything,
    },
    {
      name: "FLUSHDB",
      setup,
      write: [["FLUSHDB"]],
      reads: [
        [["GET", k], null],
        [["DBSIZE"], 0],
      ],
      isEverything,
    },
    {
      name: "FLUSHALL",
      setup,
      write: [["FLUSHALL"]],
      reads: [
        [["DBSIZE"], 0],
        [["GET", k], null],
      ],
      isEverything,
    },
    {
      name: "FLUSHALL from another database",
      setup,
      write: [["SELECT", 1], ["FLUSHALL"], ["SELECT", 0]],
      reads: [[["GET", k], null]],
      isEverything,
    },
    {
      name: "SWAPDB",
      setup,
      write: [["SWAPDB", 0, 1]],
      reads: [
        [["GET", k], null],
        [["SELECT", 1], "OK"],
        [["GET", k], "x"],
        [["SELECT", 0], "OK"],
      ],
      isEverything,
    },
  ];
}

const ROWS: readonly Row[] = [plain, expiring, waysOf, waiting, everything].flatMap((group, i) => {
  const count = group("").length;
  // Each row has keys of its own.
  return Array.from({ length: count }, (_, n) => group(`row${i}.${n}`)[n]!);
});

let stage: Stage;
let link: ChaosLink;

beforeAll(async () => {
  stage = await Stage.open({
    replicas: 1,
    before: async (group) => {
      link = await layLink(group.master, group.replica(0));
      await untilSame(group.master, group.replica(0));
      return group.addresses;
    },
  });
});

afterEach(() => link.resume());

afterAll(async () => {
  await stage?.close();
  await link?.close();
});

async function untilSame(master: Stage["master"], replica: Stage["master"]): Promise<void> {
  await until(async () => {
    // Without it nothing may be sent to a new replica for a second.
    await master.cli("PUBLISH", "nobody", "something to replicate");
    return (await offsetOf(replica)) === (await offsetOf(master));
  });
}

/** Three, for one may by chance be taken for the key that is written. */
const COLD = ["cold:1", "cold:2", "cold:3"] as const;

/** @returns how many reads of keys that nobody writes the replica serves, of six. */
async function coldReads({ writer, other }: Clients): Promise<number> {
  await resetCalls(...stage.group.all);
  for (const key of COLD) for (const client of [writer, other]) await client.command("GET", key);
  return calls(stage.replica(0), "get");
}

/** Everything is on the replica, and known to be there. */
async function prepare(clients: Clients, { setup = [], db = 0 }: Row): Promise<void> {
  const { writer, other } = clients;
  for (const client of [writer, other]) await run(client, [["SELECT", db]]);
  await run(writer, [["FLUSHALL"], ...setup, ["MSET", ...COLD.flatMap((key) => [key, "cold"])]]);
  await untilSame(stage.master, stage.replica(0));
  await until(async () => (await coldReads(clients)) === 6, {
    what: "all reads being served by the replica",
  });
}

async function answers(client: RawClient, reads: Expected): Promise<Reply[]> {
  const replies: Reply[] = [];
  for (const [command] of reads) replies.push(await client.command(...command));
  return replies;
}

/** @param consistency of both clients: with `session`, only the writer must see it. */
async function runRow(row: Row, consistency: "session" | "proxy"): Promise<void> {
  const protocol = row.protocol ?? 2;
  const clients = { writer: await stage.client({ protocol }), other: await stage.client({ protocol }) };
  const { writer, other } = clients;
  for (const client of [writer, other]) await run(client, [["PROXY", "CONSISTENCY", consistency]]);
  await prepare(clients, row);
  link.stall();
  if (typeof row.write === "function") await row.write(clients);
  else await run(writer, row.write);
  if (row.waitMs !== undefined) await sleep(row.waitMs);
  const expected = row.reads.map(([, reply]) => reply);
  const [own, others] = [await answers(writer, row.reads), await answers(other, row.reads)];
  const elsewhere = row.isEverything ? 6 : await coldReads(clients);
  // The proof that all this could have gone wrong.
  expect(await offsetOf(stage.replica(0)), "the replica is behind").toBeLessThan(
    await offsetOf(stage.master),
  );
  const past = await RawClient.connect({ port: stage.replica(0).ownPort, protocol });
  await past.command("SELECT", row.db ?? 0);
  expect(await answers(past, row.reads), "what the replica has").not.toEqual(expected);
  past.close();
  expect({ own, others }).toEqual({ own: expected, others: consistency === "proxy" ? expected : others });
  expect(elsewhere, "reads of other keys that the replica served, of 6").toBeGreaterThanOrEqual(4);
}

const TABLE = ROWS.map((row) => [row.name, row] as const);

describe("proxy: a read right behind a write shows it, to everybody, and spares the master the rest (7)", () => {
  it.each(TABLE)("%s", (_, row) => runRow(row, "proxy"));
});

describe("session: a read right behind an own write shows it, and spares the master the rest (7)", () => {
  it.each(TABLE)("%s", (_, row) => runRow(row, "session"));
});

/** Ways to be shown by the master what another client has written to y. */
const SIGHTS: readonly (readonly [name: string, commands: readonly Command[], shown: Reply])[] = [
  [
    "in a pipeline behind an own write",
    [
      ["SET", "own", "x"],
      ["GET", "y"],
    ],
    "2",
  ],
  [
    "in a pipeline behind several",
    [
      ["SET", "own", "x"],
      ["INCR", "n"],
      ["GET", "cold:1"],
      ["GET", "y"],
    ],
    "2",
  ],
  [
    "beside a key of one's own",
    [
      ["SET", "own", "x"],
      ["MGET", "own", "y"],
    ],
    ["x", "2"],
  ],
  ["in a transaction", [["MULTI"], ["GET", "y"], ["EXEC"]], ["2"]],
  ["in a transaction that writes", [["MULTI"], ["SET", "own", "x"], ["GET", "y"], ["EXEC"]], ["OK", "2"]],
  ["by a script", [["EVAL", "return redis.call('GET', KEYS[1])", 1, "y"]], "2"],
  ["by a script that says nothing", [["EVAL", "return redis.call('GET', 'y')", 0]], "2"],
  ["by a write to it", [["APPEND", "y", ""]], 1],
  [
    "by SORT GET",
    [
      ["RPUSH", "own", "y"],
      ["SORT", "own", "BY", "none", "GET", "*"],
    ],
    ["2"],
  ],
  [
    "while its reads were strong",
    [
      ["PROXY", "CONSISTENCY", "strong"],
      ["GET", "y"],
    ],
    "2",
  ],
  ["with WATCH", [["WATCH", "y"], ["GET", "y"], ["UNWATCH"]], "OK"],
];

/** What the master has shown once is not un-read, though the replica does not have it. */
async function runSight(commands: readonly Command[], shown: Reply, isPipelined: boolean): Promise<void> {
  const clients = { writer: await stage.client(), other: await stage.client() };
  const { writer: viewer, other } = clients;
  await prepare(clients, { name: "", setup: [["SET", "y", 1]], write: [], reads: [] });
  link.stall();
  expect(await other.command("INCR", "y")).toBe(2);
  const replies: Reply[] = [];
  if (isPipelined) replies.push(...(await viewer.pipeline(commands)));
  else for (const command of commands) replies.push(await viewer.command(...command));
  await viewer.command("PROXY", "CONSISTENCY", "session");
  const seen = [await viewer.command("GET", "y"), await viewer.command("MGET", "y")];
  expect(await stage.replica(0).cli("GET", "y"), "what the replica has").toBe("1");
  // A way that showed the past after all has shown nothing that could be un-read.
  const hasShown = JSON.stringify(replies.at(-1)) === JSON.stringify(shown);
  if (hasShown) expect(seen).toEqual(["2", ["2"]]);
  else expect(JSON.stringify(replies), "the past, then").not.toContain('"2"');
}

describe("session: what the master has shown is not un-read from a replica that is behind (7)", () => {
  it.each(SIGHTS)("%s, in one write", (_, commands, shown) => runSight(commands, shown, true));
  it.each(SIGHTS)("%s, one by one", (_, commands, shown) => runSight(commands, shown, false));
});
