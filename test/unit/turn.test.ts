import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Flushable, Turn, type Wakeable } from "../../src/turn.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setImmediate", "clearImmediate"] });
});

afterEach(() => {
  vi.useRealTimers();
});

class World {
  readonly log: string[] = [];
  readonly faults: unknown[] = [];
  readonly turn = new Turn((error) => this.faults.push(error));

  wakeable(name: string, then: () => void = () => {}): Wakeable {
    return {
      wakeQueued: false,
      wake: () => {
        this.log.push(`wake ${name}`);
        then();
      },
    };
  }

  flushable(name: string, then: () => void = () => {}): Flushable {
    return {
      flushQueued: false,
      flush: () => {
        this.log.push(`flush ${name}`);
        then();
      },
    };
  }
}

/** Ends one turn of the event loop. */
function endTurn(): void {
  vi.runOnlyPendingTimers();
}

describe("at the end of a turn", () => {
  it("all who have work are woken, then all output is flushed, each in its order", () => {
    const world = new World();
    world.turn.flushLater(world.flushable("a"));
    world.turn.wakeLater(world.wakeable("s"));
    world.turn.flushLater(world.flushable("b"));
    world.turn.wakeLater(world.wakeable("t"));
    expect(world.log).toEqual([]);
    endTurn();
    expect(world.log).toEqual(["wake s", "wake t", "flush a", "flush b"]);
  });

  it("each is served once, however often it asked", () => {
    const world = new World();
    const flushable = world.flushable("a");
    const wakeable = world.wakeable("s");
    for (let i = 0; i < 3; i++) {
      world.turn.flushLater(flushable);
      world.turn.wakeLater(wakeable);
    }
    endTurn();
    endTurn();
    expect(world.log).toEqual(["wake s", "flush a"]);
  });

  it("each can ask again for the next turn", () => {
    const world = new World();
    const flushable = world.flushable("a");
    const wakeable = world.wakeable("s");
    for (let i = 0; i < 2; i++) {
      world.turn.flushLater(flushable);
      world.turn.wakeLater(wakeable);
      expect([flushable.flushQueued, wakeable.wakeQueued]).toEqual([true, true]);
      endTurn();
      expect([flushable.flushQueued, wakeable.wakeQueued]).toEqual([false, false]);
    }
    expect(world.log).toEqual(["wake s", "flush a", "wake s", "flush a"]);
  });

  it("nothing is left to do: no timer runs while all is quiet", () => {
    const world = new World();
    world.turn.flushLater(world.flushable("a"));
    world.turn.wakeLater(world.wakeable("s"));
    expect(vi.getTimerCount()).toBe(1);
    endTurn();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("what a wake leaves to do", () => {
  it("is flushed in the same turn: its requests leave with the others", () => {
    const world = new World();
    const lane = world.flushable("lane");
    world.turn.wakeLater(world.wakeable("s", () => world.turn.flushLater(lane)));
    endTurn();
    expect(world.log).toEqual(["wake s", "flush lane"]);
  });

  it("is woken in the next turn only: two sessions that wake each other do not spin", () => {
    const world = new World();
    const other = world.wakeable("b");
    world.turn.wakeLater(world.wakeable("a", () => world.turn.wakeLater(other)));
    endTurn();
    expect(world.log).toEqual(["wake a"]);
    endTurn();
    expect(world.log).toEqual(["wake a", "wake b"]);
  });

  it("lets a session that always has more work wake itself once a turn", () => {
    const world = new World();
    const busy = world.wakeable("busy", () => world.turn.wakeLater(busy));
    world.turn.wakeLater(busy);
    for (let i = 0; i < 5; i++) endTurn();
    expect(world.log).toHaveLength(5);
  });
});

describe("what a flush leaves to do", () => {
  it("is done in the next turn", () => {
    const world = new World();
    const wakeable = world.wakeable("s");
    const second = world.flushable("second");
    const first = world.flushable("first", () => {
      world.turn.flushLater(second);
      world.turn.wakeLater(wakeable);
    });
    world.turn.flushLater(first);
    endTurn();
    expect(world.log).toEqual(["flush first"]);
    endTurn();
    expect(world.log).toEqual(["flush first", "wake s", "flush second"]);
  });
});

describe("a wake or a flush that throws", () => {
  it("is reported, and the others go on", () => {
    const world = new World();
    const bug = new Error("a bug");
    const thrower = (): void => {
      throw bug;
    };
    world.turn.wakeLater(world.wakeable("bad", thrower));
    world.turn.wakeLater(world.wakeable("good"));
    world.turn.flushLater(world.flushable("bad", thrower));
    world.turn.flushLater(world.flushable("good"));
    endTurn();
    expect(world.log).toEqual(["wake bad", "wake good", "flush bad", "flush good"]);
    expect(world.faults).toEqual([bug, bug]);
  });

  it("can be queued again", () => {
    const world = new World();
    const bad = world.flushable("bad", () => {
      throw new Error("a bug");
    });
    world.turn.flushLater(bad);
    endTurn();
    world.turn.flushLater(bad);
    endTurn();
    expect(world.log).toEqual(["flush bad", "flush bad"]);
  });
});
