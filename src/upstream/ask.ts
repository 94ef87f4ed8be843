import { MASTER_READ, OWN_REQUEST } from "../commands/command.ts";
import { encodeRequest } from "../resp/encode.ts";
import { Chunk } from "./chunk.ts";
import type { Lane } from "./lane.ts";
import { Nobody, Request } from "./request.ts";

class Question extends Nobody {
  override readonly exceptional = false;
  override readonly movable = true;
  private readonly answer: (reply: Buffer | null) => void;
  private reply: Buffer | null = null;

  constructor(answer: (reply: Buffer | null) => void) {
    super();
    this.answer = answer;
  }

  override emit(buf: Buffer, start: number, end: number): void {
    this.reply = Buffer.from(buf.subarray(start, end));
  }

  override emitOwned(bytes: Buffer): void {
    this.reply = bytes;
  }

  /** The lane may emit the bytes after it settled the request: the answer waits for the end of the read. */
  override settled(): void {
    queueMicrotask(() => this.answer(this.reply));
  }

  override exception(_request: Request, buf: Buffer, start: number, end: number): boolean {
    this.answer(Buffer.from(buf.subarray(start, end)));
    return false;
  }

  override lost(): void {
    this.answer(null);
  }

  override refused(_request: Request, error: Buffer): void {
    this.answer(error);
  }
}

/**
 * Asks a node something through a lane, behind what the lane has to do already.
 * @param answer gets the reply's bytes (an error reply included), null when the connection was lost.
 * @param confirmations replies it gets if it is not refused as a whole; the last is the answer.
 */
export function ask(
  lane: Lane,
  args: readonly (string | Buffer)[],
  answer: (reply: Buffer | null) => void,
  confirmations = 1,
): void {
  const bytes = encodeRequest(args);
  const chunk = new Chunk(bytes, false);
  const question = new Question(answer);
  const request = new Request(question, OWN_REQUEST, MASTER_READ, chunk, 0, bytes.length, confirmations);
  request.confirmsEach = confirmations > 1;
  lane.pushCopy(request, bytes, 0, bytes.length);
}
