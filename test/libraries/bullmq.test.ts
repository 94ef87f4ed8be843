/**
 * BullMQ at work through switches: producers, two workers, a listener of events. Nothing of it may notice a
 * switch, and each job runs as often as it should.
 *
 * In a crash BullMQ is told UNCERTAIN for the scripts on the wire, and does with it what it does with any
 * error: the producer gets it, and a worker that could not note the end of a job tries to note a failure,
 * or leaves the job to be found stalled. Either way the job runs again, so each error of a worker is worth
 * one run more at most.
 */
import type { EventEmitter } from "node:events";
import { Queue, QueueEvents, Worker } from "bullmq";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { randomFrom, SEED } from "../support/random.ts";
import { report as figure, Stage } from "../support/stage.ts";
import { sleep, until, within } from "../support/wait.ts";
import type { Reported } from "./support/book.ts";
import { PATIENCE_MS, UNSEEN_MS } from "./support/book.ts";
import { type Kind, Switches } from "./support/switches.ts";
import { accepted, reportedLoss } from "./support/trial.ts";

let stage: Stage;
let switches: Switches;
const random = randomFrom(SEED);

beforeAll(async () => {
  stage = await Stage.open();
  switches = new Switches(stage, random);
});

afterAll(() => stage?.close());

const PRODUCERS = 3;
const WORKERS = 2;
const CONCURRENCY = 5;
/** How often a job may be tried: more often than it fails by itself. */
const ATTEMPTS = 10;
/** How long a worker may be silent before its jobs count as stalled, and how often that is looked at. */
const LOCK_MS = 4_000;
const STALLED_CHECK_MS = 1_000;
/** Pause of a worker after an error, and of a job that failed. */
const RETRY_MS = 200;

interface Job {
  readonly id: string;
  /** How often it fails before it succeeds. */
  readonly failures: number;
}

/** What BullMQ makes a job do: the same in all kinds of jobs, so that all of them are checked alike. */
class Application {
  /** What an ioredis connection of BullMQ has noticed. */
  readonly incidents: string[] = [];
  /** Errors of workers, queue and listener. */
  readonly errors: string[] = [];
  readonly acked = new Map<string, Job>();
  /** Jobs whose producer was told UNCERTAIN. */
  readonly uncertain = new Map<string, Job>();
  readonly refused: string[] = [];
  readonly runs = new Map<string, number>();
  /** How often the listener was told that a job is completed. */
  readonly completed = new Map<string, number>();
  stalled = 0;
  readonly queue: Queue;
  readonly #events: QueueEvents;
  readonly #workers: Worker[];
  readonly #connections: Redis[] = [];
  readonly #producers: Promise<void>[] = [];
  readonly #name: string;
  #isProducing = true;
  #last = 0;

  constructor(name: string) {
    this.#name = name;
    this.queue = new Queue(name, { connection: this.#connect() });
    this.#events = new QueueEvents(name, { connection: this.#connect() });
    this.#events.on("completed", ({ jobId }) => count(this.completed, jobId));
    this.#workers = Array.from({ length: WORKERS }, () => this.#worker());
    for (const part of this.#parts()) part.on("error", (error: Error) => this.errors.push(error.message));
  }

  #parts(): readonly EventEmitter[] {
    return [this.queue, this.#events, ...this.#workers];
  }

  /** How many connections are watched. */
  get connections(): number {
    return this.#connections.length;
  }

  /** Connections that BullMQ makes out of this one are watched too. */
  #connect(redis = new Redis(stage.proxy.port, "127.0.0.1", { maxRetriesPerRequest: null })): Redis {
    for (const event of ["close", "end", "reconnecting", "error"])
      redis.on(event, (detail: unknown) => this.incidents.push(`${event} ${detail ?? ""}`.trim()));
    const duplicate = redis.duplicate.bind(redis);
    redis.duplicate = (override) => this.#connect(duplicate(override));
    this.#connections.push(redis);
    return redis;
  }

  #worker(): Worker {
    const worker = new Worker<Job>(
      this.#name,
      async (job) => {
        const run = count(this.runs, job.data.id);
        await sleep(Math.random() * 20);
        if (run <= job.data.failures) throw new Error("as planned");
        return run;
      },
      {
        connection: this.#connect(),
        concurrency: CONCURRENCY,
        lockDuration: LOCK_MS,
        stalledInterval: STALLED_CHECK_MS,
        maxStalledCount: ATTEMPTS,
        runRetryDelay: RETRY_MS,
      },
    );
    worker.on("stalled", () => this.stalled++);
    return worker;
  }

  async start(): Promise<this> {
    await Promise.all([this.queue, this.#events, ...this.#workers].map((part) => part.waitUntilReady()));
    for (let i = 0; i < PRODUCERS; i++) this.#producers.push(this.#produce());
    return this;
  }

  /** One in five is delayed, one in five fails at first, one in ten comes with another one. */
  async #produce(): Promise<void> {
    while (this.#isProducing) {
      const jobs = Array.from({ length: Math.random() < 0.1 ? 2 : 1 }, () => ({
        id: `job-${++this.#last}`,
        failures: Math.random() < 0.2 ? 1 : 0,
      }));
      const made = jobs.map((data) => ({
        name: "work",
        data,
        opts: {
          jobId: data.id,
          attempts: ATTEMPTS,
          backoff: { type: "fixed", delay: RETRY_MS / 2 },
          delay: Math.random() < 0.2 ? Math.ceil(Math.random() * 500) : 0,
        },
      }));
      try {
        if (made.length > 1) await this.queue.addBulk(made);
        else for (const { name, data, opts } of made) await this.queue.add(name, data, opts);
        for (const job of jobs) this.acked.set(job.id, job);
      } catch (error) {
        const { message } = error as Error;
        if (!message.startsWith("UNCERTAIN ")) this.refused.push(message);
        for (const job of jobs) this.uncertain.set(job.id, job);
      }
      await sleep(Math.random() * 15);
    }
  }

  async stopProducing(): Promise<void> {
    this.#isProducing = false;
    await within(Promise.all(this.#producers), PATIENCE_MS, "an answer to every producer");
  }

  /** Jobs are added, run and reported as completed. */
  async progress(jobs: number, when: string): Promise<void> {
    const sizes = () => [this.acked.size, this.runs.size, this.completed.size];
    const before = sizes();
    const goesOn = () => sizes().every((size, i) => size >= before[i]! + jobs);
    await until(goesOn, { deadlineMs: PATIENCE_MS }).catch((error: Error) => {
      const what = `${jobs} more jobs added, run, told of ${when}: ${before} became ${sizes()}`;
      throw new Error(`${error.message}: ${what}; ${this.errors}`, { cause: error });
    });
  }

  /** Nothing is left to be done. */
  async untilDone(): Promise<void> {
    let left: Record<string, number> = {};
    const isDone = async () => {
      left = await this.queue.getJobCounts("waiting", "active", "delayed", "prioritized");
      return Object.values(left).every((jobs) => jobs === 0);
    };
    const deadlineMs = PATIENCE_MS;
    await until(isDone, { deadlineMs, what: "all jobs done" }).catch((error: Error) => {
      throw new Error(`${error.message}: ${JSON.stringify(left)}; ${this.errors}`, { cause: error });
    });
  }

  /** Jobs that ran more often than they should, and by how much in all. */
  extraRuns(): number {
    let extra = 0;
    for (const { id, failures } of [...this.acked.values(), ...this.uncertain.values()])
      extra += Math.max(0, (this.runs.get(id) ?? 0) - failures - 1);
    return extra;
  }

  /** Jobs that their producer believes in and that never came to their end. */
  lost(): string[] {
    return [...this.acked.values()]
      .filter(({ id, failures }) => (this.runs.get(id) ?? 0) < failures + 1)
      .map(({ id }) => id);
  }

  async stop(): Promise<void> {
    this.#isProducing = false;
    for (const redis of this.#connections) {
      redis.removeAllListeners();
      redis.on("error", () => {});
    }
    for (const part of this.#parts()) {
      part.removeAllListeners();
      part.on("error", () => {});
    }
    await Promise.all(this.#workers.map((worker) => worker.close(true)));
    await Promise.all([this.queue.close(), this.#events.close()]);
    for (const redis of this.#connections) redis.disconnect();
  }
}

function count(counts: Map<string, number>, id: string): number {
  const next = (counts.get(id) ?? 0) + 1;
  counts.set(id, next);
  return next;
}

/**
 * Runs the switches of a kind under the work of an application; returns it with what the proxy reports as
 * lost.
 */
async function through(kind: Kind, check: (application: Application, reported: Reported) => Promise<void>) {
  const application = await new Application(kind.replaceAll(" ", "-")).start();
  try {
    let [lostBytes, doubtClients] = [0, 0];
    await application.progress(20, "at first");
    expect(application.connections, "queue, events, two for each worker").toBeGreaterThanOrEqual(6);
    const connections = await accepted(stage);
    for (const name of switches.order(kind)) {
      await switches.run(name);
      await application.progress(20, `after ${name}`);
      const reported = await reportedLoss(stage);
      lostBytes += reported.lostBytes;
      doubtClients += reported.doubtClients;
    }
    await application.stopProducing();
    await application.untilDone();
    figure(
      `BullMQ, ${kind}: ${application.acked.size} jobs added, ${application.uncertain.size} uncertain, ` +
        `${application.extraRuns()} runs more, ${application.stalled} stalled, ` +
        `${application.errors.length} errors, ${lostBytes} bytes reported lost`,
    );
    expect(application.incidents, "what its connections noticed").toEqual([]);
    expect(await accepted(stage), "connections accepted").toBe(connections);
    expect(application.refused, "what producers were told besides UNCERTAIN").toEqual([]);
    await check(application, { lostBytes, doubtClients });
  } finally {
    await within(application.stop(), PATIENCE_MS, "the end of BullMQ");
  }
}

/** For one kind of switch, ms. */
const TRIAL_MS = 240_000;
const CASES = `(8, 9, 11, 15, 18, 21, 23, 30; HOLDFAST_SEED=${SEED})`;

it(
  `BullMQ notices no planned switch: no job is lost, none runs twice, no error ${CASES}`,
  async () => {
    await through("planned", async (application) => {
      expect(application.errors).toEqual([]);
      expect(application.uncertain).toEqual(new Map());
      expect(application.stalled).toBe(0);
      expect(application.lost()).toEqual([]);
      expect(application.extraRuns()).toBe(0);
      const ended = () => [...application.acked.keys()].filter((id) => application.completed.get(id) !== 1);
      const told = { deadlineMs: PATIENCE_MS, what: "one event for each job" };
      await until(() => ended().length === 0, told).catch(() => {});
      expect(ended(), "jobs whose end was not told once").toEqual([]);
    });
  },
  TRIAL_MS,
);

/** What follows when BullMQ does not know that a job has ended, or has lost it. */
const CONSEQUENCES =
  /^(?:Missing (?:lock|key)|Lock mismatch|could not renew lock) for job |^Job .* is not in the active/;

it(
  `BullMQ notices no crash but by UNCERTAIN; no job it was promised is lost ${CASES}`,
  async () => {
    await through("crash", async (application, { doubtClients }) => {
      const { errors } = application;
      const unknown = errors.filter((text) => text.startsWith("UNCERTAIN "));
      const others = errors.filter((text) => !text.startsWith("UNCERTAIN "));
      expect(others.filter((text) => !CONSEQUENCES.test(text))).toEqual([]);
      expect(others.length).toBeLessThanOrEqual(unknown.length + doubtClients);
      // Killed after its word to a client and before that to its replicas, a master takes with it
      // what it said: a job that was added is lost, one that had ended runs again.
      expect(application.lost().length).toBeLessThanOrEqual(doubtClients);
      expect(application.extraRuns()).toBeLessThanOrEqual(unknown.length + doubtClients);
      const { completed, failed } = await application.queue.getJobCounts("completed", "failed");
      expect([completed, failed]).toEqual([application.runs.size, 0]);
    });
  },
  TRIAL_MS,
);

/** What the least of BullMQ's steps takes in the replication stream, bytes: each writes several long keys. */
const LEAST_STEP_BYTES = 100;
/** Jobs that the old master may have taken a step further after the proxy's last look at it (UNSEEN_MS). */
const MOST_UNSEEN = Math.ceil((UNSEEN_MS / 10) * WORKERS);

it(
  `BullMQ notices no second master; jobs suffer by what that acknowledged only ${CASES}`,
  async () => {
    await through("two masters", async (application, { lostBytes }) => {
      const mayLose = Math.floor(lostBytes / LEAST_STEP_BYTES) + MOST_UNSEEN;
      const isKnown = (text: string) => text.startsWith("UNCERTAIN ") || CONSEQUENCES.test(text);
      expect(application.errors.filter((text) => !isKnown(text))).toEqual([]);
      expect(application.uncertain).toEqual(new Map());
      expect(application.lost().length + application.extraRuns()).toBeLessThanOrEqual(mayLose);
    });
  },
  TRIAL_MS,
);
