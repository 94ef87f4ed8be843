/** What the failover machine asks of nodes, carried out on real servers. */
import { readFile, writeFile } from "node:fs/promises";
import { afterEach, describe, expect, it } from "vitest";
import type { CommandResult, NodeCommand } from "../../src/failover/model.ts";
import { createNodeCommander, type NodeCommander } from "../../src/failover/nodes.ts";
import { parseNodeId } from "../../src/topology/address.ts";
import type { NodeId } from "../../src/topology/epoch.ts";
import { exited, spawnOwned } from "../support/children.ts";
import { FakeNode, resp, SILENT } from "../support/fake-node.ts";
import { freePort } from "../support/ports.ts";
import { type RedisOptions, type RedisServer, startGroup, startRedis } from "../support/redis.ts";
import { report as figure, median } from "../support/stage.ts";
import { until } from "../support/wait.ts";

const TIMEOUT_MS = 1_000;

const cleanups: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function idOf({ address }: { readonly address: string }): NodeId {
  const id = parseNodeId(address);
  if (id === null) throw new Error(`no address: ${address}`);
  return id;
}

function commander(options: Partial<Parameters<typeof createNodeCommander>[0]> = {}): NodeCommander {
  const one = createNodeCommander({ timeoutMs: TIMEOUT_MS, ...options });
  cleanups.push(() => one.close());
  return one;
}

function run(one: NodeCommander, node: NodeId, command: NodeCommand): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    let told = false;
    one.run(node, command, (result) => {
      if (told) reject(new Error("told twice"));
      told = true;
      resolve(result);
    });
  });
}

async function server(options: RedisOptions = {}): Promise<RedisServer> {
  const one = await startRedis(options);
  cleanups.push(() => one.close());
  return one;
}

async function groupOf(replicas: number, options: RedisOptions = {}) {
  const group = await startGroup(replicas, options);
  cleanups.push(group.close);
  // After a diskless sync that is so from the first acknowledgement on; FAILOVER refuses others.
  const areOnline = async () => {
    const lines = [...(await group.master.info())].filter(([key]) => /^slave\d/.test(key));
    return lines.length === replicas && lines.every(([, line]) => line.includes("state=online"));
  };
  await until(areOnline, { what: "replicas online" });
  return group;
}

async function fake(handler: FakeNode["handler"]): Promise<NodeId> {
  const node = await new FakeNode(handler).start();
  cleanups.push(() => node.close());
  return idOf({ address: `127.0.0.1:${node.port}` });
}

async function roleOf(one: RedisServer): Promise<string | undefined> {
  return (await one.info()).get("role");
}

describe("roles", () => {
  it("promote makes a replica the master, follow makes the other one its replica", async () => {
    const { master, replicas } = await groupOf(1);
    const [replica] = replicas as [RedisServer];
    const one = commander();
    expect(await run(one, idOf(replica), { kind: "promote" })).toEqual({ kind: "done" });
    expect(await roleOf(replica)).toBe("master");
    const follow = { kind: "follow", master: idOf(replica) } as const;
    expect(await run(one, idOf(master), follow)).toEqual({ kind: "done" });
    await master.untilLinkUp();
    expect((await master.info()).get("master_port")).toBe(String(replica.port));
    // Told again: "+OK Already connected to specified master".
    expect(await run(one, idOf(master), follow)).toEqual({ kind: "done" });
  });

  it("a promoted node with a configuration file keeps its role over a restart", async () => {
    const master = await server();
    const replica = await server();
    const file = `${replica.dir}/redis.conf`;
    await writeFile(file, `port ${replica.port}\nsave ""\nreplicaof 127.0.0.1 ${master.port}\n`);
    await replica.kill();
    // A configuration file has to be the first argument, which the defaults of the tests stand before.
    const program = process.env.TEST_REDIS_SERVER ?? "redis-server";
    const child = spawnOwned(program, [file], { stdio: "ignore", cwd: replica.dir });
    cleanups.push(async () => {
      child.kill("SIGKILL");
      await exited(child);
    });
    await until(async () => (await roleOf(replica)) === "slave", { what: "the replica" });
    await replica.untilLinkUp();
    expect(await run(commander(), idOf(replica), { kind: "promote" })).toEqual({ kind: "done" });
    await until(async () => !(await readFile(file, "utf8")).includes("replicaof 127"), {
      what: "the file rewritten",
    });
    await replica.cli("CONFIG", "SET", "replica-priority", "7");
    expect(await run(commander(), idOf(replica), { kind: "keep-role" })).toEqual({ kind: "done" });
    expect(await readFile(file, "utf8")).toContain("replica-priority 7");
  });

  it("keep-role is done where there is no configuration file", async () => {
    expect(await run(commander(), idOf(await server()), { kind: "keep-role" })).toEqual({ kind: "done" });
  });

  it("a server before Redis 5 is told SLAVEOF", async () => {
    const said: string[][] = [];
    const old = await fake(({ name, args }) => {
      said.push([...args]);
      return name === "REPLICAOF" ? resp.error("ERR unknown command 'REPLICAOF'") : resp.ok;
    });
    expect(await run(commander(), old, { kind: "promote" })).toEqual({ kind: "done" });
    expect(said.map((args) => args.join(" ").toUpperCase())).toContain("SLAVEOF NO ONE");
  });
});

describe("FAILOVER", () => {
  it("ends at once when the replica is asked to acknowledge what was written before (37)", async () => {
    const { master, replicas } = await groupOf(2);
    const one = commander();
    const tookMs: number[] = [];
    // Unasked a replica acknowledges once a second: three of five would hardly ever be as quick.
    let [from, to] = [master, replicas[0] as RedisServer];
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 100; i++) await from.cli("SET", `key${i}`, `value ${round}`);
      await to.untilCaughtUp(from);
      const startMs = performance.now();
      const failover = { kind: "failover", to: idOf(to), timeoutMs: 5_000 } as const;
      expect(await run(one, idOf(from), failover)).toEqual({ kind: "done" });
      expect(await run(one, idOf(to), { kind: "acknowledge" })).toEqual({ kind: "done" });
      await until(async () => (await roleOf(to)) === "master", { what: "the replica promoted", everyMs: 1 });
      tookMs.push(performance.now() - startMs);
      await until(async () => (await roleOf(from)) === "slave");
      expect(await to.cli("GET", "key99")).toBe(`value ${round}`);
      await from.untilLinkUp();
      const online = new RegExp(`port=${from.port},state=online`);
      await until(async () => [...(await to.info()).values()].some((line) => online.test(line)));
      [from, to] = [to, from];
    }
    figure(`FAILOVER with an acknowledgement took ${tookMs.map((ms) => ms.toFixed(1)).join(", ")} ms`);
    expect(median(tookMs)).toBeLessThan(100);
  });

  it("finds the replica under the address that the master lists it by", async () => {
    const { master, replicas } = await groupOf(1);
    const [r1] = replicas as [RedisServer];
    const known = `localhost:${r1.port}` as NodeId;
    const failover = { kind: "failover", to: known, timeoutMs: 5_000 } as const;
    const refused = await run(commander(), idOf(master), failover);
    expect(refused).toMatchObject({ kind: "refused", error: expect.stringContaining(r1.address) });
    const isSame = (a: NodeId, b: NodeId): boolean => a === idOf(r1) && b === known;
    expect(await run(commander({ isSame }), idOf(master), failover)).toEqual({ kind: "done" });
    await until(async () => (await roleOf(r1)) === "master");
  });

  it("is refused, and nothing is sent, by a node that is a replica or has no such replica", async () => {
    const { master, replicas } = await groupOf(1);
    const [r1] = replicas as [RedisServer];
    const one = commander();
    const to = `127.0.0.1:${await freePort()}` as NodeId;
    expect(await run(one, idOf(master), { kind: "failover", to, timeoutMs: 100 })).toMatchObject({
      kind: "refused",
      error: expect.stringContaining(`does not list ${to}`),
    });
    expect(await run(one, idOf(r1), { kind: "failover", to, timeoutMs: 100 })).toMatchObject({
      kind: "refused",
      error: expect.stringContaining("is not a master"),
    });
    expect((await master.info()).get("master_failover_state")).toBe("no-failover");
  });

  it("can be aborted, also when none runs (38)", async () => {
    const { master, replicas } = await groupOf(1);
    const [r1] = replicas as [RedisServer];
    const one = commander();
    expect(await run(one, idOf(master), { kind: "abort-failover" })).toEqual({ kind: "done" });
    await r1.kill("SIGSTOP");
    await master.cli("SET", "key", "the stopped replica does not have it");
    const failover = { kind: "failover", to: idOf(r1), timeoutMs: 60_000 } as const;
    expect(await run(one, idOf(master), failover)).toEqual({ kind: "done" });
    expect((await master.info()).get("master_failover_state")).toBe("waiting-for-sync");
    expect(await run(one, idOf(master), { kind: "abort-failover" })).toEqual({ kind: "done" });
    expect((await master.info()).get("master_failover_state")).toBe("no-failover");
    await r1.kill("SIGCONT");
  });
});

describe("writes", () => {
  it("are paused for as long as asked, and go on when told", async () => {
    const one = await server();
    const ours = commander();
    expect(await run(ours, idOf(one), { kind: "pause-writes", forMs: 60_000 })).toEqual({ kind: "done" });
    let written = false;
    const write = one.cli("SET", "key", "value").then(() => {
      written = true;
    });
    await until(async () => Number((await one.info("clients")).get("blocked_clients")) === 1);
    expect(written).toBe(false);
    expect(await run(ours, idOf(one), { kind: "unpause" })).toEqual({ kind: "done" });
    await write;
  });
});

describe("a link that is made anew", () => {
  it("is up again at once where the master lives, without a full sync, and stays down where it hangs", async () => {
    const { master, replicas } = await groupOf(1);
    const [r1] = replicas as [RedisServer];
    await r1.untilCaughtUp(master);
    const linkOf = async () => (await r1.info()).get("master_link_status");
    const fullSyncs = async () => (await master.info("stats")).get("sync_full");
    const before = await fullSyncs();
    expect(await run(commander(), idOf(r1), { kind: "relink" })).toEqual({ kind: "done" });
    const tookMs: number[] = [];
    // By itself a replica makes its link once a second.
    for (let round = 0; round < 5; round++) {
      if (round > 0) expect(await run(commander(), idOf(r1), { kind: "relink" })).toEqual({ kind: "done" });
      const startMs = performance.now();
      await until(async () => (await linkOf()) === "up", { what: "the link", everyMs: 1 });
      tookMs.push(performance.now() - startMs);
    }
    figure(`a link made anew was up within ${tookMs.map((ms) => ms.toFixed(1)).join(", ")} ms`);
    expect(median(tookMs)).toBeLessThan(200);
    expect(await fullSyncs()).toBe(before);
    await master.kill("SIGSTOP");
    try {
      expect(await run(commander(), idOf(r1), { kind: "relink" })).toEqual({ kind: "done" });
      const endMs = performance.now() + 500;
      while (performance.now() < endMs) expect(await linkOf()).toBe("down");
    } finally {
      await master.kill("SIGCONT");
    }
  });

  it("of a node that is a master is none", async () => {
    expect(await run(commander(), idOf(await server()), { kind: "relink" })).toMatchObject({ kind: "done" });
  });
});

describe("a command that fails", () => {
  it("is refused by a node on which its user has no right to it, or that wants another password", async () => {
    const one = await server();
    await one.cli("ACL", "SETUSER", "watch", "on", ">pw", "+client", "+info", "+ping");
    const weak = commander({ username: "watch", password: "pw" });
    const commands: NodeCommand[] = [
      { kind: "promote" },
      { kind: "follow", master: "127.0.0.1:1" as NodeId },
      { kind: "abort-failover" },
      { kind: "acknowledge" },
      { kind: "keep-role" },
    ];
    for (const command of commands) {
      const refused = { kind: "refused", error: expect.stringMatching(/^NOPERM/) };
      expect(await run(weak, idOf(one), command), command.kind).toMatchObject(refused);
    }
    const wrong = commander({ username: "watch", password: "guess" });
    expect(await run(wrong, idOf(one), { kind: "promote" })).toMatchObject({
      kind: "refused",
      error: expect.stringMatching(/^WRONGPASS/),
    });
    await one.cli("CONFIG", "SET", "requirepass", "secret");
    expect(await run(commander(), idOf(one), { kind: "promote" })).toMatchObject({
      kind: "refused",
      error: expect.stringMatching(/^NOAUTH/),
    });
  });

  it("is not run as the default user when the login is refused", async () => {
    const { master, replicas } = await groupOf(1);
    const [r1] = replicas as [RedisServer];
    await r1.cli("ACL", "SETUSER", "boss", "on", ">pw", "+@all");
    const wrong = commander({ username: "boss", password: "guess" });
    expect(await run(wrong, idOf(r1), { kind: "promote" })).toMatchObject({ kind: "refused" });
    expect(await roleOf(r1)).toBe("slave");
    expect(await roleOf(master)).toBe("master");
  });

  it("was not sent to a node that refuses connections, or that hangs before the login", async () => {
    const port = await freePort();
    expect(await run(commander(), `127.0.0.1:${port}` as NodeId, { kind: "promote" })).toMatchObject({
      kind: "unreachable",
      error: expect.stringContaining("ECONNREFUSED"),
    });
    const { replicas } = await groupOf(1);
    const [r1] = replicas as [RedisServer];
    await r1.kill("SIGSTOP");
    const startMs = performance.now();
    expect(await run(commander({ timeoutMs: 300 }), idOf(r1), { kind: "promote" })).toMatchObject({
      kind: "unreachable",
      error: "no connection within 300 ms",
    });
    expect(performance.now() - startMs).toBeLessThan(2_000);
    await r1.kill("SIGCONT");
    // What it wakes up to is a greeting and a closed connection.
    await until(async () => (await r1.info()).get("role") === "slave");
  });

  it("may have been carried out by a node that got it and does not answer, or that hangs up", async () => {
    const mute = await fake(({ name }) => (name === "REPLICAOF" ? SILENT : resp.ok));
    expect(await run(commander(), mute, { kind: "promote" })).toEqual({
      kind: "unknown",
      error: `no answer within ${TIMEOUT_MS} ms`,
    });
    const dying = await fake(({ name, connection }) => {
      if (name === "REPLICAOF") connection.socket.destroy();
      return resp.ok;
    });
    expect(await run(commander(), dying, { kind: "promote" })).toMatchObject({ kind: "unknown" });
  });

  it("leaves no connection behind, and nothing is told after close()", async () => {
    const one = await server();
    const ours = commander();
    expect(await run(ours, idOf(one), { kind: "unpause" })).toEqual({ kind: "done" });
    const named = async () => String(await one.cli("CLIENT", "LIST")).includes("holdfast-failover");
    await until(async () => !(await named()), { what: "the connection gone" });
    const told: CommandResult[] = [];
    ours.run(idOf(one), { kind: "promote" }, (result) => told.push(result));
    ours.close();
    expect(() => ours.run(idOf(one), { kind: "promote" }, () => {})).toThrow("after close()");
    await until(async () => !(await named()));
    expect(told).toEqual([]);
  });
});
