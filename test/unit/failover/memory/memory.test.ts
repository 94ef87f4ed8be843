import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  beliefOf,
  type GroupMemory,
  isDifferent,
  isMemoryOf,
  MAX_MEMORY_TEXT,
  memoryOf,
  readMemory,
  writeMemory,
} from "../../../../src/failover/memory/memory.ts";
import { FIRST_BELIEF, MAX_INSTANCES, MAX_REFUSED_CLAIMS } from "../../../../src/topology/rules/model.ts";
import { MAX_RENOUNCED, renounce } from "../../../../src/topology/rules/renounced.ts";
import { at, hex, master, replica, Story, wellGroup } from "../../topology/nodes.ts";

const SEEDS = [at("a"), at("b"), at("c")];
const WALL_MS = 1_700_000_000_000;

function memory(over: Partial<GroupMemory> = {}): GroupMemory {
  const story = wellGroup();
  const found = memoryOf(story.belief, story.views, SEEDS, WALL_MS);
  if (found === null) throw new Error("no memory");
  return { ...found, ...over };
}

/** A story told by a proxy that was restarted. */
function restarted(told: GroupMemory): Story {
  const story = new Story();
  story.belief = beliefOf(told);
  return story;
}

/** The text with one field replaced. */
function textWith(path: string, value: unknown): string {
  const plain = JSON.parse(writeMemory(memory())) as Record<string, unknown>;
  const [first = "", second] = path.split(".");
  if (second === undefined) plain[first] = value;
  else (plain[first] as Record<string, unknown>)[second] = value;
  return JSON.stringify(plain);
}

describe("what is remembered", () => {
  it("is nothing before the first master", () => {
    expect(memoryOf(FIRST_BELIEF, [], SEEDS, WALL_MS)).toBeNull();
  });

  it("is the master's history and who was in the group", () => {
    expect(memory()).toEqual({
      version: 1,
      seeds: SEEDS,
      epoch: 1,
      master: {
        id: at("a"),
        runId: hex("a"),
        replid: hex("H1"),
        lastSeenOffset: 100,
        keys: 5,
        forkedFrom: null,
      },
      instances: [hex("a"), hex("b"), hex("c")],
      refusedClaims: [],
      renounced: [],
      members: SEEDS,
      savedAtMs: WALL_MS,
    });
  });

  it("leaves out strangers among the addresses", () => {
    const story = wellGroup();
    story.round(master("x", { replid: "X" }));
    expect(memoryOf(story.belief, story.views, SEEDS, WALL_MS)?.members).toEqual(SEEDS);
  });

  it("is different when an offset moved, not when only time passed", () => {
    const before = memory();
    expect(isDifferent(null, before)).toBe(true);
    expect(isDifferent(before, memory({ savedAtMs: WALL_MS + 1_000 }))).toBe(false);
    const moved = memory({ master: { ...before.master, lastSeenOffset: 101 } });
    expect(isDifferent(before, moved)).toBe(true);
  });

  it("belongs to a group of which one node was configured, or a member, then", () => {
    expect(isMemoryOf(memory(), [at("c"), at("z")])).toBe(true);
    expect(isMemoryOf(memory({ seeds: [at("a")], members: [at("b")] }), [at("b")])).toBe(true);
    expect(isMemoryOf(memory(), [at("z")])).toBe(false);
    expect(isMemoryOf(memory(), [])).toBe(false);
    expect(isMemoryOf(memory({ seeds: [] }), [])).toBe(true);
  });
});

describe("the text", () => {
  it("brings back what was written", () => {
    const forked = memory();
    const told = memory({
      master: { ...forked.master, forkedFrom: { replid: hex("H0"), offset: 90 } },
      refusedClaims: [`${hex("x")}:${hex("X")}`],
      renounced: [{ runId: hex("b"), offset: 100 }],
    });
    expect(readMemory(writeMemory(told))).toEqual({ ok: true, memory: told });
  });

  it("of a version that did not keep orders that were given up has none", () => {
    expect(readMemory(textWith("renounced", undefined))).toEqual({ ok: true, memory: memory() });
  });

  it("of the largest memory there can be is within its bound", () => {
    const claim = `${hex("x")}:${hex("X")}`;
    const address = at("h".repeat(240));
    const largest = memory({
      seeds: Array.from({ length: 256 }, () => address),
      members: Array.from({ length: 256 }, () => address),
      instances: Array.from({ length: MAX_INSTANCES }, () => hex("i")),
      refusedClaims: Array.from({ length: MAX_REFUSED_CLAIMS }, () => claim),
      renounced: Array.from({ length: MAX_RENOUNCED }, () => ({ runId: hex("r"), offset: 2 ** 52 })),
    });
    const text = writeMemory(largest);
    expect(text.length).toBeLessThan(MAX_MEMORY_TEXT);
    expect(readMemory(text)).toEqual({ ok: true, memory: largest });
  });

  it.each([
    ["not JSON", "it is not JSON"],
    ["", "it is not JSON"],
    ["[]", "it is a list, not an object"],
    ["null", "it is null, not an object"],
    ["{}", "its version is missing, not 1"],
    [" ".repeat(MAX_MEMORY_TEXT + 1), `it has ${MAX_MEMORY_TEXT + 1} characters`],
    [textWith("version", 2), "its version is 2, not 1"],
    [textWith("epoch", 0), "epoch is 0"],
    [textWith("epoch", 1.5), "epoch is 1.5"],
    [textWith("epoch", "1"), 'epoch is "1"'],
    [textWith("savedAtMs", 2 ** 53), "savedAtMs is 9007199254740992"],
    [textWith("seeds", "a:1"), 'seeds is "a:1", not a list'],
    [textWith("seeds", ["a:6379", "nonsense"]), 'seeds[1] is "nonsense"'],
    [textWith("seeds", ["A:6379"]), 'seeds[0] is "A:6379"'],
    [textWith("members", Array(257).fill("a:1")), "members has 257 items, more than 256"],
    [textWith("instances", [1]), "instances[0] is 1"],
    [textWith("instances", ["ab"]), 'instances[0] is "ab"'],
    [textWith("refusedClaims", [hex("a")]), `refusedClaims[0] is "${hex("a")}"`],
    [textWith("renounced", Array(65).fill({})), "renounced has 65 items, more than 64"],
    [textWith("renounced", [{ runId: hex("b") }]), "renounced[0].offset is missing"],
    [textWith("renounced", [{ runId: "b", offset: 1 }]), 'renounced[0].runId is "b"'],
    [textWith("renounced", "b"), 'renounced is "b", not a list'],
    [textWith("master", null), "master is null, not an object"],
    [textWith("master.id", "a"), 'master.id is "a"'],
    [textWith("master.runId", undefined), "master.runId is missing"],
    [textWith("master.replid", {}), "master.replid is object"],
    [textWith("master.lastSeenOffset", -1), "master.lastSeenOffset is -1"],
    [textWith("master.keys", null), "master.keys is null"],
    [textWith("master.forkedFrom", undefined), "master.forkedFrom is missing, not an object"],
    [textWith("master.forkedFrom", { replid: "x", offset: 1 }), 'master.forkedFrom.replid is "x"'],
  ])("%.40s is refused: %s", (text, error) => {
    expect(readMemory(text)).toEqual({ ok: false, error });
  });

  it("never throws, whatever stands there", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        expect(readMemory(text).ok).toBe(false);
      }),
    );
    const paths = [
      "version",
      "seeds",
      "epoch",
      "master",
      "instances",
      "refusedClaims",
      "renounced",
      "members",
      "savedAtMs",
    ];
    const inner = ["id", "runId", "replid", "lastSeenOffset", "keys", "forkedFrom"].map(
      (key) => `master.${key}`,
    );
    fc.assert(
      fc.property(fc.constantFrom(...paths, ...inner), fc.jsonValue(), (path, value) => {
        const result = readMemory(textWith(path, value));
        if (result.ok) expect(beliefOf(result.memory).epoch.master).toBe(result.memory.master.id);
      }),
    );
  });
});

describe("a restarted proxy", () => {
  it("holds writes until the remembered master has answered (51)", () => {
    const story = restarted(memory());
    expect(story.epoch).toMatchObject({
      number: 1,
      master: at("a"),
      holdCause: "no-master-yet",
      readable: [],
    });
    story.round(story.failing("a", "never"), replica("b"), story.failing("c", "never"));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: "no-master-yet" });
    expect(story.problems).toEqual([]);
    const decision = story.round(master("a", { appliedOffset: 120 }), replica("b"), replica("c"));
    expect(decision.change).toBeNull();
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
  });

  it("refuses a master that came back empty meanwhile, as one that was never away would (41)", () => {
    const story = restarted(memory());
    story.round(
      master("a", { run: "a2", replid: "NEW", keys: 0 }),
      replica("b"),
      story.failing("c", "unreachable"),
    );
    expect(story.epoch).toMatchObject({ master: at("a"), holdCause: "history-refused" });
    expect(story.problems).toContain("history-refused a");
    // Its replicas copying the emptiness changes nothing.
    story.round(
      master("a", { run: "a2", replid: "NEW", keys: 0 }),
      replica("b", { replid: "NEW", keys: 0 }),
      replica("c", { replid: "NEW", keys: 0 }),
    );
    expect(story.epoch).toMatchObject({ holdCause: "history-refused" });
    // Without a memory that is the first master there is.
    const forgetful = new Story();
    forgetful.round(
      master("a", { run: "a2", replid: "NEW", keys: 0 }),
      replica("b", { replid: "NEW", keys: 0 }),
    );
    expect(forgetful.epoch).toMatchObject({ master: at("a"), holdCause: null });
  });

  it("refuses one that was rolled back (41)", () => {
    const story = restarted(memory());
    const rolledBack = { run: "a2", replid: "NEW", replid2: "H1", secondReplOffset: 51 };
    story.round(master("a", rolledBack), replica("b"), replica("c"));
    expect(story.epoch).toMatchObject({ holdCause: "history-refused" });
    const whole = { ...rolledBack, secondReplOffset: 101 };
    story.round(master("a", whole), replica("b"), replica("c"));
    expect(story.epoch).toMatchObject({ number: 1, holdCause: null });
  });

  it("accepts the successor that was promoted meanwhile, by what it knows of it (12)", () => {
    const story = restarted(memory());
    const promoted = { replid: "H2", replid2: "H1", secondReplOffset: 111 };
    const decision = story.round(
      story.failing("a", "unreachable"),
      master("b", promoted),
      replica("c", { of: "b", replid: "H2" }),
    );
    expect(decision.change).toMatchObject({ kind: "switch", from: at("a"), to: at("b"), reason: "promoted" });
    expect(story.epoch).toMatchObject({ number: 2, master: at("b"), holdCause: null });
  });

  it("does not take a stranger while the remembered master is still to be heard", () => {
    const story = restarted(memory());
    const complete = { run: "stranger", replid: "H2", replid2: "H1", secondReplOffset: 101 };
    story.round(story.failing("a", "never"), master("b", complete), replica("c"));
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: "no-master-yet" });
    story.round(master("a"), master("b", complete), replica("c"));
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    expect(story.problems).toEqual(["claimant-refused b"]);
  });

  it("refuses one that was told to become the master in vain and obeys late: it would lose what was written since", () => {
    const before = wellGroup();
    before.belief = renounce(before.belief, before.views, at("b"));
    before.round(master("a", { masterReplOffset: 300 }), before.failing("b", "silent"), replica("c"));
    const told = readMemory(writeMemory(memoryOf(before.belief, before.views, SEEDS, WALL_MS) ?? memory()));
    const story = restarted(told.ok ? told.memory : memory());
    const late = { replid: "H2", replid2: "H1", secondReplOffset: 101 };
    story.round(story.failing("a", "unreachable"), master("b", late), replica("c", { linkUp: false }));
    expect(story.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: "connection-lost" });
    expect(story.problems).toEqual(["claimant-refused b"]);
  });

  it("forgets those that have followed since, or were accepted after all", () => {
    const before = wellGroup();
    before.belief = renounce(before.belief, before.views, at("b"));
    const story = restarted(memoryOf(before.belief, before.views, SEEDS, WALL_MS) ?? memory());
    expect([...story.belief.renounced.keys()]).toEqual([hex("b")]);
    story.round(master("a", { masterReplOffset: 300 }), replica("b", { appliedOffset: 300 }), replica("c"));
    expect(story.belief.renounced.size).toBe(0);
    story.belief = renounce(story.belief, story.views, at("b"));
    const late = { replid: "H2", replid2: "H1", secondReplOffset: 301 };
    story.round(story.failing("a", "unreachable"), master("b", late), replica("c", { linkUp: false }));
    expect(story.epoch).toMatchObject({ master: at("b"), holdCause: null });
    expect(story.belief.renounced.size).toBe(0);
  });

  it("knows no time of before: nothing is proven until the master is sampled again (7)", () => {
    const { master: remembered, proofs, gone } = beliefOf(memory());
    expect(remembered?.samples).toEqual([]);
    expect(proofs.size).toBe(0);
    expect(gone).toBeNull();
    const story = restarted(memory());
    story.round(master("a"), replica("b"), replica("c"));
    expect(story.epoch.readable.map(({ provenAtMs }) => provenAtMs)).toEqual([100, 100]);
  });
});
