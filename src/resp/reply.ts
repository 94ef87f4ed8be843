import {
  BANG,
  COLON,
  COMMA,
  CR,
  DOLLAR,
  EQUALS,
  GREATER,
  HASH,
  LF,
  lengthEnd,
  MINUS,
  NEED_MORE,
  PAREN,
  PERCENT,
  PIPE,
  PLUS,
  readLength,
  STAR,
  TILDE,
  UNDERSCORE,
} from "./bytes.ts";

/**
 * Finds the end of a server's reply, RESP2 or RESP3, without decoding it; it goes on where it stopped. No
 * stack is needed for nested replies: it counts the elements still to come.
 */

/** The reply is not complete. */
export const REPLY_INCOMPLETE = -1;
/** What the node sent is no reply. */
export const REPLY_BROKEN = -2;

export class ReplyFramer {
  /** After REPLY_INCOMPLETE: bytes the reply has at least, counted from its start. */
  needed = 0;
  private resumeAt = 0;
  /** Elements still to come; 0 between replies. */
  private remaining = 0;
  /** Stopped inside a line: `resumeAt` is where the search for its end goes on. */
  private inLine = false;
  /** Stopped inside a bulk's body: `resumeAt` is where its closing CRLF will be. */
  private inBody = false;

  /**
   * @returns the end of the reply that starts at `pos`, REPLY_INCOMPLETE (call again with the same reply
   * and more bytes behind it; it may have moved in memory) or REPLY_BROKEN.
   */
  next(buf: Uint8Array, pos: number, end: number): number {
    let p = pos + this.resumeAt;
    let remaining = this.remaining === 0 ? 1 : this.remaining;
    if (this.inBody) {
      if (p + 2 > end) return this.stop(pos, p, remaining, p + 2);
      if (buf[p] !== CR || buf[p + 1] !== LF) return REPLY_BROKEN;
      this.inBody = false;
      p += 2;
      remaining--;
    } else if (this.inLine) {
      const next = lineEnd(buf, p, end);
      if (next < 0) return this.stopInLine(pos, p, remaining, end);
      this.inLine = false;
      p = next;
      remaining--;
    }
    while (remaining > 0) {
      if (p >= end) return this.stop(pos, p, remaining, p + 1);
      const type = buf[p]!;
      if (type === DOLLAR || type === EQUALS || type === BANG) {
        const length = readLength(buf, p + 1, end);
        if (length < -1) return this.badOrMore(length, pos, p, remaining, end);
        const next = length === -1 ? lengthEnd : lengthEnd + length + 2;
        if (next > end) return this.stopInBody(pos, next, remaining);
        if (buf[next - 2] !== CR || buf[next - 1] !== LF) return REPLY_BROKEN;
        p = next;
        remaining--;
      } else if (isLine(type)) {
        const next = lineEnd(buf, p + 1, end);
        if (next < 0) return this.stopInLine(pos, p + 1, remaining, end);
        p = next;
        remaining--;
      } else {
        const perEntry = elementsPerEntry(type);
        if (perEntry === 0) return REPLY_BROKEN;
        const count = readLength(buf, p + 1, end);
        if (count < -1) return this.badOrMore(count, pos, p, remaining, end);
        p = lengthEnd;
        if (count > 0) remaining += count * perEntry;
        // An attribute stands before the reply it speaks of and does not take its place.
        if (type !== PIPE) remaining--;
      }
    }
    this.resumeAt = 0;
    this.remaining = 0;
    return p;
  }

  /**
   * Lets go of bytes that were looked at: the caller has `available` bytes of the reply and wants to keep
   * only what is still needed to find its end.
   *
   * @returns how many bytes at the front are not needed; the reply starts that much later from now on.
   */
  drop(available: number): number {
    const bytes = Math.min(this.resumeAt, available);
    this.resumeAt -= bytes;
    return bytes;
  }

  private stopInBody(pos: number, bulkEnd: number, remaining: number): number {
    this.inBody = true;
    return this.stop(pos, bulkEnd - 2, remaining, bulkEnd);
  }

  /** The last byte may be the CR of the line's end: the search goes on at it. */
  private stopInLine(pos: number, from: number, remaining: number, end: number): number {
    this.inLine = true;
    return this.stop(pos, Math.max(from, end - 1), remaining, end + 1);
  }

  private badOrMore(length: number, pos: number, p: number, remaining: number, end: number): number {
    return length === NEED_MORE ? this.stop(pos, p, remaining, end + 1) : REPLY_BROKEN;
  }

  private stop(pos: number, at: number, remaining: number, neededEnd: number): number {
    this.resumeAt = at - pos;
    this.remaining = remaining;
    this.needed = neededEnd - pos;
    return REPLY_INCOMPLETE;
  }
}

/** The byte behind the CRLF that ends a line, searched from `from` on; -1 when it has not arrived. */
function lineEnd(buf: Uint8Array, from: number, end: number): number {
  for (let p = from; p + 1 < end; p++) if (buf[p] === CR && buf[p + 1] === LF) return p + 2;
  return -1;
}

function isLine(type: number): boolean {
  return (
    type === PLUS ||
    type === COLON ||
    type === MINUS ||
    type === UNDERSCORE ||
    type === COMMA ||
    type === HASH ||
    type === PAREN
  );
}

/** Elements per counted entry of an aggregate; 0 = not an aggregate. */
function elementsPerEntry(type: number): number {
  if (type === STAR || type === TILDE || type === GREATER) return 1;
  return type === PERCENT || type === PIPE ? 2 : 0;
}
