/**
 * What the watch over the Sentinels asks of a connection to one. Declared apart, so that the watch can be
 * tested without sockets.
 */

import type { NodeId } from "../epoch.ts";

export type LinkFailure =
  | "unreachable" // could not connect, closed, or no answer in time
  | "no-access"; // the login or TLS failed

export type Answer =
  | { readonly ok: true; readonly value: unknown }
  /** An error reply, in the server's words. */
  | { readonly ok: false; readonly error: string };

export type AskOutcome =
  /** One answer for each call. */
  | { readonly ok: true; readonly answers: readonly Answer[] }
  | { readonly ok: false; readonly kind: LinkFailure; readonly detail: string };

export interface LinkEvents {
  /** A message on one of the channels subscribed to. */
  onMessage(channel: string, text: string): void;
  /** The connection ended between two questions. */
  onClosed(): void;
}

export interface SentinelLink {
  /** Connects if need be. Never rejects; a connection whose answer is overdue is given up. */
  ask(calls: readonly (readonly string[])[]): Promise<AskOutcome>;
  /** What SUBSCRIBE was refused with; null while it was not. It is tried again now and then. */
  readonly deaf: string | null;
  close(): void;
}

export type LinkFactory = (sentinel: NodeId, events: LinkEvents) => SentinelLink;
