/**
 * The command line: what was asked for, as a value. Nothing is printed and nothing is started here; files are
 * read through the function that is passed in.
 */

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { CONFIG_VARIABLE, FLAG_SETTINGS, type Mistake, type SettingFlag } from "./config/layers.ts";
import { type ConfigInput, type LoadResult, loadConfig, type NamedFiles } from "./config/load.ts";
import { nearest } from "./config/nearest.ts";
import type { Config } from "./config/schema.ts";
import { messageOf } from "./errors.ts";

/** What to do. `text` goes to standard output when `exitCode` is 0, else to standard error. */
export type CliResult =
  | { readonly kind: "run"; readonly config: Config; readonly files: NamedFiles }
  | { readonly kind: "check"; readonly text: string; readonly exitCode: number }
  | { readonly kind: "text"; readonly text: string; readonly exitCode: number };

/** Exit code for every mistake of the user. */
const EXIT_MISTAKE = 2;

const OPTIONS = {
  config: { type: "string", short: "c" },
  listen: { type: "string", multiple: true },
  nodes: { type: "string", multiple: true },
  http: { type: "string" },
  "log-level": { type: "string" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean", short: "V" },
} as const;

const HELP = `holdfast: a RESP proxy that makes Redis and Valkey failover transparent

Usage:
  holdfast --config FILE
  holdfast --listen HOST:PORT --nodes HOST:PORT,HOST:PORT,… [--http HOST:PORT]
  holdfast check --config FILE     say everything that is wrong with a configuration; exit 0 or 2

Options (they win over the environment, the environment wins over the file):
  -c, --config FILE      configuration file (YAML); conf/holdfast.yaml explains every key
      --listen LIST      where clients connect, separated by commas        [127.0.0.1:6379]
      --nodes LIST       where to start looking for master and replicas, separated by commas
      --http ADDRESS     metrics, health and status page, or "off"         [127.0.0.1:9121]
      --log-level LEVEL  debug, info, warn or error                        [info]
  -h, --help             this text
  -V, --version          the version

Environment:
  HOLDFAST_CONFIG=FILE and one variable for every key of the file: hold.maxTime is
  HOLDFAST_HOLD_MAX_TIME, upstream.password is HOLDFAST_UPSTREAM_PASSWORD; lists are separated by commas.

Signals:
  SIGTERM, SIGINT        accept nobody any more, finish replies, exit 0 within limits.drainTime;
                         a second one exits at once

Exit codes: 0 well, 2 a mistake on the command line or in the configuration
`;

/** `argv` without node and script; `readFile` returns a file's text or throws. */
export function parseCli(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  readFile: (path: string) => string,
): CliResult {
  const parsed = readArguments(argv);
  if (parsed.help) return { kind: "text", text: HELP, exitCode: 0 };
  if (parsed.version) return { kind: "text", text: `holdfast ${packageVersion()}\n`, exitCode: 0 };
  const path = parsed.config ?? (env[CONFIG_VARIABLE] || null);
  const loaded = load(path, parsed, env, readFile);
  if (parsed.check) {
    const name = path ?? "the configuration";
    return loaded.ok
      ? { kind: "check", text: `holdfast: ${name} is valid\n`, exitCode: 0 }
      : { kind: "check", text: loaded.report, exitCode: EXIT_MISTAKE };
  }
  if (loaded.ok) return { kind: "run", config: loaded.config, files: loaded.files };
  return { kind: "text", text: `${loaded.report}Try: holdfast --help\n`, exitCode: EXIT_MISTAKE };
}

/** The version in package.json, which stands beside both src and dist. */
export function packageVersion(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  const about: unknown = JSON.parse(text);
  const known = typeof about === "object" && about !== null && "version" in about;
  return known ? String(about.version) : "unknown";
}

interface Arguments {
  readonly check: boolean;
  readonly help: boolean;
  readonly version: boolean;
  readonly config: string | null;
  readonly flags: ConfigInput["flags"];
  readonly mistakes: readonly Mistake[];
}

/** Reads the arguments leniently and lists what is wrong, so that it can join the one report. */
function readArguments(argv: readonly string[]): Arguments {
  const { tokens } = parseArgs({
    args: [...argv],
    options: OPTIONS,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const flags: Partial<Record<SettingFlag, string[]>> = {};
  const switches = new Set<string>();
  const mistakes: Mistake[] = [];
  let config: string | null = null;
  /** Where the value of an unknown option would stand; it is part of that mistake, not one more. */
  let valueOfUnknown = -1;
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") {
      if (token.index === valueOfUnknown) continue;
      if (token.value === "check") switches.add("check");
      else mistakes.push(strayArgument(token.index, token.value));
      continue;
    }
    if (!Object.hasOwn(OPTIONS, token.name)) valueOfUnknown = token.index + 1;
    const problem = optionProblem(token.name, token.value, token.inlineValue ?? false);
    if (problem !== null) mistakes.push({ ...NOWHERE, where: token.rawName, problem });
    else if (token.name === "config") config = token.value ?? null;
    else if (isSettingFlag(token.name)) flags[token.name] = [...(flags[token.name] ?? []), token.value ?? ""];
    else switches.add(token.name);
  }
  return {
    check: switches.has("check"),
    help: switches.has("help"),
    version: switches.has("version"),
    config,
    flags,
    mistakes,
  };
}

const NOWHERE = { key: null, allowed: null, order: 0 } as const;

/** What is wrong with an option, or null. Values are not repeated: an unknown option may carry a secret. */
function optionProblem(name: string, value: string | undefined, inline: boolean): string | null {
  if (!Object.hasOwn(OPTIONS, name)) {
    const near = nearest(name, Object.keys(OPTIONS));
    return `unknown option${near === null ? "" : `, did you mean --${near}?`}`;
  }
  const wantsValue = OPTIONS[name as keyof typeof OPTIONS].type === "string";
  if (!wantsValue) return value === undefined ? null : "takes no value";
  if (value === undefined || value === "" || (!inline && value.startsWith("-"))) return "needs a value";
  return null;
}

/** Only a first argument is repeated: a later one may be the value of a mistyped option, and a secret. */
function strayArgument(index: number, value: string): Mistake {
  if (index > 0) return { ...NOWHERE, where: `argument ${index + 1}`, problem: "not expected here" };
  const hint = nearest(value, ["check"]) === null ? "" : ", did you mean check?";
  return { ...NOWHERE, where: value, problem: `unknown command${hint}`, allowed: "check, or options only" };
}

function isSettingFlag(name: string): name is SettingFlag {
  return Object.hasOwn(FLAG_SETTINGS, name);
}

function load(
  path: string | null,
  { flags, mistakes }: Arguments,
  env: Readonly<Record<string, string | undefined>>,
  readFile: (path: string) => string,
): LoadResult {
  if (path === null) return loadConfig({ file: null, env, flags, mistakes, readFile });
  let text: string;
  try {
    text = readFile(path);
  } catch (error) {
    const problem = `cannot be read: ${messageOf(error)}`;
    const unreadable: Mistake = { ...NOWHERE, where: path, problem };
    return loadConfig({ file: null, env, flags, mistakes: [...mistakes, unreadable], readFile });
  }
  return loadConfig({ file: { name: path, text }, env, flags, mistakes, readFile });
}
