/** 21, 22, 23: numbered jobs, and calls that wait for them. */
import type { RawClient } from "../client.ts";
import type { RedisServer } from "../redis.ts";
import type { Reply } from "../resp.ts";
import { Actor } from "../stateful.ts";
import { until } from "../wait.ts";

/** So much later than its time-out a call that found nothing may be answered, ms. */
const LATE_MS = 3_000;
/** A master that is handing over does not look at calls that come meanwhile, for as long as it takes. */
const LATE_IN_FAILOVER_MS = 15_000;
/** And so much earlier, by the clocks' grain. */
const EARLY_MS = 3;

interface Queue {
  readonly key: string;
  /** The request with its time-out in seconds, and the job in the reply. */
  readonly take: (timeout: number) => readonly (string | number)[];
  readonly jobIn: (reply: Reply) => Reply | undefined;
  readonly put: "RPUSH" | "ZADD";
  /** 0 = it waits for ever. */
  readonly longestMs: number;
}

const second = (reply: Reply): Reply | undefined => (reply as Reply[])[1];
const QUEUES: readonly Queue[] = [
  { key: "q:blpop", take: (t) => ["BLPOP", "q:blpop", t], jobIn: second, put: "RPUSH", longestMs: 0 },
  {
    key: "q:brpop",
    take: (t) => ["BRPOP", "none", "q:brpop", t],
    jobIn: second,
    put: "RPUSH",
    longestMs: 900,
  },
  {
    key: "q:blmove",
    take: (t) => ["BLMOVE", "q:blmove", "q:moved", "LEFT", "RIGHT", t],
    jobIn: (reply) => reply,
    put: "RPUSH",
    longestMs: 2_500,
  },
  { key: "q:bzpop", take: (t) => ["BZPOPMIN", "q:bzpop", t], jobIn: second, put: "ZADD", longestMs: 400 },
  {
    key: "q:blmpop",
    take: (t) => ["BLMPOP", t, 1, "q:blmpop", "LEFT"],
    jobIn: (reply) => ((reply as Reply[])[1] as Reply[])[0],
    put: "RPUSH",
    longestMs: 0,
  },
];

/** Two consumers of each queue, in RESP2 and in RESP3. */
export class Jobs extends Actor {
  readonly #books = new Map(QUEUES.map(({ key }) => [key, new JobBook()]));
  #number = 0;

  async start(): Promise<void> {
    const producer = await this.load.client();
    this.load.loop("producer", () => this.#produce(producer));
    for (const queue of QUEUES) {
      for (const protocol of [2, 3] as const) {
        const client = await this.load.client({ protocol });
        this.load.loop(`${queue.key}-${protocol}`, () => this.#consume(client, queue), true);
      }
    }
  }

  async #produce(client: RawClient): Promise<boolean> {
    await this.load.pause(20);
    const { key, put } = QUEUES[this.load.random(QUEUES.length)]!;
    const job = String(++this.#number);
    const reply = await client.command(put, key, ...(put === "ZADD" ? [job] : []), job);
    const isWell = this.load.isWell("producer", reply);
    if (isWell) this.#books.get(key)!.made.add(job);
    return isWell;
  }

  async #consume(client: RawClient, queue: Queue): Promise<boolean> {
    const { load } = this;
    const timeoutMs = queue.longestMs === 0 ? 0 : 100 + load.random(queue.longestMs - 100);
    const fromMs = performance.now();
    const reply = await client.command(...queue.take(timeoutMs / 1_000));
    const book = this.#books.get(queue.key)!;
    if (!load.isWell(queue.key, reply)) {
      book.uncertain++;
      return false;
    }
    if (reply === null) {
      const overMs = performance.now() - fromMs - timeoutMs;
      const lateMs = load.round.name.startsWith("failover") ? LATE_IN_FAILOVER_MS : LATE_MS;
      if (timeoutMs === 0 || overMs < -EARLY_MS || overMs > lateMs) {
        load.fault(`${queue.key}: a time-out of ${timeoutMs} ms ended ${overMs.toFixed(1)} ms late`);
      }
      return false;
    }
    const job = String(queue.jobIn(reply));
    if (!/^\d+$/.test(job)) load.fault(`${queue.key}: ${JSON.stringify(reply)} is no job`);
    if (book.taken.has(job)) book.doubled.add(job);
    book.taken.add(job);
    return true;
  }

  override async audit(master: RedisServer): Promise<void> {
    for (const { key, put } of QUEUES) {
      const left = async () => Number(await master.cli(put === "ZADD" ? "ZCARD" : "LLEN", key));
      const isEmpty = async () => (await left()) === 0 && this.#books.get(key)!.isSettled(this.load.mayLose);
      // What was popped may be on its way to the client, and what is missing for good is told below.
      await until(isEmpty, { deadlineMs: 3_000, what: `all jobs of ${key} being taken` }).catch(() => {});
      if ((await left()) > 0) this.load.fault(`${key}: ${await left()} jobs are left to consumers that wait`);
      const fault = this.#books.get(key)!.audit(this.load.mayLose, this.load.round.mayCut ? CONSUMERS : 0);
      if (fault !== null) this.load.fault(`${key}: ${fault}`);
    }
  }
}

/** Of each queue: as many jobs may have been popped on a lost master at the instant of a crash. */
const CONSUMERS = 2;

/** What was made and taken in one round. */
class JobBook {
  readonly made = new Set<string>();
  readonly taken = new Set<string>();
  readonly doubled = new Set<string>();
  uncertain = 0;

  isSettled(mayLose: number): boolean {
    return this.#missing().length === 0 || mayLose === Number.POSITIVE_INFINITY;
  }

  #missing(): string[] {
    return [...this.made].filter((job) => !this.taken.has(job));
  }

  /** Says what is wrong and starts anew. */
  audit(mayLose: number, atTheInstant: number): string | null {
    const missing = this.#missing();
    const { doubled, uncertain } = this;
    const texts: string[] = [];
    if (doubled.size > mayLose) texts.push(`jobs ${[...doubled]} came twice`);
    if (missing.length > mayLose + uncertain + atTheInstant) texts.push(`jobs ${missing} never came`);
    this.made.clear();
    this.doubled.clear();
    this.uncertain = 0;
    return texts.length === 0 ? null : texts.join("; ");
  }
}
