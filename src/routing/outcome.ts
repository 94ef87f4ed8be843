/**
 * PURE. What becomes of a request that something happened to: one total function of what it is, what
 * happened and what the configuration says of doubts. Nothing in it is a guess: a request is sent again
 * without being asked to (`inFlight.onUnknown`) only when it provably did not run, or cannot matter (law
 * 4).
 */
import type { Config } from "../config/schema.ts";

/** What a request is, as far as a second run of it matters. */
export const REQUEST_CLASSES = [
  "read", // no effect
  "idempotent", // a write, or a transaction of such, that leaves the same behind when it runs twice
  "write", // any other write
  "publish",
  "transaction", // MULTI … EXEC as one unit
  "script", // may write
  "call", // may wait on the server, and was just sent: it may have been answered at once
  "waiting-call", // has waited on the server for long enough to be answered, had there been anything for it
  "watch", // WATCH itself
  "watched", // EXEC of watched keys: only where they are watched
  "node", // meant for this node as it is now: FAILOVER, SHUTDOWN, …
] as const;
export type RequestClass = (typeof REQUEST_CLASSES)[number];

/** What may happen to a request. */
export const REQUEST_EVENTS = [
  // Refused: the server's word that it did not run.
  "not-master",
  "loading",
  "link-down",
  "no-replicas", // NOREPLICAS, while a new master's replicas find it
  "refused-too-often", // the nodes do not agree with us; also NOREPLICAS at any other time
  "login", // the connection that it waited for was not let in
  // Its connection was lost.
  "unsent", // before any byte of it was handed to the socket
  "shut-down", // when its node had stopped writing in order to end: what was not answered did not run
  "lost", // any other way: crashed, cut, given up; on a former master also: not answered in time
  "lost-too-often",
  // It waits to be sent again although it may have run, and a master is verified.
  "another-master", // or the same node with another history: who may have run it is not the master
  "same-master", // nothing can still come through the connection that was lost
  "same-master-open", // something might
  // It waited for too long (hold.maxTime), or the proxy shuts down.
  "given-up",
] as const;
export type RequestEvent = (typeof REQUEST_EVENTS)[number];

export type Outcome =
  | "again" // sent again as soon as there is a way
  | "again-though-it-may-have-run" // the same, once a master is verified: see the events for that
  | "uncertain" // answered UNCERTAIN
  | "error" // answered with an error that says: not run
  | "null" // answered null, as if a watched key had changed
  | "unwatched"; // answered OK; the next EXEC is null

export type OnUnknown = Config["inFlight"]["onUnknown"];

/**
 * @param mayHaveRun it was lost before and sent again: what is known of this run says nothing of that one.
 */
export function outcomeOf(
  what: RequestClass,
  event: RequestEvent,
  policy: OnUnknown,
  mayHaveRun: boolean,
): Outcome {
  const outcome = outcomeOfRun(what, event, policy);
  const saysNotRun = outcome === "error" || outcome === "null";
  return mayHaveRun && what !== "read" && saysNotRun ? "uncertain" : outcome;
}

function outcomeOfRun(what: RequestClass, event: RequestEvent, policy: OnUnknown): Outcome {
  switch (event) {
    case "not-master":
    case "loading":
    case "link-down":
    case "no-replicas":
    case "unsent":
      return notRun(what);
    // What ends the node may be the request itself.
    case "shut-down":
      return what === "node" ? "uncertain" : notRun(what);
    case "refused-too-often":
    case "login":
    case "given-up":
      return "error";
    case "lost":
      return lost(what, policy);
    case "lost-too-often":
      return what === "read" || what === "watch" ? "error" : "uncertain";
    case "another-master":
    case "same-master":
      return what === "watched" || what === "node" ? "uncertain" : notRun(what);
    case "same-master-open":
      return what === "read" || what === "watch" ? notRun(what) : "uncertain";
  }
}

function notRun(what: RequestClass): Outcome {
  switch (what) {
    case "read":
    case "idempotent":
    case "write":
    case "publish":
    case "transaction":
    case "script":
    case "call":
    case "waiting-call":
      return "again";
    // The keys are not watched any more: legal as long as the next EXEC answers null.
    case "watch":
      return "unwatched";
    case "watched":
      return "null";
    case "node":
      return "error";
  }
}

/** Sent, and the connection ended without an answer. */
function lost(what: RequestClass, policy: OnUnknown): Outcome {
  switch (what) {
    case "read":
      return "again";
    case "watch":
      return "unwatched";
    // It had not run. What it may have popped at the very instant of the crash is lost with the connection
    // either way.
    case "waiting-call":
      return "again";
    case "idempotent":
      return policy === "error" ? "uncertain" : "again-though-it-may-have-run";
    case "write":
    case "publish":
    case "transaction":
    case "script":
    case "call":
      return policy === "retry-all" ? "again-though-it-may-have-run" : "uncertain";
    // Without its watch it is another transaction.
    case "watched":
    case "node":
      return "uncertain";
  }
}
