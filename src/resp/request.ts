import { BAD_LENGTH, CR, DOLLAR, LF, lengthEnd, NEED_MORE, readLength, STAR } from "./bytes.ts";

/**
 * Finds requests in a client's byte stream without decoding them: arrays of bulk strings (what RESP2 and
 * RESP3 clients send) and inline commands. It can be stopped at any byte and goes on where it stopped, so
 * a large frame that arrives in many pieces is looked at once.
 *
 * It is stricter than Redis in one point: every CRLF is checked. Frames are passed on byte for byte through
 * connections that clients share, so the servers must see the same boundaries as we do.
 */

/** The frame is not complete; `needed` says how many bytes it has at least. */
export const INCOMPLETE = 0;
/** A whole array of bulk strings lies in [pos, end). */
export const FRAME = 1;
/** A whole inline command lies in [pos, lineEnd), its line ends before `end`. */
export const INLINE = 2;
/** Nothing to run (`*0`, a blank line), as Redis ignores it; go on at `end`. */
export const EMPTY = 3;
/** Broken; `problem` says why. The stream cannot be read any further. */
export const BROKEN = 4;

export type FrameStatus = typeof INCOMPLETE | typeof FRAME | typeof INLINE | typeof EMPTY | typeof BROKEN;

/** PROTO_INLINE_MAX_SIZE in Redis's server.h, bytes. */
const MAX_INLINE_BYTES = 64 * 1024;

export interface RequestLimits {
  /** Largest request, bytes, its framing included. */
  readonly maxRequestBytes: number;
  /** Most arguments of a request, its name included. */
  readonly maxRequestArgs: number;
}

export class RequestFramer {
  /** After FRAME, INLINE, EMPTY: the first byte behind the frame. */
  end = 0;
  /** After FRAME: where the command's name lies. */
  nameStart = 0;
  nameEnd = 0;
  /** After FRAME: where the first argument behind the name lies; senseless when there is none. */
  keyStart = 0;
  keyEnd = 0;
  /** After FRAME: arguments including the name, at least 1. */
  argc = 0;
  /** After INLINE: the end of the command without its line end. */
  lineEnd = 0;
  /** After INCOMPLETE: bytes the frame has at least, counted from its start. */
  needed = 0;
  /** After BROKEN: the error text for the client, without the leading "-". */
  problem = "";

  /** Where to go on, counted from the frame's start; 0 between frames. */
  private resumeAt = 0;
  private argsLeft = 0;
  private readonly limits: RequestLimits;

  constructor(limits: RequestLimits) {
    this.limits = limits;
  }

  /**
   * Looks for the frame that starts at `pos`. After INCOMPLETE call again with the same frame and more
   * bytes behind it; the frame may have moved in memory.
   */
  next(buf: Uint8Array, pos: number, end: number): FrameStatus {
    if (this.argsLeft === 0) {
      if (pos >= end) return this.incomplete(0, 1);
      if (buf[pos] !== STAR) return this.inline(buf, pos, end);
      const argc = readLength(buf, pos + 1, end);
      if (argc === NEED_MORE) return this.incomplete(0, end - pos + 1);
      if (argc === BAD_LENGTH) return this.broken("ERR Protocol error: invalid multibulk length");
      if (argc > this.limits.maxRequestArgs) return this.tooManyArgs(argc);
      if (argc <= 0) return this.empty(lengthEnd);
      this.argc = argc;
      this.argsLeft = argc;
      this.resumeAt = lengthEnd - pos;
    }
    return this.args(buf, pos, end);
  }

  /** Forgets a frame begun, to start anew at its first byte. */
  reset(): void {
    this.resumeAt = 0;
    this.argsLeft = 0;
  }

  private args(buf: Uint8Array, pos: number, end: number): FrameStatus {
    let p = pos + this.resumeAt;
    let left = this.argsLeft;
    const limitEnd = pos + this.limits.maxRequestBytes;
    while (left > 0) {
      if (p >= end) return this.stopped(pos, p, left, p + 1);
      if (buf[p] !== DOLLAR) return this.notBulk(buf[p]!);
      const length = readLength(buf, p + 1, end);
      if (length < 0) {
        if (length === NEED_MORE) return this.stopped(pos, p, left, end + 1);
        return this.broken("ERR Protocol error: invalid bulk length");
      }
      const bodyStart = lengthEnd;
      const next = bodyStart + length + 2;
      if (next > limitEnd) return this.tooLarge();
      if (left === this.argc) {
        this.nameStart = bodyStart - pos;
        this.nameEnd = bodyStart - pos + length;
      } else if (left === this.argc - 1) {
        this.keyStart = bodyStart - pos;
        this.keyEnd = bodyStart - pos + length;
      }
      if (next > end) return this.stopped(pos, p, left, next);
      if (buf[next - 2] !== CR || buf[next - 1] !== LF) {
        return this.broken("ERR Protocol error: expected CRLF after bulk string");
      }
      p = next;
      left--;
    }
    this.resumeAt = 0;
    this.argsLeft = 0;
    this.nameStart += pos;
    this.nameEnd += pos;
    this.keyStart += pos;
    this.keyEnd += pos;
    this.end = p;
    return FRAME;
  }

  /** Redis reads an inline command up to the LF and drops a CR before it (networking.c). */
  private inline(buf: Uint8Array, pos: number, end: number): FrameStatus {
    let p = pos + this.resumeAt;
    while (p < end && buf[p] !== LF) p++;
    if (p - pos > MAX_INLINE_BYTES) return this.broken("ERR Protocol error: too big inline request");
    if (p === end) return this.incomplete(end - pos, end - pos + 1);
    this.resumeAt = 0;
    this.end = p + 1;
    this.lineEnd = p > pos && buf[p - 1] === CR ? p - 1 : p;
    return this.lineEnd === pos ? EMPTY : INLINE;
  }

  private stopped(pos: number, at: number, left: number, neededEnd: number): FrameStatus {
    this.argsLeft = left;
    return this.incomplete(at - pos, neededEnd - pos);
  }

  private incomplete(resumeAt: number, needed: number): FrameStatus {
    this.resumeAt = resumeAt;
    this.needed = needed;
    return INCOMPLETE;
  }

  private empty(end: number): FrameStatus {
    this.end = end;
    return EMPTY;
  }

  private broken(problem: string): FrameStatus {
    this.problem = problem;
    return BROKEN;
  }

  private notBulk(byte: number): FrameStatus {
    const shown = byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "?";
    return this.broken(`ERR Protocol error: expected '$', got '${shown}'`);
  }

  private tooManyArgs(argc: number): FrameStatus {
    const most = this.limits.maxRequestArgs;
    return this.broken(`ERR proxy: ${argc} arguments are more than limits.maxRequestArgs (${most})`);
  }

  private tooLarge(): FrameStatus {
    const most = this.limits.maxRequestBytes;
    return this.broken(`ERR proxy: the request is larger than limits.maxRequestBytes (${most} bytes)`);
  }
}
