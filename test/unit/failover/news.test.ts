import { describe, expect, it } from "vitest";
import { FailoverNews } from "../../../src/failover/news.ts";
import { Counters } from "../../../src/metrics.ts";
import { at } from "../topology/nodes.ts";

function news() {
  const lines: string[] = [];
  const counters = new Counters();
  let nowMs = 0;
  const line = (level: string) => (fields: object) =>
    void lines.push(`${level} ${Reflect.get(fields, "what")}`);
  const log = { debug: line("debug"), info: line("info"), warn: line("warn") };
  const one = new FailoverNews(log, counters, () => nowMs);
  const pass = (ms: number): void => {
    nowMs += ms;
  };
  return { one, lines, counters, pass };
}

describe("the log of the failover machine", () => {
  it("has what goes as it should as info, and what somebody may have to look at as a warning", () => {
    const { one, lines } = news();
    one.tell("master-suspected", at("a"), "");
    one.tell("promoting", at("b"), "");
    one.tell("promotion-failed", at("b"), "");
    one.tell("promoting", at("c"), "");
    one.tell("promoted", at("c"), "");
    one.tell("switchover-begun", at("b"), "");
    one.tell("switchover-rolled-back", at("b"), "");
    expect(lines).toEqual([
      ...["warn master-suspected", "info promoting", "warn promotion-failed", "info promoting"],
      ...["info promoted", "info switchover-begun", "warn switchover-rolled-back"],
    ]);
  });

  it("says a node's same refusal once a minute, and counts each", () => {
    const { one, lines, counters, pass } = news();
    for (let second = 0; second < 90; second++) {
      one.tell("promoting", at("b"), "the master is crashed");
      one.tell("promotion-failed", at("b"), "NOPERM");
      pass(1_000);
    }
    expect(lines.filter((line) => !line.startsWith("debug"))).toEqual([
      ...["info promoting", "warn promotion-failed", "info promoting", "warn promotion-failed"],
    ]);
    expect(counters.promotions).toEqual({ done: 0, failed: 90 });
    one.tell("promotion-failed", at("b"), "another reason");
    expect(lines.at(-1)).toBe("warn promotion-failed");
  });

  it("says everything of two switches and two promotions in the same words", () => {
    const { one, lines } = news();
    for (let round = 0; round < 2; round++) {
      one.tell("promoting", at("b"), "the master is crashed");
      one.tell("promoted", at("b"), "");
      one.tell("repointing", at("c"), "to follow b");
      one.tell("repointed", at("c"), "it follows b");
      one.tell("switchover-begun", at("a"), "from b via failover");
      one.tell("switchover-done", at("a"), "from b via failover");
    }
    expect(lines.filter((line) => line.startsWith("debug"))).toEqual([]);
    expect(lines).toHaveLength(12);
  });

  it("forgets old words, so that it stays small", () => {
    const { one, lines } = news();
    for (let i = 0; i < 300; i++) one.tell("repointing", at("b"), `${i}`);
    one.tell("repointing", at("b"), "0");
    expect(lines.at(-1)).toBe("info repointing");
    one.tell("repointing", at("b"), "299");
    expect(lines.at(-1)).toBe("debug repointing");
  });
});

describe("the counters of the failover machine", () => {
  it("count promotions, nodes that follow, and planned switches with how long writes stood still", () => {
    const { one, counters } = news();
    one.tell("promoted", at("b"), "");
    one.tell("repointing", at("c"), "");
    one.tell("repointed", at("c"), "");
    const report = { from: at("a"), to: at("b"), via: "failover", lostBytes: 0, repointed: [] } as const;
    one.onAnswer({ kind: "done", report: { ...report, stallMs: 40 } });
    one.onAnswer({ kind: "done", report: { ...report, stallMs: 20 } });
    one.onAnswer({ kind: "refused", reason: "" });
    one.onAnswer({ kind: "rolled-back", reason: "" });
    one.onAnswer({ kind: "open", reason: "" });
    expect(counters.promotions).toEqual({ done: 1, failed: 0 });
    expect(counters.repointed).toBe(1);
    expect(counters.switchovers).toEqual({ done: 2, refused: 1, rolled_back: 1, open: 1 });
    expect(counters.switchoverStallSeconds).toBeCloseTo(0.06);
    expect(counters.switchoverStallSecondsMax).toBeCloseTo(0.04);
  });
});
