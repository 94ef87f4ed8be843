/**
 * Asks one node for INFO, again and again, over one connection. It must never let an error of the client
 * library out, never keep a connection whose answer is overdue, and never answer twice.
 *
 * What is asked: a run id cannot change behind an open TCP connection, so `INFO replication` (role, history,
 * offsets, link) and `INFO server` (whether it is about to end) are enough as a rule: some two thousand bytes
 * that cost the server microseconds. The first probe of each connection, one per second, and any probe that
 * must clear a suspicion or finds the node loading asks for loading and keys too. These are pipelined INFO
 * calls with one section each, because servers before Redis 7 take only one.
 */

import type { Clock } from "../clock.ts";
import {
  Connection,
  greeting,
  isReplyError,
  type Login,
  type PipelineReply,
  refusedLogin,
  setDeadline,
} from "./dial.ts";
import type { NodeId } from "./epoch.ts";
import type {
  NodeProbe,
  ProbeEvents,
  ProbeFactory,
  ProbeFailureKind,
  ProbeOutcome,
  Told,
} from "./probing.ts";
import { parseReport, type ReportBase } from "./report.ts";

export interface ProbeOptions extends Login {
  /** For connecting and the answer together, in ms. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** Oldest base (run id, loading, keys) that a report of less is completed with, in ms. */
const FULL_EVERY_MS = 1_000;
const FULL_SECTIONS = ["server", "persistence", "keyspace", "replication"] as const;
const BRIEF_SECTIONS = ["server", "replication"] as const;
const MAX_DETAIL = 200;

export function createProbeFactory(options: ProbeOptions): ProbeFactory {
  return (node, events) => new IoredisProbe(node, options, events);
}

/** A connection, and what was learnt over it. */
interface Line {
  readonly connection: Connection;
  base: ReportBase | null;
  /** Monotonic ms of `base`. */
  baseAtMs: number;
}

/** The probe that runs now. */
interface Running {
  readonly startedAtMs: number;
  readonly done: (outcome: ProbeOutcome) => void;
  readonly cancelDeadline: () => void;
}

class IoredisProbe implements NodeProbe {
  readonly #node: NodeId;
  readonly #options: ProbeOptions;
  readonly #events: ProbeEvents;
  #line: Line | null = null;
  #running: Running | null = null;
  /** The running instance whose facts were learnt. */
  #factsOf = "";
  #closed = false;

  constructor(node: NodeId, options: ProbeOptions, events: ProbeEvents) {
    this.#node = node;
    this.#options = options;
    this.#events = events;
  }

  probe(full: boolean, done: (outcome: ProbeOutcome) => void): void {
    if (this.#closed || this.#running !== null) throw new Error("probe() while closed or running");
    const running: Running = {
      startedAtMs: this.#options.clock.nowMs(),
      done,
      cancelDeadline: setDeadline(this.#options.timeoutMs, () => this.#overdue(running)),
    };
    this.#running = running;
    void this.#run(running, full);
  }

  close(): void {
    this.#closed = true;
    this.#running?.cancelDeadline();
    this.#running = null;
    this.#drop();
  }

  async #run(running: Running, full: boolean): Promise<void> {
    const line = this.#line ?? this.#dial();
    const outcome = await this.#attempt(line, running, full);
    // An answer after the time-out belongs to a connection that was given up.
    if (this.#running !== running || this.#line !== line) return;
    if (outcome.ok || keepsConnection(outcome.kind)) this.#settle(running, outcome);
    else this.#fail(running, outcome.kind, outcome.detail);
  }

  async #attempt(line: Line, running: Running, full: boolean): Promise<ProbeOutcome> {
    const { connection } = line;
    try {
      if (!connection.isConnected) await connection.connect();
      return await this.#ask(line, running, full);
    } catch (error) {
      const kind = connection.isConnected ? "closed" : "unreachable";
      return failure(running, kind, connection.causeOf(error).message);
    }
  }

  #dial(): Line {
    const line: Line = {
      connection: new Connection(this.#node, () => this.#onEnd(line)),
      base: null,
      baseAtMs: Number.NEGATIVE_INFINITY,
    };
    this.#line = line;
    return line;
  }

  #onEnd(line: Line): void {
    if (this.#line !== line || this.#closed) return;
    if (this.#running !== null) return; // its promise is rejected and tells
    this.#line = null;
    this.#events.onClosed();
  }

  async #ask(line: Line, running: Running, full: boolean): Promise<ProbeOutcome> {
    const nowMs = this.#options.clock.nowMs();
    const isFirst = line.base === null;
    const isFull = full || isFirst || line.base?.loading === true || nowMs - line.baseAtMs >= FULL_EVERY_MS;
    const prelude = isFirst ? greeting(this.#options, "holdfast-probe") : [];
    const sections = isFull ? FULL_SECTIONS : BRIEF_SECTIONS;
    const calls = [...prelude, ...sections.map((section) => ["info", section])];
    // Taken last before writing: whatever a client was told before this moment is in the report.
    const sentAtMs = this.#options.clock.nowMs();
    const replies = (await line.connection.redis.pipeline(calls).exec()) ?? [];
    const receivedAtMs = this.#options.clock.nowMs();
    const refused = refusedLogin(prelude, replies);
    if (refused !== null) return failure(running, "no-access", refused);
    const texts: string[] = [];
    for (const [error, reply] of replies.slice(prelude.length)) {
      // Not the server's word: the connection ended.
      if (error !== null && !isReplyError(error)) throw error;
      if (error !== null) return failure(running, classifyError(error.message), error.message);
      if (typeof reply !== "string") return failure(running, "nonsense", `INFO answered ${typeof reply}`);
      texts.push(reply);
    }
    const envelope = { node: this.#node, sentAtMs, receivedAtMs };
    const result = parseReport(envelope, texts.join("\n"), isFull ? null : line.base);
    if (!result.ok) return failure(running, "nonsense", result.error);
    if (isFull) {
      const { runId, version, loading, keys, aof } = result.report;
      line.base = { runId, version, loading, keys, aof };
      line.baseAtMs = receivedAtMs;
      if (runId !== this.#factsOf) void this.#learn(line, runId, version);
    }
    return { ok: true, report: result.report };
  }

  /** HELLO and COMMAND, once per running instance; repeated with the next full probe when the node fails. */
  async #learn({ connection }: Line, runId: string, version: string): Promise<void> {
    this.#factsOf = runId;
    const replies = await connection.redis
      .pipeline([["hello"], ["command"]])
      .exec()
      .catch(() => null);
    const [hello, commands] = replies ?? [];
    const isAnswer = (reply: PipelineReply | undefined) => reply?.[0] === null || isReplyError(reply?.[0]);
    if (this.#closed || !isAnswer(hello) || !isAnswer(commands)) {
      if (this.#factsOf === runId) this.#factsOf = "";
      return;
    }
    const facts = readHello(hello?.[0] === null ? hello[1] : null);
    this.#events.onFacts({
      node: this.#node,
      runId,
      server: facts.server,
      version: facts.version ?? version,
      modules: facts.modules,
      commands: commands?.[0] === null ? commands[1] : null,
    });
  }

  #overdue(running: Running): void {
    const what = this.#line?.connection.isConnected === true ? "no answer" : "no connection";
    this.#fail(running, "timeout", `${what} within ${this.#options.timeoutMs} ms`);
  }

  #fail(running: Running, kind: ProbeFailureKind, detail: string): void {
    this.#drop();
    this.#settle(running, failure(running, kind, detail));
  }

  #settle(running: Running, outcome: ProbeOutcome): void {
    running.cancelDeadline();
    this.#running = null;
    // It ended while the last bytes of its answer were read.
    if (this.#line?.connection.isEnded === true) this.#drop();
    running.done(outcome);
  }

  #drop(): void {
    const line = this.#line;
    this.#line = null;
    line?.connection.hangUp();
  }
}

/** Whether the next probe can go on: one that was not let in, or talks nonsense, is dialled anew. */
function keepsConnection(kind: ProbeFailureKind): boolean {
  switch (kind) {
    case "loading":
    case "busy":
      return true;
    case "unreachable":
    case "closed":
    case "timeout":
    case "no-access":
    case "nonsense":
      return false;
  }
}

function failure(running: Running, kind: ProbeFailureKind, detail: string): ProbeOutcome {
  return { ok: false, kind, detail: detail.slice(0, MAX_DETAIL), startedAtMs: running.startedAtMs };
}

function classifyError(message: string): ProbeFailureKind {
  switch (message.split(" ", 1)[0]) {
    case "NOAUTH":
    case "WRONGPASS":
    case "NOPERM":
    case "DENIED": // protected mode
      return "no-access";
    case "LOADING":
      return "loading";
    case "BUSY":
      return "busy";
    default:
      return "nonsense";
  }
}

interface HelloFacts {
  readonly server: string | null;
  readonly version: string | null;
  readonly modules: readonly ReadonlyMap<string, Told>[];
}

/** HELLO in RESP2 is a flat list of names and values; "modules" is a list of such lists. */
function readHello(reply: unknown): HelloFacts {
  const fields = pairs(reply);
  const modules = fields.get("modules");
  return {
    server: textOrNull(fields.get("server")),
    version: textOrNull(fields.get("version")),
    modules: Array.isArray(modules) ? modules.map(moduleOf) : [],
  };
}

function moduleOf(description: unknown): ReadonlyMap<string, Told> {
  const fields = new Map<string, Told>();
  for (const [name, value] of pairs(description)) {
    if (typeof name === "string" && isTold(value)) fields.set(name, value);
  }
  return fields;
}

function isTold(value: unknown): value is Told {
  if (Array.isArray(value)) return value.every(isTold);
  return typeof value === "string" || typeof value === "number";
}

function pairs(reply: unknown): Map<unknown, unknown> {
  const fields = new Map<unknown, unknown>();
  if (!Array.isArray(reply)) return fields;
  for (let i = 0; i + 1 < reply.length; i += 2) fields.set(reply[i], reply[i + 1]);
  return fields;
}

function textOrNull(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}
