/** Reads that one replica does not answer in time and another does (`reads.hedge`). */
import { afterEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { type ChaosLink, startLink } from "../support/link.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { calls, report, resetCalls, Stage } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

let stage: Stage;
const links: ChaosLink[] = [];

afterEach(async () => {
  await stage?.close();
  for (const link of links.splice(0)) await link.close();
});

/** A group whose replicas stand behind links, slow or stalled on demand. */
async function setUp(reads: ConfigObject, probe: ConfigObject = {}): Promise<void> {
  stage = await Stage.open({
    config: { reads, probe },
    before: async (group) => {
      for (const replica of group.replicas) {
        const link = await startLink(replica.ownPort);
        links.push(link);
        await replica.standBehind(link.port);
        await replica.restart(["--replicaof", "127.0.0.1", `${group.master.port}`]);
        await replica.untilLinkUp();
      }
      for (let i = 0; i < 500; i++) await group.master.cli("SET", `k${i}`, `value of k${i}`);
      for (const replica of group.replicas) await replica.untilCaughtUp(group.master);
      return group.all.map(({ address }) => address);
    },
  });
}

/**
 * Every client reads keys of its own, one after another, for as long as `going` holds; each reply must be
 * that key's. @returns how long each read took, ms, shortest first.
 */
async function readAll(clients: readonly RawClient[], going: () => boolean): Promise<number[]> {
  const tookMs: number[] = [];
  const wrong: string[] = [];
  await Promise.all(
    clients.map(async (client, id) => {
      for (let i = 0; going(); i++) {
        const key = `k${(id * 10 + i) % 500}`;
        const startMs = performance.now();
        const reply = await client.command("GET", key);
        tookMs.push(performance.now() - startMs);
        if (reply !== `value of ${key}`) wrong.push(`${key}: ${String(reply)}`);
      }
    }),
  );
  expect(wrong).toEqual([]);
  expect(clients.map(({ unclaimed }) => unclaimed).filter((count) => count > 0)).toEqual([]);
  return tookMs.toSorted((one, other) => one - other);
}

function during(ms: number): () => boolean {
  const endMs = performance.now() + ms;
  return () => performance.now() < endMs;
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN;
}

const hedged = () => stage.proxy.metric("holdfast_hedges_total");
const won = () => stage.proxy.metric("holdfast_hedges_won_total");

describe("a replica that answers late", () => {
  it.each(["session", "eventual"])("does not hold reads up: %s", async (consistency) => {
    await setUp({ consistency, hedge: "20ms", slowAfter: 0 });
    const clients = await stage.clients(50);
    const aloneMs = quantile(await readAll(clients, during(1_000)), 0.99);
    links[0]!.delay(200);
    const tookMs = await readAll(clients, during(4_000));
    const [p99, max, reads] = [quantile(tookMs, 0.99), tookMs.at(-1)!, tookMs.length];
    // There and back. Else each client that is at the slow one, about half of them, has ten such reads. A
    // busy machine makes few reads at all, and one in ten of them is hedged at most.
    const late = tookMs.filter((ms) => ms >= 400).length;
    const [sent, first] = [await hedged(), await won()];
    report(
      `${consistency}: ${reads} reads, p99 ${p99.toFixed(1)} ms (alone ${aloneMs.toFixed(1)}), ` +
        `max ${max.toFixed(1)} ms, ${late} late, ${sent}/${first}`,
    );
    expect(p99).toBeLessThan(100 + 2 * aloneMs);
    // Of 250. A machine that stands still makes one read of each client late.
    expect(late).toBeLessThan(125);
    expect(first).toBeGreaterThan(20);
    expect(sent).toBeLessThan(0.1 * reads + 33);
  });

  it("that stops altogether does not hold reads up before that is noticed", async () => {
    await setUp({ hedge: "20ms", slowAfter: 0 }, { timeout: "4s" });
    const clients = await stage.clients(20);
    await readAll(clients, during(300));
    await stage.replica(0).kill("SIGSTOP");
    const tookMs = await readAll(clients, during(700));
    await stage.replica(0).kill("SIGCONT");
    report(`max ${tookMs.at(-1)!.toFixed(1)} ms of ${tookMs.length} reads`);
    expect(tookMs.at(-1)).toBeLessThan(1_500);
    expect(await won()).toBeGreaterThan(0);
    // What it answers when it goes on is nobody's.
    await until(async () => (await readAll(clients, during(200))).length > 100);
  });

  it("late answers are dropped, and a client reads no value older than one it has read", async () => {
    await setUp({ hedge: "5ms", slowAfter: 0 });
    const [writer, ...readers] = await stage.clients(11);
    const backwards: string[] = [];
    let going = true;
    links[0]!.delay(30);
    const write = async (): Promise<void> => {
      while (going) await writer!.command("INCR", "n");
    };
    const read = async (client: RawClient): Promise<void> => {
      for (let last = 0, now = 0; going; last = now) {
        now = Number((await client.command("GET", "n")) ?? 0);
        if (now < last) backwards.push(`${now} after ${last}`);
      }
    };
    const all = Promise.all([write(), ...readers.map(read)]);
    // Each reader of the late node moves to the one that answered first, and stays there.
    await until(async () => (await won()) >= 3, { what: "answers of a second node" });
    await sleep(500);
    going = false;
    await all;
    expect(backwards).toEqual([]);
  });
});

describe("what is not sent twice", () => {
  it("pipelines, and anything while it is off", async () => {
    await setUp({ hedge: "5ms", slowAfter: 0 });
    const client = await stage.client();
    for (const link of links) link.delay(50);
    const commands = Array.from({ length: 20 }, (_, i) => ["GET", `k${i}`]);
    expect(await client.pipeline(commands)).toEqual(commands.map(([, key]) => `value of ${key}`));
    expect(await hedged()).toBe(0);
    await client.command("GET", "k1");
    expect(await hedged()).toBe(1);
  });

  it("writes, which run once", async () => {
    await setUp({ hedge: "5ms", slowAfter: 0 });
    const client = await stage.client();
    await resetCalls(stage.master);
    await stage.master.cli("CLIENT", "PAUSE", 100, "WRITE");
    expect(await client.command("INCR", "n")).toBe(1);
    expect(await calls(stage.master, "incr")).toBe(1);
    expect(await hedged()).toBe(0);
  });

  it("more than one read in ten, where all nodes are slow", async () => {
    await setUp({ consistency: "eventual", hedge: "5ms", slowAfter: 0 });
    const clients = await stage.clients(40);
    for (const link of links) link.delay(20);
    const reads = (await readAll(clients, during(2_000))).length;
    expect(reads).toBeGreaterThan(500);
    expect(await hedged()).toBeLessThanOrEqual(0.1 * reads + 33);
    expect(await hedged()).toBeGreaterThan(32);
  });
});
