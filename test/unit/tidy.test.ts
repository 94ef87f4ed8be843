import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { SETTINGS } from "../../src/config/schema.ts";
import { metricsList } from "../../src/metrics.ts";

/** What DESIGN says about the source tree, read off the tree itself. */

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Files below a folder with one of these endings, as paths from the root. */
function filesOf(folder: string, ...endings: string[]): string[] {
  const path = join(ROOT, folder);
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .map((name) => normalize(`${folder}/${name}`))
    .filter((name) => !name.startsWith("bench/results/"))
    .toSorted();
}

function read(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

const SOURCES = filesOf("src", ".ts");
const TYPESCRIPT = [...SOURCES, ...filesOf("test", ".ts"), ...filesOf("bench", ".ts")];
const CODE = [...TYPESCRIPT, ...filesOf("conf", ".mjs")];
const TEXTS = [
  ...CODE,
  ...filesOf("conf", ".yaml", ".conf", ".sh"),
  ...filesOf("bench", ".sh"),
  ...filesOf("test", ".sh"),
  ...["README.md", "CHANGELOG.md"].filter((path) => existsSync(join(ROOT, path))),
];

// Imports

interface Import {
  readonly from: string;
  /** A path from the root for a file of ours, else the module's name. */
  readonly to: string;
  /** Gone when the types are: `import type`, `export type`. */
  readonly typeOnly: boolean;
}

const FROM = /^(?:import|export)\s(?<type>type\s)?[^;"']*?\sfrom\s+"(?<to>[^"]+)"/gm;
const BARE = /^import\s+"(?<to>[^"]+)"/gm;
const DYNAMIC = /\b(?:import|require)\(\s*"(?<to>[^"]+)"/g;

function importsOf(file: string): Import[] {
  const text = read(file);
  return [...text.matchAll(FROM), ...text.matchAll(BARE), ...text.matchAll(DYNAMIC)].map((match) => {
    const to = match.groups?.to ?? "";
    const typeOnly = match.groups?.type !== undefined;
    return { from: file, to: to.startsWith(".") ? normalize(join(dirname(file), to)) : to, typeOnly };
  });
}

const IMPORTS = SOURCES.flatMap(importsOf);

/**
 * Who may import what, by folder or file of src. A row's own folder and Node's modules without sockets are
 * always allowed; main.ts, which puts all together, may import anything.
 */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  "src/resp/": ["redis-parser"],
  "src/commands/": ["src/resp/"],
  "src/upstream/": [
    ...["src/resp/", "src/commands/", "src/topology/epoch.ts", "src/config/address.ts"],
    ...["src/metrics.ts", "src/net.ts", "src/turn.ts"],
  ],
  "src/routing/": [
    ...[
      "src/upstream/",
      "src/resp/",
      "src/commands/",
      "src/topology/epoch.ts",
      "src/metrics.ts",
      "src/turn.ts",
    ],
    ...["src/config/address.ts", "src/config/schema.ts"],
  ],
  "src/session/": [
    ...["src/routing/", "src/upstream/", "src/resp/", "src/commands/", "src/topology/epoch.ts"],
    ...["src/metrics.ts", "src/net.ts", "src/turn.ts", "src/config/schema.ts"],
  ],
  "src/topology/": ["src/clock.ts", "src/errors.ts", "src/config/address.ts", "ioredis"],
  "src/failover/": ["src/topology/", "src/clock.ts", "src/errors.ts", "src/config/address.ts", "ioredis"],
  "src/admin/": [
    "src/failover/model.ts",
    "src/failover/plan.ts",
    "src/resp/",
    "src/topology/epoch.ts",
    "src/topology/status.ts",
    "src/metrics.ts",
    "src/http/status.ts",
  ],
  "src/http/": ["src/errors.ts", "src/metrics.ts", "node:http"],
  "src/config/": ["src/errors.ts", "src/topology/epoch.ts", "zod", "yaml"],
  "src/cli.ts": ["src/config/", "src/errors.ts"],
  "src/clock.ts": [],
  "src/errors.ts": [],
  "src/life.ts": ["src/log.ts"],
  "src/log.ts": ["pino"],
  "src/metrics.ts": ["prom-client"],
  "src/net.ts": ["src/config/address.ts", "node:net", "node:tls"],
  "src/turn.ts": [],
};

/** Each of these is known in one place. */
const SOCKET_MODULES = [
  "node:net",
  "node:tls",
  "node:http",
  "node:https",
  "node:dgram",
  "node:http2",
  "net",
  "tls",
];

function rowOf(file: string): string | null {
  return (
    Object.keys(ARROWS).find((row) => file === row || (row.endsWith("/") && file.startsWith(row))) ?? null
  );
}

function isAllowed({ from, to, typeOnly }: Import): boolean {
  const row = rowOf(from);
  if (row === null) return false;
  if (row.endsWith("/") && to.startsWith(row)) return true;
  // A type of a socket is a word, not a socket.
  if (typeOnly && to === "node:net") return true;
  if (to.startsWith("node:") && !SOCKET_MODULES.includes(to)) return true;
  return ARROWS[row]!.some((one) => to === one || (one.endsWith("/") && to.startsWith(one)));
}

/** Strings for a readable failure. */
function arrows(imports: readonly Import[]): string[] {
  return imports.map(({ from, to, typeOnly }) => `${from} → ${to}${typeOnly ? " (type)" : ""}`);
}

function importersOf(module: string): string[] {
  return [...new Set(IMPORTS.filter(({ to }) => to === module).map(({ from }) => from))];
}

describe("imports", () => {
  it("are found at all", () => {
    expect(SOURCES.length).toBeGreaterThan(40);
    expect(arrows(IMPORTS)).toEqual(
      expect.arrayContaining([
        "src/session/session.ts → src/routing/router.ts (type)",
        "src/session/clients.ts → src/session/session.ts",
        "src/topology/dial.ts → ioredis",
        "src/resp/request.ts → src/resp/bytes.ts",
      ]),
    );
  });

  it("go only where the arrows of DESIGN go: session → routing → upstream → resp", () => {
    const others = IMPORTS.filter(({ from }) => from !== "src/main.ts");
    expect(arrows(others.filter((one) => !isAllowed(one)))).toEqual([]);
  });

  it("lead to a rule for every file but main.ts", () => {
    expect(SOURCES.filter((file) => rowOf(file) === null)).toEqual(["src/main.ts"]);
  });

  it("never lead to main.ts", () => {
    expect(importersOf("src/main.ts")).toEqual([]);
  });

  it("of the control plane into the data plane are the epoch's words only, and none the other way", () => {
    const isData = (path: string): boolean => /^src\/(?:session|routing|upstream|resp|commands)\//.test(path);
    const isControl = (path: string): boolean => /^src\/(?:topology|failover)\//.test(path);
    const down = IMPORTS.filter(({ from, to }) => isData(from) && isControl(to));
    expect(new Set(down.map(({ to }) => to))).toEqual(new Set(["src/topology/epoch.ts"]));
    expect(arrows(IMPORTS.filter(({ from, to }) => isControl(from) && isData(to)))).toEqual([]);
  });

  it("of config into topology are types only", () => {
    const found = IMPORTS.filter(
      ({ from, to }) => from.startsWith("src/config/") && to.startsWith("src/topology/"),
    );
    expect(found.length).toBeGreaterThan(0);
    expect(arrows(found.filter(({ typeOnly }) => !typeOnly))).toEqual([]);
  });

  it.each([
    ["ioredis", /^src\/(?:topology|failover)\//],
    ["prom-client", /^src\/metrics\.ts$/],
    ["pino", /^src\/log\.ts$/],
    ["zod", /^src\/config\//],
    ["yaml", /^src\/config\//],
    ["redis-parser", /^src\/resp\//],
    ["node:http", /^src\/http\//],
  ])("of %s are in one place", (module, place) => {
    expect(importersOf(module).filter((file) => !place.test(file))).toEqual([]);
  });

  it("of sockets as values are in net.ts", () => {
    const values = IMPORTS.filter(({ to, typeOnly }) => !typeOnly && /^(?:node:)?(?:net|tls)$/.test(to));
    expect(arrows(values)).toEqual(["src/net.ts → node:net"]);
  });

  it("name existing files with their ending, and packages that package.json lists", () => {
    const { dependencies } = JSON.parse(read("package.json")) as { dependencies: Record<string, string> };
    for (const { from, to } of IMPORTS) {
      const known = to.startsWith("src/")
        ? SOURCES.includes(to)
        : to.startsWith("node:") || to in dependencies;
      expect([from, to, known]).toEqual([from, to, true]);
    }
  });

  it("do not run in circles, types aside", () => {
    expect(firstCycle()).toBeNull();
  });

  it("reach every source file from main.ts: none is dead", () => {
    const reached = new Set<string>();
    const visit = (file: string): void => {
      if (reached.has(file)) return;
      reached.add(file);
      for (const { to } of IMPORTS.filter(({ from }) => from === file)) if (to.startsWith("src/")) visit(to);
    };
    visit("src/main.ts");
    expect(SOURCES.filter((file) => !reached.has(file))).toEqual([]);
  });
});

/** One circle of value imports among the sources, as a text; null when there is none. */
function firstCycle(): string | null {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): string | null => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file].join(" → ");
    if (done.has(file)) return null;
    for (const { to, typeOnly } of IMPORTS.filter(({ from }) => from === file)) {
      const cycle = typeOnly || !to.startsWith("src/") ? null : visit(to, [...path, file]);
      if (cycle !== null) return cycle;
    }
    done.add(file);
    return null;
  };
  for (const file of SOURCES) {
    const cycle = visit(file, []);
    if (cycle !== null) return cycle;
  }
  return null;
}

// Size

const MAX_COLUMNS = 110;
const MAX_FUNCTION_LINES = 70;

/** A string on one line: the formatter leaves it whole. */
const TEXT = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\\n]|\\.)*`/g;

/** `path:line` of every line for which `isBad` holds. */
function linesWhere(files: readonly string[], isBad: (line: string, file: string) => boolean): string[] {
  return files.flatMap((file) =>
    read(file)
      .split("\n")
      .flatMap((line, i) => (isBad(line, file) ? [`${file}:${i + 1}: ${line.trim().slice(0, 100)}`] : [])),
  );
}

/** A function's first line as the formatter leaves it: it ends with the brace that opens the body. */
const DECLARED = /^\s*(?:export )?(?:default )?(?:async )?function\b.*\{$/;
const METHOD =
  /^\s*(?:(?:async|static|private|public|protected|override|get|set) )*\*?[#\w.[\]]+(?:<[^(]*>)?\(.*\{$/;
const ARROW = /=> \{$|\bfunction\b.*\{$/;
/** The end of parameters that fill several lines. */
const PARAMETERS_END = /^\s*\).*\{$/;
const NO_FUNCTION = /^\s*(?:\} )?(?:if|for|while|switch|catch|else|do|try|return)\b/;

interface FunctionSize {
  readonly at: string;
  readonly lines: number;
}

/** Relies on the formatter: a body's closing brace stands below the first letter of its line. */
function functionsOf(file: string): FunctionSize[] {
  const lines = read(file).split("\n");
  return lines.flatMap((line, start) => {
    const opens = [DECLARED, METHOD, ARROW, PARAMETERS_END].some((form) => form.test(line));
    if (!opens || NO_FUNCTION.test(line)) return [];
    const indent = /^\s*/.exec(line)![0];
    const length = lines.slice(start + 1).findIndex((one) => one.startsWith(`${indent}}`));
    return [{ at: `${file}:${start + 1}: ${line.trim()}`, lines: length + 2 }];
  });
}

describe("sizes", () => {
  it("lines have 110 columns at most, texts that cannot be broken aside", () => {
    const isComment = (line: string): boolean => /^\s*(?:\/?\*|\/\/)/.test(line);
    const columns = (line: string): number => [...(isComment(line) ? line : line.replace(TEXT, '""'))].length;
    expect(columns(`  say("${"x".repeat(200)}");`)).toBe(10);
    expect(linesWhere(CODE, (line) => columns(line) > MAX_COLUMNS)).toEqual([]);
  });

  it("functions have 70 lines at most", () => {
    const all = SOURCES.flatMap(functionsOf);
    // That functions are found is part of the claim.
    expect(all.length).toBeGreaterThan(400);
    expect(all.filter(({ lines }) => lines > MAX_FUNCTION_LINES)).toEqual([]);
  });

  it("of functions are measured rightly", () => {
    const long = functionsOf("src/upstream/lane.ts").find(({ at }) => at.includes("private replies("));
    const text = read("src/upstream/lane.ts");
    const body = text.slice(text.indexOf("  private replies("));
    expect(long?.lines).toBe(body.slice(0, body.indexOf("\n  }\n")).split("\n").length + 1);
  });
});

// Words

/** Source text without comments and the insides of strings, line by line as before. */
function bare(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, " "))
    .replace(/(^|\s)\/\/.*$/gm, "$1")
    .replace(TEXT, '""');
}

function bareLinesWhere(files: readonly string[], pattern: RegExp): string[] {
  return files.flatMap((file) =>
    bare(read(file))
      .split("\n")
      .flatMap((line, i) => (pattern.test(line) ? [`${file}:${i + 1}: ${line.trim()}`] : [])),
  );
}

/** Put together here, so that this file does not have them itself. */
const word = (...parts: string[]): string => parts.join("");

const BANNED: readonly (readonly [title: string, pattern: RegExp])[] = [
  [
    "notes to be done later",
    new RegExp(`\\b(?:${word("TO", "DO")}|${word("FIX", "ME")}|${word("X", "XX")})\\b`),
  ],
  // Not colours: those follow a colon or stand in a list of CSS.
  ["issue numbers", new RegExp(`(?<!:\\s?)(?<![\\w&])${word("#", "\\d{1,5}")}\\b(?![\\da-fA-F])`)],
  ["working sessions", new RegExp(`\\b${word("session", "s?\\s+of\\s+work")}\\b`, "i")],
  [
    "who writes",
    new RegExp(`\\b(?:${word("ag", "ents?")}|${word("Cla", "ude")}|${word("Anth", "ropic")})\\b`, "i"),
  ],
];

describe("words", () => {
  it.each(BANNED)("nobody needs are not there: %s", (_, pattern) => {
    expect(linesWhere(TEXTS, (line) => pattern.test(line))).toEqual([]);
  });

  it.each([
    [1, word("see #", "12")],
    [1, word("(redis #", "13118)")],
    [2, word("an earlier ", "session of ", "work")],
    [3, word("the Ag", "ent")],
    [0, word("// TO", "DO: later")],
  ])("nobody needs would be found: %i in %j", (which, line) => {
    expect(BANNED[which]![1].test(line)).toBe(true);
  });

  it("there is no console in the sources", () => {
    expect(bareLinesWhere(SOURCES, /\bconsole\b/)).toEqual([]);
  });

  it("there is no type that allows everything, no silenced check", () => {
    const loose = word("a", "ny");
    const pattern = new RegExp(`(?:[:<|&,(=] ?|\\bas )${loose}\\b(?!\\()`);
    expect(pattern.test(`(value: ${loose}[])`)).toBe(true);
    expect(bareLinesWhere(TYPESCRIPT, pattern)).toEqual([]);
    const silenced = new RegExp(word("@ts-", "(?:ignore|expect-error|nocheck)"));
    expect(linesWhere(TYPESCRIPT, (line) => silenced.test(line))).toEqual([]);
  });
});

// Documents

/** Every path "group.key" that stands in the example, commented out or not. */
function keysInExample(): Set<string> {
  const found = new Set<string>();
  let group = "";
  for (const line of read("conf/holdfast.yaml").split("\n")) {
    const top = /^(\w+):/.exec(line)?.[1];
    if (top !== undefined) {
      group = top;
      found.add(top);
    }
    const inner = /^ {2}(?:# )?(\w+): ?\S/.exec(line)?.[1];
    if (inner !== undefined) found.add(`${group}.${inner}`);
  }
  return found;
}

/** README's text; a test that needs it fails with these words while there is none. */
function readme(): string {
  if (!existsSync(join(ROOT, "README.md"))) throw new Error("README.md is missing: it has to be written");
  return read("README.md");
}

/** Whether a name stands in a text as a word of its own. */
function mentions(text: string, name: string): boolean {
  return new RegExp(`(?<![\\w.])${name.replaceAll(".", "\\.")}(?![\\w])`).test(text);
}

describe("documents", () => {
  it("conf/holdfast.yaml has every key of the configuration", () => {
    const found = keysInExample();
    expect(SETTINGS.map(({ path }) => path).filter((path) => !found.has(path))).toEqual([]);
  });

  it("README.md has every key of the configuration", () => {
    const text = readme();
    expect(SETTINGS.map(({ path }) => path).filter((path) => !mentions(text, path))).toEqual([]);
  });

  it("README.md has every metric", () => {
    const text = readme();
    expect(
      metricsList()
        .map(({ name }) => name)
        .filter((name) => !mentions(text, name)),
    ).toEqual([]);
  });

  it("README.md names no key and no metric that there is not", () => {
    const text = readme();
    const groups = [
      ...new Set(SETTINGS.filter(({ path }) => path.includes(".")).map(({ path }) => path.split(".")[0])),
    ];
    const keys = [...text.matchAll(new RegExp(`\`((?:${groups.join("|")})\\.\\w+)\``, "g"))].map(
      ([, key]) => key!,
    );
    const known = new Set(SETTINGS.map(({ path }) => path));
    const isFile = (name: string): boolean => /\.(?:ts|yaml|json|md)$/.test(name);
    expect(keys.filter((key) => !known.has(key) && !isFile(key))).toEqual([]);
    const metrics = new Set(metricsList().map(({ name }) => name));
    const named = [...text.matchAll(/\bholdfast_[a-z_]*[a-z]\b/g)].map(([name]) => name);
    const foreign = /^holdfast_(?:process|nodejs)(?:_|$)/;
    expect(named.filter((name) => !metrics.has(name) && !foreign.test(name))).toEqual([]);
  });
});
