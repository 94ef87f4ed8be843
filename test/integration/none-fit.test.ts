/** reads.whenNoneFit: what becomes of reads while no replica is fit to be read. */
import { afterEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { layLink } from "../support/link.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { type Reply, ReplyError } from "../support/resp.ts";
import { calls, errorText, resetCalls, Stage, type StageOptions } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await stage.close();
});

async function open(policy: "wait" | "error", config: ConfigObject = {}, options: StageOptions = {}) {
  stage = await Stage.open({
    replicas: 1,
    ...options,
    config: { ...config, reads: { whenNoneFit: policy } },
  });
  await stage.master.cli("SET", "k", "v");
  await stage.replica(0).untilCaughtUp(stage.master);
}

async function stopReplica(): Promise<void> {
  await stage.replica(0).kill("SIGKILL");
  await stage.untilReadable(0);
}

async function startReplica(): Promise<void> {
  await stage.replica(0).restart(["--replicaof", `127.0.0.1 ${stage.master.port}`]);
  await stage.untilReadable(1);
}

const NONE_FIT = "ERR proxy: no replica is fit to be read (reads.whenNoneFit)";

/** What the master serves although replicas are meant to: all that no replica may. */
async function expectMasterServes(client: RawClient): Promise<void> {
  const replies = await client.pipeline([
    ["SET", "own", "1"],
    ["GET", "own"],
    ["MULTI"],
    ["GET", "own"],
    ["EXEC"],
    ["EVAL", "return redis.call('GET', KEYS[1])", "1", "own"],
  ]);
  expect(replies).toEqual(["OK", "1", "OK", "QUEUED", ["1"], "1"]);
}

describe("reads.whenNoneFit wait", () => {
  it("a read waits for a replica as a write for a master, and others are not disturbed (6, 43)", async () => {
    await open("wait");
    const [reader, writer, strong] = (await stage.clients(3)) as [RawClient, RawClient, RawClient];
    expect(await strong.command("PROXY", "CONSISTENCY", "strong")).toBe("OK");
    await stopReplica();
    await resetCalls(stage.master);
    // Its write waits behind its read.
    const replies = reader.pipeline([
      ["GET", "k"],
      ["INCR", "n"],
      ["GET", "n"],
    ]);
    await stage.untilHeld();
    for (let i = 1; i <= 200; i++) expect(await writer.command("INCR", "others")).toBe(i);
    await expectMasterServes(writer);
    expect(await strong.command("GET", "k")).toBe("v");
    expect(await stage.master.cli("EXISTS", "n"), "the write has overtaken the read").toBe(0);
    expect(await stage.number("held_now")).toBe(1);
    await startReplica();
    expect(await replies).toEqual(["v", 1, "1"]);
    expect(await calls(stage.replica(0), "get")).toBeGreaterThanOrEqual(1);
    expect(await stage.expectBalancedAccounts()).toMatchObject({ held: 1, released: 1 });
  });

  it("after hold.maxTime a read is answered with an error of its own, the rest goes on (43)", async () => {
    await open("wait", { hold: { maxTime: "400ms" } });
    const client = await stage.client();
    await stopReplica();
    const startedAtMs = performance.now();
    const replies = await client.pipeline([
      ["GET", "k"],
      ["SET", "own", "1"],
      ["GET", "own"],
      ["GET", "k"],
    ]);
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(400);
    const text = "ERR proxy: no replica is fit to be read within hold.maxTime (400 ms)";
    expect(errorText(replies[0])).toBe(text);
    expect(replies.slice(1, 3)).toEqual(["OK", "1"]);
    // It is behind its own write only until that is answered.
    expect(["v", text]).toContain(replies[3] instanceof ReplyError ? errorText(replies[3]) : replies[3]);
    expect(await stage.expectBalancedAccounts()).toMatchObject({ failed: 0 });
    expect((await stage.accounts()).expired).toBeGreaterThanOrEqual(1);
    await startReplica();
    expect(await client.command("GET", "k")).toBe("v");
  });

  it("a read that the last replica owes waits for the next one (4, 48)", async () => {
    await open("wait", { probe: { timeout: "300ms" } });
    const client = await stage.client();
    expect(await client.command("GET", "k")).toBe("v");
    const sent = await stage.sentTo(stage.replica(0));
    await stage.replica(0).kill("SIGSTOP");
    const replies = client.pipeline([
      ["GET", "k"],
      ["STRLEN", "k"],
    ]);
    await until(async () => (await stage.sentTo(stage.replica(0))) >= sent + 2);
    await stage.untilHeld();
    await stage.replica(0).kill("SIGCONT");
    expect(await replies).toEqual(["v", 1]);
    expect(client.unclaimed).toBe(0);
    await stage.expectBalancedAccounts();
  });

  it("the only replica becomes the master: reads wait until the old one follows it (1, 6)", async () => {
    await open("wait");
    const client = await stage.client();
    const [old, next] = [stage.master, stage.replica(0)];
    await old.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    await next.promote();
    await stage.untilMaster(next);
    await stage.untilReadable(0);
    const read = client.command("GET", "k");
    await stage.untilHeld();
    await old.restart(["--replicaof", `127.0.0.1 ${next.port}`]);
    expect(await read).toBe("v");
    expect(await calls(old, "get")).toBe(1);
  });

  it("there is no room: the read says so, and writes go on (43)", async () => {
    await open("wait", { hold: { maxBytes: "64kb", maxBytesPerClient: "64kb" } });
    const [client, other] = (await stage.clients(2)) as [RawClient, RawClient];
    await stopReplica();
    const large = "x".repeat(100_000);
    const held = client.command("GET", "k");
    await stage.untilHeld();
    expect(errorText(await other.command("GET", large))).toMatch(
      /^ERR proxy: no replica is fit to be read, .*hold\.maxBytes \(65536 bytes\)$/,
    );
    expect(await other.command("SET", "k", "2")).toBe("OK");
    await startReplica();
    expect(await held).toBe("2");
  });

  it("a proxy that is told to end does not wait for a replica", async () => {
    await open("wait");
    const client = await stage.client();
    await stopReplica();
    const read = client.command("GET", "k");
    await stage.untilHeld();
    stage.proxy.signal("SIGTERM");
    expect(errorText(await read)).toBe(
      "ERR proxy: no replica is fit to be read, and the proxy is shutting down",
    );
    expect(await stage.proxy.exited()).toBe(0);
    stage.forgetClients();
  });
});

describe("reads.whenNoneFit error", () => {
  it("a read is refused at once, in its place; what only the master may serve goes on (6)", async () => {
    await open("error");
    const client = await stage.client();
    await stopReplica();
    await resetCalls(stage.master);
    const replies = await client.pipeline([["GET", "k"], ["PING"], ["GET", "k"], ["SET", "a", "1"]]);
    expect([replies[1], replies[3]]).toEqual(["PONG", "OK"]);
    for (const at of [0, 2]) expect(errorText(replies[at])).toBe(NONE_FIT);
    expect(await calls(stage.master, "get")).toBe(0);
    await expectMasterServes(client);
    expect(await client.command("HELLO", "3")).toBeInstanceOf(Map);
    expect(await client.command("CLIENT", "TRACKING", "ON")).toBe("OK");
    expect(await client.command("GET", "k"), "a tracked read is the master's").toBe("v");
    expect(await client.command("CLIENT", "TRACKING", "OFF")).toBe("OK");
    await until(async () => (await client.command("GET", "k")) instanceof ReplyError);
    await startReplica();
    expect(await client.command("GET", "k")).toBe("v");
    expect(await stage.accounts()).toMatchObject({ held: 0 });
  });

  it("a read that the last replica owes is refused, once (4)", async () => {
    await open("error", { probe: { timeout: "300ms" } });
    const client = await stage.client();
    expect(await client.command("GET", "k")).toBe("v");
    await stage.replica(0).kill("SIGSTOP");
    const replies = await client.pipeline([
      ["GET", "k"],
      ["STRLEN", "k"],
    ]);
    expect(replies.map(errorText)).toEqual([NONE_FIT, NONE_FIT]);
    await stage.replica(0).kill("SIGCONT");
    await stage.untilReadable(1);
    expect(await client.command("GET", "k")).toBe("v");
    expect(client.unclaimed).toBe(0);
  });
});

describe("a read and a write that the master owed", () => {
  it.each([
    ["error", NONE_FIT],
    ["wait", "ERR proxy: no replica is fit to be read within hold.maxTime (3000 ms)"],
  ] as const)("%s: the read is refused, the write behind it has a way (9)", async (policy, text) => {
    await open(
      policy,
      {
        probe: { timeout: "10s" },
        upstream: { requestTimeout: "1500ms" },
        hold: { maxTime: "3s" },
        inFlight: { onUnknown: "retry-all" },
      },
      {
        before: async (group) => {
          const link = await layLink(group.master, group.replica(0));
          cleanups.push(() => link.close());
          await group.replica(0).untilCaughtUp(group.master);
          stall = () => link.stall();
          return group.addresses;
        },
      },
    );
    const client = await stage.client();
    stall();
    expect(await client.command("SET", "k", "1")).toBe("OK");
    const sent = await stage.sentTo(stage.master);
    await stage.master.kill("SIGSTOP");
    // The replica is behind the client's own write, so the master is asked.
    const replies = client.pipeline([
      ["GET", "k"],
      ["SET", "k", "2"],
      ["GET", "k"],
    ]);
    await until(async () => (await stage.sentTo(stage.master)) >= sent + 2);
    await stopReplica();
    await stage.untilCause("connection-lost");
    await stage.master.kill("SIGCONT");
    const [first, second, third]: (Reply | undefined)[] = await replies;
    expect(errorText(first)).toBe(text);
    expect([second, third]).toEqual(["OK", "2"]);
  });
});

let stall: () => void = () => {};
