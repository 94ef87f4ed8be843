import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Freshness } from "../../../src/routing/freshness.ts";
import { EVERYTHING, NOTHING, type Slots } from "../../../src/upstream/request.ts";

function slotOf(table: Freshness, key: string): number {
  const bytes = Buffer.from(key);
  return table.slotOf(bytes, 0, bytes.length);
}

describe("7: which keys a replica may be read for", () => {
  it("a table in which nothing was written lets every replica serve everything", () => {
    const table = new Freshness();
    expect(table.hasAll(EVERYTHING, Number.NEGATIVE_INFINITY)).toBe(true);
    expect(table.isQuietAt(Number.NEGATIVE_INFINITY)).toBe(true);
  });

  interface Row {
    readonly says: string;
    readonly written: Slots;
    readonly answeredMs: number;
    readonly read: Slots;
    readonly provenAtMs: number;
    readonly mayServe: boolean;
  }

  const ROWS: readonly Row[] = [
    { says: "its key", written: 5, answeredMs: 10, read: 5, provenAtMs: 9.9, mayServe: false },
    { says: "its key, proven", written: 5, answeredMs: 10, read: 5, provenAtMs: 10, mayServe: true },
    { says: "another key", written: 5, answeredMs: 10, read: 6, provenAtMs: 0, mayServe: true },
    { says: "one of many written", written: [1, 5], answeredMs: 10, read: 5, provenAtMs: 0, mayServe: false },
    { says: "one of many read", written: 5, answeredMs: 10, read: [7, 5], provenAtMs: 0, mayServe: false },
    { says: "none of many", written: [1, 5], answeredMs: 10, read: [2, 6], provenAtMs: 0, mayServe: true },
    { says: "any key", written: EVERYTHING, answeredMs: 10, read: 6, provenAtMs: 9, mayServe: false },
    { says: "any key, proven", written: EVERYTHING, answeredMs: 10, read: 6, provenAtMs: 11, mayServe: true },
    { says: "all keys read", written: 5, answeredMs: 10, read: EVERYTHING, provenAtMs: 9, mayServe: false },
    {
      says: "all read, proven",
      written: 5,
      answeredMs: 10,
      read: EVERYTHING,
      provenAtMs: 10,
      mayServe: true,
    },
    {
      says: "no key written",
      written: NOTHING,
      answeredMs: 10,
      read: EVERYTHING,
      provenAtMs: 0,
      mayServe: true,
    },
  ];

  it.for(ROWS)("$says: $mayServe", ({ written, answeredMs, read, provenAtMs, mayServe }) => {
    const table = new Freshness();
    table.wrote(written, answeredMs);
    expect(table.hasWritten(read, provenAtMs)).toBe(mayServe);
    expect(table.hasAll(read, provenAtMs)).toBe(mayServe);
  });

  it("what the master has shown of a key a replica must have for who has forgotten that", () => {
    const table = new Freshness();
    table.saw(3, 20);
    expect(table.hasAll(3, 19)).toBe(false);
    expect(table.hasAll(3, 20)).toBe(true);
    expect(table.hasAll(4, 19)).toBe(true);
    expect(table.hasWritten(3, 19), "which is nobody's write").toBe(true);
  });

  it("more keys than are told apart stand for all", () => {
    const table = new Freshness();
    const keys = Array.from({ length: 1025 }, (_, i) => Buffer.from(`k${i}`));
    expect(table.slotsOf(keys)).toBe(EVERYTHING);
    expect(table.slotsOf([])).toBe(NOTHING);
    expect(table.slotsOf(keys.slice(0, 1))).toBe(slotOf(table, "k0"));
  });

  it("keys spread over the slots: 10,000 names of any usual form share a slot with few others", () => {
    const table = new Freshness();
    for (const nameOf of [
      (i: number) => `user:${i}`,
      (i: number) => `${i}`,
      (i: number) => `a:${i}:profile`,
    ]) {
      const used = new Set(Array.from({ length: 10_000 }, (_, i) => slotOf(table, nameOf(i))));
      // Thrown at random they would use 7,500.
      expect(used.size).toBeGreaterThan(6_500);
    }
  });
});

/**
 * A model of what is behind the table: a master whose offset grows with each write, clients whose writes are
 * sent, run and answered at different moments, in any order, and a replica of which the watcher knows: it has
 * applied an offset that the master reported when it was asked at `provenAtMs`.
 */
const KEYS = ["a", "b", "c", "d"] as const;
const event = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("send" as const), keys: fc.subarray([...KEYS]) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("send-unknown" as const) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("run" as const), which: fc.nat() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("answer" as const), which: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("report" as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("read" as const), back: fc.nat(6) }) },
);

interface Write {
  readonly keys: readonly string[];
  readonly slots: Slots;
  /** The master's offset behind it; null = it has not run. */
  offset: number | null;
  answered: boolean;
}

it("7: a replica that may serve a key lacks no write of it that was answered", () => {
  const check = (events: readonly (typeof event extends fc.Arbitrary<infer E> ? E : never)[]): void => {
    const table = new Freshness();
    const writes: Write[] = [];
    const reports: { atMs: number; offset: number }[] = [];
    let offset = 0;
    for (const [nowMs, one] of events.entries()) {
      const open = writes.filter((write) => !write.answered);
      switch (one.kind) {
        case "send":
        case "send-unknown": {
          const keys = one.kind === "send" ? one.keys : [...KEYS];
          const slots = one.kind === "send" ? table.slotsOf(keys.map((key) => Buffer.from(key))) : EVERYTHING;
          writes.push({ keys, slots, offset: null, answered: false });
          break;
        }
        case "run": {
          const write = open[one.which % Math.max(1, open.length)];
          if (write !== undefined) write.offset ??= ++offset;
          break;
        }
        case "answer": {
          const write = open[one.which % Math.max(1, open.length)];
          if (write === undefined) break;
          write.offset ??= ++offset;
          write.answered = true;
          table.wrote(write.slots, nowMs);
          break;
        }
        case "report":
          reports.push({ atMs: nowMs, offset });
          break;
        case "read": {
          const proof = reports[reports.length - 1 - one.back];
          if (proof === undefined) break;
          for (const key of KEYS) {
            if (!table.hasWritten(slotOf(table, key), proof.atMs)) continue;
            // The replica has exactly that offset, and may have no more.
            for (const write of writes) {
              if (!write.keys.includes(key) || !write.answered || write.offset === null) continue;
              expect(write.offset, `a write of ${key} that the replica lacks`).toBeLessThanOrEqual(
                proof.offset,
              );
            }
          }
        }
      }
    }
  };
  fc.assert(fc.property(fc.array(event, { maxLength: 60 }), check), { numRuns: 3_000 });
});

it("7: a key is served again as soon as the proof is there", () => {
  const slots = fc.oneof(
    fc.nat(20),
    fc.constant(EVERYTHING),
    fc.constant(NOTHING),
    fc.array(fc.nat(20), { minLength: 2, maxLength: 5 }),
  );
  fc.assert(
    fc.property(fc.array(slots, { maxLength: 40 }), (all) => {
      const table = new Freshness();
      for (const [i, one] of all.entries()) table.wrote(one, i);
      for (let slot = 0; slot <= 20; slot++) expect(table.hasAll(slot, all.length - 1)).toBe(true);
      expect(table.isQuietAt(all.length - 1)).toBe(true);
      expect(table.hasAll(EVERYTHING, all.length - 1)).toBe(true);
    }),
  );
});
