import { describe, expect, it } from "vitest";
import type { Command } from "../../../src/commands/command.ts";
import { encodeRequest } from "../../../src/resp/encode.ts";
import type { OnUnknown, RequestClass } from "../../../src/routing/outcome.ts";
import { classOf, isPausable } from "../../../src/session/request-class.ts";
import { Chunk } from "../../../src/upstream/chunk.ts";
import { type Bond, NOBODY, Request, type UnitFacts } from "../../../src/upstream/request.ts";
import { commandOf } from "./lanes.ts";

/** A request of these words as it is sent. */
function requestOf(line: string, bond: Bond = "none", unit: UnitFacts | null = null): Request {
  const words = line.split(" ");
  const bytes = encodeRequest(words);
  const command: Command = commandOf(words[0]?.toLowerCase() ?? "");
  const chunk = new Chunk(bytes, false);
  const request = new Request(NOBODY, command, command.plainKind, chunk, 0, bytes.length, 1);
  request.bond = bond;
  request.unit = unit;
  return request;
}

const ANSWERS_MS = 100;

function unitWith(facts: Partial<UnitFacts>): UnitFacts {
  return { isIdempotent: false, mayReplicate: false, ...facts };
}

describe("what a request is for the rules", () => {
  it.each<[line: string, policy: OnUnknown, found: RequestClass]>([
    ["GET k", "error", "read"],
    ["SET k v", "error", "write"],
    ["SET k v", "retry-all", "write"],
    ["SET k v", "retry-idempotent", "idempotent"],
    ["INCR k", "retry-idempotent", "write"],
    ["EVAL x 0", "retry-idempotent", "script"],
    ["PUBLISH c x", "retry-idempotent", "publish"],
    ["SPUBLISH c x", "error", "publish"],
  ])("%s with onUnknown %s: %s", (line, policy, found) => {
    expect(classOf(requestOf(line), policy, 0, ANSWERS_MS)).toBe(found);
  });

  it.each<[line: string, bond: Bond, waitedMs: number, found: RequestClass]>([
    ["WATCH k", "watch", 0, "watch"],
    ["EXEC", "watched", 0, "watched"],
    ["SHUTDOWN", "node", 0, "node"],
    ["BLPOP k 0", "blocking", 0, "call"],
    ["BLPOP k 0", "blocking", ANSWERS_MS, "call"],
    ["BLPOP k 0", "blocking", ANSWERS_MS + 1, "waiting-call"],
  ])("%s tied by %s, unanswered for %i ms: %s", (line, bond, waitedMs, found) => {
    expect(classOf(requestOf(line, bond), "error", waitedMs, ANSWERS_MS)).toBe(found);
  });

  it.each<[facts: UnitFacts | null, found: RequestClass]>([
    [null, "transaction"],
    [unitWith({}), "transaction"],
    [unitWith({ isIdempotent: true }), "idempotent"],
  ])("EXEC of %j: %s", (facts, found) => {
    expect(classOf(requestOf("EXEC", "none", facts), "retry-idempotent", 0, ANSWERS_MS)).toBe(found);
  });

  it("a write of which more is sent than the client asked is not looked at as it came", () => {
    const request = requestOf("SET k v");
    request.replyCount = 2;
    expect(classOf(request, "retry-idempotent", 0, ANSWERS_MS)).toBe("write");
  });
});

describe("a server that has stopped writing", () => {
  it.each<[line: string, facts: UnitFacts | null, found: boolean]>([
    ["SET k v", null, true],
    ["PUBLISH c x", null, true],
    ["GET k", null, false],
    ["NOSUCHCOMMAND k", null, false],
    ["EXEC", null, false],
    ["EXEC", unitWith({ mayReplicate: true }), true],
    ["EXEC", unitWith({}), false],
  ])("%s of %j does not run there: %s", (line, facts, found) => {
    expect(isPausable(requestOf(line, "none", facts))).toBe(found);
  });
});
