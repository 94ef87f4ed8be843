/** redis-py (Debian's python3-redis) through switches: none of its connections may notice one. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Program } from "./support/program.ts";
import { itNoticesNoSwitch } from "./support/trial.ts";

/** The system's own: another one on the path does not have Debian's packages. */
const PYTHON = "/usr/bin/python3";
const SCRIPT = fileURLToPath(new URL("redis-py.py", import.meta.url));

/** Why it cannot be run; null when it can. */
function missing(): string | null {
  try {
    execFileSync(PYTHON, ["-c", "import redis"], { stdio: "pipe" });
    return null;
  } catch (error) {
    return `redis-py was not tried: ${(error as Error).message} (apt-get install python3-redis)`;
  }
}

itNoticesNoSwitch("redis-py", async (stage, name, skip) => {
  const reason = missing();
  if (reason !== null) return skip(reason);
  return [new Program([PYTHON, "-u", SCRIPT], stage.proxy.port, name)];
});
