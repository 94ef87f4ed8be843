/**
 * The private connection of a session: what it is needed for (WATCH, a blocking call, MONITOR, tracking), and
 * its life. It is opened when something needs it, given back when nothing does any more, and what lasts
 * (MONITOR, tracking) is restored on another one when it is lost, without a word of the client.
 */
import { type Command, MASTER_READ, OWN_REQUEST } from "../commands/command.ts";
import { GREATER } from "../resp/bytes.ts";
import { encodeRequest } from "../resp/encode.ts";
import type { Router, WaitsForMaster } from "../routing/router.ts";
import { NO_CHUNK } from "../upstream/chunk.ts";
import type { Lane } from "../upstream/lane.ts";
import type { Profile } from "../upstream/profile.ts";
import { NOBODY, Request } from "../upstream/request.ts";
import type { Flight, PrivateEvents } from "./flight.ts";
import type { Holding } from "./holding.ts";
import type { LaneChoice } from "./lane-choice.ts";
import { isMonitorLine } from "./pubsub/subscriptions.ts";
import type { Tracking } from "./tracking/tracking.ts";

/** The session whose connection it is. */
export interface PrivateHost {
  readonly isClosed: boolean;
  /** Who the session is to servers. */
  readonly profile: Profile;
  /** What is on the way must be answered first. */
  block(why: "drain"): false;
  readonly lanes: Pick<LaneChoice, "mayUse">;
  readonly holding: Pick<Holding, "retry">;
}

/** Pause before MONITOR or tracking is asked for again that was refused, ms: the first, and the longest. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

export class PrivateConnection implements PrivateEvents, WaitsForMaster {
  /** Null while there is none. */
  lane: Lane | null = null;
  /** WATCH holds keys on it. */
  watching = false;
  /** It is gone, and the keys with it: the next EXEC is answered with null, as if a key had changed. */
  watchLost = false;
  /** MONITOR as the client has asked for it; null unless it monitors. */
  monitor: Command | null = null;
  /** Null unless the server tracks what the client reads. */
  tracking: Tracking | null = null;
  /** A call waits on it, or for it, for as long as it likes. */
  inBlockingCall = false;
  /** Its place among all such calls of all clients. */
  private callPlace = 0;
  /** Pause before the stream is restored, after a connection that was not let in, ms. */
  private pauseMs = 0;
  private restoreTimer: NodeJS.Timeout | null = null;
  private readonly host: PrivateHost;
  private readonly router: Router;
  private readonly flight: Flight;

  /** @param flight the session's: it gets the replies. */
  constructor(host: PrivateHost, router: Router, flight: Flight) {
    this.host = host;
    this.router = router;
    this.flight = flight;
  }

  /** Whether the client is in a mode that needs such a connection for as long as it lasts. */
  get hasStream(): boolean {
    return this.monitor !== null || this.tracking !== null;
  }

  // Opening and leaving

  /** The connection to the master, opened if need be; "blocked": the session is. */
  open(): Lane | "blocked" | "no-master" | "no-room" {
    const { host, router, tracking } = this;
    if (this.lane === null) {
      if (this.flight.count > 0) {
        host.block("drain");
        return "blocked";
      }
      if (!router.writable) return "no-master";
      if (this.hasStream) this.restore();
      else this.lane = router.openPrivate(host.profile, this.flight);
      if (this.lane === null)
        return this.restoreTimer === null && tracking === null ? "no-room" : "no-master";
    }
    // Nor is a master that is not to be written, or that is to be drained, given more through this one.
    if (!router.writable) return "no-master";
    // What is read before the server tracks nobody would tell to forget.
    if (tracking !== null && tracking.lane !== this.lane) return "no-master";
    return host.lanes.mayUse(this.lane) ? this.lane : "blocked";
  }

  /** The same for a request that has to be sent again, and may change the connection; null = not now. */
  openAgain(request: Request): Lane | null {
    const { bond, rewrite } = request;
    // A node that refused it is asked again only once there is a master, also on the connection it has.
    const isReady = this.router.writable && rewrite?.isReady?.() !== false;
    const lane = isReady ? this.open() : "no-master";
    if (typeof lane === "string") return null;
    lane.spoilt ||= bond === "change";
    if (bond === "stream") lane.carriesMessages = true;
    if (bond === "blocking") this.lineUp(lane);
    return lane;
  }

  /** Gives the connection back if nothing needs it any more. */
  release(): void {
    const { lane } = this;
    if (lane === null || this.watching || this.hasStream || this.flight.count > 0) return;
    this.lane = null;
    this.router.pool.givePrivate(lane);
  }

  /** Nothing more is asked through this one: another is to take its place, or nobody may use it. */
  leave(): void {
    this.lane?.retire(this.router.config.upstream.retireTimeout);
  }

  /** Ends it although keys may be watched on it. */
  lose(): void {
    if (this.hasStream) return this.leave();
    if (this.watching) this.watchLost = true;
    this.drop();
  }

  private drop(): void {
    const { lane } = this;
    this.lane = null;
    this.watching = false;
    lane?.drop();
  }

  /** As a new client, the session needs none. */
  reset(): void {
    this.watchLost = false;
    this.monitor = null;
    this.endTracking();
    this.drop();
  }

  /** The session has ended. */
  end(): void {
    this.endTracking();
    this.lane?.drop();
    this.lane = null;
  }

  // Calls that wait

  /** A call that the server may let wait is about to be sent: it takes its place behind all before it. */
  beginCall(): void {
    this.callPlace = this.router.pool.convoy.takePlace();
    this.inBlockingCall = true;
  }

  /** What the lane takes from now on is written when it is the call's turn. */
  lineUp(lane: Lane): void {
    this.router.pool.convoy.join(lane, this.callPlace);
  }

  // WATCH

  /** The keys are not watched any more, as far as the client is concerned; the server may not know it. */
  forgetWatch(): void {
    if (this.watching && this.lane !== null) {
      this.lane.spoilt = true;
      // It may have to stay for something else.
      if (this.hasStream) quietly(this.lane, UNWATCH);
    }
    this.watching = false;
  }

  // What the flight reports

  /** A command with a handler of its own was answered, maybe on a shared lane; `failed`: with an error. */
  answered(request: Request, failed: boolean): void {
    const { handler } = request.command;
    const endsWatch = handler === "exec" || handler === "unwatch";
    const isCall = request.bond === "blocking";
    if (isCall) this.inBlockingCall = false;
    // It ends the watch also where it was lost with the connection: the next transaction is another one.
    if (endsWatch) {
      this.watching = false;
      this.watchLost = false;
    }
    if (this.lane === null) return;
    // A paused server answers a call twice that CLIENT UNBLOCK … ERROR ends: nobody else may get the second.
    // EXEC and UNWATCH, refused, may have left the keys watched.
    if (failed && (isCall || endsWatch)) this.lane.spoilt = true;
    this.release();
  }

  messageIn(buf: Buffer, start: number, end: number): Buffer | null {
    const isMessage = buf[start] === GREATER || (this.monitor !== null && isMonitorLine(buf, start, end));
    if (!isMessage) return null;
    return this.tracking?.changedPush(buf, start, end) ?? Buffer.from(buf.subarray(start, end));
  }

  gone(lane: Lane): void {
    if (lane !== this.lane || this.host.isClosed) return;
    this.lane = null;
    if (this.watching) this.watchLost = true;
    this.watching = false;
    const { tracking } = this;
    const wasOfUse = tracking === null ? lane.wasOpen : tracking.lane === lane;
    if (tracking !== null && wasOfUse) {
      tracking.lane = null;
      tracking.flushDue = true;
      this.flushCache();
    }
    // It was not let in, or nobody listens: not at once once more.
    if (this.hasStream) this.restoreLater(wasOfUse ? 0 : this.nextPauseMs());
  }

  refused(): void {
    if (!this.hasStream) this.lose();
  }

  loseWatch(): void {
    this.forgetWatch();
    this.watchLost = true;
  }

  // MONITOR and tracking

  private nextPauseMs(): number {
    this.pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, 2 * this.pauseMs));
    return this.pauseMs;
  }

  /** Not before the loss of the connection is told: the same node would be tried at once. */
  private restoreLater(pauseMs: number): void {
    if (pauseMs === 0) this.pauseMs = 0;
    this.restoreTimer ??= setTimeout(() => {
      this.restoreTimer = null;
      this.restore();
    }, pauseMs);
  }

  onWritable(): void {
    this.restore();
  }

  /**
   * Monitors, or tracks, on another connection as soon as there is a master; the client sees nothing of it.
   */
  restore(): void {
    const { host, router, flight, tracking } = this;
    if (host.isClosed || this.lane !== null || !this.hasStream || this.restoreTimer !== null) return;
    // What is still on the way may change what is to be tracked.
    if (tracking !== null && (flight.count > 0 || !tracking.isReady)) return;
    if (!router.writable) return router.whenWritable(this);
    const lane = router.openPrivate(host.profile, flight);
    // There is no room; nobody tells when there is.
    if (lane === null) return this.restoreLater(this.nextPauseMs());
    this.lane = lane;
    lane.carriesMessages = true;
    // The server answers only the first MONITOR (replication.c): it must be the client's own, if that is due.
    if (this.monitor !== null && !flight.waitsFor(this.monitor)) quietly(lane, MONITOR);
    tracking?.start(lane, (accepted) => this.onTracked(lane, accepted));
  }

  /** The server has answered whether it tracks this connection as the one before. */
  private onTracked(lane: Lane, accepted: boolean): void {
    const { tracking } = this;
    if (tracking === null || lane !== this.lane) return;
    if (accepted) {
      tracking.lane = lane;
      this.pauseMs = 0;
      tracking.flushAgainLater();
      this.host.holding.retry();
      return;
    }
    // It is busy with a script, say: what is read there now nobody would tell to forget. Whoever has asked
    // something there (AUTH) is answered still.
    this.leave();
  }

  /** Nothing of the session is on the way any more: what had to wait for that is done. */
  onDrained(): void {
    if (this.tracking === null || this.lane !== null) return;
    this.flushCache();
    if (this.restoreTimer === null) setImmediate(() => this.restore());
  }

  /** Tells the client to forget what it has cached, once no reply is on the way that it could still cache. */
  private flushCache(): void {
    const { tracking } = this;
    if (tracking === null || !tracking.flushDue || this.flight.count > 0) return;
    tracking.flushDue = false;
    tracking.flush();
  }

  /** The client does not want to be told what changes any more. */
  endTracking(): void {
    this.tracking?.end();
    this.tracking = null;
  }
}

const MONITOR = encodeRequest(["MONITOR"]);
const UNWATCH = encodeRequest(["UNWATCH"]);

/** Sends what the client has asked for before; it does not see the replies again. */
function quietly(lane: Lane, bytes: Buffer): void {
  const request = new Request(NOBODY, OWN_REQUEST, MASTER_READ, NO_CHUNK, 0, 0, 1);
  lane.pushCopy(request, bytes, 0, bytes.length);
}
