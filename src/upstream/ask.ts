import { MASTER_READ, OWN_REQUEST } from "../commands/command.ts";
import { encodeRequest } from "../resp/encode.ts";
import { Chunk } from "./chunk.ts";
import type { Lane } from "./lane.ts";
import { Request, type RequestOwner } from "./request.ts";

class Question implements RequestOwner {
  readonly exceptional = false;
  readonly movable = true;
  private readonly answer: (reply: Buffer | null) => void;
  private reply: Buffer | null = null;

  constructor(answer: (reply: Buffer | null) => void) {
    this.answer = answer;
  }

  emit(buf: Buffer, start: number, end: number): void {
    this.reply = Buffer.from(buf.subarray(start, end));
  }

  emitOwned(bytes: Buffer): void {
    this.reply = bytes;
  }

  /** The lane may emit the bytes after it settled the request: the answer waits for the end of the read. */
  settled(): void {
    queueMicrotask(() => this.answer(this.reply));
  }

  intermediate(): void {}

  takesMessage(): boolean {
    return false;
  }

  exception(_request: Request, buf: Buffer, start: number, end: number): boolean {
    this.answer(Buffer.from(buf.subarray(start, end)));
    return false;
  }

  lost(): void {
    this.answer(null);
  }

  refused(_request: Request, error: Buffer): void {
    this.answer(error);
  }

  connectionGone(): void {}
}

/**
 * Asks a node something through a lane, behind what the lane has to do already.
 * @param answer gets the reply's bytes (an error reply included), null when the connection was lost.
 */
export function ask(
  lane: Lane,
  args: readonly (string | Buffer)[],
  answer: (reply: Buffer | null) => void,
): void {
  const bytes = encodeRequest(args);
  const chunk = new Chunk(bytes, false);
  const request = new Request(new Question(answer), OWN_REQUEST, MASTER_READ, chunk, 0, bytes.length, 1);
  lane.pushCopy(request, bytes, 0, bytes.length);
}
