/** How long the load generator itself stood still: what it took for a gap may have been its own. */
const EVERY_MS = 5;

export class PauseMeter {
  /** The longest time by which one of its ticks came late. */
  longestMs = 0;
  #lastMs = performance.now();
  readonly #timer: NodeJS.Timeout;

  constructor() {
    this.#timer = setInterval(() => this.#tick(), EVERY_MS);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const nowMs = performance.now();
    this.longestMs = Math.max(this.longestMs, nowMs - this.#lastMs - EVERY_MS);
    this.#lastMs = nowMs;
  }
}
