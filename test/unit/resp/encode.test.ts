import { describe, expect, it } from "vitest";
import {
  encodeError,
  encodeNull,
  encodeNullArray,
  encodeRequest,
  encodeValue,
  OK,
  PONG,
  QUEUED,
  RESET,
  type Value,
} from "../../../src/resp/encode.ts";
import { decodeAll } from "../../support/resp.ts";

const CASES: readonly (readonly [title: string, value: Value, resp2: string, resp3: string])[] = [
  ["a text", "abc", "$3\r\nabc\r\n", "$3\r\nabc\r\n"],
  ["an empty text", "", "$0\r\n\r\n", "$0\r\n\r\n"],
  ["a text's length counted in bytes", "é€", "$5\r\né€\r\n", "$5\r\né€\r\n"],
  ["a text with line ends", "a\r\nb", "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"],
  ["bytes", Buffer.from("xy"), "$2\r\nxy\r\n", "$2\r\nxy\r\n"],
  ["an integer", 42, ":42\r\n", ":42\r\n"],
  ["zero, also the negative one", -0, ":0\r\n", ":0\r\n"],
  ["the largest 64-bit integer", 2n ** 63n - 1n, ":9223372036854775807\r\n", ":9223372036854775807\r\n"],
  ["a fraction", -1.5, "$4\r\n-1.5\r\n", ",-1.5\r\n"],
  ["infinity", Number.POSITIVE_INFINITY, "$3\r\ninf\r\n", ",inf\r\n"],
  ["minus infinity", Number.NEGATIVE_INFINITY, "$4\r\n-inf\r\n", ",-inf\r\n"],
  ["what is not a number", Number.NaN, "$3\r\nnan\r\n", ",nan\r\n"],
  ["true", true, ":1\r\n", "#t\r\n"],
  ["false", false, ":0\r\n", "#f\r\n"],
  ["null", null, "$-1\r\n", "_\r\n"],
  ["an empty list", [], "*0\r\n", "*0\r\n"],
  [
    "a list in a list",
    ["a", [1, null]],
    "*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n",
    "*2\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n",
  ],
  [
    "a map, flat in RESP2",
    new Map<string, Value>([
      ["k", 1],
      ["m", new Map([["x", true]])],
    ]),
    "*4\r\n$1\r\nk\r\n:1\r\n$1\r\nm\r\n*2\r\n$1\r\nx\r\n:1\r\n",
    "%2\r\n$1\r\nk\r\n:1\r\n$1\r\nm\r\n%1\r\n$1\r\nx\r\n#t\r\n",
  ],
  ["an empty map", new Map(), "*0\r\n", "%0\r\n"],
];

describe("a value as a reply", () => {
  it.each(CASES)("in RESP2: %s", (_, value, resp2) => {
    expect(encodeValue(value, 2).toString()).toBe(resp2);
  });

  it.each(CASES)("in RESP3: %s", (_, value, _resp2, resp3) => {
    expect(encodeValue(value, 3).toString()).toBe(resp3);
  });

  it.each(CASES)("is one whole reply for a decoder, in both protocols: %s", (_, value) => {
    expect(decodeAll(encodeValue(value, 2))).toHaveLength(1);
    expect(decodeAll(encodeValue(value, 3))).toHaveLength(1);
  });

  it("keeps bytes that are no text as they are", () => {
    const binary = Buffer.from([0, 255, 13, 10, 128]);
    expect(encodeValue(binary, 2)).toEqual(
      Buffer.concat([Buffer.from("$5\r\n"), binary, Buffer.from("\r\n")]),
    );
  });
});

describe("an error", () => {
  it("is one line whatever its text", () => {
    expect(encodeError("ERR a\r\nb\nc\r").toString()).toBe("-ERR a  b c \r\n");
  });
});

describe("nulls", () => {
  it("are those of the protocol", () => {
    expect(encodeNull(2).toString()).toBe("$-1\r\n");
    expect(encodeNullArray(2).toString()).toBe("*-1\r\n");
    expect(encodeNull(3).toString()).toBe("_\r\n");
    expect(encodeNullArray(3).toString()).toBe("_\r\n");
  });
});

describe("constant replies", () => {
  it("are Redis's words", () => {
    expect([OK, QUEUED, RESET, PONG].map(String)).toEqual([
      "+OK\r\n",
      "+QUEUED\r\n",
      "+RESET\r\n",
      "+PONG\r\n",
    ]);
  });
});

describe("a request", () => {
  it("is an array of bulk strings with lengths in bytes", () => {
    expect(encodeRequest(["SET", "é", Buffer.from([0, 13, 10])]).toString("latin1")).toBe(
      "*3\r\n$3\r\nSET\r\n$2\r\nÃ©\r\n$3\r\n\0\r\n\r\n",
    );
  });
});
