import fc from "fast-check";
import RedisParser from "redis-parser";
import { describe, expect, it } from "vitest";
import { REPLY_BROKEN, REPLY_INCOMPLETE, ReplyFramer } from "../../../src/resp/reply.ts";

const bytes = (text: string): Buffer => Buffer.from(text, "latin1");

interface Framed {
  readonly replies: readonly string[];
  /** What is left at the end: an incomplete reply, or why the stream is of no use. */
  readonly rest: string;
}

/** Feeds a stream in pieces, each time from another place in memory. */
function framed(pieces: readonly Buffer[]): Framed {
  const framer = new ReplyFramer();
  const replies: string[] = [];
  let rest = Buffer.alloc(0);
  let needed = 0;
  for (const [index, piece] of pieces.entries()) {
    const pad = index % 3;
    const buf = Buffer.concat([Buffer.alloc(pad, "#"), rest, piece, Buffer.alloc(5, "$")]);
    const end = pad + rest.length + piece.length;
    let pos = pad;
    while (pos < end) {
      const next = framer.next(buf, pos, end);
      if (next === REPLY_BROKEN) return { replies, rest: "broken" };
      if (next === REPLY_INCOMPLETE) {
        expect(framer.needed).toBeGreaterThan(end - pos);
        needed = framer.needed;
        break;
      }
      expect(next - pos).toBeGreaterThanOrEqual(needed);
      needed = 0;
      replies.push(buf.toString("latin1", pos, next));
      pos = next;
    }
    rest = Buffer.from(buf.subarray(pos, end));
  }
  return { replies, rest: rest.toString("latin1") };
}

const REPLIES: readonly (readonly [title: string, reply: string])[] = [
  ["a simple string", "+OK\r\n"],
  ["an empty simple string", "+\r\n"],
  ["an error", "-ERR no such thing\r\n"],
  ["an integer", ":-9223372036854775808\r\n"],
  ["a bulk string", "$5\r\nhello\r\n"],
  ["an empty bulk string", "$0\r\n\r\n"],
  ["a bulk string full of framing", "$16\r\n*2\r\n$1\r\na\r\n\r\n\r\n\r\r\n"],
  ["a null bulk string", "$-1\r\n"],
  ["an array", "*2\r\n$1\r\na\r\n:1\r\n"],
  ["an empty array", "*0\r\n"],
  ["a null array", "*-1\r\n"],
  ["arrays in arrays", "*3\r\n*2\r\n*0\r\n*1\r\n+x\r\n*-1\r\n*1\r\n*1\r\n*1\r\n$-1\r\n"],
  ["a simple string with a lonely CR", "+a\rb\r\n"],
  ["a simple string with a lonely LF", "+a\nb\r\n"],
  ["a null", "_\r\n"],
  ["booleans", "*2\r\n#t\r\n#f\r\n"],
  ["doubles", "*4\r\n,1.25\r\n,inf\r\n,-inf\r\n,nan\r\n"],
  ["a big number", "(3492890328409238509324850943850943825024385\r\n"],
  ["a bulk error", "!21\r\nSYNTAX invalid syntax\r\n"],
  ["a verbatim string", "=15\r\ntxt:Some string\r\n"],
  ["a map", "%2\r\n+first\r\n:1\r\n+second\r\n*1\r\n:2\r\n"],
  ["an empty map", "%0\r\n"],
  ["a set", "~3\r\n+a\r\n:1\r\n_\r\n"],
  ["a push", ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n"],
  ["an attribute and its reply", "|1\r\n+ttl\r\n:3600\r\n*1\r\n:1\r\n"],
  ["an empty attribute and its reply", "|0\r\n+OK\r\n"],
  ["two attributes and their reply", "|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n:2\r\n+OK\r\n"],
  ["an attribute of an element", "*3\r\n:1\r\n|1\r\n+ttl\r\n%1\r\n+k\r\n+v\r\n:2\r\n:3\r\n"],
  ["maps, sets and nulls in each other", "%2\r\n~1\r\n%1\r\n+k\r\n_\r\n*0\r\n$-1\r\n=6\r\ntxt:ab\r\n"],
];

const BROKEN_REPLIES: readonly (readonly [title: string, stream: string])[] = [
  ["text that is no reply", "HTTP/1.1 400 Bad Request\r\n"],
  ["a length that is no number", "$x\r\n"],
  ["a length with a leading zero", "$01\r\na\r\n"],
  ["a streamed string", "$?\r\n;1\r\na\r\n"],
  ["a length of eleven digits", "$99999999999\r\n"],
  ["an empty length", "*\r\n"],
  ["minus zero", "$-0\r\n"],
  ["a header that ends with LF", "*1\n:1\r\n"],
  ["a bulk string longer than it says", "$1\r\nabc\r\n"],
  ["a bulk string that ends with half a CRLF", "$1\r\na\rx"],
  ["a bad element", "*2\r\n:1\r\nx\r\n"],
  ["a bad bulk error", "!2\r\nabc\r\n"],
  ["a bad map", "%1x\r\n"],
  ["a lonely CRLF", "\r\n"],
];

/** All fixtures behind each other: a reply's end must not depend on what comes behind it. */
const STREAM = bytes(REPLIES.map(([, reply]) => reply).join(""));

describe("replies of a server", () => {
  it.each(REPLIES)("are found whole, and alike wherever they are split: %s", (_, reply) => {
    const behind = ":7\r\n";
    const whole = bytes(reply + behind);
    const expected = { replies: [reply, behind], rest: "" };
    expect(framed([whole])).toEqual(expected);
    for (let split = 0; split <= whole.length; split++) {
      expect(framed([whole.subarray(0, split), whole.subarray(split)])).toEqual(expected);
    }
    expect(framed(single(whole))).toEqual(expected);
  });

  it.each(REPLIES)("are incomplete until their last byte: %s", (_, reply) => {
    const whole = bytes(reply);
    for (let end = 1; end < whole.length; end++) {
      expect(framed([whole.subarray(0, end)])).toEqual({ replies: [], rest: reply.slice(0, end) });
    }
  });

  it("are found in one stream of all of them, whole and byte by byte", () => {
    const expected = { replies: REPLIES.map(([, reply]) => reply), rest: "" };
    expect(framed([STREAM])).toEqual(expected);
    expect(framed(single(STREAM))).toEqual(expected);
  });

  it.each(BROKEN_REPLIES)("are told from what is none, wherever it is split: %s", (_, stream) => {
    const whole = bytes(`+OK\r\n${stream}`);
    const expected = { replies: ["+OK\r\n"], rest: "broken" };
    for (let split = 0; split <= whole.length; split++) {
      expect(framed([whole.subarray(0, split), whole.subarray(split)])).toEqual(expected);
    }
    expect(framed(single(whole))).toEqual(expected);
  });
});

// Random replies

const LINE = fc.string({ maxLength: 12 }).map((text) => text.replace(/[\r\n]/g, "."));
const BODY = fc.uint8Array({ maxLength: 40 }).map((body) => Buffer.from(body).toString("latin1"));
const bulk = (type: string) => (body: string) => `${type}${body.length}\r\n${body}\r\n`;

const RESP2_LEAVES = [
  LINE.map((text) => `+${text}\r\n`),
  LINE.map((text) => `-ERR ${text}\r\n`),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((number) => `:${number}\r\n`),
  BODY.map(bulk("$")),
  fc.constantFrom("$-1\r\n", "*-1\r\n", "*0\r\n", "$0\r\n\r\n"),
];

const RESP3_LEAVES = [
  ...RESP2_LEAVES,
  fc.double().map((number) => `,${number}\r\n`),
  fc.bigInt().map((number) => `(${number}\r\n`),
  BODY.map(bulk("!")),
  BODY.map((body) => bulk("=")(`txt:${body}`)),
  fc.constantFrom("_\r\n", "#t\r\n", "#f\r\n", "%0\r\n", "~0\r\n"),
];

function aggregate(type: string, perEntry: number) {
  return (items: readonly string[]): string => {
    const count = Math.floor(items.length / perEntry);
    return `${type}${count}\r\n${items.slice(0, count * perEntry).join("")}`;
  };
}

const RESP2 = fc.letrec<{ reply: string }>((tie) => ({
  reply: fc.oneof(
    { maxDepth: 4 },
    ...RESP2_LEAVES,
    fc.array(tie("reply"), { maxLength: 5 }).map(aggregate("*", 1)),
  ),
})).reply;

const RESP3 = fc.letrec<{ reply: string }>((tie) => {
  const items = fc.array(tie("reply"), { maxLength: 6 });
  return {
    reply: fc.oneof(
      { maxDepth: 4 },
      ...RESP3_LEAVES,
      ...["*", "~", ">"].map((type) => items.map(aggregate(type, 1))),
      items.map(aggregate("%", 2)),
      fc.tuple(items, tie("reply")).map(([entries, of]) => aggregate("|", 2)(entries) + of),
    ),
  };
}).reply;

const SIZES = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 20 });

/** What redis-parser makes of a stream; every value in a form that can be compared. */
function parsed(stream: Buffer): unknown[] {
  const found: unknown[] = [];
  const parser = new RedisParser({
    returnReply: (reply: unknown) => found.push(reply),
    returnError: (error) => found.push({ error: error.message }),
    returnFatalError: (error) => found.push({ fatal: error.message }),
    returnBuffers: true,
    stringNumbers: true,
  });
  parser.execute(stream);
  return found.map((value) => plain(value));
}

function plain(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return value.toString("latin1");
  if (Array.isArray(value)) return value.map((one) => plain(one));
  return value instanceof Error ? { error: value.message } : value;
}

describe("random replies", () => {
  it("of RESP2 end where redis-parser says, each alone and all in sequence", () => {
    fc.assert(
      fc.property(fc.array(RESP2, { minLength: 1, maxLength: 8 }), SIZES, (replies, sizes) => {
        const stream = bytes(replies.join(""));
        const found = framed(cut(stream, sizes));
        expect(found).toEqual({ replies, rest: "" });
        const oracle = parsed(stream);
        expect(oracle).toHaveLength(replies.length);
        // The slice is one reply, and nothing of it is left over for the next one.
        for (const [i, slice] of found.replies.entries()) {
          expect(parsed(bytes(`${slice}+END\r\n`))).toEqual([oracle[i], "END"]);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("of RESP3 end where they were made to end, in any pieces", () => {
    fc.assert(
      fc.property(fc.array(RESP3, { minLength: 1, maxLength: 6 }), SIZES, (replies, sizes) => {
        expect(framed(cut(bytes(replies.join("")), sizes))).toEqual({ replies, rest: "" });
      }),
      { numRuns: 500 },
    );
  });
});

// Letting go of what was looked at

/** Feeds a stream in pieces and drops all that may be dropped after each; returns where replies ended. */
function endsWhileDropping(pieces: readonly Buffer[]): number[] {
  const framer = new ReplyFramer();
  const ends: number[] = [];
  let kept = Buffer.alloc(0);
  let keptAt = 0;
  for (const piece of pieces) {
    kept = Buffer.concat([kept, piece]);
    while (kept.length > 0) {
      const end = framer.next(kept, 0, kept.length);
      if (end === REPLY_BROKEN) throw new Error(`broken at ${keptAt}`);
      const bytesGone = end === REPLY_INCOMPLETE ? framer.drop(kept.length) : end;
      expect(bytesGone).toBeLessThanOrEqual(kept.length);
      kept = kept.subarray(bytesGone);
      keptAt += bytesGone;
      if (end === REPLY_INCOMPLETE) break;
      ends.push(keptAt);
    }
  }
  return ends;
}

function endsOf(replies: readonly string[]): number[] {
  let at = 0;
  return replies.map((reply) => {
    at += reply.length;
    return at;
  });
}

describe("dropping what was looked at", () => {
  it("does not move the end of any reply, wherever the stream is split", () => {
    const expected = endsOf(REPLIES.map(([, reply]) => reply));
    for (let split = 0; split <= STREAM.length; split++) {
      expect(endsWhileDropping([STREAM.subarray(0, split), STREAM.subarray(split)])).toEqual(expected);
    }
    expect(endsWhileDropping(single(STREAM))).toEqual(expected);
  });

  it("does not move the end of random replies in any pieces", () => {
    fc.assert(
      fc.property(fc.array(RESP3, { minLength: 1, maxLength: 6 }), SIZES, (replies, sizes) => {
        expect(endsWhileDropping(cut(bytes(replies.join("")), sizes))).toEqual(endsOf(replies));
      }),
      { numRuns: 500 },
    );
  });

  it("keeps nothing of a bulk string's body", () => {
    const framer = new ReplyFramer();
    const piece = Buffer.concat([bytes("$1000000\r\n"), Buffer.alloc(5000, "x")]);
    expect(framer.next(piece, 0, piece.length)).toBe(REPLY_INCOMPLETE);
    expect(framer.drop(piece.length)).toBe(piece.length);
  });

  it("still finds a broken end", () => {
    const framer = new ReplyFramer();
    framer.next(bytes("$6\r\nabc"), 0, 7);
    expect(framer.drop(7)).toBe(7);
    const tail = bytes("defXX+OK\r\n");
    expect(framer.next(tail, 0, tail.length)).toBe(REPLY_BROKEN);
  });
});

/** Every byte that was looked at is painted over: a second look would come to another end. */
describe("a large reply in small pieces is looked at once", () => {
  const PAINT = 0xff;

  it("a bulk string of 2 MB", () => {
    const framer = new ReplyFramer();
    const reply = bytes(`$${2 << 20}\r\n${"v".repeat(2 << 20)}\r\n`);
    for (let end = 1000; end < reply.length; end += 1000) {
      expect(framer.next(reply, 0, end)).toBe(REPLY_INCOMPLETE);
      expect(framer.needed).toBe(reply.length);
      reply.fill(PAINT, 0, Math.min(end, reply.length - 2));
    }
    expect(framer.next(reply, 0, reply.length)).toBe(reply.length);
  });

  it("100,000 elements", () => {
    const framer = new ReplyFramer();
    const header = "*100000\r\n";
    const reply = bytes(header + "$3\r\nabc\r\n".repeat(100_000));
    for (let end = 100; end < reply.length; end += 100) {
      expect(framer.next(reply, 0, end)).toBe(REPLY_INCOMPLETE);
      reply.fill(PAINT, 0, header.length + 9 * Math.floor((end - header.length) / 9));
    }
    expect(framer.next(reply, 0, reply.length)).toBe(reply.length);
  });

  it("one line of 100 KB", () => {
    const framer = new ReplyFramer();
    const reply = bytes(`+${"x".repeat(100_000)}\r\n`);
    const end = reply.length;
    for (let to = 100; to < end; to += 100) {
      expect(framer.next(reply, 0, to)).toBe(REPLY_INCOMPLETE);
      reply.fill("\r\n", 1, to - 3);
    }
    reply.write("x\r\n", end - 3);
    expect(framer.next(reply, 0, end)).toBe(end);
  });
});

function single(whole: Buffer): Buffer[] {
  return cut(whole, [1]);
}

function cut(whole: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0, i = 0; at < whole.length; i++) {
    const size = sizes[i % sizes.length]!;
    pieces.push(whole.subarray(at, at + size));
    at += size;
  }
  return pieces;
}
