/**
 * A lean client for many operations a second: requests go out in one write, replies are handed over one by
 * one at the moment they arrive. It never connects again.
 */
import net from "node:net";
import RedisParser from "redis-parser";
import { ReplyError } from "../resp.ts";

export type WireReply = string | number | null | ReplyError | readonly WireReply[];

/** What a request gets that was still unanswered when the connection ended. */
export const CUT = new ReplyError("CUT the connection ended");

interface Waiter {
  readonly onReply: (reply: WireReply, index: number, ms: number) => void;
  readonly count: number;
  done: number;
  readonly resolve: () => void;
}

export class Wire {
  /** Why the connection was ended by the other side; empty while it was not. */
  lost = "";
  readonly #socket: net.Socket;
  readonly #waiters: Waiter[] = [];
  #isEnded = false;

  static async connect(port: number): Promise<Wire> {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true });
    const wire = new Wire(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return wire;
  }

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    const parser = new RedisParser({
      returnReply: (reply: unknown) => this.#onReply(replyOf(reply)),
      returnError: (error: Error) => this.#onReply(new ReplyError(error.message)),
      returnFatalError: (error: Error) => this.#end(error.message),
    });
    socket.on("data", (chunk: Buffer) => parser.execute(chunk));
    socket.on("error", (error) => this.#end(error.message));
    socket.on("close", () => this.#end("the connection was closed"));
  }

  get ended(): boolean {
    return this.#isEnded;
  }

  /** Sends all in one write; resolves when each has been answered, or cut off. */
  ask(
    commands: readonly (readonly string[])[],
    onReply: (reply: WireReply, index: number, ms: number) => void,
  ): Promise<void> {
    return new Promise((resolve) => {
      const waiter: Waiter = { onReply, count: commands.length, done: 0, resolve };
      this.#waiters.push(waiter);
      if (this.#isEnded) this.#cut();
      else this.#socket.write(commands.map(encode).join(""), "latin1");
    });
  }

  async one(...command: readonly string[]): Promise<WireReply> {
    let answer: WireReply = null;
    await this.ask([command], (reply) => {
      answer = reply;
    });
    return answer;
  }

  /** Ends it from our side. */
  close(): void {
    this.#isEnded = true;
    this.#socket.destroy();
    this.#cut();
  }

  #onReply(reply: WireReply): void {
    const waiter = this.#waiters[0];
    if (waiter === undefined) throw new Error(`a reply that nobody has asked for: ${JSON.stringify(reply)}`);
    waiter.onReply(reply, waiter.done++, performance.now());
    if (waiter.done < waiter.count) return;
    this.#waiters.shift();
    waiter.resolve();
  }

  #end(reason: string): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.lost = reason;
    this.#socket.destroy();
    this.#cut();
  }

  #cut(): void {
    while (this.#waiters.length > 0) this.#onReply(CUT);
  }
}

function replyOf(reply: unknown): WireReply {
  if (reply === null || typeof reply === "string" || typeof reply === "number") return reply;
  if (Array.isArray(reply)) return reply.map(replyOf);
  if (reply instanceof Error) return new ReplyError(reply.message);
  throw new Error(`a reply of an unknown kind: ${String(reply)}`);
}

/** Arguments are plain ASCII here. */
function encode(command: readonly string[]): string {
  let text = `*${command.length}\r\n`;
  for (const word of command) text += `$${word.length}\r\n${word}\r\n`;
  return text;
}
