/** The checkers of read consistency accept what is right and find what is not. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Key, readOf, textOf, writeOf } from "../../support/consistency/actions.ts";
import { History, type Kind, NOTHING, type Outcome } from "../../support/consistency/history.ts";
import { checkLinear } from "../../support/consistency/linear.ts";
import { type Loss, lossesOf, SLACK_MS } from "../../support/consistency/losses.ts";
import { checkOrder, type Rule } from "../../support/consistency/order.ts";
import type { WireReply } from "../../support/consistency/wire.ts";
import { randomFrom } from "../../support/random.ts";

/** session, kind and version, call, return; e.g. "A w1 0 5"; a trailing word is the outcome if not ok. */
type Line = string;

const SESSIONS = ["A", "B", "C", "F"];

/** F writes to the master itself. `n` stands for a read that found nothing, `e` erases. */
function historyOf(lines: readonly Line[], order: "counted" | "register" = "counted"): History {
  const history = new History();
  for (const name of SESSIONS) history.addSession(name, name === "F");
  history.addKey("k", order);
  for (const line of lines) {
    const [who = "", what = "", call, end, outcome = "ok"] = line.split(" ");
    const kind = ({ w: "write", e: "erase", r: "read" } as Record<string, Kind>)[what[0] ?? ""];
    if (kind === undefined) throw new Error(line);
    const version = what === "rn" ? NOTHING : Number(what.slice(1));
    const index = history.call(SESSIONS.indexOf(who), 0, kind, version, Number(call));
    finish(history, index, outcome as Outcome, Number(end));
  }
  return history;
}

function finish(history: History, index: number, outcome: Outcome, ms: number): void {
  if (outcome === "ok") history.ok(index, undefined, ms);
  else if (outcome === "error") history.error(index, ms);
  else if (outcome === "uncertain") history.uncertain(index, ms);
}

function broken(lines: readonly Line[], losses: readonly Loss[] = []): Rule[] {
  const { violations } = checkOrder(historyOf(lines), losses);
  return (Object.keys(violations) as Rule[]).filter((rule) => violations[rule] > 0);
}

describe("ordered keys", () => {
  const right: readonly (readonly [string, readonly Line[]])[] = [
    ["reads of what is there", ["A w1 0 1", "A r1 2 3", "B r1 2 3", "A w2 4 5", "B r2 6 7"]],
    ["a read beside a write sees either", ["A w1 0 1", "A w2 2 9", "B r1 3 4", "C r2 3 4"]],
    ["newer than the own write", ["A w1 0 1", "B w2 2 3", "A r2 4 5"]],
    ["a key nobody has written", ["A rn 0 1", "A rn 2 3"]],
    ["an erased key", ["A w1 0 1", "A e2 2 3", "B rn 4 5", "A w3 6 7", "B r3 8 9"]],
    ["an uncertain write that is never seen", ["A w1 0 1", "A w2 2 3 uncertain", "B r1 4 5", "B r1 6 7"]],
    ["an uncertain write that is seen late", ["A w1 0 1", "A w2 2 3 uncertain", "B r1 4 5", "B r2 6 7"]],
    ["a write that was refused", ["A w1 0 1", "A w2 2 3 error", "A r1 4 5"]],
    ["another client's past, when only its reads were ahead", ["A w1 0 1", "F w2 2 3"]],
    ["a version nobody placed", ["A w0 0 1 uncertain", "B r1 2 3"]],
  ];
  it.each(right)("right: %s", (_, lines) => {
    expect(broken(lines)).toEqual([]);
  });

  const wrong: readonly (readonly [string, readonly Line[], readonly Rule[]])[] = [
    ["an own write missed", ["A w1 0 1", "A w2 2 3", "A r1 4 5"], ["own", "recent"]],
    ["in a pipeline, too", ["A w1 0 1", "A w2 2 6", "A r1 2 6"], ["own"]],
    ["another session's answered write missed", ["A w1 0 1", "A w2 2 3", "B r1 4 5"], ["recent"]],
    ["back in time", ["A w1 0 1", "A w2 2 9", "B r2 3 4", "B r1 5 6"], ["monotonic", "agreed"]],
    ["behind another's read", ["A w1 0 1", "A w2 2 9", "B r2 3 4", "C r1 5 6"], ["agreed"]],
    ["back to nothing", ["A w1 0 1", "B r1 2 3", "B rn 4 5"], ["monotonic", "recent", "agreed"]],
    ["an erasure before the last write", ["A w1 0 1", "A e2 2 3", "A w3 4 5", "B rn 6 7"], ["recent"]],
    ["an erasure missed", ["A w1 0 1", "A e2 2 3", "B r1 4 5"], ["recent"]],
    ["a foreign write un-read", ["F w1 0 1", "F w2 2 3", "B r2 4 5", "B r1 6 7"], ["monotonic", "agreed"]],
    ["what nobody wrote", ["A w1 0 1", "B r7 2 3"], ["phantom"]],
    ["what is written later", ["A w1 0 1", "B r2 2 3", "A w2 4 5"], ["phantom"]],
    ["what was refused", ["A w1 0 1", "A w2 2 3 error", "B r2 4 5"], ["phantom"]],
  ];
  it.each(wrong)("wrong: %s", (_, lines, rules) => {
    expect(broken(lines).sort()).toEqual([...rules].sort());
  });

  it("a foreign write need not be seen at once: it did not come through this proxy", () => {
    expect(broken(["F w1 0 1", "F w2 2 3", "B r1 4 5"])).toEqual([]);
  });

  it("counts every comparison, and none where nothing was due", () => {
    const { reads, pairsOf, pairs } = checkOrder(
      historyOf(["B rn 0 1", "A w1 2 3", "A r1 4 5", "B r1 6 7", "B r1 8 9"]),
    );
    expect(reads).toBe(4);
    expect(pairsOf).toEqual({ own: 1, monotonic: 1, recent: 3, agreed: 2, phantom: 3 });
    expect(pairs).toBe(10);
  });

  it("a million operations are kept and checked within seconds, and one wrong read is found", () => {
    const history = new History();
    const [writer, reader] = [history.addSession("A"), history.addSession("B")];
    const keys = Array.from({ length: 100 }, (_, i) => history.addKey(`k${i}`));
    const plantedAt = 777_977;
    for (let i = 0; i < 1_000_000; i++) {
      const version = Math.floor(i / 400) + 1;
      const isWrite = i % 400 < 100;
      const key = keys[i % 100]!;
      const index = history.call(isWrite ? writer : reader, key, isWrite ? "write" : "read", version, i);
      history.ok(index, i === plantedAt ? version - 1 : version, i + 0.5);
    }
    const verdict = checkOrder(history);
    expect(verdict.pairs).toBeGreaterThan(2_000_000);
    expect(verdict.violations).toEqual({ own: 0, monotonic: 1, recent: 1, agreed: 1, phantom: 0 });
    expect(verdict.examples[0]).toContain(`#${plantedAt}`);
  });
});

describe("losses", () => {
  const LOSS: Loss = { fromMs: 1_000, atMs: 2_000 };

  it("a write in doubt may be missed after the switch by everybody, its writer too", () => {
    const lines = ["A w1 0 1", "A w2 1500 1501", "B r2 1510 1511", "B r1 2100 2101", "A r1 2100 2101"];
    expect(broken(lines, [LOSS])).toEqual([]);
    expect(broken(lines)).toEqual(["own", "monotonic", "recent", "agreed"]);
    expect(checkOrder(historyOf(lines), [LOSS]).excused).toBeGreaterThan(0);
  });

  it("an uncertain write that was seen may be gone after it", () => {
    expect(broken(["A w1 0 1", "A w2 900 950 uncertain", "B r2 960 961", "B r1 2100 2101"], [LOSS])).toEqual(
      [],
    );
  });

  const wrong: readonly (readonly [string, readonly Line[]])[] = [
    ["a write before the doubt", ["A w1 0 1", "A w2 500 501", "B r1 2100 2101"]],
    ["a write in doubt before the switch", ["A w1 0 1", "A w2 1500 1501", "B r1 1600 1601"]],
    ["a write after the switch", ["A w1 0 1", "A w2 2100 2101", "B r1 2200 2201"]],
    ["more than what was in doubt", ["A w1 0 1", "A w2 10 11", "A w3 1500 1501", "B r1 2100 2101"]],
  ];
  it.each(wrong)("not to be missed: %s", (_, lines) => {
    expect(broken(lines, [LOSS])).toContain("recent");
  });

  it("are what the proxy reports: none when nothing was lost, everything when it does not know", () => {
    const at = { wallMs: 12_000 };
    const answered = [500, 1_900, 2_500];
    expect(lossesOf([{ ...at, lostBytes: 0, doubtMs: 100 }], 10_000, answered)).toEqual([]);
    expect(lossesOf([{ ...at, lostBytes: 9, doubtMs: 100 }], 10_000, answered)).toEqual([
      { fromMs: 1_800 - SLACK_MS, atMs: 2_000 },
    ]);
    expect(lossesOf([{ ...at, lostBytes: null, doubtMs: null }], 10_000, answered)).toEqual([
      { fromMs: Number.NEGATIVE_INFINITY, atMs: 2_000 },
    ]);
  });
});

describe("what a reply says", () => {
  const key = (type: Key["type"], name = `${type}:0`): Key => ({ id: 0, name, type, owner: -1, taken: 0 });
  const read = (one: Key, reply: WireReply) => readOf(one).versions(reply)[0];

  it("a value names its write, and another key's value is no value of this one", () => {
    const one = key("string");
    expect(read(one, textOf(one, 3, 17))).toBe(17);
    expect(read(one, null)).toBe(NOTHING);
    expect(read(one, textOf(key("string", "string:1"), 3, 17))).toBeNull();
    expect(read(one, "OK")).toBeNull();
    expect(read(one, 17)).toBeNull();
  });

  it("what the server counts is its own version", () => {
    expect(read(key("counter"), "17")).toBe(17);
    expect(read(key("counter"), null)).toBe(NOTHING);
    expect(read(key("counter"), "x")).toBeNull();
    expect(read(key("list"), 0)).toBe(NOTHING);
    expect(read(key("list"), 17)).toBe(17);
  });

  it("each write has a version of its own, whatever it is written with", () => {
    const random = randomFrom(1);
    const [one, other] = [key("string"), key("string", "string:1")];
    const seen = new Set<number>();
    const ways = new Set<string>();
    for (let i = 0; i < 500; i++) {
      const action = writeOf([one, other], 0, random);
      ways.add(`${action.commands.length} ${action.commands[0]?.[0]}`);
      const versions = action.effects.filter((effect) => effect.key === one).map(({ version }) => version);
      expect(versions).toHaveLength(1);
      for (const version of versions) {
        expect(seen.has(version)).toBe(false);
        seen.add(version);
      }
    }
    expect([...ways].sort()).toEqual(["1 DEL", "1 EVAL", "1 MSET", "1 SET", "4 MULTI"]);
  });
});

// Registers

const OPTIONAL: readonly Outcome[] = ["uncertain", "open"];

interface Step {
  readonly version: number;
  readonly isRead: boolean;
  readonly call: number;
  readonly end: number;
  readonly isOptional: boolean;
}

/** Tries every order. */
function hasOrder(steps: readonly Step[], value = 0): boolean {
  if (steps.every(({ isOptional }) => isOptional)) return true;
  const firstEnd = Math.min(...steps.map(({ isOptional, end }) => (isOptional ? Infinity : end)));
  return steps.some((step, i) => {
    if (step.call > firstEnd || (step.isRead && step.version !== value)) return false;
    return hasOrder(steps.toSpliced(i, 1), step.version);
  });
}

function stepsOf(history: History): Step[] {
  return Array.from({ length: history.length }, (_, i) => history.at(i)).map((one) => ({
    version: one.version === NOTHING ? 0 : one.version,
    isRead: one.kind === "read",
    call: one.callMs,
    end: one.returnMs,
    isOptional: OPTIONAL.includes(one.outcome),
  }));
}

function isLinear(lines: readonly Line[], losses: readonly Loss[] = []): boolean {
  return checkLinear(historyOf(lines, "register"), losses).violations === 0;
}

describe("registers", () => {
  const right: readonly (readonly [string, readonly Line[]])[] = [
    ["one after the other", ["A w1 0 1", "B r1 2 3", "B w2 4 5", "A r2 6 7"]],
    ["two writes at once, either last", ["A w1 0 9", "B w2 0 9", "C r1 10 11", "C r1 12 13"]],
    ["a read beside a write, then the write", ["A w1 0 9", "B rn 1 2", "C r1 3 4", "B r1 5 6"]],
    ["an uncertain write, late", ["A w1 0 1", "B w2 2 3 uncertain", "C r1 4 5", "C r2 6 7"]],
    ["an uncertain write, never", ["A w1 0 1", "B w2 2 3 uncertain", "C r1 4 5"]],
  ];
  it.each(right)("right: %s", (_, lines) => {
    expect(isLinear(lines)).toBe(true);
  });

  const wrong: readonly (readonly [string, readonly Line[]])[] = [
    ["an answered write missed", ["A w1 0 1", "B w2 2 3", "C r1 4 5"]],
    ["to and fro", ["A w1 0 9", "B w2 0 9", "C r1 10 11", "C r2 12 13"]],
    ["two readers disagree", ["A w1 0 20", "B w2 0 20", "C r1 1 2", "C r2 3 4", "A r2 5 6", "B r1 7 8"]],
    ["seen, then gone", ["A w1 0 9", "B r1 1 2", "C rn 3 4"]],
    ["before it was written", ["A r1 0 1", "B w1 2 3"]],
    ["an uncertain write un-read", ["A w1 0 1", "B w2 2 3 uncertain", "C r2 4 5", "C r1 6 7"]],
    ["a refused write", ["A w1 0 1 error", "B r1 2 3"]],
  ];
  it.each(wrong)("wrong: %s", (_, lines) => {
    expect(isLinear(lines)).toBe(false);
  });

  it("agrees with trying every order, on small histories of any kind", () => {
    const ends = fc.uniqueArray(fc.integer({ min: 0, max: 60 }), { minLength: 14, maxLength: 14 });
    const what = fc.record({
      session: fc.nat(2),
      isRead: fc.boolean(),
      sees: fc.integer({ min: 0, max: 3 }),
      isUncertain: fc.boolean(),
    });
    const answers = { right: 0, wrong: 0 };
    fc.assert(
      fc.property(ends, fc.array(what, { minLength: 1, maxLength: 7 }), (moments, list) => {
        const spans = list.map((one, i) => {
          const [a, b] = [moments[2 * i]!, moments[2 * i + 1]!];
          return { ...one, call: Math.min(a, b), end: Math.max(a, b) };
        });
        const history = new History();
        for (const name of SESSIONS) history.addSession(name);
        history.addKey("k", "register");
        let version = 0;
        for (const { session, isRead, sees, isUncertain, call, end } of spans) {
          const seen = isRead ? sees || NOTHING : ++version;
          const index = history.call(session, 0, isRead ? "read" : "write", seen, call);
          finish(history, index, isUncertain && !isRead ? "uncertain" : "ok", end);
        }
        const expected = hasOrder(stepsOf(history));
        answers[expected ? "right" : "wrong"]++;
        expect(checkLinear(history).violations === 0).toBe(expected);
      }),
      { numRuns: 20_000 },
    );
    expect(answers.right, "of both kinds enough").toBeGreaterThan(1_000);
    expect(answers.wrong).toBeGreaterThan(1_000);
  });

  describe("with a loss", () => {
    const LOSS: Loss = { fromMs: 1_000, atMs: 2_000 };
    const [w1, w2] = ["A w1 0 1", "B w2 1500 1501"];

    it("a value may come back once, when what followed it was in doubt", () => {
      expect(isLinear([w1, w2, "C r2 1600 1601", "C r1 2100 2101", "A r1 2102 2103"], [LOSS])).toBe(true);
      expect(
        isLinear([w1, w2, "C r2 1600 1601", "C r1 2100 2101", "A w3 2200 2201", "C r3 2300 2301"], [LOSS]),
      ).toBe(true);
      expect(isLinear([w1, w2, "C r2 1600 1601", "C r1 2100 2101"])).toBe(false);
    });

    const not: readonly (readonly [string, readonly Line[]])[] = [
      ["before the switch", [w1, w2, "C r1 1600 1601", "C r1 2100 2101"]],
      ["when what followed was not in doubt", [w1, "B w2 500 501", "C r1 2100 2101"]],
      ["and go again", [w1, w2, "C r1 2100 2101", "C r2 2200 2201"]],
      ["after another write", [w1, w2, "A w3 2100 2101", "C r1 2200 2201"]],
    ];
    it.each(not)("but not %s", (_, lines) => {
      expect(isLinear(lines, [LOSS])).toBe(false);
    });
  });
});
