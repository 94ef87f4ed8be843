/** What a session is at this moment, as CLIENT LIST and PROXY CLIENTS tell it. */

import type { PrivateConnection } from "../private-connection.ts";
import type { Blocked, Session } from "../session.ts";
import type { ClientFacts } from "./list.ts";

export function factsOf(session: Session): ClientFacts {
  const { profile, transaction, library, privateConnection } = session;
  const readings = session.readings();
  const { socket, inputBytes, inputRoom, outputBytes } = readings;
  return {
    id: session.id,
    address: joined(socket.remoteAddress, socket.remotePort),
    localAddress: joined(socket.localAddress, socket.localPort),
    name: session.name,
    ageSeconds: secondsSince(session, readings.createdMs),
    idleSeconds: secondsSince(session, readings.activeMs),
    user: profile.identity.username ?? "default",
    db: profile.db,
    protocol: profile.protocol,
    ...subscriptionsOf(session),
    isMonitor: privateConnection.monitor !== null,
    ...trackingOf(privateConnection),
    isBlocked: privateConnection.inBlockingCall || readings.blocked === "client-pause",
    watchLost: privateConnection.watchLost,
    noEvict: session.noEvict,
    noTouch: profile.noTouch,
    queued: transaction?.size ?? -1,
    queuedBytes: transaction?.length ?? 0,
    inputBytes,
    inputRoom,
    outputBytes,
    lastCommand: session.lastCommand,
    libraryName: library?.name ?? "",
    libraryVersion: library?.version ?? "",
  };
}

/** Where the numbers of subscriptions come from. */
function subscriptionsOf(session: Session): Pick<ClientFacts, "channels" | "patterns" | "shards"> {
  return session.messages.subscriptions?.counts ?? { channels: 0, patterns: 0, shards: 0 };
}

function trackingOf({ tracking }: PrivateConnection): Pick<ClientFacts, "isTracking" | "redirect"> {
  return { isTracking: tracking !== null, redirect: tracking === null ? -1 : (tracking.redirectId ?? 0) };
}

function secondsSince(session: Session, atMs: number): number {
  return Math.max(0, Math.floor((session.router.nowMs() - atMs) / 1000));
}

/** "ip:port" as Redis writes it (networking.c, formatAddr); an IPv4 client of an IPv6 listener is one. */
function joined(host: string | undefined, port: number | undefined): string {
  if (host === undefined || port === undefined) return "?:0";
  const ip = host.replace(/^::ffff:(?=\d+\.)/, "");
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** What a client does or waits for, in one word. */
export type ClientState =
  | "idle" // nothing on the way
  | "busy" // requests are on the way
  | "waiting" // for a node that is asked something first, or does not keep up
  | "slow" // it does not take its replies
  | "held" // there is no node for its next request
  | "paused" // CLIENT PAUSE
  | "blocked" // a blocking call
  | "subscribed"
  | "monitor"
  | "leaving"; // it or the proxy ends the connection

export function stateOf(session: Session): ClientState {
  const { blocked } = session.readings();
  if (session.isClosed || session.hasLeft) return "leaving";
  if (blocked === "no" || blocked === "drain" || blocked === "pipeline") return workOf(session);
  return STATES[blocked];
}

function workOf(session: Session): ClientState {
  const { inBlockingCall, monitor } = session.privateConnection;
  if (inBlockingCall) return "blocked";
  if (session.flight.count > 0) return "busy";
  if (monitor !== null) return "monitor";
  return session.messages.isSubscriber ? "subscribed" : "idle";
}

const STATES: Readonly<Record<Exclude<Blocked, "no" | "drain" | "pipeline">, ClientState>> = {
  lane: "waiting",
  output: "slow",
  hold: "held",
  pause: "waiting",
  answer: "waiting",
  "client-pause": "paused",
  proof: "waiting",
};

/** One client for PROXY CLIENTS. */
export type ClientReading = ReturnType<typeof readingOf>;

export function readingOf(session: Session) {
  const facts = factsOf(session);
  const { flight, router } = session;
  const { heldSinceMs } = session.holding;
  return {
    ...facts,
    state: stateOf(session),
    heldMs: heldSinceMs === 0 ? 0 : Math.round(router.nowMs() - heldSinceMs),
    inFlight: flight.count,
    subscriptions: facts.channels + facts.patterns + facts.shards,
    isPrivate: session.privateConnection.lane !== null,
    consistency: session.reading.consistency,
  };
}
