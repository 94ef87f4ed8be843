/** CLIENT through the proxy: beside a server's own bytes, and what it does to the proxy's clients. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { RawClient } from "../support/client.ts";
import { NEWER_CLIENT_FIELDS, type RedisServer, serverKind, startGroup } from "../support/redis.ts";
import type { Reply } from "../support/resp.ts";
import { errorText, type Fields, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let direct: RedisServer;
let stage: Stage;

beforeAll(async () => {
  direct = (await startGroup(0)).master;
  stage = await Stage.open({ replicas: 1 });
});

afterAll(async () => {
  await direct?.kill();
  await stage?.close();
});

/** Clients that a test made and that others must not find any more. */
const extras: RawClient[] = [];

afterEach(async () => {
  for (const one of extras.splice(0)) one.close();
  await until(async () => (await connected()) === 1, { what: "only the stage's own client being left" });
});

async function connected(): Promise<number> {
  return stage.proxy.metric("holdfast_clients");
}

async function client(options: { protocol?: 2 | 3; deadlineMs?: number } = {}): Promise<RawClient> {
  const one = await stage.proxy.connect({ deadlineMs: 10_000, ...options });
  extras.push(one);
  return one;
}

/** Everything a connection gets for these bytes, up to the answer to a last question. */
async function transcript(port: number, bytes: string, isLast: (text: string) => boolean): Promise<string> {
  const one = await RawClient.connect({ port });
  try {
    let text = "";
    one.socket.removeAllListeners("data");
    one.socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
    });
    one.send(bytes);
    await until(() => isLast(text), { what: `the end of ${JSON.stringify(text)}` });
    return text;
  } finally {
    one.close();
  }
}

/** The same lines to both; the replies, the proxy's first. */
function both(bytes: string, end = "+end\r\n"): Promise<string[]> {
  const isLast = (text: string): boolean => text.endsWith(end);
  return Promise.all([stage.proxy.port, direct.port].map((port) => transcript(port, bytes, isLast)));
}

const END = `EVAL "return{ok='end'}" 0\r\n`;

async function idOf(one: RawClient): Promise<number> {
  return Number(await one.command("CLIENT", "ID"));
}

async function lineOf(asks: RawClient, id: number): Promise<Record<string, string>> {
  const line = String(await asks.command("CLIENT", "LIST", "ID", String(id)));
  return Object.fromEntries(
    line
      .trim()
      .split(" ")
      .map((field) => [field.slice(0, field.indexOf("=")), field.slice(field.indexOf("=") + 1)]),
  );
}

async function reading(id: number): Promise<Fields> {
  const asks = await stage.proxy.connect({ protocol: 3 });
  try {
    const all = ((await asks.command("PROXY", "CLIENTS")) as Map<Reply, Reply>[]).map(
      (one) => Object.fromEntries([...one].map(([key, value]) => [String(key), value])) as Fields,
    );
    const found = all.find((one) => one.id === id);
    if (found === undefined) throw new Error(`PROXY CLIENTS does not list ${id}`);
    return found;
  } finally {
    asks.close();
  }
}

async function untilState(id: number, state: string): Promise<void> {
  await until(async () => (await reading(id)).state === state, { what: `client ${id} being ${state}` });
}

/** Redis refuses these, Valkey overlooks the last word. */
const WORD_TOO_MANY = /pause 1 write y|UNBLOCK 3 TIMEOUT x/;

describe("CLIENT answers byte for byte as the server (34)", () => {
  it.each(
    `CLIENT
    CLIENT NOSUCH|CLIENT nosuch x|CLIENT HELP|CLIENT HELP x
    CLIENT ID x|CLIENT INFO x|CLIENT GETNAME x|CLIENT SETNAME|CLIENT SETNAME a b
    CLIENT NO-TOUCH ON|CLIENT SETINFO LIB-NAME x
    CLIENT NO-EVICT|CLIENT NO-EVICT x|CLIENT NO-EVICT ON|client no-evict off
    CLIENT LIST x|CLIENT LIST TYPE|CLIENT LIST TYPE x|CLIENT LIST TYPE normal y|CLIENT LIST ID
    CLIENT LIST ID x|CLIENT LIST ID 999999|CLIENT LIST ID 1 x|CLIENT LIST ID 9223372036854775808
    CLIENT LIST TYPE master|CLIENT LIST TYPE replica|CLIENT LIST TYPE pubsub
    CLIENT KILL|CLIENT KILL x|CLIENT KILL 127.0.0.1:1|CLIENT KILL a b|CLIENT KILL ID x|CLIENT KILL ID 0
    CLIENT KILL ID 999999|CLIENT KILL ID 9223372036854775808|CLIENT KILL TYPE x|CLIENT KILL TYPE normal x
    CLIENT KILL USER nobody|CLIENT KILL USER default user|CLIENT KILL SKIPME x|CLIENT KILL MAXAGE 10
    CLIENT KILL ID 999998 999999|CLIENT KILL TYPE pubsub|CLIENT KILL ADDR x LADDR y TYPE normal ID 5 SKIPME no
    CLIENT PAUSE|CLIENT PAUSE x|CLIENT PAUSE -1|CLIENT PAUSE 0 x|CLIENT pause 1 write y|CLIENT PAUSE 1.5
    CLIENT PAUSE 0|CLIENT UNPAUSE|CLIENT UNPAUSE x
    CLIENT UNBLOCK|CLIENT UNBLOCK x|CLIENT UNBLOCK 0|CLIENT UNBLOCK 999999|CLIENT UNBLOCK 3 x
    CLIENT UNBLOCK 3 TIMEOUT x|CLIENT UNBLOCK -1|CLIENT UNBLOCK 3 ERROR
    CLIENT REPLY|CLIENT REPLY x|CLIENT REPLY ON|CLIENT REPLY ON x`.split(/\n\s*/),
  )("%s", async (lines) => {
    const asked = lines.split("|").filter((line) => !(serverKind().isValkey && WORD_TOO_MANY.test(line)));
    const [proxied, own] = await both(`${asked.join("\r\n")}\r\n${END}`);
    expect(proxied).toBe(own);
  });

  it.each([2, 3])("CLIENT INFO and LIST have the same form in RESP%i", async (protocol) => {
    const ask = `HELLO ${protocol} SETNAME me\r\nSELECT 5\r\nCLIENT INFO\r\nCLIENT LIST TYPE pubsub\r\n${END}`;
    const normal = (text: string) =>
      text
        .slice(text.indexOf("+OK\r\n"))
        .replace(/(?<=\b(?:id|fd|age|idle|qbuf|[a-z-]+-mem|qbuf-free|rbs|rbp|obl|omem)=)\d+/g, "n")
        .replace(/(?<=\bl?addr=)127\.0\.0\.1:\d+/g, "address")
        .replace(/events=rw?/g, "events=r")
        .replace(NEWER_CLIENT_FIELDS, "")
        .replace(/^[$=]\d{3}\r/gm, "length\r");
    const [proxied, own] = (await both(ask)).map(normal);
    expect(proxied).toBe(own);
    expect(proxied).toContain("name=me age=n idle=n flags=N db=5 ");
    expect(proxied).toMatch(new RegExp(`resp=${protocol}(?: lib-name= lib-ver=)?\\n`));
  });
});

describe("CLIENT REPLY (35)", () => {
  const SUBSCRIBER = ["SUBSCRIBE ch", "PING", "UNSUBSCRIBE ch"];
  it.each([
    ["OFF", ["CLIENT REPLY OFF", "PING", "GET k", "NOSUCH", "CLIENT REPLY x", "CLIENT REPLY ON", "PING"]],
    ["ON twice", ["CLIENT REPLY ON", "CLIENT REPLY ON"]],
    ["SKIP", ["CLIENT REPLY SKIP", "PING", "PING 2"]],
    ["SKIP of a read", ["SET k v", "CLIENT REPLY SKIP", "GET k", "GET k"]],
    ["SKIP twice", ["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "PING 2"]],
    ["SKIP and ON", ["CLIENT REPLY SKIP", "CLIENT REPLY ON", "PING 2"]],
    ["SKIP while OFF", ["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "PING", "CLIENT REPLY ON", "PING 3"]],
    ["SKIP and OFF", ["CLIENT REPLY SKIP", "CLIENT REPLY OFF", "PING", "PING", "CLIENT REPLY ON"]],
    ["SKIP of an error", ["CLIENT REPLY SKIP", "NOSUCH", "PING 2"]],
    ["SKIP of a wrong CLIENT REPLY", ["CLIENT REPLY SKIP", "CLIENT REPLY x", "PING 2"]],
    ["SKIP of MULTI", ["CLIENT REPLY SKIP", "MULTI", "SET k 1", "EXEC"]],
    ["SKIP of EXEC", ["MULTI", "SET k 2", "EXEC", "CLIENT REPLY SKIP", "GET k", "GET k"]],
    ["SKIP of a wait", ["RPUSH l e", "CLIENT REPLY SKIP", "BLPOP l 0", "LLEN l"]],
    ["SKIP of RESET", ["CLIENT REPLY SKIP", "RESET", "PING"]],
    ["OFF until RESET", ["CLIENT REPLY OFF", "PING", "RESET", "PING"]],
    ["OFF as a subscriber", ["CLIENT REPLY OFF", ...SUBSCRIBER, "CLIENT REPLY ON"]],
    ["OFF as a RESP3 subscriber", ["HELLO 3", "CLIENT REPLY OFF", ...SUBSCRIBER, "CLIENT REPLY ON"]],
    ["SKIP of SUBSCRIBE", ["CLIENT REPLY SKIP", ...SUBSCRIBER, "CLIENT REPLY ON"]],
    [
      "OFF with a pipeline",
      [
        "CLIENT REPLY OFF",
        ..."x"
          .repeat(500)
          .split("")
          .map(() => "INCR n"),
        "CLIENT REPLY ON",
        "GET n",
      ],
    ],
  ])("%s is silent about the same as Redis", async (_name, lines) => {
    const bytes = `DEL k l n\r\n${lines.join("\r\n")}\r\n${END}`;
    const [proxied, own] = (await both(bytes)).map((text) => text.replace(/(id\r\n):\d+/, "$1:n"));
    expect(proxied).toBe(own);
  });

  it("SKIP does not swallow the error of a broken stream behind the skipped command", async () => {
    const isOver = (text: string) => text.includes("Protocol error");
    const bytes = "CLIENT REPLY SKIP\r\nGET k\r\n*1\r\n:1\r\n";
    const [proxied, own] = await Promise.all(
      [stage.proxy.port, direct.port].map((port) => transcript(port, bytes, isOver)),
    );
    expect(proxied).toBe(own);
  });

  it("SKIP of MONITOR swallows its OK and none of its lines; OFF swallows the lines too", async () => {
    const [skipping, silent, other] = [await client(), await client(), await client()];
    skipping.send("CLIENT REPLY SKIP\r\nMONITOR\r\n");
    silent.send("CLIENT REPLY OFF\r\nMONITOR\r\n");
    const monitors = async () =>
      String(await stage.master.cli("CLIENT", "LIST")).match(/ flags=Oe? /g)?.length;
    await until(async () => (await monitors()) === 2, { what: "both monitoring" });
    await other.command("SET", "seen", "1");
    expect(String(await skipping.reply())).toMatch(/^\d+\.\d+ \[/);
    expect(silent.unclaimed).toBe(0);
  });

  it("OFF silences replies, not messages", async () => {
    const one = await client();
    const other = await client();
    one.send("CLIENT REPLY OFF\r\nSUBSCRIBE news\r\n");
    expect(await one.reply()).toEqual(["subscribe", "news", 1]);
    expect(await other.command("PUBLISH", "news", "hi")).toBe(1);
    expect(await one.reply()).toEqual(["message", "news", "hi"]);
  });
});

describe("CLIENT KILL (34)", () => {
  it("ends others, counts them under their reason, and spares who asks", async () => {
    const asks = await client();
    const victims = [await client(), await client()];
    const ids = await Promise.all(victims.map(idOf));
    const before = await stage.proxy.metric('holdfast_clients_closed_total{reason="operator"}');
    expect(await asks.command("CLIENT", "KILL", "ID", String(ids[0]))).toBe(1);
    await victims[0]!.untilDisconnected();
    const { addr } = await lineOf(asks, ids[1]!);
    expect(addr).toBe(`127.0.0.1:${victims[1]!.socket.localPort}`);
    expect(await asks.command("CLIENT", "KILL", addr!)).toBe("OK");
    await victims[1]!.untilDisconnected();
    expect(await asks.command("CLIENT", "LIST", "ID", ...ids.map(String))).toBe("");
    expect(await asks.command("CLIENT", "KILL", "ADDR", `127.0.0.1:${asks.socket.localPort}`)).toBe(0);
    expect(await asks.command("PING")).toBe("PONG");
    expect(await stage.proxy.metric('holdfast_clients_closed_total{reason="operator"}')).toBe(before + 2);
  });

  it("of oneself answers first", async () => {
    const one = await client();
    const id = await idOf(one);
    one.send(`CLIENT KILL ID ${id} SKIPME no\r\nPING\r\n`);
    expect(await one.reply()).toBe(1);
    await one.untilDisconnected();
    expect(one.unclaimed).toBe(0);
  });

  it("by type finds subscribers only, and nothing at the servers is killed", async () => {
    const asks = await client();
    const subscriber = await client({ protocol: 3 });
    subscriber.send("SUBSCRIBE a\r\n");
    await until(() => subscriber.pushes.length === 1);
    const lost = await stage.proxy.metric('holdfast_upstream_lost_total{kind="lane"}');
    expect(await asks.command("CLIENT", "KILL", "TYPE", "pubsub")).toBe(1);
    await subscriber.untilDisconnected();
    expect(await asks.command("SET", "k", "v")).toBe("OK");
    expect(await stage.proxy.metric('holdfast_upstream_lost_total{kind="lane"}')).toBe(lost);
    expect(await stage.proxy.metric('holdfast_upstream_lost_total{kind="private"}')).toBe(0);
  });

  it("of a client in the middle of a blocking call, a pause or a hold leaves nothing behind", async () => {
    const asks = await client();
    const blocked = await client();
    const id = await idOf(blocked);
    blocked.send("BLPOP nothing 0\r\n");
    await untilState(id, "blocked");
    expect(await asks.command("CLIENT", "KILL", "ID", String(id))).toBe(1);
    const waiting = async () => (await stage.master.info("clients")).get("blocked_clients");
    await until(async () => (await waiting()) === "0", { what: "the call being gone at the server" });
    const paused = await client();
    const pausedId = await idOf(paused);
    expect(await asks.command("CLIENT", "PAUSE", "60000", "WRITE")).toBe("OK");
    paused.send("SET never x\r\n");
    await untilState(pausedId, "paused");
    expect(await asks.command("CLIENT", "KILL", "ID", String(pausedId))).toBe(1);
    expect(await stage.number("clients_paused_now")).toBe(0);
    expect(await asks.command("CLIENT", "UNPAUSE")).toBe("OK");
    expect(await asks.command("EXISTS", "never")).toBe(0);
  });
});

describe("CLIENT LIST and PROXY CLIENTS show what clients do (34)", () => {
  it("by their flags and numbers", async () => {
    const asks = await client();
    const one = await client();
    const id = await idOf(one);
    await one.pipeline([
      ["CLIENT", "SETNAME", "w"],
      ["CLIENT", "NO-EVICT", "ON"],
      ["SELECT", "2"],
      ["MULTI"],
    ]);
    await one.pipeline([
      ["SET", "a", "1"],
      ["SET", "b", "2"],
    ]);
    expect(await lineOf(asks, id)).toMatchObject({ name: "w", flags: "xe", db: "2", multi: "2", cmd: "set" });
    expect(await one.command("DISCARD")).toBe("OK");
    expect(await lineOf(asks, id)).toMatchObject({ flags: "e", multi: "-1", cmd: "discard" });
    one.send("BLPOP nothing 0\r\n");
    await untilState(id, "blocked");
    expect(await lineOf(asks, id)).toMatchObject({ flags: "be", cmd: "blpop" });
    expect(await reading(id)).toMatchObject({
      name: "w",
      user: "default",
      db: 2,
      in_flight: 1,
      private: "yes",
    });
    const subscriber = await client({ protocol: 3 });
    const subscriberId = await idOf(subscriber);
    subscriber.send("SUBSCRIBE a b\r\nPSUBSCRIBE p\r\n");
    await untilState(subscriberId, "subscribed");
    await until(() => subscriber.pushes.length === 3);
    const line = { flags: "P", sub: "2", psub: "1", ssub: "0", resp: "3" };
    expect(await lineOf(asks, subscriberId)).toMatchObject(line);
    expect(await reading(subscriberId)).toMatchObject({
      subscriptions: 3,
      protocol: 3,
      last_command: "psubscribe",
    });
    const listed = String(await asks.command("CLIENT", "LIST", "TYPE", "pubsub"));
    expect(listed).toMatch(new RegExp(`^id=${subscriberId} [^\n]*\n$`));
    const order = String(await asks.command("CLIENT", "LIST", "ID", String(subscriberId), String(id)));
    expect([...order.matchAll(/^id=(\d+)/gm)].map(([, found]) => Number(found))).toEqual([subscriberId, id]);
    const all = String(await asks.command("CLIENT", "LIST"))
      .trim()
      .split("\n");
    expect(all).toHaveLength(await connected());
  });

  it("LIMIT bounds PROXY CLIENTS, the oldest come first, nonsense is refused", async () => {
    const ids = [await idOf(await client()), await idOf(await client())];
    const asks = await client({ protocol: 3 });
    const listed = async (...words: string[]) =>
      ((await asks.command("PROXY", "CLIENTS", ...words)) as Map<string, Reply>[]).map((one) =>
        one.get("id"),
      );
    expect(await listed("LIMIT", "2")).toHaveLength(2);
    const all = (await listed()) as number[];
    expect(all).toEqual([...all].sort((a, b) => a - b));
    expect(all.slice(1)).toEqual([...ids, await idOf(asks)]);
    for (const words of [["LIMIT"], ["LIMIT", "0"], ["LIMIT", "x"], ["MOST", "1"], ["LIMIT", "1", "2"]]) {
      expect(errorText(await asks.command("PROXY", "CLIENTS", ...words))).toMatch(/^ERR proxy: /);
    }
  });
});
