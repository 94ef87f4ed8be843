/** Programs in C, for what has to cost as little as a process can. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";

export interface Compiled {
  readonly program: string;
  /** Removes the program again. */
  remove(): void;
}

/** Compiles one source file; throws with words when there is no compiler. */
export function compile(source: string): Compiled {
  const dir = mkdtempSync(path.join(os.tmpdir(), "holdfast-bench-"));
  const program = path.join(dir, path.basename(source, ".c"));
  const remove = () => rmSync(dir, { recursive: true, force: true });
  try {
    execFileSync("cc", ["-O2", "-o", program, source, "-lm"], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    remove();
    const missing = "this bench needs a C compiler (Debian: apt-get install gcc libc6-dev)";
    throw new Error(`${source} could not be compiled: ${missing}`, { cause: error });
  }
  return { program, remove };
}
