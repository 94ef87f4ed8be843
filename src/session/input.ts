/**
 * Bytes of a client that could not be taken at once: the rest of a frame that has not arrived whole, or
 * everything behind a request that has to wait. Empty, it holds no memory.
 */

const NOTHING = Buffer.alloc(0);

/** A buffer is at least this large once there is one, bytes. */
const MIN_BYTES = 4 * 1024;

/** Arrival times are kept for this many parts of the hold time, so that there are never more of them. */
const MARKS = 32;

/**
 * From this many bytes on that have arrived, the rest of the frame gets its memory at once: copying a large
 * frame again and again would stop everybody else for tens of milliseconds. Memory that is never written to
 * costs addresses only.
 */
const RESERVE_FROM_BYTES = 1024 * 1024;

/** A buffer for `least` bytes, with room for more of a frame that needs `needed`. */
function allocate(least: number, needed: number): Buffer {
  if (needed <= least) return Buffer.allocUnsafeSlow(least);
  if (least < RESERVE_FROM_BYTES) return Buffer.allocUnsafeSlow(Math.min(2 * least, needed));
  try {
    return Buffer.allocUnsafeSlow(needed);
  } catch {
    return Buffer.allocUnsafeSlow(Math.min(2 * least, needed));
  }
}

interface Mark {
  /** Counted from the client's first byte. */
  readonly position: number;
  readonly atMs: number;
}

export class Input {
  buffer: Buffer = NOTHING;
  /** The bytes not taken yet: buffer[start, end). */
  start = 0;
  end = 0;
  /** A large frame was handed on without a copy: what is in the buffer must not be moved or overwritten. */
  private lent = false;
  /** Bytes of the client that were taken from here so far: the position of `start`. */
  private taken = 0;
  private marks: Mark[] | null = null;

  get isEmpty(): boolean {
    return this.start === this.end;
  }

  get length(): number {
    return this.end - this.start;
  }

  /** @param needed bytes the first frame here has at least, as far as known. */
  append(buf: Buffer, from: number, to: number, needed: number): void {
    const bytes = to - from;
    if (this.end + bytes > this.buffer.length || this.lent) this.grow(bytes, needed);
    buf.copy(this.buffer, this.end, from, to);
    this.end += bytes;
  }

  /** Doubles up to what the frame is known to need; a client's claim alone reserves nothing. */
  private grow(bytes: number, needed: number): void {
    const length = this.length;
    const least = length + bytes;
    const fits = least <= this.buffer.length && this.start >= length;
    if (fits && !this.lent) this.buffer.copyWithin(0, this.start, this.end);
    else {
      const larger = allocate(Math.max(needed > least ? least : least + (least >> 1), MIN_BYTES), needed);
      this.buffer.copy(larger, 0, this.start, this.end);
      this.buffer = larger;
      this.lent = false;
    }
    this.start = 0;
    this.end = length;
  }

  /** A frame in `buf` is handed on without a copy. */
  lend(buf: Buffer): void {
    if (buf === this.buffer) this.lent = true;
  }

  consume(bytes: number): void {
    this.start += bytes;
    this.taken += bytes;
    if (this.start !== this.end) return;
    this.buffer = NOTHING;
    this.start = 0;
    this.end = 0;
    this.lent = false;
    // Nothing waits any more: what comes next has not waited at all.
    this.marks = null;
  }

  clear(): void {
    this.consume(this.length);
    this.marks = null;
  }

  // When what arrived

  /** The position, counted from the client's first byte here, of an offset in the buffer. */
  positionOf(offset: number): number {
    return this.taken + Math.max(0, offset - this.start);
  }

  /** Notes that what is behind the last mark arrived now. */
  mark(atMs: number, maxTimeMs: number): void {
    this.marks ??= [];
    const last = this.marks[this.marks.length - 1];
    if (last !== undefined && atMs - last.atMs < maxTimeMs / MARKS) return;
    // A mark is of no use any more when a later one stands at or before what was taken.
    while (this.marks.length > 1 && this.marks[1]!.position <= this.taken) this.marks.shift();
    this.marks.push({ position: this.taken + this.length, atMs });
  }

  /** When the byte at `position` arrived at the earliest; null when it was here before the first mark. */
  arrivalOf(position: number): number | null {
    let arrival: number | null = null;
    for (const mark of this.marks ?? []) if (mark.position <= position) arrival = mark.atMs;
    return arrival;
  }

  /** The position of the first byte that arrived after `cutoffMs`. */
  firstAfter(cutoffMs: number): number {
    for (const mark of this.marks ?? []) if (mark.atMs > cutoffMs) return mark.position;
    return this.taken + this.length;
  }

  forgetMarks(): void {
    this.marks = null;
  }
}
