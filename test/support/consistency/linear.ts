/**
 * PURE. Whether the operations on a register, of several writers at once, can be put in one order that
 * respects time and in which each read sees the last write before it.
 *
 * Every write has a value of its own, so a read says which write it saw. Then the answer needs no search
 * (Gibbons and Korach, Testing shared memories, 1997): a write and its reads are a cluster; between the first
 * moment at which one of them had been answered and the last at which one was asked for, the register must
 * have had that value. A history is linearizable if and only if
 *
 *   1. no read was answered before its write was asked for,
 *   2. those spans of two clusters never overlap,
 *   3. no cluster whose operations all ran at one common moment lies within the span of another one.
 *
 * A switch that lost writes sets the register back to an earlier value once: like a write of that value.
 */
import { type History, NOTHING, type Operation, UNKNOWN } from "./history.ts";
import { type Loss, lossOf, SLACK_MS } from "./losses.ts";

export interface LinearVerdict {
  readonly keys: number;
  readonly operations: number;
  /** Reads under way at the very moment of a loss: they may have seen either side. */
  readonly skipped: number;
  readonly violations: number;
  readonly examples: readonly string[];
}

const EXAMPLES_MAX = 20;

interface Cluster {
  readonly version: number;
  /** The write itself; null = the register before any write, or set back by a loss. */
  readonly write: Operation | null;
  readonly writtenFromMs: number;
  firstReturnMs: number;
  lastCallMs: number;
  reads: number;
}

export function checkLinear(history: History, losses: readonly Loss[] = []): LinearVerdict {
  const examples: string[] = [];
  let [keys, operations, skipped, violations] = [0, 0, 0, 0];
  for (const { key, operations: ofKey } of history.byKey()) {
    if (history.keys[key]?.order !== "register" || ofKey.length === 0) continue;
    const check = new RegisterCheck(ofKey, losses, history);
    const found = check.run();
    keys++;
    operations += ofKey.length;
    skipped += check.skipped;
    violations += found.length;
    examples.push(...found.slice(0, EXAMPLES_MAX - examples.length));
  }
  return { keys, operations, skipped, violations, examples };
}

class RegisterCheck {
  skipped = 0;
  readonly #operations: readonly Operation[];
  readonly #losses: readonly Loss[];
  readonly #history: History;
  readonly #clusters = new Map<string, Cluster>();
  readonly #wrong: string[] = [];
  /** When each version is first known to have been there: its write's answer, or a read of it. */
  readonly #seenMs = new Map<number, number>();

  constructor(operations: readonly Operation[], losses: readonly Loss[], history: History) {
    this.#operations = operations;
    this.#losses = losses;
    this.#history = history;
  }

  run(): readonly string[] {
    const { NEGATIVE_INFINITY: never, POSITIVE_INFINITY: open } = Number;
    this.#put("0", { version: UNKNOWN, write: null, writtenFromMs: never, returnMs: never, callMs: never });
    for (const one of this.#operations) {
      if (one.kind === "read" || one.outcome === "error") continue;
      const returnMs = one.outcome === "ok" ? one.returnMs : open;
      const { version, callMs } = one;
      this.#put(`${version}`, { version, write: one, writtenFromMs: callMs, returnMs, callMs });
    }
    for (const one of this.#operations) if (one.outcome === "ok") this.#noteSeen(one);
    for (const one of this.#operations) if (one.kind === "read" && one.outcome === "ok") this.#addRead(one);
    this.#checkSetBacks();
    this.#checkZones();
    return this.#wrong;
  }

  #put(
    name: string,
    from: {
      version: number;
      write: Operation | null;
      writtenFromMs: number;
      returnMs: number;
      callMs: number;
    },
  ): void {
    const { version, write, writtenFromMs, returnMs, callMs } = from;
    const cluster = { version, write, writtenFromMs, firstReturnMs: returnMs, lastCallMs: callMs, reads: 0 };
    this.#clusters.set(name, cluster);
  }

  #noteSeen({ kind, version, returnMs }: Operation): void {
    const seen = kind === "read" && version === NOTHING ? UNKNOWN : version;
    this.#seenMs.set(seen, Math.min(this.#seenMs.get(seen) ?? Number.POSITIVE_INFINITY, returnMs));
  }

  #addRead(read: Operation): void {
    const version = read.version === NOTHING ? UNKNOWN : read.version;
    if (this.#losses.some(({ atMs }) => read.callMs < atMs + SLACK_MS && read.returnMs > atMs - SLACK_MS)) {
      this.skipped++;
      return;
    }
    const cluster = this.#clusterOf(version, read);
    if (cluster === undefined) {
      this.#wrong.push(`${this.#history.describe(read)}, which nobody had written`);
      return;
    }
    if (read.returnMs < cluster.writtenFromMs) {
      this.#wrong.push(`${this.#history.describe(read)}, before that was written`);
    }
    cluster.firstReturnMs = Math.min(cluster.firstReturnMs, read.returnMs);
    cluster.lastCallMs = Math.max(cluster.lastCallMs, read.callMs);
    cluster.reads++;
  }

  /** What a read after a loss sees of the time before it, the loss has left behind or restored. */
  #clusterOf(version: number, read: Operation): Cluster | undefined {
    const original = this.#clusters.get(`${version}`);
    if (original === undefined) return undefined;
    const seenMs = version === UNKNOWN ? Number.NEGATIVE_INFINITY : (this.#seenMs.get(version) ?? Infinity);
    const loss = this.#losses.findLastIndex(({ atMs }) => read.callMs >= atMs && seenMs < atMs - SLACK_MS);
    if (loss < 0) return original;
    const name = `${version} after loss ${loss}`;
    if (!this.#clusters.has(name)) {
      const { atMs } = this.#losses[loss]!;
      const [writtenFromMs, returnMs] = [atMs - SLACK_MS, atMs + SLACK_MS];
      this.#put(name, { version, write: null, writtenFromMs, returnMs, callMs: writtenFromMs });
    }
    return this.#clusters.get(name);
  }

  /** A loss leaves one value behind, and none older than a write that it cannot have taken. */
  #checkSetBacks(): void {
    for (const loss of this.#losses.keys()) {
      const suffix = ` after loss ${loss}`;
      const left = [...this.#clusters]
        .filter(([name]) => name.endsWith(suffix))
        .map(([, one]) => one.version);
      if (left.length > 1) this.#wrong.push(`a loss left several values behind: ${left.join(", ")}`);
      for (const version of left) this.#checkSetBack(version, this.#losses[loss]!);
    }
  }

  #checkSetBack(version: number, { atMs }: Loss): void {
    const writtenMs = this.#clusters.get(`${version}`)?.write?.returnMs ?? Number.NEGATIVE_INFINITY;
    const missed = this.#operations.find(
      (one) =>
        one.kind !== "read" &&
        one.outcome === "ok" &&
        one.callMs > writtenMs &&
        one.returnMs < atMs - SLACK_MS &&
        lossOf(one, this.#losses) < 0,
    );
    if (missed === undefined) return;
    this.#wrong.push(`v${version} came back, though ${this.#history.describe(missed)} was not in doubt`);
  }

  #checkZones(): void {
    const all = [...this.#clusters.values()].filter(
      ({ reads, write }) => reads > 0 || write?.outcome === "ok",
    );
    const spans = all.filter((one) => one.firstReturnMs < one.lastCallMs);
    spans.sort((a, b) => a.firstReturnMs - b.firstReturnMs);
    for (let i = 1; i < spans.length; i++) {
      const [before, after] = [spans[i - 1]!, spans[i]!];
      if (after.firstReturnMs < before.lastCallMs) this.#wrong.push(this.#clash(before, after));
    }
    for (const moment of all) {
      if (moment.firstReturnMs < moment.lastCallMs) continue;
      const span = lastBefore(spans, moment.lastCallMs);
      if (span !== null && moment.firstReturnMs < span.lastCallMs)
        this.#wrong.push(this.#clash(span, moment));
    }
  }

  #clash(one: Cluster, other: Cluster): string {
    const text = ({ version, firstReturnMs, lastCallMs }: Cluster): string =>
      `v${version} (answered at ${firstReturnMs.toFixed(2)}, asked for at ${lastCallMs.toFixed(2)} ms)`;
    const key = this.#history.keys[this.#operations[0]!.key]?.name ?? "";
    return `${key}: ${text(one)} and ${text(other)} at the same time`;
  }
}

/** The last span that has begun before a moment; spans in the order of their beginnings. */
function lastBefore(spans: readonly Cluster[], ms: number): Cluster | null {
  let [low, high] = [0, spans.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle]!.firstReturnMs < ms) low = middle + 1;
    else high = middle;
  }
  return spans[low - 1] ?? null;
}
