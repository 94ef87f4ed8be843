/** The history of the group outlives a restart of the proxy. */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type ProxyOptions, type ProxyProcess, startProxy } from "../support/proxy.ts";
import type { RedisGroup, RedisServer } from "../support/redis.ts";
import { errorText, openGroup } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let group: RedisGroup;
let file: string;
const proxies: ProxyProcess[] = [];

afterEach(async () => {
  for (const proxy of proxies.splice(0)) {
    if (proxy.running) await proxy.close();
    expect(proxy.logged("a bug")).toEqual([]);
    expect(proxy.stray).toBe("");
  }
  await group.close();
});

async function setUp(): Promise<void> {
  group = await openGroup();
  file = path.join(group.master.dir, "holdfast-state.json");
  await group.master.cli("SET", "key", "value");
  for (const replica of group.replicas) await replica.untilCaughtUp(group.master);
}

async function proxyFor(options: ProxyOptions = {}): Promise<ProxyProcess> {
  const proxy = await startProxy({
    nodes: group.addresses,
    ...options,
    config: { failover: { stateFile: file }, hold: { maxTime: "300ms" }, ...options.config },
  });
  proxies.push(proxy);
  return proxy;
}

interface Saved {
  readonly epoch: number;
  readonly master: { readonly id: string; readonly lastSeenOffset: number };
}

async function saved(): Promise<Saved> {
  return JSON.parse(await readFile(file, "utf8")) as Saved;
}

async function statusOf(proxy: ProxyProcess): Promise<Record<string, unknown>> {
  const client = await proxy.connect({ protocol: 3 });
  try {
    const reply = (await client.command("PROXY", "STATUS")) as Map<string, unknown>;
    return Object.fromEntries(reply);
  } finally {
    client.close();
  }
}

async function untilStatus(proxy: ProxyProcess, want: Record<string, unknown>): Promise<void> {
  const isSo = async () => {
    const status = await statusOf(proxy);
    return Object.entries(want).every(([key, value]) => status[key] === value);
  };
  await until(isSo, { what: JSON.stringify(want) });
}

/** Stops the proxy for good and waits for its file. */
async function stopped(proxy: ProxyProcess): Promise<void> {
  await until(async () => (await saved()).epoch > 0, { what: "the file written" });
  await proxy.close();
}

describe("a proxy with a state file", () => {
  it("does not believe a master that was emptied while it was away (41, 51)", async () => {
    await setUp();
    await stopped(await proxyFor());
    const [r1, r2] = group.replicas as [RedisServer, RedisServer];
    await r1.kill("SIGKILL");
    await r2.kill("SIGSTOP");
    await group.master.restart();
    expect(await group.master.cli("DBSIZE"), "it really is empty").toBe(0);
    const proxy = await proxyFor({ waitReady: false });
    await untilStatus(proxy, { hold_cause: "history-refused", epoch: 1 });
    const client = await proxy.connect();
    expect(errorText(await client.command("SET", "key", "wrong"))).toMatch(/^MASTERDOWN/);
    expect(await group.master.cli("DBSIZE")).toBe(0);
    const problems = (await statusOf(proxy)).problems as string[];
    expect(problems.join("\n")).toContain(`history-refused ${group.master.address}: came back empty`);
    // A proxy that remembers nothing has no reason not to.
    const forgetful = await proxyFor({ config: { failover: {} } });
    const other = await forgetful.connect();
    expect(await other.command("SET", "key", "wrong")).toBe("OK");
    other.close();
    // The replica that kept the data is promoted by hand: its history is known. Were the emptied master still
    // there, the replica might copy it first.
    await group.master.kill("SIGKILL");
    await r2.kill("SIGCONT");
    await r2.promote();
    await untilStatus(proxy, { master: r2.address, writable: 1, epoch: 2 });
    expect(await client.command("GET", "key")).toBe("value");
    client.close();
  });

  it("accepts the master it knew, and the successor that was promoted while it was away (12, 51)", async () => {
    await setUp();
    const first = await proxyFor();
    await stopped(first);
    const second = await proxyFor();
    await untilStatus(second, { master: group.master.address, writable: 1, epoch: 1 });
    expect(second.logged("the group is remembered")).toHaveLength(1);
    await stopped(second);
    await group.master.kill("SIGKILL");
    const [r1, r2] = group.replicas as [RedisServer, RedisServer];
    await r1.promote();
    await r2.replicaOf(r1);
    await r2.untilLinkUp();
    const third = await proxyFor();
    await untilStatus(third, { master: r1.address, writable: 1, epoch: 2 });
    expect(third.logged("switch")[0]).toMatchObject({ reason: "promoted", lostBytes: 0 });
    await until(async () => (await saved()).master.id === r1.address, { what: "the switch in the file" });
  });

  it("writes what it has seen of the history, once a second", async () => {
    await setUp();
    const proxy = await proxyFor();
    const before = await until(saved, { what: "the file" });
    const client = await proxy.connect();
    for (let i = 0; i < 50; i++) await client.command("INCR", "n");
    const offset = Number((await group.master.info()).get("master_repl_offset"));
    await until(async () => (await saved()).master.lastSeenOffset >= offset, { what: "the offset" });
    expect((await saved()).master.lastSeenOffset).toBeGreaterThan(before.master.lastSeenOffset);
    client.close();
  });

  it("starts without a memory where the file makes no sense or is about other nodes, and says so", async () => {
    await setUp();
    await writeFile(file, "{ nonsense");
    const one = await proxyFor();
    expect(one.logged("the state file is not used")[0]).toMatchObject({ error: "it is not JSON" });
    await until(async () => (await saved()).epoch === 1, { what: "a good file" });
    await one.close();
    await writeFile(file, (await readFile(file, "utf8")).replaceAll("127.0.0.1", "127.0.0.2"));
    const two = await proxyFor();
    expect(two.logged("the state file is not used")[0]?.error).toContain("other nodes");
    await untilStatus(two, { master: group.master.address, writable: 1 });
  });

  it("goes on, and says so, while it cannot write the file", async () => {
    await setUp();
    file = path.join(group.master.dir, "later", "state.json");
    const proxy = await proxyFor();
    await until(() => proxy.logged("the state file cannot be written").length === 1);
    const problems = async () => ((await statusOf(proxy)).problems as string[]).join("\n");
    expect(await problems()).toContain("state-file-not-written");
    await mkdir(path.dirname(file));
    await until(async () => (await problems()) === "", { what: "the problem over" });
    expect(await saved()).toMatchObject({ epoch: 1 });
    expect(proxy.logged("the state file is written again")).toHaveLength(1);
    await rm(path.dirname(file), { recursive: true });
  });
});
