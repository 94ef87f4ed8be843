import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { requestArgs, splitInline } from "../../../src/resp/args.ts";
import { encodeRequest } from "../../../src/resp/encode.ts";

function split(line: string): string[] | null {
  return splitInline(Buffer.from(line, "latin1"))?.map((arg) => arg.toString("latin1")) ?? null;
}

/** What sdssplitargs (sds.c of Redis 7.0) makes of a line; null = unbalanced quotes. */
const LINES: readonly (readonly [line: string, args: string[] | null])[] = [
  ["", []],
  ["   \t ", []],
  ["PING", ["PING"]],
  ["  SET  a\tb  ", ["SET", "a", "b"]],
  ["a\nb\rc", ["a", "b", "c"]],
  ["\v\fa", ["a"]],
  // Before an argument every isspace() is skipped, but only these end one: " ", \n, \r, \t.
  ["a\fb c\vd", ["a\fb", "c\vd"]],
  // Double quotes.
  ['""', [""]],
  ['SET k ""', ["SET", "k", ""]],
  ['"a b" c', ["a b", "c"]],
  ['"a\\"b"', ['a"b']],
  ['"\\n\\r\\t\\b\\a"', ["\n\r\t\b\x07"]],
  ['"\\\\ \\q \\$"', ["\\ q $"]],
  ['"\\x41\\x7a\\x00\\xff\\xFf"', ["Az\0\xff\xff"]],
  ['"\\x4" "\\x4g" "\\xg4" "\\x"', ["x4", "x4g", "xg4", "x"]],
  ['"\\X41"', ["X41"]],
  [`"it's"`, ["it's"]],
  // Single quotes: only \' means something.
  ["''", [""]],
  ["'a b' c", ["a b", "c"]],
  ["'a\\'b'", ["a'b"]],
  ["'a\\n\\x41\\\\b'", ["a\\n\\x41\\\\b"]],
  ["'a\\\\'", null],
  [`'say "x"'`, ['say "x"']],
  // Quotes begin anywhere in an argument, but end it.
  ['a"b c"', ["ab c"]],
  ["a'b c' d", ["ab c", "d"]],
  ['a"b"\vc', ["ab", "c"]],
  ['"a"b', null],
  ['"a""b"', null],
  ["'a'b", null],
  [`'a'"b"`, null],
  ['a"b"c', null],
  // Quotes that do not close.
  ['"', null],
  ["'", null],
  ['SET k "abc', null],
  ['"abc\\"', null],
  ['"abc\\', null],
  ["'abc\\'", null],
  ['"\\x4', null],
  // A backslash outside quotes is a backslash.
  ["a\\b \\n \\x41", ["a\\b", "\\n", "\\x41"]],
  ["\xe9\xff", ["\xe9\xff"]],
];

describe("an inline command is split as Redis does it", () => {
  it.each(LINES)("%j → %j", (line, args) => {
    expect(split(line)).toEqual(args);
  });

  it("finds any arguments that were quoted with escapes", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 12 }), { maxLength: 6 }), (args) => {
        const line = args
          .map((arg) => `"${[...arg].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}"`)
          .join(" ");
        expect(splitInline(Buffer.from(line))?.map((arg) => [...arg])).toEqual(args.map((arg) => [...arg]));
      }),
    );
  });

  it("is never run in part: a line with a NUL, which Redis never runs, is refused or kept whole", () => {
    for (const line of ["SET k a\0b", "SET k a\0 b", "SET k \0", 'SET k "a"\0 b']) {
      const kept = split(line)?.join(" ").replaceAll('"', "");
      expect([line, kept ?? "refused"]).toEqual([
        line,
        kept === undefined ? "refused" : line.replaceAll('"', ""),
      ]);
    }
  });

  it("does not share memory with the line", () => {
    const line = Buffer.from("GET key");
    const args = splitInline(line);
    line.fill("#");
    expect(args?.map(String)).toEqual(["GET", "key"]);
  });
});

describe("the arguments of a framed request", () => {
  it("are found wherever the frame lies and whatever they hold", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 30 }), { minLength: 1, maxLength: 12 }),
        fc.nat(20),
        (args, before) => {
          const frame = encodeRequest(args.map((arg) => Buffer.from(arg)));
          const buf = Buffer.concat([Buffer.alloc(before, "*"), frame, Buffer.from("$1\r\nx\r\n")]);
          expect(requestArgs(buf, before).map((arg) => [...arg])).toEqual(args.map((arg) => [...arg]));
        },
      ),
    );
  });
});
