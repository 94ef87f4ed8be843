import { describe, expect, it } from "vitest";
import { READ, WRITE } from "../../../src/commands/command.ts";
import { configWith } from "../../../src/config/schema.ts";
import { requestArgs } from "../../../src/resp/args.ts";
import { encodeRequest } from "../../../src/resp/encode.ts";
import { FRAME, RequestFramer } from "../../../src/resp/request.ts";
import { Freshness } from "../../../src/routing/freshness.ts";
import { slotsOf, slotsOfUnit } from "../../../src/session/slots.ts";
import { EVERYTHING, NOTHING, type Slots } from "../../../src/upstream/request.ts";
import { commandOf } from "./lanes.ts";

type ScriptKeys = "any" | "declared";

const freshness = new Freshness();

function routerWith(scriptKeys: ScriptKeys) {
  return { freshness, config: configWith({ nodes: ["a:1"], listen: "127.0.0.1:0", reads: { scriptKeys } }) };
}

function wordsOf(line: string): Buffer[] {
  return line.split(" ").map((word) => Buffer.from(word));
}

function slotOf(key: string): number {
  return freshness.slotOf(Buffer.from(key), 0, key.length);
}

/** "k l" as the slots of these keys. */
function expected(keys: string): Slots {
  if (keys === "everything") return EVERYTHING;
  if (keys === "nothing") return NOTHING;
  const slots = keys.split(" ").map(slotOf);
  const [first] = slots;
  return slots.length === 1 && first !== undefined ? first : slots;
}

function slots(line: string, scriptKeys: ScriptKeys = "any"): Slots {
  const command = commandOf(line.split(" ")[0] ?? "");
  return slotsOf(routerWith(scriptKeys), command, command.plainKind, wordsOf(line));
}

describe("7: what a write may change", () => {
  it.each([
    ["SET k v EX 10", "k"],
    ["EXPIRE k 1", "k"],
    ["PEXPIREAT k 1", "k"],
    ["PERSIST k", "k"],
    ["MSET k 1 l 2", "k l"],
    ["RENAME k l", "k l"],
    ["COPY k l", "k l"],
    ["MOVE k 1", "k"],
    ["BLPOP k l 0", "k l"],
    ["XREADGROUP GROUP g c STREAMS k l > >", "k l"],
    ["SORT k STORE d", "k d"],
    ["SORT k BY w_* GET v_* STORE d", "everything"],
    ["SORT k", "k"],
    ["SORT k BY w_*", "everything"],
    ["SUNIONSTORE d k l", "d k l"],
    ["EVAL s 1 k", "everything"],
    ["EVALSHA s 1 k", "everything"],
    ["FCALL f 1 k", "everything"],
    ["FUNCTION LOAD x", "everything"],
    ["FUNCTION LIST", "nothing"],
    ["SCRIPT LOAD s", "nothing"],
    ["XGROUP CREATE k g 0", "k"],
    ["XGROUP HELP", "nothing"],
    ["ZUNIONSTORE d x k", "everything"],
    ["FLUSHALL", "everything"],
    ["FLUSHDB", "everything"],
    ["SWAPDB 0 1", "everything"],
    ["DEBUG RELOAD", "everything"],
    ["PUBLISH c m", "nothing"],
    ["CONFIG SET a b", "nothing"],
    ["NOSUCH k", "everything"],
    ["", "everything"],
  ])("%s: %s", (line, keys) => {
    expect(commandOf(line.split(" ")[0] ?? "").plainKind).toBe(WRITE);
    expect(slots(line)).toEqual(expected(keys));
  });

  it.each([
    ["EVAL s 2 k l m", "k l"],
    ["EVALSHA s 1 k", "k"],
    ["FCALL f 0 k", "nothing"],
    ["EVAL s x k", "everything"],
  ])("by a script is what it declares, where scripts declare all: %s: %s", (line, keys) => {
    expect(slots(line, "declared")).toEqual(expected(keys));
  });
});

describe("7: what a read shows", () => {
  it.each([
    ["GET k", "k"],
    ["TTL k", "k"],
    ["EXISTS k l", "k l"],
    ["MGET k l m", "k l m"],
    ["MGET k k", "k k"],
    ["LCS k l", "k l"],
    ["ZINTER 2 k l", "k l"],
    ["XREAD COUNT 1 STREAMS k l 0 0", "k l"],
    ["OBJECT ENCODING k", "k"],
    ["SORT_RO k", "k"],
    ["SORT_RO k BY w_*", "everything"],
    ["KEYS *", "everything"],
    ["SCAN 0", "everything"],
    ["DBSIZE", "everything"],
    ["EVAL_RO s 1 k", "everything"],
    ["EVALSHA_RO s 1 k", "everything"],
    ["FCALL_RO f 1 k", "everything"],
    ["PING", "nothing"],
    ["CONFIG GET a", "nothing"],
    ["GET", "nothing"],
  ])("%s: %s", (line, keys) => {
    expect(slots(line)).toEqual(expected(keys));
  });

  it.each([
    ["EVAL_RO s 2 k l m", "k l"],
    ["FCALL_RO f 0", "nothing"],
    ["EVALSHA_RO s -1 k", "everything"],
  ])("by a script is what it declares, where scripts declare all: %s: %s", (line, keys) => {
    expect(slots(line, "declared")).toEqual(expected(keys));
  });

  it("is what the node knows better than the table, where it refuses a read as a write", () => {
    const args = wordsOf("GET k");
    expect(slotsOf(routerWith("any"), commandOf("get"), WRITE, args)).toBe(NOTHING);
    expect(slotsOf(routerWith("any"), commandOf("get"), READ, args)).toBe(slotOf("k"));
  });
});

describe("7: the slots of a key", () => {
  it.each([
    ["no bytes", ""],
    ["bytes that are no text", "\u0000\r\n"],
    ["512 bytes", "k".repeat(512)],
    ["100,000 bytes", "k".repeat(100_000)],
  ])("are the same by its place in the request and as an argument: %s", (_, key) => {
    const frame = encodeRequest(["GET", key]);
    const framer = new RequestFramer({ maxRequestBytes: 1e6, maxRequestArgs: 10 });
    expect(framer.next(frame, 0, frame.length)).toBe(FRAME);
    const byPlace = freshness.slotOf(frame, framer.keyStart, framer.keyEnd);
    const command = commandOf("get");
    expect(command.singleKey).toBe(true);
    expect(slotsOf(routerWith("any"), command, READ, requestArgs(frame, 0))).toBe(byPlace);
  });

  it.each([
    [1024, false],
    [1025, true],
  ])("of %i keys stand for all: %s", (count, isEverything) => {
    const args = [Buffer.from("MGET"), ...Array.from({ length: count }, (_, i) => Buffer.from(`k${i}`))];
    const found = slotsOf(routerWith("any"), commandOf("mget"), READ, args);
    expect(found === EVERYTHING).toBe(isEverything);
    if (!isEverything) expect(found).toHaveLength(count);
  });
});

describe("7: what a transaction may change, or show", () => {
  it.each<[string, string[], string]>([
    ["nothing", [], "nothing"],
    ["what its one write changes", ["SET k v"], "k"],
    ["what any of them changes or shows", ["SET k v", "MSET l 1 m 2", "GET n"], "k l m n"],
    ["all, where one may change all", ["SET k v", "FLUSHALL"], "everything"],
    ["all, where a script is in it", ["GET k", "EVAL s 1 k"], "everything"],
    ["everything, where a read shows all", ["KEYS *", "SET k v"], "everything"],
    ["nothing, where it only tells", ["PUBLISH c m", "PING"], "nothing"],
  ])("is %s", (_, lines, keys) => {
    const queued = lines.map((line) => ({
      command: commandOf(line.split(" ")[0] ?? ""),
      args: wordsOf(line),
    }));
    const found = slotsOfUnit(routerWith("any"), queued);
    const want = expected(keys);
    expect(found).toEqual(typeof want === "number" && want >= 0 ? [want] : want);
  });
});
