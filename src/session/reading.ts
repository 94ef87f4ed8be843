/** Which node a session reads from. */
import type { Lot } from "../routing/balance.ts";
import type { ReadTarget, Router } from "../routing/router.ts";
import type { Lane } from "../upstream/lane.ts";
import type { Profile } from "../upstream/profile.ts";
import type { Flight } from "./flight.ts";

export class Reading {
  private target: ReadTarget | null = null;
  private version = -1;
  private lot: Lot | null = null;
  /** When it chose another node, monotonic ms: that node must have proven to be newer. */
  private movedMs = Number.NEGATIVE_INFINITY;
  private readonly router: Router;
  private readonly flight: Flight;
  private readonly sessionId: number;

  constructor(router: Router, flight: Flight, sessionId: number) {
    this.router = router;
    this.flight = flight;
    this.sessionId = sessionId;
  }

  /** The lane for a read; null = the master must be asked. */
  lane(profile: Profile): Lane | null {
    const { router } = this;
    const { consistency } = router.config.reads;
    if (consistency === "eventual") return this.anyLane(profile);
    if (this.version !== router.version) this.choose();
    const { target } = this;
    if (target === null || consistency === "strong") return null;
    const { provenAtMs } = target;
    if (consistency === "session" && (this.flight.lastWriteMs > provenAtMs || this.movedMs > provenAtMs)) {
      router.counters.freshnessReads++;
      return null;
    }
    return router.readLane(profile, target);
  }

  /** Another connection for the read that is on the way: its node has proven all that the client has seen. */
  twinLane(profile: Profile): Lane | null {
    const { router, flight } = this;
    if (flight.lane === null) return null;
    const { node } = flight.lane.target;
    const isEventual = router.config.reads.consistency === "eventual";
    const seenMs = Math.max(flight.lastReplyMs, flight.lastWriteMs, this.movedMs);
    const spare = router.spareTarget(node, isEventual ? Number.NEGATIVE_INFINITY : seenMs);
    const hasMaster = router.writable && router.epoch.master !== node;
    const master = hasMaster ? router.masterLane(profile) : null;
    const lane = spare === null ? master : router.readLane(profile, spare);
    return lane === null || lane.congested || lane.isRetiring ? null : lane;
  }

  /** A twin was faster: the session stays there; what the master has shown its own node has yet to prove. */
  answeredBy(lane: Lane): void {
    const { role, node } = lane.target;
    const target = role === "reader" ? this.router.readableTarget(node) : null;
    if (target === null) this.movedMs = this.router.nowMs();
    else this.settleOn(target);
  }

  private settleOn(target: ReadTarget | null): void {
    if (this.router.config.reads.consistency !== "eventual") {
      if (this.target !== null) this.target.load.sessions--;
      if (target !== null) target.load.sessions++;
    }
    this.target = target;
  }

  /** The session has ended. */
  leave(): void {
    this.settleOn(null);
  }

  /** What is on the way together stays together: one read after another would wait for the one before. */
  private anyLane(profile: Profile): Lane | null {
    const { router, flight } = this;
    if (flight.count === 0 || this.version !== router.version) this.target = router.anyTarget();
    this.version = router.version;
    return this.target === null ? null : router.readLane(profile, this.target);
  }

  /**
   * A session stays on its node as long as that is fit, so that what it reads does not go back in time. On
   * another one it must see what it has seen: everything up to now counts as its own write, as far as there
   * is a master that can serve in between.
   */
  private choose(): void {
    const { router, target: before } = this;
    this.lot ??= router.readLot(this.sessionId);
    const home = router.readTarget(this.sessionId, this.lot);
    const isFit = before !== null && router.isReadable(before);
    const canMove = home !== null && home.provenAtMs >= 0 && router.writable;
    if (isFit && home !== before && !canMove) return;
    this.version = router.version;
    this.settleOn(home);
    if (before !== null && home !== before && router.writable) this.movedMs = router.nowMs();
  }
}
