import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { WRITE } from "../../../src/commands/command.ts";
import type { Consistency } from "../../../src/session/reading.ts";
import type { Epoch, NodeId } from "../../../src/topology/epoch.ts";
import type { NodeMeter } from "../../../src/upstream/meter.ts";
import { EVERYTHING, NOTHING, type Slots } from "../../../src/upstream/request.ts";
import { type FakeLane, FakeSession, FakeUpstream } from "./lanes.ts";

const A = "a:1" as NodeId;
const B = "b:1" as NodeId;
const C = "c:1" as NodeId;
const NODES = [A, B, C];

const [KEY, OTHER] = [5, 6];

/** What the replicas have proven, by name; those that are not named are not fit. */
type Proven = Partial<Record<"b" | "c", number>>;

function epochWith({ b, c }: Proven, changes: Partial<Epoch> = {}): Epoch {
  const readable = [
    ...(b === undefined ? [] : [{ id: B, provenAtMs: b }]),
    ...(c === undefined ? [] : [{ id: C, provenAtMs: c }]),
  ];
  const history = { replid: "H1", offset: 1 };
  return { number: 1, master: A, history, holdCause: null, stoppedAtMs: null, readable, ...changes };
}

let upstream: FakeUpstream;
let session: FakeSession;

/** A cluster at 100 ms, and a session that reads from b. */
function setUp(reads: Record<string, unknown> = {}, proven: Proven = { b: 50 }): void {
  upstream = new FakeUpstream(reads, NODES);
  upstream.nowMs = 100;
  upstream.setEpoch(epochWith(proven));
  session = new FakeSession(upstream, 7);
}

beforeEach(() => setUp());

afterEach(() => {
  upstream.router.destroy();
  vi.restoreAllMocks();
});

/** The node that a read goes to, or what becomes of it. */
function read(slots: Slots = KEY): string {
  const lane = session.send("read", slots);
  return lane === null ? "waits" : lane.target.role === "master" ? "master" : lane.target.node.slice(0, 1);
}

function write(slots: Slots = KEY): void {
  expect(session.send("write", slots)?.target.role).toBe("master");
}

/** All that is on the way is answered at this moment. */
function answerAll(nowMs: number): void {
  upstream.nowMs = nowMs;
  for (const lane of upstream.lanes) while (lane.requests.length > 0) lane.answer(nowMs);
}

/** A read, answered at this moment. */
function readAt(nowMs: number, slots: Slots = KEY): string {
  upstream.nowMs = nowMs;
  const node = read(slots);
  answerAll(nowMs);
  return node;
}

function writeAt(nowMs: number, slots: Slots = KEY): void {
  upstream.nowMs = nowMs;
  write(slots);
  answerAll(nowMs);
}

function prove(proven: Proven, changes: Partial<Epoch> = {}): void {
  upstream.setEpoch(epochWith(proven, changes));
}

describe("6, 7: what a session has written", () => {
  it.each<Consistency>(["session", "proxy"])(
    "is read from the master until it is proven: %s",
    (consistency) => {
      setUp({ consistency });
      expect(readAt(110)).toBe("b");
      writeAt(120);
      expect(readAt(130, KEY)).toBe("master");
      prove({ b: 129 });
      // The write is proven, and what the master has shown since is not.
      expect(readAt(140, KEY)).toBe("master");
      prove({ b: 140 });
      expect(readAt(150, KEY)).toBe("b");
    },
  );

  it.each<[string, Slots, Slots, string]>([
    ["another key", KEY, OTHER, "b"],
    ["one of its keys", [KEY, 8], 8, "master"],
    ["keys among which it is", KEY, [OTHER, KEY], "master"],
    ["all keys", KEY, EVERYTHING, "master"],
    ["any key, after a write of all", EVERYTHING, OTHER, "master"],
    ["no key, after a write of all", EVERYTHING, NOTHING, "b"],
    ["all keys, after a write of none", NOTHING, EVERYTHING, "b"],
  ])("does not matter for other keys: %s", (_, written, shown, expected) => {
    readAt(110);
    writeAt(120, written);
    expect(readAt(130, shown)).toBe(expected);
  });

  it("matters while it is on the way, whatever the key: replies come in order", () => {
    readAt(110);
    write(KEY);
    expect(read(OTHER)).toBe("master");
  });

  it("may have run where its connection was lost", () => {
    readAt(110);
    write(KEY);
    upstream.nowMs = 120;
    upstream.masterLane.fail();
    expect(readAt(130, KEY)).toBe("master");
    expect(readAt(130, OTHER)).toBe("b");
  });

  it("is found in the table of all writes when it is too long ago to be remembered", () => {
    readAt(110);
    writeAt(120, KEY);
    for (let i = 0; i < 40; i++) writeAt(121 + i, 1_000 + i);
    expect(readAt(200, KEY)).toBe("master");
    expect(readAt(201, OTHER)).toBe("b");
  });
});

describe("6, 7: what others have written", () => {
  const others = (): void => {
    const other = new FakeSession(upstream, 8);
    other.send("write", KEY);
    answerAll(120);
  };

  it.each<[Consistency, string]>([
    ["session", "b"],
    ["proxy", "master"],
    ["strong", "master"],
    ["eventual", "b"],
  ])("is seen at once by %s: %s", (consistency, expected) => {
    setUp({ consistency });
    readAt(110);
    others();
    expect(readAt(130)).toBe(expected);
  });

  it("is not un-seen once the master has shown it", () => {
    readAt(110);
    writeAt(115, KEY);
    expect(readAt(130)).toBe("master");
    prove({ b: 125 });
    expect(readAt(140)).toBe("master");
    expect(readAt(141, OTHER)).toBe("b");
    prove({ b: 141 });
    expect(readAt(150)).toBe("b");
  });

  it("is not un-seen where the master has shown it to the session's first read", () => {
    writeAt(110, KEY);
    prove({ b: 109 });
    expect(readAt(120, [KEY, OTHER])).toBe("master");
    prove({ b: 115 });
    expect(readAt(130, OTHER)).toBe("master");
    prove({ b: 130 });
    expect(readAt(140, OTHER)).toBe("b");
  });

  it("is not un-seen where the master has shown it behind the session's own write", () => {
    readAt(110);
    write(KEY);
    expect(read(OTHER)).toBe("master");
    answerAll(120);
    expect(readAt(130, OTHER)).toBe("master");
  });
});

describe("6: a session moves to another node", () => {
  /** It has read from b at 110 ms, and b is not fit any more; c has proven so much. */
  function moveTo(provenAtMs: number, changes: Partial<Epoch> = {}): void {
    readAt(110);
    prove({ c: provenAtMs }, changes);
  }

  it("and reads there what is as new as what it has seen, whatever the key", () => {
    moveTo(109);
    expect(readAt(120, OTHER)).toBe("master");
    prove({ c: 111 });
    // The master has shown more of this key since.
    expect(readAt(121, OTHER)).toBe("master");
    expect(readAt(122, KEY)).toBe("c");
  });

  it("at once where that has proven to be as new", () => {
    moveTo(110);
    expect(readAt(120)).toBe("c");
  });

  it("and waits for what is on the way: it may show it more", () => {
    read(KEY);
    prove({ c: 105 });
    // Replies come in order: the session waits until the first node has answered.
    expect(read(KEY)).toBe("waits");
    upstream.reader(B).answer(120);
    expect(readAt(125)).toBe("master");
    prove({ c: 125 });
    expect(readAt(130)).toBe("c");
  });

  it("that has proven less than before is another node", () => {
    expect(readAt(110)).toBe("b");
    expect(upstream.router.readableTarget(B)?.load.sessions).toBe(1);
    prove({ b: 20 });
    expect(readAt(120)).toBe("master");
    prove({ b: 115 });
    expect(readAt(125, OTHER)).toBe("b");
    expect(upstream.router.readableTarget(B)?.load.sessions).toBe(1);
  });

  it("not without a master, unless the other has proven as much as it has seen", () => {
    moveTo(109, { holdCause: "silent" });
    expect(read()).toBe("waits");
    prove({ c: 110 }, { holdCause: "silent" });
    expect(readAt(120)).toBe("c");
  });

  it("not without a master when its own is back before", () => {
    moveTo(109, { holdCause: "silent" });
    expect(read()).toBe("waits");
    prove({ b: 110, c: 109 }, { holdCause: "silent" });
    expect(readAt(120)).toBe("b");
  });

  it("with a master again that shows what the other has not proven", () => {
    moveTo(109, { holdCause: "silent" });
    expect(read()).toBe("waits");
    prove({ c: 109 });
    expect(readAt(120)).toBe("master");
  });

  it("and is back from a master that had to stand in for a connection that could not be had", () => {
    readAt(110);
    vi.spyOn(upstream.router, "readLane").mockReturnValueOnce(null);
    expect(readAt(120)).toBe("master");
    expect(readAt(130)).toBe("master");
    prove({ b: 130 });
    expect(readAt(140)).toBe("b");
  });

  it("and asks for proof as long as it has to read from the master", () => {
    moveTo(109);
    expect(upstream.soughtMs).toEqual([]);
    readAt(120);
    expect(upstream.soughtMs).toEqual([120]);
  });
});

describe("what reads see by a session's own setting", () => {
  const ALL: readonly Consistency[] = ["session", "proxy", "eventual", "strong"];
  const PAIRS = ALL.flatMap((from) => ALL.map((to): [Consistency, Consistency] => [from, to]));

  /** Where it reads a key that it has written, and that is proven; and one that others have since. */
  const WAYS: Readonly<Record<Consistency, readonly [own: string, others: string]>> = {
    session: ["b", "b"],
    proxy: ["b", "master"],
    eventual: ["b", "b"],
    strong: ["master", "master"],
  };

  it.each(PAIRS)("from %s to %s: the new rule, for what was written before, too", (from, to) => {
    setUp({ consistency: from });
    writeAt(120, KEY);
    new FakeSession(upstream, 8).send("write", OTHER);
    answerAll(130);
    prove({ b: 125 });
    session.reading.setConsistency(to);
    const ways = [KEY, OTHER].map((slot) => {
      const way = read(slot);
      for (const lane of upstream.lanes) lane.requests.length = 0;
      session.flight.count = 0;
      return way;
    });
    expect(ways).toEqual(WAYS[to]);
  });

  it.each(PAIRS.filter(([, to]) => to === "session" || to === "proxy"))(
    "from %s to %s: what it has written before and is not proven, the master shows",
    (from, to) => {
      setUp({ consistency: from });
      writeAt(120, KEY);
      session.reading.setConsistency(to);
      expect([readAt(130, KEY), readAt(131, 999)]).toEqual(["master", "b"]);
    },
  );

  it.each(PAIRS.filter(([from, to]) => from !== to && to !== "eventual"))(
    "from %s to %s: what was read before is not un-read (6)",
    (from, to) => {
      setUp({ consistency: from });
      readAt(110);
      session.reading.setConsistency(to);
      expect(readAt(120)).toBe("master");
      prove({ b: 115 });
      expect(readAt(130, OTHER)).toBe(to === "strong" ? "master" : "b");
    },
  );

  it("strong: is the master, and waits for it", () => {
    setUp({ consistency: "strong" });
    expect(readAt(110)).toBe("master");
    prove({ b: 1e9 }, { holdCause: "silent" });
    expect(read()).toBe("waits");
  });

  it("eventual: keeps on one node what is on the way together", () => {
    setUp({ consistency: "eventual" }, { b: 50, c: 50 });
    vi.spyOn(Math, "random").mockReturnValue(0.1);
    const first = read();
    vi.spyOn(Math, "random").mockReturnValue(0.9);
    expect(read(OTHER)).toBe(first);
    answerAll(110);
    expect(read()).not.toBe(first);
  });

  it.each<[Consistency, boolean]>([
    ["session", true],
    ["proxy", true],
    ["eventual", false],
    ["strong", false],
  ])("%s: keys matter where there was a write: %s", (consistency, expected) => {
    setUp({ consistency }, { b: 100 });
    readAt(90);
    expect(session.reading.isByKey).toBe(false);
    writeAt(120);
    expect(session.reading.isByKey).toBe(expected);
  });
});

describe("7: proof that is on its way, of a key written at 120 ms", () => {
  /** The replica had proven 115 ms at once; it was asked for more at this moment, and now it is 124 ms. */
  function askedAt(askedMs: number, reads: Record<string, unknown> = {}): void {
    setUp(reads);
    readAt(110);
    upstream.nowMs = 115;
    prove({ b: 115 });
    writeAt(120, KEY);
    upstream.router.proofs.asked(askedMs);
    upstream.nowMs = 124;
  }

  it.each<[string, number, Record<string, unknown>, boolean]>([
    ["asked for after it was answered", 121, {}, true],
    ["asked for at that moment", 120, {}, true],
    ["asked for before", 119, {}, false],
    ["for all clients' writes", 121, { consistency: "proxy" }, true],
    ["for who sees what there is", 121, { consistency: "eventual" }, false],
    ["for who sees what the master has", 121, { consistency: "strong" }, false],
  ])("is waited for: %s", (_, askedMs, reads, expected) => {
    askedAt(askedMs, reads);
    session.reading.lane(upstream.profile, KEY);
    expect(session.reading.isSoonServed(KEY)).toBe(expected);
  });

  it("is not waited for when another client writes the key again and again", () => {
    askedAt(121, { consistency: "proxy" });
    const other = new FakeSession(upstream, 8);
    other.send("write", KEY);
    answerAll(123);
    expect(session.reading.isSoonServed(KEY)).toBe(false);
  });

  it("is not waited for by a session without a replica", () => {
    askedAt(121);
    prove({}, { holdCause: "silent" });
    expect(session.reading.lane(upstream.profile, KEY)).toBeNull();
    expect(session.reading.isSoonServed(KEY)).toBe(false);
  });

  it.each([
    ["5 ms by a replica that answers at once", {}, 126],
    ["reads.proofWait", { proofWait: "2ms" }, 123],
  ])("is not waited for longer than %s", (_, reads, untilMs) => {
    askedAt(121, reads);
    upstream.nowMs = untilMs - 1;
    expect(session.reading.isSoonServed(KEY)).toBe(true);
    upstream.nowMs = untilMs;
    expect(session.reading.isSoonServed(KEY)).toBe(false);
  });
});

describe("why a read goes to the master", () => {
  it.each<[string, Record<string, unknown>, Proven, string]>([
    ["its replica has not proven enough", {}, { b: 1 }, "freshness"],
    ["no replica is fit", {}, {}, "none-fit"],
    ["reads see what the master has", { consistency: "strong" }, { b: 1 }, "policy"],
    ["reads are meant for it", { from: "master" }, { b: 1 }, "policy"],
  ])("%s", (_, reads, proven, expected) => {
    setUp(reads, proven);
    expect(session.reading.whyMaster).toBe(expected);
  });

  it.each<[string, Record<string, unknown>, Proven, string]>([
    ["its own write is on the way there", {}, { b: 50 }, "freshness"],
    ["its write is, and no replica is fit", {}, {}, "freshness"],
    ["its write is, and reads see what the master has", { consistency: "strong" }, { b: 50 }, "policy"],
    ["its write is, and reads are meant for it", { from: "master" }, { b: 50 }, "policy"],
  ])("behind a write: %s", (_, reads, proven, expected) => {
    setUp(reads, proven);
    write();
    expect(session.reading.whyMaster).toBe(expected);
  });

  it.each<[string, Record<string, unknown>, Proven, boolean]>([
    ["it may go there when none is fit", { whenNoneFit: "master" }, {}, false],
    ["it must not go there when none is fit", { whenNoneFit: "wait" }, {}, true],
    ["one is fit", { whenNoneFit: "error" }, { b: 1 }, false],
    ["it is meant for it", { whenNoneFit: "wait", consistency: "strong" }, {}, false],
  ])("or waits for a replica: %s", (_, reads, proven, expected) => {
    setUp(reads, proven);
    expect(session.reading.lacksReplica).toBe(expected);
    expect(read()).toBe(
      expected ? "waits" : proven.b === undefined || reads.consistency === "strong" ? "master" : "b",
    );
  });
});

describe("41: where a read that takes long is sent as well", () => {
  /** The session's read is on the way to the one of b and c that is its own. @returns the other one. */
  function slowRead(reads: Record<string, unknown> = {}, proven: Proven = { b: 50, c: 50 }): NodeId {
    setUp(reads, proven);
    return read() === "b" ? C : B;
  }

  function twin(): string | null {
    const lane = session.reading.twinLane(upstream.profile) as unknown as FakeLane | null;
    return lane === null ? null : lane.target.role === "master" ? "master" : lane.target.node;
  }

  it("is another node that has proven all that the client has seen", () => {
    expect(slowRead()).toBe(twin());
  });

  it("is the master where no other has", () => {
    const other = slowRead();
    answerAll(110);
    read();
    expect(twin()).toBe("master");
    prove({ b: 110, c: 110 });
    expect(twin()).toBe(other);
  });

  it("is the master where only the others' writes are not proven, for proxy", () => {
    slowRead({ consistency: "proxy" });
    new FakeSession(upstream, 8).send("write", OTHER);
    upstream.masterLane.answer(upstream.nowMs);
    expect(twin()).toBe("master");
  });

  it("is any other node, for eventual", () => {
    const other = slowRead({ consistency: "eventual" });
    session.flight.lastReadMs = 100;
    expect(twin()).toBe(other);
  });

  it("is nowhere without a master and another node, nor before anything was sent", () => {
    setUp();
    expect(twin()).toBeNull();
    read();
    prove({ b: 60 }, { holdCause: "silent" });
    expect(twin()).toBeNull();
  });

  it.each<[string, (lane: FakeLane) => unknown]>([
    ["takes nothing more", (lane) => Object.assign(lane, { congested: true })],
    ["is about to end", (lane) => Object.assign(lane, { isRetiring: true })],
  ])("is not a connection that %s", (_, change) => {
    const other = slowRead();
    change(upstream.reader(other));
    expect(twin()).toBeNull();
  });

  it("is where the session reads from then on, if it answers first", () => {
    const other = slowRead();
    expect(session.hedge()).toBe(true);
    // Once is enough.
    expect(session.hedge()).toBe(false);
    upstream.nowMs = 120;
    upstream.reader(other).answer(120);
    expect([session.twinAnswers, session.flight.count, session.flight.lastReadMs]).toEqual([1, 0, 120]);
    expect(readAt(130)).toBe(other.slice(0, 1));
    expect(upstream.router.readableTarget(other)?.load.sessions).toBe(1);
  });

  it("is not heard any more once the first node has answered", () => {
    const other = slowRead();
    session.hedge();
    const [first] = [B, C].filter((node) => node !== other);
    upstream.reader(first!).answer(110);
    expect(session.flight.count).toBe(0);
    upstream.reader(other).answer(120);
    expect([session.twinAnswers, session.flight.lastReadMs]).toEqual([0, 110]);
  });

  it("and is the master, what that has shown its own node has yet to prove", () => {
    slowRead({}, { b: 50 });
    expect(session.hedge()).toBe(true);
    upstream.masterLane.answer(120);
    expect(session.twinAnswers).toBe(1);
    expect(readAt(130, OTHER)).toBe("master");
    prove({ b: 121 });
    expect(readAt(140)).toBe("b");
  });

  it("and is told to the client once, with what the proxy says behind it", () => {
    const other = slowRead();
    session.flight.say(Buffer.from("+behind"));
    session.hedge();
    upstream.reader(other).answer(110);
    for (const node of [B, C]) upstream.reader(node).answer(120);
    expect(session.told).toEqual(["$1\r\nx\r\n", "+behind"]);
    expect(upstream.router.counters.hedgesWon).toBe(1);
  });

  it.each<[string, () => unknown]>([
    ["it is the one request on the way", () => read(OTHER)],
    ["its client wants replies", () => Object.assign(session.flight, { muted: true })],
    ["it stands as it came", () => Object.assign(upstream.reader(B).requests[0]!, { replyCount: 2 })],
    ["it is a read", () => Object.assign(upstream.reader(B).requests[0]!, { kind: WRITE })],
  ])("only when %s", (_, change) => {
    setUp({}, { b: 50 });
    expect(read()).toBe("b");
    change();
    expect(session.hedge()).toBe(false);
  });

  it("and its answer is not taken when something was sent behind the read meanwhile", () => {
    const other = slowRead();
    session.hedge();
    read(OTHER);
    upstream.reader(other).answer(120);
    expect([session.twinAnswers, session.flight.count]).toEqual([0, 2]);
  });
});

it("40: however sessions move, each counts at one node at most, and at none when it has left", () => {
  const proven = fc.option(fc.nat(3), { nil: undefined });
  const event = fc.oneof(
    fc.record({ kind: fc.constant("routing" as const), b: proven, c: proven, isHeld: fc.boolean() }),
    fc.record({ kind: fc.constant("read" as const), who: fc.nat(2), slot: fc.nat(2) }),
    fc.record({ kind: fc.constant("write" as const), who: fc.nat(2), slot: fc.nat(2) }),
    fc.record({ kind: fc.constant("hedge" as const), who: fc.nat(2) }),
    fc.record({ kind: fc.constant("answer" as const), lane: fc.nat(3) }),
    fc.record({
      kind: fc.constant("change" as const),
      who: fc.nat(2),
      to: fc.constantFrom<Consistency>("session", "proxy", "eventual", "strong"),
    }),
  );
  fc.assert(
    fc.property(fc.constantFrom("replica", "any"), fc.array(event, { maxLength: 60 }), (from, events) => {
      setUp({ from });
      const sessions = [1, 2, 3].map((id) => new FakeSession(upstream, id));
      const loads = new Set<NodeMeter>();
      for (const one of events) {
        upstream.nowMs++;
        if (one.kind === "answer") upstream.lanes[one.lane]?.answer(upstream.nowMs);
        else if (one.kind === "routing") {
          const { b, c, isHeld } = one;
          const ahead = (ms: number | undefined): Proven["b"] =>
            ms === undefined ? ms : upstream.nowMs - 3 + ms;
          const all = {
            ...(b === undefined ? {} : { b: ahead(b)! }),
            ...(c === undefined ? {} : { c: ahead(c)! }),
          };
          prove(all, { holdCause: isHeld ? "silent" : null });
        } else {
          const { flight, reading } = sessions[one.who]!;
          if (one.kind === "hedge") sessions[one.who]!.hedge();
          else if (one.kind === "change") {
            if (flight.isEmpty) reading.setConsistency(one.to);
          } else sessions[one.who]!.send(one.kind, one.slot);
        }
        for (const node of NODES) {
          const load = upstream.router.readableTarget(node)?.load;
          if (load !== undefined) loads.add(load);
        }
        const counted = [...loads].reduce((sum, { sessions: count }) => sum + count, 0);
        expect(counted).toBeLessThanOrEqual(sessions.length);
        for (const load of loads) expect(load.sessions).toBeGreaterThanOrEqual(0);
      }
      for (const { reading } of sessions) reading.leave();
      expect([...loads].map((load) => load.sessions)).toEqual([...loads].map(() => 0));
      upstream.router.destroy();
    }),
    { numRuns: 500 },
  );
});
