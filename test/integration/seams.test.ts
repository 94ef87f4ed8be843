/** Where two states of a session meet: what one of them leaves behind must not be taken for the other's. */
import { afterEach, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { encodeCommand } from "../support/resp.ts";
import { errorText, Stage } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

let stage: Stage;
afterEach(() => stage.close());

async function pair(): Promise<[RawClient, RawClient]> {
  return (await stage.clients(2)) as [RawClient, RawClient];
}

/** The master stands still, then it is dead and another node the master; what waits is sent in between. */
async function crashWhile(send: () => Promise<void> | void): Promise<void> {
  await stage.master.kill("SIGSTOP");
  await send();
  await stage.master.kill("SIGKILL");
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
}

async function untilTaken(client: RawClient, count: number): Promise<void> {
  const sentBefore = await stage.proxy.metric("holdfast_requests_total");
  client.send(encodeCommand(["PROXY", "HELP"]));
  const what = `${count} requests more taken`;
  await until(async () => (await stage.proxy.metric("holdfast_requests_total")) >= sentBefore + count, {
    what,
  });
}

it("20: an EXEC that was lost with its connection ends the watch: the next transaction runs", async () => {
  stage = await Stage.open();
  const client = await stage.client();
  expect(
    await client.pipeline([
      ["WATCH", "w"],
      ["GET", "w"],
    ]),
  ).toEqual(["OK", null]);
  expect(await client.pipeline([["MULTI"], ["SET", "w", "1"]])).toEqual(["OK", "QUEUED"]);
  let lost: Promise<unknown> = Promise.resolve();
  await crashWhile(async () => {
    const sent = await stage.sentTo(stage.master);
    lost = client.command("EXEC");
    await until(async () => (await stage.sentTo(stage.master)) > sent, { what: "EXEC on its way" });
  });
  expect(errorText((await lost) as never)).toMatch(/^UNCERTAIN /);
  const next = await client.pipeline([["MULTI"], ["SET", "w", "2"], ["EXEC"]]);
  expect(next).toEqual(["OK", "QUEUED", ["OK"]]);
});

it("24, 36: a SUBSCRIBE that is confirmed while CLIENT PAUSE begins is confirmed once", async () => {
  stage = await Stage.open({ replicas: 0 });
  const [subscriber, other] = await pair();
  await subscriber.command("SUBSCRIBE", "first");
  await other.command("CLIENT", "PAUSE", "1");
  const rounds = 20;
  for (let i = 0; i < rounds; i++) {
    await stage.master.kill("SIGSTOP");
    const paused = other.command("CLIENT", "PAUSE", "20");
    const subscribed = subscriber.command("SUBSCRIBE", `more:${i}`);
    await stage.master.kill("SIGCONT");
    expect(await paused).toBe("OK");
    expect(await subscribed).toEqual(["subscribe", `more:${i}`, i + 2]);
  }
  expect(await subscriber.command("PING", "end")).toEqual(["pong", "end"]);
  expect(subscriber.unclaimed).toBe(0);
});

it("27: a MONITOR that is sent again is answered once, and what follows it too", async () => {
  stage = await Stage.open();
  const client = await stage.client();
  expect(await client.command("PING")).toBe("PONG");
  let monitoring: Promise<unknown> = Promise.resolve();
  await crashWhile(async () => {
    monitoring = client.command("MONITOR");
    const opened = 'holdfast_upstream_opened_total{kind="private"}';
    await until(async () => (await stage.proxy.metrics()).get(opened) === 1, { what: "its connection" });
  });
  expect(await monitoring).toBe("OK");
  expect(await plain(client, "ECHO", "behind")).toBe("behind");
  expect(await plain(client, "RESET")).toBe("RESET");
});

it("27: a monitor that asks for MONITOR once more is told nothing, and goes on", async () => {
  stage = await Stage.open({ replicas: 0 });
  const client = await stage.client();
  client.send(Buffer.concat([["MONITOR"], ["MONITOR"]].map(encodeCommand)));
  expect(await client.reply()).toBe("OK");
  expect(await plain(client, "ECHO", "behind")).toBe("behind");
  expect(await plain(client, "RESET")).toBe("RESET");
  expect(await client.command("PING")).toBe("PONG");
});

/** A monitor's reply between the lines it is shown. */
async function plain(client: RawClient, ...args: string[]): Promise<unknown> {
  client.send(encodeCommand(args));
  for (;;) {
    const reply = await client.reply();
    if (typeof reply !== "string" || !/^\d+\.\d+ \[/.test(reply)) return reply;
  }
}

it("43: who waited for somebody to ask is not held any more once it is answered", async () => {
  stage = await Stage.open({ replicas: 0, readable: 0 });
  const client = await stage.client();
  await stage.master.kill("SIGKILL");
  const listed = client.command("CLIENT", "LIST");
  await stage.untilHeld();
  await stage.master.restart();
  expect(await listed).toContain("cmd=client|list");
  expect(await stage.expectBalancedAccounts()).toMatchObject({ held: 1, released: 1 });
});

it("15, 21: what follows a waiting call waits for it also where it was issued again", async () => {
  stage = await Stage.open();
  const client = await stage.client();
  const call = client.command("BLPOP", "q", "0");
  await untilWaiting();
  // From a probe's interval on it counts as one that had nothing to be answered with.
  await sleep(300);
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
  await untilWaiting(0);
  await sleep(300);
  const written = client.command("SET", "behind", "1");
  await untilTaken(await stage.client(), 1);
  await stage.replica(1).replicaOf(stage.replica(0));
  await stage.untilReadable(1);
  await stage.replica(0).kill("SIGKILL");
  await stage.replica(1).promote();
  await stage.untilMaster(stage.replica(1));
  await untilWaiting(1);
  await stage.replica(1).cli("RPUSH", "q", "job");
  expect(await call).toEqual(["q", "job"]);
  expect(await written).toBe("OK");
});

async function untilWaiting(replica = -1): Promise<void> {
  const server = replica < 0 ? stage.master : stage.replica(replica);
  const waiting = async () => (await server.info("clients")).get("blocked_clients") === "1";
  await until(waiting, { what: `a call waiting at ${server.address}` });
}

it("1, 20: SELECT on the connection of a watch is done again where it was lost", async () => {
  stage = await Stage.open();
  const client = await stage.client();
  expect(
    await client.pipeline([
      ["SELECT", 3],
      ["SET", "here", "3"],
      ["SELECT", 0],
    ]),
  ).toEqual(["OK", "OK", "OK"]);
  expect(await client.command("WAIT", "2", "5000")).toBe(2);
  expect(await client.command("WATCH", "w")).toBe("OK");
  let selected: Promise<unknown> = Promise.resolve();
  await crashWhile(async () => {
    const sent = await stage.sentTo(stage.master);
    selected = client.command("SELECT", "3");
    await until(async () => (await stage.sentTo(stage.master)) > sent, { what: "SELECT on its way" });
  });
  expect(await selected).toBe("OK");
  expect(await client.command("GET", "here")).toBe("3");
});

it("17: a transaction whose EXEC is refused for want of a login is over", async () => {
  stage = await Stage.open({ replicas: 0 });
  const [first, second] = await pair();
  await stage.master.cli("ACL", "SETUSER", "u", "on", ">secret", "~*", "+@all");
  for (const client of [first, second]) expect(await client.command("AUTH", "u", "secret")).toBe("OK");
  expect(await first.pipeline([["GET", "x"], ["MULTI"], ["GET", "x"]])).toEqual([null, "OK", "QUEUED"]);
  await stage.master.cli("ACL", "SETUSER", "u", "off");
  await stage.master.cli("CLIENT", "KILL", "USER", "u");
  expect(errorText(await second.command("GET", "x"))).toMatch(/^WRONGPASS /);
  expect(errorText(await first.command("EXEC"))).toMatch(/^EXECABORT /);
  await stage.master.cli("ACL", "SETUSER", "u", "on");
  expect(await first.command("GET", "x")).toBeNull();
});

it("9, 28: what a demoted master refuses to a client that tracks waits for the next master", async () => {
  stage = await Stage.open();
  const client = await stage.client({ protocol: 3 });
  expect(await client.command("CLIENT", "TRACKING", "ON")).toBe("OK");
  expect(await client.command("INCR", "n")).toBe(1);
  const [next, other] = [stage.replica(0), stage.replica(1)];
  await next.untilCaughtUp(stage.master);
  await stage.master.replicaOf(next);
  const written = client.command("INCR", "n");
  await stage.untilHeld();
  const waited = client.command("WAIT", "1", "5000");
  await next.promote();
  await other.replicaOf(next);
  expect(await written).toBe(2);
  expect(await waited).toBeGreaterThan(0);
});

it.each([
  ["SELECT", [["SELECT", "0"]]],
  ["RESET", [["RESET"]]],
])(
  "1, 9: what is sent again runs in the database it was meant for, whatever %s comes behind it",
  async (_name, behind) => {
    stage = await Stage.open();
    const client = await stage.client();
    const next = stage.replica(0);
    expect(
      await client.pipeline([
        ["SELECT", 1],
        ["INCR", "n"],
        ["SELECT", 0],
        ["GET", "n"],
      ]),
    ).toEqual(["OK", 1, "OK", null]);
    await next.untilCaughtUp(stage.master);
    expect(await client.command("SELECT", 1)).toBe("OK");
    await stage.master.replicaOf(next);
    const replies = client.pipeline([["INCR", "n"], ...behind, ["GET", "n"]]);
    await stage.untilHeld();
    await next.promote();
    expect((await replies)[0]).toBe(2);
    expect((await replies)[2]).toBeNull();
  },
);
