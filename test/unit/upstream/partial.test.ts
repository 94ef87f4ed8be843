import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { REPLY_BROKEN, ReplyFramer } from "../../../src/resp/reply.ts";
import { PartialReply } from "../../../src/upstream/partial.ts";

/** The size of the shared read buffer: no read is larger. */
const READ_BYTES = 64 * 1024;

const MAX = 64 * 1024;
const refusal = (max: number): string =>
  `-ERR proxy: the command ran, but its reply is larger than limits.outputBufferBytes (${max} bytes)\r\n`;

interface Received {
  readonly replies: readonly string[];
  readonly broken: boolean;
  /** The most memory the partial reply had at any time. */
  readonly peakBytes: number;
  /** Something of a reply is still awaited. */
  readonly waiting: boolean;
}

/** Receives a stream as a lane does: whole replies from the read buffer, the others through PartialReply. */
function receive(reads: readonly Buffer[], maxBytes: number): Received {
  const framer = new ReplyFramer();
  const partial = new PartialReply(framer, maxBytes);
  const replies: string[] = [];
  const shared = Buffer.alloc(READ_BYTES);
  let peakBytes = 0;
  const done = (broken: boolean): Received => ({ replies, broken, peakBytes, waiting: partial.active });
  for (const read of reads) {
    // The read buffer is the same for all reads: what is kept must have been copied.
    shared.fill("?");
    read.copy(shared);
    let pos = 0;
    while (partial.active && pos < read.length) {
      pos = partial.append(shared, pos, read.length);
      const complete = partial.complete();
      if (complete === REPLY_BROKEN) return done(true);
      peakBytes = Math.max(peakBytes, bufferBytes(partial));
      if (complete === null) continue;
      pos -= partial.surplus;
      replies.push(complete.toString("latin1"));
    }
    while (pos < read.length) {
      const end = framer.next(shared, pos, read.length);
      if (end === REPLY_BROKEN) return done(true);
      if (end < 0) {
        partial.start(shared, pos, read.length);
        peakBytes = Math.max(peakBytes, bufferBytes(partial));
        break;
      }
      replies.push(shared.toString("latin1", pos, end));
      pos = end;
    }
  }
  return done(false);
}

/** What it holds of memory cannot be seen from outside. */
function bufferBytes(partial: PartialReply): number {
  return (partial as unknown as { buffer: Buffer }).buffer.length;
}

const bulk = (bytes: number): string => `$${bytes}\r\n${"x".repeat(bytes)}\r\n`;
const list = (count: number, item: string): string => `*${count}\r\n${item.repeat(count)}`;

/** Cuts a stream into reads of these sizes, over and over. */
function cut(stream: string, sizes: readonly number[]): Buffer[] {
  const whole = Buffer.from(stream, "latin1");
  const reads: Buffer[] = [];
  for (let at = 0, i = 0; at < whole.length; i++) {
    const size = Math.min(sizes[i % sizes.length]!, READ_BYTES);
    reads.push(whole.subarray(at, at + size));
    at += size;
  }
  return reads;
}

const SIZES = fc.array(fc.integer({ min: 1, max: READ_BYTES }), { minLength: 1, maxLength: 12 });

describe("a reply that comes in several reads", () => {
  it("is handed on byte for byte, and so are the replies before and behind it, at every split", () => {
    const replies = ["+OK\r\n", list(2, "$3\r\na\r\n\r\n"), "%1\r\n+k\r\n*2\r\n:1\r\n$-1\r\n", "-ERR x\r\n"];
    const stream = replies.join("");
    for (let split = 1; split < stream.length; split++) {
      expect(receive(cut(stream, [split, stream.length]), MAX)).toMatchObject({ replies, waiting: false });
    }
    expect(receive(cut(stream, [1]), MAX)).toMatchObject({ replies, broken: false, waiting: false });
  });

  it("is handed on byte for byte in any reads", () => {
    const reply = fc.oneof(
      fc.integer({ min: 0, max: 50_000 }).map(bulk),
      fc.integer({ min: 0, max: 4000 }).map((count) => list(count, bulk(5))),
      fc.integer({ min: 0, max: 50_000 }).map((length) => `+${"y".repeat(length)}\r\n`),
    );
    fc.assert(
      fc.property(fc.array(reply, { minLength: 1, maxLength: 6 }), SIZES, (replies, sizes) => {
        const received = receive(cut(replies.join(""), sizes), MAX);
        expect(received.broken || received.waiting).toBe(false);
        // Not toEqual: a difference of megabytes helps nobody.
        expect(received.replies.length).toBe(replies.length);
        expect(received.replies.every((one, i) => one === replies[i])).toBe(true);
      }),
      { numRuns: 100 },
    );
  });

  it("of exactly the bound is handed on", () => {
    const exact = bulk(MAX - "$65527\r\n\r\n".length);
    expect(exact.length).toBe(MAX);
    expect(receive(cut(exact, [100, READ_BYTES]), MAX).replies).toEqual([exact]);
  });

  it("is found broken at its end", () => {
    const stream = `$20000\r\n${"x".repeat(20_000)}xx+OK\r\n`;
    expect(receive(cut(stream, [3000]), MAX)).toMatchObject({ broken: true, replies: [] });
  });
});

const OVERSIZE: readonly (readonly [title: string, reply: string])[] = [
  ["a bulk string one byte over it", bulk(MAX - "$65527\r\n\r\n".length + 1)],
  ["a bulk string of many times the bound", bulk(20 * MAX)],
  ["a list of small elements", list(20_000, bulk(5))],
  ["a list of large elements", list(5, bulk(MAX))],
  ["a map of lists", `%100\r\n${(bulk(3) + list(100, ":123456\r\n")).repeat(100)}`],
  ["a list with a large element at its end", `*3\r\n:1\r\n:2\r\n${bulk(3 * MAX)}`],
  ["a bulk string full of framing", `$140000\r\n${"*1\r\n$1\r\n\r\n+O\r\n".repeat(10_000)}\r\n`],
  ["one long line", `+${"y".repeat(4 * MAX)}\r\n`],
];

describe("a reply over the bound", () => {
  it.each(OVERSIZE)(
    "is replaced by the error that names the limit, and the next one is found: %s",
    (_, reply) => {
      for (const sizes of [[READ_BYTES], [1000], [16 * 1024], [7, READ_BYTES], [READ_BYTES - 1, 3]]) {
        const received = receive(cut(`+before\r\n${reply}$5\r\nafter\r\n:1\r\n`, sizes), MAX);
        expect(received).toMatchObject({
          replies: ["+before\r\n", refusal(MAX), "$5\r\nafter\r\n", ":1\r\n"],
          broken: false,
          waiting: false,
        });
      }
    },
  );

  it("is replaced however little over it is, whatever the reads", () => {
    const count = Math.ceil(MAX / 11);
    const reply = list(count, bulk(5));
    expect(reply.length - MAX).toBeLessThan(50);
    for (const sizes of [[READ_BYTES], [1000], [40_000], [50, READ_BYTES], [9, 60_000]]) {
      const received = receive(cut(`${reply}+OK\r\n`, sizes), MAX);
      expect(received.replies.map((one) => one.slice(0, 100))).toEqual([
        refusal(MAX).slice(0, 100),
        "+OK\r\n",
      ]);
    }
  });

  it("is replaced whatever the reads and wherever among other replies", () => {
    const make = { small: (size: number) => bulk(size % 100), bulk, list: (size: number) => listOf(size) };
    const reply = fc.record({
      kind: fc.constantFrom("small" as const, "bulk" as const, "list" as const),
      size: fc.integer({ min: MAX, max: 4 * MAX }),
    });
    fc.assert(
      fc.property(fc.array(reply, { minLength: 1, maxLength: 6 }), SIZES, (replies, sizes) => {
        const sent = replies.map(({ kind, size }) => make[kind](size));
        const received = receive(cut(sent.join(""), sizes), MAX);
        const shown = received.replies.map((one) => (one.length > 200 ? `${one.length} bytes` : one));
        expect(shown).toEqual(sent.map((one, i) => (replies[i]!.kind === "small" ? one : refusal(MAX))));
        expect(received.waiting).toBe(false);
      }),
      { numRuns: 150 },
    );
  });
});

/** A list of elements of 5 bytes that has at least this many bytes. */
function listOf(bytes: number): string {
  return list(Math.ceil(bytes / 11), bulk(5));
}

describe("memory while a large reply comes", () => {
  /** The bound, doubled at most when it grew last, and what one read may add. */
  const BOUNDED = 2 * MAX + 2 * READ_BYTES;

  it.each([
    ["a bulk string of 32 MB", bulk(32 << 20)],
    ["a list of 2 million small elements", list(2_000_000, ":1\r\n")],
    ["a list of 100 large elements", list(100, bulk(4 * MAX))],
    ["one line of 8 MB, as a script may answer", `+${"y".repeat(8 << 20)}\r\n`],
  ])("stays bounded: %s", (_, reply) => {
    const received = receive(cut(`${reply}+OK\r\n`, [READ_BYTES]), MAX);
    expect(received.replies.at(-1)).toBe("+OK\r\n");
    expect(received.peakBytes).toBeLessThanOrEqual(BOUNDED);
  });

  it("is not taken because a node claims that much will come", () => {
    const huge = receive([Buffer.from("$2000000000\r\nabc")], 4_000_000_000);
    expect(huge.waiting).toBe(true);
    expect(huge.peakBytes).toBeLessThanOrEqual(READ_BYTES);
  });

  it("grows with what has come, not with what was announced", () => {
    const reads = [
      Buffer.from("$1000000000\r\n"),
      ...Array.from({ length: 8 }, () => Buffer.alloc(READ_BYTES, "x")),
    ];
    const received = receive(reads, 2_000_000_000);
    expect(received.peakBytes).toBeLessThanOrEqual(2 * 9 * READ_BYTES);
  });
});
