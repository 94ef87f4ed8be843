/**
 * When the master is asked for its offset because reads wait for replicas to be proven: now, or as soon as
 * the interval allows, and so again until all that may be read have what was answered before, or it has taken
 * too long. These rounds are apart from the watcher's own, which keep their times.
 */

import type { Clock, SetTimer } from "../clock.ts";
import type { Epoch } from "./epoch.ts";

export interface ProofSeekerParts {
  readonly clock: Clock;
  readonly setTimer: SetTimer;
  /** Between two rounds, in ms. */
  readonly intervalMs: number;
  /** What is believed now. */
  readonly epoch: () => Epoch;
  /** Asks the master alone: its answer sets off the rest. */
  readonly askMaster: (nowMs: number) => void;
}

/** Proof is sought for so many intervals after somebody asked: by then it has come, or is far away. */
const SEEK_INTERVALS = 3;

export class ProofSeeker {
  readonly #parts: ProofSeekerParts;
  /** When somebody last asked for proof, monotonic ms. */
  #soughtMs = Number.NEGATIVE_INFINITY;
  #lastRoundMs = Number.NEGATIVE_INFINITY;
  #cancelRound: (() => void) | null = null;

  constructor(parts: ProofSeekerParts) {
    this.#parts = parts;
  }

  /** Of what was answered before this call. */
  seek(): void {
    const { clock, setTimer, intervalMs } = this.#parts;
    this.#soughtMs = clock.nowMs();
    if (this.#cancelRound !== null) return;
    const waitMs = Math.max(0, this.#lastRoundMs + intervalMs - this.#soughtMs);
    if (waitMs === 0) this.#round();
    else this.#cancelRound = setTimer(() => this.#round(), waitMs);
  }

  /** Somebody asked for proof not long ago, and there is a replica that has not given it. */
  isSeeking(nowMs: number): boolean {
    if (nowMs > this.#soughtMs + SEEK_INTERVALS * this.#parts.intervalMs) return false;
    return this.#parts.epoch().readable.some(({ provenAtMs }) => provenAtMs < this.#soughtMs);
  }

  close(): void {
    this.#cancelRound?.();
  }

  #round(): void {
    this.#cancelRound = null;
    const { clock, setTimer, intervalMs, askMaster } = this.#parts;
    const nowMs = clock.nowMs();
    if (!this.isSeeking(nowMs)) return;
    this.#lastRoundMs = nowMs;
    askMaster(nowMs);
    this.#cancelRound = setTimer(() => this.#round(), intervalMs);
  }
}
