import { describe, expect, it } from "vitest";
import type { Hub } from "../../../../src/session/pubsub/hub.ts";
import {
  numsubWithMore,
  unseen,
  unseenReceivers,
  withMore,
} from "../../../../src/session/pubsub/receivers.ts";
import type { Family } from "../../../../src/session/pubsub/topics.ts";

/** A hub as far as it is asked here: how many subscribers each name has. */
function hubWith(subscribers: Partial<Record<Family, Record<string, number>>>, isAtMaster = true): Hub {
  const of = (family: Family) => subscribers[family] ?? {};
  const hub = {
    isAtMaster,
    names: (family: Family) => Object.keys(of(family)),
    subscribersOf: (family: Family, name: string) => of(family)[name] ?? 0,
  };
  return hub as unknown as Hub;
}

describe("clients that a server does not see", () => {
  const one = hubWith({ channels: { c: 5, d: 1 }, patterns: { "c*": 3, "*": 2, x: 9 }, shards: { c: 4 } });
  const other = hubWith({ channels: { c: 2 }, patterns: { "?": 2 } });
  const atReplica = hubWith({ channels: { c: 100 }, patterns: { "*": 100 } }, false);
  const hubs = [one, other, atReplica];

  it("are all of a name but one for each user, where the master has their connection", () => {
    expect(unseen(hubs, "channels", "c")).toBe(4 + 1);
    expect(unseen(hubs, "channels", "d")).toBe(0);
    expect(unseen(hubs, "channels", "nosuch")).toBe(0);
    expect(unseen(hubs, "shards", "c")).toBe(3);
    expect(unseen([], "channels", "c")).toBe(0);
  });

  it("are those of each matching pattern besides, for a message", () => {
    expect(unseenReceivers(hubs, "c")).toBe(4 + 1 + 2 + 1 + 1);
    expect(unseenReceivers(hubs, "cc")).toBe(2 + 1);
    expect(unseenReceivers(hubs, "x")).toBe(1 + 8 + 1);
  });
});

describe("PUBLISH's reply", () => {
  it("is an integer with so many more; anything else is left alone", () => {
    const table: [string, number, string][] = [
      [":0\r\n", 0, ":0\r\n"],
      [":1\r\n", 4, ":5\r\n"],
      [":999\r\n", 1, ":1000\r\n"],
      ["-NOPERM no\r\n", 3, "-NOPERM no\r\n"],
      ["+QUEUED\r\n", 3, "+QUEUED\r\n"],
    ];
    for (const [reply, more, said] of table) {
      expect(withMore(Buffer.from(reply), more).toString()).toBe(said);
    }
  });
});

describe("PUBSUB NUMSUB's reply", () => {
  const more = (counts: Record<string, number>) => (name: string) => counts[name] ?? 0;

  it("gets more for each name, whatever bytes that has", () => {
    const before = "*6\r\n$1\r\na\r\n:1\r\n$0\r\n\r\n:0\r\n$2\r\n\0\xff\r\n:12\r\n";
    const after = "*6\r\n$1\r\na\r\n:10\r\n$0\r\n\r\n:1\r\n$2\r\n\0\xff\r\n:17\r\n";
    const said = numsubWithMore(Buffer.from(before, "latin1"), more({ a: 9, "": 1, "\0\xff": 5 }));
    expect(said.toString("latin1")).toBe(after);
  });

  it("finds a name that holds line ends", () => {
    const reply = Buffer.from("*2\r\n$6\r\n\r\n:1\r\n\r\n:3\r\n");
    expect(numsubWithMore(reply, more({ "\r\n:1\r\n": 2 })).toString()).toBe(
      "*2\r\n$6\r\n\r\n:1\r\n\r\n:5\r\n",
    );
  });

  it("is left alone when it is nothing of the kind", () => {
    for (const reply of ["*0\r\n", "*-1\r\n", "-NOPERM no\r\n", ":1\r\n", "*1\r\n$1\r\na\r\n"]) {
      expect(numsubWithMore(Buffer.from(reply), () => 7).toString()).toBe(reply);
    }
  });
});
