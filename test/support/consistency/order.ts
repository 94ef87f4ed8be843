/**
 * PURE. Whether reads of keys whose writes are ordered saw what they had to see:
 *
 *   own        a session's read sees the session's own earlier writes, or newer
 *   monotonic  it sees what the session's earlier reads saw, or newer
 *   recent     it sees every write through the proxy that was answered before the read was sent, or newer
 *   agreed     it sees what any session's read, answered before this one was sent, saw, or newer
 *   phantom    it sees nothing that nobody wrote
 *
 * `agreed` is claimed for strong reads only. Every one is a floor under the version that the read may see.
 */
import { type History, NOTHING, type Operation, UNKNOWN } from "./history.ts";
import { type Loss, lossOf, mayShow } from "./losses.ts";

export type Rule = "own" | "monotonic" | "recent" | "agreed" | "phantom";

export interface Verdict {
  /** Reads that were answered. */
  readonly reads: number;
  /** How often a read was compared with something that it had to see. */
  readonly pairs: number;
  readonly pairsOf: Readonly<Record<Rule, number>>;
  readonly violations: Readonly<Record<Rule, number>>;
  /** Reads that missed a write which a switch may have lost, by the proxy's own account. */
  readonly excused: number;
  /** The first ones, in words. */
  readonly examples: readonly string[];
}

const EXAMPLES_MAX = 20;
const RULES: readonly Rule[] = ["own", "monotonic", "recent", "agreed", "phantom"];

export function checkOrder(history: History, losses: readonly Loss[] = []): Verdict {
  const tally = new Tally(history);
  for (const { key, operations } of history.byKey()) {
    if (history.keys[key]?.order !== "counted") continue;
    new KeyCheck(operations, losses, history, tally).run();
  }
  return tally.verdict();
}

class Tally {
  reads = 0;
  excused = 0;
  readonly #pairs = zeros();
  readonly #violations = zeros();
  readonly #examples: string[] = [];
  readonly #history: History;

  constructor(history: History) {
    this.#history = history;
  }

  pair(rule: Rule): void {
    this.#pairs[rule]++;
  }

  violation(rule: Rule, read: Operation, because: string): void {
    this.#violations[rule]++;
    if (this.#examples.length >= EXAMPLES_MAX) return;
    this.#examples.push(`${rule}: ${this.#history.describe(read)}, ${because}`);
  }

  verdict(): Verdict {
    const { reads, excused } = this;
    const pairs = RULES.reduce((sum, rule) => sum + this.#pairs[rule], 0);
    return {
      ...{ reads, pairs, pairsOf: this.#pairs, violations: this.#violations },
      ...{ excused, examples: this.#examples },
    };
  }
}

function zeros(): Record<Rule, number> {
  return { own: 0, monotonic: 0, recent: 0, agreed: 0, phantom: 0 };
}

interface Bound {
  readonly version: number;
  readonly by: Operation | null;
}

const NO_BOUND: Bound = { version: 0, by: null };

/** The highest version that must be seen: apart for writes that no loss may have taken, and for each loss. */
class Floor {
  readonly #losses: readonly Loss[];
  #firm = NO_BOUND;
  readonly #soft: Bound[] = [];

  constructor(losses: readonly Loss[]) {
    this.#losses = losses;
  }

  raise(version: number, by: Operation, loss: number): void {
    if (loss < 0) {
      if (version > this.#firm.version) this.#firm = { version, by };
    } else if (version > (this.#soft[loss]?.version ?? 0)) this.#soft[loss] = { version, by };
  }

  /** What a read must see, and what it would have to see had nothing been lost. */
  for(read: Operation): { readonly due: Bound; readonly ideal: Bound } {
    let due = this.#firm;
    let ideal = this.#firm;
    for (const [i, loss] of this.#losses.entries()) {
      const soft = this.#soft[i];
      if (soft === undefined) continue;
      if (soft.version > ideal.version) ideal = soft;
      if (soft.version > due.version && !mayShow(read, loss)) due = soft;
    }
    return { due, ideal };
  }
}

/** What is known of one version of a key. */
interface Origin {
  /** Of the first write that may have made it. */
  callMs: number;
  /** The loss that may have taken it; -1 = none. */
  loss: number;
}

class KeyCheck {
  readonly #operations: readonly Operation[];
  readonly #losses: readonly Loss[];
  readonly #history: History;
  readonly #tally: Tally;
  readonly #origins = new Map<number, Origin>();
  /** Writes of which nobody knows which version they made, if any, in the order of their calls. */
  readonly #unplaced: Operation[] = [];
  readonly #erasures: Operation[] = [];
  readonly #lossOfUnplaced: number;

  constructor(operations: readonly Operation[], losses: readonly Loss[], history: History, tally: Tally) {
    this.#operations = operations;
    this.#losses = losses;
    this.#history = history;
    this.#tally = tally;
    for (const one of operations) if (one.kind !== "read" && one.outcome !== "error") this.#note(one);
    this.#lossOfUnplaced = this.#unplaced.reduce((loss, one) => Math.max(loss, lossOf(one, losses)), -1);
  }

  run(): void {
    this.#checkSessions();
    this.#checkAll("recent", (one) => one.kind !== "read" && !this.#isForeign(one));
    this.#checkAll("agreed", (one) => one.kind === "read");
  }

  #note(write: Operation): void {
    const { kind, version, callMs } = write;
    if (kind === "erase") this.#erasures.push(write);
    if (version === UNKNOWN) {
      this.#unplaced.push(write);
      return;
    }
    const loss = lossOf(write, this.#losses);
    const origin = this.#origins.get(version);
    if (origin === undefined) this.#origins.set(version, { callMs, loss });
    else origin.loss = Math.max(origin.loss, loss);
  }

  /** What each session wrote and saw itself, in the order in which it asked. */
  #checkSessions(): void {
    const floors = new Map<number, { readonly own: Floor; readonly seen: Floor }>();
    for (const one of this.#operations) {
      if (one.outcome !== "ok") continue;
      let floor = floors.get(one.session);
      if (floor === undefined) {
        floor = { own: new Floor(this.#losses), seen: new Floor(this.#losses) };
        floors.set(one.session, floor);
      }
      if (one.kind !== "read") {
        this.#raise(floor.own, one);
        continue;
      }
      this.#tally.reads++;
      this.#checkOrigin(one);
      this.#compare("own", one, floor.own);
      this.#compare("monotonic", one, floor.seen);
      this.#raise(floor.seen, one);
    }
  }

  /** Every read against all that had been answered, to anybody, when it was sent. */
  #checkAll(rule: "recent" | "agreed", isWitness: (one: Operation) => boolean): void {
    const witnesses = this.#operations.filter((one) => one.outcome === "ok" && isWitness(one));
    witnesses.sort((a, b) => a.returnMs - b.returnMs);
    const floor = new Floor(this.#losses);
    let next = 0;
    for (const read of this.#operations) {
      if (read.kind !== "read" || read.outcome !== "ok") continue;
      for (; next < witnesses.length && witnesses[next]!.returnMs < read.callMs; next++) {
        this.#raise(floor, witnesses[next]!);
      }
      this.#compare(rule, read, floor);
    }
  }

  #raise(floor: Floor, one: Operation): void {
    // Which of several erasures a read that found nothing has seen is not known.
    if (one.version === NOTHING || one.version === UNKNOWN) return;
    const isRead = one.kind === "read";
    const loss = isRead
      ? (this.#origins.get(one.version)?.loss ?? this.#lossOfUnplaced)
      : lossOf(one, this.#losses);
    floor.raise(one.version, one, loss);
  }

  #compare(rule: Rule, read: Operation, floor: Floor): void {
    const { due, ideal } = floor.for(read);
    if (ideal.version === 0) return;
    this.#tally.pair(rule);
    const seen = read.version === NOTHING ? this.#newestErasure(read) : read.version;
    if (seen >= ideal.version) return;
    if (seen >= due.version) {
      this.#tally.excused++;
      return;
    }
    const by = due.by === null ? "" : this.#history.describe(due.by);
    this.#tally.violation(rule, read, `but at least v${due.version} was due: ${by}`);
  }

  /** The version that a read which found nothing may have seen at best; 0 = the key before any write. */
  #newestErasure(read: Operation): number {
    let version = 0;
    for (const one of this.#erasures) {
      if (one.callMs > read.returnMs) break;
      version = Math.max(version, one.version);
    }
    return version;
  }

  #checkOrigin(read: Operation): void {
    if (read.version === NOTHING) return;
    this.#tally.pair("phantom");
    const origin = this.#origins.get(read.version);
    if (origin !== undefined && origin.callMs < read.returnMs) return;
    const first = this.#unplaced[0];
    if (first !== undefined && first.callMs < read.returnMs) return;
    this.#tally.violation("phantom", read, "which nobody had written");
  }

  #isForeign({ session }: Operation): boolean {
    return this.#history.sessions[session]?.isForeign === true;
  }
}
