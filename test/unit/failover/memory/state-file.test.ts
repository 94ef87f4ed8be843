import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readStateFile, replaceFile, StateFile } from "../../../../src/failover/memory/state-file.ts";

let dir: string;
let file: string;

beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), "holdfast-state-"));
  file = path.join(dir, "state.json");
});

afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

describe("reading", () => {
  it("gives the text, or says that there is none", async () => {
    expect(readStateFile(file, 10)).toEqual({ kind: "none" });
    await writeFile(file, "0123456789");
    expect(readStateFile(file, 10)).toEqual({ kind: "text", text: "0123456789" });
  });

  it("refuses what is too long, no file, or behind a file", async () => {
    await writeFile(file, "01234567890");
    expect(readStateFile(file, 10)).toEqual({ kind: "error", error: "it has 11 bytes" });
    expect(readStateFile(dir, 10)).toEqual({ kind: "error", error: "it is not a file" });
    const inside = readStateFile(path.join(file, "state.json"), 10);
    expect(inside).toMatchObject({ kind: "error", error: expect.stringContaining("ENOTDIR") });
    await symlink("itself", path.join(dir, "itself"));
    expect(readStateFile(path.join(dir, "itself"), 10)).toMatchObject({ kind: "error" });
  });
});

describe("replacing", () => {
  it("leaves the new text, for its owner only, and nothing else", async () => {
    await replaceFile(file, "one");
    await replaceFile(file, "two");
    expect(await readFile(file, "utf8")).toBe("two");
    expect(await readdir(dir)).toEqual(["state.json"]);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  it("that fails leaves the text of before, and no half of the new one", async () => {
    await replaceFile(file, "one");
    // A folder where the temporary file goes: nobody, root included, can write that.
    await mkdir(`${file}.tmp`);
    await expect(replaceFile(file, "two")).rejects.toThrow(/EISDIR/);
    expect(await readFile(file, "utf8")).toBe("one");
    await rm(`${file}.tmp`, { recursive: true });
    await chmod(file, 0o400);
    await replaceFile(file, "three");
    expect(await readFile(file, "utf8")).toBe("three");
  });
});

/** Writes that end when they are told to. */
class Disk {
  readonly begun: string[] = [];
  readonly #ends: ((error: Error | null) => void)[] = [];

  readonly write = (_path: string, text: string): Promise<void> => {
    this.begun.push(text);
    return new Promise((resolve, reject) => {
      this.#ends.push((error) => (error === null ? resolve() : reject(error)));
    });
  };

  async end(error: Error | null = null): Promise<void> {
    this.#ends.shift()?.(error);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("saving", () => {
  it("has one write under way, and writes the newest of what came meanwhile", async () => {
    const disk = new Disk();
    const one = new StateFile(file, { onProblem: () => {} }, disk.write);
    for (const text of ["1", "2", "3"]) one.save(text);
    expect(disk.begun).toEqual(["1"]);
    let flushed = false;
    const flush = one.flush().then(() => {
      flushed = true;
    });
    await disk.end();
    expect(disk.begun).toEqual(["1", "3"]);
    expect(flushed).toBe(false);
    await disk.end();
    await flush;
    one.save("4");
    expect(disk.begun).toEqual(["1", "3", "4"]);
    await disk.end();
  });

  it("tells a failure once, and once that it is over", async () => {
    const disk = new Disk();
    const told: (string | null)[] = [];
    const one = new StateFile(file, { onProblem: (error) => told.push(error) }, disk.write);
    expect(one.problem).toBeNull();
    for (const text of ["1", "2"]) {
      one.save(text);
      await disk.end(new Error("no space"));
    }
    expect(told).toEqual(["no space"]);
    expect(one.problem).toBe("no space");
    one.save("3");
    await disk.end();
    expect(told).toEqual(["no space", null]);
    expect(one.problem).toBeNull();
    await one.flush();
  });

  it("never rejects where there is no folder", async () => {
    const told: (string | null)[] = [];
    const one = new StateFile(path.join(dir, "none", "state"), { onProblem: (error) => told.push(error) });
    one.save("text");
    await one.flush();
    expect(told).toEqual([expect.stringContaining("ENOENT")]);
  });
});
