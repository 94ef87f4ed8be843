import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { packageVersion, parseCli } from "../../src/cli.ts";

const FILES: Record<string, string> = {
  "good.yaml": "nodes: [127.0.0.1:6380]\nhttp: off\nlog: { level: warn }\n",
  "bad.yaml": "nodes: [127.0.0.1:6380]\nhold: { maxTime: 3 }\nx: 1\n",
};

function cli(line: string, env: Record<string, string> = {}) {
  return parseCli(line === "" ? [] : line.split(" "), env, (path) => {
    const text = FILES[path];
    if (text === undefined) throw new Error(`ENOENT: no such file, open '${path}'`);
    return text;
  });
}

function runs(line: string, env: Record<string, string> = {}) {
  const result = cli(line, env);
  if (result.kind !== "run") throw new Error(result.text);
  return result.config;
}

function refused(line: string, env: Record<string, string> = {}): string {
  const result = cli(line, env);
  if (result.kind === "run") throw new Error("it would run");
  expect(result.exitCode).toBe(2);
  return result.text;
}

describe("running", () => {
  it("with a file", () => {
    expect(runs("--config good.yaml")).toMatchObject({ http: null, nodes: ["127.0.0.1:6380"] });
    expect(runs("--config=good.yaml")).toEqual(runs("-c good.yaml"));
  });

  it("with addresses only", () => {
    const config = runs("--listen 127.0.0.1:1 --nodes 127.0.0.1:2,127.0.0.1:3 --http 127.0.0.1:4");
    expect(config).toMatchObject({
      listen: [{ host: "127.0.0.1", port: 1 }],
      nodes: ["127.0.0.1:2", "127.0.0.1:3"],
      http: { host: "127.0.0.1", port: 4 },
    });
  });

  it("flags that are lists may be repeated", () => {
    expect(runs("--nodes a:1 --nodes b:2,c:3").nodes).toEqual(["a:1", "b:2", "c:3"]);
  });

  it("flags win over the environment, the environment over the file", () => {
    const env = { HOLDFAST_LOG_LEVEL: "error", HOLDFAST_NODES: "b:2" };
    const config = runs("-c good.yaml --log-level debug", env);
    expect([config.log.level, config.nodes]).toEqual(["debug", ["b:2"]]);
  });

  it("the file may be named by HOLDFAST_CONFIG, which --config overrides", () => {
    expect(runs("", { HOLDFAST_CONFIG: "good.yaml" }).log.level).toBe("warn");
    expect(refused("-c bad.yaml", { HOLDFAST_CONFIG: "good.yaml" })).toContain("bad.yaml");
  });
});

describe("check", () => {
  it("of a valid file exits 0 and says so", () => {
    expect(cli("check --config good.yaml")).toEqual({
      kind: "check",
      text: "holdfast: good.yaml is valid\n",
      exitCode: 0,
    });
    expect(cli("--config good.yaml check")).toMatchObject({ kind: "check", exitCode: 0 });
  });

  it("of a mistaken file exits 2 with every mistake", () => {
    const result = cli("check --config bad.yaml");
    expect(result).toMatchObject({ kind: "check", exitCode: 2 });
    const text = result.kind === "check" ? result.text : "";
    expect(text).toContain("2 mistakes");
    expect(text).toContain("bad.yaml:2:18: hold.maxTime");
    expect(text).toContain("bad.yaml:3:1: x: unknown key");
  });
});

describe("mistakes on the command line", () => {
  it("stand in the same report as those of the file", () => {
    const text = refused("check -c bad.yaml --htpp off");
    expect(text).toContain("3 mistakes");
    expect(text).toContain("--htpp: unknown option, did you mean --http?");
    expect(text).toContain("bad.yaml:3:1");
  });

  it.each([
    ["--http", "--http: needs a value"],
    ["--config --http off", "--config: needs a value"],
    ["--listen=", "--listen: needs a value"],
    ["--help=yes", "--help: takes no value"],
    ["chekc", "unknown command, did you mean check?"],
    ["--nodes a:1 extra", "argument 3: not expected here"],
    ["--nodes a", '--nodes: nodes[0]: "a" has no port'],
    ["-c nowhere.yaml", "nowhere.yaml: cannot be read: ENOENT"],
    ["", "use --nodes, HOLDFAST_NODES, or a file with --config"],
  ])("%j: %s", (line, words) => {
    expect(refused(line)).toContain(words);
  });

  it("a file that cannot be read is one mistake, not also missing nodes", () => {
    expect(refused("-c nowhere.yaml")).toContain("1 mistake ");
  });

  it("the value of an unknown option is not repeated", () => {
    expect(refused("--password=s77123 --nodes a:1")).not.toContain("77123");
    expect(refused("--password s77123 --nodes a:1")).not.toContain("77123");
  });
});

describe("asking", () => {
  it.each(["--help", "-h", "check --help", "--help --nonsense"])("%s shows every option", (line) => {
    const result = cli(line);
    expect(result).toMatchObject({ kind: "text", exitCode: 0 });
    const text = result.kind === "text" ? result.text : "";
    for (const word of ["check", "--config", "--listen", "--nodes", "--http", "--log-level", "--version"]) {
      expect(text).toContain(word);
    }
    expect(Math.max(...text.split("\n").map((one) => one.length))).toBeLessThanOrEqual(110);
  });

  it("--version is the one of package.json", () => {
    const about = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
    expect(cli("--version")).toEqual({ kind: "text", text: `holdfast ${about.version}\n`, exitCode: 0 });
    expect(packageVersion()).toBe(about.version);
  });
});
