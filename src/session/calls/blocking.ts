/**
 * Calls that wait on the server: BLPOP and its kin, XREAD and XREADGROUP with BLOCK. Over a switch they are
 * issued again with the time that is left of their own time-out.
 */
import { encodeNull, encodeNullArray, encodeRequest, type Protocol } from "../../resp/encode.ts";
import type { Rewrite } from "../../upstream/request.ts";

/** Where a command has its time-out and in which unit: seconds as a decimal fraction, or whole ms. */
interface Timeout {
  readonly index: number;
  readonly unit: "s" | "ms";
}

/** The least time-out sent again; 0 would mean for ever. */
const LEAST_MS = 1;

export class BlockingCall implements Rewrite {
  readonly replies = 1;
  private readonly args: readonly Buffer[];
  private readonly timeout: Timeout | null;
  /** Null: it waits for ever, or its time-out is the server's to refuse. */
  readonly deadlineMs: number | null;
  private readonly name: string;
  private readonly nowMs: () => number;
  private isFirst = true;

  /** @param args the command's name first; copied. */
  constructor(name: string, args: readonly Buffer[], nowMs: () => number) {
    this.args = args.map((arg) => Buffer.from(arg));
    this.nowMs = nowMs;
    this.name = name;
    this.timeout = timeoutOf(name, args);
    const ms = this.timeout === null ? 0 : timeoutMs(args[this.timeout.index], this.timeout.unit);
    this.deadlineMs = ms > 0 ? nowMs() + ms : null;
  }

  requestFor(_replid: string): Buffer {
    const { timeout, deadlineMs } = this;
    if (this.isFirst || timeout === null || deadlineMs === null) {
      this.isFirst = false;
      return encodeRequest(this.args);
    }
    const leftMs = Math.max(LEAST_MS, Math.ceil(deadlineMs - this.nowMs()));
    const args = [...this.args];
    args[timeout.index] = Buffer.from(timeout.unit === "ms" ? String(leftMs) : (leftMs / 1000).toFixed(3));
    return encodeRequest(args);
  }

  /** Those that answer one element answer a null bulk string (t_list.c). */
  nullReply(protocol: Protocol): Buffer {
    const isOne = this.name === "blmove" || this.name === "brpoplpush";
    return isOne ? encodeNull(protocol) : encodeNullArray(protocol);
  }

  replyFor(reply: Buffer): Buffer {
    return reply;
  }
}

function timeoutOf(name: string, args: readonly Buffer[]): Timeout | null {
  switch (name) {
    case "blmpop":
    case "bzmpop":
      return { index: 1, unit: "s" };
    case "wait":
    case "waitaof":
      return { index: args.length - 1, unit: "ms" };
    case "xread":
    case "xreadgroup": {
      const index = blockIndex(args);
      return index < 0 ? null : { index: index + 1, unit: "ms" };
    }
    default:
      return { index: args.length - 1, unit: "s" };
  }
}

/** ms; 0 when it is none, or for ever. */
function timeoutMs(text: Buffer | undefined, unit: "s" | "ms"): number {
  const number = Number(text?.toString("latin1"));
  if (!Number.isFinite(number) || number <= 0) return 0;
  return unit === "s" ? number * 1000 : number;
}

/** Where XREAD's option BLOCK stands; -1 = it does not block. */
export function blockIndex(args: readonly Buffer[]): number {
  for (let i = 1; i < args.length; i++) {
    const arg = args[i]!;
    const word = arg.length <= 8 ? arg.toString("latin1").toUpperCase() : "";
    if (word === "BLOCK") return i;
    if (word === "STREAMS") return -1;
  }
  return -1;
}

/**
 * The streams that XREAD asks from `$` on, "what comes from now": which argument is the key and which the id.
 * `$` must become the id it stands for when the call is issued first, else what is added during a switch
 * would
 * be left out.
 */
export function dollarIds(args: readonly Buffer[]): { readonly key: number; readonly id: number }[] {
  const streams = args.findIndex(
    (arg) => arg.length === 7 && arg.toString("latin1").toUpperCase() === "STREAMS",
  );
  const count = args.length - streams - 1;
  if (streams < 0 || count % 2 !== 0) return [];
  const found: { key: number; id: number }[] = [];
  for (let i = 0; i < count / 2; i++) {
    const id = streams + 1 + count / 2 + i;
    if (args[id]?.toString("latin1") === "$") found.push({ key: streams + 1 + i, id });
  }
  return found;
}

/** The last id of a stream, from the reply to XINFO STREAM; null when the server must say what is wrong. */
export function lastIdOf(reply: Buffer): string | null {
  const text = reply.toString("latin1");
  if (text.startsWith("-ERR no such key")) return "0-0";
  return /\$17\r\nlast-generated-id\r\n\$\d+\r\n(\d+-\d+)\r\n/.exec(text)?.[1] ?? null;
}
