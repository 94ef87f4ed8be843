import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Earshot,
  HEARD_MS,
  HELLO_CHANNEL,
  type Hello,
  LISTEN_MS,
  objectionOf,
  readHello,
  readSubscribers,
  SILENCE,
  withEar,
  withHello,
} from "../../../../src/failover/right/foreign-sentinels.ts";
import { at } from "../../topology/nodes.ts";

const RUN_ID = "e0ebf9a5c4ad7a2d6a5d5f2b6d7cfa0f6cd7a333";
const WORDS = ["10.0.0.9", "26379", RUN_ID, "3", "mymaster", "10.0.0.1", "6379", "3"] as const;
const NINE: Hello = { sentinel: "10.0.0.9:26379", group: "mymaster" };
const EIGHT: Hello = { sentinel: "10.0.0.8:26379", group: "mymaster" };

/** A message with some of its fields replaced. */
function message(changes: Readonly<Record<number, string>> = {}): string {
  return WORDS.map((word, index) => changes[index] ?? word).join(",");
}

function hearing(...heard: readonly (readonly [Hello, number])[]): Earshot {
  return heard.reduce((earshot, [hello, atMs]) => withHello(earshot, hello, atMs), SILENCE);
}

describe("a message on the channel of the Sentinels", () => {
  it.each<[string, string, Hello | null]>([
    ["as Sentinel sends it", message(), NINE],
    ["with a name for an address", message({ 0: "s1.example" }), { ...NINE, sentinel: "s1.example:26379" }],
    ["with an IPv6 address", message({ 0: "fe80::1" }), { ...NINE, sentinel: "[fe80::1]:26379" }],
    ["with more fields than today", `${message()},more`, NINE],
    ["about a group with dots", message({ 4: "cache.eu-1_b" }), { ...NINE, group: "cache.eu-1_b" }],
    ["with a field missing", WORDS.slice(1).join(","), null],
    ["cut short", WORDS.slice(0, 7).join(","), null],
    ["without an address", message({ 0: "" }), null],
    ["with an address that is none", message({ 0: "a b" }), null],
    ["with an endless address", message({ 0: "a".repeat(256) }), null],
    ["with port 0", message({ 1: "0" }), null],
    ["with a port too large", message({ 1: "65536" }), null],
    ["with a port that is none", message({ 1: "1e3" }), null],
    ["with a short run id", message({ 2: RUN_ID.slice(1) }), null],
    ["without a name", message({ 4: "" }), null],
    ["with a name that would break a line", message({ 4: "my\nmaster" }), { ...NINE, group: "my?master" }],
    ["with an endless name", message({ 4: "m".repeat(101) }), { ...NINE, group: "m".repeat(100) }],
    ["with a path for a name", message({ 4: "prod/cache" }), { ...NINE, group: "prod/cache" }],
    ["that is endless", `${message()},${"x".repeat(2_000)}`, null],
    ["that is empty", "", null],
  ])("%s", (_, text, hello) => {
    expect(readHello(text)).toEqual(hello);
  });

  it("of any kind is read without an error, into short printable words or into nothing", () => {
    const field = fc.oneof(fc.constantFrom(...WORDS), fc.string(), fc.string({ unit: "binary" }));
    const text = fc.oneof(
      fc.string({ unit: "binary", maxLength: 1_100 }),
      fc.array(field, { maxLength: 12 }).map((fields) => fields.join(",")),
      fc
        .tuple(...WORDS.map((word) => fc.oneof({ weight: 8, arbitrary: fc.constant(word) }, field)))
        .map((fields) => fields.join(",")),
    );
    let read = 0;
    fc.assert(
      fc.property(text, (one) => {
        const hello = readHello(one);
        if (hello === null) return;
        read++;
        expect(hello.sentinel).toMatch(/^[\w.:%[\]-]{1,300}$/);
        expect(hello.group).toMatch(/^[\w./:@?-]{1,100}$/);
      }),
      { numRuns: 500 },
    );
    expect(read, "some must have been good").toBeGreaterThan(10);
  });
});

describe("an answer of PUBSUB NUMSUB", () => {
  it.each<[unknown, number | null]>([
    [[HELLO_CHANNEL, 2], 2],
    [[HELLO_CHANNEL, "2"], 2],
    [[HELLO_CHANNEL, 0], 0],
    [[HELLO_CHANNEL, -1], null],
    [[HELLO_CHANNEL, "many"], null],
    [[HELLO_CHANNEL], null],
    [["another", 1], null],
    [[], null],
    [null, null],
    ["2", null],
  ])("%j is read as %j", (answer, count) => {
    expect(readSubscribers(answer)).toBe(count);
  });

  it("of any kind is read without an error", () => {
    fc.assert(
      fc.property(fc.anything(), (answer) => {
        const count = readSubscribers([HELLO_CHANNEL, answer]);
        return count === null || (Number.isSafeInteger(count) && count >= 0);
      }),
    );
  });
});

describe("a Sentinel that is heard", () => {
  it("is named, with what to do", () => {
    expect(objectionOf(hearing([NINE, 0]), 0)).toBe(
      'Sentinel 10.0.0.9:26379 watches this group as "mymaster" and promotes too: ' +
        "use failover.promote: sentinel, or remove the group there (SENTINEL REMOVE mymaster)",
    );
  });

  it("is gone when it has not been heard for some time, not before", () => {
    const earshot = hearing([NINE, 1_000]);
    expect(objectionOf(earshot, 1_000 + HEARD_MS - 1)).not.toBeNull();
    expect(objectionOf(earshot, 1_000 + HEARD_MS)).toBeNull();
    expect(objectionOf(withHello(earshot, NINE, 5_000), 5_000 + HEARD_MS - 1)).not.toBeNull();
  });

  it.each([[[NINE, EIGHT]], [[EIGHT, NINE]], [[NINE, EIGHT, NINE]]])(
    "is one of several that are told in one order, whoever spoke last: %j",
    (order) => {
      const earshot = hearing(...order.map((hello, index) => [hello, index] as const));
      expect(objectionOf(earshot, 10)).toMatch(
        /^Sentinel 10\.0\.0\.8:26379 \(and 1 more\) watches this group/,
      );
    },
  );

  it("is remembered with a bounded number of others, and makes room for new ones when it is gone", () => {
    const crowd = Array.from({ length: 200 }, (_, i) => ({ ...NINE, sentinel: `10.0.1.${i}:26379` }));
    const full = crowd.reduce((earshot, hello) => withHello(earshot, hello, 0), SILENCE);
    expect(full.heard.size).toBe(64);
    const [first] = crowd;
    expect(objectionOf(withHello(full, first ?? NINE, 5_000), HEARD_MS)).toContain(
      "Sentinel 10.0.1.0:26379 watches",
    );
    expect(withHello(full, NINE, HEARD_MS).heard.size).toBe(1);
  });
});

describe("subscribers that have not spoken yet", () => {
  const ear = (listensSinceMs: number | null, others: number): Earshot =>
    withEar(SILENCE, at("a"), { listensSinceMs, others });

  it.each<[string, Earshot, number, boolean]>([
    ["nobody, before we listen: a start is not delayed", ear(null, 0), 0, true],
    ["nobody, while we listen", ear(0, 0), 0, true],
    ["somebody, before we listen", ear(null, 1), 1_000_000, false],
    ["somebody, and we listen for a moment", ear(1_000, 1), 1_000 + LISTEN_MS - 1, false],
    ["somebody who is silent for longer than a Sentinel", ear(1_000, 1), 1_000 + LISTEN_MS, true],
    ["somebody on a node of which nothing is known now", withEar(ear(null, 1), at("a"), null), 0, true],
    ["somebody on another node", withEar(ear(0, 0), at("b"), { listensSinceMs: 0, others: 2 }), 1, false],
  ])("%s", (_, earshot, nowMs, isFine) => {
    const objection = objectionOf(earshot, nowMs);
    if (isFine) expect(objection).toBeNull();
    else expect(objection).toMatch(/somebody subscribes to __sentinel__:hello on [ab]:6379, as Sentinels do/);
  });
});
