/** `npm run quickstart` as a person would use it, on other ports. */
import { type ChildProcess, execFile } from "node:child_process";
import { existsSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, describe, expect, it } from "vitest";
import { exited, spawnOwned } from "../support/children.ts";
import { RawClient } from "../support/client.ts";
import { canListen, freePortBlock } from "../support/ports.ts";
import { parseInfo } from "../support/redis.ts";
import type { Argument, Reply } from "../support/resp.ts";
import { until, within } from "../support/wait.ts";

const run = promisify(execFile);
const CHECKOUT = fileURLToPath(new URL("../../", import.meta.url));
const isBuilt = existsSync(path.join(CHECKOUT, "dist/main.js"));

let quickstart: Quickstart | undefined;

afterEach(async () => {
  await quickstart?.end();
  // What a test has started by hand.
  if (quickstart) await ask(quickstart.first, "SHUTDOWN", "NOSAVE").catch(() => {});
});

describe.skipIf(!isBuilt)("the quickstart", () => {
  it("leads through a failover by hand with one client connected throughout (8)", async () => {
    quickstart = await Quickstart.start();
    const { base, first, second, third } = quickstart;
    const client = await RawClient.connect({ port: base });
    expect(await client.command("SET", "name", "chaoge")).toBe("OK");
    await until(async () => (await ask(second, "GET", "name")) === "chaoge", {
      what: "the write on the replica",
    });
    expect((await replication(first)).get("connected_slaves")).toBe("2");

    await expect(ask(first, "SHUTDOWN")).rejects.toThrow("closed");
    await until(() => quickstart?.output.includes(`Redis on ${first} has ended`), {
      what: "a word about it",
    });
    const waiting = client.command("SET", "name", "again");
    await expect(within(waiting, 300, "an answer")).rejects.toThrow("not within");
    const reader = await RawClient.connect({ port: base });
    expect(await reader.command("GET", "name")).toBe("chaoge");

    expect(await ask(second, "SLAVEOF", "NO", "ONE")).toBe("OK");
    expect(await within(waiting, 5_000, "the waiting write")).toBe("OK");
    expect(await ask(third, "SLAVEOF", "127.0.0.1", second)).toBe("OK");
    await until(async () => (await ask(third, "GET", "name")) === "again", {
      what: "the write on the new replica",
    });

    await run("sh", ["-c", quickstart.restartCommand()], { cwd: CHECKOUT });
    const isUp = async () => (await replication(first)).get("master_link_status") === "up";
    await until(isUp, { deadlineMs: 15_000, what: "the old master following the new one" });
    expect(await client.command("INCR", "counter")).toBe(1);
    expect([client.disconnected, reader.disconnected]).toEqual([false, false]);

    expect(await quickstart.end()).toBe(0);
    // Only the one that was started by hand is left, and it is named.
    expect(quickstart.output).toContain(`The Redis now on ${first} was started by hand`);
    for (const port of [base, second, third, base + 4]) expect(await canListen(port)).toBe(true);
    expect(await ask(first, "PING")).toBe("PONG");
  });

  it("never lets a master that came back by mistake get a write (40)", async () => {
    quickstart = await Quickstart.start();
    const { base, first, second, third } = quickstart;
    const client = await RawClient.connect({ port: base });
    await client.command("SET", "name", "chaoge");
    await expect(ask(first, "SHUTDOWN")).rejects.toThrow("closed");
    await ask(second, "SLAVEOF", "NO", "ONE");
    await ask(third, "SLAVEOF", "127.0.0.1", second);
    expect(await client.command("SET", "name", "again")).toBe("OK");
    const asMaster = quickstart.restartCommand().replace(/--replicaof \S+ \d+/, "");
    await run("sh", ["-c", asMaster], { cwd: CHECKOUT });
    await until(() => ask(first, "PING").catch(() => false), { what: "the old master answering" });
    expect((await replication(first)).get("role")).toBe("master");
    for (let i = 1; i <= 200; i++) expect(await client.command("INCR", "counter")).toBe(i);
    expect(await ask(first, "EXISTS", "counter")).toBe(0);
    expect(client.disconnected).toBe(false);
  });

  it("says which port is in use, starts nothing and names other ports", async () => {
    const base = await freePortBlock(5);
    const server = net.createServer().listen(base + 2, "127.0.0.1");
    quickstart = new Quickstart(base);
    expect(await quickstart.exited()).toBe(1);
    expect(quickstart.output).toMatch(new RegExp(`Port ${base + 2} is in use.*Nothing was started`, "s"));
    expect(quickstart.output).toMatch(/npm run quickstart -- --base \d+/);
    expect(await canListen(base + 1)).toBe(true);
    server.close();
  });
});

class Quickstart {
  readonly base: number;
  readonly first: number;
  readonly second: number;
  readonly third: number;
  output = "";
  readonly #child: ChildProcess;

  static async start(): Promise<Quickstart> {
    const started = new Quickstart(await freePortBlock(5));
    const isReady = () => started.output.includes("Ctrl-C ends") || started.#child.exitCode !== null;
    await until(isReady, { deadlineMs: 30_000, what: "the quickstart being ready" });
    if (started.#child.exitCode !== null) throw new Error(`the quickstart ended: ${started.output}`);
    return started;
  }

  constructor(base: number) {
    this.base = base;
    [this.first, this.second, this.third] = [base + 1, base + 2, base + 3];
    const args = ["conf/quickstart.mjs", "--base", String(base)];
    this.#child = spawnOwned(process.execPath, args, { cwd: CHECKOUT, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.output += text;
      });
    }
  }

  /** The line it prints for starting the first node again as a replica. */
  restartCommand(): string {
    const line = /^ *(redis-server conf\/.*--replicaof.*)$/m.exec(this.output)?.[1];
    if (line === undefined) throw new Error(`no such line in ${this.output}`);
    return line;
  }

  /** As Ctrl-C does; resolves with the exit code. */
  end(): Promise<number | NodeJS.Signals> {
    if (this.#child.exitCode === null) this.#child.kill("SIGINT");
    return this.exited();
  }

  exited(): Promise<number | NodeJS.Signals> {
    return within(exited(this.#child), 30_000, "the quickstart ending");
  }
}

async function ask(port: number, ...command: Argument[]): Promise<Reply> {
  const client = await RawClient.connect({ port, deadlineMs: 5_000 });
  try {
    return await client.command(...command);
  } finally {
    client.close();
  }
}

async function replication(port: number): Promise<Map<string, string>> {
  return parseInfo(String(await ask(port, "INFO", "replication")));
}
