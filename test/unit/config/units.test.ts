import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatDuration, formatSize, parseDuration, parseSize } from "../../../src/config/units.ts";

const ok = (value: number) => ({ ok: true, value });

describe("durations", () => {
  it.each([
    ["250ms", 250],
    ["3s", 3_000],
    ["5m", 300_000],
    ["1h", 3_600_000],
    [" 1s ", 1_000],
    ["0", 0],
    ["0s", 0],
    [0, 0],
  ])("%j is %d ms", (text, ms) => {
    expect(parseDuration(text)).toEqual(ok(ms));
  });

  it.each([
    [30, "30 has no unit (ms, s, m or h)"],
    ["30", '"30" has no unit (ms, s, m or h)'],
    ["-3s", '"-3s" is negative'],
    ["1.5s", '"1.5s" is not a whole number: use a smaller unit'],
    ["3 s", '"3 s" has an unknown unit or a space in it'],
    ["3d", '"3d" has an unknown unit or a space in it'],
    ["5M", '"5M" has an unknown unit or a space in it'],
    ["soon", '"soon" is not a duration'],
    ["", "it is empty"],
    ["99999999999999999h", '"99999999999999999h" is too large a number'],
    [true, "true/false is not a duration"],
    [["3s"], "a list is not a duration"],
    [null, "an empty value is not a duration"],
  ])("%j is refused: %s", (text, problem) => {
    expect(parseDuration(text)).toEqual({ ok: false, problem });
  });

  it("a formatted duration is read back as the same number of milliseconds", () => {
    fc.assert(
      fc.property(fc.nat(), (ms) => {
        expect(parseDuration(formatDuration(ms))).toEqual(ok(ms));
      }),
    );
  });

  it("is written in the largest unit that loses nothing", () => {
    expect([0, 250, 1_500, 3_000, 60_000, 90_000, 3_600_000].map(formatDuration)).toEqual([
      "0",
      "250ms",
      "1500ms",
      "3s",
      "1m",
      "90s",
      "1h",
    ]);
  });
});

describe("sizes", () => {
  it.each([
    ["64kb", 65_536],
    ["1mb", 1_048_576],
    ["2gb", 2_147_483_648],
    ["2GB", 2_147_483_648],
    ["100", 100],
    ["100b", 100],
    [4096, 4_096],
    [0, 0],
  ])("%j is %d bytes", (text, bytes) => {
    expect(parseSize(text)).toEqual(ok(bytes));
  });

  it.each([
    ["1.5mb", '"1.5mb" is not a whole number: use a smaller unit'],
    ["64 kb", '"64 kb" has an unknown unit or a space in it'],
    ["3tb", '"3tb" has an unknown unit or a space in it'],
    ["-1", '"-1" is negative'],
    [-1, "-1 is not a whole number of bytes"],
    [1.5, "1.5 is not a whole number of bytes"],
    ["much", '"much" is not a size'],
    ["", "it is empty"],
    [{}, "a group of keys is not a size"],
  ])("%j is refused: %s", (text, problem) => {
    expect(parseSize(text)).toEqual({ ok: false, problem });
  });

  it("a formatted size is read back as the same number of bytes", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (bytes) => {
        expect(parseSize(formatSize(bytes))).toEqual(ok(bytes));
      }),
    );
  });
});
