/** What a session has seen of a key, whichever way it was shown that, it is not shown older after it. */
import { afterEach, describe, expect, it } from "vitest";
import { type ChaosLink, layLink } from "../support/link.ts";
import { calls, resetCalls, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await stage.close();
});

type Words = readonly string[];

/** What replicas have, and what the master has besides. */
const OLD: readonly Words[] = [
  ["MSET", "n1", "1", "n2", "1", "n3", "1", "n4", "1"],
  ["RPUSH", "list", "a"],
  ["SADD", "set", "a"],
  ["GEOADD", "geo", "1", "1", "a"],
];
const NEW: readonly Words[] = [
  ["MSET", "n1", "2", "n2", "2", "n3", "2", "n4", "2"],
  ["RPUSH", "list", "b"],
  ["SADD", "set", "b"],
  ["GEOADD", "geo", "1", "1", "b"],
  ["SET", "new", "1"],
];

/** One replica, whose replication stands still from now on. */
async function openLagging(): Promise<void> {
  let link!: ChaosLink;
  stage = await Stage.open({
    replicas: 1,
    before: async (group) => {
      link = await layLink(group.master, group.replica(0));
      return group.addresses;
    },
  });
  cleanups.push(() => link.close());
  for (const words of OLD) await stage.master.cli(...words);
  await until(async () => Number(await stage.replica(0).cli("ZCARD", "geo")) === 1);
  link.stall();
  for (const words of NEW) await stage.master.cli(...words);
}

interface Row {
  readonly says: string;
  /** What the client sends first, each in a pipeline of its own. */
  readonly before?: readonly (readonly Words[])[];
  /** The pipeline whose last reply tells something new. */
  readonly shows: readonly Words[];
  readonly shown: unknown;
  readonly next: Words;
  readonly reply: unknown;
}

const HOME: readonly Words[] = [["GET", "other"]];

const ROWS: readonly Row[] = [
  {
    says: "a read behind a write that is on the way",
    before: [HOME],
    shows: [
      ["SET", "own", "1"],
      ["GET", "n1"],
    ],
    shown: "2",
    next: ["GET", "n1"],
    reply: "2",
  },
  {
    says: "the first read of a session that has written",
    before: [[["SET", "own", "1"]]],
    shows: [["MGET", "own", "n2"]],
    shown: ["1", "2"],
    next: ["GET", "n2"],
    reply: "2",
  },
  {
    says: "a read of any keys after a write",
    before: [HOME, [["SET", "own", "1"]]],
    shows: [["KEYS", "new"]],
    shown: ["new"],
    next: ["GET", "new"],
    reply: "1",
  },
  {
    says: "a read of any keys in a transaction",
    before: [HOME],
    shows: [["MULTI"], ["KEYS", "new"], ["EXEC"]],
    shown: [["new"]],
    next: ["GET", "new"],
    reply: "1",
  },
  {
    says: "SORT, which might store",
    before: [HOME],
    shows: [["SORT", "list", "ALPHA"]],
    shown: ["a", "b"],
    next: ["LLEN", "list"],
    reply: 2,
  },
  {
    says: "GEORADIUS, which might store",
    before: [HOME],
    shows: [["GEORADIUS", "geo", "1", "1", "1", "km"]],
    shown: ["a", "b"],
    next: ["ZCARD", "geo"],
    reply: 2,
  },
  {
    says: "how much a write has found in another key",
    before: [HOME],
    shows: [["SUNIONSTORE", "union", "set"]],
    shown: 2,
    next: ["SCARD", "set"],
    reply: 2,
  },
  {
    says: "WATCH and what is read behind it",
    before: [HOME],
    shows: [["WATCH", "own"], ["GET", "n3"], ["UNWATCH"]],
    shown: "OK",
    next: ["GET", "n3"],
    reply: "2",
  },
  {
    says: "a transaction",
    before: [HOME],
    shows: [["MULTI"], ["GET", "n4"], ["EXEC"]],
    shown: ["2"],
    next: ["GET", "n4"],
    reply: "2",
  },
];

describe("7: what a session has seen once it does not see older", () => {
  it.each(["session", "proxy"])("%s: whatever has shown it, whoever has written it", async (mode) => {
    await openLagging();
    for (const { says, before = [], shows, shown, next, reply } of ROWS) {
      const client = await stage.client();
      await client.command("PROXY", "CONSISTENCY", mode);
      for (const pipeline of before) await client.pipeline(pipeline);
      expect.soft((await client.pipeline(shows)).at(-1), says).toEqual(shown);
      expect.soft(await client.command(...next), says).toEqual(reply);
    }
    expect(await stage.replica(0).cli("GET", "n4"), "the replica still lags").toBe("1");
  });
});

it("6: a call that waits for something keeps nobody from the replicas (proxy)", async () => {
  stage = await Stage.open({ replicas: 1, config: { reads: { consistency: "proxy" } } });
  const [waiting, client] = await stage.clients(2);
  const popped = waiting?.command("BLPOP", "queue", "0");
  await until(async () => (await stage.master.info("clients")).get("blocked_clients") === "1");
  // What is read of any key would have to know of each write that is on the way.
  await resetCalls(...stage.group.all);
  await client?.command("LLEN", "queue");
  await client?.command("KEYS", "*");
  expect(await calls(stage.replica(0), "llen", "keys")).toBe(2);
  await client?.command("RPUSH", "queue", "a");
  expect(await popped).toEqual(["queue", "a"]);
  expect(await client?.command("LLEN", "queue")).toBe(0);
});
