/**
 * PURE. The three places settings come from (file, environment, command line), each read into the same shape:
 * raw values with the place they were given at, and the mistakes that can be told without knowing the other
 * places. No value of an unknown key or of a secret ever enters a mistake.
 */

import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
} from "yaml";
import { nearest } from "./nearest.ts";
import { GROUPS, SETTINGS, type Setting } from "./schema.ts";
import { typeName } from "./units.ts";

/** One mistake of the report. */
export interface Mistake {
  /** "file:line:column", the name of an environment variable, or a flag. */
  readonly where: string;
  /** The setting as a path, "nodes[1]"; null when it is about none. */
  readonly key: string | null;
  readonly problem: string;
  /** What would be right; null when the problem says it. */
  readonly allowed: string | null;
  /** Place in the report: character offset for a file. */
  readonly order: number;
}

/** A raw value somebody gave for a setting. */
export interface Given {
  readonly setting: Setting;
  readonly raw: unknown;
  /** When mistaken items were left out of `raw`: the place each of the rest had in the list as given. */
  readonly items?: readonly number[];
  /** Where it, or an item of the list as given, stands. */
  place(item?: number): Pick<Mistake, "where" | "order">;
}

export interface Layer {
  readonly given: readonly Given[];
  readonly mistakes: readonly Mistake[];
  /** The text could not be read to its end: what seems to be missing may be in the unread part. */
  readonly incomplete: boolean;
}

/** Flags that set a setting, and which. */
export const FLAG_SETTINGS = {
  listen: "listen",
  nodes: "nodes",
  http: "http",
  "log-level": "log.level",
} as const;
export type SettingFlag = keyof typeof FLAG_SETTINGS;

const BY_PATH: ReadonlyMap<string, Setting> = new Map(SETTINGS.map((setting) => [setting.path, setting]));

/** Names the path of the configuration file; read by the command line, so known here but no setting. */
export const CONFIG_VARIABLE = "HOLDFAST_CONFIG";

/** "hold.maxTime" → "HOLDFAST_HOLD_MAX_TIME". */
export function variableOf(path: string): string {
  const snake = path.replaceAll(/([a-z])([A-Z])/g, "$1_$2").replaceAll(".", "_");
  return `HOLDFAST_${snake.toUpperCase()}`;
}

const BY_VARIABLE: ReadonlyMap<string, Setting> = new Map(
  SETTINGS.map((setting) => [variableOf(setting.path), setting]),
);

/** Reads `HOLDFAST_…`; an empty variable counts as not set, as compose files and charts write it. */
export function environmentLayer(env: Readonly<Record<string, string | undefined>>): Layer {
  const given: Given[] = [];
  const mistakes: Mistake[] = [];
  for (const [name, value] of Object.entries(env).sort(([one], [other]) => (one < other ? -1 : 1))) {
    if (!name.startsWith("HOLDFAST_") || name === CONFIG_VARIABLE || value === undefined) continue;
    if (isServiceLink(name, value)) continue;
    const setting = BY_VARIABLE.get(name);
    if (setting === undefined) {
      const hint = didYouMean(nearest(name, [...BY_VARIABLE.keys(), CONFIG_VARIABLE]));
      mistakes.push({ where: name, key: null, problem: `unknown variable${hint}`, allowed: null, order: 0 });
    } else if (value !== "") {
      given.push({ setting, raw: fromText(setting, value), place: () => ({ where: name, order: 0 }) });
    }
  }
  return { given, mistakes, incomplete: false };
}

/**
 * Kubernetes (and Docker links) put variables for each service into every container; for a service named
 * "holdfast" these begin with our prefix: HOLDFAST_SERVICE_HOST, HOLDFAST_PORT=tcp://….
 */
function isServiceLink(name: string, value: string): boolean {
  if (/_SERVICE_(?:HOST|PORT(?:_\w+)?)$/.test(name)) return true;
  if (/_PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/.test(name)) return true;
  return name.endsWith("_PORT") && /^(?:tcp|udp|sctp):\/\//.test(value);
}

/** Reads the flags of the command line; one that may be repeated adds to the list. */
export function flagLayer(flags: Readonly<Partial<Record<SettingFlag, readonly string[]>>>): Layer {
  const given: Given[] = [];
  for (const [flag, path] of Object.entries(FLAG_SETTINGS) as [SettingFlag, string][]) {
    const values = flags[flag];
    const setting = BY_PATH.get(path);
    if (values === undefined || setting === undefined) continue;
    given.push({
      setting,
      raw: fromText(setting, isList(setting) ? values.join(",") : (values.at(-1) ?? "")),
      place: () => ({ where: `--${flag}`, order: 0 }),
    });
  }
  return { given, mistakes: [], incomplete: false };
}

/** A value given as text: lists are separated by commas. */
function fromText(setting: Setting, text: string): unknown {
  return isList(setting) ? text.split(",").map((item) => item.trim()) : text;
}

/** Whether the setting takes several values. */
export function isList(setting: Setting): boolean {
  return setting.kind === "nodes" || setting.kind === "listeners" || setting.kind === "weights";
}

/** Reads a YAML file. */
export function fileLayer(name: string, text: string): Layer {
  const lines = new LineCounter();
  // Own messages instead of pretty ones: those quote the source, which may be a password.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
  const place = (offset: number): Pick<Mistake, "where" | "order"> => {
    const { line, col } = lines.linePos(offset);
    return { where: `${name}:${line}:${col}`, order: offset };
  };
  const syntax = [...document.errors, ...document.warnings].map(
    (error): Mistake => ({
      ...place(error.pos[0]),
      key: null,
      problem: `not valid YAML: ${syntaxProblem(error.code)}`,
      allowed: null,
    }),
  );
  const walk: Walk = { place, resolve: (node) => followed(node, document), given: [], mistakes: [] };
  if (document.contents !== null) readGroup(document.contents, "", walk);
  // What stands behind a syntax error may be read as something it is not: only what is before it counts.
  const end = Math.min(Number.POSITIVE_INFINITY, ...syntax.map((mistake) => mistake.order));
  return {
    given: walk.given.filter((value) => value.place().order < end),
    mistakes: [...syntax, ...walk.mistakes.filter((mistake) => mistake.order < end)],
    incomplete: syntax.length > 0,
  };
}

const BAD_ALIAS = "an alias in it leads nowhere; a text that begins with * must be in quotes";

/** What reading a file gathers. */
interface Walk {
  place(offset: number): Pick<Mistake, "where" | "order">;
  /** Follows an alias and turns the node into plain values. Throws when the aliases are endless. */
  resolve(node: unknown): { node: unknown; value: unknown };
  readonly given: Given[];
  readonly mistakes: Mistake[];
}

function readGroup(node: unknown, path: string, walk: Walk): void {
  const keys = childrenOf(path);
  const target = isAlias(node) ? resolveGroup(node, walk) : node;
  if (isScalar(target) && target.value === null) return; // "hold:" with nothing below it
  if (!isMap(target)) {
    const what = isScalar(target) ? typeName(target.value) : isAlias(target) ? "an alias" : "a list";
    walk.mistakes.push({
      ...walk.place(offsetOf(node)),
      key: path === "" ? null : path,
      problem: `${what} stands where keys are expected`,
      allowed: keys.join(", "),
    });
    return;
  }
  const seen = new Set<string>();
  for (const pair of target.items) readPair(pair, path, keys, seen, walk);
}

/** An alias in the place of a group; what leads nowhere is reported as not being a group. */
function resolveGroup(node: Node, walk: Walk): unknown {
  try {
    return walk.resolve(node).node;
  } catch {
    return node;
  }
}

function readPair(pair: Pair, path: string, keys: readonly string[], seen: Set<string>, walk: Walk): void {
  const at = walk.place(offsetOf(pair.key));
  if (!isScalar(pair.key) || typeof pair.key.value !== "string") {
    walk.mistakes.push({
      ...at,
      key: path || null,
      problem: "a key is not a plain name",
      allowed: keys.join(", "),
    });
    return;
  }
  const name = pair.key.value;
  const full = path === "" ? name : `${path}.${name}`;
  if (seen.has(name)) {
    walk.mistakes.push({ ...at, key: full, problem: "given twice in this file", allowed: "once" });
    return;
  }
  seen.add(name);
  if (!keys.includes(name)) {
    const hint = didYouMean(nearest(name, keys) ?? elsewhere(full, name));
    walk.mistakes.push({ ...at, key: full, problem: `unknown key${hint}`, allowed: keys.join(", ") });
    return;
  }
  const setting = BY_PATH.get(full);
  if (setting === undefined) readGroup(pair.value, full, walk);
  else readSetting(setting, pair, walk);
}

function readSetting(setting: Setting, pair: Pair, walk: Walk): void {
  const own = isNode(pair.value) ? offsetOf(pair.value) : offsetOf(pair.key);
  try {
    const { node, value } = walk.resolve(pair.value);
    const items: readonly unknown[] = hasItems(node) ? node.items : [];
    const place = (item?: number) => {
      const inner = item === undefined ? undefined : items[item];
      return walk.place(isNode(inner) ? offsetOf(inner) : own);
    };
    walk.given.push({ setting, raw: value, place });
  } catch {
    walk.mistakes.push({ ...walk.place(own), key: setting.path, problem: BAD_ALIAS, allowed: null });
  }
}

/** The keys that may stand below a path: settings and groups. */
function childrenOf(path: string): string[] {
  const prefix = path === "" ? "" : `${path}.`;
  const below = SETTINGS.filter((setting) => setting.path.startsWith(prefix));
  return [...new Set(below.map((setting) => setting.path.slice(prefix.length).split(".")[0] ?? ""))];
}

/** The path a misplaced key belongs to: a whole path written as one key, or a setting of another group. */
function elsewhere(full: string, name: string): string | null {
  const paths = SETTINGS.map((setting) => setting.path);
  return paths.find((path) => path.split(".").at(-1) === name) ?? nearest(full, [...paths, ...GROUPS]);
}

function didYouMean(name: string | null): string {
  return name === null ? "" : `, did you mean ${name}?`;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && "toJS" in value;
}

function followed(node: unknown, document: Document.Parsed): { node: unknown; value: unknown } {
  const target = isAlias(node) ? node.resolve(document) : node;
  if (target === undefined) throw new ReferenceError("an alias without its anchor");
  return { node: target, value: isNode(target) ? target.toJS(document, { maxAliasCount: 100 }) : null };
}

function hasItems(value: unknown): value is { readonly items: readonly unknown[] } {
  return typeof value === "object" && value !== null && "items" in value && Array.isArray(value.items);
}

function offsetOf(node: unknown): number {
  return isNode(node) ? (node.range?.[0] ?? 0) : 0;
}

/** The reasons yaml gives, in words; without the text it stumbled over. */
function syntaxProblem(code: string): string {
  switch (code) {
    case "TAB_AS_INDENT":
      return "tabs cannot indent, use spaces";
    case "BAD_INDENT":
      return "the indentation does not fit the lines before, or a bracket is not closed";
    case "MISSING_CHAR":
      return "a closing quote or bracket, a comma or a colon is missing";
    case "BAD_SCALAR_START":
      return "a text that begins with @, ` or % must be in quotes";
    case "BLOCK_AS_IMPLICIT_KEY":
    case "BLOCK_IN_FLOW":
    case "MULTILINE_IMPLICIT_KEY":
      return "this text does not belong here; one with a colon in it must be in quotes";
    case "BAD_ALIAS":
      return "a text that begins with * must be in quotes";
    case "TAG_RESOLVE_FAILED":
      return "a text that begins with ! must be in quotes";
    case "MULTIPLE_DOCS":
      return "a second document begins here (---)";
    default:
      return `it cannot be read here (${code})`;
  }
}
