/** A read that was sent to a second node because the first one takes its time. The first answer counts. */

import { READ } from "../commands/command.ts";
import { MINUS } from "../resp/bytes.ts";
import { NO_CHUNK } from "../upstream/chunk.ts";
import { LARGE_BYTES, type Lane } from "../upstream/lane.ts";
import { Nobody, Request } from "../upstream/request.ts";

/** Who waits for the first answer. */
export interface TwinHost {
  /** The second node has answered, and not with an error; the bytes are valid during the call only. */
  answeredBy(twin: Twin, buf: Buffer, start: number, end: number, nowMs: number): void;
}

/** Owns the second request, on a connection of the same profile; what goes wrong there does not matter. */
export class Twin extends Nobody {
  readonly original: Request;
  readonly lane: Lane;
  private host: TwinHost | null;

  /** Sends the request again, through another connection. */
  constructor(original: Request, lane: Lane, host: TwinHost) {
    super();
    this.original = original;
    this.lane = lane;
    this.host = host;
    const { command, chunk, start, end } = original;
    lane.pushCopy(new Request(this, command, READ, NO_CHUNK, 0, 0, 1), chunk.buffer, start, end);
    lane.checkCongestion();
  }

  /** The first node was faster, or is not waited for any more: what the second one answers is dropped. */
  cancel(): void {
    this.host = null;
  }

  override exception(_request: Request, buf: Buffer, start: number, end: number, nowMs: number): boolean {
    const { host } = this;
    this.host = null;
    if (buf[start] !== MINUS) host?.answeredBy(this, buf, start, end, nowMs);
    return false;
  }
}

/** Whether a request can be answered by any node that is fit, as it stands. */
export function canHaveTwin({
  command,
  kind,
  bond,
  rewrite,
  repair,
  replyCount,
  start,
  end,
}: Request): boolean {
  if (kind !== READ || command.handler !== "none" || bond !== "none") return false;
  return rewrite === null && repair === null && replyCount === 1 && end - start <= LARGE_BYTES;
}
