import { describe, expect, it } from "vitest";
import {
  type Address,
  addressOf,
  formatAddress,
  listenersCollide,
  nodeIdOf,
  parseAddress,
  reachesListener,
} from "../../../src/config/address.ts";

function address(text: string): Address {
  const parsed = parseAddress(text, "listen");
  if (!parsed.ok) throw new Error(parsed.problem);
  return parsed.value;
}

describe("addresses", () => {
  it.each([
    ["127.0.0.1:6379", { host: "127.0.0.1", port: 6379 }],
    ["Redis-1.Example.COM:1", { host: "redis-1.example.com", port: 1 }],
    ["redis_master:6379", { host: "redis_master", port: 6379 }],
    ["[::1]:65535", { host: "::1", port: 65_535 }],
  ])("%s is read", (text, value) => {
    expect(parseAddress(text, "dial")).toEqual({ ok: true, value });
  });

  it.each([
    ["127.0.0.1", "no port"],
    ["6379", "no host"],
    [":6379", "no valid host"],
    ["::1:6379", "brackets"],
    ["[zz::1]:6379", "no valid host"],
    ["[127.0.0.1]:6379", "no valid host"],
    ["300.0.0.1:6379", "no valid host"],
    ["a b:6379", "no valid host"],
    ["host:65536", "not between 1 and 65535"],
    ["host:0", "not between 1 and 65535"],
    ["redis://host:6379", "scheme"],
    ["host:6379/0", "no port"],
    ["", "empty"],
  ])("%j is refused: %s", (text, words) => {
    const parsed = parseAddress(text, "dial");
    expect(parsed.ok).toBe(false);
    expect(!parsed.ok && parsed.problem).toContain(words);
  });

  it("port 0 is any free port where something listens", () => {
    expect(parseAddress("127.0.0.1:0", "listen").ok).toBe(true);
  });

  it("an address with a password in it is refused without repeating it", () => {
    const parsed = parseAddress("redis://:hunter2@host:6379", "dial");
    expect(parsed.ok).toBe(false);
    expect(JSON.stringify(parsed)).not.toContain("hunter2");
  });

  it.each(["127.0.0.1:6379", "[::1]:6379", "host:1"])("%s as a node id keeps host and port", (text) => {
    expect(formatAddress(address(text))).toBe(text);
    expect(addressOf(nodeIdOf(address(text)))).toEqual(address(text));
  });

  it.each([
    ["127.0.0.1:1", "127.0.0.1:1", true],
    ["localhost:1", "127.0.0.1:1", true],
    ["0.0.0.0:1", "10.0.0.1:1", true],
    ["10.0.0.2:1", "10.0.0.1:1", false],
    ["127.0.0.1:1", "127.0.0.1:2", false],
    ["127.0.0.1:0", "127.0.0.1:0", false],
  ])("listeners %s and %s collide: %s", (one, other, collide) => {
    expect(listenersCollide(address(one), address(other))).toBe(collide);
    expect(listenersCollide(address(other), address(one))).toBe(collide);
  });

  it.each([
    ["127.0.0.1:1", "localhost:1", true],
    ["0.0.0.0:1", "127.0.0.1:1", true],
    ["[::]:1", "[::1]:1", true],
    ["0.0.0.0:6379", "10.0.0.9:6379", false],
    ["127.0.0.1:1", "127.0.0.1:2", false],
  ])("a listener on %s is reached by dialling %s: %s", (listener, node, reached) => {
    expect(reachesListener(address(listener), address(node))).toBe(reached);
  });
});
