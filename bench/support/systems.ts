/** The systems that are compared: each one thread, in front of the same nodes, on a port of its own. */
import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { exited, spawnOwned } from "../../test/support/children.ts";
import { RawClient } from "../../test/support/client.ts";
import { freePort } from "../../test/support/ports.ts";
import { ReplyError } from "../../test/support/resp.ts";
import { sleep, until } from "../../test/support/wait.ts";
import { memory } from "./proc.ts";

export type SystemName = "redis" | "haproxy" | "twemproxy" | "holdfast";

export interface System {
  readonly name: SystemName;
  readonly port: number;
  readonly pid: number;
  close(): Promise<void>;
}

const MB = 1024 * 1024;
const HOLDFAST = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

export interface HoldfastOptions {
  /** Arguments for Node, before the program. */
  readonly nodeArgs?: readonly string[];
  /** Settings as environment variables: HOLDFAST_LIMITS_MAX_CLIENTS and so on. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** Holdfast as it is without settings, except that it says little and has no HTTP listener. */
export async function startHoldfast(
  nodes: readonly string[],
  options: HoldfastOptions = {},
): Promise<System> {
  const port = await freePort();
  const args = [...(options.nodeArgs ?? []), HOLDFAST, "--listen", `127.0.0.1:${port}`];
  args.push("--nodes", nodes.join(","), "--http", "off", "--log-level", "warn");
  return launch("holdfast", port, process.execPath, args, options.settings);
}

/** Arguments for Node with which a process collects its garbage when it gets SIGUSR2. */
export const COLLECT_ON_SIGNAL: readonly string[] = [
  "--expose-gc",
  "--import",
  "data:text/javascript,process.on('SIGUSR2', () => globalThis.gc())",
];

/**
 * The resident memory without garbage of a process started with COLLECT_ON_SIGNAL: an idle process collects
 * none, and that left over from the start would be taken for the base of everything.
 */
export async function settledRss(pid: number): Promise<number> {
  let last = 0;
  const isSettled = async () => {
    process.kill(pid, "SIGUSR2");
    await sleep(500);
    const before = last;
    last = memory(pid).rssBytes;
    return Math.abs(last - before) < MB / 4;
  };
  await until(isSettled, { deadlineMs: 20_000, what: "resident memory at rest" });
  return last;
}

/** HAProxy passing TCP on to one node. */
export async function startHaproxy(node: string): Promise<System> {
  return haproxy([`  server redis ${node}`]);
}

/**
 * HAProxy as it is commonly put before a replicated set: whoever says `role:master` gets the clients, and
 * who says so no longer loses them at once. It checks as often as Holdfast probes.
 */
export async function startHaproxyForMaster(nodes: readonly string[]): Promise<System> {
  const check = ["  option redispatch 1", "  option tcp-check", "  tcp-check connect"];
  // With QUIT behind it the reply of a replica ends, and the check with it: else it waits for its timeout.
  check.push("  tcp-check send info\\ replication\\r\\nQUIT\\r\\n");
  check.push("  tcp-check expect string role:master");
  check.push("  default-server inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions");
  return haproxy([...check, ...nodes.map((node, index) => `  server node${index} ${node} check`)]);
}

/** twemproxy (nutcracker) with one server in its pool. */
export async function startTwemproxy(node: string): Promise<System> {
  const port = await freePort();
  const pool = [`  listen: 127.0.0.1:${port}`, "  redis: true", "  backlog: 1024", "  preconnect: true"];
  const config = ["bench:", ...pool, "  servers:", `    - ${node}:1`, ""].join("\n");
  const statsPort = await freePort();
  return withConfig(config, (file) => {
    const args = ["-c", file, "-o", `${file}.log`, "-p", `${file}.pid`];
    return launch("twemproxy", port, "nutcracker", [...args, "-a", "127.0.0.1", "-s", String(statsPort)]);
  });
}

async function haproxy(backend: readonly string[]): Promise<System> {
  const port = await freePort();
  const config = [
    "global",
    "  nbthread 1",
    "  maxconn 2000",
    "defaults",
    "  mode tcp",
    "  timeout connect 1s",
    "  timeout check 1s",
    "  timeout client 1h",
    "  timeout server 1h",
    "listen bench",
    `  bind 127.0.0.1:${port}`,
    ...backend,
    "",
  ].join("\n");
  return withConfig(config, (file) => launch("haproxy", port, "haproxy", ["-db", "-f", file]));
}

async function withConfig(config: string, start: (file: string) => Promise<System>): Promise<System> {
  const dir = await mkdtemp(path.join(os.tmpdir(), "holdfast-bench-"));
  const remove = () => rm(dir, { recursive: true, force: true });
  const file = path.join(dir, "config");
  await writeFile(file, config);
  try {
    const system = await start(file);
    const close = async () => {
      await system.close();
      await remove();
    };
    return { ...system, close };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Starts a program and waits until a write passes through it. */
async function launch(
  name: SystemName,
  port: number,
  program: string,
  args: string[],
  settings: Readonly<Record<string, string>> = {},
): Promise<System> {
  const env = { ...process.env, ...settings };
  const child = spawnOwned(program, args, { stdio: ["ignore", "pipe", "pipe"], env });
  const started = collectOutput(child);
  const close = () => end(child);
  const writes = async () => {
    if (child.exitCode !== null) return true;
    const client = await RawClient.connect({ port, deadlineMs: 2_000 });
    const reply = await client.command("SET", "bench:started", name).finally(() => client.close());
    return !(reply instanceof ReplyError);
  };
  try {
    await until(writes, { deadlineMs: 15_000, what: `a write through ${name}`, everyMs: 50 });
  } catch (error) {
    await close();
    throw new Error(`${name}: ${(error as Error).message}\n${started()}`, { cause: error });
  }
  if (child.exitCode !== null) throw new Error(`${name} ended at once:\n${started()}`);
  return { name, port, pid: child.pid ?? 0, close };
}

/** Reads the child's output, so that it never waits for us; the function returns its beginning. */
function collectOutput(child: ChildProcess): () => string {
  let text = "";
  child.on("error", (error) => {
    text += error.message;
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      if (text.length < 10_000) text += chunk;
    });
  }
  return () => text;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
  child.kill("SIGTERM");
  await exited(child);
  clearTimeout(timer);
}
