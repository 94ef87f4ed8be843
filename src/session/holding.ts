/**
 * A session's part in the hold: what its next request lacks, since when it is held, which of its requests
 * have waited too long, and what they are answered instead.
 */
import type { HoldOutcome } from "../metrics.ts";
import { encodeError } from "../resp/encode.ts";
import type { Holdable, Lack } from "../routing/hold.ts";
import type { Router } from "../routing/router.ts";
import type { Request } from "../upstream/request.ts";
import type { Flight } from "./flight.ts";
import type { Input } from "./input.ts";
import type { Voice } from "./voice.ts";

/** The session that may be held. */
export interface HoldingHost {
  readonly isClosed: boolean;
  /** Its client will send nothing more. */
  readonly hasLeft: boolean;
  /** The proxy is shutting down: nothing waits any more. */
  readonly isDraining: boolean;
  /** It is held: it takes nothing more. */
  block(why: "hold"): false;
  /** Goes on, if it is still held. */
  tryAgain(): void;
  /** Ends it at once. */
  destroy(reason: "client"): void;
}

/** What a session's part in the hold has to do with. */
export interface HoldingParts {
  readonly router: Router;
  /** What has to be sent again. */
  readonly flight: Flight;
  /** What waits behind that. */
  readonly input: Input;
  readonly voice: Voice;
}

/** How long after a question that nobody answered it is asked again, ms. */
const ASK_AGAIN_MS = 50;

/** A connection that is lost so soon after a request was given to it was no way for it, ms. */
const NO_WAY_MS = 1_000;

export class Holding implements Holdable {
  /** Since when the oldest waiting request has waited, monotonic ms; 0 = not held. */
  heldSinceMs = 0;
  /** What the request that has no way needs. */
  lacks: Lack = "master";
  /** It is the session's turn among those who wait for the master: nobody is before it. */
  isNext = false;
  /** Requests that begin before this position of the input waited too long already. */
  private expiredBefore = 0;
  private readonly host: HoldingHost;
  private readonly router: Router;
  private readonly flight: Flight;
  private readonly input: Input;
  private readonly voice: Voice;

  constructor(host: HoldingHost, { router, flight, input, voice }: HoldingParts) {
    this.host = host;
    this.router = router;
    this.flight = flight;
    this.input = input;
    this.voice = voice;
  }

  /**
   * The next request, at `start` of the input, has no node to go to: the session is held, unless the request
   * must not wait, or waited too long already, or there is no room. @returns true when it was answered.
   */
  wait(start: number, lacks: Lack = "master"): boolean {
    const { input, voice } = this;
    const { config, pool, writable } = this.router;
    this.lacks = lacks;
    if (this.mustNotWait) {
      voice.refuse(NO_WAITING);
      return true;
    }
    const position = input.positionOf(start);
    if (this.host.isDraining || position < this.expiredBefore) {
      voice.say(this.waitedInVain());
      return true;
    }
    if (lacks === "master" && writable && pool.isFull) {
      voice.refuse(
        `ERR proxy: no more upstream connections, upstream.maxLanes (${config.upstream.maxLanes})`,
      );
      return true;
    }
    if (this.begin(input.arrivalOf(position) ?? this.router.nowMs())) return false;
    voice.say(this.noRoom());
    return true;
  }

  /** A question for the request at `start` found nobody: it is asked again, also without news of a master. */
  waitToAsk(start: number): void {
    if (!this.wait(start)) setTimeout(() => this.retry(), ASK_AGAIN_MS);
  }

  /**
   * The session is held from now on, if it is not already.
   * @param sinceMs since when its oldest request waits, monotonic ms. @returns false when there is no room.
   */
  begin(sinceMs: number): boolean {
    const { host } = this;
    // A client that will send nothing more and waits is as good as gone.
    if (host.hasLeft) host.destroy("client");
    if (this.heldSinceMs === 0 && !host.isClosed) {
      this.heldSinceMs = sinceMs;
      if (!this.router.hold.add(this)) {
        this.heldSinceMs = 0;
        return false;
      }
    }
    host.block("hold");
    return true;
  }

  /** It is held no more, if it was. */
  end(outcome: HoldOutcome): void {
    if (this.heldSinceMs === 0) return;
    this.heldSinceMs = 0;
    if (outcome !== "expired") this.input.forgetMarks();
    this.router.hold.remove(this, outcome);
  }

  /** More has arrived, `bytes` of it. @returns false when it is held and there is no room for that. */
  grow(bytes: number): boolean {
    if (this.heldSinceMs === 0) return true;
    // The coarse clock stands still while the process is busy, and a deadline must not come early.
    this.input.mark(this.router.nowMs(), this.router.config.hold.maxTime);
    return this.router.hold.grow(this, bytes);
  }

  heldBytes(): number {
    return this.input.length + this.flight.againBytes;
  }

  retry(): void {
    this.isNext = true;
    this.host.tryAgain();
    this.isNext = false;
  }

  /** What has waited since before `cutoffMs` is answered; what came later goes on waiting. */
  expire(cutoffMs: number): void {
    const { host, flight } = this;
    // Replies to later requests are on the way: they tell first what becomes of those that wait.
    if (host.isClosed || (flight.hasAgain && flight.count > 0)) return;
    this.expiredBefore = this.input.firstAfter(cutoffMs);
    this.end(host.isDraining ? "failed" : "expired");
    flight.refuseAgain(() => this.waitedInVain(), this.lacks);
    host.tryAgain();
  }

  /**
   * Since when a request waits to be sent again, monotonic ms. A way that was none does not begin the wait
   * anew: else it would have no end.
   */
  waitsSince(request: Request): number {
    const nowMs = this.router.nowMs();
    const isNew = request.waitsSinceMs === 0 || nowMs - request.wayFoundAtMs > NO_WAY_MS;
    if (this.heldSinceMs === 0 && isNew) request.waitsSinceMs = nowMs;
    return request.waitsSinceMs;
  }

  // Words

  /** The request lacks a replica, and reads do not wait for one. */
  get mustNotWait(): boolean {
    return this.lacks === "replica" && this.router.config.reads.whenNoneFit === "error";
  }

  /** What a request is answered that cannot be sent again, nor wait for that. */
  refusal(): Buffer {
    return this.host.isDraining ? this.waitedInVain() : this.noRoom();
  }

  private noRoom(): Buffer {
    const most = this.router.config.hold.maxBytes;
    if (this.lacks === "replica") {
      return this.noReplica(`, and there is no room to wait for one, hold.maxBytes (${most} bytes)`);
    }
    return this.masterDown(`no room to wait for a master, hold.maxBytes (${most} bytes)`);
  }

  private waitedInVain(): Buffer {
    const { isDraining } = this.host;
    const within = `within hold.maxTime (${this.router.config.hold.maxTime} ms)`;
    if (this.lacks === "replica") {
      return this.noReplica(isDraining ? ", and the proxy is shutting down" : ` ${within}`);
    }
    return this.masterDown(isDraining ? "no master, and the proxy is shutting down" : `no master ${within}`);
  }

  private noReplica(why: string): Buffer {
    this.router.counters.proxyErrors++;
    return encodeError(`${NO_REPLICA}${why}`);
  }

  /** What a request is answered that did not run for want of a master. */
  masterDown(why: string): Buffer {
    this.router.counters.proxyErrors++;
    return encodeError(`MASTERDOWN proxy: not run: ${why}`);
  }
}

const NO_REPLICA = "ERR proxy: no replica is fit to be read";

/** The error for a read that must not wait for a replica. */
export const NO_WAITING = `${NO_REPLICA} (reads.whenNoneFit)`;
