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
    return this.waiting + this.socket.writableLength;
  }

  flush(): void {
    const { socket } = this;
    const bytes = this.waiting;
    if (bytes === 0) return;
    this.counters.bytesOut += bytes;
    this.waiting = 0;
    if (!socket.destroyed) {
      if (this.pieces === null && this.piece !== null)
        socket.write(this.take(this.piece.subarray(this.start, this.end)));
      else this.writePieces();
    }
    this.piece = null;
    this.pieces = null;
    const unsent = socket.writableLength;
    if (this.inSlab) {
      this.inSlab = false;
      this.slab.leave(unsent > 0);
    }
    if (unsent > 0) this.stillUnsent(unsent);
  }

  private writePieces(): void {
    this.closePiece();
    if (this.pieces === null) return;
    const pieces = this.pieces.map((piece) => this.take(piece));
    this.socket.cork();
    for (const piece of pieces) this.socket.write(piece);
    this.socket.uncork();
  }

  /**
   * What joins a queue that is not moving is copied: a small piece would keep the whole slab alive, and the
   * byte limit would lie. What lies elsewhere may be shared with others and is not.
   */
  private take(piece: Buffer): Buffer {
    const isInSlab = piece.buffer.byteLength === SLAB_BYTES && piece.length < SLAB_MAX_REPLY;
    return isInSlab && this.socket.writableLength > 0 ? Buffer.from(piece) : piece;
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
      const rest = this.socket.writableLength;
      if (rest > 0) return this.stillUnsent(rest);
      if (!this.congested) return;
      this.congested = false;
      this.owner.outputDrained();
    });
  }
}
