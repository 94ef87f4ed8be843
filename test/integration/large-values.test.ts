/** Very large and very small pieces: what arrives is what was sent, and memory is what was promised. */
import { createHash, type Hash } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ByteSocket, forgetPeak, memoryOf } from "../support/bytes.ts";
import { type ProxyProcess, startProxy } from "../support/proxy.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { encodeCommand } from "../support/resp.ts";
import { until } from "../support/wait.ts";

const MB = 1024 * 1024;
const SIZE = 100 * MB;

/** Copies of one value that the proxy may have in memory at once, and what else it may need. */
const COPIES = 3;
const SLACK = 60 * MB;

let redis: RedisServer;
let proxy: ProxyProcess;
const cleanups: (() => void)[] = [];

beforeAll(async () => {
  redis = await startRedis();
  proxy = await startProxy({ nodes: [redis.address], config: { log: { level: "info" } } });
});

afterAll(async () => {
  expect(proxy.logged("a bug")).toEqual([]);
  await proxy?.close();
  await redis?.close();
});

afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

async function socketTo(port: number, onBytes: ((chunk: Buffer) => void) | null = null): Promise<ByteSocket> {
  const socket = await ByteSocket.connect(port, onBytes);
  cleanups.push(() => socket.destroy());
  return socket;
}

/** The same pseudo-random bytes for the same number, a megabyte at a time. */
function megabyte(number: number): Buffer {
  const seed = createHash("sha512").update(String(number)).digest();
  const bytes = Buffer.alloc(MB);
  for (let at = 0; at < MB; at += seed.length) seed.copy(bytes, at);
  bytes.writeUInt32BE(number, MB / 2);
  return bytes;
}

function expectedHash(megabytes: number): string {
  const hash = createHash("sha256");
  for (let i = 0; i < megabytes; i++) hash.update(megabyte(i));
  return hash.digest("hex");
}

/**
 * SET of a value of so many megabytes, made while it is sent: the test must not need more memory than
 * the proxy.
 */
async function sendSet(socket: ByteSocket, key: string, megabytes: number): Promise<void> {
  await socket.send(`*3\r\n$3\r\nSET\r\n$${key.length}\r\n${key}\r\n$${megabytes * MB}\r\n`);
  for (let i = 0; i < megabytes; i++) await socket.send(megabyte(i));
  await socket.send("\r\n");
}

/** Reads `$N\r\n…\r\n` and hashes what is inside. */
class BulkHash {
  readonly #hash: Hash = createHash("sha256");
  readonly #header: number;
  readonly #length: number;
  #seen = 0;

  constructor(length: number) {
    this.#length = length;
    this.#header = `$${length}\r\n`.length;
  }

  take(chunk: Buffer): void {
    const from = Math.max(0, this.#header - this.#seen);
    const to = Math.min(chunk.length, this.#header + this.#length - this.#seen);
    if (to > from) this.#hash.update(chunk.subarray(from, to));
    this.#seen += chunk.length;
  }

  get whole(): boolean {
    return this.#seen === this.#header + this.#length + 2;
  }

  digest(): string {
    return this.#hash.digest("hex");
  }
}

describe("100 MB", () => {
  const base = () => {
    forgetPeak(proxy.pid);
    return memoryOf(proxy.pid).now;
  };

  it("is stored as it was sent, with at most three copies in the proxy", async () => {
    const before = base();
    const socket = await socketTo(proxy.port);
    await sendSet(socket, "large", SIZE / MB);
    expect(await socket.untilReceived(5, 20_000)).toBe("+OK\r\n");
    expect(memoryOf(proxy.pid).peak - before).toBeLessThan(COPIES * SIZE + SLACK);
    // Looked at on the server itself: SHA-1 of what it has, without bringing it here.
    const direct = await socketTo(redis.port);
    void direct.send(
      encodeCommand(["EVAL", "return redis.sha1hex(redis.call('GET', KEYS[1]))", "1", "large"]),
    );
    const sha1 = createHash("sha1");
    for (let i = 0; i < SIZE / MB; i++) sha1.update(megabyte(i));
    expect(await direct.untilReceived(46)).toBe(`$40\r\n${sha1.digest("hex")}\r\n`);
  });

  it("is read as it was stored, with at most three copies in the proxy", async () => {
    const before = base();
    const bulk = new BulkHash(SIZE);
    const socket = await socketTo(proxy.port, (chunk) => bulk.take(chunk));
    void socket.send(encodeCommand(["GET", "large"]));
    await until(() => bulk.whole, { deadlineMs: 20_000, what: "the whole value" });
    expect(bulk.digest()).toBe(expectedHash(SIZE / MB));
    expect(memoryOf(proxy.pid).peak - before).toBeLessThan(COPIES * SIZE + SLACK);
  });

  it("goes both ways in a pipeline and inside MULTI, other replies in their places [15]", async () => {
    const socket = await socketTo(proxy.port);
    void socket.send(encodeCommand(["SET", "small", "1"]));
    await sendSet(socket, "large-too", 20);
    void socket.send(encodeCommand(["STRLEN", "large-too"]));
    void socket.send(encodeCommand(["MULTI"]));
    await sendSet(socket, "large-three", 20);
    for (const command of [["INCR", "small"], ["EXEC"], ["STRLEN", "large-three"]])
      void socket.send(encodeCommand(command));
    const expected = `+OK\r\n+OK\r\n:${20 * MB}\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:2\r\n:${20 * MB}\r\n`;
    expect(await socket.untilReceived(expected.length, 20_000)).toBe(expected);
  });

  it("leaves the proxy's memory again, and the proxy as quick as before", async () => {
    const client = await proxy.connect({ deadlineMs: 5_000 });
    cleanups.push(() => client.close());
    const before = memoryOf(proxy.pid).now;
    for (let i = 0; i < 2_000; i++) expect(await client.command("SET", "small", String(i))).toBe("OK");
    // Whatever the collector still keeps, it does not grow from one large value to the next.
    for (let round = 0; round < 4; round++) {
      const socket = await socketTo(proxy.port);
      await sendSet(socket, "large-too", 50);
      await socket.untilReceived(5, 20_000);
      socket.destroy();
    }
    expect(memoryOf(proxy.pid).now - before).toBeLessThan(2 * 50 * MB + SLACK);
  });

  it("announced by many clients and not sent costs nothing", async () => {
    const before = memoryOf(proxy.pid).now;
    const sockets = await Promise.all(Array.from({ length: 200 }, () => socketTo(proxy.port)));
    for (const socket of sockets) await socket.send(`*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$${500 * MB}\r\nxyz`);
    const client = await proxy.connect({ deadlineMs: 5_000 });
    cleanups.push(() => client.close());
    expect(await client.command("PING")).toBe("PONG");
    expect(memoryOf(proxy.pid).now - before).toBeLessThan(30 * MB);
  });
});

describe("many pieces", () => {
  it("one byte at a time: small commands in RESP and inline are understood", async () => {
    const socket = await socketTo(proxy.port);
    const bytes = Buffer.concat([
      ...[
        ["SET", "byte", "1"],
        ["INCR", "byte"],
        ["MULTI"],
        ["GET", "byte"],
        ["EXEC"],
        ["HELLO", "3"],
        ["GET", "nothing"],
      ].map((one) => encodeCommand(one)),
      Buffer.from('SET "by te" \'v\'\r\nGET "by te"\r\nPING\r\n'),
    ]);
    for (const byte of bytes) {
      await socket.send(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    await until(() => socket.text().endsWith("+PONG\r\n"), { what: "the last reply" });
    const text = socket.text().replace(/%7\r\n.*?\*0\r\n/s, "<hello>");
    expect(text).toBe(
      "+OK\r\n:2\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n2\r\n<hello>_\r\n+OK\r\n$1\r\nv\r\n+PONG\r\n",
    );
  });

  it("a reply of 200,000 elements is the server's own, byte for byte", async () => {
    await redis.cli(
      "EVAL",
      "for i = 1, 200000, 1000 do local t = {} for j = i, i + 999 do t[#t + 1] = 'element ' .. j end redis.call('RPUSH', 'long', unpack(t)) end",
      "0",
    );
    const read = async (port: number): Promise<{ digest: string; bytes: number }> => {
      const hash = createHash("sha256");
      const socket = await socketTo(port, (chunk) => hash.update(chunk));
      void socket.send(encodeCommand(["LRANGE", "long", "0", "-1"]));
      const body = Array.from({ length: 200_000 }, (_, i) => `element ${i + 1}`).reduce(
        (sum, one) => sum + `$${one.length}\r\n${one}\r\n`.length,
        0,
      );
      const bytes = "*200000\r\n".length + body;
      await until(() => socket.received >= bytes, {
        deadlineMs: 15_000,
        what: `${bytes} bytes, got ${socket.received}`,
      });
      expect(socket.received).toBe(bytes);
      return { digest: hash.digest("hex"), bytes };
    };
    const direct = await read(redis.port);
    const started = performance.now();
    expect(await read(proxy.port)).toEqual(direct);
    // Looked at once, not again with every piece that arrives.
    expect(performance.now() - started).toBeLessThan(3_000);
  });

  it("a request of 200,000 arguments arrives whole, and one that comes in pieces of 1,000 bytes too", async () => {
    const members = Array.from({ length: 200_000 }, (_, i) => `member ${i}`);
    const bytes = encodeCommand(["SADD", "wide", ...members]);
    const socket = await socketTo(proxy.port);
    await socket.send(bytes);
    expect(await socket.untilReceived(9)).toBe(":200000\r\n");
    const slow = await socketTo(proxy.port);
    for (let at = 0; at < bytes.length; at += 1_000) void slow.send(bytes.subarray(at, at + 1_000));
    expect(await slow.untilReceived(4)).toBe(":0\r\n");
  });

  it("thousands of medium replies to many clients at once are each the client's own [15]", async () => {
    await redis.cli(
      "EVAL",
      "for i = 0, 49 do redis.call('SET', 'medium:' .. i, string.rep(string.char(65 + i % 26), 20000 + i)) end",
      "0",
    );
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => proxy.connect({ deadlineMs: 20_000 })),
    );
    cleanups.push(() => {
      for (const client of clients) client.close();
    });
    await Promise.all(
      clients.map(async (client, index) => {
        const keys = Array.from({ length: 200 }, (_, i) => (index * 7 + i) % 50);
        const replies = await client.pipeline(keys.map((key) => ["GET", `medium:${key}`]));
        for (const [at, key] of keys.entries()) {
          expect(replies[at] === String.fromCharCode(65 + (key % 26)).repeat(20_000 + key)).toBe(true);
        }
      }),
    );
  });

  it("values of every size around the sizes of the buffers pass both ways unchanged", async () => {
    const client = await proxy.connect({ deadlineMs: 10_000 });
    cleanups.push(() => client.close());
    const edges = [16, 32, 64, 128, 256, 1024].map((kb) => kb * 1024);
    const sizes = edges
      .flatMap((edge) => Array.from({ length: 12 }, (_, i) => edge - 60 + i * 10))
      .concat(edges.flatMap((edge) => [edge - 1, edge, edge + 1]));
    for (const size of sizes) {
      const value = megabyte(size).subarray(0, size).toString("hex").slice(0, size);
      const [set, get, ping] = await client.pipeline([
        ["SET", "edge", value],
        ["GET", "edge"],
        ["ECHO", String(size)],
      ]);
      expect([set, get === value, ping]).toEqual(["OK", true, String(size)]);
    }
  });
});
