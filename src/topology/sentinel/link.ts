/**
 * Two connections to one Sentinel: one for questions, one for its events. As with probes, no error of the
 * client library gets out, no connection is kept whose answer is overdue, and a new object is made for each
 * connection, so that what a dead one still emits reaches nobody.
 */

import { Redis } from "ioredis";
import { addressOf } from "../../config/address.ts";
import type { NodeId } from "../epoch.ts";
import { CHANNELS } from "./answers.ts";
import type { Answer, AskOutcome, LinkEvents, LinkFactory, LinkFailure, SentinelLink } from "./asking.ts";

export interface LinkOptions {
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Null = plain TCP. Texts in PEM form; undefined = the system's authorities, no certificate. */
  readonly tls: LinkTls | null;
  /** For connecting, login included, in ms. */
  readonly connectTimeoutMs: number;
  /** For an answer, in ms. */
  readonly timeoutMs: number;
}

export interface LinkTls {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

const KEEP_ALIVE_MS = 10_000;
const MAX_DETAIL = 200;
const DEAF_FOR = 20;

export function createLinkFactory(options: LinkOptions): LinkFactory {
  return (sentinel, events) => new IoredisLink(sentinel, options, events);
}

/** The login or TLS failed. */
class NoAccess extends Error {}

interface Connection {
  readonly redis: Redis;
  /** Connected and logged in. */
  readonly ready: Promise<void>;
  isReady: boolean;
  closed: boolean;
  /** The error ioredis gave for the failure, which comes apart from the rejected promise. */
  lastError: Error | null;
}

class IoredisLink implements SentinelLink {
  readonly #sentinel: NodeId;
  readonly #options: LinkOptions;
  readonly #events: LinkEvents;
  #questions: Connection | null = null;
  #subscription: Connection | null = null;
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
    const connection = this.#questions ?? this.#dial();
    this.#questions = connection;
    const { connectTimeoutMs, timeoutMs } = this.#options;
    try {
      await this.#inTime(connection, connectTimeoutMs, connection.ready);
      this.#listen();
      const batch = connection.redis.pipeline(calls.map((call) => [...call])).exec();
      const replies = (await this.#inTime(connection, timeoutMs, batch)) ?? [];
      return { ok: true, answers: replies.map(([error, value]) => toAnswer(error, value)) };
    } catch (error) {
      this.#drop(connection);
      // Of a peer that is gone without a word, a connection that only listens would not hear for minutes.
      this.#drop(this.#subscription);
      return this.#explain(connection, error);
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
    const connection = this.#dial();
    this.#subscription = connection;
    connection.redis.on("message", (channel: string, text: string) => {
      if (!this.#closed && this.#subscription === connection) this.#events.onMessage(channel, text);
    });
    const { connectTimeoutMs, timeoutMs } = this.#options;
    const subscribed = this.#inTime(connection, connectTimeoutMs, connection.ready)
      .then(() => this.#inTime(connection, timeoutMs, connection.redis.subscribe(...Object.keys(CHANNELS))))
      .then(() => null);
    subscribed.then(
      () => {
        this.#deaf = null;
      },
      (error: unknown) => {
        if (error instanceof Error && error.name === "ReplyError") {
          this.#deaf = `SUBSCRIBE: ${error.message}`.slice(0, MAX_DETAIL);
          this.#deafFor = DEAF_FOR;
        }
        // Dialled again with the next question.
        this.#drop(connection);
      },
    );
  }

  #dial(): Connection {
    const { tls } = this.#options;
    const redis = new Redis({
      ...addressOf(this.#sentinel),
      ...(tls === null ? {} : { tls: { ...tls } }),
      lazyConnect: true,
      // One connection per object, no queue, no repetition: what fails is reported at once.
      retryStrategy: null,
      enableOfflineQueue: false,
      enableReadyCheck: false,
      autoResubscribe: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      keepAlive: KEEP_ALIVE_MS,
      // Our own timers cover connecting and answering.
      connectTimeout: 0,
      // RESP2, and AUTH and the name are sent by us: ioredis would print warnings about refused passwords.
      protocol: 2,
      disableClientInfo: true,
    });
    const ready = redis.connect().then(() => this.#greet(redis));
    const connection: Connection = { redis, ready, isReady: false, closed: false, lastError: null };
    // Whoever awaits it is told; nobody need.
    ready.then(
      () => {
        connection.isReady = true;
      },
      () => {},
    );
    redis.on("error", (error: unknown) => {
      if (error instanceof Error) connection.lastError ??= error;
    });
    redis.on("end", () => this.#ended(connection));
    return connection;
  }

  async #greet(redis: Redis): Promise<void> {
    const { username, password } = this.#options;
    const name = ["client", "setname", "holdfast-sentinel"];
    const login =
      password === undefined ? [] : [["auth", ...(username === undefined ? [] : [username]), password]];
    const replies = (await redis.pipeline([...login, name]).exec()) ?? [];
    const error = login.length === 0 ? null : replies[0]?.[0];
    if (error == null) return;
    if (error.name !== "ReplyError") throw error;
    // A Sentinel without passwords lets everybody in.
    if (/no password is set|without any password configured/i.test(error.message)) return;
    throw new NoAccess(`AUTH: ${error.message}`);
  }

  #ended(connection: Connection): void {
    connection.closed = true;
    if (this.#closed) return;
    if (connection === this.#subscription) this.#subscription = null;
    if (connection !== this.#questions) return;
    this.#questions = null;
    if (connection.isReady) this.#events.onClosed();
  }

  /** Settles as `promise` does; when that takes too long, the connection is given up. */
  async #inTime<T>(connection: Connection, timeoutMs: number, promise: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const what = connection.isReady ? "no answer" : "no connection";
      // What lies in the socket is read once more before judging: we may have been busy.
      timer = setTimeout(
        () => setImmediate(() => reject(new Error(`${what} within ${timeoutMs} ms`))),
        timeoutMs,
      );
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #explain(connection: Connection, error: unknown): AskOutcome {
    const cause = connection.lastError ?? (error instanceof Error ? error : new Error(String(error)));
    if (error instanceof NoAccess) return failure("no-access", error.message);
    if (isTlsFailure(cause)) return failure("no-access", `TLS: ${reasonOf(cause)}`);
    return failure("unreachable", cause.message);
  }

  #drop(connection: Connection | null): void {
    if (connection === null) return;
    if (this.#questions === connection) this.#questions = null;
    if (this.#subscription === connection) this.#subscription = null;
    if (!connection.closed) connection.redis.disconnect();
    // disconnect() alone waits for the peer to end its side, which a hung one never does.
    connection.redis.stream?.destroy();
  }
}

function toAnswer(error: Error | null, value: unknown): Answer {
  if (error === null) return { ok: true, value };
  // Not the server's word: the connection ended.
  if (error.name !== "ReplyError") throw error;
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
