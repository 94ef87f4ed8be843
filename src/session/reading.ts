/** Which node a session reads from. */
import type { Config } from "../config/schema.ts";
import type { ReadWay } from "../metrics.ts";
import type { ReadTarget, Router } from "../routing/router.ts";
import type { Lane } from "../upstream/lane.ts";
import type { Profile } from "../upstream/profile.ts";
import type { Flight } from "./flight.ts";

/** What a session's reads see; `reads.consistency` says what each new session begins with. */
export type Consistency = Config["reads"]["consistency"];

export class Reading {
  /** This session's own. */
  consistency: Consistency;
  private target: ReadTarget | null = null;
  private version = -1;
  /** When it chose another node, monotonic ms: that node must have proven to be newer. */
  private movedMs = Number.NEGATIVE_INFINITY;
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
   * From now on reads see this. What the session has read until now it does not un-read, so that counts as
   * its own write. Nothing may be on the way: sent again, it would go by the new rule.
   */
  setConsistency(consistency: Consistency): void {
    if (consistency === this.consistency) return;
    this.consistency = consistency;
    if (this.version >= 0) this.movedMs = this.router.nowMs();
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

  /** The lane for a read; null = the master must be asked. */
  lane(profile: Profile): Lane | null {
    const { router } = this;
    if (this.version !== router.version) this.choose();
    const { target, consistency } = this;
    if (target === null || consistency === "strong") return null;
    const { provenAtMs } = target;
    if (consistency === "session" && (this.flight.lastWriteMs > provenAtMs || this.movedMs > provenAtMs)) {
      return null;
    }
    return router.readLane(profile, target);
  }

  /**
   * A session stays on its node as long as that is fit, so that what it reads does not go back in time. On
   * another one it must see what it has seen: everything up to now counts as its own write, as far as there
   * is a master that can serve in between.
   */
  private choose(): void {
    const { router, target: before } = this;
    const home = router.readTarget(this.sessionId);
    const isFit = before !== null && router.isReadable(before);
    const canMove = home !== null && home.provenAtMs >= 0 && router.writable;
    if (isFit && home !== before && !canMove) return;
    this.version = router.version;
    this.target = home;
    if (before !== null && home !== before && router.writable) this.movedMs = router.nowMs();
  }
}
