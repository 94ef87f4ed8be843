/** What a planned switch asks of the data plane: to stop sending, and to say when everything is answered. */
import { afterEach, beforeEach, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { DataPlane } from "../support/plane.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";

let plane: DataPlane;
let master: RedisServer;
let replid: string;

beforeEach(async () => {
  master = await startRedis();
  replid = (await master.info()).get("master_replid") ?? "";
  plane = await new DataPlane().start();
  plane.publish(master.address, null, 1, replid);
});

afterEach(async () => {
  plane.close();
  await master.close();
  expect(plane.faults).toEqual([]);
});

function hold(): void {
  plane.publish(master.address, "switchover", 1, replid);
}

/** Resolves when the master owes nothing. */
function drained(): Promise<void> {
  return new Promise((resolve) => plane.router.whenMasterDrained(resolve));
}

async function notYet(promise: Promise<unknown>): Promise<void> {
  await expect(within(promise, 50, "it")).rejects.toThrow("it");
}

async function untilSent(requests: number): Promise<void> {
  const sent = () => (plane.counters.nodeRequests.get(master.address) ?? 0) >= requests;
  await until(sent, { what: `${requests} requests being sent` });
}

async function connected(): Promise<RawClient> {
  const client = await plane.client();
  await client.command("SET", "k", "v");
  return client;
}

it("the master is drained once its last answer is there; what it was sent before is answered as usual (P)", async () => {
  const [a, b, idle] = [await connected(), await connected(), await connected()];
  await idle.command("WATCH", "k");
  await idle.command("UNWATCH");
  const sentBefore = plane.counters.nodeRequests.get(master.address) ?? 0;
  await master.kill("SIGSTOP");
  const shared = a.command("INCR", "n");
  await b.socket.write("*2\r\n$5\r\nWATCH\r\n$1\r\nk\r\n");
  const watched = b.reply();
  await untilSent(sentBefore + 1);
  hold();
  let isDrained = false;
  const done = drained().then(() => {
    isDrained = true;
  });
  const waiting = idle.command("INCR", "n");
  const read = idle.command("GET", "n");
  await notYet(done);
  expect(plane.evidence).toEqual([]);
  await master.kill("SIGCONT");
  expect(await shared).toBe(1);
  expect(await watched).toBe("OK");
  await done;
  expect(isDrained).toBe(true);
  await notYet(Promise.race([waiting, read]));
  expect(await master.cli("GET", "n")).toBe("1");
  expect(plane.router.pool.retiring, "its connections stay open").toBe(0);
  plane.publish(master.address, null, 1, replid);
  expect(await waiting).toBe(2);
  expect(await read).toBe("2");
});

it("who waits on the server, listens or does nothing is not waited for (P)", async () => {
  const [blocked, monitor, subscriber, watcher] = await Promise.all([
    connected(),
    connected(),
    connected(),
    connected(),
  ]);
  await monitor.command("MONITOR");
  await subscriber.command("SUBSCRIBE", "news");
  await watcher.command("WATCH", "k");
  const pop = blocked.command("BLPOP", "queue", "0");
  const blockedClients = async () => (await master.info("clients")).get("blocked_clients") === "1";
  await until(blockedClients, { what: "the call waiting" });
  hold();
  await within(drained(), 5_000, "being drained");
  await notYet(pop);
  await master.cli("RPUSH", "queue", "x");
  expect(await pop).toEqual(["queue", "x"]);
});

it("who has a connection of his own gets nothing more through it while writes are held (P, 11, 28)", async () => {
  const [watching, popping] = [await connected(), await connected()];
  const tracking = await plane.client(3);
  await master.cli("RPUSH", "queue", "x");
  await watching.command("WATCH", "w");
  await tracking.command("CLIENT", "TRACKING", "ON");
  await popping.command("WATCH", "w");
  hold();
  const writes = [watching, tracking].map((client) => client.command("INCR", "n"));
  const exec = watching.pipeline([["MULTI"], ["INCR", "n"], ["EXEC"]]);
  const pop = popping.command("BLPOP", "queue", "0");
  await within(drained(), 5_000, "being drained");
  await notYet(Promise.race([...writes, exec, pop]));
  expect(await master.cli("GET", "n")).toBeNull();
  plane.publish(master.address, null, 1, replid);
  await Promise.all(writes);
  expect((await exec)[2], "the keys are watched still, and nobody touched them").toHaveLength(1);
  expect(await pop).toEqual(["queue", "x"]);
  expect(await master.cli("GET", "n"), "each of them has run once").toBe("3");
});

it("it is told at once where there is nothing, but not before the call returns, and not once taken back (P)", async () => {
  const calls: string[] = [];
  plane.router.whenMasterDrained(() => calls.push("kept"));
  plane.router.whenMasterDrained(() => calls.push("taken back"))();
  expect(calls).toEqual([]);
  await until(() => calls.length > 0, { what: "being told" });
  await drained();
  expect(calls).toEqual(["kept"]);
});
