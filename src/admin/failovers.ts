/**
 * What each switch cost the clients. A record is opened when the master becomes another one, or comes back
 * (`from` is `to`) and may lack something that it had. It is finished when nothing of it is left to be
 * counted: no session is held and no connection to the former master is open.
 */
import type { Counters } from "../metrics.ts";
import type { NodeId } from "../topology/epoch.ts";

/** What is known of a switch at the moment it happens. */
export interface SwitchNews {
  /** Wall clock, ms since 1970. */
  readonly atMs: number;
  readonly epochNumber: number;
  readonly from: NodeId | null;
  readonly to: NodeId;
  readonly reason: string;
  readonly seenBy: string;
  readonly detail: string;
  /** Acknowledged replication bytes that did not survive; null = unknown. */
  readonly lostBytes: number | null;
  /**
   * Since when there was no master that could be written, wall clock ms; null when there was one all the
   * time.
   */
  readonly masterGoneAtMs: number | null;
  readonly doubt: Doubt;
}

/**
 * Writes that were answered and of which nothing proves that the new master has them: those since the last
 * look at the former master that it is known to contain. They need not be lost.
 */
export interface Doubt {
  /** Clients with such a write. */
  readonly clients: number;
  /** The time in which they were answered, ms; null = as long as the proxy knows the group. */
  readonly ms: number | null;
}

/**
 * @param keptUntilMs every write answered before it is in the new history.
 * @param writers those since then.
 */
export function doubtOf(
  keptUntilMs: number,
  writers: { readonly clients: number; readonly lastMs: number },
): Doubt {
  const { clients, lastMs } = writers;
  if (clients === 0) return { clients, ms: 0 };
  return { clients, ms: Number.isFinite(keptUntilMs) ? Math.round(lastMs - keptUntilMs) : null };
}

export interface FailoverRecord extends Omit<SwitchNews, "lostBytes"> {
  lostBytes: number | null;
  /** How long writes had no master, ms. */
  readonly holdMs: number;
  /** Sessions that were held for it. */
  sessionsHeld: number;
  /** Commands answered UNCERTAIN. */
  uncertain: number;
  /** Nothing of it is left to be counted. */
  finished: boolean;
}

/** What of a switch may still be under way. */
export interface SwitchProgress {
  /** Sessions held at this moment. */
  heldNow(): number;
  /** Connections to the former master that still owe replies. */
  retiringNow(): number;
  /** Monotonic ms up to which it is known what was lost; Infinity = it cannot become more. */
  lossKnownAtMs(): number;
  /** Monotonic ms. */
  nowMs(): number;
}

/** How often an open record is looked at, ms, and how long it is kept open at most. */
const CHECK_MS = 20;
const OPEN_MAX_MS = 10_000;

/** The record that is not finished yet. */
interface Open {
  readonly record: FailoverRecord;
  readonly from: Baseline;
  readonly timer: NodeJS.Timeout;
  /** Monotonic ms: the last reply of the former master has come; null = not yet. */
  quietAtMs: number | null;
}

interface Baseline {
  readonly held: number;
  readonly uncertain: number;
}

export class Failovers {
  /** Oldest first. */
  readonly records: FailoverRecord[] = [];
  private readonly keep: number;
  private readonly counters: Counters;
  private readonly progress: SwitchProgress;
  private readonly onFinished: (record: FailoverRecord) => void;
  private baseline: Baseline;
  private open: Open | null = null;

  constructor(options: {
    keep: number;
    counters: Counters;
    progress: SwitchProgress;
    /** Called once a record, when its numbers are final. */
    onFinished: (record: FailoverRecord) => void;
  }) {
    this.keep = options.keep;
    this.counters = options.counters;
    this.progress = options.progress;
    this.onFinished = options.onFinished;
    this.baseline = this.count();
  }

  /**
   * Call while all is well and right before it ends: what is counted from here on belongs to the next
   * switch.
   */
  mark(): void {
    this.baseline = this.count();
  }

  private count(): Baseline {
    return { held: this.counters.held, uncertain: this.counters.uncertain };
  }

  add(news: SwitchNews): void {
    this.finish();
    const holdMs =
      news.masterGoneAtMs === null ? 0 : Math.max(0, Math.round(news.atMs - news.masterGoneAtMs));
    const record: FailoverRecord = { ...news, holdMs, sessionsHeld: 0, uncertain: 0, finished: false };
    this.records.push(record);
    if (this.records.length > this.keep) this.records.shift();
    const timer = setInterval(() => this.check(), CHECK_MS);
    this.open = { record, from: this.baseline, timer, quietAtMs: null };
    this.baseline = this.count();
    this.update();
  }

  private check(): void {
    this.update();
    const { open } = this;
    if (open === null) return;
    const { progress } = this;
    if (progress.heldNow() === 0 && progress.retiringNow() === 0) open.quietAtMs ??= progress.nowMs();
    // What it answered last is in what it says when it is asked after that.
    const isOver = open.quietAtMs !== null && progress.lossKnownAtMs() > open.quietAtMs;
    if (isOver || Date.now() - open.record.atMs > OPEN_MAX_MS) this.finish();
  }

  private update(): void {
    if (this.open === null) return;
    const { record, from } = this.open;
    record.sessionsHeld = this.counters.held - from.held;
    record.uncertain = this.counters.uncertain - from.uncertain;
  }

  /** More was lost than was known. @returns by how many bytes it is more. */
  lost(epochNumber: number, lostBytes: number): number {
    const record = this.records.find((one) => one.epochNumber === epochNumber);
    if (record === undefined) return 0;
    const before = record.lostBytes ?? 0;
    record.lostBytes = Math.max(before, lostBytes);
    return record.lostBytes - before;
  }

  /** Closes the record that is open; also at the end of the process. */
  finish(): void {
    if (this.open === null) return;
    this.update();
    const { record, timer } = this.open;
    clearInterval(timer);
    this.open = null;
    this.baseline = this.count();
    record.finished = true;
    this.onFinished(record);
  }
}
