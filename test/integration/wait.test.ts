/** WAIT and WAITAOF: a number of replicas that is true for this client's last write, or none. */
import { afterEach, describe, expect, it } from "vitest";
import { needs } from "../support/abilities.ts";
import type { RawClient } from "../support/client.ts";
import type { RedisServer } from "../support/redis.ts";
import { errorText, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage;
afterEach(() => stage.close());

/** The replica gets nothing more, and says so to nobody. */
async function cutOff(...replicas: readonly RedisServer[]): Promise<void> {
  for (const replica of replicas) await replica.cli("SLAVEOF", "127.0.0.1", "1");
  const online = async () => Number((await stage.master.info()).get("connected_slaves"));
  const left = stage.group.replicas.length - replicas.length;
  await until(async () => (await online()) === left, { what: "the replicas being cut off" });
}

async function untilWaiting(server = stage.master, calls = 1): Promise<void> {
  const blocked = async () => Number((await server.info("clients")).get("blocked_clients"));
  await until(async () => (await blocked()) === calls, { what: `${calls} calls waiting` });
}

/** What was answered before is in a report of the master. */
function untilProbed(): Promise<void> {
  return stage.untilReport(stage.master);
}

async function writer(): Promise<RawClient> {
  const client = await stage.client();
  expect(await client.command("SET", "k", "v")).toBe("OK");
  return client;
}

describe("while nothing fails", () => {
  it("33: counts the replicas that have the client's last write, on whichever connection it is asked", async () => {
    stage = await Stage.open();
    const [first, second] = [await writer(), await writer()];
    expect(await first.command("WAIT", 2, 5_000)).toBe(2);
    // A connection that answered before, and knows only of what was written then.
    const idle = 'holdfast_upstream_connections{kind="idle"}';
    expect((await stage.proxy.metrics()).get(idle)).toBe(1);
    await stage.replica(0).kill("SIGSTOP");
    for (const client of [first, second]) {
      expect(await client.command("SET", "k", "w")).toBe("OK");
      expect(await client.command("WAIT", 1, 5_000)).toBe(1);
      expect(await client.command("WAIT", 2, 200)).toBe(1);
    }
    const pipeline = [
      ["SET", "k", "x"],
      // Long enough for the other one's word.
      ["WAIT", 2, 2_000],
      ["GET", "k"],
    ];
    expect(await first.pipeline(pipeline)).toEqual(["OK", 1, "x"]);
    const unit = (await first.pipeline([["MULTI"], ["SET", "k", "y"], ["WAIT", 2, 0], ["EXEC"]])).at(-1);
    expect(Number((unit as unknown[])[1])).toBeLessThan(2);
    await stage.replica(0).kill("SIGCONT");
    expect(await second.command("WAIT", 2, 5_000)).toBe(2);
  });

  it("33: a client that never wrote is answered, and nothing is published for it", async () => {
    stage = await Stage.open();
    const client = await stage.client();
    const monitor = await stage.client();
    expect(await monitor.command("PSUBSCRIBE", "*")).toEqual(["psubscribe", "*", 1]);
    expect(await client.command("WAIT", 2, 5_000)).toBe(2);
    expect(await client.command("SET", "k", "v")).toBe("OK");
    expect(await client.command("WAIT", 2, 5_000)).toBe(2);
    expect(await monitor.reply()).toEqual(["pmessage", "*", "__holdfast:wait", ""]);
    expect(monitor.unclaimed).toBe(0);
  });

  it("33: malformed words, and a command that the server does not have, get the server's own errors", async () => {
    stage = await Stage.open({ replicas: 0 });
    const client = await writer();
    const direct = [
      ["WAIT", "one", "0"],
      ["WAIT", "1", "x"],
      ["WAIT", "1", "-1"],
      ["WAIT", "1"],
    ];
    for (const command of direct) {
      const expected = errorText(await stage.master.cli(...command));
      expect(errorText(await client.command(...command))).toBe(expected);
    }
    const isKnown = !String(await stage.master.cli("WAITAOF", "0", "0", "0")).includes("unknown command");
    const reply = await client.command("WAITAOF", "0", "0", "0");
    if (isKnown) expect(reply).toEqual([0, 0]);
    else {
      expect(errorText(reply)).toMatch(/^ERR unknown command/);
      expect(await client.command("MULTI")).toBe("OK");
      expect(errorText(await client.command("WAITAOF", "0", "0", "0"))).toMatch(/^ERR unknown command/);
      expect(await client.command("DISCARD")).toBe("OK");
    }
    expect(await client.command("GET", "k")).toBe("v");
  });

  it("33: a user who may not write the mark is told so, and gets no number", async (context) => {
    needs(context, "ACL &channel");
    stage = await Stage.open({ replicas: 1 });
    const rules = ["on", ">secret", "~*", "resetchannels", "+@all"];
    for (const server of stage.group.all) await server.cli("ACL", "SETUSER", "alice", ...rules);
    const client = await stage.client();
    expect(await client.command("AUTH", "alice", "secret")).toBe("OK");
    expect(await client.command("WAIT", 1, 5_000)).toBe(1);
    expect(await client.command("SET", "k", "v")).toBe("OK");
    expect(errorText(await client.command("WAIT", 1, 100))).toMatch(
      /^ERR proxy: .* PUBLISH .*__holdfast:wait/,
    );
    expect(await client.command("GET", "k")).toBe("v");
  });
});

describe("over a switch", () => {
  it("33: goes on at the new master after a crash, and counts who has the write there", async () => {
    stage = await Stage.open({ replicas: 3 });
    const client = await writer();
    await untilProbed();
    const [next, ...others] = stage.group.replicas as [RedisServer, ...RedisServer[]];
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    await cutOff(...others);
    const answer = client.command("WAIT", 2, 0);
    await untilWaiting();
    await stage.master.kill("SIGKILL");
    await next.promote();
    await stage.untilMaster(next);
    await untilWaiting(next);
    for (const replica of others) await replica.replicaOf(next);
    expect(await answer).toBe(2);
    expect(await stage.proxy.metric("holdfast_lost_bytes_total")).toBe(0);
    expect(await stage.proxy.metric("holdfast_blocking_reissued_total")).toBe(1);
  });

  it("33: a demotion does not unblock it: it goes on at the new master", async () => {
    stage = await Stage.open();
    const client = await writer();
    await untilProbed();
    const [next, other] = stage.group.replicas as [RedisServer, RedisServer];
    await next.untilCaughtUp(stage.master);
    await cutOff(other);
    const answer = client.command("WAIT", 2, 0);
    await untilWaiting();
    await stage.master.replicaOf(next);
    await next.promote();
    await stage.untilMaster(next);
    await other.replicaOf(next);
    expect(await answer).toBe(2);
  });

  it("33: after a lossy promotion it is 0, at once, for those whose write is lost, until they write again", async () => {
    stage = await Stage.open();
    const kept = await writer();
    const reader = await stage.client();
    await untilProbed();
    const [next, other] = stage.group.replicas as [RedisServer, RedisServer];
    for (const replica of [next, other]) await replica.untilCaughtUp(stage.master);
    await cutOff(next, other);
    const lost = await writer();
    const waiting = await writer();
    const answer = waiting.command("WAIT", 1, 0);
    await untilWaiting();
    await untilProbed();
    await stage.master.kill("SIGKILL");
    await next.promote();
    await other.replicaOf(next);
    await stage.untilMaster(next);
    expect(await answer).toBe(0);
    expect(await lost.command("WAIT", 1, 0)).toBe(0);
    // Where it reads from now does not make its write a later one.
    await lost.command("GET", "k");
    expect(await lost.command("WAIT", 1, 0)).toBe(0);
    expect(await stage.proxy.metric("holdfast_lost_bytes_total")).toBeGreaterThan(0);
    expect(await kept.command("WAIT", 1, 10_000)).toBe(1);
    expect(await reader.command("WAIT", 1, 10_000)).toBe(1);
    expect(await lost.command("SET", "k", "again")).toBe("OK");
    expect(await lost.command("WAIT", 1, 10_000)).toBe(1);
    expect(errorText(await waiting.command("WAIT", "one", 0))).toMatch(/^ERR value is not an integer/);
  });

  it("33: a write that the former master answered after the switch is not counted at the new one", async () => {
    stage = await Stage.open({ config: { upstream: { retireTimeout: "20s" } } });
    const client = await stage.client();
    const [next, other] = stage.group.replicas as [RedisServer, RedisServer];
    await stage.master.cli("CLIENT", "PAUSE", 60_000, "WRITE");
    const written = client.command("SET", "k", "v");
    await untilWaiting();
    await next.promote();
    await other.replicaOf(next);
    await stage.untilMaster(next);
    await stage.master.cli("CLIENT", "UNPAUSE");
    expect(await written).toBe("OK");
    expect(await next.cli("GET", "k")).toBeNull();
    expect(await client.command("WAIT", 1, 0)).toBe(0);
    expect(await client.command("SET", "k", "w")).toBe("OK");
    expect(await client.command("WAIT", 1, 10_000)).toBe(1);
  });

  it("33: its own time-out ends it also while there is no master: 0, whether it was sent before or not", async () => {
    stage = await Stage.open({ replicas: 1 });
    const [before, after] = [await writer(), await writer()];
    await stage.replica(0).untilCaughtUp(stage.master);
    await untilProbed();
    const first = before.command("WAIT", 2, 2_000);
    await untilWaiting();
    const fromMs = performance.now();
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    const pop = (await stage.client()).command("BLPOP", "q", "0.5");
    expect(await after.command("WAIT", 2, 500)).toBe(0);
    expect(await pop).toBeNull();
    expect(await first).toBe(0);
    // hold.maxTime is ten times as long.
    expect(performance.now() - fromMs).toBeLessThan(5_000);
    expect(before.disconnected || after.disconnected).toBe(false);
  });
});
