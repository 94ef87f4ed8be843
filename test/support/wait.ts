/** Waiting for conditions with a deadline: the only way tests wait. */
import { setTimeout as sleep } from "node:timers/promises";

export { sleep };

export interface UntilOptions {
  /** Give up after so many ms; default 10 000. */
  readonly deadlineMs?: number;
  /** What is waited for, in words, for the error message. */
  readonly what?: string;
  /** Pause between two looks in ms; default 10. */
  readonly everyMs?: number;
}

/**
 * Waits until `condition` returns something truthy and returns it. A condition that throws is not met yet;
 * its last error is shown when the deadline passes.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: UntilOptions = {},
): Promise<Exclude<Awaited<T>, false | 0 | "" | null | undefined>> {
  const { deadlineMs = 10_000, what = "a condition", everyMs = 10 } = options;
  const end = performance.now() + deadlineMs;
  let lastError: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value as Exclude<Awaited<T>, false | 0 | "" | null | undefined>;
      lastError = undefined;
    } catch (error) {
      lastError = error;
    }
    if (performance.now() >= end) {
      throw new Error(`not within ${deadlineMs} ms: ${what}`, { cause: lastError });
    }
    await sleep(everyMs);
  }
}

/** Settles as `promise` does, or rejects after `deadlineMs` with an error that says what was missing. */
export async function within<T>(promise: Promise<T>, deadlineMs: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadlineMs} ms: ${what}`)), deadlineMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
