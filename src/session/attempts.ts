/** Failures in a row that are answered as fast as the server does: people mistype, libraries try twice. */
const FREE_FAILURES = 3;

/** The pause behind the last of them, ms; each further failure doubles it. */
const FIRST_PAUSE_MS = 100;

/**
 * How long after a failed login the client's next one is checked, ms. Guessing passwords must not be cheap,
 * and each guess costs a server the hash of it.
 * @param failures in a row, the last one included.
 * @param mostMs the bound; 0 = no pauses.
 */
export function pauseAfter(failures: number, mostMs: number): number {
  if (failures < FREE_FAILURES) return 0;
  return Math.min(mostMs, FIRST_PAUSE_MS * 2 ** (failures - FREE_FAILURES));
}

/** A client's failed logins since it last succeeded. */
export class Attempts {
  private failures = 0;
  private notBeforeMs = 0;

  /** @param nowMs monotonic. @param mostMs the longest pause; 0 = none. */
  fail(nowMs: number, mostMs: number): void {
    this.failures++;
    this.notBeforeMs = nowMs + pauseAfter(this.failures, mostMs);
  }

  /** Until the next login may be checked, ms; 0 = now. */
  pauseMs(nowMs: number): number {
    return Math.max(0, this.notBeforeMs - nowMs);
  }
}
