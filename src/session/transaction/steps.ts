/**
 * Commands inside MULTI that concern the session itself. Two kinds of them: SELECT, AUTH and HELLO go to the
 * server with the rest, and the session follows what the server answered; CLIENT ID and its kin are the
 * proxy's own, they are not sent, and their replies are put into EXEC's where the client expects them. Both
 * happen when the transaction has run, in the order in which the client has queued them; of a transaction
 * that did not run (null, an error) none does.
 */
import { lengthEnd, readLength, STAR } from "../../resp/bytes.ts";
import { encodeNullArray, type Protocol } from "../../resp/encode.ts";
import { ReplyFramer } from "../../resp/reply.ts";
import { unitRefusal } from "../../routing/refusal.ts";
import type { NotRunCause, Rewrite } from "../../upstream/request.ts";

/** One such command. */
export interface Step {
  /** Elements of the server's reply that stand before its own. */
  readonly at: number;
  /** The server answers it too. */
  readonly isSent: boolean;
  /** @param reply the server's, if it is sent, else null. @returns the reply as the client is to see it. */
  readonly run: (reply: Buffer | null) => Buffer;
}

/** The unit of a transaction with such commands, or with scripts, on its way. */
export class StepsCall implements Rewrite {
  readonly deadlineMs = null;
  readonly isBarrier: boolean;
  readonly replies: number;
  private readonly unit: Buffer;
  private readonly elements: number;
  private readonly steps: readonly Step[];
  private readonly mayBeRefused: boolean;

  /**
   * @param unit what is sent. @param replies that the unit gets. @param elements of EXEC's reply.
   * @param steps in the order of the client.
   * @param mayBeRefused a replica may refuse it without a word before EXEC's reply.
   */
  constructor(
    unit: Buffer,
    replies: number,
    elements: number,
    steps: readonly Step[],
    mayBeRefused: boolean,
  ) {
    this.unit = unit;
    this.replies = replies;
    this.elements = elements;
    this.steps = steps;
    this.isBarrier = steps.length > 0;
    this.mayBeRefused = mayBeRefused;
  }

  refusalIn(reply: Buffer): NotRunCause | null {
    return this.mayBeRefused ? unitRefusal(reply) : null;
  }

  requestFor(): Buffer {
    return this.unit;
  }

  nullReply(protocol: Protocol): Buffer {
    return encodeNullArray(protocol);
  }

  replyFor(reply: Buffer): Buffer {
    return runSteps(reply, this.elements, this.steps);
  }
}

/** Runs the steps of a transaction that has run. @returns EXEC's reply with their own in it. */
export function runSteps(reply: Buffer, elements: number, steps: readonly Step[]): Buffer {
  if (reply[0] !== STAR || readLength(reply, 1, reply.length) !== elements) return reply;
  let pos = lengthEnd;
  const framer = new ReplyFramer();
  const added = steps.filter(({ isSent }) => !isSent).length;
  const parts: Buffer[] = [Buffer.from(`*${elements + added}\r\n`)];
  let copied = pos;
  let index = 0;
  for (const step of steps) {
    for (; index < step.at; index++) pos = framer.next(reply, pos, reply.length);
    parts.push(reply.subarray(copied, pos));
    copied = pos;
    if (!step.isSent) {
      parts.push(step.run(null));
      continue;
    }
    pos = framer.next(reply, pos, reply.length);
    index++;
    parts.push(step.run(reply.subarray(copied, pos)));
    copied = pos;
  }
  parts.push(reply.subarray(copied));
  return Buffer.concat(parts);
}
