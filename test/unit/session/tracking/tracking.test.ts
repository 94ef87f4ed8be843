import { expect, it } from "vitest";
import { trackingOptions } from "../../../../src/session/tracking/tracking.ts";

const NONE = { isOn: true, flags: [], prefixes: [], redirectId: null, redirectAt: -1 };

it.each([
  ["ON", NONE],
  ["off", { ...NONE, isOn: false }],
  ["on\0xyz", NONE],
  ["maybe", { ...NONE, isOn: false }],
  ["ON BCAST NoLoop OPTIN optout what", { ...NONE, flags: ["bcast", "noloop", "optin", "optout", "what"] }],
  ["ON PREFIX redirect PREFIX prefix", { ...NONE, prefixes: ["redirect", "prefix"] }],
  ["ON PREFIX", { ...NONE, flags: ["prefix"] }],
  ["ON REDIRECT", { ...NONE, flags: ["redirect"] }],
  [
    "ON BCAST REDIRECT 7 PREFIX a",
    { ...NONE, flags: ["bcast"], prefixes: ["a"], redirectId: 7, redirectAt: 5 },
  ],
  ["ON REDIRECT 7 REDIRECT 8", { ...NONE, redirectId: 7, redirectAt: 4 }],
  ["ON REDIRECT -7", { ...NONE, redirectId: -7, redirectAt: 4 }],
  ["ON REDIRECT 0x7", NONE],
  ["ON REDIRECT +7", NONE],
  ["ON REDIRECT 07", NONE],
  ["ON REDIRECT 7.0", NONE],
  ["ON REDIRECT 9223372036854775808", NONE],
])("28: CLIENT TRACKING %j is read as the server reads it", (words, expected) => {
  const args = ["CLIENT", "TRACKING", ...words.split(" ")].map((word) => Buffer.from(word));
  const options = trackingOptions(args);
  expect({ ...options, prefixes: options.prefixes.map(String) }).toEqual(expected);
});
