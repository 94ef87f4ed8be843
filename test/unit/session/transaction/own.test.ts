import { expect, it } from "vitest";
import { losesWrongLogins } from "../../../../src/session/transaction/own.ts";

it.each([
  ["redis", "6.2.14", false],
  ["redis", "7.0.15", false],
  ["redis", "7.2.4", true],
  ["redis", "8.0.6", true],
  ["redis", "10.0.0", true],
  ["valkey", "7.2.4", false],
  ["valkey", "9.1.2", false],
  ["redis", "0.0.0", false],
])(
  "a wrong login within a transaction may get no reply at all from %s %s: %s",
  (server, version, expected) => {
    expect(losesWrongLogins({ server, version })).toBe(expected);
  },
);

it("nothing is said of a server that has not been met", () => expect(losesWrongLogins(null)).toBe(false));
