/** All clients: accepting them, their number, their idle time, and sending them home at the end. */
import type { Socket } from "node:net";
import type { CommandTable } from "../commands/table.ts";
import { Listener, type StreamHandler } from "../net.ts";
import { encodeError } from "../resp/encode.ts";
import type { Router } from "../routing/router.ts";
import { Scripts } from "./calls/scripts.ts";
import { type ClientReading, readingOf } from "./client/facts.ts";
import { ClientPause } from "./client/pause.ts";
import type { SessionContext } from "./context.ts";
import { OutputSlab } from "./output.ts";
import { Hubs } from "./pubsub/hubs.ts";
import { Session } from "./session.ts";

/** How often idle clients are looked for, ms. */
const IDLE_CHECK_MS = 1_000;

/** A connection that is told no and closed. */
const UNWANTED: StreamHandler = { onData() {}, onEnd() {}, onClose() {}, onFault() {} };

export class Clients {
  private readonly listeners: Listener[];
  private readonly sessions = new Map<number, Session>();
  private readonly pause: ClientPause;
  private readonly router: Router;
  private readonly hubs: Hubs;
  private readonly context: SessionContext;
  private nextId = 1;
  private idleTimer: NodeJS.Timeout | null = null;
  private onEmpty: (() => void) | null = null;

  constructor(options: {
    router: Router;
    table: CommandTable;
    admin: SessionContext["admin"];
    infoSection: SessionContext["infoSection"];
    onFault: (error: unknown) => void;
  }) {
    const { router, table, admin, infoSection, onFault } = options;
    const { listen, limits, hold } = router.config;
    this.router = router;
    this.hubs = new Hubs(router);
    this.pause = new ClientPause(router.nowMs);
    this.context = {
      router,
      table,
      scripts: new Scripts(limits.scriptBytes),
      hubs: this.hubs,
      admin,
      infoSection,
      onFault,
      sessions: this.sessions,
      pause: this.pause,
      slab: new OutputSlab(),
      output: {
        maxBytes: limits.outputBufferBytes,
        maxSubscriberBytes: limits.subscriberBufferBytes,
        pauseBytes: limits.maxUnsentBytes,
      },
      limits,
      maxPipeline: limits.maxPipeline,
      maxWaitingBytes: limits.maxUnsentBytes,
      maxHeldBytes: hold.maxBytesPerClient,
      onClose: (session) => this.left(session),
    };
    this.listeners = listen.map((address) => new Listener(address, (socket) => this.accept(socket)));
  }

  /** @returns the ports, in the order of the configuration. */
  async start(): Promise<number[]> {
    const { idleTimeout } = this.router.config.limits;
    if (idleTimeout > 0) this.idleTimer = setInterval(() => this.closeIdle(idleTimeout), IDLE_CHECK_MS);
    return Promise.all(this.listeners.map((listener) => listener.start()));
  }

  private accept(socket: Socket): StreamHandler {
    const { counters, config } = this.router;
    if (this.sessions.size >= config.limits.maxClients) {
      counters.refused++;
      socket.end(encodeError("ERR max number of clients reached"), () => socket.destroy());
      return UNWANTED;
    }
    const session = new Session(this.nextId++, socket, this.context);
    this.sessions.set(session.id, session);
    counters.accepted++;
    counters.clientsNow++;
    return session;
  }

  private left(session: Session): void {
    if (!this.sessions.delete(session.id)) return;
    this.router.counters.clientsNow--;
    if (this.sessions.size === 0) this.onEmpty?.();
  }

  private closeIdle(idleTimeoutMs: number): void {
    const before = this.router.nowMs() - idleTimeoutMs;
    for (const session of this.sessions.values()) if (session.isIdleSince(before)) session.destroy("idle");
  }

  /** The oldest of them, `limit` at most. */
  list(limit: number): ClientReading[] {
    const readings: ClientReading[] = [];
    for (const session of this.sessions.values()) {
      if (readings.length >= limit) break;
      readings.push(readingOf(session));
    }
    return readings;
  }

  /**
   * How many clients were answered a write at or after `sinceMs` (monotonic), and when the last of them was;
   * -Infinity = none.
   */
  writersSince(sinceMs: number): { readonly clients: number; readonly lastMs: number } {
    let clients = 0;
    let lastMs = Number.NEGATIVE_INFINITY;
    for (const { flight } of this.sessions.values()) {
      if (flight.lastWriteMs < sinceMs || flight.lastWriteMs === Number.NEGATIVE_INFINITY) continue;
      clients++;
      lastMs = Math.max(lastMs, flight.lastWriteMs);
    }
    return { clients, lastMs };
  }

  /** What CLIENT PAUSE has stopped; null = nothing. */
  paused(): ReturnType<ClientPause["state"]> {
    return this.pause.state();
  }

  /** Accepts nobody any more, lets every client have its replies, and resolves when all are gone. */
  close(deadlineMs: number): Promise<void> {
    for (const listener of this.listeners) listener.close();
    for (const session of this.sessions.values()) session.drain();
    if (this.sessions.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.destroy(), deadlineMs);
      this.onEmpty = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  destroy(): void {
    if (this.idleTimer !== null) clearInterval(this.idleTimer);
    for (const listener of this.listeners) listener.close();
    for (const session of this.sessions.values()) session.destroy("shutdown");
    this.hubs.destroy();
  }
}
