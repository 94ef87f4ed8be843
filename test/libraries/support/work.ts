/** The users of a library for Node: loops over the few calls in which libraries differ. */
import { sleep } from "../../support/wait.ts";
import { Book, type Outcome } from "./book.ts";
import type { Users } from "./trial.ts";

/**
 * A library, each call by the mechanism it has for it. Every call rejects with what the server has answered.
 */
export interface Library {
  incr(key: string): Promise<number>;
  get(key: string): Promise<string | null>;
  /** INCR in a script, called by its name. */
  script(key: string): Promise<number>;
  push(list: string, job: string): Promise<unknown>;
  publish(channel: string, text: string): Promise<unknown>;
  /** The keys that match, in one iteration. */
  scan(match: string): AsyncIterable<readonly string[]>;
  setAll(keys: readonly string[]): Promise<unknown>;
  /** On a connection of its own: WATCH, GET, MULTI, SET of one more, EXEC; false = the key had changed. */
  increase(key: string, who: number): Promise<boolean>;
  /** On a connection of its own; null = nothing came in time. */
  pop(list: string, timeoutS: number): Promise<string | null>;
  /** On a connection of its own. */
  subscribe(channel: string, onMessage: (text: string) => void): Promise<unknown>;
  close(): Promise<void>;
}

const WRITERS = 50;
/** Users of the same watched key, so that one of them has to begin anew now and then. */
const RIVALS = 2;
const FIXED_KEYS = 1_000;
/** Between two steps of a loop, on average. */
const PACE_MS = 5;

export class Work implements Users {
  readonly book = new Book();
  readonly incidents: readonly string[];
  readonly list: string;
  readonly name: string;
  readonly #library: Library;
  readonly #producers: Promise<void>[] = [];
  readonly #consumers: Promise<void>[] = [];
  #isProducing = true;
  #isOver = false;

  /** @param name before all keys. @param incidents filled by who made the library's connections. */
  constructor(library: Library, name: string, incidents: readonly string[]) {
    this.#library = library;
    this.name = name;
    this.incidents = incidents;
    this.list = `${name}:jobs`;
  }

  async start(): Promise<this> {
    const fixed = Array.from({ length: FIXED_KEYS }, (_, i) => `${this.name}:fixed:${i}`);
    await this.#library.setAll(fixed);
    const channel = `${this.name}:numbers`;
    await this.#library.subscribe(channel, (text) => this.book.received(Number(text)));
    for (let i = 0; i < WRITERS; i++) this.#produce("writer", () => this.#write(`${this.name}:n:${i}`));
    for (let i = 0; i < RIVALS; i++) this.#produce("transaction", () => this.#increase(i));
    this.#produce("script", () => this.#script());
    this.#produce("pusher", this.#push());
    this.#produce("publisher", this.#publish(channel));
    this.#produce("scanner", () => this.#scan(fixed));
    this.#consumers.push(this.#loop("consumer", () => !this.#isOver, this.#pop()));
    return this;
  }

  async stopProducing(): Promise<void> {
    this.#isProducing = false;
    await Promise.all(this.#producers);
  }

  async stop(): Promise<void> {
    this.#isProducing = false;
    this.#isOver = true;
    await this.#library.close();
    await Promise.all([...this.#producers, ...this.#consumers]);
  }

  #produce(who: string, step: () => Promise<void>): void {
    this.#producers.push(this.#loop(who, () => this.#isProducing, step));
  }

  async #loop(who: string, goesOn: () => boolean, step: () => Promise<void>): Promise<void> {
    while (goesOn()) {
      try {
        await step();
      } catch (error) {
        this.book.isUncertain(who, (error as Error).message);
      }
      // Not all at once: at any moment something is on the wire.
      await sleep(2 * PACE_MS * Math.random());
    }
  }

  /** The result of a call, or null when its outcome is unknown; `settle` is told which. */
  async #call<T>(who: string, call: Promise<T>, settle: (outcome: Outcome) => void): Promise<T | null> {
    try {
      const result = await call;
      settle("acked");
      return result;
    } catch (error) {
      if (this.book.isUncertain(who, (error as Error).message)) settle("uncertain");
      return null;
    }
  }

  async #write(key: string): Promise<void> {
    const settle = (outcome: Outcome) => this.book.counted("counter", key, outcome);
    const value = await this.#call("INCR", this.#library.incr(key), settle);
    if (value === null) return;
    const read = Number(await this.#library.get(key));
    if (read < value) this.book.missedOwn.push(`${key}: ${read} after ${value}`);
  }

  async #script(): Promise<void> {
    const key = `${this.name}:scripted`;
    await this.#call("script", this.#library.script(key), (outcome) =>
      this.book.counted("script", key, outcome),
    );
  }

  async #increase(who: number): Promise<void> {
    const key = `${this.name}:watched`;
    try {
      while (!(await this.#library.increase(key, who))) this.book.aborted++;
      this.book.counted("transaction", key, "acked");
    } catch (error) {
      if (this.book.isUncertain("transaction", (error as Error).message))
        this.book.counted("transaction", key, "uncertain");
    }
  }

  #push() {
    let last = 0;
    return async () => {
      const job = String(++last);
      await this.#call("push", this.#library.push(this.list, job), (outcome) =>
        this.book.pushed(job, outcome),
      );
    };
  }

  #pop() {
    return async () => {
      const job = await this.#library.pop(this.list, 1);
      if (job !== null) this.book.popped(job);
    };
  }

  #publish(channel: string) {
    let last = 0;
    return async () => {
      const number = ++last;
      await this.#call("publish", this.#library.publish(channel, String(number)), (outcome) => {
        if (outcome === "acked") this.book.published(number);
      });
    };
  }

  async #scan(fixed: readonly string[]): Promise<void> {
    const seen = new Set<string>();
    for await (const keys of this.#library.scan(`${this.name}:fixed:*`)) {
      for (const key of keys) seen.add(key);
    }
    this.book.scanned(fixed.filter((key) => !seen.has(key)).length);
  }
}
