/**
 * Which keys a replica may be read for: a table of what was written through this process, and when.
 *
 * A replica is *proven* up to a moment when it has applied an offset that the master reported after that
 * moment (topology/rules/samples.ts): it has every write that was answered before. So it shows nothing old
 * of a key when no write of that key is on the way, and the last one was answered before that moment.
 *
 * The table knows hashes of keys, not keys: two keys in one slot only make each other wait. It is shared by
 * all sessions, so that what one has written no other one is shown without. Databases are not part of the
 * hash: MOVE, COPY and SWAPDB change another one than they are sent in.
 *
 * The master may know more than was written through this process (another proxy, a client of its own,
 * eviction). So a read that it answered counts like a write: what a session has seen there it is not shown
 * without either.
 */
import { EVERYTHING, NOTHING, type Slots, type WriteLog } from "../upstream/request.ts";

/** A power of two. With 200 keys written within a proof interval one other key in 80 waits with them. */
const SLOTS = 16_384;

/** More keys than this in one request are not told apart. */
const MAX_KEYS = 1024;

export class Freshness implements WriteLog {
  /** Writes on the way, by slot; and those that may change anything. */
  private readonly pending = new Int32Array(SLOTS);
  private pendingEverywhere = 0;
  /** Moment up to which a replica must be proven, monotonic ms, by slot; and for all of them. */
  private readonly neededMs = new Float64Array(SLOTS).fill(Number.NEGATIVE_INFINITY);
  private neededEverywhereMs = Number.NEGATIVE_INFINITY;
  /** The newest of all these moments, and all the writes on the way. */
  private newestMs = Number.NEGATIVE_INFINITY;
  private pendingCount = 0;

  /** The slot of a key. */
  slotOf(buf: Uint8Array, start: number, end: number): number {
    let hash = end - start;
    for (let i = start; i < end; i++) hash = (Math.imul(hash, 0x01000193) ^ buf[i]!) | 0;
    return (hash ^ (hash >>> 15)) & (SLOTS - 1);
  }

  slotsOf(keys: readonly Uint8Array[]): Slots {
    const [first] = keys;
    if (first === undefined) return NOTHING;
    if (keys.length === 1) return this.slotOf(first, 0, first.length);
    if (keys.length > MAX_KEYS) return EVERYTHING;
    return keys.map((key) => this.slotOf(key, 0, key.length));
  }

  /** Nothing at all was written, or read from the master, that a replica proven up to then may lack. */
  isQuietAt(provenAtMs: number): boolean {
    return this.pendingCount === 0 && this.newestMs <= provenAtMs;
  }

  /** Whether a replica proven up to a moment may be read for these slots. */
  mayServe(slots: Slots, provenAtMs: number): boolean {
    if (this.isQuietAt(provenAtMs) || slots === NOTHING) return true;
    if (slots === EVERYTHING) return false;
    if (this.pendingEverywhere > 0 || this.neededEverywhereMs > provenAtMs) return false;
    if (typeof slots === "number") return this.mayServeSlot(slots, provenAtMs);
    for (const slot of slots) if (!this.mayServeSlot(slot, provenAtMs)) return false;
    return true;
  }

  private mayServeSlot(slot: number, provenAtMs: number): boolean {
    return this.pending[slot] === 0 && this.neededMs[slot]! <= provenAtMs;
  }

  /** Whether only proof is missing: no write of these slots is on the way. */
  isSettled(slots: Slots): boolean {
    if (this.pendingCount === 0 || slots === NOTHING) return true;
    if (slots === EVERYTHING || this.pendingEverywhere > 0) return false;
    if (typeof slots === "number") return this.pending[slots] === 0;
    return slots.every((slot) => this.pending[slot] === 0);
  }

  sent(slots: Slots): void {
    if (slots === NOTHING) return;
    this.pendingCount++;
    if (slots === EVERYTHING) this.pendingEverywhere++;
    else if (typeof slots === "number") this.pending[slots]!++;
    else for (const slot of slots) this.pending[slot]!++;
  }

  done(slots: Slots, nowMs: number): void {
    if (slots === NOTHING) return;
    this.pendingCount--;
    if (slots === EVERYTHING) this.pendingEverywhere--;
    else if (typeof slots === "number") this.pending[slots]!--;
    else for (const slot of slots) this.pending[slot]!--;
    this.need(slots, nowMs);
  }

  /** From now on a replica must be proven up to `nowMs` to be read for these slots. */
  need(slots: Slots, nowMs: number): void {
    if (slots === NOTHING) return;
    if (nowMs > this.newestMs) this.newestMs = nowMs;
    if (slots === EVERYTHING) this.neededEverywhereMs = nowMs;
    else if (typeof slots === "number") this.neededMs[slots] = nowMs;
    else for (const slot of slots) this.neededMs[slot] = nowMs;
  }
}
