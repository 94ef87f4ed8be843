/** What newer servers than Redis 7.0 have besides: by what they tell of it, it goes where it belongs. */
import { afterEach, describe, expect, it } from "vitest";
import { serverKind } from "../support/redis.ts";
import { errorText, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

const { isValkey, major } = serverKind();
/** Fields with a time to live: Redis 8.0, Valkey 9.0. */
const HAS_FIELD_TIMES = isValkey ? major >= 9 : major >= 8;

let stage: Stage;

afterEach(() => stage?.close());

/** How often a node has run a command. */
async function runs(node: Stage["master"], command: string): Promise<number> {
  const stats = await node.info("commandstats");
  return Number(/^calls=(\d+)/.exec(stats.get(`cmdstat_${command}`) ?? "")?.[1] ?? 0);
}

/** Asks again until a replica has answered: right after a write the master does. */
async function untilReadFromReplica(command: string, ask: () => Promise<unknown>): Promise<void> {
  const isRead = async () => {
    await ask();
    const counts = await Promise.all(stage.group.replicas.map((node) => runs(node, command)));
    return counts.some((count) => count > 0);
  };
  await until(isRead, { what: `${command} on a replica` });
}

describe.skipIf(!HAS_FIELD_TIMES)("fields of a hash with a time to live", () => {
  it("are set on the master and read from replicas (3, 7)", async () => {
    stage = await Stage.open();
    const client = await stage.client();
    expect(await client.command("HSETEX", "h", "EX", 100, "FIELDS", 1, "f", "v")).toBe(1);
    expect(await client.command("HTTL", "h", "FIELDS", 1, "f")).toEqual([expect.any(Number)]);
    expect(await client.command("HGETEX", "h", "PERSIST", "FIELDS", 1, "f")).toEqual(["v"]);
    expect(await client.command("HTTL", "h", "FIELDS", 1, "f")).toEqual([-1]);
    await untilReadFromReplica("httl", () => client.command("HTTL", "h", "FIELDS", 1, "f"));
    for (const replica of stage.group.replicas) {
      // What it was told by its master it runs too; what clients send would be refused.
      expect((await replica.info("errorstats")).has("errorstat_READONLY")).toBe(false);
    }
  });
});

describe.skipIf(isValkey || major < 8)("vector sets", () => {
  it("are written on the master and read from replicas (3, 7)", async () => {
    stage = await Stage.open();
    const client = await stage.client();
    for (const [name, x] of [
      ["a", 1],
      ["b", 2],
    ] as const) {
      expect(await client.command("VADD", "vs", "VALUES", 2, x, 1, name)).toBe(1);
    }
    expect(await client.command("VCARD", "vs")).toBe(2);
    expect(await client.command("VSIM", "vs", "ELE", "a", "COUNT", 1)).toEqual(["a"]);
    await untilReadFromReplica("VSIM", () => client.command("VSIM", "vs", "ELE", "a", "COUNT", 1));
    for (const replica of stage.group.replicas) {
      expect((await replica.info("errorstats")).has("errorstat_READONLY")).toBe(false);
    }
  });
});

describe.skipIf(!isValkey || major < 8)("of Valkey", () => {
  it("CLIENT CAPA is taken, and a client that can be redirected never is (34)", async () => {
    stage = await Stage.open();
    const client = await stage.client();
    expect(await client.command("CLIENT", "CAPA", "redirect")).toBe("OK");
    expect(await client.command("SET", "k", "1")).toBe("OK");
    const [replica] = stage.group.replicas;
    await replica?.promote();
    await until(async () => (await client.command("SET", "k", "2")) === "OK", { what: "a write" });
  });

  it("CLIENT KILL TYPE PRIMARY ends nobody, and a type that no server has is refused (34)", async () => {
    stage = await Stage.open();
    const [client, other] = [await stage.client(), await stage.client()];
    expect(await client.command("CLIENT", "KILL", "TYPE", "primary")).toBe(0);
    expect(errorText(await client.command("CLIENT", "KILL", "TYPE", "x"))).toMatch(
      /^ERR Unknown client type/,
    );
    expect(await other.command("PING")).toBe("PONG");
  });

  it("replication by two channels changes nothing about a failover (4, 8, 12)", async () => {
    const args = ["--dual-channel-replication-enabled", "yes", "--repl-diskless-sync", "yes"];
    stage = await Stage.open({ redis: { args: [...args, "--repl-diskless-load", "swapdb"] } });
    const client = await stage.client();
    await client.command("SET", "k", "1");
    const [next, rest] = stage.group.replicas;
    await next?.untilCaughtUp(stage.master);
    await stage.master.kill();
    const held = client.command("INCR", "k");
    await next?.promote();
    expect(await held).toBe(2);
    if (next !== undefined) await rest?.replicaOf(next);
    // A full synchronisation by two channels while clients read and write.
    await stage.master.restart();
    if (next !== undefined) await stage.master.replicaOf(next);
    await stage.master.untilLinkUp();
    expect(stage.master.output, "two channels").toMatch(/dual channel/i);
    expect(await client.command("INCR", "k")).toBe(3);
    expect(await client.command("GET", "k")).toBe("3");
  });
});
