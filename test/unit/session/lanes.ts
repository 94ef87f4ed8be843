/**
 * A session's reads without sockets: the real router, flight and choice of a node, over connections that keep
 * what they are given until it is answered.
 */
import type { Command } from "../../../src/commands/command.ts";
import { WRITE } from "../../../src/commands/command.ts";
import { CommandTable } from "../../../src/commands/table.ts";
import { addressOf } from "../../../src/config/address.ts";
import { configWith } from "../../../src/config/schema.ts";
import { Counters } from "../../../src/metrics.ts";
import { Router } from "../../../src/routing/router.ts";
import { Flight, type FlightHost } from "../../../src/session/flight.ts";
import type { Output } from "../../../src/session/output.ts";
import { Reading } from "../../../src/session/reading.ts";
import type { Epoch, NodeId } from "../../../src/topology/epoch.ts";
import { Turn } from "../../../src/turn.ts";
import { NO_CHUNK } from "../../../src/upstream/chunk.ts";
import type { Lane, LaneRole } from "../../../src/upstream/lane.ts";
import { ANONYMOUS, type Profile } from "../../../src/upstream/profile.ts";
import { EVERYTHING, type Request, type Slots } from "../../../src/upstream/request.ts";

const REPLY = Buffer.from("$1\r\nx\r\n");

const TABLE = new CommandTable();

export function commandOf(name: string): Command {
  const bytes = Buffer.from(name);
  return TABLE.lookup(bytes, 0, bytes.length);
}

const GET = commandOf("get");
const SET = commandOf("set");

/** As much of a connection as sessions, routers and twins see of one. */
export class FakeLane {
  readonly target: { readonly node: NodeId; readonly role: LaneRole; readonly epoch: number };
  congested = false;
  isRetiring = false;
  readonly severed = null;
  /** What is on the way, in its order. */
  readonly requests: Request[] = [];

  constructor(node: NodeId, role: LaneRole, epoch: number) {
    this.target = { node, role, epoch };
  }

  get asLane(): Lane {
    return this as unknown as Lane;
  }

  push(request: Request): void {
    this.requests.push(request);
  }

  pushAgain(request: Request): void {
    this.push(request);
  }

  pushCopy(request: Request): void {
    this.push(request);
  }

  checkCongestion(): void {}

  disown(request: Request): boolean {
    const at = this.requests.indexOf(request);
    if (at >= 0) this.requests.splice(at, 1);
    return at >= 0;
  }

  retire(): void {
    this.isRetiring = true;
  }

  /** Answers the first request. @returns whether its owner has taken the reply: else it is sent again. */
  answer(nowMs: number): boolean {
    const request = this.requests.shift();
    if (request === undefined) return false;
    const { owner } = request;
    if (owner.exceptional) return !owner.exception(request, REPLY, 0, REPLY.length, nowMs);
    owner.emit(REPLY, 0, REPLY.length);
    owner.settled(request, nowMs);
    return true;
  }

  /** The connection is lost with all that is on the way. */
  fail(): void {
    const all = this.requests.splice(0);
    for (const request of all) request.owner.lost(request, true);
  }
}

/** What a fake cluster is made of. */
export class FakeUpstream {
  nowMs = 0;
  readonly router: Router;
  readonly profile: Profile;
  /** Times at which it was said that reads wait for proof. */
  readonly soughtMs: number[] = [];
  private readonly readers = new Map<NodeId, FakeLane>();
  private master: FakeLane | null = null;

  constructor(reads: Record<string, unknown>, nodes: readonly NodeId[]) {
    const fail = (error: unknown): never => {
      throw error;
    };
    this.router = new Router({
      config: configWith({ nodes, listen: "127.0.0.1:0", reads, inFlight: { onUnknown: "error" } }),
      counters: new Counters(),
      turn: new Turn(fail),
      nowMs: () => this.nowMs,
      addressOf,
      onEvidence: () => undefined,
      onProofWanted: () => void this.soughtMs.push(this.nowMs),
      onFault: fail,
    });
    this.profile = this.router.profiles.get(ANONYMOUS, 0, 2);
    this.profile.users++;
    for (const node of nodes) {
      const lane = new FakeLane(node, "reader", 0);
      this.readers.set(node, lane);
      this.profile.readers.set(node, lane.asLane);
    }
  }

  /** Takes an epoch over; a new number, or a first master, gets a new connection to its master. */
  setEpoch(epoch: Epoch, keptUntilMs: number | null = null): void {
    const { router, profile } = this;
    const isOther = epoch.master !== router.epoch.master || epoch.number !== router.epoch.number;
    router.setEpoch(epoch, keptUntilMs);
    if (epoch.master === null || (!isOther && profile.master !== null)) return;
    this.master = new FakeLane(epoch.master, "master", epoch.number);
    profile.master = this.master.asLane;
  }

  reader(node: NodeId): FakeLane {
    const lane = this.readers.get(node);
    if (lane === undefined) throw new Error(`no connection to ${node}`);
    return lane;
  }

  get masterLane(): FakeLane {
    if (this.master === null) throw new Error("no master");
    return this.master;
  }

  /** All connections that may have something on the way. */
  get lanes(): FakeLane[] {
    return [...this.readers.values(), ...(this.master === null ? [] : [this.master])];
  }
}

/** A session as far as it reads and writes: goes the ways that session.ts goes. */
export class FakeSession {
  readonly flight: Flight;
  readonly reading: Reading;
  /** Times that a twin's answer was the first. */
  twinAnswers = 0;
  /** What its client was told. */
  readonly told: string[] = [];
  /** What each request touches, also where it did not matter when it was sent. */
  private readonly slots = new WeakMap<Request, Slots>();
  private readonly upstream: FakeUpstream;

  constructor(upstream: FakeUpstream, id: number) {
    this.upstream = upstream;
    const output = {
      own: (bytes: Buffer) => void this.told.push(bytes.toString()),
      copy: (buf: Buffer, start: number, end: number) =>
        void this.told.push(buf.toString("latin1", start, end)),
    };
    this.flight = new Flight(this.host(), output as unknown as Output, upstream.router);
    this.reading = new Reading(upstream.router, this.flight, id);
  }

  private host(): FlightHost {
    const nothing = (): void => undefined;
    return {
      ...{ isClosed: false, protocol: 2, onSent: nothing, onProgress: nothing, onSpecialDone: nothing },
      ...{ onGivenUp: nothing, onLostAgain: nothing },
      privateConnection: { messageIn: () => null, gone: nothing, refused: nothing, loseWatch: nothing },
      lanes: { slotsOf: (request) => this.slots.get(request) ?? request.slots },
      wayFor: (request) => {
        request.slots = this.slots.get(request) ?? request.slots;
        return this.route(request.kind === WRITE ? "write" : "read", request.slots);
      },
      twinLane: () => this.reading.twinLane(this.upstream.profile),
      onTwinAnswered: (lane) => {
        this.twinAnswers++;
        this.reading.answeredBy(lane);
      },
    };
  }

  /** The way of a request; null = it has to wait. */
  route(what: "read" | "write", slots: Slots): Lane | null {
    const { flight, reading } = this;
    const { router, profile } = this.upstream;
    let lane = what === "read" && flight.writes === 0 ? reading.lane(profile, slots) : null;
    if (lane === null && what === "read" && flight.writes === 0 && reading.lacksReplica) return null;
    if (lane === null && router.writable) lane = router.masterLane(profile);
    return lane === null || (flight.count > 0 && lane !== flight.lane) ? null : lane;
  }

  /** Sends a request. @returns where to; null = it has to wait. */
  send(what: "read" | "write", slots: Slots): FakeLane | null {
    if (!this.flight.sendAgain()) return null;
    const shown = what === "read" && !this.reading.isByKey ? EVERYTHING : slots;
    const lane = this.route(what, shown);
    if (lane === null) return null;
    this.flight.launch(what === "read" ? GET : SET, shown, lane, NO_CHUNK, 0, 0);
    const fake = lane as unknown as FakeLane;
    const request = fake.requests.at(-1);
    if (request !== undefined) this.slots.set(request, slots);
    return fake;
  }

  /**
   * What is on the way to a replica takes its time: the connection tells of its requests one by one, of those
   * to the master none. @returns whether one was sent to another node, too.
   */
  hedge(): boolean {
    const lane = this.flight.lane as unknown as FakeLane | null;
    if (lane?.target.role !== "reader") return false;
    return lane.requests.some((request) => request.owner === this.flight && this.flight.overdue(request));
  }
}
