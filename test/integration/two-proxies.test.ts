/** Two proxies of `failover.promote: self` before one group of real servers: at most one of them promotes. */
import { hostname } from "node:os";
import { afterEach, describe, expect, it } from "vitest";
import { needs } from "../support/abilities.ts";
import type { RawClient } from "../support/client.ts";
import { type ConfigObject, type ProxyProcess, startProxy } from "../support/proxy.ts";
import type { RedisGroup, RedisServer } from "../support/redis.ts";
import type { Reply } from "../support/resp.ts";
import {
  expectNoticedNothing,
  type Fields,
  fields,
  report as figure,
  openGroup,
  serverAt,
} from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";
import { startWorkload, type Workload } from "../support/workload.ts";

/** After which a refused standing is a problem although the master is well, ms, and some time for looking. */
const SAID_AFTER_MS = 6_000;
/** "A few seconds": two looks of the proxy that has stood back, and a quiet start of its markers. */
const TAKE_OVER_MS = 8_000;

const FAILOVER: ConfigObject = { promote: "self", crashGrace: "250ms", downAfter: "1s" };

/** A proxy and the connection over which it is asked. */
interface One {
  readonly proxy: ProxyProcess;
  readonly admin: RawClient;
}

let group: RedisGroup;
const proxies: One[] = [];
const loads: Workload[] = [];

afterEach(async () => {
  for (const load of loads.splice(0)) await load.stop();
  for (const { proxy, admin } of proxies.splice(0)) {
    admin.close();
    if (proxy.running) await proxy.close();
    expect(proxy.logged("a bug")).toEqual([]);
    await proxy.kill();
  }
  await group.close();
});

async function start(config: ConfigObject = {}): Promise<One> {
  const proxy = await startProxy({ nodes: group.addresses, config: { failover: FAILOVER, ...config } });
  const one = { proxy, admin: await proxy.connect({ protocol: 3 }) };
  proxies.push(one);
  await until(async () => (await status(one)).readable_nodes === 2, { what: "both replicas being read" });
  return one;
}

async function status({ admin }: One): Promise<Fields> {
  return fields(await admin.command("PROXY", "STATUS"));
}

async function problems(one: One): Promise<string> {
  return ((await status(one)).problems as Reply[]).join("\n");
}

async function masterOf(one: One): Promise<RedisServer> {
  return serverAt(group, (await status(one)).master);
}

/** Its marker stands on every node that runs. */
async function untilMarked({ proxy }: One): Promise<void> {
  const isThere = async (server: RedisServer): Promise<boolean> => {
    const channels = (await server.cli("PUBSUB", "CHANNELS", "__holdfast__:*")) as string[];
    return channels.length === 1 && channels[0]?.endsWith(`@${hostname()}:${proxy.port}`) === true;
  };
  const running = group.all.filter((server) => server.running);
  const all = async () => (await Promise.all(running.map(isThere))).every(Boolean);
  await until(all, { what: "the only markers being those of this proxy", deadlineMs: 15_000 });
}

async function withLoad(one: One, prefix: string): Promise<Workload> {
  const load = await startWorkload({ port: one.proxy.port, prefix });
  loads.push(load);
  await load.underWay(40, 150);
  return load;
}

/** How often it told a node to become the master. */
function promotions({ proxy }: One): number {
  return proxy.logs.filter(({ msg, what }) => msg === "failover" && what === "promoting").length;
}

async function untilSame(one: One, other: One, not: RedisServer): Promise<RedisServer> {
  const same = async () => {
    const [a, b] = await Promise.all([status(one), status(other)]);
    return a.writable === 1 && b.writable === 1 && a.master === b.master && a.master !== not.address;
  };
  await until(same, { what: "both having the same new master", deadlineMs: 15_000 });
  return masterOf(one);
}

async function bringBack(old: RedisServer, ...all: readonly One[]): Promise<void> {
  await old.restart();
  const wholeAgain = async () =>
    (await Promise.all(all.map(status))).every(({ readable_nodes }) => readable_nodes === 2);
  await until(wholeAgain, { what: "the old master being read as a replica", deadlineMs: 15_000 });
}

/** Nobody was disconnected or told wrong, and nothing ran that nobody asked for. */
async function finish(load: Workload, master: RedisServer): Promise<void> {
  const report = await load.stop();
  expectNoticedNothing(report, ["UNCERTAIN"]);
  const audit = await load.audit(master.port);
  expect(audit.unexplained, audit.details.join("\n")).toBe(0);
  figure(`acknowledged ${report.acked}, uncertain ${report.uncertain}, lost by replication ${audit.lost}`);
}

describe("two proxies that may promote", () => {
  it("one may, the other says who does and stays ready; a crash makes one promotion, and both follow it", async () => {
    group = await openGroup();
    const first = await start();
    await untilMarked(first);
    const second = await start();
    const told = `another-promoter : the proxy at ${hostname()}:${first.proxy.port} promotes in this group`;
    await until(async () => (await problems(second)).includes(told), {
      ...{ what: "the second one saying so", deadlineMs: SAID_AFTER_MS },
    });
    expect(await problems(second)).toContain("with more than one proxy use Sentinel");
    expect(await problems(first)).toBe("");
    expect(second.proxy.logged("problem")).toContainEqual(
      expect.objectContaining({ level: "warn", kind: "another-promoter" }),
    );
    expect((await second.proxy.http("/readyz")).status).toBe(200);
    expect((await status(second)).writable).toBe(1);
    expect([(await status(first)).promoter, (await status(second)).promoter]).toEqual([1, 0]);
    expect(await first.proxy.metric("holdfast_promoter")).toBe(1);
    expect(await second.proxy.metric("holdfast_promoter")).toBe(0);

    const both = [await withLoad(first, "one:"), await withLoad(second, "two:")] as const;
    const old = group.master;
    await old.kill();
    const now = await untilSame(first, second, old);
    await Promise.all(both.map((load) => load.next("writer")));
    for (const load of both) {
      figure(`writes stood still for ${Math.round(load.report().kinds.writer.longestGapMs)} ms`);
    }
    expect([promotions(first), promotions(second)]).toEqual([1, 0]);
    await bringBack(old, first, second);
    expect(await masterOf(second)).toBe(now);
    expect(await problems(second), "told all along").toContain("another-promoter");
    const raised = second.proxy.logged("problem").filter(({ kind }) => kind === "another-promoter");
    expect(
      raised.filter(({ level }) => level === "warn"),
      "told once",
    ).toHaveLength(1);
    for (const load of both) await finish(load, now);
  });

  it("the one that may is killed: the other takes over the right, says so, and answers the next crash", async () => {
    group = await openGroup();
    const first = await start();
    await untilMarked(first);
    const second = await start();
    await until(async () => (await problems(second)).includes("another-promoter"), {
      ...{ what: "the second one saying so", deadlineMs: SAID_AFTER_MS },
    });
    const load = await withLoad(second, "two:");
    await first.proxy.kill();
    const killedAtMs = performance.now();
    await until(async () => (await second.proxy.metric("holdfast_promoter")) === 1, {
      ...{ what: "the second one taking over", deadlineMs: TAKE_OVER_MS },
    });
    figure(`the right was taken over within ${Math.round(performance.now() - killedAtMs)} ms`);
    await until(async () => (await problems(second)) === "", { what: "the problem being over" });
    const over = second.proxy.logged("problem is over");
    expect(over).toContainEqual(expect.objectContaining({ level: "info", kind: "another-promoter" }));
    const old = group.master;
    await old.kill();
    await until(async () => (await status(second)).writable === 1 && (await masterOf(second)) !== old, {
      what: "another master",
    });
    await load.next("writer");
    expect(promotions(second)).toBe(1);
    await bringBack(old, second);
    await finish(load, await masterOf(second));
  });

  it("both start at once: one comes to be the promoter, the other says so", async () => {
    group = await openGroup();
    const both = await Promise.all([start(), start()]);
    const may = () => Promise.all(both.map(({ proxy }) => proxy.metric("holdfast_promoter")));
    // Who is first may step back once, so it is asked anew each time.
    const isSettled = async (): Promise<boolean> => {
      const [one, two] = await may();
      const other = one === two ? undefined : both[one === 1 ? 1 : 0];
      return other !== undefined && (await problems(other)).includes("another-promoter");
    };
    await until(isSettled, { what: "one of them, and the other saying so", deadlineMs: 20_000 });
  });
});

describe("a proxy whose user may not look for others", () => {
  it("promotes nobody, stays ready, and names the rights it needs", async (context) => {
    needs(context, "ACL &channel");
    group = await openGroup();
    for (const server of group.all) {
      await server.cli("ACL", "SETUSER", "proxy", "on", ">secret", "~*", "resetchannels", "+@all");
    }
    const one = await start({ upstream: { username: "proxy", password: "secret" } });
    await until(
      async () => (await problems(one)).includes("&__holdfast__:* &__sentinel__:hello +subscribe +pubsub"),
      {
        ...{ what: "the rights being named", deadlineMs: SAID_AFTER_MS },
      },
    );
    expect(await problems(one)).toMatch(/another-promoter .*NOPERM/);
    expect((await one.proxy.http("/readyz")).status).toBe(200);
    await group.master.kill();
    await until(async () => (await status(one)).writable === 0, { what: "writes being held" });
    await sleep(1_000);
    expect(promotions(one)).toBe(0);
    const readyz = await one.proxy.http("/readyz");
    expect([readyz.status, await readyz.text()]).toEqual([503, expect.stringContaining("__holdfast__:*")]);
    for (const replica of group.replicas)
      await replica.cli("ACL", "SETUSER", "proxy", "&__holdfast__:*", "&__sentinel__:hello");
    await until(async () => (await status(one)).writable === 1, {
      ...{ what: "a promotion, once it may", deadlineMs: 15_000 },
    });
    expect(promotions(one)).toBe(1);
  });
});
