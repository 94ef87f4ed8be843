/**
 * PURE. From what file, environment and command line say to one configuration, or one report of all mistakes.
 *
 * Flags win over the environment, the environment over the file. Every given value is checked where it was
 * given, also one that another place overrides, so that a mistake shows before the day it matters.
 */

import { strict as assert } from "node:assert";
import { messageOf } from "../errors.ts";
import { crossCheck, type Finding } from "./checks.ts";
import {
  environmentLayer,
  fileLayer,
  flagLayer,
  type Given,
  isList,
  type Mistake,
  type SettingFlag,
} from "./layers.ts";
import { type Config, configSchema, SETTINGS } from "./schema.ts";

export interface ConfigInput {
  /** The file's name as the report shows it, and its content; null without a file. */
  readonly file: { readonly name: string; readonly text: string } | null;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly flags: Readonly<Partial<Record<SettingFlag, readonly string[]>>>;
  /** Returns a file's text or throws; without it, files that settings name are not looked at. */
  readonly readFile?: (path: string) => string;
  /** Mistakes found before (on the command line), to stand in the same report. */
  readonly mistakes?: readonly Mistake[];
}

/** The texts of the files that settings name, by the path of the setting: "sentinel.tlsCa". */
export type NamedFiles = ReadonlyMap<string, string>;

export type LoadResult =
  | { readonly ok: true; readonly config: Config; readonly files: NamedFiles }
  | { readonly ok: false; readonly report: string };

export function loadConfig(input: ConfigInput): LoadResult {
  const file = input.file === null ? null : fileLayer(input.file.name, input.file.text);
  const layers = [file, environmentLayer(input.env), flagLayer(input.flags)].filter(
    (layer) => layer !== null,
  );
  const mistakes = layers.map((layer) => [...layer.mistakes]);
  const valid = new Map<string, Given>();
  const broken = new Set<string>();
  for (const [index, layer] of layers.entries()) {
    for (const given of layer.given) {
      const checked = check(given);
      mistakes[index]?.push(...checked.mistakes);
      if (checked.valid === null) broken.add(given.setting.path);
      else valid.set(given.setting.path, checked.valid);
    }
  }
  const incomplete = file?.incomplete ?? false;
  const nodesMissing = ["nodes", "sentinel.nodes"].every((path) => !valid.has(path) && !broken.has(path));
  if (nodesMissing) broken.add("nodes");
  const named = readNamed(valid, input.readFile);
  const config = build(valid);
  const findings = crossCheck(config).filter((finding) => !finding.settings.some((path) => broken.has(path)));
  const all = [
    ...(input.mistakes ?? []),
    ...mistakes.flatMap((some) => some.toSorted((one, other) => one.order - other.order)),
    ...(nodesMissing && !incomplete && (input.mistakes ?? []).length === 0 ? [missingNodes(input.file)] : []),
    ...findings.map((finding) => mistakeOf(finding, valid)),
    ...named.mistakes,
  ];
  return all.length === 0
    ? { ok: true, config, files: named.files }
    : { ok: false, report: formatReport(all) };
}

/** One line per mistake: where, which key, what is wrong, what is allowed. */
export function formatReport(mistakes: readonly Mistake[]): string {
  const lines = mistakes.map(({ where, key, problem, allowed }) => {
    const about = key === null ? "" : `${key}: `;
    const right = allowed === null ? "" : `; allowed: ${allowed}`;
    return `  ${where}: ${about}${problem}${right}`;
  });
  const count = mistakes.length === 1 ? "1 mistake" : `${mistakes.length} mistakes`;
  const head = `holdfast: ${count} in the configuration`;
  return `${[head, ...lines].join("\n")}\n`;
}

/** The mistakes of one value, and what of it is valid: of a list the items that are. */
function check(given: Given): { readonly mistakes: Mistake[]; readonly valid: Given | null } {
  const { setting, raw } = given;
  const mistake = (problem: string, item?: number): Mistake => {
    const key = item === undefined ? setting.path : `${setting.path}[${item}]`;
    return { ...given.place(item), key, problem, allowed: setting.allowed };
  };
  if (raw === null) {
    return { mistakes: [mistake("it is empty: give a value or remove the key")], valid: null };
  }
  const result = setting.schema.safeParse(raw);
  if (result.success) return { mistakes: [], valid: given };
  const { issues } = result.error;
  const wrongItems = issues.map((issue) => issue.path.find((step) => typeof step === "number"));
  return {
    mistakes: issues.map((issue, index) => mistake(issue.message, wrongItems[index])),
    valid: isList(setting) && Array.isArray(raw) ? without(given, raw, wrongItems) : null,
  };
}

/** The list without its mistaken items, so that the others can still be compared; null when none is left. */
function without(given: Given, raw: readonly unknown[], wrong: readonly unknown[]): Given | null {
  const items = [...raw.keys()].filter((index) => !wrong.includes(index));
  return items.length === 0 ? null : { ...given, raw: items.map((index) => raw[index]), items };
}

/** Reads the files that settings name. What a file holds never appears in a mistake: it may be a key. */
function readNamed(
  valid: ReadonlyMap<string, Given>,
  readFile: ConfigInput["readFile"],
): { readonly files: NamedFiles; readonly mistakes: readonly Mistake[] } {
  const files = new Map<string, string>();
  const mistakes: Mistake[] = [];
  for (const [path, { setting, raw, place }] of valid) {
    if (setting.kind !== "file" || typeof raw !== "string" || readFile === undefined) continue;
    const mistake = (problem: string) => mistakes.push({ ...place(), key: path, problem, allowed: null });
    try {
      const text = readFile(raw);
      if (text.includes("-----BEGIN ")) files.set(path, text);
      else mistake(`${raw} is not in PEM form (there is no line -----BEGIN …)`);
    } catch (error) {
      mistake(`${raw} cannot be read: ${messageOf(error)}`);
    }
  }
  return { files, mistakes };
}

/** The configuration made of the valid values, defaults for the rest. */
function build(valid: ReadonlyMap<string, Given>): Config {
  const tree: Record<string, Record<string, unknown> | unknown> = {};
  for (const [path, given] of valid) {
    const [first = "", second] = path.split(".");
    if (second === undefined) tree[first] = given.raw;
    else tree[first] = { ...(tree[first] as Record<string, unknown> | undefined), [second]: given.raw };
  }
  const result = configSchema.safeParse(tree);
  assert(result.success, "values that are valid alone must be valid together");
  return result.data;
}

function missingNodes(file: ConfigInput["file"]): Mistake {
  const problem =
    file === null
      ? "not given: use --nodes, HOLDFAST_NODES, or a file with --config (or give sentinel.nodes)"
      : "not given: add it, or sentinel.nodes, or use --nodes or HOLDFAST_NODES";
  const setting = SETTINGS.find(({ path }) => path === "nodes");
  const where = file?.name ?? "command line";
  return { where, key: "nodes", problem, allowed: setting?.allowed ?? null, order: 0 };
}

/** Points at the first of the settings that was given somewhere: defaults alone never disagree. */
function mistakeOf(finding: Finding, valid: ReadonlyMap<string, Given>): Mistake {
  const [first] = finding.settings;
  const pointed = finding.settings.find((path) => valid.has(path)) ?? first;
  const given = valid.get(pointed);
  const item =
    finding.item === undefined ? undefined : ((valid.get(first)?.items ?? [])[finding.item] ?? finding.item);
  const key = item === undefined ? first : `${first}[${item}]`;
  const place = given?.place(pointed === first ? item : undefined) ?? { where: "defaults", order: 0 };
  return { ...place, key, problem: finding.problem, allowed: null };
}
