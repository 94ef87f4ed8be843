/**
 * What goes back to a client. Replies of one turn are collected in a slab that all clients share and leave
 * in one write per client; the slab is used again as soon as everything in it was taken by the kernel.
 */
import type { Socket } from "node:net";
import type { Counters } from "../metrics.ts";
import type { Flushable, Turn } from "../turn.ts";
import { copyBytes } from "../upstream/chunk.ts";

const SLAB_BYTES = 256 * 1024;

/** A reply of this size or more is not copied through the slab when it has a buffer of its own anyway. */
const SLAB_MAX_REPLY = 32 * 1024;

const NOTHING = Buffer.alloc(0);

export class OutputSlab {
  buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
  used = 0;
  /** Outputs with bytes in it that are not written yet. */
  private writers = 0;
  /** Some socket still holds a piece of it: it must not be written over. */
  private retained = false;

  enter(): void {
    this.writers++;
  }

  /** An output has written its bytes; `retained`: its socket could not pass all of them to the kernel yet. */
  leave(retained: boolean): void {
    this.retained ||= retained;
    if (--this.writers > 0) return;
    if (this.retained) this.buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.retained = false;
    this.used = 0;
  }

  /** Makes room for `bytes`; pieces of the old buffer stay valid where they are. */
  ensure(bytes: number): void {
    if (this.used + bytes <= SLAB_BYTES) return;
    this.buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.used = 0;
  }
}

/** From this size on a piece that waits is kept as it is; smaller ones are put together. */
const KEEP_PIECE = 4 * 1024;

/** Room that is taken for small pieces at a time, bytes: the first, and the largest. */
const FIRST_ROOM = 1024;
const LARGEST_ROOM = 64 * 1024;

/**
 * What waits behind a socket that does not take what it has. Thousands of small pieces would cost far more
 * memory than their bytes, so they are put together.
 */
class Backlog {
  bytes = 0;
  private readonly pieces: Buffer[] = [];
  private room: Buffer = NOTHING;
  private used = 0;

  /** @param isLent the bytes lie in a buffer that others will write over. */
  add(piece: Buffer, isLent: boolean): void {
    this.bytes += piece.length;
    if (piece.length >= KEEP_PIECE) {
      this.closeRoom();
      this.pieces.push(isLent ? Buffer.from(piece) : piece);
      return;
    }
    if (this.used + piece.length > this.room.length) {
      const larger = Math.min(LARGEST_ROOM, Math.max(FIRST_ROOM, 2 * this.room.length));
      this.closeRoom();
      this.room = Buffer.allocUnsafeSlow(Math.max(larger, piece.length));
    }
    piece.copy(this.room, this.used);
    this.used += piece.length;
  }

  private closeRoom(): void {
    if (this.used > 0) this.pieces.push(this.room.subarray(0, this.used));
    this.room = NOTHING;
    this.used = 0;
  }

  take(): readonly Buffer[] {
    this.closeRoom();
    return this.pieces;
  }
}

/** Who looks after a client's output. */
export interface OutputOwner {
  /** The client does not take its replies: more than the limit waits. */
  outputOverflow(): void;
  /** The client took enough of what waited. */
  outputDrained(): void;
}

export interface OutputSettings {
  /** Beyond this the client is cut, bytes: one that asks, and one that has subscribed. */
  readonly maxBytes: number;
  readonly maxSubscriberBytes: number;
  /** Beyond this its requests are not read, bytes. */
  readonly pauseBytes: number;
}

export class Output implements Flushable {
  flushQueued = false;
  /** More waits than `pauseBytes`. */
  congested = false;
  /** The client has subscribed: what it is told comes without its asking. */
  isSubscriber = false;

  private readonly socket: Socket;
  private readonly slab: OutputSlab;
  private readonly turn: Turn;
  private readonly settings: OutputSettings;
  private readonly owner: OutputOwner;
  private readonly counters: Counters;
  /** The piece of the slab being filled; `piece` is the buffer it lies in. */
  private piece: Buffer | null = null;
  private start = 0;
  private end = 0;
  /** Complete pieces before it. */
  private pieces: Buffer[] | null = null;
  private waiting = 0;
  private inSlab = false;
  private awaitingDrain = false;
  private backlog: Backlog | null = null;

  constructor(options: {
    socket: Socket;
    slab: OutputSlab;
    turn: Turn;
    settings: OutputSettings;
    owner: OutputOwner;
    counters: Counters;
  }) {
    this.socket = options.socket;
    this.slab = options.slab;
    this.turn = options.turn;
    this.settings = options.settings;
    this.owner = options.owner;
    this.counters = options.counters;
  }

  /** Copies bytes to be sent. */
  copy(buf: Buffer, start: number, end: number): void {
    const bytes = end - start;
    if (bytes >= SLAB_MAX_REPLY) return this.own(Buffer.from(buf.subarray(start, end)));
    const slab = this.slab;
    if (slab.used + bytes > SLAB_BYTES) slab.ensure(bytes);
    if (!this.inSlab) {
      this.inSlab = true;
      slab.enter();
    }
    if (this.piece !== slab.buffer || this.end !== slab.used) {
      this.closePiece();
      this.piece = slab.buffer;
      this.start = slab.used;
    }
    copyBytes(buf, start, end, slab.buffer, slab.used);
    slab.used += bytes;
    this.end = slab.used;
    this.grow(bytes);
  }

  /** Takes over a buffer to be sent; nobody may change it any more. */
  own(bytes: Buffer): void {
    this.closePiece();
    this.pieces ??= [];
    this.pieces.push(bytes);
    this.grow(bytes.length);
  }

  private grow(bytes: number): void {
    this.waiting += bytes;
    if (!this.flushQueued) this.turn.flushLater(this);
  }

  private closePiece(): void {
    if (this.piece === null) return;
    this.pieces ??= [];
    this.pieces.push(this.piece.subarray(this.start, this.end));
    this.piece = null;
  }

  /** Bytes the client has not taken. */
  get unsentBytes(): number {
    return this.waiting + this.queuedBytes;
  }

  /** What was flushed and has not left. */
  private get queuedBytes(): number {
    return this.socket.writableLength + (this.backlog?.bytes ?? 0);
  }

  flush(): void {
    const { socket } = this;
    const bytes = this.waiting;
    if (bytes === 0) return;
    this.counters.bytesOut += bytes;
    this.waiting = 0;
    if (this.awaitingDrain) this.holdBack();
    else if (!socket.destroyed) {
      if (this.pieces === null && this.piece !== null)
        socket.write(this.piece.subarray(this.start, this.end));
      else this.writePieces();
    }
    this.piece = null;
    this.pieces = null;
    if (this.inSlab) {
      this.inSlab = false;
      this.slab.leave(!this.awaitingDrain && socket.writableLength > 0);
    }
    const unsent = this.queuedBytes;
    if (unsent > 0) this.stillUnsent(unsent);
  }

  private writePieces(): void {
    this.closePiece();
    if (this.pieces !== null) this.write(this.pieces);
  }

  private write(pieces: readonly Buffer[]): void {
    this.socket.cork();
    for (const piece of pieces) this.socket.write(piece);
    this.socket.uncork();
  }

  /** The socket has enough to do: what comes now waits here, where it can be put together. */
  private holdBack(): void {
    this.closePiece();
    this.backlog ??= new Backlog();
    for (const piece of this.pieces ?? []) this.backlog.add(piece, piece.buffer.byteLength === SLAB_BYTES);
  }

  /** The socket has taken what it had. */
  private writeBacklog(): void {
    const { backlog } = this;
    this.backlog = null;
    if (backlog !== null && !this.socket.destroyed) this.write(backlog.take());
  }

  /** Gives everything to the socket: it is to end. */
  finish(): void {
    this.flush();
    this.writeBacklog();
  }

  private stillUnsent(unsent: number): void {
    const { maxBytes, maxSubscriberBytes, pauseBytes } = this.settings;
    if (unsent > (this.isSubscriber ? Math.min(maxBytes, maxSubscriberBytes) : maxBytes)) {
      return this.owner.outputOverflow();
    }
    if (unsent > pauseBytes) this.congested = true;
    if (this.awaitingDrain) return;
    this.awaitingDrain = true;
    this.socket.write(NOTHING, () => {
      this.awaitingDrain = false;
      this.writeBacklog();
      const rest = this.socket.writableLength;
      if (rest > 0) return this.stillUnsent(rest);
      if (!this.congested) return;
      this.congested = false;
      this.owner.outputDrained();
    });
  }
}
