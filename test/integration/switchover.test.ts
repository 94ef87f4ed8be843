/** PROXY SWITCHOVER and PROXY RESTARTABLE against real servers: planned switches that nobody notices. */
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { abilities, needs } from "../support/abilities.ts";
import { RawClient } from "../support/client.ts";
import { type ChaosLink, layLink } from "../support/link.ts";
import type { RedisServer } from "../support/redis.ts";
import { type Reply, ReplyError } from "../support/resp.ts";
import { isStopped } from "../support/server-process.ts";
import {
  errorText,
  expectBooksBalance,
  expectNoticedNothing,
  type Fields,
  fields,
  report as figure,
  median,
  Stage,
  type StageOptions,
} from "../support/stage.ts";
import { startTap, type Tap } from "../support/tap.ts";
import { sleep, until, within } from "../support/wait.ts";
import type { Workload } from "../support/workload.ts";

/** For what a quiet machine does at once, where one may stand still for half a second, ms. */
const NOISE_MS = 1_000;

let stage: Stage;
let load: Workload | undefined;
let link: ChaosLink | undefined;
let tap: Tap | undefined;

async function setUp(options: StageOptions = {}): Promise<RawClient> {
  stage = await Stage.open(options);
  return await stage.client({ protocol: 3 });
}

async function withLoad(paceMs = 5): Promise<Workload> {
  load = await stage.load({ paceMs });
  await load.underWay(20);
  return load;
}

afterEach(async () => {
  load = undefined;
  await stage?.close();
  await link?.close();
  link = undefined;
  tap?.close();
  tap = undefined;
});

async function switchover(admin: RawClient, ...words: (string | number)[]): Promise<Fields> {
  const reply = await admin.command("PROXY", "SWITCHOVER", ...words);
  if (reply instanceof ReplyError) throw reply;
  return fields(reply);
}

async function refusal(admin: RawClient, ...words: (string | number)[]): Promise<string> {
  return errorText(await admin.command("PROXY", "SWITCHOVER", ...words));
}

async function rolesOf(servers: readonly RedisServer[]): Promise<string[]> {
  const infos = await Promise.all(servers.map((server) => server.info()));
  return infos.map((info) => `${info.get("role")} of ${info.get("master_port") ?? "nobody"}`);
}

/** INCR again and again. @returns the last value it was told. */
async function writeUntilRefused(client: RawClient, key: string): Promise<number> {
  for (let last = 0; ; last++) {
    const reply = await client.command("INCR", key);
    if (reply instanceof ReplyError) {
      expect(reply.word).toBe("READONLY");
      return last;
    }
    expect(reply).toBe(last + 1);
  }
}

/** Writes are answered, by OK or READONLY: nobody has stopped them. */
async function expectNotPaused(servers: readonly RedisServer[], withinMs = NOISE_MS): Promise<void> {
  for (const server of servers) {
    const reply = await within(server.cli("SET", "paused?", "no"), withinMs, `a write on ${server.address}`);
    expect(reply instanceof ReplyError ? reply.word : reply).toMatch(/^(OK|READONLY)$/);
  }
}

/** Runs `attempt`, after which everything must be as it was before: roles, epoch, writes. */
async function expectUnchangedBy(attempt: () => Promise<void>, servers = stage.group.all): Promise<void> {
  const before = await stage.epoch();
  const roles = await rolesOf(servers);
  await attempt();
  // Who was held is released a moment after the answer.
  const isOpen = async () => {
    const { writable, held_now: held } = await stage.status();
    return writable === 1 && held === 0;
  };
  await until(isOpen, { deadlineMs: 2 * NOISE_MS, what: "writes going on" });
  const { number, master, hold_cause } = await stage.epoch();
  expect({ number, master, hold_cause }).toEqual({
    ...{ number: before.number, master: before.master, hold_cause: null },
  });
  const status = await stage.status();
  expect(status).toMatchObject({ writable: 1, switches: 0 });
  expect(await rolesOf(servers)).toEqual(roles);
  const client = await stage.client();
  expect(await within(client.command("SET", "k", "v"), NOISE_MS, "a write by the proxy")).toBe("OK");
}

/** Sleeps up to `mostMs`. @returns how much longer than meant, ms. */
async function pause(mostMs: number): Promise<number> {
  const waitMs = Math.random() * mostMs;
  const sleptAtMs = performance.now();
  await sleep(waitMs);
  return performance.now() - sleptAtMs - waitMs;
}

/** A handover has some twenty turns of four processes: each comes as late as our own timers did. */
function noiseMs(lateMs: readonly number[]): number {
  return 20 * Math.max(0, median(lateMs) - 2);
}

async function untilDryrunSays(admin: RawClient, pattern: RegExp, ...words: string[]): Promise<void> {
  await until(async () => pattern.test(await refusal(admin, ...words, "DRYRUN")), { what: String(pattern) });
}

async function finish(master: RedisServer) {
  if (load === undefined) throw new Error("no load");
  const report = await load.stop();
  return { report, audit: await load.audit(master.port) };
}

describe("PROXY SWITCHOVER", () => {
  it("back and forth twenty times: no error, no lost or doubled write, and writes stand still < 50 ms (8, 15, 17, 37)", async (context) => {
    needs(context, "failover");
    const admin = await setUp();
    await withLoad(1);
    const stalls: number[] = [];
    const lateMs: number[] = [];
    for (let round = 0; round < 20; round++) {
      lateMs.push(await pause(150));
      const answer = await switchover(admin);
      expect(answer, `round ${round}`).toMatchObject({ result: "done", lost_bytes: 0, via: "failover" });
      stalls.push(Number(answer.stall_ms));
    }
    const { report, audit } = await finish(await stage.currentMaster());
    expect(report).toMatchObject({ uncertain: 0 });
    expectNoticedNothing(report);
    expectBooksBalance(audit);
    const readerMs = Math.round(report.kinds.reader.longestClientGapMs);
    figure(`20 switches: stall median ${median(stalls)} ms, at most ${Math.max(...stalls)} ms`);
    figure(`20 switches: a reader waited at most ${readerMs} ms`);
    expect(median(stalls)).toBeLessThan(50 + noiseMs(lateMs));
  });

  it("TO each replica in turn: it is the master, all others follow it, also the third one (49)", async (context) => {
    needs(context, "failover");
    const admin = await setUp();
    await withLoad();
    const [b, c] = [stage.replica(0), stage.replica(1)];
    for (const [next, third] of [
      [b, c],
      [c, stage.master],
      [stage.master, b],
    ] as const) {
      const answer = await switchover(admin, "to", next.address);
      expect(answer).toMatchObject({ result: "done", to: next.address, lost_bytes: 0 });
      expect(answer.repointed, "told to follow").toEqual([third.address]);
      for (const other of stage.group.all) {
        if (other === next) continue;
        await until(async () => (await other.info()).get("master_port") === `${next.port}`, {
          what: `${other.address} following ${next.address}`,
        });
      }
      await stage.untilReadable(2);
    }
    const { report, audit } = await finish(stage.master);
    expect(report).toMatchObject({ uncertain: 0 });
    expectNoticedNothing(report);
    expectBooksBalance(audit);
  });

  it("DRYRUN says what would be done and changes nothing", async (context) => {
    needs(context, "failover");
    const admin = await setUp();
    await expectUnchangedBy(async () => {
      const planned = await switchover(admin, "DRYRUN", "TO", stage.replica(1).address, "TIMEOUT", 500);
      expect(planned).toMatchObject({
        ...{ result: "dryrun", from: stage.master.address, to: stage.replica(1).address, via: "failover" },
      });
      expect((planned.steps as string[]).length).toBeGreaterThan(2);
    });
    expect(await stage.number("held")).toBe(0);
  });

  it("to the master, a stranger, a node that is down or one of priority 0 is refused, nothing changes", async () => {
    const admin = await setUp();
    const [b, c] = [stage.replica(0), stage.replica(1)];
    await expectUnchangedBy(async () => {
      expect(await refusal(admin, "TO", stage.master.address)).toMatch(
        /it is the master already; nothing was/,
      );
      expect(await refusal(admin, "TO", "127.0.0.1:1")).toMatch(
        /not a node of this group; nothing was changed/,
      );
      expect(await refusal(admin, "TO", "nonsense")).toMatch(/'nonsense' is not host:port/);
      expect(await refusal(admin, "TIMEOUT", 9)).toMatch(/TIMEOUT takes 10 to/);
      await b.cli("CONFIG", "SET", "replica-priority", "0");
      await untilDryrunSays(admin, /priority is 0/, "TO", b.address);
      expect(await refusal(admin, "TO", b.address)).toMatch(
        /priority is 0: never promote; nothing was changed/,
      );
    });
    await c.kill();
    await untilDryrunSays(admin, /does not answer/, "TO", c.address);
    await expectUnchangedBy(async () => {
      expect(await refusal(admin, "TO", c.address)).toMatch(/cannot take over: it does not answer/);
      expect(await refusal(admin)).toMatch(/no replica can take over: .*priority is 0.*does not answer/);
    }, [stage.master, b]);
    expect(await stage.number("held")).toBe(0);
  });

  it("to a replica that lags behind is refused", async (context) => {
    needs(context, "failover");
    const admin = await setUp({
      replicas: 1,
      before: async (group) => {
        link = await layLink(group.master, group.replica(0));
        return undefined;
      },
    });
    const b = stage.replica(0);
    await until(async () => !((await admin.command("PROXY", "SWITCHOVER", "DRYRUN")) instanceof ReplyError));
    link?.stall();
    const client = await stage.client();
    const writing = async () => {
      await client.command("INCR", "n");
      return /lags behind by \d+ ms/.test(await refusal(admin, "TO", b.address, "TIMEOUT", "400", "DRYRUN"));
    };
    await until(() => writing().catch(() => false), { what: "the lag being seen" });
    await expectUnchangedBy(async () => {
      expect(await refusal(admin, "TO", b.address, "TIMEOUT", 400)).toMatch(/lags behind by \d+ ms; nothing/);
    });
    link?.resume();
    await b.untilCaughtUp(stage.master);
    const answer = await until(async () => switchover(admin, "TO", b.address).catch(() => null));
    expect(answer).toMatchObject({ result: "done", to: b.address, lost_bytes: 0 });
  });

  it("to a replica that hangs is rolled back within TIMEOUT, and the master is written again (38)", async (context) => {
    needs(context, "failover");
    const admin = await setUp();
    await withLoad();
    const b = stage.replica(0);
    await b.kill("SIGSTOP");
    await expectUnchangedBy(async () => {
      const startedAtMs = performance.now();
      const text = await refusal(admin, "TO", b.address, "TIMEOUT", 400);
      figure(
        `target hangs, TIMEOUT 400: ${Math.round(performance.now() - startedAtMs)} ms until rolled back`,
      );
      expect(text).toMatch(/rolled back: .*the master is the one of before/);
      expect(performance.now() - startedAtMs).toBeLessThan(400 + NOISE_MS);
    }, [stage.master, stage.replica(1)]);
    const gap = load?.report().kinds.writer.longestGapMs ?? Number.NaN;
    figure(`target hangs, TIMEOUT 400: writers stood still for ${Math.round(gap)} ms`);
    expect(gap).toBeLessThan(400 + NOISE_MS);
    await b.kill("SIGCONT");
    await b.untilCaughtUp(stage.master);
    await until(async () => switchover(admin, "TO", b.address).catch(() => null), { what: "a switch later" });
    const { report, audit } = await finish(b);
    expect(report).toMatchObject({ uncertain: 0 });
    expectNoticedNothing(report);
    expectBooksBalance(audit);
  });

  it("to a replica that hangs, TIMEOUT longer than hold.maxTime: rolled back before any write expires", async (context) => {
    needs(context, "failover");
    // A tenth of it is left for the rollback: enough where the machine stands still meanwhile.
    const admin = await setUp({ config: { hold: { maxTime: "8s" } } });
    await withLoad();
    const b = stage.replica(0);
    await b.kill("SIGSTOP");
    expect(await refusal(admin, "TO", b.address, "TIMEOUT", 20_000)).toMatch(
      /rolled back: (?:not done within 7200 ms|the servers gave FAILOVER up)/,
    );
    await b.kill("SIGCONT");
    const { report, audit } = await finish(stage.master);
    expectNoticedNothing(report);
    expectBooksBalance(audit);
  });

  it("while another one runs is refused; the asker may leave, and nothing is held afterwards", async (context) => {
    needs(context, "failover");
    const admin = await setUp();
    const asker = await stage.client();
    const b = stage.replica(0);
    await b.kill("SIGSTOP");
    await expectUnchangedBy(async () => {
      void asker.command("PROXY", "SWITCHOVER", "TO", b.address, "TIMEOUT", 2_000).catch(() => undefined);
      await stage.untilCause("switchover");
      expect(await refusal(admin, "TO", b.address)).toMatch(
        /another switch is under way; nothing was changed/,
      );
      asker.close();
      await until(async () => (await stage.status()).hold_cause === null, {
        deadlineMs: 2_000 + 3 * NOISE_MS,
      });
      await until(async () => (await stage.master.info()).get("master_failover_state") === "no-failover");
    }, [stage.master, stage.replica(1)]);
    await b.kill("SIGCONT");
    await b.untilCaughtUp(stage.master);
    await until(async () => switchover(admin, "TO", b.address).catch(() => null), { what: "a switch later" });
  });

  it("waits for a slow script no longer than TIMEOUT: rolled back in time, the script has its answer (31)", async (context) => {
    needs(context, "failover");
    // A master that does not answer for so long is not silent yet.
    const admin = await setUp({ config: { probe: { timeout: "10s" } } });
    const slow = await stage.client();
    const writer = await stage.client();
    const script =
      "local t = redis.call('TIME') local e = t[1] * 1000 + t[2] / 1000 + 3000 repeat t = redis.call('TIME') " +
      "until t[1] * 1000 + t[2] / 1000 > e redis.call('SET', 'slow', 'ran') return 'slow'";
    const sent = await stage.sentTo(stage.master);
    const answer = slow.command("EVAL", script, 0);
    await until(async () => (await stage.sentTo(stage.master)) > sent, { what: "the script being sent" });
    const startedAtMs = performance.now();
    const text = await refusal(admin, "TIMEOUT", 250);
    const tookMs = performance.now() - startedAtMs;
    figure(`slow EVAL, TIMEOUT 250: rolled back after ${Math.round(tookMs)} ms`);
    expect(text).toMatch(/rolled back: not done within 250 ms: the master still owes answers/);
    expect(tookMs).toBeLessThan(250 + NOISE_MS);
    expect(await stage.status()).toMatchObject({ hold_cause: null, switches: 0 });
    expect(await answer).toBe("slow");
    expect(await writer.command("GET", "slow")).toBe("ran");
    expect(await switchover(admin)).toMatchObject({ result: "done", lost_bytes: 0 });
  });

  it("without the right to FAILOVER goes another way: pause, compare, promote", async (context) => {
    needs(context, "CLIENT PAUSE … WRITE");
    const admin = await setUp();
    for (const server of stage.group.all) await server.cli("ACL", "SETUSER", "default", "-failover");
    await withLoad();
    const stalls: number[] = [];
    const lateMs: number[] = [];
    for (let round = 0; round < 6; round++) {
      lateMs.push(await pause(100));
      const from = await stage.currentMaster();
      const answer = await switchover(admin);
      expect(answer, `round ${round}`).toMatchObject({ result: "done", lost_bytes: 0, via: "promote" });
      stalls.push(Number(answer.stall_ms));
      await expectNotPaused([from]);
      await stage.untilReadable(2);
    }
    const { report, audit } = await finish(await stage.currentMaster());
    figure(
      `6 switches without FAILOVER: stall median ${median(stalls)} ms, at most ${Math.max(...stalls)} ms`,
    );
    expect(report).toMatchObject({ uncertain: 0 });
    expectNoticedNothing(report);
    expectBooksBalance(audit);
    expect(median(stalls)).toBeLessThan(100 + noiseMs(lateMs));
  });

  it("without FAILOVER, to a replica that hangs: rolled back, and the master is not paused", async (context) => {
    needs(context, "CLIENT PAUSE … WRITE");
    const admin = await setUp();
    for (const server of stage.group.all) await server.cli("ACL", "SETUSER", "default", "-failover");
    await withLoad();
    const b = stage.replica(0);
    await b.kill("SIGSTOP");
    await expectUnchangedBy(async () => {
      expect(await refusal(admin, "TO", b.address, "TIMEOUT", 400)).toMatch(
        /rolled back: not done within 400/,
      );
      await expectNotPaused([stage.master]);
    }, [stage.master, stage.replica(1)]);
    await b.kill("SIGCONT");
    const { report, audit } = await finish(stage.master);
    expectNoticedNothing(report);
    expectBooksBalance(audit);
  });

  it("without FAILOVER, two nodes: what others write to the old master is on the new one, or was refused", async (context) => {
    needs(context, "CLIENT PAUSE … WRITE");
    const admin = await setUp({ replicas: 1 });
    for (const server of stage.group.all) await server.cli("ACL", "SETUSER", "default", "-failover");
    for (let round = 0; round < 5; round++) {
      const [from, key] = [await stage.currentMaster(), `direct:${round}`];
      const direct = await RawClient.connect({ port: from.port });
      const written = writeUntilRefused(direct, key);
      await sleep(50);
      expect(await switchover(admin)).toMatchObject({ result: "done", lost_bytes: 0, via: "promote" });
      const count = await written;
      direct.close();
      expect(Number(await (await stage.currentMaster()).cli("GET", key)), `round ${round}`).toBe(count);
      await stage.untilReadable(1);
    }
  });

  it("without FAILOVER, to a replica that hangs with the order unread: carried out late it takes nothing away", async (context) => {
    needs(context, "CLIENT PAUSE … WRITE");
    let isArmed = true;
    const b = () => stage.replica(0);
    const admin = await setUp({
      before: async (group) => {
        const target = group.replica(0);
        tap = await startTap(target.ownPort, async (text) => {
          if (!isArmed || !/replicaof\r\n\$2\r\nNO\r\n/i.test(text)) return;
          isArmed = false;
          // Whatever it is sent from here on it reads when it wakes up.
          process.kill(target.pid, "SIGSTOP");
          // A signal takes its time.
          await until(() => isStopped(target.pid), { what: "the target standing still" });
        });
        // The address it announces is told when it makes its link.
        await target.standBehind(tap.port);
        await target.promote();
        await target.replicaOf(group.master);
        await target.untilLinkUp();
        return group.all.map(({ address }) => address);
      },
    });
    for (const server of stage.group.all) await server.cli("ACL", "SETUSER", "default", "-failover");
    await withLoad();
    const answer = await refusal(admin, "TO", b().address, "TIMEOUT", 400);
    expect(answer).toMatch(/not finished: .* if .* becomes a master yet, it is made to follow/);
    const before = load?.report().kinds.writer.count ?? 0;
    await until(() => (load?.report().kinds.writer.count ?? 0) > before + 200, { what: "writes going on" });
    await b().kill("SIGCONT");
    await until(() => /(?:MASTER|PRIMARY) MODE enabled \(user request from/.test(b().output), {
      what: "b promoted late",
    });
    await b().untilLinkUp();
    expect(await stage.epoch()).toMatchObject({ number: 1, master: stage.master.address, hold_cause: null });
    const { report, audit } = await finish(stage.master);
    expectNoticedNothing(report);
    expectBooksBalance(audit);
  });

  it("the master crashes in the middle: it is said that the end is open, and a promotion by hand ends it", async (context) => {
    needs(context, "failover");
    const admin = await setUp();
    await withLoad();
    const [b, c] = [stage.replica(0), stage.replica(1)];
    await b.kill("SIGSTOP");
    const asked = admin.command("PROXY", "SWITCHOVER", "TO", b.address, "TIMEOUT", 5_000);
    await stage.untilCause("switchover");
    await sleep(100);
    await stage.master.kill();
    expect(errorText(await within(asked, 3_000, "the answer"))).toMatch(/not finished: the master was lost/);
    await stage.untilHeld(1);
    await b.kill("SIGCONT");
    await b.promote();
    await c.replicaOf(b);
    await stage.untilMaster(b);
    const { report, audit } = await finish(b);
    expectNoticedNothing(report, ["UNCERTAIN"]);
    expectBooksBalance(audit);
  });

  it("the master crashes in the middle, promote: self: a replica is promoted", async (context) => {
    needs(context, "failover");
    const admin = await setUp({ config: { failover: { promote: "self", downAfter: "1s" } } });
    await withLoad();
    const b = stage.replica(0);
    await b.kill("SIGSTOP");
    const asked = admin.command("PROXY", "SWITCHOVER", "TO", b.address, "TIMEOUT", 5_000);
    await stage.untilCause("switchover");
    await sleep(100);
    const killedAtMs = performance.now();
    await stage.master.kill();
    expect(errorText(await within(asked, 3_000, "the answer"))).toMatch(/not finished: the master was lost/);
    await load?.next("writer");
    figure(
      `crash during a switch to a node that hangs: writes go on after ${Math.round(performance.now() - killedAtMs)} ms`,
    );
    await b.kill("SIGCONT");
    const now = await stage.currentMaster();
    await stage.untilReadable(1);
    const { report, audit } = await finish(now);
    expect(now).not.toBe(stage.master);
    expectNoticedNothing(report, ["UNCERTAIN"]);
    expectBooksBalance(audit);
  });

  it("inside a pipeline: every answer in its place, the writes behind it run on the new master (15)", async (context) => {
    needs(context, "failover");
    await setUp();
    const client = await stage.client({ protocol: 3 });
    const [set, answer, incr, get, again] = await client.pipeline([
      ["SET", "n", "1"],
      ["PROXY", "SWITCHOVER"],
      ["INCR", "n"],
      ["GET", "n"],
      ["PROXY", "SWITCHOVER", "DRYRUN"],
    ]);
    expect(set).toBe("OK");
    expect(fields(answer as Reply)).toMatchObject({ result: "done", lost_bytes: 0 });
    expect([incr, get]).toEqual([2, "2"]);
    expect(fields(again as Reply)).toMatchObject({ result: "dryrun" });
    const now = await stage.currentMaster();
    expect(now).not.toBe(stage.master);
    expect(await now.cli("GET", "n")).toBe("2");
  });

  it("with clients that block, subscribe and watch: each element is popped once, nobody is disconnected (20, 21, 24)", async (context) => {
    needs(context, "failover");
    const admin = await setUp();
    await withLoad();
    const poppers = await stage.clients(5);
    const popped: string[] = [];
    let isOver = false;
    const popping = poppers.map(async (client) => {
      for (;;) {
        const reply = await client.command("BLPOP", "queue", "end", 0);
        if (!Array.isArray(reply)) throw new Error(`BLPOP answered ${String(reply)}`);
        if (reply[0] === "end") return;
        popped.push(String(reply[1]));
      }
    });
    const subscriber = await stage.client();
    expect(await subscriber.command("SUBSCRIBE", "news")).toEqual(["subscribe", "news", 1]);
    const pusher = await stage.client();
    const pushed: string[] = [];
    const pushing = (async () => {
      for (let i = 0; !isOver; i++) {
        expect(await pusher.command("LPUSH", "queue", `e${i}`)).toBeTypeOf("number");
        pushed.push(`e${i}`);
        expect(await pusher.command("PUBLISH", "news", `e${i}`)).toBeTypeOf("number");
        await sleep(3);
      }
    })();
    const watcher = await stage.client();
    await watcher.command("WATCH", "watched");
    for (let round = 0; round < 6; round++) {
      await sleep(100 + Math.random() * 100);
      expect(await switchover(admin)).toMatchObject({ result: "done", lost_bytes: 0 });
    }
    // What is published before the new master has confirmed the subscription may be missed; the last is not.
    const last = await stage.currentMaster();
    const subscribed = async () => ((await last.cli("PUBSUB", "NUMSUB", "news")) as Reply[])[1] === 1;
    await until(subscribed, { what: "the subscription at the last master" });
    const before = pushed.length;
    await until(() => pushed.length > before + 1, { what: "a message behind that" });
    expect(await watcher.pipeline([["MULTI"], ["SET", "watched", "1"], ["EXEC"]])).toEqual([
      "OK",
      "QUEUED",
      null,
    ]);
    isOver = true;
    await pushing;
    await pusher.command("RPUSH", "end", ...poppers.map(() => "x"));
    await within(Promise.all(popping), 10_000, "all poppers ending");
    await until(() => popped.length >= pushed.length, { what: "everything being popped" }).catch(
      () => undefined,
    );
    expect([...popped].sort()).toEqual([...pushed].sort());
    const texts: string[] = [];
    while (texts.at(-1) !== `message news e${pushed.length - 1}`)
      texts.push(((await subscriber.reply()) as string[]).join(" "));
    figure(`6 switches: a subscriber has heard ${texts.length} of ${pushed.length} messages`);
    expect(subscriber.unclaimed).toBe(0);
    expect(new Set(texts).size, "no message twice, no second confirmation").toBe(texts.length);
    expect(texts.every((text) => text.startsWith("message news e"))).toBe(true);
    const { report, audit } = await finish(await stage.currentMaster());
    expect(report).toMatchObject({ uncertain: 0 });
    expectNoticedNothing(report);
    expectBooksBalance(audit);
  });
});

describe.skipIf(abilities.pausesWrites)("a master that can neither hand over nor pause writes alone", () => {
  it("is not switched away from, DRYRUN says why, and nothing changes", async () => {
    const admin = await setUp();
    await withLoad();
    const why = /writes cannot be paused on .*FAILOVER and CLIENT PAUSE … WRITE need Redis 6\.2; nothing was/;
    await expectUnchangedBy(async () => {
      expect(await refusal(admin, "DRYRUN")).toMatch(why);
      expect(await refusal(admin, "TO", stage.replica(0).address)).toMatch(why);
      const answer = await admin.command("PROXY", "RESTARTABLE", stage.master.address);
      expect(errorText(answer)).toMatch(/not restartable now: writes cannot be paused on/);
      await expectNotPaused([stage.master]);
    });
    expect(await stage.number("held")).toBe(0);
    const { report, audit } = await finish(stage.master);
    expectNoticedNothing(report);
    expectBooksBalance(audit);
  });
});

describe("the proxy is told to stop in the middle of a switch", () => {
  for (const [via, need] of [
    ["failover", "failover"],
    ["promote", "CLIENT PAUSE … WRITE"],
  ] as const) {
    it(`via ${via}: nothing stays paused on the servers, and there is one master`, async (context) => {
      needs(context, need);
      const admin = await setUp();
      if (via === "promote")
        for (const server of stage.group.all) await server.cli("ACL", "SETUSER", "default", "-failover");
      const b = stage.replica(0);
      await b.kill("SIGSTOP");
      void admin.command("PROXY", "SWITCHOVER", "TO", b.address, "TIMEOUT", 700).catch(() => undefined);
      await stage.untilCause("switchover");
      await sleep(50);
      const startedAtMs = performance.now();
      stage.forgetClients();
      await stage.proxy.close();
      figure(
        `SIGTERM during a switch via ${via}: ended after ${Math.round(performance.now() - startedAtMs)} ms`,
      );
      await expectNotPaused([stage.master], 1_000);
      await until(async () => (await stage.master.info()).get("master_failover_state") === "no-failover");
      await b.kill("SIGCONT");
      await b.untilCaughtUp(stage.master);
      expect((await rolesOf(stage.group.all)).map((role) => role.split(" ")[0])).toEqual([
        ...["master", "slave", "slave"],
      ]);
    });

    it(`via ${via}, again and again at any moment: there is always one master whom all follow`, async (context) => {
      needs(context, need);
      for (let round = 0; round < 4; round++) {
        const admin = await setUp();
        if (via === "promote")
          for (const server of stage.group.all) await server.cli("ACL", "SETUSER", "default", "-failover");
        void admin.command("PROXY", "SWITCHOVER").catch(() => undefined);
        admin.socket.end();
        await sleep(Math.random() * 40);
        stage.forgetClients();
        await stage.proxy.close();
        await expectNotPaused(stage.group.all, 2_500);
        const settled = async () => {
          const roles = await rolesOf(stage.group.all);
          return roles.filter((role) => role.startsWith("master")).length === 1;
        };
        await until(settled, { deadlineMs: 3_000, what: `one master: ${await rolesOf(stage.group.all)}` });
        await stage.close();
      }
    });
  }
});

describe("PROXY RESTARTABLE", () => {
  async function restartable(admin: RawClient, node: string, ...words: (string | number)[]) {
    const reply = await admin.command("PROXY", "RESTARTABLE", node, ...words);
    return reply instanceof ReplyError ? reply.message : fields(reply);
  }

  it("a replica is, a stranger is not, the master is when another one has taken over", async (context) => {
    needs(context, "failover");
    const admin = await setUp();
    const b = stage.replica(0);
    await expectUnchangedBy(async () => {
      const plain = { restartable: 1, moved_to: null, stall_ms: 0 };
      expect(await restartable(admin, b.address)).toMatchObject({ node: b.address, ...plain });
      expect(await restartable(admin, "127.0.0.1:1")).toMatch(
        /not restartable now: .*not a node of this group/,
      );
    });
    const answer = await restartable(admin, stage.master.address);
    const now = await stage.currentMaster();
    expect(now).not.toBe(stage.master);
    expect(answer).toMatchObject({ node: stage.master.address, restartable: 1, moved_to: now.address });
    expect((await stage.master.info()).get("master_link_status")).toBe("up");
  });

  it("the master is not when nobody can take over", async () => {
    const admin = await setUp();
    for (const replica of stage.group.replicas) await replica.cli("CONFIG", "SET", "replica-priority", "0");
    await untilDryrunSays(admin, /no replica can take over/);
    await expectUnchangedBy(async () => {
      expect(await restartable(admin, stage.master.address)).toMatch(
        /not restartable now: no replica can take/,
      );
    });
  });

  it("a rolling restart of all three from their own files: 0 errors, 0 lost, 0 disconnects, roles are kept", async (context) => {
    needs(context, "failover");
    const dir = await mkdtemp(path.join(os.tmpdir(), "holdfast-conf-"));
    try {
      const program = path.join(dir, "redis-from-file");
      const server = process.env.TEST_REDIS_SERVER ?? "redis-server";
      const script =
        `[ "$1" = --version ] && exec ${server} "$1"; ` + `touch redis.conf; exec ${server} redis.conf "$@"`;
      await writeFile(program, `#!/bin/sh\n${script}\n`);
      await chmod(program, 0o755);
      const admin = await setUp({ redis: { program } });
      await withLoad();
      for (const server of stage.group.all) {
        const before = await stage.currentMaster();
        const answer = await restartable(admin, server.address);
        expect(answer).toMatchObject({ restartable: 1 });
        expect(server === before).toBe((answer as Fields).moved_to !== null);
        await server.cli("SHUTDOWN", "NOSAVE").catch(() => undefined);
        await until(() => !server.running, { what: "the end of the server" });
        await server.restart();
        const master = await stage.currentMaster();
        expect((await server.info()).get("master_port"), "by its own file").toBe(`${master.port}`);
        await stage.untilReadable(2);
      }
      const now = await stage.currentMaster();
      const { report, audit } = await finish(now);
      const { writer, reader } = report.kinds;
      figure(`rolling restart: a writer waited at most ${Math.round(writer.longestClientGapMs)} ms`);
      figure(`rolling restart: a reader waited at most ${Math.round(reader.longestClientGapMs)} ms`);
      expect(report).toMatchObject({ uncertain: 0 });
      expectNoticedNothing(report);
      expectBooksBalance(audit);
      // The master as well: it is one by its own file.
      await now.cli("SHUTDOWN", "SAVE").catch(() => undefined);
      await until(() => !now.running, { what: "the end of the master" });
      await now.restart();
      expect((await now.info()).get("role")).toBe("master");
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});
