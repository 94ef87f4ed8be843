/**
 * One message to many clients. Messages of one turn are collected, and each client gets those in a row that
 * are for it in one piece: many clients share the bytes, few get a copy that leaves in one write with the
 * rest of what they are told.
 */
import { GREATER } from "../../resp/bytes.ts";
import type { Protocol } from "../../resp/encode.ts";
import type { Turn, Wakeable } from "../../turn.ts";

/** Who gets messages. */
export interface Subscriber {
  readonly protocol: Protocol;
  /** Bytes that are valid during the call only. */
  deliver(buf: Buffer, start: number, end: number): void;
  /** Bytes that nobody will change. */
  deliverShared(bytes: Buffer): void;
  /** The server does not let its user read this any more. */
  accessRevoked(): void;
}

/** From this many bytes over all receivers on, bytes are shared instead of copied. */
const SHARE_BYTES = 64 * 1024;

/** What is collected before it is delivered in the middle of a turn, bytes. */
const STAGE_BYTES = 64 * 1024;

/** Messages in a row that have the same receivers. */
interface Run {
  readonly receivers: ReadonlySet<Subscriber>;
  readonly start: number;
  end: number;
  /** Where its messages begin. */
  readonly marks: number[];
}

export class Fanout implements Wakeable {
  wakeQueued = false;
  private readonly turn: Turn;
  private stage = Buffer.alloc(0);
  private used = 0;
  private runs: Run[] = [];

  constructor(turn: Turn) {
    this.turn = turn;
  }

  /** Takes a copy of one message, a RESP2 array, for these receivers. */
  add(receivers: ReadonlySet<Subscriber>, buf: Buffer, start: number, end: number): void {
    this.ensure(end - start);
    const at = this.used;
    buf.copy(this.stage, at, start, end);
    this.used += end - start;
    const run = this.runs[this.runs.length - 1];
    if (run !== undefined && run.receivers === receivers) {
      run.end = this.used;
      run.marks.push(at);
    } else this.runs.push({ receivers, start: at, end: this.used, marks: [at] });
    this.turn.wakeLater(this);
  }

  private ensure(bytes: number): void {
    if (this.used + bytes <= this.stage.length) return;
    this.wake();
    if (bytes > this.stage.length) this.stage = Buffer.allocUnsafeSlow(Math.max(STAGE_BYTES, bytes));
  }

  /** Delivers what was collected. */
  wake(): void {
    const { runs } = this;
    this.runs = [];
    for (const run of runs) deliver(run, this.stage);
    this.used = 0;
    // A stage that was made for one large message is not kept.
    if (this.stage.length > STAGE_BYTES) this.stage = Buffer.alloc(0);
  }
}

function deliver({ receivers, start, end, marks }: Run, stage: Buffer): void {
  const isShared = receivers.size * (end - start) >= SHARE_BYTES;
  let shared: Buffer | null = null;
  let pushes: Buffer | null = null;
  for (const one of receivers) {
    if (one.protocol === 3) {
      pushes ??= asPushes(stage, start, end, marks);
      if (isShared) one.deliverShared(pushes);
      else one.deliver(pushes, 0, pushes.length);
    } else if (isShared) {
      shared ??= Buffer.from(stage.subarray(start, end));
      one.deliverShared(shared);
    } else one.deliver(stage, start, end);
  }
}

/** The same messages for RESP3: their type is push instead of array, nothing else differs. */
function asPushes(stage: Buffer, start: number, end: number, marks: readonly number[]): Buffer {
  const bytes = Buffer.from(stage.subarray(start, end));
  for (const mark of marks) bytes[mark - start] = GREATER;
  return bytes;
}
