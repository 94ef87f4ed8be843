/** Thousands of subscribers that only count, in processes of their own: see subscribers.c. */
import type { ChildProcess } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import { exited, spawnOwned } from "../../test/support/children.ts";
import { within } from "../../test/support/wait.ts";
import { type Compiled, compile } from "./compile.ts";
import { cpuSeconds, openFilesMost } from "./proc.ts";

const SOURCE = fileURLToPath(new URL("subscribers.c", import.meta.url));
/** Files of a process that are no connection of a subscriber. */
const OTHER_FILES = 50;
/** The kernel gives out about 28,000 ports for each pair of addresses. */
const CONNECTIONS_MOST = 25_000;
const READY_MS_MOST = 120_000;
const ANSWER_MS_MOST = 20_000;

export interface SubscribersOptions {
  readonly port: number;
  readonly count: number;
  readonly channel: string;
  /** Of every message. */
  readonly payloadBytes: number;
}

export interface Received {
  /** Messages, by all subscribers together. */
  readonly messages: number;
  /** Subscribers whose connection was closed by the other side. */
  readonly lost: number;
}

/** Compiles the program; see `compile`. */
export function compileSubscribers(): Compiled {
  return compile(SOURCE);
}

/** One process of subscribers; it answers questions line by line. */
class Process {
  readonly #child: ChildProcess;
  readonly #lines: Interface;
  #stderr = "";

  constructor(program: string, args: readonly string[]) {
    this.#child = spawnOwned(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    const { stdout, stderr } = this.#child;
    if (stdout === null || stderr === null) throw new Error("no pipes to the subscribers");
    this.#lines = createInterface({ input: stdout });
    stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The next line; rejects when the process ends. */
  line(deadlineMs: number, what: string): Promise<string> {
    const next = new Promise<string>((resolve, reject) => {
      this.#lines.once("line", resolve);
      this.#lines.once("close", () => reject(new Error(`the subscribers ended: ${this.#stderr.trim()}`)));
    });
    return within(next, deadlineMs, what).finally(() => this.#lines.removeAllListeners());
  }

  ask(question: string): Promise<string> {
    const answer = this.line(ANSWER_MS_MOST, `the subscribers' answer to "${question}"`);
    this.#child.stdin?.write(`${question}\n`);
    return answer;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    await exited(this.#child);
  }
}

export class Subscribers {
  readonly #processes: readonly Process[];

  /** Resolves when all have subscribed. */
  static async start(program: string, options: SubscribersOptions): Promise<Subscribers> {
    const most = Math.min(CONNECTIONS_MOST, openFilesMost() - OTHER_FILES);
    const processes: Process[] = [];
    const subscribers = new Subscribers(processes);
    try {
      for (let rest = options.count; rest > 0; rest -= most) {
        const source = `127.0.0.${processes.length + 1}`;
        const numbers = [options.port, Math.min(rest, most)].map(String);
        const child = new Process(program, [
          source,
          ...numbers,
          options.channel,
          String(options.payloadBytes),
        ]);
        processes.push(child);
        await child.line(READY_MS_MOST, `${options.count} subscriptions`);
      }
    } catch (error) {
      await subscribers.close();
      throw error;
    }
    return subscribers;
  }

  private constructor(processes: readonly Process[]) {
    this.#processes = processes;
  }

  async received(): Promise<Received> {
    const answers = await Promise.all(this.#processes.map((each) => each.ask("count")));
    const counts = answers.map((answer) => answer.split(" ").map(Number));
    const sum = (column: number) => counts.reduce((total, row) => total + (row[column] ?? 0), 0);
    return { messages: sum(0), lost: sum(1) };
  }

  /**
   * When the last subscriber had the first message, the second, and so on: ms of the clock of `clockMs`; NaN
   * for a message that not all of them have.
   */
  async completedMs(): Promise<number[]> {
    const answers = await Promise.all(this.#processes.map((each) => each.ask("times")));
    const times = answers.map((answer) => answer.split(" ").map(Number));
    const length = Math.min(...times.map((list) => list.length));
    return Array.from({ length }, (_, k) => {
      const each = times.map((list) => list[k] ?? 0);
      return each.includes(0) ? Number.NaN : Math.max(...each) / 1e6;
    });
  }

  get cpuSeconds(): number {
    return this.#processes.reduce((sum, each) => sum + cpuSeconds(each.pid), 0);
  }

  async close(): Promise<void> {
    await Promise.all(this.#processes.map((each) => each.close()));
  }
}

/** The clock all processes of the machine share (CLOCK_MONOTONIC), ms. */
export function clockMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
