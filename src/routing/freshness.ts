/**
 * Which keys a replica may be read for: a table of what was written through this process, and when.
 *
 * A replica is *proven* up to a moment when it has applied an offset that the master reported after that
 * moment (topology/rules/samples.ts): it has every write that was answered before. So it shows nothing old
 * of a key when the last write of that key was answered before that moment.
 *
 * The table knows hashes of keys, not keys: two keys in one slot only make each other wait. It is shared by
 * all sessions: so one can be shown all that the others have written (`reads.consistency: proxy`), and can
 * forget what it has written itself. Databases are not part of the hash: MOVE, COPY and SWAPDB change another
 * one than they are sent in.
 *
 * The master may know more than was written through this process (another proxy, a client of its own,
 * eviction). What it has shown to a session that session must not be shown without either: those moments are
 * kept beside the writes, for sessions that have forgotten theirs.
 */
import { EVERYTHING, NOTHING, type Slots } from "../upstream/request.ts";

/** A power of two. With 200 keys written within a proof interval one other key in 80 waits with them. */
const SLOTS = 16_384;

/** More keys than this in one request are not told apart. */
const MAX_KEYS = 1024;

export class Freshness {
  private readonly written = new Moments();
  private readonly seen = new Moments();

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

  /** A write was answered, or lost and may have run. @param nowMs monotonic ms. */
  wrote(slots: Slots, nowMs: number): void {
    this.written.note(slots, nowMs);
  }

  /** The master has shown a session what is there, monotonic ms. */
  saw(slots: Slots, nowMs: number): void {
    this.seen.note(slots, nowMs);
  }

  /** Nothing at all was written that a replica proven up to then may lack. */
  isQuietAt(provenAtMs: number): boolean {
    return this.written.newestMs <= provenAtMs;
  }

  /** Whether a replica proven up to a moment has all that was written to these slots. */
  hasWritten(slots: Slots, provenAtMs: number): boolean {
    return this.written.areBefore(slots, provenAtMs);
  }

  /** Whether it has, besides that, all that the master has shown of them to anybody. */
  hasAll(slots: Slots, provenAtMs: number): boolean {
    return this.written.areBefore(slots, provenAtMs) && this.seen.areBefore(slots, provenAtMs);
  }
}

/** The last moment of each slot, monotonic ms. */
class Moments {
  /** The newest of all. */
  newestMs = Number.NEGATIVE_INFINITY;
  private everywhereMs = Number.NEGATIVE_INFINITY;
  private readonly atMs = new Float64Array(SLOTS).fill(Number.NEGATIVE_INFINITY);

  note(slots: Slots, nowMs: number): void {
    if (slots === NOTHING) return;
    if (nowMs > this.newestMs) this.newestMs = nowMs;
    if (slots === EVERYTHING) this.everywhereMs = nowMs;
    else if (typeof slots === "number") this.atMs[slots] = nowMs;
    else for (const slot of slots) this.atMs[slot] = nowMs;
  }

  areBefore(slots: Slots, provenAtMs: number): boolean {
    if (this.newestMs <= provenAtMs || slots === NOTHING) return true;
    if (slots === EVERYTHING || this.everywhereMs > provenAtMs) return false;
    if (typeof slots === "number") return this.atMs[slots]! <= provenAtMs;
    for (const slot of slots) if (this.atMs[slot]! > provenAtMs) return false;
    return true;
  }
}
