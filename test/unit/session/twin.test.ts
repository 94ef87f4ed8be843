import { describe, expect, it } from "vitest";
import type { Command } from "../../../src/commands/command.ts";
import { READ, WRITE } from "../../../src/commands/command.ts";
import { CommandTable } from "../../../src/commands/table.ts";
import { canHaveTwin, Twin } from "../../../src/session/twin.ts";
import { Chunk } from "../../../src/upstream/chunk.ts";
import type { Lane } from "../../../src/upstream/lane.ts";
import { ChangedReply, NOBODY, Request } from "../../../src/upstream/request.ts";

const GET = Buffer.from("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");

function commandOf(name: string): Command {
  const bytes = Buffer.from(name);
  return new CommandTable().lookup(bytes, 0, bytes.length);
}

function request(name = "get", replies = 1): Request {
  const chunk = new Chunk(Buffer.concat([Buffer.from("other"), GET]), false);
  return new Request(NOBODY, commandOf(name), READ, chunk, 5, 5 + GET.length, replies);
}

/** A connection that keeps what it is given. */
function laneWith(pushed: { request: Request; bytes: string }[]): Lane {
  const lane = {
    pushCopy: (one: Request, source: Buffer, start: number, end: number) =>
      pushed.push({ request: one, bytes: source.toString("latin1", start, end) }),
    checkCongestion: () => undefined,
  };
  return lane as unknown as Lane;
}

/** A twin, the request it has sent, and what its host was told. */
function sendTwin() {
  const pushed: { request: Request; bytes: string }[] = [];
  const told: string[] = [];
  const host = {
    answeredBy: (_twin: Twin, buf: Buffer, start: number, end: number) =>
      void told.push(buf.toString("latin1", start, end)),
  };
  const twin = new Twin(request(), laneWith(pushed), host);
  const reply = (text: string) =>
    twin.exception(pushed[0]!.request, Buffer.from(`+${text}`), 1, 1 + text.length, 0);
  return { twin, pushed, told, reply };
}

describe("a read that is sent to a second node", () => {
  it("is the same bytes, and every reply to it comes to its own owner", () => {
    const { twin, pushed } = sendTwin();
    expect(pushed.map(({ bytes }) => bytes)).toEqual([GET.toString()]);
    expect(pushed[0]!.request.owner).toBe(twin);
    expect([twin.exceptional, twin.movable]).toEqual([true, false]);
  });

  it("is told once when it is answered, and the request is done with", () => {
    const { told, reply } = sendTwin();
    expect(reply("$1\r\nx\r\n")).toBe(false);
    reply("$1\r\ny\r\n");
    expect(told).toEqual(["$1\r\nx\r\n"]);
  });

  it("is forgotten when it is answered with an error", () => {
    const { told, reply } = sendTwin();
    reply("-LOADING\r\n");
    reply("$1\r\ny\r\n");
    expect(told).toEqual([]);
  });

  it("is not told any more when the first node was faster", () => {
    const { twin, told, reply } = sendTwin();
    twin.cancel();
    reply("$1\r\nx\r\n");
    expect(told).toEqual([]);
  });

  it("is not told when its connection is lost", () => {
    const { twin, pushed, told } = sendTwin();
    twin.lost(pushed[0]!.request, true);
    twin.refused(pushed[0]!.request, Buffer.from("-NOAUTH\r\n"));
    expect(told).toEqual([]);
  });
});

describe("what may be sent to a second node", () => {
  it.each<[string, boolean, (one: Request) => unknown]>([
    ["a plain read", true, () => undefined],
    ["a write", false, (one) => (one.kind = WRITE)],
    ["what is bound to its connection", false, (one) => (one.bond = "node")],
    [
      "what reads otherwise for each node",
      false,
      (one) => (one.rewrite = new ChangedReply(GET, (reply) => reply)),
    ],
    ["a script that may have to be sent whole", false, (one) => (one.repair = () => null)],
    ["what is answered more than once", false, (one) => (one.replyCount = 2)],
    ["a large one", false, (one) => (one.end = one.start + 16 * 1024 + 1)],
  ])("%s: %s", (_, expected, change) => {
    const one = request();
    change(one);
    expect(canHaveTwin(one)).toBe(expected);
  });

  it("not a command that the proxy has a hand in", () => {
    expect(commandOf("scan").handler).not.toBe("none");
    expect(canHaveTwin(request("scan"))).toBe(false);
  });
});
