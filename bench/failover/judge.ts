/** PURE. What was promised for each scenario, and what Holdfast's runs say about it. */
import type { Figures, GapFrom } from "./measure.ts";
import type { Bounds } from "./scenarios.ts";

/** A reader that a replica may serve waits at most so long, whatever happens. */
export const READ_GAP_MS_MOST = 50;
/** Each client has one request on the way at most. */
export const IN_FLIGHT_MOST = 40;
/** A promotion is seen within one probe interval (100 ms) and the way there and back. */
export const SEEN_WITHIN_MS = 110;

export interface Check {
  readonly what: "disconnects" | "errors" | "write gap" | "stall" | "lost" | "read gap" | "repeated";
  readonly bound: string;
  readonly measured: string;
  readonly isMet: boolean;
}

export interface Judged {
  readonly bounds: Bounds;
  readonly gapFrom: GapFrom;
}

const SINCE: Readonly<Record<GapFrom, string>> = {
  fault: "",
  promotion: " after the promotion",
  serving: " after it serves again",
};

/** The worst of all runs stands against each bound. */
export function judge({ bounds, gapFrom }: Judged, runs: readonly Figures[]): Check[] {
  const most = (pick: (figures: Figures) => number) => Math.max(...runs.map(pick));
  const disconnects = most((run) => run.disconnects);
  const gap = most((run) => run.boundGapMs);
  const readGap = most((run) => run.readGapMs);
  const repeated = most((run) => run.unexplained);
  return [
    { what: "disconnects", bound: "0", measured: String(disconnects), isMet: disconnects === 0 },
    errorCheck(bounds, runs),
    { what: "write gap", ...atMost(bounds.gapMs, gap, SINCE[gapFrom]) },
    ...(bounds.stallMs === undefined ? [] : [stallCheck(bounds.stallMs, runs)]),
    lossCheck(bounds, runs),
    { what: "read gap", ...atMost(READ_GAP_MS_MOST, readGap) },
    { what: "repeated", bound: "0", measured: String(repeated), isMet: repeated === 0 },
  ];
}

function atMost(boundMs: number, measuredMs: number, since = ""): Omit<Check, "what"> {
  return {
    bound: `≤ ${boundMs} ms${since}`,
    measured: `${measuredMs.toFixed(0)} ms`,
    isMet: measuredMs <= boundMs,
  };
}

function errorCheck({ errors }: Bounds, runs: readonly Figures[]): Check {
  const { UNCERTAIN: uncertain = 0, ...others } = worstErrors(runs);
  const hasOthers = Object.keys(others).length > 0;
  const measured = errorsText({ ...(uncertain > 0 ? { UNCERTAIN: uncertain } : {}), ...others });
  switch (errors) {
    case "none":
      return { what: "errors", bound: "none", measured, isMet: uncertain === 0 && !hasOthers };
    case "uncertain":
      return {
        what: "errors",
        bound: `≤ ${IN_FLIGHT_MOST} UNCERTAIN`,
        measured,
        isMet: uncertain <= IN_FLIGHT_MOST && !hasOthers,
      };
  }
}

function lossCheck({ lost }: Bounds, runs: readonly Figures[]): Check {
  const most = Math.max(...runs.map((run) => run.lost));
  switch (lost) {
    case "none":
      return { what: "lost", bound: "0", measured: String(most), isMet: most === 0 };
    case "by-redis":
      return { what: "lost", bound: "reported", measured: String(most), isMet: true };
    case "until-seen": {
      const lastMs = Math.max(...runs.map((run) => run.lostAfterMs));
      return {
        what: "lost",
        bound: `only within ${SEEN_WITHIN_MS} ms of the promotion`,
        measured: `${most}, the last after ${lastMs.toFixed(0)} ms`,
        isMet: lastMs <= SEEN_WITHIN_MS,
      };
    }
  }
}

function stallCheck(boundMs: number, runs: readonly Figures[]): Check {
  const stalls = runs.flatMap((run) => run.stallsMs).sort((a, b) => a - b);
  const median = stalls[Math.floor(stalls.length / 2)] ?? Number.NaN;
  return {
    what: "stall",
    ...atMost(boundMs, median),
    bound: `median < ${boundMs} ms`,
    isMet: median < boundMs,
  };
}

/** For each kind of error, the most of one run. */
function worstErrors(runs: readonly Figures[]): Record<string, number> {
  const worst: Record<string, number> = {};
  for (const { errors } of runs) {
    for (const [word, count] of Object.entries(errors)) worst[word] = Math.max(worst[word] ?? 0, count);
  }
  return worst;
}

/** `3 READONLY, 1 UNCERTAIN`. */
export function errorsText(errors: Readonly<Record<string, number>>): string {
  const texts = Object.entries(errors).map(([word, count]) => `${count} ${word}`);
  return texts.join(", ") || "none";
}
