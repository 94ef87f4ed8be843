import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Counters } from "../../../../src/metrics.ts";
import type { Answer, Router } from "../../../../src/routing/router.ts";
import type { Subscriber } from "../../../../src/session/pubsub/fanout.ts";
import { Hub, type Topic } from "../../../../src/session/pubsub/hub.ts";
import type { Epoch, NodeId } from "../../../../src/topology/epoch.ts";
import { Turn } from "../../../../src/turn.ts";
import type { Lane, LaneRole } from "../../../../src/upstream/lane.ts";
import { ANONYMOUS, Profile } from "../../../../src/upstream/profile.ts";
import type { Request, RequestOwner } from "../../../../src/upstream/request.ts";
import { decodeAll } from "../../../support/resp.ts";

/** An upstream connection whose server answers when the test says so. */
class FakeLane {
  readonly target: { readonly node: NodeId; readonly role: LaneRole; readonly epoch: number };
  /** Requests that are not answered, each as its words. */
  readonly asked: string[][] = [];
  wasOpen = true;
  dropped = false;
  private readonly requests: Request[] = [];
  private readonly owner: RequestOwner;

  constructor(node: NodeId, role: LaneRole, epoch: number, owner: RequestOwner) {
    this.target = { node, role, epoch };
    this.owner = owner;
  }

  pushCopy(request: Request, bytes: Buffer): void {
    this.requests.push(request);
    this.asked.push((decodeAll(bytes)[0] as string[]).map(String));
  }

  drop(): void {
    this.dropped = true;
  }

  /** Answers the oldest request. */
  answer(reply = "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"): void {
    const request = this.requests.shift();
    this.asked.shift();
    if (request === undefined) throw new Error("nothing was asked");
    const bytes = Buffer.from(reply);
    request.owner.exception(request, bytes, 0, bytes.length, 0);
  }

  message(channel: string, payload: string): void {
    const words = ["message", channel, payload].map((word) => `$${word.length}\r\n${word}\r\n`);
    const bytes = Buffer.from(`*3\r\n${words.join("")}`);
    this.owner.takesMessage(bytes, 0, bytes.length);
  }

  /** The connection is lost: as a lane does it, the owner first, then the requests. */
  lose(): void {
    this.owner.connectionGone(this as unknown as Lane);
    for (const request of this.requests.splice(0)) request.owner.lost(request, true);
  }
}

class Client implements Subscriber {
  readonly protocol = 2;
  heard = "";
  revoked = false;
  topics: readonly Topic[] = [];
  answer: Answer | null = null;

  deliver(buf: Buffer, start: number, end: number): void {
    for (const words of decodeAll(buf.subarray(start, end))) this.heard += (words as string[])[2];
  }

  deliverShared(bytes: Buffer): void {
    this.deliver(bytes, 0, bytes.length);
  }

  accessRevoked(): void {
    this.revoked = true;
    this.leave();
  }

  subscribe(...names: string[]): this {
    hub.subscribe("channels", names, (topics, found) => {
      this.answer = found;
      this.topics = topics;
      for (const topic of topics) topic.subscribers.add(this);
    });
    return this;
  }

  leave(): void {
    for (const topic of this.topics) hub.leave(topic, this);
    this.topics = [];
  }
}

const [A, B, C] = ["a:1", "b:1", "c:1"] as [NodeId, NodeId, NodeId];

let lanes: FakeLane[];
let hub: Hub;
let isFull: boolean;
let closed: number;
let router: { epoch: Epoch; writable: boolean; counters: Counters };

function setMaster(number: number, master: NodeId): void {
  const history = { replid: "r", offset: 0 };
  router.epoch = { number, master, history, holdCause: null, stoppedAtMs: null, readable: [] };
  hub.reconsider();
}

function endTurn(): void {
  vi.advanceTimersByTime(0);
}

/** What a lane was asked since the last look, and is not answered: one text for each request. */
function askedOf(lane: FakeLane | undefined): string[] {
  return (lane?.asked ?? []).map((words) => words.join(" "));
}

beforeEach(() => {
  vi.useFakeTimers();
  lanes = [];
  isFull = false;
  closed = 0;
  const fake = {
    config: { pubsub: { from: "master" } },
    epoch: {
      number: 1,
      master: A,
      history: { replid: "r", offset: 0 },
      holdCause: null,
      stoppedAtMs: null,
      readable: [],
    } as Epoch,
    writable: true,
    counters: new Counters(),
    turn: new Turn((error) => {
      throw error;
    }),
    nowMs: () => Date.now(),
    noPrivateRoom: () => (isFull ? Buffer.from("-ERR proxy: full\r\n") : null),
    openFeed(_profile: Profile, node: NodeId, role: LaneRole, owner: RequestOwner): Lane | null {
      if (isFull) return null;
      const lane = new FakeLane(node, role, fake.epoch.number, owner);
      lanes.push(lane);
      return lane as unknown as Lane;
    },
  };
  router = fake;
  hub = new Hub(new Profile(ANONYMOUS, 0, 2), fake as unknown as Router, () => closed++);
});

afterEach(() => {
  vi.useRealTimers();
});

/** A client that is subscribed to names at A. */
function subscribed(...names: string[]): Client {
  const client = new Client().subscribe(...names);
  lanes[0]?.answer();
  expect(client.answer).toEqual({ kind: "yes" });
  return client;
}

describe("24: while the subscriptions move", () => {
  it("each topic's messages are taken from the old connection until the new one has confirmed it", () => {
    const client = subscribed("c");
    setMaster(2, B);
    lanes[0]?.message("c", "1");
    lanes[1]?.message("c", "early");
    lanes[1]?.answer();
    lanes[0]?.message("c", "late");
    lanes[1]?.message("c", "2");
    endTurn();
    expect(client.heard).toBe("12");
    expect([lanes[0]?.dropped, lanes[1]?.dropped]).toEqual([true, false]);
  });

  it("a late confirmation of the old connection takes nothing back", () => {
    const client = subscribed("c");
    const late = new Client().subscribe("d");
    // More than one request has names: the old connection is not dropped after the first.
    hub.subscribe("patterns", ["p"], () => {});
    setMaster(2, B);
    expect(askedOf(lanes[1])).toEqual(["SUBSCRIBE c d", "PSUBSCRIBE p"]);
    lanes[1]?.answer();
    lanes[0]?.answer();
    expect(late.answer).toEqual({ kind: "yes" });
    lanes[0]?.message("d", "old");
    lanes[1]?.message("d", "new");
    lanes[1]?.message("c", "new");
    endTurn();
    expect([client.heard, late.heard]).toEqual(["new", "new"]);
  });

  it("who waits for the old connection's answer is told when that is given up", () => {
    subscribed("c");
    const late = new Client().subscribe("d");
    setMaster(2, B);
    expect(late.answer).toBeNull();
    lanes[1]?.answer();
    expect(lanes[0]?.dropped).toBe(true);
    expect(late.answer).toEqual({ kind: "nobody" });
    endTurn();
    // Nobody is subscribed to it: it is not kept there.
    expect(askedOf(lanes[1])).toEqual(["UNSUBSCRIBE d"]);
    expect([...hub.names("channels")]).toEqual(["c"]);
  });

  it("another move gives up the half-moved connection, the first delivers on", () => {
    const client = subscribed("c");
    setMaster(2, B);
    setMaster(3, C);
    expect(lanes.map(({ dropped }) => dropped)).toEqual([false, true, false]);
    lanes[0]?.message("c", "1");
    lanes[2]?.answer();
    lanes[2]?.message("c", "2");
    endTurn();
    expect(client.heard).toBe("12");
    expect(lanes.map(({ dropped }) => dropped)).toEqual([true, true, false]);
  });

  it("the gap lasts from the move to the last confirmation, and one move is counted", () => {
    subscribed("c");
    setMaster(2, B);
    vi.advanceTimersByTime(70);
    lanes[1]?.answer();
    expect([router.counters.subscriptionMoves, router.counters.subscriptionGapMs]).toEqual([1, 70]);
  });

  it("a topic that was left meanwhile is not subscribed to again when its batch was refused", () => {
    const [stays, leaves] = [subscribed("c"), subscribed("d")];
    setMaster(2, B);
    leaves.leave();
    lanes[1]?.answer("-NOPERM No permissions to access a channel\r\n");
    endTurn();
    expect(askedOf(lanes[1])).toEqual(["UNSUBSCRIBE d", "SUBSCRIBE c"]);
    expect([stays.revoked, leaves.revoked]).toEqual([false, false]);
  });

  it("without room for two connections the old one makes room", () => {
    subscribed("c");
    isFull = true;
    setMaster(2, B);
    expect([lanes.length, lanes[0]?.dropped]).toEqual([1, true]);
    isFull = false;
    vi.advanceTimersByTime(60);
    expect(askedOf(lanes[1])).toEqual(["SUBSCRIBE c"]);
  });
});

describe("24: a connection that is lost", () => {
  it("is made anew at once when it had been open, after a growing pause when it was not let in", () => {
    subscribed("c");
    lanes[0]?.lose();
    vi.advanceTimersByTime(1);
    expect(lanes).toHaveLength(2);
    for (const pauseMs of [50, 100, 200, 400, 800, 1_000, 1_000]) {
      const before = lanes.length;
      lanes[before - 1]!.wasOpen = false;
      lanes[before - 1]!.lose();
      vi.advanceTimersByTime(pauseMs - 1);
      expect(lanes.length).toBe(before);
      vi.advanceTimersByTime(1);
      expect(lanes.length).toBe(before + 1);
    }
  });

  it("another master is not made to wait for the rest of that pause", () => {
    subscribed("c");
    lanes[0]!.wasOpen = false;
    lanes[0]?.lose();
    hub.reconsider();
    expect(lanes).toHaveLength(1);
    setMaster(2, B);
    expect(askedOf(lanes[1])).toEqual(["SUBSCRIBE c"]);
    vi.advanceTimersByTime(5_000);
    expect(lanes).toHaveLength(2);
  });
});

describe("24: names", () => {
  it("given up in one turn are given up in few requests, a name wanted again at once behind that", () => {
    const keeper = subscribed("keeper");
    const names = Array.from({ length: 1_200 }, (_, i) => `n${i}`);
    const many = subscribed(...names);
    many.leave();
    expect(askedOf(lanes[0])).toEqual([]);
    const again = new Client().subscribe("n7");
    const asked = lanes[0]!.asked.map((words) => `${words[0]} ${words.length - 1}`);
    expect(asked).toEqual(["UNSUBSCRIBE 500", "UNSUBSCRIBE 500", "UNSUBSCRIBE 200", "SUBSCRIBE 1"]);
    endTurn();
    expect(lanes[0]?.asked).toHaveLength(4);
    expect([keeper.answer?.kind, again.answer]).toEqual(["yes", null]);
  });

  it("that nobody has are no reason for a connection, now or later", () => {
    isFull = true;
    const client = new Client().subscribe("c");
    expect(client.answer).toEqual({ kind: "no", error: Buffer.from("-ERR proxy: full\r\n") });
    expect([closed, router.counters.proxyErrors]).toEqual([1, 1]);
    isFull = false;
    vi.advanceTimersByTime(5_000);
    hub.reconsider();
    expect(lanes).toEqual([]);
  });

  it("the last of which is left close the connection", () => {
    const [one, other] = [subscribed("c"), new Client()];
    const live = hub.liveTopics("channels", ["c"])!;
    live[0]!.subscribers.add(other);
    one.leave();
    expect([closed, lanes[0]?.dropped]).toEqual([0, false]);
    hub.leave(live[0]!, other);
    // Whoever waits until the server has heard of it is told before the connection ends.
    let settled = 0;
    expect(hub.isSettling).toBe(true);
    hub.whenSettled(() => settled++);
    endTurn();
    expect([lanes[0]?.asked, settled, closed]).toEqual([[["UNSUBSCRIBE", "c"]], 0, 0]);
    lanes[0]!.answer("*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n");
    expect([settled, hub.isSettling, closed, lanes[0]?.dropped]).toEqual([1, false, 1, true]);
  });
});
