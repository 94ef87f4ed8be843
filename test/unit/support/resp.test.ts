import { describe, expect, it } from "vitest";
import { Decoder, decodeAll, encodeCommand, type Frame, ReplyError } from "../../support/resp.ts";

const STREAM = Buffer.from(
  "+OK\r\n-ERR no such thing\r\n:42\r\n:9223372036854775807\r\n$5\r\na\r\nbc\r\n$-1\r\n$0\r\n\r\n*-1\r\n" +
    "*2\r\n$1\r\na\r\n*1\r\n:1\r\n%1\r\n+key\r\n#t\r\n~2\r\n:1\r\n:2\r\n,1.5\r\n,inf\r\n" +
    "(123456789012345678901\r\n=7\r\ntxt:abc\r\n_\r\n!8\r\nERR long\r\n>2\r\n+message\r\n$2\r\nhi\r\n|1\r\n+ttl\r\n:9\r\n+after\r\n",
);
const VALUES = [
  "OK",
  new ReplyError("ERR no such thing"),
  42,
  9223372036854775807n,
  "a\r\nbc",
  null,
  "",
  null,
  ["a", [1]],
  new Map([["key", true]]),
  new Set([1, 2]),
  1.5,
  Number.POSITIVE_INFINITY,
  123456789012345678901n,
  "abc",
  null,
  new ReplyError("ERR long"),
  ["message", "hi"],
  "after",
];

describe("the tests' own decoder", () => {
  it("decodes every type of RESP2 and RESP3", () => {
    expect(decodeAll(STREAM)).toEqual(VALUES);
  });

  it("gives the same frames wherever the stream is split", () => {
    for (let split = 0; split <= STREAM.length; split++) {
      const decoder = new Decoder();
      const frames = [...decoder.push(STREAM.subarray(0, split)), ...decoder.push(STREAM.subarray(split))];
      expect(frames.map((frame) => frame.value)).toEqual(VALUES);
      expect(Buffer.concat(frames.map((frame) => frame.raw))).toEqual(STREAM);
    }
  });

  it("gives the same frames byte by byte, and tells pushes apart", () => {
    const decoder = new Decoder();
    const frames: Frame[] = [];
    for (const byte of STREAM) frames.push(...decoder.push(Uint8Array.of(byte)));
    expect(frames.map((frame) => frame.value)).toEqual(VALUES);
    expect(frames.filter((frame) => frame.isPush).map((frame) => frame.value)).toEqual([["message", "hi"]]);
    expect(decoder.pending).toBe(0);
  });

  it("refuses what is not RESP", () => {
    expect(() => decodeAll(Buffer.from("OK\r\n"))).toThrow("not a RESP type");
    expect(() => decodeAll(Buffer.from(":1x\r\n"))).toThrow("not an integer");
    expect(() => decodeAll(Buffer.from("$1\r\nabc"))).toThrow("without CRLF");
  });

  it("takes the first word of an error", () => {
    expect(new ReplyError("UNCERTAIN the connection was lost").word).toBe("UNCERTAIN");
  });

  it("encodes requests as arrays of bulk strings", () => {
    expect(encodeCommand(["SET", "é", 1]).toString()).toBe("*3\r\n$3\r\nSET\r\n$2\r\né\r\n$1\r\n1\r\n");
  });
});
