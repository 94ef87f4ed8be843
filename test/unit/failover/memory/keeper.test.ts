import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Keeper, type KeeperOptions, type Known } from "../../../../src/failover/memory/keeper.ts";
import type { NodeId } from "../../../../src/topology/epoch.ts";
import { type Belief, FIRST_BELIEF } from "../../../../src/topology/rules/model.ts";
import { at, hex } from "../../topology/nodes.ts";
import { masterAt, sight } from "../sight.ts";

const SEEDS: readonly NodeId[] = [at("a"), at("b")];

let dir: string;
let file: string;
/** Level and message of each line. */
let lines: string[];
const keepers: Keeper[] = [];

beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), "holdfast-keeper-"));
  file = path.join(dir, "state.json");
  lines = [];
});

afterEach(async () => {
  for (const keeper of keepers.splice(0)) keeper.destroy();
  await rm(dir, { recursive: true, force: true });
});

function keeper(options: Partial<KeeperOptions> = {}): Keeper {
  const line = (level: string) => (_: object, message: string) => void lines.push(`${level} ${message}`);
  const log = { debug: line("debug"), info: line("info"), warn: line("warn") };
  const clock = { nowMs: () => 0, wallMs: () => 1_700_000_000_000 };
  const one = new Keeper({ path: file, seeds: SEEDS, clock, log, everyMs: 3_600_000, ...options });
  keepers.push(one);
  return one;
}

/** What the watcher believes when `name` is the master. */
function known(name = "a", epoch = 1): Known {
  const views = [masterAt(name, 1_000)];
  const group = sight(views, { of: name, epoch });
  const belief: Belief = { ...FIRST_BELIEF, epoch: group.epoch, master: group.master };
  return { belief: () => belief, views: () => views };
}

async function saved(): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
}

describe("without a state file", () => {
  it("nothing is recalled, written or wrong", async () => {
    const one = keeper({ path: undefined });
    one.start(known());
    one.remember();
    await one.close();
    expect([one.belief, one.members, one.problems(), lines]).toEqual([undefined, [], [], []]);
    await expect(readFile(file)).rejects.toThrow(/ENOENT/);
  });
});

describe("with a state file", () => {
  it("what one process knew at its end, the next one begins with", async () => {
    const first = keeper();
    expect(first.belief).toBeUndefined();
    first.start(known("a", 4));
    await first.close();
    expect(await saved()).toMatchObject({ epoch: 4, savedAtMs: 1_700_000_000_000 });
    const second = keeper();
    expect(second.belief).toMatchObject({
      epoch: { number: 4, master: at("a"), holdCause: "no-master-yet" },
      master: { id: at("a"), replid: hex("H1"), samples: [] },
    });
    expect(second.members).toEqual([at("a")]);
    expect(lines).toEqual(["info the group is remembered"]);
  });

  it("nothing is written before a master is found, nor again what stands there", async () => {
    const texts: string[] = [];
    const write = async (_: string, text: string) => void texts.push(text);
    const one = keeper({ write });
    one.remember();
    one.start({ belief: () => FIRST_BELIEF, views: () => [] });
    one.remember();
    expect(texts).toEqual([]);
    one.start(known("a", 1));
    one.remember();
    one.remember();
    expect(texts).toHaveLength(1);
    one.start(known("b", 2));
    await one.close();
    expect(texts).toHaveLength(2);
    expect(texts[1]).toContain('"epoch": 2');
    one.remember();
    expect(texts).toHaveLength(2);
  });

  it.each([
    ["that makes no sense", "{", "it is not JSON"],
    ["of other nodes", null, "it is about other nodes than those configured"],
  ])("one %s is not used, which is said", async (_, text, error) => {
    const said: object[] = [];
    const first = keeper();
    first.start(known());
    await first.close();
    if (text !== null) await writeFile(file, text);
    const log = { debug: () => {}, info: () => {}, warn: (fields: object) => void said.push(fields) };
    const seeds = text === null ? [at("y"), at("z")] : SEEDS;
    const second = keeper({ log, seeds });
    expect(second.belief).toBeUndefined();
    expect(said).toEqual([{ stateFile: file, error }]);
  });

  it("a disk that fails is a problem until it works, and then gets what it missed", async () => {
    let isFull = true;
    const texts: string[] = [];
    const write = async (_: string, text: string) => {
      if (isFull) throw new Error("ENOSPC");
      texts.push(text);
    };
    const one = keeper({ write });
    one.start(known());
    one.remember();
    await expect.poll(() => one.problems()).toEqual(["state-file-not-written : ENOSPC"]);
    isFull = false;
    await one.close();
    expect([one.problems(), texts.length]).toEqual([[], 1]);
    expect(lines).toEqual([
      "warn the state file cannot be written: a restart forgets the group",
      "info the state file is written again",
    ]);
  });
});
