/** NOREPLICAS (min-replicas-to-write): after a promotion it passes, at any other time it is an answer. */
import { afterEach, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import type { ConfigObject } from "../support/proxy.ts";
import { encodeCommand } from "../support/resp.ts";
import { errorText, Stage } from "../support/stage.ts";
import { sleep, until, within } from "../support/wait.ts";

const NOREPLICAS = "NOREPLICAS Not enough good replicas to write.";
const PREVIOUS = "EXECABORT Transaction discarded because of previous errors.";

let stage: Stage;
afterEach(() => stage.close());

async function setUp(config: ConfigObject = {}): Promise<RawClient> {
  stage = await Stage.open({ redis: { args: ["--min-replicas-to-write", "1"] }, config });
  const client = await stage.client();
  await until(async () => (await stage.master.cli("SET", "ready", "1")) === "OK", { what: "good replicas" });
  return client;
}

/** Promotes one replica without losing a write; the other finds it so much later. */
async function promote(repointAfterMs: number): Promise<void> {
  await stage.master.cli("CLIENT", "PAUSE", "10000", "WRITE");
  await stage.replica(0).untilCaughtUp(stage.master);
  await stage.replica(0).promote();
  // What waits there is refused, and the new master does not get it as a replica.
  await stage.master.cli("SLAVEOF", "127.0.0.1", "1");
  await stage.master.cli("CLIENT", "UNPAUSE");
  await stage.untilMaster(stage.replica(0));
  await sleep(repointAfterMs);
  await stage.replica(1).replicaOf(stage.replica(0));
}

it("a promotion while the other replica is re-pointed 700 ms later: a delay, no error, every write once and in order (10)", async () => {
  await setUp();
  const clients = await stage.clients(5);
  let stop = false;
  const errors: string[] = [];
  const counts = clients.map(() => 0);
  let longestMs = 0;
  const working = clients.map(async (client, i) => {
    while (!stop) {
      const begunMs = performance.now();
      const [pushed, list, unit] = [`l:${i}`, `l:${i}`, [["MULTI"], ["INCR", `t:${i}`], ["EXEC"]]];
      const n = counts[i] ?? 0;
      const replies = await client.pipeline([
        ["RPUSH", pushed, String(n)],
        ["RPUSH", list, String(n + 1)],
        ["LRANGE", list, "-2", "-1"],
        ...unit,
      ]);
      counts[i] = n + 2;
      longestMs = Math.max(longestMs, performance.now() - begunMs);
      const expected = [n + 1, n + 2, [String(n), String(n + 1)], "OK", "QUEUED", [n / 2 + 1]];
      if (JSON.stringify(replies) !== JSON.stringify(expected)) errors.push(replies.map(String).join(" | "));
      await sleep(1);
    }
  });
  await sleep(100);
  await promote(700);
  const before = [...counts];
  await until(() => counts.every((count, i) => count > (before[i] ?? 0) + 10), { what: "writes going on" });
  stop = true;
  await Promise.all(working);
  expect(errors).toEqual([]);
  expect(longestMs, "the clients had to wait").toBeGreaterThan(650);
  for (const [i, count] of counts.entries()) {
    const list = await stage.replica(0).cli("LRANGE", `l:${i}`, "0", "-1");
    expect(list).toEqual(Array.from({ length: count }, (_, n) => String(n)));
  }
  expect(await stage.status()).toMatchObject({ uncertain: 0, expired: 0 });
});

it("what follows waits in its place, others go on, and a script's own error is the answer (10)", async () => {
  const client = await setUp();
  const [other, scripted] = (await stage.clients(2)) as [RawClient, RawClient];
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
  client.send(
    Buffer.concat(
      [
        ["SET", "k", "1"],
        ["GET", "k"],
        ["ECHO", "x"],
      ].map(encodeCommand),
    ),
  );
  const replies = Promise.all([client.reply(), client.reply(), client.reply()]);
  await expect(within(replies, 100, "replies")).rejects.toThrow("replies");
  expect(await other.command("PING", "hello")).toBe("hello");
  const forged = `return redis.error_reply('${NOREPLICAS}')`;
  expect(errorText(await scripted.command("EVAL", forged, "0"))).toBe(NOREPLICAS);
  await stage.replica(1).replicaOf(stage.replica(0));
  expect(await replies).toEqual(["OK", "1", "x"]);
});

it("outside the window it is passed through as it is, alone and in a transaction (10)", async () => {
  const client = await setUp({ failover: { settleTime: "0" } });
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
  expect(errorText(await client.command("SET", "k", "1"))).toBe(NOREPLICAS);
  const unit = await client.pipeline([["MULTI"], ["SET", "k", "1"], ["EXEC"]]);
  expect(errorText(unit[2])).toBe(PREVIOUS);
});

it("the window ends: who has waited for it gets the server's own answer (10)", async () => {
  const client = await setUp({ failover: { settleTime: "300ms" } });
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
  expect(errorText(await within(client.command("SET", "k", "1"), 5_000, "the end"))).toBe(NOREPLICAS);
  expect(errorText((await client.pipeline([["MULTI"], ["SET", "k", "1"], ["EXEC"]]))[2])).toBe(PREVIOUS);
});

it("keys watched meanwhile: EXEC answers null, as if one had changed (10, 20)", async () => {
  const client = await setUp();
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
  expect(await client.command("WATCH", "k")).toBe("OK");
  const unit = await client.pipeline([["MULTI"], ["SET", "k", "1"], ["EXEC"]]);
  expect(unit).toEqual(["OK", "QUEUED", null]);
  await stage.replica(1).replicaOf(stage.replica(0));
  expect(await client.command("SET", "k", "2")).toBe("OK");
});
