import { describe, expect, it } from "vitest";
import { OneByOne } from "../../../src/upstream/one-by-one.ts";

type Answer = (reply: Buffer | null) => void;

/** Connections by name, what each of them was asked, and who is to be answered. */
class Scene {
  lane: string | null = "a";
  readonly asked: string[] = [];
  readonly told: string[] = [];
  private readonly open: Answer[] = [];
  readonly questions = new OneByOne<string>(
    () => this.lane,
    (lane, args, answer) => {
      this.asked.push(`${lane}: ${args.join(" ")}`);
      this.open.push(answer);
    },
  );

  put(name: string): void {
    this.questions.put([name], (reply) => this.told.push(`${name}: ${reply?.toString() ?? "nobody"}`));
  }

  /** The oldest question that was asked gets its answer. */
  reply(text: string | null): void {
    this.open.shift()?.(text === null ? null : Buffer.from(text));
  }
}

describe("questions one by one", () => {
  it("a connection has one at a time, in order, each with its own answer", () => {
    const scene = new Scene();
    for (const name of ["x", "y", "z"]) scene.put(name);
    expect(scene.asked).toEqual(["a: x"]);
    scene.reply("1");
    expect(scene.asked).toEqual(["a: x", "a: y"]);
    scene.reply("2");
    scene.reply("3");
    expect(scene.told).toEqual(["x: 1", "y: 2", "z: 3"]);
  });

  it("a lost connection is nobody's answer to its question, and the next is asked", () => {
    const scene = new Scene();
    scene.put("x");
    scene.put("y");
    scene.lane = "b";
    scene.reply(null);
    expect([scene.told, scene.asked]).toEqual([["x: nobody"], ["a: x", "b: y"]]);
  });

  it("where there is another connection they do not wait for the one before", () => {
    const scene = new Scene();
    scene.put("x");
    scene.put("y");
    scene.lane = "b";
    scene.put("z");
    expect(scene.asked).toEqual(["a: x", "b: y"]);
    // The late answer of the old one does not make the new one free.
    scene.reply("1");
    expect(scene.asked).toEqual(["a: x", "b: y"]);
    scene.reply("2");
    expect([scene.told, scene.asked.at(-1)]).toEqual([["x: 1", "y: 2"], "b: z"]);
  });

  it("without a connection nobody answers, and all are told at once", () => {
    const scene = new Scene();
    scene.lane = null;
    scene.put("x");
    scene.put("y");
    expect(scene.told).toEqual(["x: nobody", "y: nobody"]);
  });
});
