/** Private connections: used again by the next client, never with anything of the last one, and in order. */
import { afterEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { Stage } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

let stage: Stage;
afterEach(() => stage.close());

async function opened(): Promise<number> {
  return (await stage.proxy.metrics()).get('holdfast_upstream_opened_total{kind="private"}') ?? Number.NaN;
}

async function open(use: "private" | "idle"): Promise<number> {
  return (await stage.proxy.metrics()).get(`holdfast_upstream_connections{kind="${use}"}`) ?? Number.NaN;
}

async function untilIdle(count: number): Promise<void> {
  await until(async () => (await open("idle")) === count, { what: `${count} idle private connections` });
}

/** Calls that wait on a server. */
async function untilBlocked(count: number, server = stage.master): Promise<void> {
  const blocked = async () => Number((await server.info("clients")).get("blocked_clients"));
  await until(async () => (await blocked()) === count, { what: `${count} calls waiting` });
}

async function watchAndChange(client: RawClient): Promise<void> {
  expect(await client.command("WATCH", "w")).toBe("OK");
  expect(await client.command("GET", "w")).toBeNull();
}

describe("a private connection that a client has no more use for", () => {
  it("20, 21: is the next client's: transactions with WATCH and waiting calls one after the other open one", async () => {
    stage = await Stage.open({ replicas: 0 });
    const clients = await stage.clients(5);
    for (const client of clients) {
      expect(await client.command("BLPOP", "none", "0.01")).toBeNull();
      const unit = [["WATCH", "w"], ["MULTI"], ["INCR", "n"], ["EXEC"]];
      expect((await client.pipeline(unit)).slice(0, 3)).toEqual(["OK", "OK", "QUEUED"]);
      expect(await client.pipeline([["WATCH", "w"], ["UNWATCH"]])).toEqual(["OK", "OK"]);
      await client.command("RPUSH", "q", "job");
      expect(await client.command("BRPOP", "q", "1")).toEqual(["q", "job"]);
    }
    expect(await opened()).toBe(1);
    expect([await open("private"), await open("idle")]).toEqual([0, 1]);
  });

  it("20: is not handed on with what the client watched, whichever way the transaction ended", async () => {
    stage = await Stage.open({ replicas: 0 });
    const [first, second, other] = (await stage.clients(3)) as [RawClient, RawClient, RawClient];
    const endings = [
      [["MULTI"], ["DISCARD"]],
      [["MULTI"], ["NOSUCHCOMMAND"], ["EXEC"]],
      [["MULTI"], ["INCR", "text", "2"], ["EXEC"]],
    ];
    for (const ending of endings) {
      await watchAndChange(first);
      await first.pipeline(ending);
      await other.command("SET", "w", "1");
      expect(await second.command("WATCH", "mine")).toBe("OK");
      const replies = await second.pipeline([["MULTI"], ["SET", "mine", "1"], ["EXEC"]]);
      expect(replies[2]).toEqual(["OK"]);
      await other.command("DEL", "w");
    }
    expect(await first.command("GET", "mine")).toBe("1");
  });

  it("1, 20: is not handed on in another database than it was opened for", async () => {
    stage = await Stage.open({ replicas: 0 });
    const [first, second] = (await stage.clients(2)) as [RawClient, RawClient];
    await first.command("RPUSH", "q", "in database 0");
    await first.pipeline([
      ["SELECT", 1],
      ["RPUSH", "q", "in database 1"],
      ["SELECT", 0],
    ]);
    // The private connection follows the client through SELECT.
    expect(await first.pipeline([["WATCH", "w"], ["SELECT", 1], ["UNWATCH"]])).toEqual(["OK", "OK", "OK"]);
    expect(await second.command("BLPOP", "q", "1")).toEqual(["q", "in database 0"]);
    expect(await first.command("BLPOP", "q", "1")).toEqual(["q", "in database 1"]);
  });

  it("21: makes room for another user or database when upstream.maxPrivate is reached", async () => {
    stage = await Stage.open({ replicas: 0, config: { upstream: { maxPrivate: 1 } } });
    const [first, second] = (await stage.clients(2)) as [RawClient, RawClient];
    expect(await first.command("BLPOP", "q", "0.01")).toBeNull();
    await untilIdle(1);
    expect(await second.command("SELECT", 3)).toBe("OK");
    expect(await second.command("BLPOP", "q", "0.01")).toBeNull();
    expect(await opened()).toBe(2);
    expect((await open("private")) + (await open("idle"))).toBe(1);
  });

  it("21: ends after upstream.privateIdle, and is forgotten when the server ends it", async () => {
    stage = await Stage.open({ replicas: 0, config: { upstream: { privateIdle: "1500ms" } } });
    const client = (await stage.clients(1))[0]!;
    expect(await client.command("BLPOP", "q", "0.01")).toBeNull();
    await untilIdle(1);
    await untilIdle(0);
    expect(await client.command("BLPOP", "q", "0.01")).toBeNull();
    await untilIdle(1);
    await stage.master.cli("CLIENT", "KILL", "TYPE", "normal");
    await untilIdle(0);
    expect(await client.command("BLPOP", "q", "0.01")).toBeNull();
    expect(await opened()).toBe(3);
  });

  it("21: does not live through a switch", async () => {
    stage = await Stage.open();
    const client = (await stage.clients(1))[0]!;
    expect(await client.command("BLPOP", "q", "0.01")).toBeNull();
    await untilIdle(1);
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    await untilIdle(0);
    const answer = client.command("BLPOP", "q", "0");
    await untilBlocked(1, stage.replica(0));
    await stage.replica(0).cli("RPUSH", "q", "job");
    expect(await answer).toEqual(["q", "job"]);
  });
});

describe("clients that wait for one key are served in the order in which they came", () => {
  const CLIENTS = 20;

  /** Replies come as "client number: element". */
  async function queueUp(): Promise<{ readonly served: Promise<string>[] }> {
    // Connections that were used before, in another order than the clients come in now.
    const early = await stage.clients(CLIENTS / 2);
    const warm = early.map((client) => client.command("BLPOP", "warm", "0"));
    await untilBlocked(early.length);
    for (const _ of early) await stage.master.cli("RPUSH", "warm", "x");
    await Promise.all(warm);
    const clients = [...early.reverse(), ...(await stage.clients(CLIENTS - early.length))];
    const served: Promise<string>[] = [];
    for (const [i, client] of clients.entries()) {
      served.push(client.command("BLPOP", "q", "0").then((reply) => `${i}: ${JSON.stringify(reply)}`));
      await untilBlocked(i + 1);
    }
    // Longer than a probe interval: the last one cannot have been answered.
    await sleep(300);
    return { served };
  }

  async function expectOrder(served: readonly Promise<string>[]): Promise<void> {
    const elements = Array.from({ length: served.length }, (_, i) => `element ${i}`);
    await (await stage.client()).command("RPUSH", "q", ...elements);
    const expected = elements.map((element, i) => `${i}: ["q","${element}"]`);
    expect(await Promise.all(served)).toEqual(expected);
  }

  it("21: without a switch, also when they come all at once and some have to open a connection", async () => {
    stage = await Stage.open({ replicas: 0 });
    const late = await stage.clients(CLIENTS / 2);
    // Connections that are open already are of no use to those who come first: they speak another protocol.
    const warm = late.map((client) => client.command("BLPOP", "warm", "0"));
    await untilBlocked(late.length);
    for (const _ of late) await stage.master.cli("RPUSH", "warm", "x");
    await Promise.all(warm);
    await untilIdle(late.length);
    const early: RawClient[] = [];
    while (early.length + late.length < CLIENTS) early.push(await stage.client({ protocol: 3 }));
    const clients = [...early, ...late];
    // The kernel tells of the client last heard first, should it speak again at once: let it be another one.
    await (await stage.client()).command("PING");
    const served = clients.map(async (client, i) => {
      const reply = await client.command("BLPOP", "q", "0");
      return `${i}: ${JSON.stringify(reply)}`;
    });
    await untilBlocked(CLIENTS);
    await expectOrder(served);
  });

  it("21: after the promotion of another node of a group that is well", async () => {
    stage = await Stage.open();
    const { served } = await queueUp();
    await stage.replica(0).promote();
    await untilBlocked(CLIENTS, stage.replica(0));
    await expectOrder(served);
    expect(await stage.proxy.metric("holdfast_blocking_reissued_total")).toBe(CLIENTS);
  });

  it("21, 22: after a crash and a promotion, behind them those who came in between", async () => {
    stage = await Stage.open();
    const { served } = await queueUp();
    await stage.master.kill("SIGKILL");
    await stage.untilHeld(CLIENTS);
    for (let i = CLIENTS; i < CLIENTS + 3; i++) {
      const client = await stage.client();
      served.push(client.command("BLPOP", "q", "0").then((reply) => `${i}: ${JSON.stringify(reply)}`));
      await stage.untilHeld(i + 1);
    }
    // One that leaves while it is held takes nothing from the others.
    const leaver = await stage.proxy.connect();
    leaver.command("BLPOP", "q", "0").catch(() => {});
    await stage.untilHeld(served.length + 1);
    leaver.close();
    await until(async () => (await stage.accounts()).left === 1, { what: "the leaver being gone" });
    await stage.replica(0).promote();
    await untilBlocked(served.length, stage.replica(0));
    await expectOrder(served);
    await stage.expectBalancedAccounts();
  });
});
