import { encodeError } from "../resp/encode.ts";
import { REPLY_BROKEN, REPLY_INCOMPLETE, type ReplyFramer } from "../resp/reply.ts";

/**
 * At least this much is taken at a time, so that a reply of many small elements is not looked at byte by
 * byte.
 */
const STEP_BYTES = 16 * 1024;

/**
 * A reply that did not arrive in one read: nothing of it is passed on before it is whole, so that a client
 * never sees half of one server's reply. Larger than the bound, it is read to its end and dropped.
 */
export class PartialReply {
  active = false;
  /** After a complete reply: bytes taken over that belong to the next one. */
  surplus = 0;
  private buffer: Buffer = Buffer.alloc(0);
  private end = 0;
  private tooLarge = false;
  private readonly framer: ReplyFramer;
  private readonly maxBytes: number;

  constructor(framer: ReplyFramer, maxBytes: number) {
    this.framer = framer;
    this.maxBytes = maxBytes;
  }

  /** Begins with what the framer has found incomplete in buf[pos, end). */
  start(buf: Buffer, pos: number, end: number): void {
    this.active = true;
    this.tooLarge = false;
    const size = Math.max(end - pos, Math.min(this.framer.needed, 4 * STEP_BYTES));
    this.buffer = Buffer.allocUnsafeSlow(size);
    buf.copy(this.buffer, 0, pos, end);
    this.end = end - pos;
    this.shed();
  }

  /** Takes over bytes from `pos` on; returns the position behind what was taken. */
  append(buf: Buffer, pos: number, end: number): number {
    const wanted = Math.max(this.framer.needed - this.end, STEP_BYTES);
    const take = Math.min(end - pos, wanted);
    this.ensure(this.end + take);
    buf.copy(this.buffer, this.end, pos, pos + take);
    this.end += take;
    return pos + take;
  }

  /** @returns the whole reply (to be kept by who gets it), null while incomplete. */
  complete(): Buffer | typeof REPLY_BROKEN | null {
    const end = this.framer.next(this.buffer, 0, this.end);
    if (end === REPLY_BROKEN) return REPLY_BROKEN;
    if (end === REPLY_INCOMPLETE) {
      this.shed();
      return null;
    }
    this.surplus = this.end - end;
    if (end > this.maxBytes) this.tooLarge = true;
    const reply = this.tooLarge ? this.refusal() : this.buffer.subarray(0, end);
    this.active = false;
    this.buffer = Buffer.alloc(0);
    return reply;
  }

  /** Grows to what is known to come, at most doubling: a node's claim alone reserves nothing. */
  private ensure(bytes: number): void {
    if (bytes <= this.buffer.length) return;
    const size = Math.max(bytes, Math.min(this.framer.needed, 2 * this.buffer.length));
    const larger = Buffer.allocUnsafeSlow(size);
    this.buffer.copy(larger, 0, 0, this.end);
    this.buffer = larger;
  }

  /** Beyond the bound only what is needed to find the end is kept. */
  private shed(): void {
    if (this.framer.needed > this.maxBytes || this.end > this.maxBytes) this.tooLarge = true;
    if (!this.tooLarge) return;
    const bytes = this.framer.drop(this.end);
    this.buffer.copyWithin(0, bytes, this.end);
    this.end -= bytes;
    this.framer.needed -= bytes;
    if (this.buffer.length > 8 * STEP_BYTES) this.buffer = Buffer.from(this.buffer.subarray(0, this.end));
  }

  private refusal(): Buffer {
    return encodeError(
      `ERR proxy: the command ran, but its reply is larger than limits.outputBufferBytes (${this.maxBytes} bytes)`,
    );
  }
}
