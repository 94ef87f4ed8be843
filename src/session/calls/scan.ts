/**
 * Cursors of SCAN, HSCAN, SSCAN and ZSCAN. A cursor only means something to the process that gave it: its
 * order
 * of keys depends on a random seed of its own (dict.c). So each cursor carries a mark of the history it
 * belongs to, and one that comes back after a switch starts the iteration anew: a client may get elements
 * twice, which SCAN allows, but misses none (redis.io, "Scan guarantees").
 *
 * The mark stands in the upper bits; what is left below holds the cursor of any table of up to 2^48 slots.
 * The sum stays below 2^63, for clients that read a signed number.
 */

import { CR, DOLLAR, lengthEnd, readLength, STAR } from "../../resp/bytes.ts";
import { encodeNullArray, encodeRequest, type Protocol } from "../../resp/encode.ts";
import type { Rewrite } from "../../upstream/request.ts";

const CURSOR_BITS = 48n;
const CURSOR_MASK = (1n << CURSOR_BITS) - 1n;
const MARKS = 0x7fff;

/** One call of the SCAN family on its way. */
export class ScanCall implements Rewrite {
  readonly replies = 1;
  private readonly args: readonly Buffer[];
  private readonly index: number;
  private mark = 0;

  /** @param args the command's name first; copied. */
  constructor(args: readonly Buffer[]) {
    this.args = args.map((arg) => Buffer.from(arg));
    this.index = args[0]?.length === "scan".length ? 1 : 2;
  }

  requestFor(replid: string): Buffer {
    this.mark = markOf(replid);
    const args = [...this.args];
    const cursor = args[this.index];
    if (cursor !== undefined) args[this.index] = cursorForServer(cursor, this.mark);
    return encodeRequest(args);
  }

  readonly deadlineMs = null;

  nullReply(protocol: Protocol): Buffer {
    return encodeNullArray(protocol);
  }

  replyFor(reply: Buffer): Buffer {
    return replyForClient(reply, this.mark);
  }
}

/** The mark of a history, 1 to 32767; the same in every proxy. */
export function markOf(replid: string): number {
  return (Number.parseInt(`0${replid.slice(0, 8)}`, 16) % MARKS) + 1;
}

/**
 * What to send for a cursor that a client sent: the server's own, or 0 when it belongs to another history.
 * What is no cursor of ours is passed on as it is; the server says what is wrong with it.
 */
export function cursorForServer(cursor: Buffer, mark: number): Buffer {
  if (cursor.length > 19 || !isDecimal(cursor)) return cursor;
  const value = BigInt(cursor.toString("latin1"));
  const given = Number(value >> CURSOR_BITS);
  if (given === 0) return cursor;
  return Buffer.from(given === mark ? String(value & CURSOR_MASK) : "0");
}

/** A reply of the SCAN family with the mark put into its cursor; any other reply as it is. */
export function replyForClient(reply: Buffer, mark: number): Buffer {
  if (reply[0] !== STAR || readLength(reply, 1, reply.length) !== 2) return reply;
  const head = lengthEnd;
  if (reply[head] !== DOLLAR) return reply;
  const length = readLength(reply, head + 1, reply.length);
  const start = lengthEnd;
  const digits = reply.subarray(start, start + length);
  if (length < 1 || reply[start + length] !== CR || !isDecimal(digits)) return reply;
  const value = BigInt(digits.toString("latin1"));
  // 0 ends the iteration; a cursor that needs all its bits goes without a mark.
  if (value === 0n || value > CURSOR_MASK) return reply;
  const marked = String(value | (BigInt(mark) << CURSOR_BITS));
  const front = Buffer.from(`*2\r\n$${marked.length}\r\n${marked}`);
  return Buffer.concat([front, reply.subarray(start + length)]);
}

function isDecimal(text: Buffer): boolean {
  return text.length > 0 && text.every((byte) => byte >= 48 && byte <= 57);
}
