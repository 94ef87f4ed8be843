import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type ClientFacts,
  clientType,
  flagsOf,
  harmlessKill,
  isInteger,
  isKilled,
  isListed,
  killFilter,
  lineOf,
  listFilter,
  NO_ID,
} from "../../../../src/session/client/list.ts";

const PLAIN: ClientFacts = {
  id: 7,
  address: "127.0.0.1:5000",
  localAddress: "127.0.0.1:6379",
  name: "",
  ageSeconds: 12,
  idleSeconds: 3,
  user: "default",
  db: 0,
  protocol: 2,
  channels: 0,
  patterns: 0,
  shards: 0,
  isMonitor: false,
  isTracking: false,
  isBlocked: false,
  watchLost: false,
  noEvict: false,
  noTouch: false,
  queued: -1,
  queuedBytes: 0,
  inputBytes: 0,
  inputRoom: 0,
  outputBytes: 0,
  lastCommand: "client|list",
  redirect: -1,
  libraryName: "",
  libraryVersion: "",
};

const one = (facts: Partial<ClientFacts> = {}): ClientFacts => ({ ...PLAIN, ...facts });

describe("a line of CLIENT LIST (34)", () => {
  it("has the fields of Redis 7.0 in its order", () => {
    expect(lineOf(one(), false)).toBe(
      "id=7 addr=127.0.0.1:5000 laddr=127.0.0.1:6379 fd=0 name= age=12 idle=3 flags=N db=0 sub=0 psub=0 " +
        "ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 " +
        "events=r cmd=client|list user=default redir=-1 resp=2",
    );
  });

  it("says what it knows", () => {
    const busy = one({
      ...{ name: "worker", user: "alice", db: 3, protocol: 3, lastCommand: "" },
      ...{ channels: 1, patterns: 2, shards: 3, queued: 2, queuedBytes: 40 },
      ...{ inputBytes: 10, inputRoom: 5, outputBytes: 100, redirect: 9 },
    });
    expect(lineOf(busy, false)).toBe(
      "id=7 addr=127.0.0.1:5000 laddr=127.0.0.1:6379 fd=0 name=worker age=12 idle=3 flags=Px db=3 sub=1 " +
        "psub=2 ssub=3 multi=2 qbuf=10 qbuf-free=5 argv-mem=0 multi-mem=40 rbs=0 rbp=0 obl=0 oll=0 omem=100 " +
        "tot-mem=155 events=rw cmd=NULL user=alice redir=9 resp=3",
    );
  });

  it("names the library where the server knows such a thing, and only there", () => {
    const library = one({ libraryName: "ioredis", libraryVersion: "6.0.0" });
    expect(lineOf(library, true)).toBe(`${lineOf(one(), false)} lib-name=ioredis lib-ver=6.0.0`);
    expect(lineOf(one(), true)).toBe(`${lineOf(one(), false)} lib-name= lib-ver=`);
    expect(lineOf(library, false)).toBe(lineOf(one(), false));
  });

  it.each<[Partial<ClientFacts>, string]>([
    [{}, "N"],
    [{ isMonitor: true }, "O"],
    [{ channels: 1 }, "P"],
    [{ patterns: 1 }, "P"],
    [{ shards: 1 }, "P"],
    [{ queued: 0 }, "x"],
    [{ isBlocked: true }, "b"],
    [{ isTracking: true }, "t"],
    [{ watchLost: true }, "d"],
    [{ noEvict: true }, "e"],
    [{ noTouch: true }, "T"],
    [{ queued: 3, isBlocked: true, noTouch: true, noEvict: true, isTracking: true, shards: 2 }, "PxbteT"],
  ])("has flags in Redis's order: %j", (facts, flags) => expect(flagsOf(one(facts))).toBe(flags));
});

describe("what CLIENT LIST is asked for", () => {
  it.each([
    [[], { kind: "all" }],
    [["TYPE", "normal"], { kind: "type", type: "normal" }],
    [["type", "PubSub"], { kind: "type", type: "pubsub" }],
    [["TYPE", "slave"], { kind: "type", type: "nobody" }],
    [["ID", "3", "1", "3", "-1"], { kind: "ids", ids: [3, 1, 3, -1] }],
    [["id", "0"], { kind: "ids", ids: [0] }],
    [["ID"], { kind: "wrong" }],
    [["ID", "1", "x"], { kind: "wrong" }],
    [["ID", "01"], { kind: "wrong" }],
    [["TYPE"], { kind: "wrong" }],
    [["TYPE", "other"], { kind: "wrong" }],
    [["TYPE", "normal", "ID"], { kind: "wrong" }],
    [["NAME", "x"], { kind: "wrong" }],
    [[""], { kind: "wrong" }],
  ])("%j", (words, filter) => expect(listFilter(words)).toEqual(filter));

  it.each([
    ["normal", one(), true],
    ["normal", one({ channels: 1 }), false],
    ["pubsub", one({ shards: 1 }), true],
    ["pubsub", one(), false],
    ["replica", one({ isMonitor: true }), false],
    ["primary", one(), false],
    ["normal", one({ isMonitor: true }), true],
  ])("type %s", (word, facts, listed) => expect(isListed(facts, clientType(word)!)).toBe(listed));
});

describe("whom CLIENT KILL means", () => {
  const other = one({ id: 8, address: "[::1]:6000", user: "alice", ageSeconds: 100, channels: 1 });

  it.each<[string, string[], boolean, boolean]>([
    // the client that asks, the other one
    ["the old form", ["127.0.0.1:5000"], true, false],
    ["the old form", ["[::1]:6000"], false, true],
    ["the old form", ["nobody"], false, false],
    ["no filter but one that holds for all", ["SKIPME", "yes"], false, true],
    ["oneself too", ["SKIPME", "no"], true, true],
    ["an id", ["ID", "8"], false, true],
    ["oneself is spared", ["ID", "7"], false, false],
    ["unless one says so", ["ID", "7", "SKIPME", "NO"], true, false],
    ["the last id", ["ID", "8", "ID", "9"], false, false],
    ["several ids of a newer server", ["ID", "6", "7", "8", "SKIPME", "no"], true, true],
    ["a type", ["type", "pubsub"], false, true],
    ["a type of nobody", ["TYPE", "master", "SKIPME", "no"], false, false],
    ["a type of nobody, in Valkey's words", ["TYPE", "primary", "SKIPME", "no"], false, false],
    ["a user", ["USER", "alice"], false, true],
    ["an address", ["ADDR", "[::1]:6000"], false, true],
    ["a local address", ["LADDR", "127.0.0.1:6379", "SKIPME", "no"], true, true],
    ["an age", ["MAXAGE", "100", "SKIPME", "no"], false, true],
    ["an age nobody has", ["MAXAGE", "101", "SKIPME", "no"], false, false],
    ["all filters must hold", ["ID", "8", "USER", "default"], false, false],
    ["all filters hold", ["ID", "8", "USER", "alice", "TYPE", "pubsub"], false, true],
  ])("%s: %j", (_what, words, self, another) => {
    const filter = killFilter(words)!;
    expect([isKilled(one(), filter, true), isKilled(other, filter, false)]).toEqual([self, another]);
  });

  it.each([
    [["NAME", "x"]],
    [["ID", "x"]],
    [["NOT-ID", "1"]],
    [["TYPE", "normal", "FLAGS", "N"]],
    [["TYPE", "x"]],
  ])("an option that only a newer server knows is not guessed: %j", (words) =>
    expect(killFilter(words)).toBeNull(),
  );
});

describe("the question whether a user may kill", () => {
  it.each([
    [["1.2.3.4:5"], ["ID", NO_ID]],
    [
      ["ID", "5"],
      ["ID", NO_ID, "ID", NO_ID],
    ],
    [
      ["type", "x", "id", "0"],
      ["ID", NO_ID, "type", "x", "id", "0"],
    ],
    [
      ["ID", "1", "2", "USER", "u"],
      ["ID", NO_ID, "ID", NO_ID, NO_ID, "USER", "u"],
    ],
  ])("%j is asked as %j", (words, question) => expect(harmlessKill(words)).toEqual(question));

  it("never names a client of the server, whatever the client says", () => {
    const word = fc.oneof(
      fc.constantFrom("ID", "id", "TYPE", "normal", "USER", "SKIPME", "no", "ADDR", "NOT-ID"),
      fc.integer({ min: -5, max: 1_000 }).map(String),
    );
    fc.assert(
      fc.property(fc.array(word, { minLength: 2, maxLength: 8 }), (words) => {
        const asked = harmlessKill(words);
        expect(asked.slice(0, 2)).toEqual(["ID", NO_ID]);
        // An ID that a server takes is a number from 1 behind the word ID.
        for (const [i, one] of asked.entries()) {
          if (one.toLowerCase() === "id" && Number(asked[i + 1]) > 0) expect(asked[i + 1]).toBe(NO_ID);
        }
      }),
    );
  });
});

it.each([
  ["0", true],
  ["-1", true],
  ["9223372036854775807", true],
  ["-9223372036854775808", true],
  ["9223372036854775808", false],
  ["-0", false],
  ["+1", false],
  ["1.5", false],
  ["", false],
  [" 1", false],
])("an integer as Redis reads it: %j", (word, is) => expect(isInteger(word)).toBe(is));
