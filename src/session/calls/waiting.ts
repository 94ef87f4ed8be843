/**
 * WAIT and WAITAOF: how many replicas have what this client has written. A server answers for the last write
 * of the connection it is asked on (replication.c, waitCommand), and the client's writes went through others.
 * So a write without effect goes before the question: its offset lies behind all writes that the client was
 * answered.
 */
import { MINUS } from "../../resp/bytes.ts";
import { encodeRequest, type Protocol } from "../../resp/encode.ts";
import type { Rewrite } from "../../upstream/request.ts";
import { BlockingCall } from "./blocking.ts";

/** Where the write without effect goes; it is replicated as every PUBLISH is. */
export const WAIT_CHANNEL = "__holdfast:wait";

/** A write that changes nothing. */
export const MARK = encodeRequest(["PUBLISH", WAIT_CHANNEL, ""]);

/** What is known of the client that asks. */
export interface WaitingClient {
  /** It has written something; if not, there is nothing to mark. */
  readonly hasWritten: boolean;
  /** Its last write may be missing in the history of the master that is now. */
  isWriteInDoubt(): boolean;
  /** The error for a client that may not write the mark. */
  refuseMark(): Buffer;
}

export class WaitCall implements Rewrite {
  readonly replies: number;
  readonly deadlineMs: number | null;
  private readonly call: BlockingCall;
  private readonly client: WaitingClient;
  private readonly isWellFormed: boolean;
  private readonly zero: Buffer;
  private isMarkRefused = false;

  /** @param args the command's name first; copied. */
  constructor(name: string, args: readonly Buffer[], nowMs: () => number, client: WaitingClient) {
    this.call = new BlockingCall(name, args, nowMs);
    this.client = client;
    this.replies = client.hasWritten ? 2 : 1;
    this.deadlineMs = this.call.deadlineMs;
    const numbers = args.slice(1);
    const count = name === "wait" ? 2 : 3;
    this.isWellFormed = numbers.length === count && numbers.every((one) => /^\d{1,9}$/.test(String(one)));
    this.zero = Buffer.from(name === "wait" ? ":0\r\n" : "*2\r\n:0\r\n:0\r\n");
  }

  requestFor(replid: string): Buffer {
    this.isMarkRefused = false;
    const question = this.call.requestFor(replid);
    return this.client.hasWritten ? Buffer.concat([MARK, question]) : question;
  }

  firstRefused(): void {
    this.isMarkRefused = true;
  }

  /** No replica can confirm a write that the master itself may not have. */
  knownReply(): Buffer | null {
    return this.isWellFormed && this.client.isWriteInDoubt() ? this.zero : null;
  }

  replyFor(reply: Buffer): Buffer {
    if (reply[0] === MINUS) return reply;
    if (this.isMarkRefused) return this.client.refuseMark();
    return this.knownReply() ?? reply;
  }

  /** Nobody has confirmed anything. */
  nullReply(_protocol: Protocol): Buffer {
    return this.zero;
  }
}
