import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeRequest, encodeValue } from "../../../../src/resp/encode.ts";
import { cursorForServer, markOf, replyForClient, ScanCall } from "../../../../src/session/calls/scan.ts";

const HERE = "a".repeat(40);
const THERE = "0123456789".repeat(4);

const scanReply = (cursor: string) => encodeValue([cursor, ["k1", "k2"]], 2);
const cursorOf = (reply: Buffer) => /^\*2\r\n\$\d+\r\n(\d+)\r\n/.exec(reply.toString())?.[1];

describe("a cursor", () => {
  it("comes back to its own history as the server's own, whatever it was (29)", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: (1n << 48n) - 1n }), (cursor) => {
        const mark = markOf(HERE);
        const marked = cursorOf(replyForClient(scanReply(String(cursor)), mark));
        expect(BigInt(marked!)).toBeLessThan(1n << 63n);
        expect(cursorForServer(Buffer.from(marked!), mark).toString()).toBe(String(cursor));
      }),
    );
  });

  it("of another history starts the iteration anew (29)", () => {
    expect(markOf(HERE)).not.toBe(markOf(THERE));
    const marked = cursorOf(replyForClient(scanReply("17"), markOf(THERE)))!;
    expect(cursorForServer(Buffer.from(marked), markOf(HERE)).toString()).toBe("0");
  });

  it.each(["0", "17", "abc", "-1", "", "99999999999999999999999", "007x"])(
    "that is none of ours is the server's business: %j",
    (cursor) => {
      expect(cursorForServer(Buffer.from(cursor), markOf(HERE)).toString()).toBe(cursor);
    },
  );

  it("0 stays 0: the iteration is over", () => {
    const reply = scanReply("0");
    expect(replyForClient(reply, markOf(HERE))).toBe(reply);
  });

  it("too large for a mark goes without one", () => {
    const reply = scanReply(String(1n << 60n));
    expect(replyForClient(reply, markOf(HERE))).toBe(reply);
  });
});

describe("a reply", () => {
  it("keeps everything behind the cursor byte for byte", () => {
    const reply = replyForClient(scanReply("5"), 1);
    expect(reply.toString()).toMatch(/^\*2\r\n\$15\r\n281474976710661\r\n\*2\r\n\$2\r\nk1\r\n\$2\r\nk2\r\n$/);
  });

  it.each([
    "-ERR invalid cursor\r\n",
    "*0\r\n",
    "*2\r\n:1\r\n*0\r\n",
    "*2\r\n$-1\r\n*0\r\n",
    "+OK\r\n",
    ":1\r\n",
  ])("that is not one of SCAN is not touched: %j", (text) => {
    const reply = Buffer.from(text);
    expect(replyForClient(reply, 7)).toBe(reply);
  });
});

describe("a call", () => {
  it.each([
    [["SCAN"], ["MATCH", "x*"]],
    [
      ["HSCAN", "key"],
      ["COUNT", "10"],
    ],
    [["sscan", "key"], []],
  ])("is sent again for another node with cursor 0: %j", (before, behind) => {
    const marked = cursorOf(replyForClient(scanReply("42"), markOf(HERE)))!;
    const call = new ScanCall([...before, marked, ...behind].map((word) => Buffer.from(word)));
    expect(call.requestFor(HERE)).toEqual(encodeRequest([...before, "42", ...behind]));
    expect(call.requestFor(THERE)).toEqual(encodeRequest([...before, "0", ...behind]));
    expect(cursorOf(call.replyFor(scanReply("9")))).toBe(
      cursorOf(replyForClient(scanReply("9"), markOf(THERE))),
    );
  });
});
