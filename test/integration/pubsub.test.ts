/** Pub/Sub through the proxy as far as nothing fails: what is said, what is shared, what is bounded. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { globMatches } from "../../src/session/pubsub/glob.ts";
import { EVERY_CHANNEL } from "../support/abilities.ts";
import { ByteSocket, forgetPeak, memoryOf } from "../support/bytes.ts";
import type { RawClient } from "../support/client.ts";
import { RawClient as Client } from "../support/client.ts";
import type { RedisServer } from "../support/redis.ts";
import { type Argument, encodeCommand, type Reply } from "../support/resp.ts";
import { calls, errorText, report, Stage, type StageOptions } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

const KB = 1024;
const MB = 1024 * KB;

let stage: Stage;
const sockets: ByteSocket[] = [];

async function open(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open({ replicas: 0, ...options });
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await stage.close();
});

// What a node says of its subscribers

/** Connections that are subscribed to something at a node. */
async function feedsAt(server: RedisServer): Promise<string[]> {
  const list = String(await server.cli("CLIENT", "LIST", "TYPE", "pubsub"));
  return list.split("\n").filter((line) => line !== "");
}

async function namesAt(
  server: RedisServer,
  what: "CHANNELS" | "SHARDCHANNELS" = "CHANNELS",
): Promise<string[]> {
  return ((await server.cli("PUBSUB", what)) as string[]).toSorted();
}

async function untilNoFeeds(server: RedisServer): Promise<void> {
  await until(async () => (await feedsAt(server)).length === 0, { what: "no subscriber's connection left" });
  expect([await namesAt(server), await namesAt(server, "SHARDCHANNELS")]).toEqual([[], []]);
  expect(await server.cli("PUBSUB", "NUMPAT")).toBe(0);
}

function closedFor(reason: string): Promise<number> {
  return stage.proxy.metric(`holdfast_clients_closed_total{reason="${reason}"}`);
}

/** The same said to the node and to the proxy, and whether the same bytes come back. */
class Pair {
  private readonly all: readonly [ByteSocket, ByteSocket];
  private seen: [number, number] = [0, 0];
  private pings = 0;

  static async open(): Promise<Pair> {
    const direct = await ByteSocket.connect(stage.master.port);
    const proxied = await ByteSocket.connect(stage.proxy.port);
    sockets.push(direct, proxied);
    return new Pair(direct, proxied);
  }

  private constructor(direct: ByteSocket, proxied: ByteSocket) {
    this.all = [direct, proxied];
  }

  /** Says it with a PING behind it; what came up to its answer must be the same. @returns it. */
  async say(...words: Argument[]): Promise<string> {
    return this.sayBytes(encodeCommand(words), words.join(" ").slice(0, 60));
  }

  async sayBytes(bytes: Uint8Array | string, what = String(bytes)): Promise<string> {
    const word = `ping ${this.pings++}.`;
    const request = Buffer.concat([Buffer.from(bytes), encodeCommand(["PING", word])]);
    for (const one of this.all) await one.send(request);
    return this.same(`\r\n${word}\r\n`, what);
  }

  /** Waits for text at both; what came up to it must be the same. @returns it. */
  async same(text: string, what = text): Promise<string> {
    const come: string[] = [];
    for (const [i, one] of this.all.entries()) {
      const from = this.seen[i] ?? 0;
      await until(() => one.text().includes(text, from) || one.ended, { what: `${text} after ${what}` });
      come.push(
        one
          .text()
          .slice(from)
          .replace(/\$2\r\nid\r\n:\d+/, "$2\r\nid\r\n:ID"),
      );
      this.seen[i] = one.received;
    }
    expect(come[1], `after ${what}`).toBe(come[0]);
    return come[0] ?? "";
  }

  /** Says something after which the connection ends; all that came must be the same. */
  async last(...words: Argument[]): Promise<string> {
    for (const one of this.all) await one.send(encodeCommand(words));
    const come: string[] = [];
    for (const [i, one] of this.all.entries()) come.push((await one.untilEnded()).slice(this.seen[i]));
    expect(come[1]).toBe(come[0]);
    return come[0] ?? "";
  }
}

describe("what a subscriber is told is what a server says", () => {
  beforeEach(() => open());

  const CONVERSATION: readonly string[] = [
    "SUBSCRIBE a",
    "SUBSCRIBE a b a c",
    "PSUBSCRIBE p* p*",
    "UNSUBSCRIBE nosuch",
    "UNSUBSCRIBE b b",
    "SSUBSCRIBE s s t",
    "PING",
    "PING word",
    "PING too many",
    "SUBSCRIBE",
    "PUNSUBSCRIBE nosuch p* nosuch",
    "PUNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE nosuch t",
    "SUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "UNSUBSCRIBE a c",
    "UNSUBSCRIBE",
    "UNSUBSCRIBE",
    "GET nothing",
    "ssubscribe s",
    "sunsubscribe",
    "GET nothing",
  ];

  for (const protocol of [2, 3]) {
    it(`24, 25: confirmations and counts in RESP${protocol}, with doubled, mixed and missing names`, async () => {
      const pair = await Pair.open();
      await pair.say("HELLO", protocol);
      for (const line of CONVERSATION) await pair.say(...line.split(" "));
      await pair.sayBytes(CONVERSATION.map((line) => `${line}\r\n`).join(""), "all in one write");
    });

    it(`24: messages in RESP${protocol}, also one that a channel and two patterns hear`, async () => {
      const pair = await Pair.open();
      await pair.say("HELLO", protocol);
      await pair.say("PSUBSCRIBE", "n*", "news");
      await pair.say("SUBSCRIBE", "news", "");
      await pair.say("SSUBSCRIBE", "news");
      expect(await stage.master.cli("PUBLISH", "news", "one.")).toBe(6);
      await pair.same("n*\r\n$4\r\nnews\r\n$4\r\none.");
      await stage.master.cli("PUBLISH", "", "to the name of no letters");
      await pair.same("to the name of no letters");
      await stage.master.cli("SPUBLISH", "news", "sharded");
      await pair.same("sharded");
      await pair.say("UNSUBSCRIBE", "news");
      await pair.say("PUNSUBSCRIBE", "news");
      await stage.master.cli("PUBLISH", "nx", "end");
      await pair.same("end");
    });

    it(`24: names and payloads of any bytes in RESP${protocol}, up to 1 MB`, async () => {
      const pair = await Pair.open();
      await pair.say("HELLO", protocol);
      const names = ["\r\n", "*3\r\n$7\r\nmessage\r\n", "\0", "ü", "x".repeat(5_000)].map((name) =>
        Buffer.from(name),
      );
      names.push(Buffer.from([0xff, 0xfe, 0x0d, 0x0a, 0x80]));
      for (const name of names) {
        await pair.say("SUBSCRIBE", name);
        for (const payload of ["", "\r\n", "*3\r\n", "p".repeat(40_000)]) {
          expect(await stage.master.cli("PUBLISH", name, payload)).toBe(2);
        }
        expect(await stage.master.cli("PUBLISH", name, "this is the last one")).toBe(2);
        await pair.same("this is the last one");
      }
      const large = Buffer.alloc(MB, "\xff\r\n>*", "latin1");
      expect(
        await stage.master.cli("PUBLISH", names[0]!, Buffer.concat([large, Buffer.from("the end")])),
      ).toBe(2);
      await pair.same("the end", "1 MB");
    });
  }

  it("24: in RESP2 a subscriber may say nothing else, with Redis's errors", async () => {
    const pair = await Pair.open();
    await pair.say("SET", "s", "x");
    await pair.say("SUBSCRIBE", "a");
    const lines = [
      ...["GET s", "get s", "SET s y", "PUBLISH a b", "MULTI", "EXEC", "WATCH s", "BLPOP l 0", "EVAL x 0"],
      ...[
        "CONFIG GET maxmemory",
        "CLIENT ID",
        "CLIENT NOSUCH",
        "client getname",
        "PUBSUB CHANNELS",
        "HELLO 3",
      ],
      ...[
        "GET",
        "GET a b",
        "NOSUCH",
        "NOSUCH with args",
        "CONFIG",
        "CONFIG NOSUCH",
        "CONFIG GET",
        "SELECT 1",
      ],
      ...[
        "AUTH x",
        "MONITOR",
        "SUBSCRIBE",
        "PSUBSCRIBE",
        "XREAD BLOCK 0 STREAMS a $",
        "SCAN 0",
        "PING a b c",
      ],
    ];
    for (const line of lines) expect(await pair.say(...line.split(" "))).toMatch(/^-(?:ERR|EXECABORT) /);
    await pair.sayBytes(lines.map((line) => `${line}\r\n`).join(""), "all in one write");
    await pair.say("UNSUBSCRIBE");
    expect(await pair.say("GET", "s")).toContain("$1\r\nx\r\n");
  });

  it("24: RESET ends all subscriptions, QUIT the connection", async () => {
    for (const protocol of [2, 3]) {
      const pair = await Pair.open();
      await pair.say("HELLO", protocol);
      await pair.say("SUBSCRIBE", "a", "b");
      await pair.say("PSUBSCRIBE", "p*");
      await pair.say("SSUBSCRIBE", "s");
      await pair.say("RESET");
      await pair.say("UNSUBSCRIBE");
      await pair.say("GET", "s");
      await pair.say("SUBSCRIBE", "a");
      expect(await pair.last("QUIT")).toBe("+OK\r\n");
      await untilNoFeeds(stage.master);
    }
  });

  it("24: in RESP3 a subscriber goes on with everything", async () => {
    const pair = await Pair.open();
    const lines = [
      ...[
        "HELLO 3",
        "SUBSCRIBE a b",
        "PSUBSCRIBE a*",
        "SET s 1",
        "GET s",
        "MULTI\r\nSET s 2\r\nGET s\r\nEXEC",
      ],
      ...["WATCH s", "GET s", "MULTI\r\nEXEC", "BLPOP nolist 0.05", "EXISTS nolist", "SELECT 1", "GET s"],
      ...["SELECT 0", "AUTH wrong", "CLIENT SETNAME me", "CLIENT GETNAME", "NOSUCH", "GET", "UNSUBSCRIBE b"],
      ...["HELLO 2", "GET s", "SUBSCRIBE c", "PING", "UNSUBSCRIBE a c", "PUNSUBSCRIBE", "GET s", "HELLO 3"],
      ...["SUBSCRIBE a", "HELLO 2 SETNAME x", "UNSUBSCRIBE", "CLIENT GETNAME"],
    ];
    for (const line of lines) await pair.sayBytes(`${line}\r\n`);
  });

  it("24: HELLO of a subscriber changes the protocol of messages behind its reply, not before", async () => {
    const client = await ByteSocket.connect(stage.proxy.port);
    sockets.push(client);
    await client.send("HELLO 3\r\nSUBSCRIBE c\r\n");
    await until(() => client.text().endsWith(":1\r\n"), { what: "the confirmation" });
    const publisher = await stage.client();
    let published = 0;
    const flood = (async () => {
      for (let i = 0; i < 60; i++) {
        await publisher.pipeline(Array.from({ length: 20 }, () => ["PUBLISH", "c", `m${published++}`]));
      }
    })();
    for (let i = 0; i < 40; i++) {
      // In RESP2 a subscriber may not GET: back to RESP3 it comes by RESET and HELLO 3.
      await client.send("GET nothing\r\nHELLO 2\r\n");
      await until(() => client.text().split("$4\r\nrole").length === 3 + 2 * i, { what: "HELLO 2" });
      await client.send("RESET\r\nHELLO 3\r\nSUBSCRIBE c\r\n");
      await until(() => client.text().split("$9\r\nsubscribe").length === 3 + i, { what: "subscribed anew" });
    }
    await flood;
    // Behind the word that RESP3 is spoken all messages are pushes, behind RESP2 none is.
    const phases = client.text().split(/(?=%7\r\n\$6\r\nserver|\*14\r\n\$6\r\nserver)/);
    expect(phases.length).toBe(1 + 2 * 40);
    let messages = 0;
    for (const phase of phases) {
      const mark = phase.startsWith("%") ? ">" : "*";
      for (const [, type] of phase.matchAll(/(.)3\r\n\$7\r\nmessage/g)) {
        expect(type).toBe(mark);
        messages++;
      }
    }
    expect(messages).toBeGreaterThan(40);
  });

  it("25: keyspace events arrive as from a server", async () => {
    await stage.master.cli("CONFIG", "SET", "notify-keyspace-events", "KEA");
    const pair = await Pair.open();
    await pair.say("PSUBSCRIBE", "__key*__:*");
    const writer = await stage.client();
    await writer.command("SET", "k", "v");
    await writer.command("EXPIRE", "k", 100);
    await writer.command("DEL", "k");
    const events = await pair.same("__keyevent@0__:del\r\n$1\r\nk");
    for (const event of ["set", "expire", "del"]) expect(events).toContain(`__keyevent@0__:${event}`);
    await writer.command("SET", "gone", "v", "PX", 20);
    await pair.same("__keyevent@0__:expired\r\n$4\r\ngone");
  });
});

it("24: patterns match the channels that the server matches with them", async () => {
  await open();
  const subscriber = await Client.connect({ port: stage.master.port });
  const publisher = await Client.connect({ port: stage.master.port });
  const random = seeded(20_240_915);
  const letters = [..."aaaabb*?[]^-\\"];
  const text = (most: number) =>
    Array.from({ length: random(most + 1) }, () => letters[random(letters.length)]).join("");
  let matches = 0;
  for (let i = 0; i < 2_500; i++) {
    const [pattern, channel] = [text(5), text(3)];
    await subscriber.command("PSUBSCRIBE", pattern);
    const isMatch = (await publisher.command("PUBLISH", channel, "x")) === 1;
    if (isMatch) await subscriber.reply();
    await subscriber.command("PUNSUBSCRIBE", pattern);
    expect(globMatches(pattern, channel), JSON.stringify({ pattern, channel })).toBe(isMatch);
    if (isMatch) matches++;
  }
  subscriber.close();
  publisher.close();
  expect(matches).toBeGreaterThan(100);
});

describe("24: subscribers of one user share one connection", () => {
  it("500 of one channel are one subscription, which ends with the last of them", async () => {
    await open();
    const clients = await stage.clients(500);
    await Promise.all(clients.map((client) => client.command("SUBSCRIBE", "c")));
    expect(await feedsAt(stage.master)).toHaveLength(1);
    expect(await stage.master.cli("PUBSUB", "NUMSUB", "c")).toEqual(["c", 1]);
    const publisher = await stage.client();
    expect(await publisher.command("PUBSUB", "NUMSUB", "c", "nobody")).toEqual(["c", 500, "nobody", 0]);
    expect(await publisher.command("PUBLISH", "c", "m")).toBe(500);
    for (const client of clients) expect(await client.reply()).toEqual(["message", "c", "m"]);
    const last = clients.pop()!;
    for (const [i, client] of clients.entries()) {
      // Half of them say so, half just go.
      if (i % 2 === 0) expect(await client.command("UNSUBSCRIBE")).toEqual(["unsubscribe", "c", 0]);
      else client.close();
    }
    await until(async () => (await publisher.command("PUBLISH", "c", "n")) === 1, { what: "one being left" });
    expect(await feedsAt(stage.master)).toHaveLength(1);
    expect(await last.reply()).toEqual(["message", "c", "n"]);
    last.close();
    await untilNoFeeds(stage.master);
    expect(await stage.proxy.metric('holdfast_upstream_connections{kind="private"}')).toBe(0);
  });

  for (const disturbed of [false, true]) {
    const also = disturbed ? ", while the node throws their connection out again and again" : "";
    it(`in a storm of clients that come and go, what is subscribed upstream is what clients want${also}`, {
      timeout: 90_000,
    }, async () => {
      await open();
      const seed = Number(process.env.TEST_SEED ?? 42);
      report(`seed ${seed}`);
      let storming = true;
      let kills = 0;
      const disturbance = (async () => {
        while (disturbed && storming) {
          kills += Number(await stage.master.cli("CLIENT", "KILL", "TYPE", "pubsub"));
          await sleep(30);
        }
      })();
      const storm = await Promise.all(Array.from({ length: 30 }, (_, i) => stormy(seeded(seed + i), 120)));
      storming = false;
      await disturbance;
      if (disturbed) expect(kills).toBeGreaterThan(5);
      const wanted = (family: FamilyName) =>
        [...new Set(storm.flatMap((one) => [...one.names[family]]))].toSorted();
      // UNSUBSCRIBE is confirmed by the proxy: the node hears of it a little later.
      await until(async () => same(await namesAt(stage.master), wanted("channels")), {
        what: "the channels",
      });
      await until(async () => same(await namesAt(stage.master, "SHARDCHANNELS"), wanted("shards")));
      await until(async () => (await stage.master.cli("PUBSUB", "NUMPAT")) === wanted("patterns").length);
      expect(wanted("channels").length).toBeGreaterThan(0);
      expect(await feedsAt(stage.master)).toHaveLength(1);
      const publisher = await stage.client();
      for (const name of NAMES) {
        const subscribers = storm.filter(({ names }) => names.channels.has(name)).length;
        expect(await publisher.command("PUBSUB", "NUMSUB", name)).toEqual([name, subscribers]);
        const byPattern = storm
          .flatMap(({ names }) => [...names.patterns])
          .filter((one) => globMatches(one, name));
        expect(await publisher.command("PUBLISH", name, "x")).toBe(subscribers + byPattern.length);
      }
      for (const { client } of storm) client.close();
      await untilNoFeeds(stage.master);
    });
  }

  it("one connection for each user, and numbers that count every client", async () => {
    await open();
    for (const user of ["anna", "bert"]) {
      await stage.master.cli("ACL", "SETUSER", user, "on", ">pw", "~*", ...EVERY_CHANNEL, "+@all");
    }
    const clients: RawClient[] = [];
    for (const user of ["anna", "anna", "anna", "bert", "bert", null]) {
      const client = await stage.client();
      if (user !== null) expect(await client.command("AUTH", user, "pw")).toBe("OK");
      expect(await client.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
      expect(await client.command("PSUBSCRIBE", "c*")).toEqual(["psubscribe", "c*", 2]);
      expect(await client.command("SSUBSCRIBE", "s")).toEqual(["ssubscribe", "s", 1]);
      clients.push(client);
    }
    // Besides them one that is no client of the proxy.
    const direct = await Client.connect({ port: stage.master.port });
    await direct.command("SUBSCRIBE", "c");
    expect(await feedsAt(stage.master)).toHaveLength(4);
    const publisher = await stage.client({ protocol: 3 });
    expect(await publisher.command("PUBSUB", "NUMSUB", "c", "x", "c")).toEqual(["c", 7, "x", 0, "c", 7]);
    expect(await publisher.command("PUBSUB", "SHARDNUMSUB", "s", "c")).toEqual(["s", 6, "c", 0]);
    expect(await publisher.command("PUBLISH", "c", "m")).toBe(13);
    expect(await publisher.command("SPUBLISH", "s", "m")).toBe(6);
    direct.close();
    for (const client of clients) {
      expect(await client.reply()).toEqual(["message", "c", "m"]);
      expect(await client.reply()).toEqual(["pmessage", "c*", "c", "m"]);
      expect(await client.reply()).toEqual(["smessage", "s", "m"]);
    }
  });

  it("AUTH while subscribed: the same name again leaves nothing at the server", async () => {
    await open();
    await stage.master.cli("ACL", "SETUSER", "anna", "on", ">pw", "~*", ...EVERY_CHANNEL, "+@all");
    const client = await stage.client({ protocol: 3 });
    client.send(encodeCommand(["SUBSCRIBE", "c"]));
    await until(() => client.pushes.length === 1);
    expect(await client.command("AUTH", "anna", "pw")).toBe("OK");
    client.send(encodeCommand(["SUBSCRIBE", "c", "d"]));
    await until(() => client.pushes.length === 3);
    expect(client.pushes).toEqual([
      ["subscribe", "c", 1],
      ["subscribe", "c", 1],
      ["subscribe", "d", 2],
    ]);
    expect(await (await stage.client()).command("PUBLISH", "c", "m")).toBe(1);
    await until(() => client.pushes.length === 4);
    client.send(encodeCommand(["UNSUBSCRIBE"]));
    await until(() => client.pushes.length === 6);
    await untilNoFeeds(stage.master);
  });

  it("a client that leaves 50,000 names behind delays no other client", {
    timeout: 90_000,
  }, async () => {
    await open();
    const names = Array.from({ length: 50_000 }, (_, i) => `name:${i}`);
    const many = await ByteSocket.connect(stage.proxy.port);
    sockets.push(many);
    const stays = await stage.client();
    await stays.command("SUBSCRIBE", "c");
    await many.send(encodeCommand(["SUBSCRIBE", ...names]));
    await until(() => many.text().endsWith(":50000\r\n"), { what: "all confirmed", deadlineMs: 30_000 });
    const other = await stage.client();
    const times: number[] = [];
    let measuring = true;
    const measured = (async () => {
      while (measuring) {
        const start = performance.now();
        await other.command("PING");
        times.push(performance.now() - start);
      }
    })();
    many.destroy();
    // Not by the names: to decode them would delay the measurement itself.
    const left = async () => (await feedsAt(stage.master)).map((line) => / sub=(\d+) /.exec(line)?.[1]);
    await until(async () => (await left())[0] === "1", { what: "all given up", deadlineMs: 30_000 });
    measuring = false;
    await measured;
    // Not one request for each name.
    expect(await calls(stage.master, "unsubscribe")).toBeLessThanOrEqual(names.length / 500);
    report(`longest PING while 50,000 names are given up: ${Math.max(...times).toFixed(0)} ms`);
    expect(Math.max(...times)).toBeLessThan(2_000);
  });
});

type FamilyName = "channels" | "patterns" | "shards";
const NAMES = ["a", "b", "c", "ab", "bc"];
const PATTERNS = ["a*", "*b", "?", "[bc]*"];
const WORDS: readonly [FamilyName, string, readonly string[]][] = [
  ["channels", "SUBSCRIBE", NAMES],
  ["patterns", "PSUBSCRIBE", PATTERNS],
  ["shards", "SSUBSCRIBE", NAMES],
];

function same(a: readonly string[], b: readonly string[]): boolean {
  return a.join(" ") === b.join(" ");
}

interface Stormy {
  readonly client: RawClient;
  readonly names: Readonly<Record<FamilyName, Set<string>>>;
}

/** A client that comes and goes at random, and what it is subscribed to at last. */
async function stormy(random: (below: number) => number, steps: number): Promise<Stormy> {
  let client = await stage.client();
  const names = { channels: new Set<string>(), patterns: new Set<string>(), shards: new Set<string>() };
  const forget = () => {
    for (const set of Object.values(names)) set.clear();
  };
  for (let i = 0; i < steps; i++) {
    const [family, command, pool] = WORDS[random(3)]!;
    const some = Array.from({ length: 1 + random(3) }, () => pool[random(pool.length)]!);
    const dice = random(20);
    if (dice < 10) {
      client.send(encodeCommand([command, ...some]));
      for (const name of some) names[family].add(name);
      // Some do not wait for the confirmation before they go on, or go.
      if (random(2) === 0) continue;
    } else if (dice < 16) {
      client.send(encodeCommand([command.replace("SUB", "UNSUB"), ...some]));
      for (const name of some) names[family].delete(name);
    } else if (dice < 17) {
      client.send(encodeCommand([command.replace("SUB", "UNSUB")]));
      names[family].clear();
    } else if (dice < 18) {
      client.send(encodeCommand(["RESET"]));
      forget();
    } else {
      client.close();
      client = await stage.client();
      forget();
      continue;
    }
    await caughtUp(client, `step ${i}`);
  }
  await caughtUp(client, "the end");
  return { client, names };
}

/** Waits until everything the client has said is answered. */
async function caughtUp(client: RawClient, word: string): Promise<void> {
  client.send(encodeCommand(["PING", word]));
  for (;;) {
    const reply = await client.reply();
    if (reply === word || (Array.isArray(reply) && reply[0] === "pong" && reply[1] === word)) return;
  }
}

describe("the channels by which proxies see each other", () => {
  beforeEach(() => open());

  it("are not for clients: nobody can pass for a proxy that promotes", async () => {
    const mine = "__holdfast__:promoter:000000000000001-me";
    const client = await stage.client();
    const refused = /^ERR proxy: \w+: channels that begin with __holdfast__: are the proxies' own$/;
    for (const command of [
      ["SUBSCRIBE", mine],
      ["subscribe", "news", mine],
      ["PSUBSCRIBE", "__holdfast__:*"],
      ["SSUBSCRIBE", mine],
      ["PUBLISH", mine, "m"],
      ["SPUBLISH", mine, "m"],
    ] as const) {
      expect(errorText(await client.command(...command)), command.join(" ")).toMatch(refused);
    }
    expect(await stage.master.cli("PUBSUB", "CHANNELS")).toEqual([]);
    const unit = await client.pipeline([["MULTI"], ["PUBLISH", mine, "m"], ["EXEC"]]);
    expect(errorText(unit[1])).toMatch(refused);
    expect(errorText(unit[2])).toMatch(/^EXECABORT /);
    expect(await client.command("PUBLISH", "__holdfast:other", "m")).toBe(0);
    expect(await client.command("SUBSCRIBE", "news")).toEqual(["subscribe", "news", 1]);
    expect(errorText(await client.command("SUBSCRIBE", mine))).toMatch(refused);
    expect(await client.command("UNSUBSCRIBE", mine)).toEqual(["unsubscribe", mine, 1]);
  });
});

describe("bounds", () => {
  it("24: limits.subscriptionBytes refuses by its name, counts, and leaves what there is", async () => {
    await open({ config: { limits: { subscriptionBytes: "1kb" } } });
    const client = await stage.client();
    const name = (letter: string) => letter.repeat(100);
    for (let i = 0; i < 4; i++) await client.command("SUBSCRIBE", name(String(i)));
    const before = await stage.proxy.metric("holdfast_proxy_errors_total");
    for (const command of ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"]) {
      expect(errorText(await client.command(command, name("x")))).toMatch(
        /^ERR proxy: .*limits\.subscriptionBytes \(1024 bytes\)/,
      );
    }
    expect(await stage.proxy.metric("holdfast_proxy_errors_total")).toBe(before + 3);
    expect(await client.command("SUBSCRIBE", name("0"))).toEqual(["subscribe", name("0"), 4]);
    await client.command("UNSUBSCRIBE", name("0"));
    expect(await client.command("SUBSCRIBE", name("x"))).toEqual(["subscribe", name("x"), 4]);
    expect(await namesAt(stage.master)).toEqual(["1", "2", "3", "x"].map(name));
  });

  it("24: upstream.maxPrivate refuses by its name, counts, keeps nothing, and works later", async () => {
    await open({ config: { upstream: { maxPrivate: 1 } } });
    const blocked = await stage.client();
    const popped = blocked.command("BLPOP", "list", 0);
    await until(
      async () => (await stage.proxy.metric('holdfast_upstream_connections{kind="private"}')) === 1,
    );
    const before = await stage.proxy.metric("holdfast_proxy_errors_total");
    const client = await stage.client();
    for (let i = 0; i < 2; i++) {
      expect(errorText(await client.command("SUBSCRIBE", "c"))).toMatch(
        /^ERR proxy: no more private upstream connections, upstream\.maxPrivate \(1\)/,
      );
    }
    expect(await stage.proxy.metric("holdfast_proxy_errors_total")).toBe(before + 2);
    expect(await client.command("GET", "nothing")).toBeNull();
    await (await stage.client()).command("RPUSH", "list", "x");
    expect(await popped).toEqual(["list", "x"]);
    // Nobody is subscribed: nobody takes the place that is free now.
    const times = Date.now() + 1_500;
    await until(async () => {
      expect(await feedsAt(stage.master)).toEqual([]);
      return Date.now() > times;
    });
    expect(await client.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
    expect(await (await stage.client()).command("PUBLISH", "c", "m")).toBe(1);
    expect(await client.reply()).toEqual(["message", "c", "m"]);
  });

  for (const [what, bytes] of [
    ["large", 100 * KB],
    ["tiny", 10],
  ] as const) {
    it(`24: of ${what} messages, one that reads nothing is cut, the others get all, memory stays bounded`, {
      timeout: 90_000,
    }, async () => {
      await open({ config: { limits: { subscriberBufferBytes: "4mb" } } });
      const deaf = await ByteSocket.connect(stage.proxy.port);
      sockets.push(deaf);
      await deaf.send(encodeCommand(["SUBSCRIBE", "news"]));
      await deaf.untilReceived(10);
      deaf.socket.pause();
      const listener = await stage.client({ protocol: 3 });
      listener.send(encodeCommand(["SUBSCRIBE", "news"]));
      await until(() => listener.pushes.length === 1, { what: "the subscription" });
      const base = memoryOf(stage.proxy.pid).now;
      forgetPeak(stage.proxy.pid);
      const publisher = await stage.client();
      const text = "n".repeat(bytes);
      const atOnce = bytes > KB ? 10 : 1_000;
      let sent = 0;
      let slowest = 0;
      while ((await closedFor("subscriber-limit")) === 0 && sent * bytes < 100 * MB && sent < 1_000_000) {
        const start = performance.now();
        await publisher.pipeline(Array.from({ length: atOnce }, () => ["PUBLISH", "news", text]));
        sent += atOnce;
        await until(() => listener.pushes.length === sent + 1, {
          what: "all at the one that reads",
          everyMs: 1,
        });
        slowest = Math.max(slowest, performance.now() - start);
      }
      const grown = memoryOf(stage.proxy.pid).peak - base;
      report(
        `${sent} messages, memory +${(grown / MB).toFixed(0)} MB, slowest batch ${slowest.toFixed(0)} ms`,
      );
      expect(await closedFor("subscriber-limit")).toBe(1);
      expect(grown).toBeLessThan(80 * MB);
      expect(slowest).toBeLessThan(2_000);
      expect([listener.disconnected, publisher.disconnected]).toEqual([false, false]);
      expect(await publisher.command("PUBLISH", "news", "end")).toBe(1);
      deaf.socket.resume();
      await until(() => deaf.ended, { what: "the deaf one seeing the end" });
    });
  }
});

describe("rights", () => {
  const RIGHTS = ["on", ">pw", "~*", "resetchannels", "&news.*", "&open", "+@all"];

  async function userClient(
    options: { port?: number; protocol?: 2 | 3; user?: string } = {},
  ): Promise<RawClient> {
    const { port, protocol = 2, user = "reader" } = options;
    const client = await Client.connect({ port: port ?? stage.proxy.port, protocol });
    expect(await client.command("AUTH", user, "pw")).toBe("OK");
    cleanups.push(client);
    return client;
  }

  const cleanups: RawClient[] = [];
  beforeEach(async () => {
    await open();
    await stage.master.cli("ACL", "SETUSER", "reader", ...RIGHTS);
    await stage.master.cli("ACL", "SETUSER", "other", ...RIGHTS);
  });
  afterEach(() => {
    for (const client of cleanups.splice(0)) client.close();
  });

  it("24: a channel that a user may not hear is refused as by the server", async () => {
    const [direct, proxied] = [await userClient({ port: stage.master.port }), await userClient()];
    const commands = [
      ["SUBSCRIBE", "secret"],
      ["SUBSCRIBE", "news.it", "secret"],
      ["PSUBSCRIBE", "news.*"],
      ["PSUBSCRIBE", "*"],
      ["PSUBSCRIBE", "news.it"],
      ["SSUBSCRIBE", "secret"],
      ["PUBLISH", "secret", "x"],
      ["SUBSCRIBE", "open"],
    ];
    for (const command of commands) {
      const [expected, said] = [await direct.rawCommand(...command), await proxied.rawCommand(...command)];
      expect(said.toString(), command.join(" ")).toBe(expected.toString());
      // Back to no subscription.
      for (const client of [direct, proxied]) await client.command("RESET");
      for (const client of [direct, proxied]) await client.command("AUTH", "reader", "pw");
    }
    await untilNoFeeds(stage.master);
    // Also while others of the same user are subscribed.
    const neighbour = await userClient();
    await neighbour.command("SUBSCRIBE", "open");
    expect(errorText(await proxied.command("SUBSCRIBE", "open", "secret"))).toMatch(/^NOPERM /);
    expect(await proxied.command("GET", "nothing")).toBeNull();
    expect(await namesAt(stage.master)).toEqual(["open"]);
    expect(await (await stage.client()).command("PUBLISH", "open", "m")).toBe(1);
    expect(await neighbour.reply()).toEqual(["message", "open", "m"]);
  });

  for (const [how, words] of [
    ["ACL SETUSER … resetchannels", ["SETUSER", "reader", "resetchannels", "&open"]],
    ["ACL DELUSER", ["DELUSER", "reader"]],
  ] as const) {
    it(`24: ${how} closes whose right is gone, and nobody else`, async () => {
      const isDeleted = words[0] === "DELUSER";
      const losers = [await userClient(), await userClient({ protocol: 3 })];
      for (const client of losers) client.send(encodeCommand(["SUBSCRIBE", "news.it", "open"]));
      const pattern = await userClient();
      await pattern.command("PSUBSCRIBE", "news.*");
      const keeper = await userClient();
      expect(await keeper.command("SUBSCRIBE", "open")).toEqual(["subscribe", "open", 1]);
      const other = await userClient({ user: "other" });
      expect(await other.command("SUBSCRIBE", "news.it")).toEqual(["subscribe", "news.it", 1]);
      const anonymous = await stage.client();
      expect(await anonymous.command("SUBSCRIBE", "news.it")).toEqual(["subscribe", "news.it", 1]);
      await until(async () => same(await namesAt(stage.master), ["news.it", "open"]));
      await stage.master.cli("ACL", ...words);
      for (const client of [...losers, pattern, ...(isDeleted ? [keeper] : [])])
        await client.untilDisconnected();
      expect(await closedFor("access-revoked")).toBe(isDeleted ? 4 : 3);
      const publisher = await stage.client();
      await until(
        async () =>
          ((await publisher.command("PUBSUB", "NUMSUB", "open")) as Reply[])[1] === (isDeleted ? 0 : 1),
      );
      expect(await publisher.command("PUBLISH", "news.it", "m")).toBe(2);
      expect(await other.reply()).toEqual(["message", "news.it", "m"]);
      expect(await anonymous.reply()).toEqual(["message", "news.it", "m"]);
      expect(await publisher.command("PUBLISH", "open", "n")).toBe(isDeleted ? 0 : 1);
      if (!isDeleted) expect(await keeper.reply()).toEqual(["message", "open", "n"]);
      expect([keeper.disconnected, other.disconnected]).toEqual([isDeleted, false]);
      expect(await stage.master.cli("PUBSUB", "NUMPAT")).toBe(0);
    });
  }
});

/** Whole numbers below a bound, the same for the same seed (mulberry32). */
function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}
