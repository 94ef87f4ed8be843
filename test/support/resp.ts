/**
 * A small RESP2/RESP3 encoder and decoder of the tests' own, so that a mistake in the proxy's framing cannot
 * hide behind the same mistake here. Made for clarity, not for speed.
 */

/** An error reply, returned as a value: tests look at it, it is not thrown. */
export class ReplyError extends Error {
  override readonly name = "ReplyError";

  constructor(message: string) {
    super(message);
    // Where it was decoded says nothing about the reply and only fills the test report.
    this.stack = `ReplyError: ${message}`;
  }

  /** The first word: `READONLY`, `UNCERTAIN`, `ERR`, … */
  get word(): string {
    return this.message.split(" ", 1)[0] ?? "";
  }
}

/** A RESP3 push as the client received it: kind first, then its arguments. */
export type Push = readonly Reply[];

export type Reply = string | number | bigint | boolean | null | ReplyError | Reply[] | ReplyMap | Set<Reply>;
export interface ReplyMap extends Map<Reply, Reply> {}

export interface Frame {
  readonly value: Reply;
  /** Exactly the bytes of the frame (with its RESP3 attributes, if it had any). */
  readonly raw: Buffer;
  readonly isPush: boolean;
}

export type Argument = string | number | Uint8Array;

/** A request as an array of bulk strings. */
export function encodeCommand(args: readonly Argument[]): Buffer {
  const parts: Buffer[] = [Buffer.from(`*${args.length}\r\n`)];
  for (const arg of args) {
    const bytes = typeof arg === "object" ? arg : Buffer.from(String(arg));
    parts.push(Buffer.from(`$${bytes.length}\r\n`), Buffer.from(bytes), CRLF);
  }
  return Buffer.concat(parts);
}

/** Turns a stream of bytes into frames. `push` may be called with any split of the stream. */
export class Decoder {
  #bytes = Buffer.allocUnsafe(16_384);
  #start = 0;
  #end = 0;
  /** No whole frame can be there before so many bytes are: spares re-reading a large value at every chunk. */
  #needed = 1;

  /** Bytes received that belong to no whole frame yet. */
  get pending(): number {
    return this.#end - this.#start;
  }

  push(chunk: Uint8Array): Frame[] {
    this.#append(chunk);
    const frames: Frame[] = [];
    while (this.pending >= this.#needed) {
      const cursor = new Cursor(this.#bytes.subarray(this.#start, this.#end));
      try {
        frames.push(this.#readFrame(cursor));
      } catch (error) {
        if (!(error instanceof Incomplete)) throw error;
        this.#needed = Math.max(error.needed, this.pending + 1);
      }
    }
    return frames;
  }

  #readFrame(cursor: Cursor): Frame {
    const isPush = cursor.skipAttributes() === ">";
    const value = readValue(cursor);
    const raw = Buffer.from(cursor.bytes.subarray(0, cursor.position));
    this.#start += cursor.position;
    this.#needed = 1;
    return { value, raw, isPush };
  }

  #append(chunk: Uint8Array): void {
    if (this.#end + chunk.length > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(16_384, 2 * (this.pending + chunk.length)));
      this.#bytes.copy(grown, 0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
      this.#bytes = grown;
    }
    this.#bytes.set(chunk, this.#end);
    this.#end += chunk.length;
  }
}

/** Decodes all frames of `bytes`, which must end with a whole one. */
export function decodeAll(bytes: Uint8Array): Reply[] {
  const decoder = new Decoder();
  const replies = decoder.push(bytes).map((frame) => frame.value);
  if (decoder.pending > 0) throw new Error(`${decoder.pending} bytes left over`);
  return replies;
}

const CRLF = Buffer.from("\r\n");

/** The frame goes on beyond the bytes at hand; `needed` is the least number of bytes it can have. */
class Incomplete extends Error {
  readonly needed: number;

  constructor(needed: number) {
    super("incomplete");
    this.needed = needed;
  }
}

class Cursor {
  readonly bytes: Buffer;
  position = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  line(): string {
    const end = this.bytes.indexOf(CRLF, this.position);
    if (end < 0) throw new Incomplete(this.bytes.length + 1);
    const text = this.bytes.toString("utf8", this.position, end);
    this.position = end + 2;
    return text;
  }

  blob(length: number): string {
    const end = this.position + length;
    if (end + 2 > this.bytes.length) throw new Incomplete(end + 2);
    const text = this.bytes.toString("utf8", this.position, end);
    if (this.bytes[end] !== 13 || this.bytes[end + 1] !== 10) throw new Error("bulk string without CRLF");
    this.position = end + 2;
    return text;
  }

  /** Steps over attributes (`|`) and returns the type byte of what follows. */
  skipAttributes(): string {
    for (;;) {
      if (this.position >= this.bytes.length) throw new Incomplete(this.bytes.length + 1);
      const type = String.fromCharCode(this.bytes[this.position] ?? 0);
      if (type !== "|") return type;
      const pairs = Number(this.line().slice(1));
      for (let i = 0; i < 2 * pairs; i++) readValue(this);
    }
  }
}

function readValue(cursor: Cursor): Reply {
  cursor.skipAttributes();
  const line = cursor.line();
  const rest = line.slice(1);
  switch (line[0]) {
    case "+":
      return rest;
    case "-":
      return new ReplyError(rest);
    case ":":
      return integer(rest);
    case "$":
      return rest === "-1" ? null : cursor.blob(size(rest));
    case "*":
      return rest === "-1" ? null : values(cursor, size(rest));
    case ">":
      return values(cursor, size(rest));
    case "~":
      return new Set(values(cursor, size(rest)));
    case "%":
      return pairs(cursor, size(rest));
    case "_":
      return null;
    case "#":
      return rest === "t";
    case ",":
      return double(rest);
    case "(":
      return BigInt(rest);
    case "=":
      return cursor.blob(size(rest)).slice(4);
    case "!":
      return new ReplyError(cursor.blob(size(rest)));
    default:
      throw new Error(`not a RESP type: ${JSON.stringify(line.slice(0, 40))}`);
  }
}

function values(cursor: Cursor, count: number): Reply[] {
  const list: Reply[] = [];
  for (let i = 0; i < count; i++) list.push(readValue(cursor));
  return list;
}

function pairs(cursor: Cursor, count: number): ReplyMap {
  const map: ReplyMap = new Map();
  for (let i = 0; i < count; i++) map.set(readValue(cursor), readValue(cursor));
  return map;
}

function size(text: string): number {
  if (!/^\d+$/.test(text)) throw new Error(`not a length: ${JSON.stringify(text)}`);
  return Number(text);
}

function integer(text: string): number | bigint {
  if (!/^[+-]?\d+$/.test(text)) throw new Error(`not an integer: ${JSON.stringify(text)}`);
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : BigInt(text);
}

function double(text: string): number {
  if (text === "inf") return Number.POSITIVE_INFINITY;
  if (text === "-inf") return Number.NEGATIVE_INFINITY;
  return Number(text);
}
