import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { isMap, parseDocument } from "yaml";
import { loadConfig } from "../../../src/config/load.ts";
import { configWith, SETTINGS } from "../../../src/config/schema.ts";

const text = readFileSync(new URL("../../../conf/holdfast.yaml", import.meta.url), "utf8");
/** Settings without a default stand in it as a comment. */
const OPTIONAL = [
  ...["upstream.username", "upstream.password", "failover.stateFile"],
  ...["sentinel.name", "sentinel.nodes", "sentinel.username", "sentinel.password"],
  ...["reads.prefer", "reads.weights"],
  ...["sentinel.tlsCa", "sentinel.tlsCert", "sentinel.tlsKey"],
];

/** Every path to a value in a YAML text. */
function pathsIn(yaml: string): string[] {
  const paths: string[] = [];
  const walk = (node: unknown, path: string): void => {
    if (!isMap(node)) return void paths.push(path);
    for (const pair of node.items) walk(pair.value, path === "" ? `${pair.key}` : `${path}.${pair.key}`);
  };
  walk(parseDocument(yaml).contents, "");
  return paths;
}

describe("conf/holdfast.yaml", () => {
  it("is valid and its values are the defaults", () => {
    const result = loadConfig({ file: { name: "holdfast.yaml", text }, env: {}, flags: {} });
    if (!result.ok) throw new Error(result.report);
    const { listen, nodes, ...rest } = result.config;
    const { listen: _listen, nodes: _nodes, ...defaults } = configWith({ nodes: ["a:1"] });
    expect(rest).toEqual(defaults);
    expect(nodes).toHaveLength(3);
    expect(listen).toHaveLength(1);
  });

  it("has every key once, in the order of the schema, and nothing else", () => {
    const keys = [...new Set(OPTIONAL.map((path) => path.split(".").at(-1)))].join("|");
    const uncommented = text.replaceAll(new RegExp(`^( *)# (${keys}): `, "gm"), "$1$2: ");
    expect(pathsIn(uncommented)).toEqual(SETTINGS.map((setting) => setting.path));
    expect(pathsIn(text)).toEqual(
      SETTINGS.map((setting) => setting.path).filter((path) => !OPTIONAL.includes(path)),
    );
  });

  it("is valid with its commented settings, too", () => {
    const sentinel = text.slice(text.indexOf("\nsentinel:\n"), text.indexOf("\nreads:\n"));
    const settings = sentinel
      .replaceAll(/^( *)# (?=\w+: \S)/gm, "$1")
      .replace("tls: off", "tls: on")
      .replaceAll(/^ {2}nodes: .*$/gm, "  nodes: [127.0.0.1:26379]");
    const readFile = () => "-----BEGIN CERTIFICATE-----";
    const result = loadConfig({ file: { name: "a.yaml", text: settings }, env: {}, flags: {}, readFile });
    if (!result.ok) throw new Error(result.report);
    expect(result.config.sentinel).toMatchObject({ name: "mymaster", nodes: ["127.0.0.1:26379"], tls: "on" });
    expect([...result.files.keys()]).toEqual(["sentinel.tlsCa", "sentinel.tlsCert", "sentinel.tlsKey"]);
  });

  it("writes every default as the schema writes it", () => {
    for (const setting of SETTINGS) {
      if (setting.default === null) continue;
      const key = setting.path.split(".").at(-1);
      expect(text, setting.path).toMatch(new RegExp(`^ *${key}: ${setting.default}$`, "m"));
    }
  });

  it("names the range of every quantity", () => {
    for (const { path, kind, allowed } of SETTINGS) {
      if (kind !== "duration" && kind !== "size" && kind !== "count") continue;
      const range = /(\w+ to \w+),/.exec(allowed)?.[1] ?? "";
      expect(commentAbove(path), path).toContain(range);
    }
  });
});

describe("what is commented out of conf/holdfast.yaml about reads", () => {
  it("is valid", () => {
    const reads = text
      .slice(text.indexOf("\nreads:\n"), text.indexOf("\n# Subscriptions of all"))
      .replaceAll(/^( *)# (?=(?:prefer|weights): )/gm, "$1");
    const result = loadConfig({ file: { name: "a.yaml", text: `nodes: [a:1]${reads}` }, env: {}, flags: {} });
    if (!result.ok) throw new Error(result.report);
    expect(result.config.reads.prefer).toEqual(["127.0.0.1:6381"]);
    expect(result.config.reads.weights).toEqual([
      { node: "127.0.0.1:6381", weight: 2 },
      { node: "127.0.0.1:6382", weight: 1 },
    ]);
  });
});

describe("the short examples", () => {
  it.each(["self", "sentinel"] as const)("conf/%s.yaml is valid and says who promotes", (mode) => {
    const short = readFileSync(new URL(`../../../conf/${mode}.yaml`, import.meta.url), "utf8");
    const result = loadConfig({ file: { name: `${mode}.yaml`, text: short }, env: {}, flags: {} });
    if (!result.ok) throw new Error(result.report);
    expect(result.config.failover.promote).toBe(mode);
    expect(result.config.failover.stateFile).toBeDefined();
  });
});

/** The comment lines right above a key, as one text. */
function commentAbove(path: string): string {
  const [group = "", key = ""] = path.split(".");
  const lines = text.split("\n");
  const start = lines.findIndex((line) => line.startsWith(`${group}:`));
  const at = lines.findIndex((line, index) => index > start && line.startsWith(`  ${key}: `));
  let first = at;
  while (lines[first - 1]?.startsWith("  #")) first--;
  return lines
    .slice(first, at)
    .map((line) => line.replace("#", "").trim())
    .join(" ");
}
