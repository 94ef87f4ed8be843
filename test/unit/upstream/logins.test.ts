import { describe, expect, it } from "vitest";
import { Logins, losesWrongLogins } from "../../../src/upstream/logins.ts";

type Answer = (reply: Buffer | null) => void;

/** Connections by name, what each of them was asked, and who is to be answered. */
class Scene {
  lane: string | null = "a";
  isOneByOne = true;
  readonly asked: string[] = [];
  readonly told: string[] = [];
  readonly forsaken: string[] = [];
  private readonly open: Answer[] = [];
  private readonly logins = new Logins<string>({
    lane: () => this.lane,
    ask: (lane, args, answer) => {
      this.asked.push(`${lane}: ${args.join(" ")}`);
      this.open.push(answer);
    },
    forsake: (lane) => this.forsaken.push(lane),
    isOneByOne: () => this.isOneByOne,
  });

  check(name: string, isWanted = () => true): void {
    this.logins.check({
      credentials: [Buffer.from(name)],
      isWanted,
      answer: (reply) => this.told.push(`${name}: ${reply?.toString() ?? "nobody"}`),
    });
  }

  /** The oldest question that was asked gets its answer. */
  reply(text: string | null): void {
    this.open.shift()?.(text === null ? null : Buffer.from(text));
  }
}

describe("logins one by one", () => {
  it("a connection has one at a time, in order, each with its own answer", () => {
    const scene = new Scene();
    for (const name of ["x", "y", "z"]) scene.check(name);
    expect(scene.asked).toEqual(["a: AUTH x"]);
    scene.reply("1");
    expect(scene.asked).toEqual(["a: AUTH x", "a: AUTH y"]);
    scene.reply("2");
    scene.reply("3");
    expect(scene.told).toEqual(["x: 1", "y: 2", "z: 3"]);
  });

  it("what is lost is lost for all that waited behind it, and the connection is used no more", () => {
    const scene = new Scene();
    for (const name of ["x", "y", "z"]) scene.check(name);
    scene.reply(null);
    expect(scene.told).toEqual(["x: nobody", "y: nobody", "z: nobody"]);
    expect([scene.forsaken, scene.asked]).toEqual([["a"], ["a: AUTH x"]]);
    scene.lane = "b";
    scene.check("x");
    expect(scene.asked.at(-1)).toBe("b: AUTH x");
  });

  it("where there is another connection they do not wait for the one before", () => {
    const scene = new Scene();
    scene.check("x");
    scene.check("y");
    scene.lane = "b";
    scene.check("z");
    expect(scene.asked).toEqual(["a: AUTH x", "b: AUTH y"]);
    // The late answer of the old one does not make the new one free, nor does its loss concern others.
    scene.reply(null);
    expect([scene.asked, scene.told]).toEqual([["a: AUTH x", "b: AUTH y"], ["x: nobody"]]);
    scene.reply("2");
    expect([scene.told, scene.asked.at(-1)]).toEqual([["x: nobody", "y: 2"], "b: AUTH z"]);
  });

  it("without a connection nobody answers, and all are told at once", () => {
    const scene = new Scene();
    scene.lane = null;
    scene.check("x");
    scene.check("y");
    expect(scene.told).toEqual(["x: nobody", "y: nobody"]);
  });

  it("those that nobody wants any more are not asked, and not kept while the server does not answer", () => {
    const scene = new Scene();
    scene.check("x");
    let looked = 0;
    const isWanted = (): boolean => {
      looked++;
      return false;
    };
    for (let i = 0; i < 10_000; i++) scene.check(`gone ${i}`, isWanted);
    scene.check("y");
    // Each of them was looked at when it had been forgotten, or is one of the last thousand.
    const before = looked;
    expect(before).toBeGreaterThan(9_000);
    scene.reply("1");
    expect(looked - before).toBeLessThan(1_000);
    expect(scene.asked).toEqual(["a: AUTH x", "a: AUTH y"]);
  });

  it("where every login is answered they are asked one behind the other", () => {
    const scene = new Scene();
    scene.isOneByOne = false;
    scene.check("x");
    scene.check("y");
    expect(scene.asked).toEqual(["a: AUTH x", "a: AUTH y"]);
    scene.reply("1");
    scene.reply(null);
    expect(scene.told).toEqual(["x: 1", "y: nobody"]);
  });
});

it.each([
  ["redis", "6.0.16", false],
  ["redis", "7.0.15", false],
  ["redis", "7.2.0", true],
  ["redis", "8.0.6", true],
  ["valkey", "8.1.1", true],
  ["valkey", "9.1.2", false],
] as const)("%s %s: a wrong login behind another reply gets none: %s", (server, version, expected) => {
  expect(losesWrongLogins({ server, version })).toBe(expected);
});
