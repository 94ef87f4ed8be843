/** Which node a session reads from. */
import type { Config } from "../config/schema.ts";
import type { ReadWay } from "../metrics.ts";
import type { Lot } from "../routing/balance.ts";
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
  /** The replica it reads from as long as that is fit; eventual: the last one. Null = there is none. */
  private home: ReadTarget | null = null;
  private version = -1;
  private lot: Lot | null = null;
  /** Its home is not fit, and there is no other that it could read from. */
  private isAway = false;
  /** It has another home, and what it has seen before is not yet known whole. */
  private hasMoved = false;
  /** Its node was the master, and it goes on without: what it has seen there it may miss for so long. */
  private isOrphan = false;
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
    this.settleOn(null);
    this.consistency = consistency;
    this.version = -1;
  }

  /** No replica is fit, and the master must not be asked for that. */
  get lacksReplica(): boolean {
    return this.router.lacksReplica && this.consistency !== "strong";
  }

  /** Why a read goes to the master for which `lane` had none. */
  get whyMaster(): Exclude<ReadWay, "replica"> {
    if (this.consistency === "strong" || this.router.config.reads.from === "master") return "policy";
    // Behind the session's own unanswered write no replica can be fresh enough.
    return this.flight.writes > 0 || this.router.hasReadable ? "freshness" : "none-fit";
  }

  /** It sees what it has written, and nothing older than it has seen. */
  private get isBound(): boolean {
    return this.consistency === "session" || this.consistency === "proxy";
  }

  /** Whether it matters which keys a read is of: its node may lack them, or the master may answer it. */
  get isByKey(): boolean {
    const { home, router, flight } = this;
    if (!this.isBound) return false;
    // It is about to choose: until the new home may be read, the master shows more than that.
    if (this.version !== router.version || this.isAway) return true;
    if (home === null) return false;
    // The master answers, behind the session's own write.
    if (flight.writes > 0) return true;
    const { provenAtMs } = home;
    if (this.hasMoved || this.seenMs > provenAtMs) return true;
    if (this.consistency === "proxy" && !router.freshness.isQuietAt(provenAtMs)) return true;
    return flight.recent !== null && flight.recent.newestMs > provenAtMs;
  }

  /** The lane for a read of these slots; null = the master must be asked. */
  lane(profile: Profile, slots: Slots): Lane | null {
    const { router } = this;
    if (this.consistency === "eventual") return this.anyLane(profile);
    if (this.consistency === "strong") return null;
    if (this.version !== router.version || this.isAway) this.choose();
    const { home } = this;
    if (home === null || this.isAway) return null;
    const lane = router.readLane(profile, home);
    // There is no room for it: what the master shows meanwhile its home must have too.
    if (lane === null) this.hasMoved = true;
    else if (this.isArriving(lane) || this.hasAll(home, slots)) return lane;
    router.seekProof();
    return null;
  }

  /** The lane to any node that may be read, for what is the same everywhere; null = there is none. */
  anywhere(profile: Profile): Lane | null {
    const { router, home } = this;
    const target = home !== null && router.isReadable(home) ? home : router.anyTarget();
    return target === null ? null : router.readLane(profile, target);
  }

  /** It has moved, and what is on the way from elsewhere may show it more: first its replies. */
  private isArriving(lane: Lane): boolean {
    const { flight } = this;
    if (!this.hasMoved) return false;
    if (flight.count > 0 && flight.lane !== lane) return true;
    this.hasMoved = false;
    this.seenMs = flight.lastReadMs;
    return false;
  }

  /** Whether a node has all that the session has seen, and all that must be seen in these slots. */
  private hasAll({ provenAtMs }: Pick<ReadTarget, "provenAtMs">, slots: Slots): boolean {
    const isExcused = this.isOrphan && !this.router.writable;
    if (this.seenMs > provenAtMs && !isExcused) return false;
    const { recent } = this.flight;
    if (recent?.touchedSince(provenAtMs, slots) === true) return false;
    const { freshness } = this.router;
    // What it has forgotten stands in the table, among all that others have written and seen.
    const isWhole = recent === null || recent.forgottenMs <= provenAtMs;
    if (!isWhole) return freshness.hasAll(slots, provenAtMs);
    return this.consistency !== "proxy" || freshness.hasWritten(slots, provenAtMs);
  }

  /**
   * The master would only have to be asked because of what it has shown, or what was answered, before a
   * question that is on its way: a moment later the home may serve. Else a client that reads one key without
   * a pause would never get back to it.
   */
  isSoonServed(slots: Slots): boolean {
    const { home } = this;
    if (home === null || this.isAway || this.hasMoved || !this.isBound) return false;
    const provenAtMs = this.router.proofs.soon(home);
    return provenAtMs !== null && this.hasAll({ provenAtMs }, slots);
  }

  /** What is on the way together stays together: one read after another would wait for the one before. */
  private anyLane(profile: Profile): Lane | null {
    const { router, flight } = this;
    if (flight.count === 0 || this.version !== router.version) this.home = router.anyTarget();
    this.version = router.version;
    return this.home === null ? null : router.readLane(profile, this.home);
  }

  /** Another connection for the read that is on the way: its node has proven all that the client has seen. */
  twinLane(profile: Profile): Lane | null {
    const { router, flight } = this;
    if (flight.lane === null) return null;
    const { node } = flight.lane.target;
    const spare = router.spareTarget(node, (target) => this.hasProvenAll(target));
    const hasMaster = router.writable && router.epoch.master !== node;
    const master = hasMaster ? router.masterLane(profile) : null;
    const lane = spare === null ? master : router.readLane(profile, spare);
    return lane === null || lane.congested || lane.isRetiring ? null : lane;
  }

  /** Whether a node may be read instead of the home, whatever the key. */
  private hasProvenAll({ provenAtMs }: ReadTarget): boolean {
    const { flight, router, seenMs } = this;
    if (!this.isBound) return true;
    if (this.consistency === "proxy" && !router.freshness.isQuietAt(provenAtMs)) return false;
    const newestMs = flight.recent?.newestMs ?? Number.NEGATIVE_INFINITY;
    return Math.max(flight.lastReadMs, newestMs, seenMs) <= provenAtMs;
  }

  /** A twin was faster: the session stays there; what the master has shown its own node has yet to prove. */
  answeredBy(lane: Lane): void {
    const { role, node } = lane.target;
    const target = role === "reader" ? this.router.readableTarget(node) : null;
    if (target === null) this.hasMoved = true;
    else this.settleOn(target);
  }

  private settleOn(home: ReadTarget | null): void {
    if (this.consistency !== "eventual") {
      if (this.home !== null) this.home.load.sessions--;
      if (home !== null) home.load.sessions++;
    }
    this.home = home;
    // The master's replies count only where the replica that is read otherwise could show less.
    this.flight.readsReplica = this.isBound && home !== null && !isMaster(home);
  }

  /** The session has ended. */
  leave(): void {
    this.settleOn(null);
  }

  /**
   * A session stays on its node as long as that is fit, so that what it reads does not go back in time. On
   * another one it must see what it has seen: until that has proven to be as new the master serves. Without a
   * master it waits for its node to be back, or for one that has. Only whose node was that master itself
   * (`reads.from: any`) goes on at once, at one that was fit when the master went.
   */
  private choose(): void {
    const { router, home: before, flight } = this;
    this.lot ??= router.readLot(this.sessionId);
    const home = router.readTarget(this.sessionId, this.lot);
    const isFit = before !== null && router.isReadable(before);
    const canMove = home !== null && home.provenAtMs >= 0 && router.writable;
    if (isFit && home !== before && !canMove) {
      this.isAway = false;
      return;
    }
    this.version = router.version;
    const isProven = home !== null && home.provenAtMs >= flight.lastReadMs;
    const wasThere = home !== null && home.sinceMs <= router.masterLostMs;
    const isOrphan = before !== null && isMaster(before) && wasThere && !router.writable;
    this.isAway = !isFit && !isProven && !isOrphan && !router.writable;
    if (this.isAway || home === before) return;
    this.settleOn(home);
    this.isOrphan = isOrphan;
    this.hasMoved = home !== null;
  }
}

/** Whether a node that may be read is the master (`reads.from: any`). */
function isMaster({ provenAtMs }: ReadTarget): boolean {
  return provenAtMs === Number.POSITIVE_INFINITY;
}
