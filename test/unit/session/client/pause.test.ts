import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CommandTable } from "../../../../src/commands/table.ts";
import {
  ClientPause,
  isStopped,
  mergedPause,
  NOT_PAUSED,
  PAUSE_ALL,
  PAUSE_WRITES,
} from "../../../../src/session/client/pause.ts";

const table = new CommandTable();

function stopped(level: 0 | 1 | 2, line: string, queueReplicates = false): boolean {
  const args = line.split(" ").map((word) => Buffer.from(word));
  return isStopped(level, table.lookup(args[0]!, 0, args[0]!.length), args, queueReplicates);
}

describe("a pause of writes stops what writes or may replicate (36)", () => {
  // Each was seen on Redis 7.0.15.
  it.each([
    ["set k v", true],
    ["del k", true],
    ["blpop k 0", true],
    ["sort k", true],
    ["flushall", true],
    ["eval x 0", true],
    ["evalsha x 0", true],
    ["fcall f 0", true],
    ["publish c m", true],
    ["spublish c m", true],
    ["pfcount k", true],
    ["get k", false],
    ["eval_ro x 0", false],
    ["fcall_ro f 0", false],
    ["script load x", false],
    ["ping", false],
    ["client unpause", false],
    ["subscribe c", false],
    ["multi", false],
    ["exec", false],
    ["quit", false],
    ["proxy status", false],
  ])("%s: %s", (line, is) => expect(stopped(PAUSE_WRITES, line)).toBe(is));

  it("stops an EXEC by what is queued", () => expect(stopped(PAUSE_WRITES, "exec", true)).toBe(true));

  it("looks at the sub-command where the server told of it", () => {
    const learnt = new CommandTable();
    const sub = (name: string, ...flags: string[]) => [name, -2, flags, 0, 0, 0, [], [], [], []];
    const subs = [sub("function|load", "write", "denyoom"), sub("function|list", "noscript")];
    learnt.learn([["function", -2, [], 0, 0, 0, [], [], [], subs]]);
    const name = Buffer.from("function");
    const command = learnt.lookup(name, 0, name.length);
    const asked = (word: string) => isStopped(PAUSE_WRITES, command, [name, Buffer.from(word)], false);
    expect([asked("LOAD"), asked("load"), asked("list"), asked("nosuch")]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});

it.each([
  ["get k", true],
  ["client unpause", true],
  ["reset", true],
  ["ping", true],
  ["exec", true],
  ["quit", false],
  ["proxy clients", false],
])("a pause of all stops %s: %s", (line, is) => {
  expect(stopped(PAUSE_ALL, line)).toBe(is);
  expect(stopped(NOT_PAUSED, line)).toBe(false);
});

it.each([
  [NOT_PAUSED, 0, PAUSE_WRITES, 10, PAUSE_WRITES, 10],
  [PAUSE_WRITES, 10, PAUSE_WRITES, 5, PAUSE_WRITES, 10],
  [PAUSE_WRITES, 10, PAUSE_ALL, 5, PAUSE_ALL, 10],
  [PAUSE_ALL, 10, PAUSE_WRITES, 50, PAUSE_ALL, 50],
] as const)("the stricter level and the later end hold: %i until %i, then %i until %i", (...row) => {
  const [level, untilMs, asked, askedUntilMs, merged, mergedUntilMs] = row;
  const answer = mergedPause({ level, untilMs }, { level: asked, untilMs: askedUntilMs });
  expect(answer).toEqual({ level: merged, untilMs: mergedUntilMs });
});

describe("the pause of the clients", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  const build = () => {
    let nowMs = 1_000;
    const pause = new ClientPause(() => nowMs);
    const ended: string[] = [];
    const waiter = (name: string) => ({ pauseEnded: () => void ended.push(name) });
    const pass = (ms: number) => {
      nowMs += ms;
      vi.advanceTimersByTime(ms);
    };
    return { pause, ended, waiter, pass };
  };

  it("ends by itself, and who waits goes on in the order of arrival; who left does not", () => {
    const { pause, ended, waiter, pass } = build();
    pause.start(PAUSE_WRITES, 100);
    const gone = waiter("gone");
    for (const one of [waiter("a"), gone, waiter("b")]) pause.add(one);
    pause.remove(gone);
    expect(pause.state()).toEqual({ level: "write", leftMs: 100, waiting: 2 });
    pass(99);
    expect(ended).toEqual([]);
    pass(1);
    expect(ended).toEqual(["a", "b"]);
    expect([pause.level, pause.state()]).toEqual([NOT_PAUSED, null]);
  });

  it("is not shortened by a shorter one, and forgotten once it is over", () => {
    const { pause, pass } = build();
    pause.start(PAUSE_ALL, 100);
    pause.start(PAUSE_WRITES, 10);
    pass(50);
    expect(pause.state()).toEqual({ level: "all", leftMs: 50, waiting: 0 });
    pause.end();
    pause.start(PAUSE_WRITES, 10);
    expect(pause.state()).toMatchObject({ level: "write", leftMs: 10 });
  });

  it("of no time at all is none, and one of thousands of years outlives every timer", () => {
    const { pause, pass } = build();
    pause.start(PAUSE_ALL, 0);
    expect(pause.level).toBe(NOT_PAUSED);
    pause.start(PAUSE_ALL, 9e15);
    pass(2 ** 32);
    expect(pause.level).toBe(PAUSE_ALL);
    pause.end();
  });
});
