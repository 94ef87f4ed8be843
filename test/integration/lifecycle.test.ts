/** From start to end: exit codes, signals, health, and the names that others build on. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ByteSocket } from "../support/bytes.ts";
import { freePort } from "../support/ports.ts";
import { type ProxyProcess, proxyCommand, startProxy } from "../support/proxy.ts";
import { type RedisGroup, type RedisServer, startGroup, startRedis } from "../support/redis.ts";
import { encodeCommand, type Reply, ReplyError } from "../support/resp.ts";
import { until, within } from "../support/wait.ts";

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

interface Run {
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the program to its end. */
function holdfast(args: readonly string[], env: Record<string, string> = {}): Promise<Run> {
  const [program, ...first] = proxyCommand() as [string, ...string[]];
  return new Promise((resolve) => {
    const options = { timeout: 15_000, env: { ...process.env, ...env } };
    execFile(program, [...first, ...args], options, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : (error.code ?? error.signal ?? "?"), stdout, stderr });
    });
  });
}

async function configFile(text: string): Promise<string> {
  const dir = await mkdtemp(path.join(os.tmpdir(), "holdfast-lifecycle-"));
  cleanups.push(() => rm(dir, { recursive: true, force: true }));
  const file = path.join(dir, "holdfast.yaml");
  await writeFile(file, text);
  return file;
}

async function redisForTest(): Promise<RedisServer> {
  const redis = await startRedis();
  cleanups.push(() => redis.close());
  return redis;
}

async function proxyForTest(options: Parameters<typeof startProxy>[0]): Promise<ProxyProcess> {
  const proxy = await startProxy(options);
  cleanups.push(() => proxy.kill());
  return proxy;
}

const SLOW_SCRIPT =
  "local t = redis.call('TIME') local from = t[1] * 1000000 + t[2] repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] - from > ARGV[1] * 1000 return 'slow'";

describe("signals", () => {
  it.each(["SIGTERM", "SIGINT"] as const)(
    "%s: accepts nobody any more, finishes what is in flight, closes, exits 0",
    async (signal) => {
      const redis = await redisForTest();
      // The server is busy for as long as all that takes that is to be seen meanwhile.
      const proxy = await proxyForTest({ nodes: [redis.address], config: { probe: { timeout: "5s" } } });
      const busy = await proxy.connect({ deadlineMs: 10_000 });
      const idle = await proxy.connect();
      const subscriber = await ByteSocket.connect(proxy.port);
      expect(await idle.command("PING")).toBe("PONG");
      await subscriber.send(encodeCommand(["SUBSCRIBE", "c"]));
      await subscriber.untilReceived(5);
      const from = performance.now();
      const replies = busy.pipeline([
        ["SET", "k", "v"],
        ["EVAL", SLOW_SCRIPT, "0", "2000"],
        ["GET", "k"],
        ["INCR", "n"],
      ]);
      await until(
        async () => (await proxy.status<{ nodes: { requests: number }[] }>()).nodes[0]!.requests >= 2,
        { what: "the slow command being on the way" },
      );
      proxy.signal(signal);
      await until(
        async () =>
          (await ByteSocket.connect(proxy.port).then(
            (socket) => socket.destroy(),
            (error: Error) => error,
          )) instanceof Error,
        {
          deadlineMs: 1_500,
          what: "new clients being refused",
        },
      );
      expect(proxy.running).toBe(true);
      expect(await replies).toEqual(["OK", "slow", "v", 1]);
      await Promise.all([
        busy.untilDisconnected(2_000),
        idle.untilDisconnected(2_000),
        subscriber.untilEnded(2_000),
      ]);
      expect(await within(proxy.exited(), 3_000, "the proxy ending")).toBe(0);
      expect(performance.now() - from).toBeGreaterThan(1_950);
      expect(proxy.logged("stopping")).toHaveLength(1);
      expect(proxy.logged("stopped")).toHaveLength(1);
      expect(proxy.stray).toBe("");
      expect(await redis.cli("GET", "n")).toBe("1");
    },
  );

  it("while it drains it is not ready, and it does not wait longer than limits.drainTime", async () => {
    const redis = await redisForTest();
    const proxy = await proxyForTest({ nodes: [redis.address], config: { limits: { drainTime: "2s" } } });
    const stuck = await proxy.connect({ deadlineMs: 20_000 });
    const reply = stuck.command("BLPOP", "never", "0").catch((error: Error) => error);
    await until(async () => (await redis.info("clients")).get("blocked_clients") === "1", {
      what: "the pop waiting",
    });
    const from = performance.now();
    proxy.signal("SIGTERM");
    const answer = await until(
      () => proxy.http("/readyz").then((one) => (one.status === 503 ? one.text() : null)),
      { deadlineMs: 1_800, what: "/readyz saying that it stops" },
    );
    expect(answer).toMatch(/stop|shut/i);
    expect(await within(proxy.exited(), 5_000, "the proxy ending")).toBe(0);
    expect(performance.now() - from).toBeLessThan(4_500);
    expect(await reply).toBeInstanceOf(Error);
  });

  it("held requests are answered MASTERDOWN when it stops, not dropped [43]", async () => {
    const redis = await redisForTest();
    const proxy = await proxyForTest({ nodes: [redis.address] });
    const client = await proxy.connect({ deadlineMs: 5_000 });
    expect(await client.command("SET", "k", "v")).toBe("OK");
    await redis.kill("SIGKILL");
    const held = client.pipeline([
      ["SET", "k", "w"],
      ["INCR", "n"],
    ]);
    await until(async () => (await proxy.metric("holdfast_held")) === 1, { what: "the write being held" });
    proxy.signal("SIGTERM");
    const replies = await held;
    for (const reply of replies) expect((reply as ReplyError).message).toMatch(/^MASTERDOWN .*shutting down/);
    expect(await within(proxy.exited(), 3_000, "the proxy ending")).toBe(0);
  });

  it("a second signal ends it at once", async () => {
    const redis = await redisForTest();
    const proxy = await proxyForTest({ nodes: [redis.address] });
    const stuck = await proxy.connect({ deadlineMs: 20_000 });
    const reply = stuck.command("BLPOP", "never", "0").catch((error: Error) => error);
    await until(async () => (await redis.info("clients")).get("blocked_clients") === "1", {
      what: "the pop waiting",
    });
    proxy.signal("SIGTERM");
    await until(() => proxy.logged("stopping").length === 1, { what: "the first signal being seen" });
    expect(proxy.running).toBe(true);
    proxy.signal("SIGTERM");
    // Else it would wait for limits.drainTime, 10 s.
    expect(await within(proxy.exited(), 2_000, "the proxy ending at once")).not.toBe(0);
    expect(await reply).toBeInstanceOf(Error);
  });

  it("leaves nothing behind on the nodes: no connection of it is open after it ended", async () => {
    const redis = await redisForTest();
    const proxy = await proxyForTest({ nodes: [redis.address] });
    const client = await proxy.connect();
    await client.command("SET", "k", "v");
    client.close();
    await proxy.close();
    const alone = async () => Number((await redis.info("clients")).get("connected_clients")) === 1;
    await until(alone, { what: "the node being alone" });
  });
});

describe("the command line", () => {
  it("check --config says that a right file is right, and exits 0", async () => {
    const file = await configFile("listen: 127.0.0.1:0\nnodes: [127.0.0.1:6380]\nhold: { maxTime: 5s }\n");
    const run = await holdfast(["check", "--config", file]);
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout).toContain("valid");
    expect(await holdfast(["check", "--config", "conf/holdfast.yaml"])).toMatchObject({ code: 0 });
  });

  it("check --config lists every mistake with its line, and exits 2; so does a start with that file", async () => {
    const file = await configFile(
      "listen: nowhere\nnodes: []\nhold:\n  maxTime: 5 parsecs\n  maxTimes: 3s\nreads: { from: moon }\nunknown: 1\n",
    );
    for (const args of [
      ["check", "--config", file],
      ["--config", file],
    ]) {
      const run = await holdfast(args);
      expect(run.code).toBe(2);
      expect(run.stdout).toBe("");
      for (const word of ["listen", "nodes", "hold.maxTime", "maxTimes", "reads.from", "unknown"])
        expect(run.stderr).toContain(word);
      for (const line of [1, 2, 4, 5, 6, 7]) expect(run.stderr).toMatch(new RegExp(`[: ]${line}\\b`));
    }
  });

  it.each([
    ["a file that is not there", ["--config", "/nowhere/holdfast.yaml"]],
    ["an unknown option", ["--nodse", "127.0.0.1:6380"]],
    ["no nodes", ["--listen", "127.0.0.1:0"]],
    ["an unknown command", ["chek"]],
  ])("%s is a mistake: exit 2, and what is wrong on standard error", async (_name, args) => {
    const run = await holdfast(args);
    expect(run).toMatchObject({ code: 2, stdout: "" });
    expect(run.stderr.length).toBeGreaterThan(20);
  });

  it.each(["listen", "http"] as const)(
    "a port in use for %s: exit 1 and a line that names the address and the reason",
    async (which) => {
      const taken = net.createServer().listen(await freePort(), "127.0.0.1");
      cleanups.push(() => new Promise((resolve) => taken.close(resolve)));
      await until(() => taken.listening, { what: "the port being taken" });
      const address = `127.0.0.1:${(taken.address() as net.AddressInfo).port}`;
      const free = `127.0.0.1:${await freePort()}`;
      const [listen, http] = which === "listen" ? [address, free] : [free, address];
      const run = await holdfast(["--listen", listen, "--http", http, "--nodes", "127.0.0.1:1"]);
      expect(run.code).toBe(1);
      const lines = run.stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      const last = JSON.stringify(lines.at(-1));
      expect(lines.at(-1)?.level).toMatch(/error|fatal/);
      expect(last).toContain("EADDRINUSE");
      expect(last).toContain(address);
    },
  );

  it("starts without any node, says so, accepts and holds, and is ready when one comes [2]", async () => {
    const redis = await redisForTest();
    await redis.kill("SIGKILL");
    const proxy = await proxyForTest({ nodes: [redis.address], waitReady: false });
    const answer = await proxy.http("/readyz");
    expect(answer.status).toBe(503);
    expect(await answer.text()).toContain("no master");
    expect((await proxy.http("/livez")).status).toBe(200);
    const client = await proxy.connect({ deadlineMs: 10_000 });
    expect(await client.command("PING")).toBe("PONG");
    const held = client.pipeline([
      ["SET", "k", "v"],
      ["GET", "k"],
    ]);
    await until(async () => (await proxy.metric("holdfast_held")) === 1, { what: "the write being held" });
    await redis.start();
    expect(await held).toEqual(["OK", "v"]);
    await proxy.ready(2_000);
  });
});

describe("what others build on", () => {
  let group: RedisGroup;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    group = await startGroup(2);
    proxy = await startProxy({ nodes: group.addresses });
    const client = await proxy.connect();
    await client.command("SET", "k", "v");
    await group.master.kill("SIGKILL");
    const held = client.command("SET", "k", "w");
    await until(async () => (await proxy.metric("holdfast_held")) === 1, { what: "the write being held" });
    await group.replica(0).promote();
    await group.replica(1).replicaOf(group.replica(0));
    expect(await held).toBe("OK");
    client.close();
    await proxy.ready();
  });

  afterAll(async () => {
    await proxy?.close();
    await group?.close();
  });

  const FIELDS = {
    STATUS: [
      "version",
      "uptime_seconds",
      "epoch",
      "master",
      "writable",
      "hold_cause",
      "readable_nodes",
      "clients",
      "held_now",
      "held_bytes",
      "held",
      "released",
      "expired",
      "left",
      "failed",
      "reads",
      "writes",
      "uncertain",
      "reads_replica",
      "reads_master_freshness",
      "reads_master_none_fit",
      "reads_master_policy",
      "freshness_share",
      "hedges",
      "hedges_won",
      "resent_reads",
      "resent_writes",
      "resent_unknown",
      "switches",
      "problems",
    ],
    NODES: [
      "node",
      "role",
      "is_master",
      "contact",
      "fit",
      "reason",
      "lag_ms",
      "lag_bytes",
      "link",
      "offset",
      "replid",
      "run_id",
      "server_version",
      "seen_ms_ago",
      "requests",
      "reads",
      "outstanding",
      "slow",
      "problem",
    ],
    EPOCH: ["number", "master", "hold_cause", "replid", "offset", "readable"],
    FAILOVERS: [
      "at",
      "epoch",
      "from",
      "to",
      "reason",
      "seen_by",
      "detail",
      "hold_ms",
      "sessions_held",
      "uncertain",
      "lost_bytes",
    ],
  };

  it.each(Object.entries(FIELDS))(
    "PROXY %s has its fields, flat in RESP2 and as maps in RESP3",
    async (subcommand, fields) => {
      const two = await proxy.connect();
      const three = await proxy.connect({ protocol: 3 });
      const isList = subcommand === "NODES" || subcommand === "FAILOVERS";
      const flat = await two.command("PROXY", subcommand);
      const maps = await three.command("PROXY", subcommand);
      const flats = (isList ? flat : [flat]) as Reply[][];
      const entries = (isList ? maps : [maps]) as Map<string, Reply>[];
      expect(flats).toHaveLength(subcommand === "NODES" ? 3 : 1);
      expect(entries).toHaveLength(flats.length);
      // Names may be added, none may go.
      for (const one of flats)
        expect(one.filter((_, i) => i % 2 === 0)).toEqual(expect.arrayContaining(fields));
      for (const one of entries) {
        expect(one).toBeInstanceOf(Map);
        expect([...one.keys()]).toEqual(expect.arrayContaining(fields));
      }
      two.close();
      three.close();
    },
  );

  it("PROXY tells the switch that was: who, why, how long, who waited", async () => {
    const client = await proxy.connect({ protocol: 3 });
    const [failover] = (await client.command("PROXY", "FAILOVERS")) as Map<string, Reply>[];
    expect(failover?.get("from")).toBe(group.master.address);
    expect(failover?.get("to")).toBe(group.replica(0).address);
    expect(failover?.get("sessions_held")).toBe(1);
    expect(failover?.get("uncertain")).toBe(0);
    expect(Number(failover?.get("hold_ms"))).toBeGreaterThan(0);
    expect(String(failover?.get("at"))).toMatch(/^\d{4}-\d\d-\d\dT/);
    await until(() => proxy.logged("switch").length > 0, { what: "the line in the log" });
    expect(proxy.logged("switch")).toHaveLength(1);
    const status = (await client.command("PROXY", "STATUS")) as Map<string, Reply>;
    expect(status.get("master")).toBe(group.replica(0).address);
    expect([status.get("writable"), status.get("switches"), status.get("epoch")]).toEqual([1, 1, 2]);
    client.close();
  });

  it("PROXY HELP names every subcommand, and an unknown one is an error that points there", async () => {
    const client = await proxy.connect();
    const help = (await client.command("PROXY", "HELP")) as string[];
    for (const subcommand of ["HELP", ...Object.keys(FIELDS)]) expect(help.join("\n")).toContain(subcommand);
    for (const command of [
      ["PROXY", "NOSUCH"],
      ["PROXY", "STATUS", "x"],
      ["PROXY"],
      ["PROXY", "CONFIG\r\n"],
    ]) {
      expect(await client.command(...command)).toBeInstanceOf(ReplyError);
    }
    expect(await client.command("proxy", "status")).toContain("epoch");
    const replies = await client.pipeline([
      ["SET", "k", "1"],
      ["PROXY", "EPOCH"],
      ["GET", "k"],
    ]);
    expect([replies[0], replies[2]]).toEqual(["OK", "1"]);
    client.close();
  });

  it("/api/status has its fields", async () => {
    const status = await proxy.status<Record<string, Record<string, unknown>[]>>();
    expect(Object.keys(status)).toEqual(
      expect.arrayContaining([
        "version",
        "uptimeSeconds",
        "epoch",
        "nodes",
        "clients",
        "hold",
        "counters",
        "failovers",
        "problems",
      ]),
    );
    expect(Object.keys(status.epoch ?? {})).toEqual(
      expect.arrayContaining(["number", "master", "holdCause", "history"]),
    );
    expect(Object.keys(status.hold ?? {})).toEqual(
      expect.arrayContaining(["now", "bytes", "held", "released", "expired", "left", "failed"]),
    );
    expect(Object.keys(status.nodes?.[0] ?? {})).toEqual(
      expect.arrayContaining(["id", "role", "reachable", "fit", "reason", "lagMs", "lagBytes", "requests"]),
    );
    expect(Object.keys(status.failovers?.[0] ?? {})).toEqual(
      expect.arrayContaining([
        "at",
        "epoch",
        "from",
        "to",
        "reason",
        "seenBy",
        "holdMs",
        "sessionsHeld",
        "uncertain",
        "lostBytes",
      ]),
    );
  });

  it("/metrics has its names, and only the prefix holdfast_", async () => {
    const metrics = await proxy.metrics();
    const names = new Set([...metrics.keys()].map((series) => series.replace(/\{.*/, "")));
    for (const name of names) expect(name).toMatch(/^holdfast_/);
    for (const name of [
      "clients",
      "clients_accepted_total",
      "clients_closed_total",
      "requests_total",
      "held",
      "holds_total",
      "holds_ended_total",
      "uncertain_total",
      "resent_total",
      "upstream_connections",
      "epoch",
      "writable",
      "switches_total",
      "lost_bytes_total",
      "node_up",
      "node_fit",
      "node_role",
    ]) {
      expect(names).toContain(`holdfast_${name}`);
    }
    expect(metrics.get("holdfast_epoch")).toBe(2);
    expect(metrics.get("holdfast_switches_total")).toBe(1);
    expect(metrics.get(`holdfast_node_up{node="${group.master.address}"}`)).toBe(0);
    expect(metrics.get(`holdfast_node_role{node="${group.replica(0).address}",role="master"}`)).toBe(1);
  });

  it("/livez, /readyz and the page answer; other paths and methods are refused", async () => {
    expect((await proxy.http("/livez")).status).toBe(200);
    const ready = await proxy.http("/readyz");
    expect([ready.status, await ready.text()]).toEqual([
      200,
      expect.stringContaining(group.replica(0).address),
    ]);
    const page = await proxy.http("/");
    expect([page.status, page.headers.get("content-type")]).toEqual([
      200,
      expect.stringContaining("text/html"),
    ]);
    expect((await proxy.http("/nosuch")).status).toBe(404);
    const post = await fetch(`http://127.0.0.1:${proxy.httpPort}/livez`, {
      method: "POST",
      body: "x",
      signal: AbortSignal.timeout(5_000),
    });
    expect(post.status).toBe(405);
  });
});
