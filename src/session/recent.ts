import { EVERYTHING, NOTHING, type Slots } from "../upstream/request.ts";

/** Entries remembered; a proof comes every 20 ms or so while a session needs one. */
const SIZE = 32;

/**
 * PURE. What a session has lately written, or seen at the master: the newest entries one by one. What is
 * older is forgotten, but for the moment up to which it was.
 */
export class Recent {
  /** When the newest entry was made, monotonic ms; -Infinity = there is none. */
  newestMs = Number.NEGATIVE_INFINITY;
  /** When the newest of those was made that are forgotten. */
  forgottenMs = Number.NEGATIVE_INFINITY;
  /** When it last touched keys that are not known. */
  private everythingMs = Number.NEGATIVE_INFINITY;
  private readonly slots = new Int32Array(SIZE).fill(NOTHING);
  private readonly atMs = new Float64Array(SIZE).fill(Number.NEGATIVE_INFINITY);
  /** Where the next entry goes: over the oldest. */
  private next = 0;

  /** @param nowMs not before that of any entry. */
  add(slots: Slots, nowMs: number): void {
    if (slots === NOTHING) return;
    this.newestMs = nowMs;
    if (slots === EVERYTHING) this.everythingMs = nowMs;
    else if (typeof slots === "number") this.addOne(slots, nowMs);
    else for (const slot of slots) this.addOne(slot, nowMs);
  }

  private addOne(slot: number, nowMs: number): void {
    const { next } = this;
    this.forgottenMs = this.atMs[next]!;
    this.slots[next] = slot;
    this.atMs[next] = nowMs;
    this.next = (next + 1) % SIZE;
  }

  /** Whether an entry that is remembered, and newer than `provenAtMs`, touched any of these slots. */
  touchedSince(provenAtMs: number, slots: Slots): boolean {
    if (this.newestMs <= provenAtMs || slots === NOTHING) return false;
    if (slots === EVERYTHING || this.everythingMs > provenAtMs) return true;
    for (let back = 1; back <= SIZE; back++) {
      const at = (this.next - back + SIZE) % SIZE;
      if (this.atMs[at]! <= provenAtMs) return false;
      const slot = this.slots[at]!;
      if (typeof slots === "number" ? slot === slots : slots.includes(slot)) return true;
    }
    return false;
  }
}
