import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Input } from "../../../src/session/input.ts";

const MIN_BYTES = 4096;

function contents(input: Input): string {
  return input.buffer.toString("latin1", input.start, input.end);
}

function append(input: Input, text: string, needed = 0): void {
  // From the middle of a read buffer, which is overwritten afterwards.
  const read = Buffer.from(`##${text}##`, "latin1");
  input.append(read, 2, 2 + text.length, needed);
  read.fill("?");
}

describe("input kept for later", () => {
  it("holds no memory while it is empty, before and after", () => {
    const input = new Input();
    expect([input.isEmpty, input.length, input.buffer.length]).toEqual([true, 0, 0]);
    append(input, "abc");
    expect([input.isEmpty, input.length, contents(input)]).toEqual([false, 3, "abc"]);
    input.consume(2);
    expect([input.isEmpty, input.length, contents(input)]).toEqual([false, 1, "c"]);
    input.consume(1);
    expect([input.isEmpty, input.length, input.buffer.length]).toEqual([true, 0, 0]);
  });

  it("is emptied by clear", () => {
    const input = new Input();
    append(input, "abc");
    input.mark(1, 32);
    input.clear();
    expect([input.isEmpty, input.buffer.length, input.arrivalOf(100)]).toEqual([true, 0, null]);
  });

  it("is always what arrived and was not taken, for any sequence of both, lent or not", () => {
    const step = fc.record({
      bytes: fc.integer({ min: 1, max: 6000 }),
      needed: fc.integer({ min: 0, max: 50_000 }),
      take: fc.double({ min: 0, max: 1, noNaN: true }),
      lend: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const input = new Input();
        let model = "";
        let arrived = 0;
        const lent: { view: Buffer; was: string }[] = [];
        for (const { bytes, needed, take, lend } of steps) {
          const text = Array.from({ length: bytes }, (_, i) => letter(arrived + i)).join("");
          arrived += bytes;
          append(input, text, needed);
          model += text;
          const taken = Math.floor(take * model.length);
          if (lend && taken > 0) {
            const view = input.buffer.subarray(input.start, input.start + taken);
            lent.push({ view, was: view.toString("latin1") });
            input.lend(input.buffer);
          }
          input.consume(taken);
          model = model.slice(taken);
          expect(contents(input) === model).toBe(true);
          expect(input.positionOf(input.start)).toBe(arrived - model.length);
        }
        // What was lent without a copy was never moved or written over.
        for (const { view, was } of lent) expect(view.toString("latin1") === was).toBe(true);
      }),
      { numRuns: 200 },
    );
  });
});

function letter(at: number): string {
  return String.fromCharCode(97 + ((at * 7 + (at >> 5)) % 26));
}

describe("its memory", () => {
  it("is bounded by what has arrived, not by what the client claims, up to 1 MB", () => {
    const input = new Input();
    for (let arrived = 1000; arrived <= 1_000_000; arrived += 1000) {
      append(input, "x".repeat(1000), 500_000_000);
      expect(input.buffer.length).toBeLessThanOrEqual(Math.max(2 * MIN_BYTES, 2 * arrived));
    }
  });

  it("is not taken for a claim that came with a few bytes", () => {
    const input = new Input();
    append(input, "*1\r\n$500000000\r\n", 500_000_000);
    expect(input.buffer.length).toBeLessThanOrEqual(2 * MIN_BYTES);
  });

  it("is had at once for the whole frame when 1 MB of it is here, so that it is not copied again", () => {
    const input = new Input();
    const buffers = new Set<Buffer>();
    for (let arrived = 0; arrived < 8_000_000; arrived += 50_000) {
      append(input, "x".repeat(50_000), 8_000_000);
      if (arrived > 2 << 20) buffers.add(input.buffer);
    }
    expect([buffers.size, input.buffer.length]).toEqual([1, 8_000_000]);
  });

  it("is not larger than the frame that is waited for", () => {
    const input = new Input();
    for (let arrived = 1000; arrived <= 70_000; arrived += 1000) append(input, "x".repeat(1000), 70_000);
    expect([input.length, input.buffer.length]).toEqual([70_000, 70_000]);
  });

  it("is copied a bounded number of times for a frame in small pieces", () => {
    const input = new Input();
    let buffers = 0;
    let last: Buffer | null = null;
    for (let arrived = 0; arrived < 4_000_000; arrived += 1000) {
      append(input, "x".repeat(1000), 4_000_000);
      if (input.buffer !== last) buffers++;
      last = input.buffer;
    }
    expect(buffers).toBeLessThanOrEqual(Math.ceil(Math.log2(4_000_000 / MIN_BYTES)) + 2);
  });

  it("grows in steps also where nothing is known of what is to come", () => {
    const input = new Input();
    const buffers = new Set<Buffer>();
    for (let arrived = 0; arrived < 1_000_000; arrived += 1000) {
      append(input, "x".repeat(1000));
      buffers.add(input.buffer);
      expect(input.buffer.length).toBeLessThanOrEqual(Math.max(MIN_BYTES, 2 * (arrived + 1000)));
    }
    expect(buffers.size).toBeLessThanOrEqual(20);
  });

  it("is used again while requests come and go", () => {
    const input = new Input();
    append(input, "x".repeat(3000));
    const { buffer } = input;
    for (let i = 0; i < 1000; i++) {
      input.consume(100);
      append(input, "y".repeat(100));
      if (input.length !== 3000) throw new Error("lost bytes");
    }
    expect(input.buffer.length).toBeLessThanOrEqual(2 * buffer.length);
  });
});

describe("a buffer lent to a connection", () => {
  it("is left alone: what comes later goes to another one", () => {
    const input = new Input();
    append(input, "frame rest");
    const lent = input.buffer;
    input.lend(lent);
    input.consume(6);
    append(input, " more");
    expect(contents(input)).toBe("rest more");
    expect(input.buffer).not.toBe(lent);
    expect(lent.toString("latin1", 0, 10)).toBe("frame rest");
  });

  it("is not another buffer: one that is not the input's own changes nothing", () => {
    const input = new Input();
    append(input, "abc");
    const { buffer } = input;
    input.lend(Buffer.from("other"));
    append(input, "def");
    expect(input.buffer).toBe(buffer);
  });
});

describe("positions in a client's stream", () => {
  it("count all that was taken, wherever the bytes lie now", () => {
    const input = new Input();
    append(input, "abcdef");
    expect(input.positionOf(input.start + 2)).toBe(2);
    input.consume(4);
    expect(input.positionOf(input.start)).toBe(4);
    input.consume(2);
    append(input, "gh");
    expect(input.positionOf(input.start)).toBe(6);
    expect(input.positionOf(input.start + 1)).toBe(7);
  });

  it("do not begin before the first byte that is here", () => {
    const input = new Input();
    append(input, "abcdef");
    input.consume(4);
    expect(input.positionOf(0)).toBe(4);
  });
});

/** Bytes arrive at these times, marked as a held session does it. */
function arrivals(
  input: Input,
  maxTimeMs: number,
  ...parts: (readonly [atMs: number, bytes: number])[]
): void {
  for (const [atMs, bytes] of parts) {
    input.mark(atMs, maxTimeMs);
    append(input, "x".repeat(bytes));
  }
}

describe("when what arrived", () => {
  it("is known to the mark before it; null for what was here before the first one", () => {
    const input = new Input();
    append(input, "x".repeat(10));
    arrivals(input, 320, [1000, 5], [1100, 5], [1200, 5]);
    expect([0, 9, 10, 14, 15, 19, 20, 24].map((at) => input.arrivalOf(at))).toEqual([
      ...[null, null, 1000, 1000, 1100, 1100, 1200, 1200],
    ]);
  });

  it("is kept while requests are taken", () => {
    const input = new Input();
    arrivals(input, 320, [1000, 5], [1100, 5]);
    input.consume(7);
    expect(input.arrivalOf(input.positionOf(input.start))).toBe(1100);
    append(input, "x");
    arrivals(input, 320, [1200, 5]);
    expect(input.arrivalOf(11)).toBe(1200);
  });

  it("tells the first byte that came after a moment", () => {
    const input = new Input();
    append(input, "x".repeat(10));
    arrivals(input, 320, [1000, 5], [1100, 5]);
    expect(input.firstAfter(999)).toBe(10);
    expect(input.firstAfter(1000)).toBe(15);
    expect(input.firstAfter(1099)).toBe(15);
    expect(input.firstAfter(1100)).toBe(20);
    expect(input.firstAfter(Number.POSITIVE_INFINITY)).toBe(20);
  });

  it("is the end of the input where nothing came after", () => {
    const input = new Input();
    append(input, "abc");
    expect(input.firstAfter(0)).toBe(3);
  });

  it("errs to the earlier side, by at most a 32nd of the hold time", () => {
    const maxTimeMs = 3200;
    fc.assert(
      fc.property(fc.array(fc.nat(250), { minLength: 1, maxLength: 200 }), (pauses) => {
        const input = new Input();
        const times: number[] = [];
        let nowMs = 1000;
        for (const pause of pauses) {
          nowMs += pause;
          arrivals(input, maxTimeMs, [nowMs, 1]);
          times.push(nowMs);
        }
        for (const [position, atMs] of times.entries()) {
          const arrival = input.arrivalOf(position)!;
          expect(arrival).toBeLessThanOrEqual(atMs);
          expect(atMs - arrival).toBeLessThan(maxTimeMs / 32);
        }
      }),
    );
  });

  it("takes a bounded number of notes within one hold", () => {
    const input = new Input();
    for (let ms = 0; ms < 3200; ms++) arrivals(input, 3200, [ms, 1]);
    expect(noteCount(input)).toBeLessThanOrEqual(32);
  });

  it("takes a bounded number of notes over many holds, while requests wait in vain and new ones come", () => {
    const input = new Input();
    const maxTimeMs = 320;
    for (let ms = 0; ms < 100 * maxTimeMs; ms++) {
      arrivals(input, maxTimeMs, [ms, 10]);
      // What has waited for the whole time is answered and taken, as when a session's hold expires.
      const expired = input.firstAfter(ms - maxTimeMs) - input.positionOf(input.start);
      if (ms >= maxTimeMs && expired > 0) input.consume(expired);
    }
    expect(input.length).toBeLessThanOrEqual(10 * (maxTimeMs + 20));
    expect(noteCount(input)).toBeLessThanOrEqual(2 * 32);
  });

  it("is forgotten when the hold is over", () => {
    const input = new Input();
    arrivals(input, 320, [1000, 5]);
    input.forgetMarks();
    expect(input.arrivalOf(3)).toBeNull();
    expect(input.firstAfter(0)).toBe(5);
  });
});

/** Its notes cannot be seen from outside, but they are memory a client can make it use. */
function noteCount(input: Input): number {
  return (input as unknown as { marks: unknown[] | null }).marks?.length ?? 0;
}
