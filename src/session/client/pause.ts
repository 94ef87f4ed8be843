/**
 * CLIENT PAUSE: the proxy's clients stop, as a server's own do. Nothing of it goes to the nodes, and it is no
 * hold: what waits here waits by an operator's wish, for as long as that says.
 */
import type { Command } from "../../commands/command.ts";

/** What is stopped, the stricter the greater (server.h, pause_type); 0 = nothing. */
export const NOT_PAUSED = 0;
export const PAUSE_WRITES = 1;
export const PAUSE_ALL = 2;
export type PauseLevel = typeof NOT_PAUSED | typeof PAUSE_WRITES | typeof PAUSE_ALL;

export interface Pause {
  readonly level: PauseLevel;
  /** Monotonic ms. */
  readonly untilMs: number;
}

/** A pause on top of another one: the stricter level and the later end hold (networking.c, pauseClients). */
export function mergedPause(now: Pause, asked: Pause): Pause {
  const { level } = asked.level > now.level ? asked : now;
  return { level, untilMs: Math.max(now.untilMs, asked.untilMs) };
}

/**
 * Whether a pause stops a command that Redis finds nothing wrong with (server.c, processCommand). QUIT is
 * answered as Redis 7.0 does; PROXY is how an operator sees the pause.
 *
 * @param queueReplicates a command of the open transaction writes or may replicate.
 */
export function isStopped(
  level: PauseLevel,
  command: Command,
  args: readonly Buffer[],
  queueReplicates: boolean,
): boolean {
  const { handler } = command;
  switch (level) {
    case NOT_PAUSED:
      return false;
    case PAUSE_WRITES:
      return handler === "exec" ? queueReplicates : mayReplicate(command, args);
    case PAUSE_ALL:
      return handler !== "quit" && handler !== "proxy" && handler !== "forbidden";
  }
}

/** Whether a command writes, or may add to the replication stream in another way. */
export function mayReplicate(command: Command, args: readonly Buffer[]): boolean {
  if (command.mayReplicate) return true;
  if (command.replicating === null) return false;
  return command.replicating.has(args[1]?.toString("latin1", 0, 64).toLowerCase() ?? "");
}

/** A session that waits for the end of the pause. */
export interface Pausable {
  pauseEnded(): void;
}

/** Longest time a timer of Node's can wait, ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export class ClientPause {
  level: PauseLevel = NOT_PAUSED;
  /** Monotonic ms; of no meaning while nothing is paused. */
  untilMs = 0;
  /** In the order in which they were stopped. */
  private readonly waiting = new Set<Pausable>();
  private timer: NodeJS.Timeout | null = null;
  private readonly nowMs: () => number;

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  start(level: PauseLevel, ms: number): void {
    const merged = mergedPause(this, { level, untilMs: this.nowMs() + ms });
    this.level = merged.level;
    this.untilMs = merged.untilMs;
    this.endInTime();
  }

  private endInTime(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    const leftMs = Math.ceil(this.untilMs - this.nowMs());
    if (leftMs <= 0) return this.end();
    this.timer = setTimeout(() => this.endInTime(), Math.min(leftMs, MAX_TIMER_MS));
    this.timer.unref();
  }

  /** Nothing is paused any more; who was stopped goes on, in the order in which it was stopped. */
  end(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    this.level = NOT_PAUSED;
    this.untilMs = 0;
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const session of waiting) session.pauseEnded();
  }

  add(session: Pausable): void {
    this.waiting.add(session);
  }

  remove(session: Pausable): void {
    this.waiting.delete(session);
  }

  /** What is paused and for how long still, ms; null = nothing. */
  state(): { readonly level: "write" | "all"; readonly leftMs: number; readonly waiting: number } | null {
    if (this.level === NOT_PAUSED) return null;
    const level = this.level === PAUSE_ALL ? "all" : "write";
    return { level, leftMs: Math.max(0, this.untilMs - this.nowMs()), waiting: this.waiting.size };
  }
}
