/**
 * Load from many clients that check what they are told, each on a bare socket: a dropped connection is seen,
 * never repaired (unless a bench asks for it).
 *
 *   writer        INCR of its own key
 *   own reader    INCR of its own key, then GET: must be its own value or newer
 *   reader        GET of a writer's key: must be a number or nothing
 *   pipeliner     SET, GET, ECHO and tagged GETs in one write: each reply must belong to its request
 *   transaction   MULTI, INCR a, INCR b, EXEC one by one: both or none
 *
 * The books: `acked ≤ final ≤ acked + uncertain` must hold for every counter; see `audit`.
 */
import { RawClient } from "./client.ts";
import { GapMeter } from "./gap-meter.ts";
import { type Reply, ReplyError } from "./resp.ts";
import { sleep, until } from "./wait.ts";

export interface WorkloadOptions {
  readonly port: number;
  readonly host?: string;
  readonly protocol?: 2 | 3;
  /** Clients of each kind; default 4 writers, 2 own readers, 4 readers, 2 pipeliners, 2 transactions. */
  readonly writers?: number;
  readonly ownReaders?: number;
  readonly readers?: number;
  readonly pipeliners?: number;
  readonly transactions?: number;
  /** Pause of each client between its steps in ms; default 5. */
  readonly paceMs?: number;
  /** Before all keys; default `load:`. */
  readonly prefix?: string;
  /** A reply that takes longer counts as the error TIMEOUT and ends its client; default 60 000 ms. */
  readonly deadlineMs?: number;
  /** Connect again after a disconnect (still counted), as an application would; default false. */
  readonly reconnect?: boolean;
}

export type Kind = "writer" | "ownReader" | "reader" | "pipeliner" | "transaction";

export interface KindReport {
  /** Steps that succeeded. */
  readonly count: number;
  /** The longest time in which no client of the kind succeeded. */
  readonly longestGapMs: number;
  /** The longest time in which some one client did not succeed. */
  readonly longestClientGapMs: number;
}

export interface Counter {
  acked: number;
  uncertain: number;
}

export interface Report {
  readonly kinds: Readonly<Record<Kind, KindReport>>;
  /** Of all counters together. */
  readonly acked: number;
  readonly uncertain: number;
  readonly counters: ReadonlyMap<string, Readonly<Counter>>;
  /** Error replies by first word. */
  readonly errors: ReadonlyMap<string, number>;
  /** The first text seen of each. */
  readonly errorTexts: ReadonlyMap<string, string>;
  readonly disconnects: number;
  readonly disconnectReasons: readonly string[];
  /** Replies that do not fit their request, in words; the first hundred. */
  readonly mismatches: readonly string[];
}

export interface Audit {
  /** Acknowledged increments that are missing: sum over all counters of `acked - final`. */
  readonly lost: number;
  /** Increments nobody can explain: sum over all counters of `final - acked - uncertain`. */
  readonly unexplained: number;
  readonly details: readonly string[];
}

const KINDS: readonly Kind[] = ["writer", "ownReader", "reader", "pipeliner", "transaction"];

export class Workload {
  readonly options: Required<WorkloadOptions>;
  readonly book = new Book();
  readonly #actors: Actor[] = [];
  #runs: Promise<void>[] = [];
  #isStopping = false;

  constructor(options: WorkloadOptions) {
    this.options = {
      host: "127.0.0.1",
      protocol: 2,
      writers: 4,
      ownReaders: 2,
      readers: 4,
      pipeliners: 2,
      transactions: 2,
      paceMs: 5,
      prefix: "load:",
      deadlineMs: 60_000,
      reconnect: false,
      ...options,
    };
  }

  get stopping(): boolean {
    return this.#isStopping;
  }

  /** Connects all clients and sets them to work. */
  async start(): Promise<this> {
    const { writers, ownReaders, readers, pipeliners, transactions } = this.options;
    const add = (count: number, make: (id: number) => Actor) => {
      for (let id = 0; id < count; id++) this.#actors.push(make(id));
    };
    add(writers, (id) => new Writer(this, id));
    add(ownReaders, (id) => new OwnReader(this, id));
    add(readers, (id) => new Reader(this, id));
    add(pipeliners, (id) => new Pipeliner(this, id));
    add(transactions, (id) => new Transaction(this, id));
    await Promise.all(this.#actors.map((actor) => actor.connect()));
    this.resetGaps();
    this.#runs = this.#actors.map((actor) => actor.run());
    return this;
  }

  /** Measures gaps from now on only. */
  resetGaps(): void {
    for (const actor of this.#actors) actor.resetGap();
    this.book.resetGaps();
  }

  /**
   * Waits until so many more writes were answered, then for up to `phaseMs` at random: what follows comes at
   * any phase against the probes. Gaps are measured from then on.
   */
  async underWay(writes: number, phaseMs = 0): Promise<void> {
    const target = this.report().kinds.writer.count + writes;
    const isUnderWay = () => this.report().kinds.writer.count >= target;
    await until(isUnderWay, { what: "the load being under way" });
    if (phaseMs > 0) await sleep(Math.random() * phaseMs);
    this.resetGaps();
  }

  /** Resolves with the time (`performance.now`) at which the next step of the kind succeeded. */
  next(kind: Kind): Promise<number> {
    return this.book.next(kind);
  }

  report(): Report {
    const kinds = {} as Record<Kind, KindReport>;
    for (const kind of KINDS) {
      const gaps = this.#actors.filter((actor) => actor.kind === kind).map((actor) => actor.longestGapMs());
      kinds[kind] = { ...this.book.kind(kind, gaps.length > 0), longestClientGapMs: Math.max(0, ...gaps) };
    }
    return { kinds, ...this.book.snapshot() };
  }

  /** Lets every client finish its step, closes all and returns the final report. */
  async stop(): Promise<Report> {
    this.#isStopping = true;
    const report = this.report();
    await Promise.all(this.#runs);
    for (const actor of this.#actors) actor.close();
    // Gaps end with the order to stop, everything else counts to the last reply.
    return { ...this.report(), kinds: report.kinds };
  }

  /** Compares the books with the counters as they are, read from `port` (the master's, after `stop`). */
  async audit(port: number): Promise<Audit> {
    const client = await RawClient.connect({ port });
    let lost = 0;
    let unexplained = 0;
    const details: string[] = [];
    for (const [key, { acked, uncertain }] of this.book.counters) {
      const final = Number(await client.command("GET", key));
      lost += Math.max(0, acked - final);
      unexplained += Math.max(0, final - acked - uncertain);
      if (final < acked || final > acked + uncertain) {
        details.push(`${key}: acked ${acked}, uncertain ${uncertain}, final ${final}`);
      }
    }
    client.close();
    return { lost, unexplained, details };
  }
}

/** A workload, started. */
export function startWorkload(options: WorkloadOptions): Promise<Workload> {
  return new Workload(options).start();
}

/** What all clients together have seen. */
class Book {
  readonly counters = new Map<string, Counter>();
  readonly #errors = new Map<string, number>();
  readonly #errorTexts = new Map<string, string>();
  readonly #disconnectReasons: string[] = [];
  readonly #mismatches: string[] = [];
  readonly #gaps = new Map<Kind, GapMeter>();
  readonly #nexts = new Map<Kind, ((time: number) => void)[]>();

  counter(key: string): Counter {
    const counter = this.counters.get(key) ?? { acked: 0, uncertain: 0 };
    this.counters.set(key, counter);
    return counter;
  }

  error(error: ReplyError): void {
    this.#errors.set(error.word, (this.#errors.get(error.word) ?? 0) + 1);
    if (!this.#errorTexts.has(error.word)) this.#errorTexts.set(error.word, error.message);
  }

  disconnect(who: string, reason: string): void {
    this.#disconnectReasons.push(`${who}: ${reason}`);
  }

  mismatch(text: string): void {
    if (this.#mismatches.length < 100) this.#mismatches.push(text);
  }

  success(kind: Kind): void {
    this.#gap(kind).mark();
    const waiting = this.#nexts.get(kind);
    this.#nexts.delete(kind);
    for (const resolve of waiting ?? []) resolve(performance.now());
  }

  next(kind: Kind): Promise<number> {
    return new Promise((resolve) => {
      this.#nexts.set(kind, [...(this.#nexts.get(kind) ?? []), resolve]);
    });
  }

  resetGaps(): void {
    for (const kind of KINDS) this.#gap(kind).reset();
  }

  kind(kind: Kind, hasClients: boolean): { count: number; longestGapMs: number } {
    const gap = this.#gap(kind);
    return { count: gap.count, longestGapMs: hasClients ? gap.longestMs() : 0 };
  }

  snapshot(): Omit<Report, "kinds"> {
    const counters = [...this.counters.values()];
    return {
      acked: counters.reduce((sum, counter) => sum + counter.acked, 0),
      uncertain: counters.reduce((sum, counter) => sum + counter.uncertain, 0),
      counters: new Map([...this.counters].map(([key, counter]) => [key, { ...counter }])),
      errors: new Map(this.#errors),
      errorTexts: new Map(this.#errorTexts),
      disconnects: this.#disconnectReasons.length,
      disconnectReasons: [...this.#disconnectReasons],
      mismatches: [...this.#mismatches],
    };
  }

  #gap(kind: Kind): GapMeter {
    const gap = this.#gaps.get(kind) ?? new GapMeter();
    this.#gaps.set(kind, gap);
    return gap;
  }
}

abstract class Actor {
  abstract readonly kind: Kind;
  protected readonly workload: Workload;
  protected readonly id: number;
  readonly #gap = new GapMeter();
  #client: RawClient | undefined;

  constructor(workload: Workload, id: number) {
    this.workload = workload;
    this.id = id;
  }

  /** One round; returns whether all of it succeeded. Throws only when the connection fails. */
  protected abstract step(client: RawClient): Promise<boolean>;

  protected get book(): Book {
    return this.workload.book;
  }

  protected key(name: string): string {
    return `${this.workload.options.prefix}${this.kind}:${this.id}:${name}`;
  }

  async connect(): Promise<void> {
    const { port, host, protocol, deadlineMs } = this.workload.options;
    this.#client = await RawClient.connect({ port, host, protocol, deadlineMs });
  }

  async run(): Promise<void> {
    while (!this.workload.stopping) {
      try {
        if (this.#client === undefined) await this.connect();
        else if (await this.step(this.#client)) this.#onSuccess();
      } catch (error) {
        this.#onFailure(error as Error);
        if (!this.workload.options.reconnect) return;
        await sleep(50);
      }
      await sleep(this.workload.options.paceMs);
    }
  }

  longestGapMs(): number {
    return this.#gap.longestMs();
  }

  resetGap(): void {
    this.#gap.reset();
  }

  close(): void {
    this.#client?.close();
  }

  /** Counts an increment as acknowledged, uncertain or not run; returns whether it was acknowledged. */
  protected settle(key: string, reply: Reply): boolean {
    if (typeof reply === "number") {
      this.book.counter(key).acked++;
      return true;
    }
    if (this.isError(reply)) {
      if (reply.word === "UNCERTAIN") this.book.counter(key).uncertain++;
    } else this.book.mismatch(`${this.kind} ${this.id}: INCR ${key} answered ${show(reply)}`);
    return false;
  }

  protected isError(reply: Reply | undefined): reply is ReplyError {
    if (!(reply instanceof ReplyError)) return false;
    this.book.error(reply);
    return true;
  }

  protected mismatch(request: string, reply: Reply | undefined, expected: string): void {
    this.book.mismatch(`${this.kind} ${this.id}: ${request} answered ${show(reply)}, expected ${expected}`);
  }

  #onSuccess(): void {
    this.#gap.mark();
    this.book.success(this.kind);
  }

  #onFailure(error: Error): void {
    const client = this.#client;
    this.#client = undefined;
    // A failed attempt to connect again is not another disconnect.
    if (client === undefined) return;
    if (client.disconnected) this.book.disconnect(`${this.kind} ${this.id}`, client.disconnectReason);
    else this.book.error(new ReplyError(`TIMEOUT ${error.message}`));
    client.close();
  }
}

class Writer extends Actor {
  readonly kind = "writer";

  protected async step(client: RawClient): Promise<boolean> {
    const key = this.key("n");
    return this.settle(key, await uncertainWhenCut(this.book.counter(key), client.command("INCR", key)));
  }
}

class OwnReader extends Actor {
  readonly kind = "ownReader";

  protected async step(client: RawClient): Promise<boolean> {
    const key = this.key("n");
    const value = await uncertainWhenCut(this.book.counter(key), client.command("INCR", key));
    if (!this.settle(key, value)) return false;
    const read = await client.command("GET", key);
    if (this.isError(read)) return false;
    if (Number(read) >= Number(value)) return true;
    this.mismatch(`GET ${key} behind its own INCR`, read, show(value));
    return false;
  }
}

class Reader extends Actor {
  readonly kind = "reader";

  protected async step(client: RawClient): Promise<boolean> {
    const { prefix, writers } = this.workload.options;
    const key = `${prefix}writer:${this.id % Math.max(1, writers)}:n`;
    const reply = await client.command("GET", key);
    if (this.isError(reply)) return false;
    if (reply === null || (typeof reply === "string" && /^\d+$/.test(reply))) return true;
    this.mismatch(`GET ${key}`, reply, "a number or nothing");
    return false;
  }
}

/** Writes keys that hold their own name first, so that a reply that went to the wrong request shows. */
class Pipeliner extends Actor {
  readonly kind = "pipeliner";
  #round = 0;
  /** Values the key may hold: more than one after an uncertain SET. */
  #possible = new Set<string | null>([null]);
  #areTagsSet = false;

  protected async step(client: RawClient): Promise<boolean> {
    if (!this.#areTagsSet) {
      const replies = await client.pipeline(TAGS.map((tag) => ["SET", this.key(tag), this.key(tag)]));
      this.#areTagsSet = replies.every((reply) => !this.isError(reply));
      return false;
    }
    const value = String(++this.#round);
    const key = this.key("value");
    const tag = this.key(TAGS[this.#round % TAGS.length] ?? "");
    const echo = `${key}:${value}`;
    this.#possible.add(value);
    const [set, own, tagged, echoed, again] = await client.pipeline([
      ["SET", key, value],
      ["GET", key],
      ["GET", tag],
      ["ECHO", echo],
      ["GET", key],
    ]);
    this.#onSet(set, value);
    const checks = [this.#isPossible(own), this.#isPossible(again)];
    checks.push(this.#isExactly(`GET ${tag}`, tagged, tag), this.#isExactly(`ECHO ${echo}`, echoed, echo));
    return set === "OK" && checks.every(Boolean);
  }

  #onSet(reply: Reply | undefined, value: string): void {
    if (reply === "OK") this.#possible = new Set([value]);
    else if (this.isError(reply)) {
      if (reply.word !== "UNCERTAIN") this.#possible.delete(value);
    } else this.mismatch("SET", reply, "OK");
  }

  #isPossible(reply: Reply | undefined): boolean {
    if (this.isError(reply)) return false;
    if (this.#possible.has(reply as string | null)) return true;
    const expected = [...this.#possible].map(show).join(" or ");
    this.mismatch(`GET ${this.key("value")} behind its own SET`, reply, expected);
    return false;
  }

  #isExactly(request: string, reply: Reply | undefined, expected: string): boolean {
    if (this.isError(reply)) return false;
    if (reply === expected) return true;
    this.mismatch(request, reply, expected);
    return false;
  }
}

const TAGS = ["tag-0", "tag-1", "tag-2", "tag-3", "tag-4", "tag-5", "tag-6", "tag-7"];

class Transaction extends Actor {
  readonly kind = "transaction";

  protected async step(client: RawClient): Promise<boolean> {
    const [a, b] = [this.key("a"), this.key("b")];
    const steps = [["MULTI"], ["INCR", a], ["INCR", b]];
    for (const [index, command] of steps.entries()) {
      const reply = await client.command(...command);
      const expected = index === 0 ? "OK" : "QUEUED";
      if (!this.isError(reply) && reply !== expected) this.mismatch(command.join(" "), reply, expected);
    }
    const both = [this.book.counter(a), this.book.counter(b)];
    const reply = await uncertainWhenCut(both, client.command("EXEC"));
    if (this.isError(reply)) {
      if (reply.word === "UNCERTAIN") for (const counter of both) counter.uncertain++;
      return false;
    }
    const [first, second] = Array.isArray(reply) ? reply : [];
    if (typeof first !== "number" || first !== second) {
      this.mismatch("EXEC", reply, "the same number twice");
      return false;
    }
    for (const counter of both) counter.acked++;
    return true;
  }
}

/** A connection that ends before the reply leaves the increment's outcome open. */
async function uncertainWhenCut(counters: Counter | Counter[], reply: Promise<Reply>): Promise<Reply> {
  try {
    return await reply;
  } catch (error) {
    for (const counter of [counters].flat()) counter.uncertain++;
    throw error;
  }
}

function show(reply: Reply | undefined): string {
  if (reply instanceof ReplyError) return `-${reply.message}`;
  const text = JSON.stringify(reply, (_, value: unknown) => (typeof value === "bigint" ? `${value}` : value));
  return (text ?? "nothing").slice(0, 200);
}
