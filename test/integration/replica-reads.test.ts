/** What is read from replicas a real replica answers as its master does, also for keys past their time. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Command, READ } from "../../src/commands/command.ts";
import { CommandTable } from "../../src/commands/table.ts";
import { RawClient } from "../support/client.ts";
import { callsOf, DATA_SET, SCRIPT_SHA, SERVER_STATE } from "../support/command-calls.ts";
import { readCommandSpecs } from "../support/command-specs.ts";
import { type RedisGroup, startGroup } from "../support/redis.ts";
import { type Argument, type Reply, ReplyError } from "../support/resp.ts";
import { calls, errorText, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

/** What is random, by the node's own making, or a matter of milliseconds: only its kind is compared. */
const BY_KIND = new Set([
  ...["srandmember", "hrandfield", "zrandmember", "dump", "lolwut", "ttl", "pttl", "command|docs"],
]);

/** In the order of the node's hash seed. */
const UNORDERED = new Set([
  ...["smembers", "sinter", "sunion", "sdiff", "keys", "sort_ro", "command", "command|list", "command|info"],
]);

let group: RedisGroup;
let master: RawClient;
let replica: RawClient;
let reads: { readonly name: string; readonly args: readonly Argument[] }[];
const table = new CommandTable();

function look(name: string): Command {
  const bytes = Buffer.from(name);
  return table.lookup(bytes, 0, bytes.length);
}

beforeAll(async () => {
  group = await startGroup(1);
  master = await RawClient.connect({ port: group.master.port });
  replica = await RawClient.connect({ port: group.replica(0).port });
  const payloads = { string: Buffer.from("payload"), library: Buffer.from("payload") };
  reads = (await readCommandSpecs(group.master.port))
    .filter(({ words }) => look((words[0] ?? "").toLowerCase()).plainKind === READ)
    .flatMap((spec) => callsOf(spec, payloads).map(({ args }) => ({ name: spec.name, args })))
    .filter(({ name, args }) => name !== "randomkey" && !args.some((arg) => /^block$/i.test(String(arg))));
});
afterAll(async () => {
  master?.close();
  replica?.close();
  await group?.close();
});

/** The same data on both, and the scripts, which are not replicated. */
async function fill(): Promise<void> {
  // The keys that die are removed by nobody but who looks at them on the master.
  expect(await master.command("DEBUG", "SET-ACTIVE-EXPIRE", "0")).toBe("OK");
  for (const reply of await master.pipeline([...DATA_SET, ...SERVER_STATE])) {
    expect(reply).not.toBeInstanceOf(ReplyError);
  }
  await replica.command("SCRIPT", "LOAD", String(SERVER_STATE[0]?.[2]));
  expect(await replica.command("SCRIPT", "EXISTS", SCRIPT_SHA)).toEqual([1]);
  await group.replica(0).untilCaughtUp(group.master);
}

function comparable(name: string, reply: Reply): unknown {
  if (reply instanceof ReplyError) return `-${reply.message}`;
  if (BY_KIND.has(name)) return Array.isArray(reply) ? reply.length : `${typeof reply} ${Number(reply) < 0}`;
  return UNORDERED.has(name) ? sorted(reply) : reply;
}

function sorted(reply: Reply): unknown {
  if (!Array.isArray(reply)) return reply;
  return reply.map(sorted).toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

/** All of them on the replica first: a look at a dead key on the master removes it on both. */
async function compare(): Promise<number> {
  const theirs = await replica.pipeline(reads.map(({ args }) => args));
  const ours = await master.pipeline(reads.map(({ args }) => args));
  let answers = 0;
  for (const [i, { name, args }] of reads.entries()) {
    const line = args.map(String).join(" ");
    const [right, reply] = [comparable(name, ours[i] ?? null), comparable(name, theirs[i] ?? null)];
    expect([line, reply]).toEqual([line, right]);
    if (typeof right !== "string" || !right.startsWith("-")) answers++;
  }
  return answers;
}

describe("a replica that has applied everything answers every call that may be sent to it as its master does", () => {
  it("with every command among them that could be doubted", () => {
    const names = new Set(reads.map(({ name }) => name));
    const doubted = [
      "eval_ro",
      "evalsha_ro",
      "fcall_ro",
      "pfcount",
      "sort_ro",
      "georadius_ro",
      "bitfield_ro",
    ];
    for (const name of [...doubted, "xread", "lcs", "dump", "type", "pttl", "expiretime", "exists", "keys"]) {
      expect(names).toContain(name);
    }
  });

  it("while the data is there", async () => {
    await fill();
    expect(await compare()).toBeGreaterThan(400);
  });

  it("and where all of it is past its time, which the replica holds until it is told", async () => {
    await fill();
    const keys = (await master.command("KEYS", "*")) as string[];
    expect(keys.length).toBeGreaterThan(20);
    // Not before all of them are dated.
    const atMs = String(Date.now() + 1_500);
    const dated = await master.pipeline(keys.map((key) => ["PEXPIREAT", key, atMs]));
    expect(new Set(dated)).toEqual(new Set([1]));
    await group.replica(0).untilCaughtUp(group.master);
    await until(async () => (await replica.command("EXISTS", ...keys)) === 0);
    expect(await replica.command("DBSIZE"), "they are all there").toBe(keys.length);
    expect(await compare()).toBeGreaterThan(200);
  });
});

describe("what only the master is asked a replica would answer otherwise, or not at all", () => {
  it("DBSIZE, where keys are past their time; RANDOMKEY may name one, as it may before that time", async () => {
    await master.command("FLUSHALL");
    await master.command("DEBUG", "SET-ACTIVE-EXPIRE", "0");
    await master.command("SET", "dead", "v", "PX", "10");
    await group.replica(0).untilCaughtUp(group.master);
    await until(async () => (await replica.command("EXISTS", "dead")) === 0);
    expect([await replica.command("DBSIZE"), await replica.command("RANDOMKEY")]).toEqual([1, "dead"]);
    expect([await master.command("RANDOMKEY"), await master.command("DBSIZE")]).toEqual([null, 0]);
  });

  it("XPENDING and XINFO, where a consumer has looked at what is pending already", async () => {
    await fill();
    const again = ["XREADGROUP", "GROUP", "group", "consumer", "STREAMS", "stream", "0"];
    expect(await master.command(...again)).not.toBeInstanceOf(ReplyError);
    await group.replica(0).untilCaughtUp(group.master);
    const delivered = async (client: RawClient) => {
      const [entry] = (await client.command("XPENDING", "stream", "group", "-", "+", "1")) as Reply[][];
      return entry?.[3];
    };
    expect([await delivered(master), await delivered(replica)]).toEqual([2, 1]);
  });

  it("SORT and GEORADIUS, though they store nothing", async () => {
    for (const args of [
      ["SORT", "list2"],
      ["GEORADIUS", "geo", "15", "37", "200", "km"],
    ]) {
      expect(errorText(await replica.command(...args))).toMatch(/^READONLY/);
    }
  });
});

describe("a script that cannot write", () => {
  let stage: Stage;
  afterEach(() => stage?.close());

  const SCRIPT = "return redis.call('get', KEYS[1])";

  async function setUp(): Promise<RawClient> {
    stage = await Stage.open({ replicas: 1 });
    const client = await stage.client();
    expect(await client.command("SET", "k", "v")).toBe("OK");
    await stage.untilFresh(client, "k");
    return client;
  }

  it("runs on a replica, which is given it when it lacks it (7, 30)", async () => {
    const client = await setUp();
    const sha = String(await client.command("SCRIPT", "LOAD", SCRIPT));
    await stage.untilFresh(client, "k");
    expect(await client.command("EVALSHA_RO", sha, "1", "k")).toBe("v");
    expect(await client.command("EVAL_RO", SCRIPT, "1", "k")).toBe("v");
    expect(await calls(stage.replica(0), "evalsha_ro", "eval_ro")).toBe(2);
    expect(await calls(stage.master, "evalsha_ro", "eval_ro")).toBe(0);
    // Forgotten behind the proxy's back.
    expect(await stage.replica(0).cli("SCRIPT", "FLUSH")).toBe("OK");
    expect(
      await client.pipeline([
        ["EVALSHA_RO", sha, "1", "k"],
        ["GET", "k"],
      ]),
    ).toEqual(["v", "v"]);
    expect(await stage.replica(0).cli("SCRIPT", "EXISTS", sha)).toEqual([1]);
    expect(await calls(stage.master, "evalsha_ro")).toBe(0);
  });

  it("runs on the master when only that can have it (30)", async () => {
    const client = await setUp();
    const unseen = String(await stage.master.cli("SCRIPT", "LOAD", `${SCRIPT} .. '!'`));
    expect(await client.command("EVALSHA_RO", unseen, "1", "k")).toBe("v!");
    // This user may not give a replica what others have sent through the proxy.
    for (const server of stage.group.all) {
      await server.cli("ACL", "SETUSER", "limited", "on", "nopass", "~*", "+@all", "-script");
    }
    const sha = String(await client.command("SCRIPT", "LOAD", SCRIPT));
    const limited = await stage.client();
    expect(await limited.command("AUTH", "limited", "x")).toBe("OK");
    await until(async () => (await calls(stage.replica(0), "get")) < (await readOnce(limited)));
    const answers = await limited.pipeline([
      ["GET", "k"],
      ["EVALSHA_RO", sha, "1", "k"],
      ["GET", "k"],
    ]);
    expect(answers).toEqual(["v", "v", "v"]);
    expect(await calls(stage.master, "evalsha_ro")).toBe(2);
    expect(errorText(await limited.command("EVALSHA_RO", "0".repeat(40), "0"))).toMatch(/^NOSCRIPT/);
  });

  /** Reads once. @returns how often the replica has been read then. */
  async function readOnce(client: RawClient): Promise<number> {
    await client.command("GET", "k");
    return calls(stage.replica(0), "get");
  }

  it("calls a function that a client has just loaded (7, 32)", async () => {
    const client = await setUp();
    const library = (body: string) =>
      `#!lua name=l\nredis.register_function{function_name='f',callback=function() return '${body}' end,flags={'no-writes'}}`;
    for (const body of ["one", "two", "three"]) {
      expect(await client.command("FUNCTION", "LOAD", "REPLACE", library(body))).toBe("l");
      expect(await client.command("FCALL_RO", "f", "0")).toBe(body);
      await stage.untilFresh(client, "k");
      expect(await client.command("FCALL_RO", "f", "0")).toBe(body);
    }
    expect(await calls(stage.replica(0), "fcall_ro")).toBeGreaterThan(2);
  });
});
