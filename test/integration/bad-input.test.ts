/** Nothing that a client or a node sends ends the process, and nobody pays for another's bytes. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ByteSocket, forgetPeak, memoryOf, processorMsOf } from "../support/bytes.ts";
import { type FakeNode, type Handler, resp, SILENT, startFakeNode } from "../support/fake-node.ts";
import { type ProxyProcess, startProxy } from "../support/proxy.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { encodeCommand, type Reply, ReplyError } from "../support/resp.ts";
import { sleep, until } from "../support/wait.ts";

const MB = 1024 * 1024;

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function bytesTo(port: number): Promise<ByteSocket> {
  const socket = await ByteSocket.connect(port);
  cleanups.push(() => socket.destroy());
  return socket;
}

function word(reply: Reply | undefined): string {
  return reply instanceof ReplyError ? reply.word : `answered ${JSON.stringify(reply)}`;
}

describe("what a client sends", () => {
  let redis: RedisServer;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    redis = await startRedis();
    proxy = await startProxy({ nodes: [redis.address] });
  });

  afterAll(async () => {
    expect(proxy.logged("a bug")).toEqual([]);
    expect(proxy.stray).toBe("");
    await proxy?.close();
    await redis?.close();
  });

  const BROKEN: readonly (readonly [name: string, bytes: string])[] = [
    ["a length that is no number", "*abc\r\n"],
    ["a length that begins with plus", "*+1\r\n"],
    ["a length with a leading zero", "*01\r\n"],
    ["an empty length", "*\r\n"],
    ["a length with a blank", "*1 \r\n"],
    ["a length beyond 64 bits", "*99999999999999999999\r\n"],
    ["an integer instead of a bulk string", "*1\r\n:5\r\n"],
    ["a simple string instead of a bulk string", "*2\r\n$3\r\nGET\r\n+k\r\n"],
    ["an array inside an array", "*1\r\n*1\r\n$4\r\nPING\r\n"],
    ["a bulk length that is no number", "*1\r\n$abc\r\n"],
    ["a negative bulk length", "*1\r\n$-1\r\n"],
    ["an empty bulk length", "*1\r\n$\r\n"],
    ["a bulk length beyond 64 bits", "*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n"],
    ["a double quote that does not close", 'SET k "v\r\n'],
    ["a single quote that does not close", "SET k 'v\r\n"],
    ["something behind a closing quote", 'SET k "v"x\r\n'],
    ["an inline command without an end", "x".repeat(70 * 1024)],
  ];

  it.each(BROKEN)("%s: Redis's own error, then the end, for that client alone", async (_name, bytes) => {
    const neighbour = await proxy.connect({ deadlineMs: 5_000 });
    const closed = (await proxy.metrics()).get('holdfast_clients_closed_total{reason="protocol-error"}') ?? 0;
    const valid = Buffer.concat([
      encodeCommand(["SET", "k", "v"]),
      encodeCommand(["GET", "k"]),
      encodeCommand(["PING"]),
    ]);
    const say = async (port: number): Promise<string> => {
      const socket = await bytesTo(port);
      void socket.send(Buffer.concat([valid, Buffer.from(bytes, "latin1")]));
      return socket.untilEnded();
    };
    const direct = await say(redis.port);
    expect(direct).toMatch(/^\+OK\r\n\$1\r\nv\r\n\+PONG\r\n-ERR Protocol error: .*\r\n$/);
    const busy = neighbour.pipeline(Array.from({ length: 500 }, (_, i) => ["ECHO", String(i)]));
    expect(await say(proxy.port)).toBe(direct);
    expect(await busy).toEqual(Array.from({ length: 500 }, (_, i) => String(i)));
    expect(await neighbour.command("SET", "k", "w")).toBe("OK");
    expect((await proxy.metrics()).get('holdfast_clients_closed_total{reason="protocol-error"}')).toBe(
      closed + 1,
    );
    neighbour.close();
  });

  it("a bulk string without its line end is an error, though Redis does not look: others share its connection", async () => {
    const socket = await bytesTo(proxy.port);
    void socket.send("*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n");
    expect(await socket.untilEnded()).toMatch(/^-ERR Protocol error: .*\r\n$/);
  });

  it("what follows garbage in the same write is not run", async () => {
    const socket = await bytesTo(proxy.port);
    void socket.send(
      Buffer.concat([Buffer.from("*1\r\n:1\r\n"), encodeCommand(["SET", "after-garbage", "x"])]),
    );
    await socket.untilEnded();
    expect(await redis.cli("EXISTS", "after-garbage")).toBe(0);
  });

  it("takes what a browser says for what it is: the client is closed, and no shared connection with it", async () => {
    // Redis closes a connection on which it hears POST or Host: (server.c, securityWarningCommand).
    const neighbour = await proxy.connect({ deadlineMs: 5_000 });
    await neighbour.command("SET", "n", "0");
    const lost = await proxy.metric("holdfast_upstream_lost_total");
    const holds = await proxy.metric("holdfast_holds_total");
    const errors: string[] = [];
    let acked = 0;
    for (let round = 0; round < 20; round++) {
      const browser = await bytesTo(proxy.port);
      const incr = neighbour.pipeline(Array.from({ length: 50 }, () => ["INCR", "n"]));
      void browser.send("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 6\r\n\r\nPING\r\n");
      for (const reply of await incr) {
        if (reply instanceof ReplyError) errors.push(reply.message);
        else acked++;
      }
      await browser.untilEnded();
      expect(browser.text()).not.toContain("PONG");
    }
    expect(errors).toEqual([]);
    expect(await neighbour.command("GET", "n")).toBe(String(acked));
    expect(await proxy.metric("holdfast_upstream_lost_total")).toBe(lost);
    expect(await proxy.metric("holdfast_holds_total")).toBe(holds);
    neighbour.close();
  });

  const REFUSED: readonly (readonly string[])[] = [
    ["REPLICAOF", "NO", "ONE"],
    ["SLAVEOF", "127.0.0.1", "1"],
    ["FAILOVER"],
    ["SHUTDOWN"],
    ["SHUTDOWN", "NOSAVE"],
    ["SYNC"],
    ["PSYNC", "?", "-1"],
    ["REPLCONF", "listening-port", "1"],
    ["SCRIPT", "DEBUG", "YES"],
  ];

  it.each(REFUSED.map((args) => [args.join(" "), args] as const))(
    "%s is refused with a reason, alone, in a pipeline and inside MULTI [36]",
    async (_name, args) => {
      const client = await proxy.connect({ deadlineMs: 5_000 });
      const reply = await client.command(...args);
      expect((reply as ReplyError).message).toMatch(
        new RegExp(`^ERR proxy: .*${args[0]}.*(not passed on|not supported)`),
      );
      const piped = await client.pipeline([["SET", "k", "1"], args, ["GET", "k"]]);
      expect([piped[0], word(piped[1]), piped[2]]).toEqual(["OK", "ERR", "1"]);
      const multi = await client.pipeline([["MULTI"], ["SET", "k", "2"], args, ["EXEC"], ["GET", "k"]]);
      expect(word(multi[2])).toBe("ERR");
      expect(word(multi[3])).toBe("EXECABORT");
      expect(multi[4]).toBe("1");
      expect((await redis.info()).get("role")).toBe("master");
      expect(client.disconnected).toBe(false);
      client.close();
    },
  );

  it("a client that sends its commands and FIN gets every reply, then the end", async () => {
    const direct = await bytesTo(redis.port);
    const socket = await bytesTo(proxy.port);
    const commands: string[][] = [
      ["SET", "half", "1"],
      ["GET", "half"],
      ["INCR", "half"],
      ["EVAL", "local t = 0 for i = 1, 3000000 do t = t + i end return t", "0"],
      ["MULTI"],
      ["INCR", "half"],
      ["EXEC"],
      ["GET", "half"],
      ["PING"],
    ];
    for (const one of [direct, socket]) {
      void one.send(Buffer.concat(commands.map(encodeCommand)));
      one.end();
    }
    expect(await direct.untilEnded()).toContain("PONG");
    expect(await socket.untilEnded()).toBe(
      "+OK\r\n$1\r\n1\r\n:2\r\n:4500001500000\r\n+OK\r\n+QUEUED\r\n*1\r\n:3\r\n$1\r\n3\r\n+PONG\r\n",
    );
  });

  it("WATCH … EXEC and FIN: every reply, then the end", async () => {
    const commands = [
      ["WATCH", "half"],
      ["MULTI"],
      ["SET", "half", "7"],
      ["EXEC"],
      ["WATCH", "half"],
      ["UNWATCH"],
      ["PING"],
    ];
    const expected = "+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n+OK\r\n+OK\r\n+PONG\r\n";
    for (const port of [redis.port, proxy.port]) {
      const socket = await bytesTo(port);
      void socket.send(Buffer.concat(commands.map((one) => encodeCommand(one))));
      socket.end();
      expect(await socket.untilEnded()).toBe(expected);
    }
  });

  it.each([
    ["at once", [["BLPOP", "never", "0"]]],
    [
      "behind a write",
      [
        ["SET", "a", "1"],
        ["BLPOP", "never", "0"],
      ],
    ],
    [
      "behind a watched transaction",
      [["WATCH", "a"], ["MULTI"], ["PING"], ["EXEC"], ["BLPOP", "never", "0"]],
    ],
    [
      "in a stream's read",
      [
        ["SET", "a", "1"],
        ["XREAD", "BLOCK", "0", "STREAMS", "never", "$"],
      ],
    ],
    [
      "in a subscription",
      [
        ["SET", "a", "1"],
        ["SUBSCRIBE", "c"],
      ],
    ],
  ] as const)(
    "a client that sends FIN and waits %s is let go, on the server too",
    async (_name, commands) => {
      const before = await proxy.metric("holdfast_clients");
      const privates = async () =>
        (await proxy.metrics()).get('holdfast_upstream_connections{kind="private"}');
      const privatesBefore = await privates();
      const socket = await bytesTo(proxy.port);
      void socket.send(Buffer.concat(commands.map((one) => encodeCommand(one))));
      socket.end();
      await socket.untilEnded(5_000);
      await until(async () => (await proxy.metric("holdfast_clients")) === before, {
        deadlineMs: 5_000,
        what: "the client being forgotten",
      });
      await until(async () => (await privates()) === privatesBefore, {
        deadlineMs: 5_000,
        what: "its private connection being closed",
      });
    },
  );

  it("a client that sends half a command and FIN is let go", async () => {
    const before = await proxy.metric("holdfast_clients");
    const socket = await bytesTo(proxy.port);
    void socket.send("*2\r\n$3\r\nGET\r\n$5\r\nab");
    socket.end();
    expect(await socket.untilEnded()).toBe("");
    await until(async () => (await proxy.metric("holdfast_clients")) === before, {
      what: "the client being forgotten",
    });
  });

  it("QUIT is answered behind everything before it, and what follows is not run", async () => {
    const socket = await bytesTo(proxy.port);
    void socket.send(
      Buffer.concat(
        [["SET", "quit", "1"], ["GET", "quit"], ["QUIT"], ["SET", "quit", "2"]].map(encodeCommand),
      ),
    );
    expect(await socket.untilEnded()).toBe("+OK\r\n$1\r\n1\r\n+OK\r\n");
    expect(await redis.cli("GET", "quit")).toBe("1");
  });

  it("a client that leaves with everything in flight leaves nothing behind", async () => {
    const before = await proxy.metric("holdfast_clients");
    for (let i = 0; i < 100; i++) {
      const socket = await bytesTo(proxy.port);
      const commands = [
        ["SET", "gone", "x".repeat(i)],
        ["BLPOP", "never", "0"],
        ["GET", "gone"],
        ["SUBSCRIBE", "c"],
        ["MONITOR"],
      ];
      void socket.send(
        Buffer.concat([...commands.slice(i % 5), ...commands].map(encodeCommand)).subarray(0, 20 + 3 * i),
      );
      if (i % 2 === 0) await sleep(1);
      socket.destroy();
    }
    await until(async () => (await proxy.metric("holdfast_clients")) === before, {
      what: "all being forgotten",
    });
    const privates = async () => (await proxy.metrics()).get('holdfast_upstream_connections{kind="private"}');
    await until(async () => (await privates()) === 0, { what: "private connections being closed" });
    await until(async () => (await redis.info("clients")).get("blocked_clients") === "0", {
      what: "nobody being blocked on the server",
    });
  });

  it("seeded garbage from many clients neither ends nor stops the process, and others are served rightly", {
    timeout: 60_000,
  }, async () => {
    const seed = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000);
    const random = generator(seed);
    const canary = await proxy.connect({ deadlineMs: 5_000 });
    let stopping = false;
    let rounds = 0;
    const serve = (async () => {
      while (!stopping) {
        const value = String(++rounds);
        const replies = await canary.pipeline([
          ["SET", "canary", value],
          ["GET", "canary"],
          ["ECHO", value],
          ["MULTI"],
          ["GET", "canary"],
          ["EXEC"],
        ]);
        expect(replies).toEqual(["OK", value, value, "OK", "QUEUED", [value]]);
      }
    })();
    // Until there was enough of both, however slow the machine is.
    const [leastEndMs, mostEndMs] = [performance.now() + 3_000, performance.now() + 20_000];
    const isOver = () => performance.now() > (rounds > 50 ? leastEndMs : mostEndMs);
    const attack = async () => {
      while (!isOver()) {
        const socket = await ByteSocket.connect(proxy.port);
        for (let i = 0; i < 1 + random(8) && !socket.ended; i++) {
          await socket.send(garbage(random));
          if (random(3) === 0) await sleep(random(3));
        }
        if (random(2) === 0) socket.end();
        await sleep(random(4));
        socket.destroy();
      }
    };
    let failure: unknown;
    try {
      await Promise.all(Array.from({ length: 8 }, attack));
    } catch (error) {
      failure = error;
    }
    stopping = true;
    await serve.catch((error: unknown) => {
      failure ??= error;
    });
    expect(failure, `seed ${seed}`).toBeUndefined();
    expect(rounds, `seed ${seed}`).toBeGreaterThan(50);
    expect(proxy.running, `seed ${seed}`).toBe(true);
    expect(proxy.logged("a bug"), `seed ${seed}`).toEqual([]);
    expect(canary.disconnected, `seed ${seed}`).toBe(false);
    expect((await proxy.http("/livez")).status).toBe(200);
    expect(await proxy.metric("holdfast_clients_closed_total")).toBeGreaterThan(100);
    canary.close();
    await until(async () => (await proxy.metric("holdfast_clients")) === 0, {
      what: `all being gone, seed ${seed}`,
    });
  });
});

/** Numbers 0 … below, always the same for a seed (mulberry32). */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const PIECES = [
  "\r\n",
  "*",
  "$",
  "3",
  "-1",
  ":",
  "+",
  "PING",
  "GET",
  "k",
  "\0",
  "MULTI",
  "EXEC",
  "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
  "HELLO 3\r\n",
  '"',
  "'",
  "\\x",
  "99999999999",
  "SUBSCRIBE c\r\n",
  "WATCH k\r\n",
  "BLPOP q 0.01\r\n",
  "RESET\r\n",
  "AUTH x\r\n",
  "SELECT 3\r\n",
  "CLIENT",
  "PROXY STATUS\r\n",
  "DISCARD\r\n",
  "QUIT",
  "%1\r\n",
  "~1\r\n",
  "_\r\n",
  "|1\r\n",
  ">2\r\n",
];

/** Random bytes, tokens in a wrong order, or good commands with some bytes changed. */
function garbage(random: (below: number) => number): Buffer {
  const kind = random(3);
  if (kind === 0) return Buffer.from(Array.from({ length: 1 + random(300) }, () => random(256)));
  if (kind === 1) {
    return Buffer.from(
      Array.from({ length: 1 + random(30) }, () => PIECES[random(PIECES.length)] ?? "").join(""),
      "latin1",
    );
  }
  const commands = [
    ["SET", "fuzz", "v".repeat(random(50))],
    ["GET", "fuzz"],
    ["MULTI"],
    ["EXEC"],
    ["HELLO", "3"],
    ["LRANGE", "x", "0", "1"],
  ];
  const bytes = Buffer.concat(
    Array.from({ length: 1 + random(6) }, () => encodeCommand(commands[random(commands.length)] ?? ["PING"])),
  );
  for (let i = 0; i < 1 + random(3); i++) bytes[random(bytes.length)] = random(256);
  return bytes;
}

describe("what a node sends", () => {
  let node: FakeNode;
  let proxy: ProxyProcess;
  let answer: Handler = () => undefined;

  beforeAll(async () => {
    node = await startFakeNode((command) => answer(command));
    proxy = await startProxy({
      nodes: [node.address],
      // Longer than this process, which the node is part of, may stand still.
      config: { upstream: { requestTimeout: "1500ms" }, hold: { maxTime: "2s" } },
    });
  });

  afterAll(async () => {
    await proxy?.kill();
    await node?.close();
  });

  beforeEach(async () => {
    answer = () => undefined;
    node.commands.length = 0;
    await proxy.ready();
  });

  /** The process is as well as ever: it runs, answers, and no bug was reported. */
  const expectWell = async () => {
    expect(proxy.running).toBe(true);
    expect((await proxy.http("/livez")).status).toBe(200);
    expect(proxy.logged("a bug")).toEqual([]);
    expect(proxy.stray).toBe("");
  };

  const NONSENSE: readonly (readonly [name: string, bytes: string])[] = [
    ["words", "hello there\r\n"],
    ["zeros", "\0\0\0\0\r\n"],
    ["HTML", "HTTP/1.1 400 Bad Request\r\n\r\n<html>"],
    ["a bulk string with a wrong length", "$3\r\nabcdef\r\n"],
    ["a bulk string with a length that is no number", "$abc\r\n"],
    ["an array with a length that is no number", "*x\r\n"],
    ["an array of nonsense", "*2\r\n$1\r\na\r\nxyz\r\n"],
    ["an unknown type", "&5\r\n"],
  ];

  it.each(NONSENSE)(
    "%s instead of a reply: the client is answered on its open connection, again and again",
    async (_name, bytes) => {
      answer = ({ name, args }) => (name === "SET" && args[1] === "bad" ? bytes : undefined);
      const client = await proxy.connect({ deadlineMs: 10_000 });
      expect(await client.command("SET", "good", "1")).toBe("OK");
      for (let i = 0; i < 5; i++) {
        expect(word(await client.command("SET", "bad", "1"))).toBe("UNCERTAIN");
        expect(await client.command("SET", "good", "1")).toBe("OK");
      }
      expect(node.received("SET").filter((args) => args[1] === "bad")).toHaveLength(5);
      expect(client.disconnected).toBe(false);
      await expectWell();
    },
  );

  it("a node that answers every read with nonsense is not asked in a frenzy, and the client is answered in the end", async () => {
    answer = ({ name, args }) => (name === "GET" && args[1] === "bad" ? "hello there\r\n" : undefined);
    const client = await proxy.connect({ deadlineMs: 10_000 });
    const before = processorMsOf(proxy.pid);
    const asked = () => node.received("GET").length;
    const reply = client.command("GET", "bad").catch((error: Error) => error);
    await sleep(2_000);
    // The same question again and again is no answer: some tries, with pauses, then an error.
    expect(asked()).toBeGreaterThan(0);
    expect(asked()).toBeLessThan(100);
    expect(processorMsOf(proxy.pid) - before).toBeLessThan(1_000);
    const other = await proxy.connect({ deadlineMs: 5_000 });
    expect(await other.command("SET", "good", "1")).toBe("OK");
    expect(await reply).toBeInstanceOf(ReplyError);
    await expectWell();
  });

  it("a node that closes in the middle of a reply: UNCERTAIN for a write, the client stays connected [12]", async () => {
    answer = ({ name, args, connection }) => {
      if (name !== "SET" || args[1] !== "cut") return undefined;
      connection.socket.write("+O");
      connection.socket.end();
      return SILENT;
    };
    const client = await proxy.connect({ deadlineMs: 5_000 });
    const replies = await client.pipeline([
      ["SET", "a", "1"],
      ["SET", "cut", "1"],
      ["SET", "b", "1"],
      ["PING"],
    ]);
    expect([replies[0], word(replies[1]), word(replies[2]), replies[3]]).toEqual([
      "OK",
      "UNCERTAIN",
      "UNCERTAIN",
      "PONG",
    ]);
    expect(await client.command("SET", "good", "1")).toBe("OK");
    await expectWell();
  });

  it("a node that closes in the middle of a read's reply: the client gets one whole reply [4, 5]", async () => {
    let cuts = 0;
    answer = ({ name, connection }) => {
      if (name !== "GET") return undefined;
      if (++cuts > 2) return resp.bulk("0123456789");
      connection.socket.write("$10\r\n01234");
      connection.socket.end();
      return SILENT;
    };
    const client = await proxy.connect({ deadlineMs: 5_000 });
    expect(await client.rawCommand("GET", "k")).toEqual(Buffer.from("$10\r\n0123456789\r\n"));
    expect(cuts).toBe(3);
    await expectWell();
  });

  it.each([
    ["a bulk string of 9 GB", "$9999999999\r\nabc"],
    ["a bulk string of 2 GB", "$2147483647\r\nabc"],
    ["an array of two thousand million", "*2147483647\r\n:1\r\n"],
    ["a map of two thousand million", "%2147483647\r\n:1\r\n"],
    ["a million arrays inside each other", "*1\r\n".repeat(1_000_000)],
    ["a line without an end", `+${"x".repeat(5_000_000)}`],
  ])("%s announced and never sent costs no memory and only the time-out", async (_name, bytes) => {
    answer = ({ name, args }) => (name === "SET" && args[1] === "huge" ? bytes : undefined);
    forgetPeak(proxy.pid);
    const base = memoryOf(proxy.pid).now;
    const client = await proxy.connect({ deadlineMs: 10_000 });
    const neighbour = await proxy.connect({ deadlineMs: 10_000 });
    const reply = client.command("SET", "huge", "1");
    expect(word(await reply)).toBe("UNCERTAIN");
    expect(await client.command("SET", "good", "1")).toBe("OK");
    expect(await neighbour.command("SET", "good", "1")).toBe("OK");
    expect(memoryOf(proxy.pid).peak - base).toBeLessThan(100 * MB);
    expect([client.disconnected, neighbour.disconnected]).toEqual([false, false]);
    await expectWell();
  });

  it("replies nobody asked for: the connection is given up, no client gets them", async () => {
    const client = await proxy.connect({ deadlineMs: 5_000 });
    expect(await client.command("SET", "a", "1")).toBe("OK");
    for (let round = 0; round < 5; round++) {
      const lost = await proxy.metric("holdfast_upstream_lost_total");
      for (const { socket, commands } of node.connections) {
        if (commands.some((args) => args[0] === "SET")) socket.write("+SURPRISE\r\n$3\r\nabc\r\n");
      }
      await until(async () => (await proxy.metric("holdfast_upstream_lost_total")) > lost, {
        what: "the connection being given up",
      });
      expect(await client.command("ECHO", `round ${round}`)).toBe(`round ${round}`);
      expect(await client.command("SET", "a", "1")).toBe("OK");
      expect(client.unclaimed).toBe(0);
    }
    await expectWell();
  });

  it("pushes nobody asked for are dropped, and replies still find their requests", async () => {
    const client = await proxy.connect({ protocol: 3, deadlineMs: 5_000 }).catch((error: Error) => error);
    // The fake speaks no RESP3: a push on a RESP2 connection is as unexpected.
    if (client instanceof Error) throw client;
    answer = ({ name, args }) =>
      name === "ECHO" ? `>2\r\n$10\r\ninvalidate\r\n*-1\r\n${resp.bulk(args[1] ?? "")}` : undefined;
    for (let i = 0; i < 20; i++) expect(await client.command("ECHO", String(i))).toBe(String(i));
    expect(client.pushes).toEqual([]);
    await expectWell();
  });

  it("an INFO that makes no sense is no master: writes wait until it makes sense again", async () => {
    const client = await proxy.connect({ deadlineMs: 10_000 });
    answer = ({ name }) =>
      name === "INFO" ? resp.bulk("role:emperor\r\nmaster_replid:none\r\n") : undefined;
    await until(async () => (await proxy.metric("holdfast_writable")) === 0, {
      what: "the node not being believed",
    });
    const reply = client.command("SET", "a", "1");
    await until(async () => (await proxy.metric("holdfast_held")) === 1, { what: "the write being held" });
    answer = () => undefined;
    expect(await reply).toBe("OK");
    await expectWell();
  });

  it.each([
    ["INFO answered with an error", "-ERR unknown command\r\n"],
    ["INFO answered with a number", ":5\r\n"],
    ["INFO answered with nested arrays", "*1\r\n*1\r\n*1\r\n:1\r\n"],
    ["INFO answered with garbage", "what?\r\n"],
    ["INFO answered with nothing at all", "$0\r\n\r\n"],
    ["INFO answered with megabytes", `$5000000\r\n${"x:y\r\n".repeat(1_000_000)}\r\n`],
    [
      "INFO answered with numbers too large",
      resp.bulk(`role:master\r\nmaster_replid:${"a".repeat(40)}\r\nmaster_repl_offset:${"9".repeat(60)}\r\n`),
    ],
  ])("%s never ends the process, and it recovers", async (_name, bytes) => {
    answer = ({ name }) => (name === "INFO" ? bytes : undefined);
    await until(async () => (await proxy.metric("holdfast_writable")) === 0, {
      what: "the node not being believed",
    });
    await sleep(300);
    answer = () => undefined;
    await proxy.ready();
    expect(await (await proxy.connect()).command("SET", "a", "1")).toBe("OK");
    await expectWell();
  });

  it("a COMMAND that makes no sense leaves the table that is built in", async () => {
    const strange = await startFakeNode(({ name }) =>
      name === "COMMAND" ? "*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n+x\r\n" : undefined,
    );
    cleanups.push(() => strange.close());
    const second = await startProxy({ nodes: [strange.address] });
    cleanups.push(() => second.kill());
    const client = await second.connect();
    const replies = await client.pipeline([
      ["MULTI"],
      ["SET", "a"],
      ["EXEC"],
      ["SET", "a", "1"],
      ["REPLICAOF", "NO", "ONE"],
    ]);
    expect(replies.map((reply) => (reply instanceof ReplyError ? reply.word : reply))).toEqual([
      "OK",
      "ERR",
      "EXECABORT",
      "OK",
      "ERR",
    ]);
    expect(second.logged("a bug")).toEqual([]);
  });
});
