import { afterEach, expect, it } from "vitest";
import { needs } from "../support/abilities.ts";
import type { RawClient } from "../support/client.ts";
import { type ChaosLink, startLink } from "../support/link.ts";
import type { Reply } from "../support/resp.ts";
import { errorText, Stage } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

let stage: Stage;
afterEach(() => stage.close());

const COUNT_UP = `#!lua name=counting
redis.register_function('count_up', function(keys) return redis.call('INCR', keys[1]) end)`;

/** A call waits on the master, for long enough that it cannot have been answered. */
async function untilWaiting(calls = 1): Promise<void> {
  const blocked = async () => (await stage.master.info("clients")).get("blocked_clients");
  await until(async () => (await blocked()) === String(calls), { what: "the calls waiting" });
  await sleep(250);
}

/** The master is killed and the first replica promoted. */
async function switchOver(): Promise<void> {
  await stage.master.kill("SIGKILL");
  await stage.untilCause("connection-lost");
  await stage.replica(0).promote();
  await until(async () => (await stage.status()).writable === 1, { what: "the switch" });
}

async function scanOn(
  client: RawClient,
  cursor: string,
  seen: Set<Reply>,
  key: string | null,
): Promise<string> {
  const args = key === null ? ["SCAN", cursor, "COUNT", "50"] : ["HSCAN", key, cursor, "COUNT", "50"];
  const [next, items] = (await client.command(...args)) as [string, Reply[]];
  for (const item of items) seen.add(item);
  return next;
}

it.each([null, "hash"])(
  "an iteration in progress completes over a switch, nothing missed (29): key %s",
  async (key) => {
    stage = await Stage.open();
    const client = await stage.client();
    const names = Array.from({ length: 3_000 }, (_, i) => `element:${i}`);
    if (key === null) await client.command("MSET", ...names.flatMap((name) => [name, "x"]));
    else await client.command("HSET", key, ...names.flatMap((name) => [name, "x"]));
    await stage.replica(0).untilCaughtUp(stage.master);
    const seen = new Set<Reply>();
    let cursor = await scanOn(client, "0", seen, key);
    for (let i = 0; i < 10; i++) cursor = await scanOn(client, cursor, seen, key);
    expect(cursor).not.toBe("0");
    expect(seen.size).toBeLessThan(names.length);
    await switchOver();
    while (cursor !== "0") cursor = await scanOn(client, cursor, seen, key);
    for (const name of names) expect(seen).toContain(name);
    expect(client.disconnected).toBe(false);
  },
);

it("subscribers of all kinds go on over a switch without a second confirmation (24, 25)", async () => {
  stage = await Stage.open();
  const resp2 = await stage.client();
  const resp3 = await stage.client({ protocol: 3 });
  resp2.send("SUBSCRIBE a b\r\nPSUBSCRIBE p*\r\n");
  const confirmed = [await resp2.reply(), await resp2.reply(), await resp2.reply()];
  expect(confirmed).toEqual([
    ["subscribe", "a", 1],
    ["subscribe", "b", 2],
    ["psubscribe", "p*", 3],
  ]);
  resp3.send("SUBSCRIBE a\r\n");
  await until(() => resp3.pushes.length === 1, { what: "the confirmation" });
  await switchOver();
  const subscribers = async () => (await stage.replica(0).cli("PUBSUB", "NUMSUB", "a")) as Reply[];
  await until(async () => (await subscribers())[1] === 1, { what: "both being subscribed again" });
  const publisher = await stage.client();
  expect(await publisher.command("PUBLISH", "a", "1")).toBe(2);
  expect(await publisher.command("PUBLISH", "pq", "2")).toBe(1);
  expect(await resp2.reply()).toEqual(["message", "a", "1"]);
  expect(await resp2.reply()).toEqual(["pmessage", "p*", "pq", "2"]);
  await until(() => resp3.pushes.length === 2, { what: "the message" });
  expect(resp3.pushes[1]).toEqual(["message", "a", "1"]);
  // Its other commands go on as well.
  expect(await resp3.command("SET", "k", "v")).toBe("OK");
  expect(resp2.unclaimed + resp3.unclaimed).toBe(0);
  expect([resp2.disconnected, resp3.disconnected]).toEqual([false, false]);
});

it("a message that comes through the old and the new node while a subscriber moves comes once (24, 25)", async (context) => {
  needs(context, "ssubscribe");
  let link: ChaosLink | undefined;
  stage = await Stage.open({
    replicas: 1,
    before: async ({ master, replicas }) => {
      const replica = replicas[0]!;
      link = await startLink(replica.port);
      await replica.cli("CONFIG", "SET", "replica-announce-port", link.port);
      await replica.promote();
      await replica.replicaOf(master);
      await replica.untilLinkUp();
      return [master.address, link.address];
    },
  });
  try {
    const [client, shard] = [await stage.client(), await stage.client()];
    expect(await client.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
    expect(await shard.command("SSUBSCRIBE", "s")).toEqual(["ssubscribe", "s", 1]);
    const [old, next] = [stage.master, stage.replica(0)];
    await old.replicaOf(next);
    await until(async () => (await stage.status()).writable === 0, { what: "the demotion being seen" });
    // The confirmation at the new node comes later than what it publishes, which the old one gets at once.
    link?.delay(15);
    await next.promote();
    const subscribed = async () => ((await next.cli("PUBSUB", "NUMSUB", "c")) as Reply[])[1] === 1;
    await until(subscribed, { what: "the new subscription", everyMs: 1 });
    const texts = [...Array.from({ length: 20 }, (_, i) => `${i}`), "last"];
    for (const text of texts) {
      await next.cli("PUBLISH", "c", text);
      await next.cli("SPUBLISH", "s", text);
    }
    for (const subscriber of [client, shard]) {
      const got: Reply[] = [];
      while (got[got.length - 1] !== "last") got.push(((await subscriber.reply()) as Reply[])[2] ?? null);
      expect(got).toEqual(texts);
      expect(subscriber.unclaimed).toBe(0);
    }
  } finally {
    await link?.close();
  }
});

it("MONITOR goes on over a switch (27)", async () => {
  stage = await Stage.open();
  const monitor = await stage.client();
  expect(await monitor.command("MONITOR")).toBe("OK");
  await switchOver();
  const monitored = async () => (await stage.replica(0).cli("CLIENT", "LIST")) as string;
  await until(async () => / cmd=monitor/.test(await monitored()), { what: "monitoring the new master" });
  await (await stage.client()).command("SET", "seen", "1");
  const line = await until(async () => {
    const text = String(await monitor.reply());
    return text.includes('"seen"') ? text : null;
  });
  expect(line).toMatch(/^\d+\.\d+ \[0 .*\] "SET" "seen" "1"$/i);
  expect(monitor.disconnected).toBe(false);
});

it("keys watched over a switch: EXEC is null, and the next transaction works (20)", async () => {
  stage = await Stage.open();
  const client = await stage.client();
  expect(await client.command("WATCH", "w")).toBe("OK");
  expect(await client.command("GET", "w")).toBeNull();
  await switchOver();
  expect(await client.command("MULTI")).toBe("OK");
  expect(await client.command("SET", "w", "1")).toBe("QUEUED");
  expect(await client.command("EXEC")).toBeNull();
  expect(await client.command("GET", "w")).toBeNull();
  const again = await client.pipeline([["WATCH", "w"], ["MULTI"], ["SET", "w", "2"], ["EXEC"]]);
  expect(again).toEqual(["OK", "OK", "QUEUED", ["OK"]]);
  expect(client.disconnected).toBe(false);
});

it.for([
  ["BLPOP", ["BLPOP", "q", "0"], ["RPUSH", "q", "job"], ["q", "job"]],
  ["BRPOP with a time-out", ["BRPOP", "q", "20"], ["RPUSH", "q", "job"], ["q", "job"]],
  ["BLMOVE", ["BLMOVE", "q", "done", "LEFT", "RIGHT", "0"], ["RPUSH", "q", "job"], "job"],
  ["BLMPOP", ["BLMPOP", "20", "1", "q", "LEFT"], ["RPUSH", "q", "job"], ["q", ["job"]]],
  ["BZPOPMIN", ["BZPOPMIN", "z", "0"], ["ZADD", "z", "1", "m"], ["z", "m", "1"]],
  [
    "XREAD from $",
    ["XREAD", "BLOCK", "0", "STREAMS", "s", "$"],
    ["XADD", "s", "99-1", "f", "v"],
    [["s", [["99-1", ["f", "v"]]]]],
  ],
] as const)(
  "%s waits on over a switch and gets what comes (21, 23)",
  async ([, call, push, reply], context) => {
    needs(context, call[0].toLowerCase() as Lowercase<(typeof call)[0]>);
    stage = await Stage.open();
    const waiting = await stage.client();
    const answer = waiting.command(...call);
    await untilWaiting();
    await switchOver();
    await (await stage.client()).command(...push);
    expect(await answer).toEqual(reply);
    expect(waiting.disconnected).toBe(false);
    expect(await stage.proxy.metric("holdfast_blocking_reissued_total")).toBe(1);
    expect(await waiting.command("PING")).toBe("PONG");
  },
);

it("XREAD from $ misses nothing that is added while there is no way to the master (23)", async () => {
  stage = await Stage.open();
  const waiting = await stage.client();
  const first = await stage.client();
  await first.command("XADD", "s", "5-1", "f", "old");
  const answer = waiting.command("XREAD", "BLOCK", "0", "STREAMS", "s", "$");
  await untilWaiting();
  await stage.replica(0).untilCaughtUp(stage.master);
  await stage.master.kill("SIGKILL");
  await stage.untilCause("connection-lost");
  await stage.replica(0).promote();
  // Added behind the proxy's back, before the call can be issued again.
  await stage.replica(0).cli("XADD", "s", "6-1", "f", "new");
  expect(await answer).toEqual([["s", [["6-1", ["f", "new"]]]]]);
});

it("the time-out of a waiting call goes on over a switch (21)", async () => {
  stage = await Stage.open();
  const waiting = await stage.client();
  const from = performance.now();
  const answer = waiting.command("BLPOP", "q", "3");
  await untilWaiting();
  await switchOver();
  expect(await answer).toBeNull();
  expect(performance.now() - from).toBeGreaterThan(2_900);
  expect(performance.now() - from).toBeLessThan(4_500);
});

it("a call that a demotion unblocks waits on at the new master (21)", async () => {
  stage = await Stage.open();
  const waiting = await stage.client();
  const answer = waiting.command("BLPOP", "q", "0");
  await untilWaiting();
  await stage.master.replicaOf(stage.replica(0));
  await stage.replica(0).promote();
  await until(async () => (await stage.status()).epoch === 2, { what: "the switch" });
  await (await stage.client()).command("RPUSH", "q", "job");
  expect(await answer).toEqual(["q", "job"]);
  expect(waiting.disconnected).toBe(false);
});

it("EVALSHA works on a master that never saw the script, alone, in a pipeline and in MULTI (30)", async (context) => {
  needs(context, "scripts that are not replicated");
  stage = await Stage.open();
  const body = "return redis.call('INCR', KEYS[1])";
  const client = await stage.client();
  const other = await stage.client({ protocol: 3 });
  const sha = (await client.command("SCRIPT", "LOAD", body)) as string;
  expect(await client.command("EVAL", "return 'twice'", "0")).toBe("twice");
  await switchOver();
  expect(await stage.replica(0).cli("SCRIPT", "EXISTS", sha)).toEqual([0]);
  const replies = await client.pipeline([
    ["SET", "n", "10"],
    ["EVALSHA", sha, "1", "n"],
    ["GET", "n"],
    ["EVALSHA", "0".repeat(40), "0"],
    ["INCR", "n"],
  ]);
  expect(replies.slice(0, 3)).toEqual(["OK", 11, "11"]);
  expect(String((replies[3] as Error).message)).toMatch(/^NOSCRIPT /);
  expect(replies[4]).toBe(12);
  await stage.replica(0).cli("SCRIPT", "FLUSH");
  const unit = [["MULTI"], ["EVALSHA", sha, "1", "n"], ["GET", "n"], ["EXEC"]];
  expect(await other.pipeline(unit)).toEqual(["OK", "QUEUED", "QUEUED", [13, "13"]]);
  // What a client flushes stays flushed.
  expect(await client.command("SCRIPT", "FLUSH")).toBe("OK");
  expect(String(((await client.command("EVALSHA", sha, "1", "n")) as Error).message)).toMatch(/^NOSCRIPT /);
});

it.for([
  ["EVAL", ["EVAL", "return redis.call('INCR', KEYS[1])", "1", "n"]],
  ["FCALL", ["FCALL", "count_up", "1", "n"]],
] as const)(
  "a transaction with %s that a demoted master refuses only inside EXEC's reply runs on the new one (18, 31)",
  async ([name, call], context) => {
    needs(context, name === "FCALL" ? "fcall" : "eval");
    stage = await Stage.open({ replicas: 1, config: { probe: { interval: "5s", timeout: "5s" } } });
    const client = await stage.client();
    await client.command("FUNCTION", "LOAD", COUNT_UP);
    expect(await client.command("SET", "n", "1")).toBe("OK");
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.master.replicaOf(stage.replica(0));
    const unit = [["MULTI"], ["SELECT", "0"], ["GET", "n"], call, ["EXEC"]];
    const plain = [["MULTI"], call, ["GET", "n"], ["EXEC"]];
    const replies = client.pipeline([...plain, ["GET", "n"], ...unit, ["PING"]]);
    await stage.untilHeld();
    await stage.replica(0).promote();
    const queued = ["OK", "QUEUED", "QUEUED"];
    const expected = [...queued, [2, "2"], "2", ...queued, "QUEUED", ["OK", "2", 3], "PONG"];
    expect(await replies).toEqual(expected);
    expect(client.unclaimed).toBe(0);
  },
);

it("a script in a transaction that makes up a replica's error runs once, and its error is the answer (18)", async () => {
  stage = await Stage.open({ replicas: 1 });
  const client = await stage.client();
  const text = "READONLY You can't write against a read only replica.";
  const script = `redis.call('INCR', KEYS[1]) return redis.error_reply("${text}")`;
  const unit = [["MULTI"], ["EVAL", script, "1", "n"], ["EXEC"], ["ECHO", "tag"]];
  const [, , made, echo] = await client.pipeline(unit);
  expect(errorText((made as Reply[])[0])).toBe(text);
  expect(echo).toBe("tag");
  expect(await client.command("GET", "n")).toBe("1");
});

it("a transaction that publishes beside a script that was refused is not published twice (18, 26)", async (context) => {
  needs(context, "READONLY as the first word of a script's error");
  stage = await Stage.open({ replicas: 1, config: { probe: { interval: "5s", timeout: "5s" } } });
  const client = await stage.client();
  // A new connection would be refused.
  expect(await client.command("SET", "n", "1")).toBe("OK");
  await stage.untilProbed(stage.master);
  await stage.master.replicaOf(stage.replica(0));
  const script = "return redis.call('INCR', KEYS[1])";
  const unit = [["MULTI"], ["PUBLISH", "c", "m"], ["EVAL", script, "1", "n"], ["EXEC"]];
  const [, , , reply] = await client.pipeline(unit);
  expect(errorText((reply as Reply[])[1])).toMatch(/^READONLY .*script/);
});

it("SCRIPT EXISTS knows on a new master what clients have sent before, alone and in MULTI (30)", async (context) => {
  needs(context, "scripts that are not replicated");
  stage = await Stage.open();
  const client = await stage.client();
  const bodies = ["return 1", "return 2", "return 3"];
  const names: string[] = [];
  for (const body of bodies) names.push((await client.command("SCRIPT", "LOAD", body)) as string);
  const nobodys = "0".repeat(40);
  await switchOver();
  expect(await stage.replica(0).cli("SCRIPT", "EXISTS", ...names)).toEqual([0, 0, 0]);
  const [first, second, third] = names as [string, string, string];
  const unit = [["MULTI"], ["SCRIPT", "EXISTS", third, nobodys], ["EXEC"]];
  expect((await client.pipeline(unit))[2]).toEqual([[1, 0]]);
  const pipeline = [
    ["SET", "k", "v"],
    ["SCRIPT", "EXISTS", first, nobodys, second.toUpperCase()],
    ["GET", "k"],
    ["EVALSHA", first, "0"],
    ["SCRIPT", "EXISTS"],
  ];
  const replies = await client.pipeline(pipeline);
  expect(replies.slice(0, 4)).toEqual(["OK", [1, 0, 1], "v", 1]);
  expect(String((replies[4] as Error).message)).toMatch(/^ERR wrong number of arguments/);
  // What a client flushes stays flushed.
  expect(await client.command("SCRIPT", "FLUSH")).toBe("OK");
  expect(await client.command("SCRIPT", "EXISTS", ...names)).toEqual([0, 0, 0]);
});

it("a waiting call on a master that lives on moves at once to the promoted one (21)", async () => {
  stage = await Stage.open({ config: { upstream: { retireTimeout: "20s" } } });
  const waiting = await stage.client();
  const answer = waiting.command("BLPOP", "q", "0");
  await untilWaiting();
  await stage.replica(0).promote();
  await until(async () => (await stage.status()).epoch === 2, { what: "the switch" });
  await (await stage.client()).command("RPUSH", "q", "job");
  expect(await answer).toEqual(["q", "job"]);
});

it("a call that was sent to a living master right before a promotion waits on at the promoted one (21)", async () => {
  stage = await Stage.open({ config: { probe: { interval: "1s" } } });
  const old = await stage.client();
  const waiting = old.command("BLPOP", "q", "0");
  await untilWaiting();
  // Until the proxy sees it, calls go to the former master: each of them only a moment before.
  const answers = [(await stage.client()).command("BLPOP", "q", "0")];
  await stage.replica(0).promote();
  while ((await stage.status()).epoch === 1) {
    answers.push((await stage.client()).command("BLPOP", "q", "0"));
    await sleep(5);
  }
  const blocked = async () => Number((await stage.replica(0).info("clients")).get("blocked_clients"));
  await until(async () => (await blocked()) === answers.length + 1, { what: "all waiting on" });
  await stage.replica(0).cli("RPUSH", "q", ...answers.map((_, i) => `${i}`), "last");
  expect(await waiting).toEqual(["q", "0"]);
  const jobs = (await Promise.all(answers)).map((reply) => (reply as Reply[])[1]);
  expect(new Set(jobs).size).toBe(answers.length);
  expect(await stage.proxy.metric("holdfast_uncertain_total")).toBe(0);
});

it("the time-out of a waiting call is its own also while there is no master (21)", async (context) => {
  needs(context, "blmove");
  stage = await Stage.open();
  const [resp2, resp3] = [await stage.client(), await stage.client({ protocol: 3 })];
  const pop = resp2.command("BLPOP", "q", "3");
  const move = resp3.command("BLMOVE", "q", "r", "LEFT", "LEFT", "3");
  await untilWaiting(2);
  const from = performance.now();
  await stage.master.kill("SIGKILL");
  expect(await pop).toBeNull();
  expect(await move).toBeNull();
  // hold.maxTime is ten times as long.
  expect(performance.now() - from).toBeLessThan(5_000);
  expect(await resp2.command("PING")).toBe("PONG");
});

it("a call that was only just sent when the master died may have run: UNCERTAIN, not repeated (12, 22)", async () => {
  stage = await Stage.open({ config: { probe: { interval: "1s", timeout: "1s" } } });
  const client = await stage.client();
  // With a connection of its own already, the call leaves at once.
  expect(await client.command("WATCH", "w")).toBe("OK");
  await stage.master.kill("SIGSTOP");
  const answer = client.command("BLMOVE", "q", "r", "LEFT", "LEFT", "0");
  await sleep(100);
  await stage.master.kill("SIGKILL");
  expect(String(((await answer) as Error).message)).toMatch(/^UNCERTAIN /);
  expect(client.disconnected).toBe(false);
});

it("a subscriber of a master that lives on follows a promotion by hand, and the proxy goes on (24)", async () => {
  stage = await Stage.open();
  const subscribers = await stage.clients(20);
  for (const client of subscribers)
    expect(await client.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
  await stage.replica(0).promote();
  await until(async () => (await stage.status()).epoch === 2, { what: "the switch" });
  const subscribed = async () => (await stage.replica(0).cli("PUBSUB", "NUMSUB", "c")) as Reply[];
  await until(async () => (await subscribed())[1] === 1, { what: "all being subscribed again" });
  expect(await (await stage.client()).command("PUBLISH", "c", "m")).toBe(20);
  for (const client of subscribers) expect(await client.reply()).toEqual(["message", "c", "m"]);
});

it("a waiting call that finds no master within hold.maxTime may have popped: UNCERTAIN, connection open (22, 43)", async () => {
  stage = await Stage.open({ config: { hold: { maxTime: "1s" } } });
  const client = await stage.client();
  const forEver = await stage.client();
  const answers = [client.command("BLPOP", "q", "100000000"), forEver.command("BLPOP", "q", "0")];
  await untilWaiting(2);
  await stage.master.kill("SIGKILL");
  for (const reply of await Promise.all(answers)) {
    expect(String((reply as Error).message)).toMatch(/^UNCERTAIN /);
  }
  expect(await client.command("PING")).toBe("PONG");
});
