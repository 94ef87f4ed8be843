/**
 * Whether the service is there: clients that come one after the other, ask one thing each and leave. Those
 * who ask while nobody can answer wait; the gap is the longest time in which no client at all was answered.
 */
import { RawClient } from "../client.ts";
import { GapMeter } from "../gap-meter.ts";
import { ReplyError } from "../resp.ts";
import { sleep } from "../wait.ts";

export const VISIT_EVERY_MS = 20;
/** Who waits at once, at most. */
const WAITING_MAX = 400;
export const PULSE_KEY = "pulse";

export interface PulseReport {
  readonly acked: number;
  readonly uncertain: number;
  readonly writeGapMs: number;
  readonly readGapMs: number;
  /** Other errors and disconnects, in words; the first hundred. */
  readonly faults: readonly string[];
}

export class Pulse {
  readonly #port: number;
  readonly #allowedErrors: readonly string[];
  readonly #faults: string[] = [];
  readonly #write = new GapMeter();
  readonly #read = new GapMeter();
  readonly #waiting = new Set<Promise<void>>();
  #acked = 0;
  #uncertain = 0;
  #stopping = false;
  #run: Promise<void> = Promise.resolve();

  /** @param allowedErrors first words of errors that are no fault, besides UNCERTAIN of a write. */
  constructor(port: number, allowedErrors: readonly string[] = []) {
    this.#port = port;
    this.#allowedErrors = allowedErrors;
  }

  start(): this {
    this.#run = this.#beat();
    return this;
  }

  resetGaps(): void {
    this.#write.reset();
    this.#read.reset();
  }

  report(): PulseReport {
    return {
      acked: this.#acked,
      uncertain: this.#uncertain,
      writeGapMs: this.#write.longestMs(),
      readGapMs: this.#read.longestMs(),
      faults: this.#faults,
    };
  }

  /** Waits for all replies. Gaps end with the order to stop. */
  async stop(): Promise<PulseReport> {
    const { writeGapMs, readGapMs } = this.report();
    this.#stopping = true;
    await this.#run;
    await Promise.all(this.#waiting);
    return { ...this.report(), writeGapMs, readGapMs };
  }

  async #beat(): Promise<void> {
    while (!this.#stopping) {
      if (this.#waiting.size < WAITING_MAX) {
        this.#begin(this.#ask("INCR"));
        this.#begin(this.#ask("GET"));
      }
      await sleep(VISIT_EVERY_MS);
    }
  }

  #begin(visit: Promise<void>): void {
    const caught = visit.catch((error: Error) => {
      if (this.#faults.length < 100) this.#faults.push(`pulse: ${error.message}`);
    });
    this.#waiting.add(caught);
    void caught.then(() => this.#waiting.delete(caught));
  }

  async #ask(command: "INCR" | "GET"): Promise<void> {
    const client = await RawClient.connect({ port: this.#port });
    try {
      const reply = await client.command(command, PULSE_KEY);
      if (reply instanceof ReplyError) this.#onError(command, reply);
      else if (command === "GET") this.#read.mark();
      else {
        this.#acked++;
        this.#write.mark();
      }
    } finally {
      client.close();
    }
  }

  #onError(command: string, error: ReplyError): void {
    if (error.word === "UNCERTAIN" && command === "INCR") this.#uncertain++;
    else if (!this.#allowedErrors.includes(error.word)) throw new Error(`${command}: ${error.message}`);
  }
}
