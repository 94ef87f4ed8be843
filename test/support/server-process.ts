/** A server in a process and a temporary folder of its own, with its log. */
import type { ChildProcess } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { exited, spawnOwned } from "./children.ts";
import { until, within } from "./wait.ts";

export class ServerProcess {
  readonly #what: () => string;
  #dir = "";
  #child: ChildProcess | undefined;
  #output = "";
  #failure: Error | null = null;

  /** @param what it is, in the words of errors. */
  constructor(what: () => string) {
    this.#what = what;
  }

  /** Empty while there is none: before the first start, and after `close`. */
  get dir(): string {
    return this.#dir;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error("not running");
    return this.#child.pid;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Everything it has written to its log since it was first started. */
  get output(): string {
    return this.#output;
  }

  /** Why the program could not be run; null = it could. */
  get failure(): Error | null {
    return this.#failure;
  }

  async makeDir(name: string): Promise<void> {
    this.#dir = await mkdtemp(path.join(os.tmpdir(), name));
  }

  /** Runs the program in its folder. Whether it serves yet, its log and its answers tell. */
  spawn(program: string, args: readonly string[]): void {
    const child = spawnOwned(program, [...args], { stdio: ["ignore", "pipe", "pipe"], cwd: this.#dir });
    this.#child = child;
    this.#failure = null;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.#output += text;
      });
    }
    child.once("error", (error) => {
      this.#failure = error;
    });
  }

  /** Waits until the process is gone, or stands still for SIGSTOP; SIGCONT returns at once. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.running) throw new Error("not running");
    child.kill(signal);
    if (signal === "SIGCONT") return;
    if (signal === "SIGSTOP") {
      await until(() => isStopped(this.pid), { what: `${this.#what()} standing still` });
      return;
    }
    await within(exited(child), 15_000, `${this.#what()} ending after ${signal}`);
  }

  /** Ends the process if it runs and removes its folder. */
  async close(): Promise<void> {
    if (this.running) await this.kill("SIGKILL");
    if (this.#dir !== "") await rm(this.#dir, { recursive: true, force: true, maxRetries: 3 });
    this.#dir = "";
  }
}

/**
 * Whether the process stands still (SIGSTOP): on a busy machine a signal takes its time. Where the system
 * does not tell, it is taken for done.
 */
export function isStopped(pid: number): boolean {
  const file = `/proc/${pid}/stat`;
  return !existsSync(file) || /\) T /.test(readFileSync(file, "utf8"));
}
