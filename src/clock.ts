/** Time as the program sees it; tests bring their own. */
export interface Clock {
  /** Monotonic, ms, with fractions. */
  nowMs(): number;
  /** Wall clock, ms since 1970. */
  wallMs(): number;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
};

/** Runs `run` once after `delayMs`; the result cancels it. */
export type SetTimer = (run: () => void, delayMs: number) => () => void;

export const systemTimer: SetTimer = (run, delayMs) => {
  const timer = setTimeout(run, delayMs);
  return () => clearTimeout(timer);
};
