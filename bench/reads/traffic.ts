/** Reads and writes from a process of its own: see traffic.c. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Compiled, compile } from "../support/compile.ts";

const run = promisify(execFile);

const SOURCE = fileURLToPath(new URL("traffic.c", import.meta.url));
/** Beyond the time it sends: to connect, and to get the last replies. */
const SPARE_MS = 20_000;
const FILL_PIPELINE = 64;

export interface Load {
  readonly clients: number;
  /** Requests a client sends at once. */
  readonly pipeline: number;
  /** Requests offered each second (`back`: writes only, their reads follow); 0 = as many as are answered. */
  readonly rate: number;
  readonly writePercent: number;
  readonly keys: number;
  /** Exponent of the Zipf distribution of the keys; 0 = all alike. */
  readonly skew: number;
  /**
   * `mixed`: all at random; `apart`: what is sent at once is of reads or of writes alone; `back`: every write
   * is read back at once, by the client that wrote.
   */
  readonly order: "mixed" | "apart" | "back";
}

/** What the process says in the end. Latencies count from when a request was due. */
export interface Answers {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly reads: number;
  readonly writes: number;
  readonly errors: number;
  /** Reads that showed a value older than a write that had been answered to the same client before. */
  readonly staleOwn: number;
  /** … to any client of the process. */
  readonly staleAny: number;
  readonly readP50Ms: number;
  readonly readP99Ms: number;
  readonly writeP50Ms: number;
  readonly writeP99Ms: number;
}

export class Traffic {
  readonly #compiled: Compiled = compile(SOURCE);

  /** Sends for so long, and waits for the last reply. */
  async run(port: number, load: Load, seconds: number): Promise<Answers> {
    const numbers = [port, load.clients, load.pipeline, load.rate, seconds, load.writePercent];
    const args = [...numbers, load.keys, load.skew].map(String);
    const options = { timeout: seconds * 1000 + SPARE_MS };
    const { stdout } = await run(this.#compiled.program, [...args, load.order], options);
    return JSON.parse(stdout) as Answers;
  }

  /** Sets all keys to the value of no write. */
  async fill(port: number, keys: number): Promise<void> {
    const args = [port, 1, FILL_PIPELINE, 0, 0, 0, keys, 0].map(String);
    await run(this.#compiled.program, [...args, "fill"], { timeout: SPARE_MS });
  }

  close(): void {
    this.#compiled.remove();
  }
}
