/**
 * What the users of a library were told, whatever the library: each of them writes down what it asked for
 * and how it was answered, and in the end the book is held against the data.
 *
 *   counters    INCR, scripts and transactions: acked ≤ final ≤ acked + uncertain
 *   jobs        a list: what was pushed is popped once
 *   messages    a channel: numbers only grow, and while nothing changes none is missing
 *   scans       every iteration sees the keys that were there all the time
 */
import { expect } from "vitest";
import type { RedisServer } from "../../support/redis.ts";
import { until } from "../../support/wait.ts";
import type { Kind } from "./switches.ts";

export const STEPS = ["counter", "script", "transaction", "push", "pop", "message", "scan"] as const;
export type Step = (typeof STEPS)[number];

/** How a call was answered. */
export type Outcome = "acked" | "uncertain";

/** What the proxy has said of switches. */
export interface Reported {
  readonly lostBytes: number;
  /** Clients that were answered in the last moments: nothing proves that what they wrote survived. */
  readonly doubtClients: number;
}

interface Counts {
  acked: number;
  uncertain: number;
}

/** What the shortest write takes in the replication stream, bytes: `*2 $4 INCR $1 k`, each with CRLF. */
const LEAST_WRITE_BYTES = 21;

/**
 * The proxy counts what is lost up to its last look at the old master, so what that acknowledged after it
 * is not in the report: so long at most, ms, on a busy machine.
 */
export const UNSEEN_MS = 300;

/** How long what must come to pass may take, ms: on a busy machine the clients have little of it. */
export const PATIENCE_MS = 40_000;

/** An iteration is dozens of calls: so many are enough, the second of them has begun after the first look. */
const SCANS = 2;

/** Jobs that crashes can take with them: each one what a waiting call was being answered (22). */
const MOST_LOST_IN_CRASHES = 2;

export class Book {
  /** Steps that succeeded. */
  readonly #steps = new Map<Step, number>(STEPS.map((step) => [step, 0]));
  readonly #counters = new Map<string, Counts>();
  readonly #pushed = new Map<string, Outcome>();
  readonly #popped = new Map<string, number>();
  readonly #startMs = performance.now();
  #lastPublished = 0;
  readonly #received: number[] = [];
  /** First and last number published while nothing changed. */
  readonly #calm: [number, number][] = [];
  /** What may never be, in words; the first hundred. */
  readonly faults: string[] = [];
  /** Calls answered UNCERTAIN: which, and the text. */
  readonly uncertain: string[] = [];
  /** Transactions that were answered null: a watched key had changed. */
  aborted = 0;
  /** Own writes that were not there when they were read. */
  readonly missedOwn: string[] = [];

  fault(text: string): void {
    if (this.faults.length < 100) this.faults.push(text);
  }

  /** An error reply; true when it says that the outcome is unknown. Any other one is a fault. */
  isUncertain(who: string, message: string): boolean {
    const isUncertain = message.startsWith("UNCERTAIN ");
    if (isUncertain) this.uncertain.push(`${who}: ${message}`);
    else this.fault(`${who}: ${message}`);
    return isUncertain;
  }

  counted(step: "counter" | "script" | "transaction", key: string, outcome: Outcome): void {
    const counts = this.#counters.get(key) ?? { acked: 0, uncertain: 0 };
    counts[outcome]++;
    this.#counters.set(key, counts);
    if (outcome === "acked") this.did(step);
  }

  pushed(job: string, outcome: Outcome): void {
    this.#pushed.set(job, outcome);
    if (outcome === "acked") this.did("push");
  }

  popped(job: string): void {
    this.#popped.set(job, (this.#popped.get(job) ?? 0) + 1);
    this.did("pop");
  }

  published(number: number): void {
    this.#lastPublished = number;
  }

  received(number: number): void {
    this.#received.push(number);
    this.did("message");
  }

  /** @param missed keys that an iteration has not seen. */
  scanned(missed: number): void {
    if (missed > 0) this.fault(`an iteration missed ${missed} keys`);
    this.did("scan");
  }

  did(step: Step): void {
    this.#steps.set(step, this.#steps.get(step)! + 1);
  }

  /** Waits until every kind of work has gone on by so many steps. */
  async progress(steps: number, when: string): Promise<void> {
    const before = new Map(this.#steps);
    const wanted = (step: Step) => (step === "scan" ? Math.min(steps, SCANS) : steps);
    const stuck = () => STEPS.filter((step) => this.#steps.get(step)! < before.get(step)! + wanted(step));
    try {
      await until(() => stuck().length === 0, { deadlineMs: PATIENCE_MS });
    } catch (error) {
      const what = `${stuck()} going on ${when}; faults: ${this.faults.slice(0, 5).join("; ")}`;
      throw new Error(`${(error as Error).message}: ${what}`, { cause: error });
    }
  }

  /**
   * Runs work while nothing changes. It begins when a message published after the call has arrived: from
   * there on all of them must.
   */
  async calm(work: () => Promise<void>): Promise<void> {
    const called = this.#lastPublished;
    const deadlineMs = PATIENCE_MS;
    const what = "a message after a switch";
    await until(() => (this.#received.at(-1) ?? 0) > called, { deadlineMs, what });
    const first = this.#received.at(-1)!;
    await work();
    const last = this.#lastPublished;
    await until(() => (this.#received.at(-1) ?? 0) >= last, { deadlineMs, what: `message ${last}` });
    this.#calm.push([first, last]);
  }

  /** The consumer has got what there is for it. */
  async untilDrained(master: RedisServer, list: string): Promise<void> {
    const isEmpty = async () => (await master.cli("LLEN", list)) === 0;
    await until(isEmpty, { deadlineMs: PATIENCE_MS, what: `${list} being empty` });
  }

  /**
   * Holds the book against the data.
   *
   * @param reported what the proxy has said of the switches.
   */
  async audit(master: RedisServer, kind: Kind, reported: Reported): Promise<void> {
    const mayLose = this.#mayLose(kind, reported);
    expect(this.faults, "faults").toEqual([]);
    this.#auditUncertain(kind);
    expect(this.missedOwn.slice(mayLose), "own writes that were missed").toEqual([]);
    this.#auditMessages(kind);
    const lost = (await this.#lostCounts(master)) + this.#wrongJobs(kind);
    expect(lost, "writes lost").toBeLessThanOrEqual(mayLose);
  }

  /** A lost push or pop makes a job vanish or come again. */
  #mayLose(kind: Kind, { lostBytes, doubtClients }: Reported): number {
    switch (kind) {
      case "planned":
        return 0;
      case "two masters":
        return Math.floor(lostBytes / LEAST_WRITE_BYTES) + this.#stepsIn(UNSEEN_MS);
      // A master that is killed between its writes to the clients and to the replicas (networking.c,
      // handleClientsWithPendingWrites) has answered what nobody else has.
      case "crash":
        return doubtClients;
    }
  }

  /** Steps that succeeded in a time like this, on average. */
  #stepsIn(timeMs: number): number {
    const all = [...this.#steps.values()].reduce((sum, steps) => sum + steps, 0);
    return Math.ceil((all * timeMs) / (performance.now() - this.#startMs));
  }

  #auditUncertain(kind: Kind): void {
    // How many there are is chance: a library may have nothing but reads on the wire when the master dies.
    if (kind === "crash") return;
    // A pop that was just sent to the wrong master may have popped there.
    const isKnown = (text: string) => kind === "two masters" && text.startsWith("consumer: ");
    expect(
      this.uncertain.filter((text) => !isKnown(text)),
      "calls answered UNCERTAIN",
    ).toEqual([]);
  }

  /** Increments that were acknowledged and are not there; one too many is a failure at once. */
  async #lostCounts(master: RedisServer): Promise<number> {
    let lost = 0;
    for (const [key, { acked, uncertain }] of this.#counters) {
      const final = Number(await master.cli("GET", key));
      expect(final, `${key}: asked for`).toBeLessThanOrEqual(acked + uncertain);
      lost += Math.max(0, acked - final);
    }
    return lost;
  }

  /** Jobs that came more than once or not at all, but for what a crash may take. */
  #wrongJobs(kind: Kind): number {
    const popped = [...this.#popped];
    expect(
      popped.filter(([job]) => !this.#pushed.has(job)),
      "jobs nobody pushed",
    ).toEqual([]);
    const again = popped.reduce((sum, [, times]) => sum + times - 1, 0);
    const acked = [...this.#pushed].filter(([, outcome]) => outcome === "acked").map(([job]) => job);
    const lost = acked.filter((job) => !this.#popped.has(job)).length;
    return again + Math.max(0, lost - (kind === "crash" ? MOST_LOST_IN_CRASHES : 0));
  }

  #auditMessages(kind: Kind): void {
    const received = new Set(this.#received);
    expect(this.#calm.length, "times without a change").toBeGreaterThan(1);
    for (const [first, last] of this.#calm) {
      const missing: number[] = [];
      for (let number = first; number <= last; number++) if (!received.has(number)) missing.push(number);
      expect(missing, `messages from ${first} to ${last} that did not arrive`).toEqual([]);
    }
    const back = this.#received.filter((number, i) => i > 0 && number <= this.#received[i - 1]!);
    // What the wrong master sent out may come after what the right one did.
    if (kind !== "two masters") expect(back, "messages out of order").toEqual([]);
  }

  /** For the eyes of people. */
  summary(): string {
    const steps = [...this.#steps].map(([step, count]) => `${count} ${step}`).join(", ");
    return `${steps}; ${this.aborted} transactions anew, ${this.uncertain.length} uncertain`;
  }
}
