/** What every result says about itself, and where it is written. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const CHECKOUT = fileURLToPath(new URL("../../", import.meta.url));

export interface Setting {
  readonly date: string;
  readonly command: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memory: string;
  readonly kernel: string;
  readonly versions: Readonly<Record<string, string>>;
}

/** One promised bound and what was measured. */
export interface Verdict {
  readonly what: string;
  readonly bound: string;
  readonly measured: string;
  readonly isMet: boolean;
}

export function setting(): Setting {
  const [cpu] = os.cpus();
  return {
    date: new Date().toISOString(),
    command: `node --import tsx ${process.argv.slice(1).map(relative).join(" ")}`,
    cpu: cpu?.model ?? "unknown",
    cores: os.cpus().length,
    memory: `${Math.round(os.totalmem() / 2 ** 30)} GB`,
    kernel: `${os.type()} ${os.release()}`,
    versions: {
      holdfast: holdfastVersion(),
      node: process.version,
      redis: version("redis-server", ["--version"], /v=(\S+)/),
      haproxy: version("haproxy", ["-v"], /version (\S+)/),
      twemproxy: version("nutcracker", ["--version"], /nutcracker-(\S+)/),
    },
  };
}

/** A figure, perhaps with its unit: such columns stand to the right. */
const NUMBER = /^([-+]?[\d.]+( ?(×|%|ms|s|KB|MB))?|–)$/;

/** A table as Markdown, with the columns in line so that it reads well in a terminal too. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((name, i) => Math.max(3, name.length, ...rows.map((row) => (row[i] ?? "").length)));
  const isNumber = head.map((_, i) => rows.length > 0 && rows.every((row) => NUMBER.test(row[i] ?? "")));
  const line = (cells: readonly string[]) => {
    const padded = widths.map((width, i) => {
      const cell = cells[i] ?? "";
      return isNumber[i] ? cell.padStart(width) : cell.padEnd(width);
    });
    return `| ${padded.join(" | ")} |`;
  };
  const rule = widths.map((width, i) => (isNumber[i] ? `${"-".repeat(width - 1)}:` : "-".repeat(width)));
  return [line(head), `| ${rule.join(" | ")} |`, ...rows.map(line)].join("\n");
}

/** Of a measure that may be so many times that of Redis in the same round. */
export function verdictOnRatio(what: string, measured: number, most: number): Verdict {
  return {
    what,
    bound: `≤ ${most} × redis`,
    measured: `${measured.toFixed(2)} ×`,
    isMet: measured <= most,
  };
}

export function verdictTable(verdicts: readonly Verdict[]): string {
  const rows = verdicts.map(({ what, bound, measured, isMet }) => [
    what,
    bound,
    measured,
    isMet ? "met" : "missed",
  ]);
  return table(["what", "bound", "measured", "verdict"], rows);
}

/** Prints the result and keeps it as `bench/results/NAME-DATE.md` and `.json`. */
export function publish(name: string, about: Setting, body: string, data: object): void {
  const versions = Object.entries(about.versions).map(([program, text]) => `${program} ${text}`);
  const head = [
    `# ${name[0]?.toUpperCase()}${name.slice(1)} bench`,
    "",
    `- when: ${about.date}`,
    `- command: \`${about.command}\``,
    `- machine: ${about.cpu}, ${about.cores} cores, ${about.memory}, ${about.kernel}`,
    `- versions: ${versions.join(", ")}`,
  ].join("\n");
  const text = `${head}\n\n${body}\n`;
  const dir = path.join(CHECKOUT, "bench/results");
  const file = path.join(dir, `${name}-${about.date.slice(0, 19).replace(/[:T]/g, "-")}`);
  mkdirSync(dir, { recursive: true });
  writeFileSync(`${file}.md`, text);
  writeFileSync(`${file}.json`, `${JSON.stringify({ setting: about, ...data }, null, 2)}\n`);
  process.stdout.write(`\n${text}\nKept as ${path.relative(CHECKOUT, file)}.md and .json\n`);
}

/** A line of progress, for whoever waits. */
export function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

function relative(argument: string): string {
  return argument.startsWith(CHECKOUT) ? path.relative(CHECKOUT, argument) : argument;
}

function holdfastVersion(): string {
  const about = JSON.parse(readFileSync(path.join(CHECKOUT, "package.json"), "utf8")) as { version: string };
  try {
    const commit = execFileSync("git", ["describe", "--always", "--dirty"], {
      cwd: CHECKOUT,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return `${about.version} (${commit.trim()})`;
  } catch {
    return about.version;
  }
}

function version(program: string, args: readonly string[], pattern: RegExp): string {
  try {
    // Some print it to standard error.
    const text = execFileSync("sh", ["-c", `${program} ${args.join(" ")} 2>&1`], { encoding: "utf8" });
    return pattern.exec(text)?.[1] ?? "unknown";
  } catch {
    return "missing";
  }
}
