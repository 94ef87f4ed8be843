/**
 * Which upstream connection a session's next request is given to. One at a time: what must go another way
 * waits until everything before it is answered.
 */
import { type Command, PREFER_MASTER, READ } from "../commands/command.ts";
import { requestArgs } from "../resp/args.ts";
import type { Router } from "../routing/router.ts";
import type { Lane, LaneWaiter } from "../upstream/lane.ts";
import type { Profile } from "../upstream/profile.ts";
import { EVERYTHING, type Request, type Slots } from "../upstream/request.ts";
import type { Flight } from "./flight.ts";
import type { Holding } from "./holding.ts";
import type { Output } from "./output.ts";
import type { PrivateConnection } from "./private-connection.ts";
import type { Reading } from "./reading.ts";
import { slotsOf } from "./slots.ts";

/** The session whose requests they are. */
export interface LaneChoiceHost extends LaneWaiter {
  /** What its connections must have in common. */
  readonly profile: Profile;
  /** It takes nothing more until that is over. @returns false, for the caller to pass on. */
  block(why: "drain" | "pipeline" | "lane" | "output" | "proof"): false;
  /** The proof that it waits for is there, or is not waited for any more. */
  proofCame(): void;
}

/** What a choice depends on. */
export interface LaneChoiceParts {
  readonly router: Router;
  readonly flight: Flight;
  readonly output: Output;
  readonly reading: Reading;
  readonly holding: Holding;
  readonly privateConnection: PrivateConnection;
  /** Requests of one client in flight at once. */
  readonly maxPipeline: number;
}

export class LaneChoice {
  private readonly host: LaneChoiceHost;
  private readonly router: Router;
  private readonly flight: Flight;
  private readonly output: Output;
  private readonly reading: Reading;
  private readonly holding: Holding;
  private readonly privateConnection: PrivateConnection;
  private readonly maxPipeline: number;

  constructor(host: LaneChoiceHost, parts: LaneChoiceParts) {
    this.host = host;
    this.router = parts.router;
    this.flight = parts.flight;
    this.output = parts.output;
    this.reading = parts.reading;
    this.holding = parts.holding;
    this.privateConnection = parts.privateConnection;
    this.maxPipeline = parts.maxPipeline;
  }

  /**
   * The lane for a request that any connection of the session's profile will do for; null when it has to
   * wait (the session is blocked) or there is none (it lacks what `Holding` says). The hot path.
   */
  route(kind: Command["kind"], slots: Slots): Lane | null {
    const { router, reading, flight } = this;
    const { profile } = this.host;
    let lane: Lane | null = null;
    if (kind === PREFER_MASTER && !router.writable) lane = reading.anywhere(profile);
    else if (kind === READ && flight.writes === 0) {
      lane = reading.lane(profile, slots);
      if (lane === null && this.waitsForReplica(slots)) return null;
    }
    const isMasters = lane === null;
    if (lane === null) {
      this.holding.lacks = "master";
      // Others wait for the same master: nobody overtakes them while they are let go one by one.
      if (!router.writable || (router.hold.releasing && this.isNewcomer)) return null;
      lane = router.masterLane(profile);
      if (lane === null) return null;
    }
    if (!this.mayUse(lane)) return null;
    if (isMasters && kind === READ) router.counters.addMasterRead(reading.whyMaster);
    return lane;
  }

  /** Whether a read that its replica cannot serve now must not go to the master for that. */
  private waitsForReplica(slots: Slots): boolean {
    const { host, reading } = this;
    if (reading.isSoonServed(slots)) {
      this.router.proofs.wait(host);
      host.block("proof");
      return true;
    }
    if (!reading.lacksReplica) return false;
    this.holding.lacks = "replica";
    return true;
  }

  /** It asks for the master only now. */
  private get isNewcomer(): boolean {
    return !this.holding.isNext && this.flight.count === 0;
  }

  /** Whether the session may give this lane a request now; if not, it is blocked. */
  mayUse(lane: Lane): boolean {
    const { flight, host } = this;
    if (flight.count > 0) {
      if (lane !== flight.lane) return host.block("drain");
      if (flight.count >= this.maxPipeline) return host.block("pipeline");
    }
    if (lane.congested) {
      lane.waitUntilDrained(host);
      return host.block("lane");
    }
    return this.output.congested ? host.block("output") : true;
  }

  /** The private connection to the master, opened if need be; see `PrivateConnection`. */
  openPrivate(): ReturnType<PrivateConnection["open"]> {
    this.holding.lacks = "master";
    return this.privateConnection.open();
  }

  /** The lane for a request that has to be sent again; null: see `route`. */
  again(request: Request): Lane | null {
    const { bond, kind } = request;
    const isPrivate = bond === "blocking" || bond === "stream" || bond === "change";
    if (!isPrivate && this.privateConnection.tracking === null)
      return this.route(kind, this.slotsOf(request));
    this.holding.lacks = "master";
    return this.privateConnection.openAgain(request);
  }

  /** What a request touches: of a read that was sent while that did not matter it is looked up now. */
  slotsOf(request: Request): Slots {
    const { command, kind, chunk, start, end, slots, rewrite } = request;
    if (kind !== READ || slots !== EVERYTHING || rewrite !== null) return slots;
    request.slots = slotsOf(this.router, command, kind, requestArgs(chunk.buffer.subarray(start, end), 0));
    return request.slots;
  }
}
