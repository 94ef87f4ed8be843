/**
 * Writes whose connection was lost before they were answered: what inFlight.onUnknown makes of them, and that
 * nothing of them runs behind the client's back on a master that lives on.
 */
import { afterEach, describe, expect, it } from "vitest";
import { needs } from "../support/abilities.ts";
import type { RawClient } from "../support/client.ts";
import { type ChaosLink, startLink } from "../support/link.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { type Reply, ReplyError } from "../support/resp.ts";
import { report, Stage, type StageOptions } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

const UNCERTAIN = "UNCERTAIN";
const POLICIES = ["error", "retry-idempotent", "retry-all"] as const;

let stage: Stage;
let link: ChaosLink | null = null;

afterEach(async () => {
  await stage?.close();
  await link?.close();
  link = null;
});

/** An error's first word, anything else as it is. */
function short(reply: Reply): Reply {
  return reply instanceof ReplyError ? (reply.message.split(" ", 1)[0] ?? "") : reply;
}

describe("a pipeline in flight when the master is killed (12, 14, 15, 19)", () => {
  const COMMANDS = [
    ["SET", "k", "2"],
    ["INCR", "n"],
    ["GET", "n"],
    ["SADD", "s", "a"],
    ["RPUSH", "l", "a"],
    ["SET", "once", "1", "NX"],
    ["EVAL", "return redis.call('incr', KEYS[1])", "1", "m"],
    ["DEL", "gone"],
    ["PUBLISH", "nobody", "x"],
    ["GET", "k"],
  ];
  const EXPECTED: Readonly<Record<(typeof POLICIES)[number], readonly Reply[]>> = {
    error: [
      ...[UNCERTAIN, UNCERTAIN, "7", UNCERTAIN, UNCERTAIN, UNCERTAIN, UNCERTAIN, UNCERTAIN, UNCERTAIN],
      "1",
    ],
    "retry-idempotent": ["OK", UNCERTAIN, "7", 1, UNCERTAIN, UNCERTAIN, UNCERTAIN, 1, UNCERTAIN, "2"],
    "retry-all": ["OK", 8, "8", 1, 1, "OK", 1, 1, 0, "2"],
  };
  const RESENT = { error: 0, "retry-idempotent": 3, "retry-all": 8 } as const;

  it.each(POLICIES)("%s: every request is answered once, in order", async (onUnknown) => {
    stage = await Stage.open({ config: { inFlight: { onUnknown } } });
    const client = await stage.client();
    await client.pipeline([
      ["SET", "n", "7"],
      ["SET", "k", "1"],
      ["SET", "gone", "x"],
    ]);
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.master.kill("SIGSTOP");
    const before = await stage.sentTo(stage.master);
    const replies = client.pipeline(COMMANDS);
    const sent = async () => (await stage.sentTo(stage.master)) >= before + COMMANDS.length;
    await until(sent, { what: "the pipeline being sent" });
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    await stage.replica(0).promote();
    expect((await replies).map(short)).toEqual(EXPECTED[onUnknown]);
    expect(await client.command("ECHO", "behind")).toBe("behind");
    expect(client.unclaimed).toBe(0);
    const uncertain = EXPECTED[onUnknown].filter((reply) => reply === UNCERTAIN).length;
    expect(await stage.status()).toMatchObject({ uncertain, resent_unknown: RESENT[onUnknown] });
    expect(await stage.proxy.metric("holdfast_resent_unknown_total")).toBe(RESENT[onUnknown]);
  });

  it.each([
    ["error", [UNCERTAIN, UNCERTAIN, UNCERTAIN]],
    ["retry-idempotent", [["OK", 1], UNCERTAIN, UNCERTAIN]],
    ["retry-all", [["OK", 1], [2], UNCERTAIN]],
  ] as const)("%s: transactions, as a whole; not one of watched keys", async (onUnknown, expected) => {
    stage = await Stage.open({ config: { inFlight: { onUnknown } } });
    const [same, other, watching] = (await stage.clients(3)) as [RawClient, RawClient, RawClient];
    await other.command("SET", "n", "1");
    await stage.replica(0).untilCaughtUp(stage.master);
    await watching.command("WATCH", "n");
    for (const [client, commands] of [
      [
        same,
        [
          ["SET", "a", "1"],
          ["HSET", "h", "f", "v"],
        ],
      ],
      [other, [["INCR", "n"]]],
      [watching, [["SET", "w", "1"]]],
    ] as [RawClient, string[][]][]) {
      await client.pipeline([["MULTI"], ...commands]);
    }
    await stage.master.kill("SIGSTOP");
    const before = await stage.sentTo(stage.master);
    const replies = [same, other, watching].map((client) => client.command("EXEC"));
    await until(async () => (await stage.sentTo(stage.master)) >= before + 3, { what: "EXEC being sent" });
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    await stage.replica(0).promote();
    const answers = await Promise.all(replies);
    expect(answers.map((reply) => (Array.isArray(reply) ? reply : short(reply)))).toEqual(expected);
  });
});

it("what may have run and waits for a master in vain is answered UNCERTAIN, not that it did not run (14, 43)", async () => {
  stage = await Stage.open({ config: { inFlight: { onUnknown: "retry-all" }, hold: { maxTime: "500ms" } } });
  const client = await stage.client();
  await client.command("SET", "n", "1");
  await stage.master.kill("SIGSTOP");
  const before = await stage.sentTo(stage.master);
  const lost = client.command("INCR", "n");
  await until(async () => (await stage.sentTo(stage.master)) > before, { what: "INCR being sent" });
  await stage.master.kill("SIGKILL");
  await stage.untilHeld();
  const held = client.command("INCR", "n");
  expect([short(await lost), short(await held)]).toEqual([UNCERTAIN, "MASTERDOWN"]);
});

describe("a crash in the middle of much traffic (12, 14)", () => {
  it.each(POLICIES)("%s: the books are as the policy says", async (onUnknown) => {
    stage = await Stage.open({ config: { inFlight: { onUnknown } } });
    const clients = await stage.clients(8);
    const acked = new Map<string, number>();
    const uncertain = new Map<string, number>();
    const others: string[] = [];
    let stop = false;
    const work = async (client: RawClient, key: string): Promise<void> => {
      const note = (book: Map<string, number>) => book.set(key, (book.get(key) ?? 0) + 1);
      while (!stop) {
        const commands = Array.from({ length: 20 }, () => ["INCR", key]);
        for (const reply of await client.pipeline([...commands, ["SET", `s:${key}`, "x"]])) {
          if (typeof reply === "number") note(acked);
          else if (short(reply) === UNCERTAIN) note(uncertain);
          else if (reply !== "OK") others.push(String(reply));
        }
      }
    };
    const working = clients.map((client, i) => work(client, `n:${i}`));
    const isBusy = () => clients.every((_, i) => (acked.get(`n:${i}`) ?? 0) > 200);
    await until(isBusy, { what: "all clients counting", everyMs: 1 });
    // At the moment of the crash each of them has something on the wire.
    await stage.master.kill("SIGSTOP");
    const owed = async () => Number((await stage.node(stage.master)).outstanding);
    await until(async () => (await owed()) >= 21 * clients.length, { what: "everybody waiting" });
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    await sleep(50);
    stop = true;
    await Promise.all(working);
    expect(others).toEqual([]);
    const lostBytes = Number((await stage.failovers())[0]?.lost_bytes);
    let doubts = 0;
    for (const i of clients.keys()) {
      const key = `n:${i}`;
      const [sure, unsure] = [acked.get(key) ?? 0, uncertain.get(key) ?? 0];
      const final = Number(await stage.replica(0).cli("GET", key));
      doubts += unsure;
      // What replication had not passed on is lost with the master, and reported.
      if (lostBytes === 0) expect(final).toBeGreaterThanOrEqual(sure);
      if (onUnknown !== "retry-all") expect(final).toBeLessThanOrEqual(sure + unsure);
      else expect(unsure).toBe(0);
    }
    const resent = await stage.number("resent_unknown");
    report(`${onUnknown}: ${doubts} uncertain, ${resent} sent again in doubt, ${lostBytes} bytes lost`);
    if (onUnknown === "retry-all") expect(resent).toBeGreaterThan(0);
    else expect(doubts).toBeGreaterThan(0);
  });
});

// A master that lives on

/** The master behind a link, a client that has used the shared connection: the newest on the link. */
async function behindLink(config: ConfigObject = {}, options: StageOptions = {}): Promise<RawClient> {
  stage = await Stage.open({
    ...options,
    config: { upstream: { requestTimeout: "700ms" }, ...config },
    before: async (group) => {
      link = await startLink(group.master.port);
      return [link.address, ...group.replicas.map(({ address }) => address)];
    },
    readable: 0,
    replicas: 0,
  });
  const client = await stage.client();
  expect(await client.command("SET", "k", "first")).toBe("OK");
  return client;
}

/** Lets everything through that was held back, and waits until the server has done with it. */
async function letThrough(): Promise<void> {
  const open = link?.open ?? 0;
  link?.resume();
  await until(() => (link?.open ?? 0) < open, { what: "the lost connection being gone" });
}

describe("a write held back in a lost connection to a master that lives on (12, 13)", () => {
  it("does not run behind the client's next write: the connection is ended at the server before", async () => {
    const client = await behindLink();
    link?.stallNewest();
    expect(short(await client.command("SET", "k", "held back"))).toBe(UNCERTAIN);
    expect(await client.command("SET", "k", "next")).toBe("OK");
    await letThrough();
    expect(await stage.master.cli("GET", "k")).toBe("next");
    expect(await stage.number("epoch")).toBe(1);
  });

  it("nor when the master has changed its replication id since the connection was opened", async () => {
    const client = await behindLink();
    const before = (await stage.epoch()).replid;
    expect(await stage.master.cli("DEBUG", "CHANGE-REPL-ID")).toBe("OK");
    const isKnown = async () => {
      const { replid, hold_cause } = await stage.epoch();
      return replid !== before && hold_cause === null;
    };
    await until(isKnown, { what: "the new id being known" });
    expect(await client.command("SET", "k", "through it")).toBe("OK");
    link?.stallNewest();
    expect(short(await client.command("SET", "k", "held back"))).toBe(UNCERTAIN);
    expect(await client.command("SET", "k", "next")).toBe("OK");
    await letThrough();
    expect(await stage.master.cli("GET", "k")).toBe("next");
  });

  it("runs late where the user may not end connections: so the test above can fail", async (context) => {
    needs(context, "ACL -command|subcommand");
    const client = await behindLink();
    await stage.master.cli("ACL", "SETUSER", "default", "-client|kill");
    link?.stallNewest();
    expect(short(await client.command("SET", "k", "held back"))).toBe(UNCERTAIN);
    expect(await client.command("SET", "k", "next")).toBe("OK");
    await letThrough();
    await until(async () => (await stage.master.cli("GET", "k")) === "held back", { what: "the late write" });
  });

  it("nor when it was on a private connection and the next goes through the shared one, open already", async () => {
    const client = await behindLink();
    expect(await client.command("WATCH", "another")).toBe("OK");
    await client.pipeline([["MULTI"], ["SET", "k", "held back"]]);
    link?.stallNewest();
    expect(short(await client.command("EXEC"))).toBe(UNCERTAIN);
    expect(await client.command("SET", "k", "next")).toBe("OK");
    await letThrough();
    expect(await stage.master.cli("GET", "k")).toBe("next");
  });

  it("is sent again by retry-all once that connection has ended there: it runs once", async () => {
    const client = await behindLink({ inFlight: { onUnknown: "retry-all" } });
    link?.stallNewest();
    const replies = client.pipeline([
      ["INCR", "n"],
      ["INCR", "n"],
      ["GET", "n"],
    ]);
    expect(await replies).toEqual([1, 2, "2"]);
    await letThrough();
    expect(await stage.master.cli("GET", "n")).toBe("2");
    expect(await stage.status()).toMatchObject({ uncertain: 0, resent_unknown: 2 });
  });

  it("is UNCERTAIN with retry-all where the user may not end connections", async (context) => {
    needs(context, "ACL -command|subcommand");
    const client = await behindLink({ inFlight: { onUnknown: "retry-all" } });
    await stage.master.cli("ACL", "SETUSER", "default", "-client|kill");
    link?.stallNewest();
    const replies = await client.pipeline([
      ["INCR", "n"],
      ["GET", "k"],
      ["INCR", "n"],
    ]);
    expect(replies.map(short)).toEqual([UNCERTAIN, "first", UNCERTAIN]);
    await letThrough();
    expect(await stage.status()).toMatchObject({ uncertain: 2, resent_unknown: 0 });
  });
});
