/** What the proxy says of its reads is what the servers have counted. */
import { afterEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { layLink } from "../support/link.ts";
import type { RedisServer } from "../support/redis.ts";
import { calls, type Fields, resetCalls, Stage, type StageOptions } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await stage.close();
});

interface Ways {
  readonly replica: number;
  readonly freshness: number;
  readonly noneFit: number;
  readonly policy: number;
}

/** From PROXY STATUS, which must say what /metrics and /api/status say. */
async function ways(): Promise<Ways> {
  const status = await stage.status();
  const told = {
    replica: Number(status.reads_replica),
    freshness: Number(status.reads_master_freshness),
    noneFit: Number(status.reads_master_none_fit),
    policy: Number(status.reads_master_policy),
  };
  const series = await stage.proxy.metrics();
  const master = (why: string) => series.get(`holdfast_reads_total{served_by="master",reason="${why}"}`);
  expect({
    replica: series.get('holdfast_reads_total{served_by="replica",reason="fit"}'),
    freshness: master("freshness"),
    noneFit: master("none-fit"),
    policy: master("policy"),
  }).toEqual(told);
  const { reads } = await stage.proxy.status<{ reads: Record<string, number> }>();
  expect([reads.replica, reads.masterFreshness, reads.masterNoneFit, reads.masterPolicy]).toEqual(
    Object.values(told),
  );
  return told;
}

/** What `run` adds. */
async function added(run: () => Promise<void>): Promise<Ways> {
  const before = await ways();
  await run();
  const after = await ways();
  return {
    replica: after.replica - before.replica,
    freshness: after.freshness - before.freshness,
    noneFit: after.noneFit - before.noneFit,
    policy: after.policy - before.policy,
  };
}

async function readsOf(server: RedisServer): Promise<number> {
  const { reads } = await stage.node(server);
  const series = `holdfast_node_reads_total{node="${server.address}"}`;
  expect((await stage.proxy.metrics()).get(series)).toBe(reads);
  return Number(reads);
}

async function get(client: RawClient, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await client.command("GET", "k");
}

const NONE: Ways = { replica: 0, freshness: 0, noneFit: 0, policy: 0 };

async function open(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open(options);
}

describe("reads by node", () => {
  it("100 of them in a calm group: the nodes' numbers sum up and agree with the servers' own (6)", async () => {
    await open();
    const clients = await stage.clients(5);
    await resetCalls(...stage.group.all);
    const ofEach = await Promise.all(stage.group.all.map(readsOf));
    const more = await added(async () => {
      for (const client of clients) await get(client, 10);
      // In one write, too.
      for (const client of clients) await client.pipeline(Array.from({ length: 10 }, () => ["GET", "k"]));
    });
    expect(more).toEqual({ ...NONE, replica: 100 });
    let sum = 0;
    for (const [i, server] of stage.group.all.entries()) {
      const reads = (await readsOf(server)) - (ofEach[i] ?? 0);
      expect(reads, server.address).toBe(await calls(server, "get"));
      sum += reads;
    }
    expect(sum).toBe(100);
    expect(await readsOf(stage.master)).toBe(ofEach[0]);
    expect((await stage.status()).freshness_share).toBe(0);
  });

  it("what a node owes is seen, and that it is fit or why not (47)", async () => {
    await open({ replicas: 1, config: { probe: { timeout: "5s" } } });
    const client = await stage.client();
    await get(client, 1);
    await stage.replica(0).kill("SIGSTOP");
    const replies = client.pipeline(Array.from({ length: 4 }, () => ["GET", "k"]));
    const owes = async (): Promise<Fields> => stage.node(stage.replica(0));
    await until(async () => (await owes()).outstanding === 4);
    expect(await owes()).toMatchObject({ fit: 1, reason: "fit", slow: 0 });
    const series = await stage.proxy.metrics();
    expect(series.get(`holdfast_node_outstanding{node="${stage.replica(0).address}"}`)).toBe(4);
    await stage.replica(0).kill("SIGCONT");
    expect(await replies).toEqual([null, null, null, null]);
    expect((await owes()).outstanding).toBe(0);
    await stage.replica(0).kill("SIGKILL");
    await until(async () => (await owes()).reason === "unreachable");
    expect(await owes()).toMatchObject({ fit: 0, outstanding: 0 });
  });
});

describe("reads by their way", () => {
  it("to the master because the replica is behind the client's own write (7)", async () => {
    await open({
      replicas: 1,
      before: async (group) => {
        const link = await layLink(group.master, group.replica(0));
        cleanups.push(() => link.close());
        await group.replica(0).untilCaughtUp(group.master);
        stall = () => link.stall();
        return group.addresses;
      },
    });
    const client = await stage.client();
    stall();
    await client.command("SET", "k", "1");
    expect(await added(() => get(client, 20))).toEqual({ ...NONE, freshness: 20 });
    // Behind a write that is not answered yet, in one write.
    const piped = await added(async () => {
      expect(
        await client.pipeline([
          ["SET", "k", "2"],
          ["GET", "k"],
        ]),
      ).toEqual(["OK", "2"]);
    });
    expect(piped).toEqual({ ...NONE, freshness: 1 });
    const status = await stage.status();
    const all = Number(status.reads_replica) + 21;
    expect(status.freshness_share).toBeCloseTo(21 / all, 4);
    expect(await stage.proxy.metric("holdfast_freshness_reads_total")).toBe(21);
  });

  it("to the master because no replica is fit, and because nobody else is meant (7, 47)", async () => {
    await open({ replicas: 1 });
    const client = await stage.client();
    await client.command("PROXY", "CONSISTENCY", "strong");
    expect(await added(() => get(client, 5))).toEqual({ ...NONE, policy: 5 });
    const behindWrite = async (): Promise<void> => {
      await client.pipeline([
        ["SET", "k", "v"],
        ["GET", "k"],
      ]);
    };
    expect(await added(behindWrite), "strong, behind a write").toEqual({ ...NONE, policy: 1 });
    await client.command("PROXY", "CONSISTENCY", "default");
    await client.command("HELLO", "3");
    await client.command("CLIENT", "TRACKING", "ON");
    expect(await added(() => get(client, 4)), "tracked").toEqual({ ...NONE, policy: 4 });
    await client.command("CLIENT", "TRACKING", "OFF");
    await stage.replica(0).kill("SIGKILL");
    await stage.untilReadable(0);
    await resetCalls(stage.master);
    const before = await readsOf(stage.master);
    expect(await added(() => get(client, 6))).toEqual({ ...NONE, noneFit: 6 });
    expect([await calls(stage.master, "get"), (await readsOf(stage.master)) - before]).toEqual([6, 6]);
  });

  it("reads.from master and any: what the master serves is its part by policy (6)", async () => {
    await open({ replicas: 1, config: { reads: { from: "any" } }, readable: 1 });
    // By lot: of four, none would read from the master once in 10 000 runs.
    const clients = await stage.clients(12);
    await resetCalls(...stage.group.all);
    const more = await added(async () => {
      for (const client of clients) await get(client, 5);
    });
    const ofMaster = await calls(stage.master, "get");
    expect(ofMaster).toBeGreaterThan(0);
    expect(more).toEqual({ ...NONE, replica: 60 - ofMaster, policy: ofMaster });
    await stage.close();
    await open({ replicas: 1, config: { reads: { from: "master" } } });
    const client = await stage.client();
    expect(await added(() => get(client, 5))).toEqual({ ...NONE, policy: 5 });
  });
});

let stall: () => void = () => {};
