/** Virtual time: what happens when, in the same order for the same seed. */
import { randomFrom } from "../../../support/random.ts";

interface Entry {
  atMs: number;
  readonly seq: number;
  readonly run: () => void;
  readonly owner: Party | null;
  cancelled: boolean;
}

/** A process whose event loop may stand still: what is due meanwhile happens afterwards. */
export interface Party {
  readonly name: string;
  stalledUntilMs: number;
}

export class Timeline {
  nowMs = 1_000;
  events = 0;
  /** Promises were settled: what waits for them comes before anything else. */
  isStirred = false;
  readonly random: () => number;
  #seq = 0;
  /** A binary heap by time, then by order of arrival. */
  readonly #heap: Entry[] = [];

  constructor(seed: number) {
    this.random = randomFrom(seed);
  }

  /** @returns cancels it. */
  at(atMs: number, run: () => void, owner: Party | null = null): () => void {
    const entry = { atMs: Math.max(atMs, this.nowMs), seq: this.#seq++, run, owner, cancelled: false };
    this.#push(entry);
    return () => {
      entry.cancelled = true;
    };
  }

  after(delayMs: number, run: () => void, owner: Party | null = null): () => void {
    return this.at(this.nowMs + delayMs, run, owner);
  }

  /** Lets the next thing happen. @returns false when nothing is left before `untilMs`. */
  step(untilMs: number): boolean {
    for (;;) {
      const entry = this.#heap[0];
      if (entry === undefined || entry.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs);
        return false;
      }
      this.#pop();
      if (entry.cancelled) continue;
      const { owner } = entry;
      if (owner !== null && owner.stalledUntilMs > entry.atMs) {
        entry.atMs = owner.stalledUntilMs;
        this.#push(entry);
        continue;
      }
      this.nowMs = entry.atMs;
      this.events++;
      entry.run();
      return true;
    }
  }

  between(least: number, most: number): number {
    return least + (most - least) * this.random();
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.random() * list.length)]!;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (!isBefore(entry, heap[up]!)) break;
      heap[i] = heap[up]!;
      i = up;
    }
    heap[i] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.seq < b.seq);
}
