/** A connection whose replies are kept frame by frame, byte for byte, for tests that compare bytes. */
import { ByteSocket } from "./bytes.ts";
import { Decoder, encodeCommand } from "./resp.ts";

/** How long an answer may take, ms. */
const DEADLINE_MS = 3_000;

export class FrameSocket {
  readonly #socket: ByteSocket;
  #frames: string[] = [];
  #onChange: (() => void) | null = null;

  static async connect(port: number, protocol: 2 | 3): Promise<FrameSocket> {
    const decoder = new Decoder();
    let made: FrameSocket | null = null;
    const socket = await ByteSocket.connect(port, (chunk) => {
      const frames = decoder.push(chunk).map((frame) => frame.raw.toString("latin1"));
      made?.onFrames(frames);
    });
    made = new FrameSocket(socket);
    if (protocol === 3) {
      await made.send(encodeCommand(["HELLO", 3]));
      await made.take(1, "HELLO 3");
    }
    return made;
  }

  private constructor(socket: ByteSocket) {
    this.#socket = socket;
    const changed = () => this.#onChange?.();
    socket.socket.on("end", changed).on("close", changed);
  }

  private onFrames(frames: readonly string[]): void {
    this.#frames.push(...frames);
    this.#onChange?.();
  }

  /** The other side will send nothing more. */
  get ended(): boolean {
    return this.#socket.ended;
  }

  /** Frames that nobody has taken. */
  get left(): readonly string[] {
    return this.#frames;
  }

  send(bytes: Uint8Array): Promise<void> {
    return this.#socket.send(bytes);
  }

  /** The next so many frames, as latin1. */
  async take(count: number, what: string): Promise<string[]> {
    await this.#until(() => this.#frames.length >= count || this.ended, `${count} replies to ${what}`);
    if (this.#frames.length < count) {
      throw new Error(`the connection was closed instead of answering ${what}`);
    }
    return this.#frames.splice(0, count);
  }

  /**
   * The frames before the first that ends with `end`, which is taken too; all there are when the other side
   * closes the connection instead.
   */
  async takeUntil(end: string, what: string): Promise<string[]> {
    const find = () => this.#frames.findIndex((frame) => frame.endsWith(end));
    await this.#until(() => find() >= 0 || this.ended, `the end of ${what}`);
    const at = find();
    return at < 0 ? this.#frames.splice(0) : this.#frames.splice(0, at + 1).slice(0, -1);
  }

  async untilEnded(): Promise<void> {
    await this.#socket.untilEnded();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #until(condition: () => boolean, what: string): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#onChange = null;
        reject(new Error(`not within ${DEADLINE_MS} ms: ${what}, got ${JSON.stringify(this.#frames)}`));
      }, DEADLINE_MS);
      this.#onChange = () => {
        if (!condition()) return;
        clearTimeout(timer);
        this.#onChange = null;
        resolve();
      };
    });
  }
}
