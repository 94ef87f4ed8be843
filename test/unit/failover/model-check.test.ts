/** Every order in which things can happen to the failover machine, in worlds small enough for that. */
import { describe, expect, it } from "vitest";
import type { Effect, Event, NodeCommand } from "../../../src/failover/model.ts";
import type { Job, SwitchoverPhase } from "../../../src/failover/state.ts";
import { type Exploration, explore } from "./model/explore.ts";
import type { Setup } from "./model/world.ts";

const MOST_STATES = 100_000;
const NEW = "7.0.15";
const OLD = "5.0.14";

const PLAIN: Setup = {
  mode: "self",
  nodes: 2,
  version: NEW,
  faults: 1,
  writes: 0,
  asks: false,
  probes: "all",
};

const WORLDS: readonly (readonly [what: string, setup: Setup, least: number])[] = [
  ["the proxy promotes, two nodes, a write", { ...PLAIN, writes: 1, probes: "each" }, 5_000],
  ["the proxy promotes, two nodes, two faults", { ...PLAIN, faults: 2 }, 10_000],
  ["the proxy promotes, three nodes", { ...PLAIN, nodes: 3 }, 3_000],
  ["the proxy promotes, one of three never", { ...PLAIN, nodes: 3, lastNever: true }, 3_000],
  ["planned by FAILOVER, a write", { ...PLAIN, mode: "never", asks: true, faults: 0, writes: 1 }, 2_500],
  ["planned by FAILOVER, a fault", { ...PLAIN, mode: "never", asks: true }, 5_000],
  ["planned by promotion, a fault", { ...PLAIN, mode: "never", asks: true, version: OLD }, 500],
  ["planned by Sentinel, a fault", { ...PLAIN, mode: "sentinel", asks: true }, 500],
  ["planned where the proxy promotes", { ...PLAIN, asks: true, version: OLD }, 500],
  [
    "planned by FAILOVER where the proxy promotes, a node hangs",
    { ...PLAIN, asks: true, only: /^hang/ },
    20_000,
  ],
];

/** Complete by their types: a new word has to be met, or this does not compile. */
const EVENTS: Record<Event["kind"], true> = {
  ...{ seen: true, tick: true, ended: true, drained: true, switched: true, standing: true, confirmed: true },
  asked: true,
};
const EFFECTS: Record<Effect["kind"], true> = {
  ...{ run: true, "ask-sentinel": true, confirm: true, hold: true, release: true, look: true, wake: true },
  ...{ answer: true, renounce: true, tell: true },
};
const COMMANDS: Record<NodeCommand["kind"], true> = {
  ...{ promote: true, follow: true, failover: true, "abort-failover": true, acknowledge: true },
  ...{ relink: true, "pause-writes": true, unpause: true, "keep-role": true },
};
const JOBS: Record<Exclude<Job["kind"], "switchover"> | `switchover ${SwitchoverPhase}`, true> = {
  ...{ none: true, confirming: true, promoting: true },
  ...{ "switchover draining": true, "switchover handing-over": true, "switchover aborting": true },
  ...{ "switchover pausing": true, "switchover comparing": true, "switchover promoting": true },
  "switchover settling": true,
};

const all: Exploration[] = [];

function seen(of: (found: Exploration["found"]) => ReadonlySet<string>): string[] {
  return [...new Set(all.flatMap(({ found }) => [...of(found)]))].sort();
}

describe("in every order in which things can happen", () => {
  it.each(WORLDS)(
    "no rule is broken, every job ends, and there is a master again: %s",
    (_, setup, least) => {
      const result = explore(setup, MOST_STATES);
      all.push(result);
      expect(result.broken).toBeNull();
      expect(result.isWhole).toBe(true);
      expect(result.stuck).toBeNull();
      expect(result.dead).toBeNull();
      expect(result.states).toBeGreaterThan(least);
    },
    180_000,
  );

  it("every job, event, effect, command and answer was met on the way", () => {
    expect(all).toHaveLength(WORLDS.length);
    expect(seen(({ jobs }) => jobs)).toEqual(Object.keys(JOBS).sort());
    expect(seen(({ events }) => events)).toEqual(Object.keys(EVENTS).sort());
    expect(seen(({ effects }) => effects)).toEqual(Object.keys(EFFECTS).sort());
    expect(seen(({ commands }) => commands)).toEqual(Object.keys(COMMANDS).sort());
    expect(seen(({ answers }) => answers)).toEqual(["done", "open", "refused", "rolled-back"]);
  });
});
