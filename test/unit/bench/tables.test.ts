import { describe, expect, it } from "vitest";
import type { Figures } from "../../../bench/failover/measure.ts";
import { type Outcome, resultTable, verdictsOf, verdictTable } from "../../../bench/failover/tables.ts";

const FIGURES: Figures = {
  disconnects: 0,
  errors: {},
  uncertain: 0,
  writeGapMs: 30,
  systemWriteGapMs: 10,
  boundGapMs: 20,
  readGapMs: 12,
  lost: 0,
  lostAfterMs: 0,
  stale: 0,
  unexplained: 0,
  stallsMs: [],
};

const outcome = (system: Outcome["system"], figures: Partial<Figures>): Outcome => ({
  scenario: "restart",
  system,
  figures: { ...FIGURES, ...figures },
});
const BROKE_OFF: Outcome = { scenario: "restart", system: "holdfast", failure: "no port" };

/** The cells of the line for one system. */
function lineOf(table: string, system: string): string[] {
  const line = table.split("\n").find((one) => one.includes(`| ${system} `));
  return (line ?? "").split("|").map((cell) => cell.trim());
}

describe("the table of results", () => {
  it("has medians, also of errors by their kind", () => {
    const outcomes = [1, 2, 9].map((lost) => outcome("haproxy", { lost, errors: { READONLY: 10 * lost } }));
    const line = lineOf(resultTable(outcomes, ["restart"], ["haproxy"]), "HAProxy");
    expect(line).toContain("20 READONLY");
    expect(line).toContain("2");
    expect(line).toContain("30 ms");
  });

  it("leaves out an error that most runs did not have", () => {
    const outcomes = [0, 0, 9].map((count) => outcome("holdfast", { errors: { UNCERTAIN: count } }));
    expect(lineOf(resultTable(outcomes, ["restart"], ["holdfast"]), "**Holdfast**")).toContain("none");
  });

  it("tells systems without a part in the scenario from one whose runs broke off", () => {
    const brokeOff: Outcome = { ...BROKE_OFF, scenario: "self-crash" };
    const text = resultTable([brokeOff], ["self-crash"], ["direct", "haproxy", "holdfast"]);
    const absent = lineOf(text, "ioredis, Sentinel; HAProxy");
    expect(new Set(absent.slice(3, -1))).toEqual(new Set(["–"]));
    expect(lineOf(text, "**Holdfast**")).toContain("broke off");
  });

  it("names a scenario in the first of its lines only", () => {
    const text = resultTable([], ["restart", "planned"], ["haproxy", "holdfast"]);
    const titles = text.split("\n").map((line) => line.split("|")[1]?.trim());
    expect(titles.slice(2)).toEqual(["same master restarts", "", "planned switch", ""]);
  });
});

describe("the table of bounds", () => {
  const textOf = (...outcomes: Outcome[]): string => verdictTable(verdictsOf(outcomes, ["restart"]));

  it("is about Holdfast only", () => {
    expect(verdictsOf([outcome("haproxy", { disconnects: 40 })], ["restart"])).toEqual([]);
  });

  it("says met where every run kept every bound", () => {
    expect(textOf(outcome("holdfast", {}), outcome("holdfast", {}))).toMatch(/\| met +\|$/);
  });

  it("shows in bold what one run of several missed", () => {
    const text = textOf(outcome("holdfast", {}), outcome("holdfast", { disconnects: 2 }));
    expect(text).toContain("**2** (0)");
    expect(text).toMatch(/\*\*missed\*\* \|$/);
  });

  it("counts a run that broke off as missed, and says why", () => {
    const text = textOf(outcome("holdfast", {}), BROKE_OFF);
    expect(text).toContain("**missed**");
    expect(text).toContain("broke off: no port");
  });
});
