/**
 * A bare socket that decodes nothing: for bytes that are no frames, for sizes at which decoding would measure
 * the test, and for clients that do not read. Beside it: what the kernel says of a process.
 */
import { readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { until, within } from "./wait.ts";

export class ByteSocket {
  readonly socket: net.Socket;
  /** Bytes received. */
  received = 0;
  /** The other side will send nothing more. */
  ended = false;
  closed = false;
  readonly #chunks: Buffer[] = [];
  readonly #onBytes: ((chunk: Buffer) => void) | null;

  /** @param onBytes takes the bytes as they come; without it they are kept for `text` and `bytes`. */
  static async connect(port: number, onBytes: ((chunk: Buffer) => void) | null = null): Promise<ByteSocket> {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
    const made = new ByteSocket(socket, onBytes);
    const connected = new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    await within(connected, 10_000, `connecting to port ${port}`);
    return made;
  }

  private constructor(socket: net.Socket, onBytes: ((chunk: Buffer) => void) | null) {
    this.socket = socket;
    this.#onBytes = onBytes;
    socket.on("data", (chunk: Buffer) => {
      this.received += chunk.length;
      if (this.#onBytes === null) this.#chunks.push(chunk);
      else this.#onBytes(chunk);
    });
    socket.on("end", () => {
      this.ended = true;
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.ended = true;
      this.closed = true;
    });
  }

  /** Resolves when the bytes were handed to the kernel, or the connection is gone. */
  send(bytes: Uint8Array | string): Promise<void> {
    return new Promise((resolve) => {
      this.socket.once("close", resolve);
      this.socket.write(bytes, () => {
        this.socket.off("close", resolve);
        resolve();
      });
    });
  }

  /** FIN: nothing more will be sent, replies are still read. */
  end(): void {
    this.socket.end();
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  text(): string {
    return this.bytes().toString("latin1");
  }

  /** Waits until so many bytes have come; returns all of them as text. */
  async untilReceived(count: number, deadlineMs = 10_000): Promise<string> {
    const what = () => `${count} bytes, got ${this.received}: ${this.text().slice(0, 200)}`;
    try {
      await until(() => this.received >= count || this.ended, { deadlineMs });
    } catch {
      throw new Error(`not within ${deadlineMs} ms: ${what()}`);
    }
    if (this.received < count) throw new Error(`closed before ${what()}`);
    return this.text();
  }

  /** Waits until the other side has ended the connection; returns all it said as text. */
  async untilEnded(deadlineMs = 10_000): Promise<string> {
    await until(() => this.ended, { deadlineMs, what: `the end of the connection after ${this.text()}` });
    return this.text();
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/** Resident memory of a process now and at its highest since `forgetPeak`, bytes. */
export function memoryOf(pid: number): { readonly now: number; readonly peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name: string) => 1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]);
  return { now: field("VmRSS"), peak: field("VmHWM") };
}

/** The highest value is counted anew from here (proc(5), clear_refs). */
export function forgetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

/** Processor time a process has used so far, ms. */
export function processorMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

/** The value below which `share` of the values lie. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
