/**
 * The clients people use, through the proxy, at real work: every family of calls a library has a mechanism of
 * its own for. A library that reconnects hides what happened; so its events are watched, and they must stay
 * silent.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import { createClient } from "redis";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { exited } from "../support/children.ts";
import { type ProxyProcess, startProxy } from "../support/proxy.ts";
import { type RedisGroup, startGroup } from "../support/redis.ts";
import { until } from "../support/wait.ts";

const run = promisify(execFile);

let group: RedisGroup;
let proxy: ProxyProcess;

beforeAll(async () => {
  group = await startGroup(2);
  proxy = await startProxy({ nodes: group.addresses });
});

afterAll(async () => {
  await proxy?.close();
  await group?.close();
});

/** What a library told about its connection since it was ready; must stay empty. */
type Incidents = string[];

const cleanups: (() => void)[] = [];

afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

function watched(redis: Redis, incidents: Incidents): Redis {
  for (const event of ["close", "reconnecting", "error", "end"]) {
    redis.on(event, (detail: unknown) => incidents.push(`${event} ${String(detail ?? "")}`.trim()));
  }
  cleanups.push(() => {
    redis.removeAllListeners();
    redis.on("error", () => {});
    redis.disconnect();
  });
  return redis;
}

interface IoredisOptions {
  readonly protocol: 2 | 3;
  readonly db?: number;
  readonly connectionName?: string;
  readonly enableAutoPipelining?: boolean;
}

function ioredis(options: IoredisOptions, incidents: Incidents): Redis {
  return watched(new Redis(proxy.port, "127.0.0.1", options), incidents);
}

function makeNodeRedis(protocol: 2 | 3) {
  return createClient({
    socket: { host: "127.0.0.1", port: proxy.port },
    RESP: protocol,
    name: "node-redis",
  });
}
type NodeRedis = ReturnType<typeof makeNodeRedis>;

async function nodeRedis(
  protocol: 2 | 3,
  incidents: Incidents,
  client = makeNodeRedis(protocol),
): Promise<NodeRedis> {
  for (const event of ["reconnecting", "error", "end"] as const) {
    client.on(event, (detail: unknown) => incidents.push(`${event} ${String(detail ?? "")}`.trim()));
  }
  cleanups.push(() => {
    client.removeAllListeners();
    client.on("error", () => {});
    client.destroy();
  });
  await client.connect();
  return client;
}

const unique = (() => {
  let last = 0;
  return (name: string) => `${name}:${++last}`;
})();

describe.each([2, 3] as const)("ioredis with RESP%i", (protocol) => {
  let incidents: Incidents;
  let redis: Redis;

  const connect = () => {
    incidents = [];
    redis = ioredis({ protocol }, incidents);
  };

  const settle = () => expect(incidents).toEqual([]);

  it("connects, reads its own writes, pipelines and pipelines by itself", async () => {
    connect();
    const key = unique("io");
    for (let i = 0; i < 50; i++) {
      await redis.set(key, String(i));
      expect(await redis.get(key)).toBe(String(i));
    }
    const results = await redis
      .pipeline()
      .incr(key)
      .get(key)
      .lpush(key, "x")
      .hset(`${key}:h`, "f", "v")
      .hgetall(`${key}:h`)
      .exec();
    expect(results?.map(([error]) => error?.message.split(" ")[0] ?? null)).toEqual([
      null,
      null,
      "WRONGTYPE",
      null,
      null,
    ]);
    expect(results?.map(([, value]) => value)).toEqual([50, "50", undefined, 1, { f: "v" }]);
    const auto = ioredis({ protocol, enableAutoPipelining: true }, incidents);
    const keys = Array.from({ length: 500 }, (_, i) => `${key}:auto:${i}`);
    await Promise.all(keys.map((one) => auto.set(one, one)));
    expect(await Promise.all(keys.map((one) => auto.get(one)))).toEqual(keys);
    settle();
  });

  it("runs transactions, and a watched key that changed aborts one", async () => {
    connect();
    const key = unique("io");
    expect(await redis.multi().set(key, "1").incr(key).get(key).exec()).toEqual([
      [null, "OK"],
      [null, 2],
      [null, "2"],
    ]);
    await expect(redis.multi().set(key, "9").call("NOSUCHCOMMAND").exec()).rejects.toThrow(/EXECABORT/);
    const other = ioredis({ protocol }, incidents);
    await redis.watch(key);
    expect(await redis.multi().incr(key).exec()).toEqual([[null, 3]]);
    await redis.watch(key);
    await other.set(key, "100");
    expect(await redis.multi().incr(key).exec()).toBeNull();
    await redis.watch(key);
    await redis.unwatch();
    await other.set(key, "200");
    expect(await redis.multi().incr(key).exec()).toEqual([[null, 201]]);
    const inline = redis.multi({ pipeline: false });
    await inline;
    await redis.incr(key);
    expect(await redis.exec()).toEqual([[null, 202]]);
    settle();
  });

  it("waits in a blocking pop on a duplicate while the first goes on", async () => {
    connect();
    const key = unique("io:queue");
    const waiting = watched(redis.duplicate(), incidents);
    const popped = waiting.blpop(key, 10);
    await until(
      async () => (await proxy.metrics()).get('holdfast_upstream_connections{kind="private"}') === 1,
      {
        what: "the pop waiting on a private connection",
      },
    );
    expect(await redis.rpush(key, "job")).toBe(1);
    expect(await popped).toEqual([key, "job"]);
    expect(await waiting.blpop(key, 0.05)).toBeNull();
    expect(await waiting.brpop(key, 0.05)).toBeNull();
    const stream = unique("io:stream");
    const read = waiting.xread("BLOCK", 5_000, "STREAMS", stream, "0");
    await redis.xadd(stream, "1-1", "field", "value");
    expect(await read).toEqual([[stream, [["1-1", ["field", "value"]]]]]);
    expect(await waiting.get(key)).toBeNull();
    settle();
  });

  it("subscribes, gets messages and patterns, and unsubscribes", async () => {
    connect();
    const channel = unique("io:channel");
    const subscriber = watched(redis.duplicate(), incidents);
    const messages: string[] = [];
    subscriber.on("message", (name: string, text: string) => messages.push(`${name} ${text}`));
    subscriber.on("pmessage", (pattern: string, name: string, text: string) =>
      messages.push(`${pattern} ${name} ${text}`),
    );
    expect(await subscriber.subscribe(channel, `${channel}:2`)).toBe(2);
    expect(await subscriber.psubscribe("io:chan*")).toBe(3);
    expect(await redis.publish(channel, "hello")).toBe(2);
    await until(() => messages.length === 2, { what: "both messages" });
    expect(messages.sort()).toEqual([`${channel} hello`, `io:chan* ${channel} hello`].sort());
    // By name: without names ioredis 6 never settles when more than one is left, with Redis itself too.
    expect(await subscriber.unsubscribe(channel, `${channel}:2`)).toBe(1);
    expect(await subscriber.punsubscribe("io:chan*")).toBe(0);
    expect(await redis.publish(channel, "nobody")).toBe(0);
    expect(await subscriber.get(unique("io"))).toBeNull();
    settle();
  });

  it("keeps its database and its name", async () => {
    incidents = [];
    const named = ioredis({ protocol, db: 3, connectionName: "worker" }, incidents);
    const key = unique("io");
    await named.set(key, "three");
    expect(await named.client("GETNAME")).toBe("worker");
    await named.select(4);
    expect(await named.get(key)).toBeNull();
    await named.select(3);
    expect(await named.get(key)).toBe("three");
    expect(await ioredis({ protocol }, incidents).exists(key)).toBe(0);
    settle();
  });

  it("passes large and binary values and unicode keys on unchanged", async () => {
    connect();
    const key = Buffer.concat([Buffer.from("ключ-鍵-"), randomBytes(16)]);
    const value = randomBytes(5_000_000);
    await redis.set(key, value);
    const back = await redis.getBuffer(key);
    expect(
      createHash("sha256")
        .update(back ?? "")
        .digest("hex"),
    ).toBe(createHash("sha256").update(value).digest("hex"));
    expect(await redis.strlen(key)).toBe(value.length);
    settle();
  });

  it("iterates with SCAN streams and misses nothing", async () => {
    connect();
    const prefix = unique("io:scan");
    const keys = Array.from({ length: 1_000 }, (_, i) => `${prefix}:${i}`);
    await redis.mset(keys.flatMap((key) => [key, "x"]));
    const found = new Set<string>();
    for await (const batch of redis.scanStream({ match: `${prefix}:*`, count: 100 })) {
      for (const key of batch as string[]) found.add(key);
    }
    expect(found).toEqual(new Set(keys));
    const hash = unique("io:hash");
    await redis.hset(hash, Object.fromEntries(keys.map((key) => [key, "v"])));
    let fields = 0;
    for await (const batch of redis.hscanStream(hash, { count: 100 }))
      fields += (batch as string[]).length / 2;
    expect(fields).toBe(1_000);
    settle();
  });

  it("runs scripts by their hash and loads them where they are missing", async () => {
    connect();
    redis.defineCommand("addTo", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" });
    const scripted = redis as Redis & { addTo(key: string, by: number): Promise<number> };
    const key = unique("io");
    await group.master.cli("SCRIPT", "FLUSH");
    expect(await scripted.addTo(key, 5)).toBe(5);
    expect(await scripted.addTo(key, 5)).toBe(10);
    await group.master.cli("SCRIPT", "FLUSH");
    expect(await scripted.addTo(key, 5)).toBe(15);
    expect(await redis.eval("return {KEYS[1], ARGV[1]}", 1, "k", "a")).toEqual(["k", "a"]);
    const sha = (await redis.script("LOAD", "return 7")) as string;
    expect(await redis.evalsha(sha, 0)).toBe(7);
    await expect(redis.evalsha("0".repeat(40), 0)).rejects.toThrow(/NOSCRIPT/);
    settle();
  });
});

describe.each([2, 3] as const)("node-redis with RESP%i", (protocol) => {
  let incidents: Incidents;
  let client: NodeRedis;

  const connect = async () => {
    incidents = [];
    client = await nodeRedis(protocol, incidents);
  };

  const settle = () => expect(incidents).toEqual([]);

  it("connects, reads its own writes, and pipelines by itself", async () => {
    await connect();
    const key = unique("nr");
    for (let i = 0; i < 50; i++) {
      await client.set(key, i);
      expect(await client.get(key)).toBe(String(i));
    }
    const keys = Array.from({ length: 500 }, (_, i) => `${key}:${i}`);
    await Promise.all(keys.map((one) => client.set(one, one)));
    expect(await Promise.all(keys.map((one) => client.get(one)))).toEqual(keys);
    await client.hSet(`${key}:h`, { a: "1", b: "2" });
    expect({ ...(await client.hGetAll(`${key}:h`)) }).toEqual({ a: "1", b: "2" });
    await client.zAdd(`${key}:z`, [
      { score: 1.5, value: "a" },
      { score: 2, value: "b" },
    ]);
    expect(await client.zRangeWithScores(`${key}:z`, 0, -1)).toEqual([
      { score: 1.5, value: "a" },
      { score: 2, value: "b" },
    ]);
    await expect(client.lPush(key, "x")).rejects.toThrow(/WRONGTYPE/);
    expect(await client.clientGetName()).toBe("node-redis");
    settle();
  });

  it("runs transactions, and a watched key that changed aborts one", async () => {
    await connect();
    const key = unique("nr");
    expect(await client.multi().set(key, "1").incr(key).get(key).exec()).toEqual(["OK", 2, "2"]);
    const other = await nodeRedis(protocol, incidents);
    await client.watch(key);
    expect(await client.multi().incr(key).exec()).toEqual([3]);
    await client.watch(key);
    await other.set(key, "100");
    await expect(client.multi().incr(key).exec()).rejects.toThrow(/watched keys/);
    expect(await client.multi().incr(key).exec()).toEqual([101]);
    settle();
  });

  it("waits in a blocking pop on a duplicate while the first goes on", async () => {
    await connect();
    const key = unique("nr:queue");
    const waiting = await nodeRedis(protocol, incidents, client.duplicate());
    const popped = waiting.blPop(key, 10);
    await until(
      async () => (await proxy.metrics()).get('holdfast_upstream_connections{kind="private"}') === 1,
      {
        what: "the pop waiting on a private connection",
      },
    );
    expect(await client.rPush(key, "job")).toBe(1);
    expect({ ...(await popped) }).toEqual({ key, element: "job" });
    expect(await waiting.blPop(key, 0.05)).toBeNull();
    expect(await waiting.get(key)).toBeNull();
    settle();
  });

  it("subscribes, gets messages and patterns, and unsubscribes", async () => {
    await connect();
    const channel = unique("nr:channel");
    const subscriber = await nodeRedis(protocol, incidents, client.duplicate());
    const messages: string[] = [];
    await subscriber.subscribe(channel, (text, name) => messages.push(`${name} ${text}`));
    await subscriber.pSubscribe("nr:chan*", (text, name) => messages.push(`pattern ${name} ${text}`));
    expect(await client.publish(channel, "hello")).toBe(2);
    await until(() => messages.length === 2, { what: "both messages" });
    expect(messages.sort()).toEqual([`${channel} hello`, `pattern ${channel} hello`].sort());
    await subscriber.unsubscribe(channel);
    await subscriber.pUnsubscribe("nr:chan*");
    expect(await client.publish(channel, "nobody")).toBe(0);
    settle();
  });

  it("selects databases, passes binary values on and iterates", async () => {
    await connect();
    const key = unique("nr");
    await client.select(5);
    const value = randomBytes(2_000_000);
    await client.set(key, value);
    const { RESP_TYPES } = await import("redis");
    const back = await client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).get(key);
    expect(Buffer.compare(back as unknown as Buffer, value)).toBe(0);
    const keys = Array.from({ length: 300 }, (_, i) => `${key}:${i}`);
    await client.mSet(keys.map((one) => [one, "x"] as [string, string]));
    const found = new Set<string>();
    for await (const batch of client.scanIterator({ MATCH: `${key}:*`, COUNT: 50 })) {
      for (const one of batch) found.add(one);
    }
    expect(found).toEqual(new Set(keys));
    expect(await client.eval("return redis.call('GET', KEYS[1])", { keys: [`${key}:0`] })).toBe("x");
    const sha = await client.scriptLoad("return ARGV[1]");
    expect(await client.evalSha(sha, { arguments: ["a"] })).toBe("a");
    settle();
  });
});

describe.each([["RESP2", []] as const, ["RESP3", ["-3"]] as const])("redis-cli with %s", (_name, flags) => {
  const cli = (port: number, args: readonly string[], input?: string | Buffer): Promise<string> =>
    new Promise((resolve, reject) => {
      const child = execFile(
        "redis-cli",
        ["-p", String(port), ...flags, ...args],
        { encoding: "utf8", timeout: 20_000, maxBuffer: 64 * 1024 * 1024 },
        (error, stdout, stderr) => (error && stdout === "" ? reject(error) : resolve(stdout + stderr)),
      );
      child.stdin?.end(input ?? "");
    });

  const SCRIPT = [
    "SET cli:name chaoge",
    "GET cli:name",
    "GET cli:nothing",
    "INCR cli:name",
    "HSET cli:h a 1 b 2",
    "HGETALL cli:h",
    "ZADD cli:z 1.5 a 2 b",
    "ZRANGE cli:z 0 -1 WITHSCORES",
    "NOSUCHCOMMAND",
    "MULTI",
    "INCR cli:n",
    "GET cli:n",
    "EXEC",
    "SELECT 2",
    "GET cli:name",
    "SET cli:name other",
    'ECHO "two words"',
    "PING",
    "EVAL \"return {1,2,'x'}\" 0",
    "DEL cli:name",
    "SELECT 0",
    "DEL cli:name cli:h cli:z cli:n",
  ].join("\n");

  it("prints the same as from Redis directly", async () => {
    const direct = await cli(group.master.port, [], SCRIPT);
    expect(direct).toContain("chaoge");
    expect(await cli(proxy.port, [], SCRIPT)).toBe(direct);
    for (const args of [
      ["--no-raw", "HGETALL", "cli:none"],
      ["-n", "4", "DBSIZE"],
      ["--csv", "LRANGE", "x", "0", "-1"],
    ]) {
      expect(await cli(proxy.port, args)).toBe(await cli(group.master.port, args));
    }
  });

  it("inserts in mass with --pipe, scans, and runs a script file", async () => {
    const commands = Array.from(
      { length: 20_000 },
      (_, i) => `*3\r\n$3\r\nSET\r\n$9\r\ncli:${String(i).padStart(5, "0")}\r\n$1\r\nx\r\n`,
    );
    const report = await cli(proxy.port, ["--pipe"], commands.join(""));
    expect(report).toContain("errors: 0, replies: 20000");
    const scanned = (await cli(proxy.port, ["--scan", "--pattern", "cli:*"])).trim().split("\n");
    expect(new Set(scanned).size).toBe(20_000);
    expect(
      (
        await cli(proxy.port, [
          "EVAL",
          "for i=0,19999 do redis.call('DEL', string.format('cli:%05d', i)) end return redis.call('DBSIZE') >= 0",
          "0",
        ])
      ).trim(),
    ).toMatch(/1|true/);
  });
});

describe("a promotion by hand while the old master lives", () => {
  it("leaves every library connected and gives no error to any of them [1, 8, 9, 17]", {
    timeout: 60_000,
  }, async () => {
    const incidents: Incidents = [];
    const errors: string[] = [];
    const counts = new Map<string, number>();
    let stopping = false;
    const loop = (name: string, step: () => Promise<void>) =>
      (async () => {
        while (!stopping) {
          try {
            await step();
            counts.set(name, (counts.get(name) ?? 0) + 1);
          } catch (error) {
            errors.push(`${name}: ${String(error)}`);
            return;
          }
        }
      })();
    const loops: Promise<void>[] = [];
    for (const protocol of [2, 3] as const) {
      const io = ioredis({ protocol, db: protocol, connectionName: "io" }, incidents);
      const auto = ioredis({ protocol, enableAutoPipelining: true }, incidents);
      const nr = await nodeRedis(protocol, incidents);
      io.defineCommand("addTo", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" });
      const scripted = io as Redis & { addTo(key: string, by: number): Promise<number> };
      loops.push(
        loop(`io ${protocol}`, async () => {
          const replies = (await io.pipeline().incr("n").get("n").hset("h", "f", "v").exec()) ?? [];
          for (const [error] of replies) if (error) throw error;
          for (const [error] of (await io.multi().incr("a").incr("b").exec()) ?? []) if (error) throw error;
          await scripted.addTo("s", 1);
          if ((await io.client("GETNAME")) !== "io") throw new Error("the name is lost");
        }),
        loop(`auto ${protocol}`, async () => {
          await Promise.all(Array.from({ length: 20 }, (_, i) => auto.set(`auto:${i}`, i)));
          await Promise.all(Array.from({ length: 20 }, (_, i) => auto.get(`auto:${i}`)));
        }),
        loop(`nr ${protocol}`, async () => {
          await nr.set("nr", "x");
          if ((await nr.get("nr")) !== "x") throw new Error("its own write is lost");
          await nr.multi().incr("nr:a").incr("nr:b").exec();
        }),
      );
    }
    const cliOutput = startCli("INCR", "cli:counter");
    const all = () =>
      errors.length > 0 || (counts.size === 6 && [...counts.values()].every((count) => count > 20));
    await until(all, { what: "every library at work" });
    expect(errors).toEqual([]);
    const accepted = await proxy.metric("holdfast_clients_accepted_total");

    const [promoted, other] = [group.replica(0), group.replica(1)];
    await promoted.promote();
    await other.replicaOf(promoted);
    await until(async () => (await proxy.metric("holdfast_switches_total")) === 1, { what: "the switch" });
    await group.master.replicaOf(promoted);
    counts.clear();
    await until(all, { what: "every library at work on the new master" });
    const lines = cliOutput.lines();
    await until(() => cliOutput.lines() > lines + 5, { what: "redis-cli at work on the new master" });
    stopping = true;
    await Promise.all(loops);
    const text = await cliOutput.end();

    expect(errors).toEqual([]);
    expect(incidents).toEqual([]);
    expect(text).toMatch(/^(\d+\n)+$/);
    // Nobody came back through another connection either.
    expect(await proxy.metric("holdfast_clients_accepted_total")).toBe(accepted);
    expect(Number(await promoted.cli("GET", "cli:counter"))).toBeGreaterThan(0);
  });
});

/** One redis-cli that repeats a command on its one connection. */
function startCli(...command: string[]): { lines(): number; end(): Promise<string> } {
  const args = ["-p", String(proxy.port), "-r", "-1", "-i", "0.02", ...command];
  const child: ChildProcess = spawn("redis-cli", args, { stdio: ["ignore", "pipe", "pipe"] });
  cleanups.push(() => child.kill("SIGKILL"));
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
    });
  }
  return {
    lines: () => text.split("\n").length - 1,
    end: async () => {
      child.kill("SIGTERM");
      await exited(child);
      return text.slice(0, text.lastIndexOf("\n") + 1);
    },
  };
}

it("redis-cli is there", async () => {
  expect((await run("redis-cli", ["--version"])).stdout).toContain("redis-cli");
});
