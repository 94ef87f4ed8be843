/**
 * Takes requests from a client's bytes: finds them, and copies those that follow each other into the same
 * lane there in one piece, a run. What is not taken is kept, and the client is read no further than it may
 * have waiting.
 */
import type { Socket } from "node:net";
import { type Command, READ, SPECIAL } from "../commands/command.ts";
import type { CommandTable } from "../commands/table.ts";
import { requestArgs, splitInline } from "../resp/args.ts";
import { encodeRequest } from "../resp/encode.ts";
import {
  BROKEN,
  EMPTY,
  FRAME,
  INCOMPLETE,
  type INLINE,
  RequestFramer,
  type RequestLimits,
} from "../resp/request.ts";
import type { Router } from "../routing/router.ts";
import { type Chunk, copyBytes } from "../upstream/chunk.ts";
import { LARGE_BYTES, type Lane } from "../upstream/lane.ts";
import { EVERYTHING, NOTHING, type PlainKind, type Slots } from "../upstream/request.ts";
import type { Flight } from "./flight.ts";
import type { Input } from "./input.ts";
import type { LaneChoice } from "./lane-choice.ts";
import type { Reading } from "./reading.ts";
import { slotsOf } from "./slots.ts";

/** The session that the requests are taken for. */
export interface IntakeHost {
  /** Nothing keeps it from taking the next request. */
  readonly isTaking: boolean;
  /** Whether its plain commands go straight to lanes that are shared; changes only in what is called here. */
  readonly isSharing: boolean;
  /** Name of the command that was taken last. */
  lastCommand: string;
  /** A request is sent, and maybe more of the same run right behind it. */
  onSent(): void;
  /** A whole frame that is large, special, or has no way (null). @returns false when it must wait. */
  takeFrame(
    command: Command,
    lane: Lane | null,
    buf: Buffer,
    start: number,
    end: number,
    owned: boolean,
  ): boolean;
  /** Whether the command that CLIENT REPLY SKIP was meant for is answered. */
  isSkipOver(): boolean;
  /** The stream cannot be read any further. @param problem the error for that. */
  refuseStream(problem: string): false;
}

/** What an intake works with. */
export interface IntakeParts {
  readonly socket: Socket;
  /** Where what is not taken is kept. */
  readonly input: Input;
  readonly flight: Flight;
  readonly reading: Reading;
  readonly lanes: LaneChoice;
  readonly router: Router;
  readonly table: CommandTable;
  readonly limits: RequestLimits;
}

export class Intake {
  private readonly framer: RequestFramer;
  /** The client is not read at the moment. */
  private isPaused = false;
  private readonly host: IntakeHost;
  private readonly socket: Socket;
  private readonly input: Input;
  private readonly flight: Flight;
  private readonly reading: Reading;
  private readonly lanes: LaneChoice;
  private readonly router: Router;
  private readonly table: CommandTable;
  private readonly limits: RequestLimits;

  constructor(host: IntakeHost, parts: IntakeParts) {
    this.host = host;
    this.socket = parts.socket;
    this.input = parts.input;
    this.flight = parts.flight;
    this.reading = parts.reading;
    this.lanes = parts.lanes;
    this.router = parts.router;
    this.table = parts.table;
    this.limits = parts.limits;
    this.framer = new RequestFramer(parts.limits);
  }

  // Keeping

  /** Keeps buf[start, end) for later. */
  keep(buf: Buffer, start: number, end: number): void {
    this.input.append(buf, start, end, this.framer.needed);
  }

  /** The client is read no further. */
  pause(): void {
    if (this.isPaused) return;
    this.isPaused = true;
    this.router.counters.clientsPausedNow++;
    this.socket.pause();
  }

  /** It is read again, if it was not. */
  resume(): void {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.router.counters.clientsPausedNow--;
    if (!this.socket.destroyed) this.socket.resume();
  }

  // Taking

  /**
   * Takes requests from buf[from, end) until it is used up or the session is blocked. The hot path.
   *
   * @param owned nobody else will change the buffer, so that large frames need not be copied.
   * @returns the position behind the last request taken.
   */
  take(buf: Buffer, from: number, end: number, owned: boolean): number {
    const { framer, flight, host, lanes, table } = this;
    let isSharing = host.isSharing;
    let pos = from;
    let runStart = from;
    let run: Lane | null = null;
    let chunk: Chunk | null = null;
    let base = 0;
    let last: Command | null = null;
    let isTaking = host.isTaking;
    while (isTaking && pos < end) {
      const status = framer.next(buf, pos, end);
      if (status === INCOMPLETE) break;
      if (status === FRAME) {
        const frameEnd = framer.end;
        const command = table.lookup(buf, framer.nameStart, framer.nameEnd);
        const isPlain = isSharing && command.kind !== SPECIAL;
        const slots = isPlain ? this.slotsIn(command, buf, pos) : EVERYTHING;
        const lane = isPlain ? lanes.route(command.kind, slots) : null;
        if (lane !== null && frameEnd - pos <= LARGE_BYTES) {
          if (lane !== run || base + frameEnd - runStart > chunk!.buffer.length) {
            if (chunk !== null) copyBytes(buf, runStart, pos, chunk.buffer, base);
            host.onSent();
            run = lane;
            runStart = pos;
            chunk = lane.room(frameEnd - pos);
            base = chunk.used;
          }
          const at = base - runStart;
          flight.launch(command, slots, lane, chunk!, at + pos, at + frameEnd);
          last = command;
          pos = frameEnd;
          continue;
        }
        if (chunk !== null) copyBytes(buf, runStart, pos, chunk.buffer, base);
        run = null;
        chunk = null;
        last = null;
        if (!host.takeFrame(command, lane, buf, pos, frameEnd, owned)) break;
        pos = frameEnd;
      } else {
        if (chunk !== null) copyBytes(buf, runStart, pos, chunk.buffer, base);
        run = null;
        chunk = null;
        last = null;
        if (!this.takeUnusual(status, buf, pos)) break;
        pos = framer.end;
      }
      isTaking = host.isTaking;
      isSharing = host.isSharing;
    }
    if (chunk !== null) copyBytes(buf, runStart, pos, chunk.buffer, base);
    if (last !== null) host.lastCommand = last.name;
    run?.checkCongestion();
    return pos;
  }

  /** What the plain request that the framer has found touches of the data. */
  private slotsIn(command: Command, buf: Buffer, start: number): Slots {
    const { framer, router } = this;
    if (command.kind === READ && !this.reading.isByKey) return EVERYTHING;
    if (!command.singleKey)
      return slotsOf(router, command, command.kind as PlainKind, requestArgs(buf, start));
    return framer.argc > 1 ? router.freshness.slotOf(buf, framer.keyStart, framer.keyEnd) : NOTHING;
  }

  /** Anything but an array of bulk strings. @returns false when it must wait or the stream ended. */
  private takeUnusual(
    status: typeof INLINE | typeof EMPTY | typeof BROKEN,
    buf: Buffer,
    pos: number,
  ): boolean {
    const { host } = this;
    if (status === EMPTY) return true;
    if (status === BROKEN) return host.isSkipOver() && host.refuseStream(this.framer.problem);
    const { end, lineEnd } = this.framer;
    const args = splitInline(buf.subarray(pos, lineEnd));
    if (args === null) return host.refuseStream("ERR Protocol error: unbalanced quotes in request");
    if (args.length === 0) return true;
    const taken = this.takeInline(args);
    this.framer.end = end;
    return taken;
  }

  /** A command that came as one line. */
  private takeInline(args: Buffer[]): boolean {
    const { host } = this;
    const frame = encodeRequest(args);
    const framer = new RequestFramer(this.limits);
    if (framer.next(frame, 0, frame.length) !== FRAME) return host.refuseStream(framer.problem);
    const command = this.table.lookup(frame, framer.nameStart, framer.nameEnd);
    const kind = command.kind as PlainKind;
    const isPlain = host.isSharing && command.kind !== SPECIAL;
    const lane = isPlain ? this.lanes.route(kind, slotsOf(this.router, command, kind, args)) : null;
    return host.takeFrame(command, lane, frame, 0, frame.length, true);
  }
}
