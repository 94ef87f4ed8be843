/**
 * PURE. The bounded history of the master's offsets: what it says about a replica's lag and about what a
 * replica provably contains.
 */

import type { OffsetSample } from "./model.ts";

/** Samples kept at most; beyond it every second one of the older half goes. */
export const MAX_SAMPLES = 512;

/**
 * Adds a sample; out-of-order ones are ignored. Samples older than `keepMs` go, but one. Dropping a sample
 * only ever makes proofs older and lags longer, so it is always safe.
 */
export function addSample(
  samples: readonly OffsetSample[],
  sample: OffsetSample,
  keepMs: number,
): readonly OffsetSample[] {
  const last = samples.at(-1);
  if (last === undefined) return [sample];
  if (sample.atMs <= last.atMs || sample.offset < last.offset) return samples;
  // An idle master: the newest time of an offset is what proves most.
  if (sample.offset === last.offset) return [...samples.slice(0, -1), sample];
  let oldest = 0;
  while (oldest < samples.length - 1 && samples[oldest + 1]!.atMs < sample.atMs - keepMs) oldest++;
  const kept = [...samples.slice(oldest), sample];
  if (kept.length <= MAX_SAMPLES) return kept;
  const half = MAX_SAMPLES / 2;
  return kept.filter((_, index) => index >= half || index % 2 === 0);
}

/** The newest sample at or below `appliedOffset`: the moment up to which a replica is complete. */
function newestContained(samples: readonly OffsetSample[], appliedOffset: number): number {
  let low = 0;
  let high = samples.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (samples[middle]!.offset <= appliedOffset) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/**
 * Monotonic ms before which every answered write is applied at `appliedOffset`; -Infinity if none is known.
 */
export function provenAt(samples: readonly OffsetSample[], appliedOffset: number): number {
  return samples[newestContained(samples, appliedOffset)]?.atMs ?? Number.NEGATIVE_INFINITY;
}

/** How long, at least, the master had had more than `receivedOffset` when it was last heard, ms. */
export function behindForMs(samples: readonly OffsetSample[], receivedOffset: number): number {
  const missed = samples[newestContained(samples, receivedOffset) + 1];
  const newest = samples.at(-1);
  return missed === undefined || newest === undefined ? 0 : newest.atMs - missed.atMs;
}

/**
 * How far behind the newest sample `appliedOffset` is, in ms; null when it is behind all of them. Measured
 * against the newest sample and not against now: while the master is gone no replica falls further behind.
 */
export function lagMs(samples: readonly OffsetSample[], appliedOffset: number): number | null {
  const contained = samples[newestContained(samples, appliedOffset)];
  const newest = samples.at(-1);
  return contained === undefined || newest === undefined ? null : newest.atMs - contained.atMs;
}
