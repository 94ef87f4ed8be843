/**
 * A client on a bare socket without any reconnect logic: what it sees is what the server did, and a dropped
 * connection stays dropped and is remembered.
 */
import net from "node:net";
import { type Argument, Decoder, encodeCommand, type Frame, type Push, type Reply } from "./resp.ts";
import { within } from "./wait.ts";

export interface RawClientOptions {
  readonly port: number;
  readonly host?: string;
  /** A reply that takes longer rejects its command; default 60 000 ms. */
  readonly deadlineMs?: number;
  /** 3 sends HELLO 3 first. */
  readonly protocol?: 2 | 3;
}

interface Waiter {
  readonly resolve: (frame: Frame) => void;
  readonly reject: (error: Error) => void;
}

export class RawClient {
  /** The connection was ended or broken by the other side. */
  disconnected = false;
  /** How, in words; empty while it was not. */
  disconnectReason = "";
  /** RESP3 push frames, oldest first. */
  readonly pushes: Push[] = [];
  readonly socket: net.Socket;
  readonly #decoder = new Decoder();
  readonly #deadlineMs: number;
  /** Replies nobody has asked for yet, and those who ask for replies that are not there yet: one is empty. */
  readonly #frames: Frame[] = [];
  readonly #waiters: Waiter[] = [];
  #closedHere = false;
  #ended = false;

  /** Connects; rejects when the connection is refused or not made within the deadline. */
  static async connect(options: RawClientOptions): Promise<RawClient> {
    const socket = net.connect({ port: options.port, host: options.host ?? "127.0.0.1", noDelay: true });
    const client = new RawClient(socket, options.deadlineMs ?? 60_000);
    const connected = new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    try {
      await within(connected, options.deadlineMs ?? 60_000, `connecting to port ${options.port}`);
    } catch (error) {
      client.close();
      throw error;
    }
    if (options.protocol === 3) await client.command("HELLO", 3);
    return client;
  }

  private constructor(socket: net.Socket, deadlineMs: number) {
    this.socket = socket;
    this.#deadlineMs = deadlineMs;
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("end", () => this.#onEnd("the server closed the connection"));
    socket.on("error", (error: Error) => this.#onEnd(error.message));
    socket.on("close", () => this.#onEnd("the connection was closed"));
  }

  /** Sends one command and returns its decoded reply; an error reply is returned, not thrown. */
  async command(...args: Argument[]): Promise<Reply> {
    this.send(encodeCommand(args));
    return this.reply();
  }

  /** As `command`, but the reply's exact bytes. */
  async rawCommand(...args: Argument[]): Promise<Buffer> {
    this.send(encodeCommand(args));
    return (await this.frame()).raw;
  }

  /** Sends all commands in one write and returns their replies in order. */
  async pipeline(commands: readonly (readonly Argument[])[]): Promise<Reply[]> {
    this.send(Buffer.concat(commands.map(encodeCommand)));
    return Promise.all(commands.map(() => this.reply()));
  }

  /** Writes bytes as they are; ask for the replies with `reply`, once for each expected. */
  send(bytes: Uint8Array | string): void {
    this.socket.write(bytes);
  }

  /** The next reply in order. */
  async reply(): Promise<Reply> {
    return (await this.frame()).value;
  }

  /** The next reply in order, with its bytes. */
  frame(): Promise<Frame> {
    const ready = this.#frames.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.#ended) return Promise.reject(new Error(this.disconnectReason || "closed"));
    return new Promise((resolve, reject) => {
      const late = () => reject(new Error(`no reply within ${this.#deadlineMs} ms`));
      const timer = setTimeout(late, this.#deadlineMs);
      this.#waiters.push({
        resolve: (frame) => {
          clearTimeout(timer);
          resolve(frame);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
  }

  /** Replies received that nobody has asked for. */
  get unclaimed(): number {
    return this.#frames.length;
  }

  /** Replies asked for that have not come. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /** Resolves when the server has ended the connection; for tests in which it must. */
  async untilDisconnected(deadlineMs = 10_000): Promise<void> {
    if (this.#ended) return;
    const ended = new Promise<void>((resolve) => this.socket.once("close", () => resolve()));
    await within(ended, deadlineMs, "the server closing the connection");
  }

  /** Ends the connection from our side; not counted as a disconnect. */
  close(): void {
    this.#closedHere = true;
    this.socket.destroy();
    this.#onEnd("closed by the test");
  }

  #onData(chunk: Buffer): void {
    for (const frame of this.#decoder.push(chunk)) {
      if (frame.isPush) this.pushes.push(frame.value as Push);
      else {
        const waiter = this.#waiters.shift();
        if (waiter) waiter.resolve(frame);
        else this.#frames.push(frame);
      }
    }
  }

  #onEnd(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    if (!this.#closedHere) {
      this.disconnected = true;
      this.disconnectReason = reason;
      this.socket.destroy();
    }
    for (const waiter of this.#waiters.splice(0)) waiter.reject(new Error(reason));
  }
}
