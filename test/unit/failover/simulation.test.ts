/**
 * The real watcher and the real failover driver in a world of model nodes, one seed after another.
 *
 *   HOLDFAST_SEED=N HOLDFAST_TRACE=1   one seed again, with all that happened
 *   HOLDFAST_SEEDS=N                   so many seeds
 */
import { describe, expect, it, vi } from "vitest";
import type { chooseCandidate } from "../../../src/failover/candidate.ts";
import type { GroupSight } from "../../../src/topology/watcher.ts";
import { type Faulty, SOUND } from "./sim/faulty.ts";
import { CRASH_GRACE_MS, DOWN_AFTER_MS, type Outcome, play } from "./sim/world.ts";

const FIXED = Number(process.env.HOLDFAST_SEEDS ?? 2_000);
const ONE = process.env.HOLDFAST_SEED === undefined ? null : Number(process.env.HOLDFAST_SEED);
/** Seeds that nobody chose, too: those of this run. */
const FREE_FROM = 1_000_000 + (Date.now() % 1_000_000);
const FREE = Math.ceil(FIXED / 20);
const TAIL_LINES = 60;

/** Rules of the machine's own that are broken now. */
const broken = vi.hoisted(() => ({ history: false, priority: false }));

vi.mock("../../../src/failover/candidate.ts", async (original) => {
  const real = await original<{ chooseCandidate: typeof chooseCandidate }>();
  const choose: typeof chooseCandidate = (group, since, excluded) =>
    real.chooseCandidate(disguised(group), since, excluded);
  return { ...real, chooseCandidate: choose };
});

function disguised(group: GroupSight): GroupSight {
  if (!broken.history && !broken.priority) return group;
  const nodes = group.nodes.map((view) => {
    if (view.report === null) return view;
    const replid = broken.history ? (group.master?.replid ?? "") : view.report.replid;
    const priority = broken.priority ? 100 : view.report.priority;
    return { ...view, report: { ...view.report, replid, priority } };
  });
  return { ...group, nodes };
}

/** What must have happened somewhere, or the simulation proves little. */
const MUST_HAPPEN = [
  ...["answer done", "answer open", "answer refused", "answer rolled-back"],
  ...["told promoting", "told promotion-failed", "told repointing", "told master-recovered"],
  ...["command failover", "command abort-failover", "command pause-writes", "command unpause"],
  ...["command promote", "command follow", "command acknowledge", "command keep-role"],
  ...["result done", "result refused", "result unreachable", "result unknown"],
  ...["accepted promoted", "accepted restarted", "accepted unanimous"],
  ...["problem claimant-refused", "problem history-refused", "problem no-common-truth", "problem stalled"],
  ...["obstacle no-candidate", "uncertain", "loss reported", "loss unknown", "well in the end"],
  ...["switches that lost something", "reads from a replica", "disturbed commands", "disturbed masters"],
  ...["restart data", "restart empty", "restart rolled-back", "promoted by the operator"],
  ...["clean-crash", "clean-hang"],
];

/** Clean plots: how long there may be no master at most, ms. */
const LONGEST_MS: Partial<Record<Outcome["plot"], number>> = {
  "clean-crash": CRASH_GRACE_MS + 200,
  "clean-hang": DOWN_AFTER_MS + 300,
};

function faultsOf({ violations, plot, gapMs }: Outcome): string[] {
  const longestMs = LONGEST_MS[plot] ?? Number.POSITIVE_INFINITY;
  const isLate = gapMs > longestMs;
  return [...violations, ...(isLate ? [`${plot}: no master for ${gapMs} ms`] : [])];
}

function describeFailure(outcome: Outcome): string {
  const { seed, mode, plot, lines } = outcome;
  const faults = faultsOf(outcome).slice(0, 5).join("\n");
  return `HOLDFAST_SEED=${seed} (${mode}, ${plot})\n${lines.slice(-TAIL_LINES).join("\n")}\n${faults}`;
}

async function playAll(from: number, count: number, counts: Map<string, number>): Promise<void> {
  for (let seed = from; seed < from + count; seed++) {
    const outcome = await play(seed);
    for (const [what, times] of outcome.counts) counts.set(what, (counts.get(what) ?? 0) + times);
    if (faultsOf(outcome).length > 0) expect.fail(describeFailure(outcome));
  }
}

describe.runIf(ONE !== null)("one seed", () => {
  it(`seed ${ONE}`, async () => {
    const outcome = await play(ONE ?? 0);
    if (process.env.HOLDFAST_TRACE !== undefined) process.stdout.write(`${outcome.lines.join("\n")}\n`);
    expect(faultsOf(outcome)).toEqual([]);
  });
});

describe.runIf(ONE === null)("in a world where anything fails at any time", () => {
  const counts = new Map<string, number>();

  it(`no promise is broken by ${FIXED} seeds (12, 16, 37 to 43)`, () => playAll(1, FIXED, counts), 300_000);

  it(`nor by ${FREE} that nobody chose, from ${FREE_FROM}`, () => playAll(FREE_FROM, FREE, counts), 60_000);

  it.runIf(FIXED >= 1_000)("all of it really happened", () => {
    expect(MUST_HAPPEN.filter((what) => !counts.has(what))).toEqual([]);
  });

  it("the same seed is the same world", async () => {
    const one = await play(7);
    expect((await play(7)).lines).toEqual(one.lines);
    expect(one.lines.length).toBeGreaterThan(10);
  });
});

const MUTATIONS: readonly (readonly [rule: string, broken: Partial<Faulty>, found: RegExp])[] = [
  ["sends what may have run again", { resendsUncertain: true }, /ran 2 times/],
  ["does not hold writes while it switches", { neverHolds: true }, /lost|while writes go on/],
  ["lets writes go before the switch is verified", { releasesEarly: true }, /lost|while writes go on/],
  ["forgets to end a hold", { forgetsRelease: true }, /not well again/],
  ["reads replicas that have not applied it", { readsUnproven: true }, /was read and does not have/],
  ["promotes whatever history a node has", { ignoresHistory: true }, /another history/],
  ["promotes what must never be promoted", { ignoresPriority: true }, /priority 0/],
];

describe.runIf(ONE === null)("a simulation of a proxy that breaks a rule finds it:", () => {
  it.each(MUTATIONS)(
    "%s",
    async (_, flags, found) => {
      const faulty: Faulty = { ...SOUND, ...flags };
      Object.assign(broken, { history: faulty.ignoresHistory, priority: faulty.ignoresPriority });
      try {
        const texts: string[] = [];
        for (let seed = 1; seed <= 400 && !texts.some((text) => found.test(text)); seed++) {
          texts.push(...(await play(seed, faulty)).violations);
        }
        expect(texts.filter((text) => found.test(text)).slice(0, 1)).toHaveLength(1);
      } finally {
        Object.assign(broken, { history: false, priority: false });
      }
    },
    60_000,
  );
});
