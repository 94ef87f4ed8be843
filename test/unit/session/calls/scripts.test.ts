import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { encodeRequest } from "../../../../src/resp/encode.ts";
import { isNoScript, ScriptCall, Scripts } from "../../../../src/session/calls/scripts.ts";

const nameOf = (body: string) => createHash("sha1").update(body).digest("hex");
const load = (body: string) => encodeRequest(["SCRIPT", "LOAD", body]);

describe("a script that a client has sent", () => {
  it("can be given to a server by its name, in any case (30)", () => {
    const scripts = new Scripts(1_000);
    scripts.remember(Buffer.from("return 1"));
    expect(scripts.loadRequest(nameOf("return 1"))).toEqual(load("return 1"));
    expect(scripts.loadRequest(nameOf("return 1").toUpperCase())).toEqual(load("return 1"));
  });

  it("that nobody has sent, or a name that is none, is not known", () => {
    const scripts = new Scripts(1_000);
    expect(scripts.loadRequest(nameOf("return 1"))).toBeNull();
    expect(scripts.loadRequest("short")).toBeNull();
  });

  it("is forgotten when it was not used for longest and there is no room", () => {
    const scripts = new Scripts(20);
    for (const body of ["return 1", "return 2"]) scripts.remember(Buffer.from(body));
    scripts.loadRequest(nameOf("return 1"));
    scripts.remember(Buffer.from("return 3"));
    const known = ["return 1", "return 2", "return 3"].filter(
      (one) => scripts.loadRequest(nameOf(one)) !== null,
    );
    expect(known).toEqual(["return 1", "return 3"]);
  });

  it("counts once, however often it is sent", () => {
    const scripts = new Scripts(20);
    for (let i = 0; i < 10; i++) scripts.remember(Buffer.from("return 1"));
    scripts.remember(Buffer.from("return 2"));
    expect(scripts.loadRequest(nameOf("return 1"))).not.toBeNull();
  });

  it("larger than all there is room for is not kept, and costs the others nothing", () => {
    const scripts = new Scripts(20);
    scripts.remember(Buffer.from("return 1"));
    scripts.remember(Buffer.from("return 'far too long for it'"));
    expect(scripts.loadRequest(nameOf("return 1"))).not.toBeNull();
  });

  it("is gone when the scripts are flushed", () => {
    const scripts = new Scripts(1_000);
    scripts.remember(Buffer.from("return 1"));
    scripts.clear();
    expect(scripts.loadRequest(nameOf("return 1"))).toBeNull();
  });
});

it.each([
  ["-NOSCRIPT No matching script. Please use EVAL.\r\n", true],
  ["-NOSCRIPT No matching script. Please use EVAL. script: x\r\n", false],
  ["-NOSCRIPT No matching script.\r\n", true],
  ["-NOSCRIPT No matching script. script: on @user_script:1.\r\n", false],
  ["-NOSCRIPT\r\n", false],
  ["+NOSCRIPT No matching script. Please use EVAL.\r\n", false],
])("only the server's own words mean that it lacks the script: %j", (text, expected) => {
  const buf = Buffer.from(`xx${text}`);
  expect(isNoScript(buf, 2, buf.length)).toBe(expected);
});

describe("a call of a script", () => {
  const frame = encodeRequest(["EVALSHA", nameOf("return 1"), "0"]);
  const scripts = new Scripts(1_000);
  scripts.remember(Buffer.from("return 1"));
  const call = (...names: string[]) => {
    const buffers = names.map((name) => Buffer.from(name));
    return new ScriptCall(frame, buffers, (name) => scripts.loadRequest(name));
  };

  it("brings the body with it through each connection once, and is one more reply then (30)", () => {
    const given = new Set<string>();
    const first = call(nameOf("return 1"));
    expect(first.firstFor(given)).toEqual(Buffer.concat([load("return 1"), frame]));
    expect(first.replies).toBe(2);
    const second = call(nameOf("return 1"));
    expect(second.firstFor(given)).toEqual(frame);
    expect(second.replies).toBe(1);
  });

  it("brings it again when it is sent again elsewhere", () => {
    const again = call(nameOf("return 1"));
    again.firstFor(new Set([nameOf("return 1")]));
    expect(again.requestFor()).toEqual(Buffer.concat([load("return 1"), frame]));
    expect(again.replies).toBe(2);
  });

  it("of a body that nobody has sent goes as it is, and cannot be repaired", () => {
    const unknown = call(nameOf("return 2"));
    expect(unknown.firstFor(new Set())).toEqual(frame);
    expect([unknown.replies, unknown.repaired()]).toEqual([1, null]);
  });

  it("or a question for many names brings those bodies that are known and were not given, up to a bound", () => {
    const many = Array.from({ length: 200 }, (_, i) => `return ${i}`);
    const store = new Scripts(100_000);
    for (const body of many) store.remember(Buffer.from(body));
    const ask = (bodies: readonly string[]) =>
      new ScriptCall(
        frame,
        bodies.map(nameOf).map((name) => Buffer.from(name)),
        (name) => store.loadRequest(name),
      );
    const given = new Set([nameOf("return 1")]);
    const few = ask(["return 0", "return 1", "'never sent'", "return 2"]);
    expect(few.firstFor(given)).toEqual(Buffer.concat([load("return 0"), load("return 2"), frame]));
    expect(few.replies).toBe(3);
    const all = ask(many);
    all.requestFor();
    expect(all.replies).toBe(129);
  });
});
