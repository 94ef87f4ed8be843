/** Which of the replicas that may be read gets how much: by weight and rank, and by how it answers. */
import { afterEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { type ChaosLink, startLink } from "../support/link.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { type RedisGroup, type RedisServer, startRedis } from "../support/redis.ts";
import { calls, resetCalls, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await stage?.close();
});

/**
 * A group of which the settings of reads are made when its nodes are known. A busy machine makes one of
 * them late for a while: that takes nothing from its share here.
 */
async function setUp(reads: (group: RedisGroup) => ConfigObject, replicas = 2): Promise<void> {
  stage = await Stage.open({
    replicas,
    before: (group) => ({ nodes: group.addresses, config: { reads: { slowAfter: 0, ...reads(group) } } }),
  });
}

/** A group whose first replica stands behind a link, slow or stalled on demand. */
async function setUpLinked(reads: ConfigObject): Promise<ChaosLink> {
  let link!: ChaosLink;
  stage = await Stage.open({
    config: { reads },
    before: async (group) => {
      link = await startLink(group.replica(0).ownPort);
      await group.replica(0).standBehind(link.port);
      await group.replica(0).restart(["--replicaof", `127.0.0.1 ${group.master.port}`]);
      await group.replica(0).untilLinkUp();
      return group.all.map(({ address }) => address);
    },
  });
  cleanups.push(() => link.close());
  return link;
}

/** The GETs that each server has got of what each client has asked `count` times; 0 where none runs. */
async function spread(clients: readonly RawClient[], count = 5): Promise<number[]> {
  await resetCalls(...stage.group.all.filter(({ running }) => running));
  for (let i = 0; i < count; i++) await Promise.all(clients.map((client) => client.command("GET", "k")));
  return Promise.all(stage.group.all.map((server) => (server.running ? calls(server, "get") : 0)));
}

describe("reads.prefer", () => {
  it("only nodes that are named are read as long as one of them is fit, then the others (6)", async () => {
    await setUp(({ replicas }) => ({ prefer: [replicas[1]!.address, "127.0.0.1:1"] }));
    const clients = await stage.clients(10);
    expect(await spread(clients)).toEqual([0, 0, 50]);
    await stage.replica(1).kill();
    await stage.untilReadable(1);
    await until(async () => (await spread(clients)).join() === "0,50,0", { what: "the other being read" });
    await stage.replica(1).restart(["--replicaof", `127.0.0.1 ${stage.master.port}`]);
    await stage.untilReadable(2);
    await until(async () => (await spread(clients)).join() === "0,0,50", { what: "all going back" });
  });
});

describe("reads.weights", () => {
  it("say what a replica gets beside the other (6)", async () => {
    await setUp(({ replicas }) => ({ weights: [`${replicas[0]!.address}=3`] }));
    // Of so many, drawn by lot, three to one is outside of these bounds less than once in 100 000 runs.
    const [master, heavy, light] = await spread(await stage.clients(120));
    expect(master).toBe(0);
    expect(heavy).toBeGreaterThan(2.2 * light!);
    expect(heavy).toBeLessThan(4 * light!);
  });

  it("0 takes a replica out until there is no other (6)", async () => {
    await setUp(({ replicas }) => ({ weights: [`${replicas[0]!.address}=0`] }));
    const clients = await stage.clients(10);
    expect(await spread(clients)).toEqual([0, 0, 50]);
    await stage.replica(1).kill();
    await stage.untilReadable(1);
    await until(async () => (await spread(clients)).join() === "0,50,0", { what: "the other being read" });
  });

  it("hold for every single read where those may be old (6)", async () => {
    await setUp(({ replicas }) => ({ consistency: "eventual", weights: [`${replicas[0]!.address}=3`] }));
    const [client] = await stage.clients(1);
    const [master, heavy, light] = await spread([client!], 400);
    expect(master).toBe(0);
    expect(heavy).toBeGreaterThan(240);
    expect(light).toBeGreaterThan(50);
  });
});

describe("a replica that joins", () => {
  it("takes over its share of the sessions that are there, and no other session moves (6)", async () => {
    await setUp(() => ({}));
    // A third of so many, drawn by lot, is within these bounds but once in 100 000 runs.
    const clients = await stage.clients(240);
    const [, ...before] = await spread(clients, 1);
    expect(Math.min(...before)).toBeGreaterThan(80);
    const newcomer: RedisServer = await startRedis();
    cleanups.push(() => newcomer.close());
    await newcomer.replicaOf(stage.master);
    await stage.untilReadable(3);
    // A session moves as soon as the newcomer has proven what it has seen.
    let after: number[] = [];
    let moved = 0;
    const count = async (): Promise<boolean> => {
      await resetCalls(newcomer);
      [, ...after] = await spread(clients, 1);
      moved = await calls(newcomer, "get");
      return moved > 48;
    };
    await until(count, { what: "the newcomer having a fifth of them" });
    expect(moved).toBeLessThan(120);
    expect(after[0]).toBeLessThanOrEqual(before[0]!);
    expect(after[1]).toBeLessThanOrEqual(before[1]!);
  });
});

describe("a replica that answers late", () => {
  it.each(["session", "eventual"])(
    "gets an eighth, and its share again when it is well: %s (6)",
    async (how) => {
      const link = await setUpLinked({ consistency: how });
      // It keeps one in ten of them, drawn by lot: of fewer it would now and then keep none.
      const clients = await stage.clients(120);
      const share = async (): Promise<number> => {
        const [, late, other] = await spread(clients, 10);
        return late! / (late! + other!);
      };
      await until(async () => (await share()) > 0.3, { what: "it having its share" });
      link.delay(40);
      const shares: number[] = [];
      await until(async () => shares.push(await share()) > 0 && shares.at(-1)! < 0.25, {
        what: "it getting less",
      });
      expect(shares.at(-1)).toBeGreaterThan(0);
      expect(await stage.proxy.metric("holdfast_node_slow")).toBe(1);
      link.delay(0);
      await until(async () => (await share()) > 0.3, {
        what: "it getting its share again",
        deadlineMs: 20_000,
      });
      const slow = () => stage.proxy.metric("holdfast_node_slow");
      await until(async () => (await slow()) === 0, { what: "no node being slow" });
    },
  );
});
