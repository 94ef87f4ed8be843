/**
 * Sentinels watch the group of which the proxy was not told: it hears them on the nodes, leaves promotions to
 * them, and makes no planned switch, which they would take for an outage.
 */
import { afterEach, describe, expect, it, vi } from "vitest";
import { HEARD_MS, LISTEN_MS } from "../../src/failover/right/foreign-sentinels.ts";
import { needs } from "../support/abilities.ts";
import { RawClient } from "../support/client.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { PROMOTED, type RedisGroup, type RedisServer } from "../support/redis.ts";
import { type Sentinel, type Sentinels, startSentinels } from "../support/sentinel.ts";
import {
  errorText,
  expectNoticedNothing,
  fields,
  report as figure,
  Stage,
  type StageOptions,
} from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";
import { startWorkload, type Workload } from "../support/workload.ts";

const SELF: ConfigObject = { failover: { promote: "self", crashGrace: "250ms", downAfter: "1s" } };
/** A hello (2 s), what a refusal must last before it is said (2 s), and some time for looking. */
const SAID_AFTER_MS = 8_000;
/** Two looks of a proxy that is calm, and some time for noise. */
const LOOKS_MS = 6_000;

// Sentinels have a minute for what they do.
vi.setConfig({ testTimeout: 150_000 });

let stage: Stage;
let sentinels: Sentinels | undefined;
let load: Workload | undefined;
let monitors: RawClient[] = [];

async function setUp(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open({ config: SELF, ...options });
}

async function withSentinels(): Promise<Sentinels> {
  sentinels = await startSentinels(stage.group);
  return sentinels;
}

async function withLoad(): Promise<Workload> {
  const workload = await startWorkload({ port: stage.proxy.port });
  load = workload;
  await until(() => workload.report().kinds.writer.count >= 40, { what: "the load being under way" });
  workload.resetGaps();
  return workload;
}

/** Somebody who listens on every node to what Sentinels say. */
async function withMonitors(group: RedisGroup): Promise<void> {
  monitors = await Promise.all(group.all.map(({ port }) => RawClient.connect({ port })));
  for (const one of monitors) await one.command("SUBSCRIBE", "__sentinel__:hello");
}

afterEach(async () => {
  for (const one of monitors.splice(0)) one.close();
  await load?.stop();
  load = undefined;
  await stage?.close();
  await sentinels?.close();
  sentinels = undefined;
});

async function untilPromoter(what: 0 | 1, deadlineMs: number): Promise<void> {
  await until(async () => (await stage.number("promoter")) === what, {
    what: `promoter ${what}`,
    deadlineMs,
  });
}

async function untilSaid({ address }: Sentinel): Promise<void> {
  const isSaid = async () => (await stage.problems()).includes(`another-promoter : Sentinel ${address} `);
  await until(isSaid, { what: "the Sentinel being named", deadlineMs: SAID_AFTER_MS });
}

/** Of the Sentinels the one that is named, by address. */
function named({ all }: Sentinels): Sentinel {
  const [first] = [...all].sort((a, b) => (a.address < b.address ? -1 : 1));
  if (first === undefined) throw new Error("no Sentinels");
  return first;
}

/** How often the proxy told a node to become the master. */
function promotions(): number {
  return stage.proxy.logs.filter(({ msg, what }) => msg === "failover" && what === "promoting").length;
}

/** Nodes that have become a master since they were started, by their own logs. */
function promoted(): RedisServer[] {
  return stage.group.all.filter(({ output }) => PROMOTED.test(output));
}

async function untilOther(old: RedisServer): Promise<RedisServer> {
  const other = () =>
    stage.epoch().then(({ master }) => stage.group.all.find((one) => one.address === master));
  const isOther = async () => (await other()) !== old && (await stage.number("writable")) === 1;
  await until(isOther, { what: "another master", deadlineMs: 20_000 });
  return (await other()) ?? old;
}

describe("a proxy with failover.promote: self", () => {
  it("says that a Sentinel has come and may not promote; when it is gone it may, and answers a crash", async () => {
    await setUp();
    await untilPromoter(1, LOOKS_MS);
    const watching = await withSentinels();
    await untilSaid(named(watching));
    const advice =
      '(and 2 more) watches this group as "mymaster" and promotes too: use failover.promote: sentinel, ' +
      "or remove the group there (SENTINEL REMOVE mymaster)";
    await until(async () => (await stage.problems()).includes(advice), { what: "all three being heard" });
    expect(await stage.number("promoter")).toBe(0);
    expect(await stage.proxy.metric("holdfast_promoter")).toBe(0);
    expect((await stage.proxy.http("/readyz")).status).toBe(200);
    for (const one of watching.all) await one.cli("SENTINEL", "REMOVE", "mymaster");
    const removedAtMs = performance.now();
    await untilPromoter(1, HEARD_MS + LOOKS_MS);
    figure(
      `the right was there ${Math.round(performance.now() - removedAtMs)} ms after the last was removed`,
    );
    await until(async () => (await stage.problems()) === "", { what: "the problem being over" });
    const said = stage.proxy.logged("problem").filter(({ kind }) => kind === "another-promoter");
    expect(said.map(({ level }) => level)).toEqual(["warn", "info"]); // once that it is there, once that it is over
    const old = stage.master;
    await old.kill();
    const now = await untilOther(old);
    expect([promotions(), promoted()]).toEqual([1, [now]]);
  });

  it("follows a Sentinel that is there when the master crashes: one promotion, and clients wait", async () => {
    await setUp();
    const watching = await withSentinels();
    await untilSaid(named(watching));
    const workload = await withLoad();
    const old = stage.master;
    await old.kill();
    const now = await untilOther(old);
    await workload.next("writer");
    figure(`writes stood still for ${Math.round(workload.report().kinds.writer.longestGapMs)} ms`);
    await watching.untilMaster(now);
    expect([promotions(), promoted()], "Sentinel's alone").toEqual([0, [now]]);
    await old.restart();
    // Sentinel sees to the old master and the other replica, some 10 s after they are back (sentinel.c).
    await stage.untilReadable(2, 60_000);
    await sleep(HEARD_MS);
    expect((await stage.epoch()).master).toBe(now.address);
    await watching.untilMaster(now);
    const report = await workload.stop();
    expectNoticedNothing(report, ["UNCERTAIN"]);
    const audit = await workload.audit(now.port);
    expect(audit.unexplained, audit.details.join("\n")).toBe(0);
    figure(`acknowledged ${report.acked}, uncertain ${report.uncertain}, lost by replication ${audit.lost}`);
  });

  it("does not promote when it was started a moment before a crash, beside a Sentinel", async () => {
    await setUp({
      before: async (group) => {
        sentinels = await startSentinels(group, { downAfterMs: 3_000 });
        return undefined;
      },
    });
    // It has had no time to hear a Sentinel say anything; what it knows is that somebody listens as they do.
    const old = stage.master;
    await old.kill();
    const isSaid = async () => {
      const readyz = await stage.proxy.http("/readyz");
      return readyz.status === 503 && /another-promoter : (Sentinel|somebody)/.test(await readyz.text());
    };
    await until(isSaid, { what: "the reason at /readyz while writes are held" });
    const now = await untilOther(old);
    expect([promotions(), promoted()], "Sentinel's alone").toEqual([0, [now]]);
  });

  it("is not kept from promoting by somebody who only listens to Sentinels", async () => {
    await setUp({
      before: async (group) => {
        await withMonitors(group);
        for (const one of group.all) await one.cli("PUBLISH", "__sentinel__:hello", "is anybody there?");
        return undefined;
      },
    });
    const reason = "somebody subscribes to __sentinel__:hello on";
    await until(async () => (await stage.problems()).includes(reason), { what: "the reason" });
    await untilPromoter(1, LISTEN_MS + LOOKS_MS);
    const old = stage.master;
    await old.kill();
    await untilOther(old);
    expect(promotions()).toBe(1);
  });
});

describe("a planned switch beside a Sentinel that the proxy was not told of", () => {
  const REASON =
    /^ERR proxy: Sentinel \S+( \(and \d more\))? watches this group as "mymaster".*SENTINEL REMOVE mymaster/;

  it.for(["never", "self"])(
    "is refused with promote: %s, whoever asks; nothing is changed",
    async (promote, context) => {
      needs(context, "failover");
      await setUp({ config: { failover: { promote }, commands: { topology: "switchover" } } });
      await withSentinels();
      const client = await stage.client({ protocol: 3 });
      for (const words of [["SWITCHOVER"], ["SWITCHOVER", "DRYRUN"]]) {
        const reply = await client.command("PROXY", ...words);
        expect(errorText(reply)).toMatch(REASON);
        expect(errorText(reply)).toMatch(/; nothing was changed$/);
      }
      const { address } = stage.master;
      expect(errorText(await client.command("PROXY", "RESTARTABLE", address))).toMatch(
        /not restartable now: Sentinel/,
      );
      const replica = await client.command("PROXY", "RESTARTABLE", stage.replica(0).address);
      expect(fields(replica)).toMatchObject({ restartable: 1, moved_to: null });
      expect(errorText(await client.command("FAILOVER"))).toMatch(/Sentinel \S+.* watches this group/);
      expect([(await stage.epoch()).master, await stage.number("switches")]).toEqual([address, 0]);
      expect(promoted()).toEqual([]);
      expect(stage.proxy.logged("failover").map(({ what }) => what)).toContain("switchover-refused");
      expect(await stage.proxy.metric('holdfast_switchovers_total{result="refused"}')).toBe(2);
    },
  );

  it("is made beside somebody who only listens, and needs no longer than that takes to know", async (context) => {
    needs(context, "failover");
    await setUp({ config: {} });
    await withMonitors(stage.group);
    const client = await stage.client({ protocol: 3 });
    const askedAtMs = performance.now();
    const answer = fields(await client.command("PROXY", "SWITCHOVER"));
    const tookMs = performance.now() - askedAtMs;
    expect(answer).toMatchObject({ result: "done", lost_bytes: 0 });
    expect(tookMs).toBeGreaterThanOrEqual(LISTEN_MS);
    expect(Number(answer.stall_ms), "writes do not wait for it").toBeLessThan(LISTEN_MS / 3);
  });
});
