/** Time that only moves when told, and timers that run when it does. */
export class FakeTime {
  nowMs = 1_000;
  #timers: { dueMs: number; run: () => void }[] = [];

  readonly set = (run: () => void, delayMs: number): (() => void) => {
    const timer = { dueMs: this.nowMs + delayMs, run };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  };

  /** Lets `ms` pass, each timer at its time. */
  pass(ms: number): void {
    const endMs = this.nowMs + ms;
    while (this.#runNext(endMs));
    this.nowMs = endMs;
  }

  /** The same; promises are let run before each timer and at the end. */
  async passWithPromises(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    do {
      for (let i = 0; i < 20; i++) await Promise.resolve();
    } while (this.#runNext(endMs));
    this.nowMs = endMs;
  }

  /** Timers that have not run. */
  get pending(): number {
    return this.#timers.length;
  }

  /** The next timer that is due by then; false = there is none. */
  #runNext(endMs: number): boolean {
    const [next] = this.#timers.filter(({ dueMs }) => dueMs <= endMs).sort((a, b) => a.dueMs - b.dueMs);
    if (next === undefined) return false;
    this.#timers = this.#timers.filter((other) => other !== next);
    this.nowMs = Math.max(this.nowMs, next.dueMs);
    next.run();
    return true;
  }
}
