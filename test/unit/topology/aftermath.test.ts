import { describe, expect, it } from "vitest";
import { type Aftermath, aftermathOf, followAftermath } from "../../../src/topology/rules/aftermath.ts";
import type { NodeView } from "../../../src/topology/rules/model.ts";
import { at, hex, master, replicaReport, report, view, wellGroup } from "./nodes.ts";

const AFTER: Aftermath = {
  ...{ node: at("a"), runId: hex("a"), replid: hex("H1") },
  ...{ endOffset: 100, lostBytes: 20, epochNumber: 2 },
};

const says = (word: Parameters<typeof report>[2]): NodeView[] => [view(report("a", 500, word))];

describe("what a former master still takes (16)", () => {
  it.each<[string, readonly NodeView[], number | null]>([
    ["counts as lost", says({ masterReplOffset: 180 }), 80],
    ["is never less than was known", says({ masterReplOffset: 110 }), 20],
    ["ends when it is a replica", [view(replicaReport("a", 500, { of: "b", replid: "H2" }))], null],
    ["ends when it was restarted", says({ run: "a2", masterReplOffset: 180 }), null],
    ["ends when it has another history", says({ replid: "H9", masterReplOffset: 180 }), null],
    ["ends when it cannot be asked", [view(report("a", 500, {}), "unreachable")], null],
    ["ends when it is not watched", [], null],
  ])("%s", (_, views, lost) => {
    expect(followAftermath(AFTER, views)?.lostBytes ?? null).toBe(lost);
  });

  it("is followed after a promotion beside it, from where its history was left", () => {
    const story = wellGroup();
    const before = story.belief;
    const { change } = story.round(
      master("a", { masterReplOffset: 130 }),
      master("b", { replid: "H2", replid2: "H1", secondReplOffset: 101, masterReplOffset: 105 }),
    );
    if (change === null) throw new Error("no switch");
    const begun = aftermathOf(before, story.belief, change, story.views);
    expect(begun).toMatchObject({ node: at("a"), replid: hex("H1"), endOffset: 100, lostBytes: 30 });
    const gone = story.views.map((one) => ({ ...one, contact: "unreachable" as const }));
    expect(aftermathOf(before, story.belief, change, gone)).toBeNull();
  });
});
