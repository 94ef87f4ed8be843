import type { Flushable, Turn } from "../turn.ts";
import type { Lane } from "./lane.ts";

/**
 * Calls that wait on the server are served there in the order in which they came to it. So they are written
 * in the order in which the clients made them, whichever connection is open first: at their first issue, and
 * over a switch, where all of them are issued again at once on new connections.
 *
 * A connection that is being opened makes those behind it wait until it is open or has failed
 * (`upstream.connectTimeout` at most).
 */
export class Convoy implements Flushable {
  flushQueued = false;
  private nextPlace = 0;
  /** In the order of their places. */
  private readonly line: { readonly lane: Lane; readonly place: number }[] = [];
  private stopped: NodeJS.Timeout | null = null;
  private readonly turn: Turn;
  /** Others, with lower places perhaps, are still to join. */
  private readonly isGathering: () => boolean;

  constructor(turn: Turn, isGathering: () => boolean) {
    this.turn = turn;
    this.isGathering = isGathering;
  }

  /** The place of a call that a client makes now: behind all before it. */
  takePlace(): number {
    return this.nextPlace++;
  }

  /** What the lane takes from now on is written when it is its place's turn. */
  join(lane: Lane, place: number): void {
    if (lane.lined) return;
    lane.lined = true;
    let at = this.line.length;
    while (at > 0 && this.line[at - 1]!.place > place) at--;
    this.line.splice(at, 0, { lane, place });
    this.goOn();
  }

  /** A lane has opened, or has ended. */
  changed(lane: Lane): void {
    if (lane.lined) this.goOn();
  }

  /** Writes nothing for so long: calls with lower places are still to join, all of them then. */
  stopFor(ms: number): void {
    if (this.stopped !== null) clearTimeout(this.stopped);
    this.stopped = setTimeout(() => {
      this.stopped = null;
      this.goOn();
    }, ms);
  }

  private goOn(): void {
    if (this.stopped !== null) return;
    if (!this.flushQueued && this.line.length > 0) this.turn.flushLater(this);
  }

  /** Writes what is at the head of the line and open; what has ended meanwhile leaves the line. */
  flush(): void {
    if (this.stopped !== null) return;
    if (this.isGathering()) return this.goOn();
    let done = 0;
    for (const { lane } of this.line) {
      if (!lane.isOpen && !lane.isClosed) break;
      lane.lined = false;
      lane.flush();
      done++;
    }
    if (done > 0) this.line.splice(0, done);
  }
}
