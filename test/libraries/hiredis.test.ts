/** hiredis (Debian's libhiredis-dev) through switches: none of its connections may notice one. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import { Program } from "./support/program.ts";
import { itNoticesNoSwitch } from "./support/trial.ts";

const SOURCE = fileURLToPath(new URL("hiredis.c", import.meta.url));
const DIR = mkdtempSync(path.join(os.tmpdir(), "holdfast-hiredis-"));
const PROGRAM = path.join(DIR, "hiredis");

afterAll(() => rmSync(DIR, { recursive: true, force: true }));

/** Why it cannot be built on this machine; null when it can. */
function missing(): string | null {
  try {
    const header = "#include <hiredis/hiredis.h>\n";
    execFileSync("cc", ["-E", "-o", "/dev/null", "-"], { input: header, stdio: "pipe" });
    return null;
  } catch (error) {
    return `hiredis was not tried: ${(error as Error).message} (apt-get install gcc libc6-dev libhiredis-dev)`;
  }
}

function compile(): void {
  execFileSync("cc", ["-O1", "-pthread", "-o", PROGRAM, SOURCE, "-lhiredis"], { stdio: "pipe" });
}

itNoticesNoSwitch("hiredis", async (stage, name, skip) => {
  const reason = missing();
  if (reason !== null) return skip(reason);
  compile();
  return [new Program([PROGRAM], stage.proxy.port, name)];
});
