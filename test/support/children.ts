/** Child processes that never outlive the test process that started them. */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";

const running = new Set<ChildProcess>();
let hooked = false;

/** As `spawn`, and killed with us however we end (except by SIGKILL). */
export function spawnOwned(command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  hookExit();
  const child = spawn(command, [...args], options);
  running.add(child);
  child.once("exit", () => running.delete(child));
  child.once("error", () => running.delete(child));
  return child;
}

/** Resolves with the exit code or the signal that ended the child; at once when it has ended. */
export function exited(child: ChildProcess): Promise<number | NodeJS.Signals> {
  const ended = () => child.exitCode ?? child.signalCode;
  const already = ended();
  if (already !== null) return Promise.resolve(already);
  return new Promise((resolve, reject) => {
    child.once("exit", () => resolve(ended() ?? 1));
    child.once("error", reject);
  });
}

function hookExit(): void {
  if (hooked) return;
  hooked = true;
  process.on("exit", () => {
    for (const child of running) child.kill("SIGKILL");
  });
  // Without a handler the signal would end us before the handler above could run.
  for (const [signal, code] of [["SIGTERM", 143] as const, ["SIGHUP", 129] as const]) {
    if (process.listenerCount(signal) === 0) process.once(signal, () => process.exit(code));
  }
}
