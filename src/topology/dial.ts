/**
 * How the control plane opens a connection to a node or a Sentinel: one object per connection, so that what a
 * dead one still emits reaches nobody; nothing queued, nothing repeated, what fails is reported at once. The
 * caller has a time-out of its own (`setDeadline`) and hangs up.
 */

import { Redis } from "ioredis";
import { addressOf } from "../config/address.ts";
import { messageOf } from "../errors.ts";
import type { NodeId } from "./epoch.ts";

/** The proxy's own login on the nodes, or on the Sentinels. */
export interface Login {
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

/** Texts in PEM form; undefined = the system's authorities, no certificate. */
export interface Tls {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

interface DialOptions {
  /** Null = plain TCP, the default. */
  readonly tls?: Tls | null;
  /** A connection without traffic is checked so often, in ms; default 30000. */
  readonly keepAliveMs?: number;
}

/** One reply of a pipeline, as ioredis gives it. */
export type PipelineReply = readonly [error: Error | null, result: unknown];

/** The server's error to AUTH, in its words. */
export class RefusedLogin extends Error {}

/** Not connected yet; of no use any more once it ended. It never lets an error of the client library out. */
export class Connection {
  readonly redis: Redis;
  #isConnected = false;
  #isEnded = false;
  #lastError: Error | null = null;

  /** @param onEnd it ended, whatever the reason, or could not be connected. */
  constructor(node: NodeId, onEnd: () => void = () => {}, options: DialOptions = {}) {
    this.redis = dial(node, options);
    this.redis.on("error", (error: unknown) => {
      if (error instanceof Error && error.message !== "") this.#lastError ??= error;
    });
    this.redis.on("end", () => {
      this.#isEnded = true;
      onEnd();
    });
  }

  /** It was connected once, whether or not it has ended since. */
  get isConnected(): boolean {
    return this.#isConnected;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  async connect(): Promise<void> {
    await this.redis.connect();
    this.#isConnected = true;
  }

  /** Connects, logs in and tells its name. Rejects with RefusedLogin, or when the connection failed. */
  async enter(login: Login, name: string): Promise<void> {
    await this.connect();
    const prelude = greeting(login, name);
    const replies = (await this.redis.pipeline(prelude).exec()) ?? [];
    const refused = refusedLogin(prelude, replies);
    if (refused !== null) throw new RefusedLogin(refused);
    for (const [error] of replies) if (error !== null && !isReplyError(error)) throw error;
  }

  /** Why a call failed: ioredis gives the reason apart from the promise that it rejects with `error`. */
  causeOf(error: unknown): Error {
    if (this.#lastError !== null) return this.#lastError;
    return error instanceof Error ? error : new Error(messageOf(error));
  }

  hangUp(): void {
    hangUp(this.redis);
  }
}

/** Not connected yet. The caller listens to "error", for an error nobody listens to is printed. */
function dial(node: NodeId, { tls = null, keepAliveMs = 30_000 }: DialOptions = {}): Redis {
  return new Redis({
    ...addressOf(node),
    ...(tls === null ? {} : { tls: { ...tls } }),
    lazyConnect: true,
    keepAlive: keepAliveMs,
    // One connection per object, no queue, no repetition: what fails is reported at once.
    retryStrategy: null,
    enableOfflineQueue: false,
    enableReadyCheck: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    // The caller's timer covers connecting and answering.
    connectTimeout: 0,
    // RESP2, and AUTH and the name are sent by us: ioredis would print warnings about refused passwords.
    protocol: 2,
    disableClientInfo: true,
  });
}

/** Ends a connection whatever its state. */
function hangUp(redis: Redis): void {
  if (redis.status !== "end") redis.disconnect();
  // disconnect() alone waits for the peer to end its side, which a hung node never does.
  redis.stream?.destroy();
}

/** What a new connection says first: the login, and its name for CLIENT LIST. */
export function greeting({ username, password }: Login, name: string): string[][] {
  const setName = ["client", "SETNAME", name];
  if (password === undefined || password === "") return [setName];
  return [username === undefined ? ["auth", password] : ["auth", username, password], setName];
}

/** The error that AUTH was refused with; null when it was not. */
export function refusedLogin(prelude: readonly string[][], replies: readonly PipelineReply[]): string | null {
  for (const [index, call] of prelude.entries()) {
    const error = replies[index]?.[0];
    if (call[0] !== "auth" || !isReplyError(error)) continue;
    // A server without passwords lets everybody in.
    if (/no password is set|without any password configured/i.test(error.message)) continue;
    return error.message;
  }
  return null;
}

/** An error that the server answered with; any other means that the connection failed. */
export function isReplyError(error: unknown): error is Error {
  return error instanceof Error && error.name === "ReplyError";
}

/**
 * Calls back after `timeoutMs`. The answer may lie in the socket by then, because we were busy: sockets are
 * read once more before that. @returns what cancels it.
 */
export function setDeadline(timeoutMs: number, onLate: () => void): () => void {
  let judging: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    judging = setImmediate(onLate);
  }, timeoutMs);
  return () => {
    clearTimeout(timer);
    clearImmediate(judging);
  };
}
