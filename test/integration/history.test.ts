/** Whose data is the truth: promotions that lose something, masters that come back as something else. */
import { afterEach, describe, expect, it } from "vitest";
import { needs } from "../support/abilities.ts";
import type { RawClient } from "../support/client.ts";
import { type ChaosLink, layLink } from "../support/link.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { calls, errorText, report as figure, offsetOf, Stage, type StageOptions } from "../support/stage.ts";
import { until, within } from "../support/wait.ts";

let stage: Stage;
const links: ChaosLink[] = [];
const servers: RedisServer[] = [];

async function setUp(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open(options);
}

afterEach(async () => {
  await stage?.close();
  for (const one of [...links.splice(0), ...servers.splice(0)]) await one.close();
});

/** A group in which replication goes through links: one for each replica. */
async function setUpLinked(options: StageOptions = {}): Promise<ChaosLink[]> {
  const mine: ChaosLink[] = [];
  await setUp({
    ...options,
    before: async (group) => {
      for (const replica of group.replicas) {
        const link = await layLink(group.master, replica);
        links.push(link);
        mine.push(link);
        await group.master.cli("PUBLISH", "nobody", "something to replicate");
        await replica.untilCaughtUp(group.master);
      }
      return group.addresses;
    },
  });
  return mine;
}

/** Waits until the proxy has seen all that the master has written. */
async function untilSeen(server: RedisServer): Promise<void> {
  const target = await offsetOf(server);
  const isSeen = async () => Number((await stage.node(server)).offset) >= target;
  await until(isSeen, { what: `the proxy having seen offset ${target} of ${server.address}` });
}

async function increment(client: RawClient, key: string, times: number): Promise<void> {
  for (let i = 0; i < times; i++) expect(typeof (await client.command("INCR", key))).toBe("number");
}

describe("a replica that lags is promoted by others", () => {
  it("is followed, and what was acknowledged and is lost is reported: log, metric, PROXY FAILOVERS (16, 39)", async () => {
    const [link] = (await setUpLinked()) as [ChaosLink];
    const [r1, r2] = stage.group.replicas as [RedisServer, RedisServer];
    const client = await stage.client();
    await increment(client, "n", 10);
    await until(async () => (await r1.cli("GET", "n")) === "10");
    link.stall();
    await increment(client, "n", 90);
    await r2.untilCaughtUp(stage.master);
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    // A master's PING to its replicas counts, too, at whatever moment it came.
    await untilSeen(r2);
    const written = await offsetOf(r2);
    const held = client.command("INCR", "n");
    await stage.untilHeld();
    await r1.promote();
    const survivesUpTo = Number((await r1.info()).get("second_repl_offset")) - 1;
    expect(await held, "the lagging one really is the master").toBe(11);
    await stage.untilMaster(r1);
    const [last] = await stage.failovers();
    const lost = Number(last?.lost_bytes);
    expect(lost).toBe(written - survivesUpTo);
    expect(last).toMatchObject({ to: r1.address, from: stage.master.address, reason: "promoted" });
    expect(await stage.proxy.metric("holdfast_lost_bytes_total")).toBe(lost);
    await until(() => stage.proxy.logged("switch").length > 0, { what: "the line in the log" });
    expect(stage.proxy.logged("switch")[0]).toMatchObject({ lostBytes: lost, to: r1.address });
    // The other replica holds the lost writes: it is not read before it has given them up.
    expect(await r2.cli("GET", "n")).toBe("100");
    expect(await stage.node(r2)).toMatchObject({ fit: 0, reason: "other-history" });
    expect(await client.command("GET", "n")).toBe("11");
    const reader = await stage.client();
    for (let i = 0; i < 4; i++) expect(await (await stage.client()).command("GET", "n")).toBe("11");
    await r2.replicaOf(r1);
    await stage.untilReadable(1);
    expect(await reader.command("GET", "n")).toBe("11");
    figure(`lagging replica promoted: ${lost} bytes (90 increments) reported lost`);
  });

  it("a promotion that loses nothing reports nothing (16)", async () => {
    await setUp();
    const client = await stage.client();
    await increment(client, "n", 50);
    await stage.replica(0).untilCaughtUp(stage.master);
    await untilSeen(stage.master);
    await stage.master.kill("SIGKILL");
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    expect(await client.command("INCR", "n")).toBe(51);
    expect((await stage.failovers())[0]).toMatchObject({ lost_bytes: 0 });
    expect(await stage.proxy.metric("holdfast_lost_bytes_total")).toBe(0);
    expect(await stage.proxy.metric("holdfast_switches_loss_unknown_total")).toBe(0);
  });
});

describe("two masters", () => {
  it("the old one lives on: no write and no read of ours reaches it until it has synced (40)", async () => {
    await setUp();
    const [r1, r2] = stage.group.replicas as [RedisServer, RedisServer];
    const clients = await stage.clients(6);
    await increment(clients[0]!, "n", 5);
    await r1.promote();
    await r2.replicaOf(r1);
    await stage.untilMaster(r1);
    await stage.untilReadable(1);
    // Somebody goes on to write to the old master directly.
    await stage.master.cli("SET", "n", "-1000");
    await stage.master.cli("SET", "stray", "1");
    const before = await calls(stage.master, "incr", "get", "set", "exists");
    const sent = await stage.sentTo(stage.master);
    for (const client of clients) {
      await increment(client, "n", 5);
      for (let i = 0; i < 5; i++) {
        expect(Number(await client.command("GET", "n"))).toBeGreaterThan(0);
        expect(await client.command("EXISTS", "stray")).toBe(0);
      }
    }
    expect(await calls(stage.master, "incr", "get", "set", "exists")).toBe(before);
    expect(await stage.sentTo(stage.master)).toBe(sent);
    expect(await stage.problems()).toContain(`claimant-refused ${stage.master.address}`);
    expect(await stage.node(stage.master)).toMatchObject({ fit: 0, is_master: 0, reason: "claims-master" });
    await stage.master.replicaOf(r1);
    await stage.untilReadable(2);
    expect(await stage.master.cli("EXISTS", "stray"), "it has given up what only it had").toBe(0);
    expect(await stage.problems()).not.toContain("claimant-refused");
  });

  it("a stranger with other data is never written nor read, also not when the master is gone (40, 42)", async () => {
    // Configured by mistake: a master of something else.
    const stranger = await startRedis();
    servers.push(stranger);
    await setUp({ before: (group) => [...group.addresses, stranger.address].reverse() });
    const client = await stage.client();
    await increment(client, "n", 5);
    expect(await stranger.cli("SET", "n", "1000")).toBe("OK");
    await until(async () => (await stage.problems()).includes(`claimant-refused ${stranger.address}`));
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    const write = client.command("INCR", "n");
    await stage.untilHeld();
    const probes = await calls(stranger, "info");
    await until(async () => (await calls(stranger, "info")) > probes + 10, {
      what: "the stranger being looked at",
    });
    for (let i = 0; i < 6; i++) {
      expect(await (await stage.client()).command("GET", "n")).toBe("5");
      expect(await stage.status()).toMatchObject({ writable: 0, master: stage.master.address });
    }
    await stage.replica(0).promote();
    expect(await write).toBe(6);
    expect(await calls(stranger, "get", "incr")).toBe(0);
    expect(await stranger.cli("GET", "n")).toBe("1000");
  });

  it("two candidates without a common truth: nobody is guessed, writes wait and get one clear error, an operator decides (42, 43)", async () => {
    await setUp({ config: { hold: { maxTime: "1500ms" } } });
    const [r1, r2] = stage.group.replicas as [RedisServer, RedisServer];
    const [writer, reader] = (await stage.clients(2)) as [RawClient, RawClient];
    await increment(writer, "n", 5);
    for (const replica of [r1, r2]) await replica.untilCaughtUp(stage.master);
    // Both are promoted before the proxy can look.
    stage.proxy.signal("SIGSTOP");
    await stage.master.kill("SIGKILL");
    await r1.promote();
    await r2.promote();
    stage.proxy.signal("SIGCONT");
    await stage.untilCause("no-common-truth");
    expect(await stage.problems()).toContain("no-common-truth");
    expect(await stage.number("epoch")).toBe(1);
    const startedAtMs = performance.now();
    const text = errorText(await writer.command("INCR", "n"));
    expect(text).toMatch(/^MASTERDOWN .*not run/);
    expect(performance.now() - startedAtMs).toBeGreaterThan(1_400);
    for (const candidate of [r1, r2]) expect(await candidate.cli("GET", "n"), "nobody got it").toBe("5");
    expect(await calls(r1, "incr")).toBe(await calls(r2, "incr"));
    const waiting = writer.command("INCR", "n");
    await stage.untilHeld();
    expect(await stage.adopt(r2.address)).toBe("OK");
    expect(await waiting).toBe(6);
    expect(await stage.status()).toMatchObject({ master: r2.address, writable: 1 });
    expect(await r1.cli("GET", "n")).toBe("5");
    expect(await reader.command("GET", "n")).toBe("6");
    expect((await stage.failovers())[0]).toMatchObject({ reason: "operator", to: r2.address });
  });
});

describe("the same master comes back", () => {
  it("empty: writes are held, replicas serve, PROXY ADOPT ends it (41)", async () => {
    const mine = await setUpLinked();
    const [writer, reader] = (await stage.clients(2)) as [RawClient, RawClient];
    expect(await writer.command("SET", "k", "v")).toBe("OK");
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    await until(async () => (await reader.command("GET", "k")) === "v");
    // Its replicas cannot reach it meanwhile, else they would be emptied, too.
    for (const link of mine) {
      await link.refuse();
      link.cut();
    }
    await stage.master.restart();
    expect(await stage.master.cli("DBSIZE")).toBe(0);
    await stage.untilCause("history-refused");
    expect(await stage.problems()).toContain(`history-refused ${stage.master.address}`);
    const write = writer.command("INCR", "n");
    await stage.untilHeld();
    // Newcomers: who has read before may wait for the very replica that showed it that much.
    for (let i = 0; i < 20; i++) expect(await (await stage.client()).command("GET", "k")).toBe("v");
    expect(await calls(stage.master, "get", "set", "incr")).toBe(0);
    expect((await stage.proxy.http("/readyz")).status).toBe(503);
    expect(await stage.number("held_now")).toBe(1);
    expect(errorText(await stage.adopt(stage.replica(0).address))).toMatch(/^ERR proxy: .*not-a-master/);

    expect(await stage.adopt(stage.master.address)).toBe("OK");
    expect(await within(write, 5_000, "the held write")).toBe(1);
    expect(await stage.epoch()).toMatchObject({ number: 1, master: stage.master.address, hold_cause: null });
    // What the replicas have is not the truth any more.
    expect(await stage.number("readable_nodes")).toBe(0);
    expect(await reader.command("GET", "k")).toBeNull();
    for (const link of mine) await link.accept();
    await stage.untilReadable(2);
    expect(await reader.command("GET", "n")).toBe("1");
    await stage.expectBalancedAccounts();
  });

  it("empty, and a replica is promoted instead: it is the master (41)", async () => {
    const mine = await setUpLinked();
    const [client] = (await stage.clients(1)) as [RawClient];
    await increment(client, "n", 5);
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    for (const link of mine) {
      await link.refuse();
      link.cut();
    }
    await stage.master.restart();
    await stage.untilCause("history-refused");
    const write = client.command("INCR", "n");
    await stage.untilHeld();
    await stage.replica(0).promote();
    expect(await write).toBe(6);
    expect(await stage.status()).toMatchObject({ master: stage.replica(0).address, epoch: 2 });
    expect(await stage.master.cli("DBSIZE")).toBe(0);
  });

  it("with all its data after a clean SHUTDOWN: goes on under the same epoch, nothing is lost (13, 41)", async (context) => {
    needs(context, "history in RDB files");
    await setUp({ redis: { args: ["--save", "3600", "1"] } });
    const [client, reader] = (await stage.clients(2)) as [RawClient, RawClient];
    await increment(client, "n", 20);
    await stage.master.cli("SHUTDOWN", "SAVE").catch(() => undefined);
    await until(() => !stage.master.running);
    await stage.untilCause("connection-lost");
    const write = client.command("INCR", "n");
    await stage.untilHeld();
    expect(await reader.command("GET", "n"), "reads go on").toBe("20");
    await stage.master.restart();
    expect(await write).toBe(21);
    expect(await stage.epoch()).toMatchObject({ number: 1, master: stage.master.address, hold_cause: null });
    expect(await stage.failovers()).toEqual([]);
    await stage.untilReadable(2);
    expect(await stage.proxy.metric("holdfast_lost_bytes_total")).toBe(0);
    await stage.expectBalancedAccounts();
  });

  it("rolled back to an older state: writes are held, not answered from the past (41)", async () => {
    const mine = await setUpLinked({ redis: { args: ["--save", ""] } });
    const client = await stage.client();
    await increment(client, "n", 5);
    expect(await stage.master.cli("SAVE")).toBe("OK");
    await increment(client, "n", 5);
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    await untilSeen(stage.master);
    for (const link of mine) {
      await link.refuse();
      link.cut();
    }
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    await stage.master.restart();
    expect(await stage.master.cli("GET", "n")).toBe("5");
    await stage.untilCause("history-refused");
    const write = client.command("INCR", "n");
    await stage.untilHeld();
    for (let i = 0; i < 5; i++) {
      const reader = await stage.client();
      expect(await reader.command("GET", "n")).toBe("10");
    }
    await stage.replica(1).promote();
    expect(await write).toBe(11);
  });

  it("rolled back and copied by all its replicas: nothing else is left, what was lost is reported (16, 41)", async (context) => {
    needs(context, "history in RDB files");
    await setUp({ redis: { args: ["--save", ""] } });
    const client = await stage.client();
    await increment(client, "n", 5);
    expect(await stage.master.cli("SAVE")).toBe("OK");
    const saved = await offsetOf(stage.master);
    await increment(client, "n", 5);
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    await untilSeen(stage.master);
    const seen = await offsetOf(stage.master);
    await stage.master.restart();
    await until(async () => (await stage.failovers()).length > 0, { what: "the return being recorded" });
    expect(await client.command("INCR", "n")).toBe(6);
    const [record] = await stage.failovers();
    const { address } = stage.master;
    expect(record).toMatchObject({ ...{ epoch: 1, from: address, to: address }, reason: "unanimous" });
    // What nobody said (PING to replicas) may lie between.
    expect(Number(record?.lost_bytes)).toBeGreaterThan(0);
    expect(Number(record?.lost_bytes)).toBeGreaterThanOrEqual(seen - saved - 100);
    expect(await stage.proxy.metric("holdfast_lost_bytes_total")).toBe(record?.lost_bytes);
    expect(stage.proxy.logged("the master is back with a new history")).toHaveLength(1);
    expect(await stage.number("switches")).toBe(0);
  });
});
