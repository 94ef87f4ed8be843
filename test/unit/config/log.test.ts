import { expect, it } from "vitest";
import { createLog, type LogOptions } from "../../../src/log.ts";

function logged(options: LogOptions) {
  const lines: string[] = [];
  return { log: createLog(options, { write: (line) => void lines.push(line) }), lines };
}

it("json is one object a line with level, time, fields and message", () => {
  const { log, lines } = logged({ level: "info", format: "json" });
  log.warn({ node: "a:1" }, "the master is silent");
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/\n$/);
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({
    level: "warn",
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    node: "a:1",
    msg: "the master is silent",
  });
});

it("text is one readable line: time, level, message, key=value", () => {
  const { log, lines } = logged({ level: "info", format: "text" });
  log.info({ node: "a:1", lagMs: 3, why: "two words", history: { offset: 1 } }, "switched");
  expect(lines[0]).toMatch(
    /^\d{4}-\S+Z INFO {2}switched node=a:1 lagMs=3 why="two words" history=\{"offset":1\}\n$/,
  );
});

it.each(["json", "text"] as const)("as %s, no message and no field can begin a line of its own", (format) => {
  const { log, lines } = logged({ level: "info", format });
  log.info({ name: "x\ny\u001b[31m" }, "a\r\nb\u001b[31m");
  expect(lines).toHaveLength(1);
  expect(lines[0]?.trimEnd()).not.toMatch(/\p{Cc}/u);
});

it("lines below the level are not written", () => {
  const { log, lines } = logged({ level: "warn", format: "json" });
  log.info({}, "no");
  log.debug({}, "no");
  log.error({}, "yes");
  expect(lines).toHaveLength(1);
});

it("a child adds its fields to every line", () => {
  const { log, lines } = logged({ level: "debug", format: "text" });
  log.child({ client: 7 }).debug({ db: 1 }, "selected");
  expect(lines[0]).toContain("selected client=7 db=1");
});

it.each(["json", "text"] as const)("as %s, passwords are not written, however deep", (format) => {
  const { log, lines } = logged({ level: "info", format });
  log.info({ password: "s77123" }, "one");
  log.info({ upstream: { password: "s77123" } }, "two");
  log.info({ config: { upstream: { username: "bob", password: "s77123" } } }, "three");
  log.child({ password: "s77123" }).info({}, "four");
  expect(lines).toHaveLength(4);
  expect(lines.join("")).not.toContain("77123");
  expect(lines.join("")).toContain("bob");
});

it("an error is written with its message", () => {
  const { log, lines } = logged({ level: "info", format: "json" });
  log.error({ err: new Error("broken") }, "a probe failed");
  expect(JSON.parse(lines[0] ?? "").err.message).toBe("broken");
});
