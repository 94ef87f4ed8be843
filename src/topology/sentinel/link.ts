/**
 * Two connections to one Sentinel: one for questions, one for its events. As with probes, no error of the
 * client library gets out, and no connection is kept whose answer is overdue.
 */

import { Connection, isReplyError, type Login, RefusedLogin, setDeadline, type Tls } from "../dial.ts";
import type { NodeId } from "../epoch.ts";
import { CHANNELS } from "./answers.ts";
import type { Answer, AskOutcome, LinkEvents, LinkFactory, LinkFailure, SentinelLink } from "./asking.ts";

export interface LinkOptions extends Login {
  /** Null = plain TCP. */
  readonly tls: Tls | null;
  /** For connecting, login included, in ms. */
  readonly connectTimeoutMs: number;
  /** For an answer, in ms. */
  readonly timeoutMs: number;
}

/** In CLIENT LIST of the Sentinels. */
const CONNECTION_NAME = "holdfast-sentinel";
const KEEP_ALIVE_MS = 10_000;
const MAX_DETAIL = 200;
const DEAF_FOR = 20;

export function createLinkFactory(options: LinkOptions): LinkFactory {
  return (sentinel, events) => new IoredisLink(sentinel, options, events);
}

interface Line {
  readonly connection: Connection;
  /** Connected and logged in. */
  readonly ready: Promise<void>;
  isReady: boolean;
}

class IoredisLink implements SentinelLink {
  readonly #sentinel: NodeId;
  readonly #options: LinkOptions;
  readonly #events: LinkEvents;
  #questions: Line | null = null;
  #subscription: Line | null = null;
  #deaf: string | null = null;
  /** Questions until a refused subscription is tried again. */
  #deafFor = 0;
  #closed = false;

  constructor(sentinel: NodeId, options: LinkOptions, events: LinkEvents) {
    this.#sentinel = sentinel;
    this.#options = options;
    this.#events = events;
  }

  get deaf(): string | null {
    return this.#deaf;
  }

  async ask(calls: readonly (readonly string[])[]): Promise<AskOutcome> {
    if (this.#closed) return failure("unreachable", "closed");
    const line = this.#questions ?? this.#dial();
    this.#questions = line;
    const { connectTimeoutMs, timeoutMs } = this.#options;
    try {
      await this.#inTime(line, connectTimeoutMs, line.ready);
      this.#listen();
      const batch = line.connection.redis.pipeline(calls.map((call) => [...call])).exec();
      const replies = (await this.#inTime(line, timeoutMs, batch)) ?? [];
      return { ok: true, answers: replies.map(([error, value]) => toAnswer(error, value)) };
    } catch (error) {
      this.#drop(line);
      // Of a peer that is gone without a word, a connection that only listens would not hear for minutes.
      this.#drop(this.#subscription);
      return explain(line.connection, error);
    }
  }

  close(): void {
    this.#closed = true;
    this.#drop(this.#questions);
    this.#drop(this.#subscription);
  }

  /** Events come on a connection of their own, dialled when questions are answered. */
  #listen(): void {
    if (this.#subscription !== null || this.#closed || this.#deafFor-- > 0) return;
    const line = this.#dial();
    this.#subscription = line;
    const { redis } = line.connection;
    redis.on("message", (channel: string, text: string) => {
      if (!this.#closed && this.#subscription === line) this.#events.onMessage(channel, text);
    });
    const { connectTimeoutMs, timeoutMs } = this.#options;
    const subscribed = this.#inTime(line, connectTimeoutMs, line.ready).then(() =>
      this.#inTime(line, timeoutMs, redis.subscribe(...Object.keys(CHANNELS))),
    );
    subscribed.then(
      () => {
        this.#deaf = null;
      },
      (error: unknown) => {
        if (isReplyError(error)) {
          this.#deaf = `SUBSCRIBE: ${error.message}`.slice(0, MAX_DETAIL);
          this.#deafFor = DEAF_FOR;
        }
        // Dialled again with the next question.
        this.#drop(line);
      },
    );
  }

  #dial(): Line {
    const { tls } = this.#options;
    const options = { tls, keepAliveMs: KEEP_ALIVE_MS };
    const connection = new Connection(this.#sentinel, () => this.#onEnd(line), options);
    const line: Line = {
      connection,
      ready: connection.enter(this.#options, CONNECTION_NAME),
      isReady: false,
    };
    // Whoever awaits it is told; nobody need.
    line.ready.then(
      () => {
        line.isReady = true;
      },
      () => {},
    );
    return line;
  }

  #onEnd(line: Line): void {
    if (this.#closed) return;
    if (line === this.#subscription) this.#subscription = null;
    if (line !== this.#questions) return;
    this.#questions = null;
    if (line.isReady) this.#events.onClosed();
  }

  /** Settles as `promise` does, or is rejected when that takes too long. */
  #inTime<T>(line: Line, timeoutMs: number, promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const cancel = setDeadline(timeoutMs, () => {
        const what = line.isReady ? "no answer" : "no connection";
        reject(new Error(`${what} within ${timeoutMs} ms`));
      });
      promise.finally(cancel).then(resolve, reject);
    });
  }

  #drop(line: Line | null): void {
    if (line === null) return;
    if (this.#questions === line) this.#questions = null;
    if (this.#subscription === line) this.#subscription = null;
    line.connection.hangUp();
  }
}

function explain(connection: Connection, error: unknown): AskOutcome {
  if (error instanceof RefusedLogin) return failure("no-access", `AUTH: ${error.message}`);
  const cause = connection.causeOf(error);
  if (isTlsFailure(cause)) return failure("no-access", `TLS: ${reasonOf(cause)}`);
  return failure("unreachable", cause.message);
}

function toAnswer(error: Error | null, value: unknown): Answer {
  if (error === null) return { ok: true, value };
  // Not the server's word: the connection ended.
  if (!isReplyError(error)) throw error;
  return { ok: false, error: error.message.slice(0, MAX_DETAIL) };
}

/** Codes of Node's tls module and of OpenSSL: certificates, names, alerts, plain text instead of TLS. */
function isTlsFailure(error: Error): boolean {
  const code = "code" in error ? String(error.code) : "";
  return /^ERR_(?:SSL|TLS|OSSL)|CERT|^EPROTO$|^UNABLE_TO_|^HOSTNAME_MISMATCH$|SIGNATURE/.test(code);
}

/** OpenSSL's own messages carry file names and numbers around the reason. */
function reasonOf(error: Error): string {
  return "reason" in error && typeof error.reason === "string" ? error.reason : error.message;
}

function failure(kind: LinkFailure, detail: string): AskOutcome {
  return { ok: false, kind, detail: detail.replaceAll(/\s+/g, " ").slice(0, MAX_DETAIL) };
}
