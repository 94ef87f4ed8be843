/**
 * PURE. Which acknowledged writes a switch may have lost, by the proxy's own account: a read may miss such a
 * write after the switch, and no other one, and never before it.
 */
import type { Operation } from "./history.ts";

/** Times as of `performance.now()` of this process. */
export interface Loss {
  /** Writes answered before it are in the new history. */
  readonly fromMs: number;
  /** The switch: writes asked for after it are in the new history; reads answered before it see no loss. */
  readonly atMs: number;
}

/** What PROXY FAILOVERS says of one switch. */
export interface SwitchRecord {
  /** Wall clock, ms since 1970. */
  readonly wallMs: number;
  /** null = unknown. */
  readonly lostBytes: number | null;
  /** Span of the answered writes in doubt, up to the last one answered before the switch; null = all. */
  readonly doubtMs: number | null;
}

/**
 * The proxy and we read the same wall clock, rounded to a ms, and either process may have been kept from
 * running for a moment between the event and the look at the clock.
 */
export const SLACK_MS = 25;

/** @param wallOffsetMs `Date.now() - performance.now()`. */
export function lossesOf(
  records: readonly SwitchRecord[],
  wallOffsetMs: number,
  answeredMs: readonly number[],
): Loss[] {
  const losses: Loss[] = [];
  for (const { wallMs, lostBytes, doubtMs } of records) {
    if (lostBytes === 0) continue;
    const atMs = wallMs - wallOffsetMs;
    let lastMs = Number.NEGATIVE_INFINITY;
    for (const ms of answeredMs) if (ms <= atMs && ms > lastMs) lastMs = ms;
    const fromMs = doubtMs === null ? Number.NEGATIVE_INFINITY : lastMs - doubtMs - SLACK_MS;
    losses.push({ fromMs, atMs });
  }
  return losses.sort((a, b) => a.atMs - b.atMs);
}

/** The first loss that may have taken a write; -1 = none. */
export function lossOf(write: Operation, losses: readonly Loss[]): number {
  const isUnanswered = write.outcome === "open" || write.outcome === "uncertain";
  const returnMs = isUnanswered ? Number.POSITIVE_INFINITY : write.returnMs;
  return losses.findIndex(({ fromMs, atMs }) => returnMs >= fromMs && write.callMs <= atMs + SLACK_MS);
}

/** Whether a read may show a loss: it was answered when the switch had happened. */
export function mayShow(read: Operation, loss: Loss): boolean {
  return read.returnMs >= loss.atMs - SLACK_MS;
}
