/**
 * Sentinel promotes, the proxy follows: real Sentinels, and clients on bare sockets without any reconnect
 * logic. Sentinel sends SLAVEOF, CONFIG REWRITE and CLIENT KILL to the node it promotes and to those it
 * re-points, and leaves the old master a master for 8 s more.
 */
import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/clock.ts";
import { parseNodeId } from "../../src/topology/address.ts";
import { createLinkFactory } from "../../src/topology/sentinel/link.ts";
import { SentinelWatch } from "../../src/topology/sentinel/watch.ts";
import { needs } from "../support/abilities.ts";
import { makeCertificates } from "../support/certificates.ts";
import { type FakeNode, resp, startFakeNode } from "../support/fake-node.ts";
import { startLink } from "../support/link.ts";
import { type ConfigObject, startProxy } from "../support/proxy.ts";
import { PROMOTED, type RedisServer, startGroup, startRedis } from "../support/redis.ts";
import { type SentinelOptions, type Sentinels, startSentinels } from "../support/sentinel.ts";
import {
  calls,
  expectBooksBalance,
  expectNoticedNothing,
  fields,
  report as figure,
  resetCalls,
  Stage,
  type StageOptions,
} from "../support/stage.ts";
import { until } from "../support/wait.ts";
import { type Report, startWorkload, type Workload, type WorkloadOptions } from "../support/workload.ts";

/** Within 150 ms of the promotion; several times that where other programs run beside us. */
const FIRST_WRITE_MS = 150;
const NOISE = 6;
const READ_GAP_MS = 2_000;

let stage: Stage;
let sentinels: Sentinels;
let load: Workload | undefined;
const cleanups: (() => Promise<unknown>)[] = [];

interface SetUp {
  readonly stage?: StageOptions;
  readonly sentinel?: SentinelOptions;
  /** More settings of the group `sentinel`. */
  readonly settings?: ConfigObject;
  /** What the proxy is given besides; default: no nodes at all. */
  readonly nodes?: "all" | "none";
  /** Which Sentinels the proxy is given; default all. */
  readonly given?: (sentinels: Sentinels) => readonly string[];
}

async function setUp(options: SetUp = {}): Promise<void> {
  stage = await Stage.open({
    ...options.stage,
    before: async (group) => {
      sentinels = await startSentinels(group, options.sentinel);
      const nodes = options.given?.(sentinels) ?? sentinels.addresses;
      const given = await options.stage?.before?.(group);
      const addresses = given === undefined || "nodes" in given ? group.addresses : given;
      return {
        nodes: options.nodes === "all" ? addresses : [],
        config: { sentinel: { name: sentinels.name, nodes, ...options.settings } },
      };
    },
  });
}

async function loaded(options: Partial<WorkloadOptions> = {}): Promise<Workload> {
  const workload = await startWorkload({ port: stage.proxy.port, ...options });
  load = workload;
  await progress("writer", 50);
  workload.resetGaps();
  return workload;
}

afterEach(async () => {
  await load?.stop();
  load = undefined;
  await stage?.close();
  await sentinels?.close();
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

async function progress(kind: "reader" | "writer" | "transaction", steps: number): Promise<void> {
  const count = (): number => load?.report().kinds[kind].count ?? 0;
  const target = count() + steps;
  await until(() => count() >= target, { what: `${steps} more steps of ${kind}` });
}

/** The replica that has become a master, and when, by its own log: wall-clock ms. */
async function untilPromoted(): Promise<{ readonly server: RedisServer; readonly atMs: number }> {
  const find = () =>
    stage.group.replicas
      .map((server) => ({
        server,
        time: /(\d+ \w+ \d+ [\d:.]+) \* (?:MASTER|PRIMARY) MODE enabled/.exec(server.output)?.[1],
      }))
      .find(({ time }) => time !== undefined);
  const { server, time } = await until(find, { deadlineMs: 20_000, everyMs: 1, what: "a promotion" });
  return { server, atMs: Date.parse(time ?? "") };
}

/** How long after the promotion the proxy had switched, ms. */
async function switchedAfter(atMs: number): Promise<number> {
  const [last] = await until(stage.failovers.bind(stage), { what: "a switch" });
  return Date.parse(String(last?.at)) - atMs;
}

async function untilProblem(words: RegExp, deadlineMs?: number): Promise<void> {
  const isThere = async () => words.test(await stage.problems());
  await until(isThere, {
    what: `a problem like ${words}`,
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
  });
}

async function untilNoProblem(): Promise<void> {
  await until(async () => (await stage.problems()) === "", { what: "no problems" });
}

async function untilAgreeing(count: number): Promise<void> {
  await until(async () => (await stage.number("sentinels_agreeing")) === count, {
    what: `${count} agreeing Sentinels`,
  });
}

/**
 * Sentinel turns a master that is not the master into a replica, after 8 s: how many writes it ran as a
 * master. As a replica it runs those of its new master.
 */
async function writesUntilDemoted(server: RedisServer): Promise<number> {
  let writes = 0;
  const isReplica = async () => {
    const now = await calls(server, "incr", "set", "exec");
    if ((await server.info()).get("role") === "slave") return true;
    writes = now;
    return false;
  };
  await until(isReplica, { deadlineMs: 30_000, what: `${server.address} being made a replica` });
  return writes;
}

/** Beside a second master, the last own writes before the switch may be lost: by nature, and nothing else. */
function expectOnlyOwnLosses(report: Report): void {
  const mismatches = report.mismatches.filter((text) => !text.includes("behind its own"));
  expectNoticedNothing({ ...report, mismatches });
  expect(report.mismatches.length, "own writes that were lost, each noticed once").toBeLessThan(20);
}

/** A Sentinel that names a master of its own choice, and knows nobody else. */
async function startLiar(port: number): Promise<FakeNode> {
  const fields = (pairs: Readonly<Record<string, string>>) =>
    resp.array(Object.entries(pairs).flat().map(resp.bulk));
  const liar = await startFakeNode(({ name, args }) => {
    if (name === "SUBSCRIBE") {
      const channels = args.slice(1);
      return channels
        .map((channel, i) => resp.array([resp.bulk("subscribe"), resp.bulk(channel), resp.integer(i + 1)]))
        .join("");
    }
    if (name !== "SENTINEL") return undefined;
    switch (args[1]?.toUpperCase()) {
      case "GET-MASTER-ADDR-BY-NAME":
        return resp.array([resp.bulk("127.0.0.1"), resp.bulk(`${port}`)]);
      case "MASTER":
        return fields({ name: "mymaster", ip: "127.0.0.1", port: `${port}`, "config-epoch": "999" });
      case "MYID":
        return resp.bulk(randomBytes(20).toString("hex"));
      case "CKQUORUM":
        return resp.simple("OK");
      default:
        return resp.array([]);
    }
  });
  cleanups.push(() => liar.close());
  return liar;
}

function switchMessage(fromPort: number, toPort: number): string {
  const text = `mymaster 127.0.0.1 ${fromPort} 127.0.0.1 ${toPort}`;
  return resp.array(["message", "+switch-master", text].map(resp.bulk));
}

describe("SENTINEL FAILOVER of a master that lives", () => {
  it("is followed at once; nobody notices, the old master gets no write for as long as it is one (9, 40, 48)", async () => {
    await setUp({ nodes: "all" });
    const workload = await loaded();
    await sentinels.failover();
    const promoted = await untilPromoted();
    await stage.untilMaster(promoted.server);
    const lateMs = await switchedAfter(promoted.atMs);
    // What was on its way before the switch is answered; from here on it must not be asked any more.
    await progress("writer", 20);
    await resetCalls(stage.master);
    await progress("writer", 200);
    expect((await stage.master.info()).get("role"), "the old master is still one").toBe("master");
    await sentinels.untilMaster(promoted.server);
    const other = stage.group.replicas.find((server) => server !== promoted.server);
    await until(async () => (await other?.info())?.get("master_port") === `${promoted.server.port}`, {
      what: "the other replica following it",
    });
    expect(await writesUntilDemoted(stage.master), "writes on the old master").toBe(0);
    await stage.untilReadable(2);
    await untilNoProblem();
    await untilAgreeing(3);
    expect(await stage.status()).toMatchObject({ sentinels: 3, sentinel_master: promoted.server.address });

    const report = await workload.stop();
    expectOnlyOwnLosses(report);
    expect(report.kinds.reader.longestGapMs).toBeLessThan(READ_GAP_MS);
    expect(lateMs).toBeLessThan(FIRST_WRITE_MS * NOISE);
    figure(
      `SENTINEL FAILOVER: switched ${lateMs} ms after the promotion; reader gap ` +
        `${report.kinds.reader.longestGapMs.toFixed(0)} ms, writer gap ` +
        `${report.kinds.writer.longestGapMs.toFixed(0)} ms`,
    );
  });

  it("again and again leads from one master to the next", async () => {
    await setUp();
    const workload = await loaded();
    let [from, epoch] = [stage.master, 1];
    for (let round = 0; round < 2; round++) {
      await sentinels.failover(round);
      epoch++;
      await until(async () => (await stage.status()).epoch === epoch, { deadlineMs: 20_000 });
      const last = await stage.status();
      const to = stage.group.all.find(({ address }) => address === last.master);
      if (to === undefined || to === from) throw new Error(`no switch: ${String(last.master)}`);
      await sentinels.untilMaster(to);
      await writesUntilDemoted(from);
      await until(async () => (await from.info()).get("master_link_status") === "up");
      await stage.untilReadable(2);
      from = to;
    }
    expectOnlyOwnLosses(await workload.stop());
  });
});

describe("a master that dies", () => {
  it("is succeeded by whom Sentinel promotes: only UNCERTAIN, and writes go on at once (8, 12)", async () => {
    await setUp();
    const workload = await loaded();
    await stage.master.kill("SIGKILL");
    await stage.untilHeld();
    const first = workload.next("writer");
    const promoted = await untilPromoted();
    const firstWriteMs = performance.timeOrigin + (await first) - promoted.atMs;
    await stage.untilMaster(promoted.server);
    await progress("writer", 100);
    await progress("transaction", 10);

    const report = await workload.stop();
    expectNoticedNothing(report, ["UNCERTAIN"]);
    expectBooksBalance(await workload.audit(promoted.server.port));
    expect(report.kinds.reader.longestGapMs).toBeLessThan(READ_GAP_MS);
    expect(firstWriteMs).toBeLessThan(FIRST_WRITE_MS * NOISE);
    expect((await stage.failovers())[0]).toMatchObject({ reason: "promoted", lost_bytes: 0 });
    figure(
      `crash under Sentinel: first write ${firstWriteMs.toFixed(0)} ms after the promotion; ` +
        `reader gap ${report.kinds.reader.longestGapMs.toFixed(0)} ms`,
    );
  });

  it("and returns as a master is not written until Sentinel has demoted it (40)", async () => {
    await setUp();
    const client = await stage.client();
    await stage.master.kill("SIGKILL");
    const promoted = await untilPromoted();
    await stage.untilMaster(promoted.server);
    await sentinels.untilMaster(promoted.server);
    await stage.master.restart();
    await untilProblem(new RegExp(`claimant-refused ${stage.master.address}`));
    for (let i = 0; i < 50; i++) expect(await client.command("SET", `key${i}`, i)).toBe("OK");
    expect(await writesUntilDemoted(stage.master)).toBe(0);
    // Sentinels may find reasons of their own for one more failover: its former master is demoted 8 s later.
    await stage.untilReadable(2, 30_000);
    const promotions = stage.group.all.map(({ output }) => output.split(PROMOTED).length - 1);
    expect((await stage.failovers()).length).toBe(promotions.reduce((sum, count) => sum + count, 0));
    await untilNoProblem();
  });
});

describe("Sentinels that are away", () => {
  it("two of three: it is said, and the nodes alone are enough", async () => {
    await setUp();
    // What the old master answers beside the new one, Redis loses: nobody here reads it back.
    const workload = await loaded({ ownReaders: 0, pipeliners: 0 });
    await sentinels.at(1).kill();
    await sentinels.at(2).pause();
    await untilProblem(/sentinel-no-quorum/);
    await untilProblem(new RegExp(`sentinel-unreachable ${sentinels.at(1).address}: .*ECONNREFUSED`));
    // Asked anew it accepts, and says no more than before.
    await untilProblem(
      new RegExp(`sentinel-unreachable ${sentinels.at(2).address}: .*no (?:answer|connection) within`),
    );
    expect(await stage.status()).toMatchObject({
      sentinels: 3,
      sentinels_agreeing: 0,
      sentinel_master: null,
    });
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    await progress("writer", 50);
    expectNoticedNothing(await workload.stop());

    await sentinels.at(1).start();
    await sentinels.at(2).continue();
    await until(async () => !/sentinel-unreachable/.test(await stage.problems()));
  });

  it("all of them, with nodes given: nothing else changes", async () => {
    await setUp({ nodes: "all" });
    const workload = await loaded();
    for (const sentinel of sentinels.all) await sentinel.kill();
    await untilProblem(/0 of 3 known Sentinels answer/);
    await stage.master.kill("SIGKILL");
    await stage.untilHeld();
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    await progress("writer", 50);
    expectNoticedNothing(await workload.stop(), ["UNCERTAIN"]);
    const view = await stage.proxy.status<{ sentinels: { state: string; detail: string }[] }>();
    expect(view.sentinels).toHaveLength(3);
    for (const one of view.sentinels) {
      expect(one).toMatchObject({ state: "unreachable", detail: expect.stringContaining("ECONNREFUSED") });
    }
    expect(await stage.proxy.metric("holdfast_sentinels")).toBe(3);
  });

  it("at the start, without nodes: clients wait, it is said why, and the first that comes is enough (2)", async () => {
    const group = await startGroup(1);
    cleanups.push(group.close);
    const away = await startSentinels(group);
    cleanups.push(() => away.close());
    for (const sentinel of away.all) await sentinel.kill();
    const config = { sentinel: { name: "mymaster", nodes: away.addresses } };
    const proxy = await startProxy({ config, waitReady: false });
    cleanups.push(() => proxy.close());
    const client = await proxy.connect();
    const waiting = client.command("SET", "name", "chaoge");
    const says = async () => /sentinel-no-quorum : 0 of 3/.test(await (await proxy.http("/readyz")).text());
    await until(says, { what: "/readyz saying why" });
    await away.at(0).start();
    expect(await waiting).toBe("OK");
    client.close();
    expect(proxy.stray).toBe("");
  });
});

describe("a Sentinel that is not to be believed", () => {
  it("names a stranger: it is looked at, and nothing else; the problem names who disagrees", async () => {
    const stranger = await startRedis();
    cleanups.push(() => stranger.close());
    await stranger.cli("SET", "name", "stranger");
    const liar = await startLiar(stranger.port);
    await setUp({ given: (all) => [liar.address, ...all.addresses] });
    const workload = await loaded();
    for (const { socket } of liar.connections) socket.write(switchMessage(stage.master.port, stranger.port));
    await untilProblem(new RegExp(`sentinel-disagrees ${liar.address}: it names ${stranger.address}`));
    await progress("writer", 50);
    expect(await stage.status()).toMatchObject({
      ...{ master: stage.master.address, epoch: 1, writable: 1 },
      ...{ sentinels: 4, sentinels_agreeing: 3, sentinel_master: stage.master.address },
    });
    expect(await calls(stranger, "incr", "set", "get", "exec"), "the test's own SET").toBe(1);
    expectNoticedNothing(await workload.stop());
  });

  it("and has a majority: a master that is well stays what it is", async () => {
    const stranger = await startRedis();
    cleanups.push(() => stranger.close());
    await stranger.cli("SET", "name", "stranger");
    const liars = [await startLiar(stranger.port), await startLiar(stranger.port)];
    await setUp({ nodes: "all", given: (all) => [all.at(0).address, ...liars.map((one) => one.address)] });
    const workload = await loaded();
    await untilProblem(new RegExp(`sentinel-disagrees ${liars[1]?.address}`));
    expect(await stage.status()).toMatchObject({ master: stage.master.address, epoch: 1, writable: 1 });
    expect(await calls(stranger, "incr", "get", "exec")).toBe(0);
    expectNoticedNothing(await workload.stop());
  });
});

describe("Sentinels that know the master by an address that leads nowhere from the proxy", () => {
  it("mean the same running master: none is said to disagree, at the start and later", async () => {
    const group = await startGroup(0);
    cleanups.push(group.close);
    const link = await startLink(group.master.port);
    cleanups.push(() => link.close());
    const all = await startSentinels(group, { monitored: link.address });
    cleanups.push(() => all.close());
    // Sentinels keep the connections that they have; nobody gets a new one.
    await link.refuse();
    const proxy = await startProxy({
      nodes: group.addresses,
      config: { sentinel: { name: all.name, nodes: all.addresses } },
    });
    cleanups.push(() => proxy.close());
    const client = await proxy.connect({ protocol: 3 });
    cleanups.push(async () => client.close());
    expect(await client.command("SET", "k", "v")).toBe("OK");
    const status = async () => fields(await client.command("PROXY", "STATUS"));
    await until(async () => (await status()).sentinels_agreeing === 3, { what: "three that agree" });
    // Whoever names another master is said to disagree after 5 s.
    const untilMs = performance.now() + 6_000;
    await until(() => performance.now() > untilMs, { what: "the time in which nobody is said to disagree" });
    const sees = { master: group.master.address, writable: 1, sentinel_master: link.address, problems: [] };
    expect(await status()).toMatchObject(sees);
    expect(proxy.logged("problem").filter(({ kind }) => kind === "sentinel-disagrees")).toEqual([]);
  });
});

describe("of two strangers that both claim to be the master", () => {
  it("the one that the Sentinels name is the first one (42)", async () => {
    const stranger = await startRedis();
    cleanups.push(() => stranger.close());
    await stranger.cli("SET", "name", "stranger");
    await setUp({
      stage: {
        replicas: 0,
        before: async (group) => {
          await group.master.cli("SET", "name", "chaoge");
          return [stranger.address, ...group.addresses];
        },
      },
      nodes: "all",
    });
    expect(await stage.status()).toMatchObject({ master: stage.master.address, writable: 1 });
    await untilProblem(new RegExp(`claimant-refused ${stranger.address}`));
  });
});

describe("access to Sentinels", () => {
  it("a wrong name of the group is said, with the name, and writes wait (2)", async () => {
    const group = await startGroup(0);
    cleanups.push(group.close);
    const all = await startSentinels(group, { count: 1 });
    cleanups.push(() => all.close());
    const config = { sentinel: { name: "mistress", nodes: all.addresses } };
    const proxy = await startProxy({ config, waitReady: false });
    cleanups.push(() => proxy.close());
    const says = async () => (await (await proxy.http("/readyz")).text()).includes('named "mistress"');
    await until(says, { what: "/readyz naming the name" });
    expect(proxy.logged("problem").map(({ kind }) => kind)).toContain("sentinel-unknown-master");
  });

  it.each([
    ["no password", {}, /sentinel-no-access .*NOAUTH/],
    ["a wrong one", { password: "wrong" }, /sentinel-no-access .*WRONGPASS/],
    // Before Redis 6.2 a Sentinel knows no users at all.
    [
      "an unknown user",
      { username: "nobody", password: "secret" },
      /sentinel-no-access .*(WRONGPASS|AUTH: ERR wrong number of arguments)/,
    ],
  ])("%s where one is required is a problem that says so", async (_, settings: ConfigObject, problem) => {
    await setUp({ nodes: "all", sentinel: { count: 1, password: "secret" }, settings });
    await untilProblem(problem);
    expect(await stage.proxy.metrics()).toEqual(
      expect.objectContaining(new Map([['holdfast_sentinels{state="no-access"}', 1]])),
    );
  });

  it("a password where none is required does no harm; where there is no AUTH it is a problem", async () => {
    await setUp({ nodes: "all", sentinel: { count: 1 }, settings: { password: "secret" } });
    await untilAgreeing(1);
    await untilNoProblem();
    await stage.proxy.kill();
    const old = await startFakeNode(({ name }) =>
      name === "AUTH" ? resp.error("ERR unknown command `AUTH`, with args beginning with: ") : undefined,
    );
    cleanups.push(() => old.close());
    const config = { sentinel: { name: "mymaster", nodes: [old.address], password: "secret" } };
    const proxy = await startProxy({ nodes: stage.group.addresses, config });
    cleanups.push(() => proxy.close());
    const says = () => proxy.logged("problem").find(({ kind }) => kind === "sentinel-no-access");
    const problem = await until(says, { what: "the problem" });
    expect(problem.detail).toContain("AUTH: ERR unknown command");
    expect(JSON.stringify(proxy.logs)).not.toContain("secret");
  });

  it("a password, or a user who may only do what is needed, is enough", async (context) => {
    needs(context, "users of Sentinels");
    const rights = "+auth +client|setname +subscribe +info +sentinel &*";
    const options = { password: "secret", users: [`watcher on >hush -@all ${rights}`] };
    await setUp({ sentinel: options, settings: { username: "watcher", password: "hush" } });
    await untilAgreeing(3);
    await untilNoProblem();
    await sentinels.failover();
    const promoted = await untilPromoted();
    await stage.untilMaster(promoted.server);
  });

  it("a user who may not subscribe or ask everything is told what is missing, and hears the rest", async (context) => {
    needs(context, "users of Sentinels");
    const rights = "+auth +sentinel|get-master-addr-by-name +sentinel|master +sentinel|replicas";
    const options = { password: "secret", users: [`watcher on >hush -@all ${rights}`] };
    await setUp({ sentinel: options, settings: { username: "watcher", password: "hush" } });
    await untilProblem(/sentinel-no-access .*NOPERM/);
    await untilAgreeing(3);
  });

  it("TLS with an authority and a client certificate", async (context) => {
    needs(context, "SENTINEL MYID");
    const certificates = await makeCertificates();
    cleanups.push(() => certificates.close());
    const { ca, server, client } = certificates;
    const settings = { tls: "on", tlsCa: ca, tlsCert: client.cert, tlsKey: client.key };
    await setUp({ sentinel: { tls: { ca, ...server } }, settings });
    await untilAgreeing(3);
    await untilNoProblem();
    await sentinels.failover();
    const promoted = await untilPromoted();
    await stage.untilMaster(promoted.server);
  });

  it("TLS that fails is a problem that says how: an unknown authority, no certificate of our own, none at all", async () => {
    const certificates = await makeCertificates();
    cleanups.push(() => certificates.close());
    const { ca, server } = certificates;
    await setUp({ nodes: "all", sentinel: { count: 1, tls: { ca, ...server } }, settings: { tls: "on" } });
    await untilProblem(/sentinel-no-access .*TLS: .*(?:certificate|signature)/i);
    await stage.proxy.kill();
    const proxyWith = async (nodes: readonly string[], settings: ConfigObject, words: RegExp) => {
      const config = { sentinel: { name: "mymaster", nodes, ...settings } };
      const proxy = await startProxy({ nodes: stage.group.addresses, config });
      cleanups.push(() => proxy.close());
      const says = () => proxy.logged("problem").some((line) => words.test(`${line.kind} ${line.detail}`));
      await until(says, { what: `a problem like ${words}` });
      expect(proxy.stray).toBe("");
    };
    await proxyWith(sentinels.addresses, { tls: "on", tlsCa: ca }, /sentinel-no-access TLS: /);
    const plain = `127.0.0.1:${sentinels.at(0).port}`;
    await proxyWith([plain], { tls: "on", tlsCa: ca }, /sentinel-unreachable .*no connection within/);
    await proxyWith(sentinels.addresses, {}, /sentinel-unreachable /);
  });
});

describe("the watch over Sentinels itself", () => {
  it("finds all Sentinels and all nodes from one, and has a failover begin when asked", async () => {
    const group = await startGroup(2);
    cleanups.push(group.close);
    const all = await startSentinels(group);
    cleanups.push(() => all.close());
    const hinted = new Set<string>();
    const createLink = createLinkFactory({ tls: null, connectTimeoutMs: 500, timeoutMs: 1_000 });
    const watch = new SentinelWatch(
      { name: "mymaster", seeds: [parseNodeId(all.at(0).address)!], intervalMs: 100 },
      {
        onHint: (nodes) => {
          for (const node of nodes) hinted.add(node);
        },
        onWord: () => {},
      },
      { clock: systemClock, createLink, isHeld: () => false },
    );
    cleanups.push(async () => watch.close());
    watch.start();
    await until(() => watch.word().agreeing === 3, { what: "three Sentinels that agree" });
    expect(watch.word()).toMatchObject({ agreed: group.master.address, known: 3, problems: [] });
    expect([...hinted].sort()).toEqual([...group.addresses].sort());
    expect(watch.view().map(({ configured, state }) => [configured, state])).toEqual([
      [true, "agreeing"],
      [false, "agreeing"],
      [false, "agreeing"],
    ]);

    expect(await watch.failover()).toEqual({ ok: true });
    const again = await watch.failover();
    expect(again).toMatchObject({ ok: false, reason: expect.stringContaining("INPROG") });
    await until(async () => (await group.master.info()).get("role") === "slave", { deadlineMs: 20_000 });
    await until(() => watch.word().agreeing === 3 && watch.word().agreed !== group.master.address);
  });

  it("has a failover begin also when the Sentinel that would be asked has just come to a standstill", async () => {
    const group = await startGroup(1);
    cleanups.push(group.close);
    const all = await startSentinels(group);
    cleanups.push(() => all.close());
    const createLink = createLinkFactory({ tls: null, connectTimeoutMs: 1_000, timeoutMs: 1_000 });
    const watch = new SentinelWatch(
      { name: "mymaster", seeds: all.addresses.map((address) => parseNodeId(address)!), intervalMs: 100 },
      { onHint: () => {}, onWord: () => {} },
      { clock: systemClock, createLink, isHeld: () => false },
    );
    cleanups.push(async () => watch.close());
    watch.start();
    await until(() => watch.word().agreeing === 3, { what: "three Sentinels that agree" });
    await all.at(0).pause();
    expect(watch.view()[0]?.state, "nobody knows yet").toBe("agreeing");
    expect(await watch.failover()).toEqual({ ok: true });
    await until(async () => (await group.replica(0).info()).get("role") === "master", { deadlineMs: 20_000 });
    await all.at(0).continue();
  });
});
