import { describe, expect, it } from "vitest";
import type { Protocol } from "../../../src/resp/encode.ts";
import { Handshake, type HandshakeResult } from "../../../src/upstream/handshake.ts";
import { ANONYMOUS, type Identity, Profile } from "../../../src/upstream/profile.ts";
import { decodeAll } from "../../support/resp.ts";

const REPLID = "a".repeat(40);
const ALICE: Identity = { username: "alice", password: "se cret\r\n" };
const PASSWORD_ONLY: Identity = { username: null, password: "pw" };

function handshake(identity: Identity, db: number, protocol: Protocol, replid: string | null): Handshake {
  return new Handshake(new Profile(identity, db, protocol), replid, false);
}

/** What is said, one line a command. */
function said(one: Handshake): string[] {
  return decodeAll(one.bytes).map((args) => (args as string[]).join(" "));
}

/** The result after these replies; only the last of them may decide. */
function outcome(one: Handshake, ...replies: (string | Buffer)[]): HandshakeResult | null {
  let result: HandshakeResult | null = null;
  for (const reply of replies) {
    expect(result).toBeNull();
    result = one.onReply(typeof reply === "string" ? Buffer.from(reply) : reply);
  }
  return result;
}

function info(text: string, type: "$" | "=" = "$"): string {
  return `${type}${text.length}\r\n${text}\r\n`;
}

const MASTER_INFO = [
  "# Replication",
  "role:master",
  "connected_slaves:2",
  `slave0:ip=127.0.0.1,port=6381,state=online,offset=42,lag=0`,
  `master_replid:${REPLID}`,
  `master_replid2:${"b".repeat(40)}`,
  "master_repl_offset:42",
  "",
].join("\r\n");
const OK = "+OK\r\n";
const COMMON = ["CLIENT SETNAME holdfast", "CLIENT NO-EVICT ON"];

describe("the connection's own number", () => {
  it("is asked for only where somebody may have to name the connection, and never decides", () => {
    const one = new Handshake(new Profile(ANONYMOUS, 0, 2), null, true);
    expect(said(one)).toEqual([...COMMON, "CLIENT ID"]);
    expect(outcome(one, OK, OK, ":4711\r\n")).toEqual({ kind: "accepted" });
    expect(one.serverId).toBe(4711);
  });

  it("stays unknown when the user may not ask for it", () => {
    const one = new Handshake(new Profile(ANONYMOUS, 0, 2), null, true);
    expect(outcome(one, OK, OK, "-NOPERM\r\n")).toEqual({ kind: "accepted" });
    expect(one.serverId).toBeNull();
  });
});

describe("what is said on a new connection", () => {
  it.each([
    ["nobody, to read", ANONYMOUS, 0, 2, null, COMMON],
    ["nobody, to the master", ANONYMOUS, 0, 2, REPLID, [...COMMON, "INFO replication"]],
    ["a database", ANONYMOUS, 7, 2, null, [...COMMON, "SELECT 7"]],
    ["RESP3", ANONYMOUS, 0, 3, null, ["HELLO 3", ...COMMON]],
    ["a password", PASSWORD_ONLY, 0, 2, null, ["AUTH pw", ...COMMON]],
    ["a user", ALICE, 0, 2, null, ["AUTH alice se cret\r\n", ...COMMON]],
    [
      "all of it",
      ALICE,
      3,
      3,
      REPLID,
      ["AUTH alice se cret\r\n", "HELLO 3", ...COMMON, "SELECT 3", "INFO replication"],
    ],
  ] as const)("for %s", (_, identity, db, protocol, replid, expected) => {
    expect(said(handshake(identity, db, protocol, replid))).toEqual(expected);
  });

  it("says who it is before anything else, since nothing else is allowed before", () => {
    expect(said(handshake(ALICE, 3, 3, REPLID))[0]).toMatch(/^AUTH /);
  });
});

describe("a connection is accepted", () => {
  it("after the last reply and not before", () => {
    const one = handshake(ALICE, 3, 3, REPLID);
    expect(outcome(one, OK, "%1\r\n+proto\r\n:3\r\n", OK, OK, OK)).toBeNull();
    expect(one.onReply(Buffer.from(info(MASTER_INFO)))).toEqual({ kind: "accepted" });
  });

  it("by a server that does not know CLIENT NO-EVICT or forbids CLIENT", () => {
    expect(
      outcome(handshake(ANONYMOUS, 0, 2, null), "-NOPERM no CLIENT\r\n", "-ERR unknown subcommand\r\n"),
    ).toEqual({ kind: "accepted" });
  });

  it("when the node is the master with the epoch's history, also told as a verbatim string", () => {
    expect(outcome(handshake(ANONYMOUS, 0, 3, REPLID), OK, OK, OK, info(`txt:${MASTER_INFO}`, "="))).toEqual({
      kind: "accepted",
    });
  });

  it("when the user may not ask for the role: its commands get the server's own answers", () => {
    expect(outcome(handshake(ALICE, 0, 2, REPLID), OK, OK, OK, "-NOPERM no INFO\r\n")).toEqual({
      kind: "accepted",
    });
  });
});

describe("a connection is refused with the server's own error", () => {
  it.each([
    ["AUTH", ALICE, 0, 2, ["-WRONGPASS invalid username-password pair or user is disabled.\r\n"]],
    ["AUTH with a password only", PASSWORD_ONLY, 0, 2, ["-ERR AUTH <password> called without any\r\n"]],
    ["HELLO", ANONYMOUS, 0, 3, ["-NOPROTO unsupported protocol version\r\n"]],
    ["HELLO behind AUTH", ALICE, 0, 3, [OK, "-ERR unknown command 'HELLO'\r\n"]],
    ["SELECT", ANONYMOUS, 99, 2, [OK, OK, "-ERR DB index is out of range\r\n"]],
    ["SELECT behind all", ALICE, 1, 3, [OK, "%0\r\n", OK, OK, "-NOPERM this user has no permissions\r\n"]],
  ] as const)("to %s", (_, identity, db, protocol, replies) => {
    const error = Buffer.from(replies.at(-1)!);
    expect(outcome(handshake(identity, db, protocol, REPLID), ...replies)).toEqual({
      kind: "refused",
      error,
    });
  });

  it("which is kept, though the read buffer it came in is overwritten", () => {
    const reply = Buffer.from("-WRONGPASS no\r\n");
    const result = handshake(ALICE, 0, 2, null).onReply(reply);
    reply.fill("#");
    expect(result).toEqual({ kind: "refused", error: Buffer.from("-WRONGPASS no\r\n") });
  });
});

describe("a node that is not ready", () => {
  it.each([
    ["loading", "-LOADING Redis is loading the dataset in memory\r\n", true],
    ["a replica without its master", "-MASTERDOWN Link with MASTER is down and so on\r\n", false],
  ] as const)("is no answer to a client: %s", (_, error, loading) => {
    expect(outcome(handshake(ALICE, 0, 2, null), error)).toEqual({ kind: "not-ready", loading });
    expect(outcome(handshake(ANONYMOUS, 0, 3, null), error)).toEqual({ kind: "not-ready", loading });
    expect(outcome(handshake(ANONYMOUS, 4, 2, null), OK, OK, error)).toEqual({ kind: "not-ready", loading });
  });
});

describe("a node that is not the master we believe in", () => {
  const role = (text: string): HandshakeResult | null =>
    outcome(handshake(ANONYMOUS, 0, 2, REPLID), OK, OK, info(text));

  it("is told by its role", () => {
    expect(role(MASTER_INFO.replace("role:master", "role:slave"))).toEqual({ kind: "not-master" });
  });

  it("is told by its history: a restarted, empty server", () => {
    expect(role(MASTER_INFO.replaceAll(REPLID, "c".repeat(40)))).toEqual({ kind: "not-master" });
  });

  it("is told even if the epoch's history is its second one: it was promoted since", () => {
    const promoted = MASTER_INFO.replace(
      `master_replid:${REPLID}`,
      `master_replid:${"c".repeat(40)}`,
    ).replace(`master_replid2:${"b".repeat(40)}`, `master_replid2:${REPLID}`);
    expect(promoted).toContain(`master_replid2:${REPLID}`);
    expect(role(promoted)).toEqual({ kind: "not-master" });
  });

  it("is told from an answer that says nothing", () => {
    expect(role("")).toEqual({ kind: "not-master" });
  });

  it("is not looked for on a connection that only reads", () => {
    expect(said(handshake(ANONYMOUS, 0, 2, null))).not.toContain("INFO replication");
  });
});

describe("NO-TOUCH (1)", () => {
  const untouching = () => new Handshake(new Profile(ANONYMOUS, 0, 2, true), null, false);

  it("is said on each connection of a profile that has it", () => {
    expect(said(untouching())).toEqual([...COMMON, "CLIENT NO-TOUCH ON"]);
    expect(outcome(untouching(), OK, OK, OK)).toEqual({ kind: "accepted" });
  });

  it("does not matter where the server does not know it, and does where the user may not", () => {
    const unknown = "-ERR unknown subcommand 'NO-TOUCH'. Try CLIENT HELP.\r\n";
    expect(outcome(untouching(), OK, OK, unknown)).toEqual({ kind: "accepted" });
    const forbidden = "-NOPERM this user has no permissions to run the 'client|no-touch' command\r\n";
    expect(outcome(untouching(), OK, OK, forbidden)).toEqual({
      kind: "refused",
      error: Buffer.from(forbidden),
    });
  });
});
