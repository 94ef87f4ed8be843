/** How long nothing happened, between one success and the next. */
export class GapMeter {
  /** Successes. */
  count = 0;
  #lastMs = performance.now();
  #longestMs = 0;

  mark(): void {
    this.count++;
    this.#longestMs = this.longestMs();
    this.#lastMs = performance.now();
  }

  /** The open gap counts too. */
  longestMs(): number {
    return Math.max(this.#longestMs, performance.now() - this.#lastMs);
  }

  reset(): void {
    this.#lastMs = performance.now();
    this.#longestMs = 0;
  }
}
