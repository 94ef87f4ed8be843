import type { Socket } from "node:net";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Counters } from "../../../src/metrics.ts";
import { Output, type OutputSettings, OutputSlab } from "../../../src/session/output.ts";
import { Turn } from "../../../src/turn.ts";

/** A socket whose kernel takes everything, or nothing for as long as it is stuck. */
class FakeSocket {
  writableLength = 0;
  destroyed = false;
  stuck = false;
  /** Calls that reach the kernel: a cork makes one of many. */
  kernelWrites = 0;
  private taken = "";
  private readonly queue: { piece: Buffer; done: (() => void) | null }[] = [];
  private corked = 0;

  write(piece: Buffer, done: (() => void) | null = null): boolean {
    if (this.destroyed) throw new Error("written after the end");
    this.queue.push({ piece, done });
    this.writableLength += piece.length;
    this.advance();
    return this.writableLength === 0;
  }

  cork(): void {
    this.corked++;
  }

  uncork(): void {
    this.corked--;
    this.advance();
  }

  /** The client reads again. */
  unstick(): void {
    this.stuck = false;
    this.advance();
  }

  /** The client reads only the first pieces of what waits. */
  takePieces(count: number): void {
    for (let i = 0; i < count; i++) this.takeOne();
  }

  /** All that reached the client. */
  get received(): string {
    return this.taken;
  }

  /** Buffers that still wait, as they were given. */
  get waiting(): readonly Buffer[] {
    return this.queue.map(({ piece }) => piece).filter((piece) => piece.length > 0);
  }

  private advance(): void {
    if (this.stuck || this.corked > 0) return;
    if (this.writableLength > 0) this.kernelWrites++;
    while (!this.stuck && this.queue.length > 0) this.takeOne();
  }

  private takeOne(): void {
    const next = this.queue.shift();
    if (next === undefined) return;
    this.writableLength -= next.piece.length;
    this.taken += next.piece.toString("latin1");
    next.done?.();
  }
}

const SETTINGS: OutputSettings = { maxBytes: 1_000_000, maxSubscriberBytes: 1_000_000, pauseBytes: 10_000 };
const SLAB_BYTES = 256 * 1024;
const SLAB_MAX_REPLY = 32 * 1024;

class World {
  readonly counters = new Counters();
  readonly slab = new OutputSlab();
  readonly faults: unknown[] = [];
  readonly turn = new Turn((error) => this.faults.push(error));

  client(settings: OutputSettings = SETTINGS): Client {
    return new Client(this, settings);
  }

  /** Ends the turn: all outputs are flushed. */
  flush(): void {
    vi.runOnlyPendingTimers();
    expect(this.faults).toEqual([]);
  }
}

class Client {
  readonly socket = new FakeSocket();
  readonly events: string[] = [];
  readonly output: Output;
  expected = "";

  constructor(world: World, settings: OutputSettings) {
    this.output = new Output({
      socket: this.socket as unknown as Socket,
      slab: world.slab,
      turn: world.turn,
      settings,
      counters: world.counters,
      owner: {
        outputOverflow: () => this.events.push("overflow"),
        outputDrained: () => this.events.push("drained"),
      },
    });
  }

  /** A reply that lies in the read buffer, which the next read overwrites. */
  copy(text: string): void {
    const read = Buffer.from(`##${text}##`, "latin1");
    this.output.copy(read, 2, 2 + text.length);
    read.fill("?");
    this.expected += text;
  }

  /** A reply that comes in a buffer of its own. */
  own(text: string): void {
    this.output.own(Buffer.from(text, "latin1"));
    this.expected += text;
  }
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setImmediate", "clearImmediate"] });
});

afterEach(() => {
  vi.useRealTimers();
});

describe("replies of one turn", () => {
  it("leave in one write, in their order, when the turn ends and not before", () => {
    const world = new World();
    const client = world.client();
    for (const text of ["+OK\r\n", ":1\r\n", "$1\r\na\r\n"]) client.copy(text);
    expect(client.socket.received).toBe("");
    world.flush();
    expect([client.socket.received, client.socket.kernelWrites]).toEqual([client.expected, 1]);
    expect(world.counters.bytesOut).toBe(client.expected.length);
  });

  it("keep their order, copied and taken over in turns, still in one write", () => {
    const world = new World();
    const client = world.client();
    client.copy("1");
    client.own("22");
    client.own("333");
    client.copy("4444");
    client.copy("5");
    client.own("66");
    world.flush();
    expect([client.socket.received, client.socket.kernelWrites]).toEqual(["12233344445" + "66", 1]);
  });

  it("of several clients do not mix, though they are collected in one slab", () => {
    const world = new World();
    const [a, b] = [world.client(), world.client()];
    for (let i = 0; i < 50; i++) {
      a.copy(`a${i} `);
      if (i % 3 === 0) b.copy(`b${i} `);
    }
    world.flush();
    expect(a.socket.received).toBe(a.expected);
    expect(b.socket.received).toBe(b.expected);
  });

  it("may be large: a large one is not put into the slab", () => {
    const world = new World();
    const client = world.client();
    client.copy("small");
    client.copy("x".repeat(SLAB_MAX_REPLY));
    client.copy("small");
    expect(world.slab.used).toBe(10);
    world.flush();
    expect(client.socket.received === client.expected).toBe(true);
  });

  it("may be more than the slab holds", () => {
    const world = new World();
    const [a, b] = [world.client(), world.client()];
    for (let i = 0; i < 60; i++) {
      a.copy(`${i}`.repeat(5000));
      b.copy(`${i} `.repeat(1000));
    }
    world.flush();
    expect(a.socket.received === a.expected).toBe(true);
    expect(b.socket.received === b.expected).toBe(true);
  });
});

describe("the slab", () => {
  it("is filled from its start again when every client took its replies", () => {
    const world = new World();
    const [a, b] = [world.client(), world.client()];
    const { buffer } = world.slab;
    for (let i = 0; i < 5; i++) {
      a.copy("aaa");
      b.copy("bb");
      expect(world.slab.used).toBe(5);
      world.flush();
      expect([world.slab.used, world.slab.buffer === buffer]).toEqual([0, true]);
    }
  });

  it("is not written over while a stuck socket holds a piece of it", () => {
    const world = new World();
    const [stuck, other] = [world.client(), world.client()];
    stuck.socket.stuck = true;
    stuck.copy("keep me");
    other.copy("first");
    world.flush();
    other.copy("second round");
    stuck.copy("more");
    world.flush();
    other.copy("third round");
    world.flush();
    stuck.socket.unstick();
    expect(stuck.socket.received).toBe("keep memore");
    expect(other.socket.received).toBe("firstsecond roundthird round");
  });

  it("is not kept alive by small replies that join a queue which does not move", () => {
    const world = new World();
    const client = world.client();
    client.socket.stuck = true;
    for (let turn = 0; turn < 20; turn++) {
      client.copy(`reply ${turn}`);
      world.flush();
    }
    const memory = new Set(client.socket.waiting.map((piece) => piece.buffer));
    const bytes = [...memory].reduce((sum, one) => sum + one.byteLength, 0);
    // One slab for the first of them; the others must not hold one each.
    expect(bytes).toBeLessThan(2 * SLAB_BYTES);
  });

  it("is left by a client that is gone, so that it can be used again", () => {
    const world = new World();
    const client = world.client();
    client.copy("never sent");
    client.socket.destroyed = true;
    world.flush();
    expect(world.slab.used).toBe(0);
    expect(client.socket.received).toBe("");
  });
});

describe("a client that does not take its replies", () => {
  it("is not congested up to limits.maxUnsentBytes, and is beyond it, until it took all", () => {
    const world = new World();
    const client = world.client();
    client.socket.stuck = true;
    client.own("x".repeat(10_000));
    world.flush();
    expect([client.output.congested, client.output.unsentBytes]).toEqual([false, 10_000]);
    client.copy("y");
    world.flush();
    expect([client.output.congested, client.output.unsentBytes]).toEqual([true, 10_001]);
    expect(client.events).toEqual([]);
    client.socket.unstick();
    expect([client.output.congested, client.output.unsentBytes]).toEqual([false, 0]);
    expect(client.events).toEqual(["drained"]);
    expect(client.socket.received).toBe(client.expected);
  });

  it("is told once that it drained, each time it was congested", () => {
    const world = new World();
    const client = world.client();
    for (let round = 1; round <= 3; round++) {
      client.socket.stuck = true;
      for (let i = 0; i < 5; i++) {
        client.own("x".repeat(6_000));
        world.flush();
      }
      expect(client.output.congested).toBe(true);
      client.socket.unstick();
      expect(client.events).toHaveLength(round);
    }
  });

  it("is congested until it took all, not only what made it so", () => {
    const world = new World();
    const client = world.client();
    client.socket.stuck = true;
    client.own("x".repeat(20_000));
    world.flush();
    client.own("y".repeat(500));
    world.flush();
    client.socket.takePieces(2);
    expect([client.output.congested, client.output.unsentBytes, client.events]).toEqual([true, 500, []]);
    client.socket.unstick();
    expect([client.output.congested, client.output.unsentBytes]).toEqual([false, 0]);
    expect(client.events).toEqual(["drained"]);
  });

  it("that was slow but never congested is not told anything", () => {
    const world = new World();
    const client = world.client();
    client.socket.stuck = true;
    client.copy("x");
    world.flush();
    client.socket.unstick();
    expect(client.events).toEqual([]);
  });

  it("is cut when more than limits.outputBufferBytes waits, and not one byte earlier", () => {
    const world = new World();
    const client = world.client({ maxBytes: 50_000, maxSubscriberBytes: 50_000, pauseBytes: 10_000 });
    client.socket.stuck = true;
    client.own("x".repeat(50_000));
    world.flush();
    expect(client.events).toEqual([]);
    client.own("y");
    world.flush();
    expect(client.events).toEqual(["overflow"]);
  });

  it("that has subscribed is cut at limits.subscriberBufferBytes, and only while it is subscribed", () => {
    const world = new World();
    const client = world.client({ maxBytes: 50_000, maxSubscriberBytes: 20_000, pauseBytes: 10_000 });
    client.socket.stuck = true;
    client.own("x".repeat(20_001));
    world.flush();
    client.output.isSubscriber = true;
    client.socket.takePieces(1);
    client.own("x".repeat(20_000));
    world.flush();
    expect(client.events).toEqual([]);
    client.copy("y");
    world.flush();
    expect(client.events).toEqual(["overflow"]);
  });

  it("that has subscribed is never allowed more than limits.outputBufferBytes", () => {
    const world = new World();
    const client = world.client({ maxBytes: 50_000, maxSubscriberBytes: 90_000, pauseBytes: 10_000 });
    client.output.isSubscriber = true;
    client.socket.stuck = true;
    client.own("x".repeat(50_000));
    world.flush();
    expect(client.events).toEqual([]);
    client.own("y");
    world.flush();
    expect(client.events).toEqual(["overflow"]);
  });

  it("has its small replies put together: their number costs no memory, and they come in order", () => {
    const world = new World();
    const client = world.client();
    client.socket.stuck = true;
    for (let i = 0; i < 2_000; i++) {
      if (i % 500 === 0) client.own("L".repeat(5_000));
      if (i % 2 === 0) client.copy(`reply ${i};`);
      else client.own(`message ${i};`);
      world.flush();
    }
    expect(client.output.unsentBytes).toBe(client.expected.length);
    // The pieces of the first turn are the socket's; the rest waits in the output, not in the socket.
    expect(client.socket.waiting.length).toBe(2);
    client.socket.unstick();
    expect(client.socket.received).toBe(client.expected);
    expect(client.output.unsentBytes).toBe(0);
  });

  it("still gets all that waits when it is to end", () => {
    const world = new World();
    const client = world.client();
    client.socket.stuck = true;
    for (let i = 0; i < 10; i++) {
      client.copy(`reply ${i};`);
      world.flush();
    }
    client.copy("the last");
    client.output.finish();
    client.socket.unstick();
    expect(client.socket.received).toBe(client.expected);
  });

  it("counts what waits for the turn's end as unsent", () => {
    const world = new World();
    const client = world.client();
    client.copy("abc");
    client.own("de");
    expect(client.output.unsentBytes).toBe(5);
    world.flush();
    expect(client.output.unsentBytes).toBe(0);
  });
});

type Step = { client: number; bytes: number; how: "copy" | "own" | "flush" | "stick" | "unstick" };

describe("whatever happens", () => {
  it("every client gets exactly its replies in order", () => {
    const step: fc.Arbitrary<Step> = fc.record({
      client: fc.nat(2),
      bytes: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 60_000 })),
      how: fc.constantFrom("copy", "copy", "copy", "own", "flush", "stick", "unstick"),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const world = new World();
        const clients = Array.from({ length: 3 }, () =>
          world.client({ maxBytes: 1e9, maxSubscriberBytes: 1e9, pauseBytes: 1000 }),
        );
        for (const [i, { client, bytes, how }] of steps.entries())
          play(world, clients[client]!, how, bytes, i);
        world.flush();
        for (const { socket } of clients) socket.unstick();
        for (const client of clients) {
          expect(client.socket.received === client.expected).toBe(true);
          expect([client.output.congested, client.output.unsentBytes]).toEqual([false, 0]);
        }
      }),
      { numRuns: 200 },
    );
  });
});

function play(world: World, client: Client, how: Step["how"], bytes: number, i: number): void {
  const text = String.fromCharCode(97 + (i % 26)).repeat(bytes);
  switch (how) {
    case "copy":
      return client.copy(text);
    case "own":
      return client.own(text);
    case "flush":
      return world.flush();
    case "stick":
      client.socket.stuck = true;
      return;
    case "unstick":
      return client.socket.unstick();
  }
}
