import { describe, expect, it } from "vitest";
import type { EvidenceKind } from "../../../src/topology/epoch.ts";
import { isBehind, judgeLag, type Lag } from "../../../src/topology/rules/fitness.ts";
import type { FitVerdict } from "../../../src/topology/rules/model.ts";
import { suspect } from "../../../src/topology/rules.ts";
import { at, master, replica, type Story, wellGroup } from "./nodes.ts";

const BOUNDS = { maxLagMs: 1_000, maxLagBytes: 1_000 };

/** So far behind; the least is two tenths of a second less, as between two looks. */
function lag(lagMs: number | null, lagBytes: number | null): Lag {
  return { lagMs, leastLagMs: Math.max(0, (lagMs ?? 0) - 200), lagBytes };
}

describe("lag makes a replica that was", () => {
  it.each<[FitVerdict, Lag, FitVerdict]>([
    ["fit", lag(0, 0), "fit"],
    ["fit", lag(1_000, 1_000), "fit"],
    ["fit", lag(1_001, 0), "lagging-time"],
    ["fit", lag(0, 1_001), "lagging-bytes"],
    ["fit", lag(1_001, 1_001), "lagging-time"],
    ["fit", lag(null, null), "lag-unknown"],
    // What kept it away was not its lag.
    ["unreachable", lag(1_000, 1_000), "fit"],
    ["link-down", lag(1_000, 1_000), "fit"],
    ["lagging-time", lag(1_000, 0), "catching-up"],
    ["lagging-time", lag(701, 0), "catching-up"],
    ["lagging-time", lag(700, 0), "fit"],
    ["lagging-time", lag(0, 501), "catching-up"],
    ["lagging-bytes", lag(0, 501), "catching-up"],
    ["lagging-bytes", lag(0, 500), "fit"],
    ["lagging-bytes", lag(701, 0), "catching-up"],
    ["lag-unknown", lag(900, 0), "catching-up"],
    ["catching-up", lag(900, 0), "catching-up"],
    ["catching-up", lag(0, 1_001), "lagging-bytes"],
    ["catching-up", lag(0, 0), "fit"],
  ])("%s and %j %s", (before, now, verdict) => {
    expect(judgeLag(now, before, BOUNDS)).toBe(verdict);
    expect(judgeLag(now, before, BOUNDS) === "fit" || isBehind(judgeLag(now, before, BOUNDS))).toBe(true);
  });

  it("any number of bytes behind stays fit without a bound for them", () => {
    const far = lag(0, Number.MAX_SAFE_INTEGER);
    expect(judgeLag(far, "fit", { maxLagMs: 1_000, maxLagBytes: 0 })).toBe("fit");
    expect(judgeLag(far, "lagging-time", { maxLagMs: 1_000 })).toBe("fit");
  });
});

describe("a replica", () => {
  it("that lacks more than reads.maxLagBytes is out at once and back at half of it (47)", () => {
    const story = wellGroup();
    story.maxLagBytes = 1_000;
    const behind = (bytes: number): string | undefined => {
      const word = { appliedOffset: 10_000 - bytes };
      story.round(master("a", { masterReplOffset: 10_000 }), replica("b", word));
      return story.belief.fitness.get(at("b"))?.verdict;
    };
    expect(behind(0)).toBe("fit");
    expect(behind(1_000)).toBe("fit");
    expect(behind(1_001)).toBe("lagging-bytes");
    expect(story.readers).not.toContain("b");
    expect(behind(900)).toBe("catching-up");
    expect(behind(501)).toBe("catching-up");
    expect(story.readers).not.toContain("b");
    expect(behind(500)).toBe("fit");
    expect(story.readers).toContain("b");
    expect(behind(900)).toBe("fit");
  });

  it("that is as slow as the bound does not come and go (47)", () => {
    const story = wellGroup();
    let changes = 0;
    let before = true;
    for (let i = 1; i <= 60; i++) {
      // It has what the master had 1000 ms ago, 100 ms more or less.
      const had = Math.max(0, i - 10 + (i % 2 === 0 ? 1 : -1));
      story.round(master("a", { masterReplOffset: 100 + i }), replica("b", { appliedOffset: 100 + had }));
      const isRead = story.readers.includes("b");
      if (isRead !== before) changes++;
      before = isRead;
    }
    expect(changes).toBe(1);
    expect(before).toBe(false);
  });

  it.each<EvidenceKind>(["connection-lost", "connect-failed", "loading", "link-down", "not-master"])(
    "is out at once when traffic says %s, and back when a later probe says that it is well (47)",
    (kind) => {
      const story = wellGroup();
      const evidence = { kind, node: at("b"), epoch: story.epoch.number };
      story.belief = suspect(story.belief, evidence, story.nowMs + 50);
      expect(story.readers).toEqual(["c"]);
      // Nothing new of it.
      story.round(master("a"), replica("c"));
      expect(story.readers).toEqual(["c"]);
      expect(story.belief.fitness.get(at("b"))?.verdict).toBe("suspected");
      story.round(master("a"), replica("b"), replica("c"));
      expect(story.readers).toEqual(["b", "c"]);
    },
  );
});

describe("an idle master", () => {
  it("proves its replicas all the same: the same offset, later (7)", () => {
    const story = wellGroup();
    const proofs = [];
    for (let i = 0; i < 3; i++) {
      story.round(master("a"), replica("b"), replica("c"));
      proofs.push(story.epoch.readable.map(({ provenAtMs }) => provenAtMs));
    }
    expect(proofs).toEqual([
      [300, 300],
      [400, 400],
      [500, 500],
    ]);
    expect(story.belief.master?.samples).toHaveLength(1);
  });

  it("proves a replica whose own report is older: it lacks nothing", () => {
    const story = wellGroup();
    story.round(master("a"));
    expect(story.epoch.readable).toEqual([
      { id: at("b"), provenAtMs: 300 },
      { id: at("c"), provenAtMs: 300 },
    ]);
  });
});

describe("a replica of a replica (49)", () => {
  /** c follows b; both had all of 150 bytes. */
  function chain(): Story {
    const story = wellGroup();
    story.round(
      master("a", { masterReplOffset: 150 }),
      replica("b", { appliedOffset: 150 }),
      replica("c", { of: "b", appliedOffset: 150 }),
    );
    return story;
  }
  const proofOf = (story: Story) => story.epoch.readable.find(({ id }) => id === at("c"))?.provenAtMs;

  it("is proven by the master's own offsets, which are those of the whole chain", () => {
    const story = chain();
    expect(proofOf(story)).toBe(300);
    story.round(
      master("a", { masterReplOffset: 200 }),
      replica("b", { appliedOffset: 200 }),
      replica("c", { of: "b", appliedOffset: 199 }),
    );
    expect(proofOf(story)).toBe(300);
  });

  it("proves nothing more and falls behind while the one before it has no link, though its own is up", () => {
    const story = chain();
    for (let i = 1; i <= 11; i++) {
      story.round(
        master("a", { masterReplOffset: 150 + i }),
        replica("b", { appliedOffset: 150, linkUp: false }),
        replica("c", { of: "b", appliedOffset: 150 }),
      );
      expect(story.belief.fitness.get(at("b"))?.verdict).toBe("link-down");
      expect(proofOf(story)).toBe(i <= 10 ? 300 : undefined);
    }
    expect(story.belief.fitness.get(at("c"))?.verdict).toBe("lagging-time");
  });

  it("is not read while its own link is down", () => {
    const story = chain();
    story.round(replica("c", { of: "b", appliedOffset: 150, linkUp: false }));
    expect(story.belief.fitness.get(at("c"))?.verdict).toBe("link-down");
  });
});
