/**
 * Every bound is named in the configuration; whoever hits it is told which it was, and nobody else notices.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ByteSocket, forgetPeak, memoryOf, quantile } from "../support/bytes.ts";
import type { RawClient } from "../support/client.ts";
import { type ConfigObject, type ProxyProcess, startProxy } from "../support/proxy.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { encodeCommand, type Reply, ReplyError } from "../support/resp.ts";
import { sleep, until } from "../support/wait.ts";

const KB = 1024;
const MB = 1024 * KB;

let redis: RedisServer;

beforeAll(async () => {
  redis = await startRedis();
});

afterAll(async () => {
  await redis?.close();
});

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function bytesTo(port: number): Promise<ByteSocket> {
  const socket = await ByteSocket.connect(port);
  cleanups.push(() => socket.destroy());
  return socket;
}

async function clientOf(proxy: ProxyProcess, options: { protocol?: 2 | 3 } = {}): Promise<RawClient> {
  const client = await proxy.connect({ deadlineMs: 15_000, ...options });
  cleanups.push(() => client.close());
  return client;
}

function word(reply: Reply | undefined): string {
  return reply instanceof ReplyError ? reply.word : `answered ${JSON.stringify(reply)?.slice(0, 100)}`;
}

function message(reply: Reply | undefined): string {
  return reply instanceof ReplyError ? reply.message : `answered ${JSON.stringify(reply)?.slice(0, 100)}`;
}

/** A proxy of its own for the tests of one block. */
function proxyWith(config: ConfigObject): () => ProxyProcess {
  let proxy: ProxyProcess;
  beforeAll(async () => {
    proxy = await startProxy({ nodes: [redis.address], config: { ...config, log: { level: "info" } } });
  });
  afterAll(async () => {
    expect(proxy.logged("a bug")).toEqual([]);
    expect(proxy.stray).toBe("");
    await proxy.close();
  });
  return () => proxy;
}

const closed = async (proxy: ProxyProcess, reason: string) =>
  (await proxy.metrics()).get(`holdfast_clients_closed_total{reason="${reason}"}`) ?? 0;

describe("small limits", () => {
  const get = proxyWith({
    limits: {
      maxClients: 5,
      maxRequestBytes: "64kb",
      maxRequestArgs: 20,
      idleTimeout: "2s",
      outputBufferBytes: "1mb",
      maxUnsentBytes: "64kb",
    },
    upstream: { maxLanes: 3, maxPrivate: 2 },
  });

  beforeEach(async () => {
    await until(async () => (await get().metric("holdfast_clients")) === 0, {
      what: "nobody being connected",
    });
  });

  it("limits.maxClients: one more is told so and closed, and there is room again when one leaves", async () => {
    const proxy = get();
    const clients = await Promise.all(Array.from({ length: 5 }, () => clientOf(proxy)));
    for (const client of clients) expect(await client.command("PING")).toBe("PONG");
    const sixth = await bytesTo(proxy.port);
    expect(await sixth.untilEnded()).toBe("-ERR max number of clients reached\r\n");
    expect(await proxy.metric("holdfast_clients_refused_total")).toBe(1);
    expect(await proxy.metric("holdfast_clients")).toBe(5);
    clients[0]?.close();
    await until(async () => (await proxy.metric("holdfast_clients")) === 4, { what: "the room being free" });
    expect(await (await clientOf(proxy)).command("PING")).toBe("PONG");
    for (const client of clients.slice(1)) expect(await client.command("PING")).toBe("PONG");
  });

  it.each([
    ["limits.maxRequestBytes", encodeCommand(["SET", "k", "x".repeat(64 * KB)])],
    [
      "limits.maxRequestBytes",
      encodeCommand(["RPUSH", "k", ...Array.from({ length: 10 }, () => "x".repeat(10 * KB))]),
    ],
    ["limits.maxRequestArgs", encodeCommand(["RPUSH", "k", ...Array.from({ length: 19 }, () => "x")])],
    [
      "limits.maxRequestArgs",
      Buffer.from(`${["RPUSH", "k", ...Array.from({ length: 19 }, () => "x")].join(" ")}\r\n`),
    ],
  ])(
    "%s: what came before is answered, the error names the limit, that client is closed",
    async (limit, bytes) => {
      const proxy = get();
      const neighbour = await clientOf(proxy);
      const before = await closed(proxy, "request-limit");
      const socket = await bytesTo(proxy.port);
      void socket.send(Buffer.concat([encodeCommand(["SET", "k", "v"]), encodeCommand(["GET", "k"]), bytes]));
      expect(await socket.untilEnded()).toMatch(
        new RegExp(`^\\+OK\\r\\n\\$1\\r\\nv\\r\\n-ERR proxy: .*${limit}.*\\r\\n$`),
      );
      expect(await neighbour.command("GET", "k")).toBe("v");
      expect(await closed(proxy, "request-limit")).toBe(before + 1);
    },
  );

  it("limits.maxRequestBytes and maxRequestArgs let pass what is just within them", async () => {
    const client = await clientOf(get());
    expect(await client.command("SET", "k", "x".repeat(64 * KB - 50))).toBe("OK");
    expect(await client.command("DEL", ...Array.from({ length: 19 }, (_, i) => `k${i}`))).toBe(0);
  });

  it("limits.maxRequestBytes bounds what MULTI queues: refused by name, the connection stays, nothing runs", async () => {
    const client = await clientOf(get());
    await client.command("DEL", "queued");
    expect(await client.command("MULTI")).toBe("OK");
    const replies: Reply[] = [];
    for (let i = 0; i < 8; i++) replies.push(await client.command("APPEND", "queued", "x".repeat(10 * KB)));
    expect(replies.slice(0, 6)).toEqual(Array.from({ length: 6 }, () => "QUEUED"));
    expect(message(replies[6])).toMatch(/^ERR proxy: .*limits\.maxRequestBytes/);
    expect(word(await client.command("EXEC"))).toBe("EXECABORT");
    expect(await client.command("EXISTS", "queued")).toBe(0);
    expect(client.disconnected).toBe(false);
  });

  it("limits.idleTimeout: a client that asks nothing is closed and counted, one that asks or waits is not", async () => {
    const proxy = get();
    const before = await closed(proxy, "idle");
    const idle = await clientOf(proxy);
    const busy = await clientOf(proxy);
    const waiting = await clientOf(proxy);
    const subscriber = await clientOf(proxy);
    expect(await idle.command("PING")).toBe("PONG");
    const popped = waiting.command("BLPOP", "idle-queue", "0");
    expect(await subscriber.command("SUBSCRIBE", "idle-channel")).toEqual(["subscribe", "idle-channel", 1]);
    const end = performance.now() + 4_500;
    while (performance.now() < end) {
      expect(await busy.command("PING")).toBe("PONG");
      await sleep(100);
    }
    await idle.untilDisconnected(3_000);
    expect(await busy.command("RPUSH", "idle-queue", "job")).toBe(1);
    expect(await popped).toEqual(["idle-queue", "job"]);
    expect(await busy.command("PUBLISH", "idle-channel", "x")).toBe(1);
    expect([busy.disconnected, waiting.disconnected, subscriber.disconnected]).toEqual([false, false, false]);
    expect(await closed(proxy, "idle")).toBe(before + 1);
  });

  it("upstream.maxPrivate: one client too many is refused by name, on its open connection, and gets in later", async () => {
    const proxy = get();
    const [first, second, third] = [await clientOf(proxy), await clientOf(proxy), await clientOf(proxy)];
    expect(await first.command("WATCH", "a")).toBe("OK");
    expect(await second.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
    for (const command of [["WATCH", "a"], ["BLPOP", "q", "0.1"], ["MONITOR"]]) {
      expect(message(await third.command(...command))).toMatch(/^ERR proxy: .*upstream\.maxPrivate/);
    }
    // Subscribers share a connection: there is room for as many as like.
    const fourth = await clientOf(proxy);
    expect(await fourth.command("SUBSCRIBE", "d")).toEqual(["subscribe", "d", 1]);
    expect(await third.command("SET", "k", "v")).toBe("OK");
    expect(await first.command("UNWATCH")).toBe("OK");
    const isFree = async () =>
      (await proxy.metrics()).get('holdfast_upstream_connections{kind="private"}') === 1;
    await until(isFree, { what: "the private connection being given back" });
    expect(await third.command("BLPOP", "q", "0.05")).toBeNull();
  });

  it("upstream.maxLanes: a database too many is refused by name, and the others go on", async () => {
    const proxy = get();
    const client = await clientOf(proxy);
    const seen: string[] = [];
    for (let db = 0; db < 8; db++) {
      const replies = await client.pipeline([
        ["SELECT", String(db)],
        ["SET", "k", String(db)],
      ]);
      seen.push(
        replies.map((reply) => (reply instanceof ReplyError ? reply.message : String(reply))).join(", "),
      );
    }
    expect(seen.slice(0, 2)).toEqual(["OK, OK", "OK, OK"]);
    expect(seen.some((text) => /ERR proxy: .*upstream\.maxLanes/.test(text))).toBe(true);
    expect(await client.command("SELECT", 0)).toBe("OK");
    expect(await client.command("GET", "k")).toBe("0");
    expect(client.disconnected).toBe(false);
  });

  it("limits.outputBufferBytes: a reply beyond it is replaced by an error that names it, the connection stays", async () => {
    const proxy = get();
    await redis.cli("SET", "large", "x".repeat(3 * MB));
    await redis.cli(
      "EVAL",
      "for i = 1, 20 do redis.call('SET', 'part' .. i, string.rep('y', 100000)) end",
      "0",
    );
    const client = await clientOf(proxy);
    const neighbour = await clientOf(proxy);
    const parts = Array.from({ length: 20 }, (_, i) => `part${i + 1}`);
    const replies = client.pipeline([
      ["GET", "large"],
      ["PING"],
      ["STRLEN", "large"],
      ["MGET", ...parts.slice(0, 15)],
      ["ECHO", "behind"],
    ]);
    const others = neighbour.pipeline(Array.from({ length: 200 }, (_, i) => ["ECHO", String(i)]));
    const [large, pong, length, many, behind] = await replies;
    expect(message(large)).toMatch(/^ERR proxy: .*limits\.outputBufferBytes/);
    expect([pong, length, behind]).toEqual(["PONG", 3 * MB, "behind"]);
    expect(message(many)).toMatch(/^ERR proxy: .*limits\.outputBufferBytes/);
    expect(await others).toEqual(Array.from({ length: 200 }, (_, i) => String(i)));
    expect([client.disconnected, neighbour.disconnected]).toEqual([false, false]);
    expect(await client.command("GET", "part1")).toHaveLength(100_000);
  });
});

describe("clients that do not read, or send without end", () => {
  const get = proxyWith({
    limits: { outputBufferBytes: "8mb", maxUnsentBytes: "256kb", maxPipeline: 200 },
    upstream: { maxPrivate: 10 },
  });

  it("limits.maxPipeline: 20,000 commands in one write get all replies in order [15]", async () => {
    const proxy = get();
    const client = await clientOf(proxy);
    const count = 20_000;
    await client.pipeline(Array.from({ length: 100 }, (_, i) => ["SET", `pipe:${i}`, `value ${i}`]));
    const gets = Array.from({ length: count }, (_, i) => ["GET", `pipe:${i % 100}`]);
    expect(await client.pipeline(gets)).toEqual(gets.map((_, i) => `value ${i % 100}`));
    // Through other ways in between: local answers, transactions, a private connection.
    const mixed = Array.from({ length: count / 10 }, (_, i) => [
      ["GET", "pipe:1"],
      ["CLIENT", "GETNAME"],
      ["INCR", "pipe:n"],
      ["MULTI"],
      ["ECHO", String(i)],
      ["EXEC"],
      ["PING"],
    ]).flat();
    await client.command("SET", "pipe:n", "0");
    const expected = Array.from({ length: count / 10 }, (_, i) => [
      "value 1",
      null,
      i + 1,
      "OK",
      "QUEUED",
      [String(i)],
      "PONG",
    ]).flat();
    expect(await client.pipeline(mixed)).toEqual(expected);
  });

  it("a client that does not read is not read from, whatever it asks; memory stays bounded, others are served", async () => {
    const proxy = get();
    await redis.cli("SET", "medium", "x".repeat(10 * KB));
    const base = memoryOf(proxy.pid).now;
    forgetPeak(proxy.pid);
    const slow = await bytesTo(proxy.port);
    slow.socket.pause();
    // 200 MB of replies asked for, none taken.
    const asked = 20_000;
    void slow.send(Buffer.concat(Array.from({ length: asked }, () => encodeCommand(["GET", "medium"]))));
    await until(async () => (await proxy.metric("holdfast_clients_paused")) === 1, {
      what: "the slow client being paused",
    });
    const neighbour = await clientOf(proxy);
    for (let i = 0; i < 500; i++) expect(await neighbour.command("GET", "pipe:1")).toBe("value 1");
    expect(memoryOf(proxy.pid).peak - base).toBeLessThan(60 * MB);
    expect(await closed(proxy, "output-limit")).toBe(0);
    slow.socket.resume();
    const each = 10 * KB + "$10240\r\n\r\n".length;
    await until(() => slow.received >= asked * each, {
      deadlineMs: 20_000,
      what: "all replies after it reads again",
    });
    expect(slow.received).toBe(asked * each);
    expect(await proxy.metric("holdfast_clients_paused")).toBe(0);
    expect(memoryOf(proxy.pid).peak - base).toBeLessThan(80 * MB);
  });

  it("limits.outputBufferBytes: a subscriber that does not read is cut and counted, other subscribers get everything", async () => {
    const proxy = get();
    const before = await closed(proxy, "output-limit");
    const deaf = await bytesTo(proxy.port);
    await deaf.send(encodeCommand(["SUBSCRIBE", "news"]));
    await deaf.untilReceived(10);
    deaf.socket.pause();
    const listener = await clientOf(proxy, { protocol: 3 });
    listener.send(encodeCommand(["SUBSCRIBE", "news"]));
    await until(() => listener.pushes.length === 1, { what: "the subscription" });
    const base = memoryOf(proxy.pid).now;
    forgetPeak(proxy.pid);
    const publisher = await clientOf(proxy);
    const text = "n".repeat(100 * KB);
    let sent = 0;
    while ((await closed(proxy, "output-limit")) === before && sent < 400) {
      await publisher.pipeline(Array.from({ length: 10 }, () => ["PUBLISH", "news", text]));
      sent += 10;
    }
    expect(await closed(proxy, "output-limit")).toBe(before + 1);
    expect(sent * 100 * KB).toBeGreaterThan(8 * MB);
    await until(() => listener.pushes.length === sent + 1, { what: "every message at the one that reads" });
    expect(memoryOf(proxy.pid).peak - base).toBeLessThan(80 * MB);
    expect([listener.disconnected, publisher.disconnected]).toEqual([false, false]);
    deaf.socket.resume();
    await until(() => deaf.ended, { what: "the deaf one seeing the end" });
  });

  it("a value sent slowly delays no other client, on the same shared connection", {
    timeout: 30_000,
  }, async () => {
    const proxy = get();
    const sender = await bytesTo(proxy.port);
    const other = await clientOf(proxy);
    await other.command("SET", "small", "v");
    const size = 100 * MB;
    const piece = Buffer.alloc(512 * KB, "s");
    const measure = async (isGoing: () => boolean): Promise<number[]> => {
      const times: number[] = [];
      while (isGoing()) {
        const start = performance.now();
        const replies = await other.pipeline([["PING"], ["GET", "small"], ["SET", "small", "v"]]);
        times.push(performance.now() - start);
        expect(replies).toEqual(["PONG", "v", "OK"]);
        await sleep(1);
      }
      return times;
    };
    // What the machine takes for it with nothing sent.
    const untilMs = performance.now() + 1_000;
    const alone = await measure(() => performance.now() < untilMs);
    let sending = true;
    const sentFromMs = performance.now();
    const measured = measure(() => sending);
    await sender.send(`*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$${size}\r\n`);
    for (let sent = 0; sent < size; sent += piece.length) {
      await sender.send(piece);
      await sleep(8);
    }
    await sender.send("\r\n");
    await sender.untilReceived(5, 10_000);
    const sendingMs = performance.now() - sentFromMs;
    sending = false;
    const times = await measured;
    expect(sender.text()).toBe("+OK\r\n");
    const [median, late] = [0.5, 0.99].map((share) => quantile(alone, share)) as [number, number];
    expect(times.length).toBeGreaterThan(50);
    expect(quantile(times, 0.5)).toBeLessThan(10 + 3 * median);
    expect(quantile(times, 0.95)).toBeLessThan(50 + 3 * late);
    // Who has to wait for the value waits for nearly as long as it is sent.
    expect(Math.max(...times)).toBeLessThan(sendingMs / 2);
    await redis.cli("DEL", "slow");
  });
});

describe("holding", () => {
  it("a client is held once for an outage, however many requests it has waiting [8, 45]", async () => {
    const master = await startRedis();
    cleanups.push(() => master.close());
    const proxy = await startProxy({ nodes: [master.address] });
    cleanups.push(() => proxy.kill());
    const clients = await Promise.all(Array.from({ length: 5 }, () => clientOf(proxy)));
    for (const client of clients) expect(await client.command("SET", "n", "0")).toBe("OK");
    await master.kill("SIGSTOP");
    await until(async () => (await proxy.metric("holdfast_writable")) === 0, {
      what: "the outage being seen",
    });
    const replies = clients.map((client) =>
      client.pipeline(Array.from({ length: 200 }, () => ["INCR", "n"])),
    );
    await until(async () => (await proxy.metric("holdfast_held")) === 5, { what: "all being held" });
    await master.kill("SIGCONT");
    const numbers = (await Promise.all(replies)).flat().map(Number);
    expect(numbers.sort((a, b) => a - b)).toEqual(Array.from({ length: 1_000 }, (_, i) => i + 1));
    const { hold } = await proxy.status<{ hold: Record<string, number> }>();
    expect(hold).toMatchObject({ held: 5, released: 5, expired: 0, left: 0, failed: 0, now: 0, bytes: 0 });
  });

  it("hold.maxBytesPerClient pauses reading, hold.maxBytes refuses by name, and all that was taken is answered in order [8, 43, 45]", {
    timeout: 40_000,
  }, async () => {
    const master = await startRedis();
    cleanups.push(() => master.close());
    await master.cli("SET", "x", "1");
    const proxy = await startProxy({
      nodes: [master.address],
      config: {
        hold: { maxTime: "20s", maxBytes: "2mb", maxBytesPerClient: "256kb" },
        log: { level: "info" },
      },
    });
    cleanups.push(() => proxy.kill());
    const value = "v".repeat(10 * KB);
    const writer = await bytesTo(proxy.port);
    const small = await clientOf(proxy);
    expect(await small.command("SET", "x", "1")).toBe("OK");
    await master.kill("SIGSTOP");
    await until(async () => (await proxy.metric("holdfast_writable")) === 0, {
      what: "the outage being seen",
    });
    const base = memoryOf(proxy.pid).now;
    // 40 MB, of which only 256 KB may be taken.
    const count = 4_000;
    let handedOver = false;
    void writer
      .send(
        Buffer.concat(Array.from({ length: count }, (_, i) => encodeCommand(["SET", `held:${i}`, value]))),
      )
      .then(() => {
        handedOver = true;
      });
    await until(async () => (await proxy.metric("holdfast_clients_paused")) === 1, {
      what: "the writer not being read from",
    });
    await sleep(500);
    const bytes = await proxy.metric("holdfast_held_bytes");
    expect(bytes).toBeGreaterThanOrEqual(256 * KB);
    expect(bytes).toBeLessThan(512 * KB);
    expect(handedOver).toBe(false);
    expect(memoryOf(proxy.pid).now - base).toBeLessThan(20 * MB);

    // Others fill what is left of the common bound.
    const fillers = await Promise.all(Array.from({ length: 12 }, () => bytesTo(proxy.port)));
    for (const filler of fillers)
      void filler.send(
        Buffer.concat(Array.from({ length: 20 }, () => encodeCommand(["SET", "filler", value]))),
      );
    const refusals = () => fillers.filter((filler) => filler.text().startsWith("-MASTERDOWN"));
    await until(() => refusals().length > 0, { what: "somebody finding no room" });
    for (const refused of refusals()) expect(refused.text()).toMatch(/^-MASTERDOWN .*hold\.maxBytes/);
    expect(refusals().length).toBeLessThan(12);
    expect(await proxy.metric("holdfast_hold_full_total")).toBeGreaterThan(0);
    expect(await proxy.metric("holdfast_held_bytes")).toBeLessThan(3 * MB);

    await master.kill("SIGCONT");
    const ok = "+OK\r\n".length;
    await until(() => writer.received >= count * ok, { deadlineMs: 15_000, what: "every write answered" });
    const answers = new Map<string, number>();
    for (const line of writer.text().trim().split("\r\n")) answers.set(line, (answers.get(line) ?? 0) + 1);
    expect(answers).toEqual(new Map([["+OK", count]]));
    for (const filler of fillers) {
      await until(() => filler.text().split("\r\n").length === 21, { what: "every filler answered" });
      expect(filler.ended).toBe(false);
    }
    expect(await small.command("GET", `held:${count - 1}`)).toBe(value);
    const status = await proxy.status<{ hold: Record<string, number> }>();
    const { held, released, expired, left, failed, now } = status.hold as Record<
      "held" | "released" | "expired" | "left" | "failed" | "now",
      number
    >;
    expect(held).toBe(released + expired + left + failed + now);
    expect([now, expired, failed]).toEqual([0, 0, 0]);
    expect(await proxy.metric("holdfast_held_bytes")).toBe(0);
  });
});
