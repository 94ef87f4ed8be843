import { beforeEach, describe, expect, it } from "vitest";
import type { Subscriber } from "../../../../src/session/pubsub/fanout.ts";
import { type Hub, Topic } from "../../../../src/session/pubsub/hub.ts";
import { isMonitorLine, Subscriptions } from "../../../../src/session/pubsub/subscriptions.ts";
import type { Family } from "../../../../src/session/pubsub/topics.ts";
import { decodeAll } from "../../../support/resp.ts";

const ENTRY_BYTES = 128;
const COMMAND = { channels: "subscribe", patterns: "psubscribe", shards: "ssubscribe" } as const;
const UNCOMMAND = { channels: "unsubscribe", patterns: "punsubscribe", shards: "sunsubscribe" } as const;

/** A hub that only notes who leaves. */
class FakeHub {
  readonly left: string[] = [];
  private readonly topics = new Map<string, Topic>();

  topic(family: Family, name: string): Topic {
    const key = `${family} ${name}`;
    const topic = this.topics.get(key) ?? new Topic(this as unknown as Hub, family, name);
    this.topics.set(key, topic);
    return topic;
  }

  leave(topic: Topic, subscriber: Subscriber): void {
    topic.subscribers.delete(subscriber);
    this.left.push(`${topic.family} ${topic.name}`);
  }
}

const ME = {} as Subscriber;
let hub: FakeHub;
let mine: Subscriptions;

beforeEach(() => {
  hub = new FakeHub();
  mine = new Subscriptions(ME);
});

function add(family: Family, ...names: string[]) {
  return decodeAll(
    mine.add(
      COMMAND[family],
      names.map((name) => hub.topic(family, name)),
      2,
    ),
  );
}

function remove(family: Family, ...names: string[]) {
  return decodeAll(mine.remove(UNCOMMAND[family], family, names, 2));
}

describe("the count in a confirmation", () => {
  it("is of channels and patterns together, shards apart (pubsub.c, clientSubscriptionsCount)", () => {
    expect(add("channels", "a", "b")).toEqual([
      ["subscribe", "a", 1],
      ["subscribe", "b", 2],
    ]);
    expect(add("patterns", "a")).toEqual([["psubscribe", "a", 3]]);
    expect(add("shards", "a", "s")).toEqual([
      ["ssubscribe", "a", 1],
      ["ssubscribe", "s", 2],
    ]);
    expect(remove("channels", "a")).toEqual([["unsubscribe", "a", 2]]);
    expect(remove("shards", "s")).toEqual([["sunsubscribe", "s", 1]]);
    expect(remove("patterns", "a")).toEqual([["punsubscribe", "a", 1]]);
    expect(mine.size).toBe(2);
  });

  it("does not grow with a name that is subscribed to already", () => {
    expect(add("channels", "a", "a", "b", "a")).toEqual([
      ["subscribe", "a", 1],
      ["subscribe", "a", 1],
      ["subscribe", "b", 2],
      ["subscribe", "a", 2],
    ]);
    expect([mine.size, hub.topic("channels", "a").subscribers.size]).toEqual([2, 1]);
    expect(hub.left).toEqual([]);
  });
});

describe("unsubscribing", () => {
  it("is confirmed also where there was no subscription", () => {
    add("channels", "a");
    expect(remove("channels", "x", "a", "a")).toEqual([
      ["unsubscribe", "x", 1],
      ["unsubscribe", "a", 0],
      ["unsubscribe", "a", 0],
    ]);
    expect(hub.left).toEqual(["channels a"]);
  });

  it("without names ends all of the family, and of no other", () => {
    add("channels", "a", "b");
    add("patterns", "p");
    expect(remove("channels")).toEqual([
      ["unsubscribe", "a", 2],
      ["unsubscribe", "b", 1],
    ]);
    expect(hub.left).toEqual(["channels a", "channels b"]);
    expect(remove("channels")).toEqual([["unsubscribe", null, 1]]);
    expect(remove("shards")).toEqual([["sunsubscribe", null, 0]]);
    expect(remove("patterns")).toEqual([["punsubscribe", "p", 0]]);
    expect([mine.size, mine.bytes]).toEqual([0, 0]);
  });
});

it("each name counts for its bytes and an entry, once, until it is given up", () => {
  expect(mine.costOf("channels", ["abc", ""])).toBe(3 + 2 * ENTRY_BYTES);
  add("channels", "abc", "", "abc");
  add("patterns", "abc");
  expect(mine.bytes).toBe(6 + 3 * ENTRY_BYTES);
  expect(mine.costOf("channels", ["abc", "d"])).toBe(1 + ENTRY_BYTES);
  remove("channels", "abc");
  expect(mine.bytes).toBe(3 + 2 * ENTRY_BYTES);
  mine.clear();
  expect(mine.bytes).toBe(0);
});

it("a client that leaves has left every topic, of all families", () => {
  add("channels", "a", "b");
  add("patterns", "a");
  add("shards", "a");
  mine.clear();
  expect(hub.left).toEqual(["channels a", "channels b", "patterns a", "shards a"]);
  expect([mine.size, hub.topic("channels", "a").subscribers.size]).toEqual([0, 0]);
});

it("a name that is subscribed to as another user already stays there; the other hub's topic is left", () => {
  add("channels", "c");
  const other = new FakeHub();
  const said = decodeAll(mine.add("subscribe", [other.topic("channels", "c")], 2));
  expect(said).toEqual([["subscribe", "c", 1]]);
  expect([hub.left, other.left]).toEqual([[], ["channels c"]]);
  expect(hub.topic("channels", "c").subscribers.has(ME)).toBe(true);
});

it("a line of a monitor is told from any other reply", () => {
  const isLine = (text: string) => isMonitorLine(Buffer.from(`??${text}`), 2, 2 + text.length);
  expect(isLine('+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"\r\n')).toBe(true);
  expect(isLine('+1339518083.107412 [0 lua] "keys"\r\n')).toBe(true);
  for (const text of ["+OK\r\n", "$1\r\na\r\n", "+1339518083.107412\r\n", "+13 [0\r\n", "-1.1 [0\r\n"]) {
    expect(isLine(text), text).toBe(false);
  }
});
