/** Which node a session reads from. */
import type { Config } from "../config/schema.ts";
import type { ReadWay } from "../metrics.ts";
import type { ReadTarget, Router } from "../routing/router.ts";
import type { Lane } from "../upstream/lane.ts";
import type { Profile } from "../upstream/profile.ts";
import type { Slots } from "../upstream/request.ts";
import type { Flight } from "./flight.ts";

/**
 * What a session's reads see; `reads.consistency` says what each new session begins with. session: its own
 * writes, and of each key nothing older than it has seen; proxy: besides that the writes of all sessions of
 * this process; eventual: whatever a fit replica has; strong: what the master has.
 */
export type Consistency = Config["reads"]["consistency"];

export class Reading {
  /** This session's own. */
  consistency: Consistency;
  /** The replica it reads from as long as that is fit; null = there is none. */
  private home: ReadTarget | null = null;
  private version = -1;
  /** Its home is not fit, and there is no other that it could read from. */
  private isAway = false;
  /** It has another home, and what it has seen before is not yet known whole. */
  private hasMoved = false;
  /** Its home must have proven this much: all that the session has seen before it was its home. */
  private seenMs = Number.NEGATIVE_INFINITY;
  private readonly router: Router;
  private readonly flight: Flight;
  private readonly sessionId: number;

  constructor(router: Router, flight: Flight, sessionId: number) {
    this.router = router;
    this.flight = flight;
    this.sessionId = sessionId;
    this.consistency = router.config.reads.consistency;
  }

  /**
   * From now on reads see this. What the session has read until now it does not un-read. Nothing may be on
   * the way: sent again, it would go by the new rule.
   */
  setConsistency(consistency: Consistency): void {
    if (consistency === this.consistency) return;
    this.consistency = consistency;
    this.hasMoved = true;
    this.noteMaster();
  }

  /** No replica is fit, and the master must not be asked for that. */
  get lacksReplica(): boolean {
    return this.router.lacksReplica && this.consistency !== "strong";
  }

  /** Why a read goes to the master for which `lane` had none. */
  get whyMaster(): Exclude<ReadWay, "replica"> {
    if (this.consistency === "strong" || this.router.config.reads.from === "master") return "policy";
    return this.router.hasReadable ? "freshness" : "none-fit";
  }

  /** Whether it matters which keys a read is of. */
  get isByKey(): boolean {
    const { home, router, consistency } = this;
    if (home === null || consistency === "strong" || consistency === "eventual") return false;
    const { provenAtMs } = home;
    if (this.hasMoved || this.version !== router.version || this.seenMs > provenAtMs) return true;
    if (consistency === "proxy") return !router.freshness.isQuietAt(provenAtMs);
    const { recent } = this.flight;
    return recent !== null && recent.newestMs > provenAtMs;
  }

  /** The lane for a read of these slots; null = the master must be asked. */
  lane(profile: Profile, slots: Slots): Lane | null {
    const { router } = this;
    if (this.version !== router.version || this.isAway) this.choose();
    const { home } = this;
    if (home === null || this.isAway || this.consistency === "strong") return null;
    const lane = router.readLane(profile, home);
    // There is no room for it: what the master shows meanwhile its home must have too.
    if (lane === null) this.hasMoved = true;
    if (this.consistency === "eventual" || this.hasSeenLess(home, lane, slots)) return lane;
    router.seekProof();
    return null;
  }

  /** Whether the home has all that the session has seen, and all that was written to these slots. */
  private hasSeenLess(home: ReadTarget, lane: Lane | null, slots: Slots): boolean {
    const { flight } = this;
    if (this.hasMoved) {
      // What is on the way from elsewhere may show it more: first its replies.
      if (flight.count > 0 && flight.lane !== lane) return true;
      this.hasMoved = false;
      this.seenMs = flight.lastReadMs;
    }
    const { provenAtMs } = home;
    if (this.seenMs > provenAtMs) return false;
    const { freshness } = this.router;
    if (this.consistency === "proxy") return freshness.mayServe(slots, provenAtMs);
    const { recent } = flight;
    if (recent === null || recent.newestMs <= provenAtMs) return true;
    if (recent.touchedSince(provenAtMs, slots)) return false;
    // What it has forgotten stands in the table, among all that others have written.
    return recent.forgottenMs <= provenAtMs || freshness.mayServe(slots, provenAtMs);
  }

  /**
   * A session stays on its node as long as that is fit, so that what it reads does not go back in time. On
   * another one it must see what it has seen: until that has proven to be as new the master serves. Without a
   * master it waits for its node to be back, or for one that has.
   */
  private choose(): void {
    const { router, home: before, flight } = this;
    const home = router.readTarget(this.sessionId);
    const isFit = before !== null && router.isReadable(before);
    if (isFit && home !== before && !(router.writable && home !== null && home.provenAtMs >= 0)) {
      this.isAway = false;
      return;
    }
    this.version = router.version;
    const isProven = home !== null && home.provenAtMs >= flight.lastReadMs;
    this.isAway = !isFit && !isProven && !router.writable;
    if (this.isAway || home === before) return;
    this.home = home;
    this.hasMoved = home !== null;
    this.noteMaster();
  }

  /** The master's replies count only where the replica that is read otherwise could show less. */
  private noteMaster(): void {
    const { home, flight, consistency } = this;
    const isBound = consistency === "session" || consistency === "proxy";
    flight.readsReplica = isBound && home !== null && home.provenAtMs < Number.POSITIVE_INFINITY;
  }
}
