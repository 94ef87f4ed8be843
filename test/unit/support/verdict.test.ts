import { describe, expect, it } from "vitest";
import { CELLS, FAULTS, SHORT } from "../../support/matrix/cells.ts";
import { type Row, table } from "../../support/matrix/table.ts";
import { type Allowance, judge, type Outcome } from "../../support/matrix/verdict.ts";

const NOTHING: Allowance = {
  cuts: 0,
  visitors: 5,
  errors: [],
  mayLose: false,
  unseen: 0,
  switches: 1,
  writeGapMs: 500,
  readGapMs: 100,
};
const CRASH: Allowance = { ...NOTHING, cuts: 1, mayLose: true };
const WELL: Outcome = {
  disconnects: [],
  errors: new Map(),
  writers: 3,
  visitorsUncertain: 0,
  acked: 100,
  lost: 0,
  unexplained: 0,
  details: [],
  mismatches: [],
  faults: [],
  lostBytes: 0,
  switches: 1,
  writeGapMs: 400,
  readGapMs: 50,
};
const LOST: Outcome = { ...WELL, lost: 2, lostBytes: 80 };
const OWN = "GET n behind its own INCR answered 1, expected 2";

describe("what a fault may do to clients", () => {
  const right: readonly (readonly [string, Outcome, Allowance])[] = [
    ["nothing at all", WELL, NOTHING],
    ["as many UNCERTAIN as were on their way", { ...WELL, errors: new Map([["UNCERTAIN", 3]]) }, CRASH],
    ["UNCERTAIN for visitors", { ...WELL, visitorsUncertain: 5 }, CRASH],
    ["an error of its own", { ...WELL, errors: new Map([["BUSY", 9]]) }, { ...NOTHING, errors: ["BUSY"] }],
    ["a loss that is reported", LOST, CRASH],
    ["a loss of which nothing is known", { ...LOST, lostBytes: null }, CRASH],
    ["a loss that nobody can have seen", { ...LOST, lostBytes: 0 }, { ...CRASH, unseen: 2 }],
    ["an own write that is lost missing from a read", { ...LOST, mismatches: [OWN] }, CRASH],
    ["any gap where others decide", { ...WELL, writeGapMs: 9_000 }, { ...NOTHING, writeGapMs: null }],
  ];
  it.each(right)("%s is right", (_, outcome, allowed) => {
    expect(judge(outcome, allowed)).toEqual([]);
  });

  const wrong: readonly (readonly [string, Outcome, Allowance])[] = [
    ["nobody having written", { ...WELL, acked: 0 }, NOTHING],
    ["a disconnect", { ...WELL, disconnects: ["writer 1: FIN"] }, CRASH],
    ["UNCERTAIN without a cut", { ...WELL, errors: new Map([["UNCERTAIN", 1]]) }, NOTHING],
    ["more UNCERTAIN than were on their way", { ...WELL, errors: new Map([["UNCERTAIN", 4]]) }, CRASH],
    ["more UNCERTAIN for visitors than were on their way", { ...WELL, visitorsUncertain: 6 }, CRASH],
    ["UNCERTAIN for a visitor without a cut", { ...WELL, visitorsUncertain: 1 }, NOTHING],
    ["another error", { ...WELL, errors: new Map([["READONLY", 1]]) }, CRASH],
    ["a write that ran twice", { ...WELL, unexplained: 1 }, CRASH],
    ["a loss that is not reported", { ...LOST, lostBytes: 0 }, CRASH],
    ["more of that than one turn makes", { ...LOST, lostBytes: 0 }, { ...CRASH, unseen: 1 }],
    ["a loss where nothing may be lost, reported or not", LOST, NOTHING],
    ["a report of a loss where nothing may be lost", { ...WELL, lostBytes: 14 }, NOTHING],
    ["an old own value without a loss", { ...WELL, mismatches: [OWN] }, CRASH],
    ["a reply to another request, loss or not", { ...LOST, mismatches: ["ECHO a answered b"] }, CRASH],
    ["what sessions complain of", { ...WELL, faults: ["q: jobs 1 came twice"] }, CRASH],
    ["a switch too many", { ...WELL, switches: 2 }, CRASH],
    ["writes that wait for too long", { ...WELL, writeGapMs: 501 }, CRASH],
    ["reads that wait for too long", { ...WELL, readGapMs: 101 }, CRASH],
  ];
  it.each(wrong)("%s is wrong, and nothing else is", (_, outcome, allowed) => {
    expect(judge(outcome, allowed)).toHaveLength(1);
  });
});

describe("the matrix", () => {
  it("has each fault in at least one mode, and the short set is part of it", () => {
    const names = CELLS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const fault of Object.keys(FAULTS)) {
      expect(
        names.some((name) => name.startsWith(`${fault}/`)),
        fault,
      ).toBe(true);
    }
    expect([...SHORT].filter((name) => !names.includes(name))).toEqual([]);
  });

  it("shows one line a cell: the median and the most of its rounds", () => {
    const row = { readGapMs: 5, holdMs: 7, held: 1, uncertain: 2, lost: 0, lostBytes: 0 };
    const rows: Row[] = [10, 30, 20].map((writeGapMs) => ({ ...row, cell: "a/observe", writeGapMs }));
    const lines = table([...rows, { ...row, cell: "b/self", writeGapMs: 1, lostBytes: null }]).split("\n");
    expect(lines.map((line) => line.split(/ {2,}/))).toEqual([
      [
        "cell",
        "rounds",
        "write gap",
        "longest",
        "read gap",
        "hold",
        "held",
        "uncertain",
        "lost",
        "reported bytes",
      ],
      ["a/observe", "3", "20", "30", "5", "7", "1", "2", "0", "0"],
      ["b/self", "1", "1", "1", "5", "7", "1", "2", "0", "unknown"],
    ]);
  });
});
