/** The instruments themselves: a test is worth what its instruments are. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RawClient } from "../../support/client.ts";
import { resp, SILENT, startFakeNode } from "../../support/fake-node.ts";
import { startLink } from "../../support/link.ts";
import { parseMetrics, startProxy } from "../../support/proxy.ts";
import { type RedisServer, startGroup, startRedis } from "../../support/redis.ts";
import { ReplyError } from "../../support/resp.ts";
import { until, within } from "../../support/wait.ts";
import { startWorkload } from "../../support/workload.ts";

let redis: RedisServer;

beforeAll(async () => {
  redis = await startRedis();
});

afterAll(() => redis.close());

describe("RedisServer", () => {
  it("starts a group with its links up, dies and comes back on the same port", async () => {
    const group = await startGroup(2);
    try {
      expect(await group.master.cli("SET", "key", "value")).toBe("OK");
      await group.replica(0).untilCaughtUp(group.master);
      const client = await RawClient.connect({ port: group.master.port });
      const port = group.master.port;
      await group.master.kill("SIGKILL");
      await client.untilDisconnected();
      expect(client.disconnected).toBe(true);
      await group.replica(0).promote();
      expect((await group.replica(0).info()).get("role")).toBe("master");
      expect(await group.replica(0).cli("GET", "key")).toBe("value");
      await group.master.restart(["--replicaof", `127.0.0.1 ${group.replica(0).port}`]);
      expect(group.master.port).toBe(port);
      await group.master.untilLinkUp();
      expect(await group.master.cli("SET", "key", "x")).toBeInstanceOf(ReplyError);
    } finally {
      await group.close();
    }
  });

  it("stands still after SIGSTOP and goes on after SIGCONT", async () => {
    const client = await RawClient.connect({ port: redis.port });
    await redis.kill("SIGSTOP");
    const reply = client.command("PING");
    await expect(within(reply, 50, "an answer")).rejects.toThrow("not within 50 ms: an answer");
    await redis.kill("SIGCONT");
    expect(await reply).toBe("PONG");
    client.close();
    expect(client.disconnected).toBe(false);
  });
});

describe("ChaosLink", () => {
  it("passes everything on in slices, and swallows and later delivers while stalled", async () => {
    const link = await startLink(redis.port, { sliceBytes: 3 });
    const client = await RawClient.connect({ port: link.port });
    const value = "v".repeat(1_000);
    expect(await client.command("SET", "sliced", value)).toBe("OK");
    expect(await client.command("GET", "sliced")).toBe(value);
    link.stall();
    const reply = client.command("PING");
    await expect(within(reply, 50, "an answer")).rejects.toThrow("not within");
    link.resume();
    expect(await reply).toBe("PONG");
    client.close();
    await link.close();
  });

  it("swallows one way only: requests are run and not answered, or not even run", async () => {
    const link = await startLink(redis.port);
    const client = await RawClient.connect({ port: link.port });
    expect(await client.command("SET", "one-way", "0")).toBe("OK");
    for (const [way, run] of [
      ["down", "1"],
      ["up", "1"],
    ] as const) {
      link.stall(way);
      const reply = client.command("INCR", "one-way");
      await expect(within(reply, 50, "an answer")).rejects.toThrow("not within");
      expect(await redis.cli("GET", "one-way"), way).toBe(run);
      link.resume();
      expect(await reply).toBe(way === "down" ? 1 : 2);
    }
    client.close();
    await link.close();
  });

  it("can stand before a server, which is then known by the link's port alone, also when it is restarted", async () => {
    const group = await startGroup(1);
    const link = await startLink(group.replica(0).ownPort);
    try {
      await group.replica(0).standBehind(link.port);
      const seen = async () => (await group.master.info()).get("slave0") ?? "";
      await group.replica(0).restart(["--replicaof", `127.0.0.1 ${group.master.port}`]);
      await until(async () => (await seen()).includes(`port=${link.port},`), { what: "the link's port" });
      expect(group.replica(0).address).toBe(link.address);
    } finally {
      await link.close();
      await group.close();
    }
  });

  it("delays each way", async () => {
    const link = await startLink(redis.port, { delayMs: 30 });
    const client = await RawClient.connect({ port: link.port });
    const start = performance.now();
    await client.command("PING");
    expect(performance.now() - start).toBeGreaterThanOrEqual(59);
    client.close();
    await link.close();
  });

  it("cuts with FIN, breaks with RST and refuses", async () => {
    const link = await startLink(redis.port);
    const first = await RawClient.connect({ port: link.port });
    await first.command("PING");
    link.cut();
    await first.untilDisconnected();
    expect(first.disconnectReason).toBe("the server closed the connection");
    const second = await RawClient.connect({ port: link.port });
    await second.command("PING");
    link.reset();
    await second.untilDisconnected();
    expect(second.disconnectReason).toContain("ECONNRESET");
    await link.refuse();
    await expect(RawClient.connect({ port: link.port })).rejects.toThrow("ECONNREFUSED");
    await link.accept();
    const third = await RawClient.connect({ port: link.port });
    expect(await third.command("PING")).toBe("PONG");
    third.close();
    await until(() => link.open === 0, { what: "all connections of the link ended" });
    await link.close();
  });
});

describe("FakeNode", () => {
  it("answers as its handler says, otherwise as a plain node", async () => {
    const node = await startFakeNode(({ name, args }) => {
      if (name === "GET") return args[1] === "hang" ? SILENT : resp.error("LOADING not yet");
      return undefined;
    });
    const client = await RawClient.connect({ port: node.port });
    expect(await client.command("GET", "a")).toEqual(new ReplyError("LOADING not yet"));
    expect(await client.command("PING")).toBe("PONG");
    node.info.set("role", "slave");
    expect(await client.command("INFO", "replication")).toContain("role:slave\r\n");
    const hanging = client.command("GET", "hang");
    await until(() => node.received("GET").length === 2, { what: "the second GET arriving" });
    await node.stop();
    await expect(hanging).rejects.toThrow();
    await expect(RawClient.connect({ port: node.port })).rejects.toThrow("ECONNREFUSED");
    await node.start();
    (await RawClient.connect({ port: node.port })).close();
    await node.close();
  });
});

describe("Workload", () => {
  it("balances its books on a server that is well", async () => {
    const load = await startWorkload({ port: redis.port, prefix: "well:" });
    await Promise.all([load.next("writer"), load.next("pipeliner"), load.next("transaction")]);
    const report = await load.stop();
    expect(report).toMatchObject({ uncertain: 0, disconnects: 0, mismatches: [] });
    expect(report.errors.size).toBe(0);
    expect(report.acked).toBeGreaterThan(0);
    expect(await load.audit(redis.port)).toEqual({ lost: 0, unexplained: 0, details: [] });
  });

  it("sees disconnects, and lost and unexplained increments", async () => {
    const link = await startLink(redis.port);
    const load = await startWorkload({ port: link.port, prefix: "ill:", ownReaders: 0 });
    await until(() => link.open === 12, { what: "all clients connected through the link" });
    link.reset();
    await until(() => load.report().disconnects === 12, { what: "all clients seeing their disconnect" });
    const report = await load.stop();
    expect(report.uncertain).toBeLessThanOrEqual(4 + 2 * 2);
    expect((await load.audit(redis.port)).details).toEqual([]);
    await redis.cli("INCRBY", "ill:writer:0:n", 1_000);
    await redis.cli("SET", "ill:writer:1:n", 0);
    const audit = await load.audit(redis.port);
    expect(audit.unexplained).toBeGreaterThan(990);
    expect(audit.lost).toBe(report.counters.get("ill:writer:1:n")?.acked);
    await link.close();
  });

  it("sees a reply that belongs to another request", async () => {
    const node = await startFakeNode(({ name, args }) => {
      if (name === "GET" && args[1]?.includes("tag-")) return resp.bulk("somebody else's");
      if (name === "GET") return resp.nil;
      return undefined;
    });
    const load = await startWorkload({
      port: node.port,
      writers: 0,
      ownReaders: 0,
      readers: 0,
      transactions: 0,
    });
    await until(() => load.report().mismatches.length > 0, { what: "a mismatch" });
    const { mismatches } = await load.stop();
    expect(mismatches.some((text) => text.includes("tag-") && text.includes("somebody else's"))).toBe(true);
    expect(mismatches.some((text) => text.includes("behind its own SET"))).toBe(true);
    await node.close();
  });
});

describe("ProxyProcess", () => {
  it("starts the proxy with a configuration, reads its status and metrics, and ends it well", async () => {
    const proxy = await startProxy({ nodes: [redis.address], config: { reads: { from: "master" } } });
    const client = await proxy.connect();
    expect(await client.command("SET", "through", "proxy")).toBe("OK");
    expect(await proxy.status()).toBeTypeOf("object");
    const series = [...(await proxy.metrics()).keys()];
    expect(series.some((name) => name.startsWith("holdfast_"))).toBe(true);
    expect(proxy.logged("listening")).toHaveLength(1);
    expect(proxy.stray).toBe("");
    await proxy.close();
    expect(await proxy.exited()).toBe(0);
    expect(client.disconnected).toBe(true);
  });

  it("shows why the proxy did not start", async () => {
    const start = startProxy({ nodes: [redis.address], config: { hold: { maxTim: "3s" } } });
    await expect(start).rejects.toThrow("maxTim");
  });
});

describe("parseMetrics", () => {
  it("reads series with and without labels", () => {
    const text = '# HELP a b\n# TYPE a counter\na 1\nb{x="y z",w="1"} 2.5\nc{le="+Inf"} 3\nd NaN\n';
    const series = parseMetrics(text);
    expect([...series.keys()]).toEqual(["a", 'b{x="y z",w="1"}', 'c{le="+Inf"}', "d"]);
    expect(series.get('b{x="y z",w="1"}')).toBe(2.5);
  });
});
