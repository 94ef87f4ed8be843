/**
 * How the control plane opens a connection to a node: one object per connection, nothing queued, nothing
 * repeated, what fails is reported at once. The caller has a time-out of its own and hangs up.
 */

import { Redis } from "ioredis";
import { addressOf } from "../config/address.ts";
import type { NodeId } from "./epoch.ts";

/** The proxy's own login on the nodes. */
export interface Login {
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

/** One reply of a pipeline, as ioredis gives it. */
export type PipelineReply = readonly [error: Error | null, result: unknown];

/** Not connected yet. The caller listens to "error", for an error nobody listens to is printed. */
export function dial(node: NodeId): Redis {
  return new Redis({
    ...addressOf(node),
    lazyConnect: true,
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
export function hangUp(redis: Redis): void {
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
    if (call[0] !== "auth" || error?.name !== "ReplyError") continue;
    // A server without passwords lets everybody in.
    if (/no password is set|without any password configured/i.test(error.message)) continue;
    return error.message;
  }
  return null;
}
