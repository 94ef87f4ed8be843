import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeRequest } from "../../../src/resp/encode.ts";
import {
  BROKEN,
  EMPTY,
  FRAME,
  INCOMPLETE,
  INLINE,
  RequestFramer,
  type RequestLimits,
} from "../../../src/resp/request.ts";

const ROOMY: RequestLimits = { maxRequestBytes: 1 << 20, maxRequestArgs: 1024 };

/** What the framer said of one frame, with the bytes it pointed at (latin1). */
type Seen =
  | { frame: string; name: string; argc: number }
  | { inline: string }
  | { empty: string }
  | { broken: string }
  | { incomplete: string };

/** Feeds a stream in pieces, each time from another place in memory, as a session's input does. */
function frames(pieces: readonly Buffer[], limits: RequestLimits = ROOMY): Seen[] {
  const framer = new RequestFramer(limits);
  const seen: Seen[] = [];
  let rest = Buffer.alloc(0);
  let needed = 0;
  for (const [index, piece] of pieces.entries()) {
    const pad = index % 5;
    const buf = Buffer.concat([Buffer.alloc(pad, "#"), rest, piece, Buffer.alloc(7, "$")]);
    const end = pad + rest.length + piece.length;
    let pos = pad;
    for (;;) {
      const status = framer.next(buf, pos, end);
      if (status === INCOMPLETE) {
        expect(framer.needed).toBeGreaterThan(end - pos);
        needed = framer.needed;
        break;
      }
      seen.push(describeFrame(framer, status, buf, pos));
      if (status === BROKEN) return seen;
      // What was said to be needed was no more than what the frame turned out to have.
      expect(framer.end - pos).toBeGreaterThanOrEqual(needed);
      needed = 0;
      pos = framer.end;
    }
    rest = Buffer.from(buf.subarray(pos, end));
  }
  if (rest.length > 0) seen.push({ incomplete: rest.toString("latin1") });
  return seen;
}

function describeFrame(framer: RequestFramer, status: number, buf: Buffer, pos: number): Seen {
  const text = (from: number, to: number): string => buf.toString("latin1", from, to);
  switch (status) {
    case FRAME:
      return {
        frame: text(pos, framer.end),
        name: text(framer.nameStart, framer.nameEnd),
        argc: framer.argc,
      };
    case INLINE:
      return { inline: text(pos, framer.lineEnd) };
    case EMPTY:
      return { empty: text(pos, framer.end) };
    default:
      return { broken: framer.problem };
  }
}

const bytes = (text: string): Buffer => Buffer.from(text, "latin1");

function frame(name: string, ...args: string[]): Seen {
  const all = [name, ...args].map(bytes);
  return { frame: encodeRequest(all).toString("latin1"), name, argc: all.length };
}

const EVERY_BYTE = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)).join("");

interface Fixture {
  readonly title: string;
  readonly stream: string;
  readonly expected: readonly Seen[];
  readonly limits?: RequestLimits;
}

const PING = "*1\r\n$4\r\nPING\r\n";

const WHOLE: readonly Fixture[] = [
  { title: "one command", stream: PING, expected: [frame("PING")] },
  {
    title: "a command with arguments of one and two digits of length",
    stream: "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nabcdefghijkl\r\n",
    expected: [frame("SET", "k", "abcdefghijkl")],
  },
  {
    title: "every byte there is in an argument",
    stream: encodeRequest(["SET", "k", bytes(EVERY_BYTE)]).toString("latin1"),
    expected: [frame("SET", "k", EVERY_BYTE)],
  },
  {
    title: "an argument that looks like a request",
    stream: encodeRequest(["SET", "k", PING + PING]).toString("latin1"),
    expected: [frame("SET", "k", PING + PING)],
  },
  {
    title: "empty arguments",
    stream: "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$0\r\n\r\n",
    expected: [frame("SET", "", "")],
  },
  { title: "an empty name", stream: "*1\r\n$0\r\n\r\n", expected: [frame("")] },
  {
    title: "a dozen arguments",
    stream: encodeRequest(["DEL", ..."abcdefghijkl"]).toString("latin1"),
    expected: [frame("DEL", ..."abcdefghijkl")],
  },
  {
    title: "a pipeline",
    stream: `${PING}*2\r\n$3\r\nGET\r\n$1\r\na\r\n${PING}`,
    expected: [frame("PING"), frame("GET", "a"), frame("PING")],
  },
  {
    title: "*0 and negative counts, which Redis ignores",
    stream: `*0\r\n*-1\r\n*-7\r\n${PING}*-2000000\r\n`,
    expected: [
      { empty: "*0\r\n" },
      { empty: "*-1\r\n" },
      { empty: "*-7\r\n" },
      frame("PING"),
      { empty: "*-2000000\r\n" },
    ],
  },
];

const LINES: readonly Fixture[] = [
  {
    title: "inline commands, their lines ending with CRLF or LF",
    stream: "PING\r\nGET a\nSET k 'x y'\r\n",
    expected: [{ inline: "PING" }, { inline: "GET a" }, { inline: "SET k 'x y'" }],
  },
  {
    title: "inline quotes are not the framer's business",
    stream: 'SET k "a\\r\\nb"\r\nGET "open\r\nPING\r\n',
    expected: [{ inline: 'SET k "a\\r\\nb"' }, { inline: 'GET "open' }, { inline: "PING" }],
  },
  {
    title: "blank lines",
    stream: `\r\n\n${PING}\r\n`,
    expected: [{ empty: "\r\n" }, { empty: "\n" }, frame("PING"), { empty: "\r\n" }],
  },
  {
    title: "a CR that ends no line",
    stream: "GET a\rb\r\nPING\r\r\n",
    expected: [{ inline: "GET a\rb" }, { inline: "PING\r" }],
  },
  {
    title: "inline and array commands in turns",
    stream: `PING\r\n${PING}PING\n*0\r\n${PING}`,
    expected: [{ inline: "PING" }, frame("PING"), { inline: "PING" }, { empty: "*0\r\n" }, frame("PING")],
  },
  {
    title: "an unfinished command behind whole ones",
    stream: `${PING}*2\r\n$3\r\nGET\r\n$5\r\nab`,
    expected: [frame("PING"), { incomplete: "*2\r\n$3\r\nGET\r\n$5\r\nab" }],
  },
];

const COUNT_ERROR = "ERR Protocol error: invalid multibulk length";
const LENGTH_ERROR = "ERR Protocol error: invalid bulk length";

/** Redis's words are networking.c's (7.0), each seen on a real server. */
const ERRORS: readonly Fixture[] = [
  ...["*x\r\n", "*\r\n", "*01\r\n", "*+1\r\n", "* 1\r\n", "*1x\r\n", "*-0\r\n", "*-\r\n", "*--1\r\n"].map(
    (stream) => ({
      title: `the count in ${JSON.stringify(stream)}`,
      stream,
      expected: [broken(COUNT_ERROR)],
    }),
  ),
  {
    title: "a count of eleven digits",
    stream: "*99999999999\r\n",
    expected: [broken(COUNT_ERROR)],
  },
  { title: "a count that ends with LF only", stream: "*1\n$4\r\nPING\r\n", expected: [broken(COUNT_ERROR)] },
  { title: "a CR behind a count without its LF", stream: "*1\rX", expected: [broken(COUNT_ERROR)] },
  ...[
    "$-1\r\n",
    "$x\r\n",
    "$\r\n",
    "$04\r\nPING\r\n",
    "$+4\r\nPING\r\n",
    "$99999999999\r\n",
    "$4\nPING\r\n",
  ].map((bulk) => ({
    title: `the length in ${JSON.stringify(bulk)}`,
    stream: `*1\r\n${bulk}`,
    expected: [broken(LENGTH_ERROR)],
  })),
  {
    title: "a bad length behind a good argument",
    stream: "*2\r\n$3\r\nGET\r\n$-1\r\n",
    expected: [broken(LENGTH_ERROR)],
  },
  {
    title: "an array of something else than bulk strings",
    stream: "*1\r\nPING\r\n",
    expected: [broken("ERR Protocol error: expected '$', got 'P'")],
  },
  {
    title: "an array in an array",
    stream: "*2\r\n$3\r\nGET\r\n*1\r\n$1\r\na\r\n",
    expected: [broken("ERR Protocol error: expected '$', got '*'")],
  },
  {
    title: "a byte that cannot be shown where a bulk string should be",
    stream: "*1\r\n\x01",
    expected: [broken("ERR Protocol error: expected '$', got '?'")],
  },
  {
    title: "a bulk string without its CRLF (Redis skips two bytes unseen)",
    stream: `*1\r\n$4\r\nPINGxx${PING}`,
    expected: [broken("ERR Protocol error: expected CRLF after bulk string")],
  },
  {
    title: "a bulk string with half its CRLF",
    stream: `*1\r\n$4\r\nPING\rx${PING}`,
    expected: [broken("ERR Protocol error: expected CRLF after bulk string")],
  },
  {
    title: "whole commands before the broken one",
    stream: `${PING}GET a\r\n*1\r\n?`,
    expected: [frame("PING"), { inline: "GET a" }, broken("ERR Protocol error: expected '$', got '?'")],
  },
];

function broken(problem: string): Seen {
  return { broken: problem };
}

const TIGHT: RequestLimits = { maxRequestBytes: 40, maxRequestArgs: 3 };
const FORTY = `*2\r\n$3\r\nGET\r\n$20\r\n${"x".repeat(20)}\r\n`;
const FORTY_ONE = `*2\r\n$3\r\nGET\r\n$21\r\n${"x".repeat(21)}\r\n`;
const TOO_LARGE = "ERR proxy: the request is larger than limits.maxRequestBytes (40 bytes)";

const LIMITS: readonly Fixture[] = [
  {
    title: "a request of exactly limits.maxRequestBytes",
    stream: FORTY,
    expected: [frame("GET", "x".repeat(20))],
    limits: TIGHT,
  },
  { title: "one byte more", stream: FORTY_ONE, expected: [broken(TOO_LARGE)], limits: TIGHT },
  {
    title: "a length that alone is beyond limits.maxRequestBytes",
    stream: "*1\r\n$9999999999\r\n",
    expected: [broken(TOO_LARGE)],
    limits: TIGHT,
  },
  {
    title: "limits.maxRequestBytes counted for each request of a pipeline",
    stream: `${PING}${FORTY}${PING}${FORTY_ONE}`,
    expected: [frame("PING"), frame("GET", "x".repeat(20)), frame("PING"), broken(TOO_LARGE)],
    limits: TIGHT,
  },
  {
    title: "exactly limits.maxRequestArgs arguments",
    stream: "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    expected: [frame("a", "b", "c")],
    limits: TIGHT,
  },
  {
    title: "one argument more, refused at the count already",
    stream: "*4\r\n",
    expected: [broken("ERR proxy: 4 arguments are more than limits.maxRequestArgs (3)")],
    limits: TIGHT,
  },
];

const FIXTURES = [...WHOLE, ...LINES, ...ERRORS, ...LIMITS];

describe("requests of a client", () => {
  it.each(FIXTURES)("are framed as expected: $title", ({ stream, expected, limits }) => {
    expect(frames([bytes(stream)], limits)).toEqual(expected);
  });

  it.each(FIXTURES)(
    "are framed alike wherever the stream is split: $title",
    ({ stream, expected, limits }) => {
      const whole = bytes(stream);
      for (let split = 0; split <= whole.length; split++) {
        expect(frames([whole.subarray(0, split), whole.subarray(split)], limits)).toEqual(expected);
      }
    },
  );

  it.each(FIXTURES)("are framed alike byte by byte: $title", ({ stream, expected, limits }) => {
    const single = [...bytes(stream)].map((byte) => Buffer.from([byte]));
    expect(frames(single, limits)).toEqual(expected);
  });

  it("are framed to the same boundaries and names in any pipeline of any arguments in any pieces", () => {
    const request = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(
        fc.array(request, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 20 }),
        (requests, sizes) => {
          const raw = requests.map((args) => encodeRequest(args.map((arg) => Buffer.from(arg))));
          const expected = requests.map((args, i) => ({
            frame: raw[i]!.toString("latin1"),
            name: Buffer.from(args[0]!).toString("latin1"),
            argc: args.length,
          }));
          expect(frames(cut(Buffer.concat(raw), sizes))).toEqual(expected);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("are never framed differently by the pieces they come in, whatever the bytes", () => {
    const soup = fc.array(
      fc.constantFrom("*", "$", "1", "2", "0", "-", "\r\n", "\r", "\n", "a", PING, "*2\r\n", "$1\r\n", " "),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(soup, fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }), (words, sizes) => {
        const stream = bytes(words.join(""));
        expect(frames(cut(stream, sizes), TIGHT)).toEqual(frames([stream], TIGHT));
      }),
      { numRuns: 1000 },
    );
  });
});

describe("an inline command", () => {
  const LONGEST = 64 * 1024;

  it("may be as long as Redis allows", () => {
    expect(frames([bytes(`${"x".repeat(LONGEST)}\n`)])).toEqual([{ inline: "x".repeat(LONGEST) }]);
  });

  it.each([
    ["whole", [LONGEST + 2]],
    ["in pieces", [1000]],
    ["split at the limit", [LONGEST, 1]],
  ])("is refused in Redis's words when it is longer: %s", (_, sizes) => {
    const stream = bytes(`${"x".repeat(LONGEST + 1)}\n`);
    expect(frames(cut(stream, sizes))).toEqual([broken("ERR Protocol error: too big inline request")]);
  });

  it("is refused before its end has come", () => {
    expect(frames([bytes("x".repeat(LONGEST + 1))])).toEqual([
      broken("ERR Protocol error: too big inline request"),
    ]);
  });
});

/**
 * The framer is shown a large frame in small pieces, and every byte that it has looked at before is painted
 * over in between. It can only come to the right end if it never looks at one of them again.
 */
describe("a large request in small pieces is looked at once", () => {
  const PAINT = 0xff;

  it("a bulk string of 2 MB in pieces of 1 KB", () => {
    const framer = new RequestFramer({ maxRequestBytes: 4 << 20, maxRequestArgs: 16 });
    const request = encodeRequest(["SET", "key", Buffer.alloc(2 << 20, "v")]);
    const bodyAt = request.indexOf("v");
    const lastHeaderAt = request.lastIndexOf("$", bodyAt);
    const buf = Buffer.from(request);
    for (let end = 1024; end < request.length; end += 1024) {
      expect(framer.next(buf, 0, end)).toBe(INCOMPLETE);
      // From the first piece on it is known how long the frame is: who likes need not even ask again.
      expect(framer.needed).toBe(request.length);
      buf.fill(PAINT, 0, lastHeaderAt);
      buf.fill(PAINT, bodyAt, end);
    }
    expect(framer.next(buf, 0, request.length)).toBe(FRAME);
    expect([framer.end, framer.argc, framer.nameEnd - framer.nameStart]).toEqual([request.length, 3, 3]);
  });

  it("100,000 arguments in pieces of 100 bytes", () => {
    const framer = new RequestFramer({ maxRequestBytes: 4 << 20, maxRequestArgs: 200_000 });
    const request = encodeRequest(["MSET", ...new Array<string>(99_999).fill("abc")]);
    const firstArg = request.indexOf("$3\r\n");
    const perArg = "$3\r\nabc\r\n".length;
    const buf = Buffer.from(request);
    for (let end = 100; end < request.length; end += 100) {
      expect(framer.next(buf, 0, end)).toBe(INCOMPLETE);
      buf.fill(PAINT, 0, firstArg + perArg * Math.floor((end - firstArg) / perArg));
    }
    expect(framer.next(buf, 0, request.length)).toBe(FRAME);
    expect([framer.end, framer.argc]).toEqual([request.length, 100_000]);
  });

  it("an inline command of 60 KB in pieces of 100 bytes", () => {
    const framer = new RequestFramer(ROOMY);
    const line = bytes(`SET k ${"v".repeat(60_000)}\r\n`);
    const buf = Buffer.from(line);
    for (let end = 100; end < line.length; end += 100) {
      expect(framer.next(buf, 0, end)).toBe(INCOMPLETE);
      // A line end painted into what was searched already would be found by a second search.
      buf.fill("\n", 1, end);
    }
    buf.write("\r\n", line.length - 2);
    expect(framer.next(buf, 0, line.length)).toBe(INLINE);
    expect(framer.end).toBe(line.length);
  });
});

describe("a frame begun", () => {
  it("is forgotten by reset, and another one found", () => {
    const framer = new RequestFramer(ROOMY);
    expect(framer.next(bytes("*3\r\n$3\r\nSET\r\n$1\r\n"), 0, 17)).toBe(INCOMPLETE);
    framer.reset();
    const other = bytes(PING);
    expect(framer.next(other, 0, other.length)).toBe(FRAME);
    expect([framer.end, framer.argc]).toEqual([other.length, 1]);
  });
});

/** Cuts a buffer into pieces of these sizes, over and over. */
function cut(whole: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0, i = 0; at < whole.length; i++) {
    const size = sizes[i % sizes.length]!;
    pieces.push(whole.subarray(at, at + size));
    at += size;
  }
  return pieces;
}
