/**
 * The users of a library for another language: a program that says what they are told, one line of JSON each.
 */
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { exited, spawnOwned } from "../../support/children.ts";
import { until } from "../../support/wait.ts";
import { Book, type Outcome, PATIENCE_MS } from "./book.ts";
import type { Users } from "./trial.ts";

/** A line; numbers may come as texts. */
interface Line {
  readonly step: string;
  readonly outcome?: Outcome;
  readonly key?: string;
  readonly job?: string;
  readonly number?: number | string;
  readonly missed?: number;
  readonly who?: string;
  readonly text?: string;
}

export class Program implements Users {
  readonly name: string;
  readonly book = new Book();
  readonly incidents: string[] = [];
  readonly list: string;
  readonly #child: ChildProcess;
  #hasStopped = false;
  #isOver = false;

  /** @param command is given the port and the name that stands before all keys. */
  constructor(command: readonly string[], port: number, name: string) {
    // hiredis splits a command at its spaces.
    this.name = name.replaceAll(" ", "-");
    this.list = `${this.name}:jobs`;
    const [program, ...args] = command as [string, ...string[]];
    const stdio = ["pipe", "pipe", "pipe"] as const;
    this.#child = spawnOwned(program, [...args, String(port), this.name], { stdio: [...stdio] });
    createInterface({ input: this.#child.stdout! }).on("line", (line) => this.#onLine(line));
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => this.incidents.push(text));
    this.#child.once("exit", (code, signal) => {
      if (!this.#isOver) this.incidents.push(`ended with ${code ?? signal}`);
    });
  }

  async stopProducing(): Promise<void> {
    this.#child.stdin!.write("stop\n");
    const what = `${this.name} having stopped: ${this.incidents}`;
    await until(() => this.#hasStopped, { deadlineMs: PATIENCE_MS, what });
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill("SIGKILL");
    await exited(this.#child);
  }

  #onLine(text: string): void {
    if (this.#isOver) return;
    let line: Line;
    try {
      line = JSON.parse(text) as Line;
    } catch {
      this.book.fault(`not a line of JSON: ${text}`);
      return;
    }
    this.#write(line);
  }

  #write({ step, outcome = "acked", key = "", job = "", number, missed, who = "", text = "" }: Line): void {
    switch (step) {
      case "counter":
      case "script":
      case "transaction":
        return this.book.counted(step, key, outcome);
      case "push":
        return this.book.pushed(job, outcome);
      case "pop":
        return this.book.popped(job);
      case "published":
        return outcome === "acked" ? this.book.published(Number(number)) : undefined;
      case "message":
        return this.book.received(Number(number));
      case "scan":
        return this.book.scanned(missed ?? Number.NaN);
      case "aborted":
        this.book.aborted++;
        return;
      case "missed":
        this.book.missedOwn.push(text);
        return;
      case "error":
        this.book.isUncertain(who === "popper" ? "consumer" : who, text);
        return;
      case "incident":
        this.incidents.push(`${who} ${text}`.trim());
        return;
      case "stopped":
        this.#hasStopped = true;
        return;
      default:
        this.book.fault(`${step}: ${text}`);
    }
  }
}
