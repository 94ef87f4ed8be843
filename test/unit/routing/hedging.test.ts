import { describe, expect, it } from "vitest";
import { HedgeBudget } from "../../../src/routing/hedging.ts";

/** How many can be sent now. */
function spendAll(budget: HedgeBudget): number {
  let sent = 0;
  for (; !budget.isSpent; sent++) budget.spend();
  return sent;
}

describe("reads that may be sent to a second node", () => {
  it("are a few at the start, and then one in ten", () => {
    const budget = new HedgeBudget();
    expect(spendAll(budget)).toBe(32);
    budget.earn(9);
    expect(spendAll(budget)).toBe(0);
    budget.earn(10);
    expect(spendAll(budget)).toBe(1);
    let sent = 0;
    for (let reads = 20; reads <= 1010; reads += 10) {
      budget.earn(reads);
      sent += spendAll(budget);
    }
    expect(sent).toBeGreaterThanOrEqual(99);
    expect(sent).toBeLessThanOrEqual(100);
  });

  it("are not saved up", () => {
    const budget = new HedgeBudget();
    budget.earn(1_000_000);
    expect(spendAll(budget)).toBe(32);
  });
});
