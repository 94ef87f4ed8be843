/**
 * What people are told of the failover machine: one line each in the log, and the counters. What is told
 * again in the same words (a node that keeps refusing) is counted, and is a line once in a while only.
 */

import type { NodeId } from "../topology/epoch.ts";
import type { SwitchoverAnswer, Told } from "./model.ts";

export type SwitchoverResult = "done" | "refused" | "rolled_back" | "open";

/** The counters that are moved here. */
export interface FailoverTally {
  readonly promotions: Record<"done" | "failed", number>;
  readonly switchovers: Record<SwitchoverResult, number>;
  switchoverStallSeconds: number;
  switchoverStallSecondsMax: number;
  repointed: number;
}

type Line = (fields: object, message: string) => void;

export interface NewsLog {
  readonly debug: Line;
  readonly info: Line;
  readonly warn: Line;
}

/** The same words are a line again after so long, ms. */
const AGAIN_MS = 60_000;
/** Words remembered at most. */
const MAX_WORDS = 256;

/** warn = somebody may have to look; info = it went as it should, or was asked for. */
export function levelOf(what: Told): "info" | "warn" {
  switch (what) {
    case "master-recovered":
    case "promoting":
    case "promoted":
    case "repointing":
    case "repointed":
    case "switchover-begun":
    case "switchover-done":
    case "switchover-refused":
      return "info";
    case "master-suspected":
    case "not-asked":
    case "promotion-failed":
    case "repointing-failed":
    case "switchover-rolled-back":
    case "switchover-open":
      return "warn";
  }
}

/** What is tried again and again as long as it fails. */
function isAttempt(what: Told): boolean {
  return /^(?:not-asked|promoting|promotion-failed|repointing|repointing-failed|switchover-refused)$/.test(
    what,
  );
}

function isSuccess(what: Told): boolean {
  return what === "promoted" || what === "repointed";
}

export class FailoverNews {
  private readonly log: NewsLog;
  private readonly tally: FailoverTally;
  private readonly nowMs: () => number;
  /** When each of the words, the node before them, was a line, monotonic ms; the oldest first. */
  private readonly said = new Map<string, number>();

  constructor(log: NewsLog, tally: FailoverTally, nowMs: () => number) {
    this.log = log;
    this.tally = tally;
    this.nowMs = nowMs;
  }

  readonly tell = (what: Told, node: NodeId | null, detail: string): void => {
    if (what === "promoted") this.tally.promotions.done++;
    else if (what === "promotion-failed") this.tally.promotions.failed++;
    else if (what === "repointed") this.tally.repointed++;
    const isRepeated = isAttempt(what) && this.isRepeated(`${node} ${what} ${detail}`);
    this.log[isRepeated ? "debug" : levelOf(what)]({ what, node, detail }, "failover");
    if (isSuccess(what)) this.forget(`${node} `);
  };

  readonly onAnswer = (answer: SwitchoverAnswer): void => {
    this.tally.switchovers[answer.kind === "rolled-back" ? "rolled_back" : answer.kind]++;
    if (answer.kind !== "done") return;
    const seconds = answer.report.stallMs / 1_000;
    this.tally.switchoverStallSeconds += seconds;
    this.tally.switchoverStallSecondsMax = Math.max(this.tally.switchoverStallSecondsMax, seconds);
  };

  /** What comes after a success is news. */
  private forget(node: string): void {
    for (const words of this.said.keys()) if (words.startsWith(node)) this.said.delete(words);
  }

  private isRepeated(words: string): boolean {
    const nowMs = this.nowMs();
    const saidAtMs = this.said.get(words);
    if (saidAtMs !== undefined && nowMs - saidAtMs < AGAIN_MS) return true;
    this.said.delete(words);
    this.said.set(words, nowMs);
    const [oldest] = this.said.keys();
    if (this.said.size > MAX_WORDS && oldest !== undefined) this.said.delete(oldest);
    return false;
  }
}
