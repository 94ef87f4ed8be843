import { expect, it } from "vitest";
import { nearest } from "../../../src/config/nearest.ts";

const KEYS = ["maxTime", "maxBytes", "maxBytesPerClient", "log", "hold", "http"];

it.each([
  ["maxTiem", "maxTime"],
  ["maxbytes", "maxBytes"],
  ["max_bytes_per_client", "maxBytesPerClient"],
  ["htpp", "http"],
  ["holt", "hold"],
])("%s is taken for %s", (name, meant) => {
  expect(nearest(name, KEYS)).toBe(meant);
});

it.each(["sentinel", "xx", "", "timeoutOfTheWholeThing"])("%j is near nothing", (name) => {
  expect(nearest(name, KEYS)).toBeNull();
});
