/** Two proxies that may promote, on real servers: at most one is allowed to. */
import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock, systemTimer } from "../../src/clock.ts";
import type { Standing } from "../../src/failover/model.ts";
import { MARKER_PREFIX, markerId } from "../../src/failover/right/lease.ts";
import { PromoterLine } from "../../src/failover/right/promoter-line.ts";
import { Promoters, type PromotersOptions } from "../../src/failover/right/promoters.ts";
import { parseNodeId } from "../../src/topology/address.ts";
import type { Login } from "../../src/topology/dial.ts";
import type { NodeId } from "../../src/topology/epoch.ts";
import { needs } from "../support/abilities.ts";
import { RawClient } from "../support/client.ts";
import { type ChaosLink, startLink } from "../support/link.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";

/** How long a node may take to answer, ms: no stall of the machine. */
const TIMEOUT_MS = 1_500;

const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function servers(count: number): Promise<RedisServer[]> {
  const all = await Promise.all(Array.from({ length: count }, () => startRedis()));
  cleanups.push(async () => {
    await Promise.all(all.map((one) => one.close()));
  });
  return all;
}

function idOf({ address }: { readonly address: string }): NodeId {
  const id = parseNodeId(address);
  if (id === null) throw new Error(`no address: ${address}`);
  return id;
}

interface Candidate {
  readonly promoters: Promoters;
  readonly told: Standing[];
  /** "sole", or the reason why not. */
  readonly now: () => string;
  readonly confirm: (...nodes: NodeId[]) => Promise<Standing>;
}

function candidate(nodes: readonly NodeId[], options: Partial<PromotersOptions & Login> = {}): Candidate {
  const told: Standing[] = [];
  const id = markerId(systemClock.wallMs(), randomBytes(8).toString("hex"));
  const promoters = new Promoters(
    { timeoutMs: TIMEOUT_MS, lookEveryMs: 200, id, ...options },
    { onStanding: (standing) => told.push(standing) },
    {
      ...{ clock: systemClock, setTimer: systemTimer, random: Math.random },
      createLine: (node, onEnd) => new PromoterLine(node, options, onEnd),
    },
  );
  cleanups.push(() => promoters.close());
  promoters.setNodes(nodes);
  promoters.start();
  const now = (): string => {
    const standing = promoters.standing();
    return standing.kind === "sole" ? "sole" : standing.reason;
  };
  const confirm = (...must: NodeId[]): Promise<Standing> =>
    within(new Promise<Standing>((resolve) => promoters.confirm(must, resolve)), 5_000, "a confirmation");
  return { promoters, told, now, confirm };
}

async function untilSole(one: Candidate): Promise<void> {
  await until(() => one.now() === "sole", { what: "being sole" }).catch((error: unknown) => {
    throw new Error(`not sole: ${one.now()}`, { cause: error });
  });
}

async function markersOn(server: RedisServer): Promise<string[]> {
  return (await server.cli("PUBSUB", "CHANNELS", `${MARKER_PREFIX}*`)) as string[];
}

describe("one proxy", () => {
  it("is sole when its marker stands on all nodes, and leaves none behind", async () => {
    const all = await servers(3);
    const nodes = all.map(idOf);
    const one = candidate(nodes, { label: "10.0.0.1:6379" });
    expect(one.now()).toContain("on 0 of 3 nodes");
    await untilSole(one);
    await until(async () => (await Promise.all(all.map(markersOn))).every((found) => found.length === 1));
    expect((await markersOn(all[0]!))[0]).toMatch(
      /^__holdfast__:promoter:\d{15}-[0-9a-f]{16}@10\.0\.0\.1:6379$/,
    );
    expect(await one.confirm(...nodes)).toEqual({ kind: "sole" });
    expect(one.told.at(-1)).toEqual({ kind: "sole" });
    await one.promoters.close();
    for (const server of all) await until(async () => (await markersOn(server)).length === 0);
    for (const server of all)
      expect(String(await server.cli("CLIENT", "LIST"))).not.toContain("holdfast-promoter");
  });

  it("stays sole when two of three nodes go down, if it has seen all three at one time", async () => {
    const all = await servers(3);
    const [a, b, c] = all as [RedisServer, RedisServer, RedisServer];
    const one = candidate(all.map(idOf));
    await untilSole(one);
    await until(async () => (await markersOn(c)).length === 1);
    expect(await one.confirm(...all.map(idOf))).toEqual({ kind: "sole" });
    await a.kill("SIGKILL");
    await b.kill("SIGSTOP");
    const askedAtMs = performance.now();
    expect(await one.confirm(idOf(c))).toEqual({ kind: "sole" });
    expect(performance.now() - askedAtMs, "it does not wait for a node that hangs").toBeLessThan(
      TIMEOUT_MS - 100,
    );
    expect(await one.confirm(idOf(b), idOf(c))).toMatchObject({
      kind: "refused",
      reason: expect.stringContaining(`could not be asked on ${idOf(b)}`),
    });
    await b.kill("SIGCONT");
    expect(one.told.filter(({ kind }) => kind === "sole")).toHaveLength(1);
  });

  it("is not sole on one of three nodes when it has never seen the others", async () => {
    const all = await servers(3);
    const [a, b, c] = all as [RedisServer, RedisServer, RedisServer];
    await a.kill("SIGKILL");
    await b.kill("SIGKILL");
    const one = candidate(all.map(idOf));
    await until(() => one.now().includes("on 1 of 3 nodes, and 2 are needed"), { what: "the reason" });
    expect(await one.confirm(idOf(c))).toMatchObject({ kind: "refused" });
    await b.start();
    await untilSole(one);
  });

  it("puts its marker up again where a node was restarted, or had closed the connection", async () => {
    const all = await servers(1);
    const [a] = all as [RedisServer];
    const one = candidate(all.map(idOf));
    await untilSole(one);
    await a.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await until(async () => (await markersOn(a)).length === 1, { what: "the marker again" });
    await untilSole(one);
    await a.restart();
    await until(async () => (await markersOn(a)).length === 1, { what: "the marker again" });
    await untilSole(one);
  });

  it("is refused, and told what it needs, where its user may not mark or look", async (context) => {
    needs(context, "ACL &channel");
    const all = await servers(1);
    const [a] = all as [RedisServer];
    await a.cli("ACL", "SETUSER", "boss", "on", ">pw", "resetchannels", "+@all");
    const one = candidate(all.map(idOf), { username: "boss", password: "pw" });
    await until(() => one.now().includes("&__holdfast__:* &__sentinel__:hello +subscribe +pubsub"), {
      what: "the reason",
    });
    expect(one.now()).toContain("NOPERM");
    await a.cli("ACL", "SETUSER", "boss", "&__holdfast__:*", "&__sentinel__:hello", "-pubsub");
    await until(() => one.now().includes("pubsub|channels") || one.now().includes("'pubsub'"));
    await a.cli(
      "ACL",
      "SETUSER",
      "boss",
      "-@all",
      "&__holdfast__:*",
      "&__sentinel__:hello",
      "+subscribe",
      "+pubsub",
    );
    await untilSole(one);
  });
});

describe("two proxies", () => {
  it("are not both sole: the second one is refused, names the first, and takes over when it ends", async () => {
    const all = await servers(3);
    const nodes = all.map(idOf);
    const first = candidate(nodes, { label: "first:6379" });
    await untilSole(first);
    const second = candidate(nodes, { label: "second:6379" });
    await until(() => second.now().includes("the proxy at first:6379 promotes in this group already"));
    expect(second.now()).toContain("Sentinel");
    expect(await second.confirm(...nodes)).toMatchObject({ kind: "refused" });
    expect(await first.confirm(...nodes)).toEqual({ kind: "sole" });
    expect(second.told.every(({ kind }) => kind === "refused")).toBe(true);
    const since = first.told.slice(first.told.findIndex(({ kind }) => kind === "sole"));
    expect(since).toEqual([{ kind: "sole" }]);
    await first.promoters.close();
    await untilSole(second);
  });

  it("that start at the same time come to one, and are never both confirmed", async () => {
    const all = await servers(3);
    const nodes = all.map(idOf);
    for (let round = 0; round < 5; round++) {
      const both = [candidate(nodes), candidate(nodes)] as const;
      let confirmations = 0;
      await until(
        async () => {
          const standings = await Promise.all(both.map((one) => one.confirm(...nodes)));
          confirmations++;
          const sole = standings.filter(({ kind }) => kind === "sole").length;
          if (sole > 1) throw new Error("both were confirmed");
          return sole === 1 && both.filter((one) => one.now() === "sole").length === 1;
        },
        { what: `one of the two being sole, after ${confirmations} confirmations` },
      );
      for (const one of both) await one.promoters.close();
      for (const server of all) await until(async () => (await markersOn(server)).length === 0);
    }
  });

  it("see each other on the node between them, when each is cut off from another one", async () => {
    const all = await servers(3);
    const links: ChaosLink[] = [];
    // Their addresses are links of their own, as if they came by different ways.
    const way = async (): Promise<NodeId[]> => {
      const mine = await Promise.all(all.map((server) => startLink(server.port)));
      links.push(...mine);
      return mine.map((link) => idOf({ address: `127.0.0.1:${link.port}` }));
    };
    cleanups.push(async () => {
      for (const link of links) await link.close();
    });
    const [ways, others] = [await way(), await way()];
    await links[0]?.refuse();
    const first = candidate(ways, { label: "first" });
    await untilSole(first);
    await links[5]?.refuse();
    const second = candidate(others, { label: "second" });
    await until(() => second.now().includes("the proxy at first"), { what: "the first one seen" });
    expect(first.now()).toBe("sole");
    // A link that swallows everything: what was seen there does not count, and the other two are enough.
    links[2]?.stall();
    expect(await first.confirm(...ways.slice(1, 2))).toMatchObject({ kind: "refused" });
    links[2]?.resume();
    await until(async () => (await first.confirm(...ways.slice(1))).kind === "sole", { what: "both again" });
  });

  it("of which one hangs: its marker stays, and the other one is refused until it is gone", async () => {
    const all = await servers(2);
    const first = candidate(all.map(idOf));
    await untilSole(first);
    // A marker without a proxy that looks: as of one whose process stands still.
    const channel = `${MARKER_PREFIX}000000000000001-dead@elder:6379`;
    const hung = await RawClient.connect({ port: all[0]!.port });
    await hung.command("SUBSCRIBE", channel);
    await until(() => first.now().includes("the proxy at elder:6379 promotes"), { what: "the elder seen" });
    expect(first.told.at(-1)).toMatchObject({ kind: "refused" });
    await until(async () => (await markersOn(all[1]!)).length === 0, { what: "our markers taken away" });
    hung.close();
    await untilSole(first);
  });
});
