import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Counters, HOLD_OUTCOMES, type HoldOutcome } from "../../../src/metrics.ts";
import { Hold, type Holdable, type HoldSettings, type Lack } from "../../../src/routing/hold.ts";

const ROOMY: HoldSettings = { maxTimeMs: 1000, maxBytes: 1_000_000 };

/** Deadlines are looked at this often at least, ms. */
const CHECK_MS = 20;

class World {
  nowMs = 5000;
  hasMaster = false;
  hasReplica = true;
  readonly counters = new Counters();
  readonly log: string[] = [];
  readonly hold: Hold;

  constructor(settings: HoldSettings = ROOMY) {
    this.hold = new Hold(settings, this.counters, () => this.nowMs, {
      master: () => this.hasMaster,
      replica: () => this.hasReplica,
    });
  }

  /** Time passes; timers run. */
  pass(ms: number): void {
    for (let left = ms; left > 0; left--) {
      this.nowMs++;
      vi.advanceTimersByTime(1);
    }
  }

  /** Ends the current turn of the event loop. */
  turn(): void {
    vi.advanceTimersToNextTimer();
  }

  /** held = released + expired + left + failed + held now, and the bytes are those of who is held. */
  expectBalanced(held: ReadonlyMap<FakeSession, number>): void {
    const { counters, hold } = this;
    const ended = HOLD_OUTCOMES.reduce((sum, outcome) => sum + counters.holdEnded[outcome], 0);
    expect(counters.held).toBe(ended + counters.heldNow);
    expect(counters.heldNow).toBe(held.size);
    expect(hold.size).toBe(held.size);
    expect(counters.heldBytesNow).toBe([...held.values()].reduce((sum, bytes) => sum + bytes, 0));
  }
}

class FakeSession implements Holdable {
  lacks: Lack = "master";
  heldSinceMs = 0;
  readonly name: string;
  private readonly world: World;
  bytes: number;
  /** What it does when it may try again. */
  onRetry: () => void = () => {};

  constructor(world: World, name: string, bytes = 10) {
    this.world = world;
    this.name = name;
    this.bytes = bytes;
  }

  join(): boolean {
    this.heldSinceMs = this.world.nowMs;
    return this.world.hold.add(this);
  }

  leave(outcome: HoldOutcome): void {
    this.world.hold.remove(this, outcome);
  }

  heldBytes(): number {
    return this.bytes;
  }

  retry(): void {
    this.world.log.push(this.name);
    this.onRetry();
  }

  expire(cutoffMs: number): void {
    expect(this.heldSinceMs).toBeLessThanOrEqual(cutoffMs);
    this.world.log.push(`${this.name} expired`);
    this.leave("expired");
  }
}

/** Sessions s0, s1, … that get on when they are asked to try again. */
function sessions(world: World, count: number): FakeSession[] {
  return Array.from({ length: count }, (_, i) => {
    const session = new FakeSession(world, `s${i}`);
    session.onRetry = () => session.leave("released");
    return session;
  });
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setImmediate", "clearImmediate"] });
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

describe("releasing", () => {
  it("lets all go in the order they came", () => {
    const world = new World();
    for (const session of sessions(world, 20)) session.join();
    world.hold.retryAll();
    expect(world.log).toEqual(Array.from({ length: 20 }, (_, i) => `s${i}`));
    expect(world.counters.holdEnded.released).toBe(20);
    expect(world.hold.size).toBe(0);
  });

  it("lets no more than 256 go in one turn, the rest in the turns behind it, in order", () => {
    const world = new World();
    for (const session of sessions(world, 600)) session.join();
    world.hold.retryAll();
    expect([world.log.length, world.hold.releasing]).toEqual([256, true]);
    world.turn();
    expect([world.log.length, world.hold.releasing]).toEqual([512, true]);
    world.turn();
    expect([world.log.length, world.hold.releasing]).toEqual([600, false]);
    expect(world.log).toEqual(Array.from({ length: 600 }, (_, i) => `s${i}`));
  });

  it("puts who comes during a release behind all who were there", () => {
    const world = new World();
    const [first, ...others] = sessions(world, 300);
    const late = sessions(world, 2).map((session) =>
      Object.assign(session, { name: `late ${session.name}` }),
    );
    for (const session of [first!, ...others]) session.join();
    first!.onRetry = () => {
      first!.leave("released");
      late[0]!.join();
    };
    world.hold.retryAll();
    late[1]!.join();
    for (let turn = 0; turn < 5 && world.hold.size > 0; turn++) world.turn();
    expect(world.log.slice(0, 300)).toEqual(Array.from({ length: 300 }, (_, i) => `s${i}`));
    expect(world.log.slice(300)).toEqual(["late s0", "late s1"]);
  });

  it("is not begun twice at a time: nobody is asked twice in one pass", () => {
    const world = new World();
    const all = sessions(world, 300);
    for (const session of all) {
      session.join();
      session.onRetry = () => {};
    }
    all[0]!.onRetry = () => {
      if (world.log.length === 1) world.hold.retryAll();
    };
    world.hold.retryAll();
    world.hold.retryAll();
    world.turn();
    expect(world.log).toEqual(Array.from({ length: 300 }, (_, i) => `s${i}`));
    for (const session of all) session.leave("left");
  });

  it("does not ask who left in between", () => {
    const world = new World();
    const all = sessions(world, 300);
    for (const session of all) session.join();
    all[0]!.onRetry = () => {
      all[0]!.leave("released");
      all[1]!.leave("left");
    };
    world.hold.retryAll();
    all[290]!.leave("left");
    world.turn();
    expect(world.log).not.toContain("s1");
    expect(world.log).not.toContain("s290");
    expect(world.counters.holdEnded).toEqual({ released: 298, expired: 0, left: 2, failed: 0 });
  });

  it("keeps who did not get on, in its place", () => {
    const world = new World();
    const all = sessions(world, 3);
    for (const session of all) session.join();
    all[1]!.onRetry = () => {};
    world.hold.retryAll();
    expect(world.hold.size).toBe(1);
    const later = new FakeSession(world, "later");
    later.onRetry = () => later.leave("released");
    later.join();
    all[1]!.onRetry = () => all[1]!.leave("released");
    world.log.length = 0;
    world.hold.retryAll();
    expect(world.log).toEqual(["s1", "later"]);
  });

  it("does nothing where nobody is held", () => {
    const world = new World();
    world.hold.retryAll();
    expect([world.hold.releasing, vi.getTimerCount()]).toEqual([false, 0]);
  });
});

describe("while there is a master", () => {
  it("who is still held tries again from time to time", () => {
    const world = new World();
    const [session] = sessions(world, 1);
    session!.onRetry = () => {
      if (world.log.length === 3) session!.leave("released");
    };
    session!.join();
    world.pass(200);
    expect(world.log).toEqual([]);
    world.hasMaster = true;
    world.pass(3 * CHECK_MS);
    expect(world.log).toEqual(["s0", "s0", "s0"]);
    expect(world.hold.size).toBe(0);
  });
});

describe("who waits for a replica", () => {
  function readers(world: World, count: number): FakeSession[] {
    const all = sessions(world, count);
    for (const session of all) session.lacks = "replica";
    return all;
  }

  it("is not asked before there is one, whatever becomes of the master", () => {
    const world = new World();
    const [reader, writer] = [...readers(world, 1), ...sessions(world, 1)];
    writer!.onRetry = () => {};
    for (const session of [reader!, writer!]) session.join();
    world.hasReplica = false;
    world.hold.retryAll();
    world.hasMaster = true;
    world.pass(2 * CHECK_MS);
    expect(world.log).toEqual(["s0", "s0", "s0"]);
    expect(reader!.heldSinceMs).toBe(5000);
    expect(world.hold.size).toBe(2);
    world.hasReplica = true;
    world.hold.retryAll();
    expect(world.hold.size).toBe(1);
    writer!.leave("left");
  });

  it("is let go a batch a turn, and nobody has to queue behind them for the master", () => {
    const world = new World();
    const [writer] = sessions(world, 1);
    for (const session of readers(world, 300)) session.join();
    world.hold.retryAll();
    expect([world.log.length, world.hold.releasing]).toEqual([256, false]);
    writer!.join();
    world.turn();
    expect([world.log.length, world.hold.size]).toEqual([300, 1]);
    // But it is not forgotten.
    world.turn();
    expect(world.hold.size).toBe(0);
  });

  it("is told when its time is over, like all others", () => {
    const world = new World();
    world.hasReplica = false;
    world.hasMaster = true;
    for (const session of readers(world, 2)) session.join();
    world.pass(1000 + CHECK_MS);
    expect(world.log).toEqual(["s0 expired", "s1 expired"]);
  });
});

describe("the deadline", () => {
  it("is hold.maxTime for each session on its own, and never early", () => {
    const world = new World();
    const [first, second] = sessions(world, 2);
    first!.join();
    world.pass(300);
    second!.join();
    world.pass(699);
    expect(world.log).toEqual([]);
    world.pass(CHECK_MS + 1);
    expect(world.log).toEqual(["s0 expired"]);
    world.pass(300 - CHECK_MS - 2);
    expect(world.log).toEqual(["s0 expired"]);
    world.pass(CHECK_MS + 1);
    expect(world.log).toEqual(["s0 expired", "s1 expired"]);
    expect(world.counters.holdEnded.expired).toBe(2);
  });

  it("counts from when the oldest waiting request came, not from when the session joined", () => {
    const world = new World();
    const [session] = sessions(world, 1);
    session!.join();
    session!.heldSinceMs = world.nowMs - 990;
    world.pass(10 + CHECK_MS);
    expect(world.log).toEqual(["s0 expired"]);
  });

  it("comes before another try", () => {
    const world = new World();
    const [session] = sessions(world, 1);
    session!.join();
    world.pass(990);
    world.hasMaster = true;
    world.nowMs += 100;
    world.pass(CHECK_MS);
    expect(world.log).toEqual(["s0 expired"]);
  });

  it("finds in one look all whose time is over, in order", () => {
    const world = new World();
    for (const session of sessions(world, 5)) session.join();
    world.nowMs += 2000;
    vi.advanceTimersByTime(CHECK_MS);
    expect(world.log).toEqual(["s0", "s1", "s2", "s3", "s4"].map((name) => `${name} expired`));
  });
});

describe("hold.maxBytes", () => {
  const SMALL: HoldSettings = { maxTimeMs: 1000, maxBytes: 100 };

  it("holds as many as fit exactly, refuses the next one and counts it", () => {
    const world = new World(SMALL);
    const fits = [new FakeSession(world, "a", 60), new FakeSession(world, "b", 40)];
    expect(fits.map((session) => session.join())).toEqual([true, true]);
    expect(new FakeSession(world, "c", 1).join()).toBe(false);
    expect(new FakeSession(world, "empty", 0).join()).toBe(true);
    expect(world.counters).toMatchObject({ holdFull: 1, held: 3, heldNow: 3, heldBytesNow: 100 });
    world.hold.destroy();
  });

  it("has room again when one leaves, with all it had received", () => {
    const world = new World(SMALL);
    const big = new FakeSession(world, "big", 50);
    big.join();
    expect(world.hold.grow(big, 50)).toBe(true);
    expect(new FakeSession(world, "next", 1).join()).toBe(false);
    big.leave("left");
    expect(world.counters.heldBytesNow).toBe(0);
    const next = new FakeSession(world, "next", 100);
    expect(next.join()).toBe(true);
    next.leave("failed");
  });

  it("tells a held session that receives more when to stop, and keeps what it has received", () => {
    const world = new World(SMALL);
    const session = new FakeSession(world, "a", 90);
    session.join();
    expect(world.hold.grow(session, 10)).toBe(true);
    expect(world.hold.grow(session, 1)).toBe(false);
    expect(world.counters.heldBytesNow).toBe(101);
    session.leave("released");
    expect(world.counters.heldBytesNow).toBe(0);
  });
});

describe("leaving", () => {
  it("is counted once, whatever is said later", () => {
    const world = new World();
    const [session, stranger] = sessions(world, 2);
    session!.join();
    session!.leave("left");
    session!.leave("failed");
    stranger!.leave("released");
    expect(world.counters.holdEnded).toEqual({ released: 0, expired: 0, left: 1, failed: 0 });
    expect(world.counters.heldNow).toBe(0);
  });

  it("stops the timer with the last one", () => {
    const world = new World();
    const [first, second] = sessions(world, 2);
    first!.join();
    second!.join();
    expect(vi.getTimerCount()).toBe(1);
    first!.leave("left");
    expect(vi.getTimerCount()).toBe(1);
    second!.leave("left");
    expect(vi.getTimerCount()).toBe(0);
  });
});

/** What may happen to a hold, for a random sequence. `who` picks a session. */
type Step =
  | { kind: "join" | "grow"; who: number; bytes: number }
  | { kind: "end"; who: number; outcome: HoldOutcome }
  | { kind: "master"; hasMaster: boolean }
  | { kind: "retry" }
  | { kind: "turn" }
  | { kind: "pass"; ms: number };

const WHO = fc.nat(11);
const BYTES = fc.nat(300);
const STEP: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("join" as const), who: WHO, bytes: BYTES }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("grow" as const), who: WHO, bytes: BYTES }) },
  fc.record({
    kind: fc.constant("end" as const),
    who: WHO,
    outcome: fc.constantFrom("left" as const, "failed" as const),
  }),
  fc.record({ kind: fc.constant("master" as const), hasMaster: fc.boolean() }),
  fc.record({ kind: fc.constant("retry" as const) }),
  fc.record({ kind: fc.constant("turn" as const) }),
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("pass" as const), ms: fc.nat(120) }) },
);

describe("the accounting", () => {
  it("balances after any sequence of events", () => {
    fc.assert(
      fc.property(fc.array(STEP, { maxLength: 120 }), (steps) => {
        const world = new World({ maxTimeMs: 200, maxBytes: 1500 });
        const held = new Map<FakeSession, number>();
        const all = Array.from({ length: 12 }, (_, i) => {
          const session = new FakeSession(world, `s${i}`);
          session.leave = (outcome) => {
            held.delete(session);
            world.hold.remove(session, outcome);
          };
          // Some get on when there is a master, some only at another try.
          session.onRetry = () => {
            if (world.hasMaster && world.log.length % 3 !== 0) session.leave("released");
          };
          return session;
        });
        for (const step of steps) {
          play(world, held, all, step);
          world.expectBalanced(held);
        }
        for (const session of [...held.keys()]) session.leave("left");
        world.expectBalanced(held);
        vi.clearAllTimers();
      }),
      { numRuns: 300 },
    );
  });
});

function play(world: World, held: Map<FakeSession, number>, all: readonly FakeSession[], step: Step): void {
  switch (step.kind) {
    case "join": {
      const session = all[step.who]!;
      if (held.has(session)) return;
      session.bytes = step.bytes;
      const before = world.counters.heldBytesNow;
      const room = before + step.bytes <= 1500;
      expect(session.join()).toBe(room);
      if (room) held.set(session, step.bytes);
      return;
    }
    case "grow": {
      const session = all[step.who]!;
      if (!held.has(session)) return;
      held.set(session, held.get(session)! + step.bytes);
      const total = [...held.values()].reduce((sum, bytes) => sum + bytes, 0);
      expect(world.hold.grow(session, step.bytes)).toBe(total <= 1500);
      return;
    }
    case "end":
      return all[step.who]!.leave(step.outcome);
    case "master":
      world.hasMaster = step.hasMaster;
      return;
    case "retry":
      return world.hold.retryAll();
    case "turn":
      return void vi.runOnlyPendingTimers();
    case "pass":
      return world.pass(step.ms);
  }
}
