import { describe, expect, it } from "vitest";
import { consistencyOf } from "../../../src/session/consistency.ts";

describe("a consistency as a client writes it", () => {
  it.each([
    ["session", "session"],
    ["EVENTUAL", "eventual"],
    ["Strong", "strong"],
    ["default", "strong"],
    ["DEFAULT", "strong"],
    ["", null],
    ["sessions", null],
    ["strong ", null],
    ["0", null],
  ] as const)("%j is %j where the configuration says strong", (word, expected) => {
    expect(consistencyOf(word, "strong")).toBe(expected);
  });
});
