import { describe, expect, it } from "vitest";
import { encodeValue, type Protocol } from "../../../../src/resp/encode.ts";
import {
  confirmation,
  type Family,
  readMessage,
  subscribeCommand,
  topicName,
} from "../../../../src/session/pubsub/topics.ts";

/** A frame as a server sends it on a subscriber's connection. */
function frameOf(protocol: Protocol, ...words: (string | number | null)[]): Buffer {
  const parts = words.map((word) => {
    if (word === null) return protocol === 3 ? "_\r\n" : "$-1\r\n";
    return typeof word === "number" ? `:${word}\r\n` : `$${word.length}\r\n${word}\r\n`;
  });
  return Buffer.from(`${protocol === 3 ? ">" : "*"}${words.length}\r\n${parts.join("")}`, "latin1");
}

const NAMES = ["c", "", "news.it", "\0\xff\r\n$3\r\n", "message", "x".repeat(1000)];
const MESSAGES: readonly [Family, (name: string) => string[]][] = [
  ["channels", (name) => ["message", name, "payload"]],
  ["patterns", (name) => ["pmessage", name, "some channel", "payload"]],
  ["shards", (name) => ["smessage", name, ""]],
];

describe("a message", () => {
  for (const protocol of [2, 3] as const) {
    for (const [family, words] of MESSAGES) {
      it(`of ${family} in RESP${protocol} is for the name it carries, whatever bytes that has`, () => {
        for (const name of NAMES) {
          const frame = frameOf(protocol, ...words(name));
          expect([readMessage(frame, 0, frame.length), topicName]).toEqual([family, name]);
          // Somewhere in a larger read as well.
          const within = Buffer.concat([Buffer.from("*1\r\n+x\r\n"), frame, Buffer.from("*3\r\n$7")]);
          expect([readMessage(within, 8, 8 + frame.length), topicName]).toEqual([family, name]);
        }
      });

      it(`of ${family} in RESP${protocol} that is cut off before its name is none`, () => {
        const frame = frameOf(protocol, ...words("name"));

        for (let end = 0; end < frame.indexOf("$4"); end++) {
          expect(readMessage(frame.subarray(0, end), 0, end), `cut at ${end}`).toBeNull();
        }
      });
    }
  }
});

describe("no message", () => {
  const others: (string | number | null)[][] = [
    ["subscribe", "c", 1],
    ["psubscribe", "c*", 1],
    ["ssubscribe", "c", 1],
    ["unsubscribe", "c", 0],
    ["punsubscribe", "c*", 0],
    ["sunsubscribe", "c", 0],
    ["unsubscribe", null, 0],
    ["punsubscribe", null, 0],
    ["sunsubscribe", null, 0],
    ["pong", ""],
    ["message", "c"],
    ["message"],
    ["messages", "c", "x"],
    ["message", null, "x"],
    ["message", 7, "x"],
  ];
  for (const protocol of [2, 3] as const) {
    it(`in RESP${protocol}: confirmations and other replies`, () => {
      for (const words of others) {
        const frame = frameOf(protocol, ...words);
        expect(readMessage(frame, 0, frame.length), JSON.stringify(words)).toBeNull();
      }
    });
  }

  it("is what is no array", () => {
    for (const text of [
      "+OK\r\n",
      "-ERR message\r\n",
      ":3\r\n",
      "$7\r\nmessage\r\n",
      "*-1\r\n",
      "_\r\n",
      "%3\r\n",
    ]) {
      expect(readMessage(Buffer.from(text), 0, text.length), text).toBeNull();
    }
  });
});

describe("a confirmation", () => {
  it("is what Redis says, byte for byte", () => {
    const table: [Protocol, string, string | null, number, string][] = [
      [2, "subscribe", "c", 1, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"],
      [3, "subscribe", "c", 1, ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"],
      [2, "unsubscribe", null, 0, "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"],
      [3, "punsubscribe", null, 2, ">3\r\n$12\r\npunsubscribe\r\n_\r\n:2\r\n"],
      [2, "ssubscribe", "", 12, "*3\r\n$10\r\nssubscribe\r\n$0\r\n\r\n:12\r\n"],
      [3, "psubscribe", "\xff\r\n", 3, ">3\r\n$10\r\npsubscribe\r\n$3\r\n\xff\r\n\r\n:3\r\n"],
    ];
    for (const [protocol, command, name, count, bytes] of table) {
      expect(confirmation(command, name, count, protocol).toString("latin1")).toBe(bytes);
    }
  });

  it("differs from a push of the same values in nothing", () => {
    const said = confirmation("subscribe", "name", 5, 2).toString();
    expect(said).toBe(encodeValue(["subscribe", "name", 5], 2).toString());
  });
});

it("the six commands say what they add to or take from, and no other command does", () => {
  const families: Record<string, Family> = { "": "channels", p: "patterns", s: "shards" };
  for (const [letter, family] of Object.entries(families)) {
    expect(subscribeCommand(`${letter}subscribe`)).toEqual({ family, adds: true });
    expect(subscribeCommand(`${letter}unsubscribe`)).toEqual({ family, adds: false });
  }
  for (const name of ["publish", "pubsub", "xsubscribe", "SUBSCRIBE", ""])
    expect(subscribeCommand(name)).toBeNull();
});
