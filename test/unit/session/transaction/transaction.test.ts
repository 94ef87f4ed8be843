import { describe, expect, it } from "vitest";
import type { Command } from "../../../../src/commands/command.ts";
import { CommandTable } from "../../../../src/commands/table.ts";
import { requestArgs } from "../../../../src/resp/args.ts";
import { encodeRequest } from "../../../../src/resp/encode.ts";
import { Transaction, unknownCommand, wrongArity } from "../../../../src/session/transaction/transaction.ts";
import { decodeAll } from "../../../support/resp.ts";

const table = new CommandTable();

function command(name: string): Command {
  const bytes = Buffer.from(name, "latin1");
  return table.lookup(bytes, 0, bytes.length);
}

function frameOf(...words: string[]): Buffer {
  return encodeRequest(words.map((word) => Buffer.from(word, "latin1")));
}

/** Asks for a command as the session does; its error, or null when it can be queued. */
function refusal(transaction: Transaction, ...words: string[]): string | null {
  return refusalOf(table, transaction, words);
}

function refusalOf(known: CommandTable, transaction: Transaction, words: readonly string[]): string | null {
  const frame = frameOf(...words);
  const args = requestArgs(frame, 0);
  const found = known.lookup(args[0]!, 0, args[0]!.length);
  const error = transaction.refusal(found, args, frame.length);
  return error?.toString("latin1") ?? null;
}

function add(transaction: Transaction, ...words: string[]): void {
  transaction.add(command(words[0]!), frameOf(...words));
}

const ROOMY = 1 << 20;

describe("at queue time a command is refused in Redis's words", () => {
  // Every text was seen on Redis 7.0.15.
  it.each([
    ["an unknown command", ["foo", "a", "b"], "'foo', with args beginning with: 'a' 'b' "],
    ["its name as the client wrote it", ["FoO"], "'FoO', with args beginning with: "],
    ["without a name", [""], "'', with args beginning with: "],
    ["with blanks in its words", ["FOO", "bar", "a b"], "'FOO', with args beginning with: 'bar' 'a b' "],
    ["with line ends in its words", ["foo", "a\r\nbc"], "'foo', with args beginning with: 'a  bc' "],
    ["with bytes that are no text", ["f\xffo", "\xff"], "'f\xffo', with args beginning with: '\xff' "],
    ["with a long name", ["f".repeat(200), "x"], `'${"f".repeat(128)}', with args beginning with: 'x' `],
    [
      "with a long word",
      ["foo", "a".repeat(200), "b"],
      `'foo', with args beginning with: '${"a".repeat(128)}' `,
    ],
    [
      "with many words",
      ["foo", ..."abcde".split("").map((letter) => letter.repeat(50))],
      `'foo', with args beginning with: '${"a".repeat(50)}' '${"b".repeat(50)}' '${"c".repeat(22)}' `,
    ],
  ] as const)("unknown: %s", (_, words, text) => {
    expect(refusal(new Transaction(ROOMY), ...words)).toBe(`-ERR unknown command ${text}\r\n`);
    expect(unknownCommand(words.map((word) => Buffer.from(word, "latin1"))).toString("latin1")).toBe(
      `-ERR unknown command ${text}\r\n`,
    );
  });

  it.each([
    [["GET"], "get"],
    [["get", "a", "b"], "get"],
    [["SET", "k"], "set"],
    [["mget"], "mget"],
  ])("the wrong number of words: %j", (words, name) => {
    const text = `-ERR wrong number of arguments for '${name}' command\r\n`;
    expect(refusal(new Transaction(ROOMY), ...words)).toBe(text);
    expect(wrongArity(name).toString()).toBe(text);
  });

  it("a sub-command: unknown, or with the wrong number of words, when the server told of them", () => {
    const learnt = new CommandTable();
    const create = ["xgroup|create", -5, ["write"]];
    const help = ["xgroup|help", 2, []];
    learnt.learn([["xgroup", -2, [], 0, 0, 0, [], [], [], [create, help]]]);
    const refuse = (...words: string[]): string | null => refusalOf(learnt, new Transaction(ROOMY), words);
    expect(refuse("XGROUP")).toBe("-ERR wrong number of arguments for 'xgroup' command\r\n");
    expect(refuse("XGROUP", "FoO", "a")).toBe("-ERR unknown subcommand 'FoO'. Try XGROUP HELP.\r\n");
    expect(refuse("xgroup", "")).toBe("-ERR unknown subcommand ''. Try XGROUP HELP.\r\n");
    expect(refuse("xgroup", "a\r\nb")).toBe("-ERR unknown subcommand 'a  b'. Try XGROUP HELP.\r\n");
    expect(refuse("xgroup", "q".repeat(200))).toBe(
      `-ERR unknown subcommand '${"q".repeat(128)}'. Try XGROUP HELP.\r\n`,
    );
    expect(refuse("XGROUP", "CreaTE", "a")).toBe(
      "-ERR wrong number of arguments for 'xgroup|create' command\r\n",
    );
    expect(refuse("XGROUP", "HELP", "x")).toBe(
      "-ERR wrong number of arguments for 'xgroup|help' command\r\n",
    );
    expect(refuse("XGROUP", "Create", "s", "g", "$")).toBeNull();
    expect(refuse("XGROUP", "HELP")).toBeNull();
  });

  it("an unknown sub-command's bytes are shown as they came", () => {
    const learnt = new CommandTable();
    learnt.learn([["xgroup", -2, [], 0, 0, 0, [], [], [], [["xgroup|help", 2, []]]]]);
    expect(refusalOf(learnt, new Transaction(ROOMY), ["xgroup", "f\xffo"])).toBe(
      "-ERR unknown subcommand 'f\xffo'. Try XGROUP HELP.\r\n",
    );
  });

  it("and not a sub-command of which the server told nothing", () => {
    expect(refusal(new Transaction(ROOMY), "xgroup", "nosuch")).toBeNull();
  });

  it("and not refused when there is nothing wrong with it", () => {
    for (const words of [["GET", "k"], ["set", "k", "v", "EX", "10"], ["PING"], ["BLPOP", "l", "0"]]) {
      expect(refusal(new Transaction(ROOMY), ...words)).toBeNull();
    }
  });
});

describe("limits.maxRequestBytes", () => {
  it("bounds all queued commands together, to the byte, and is named", () => {
    const transaction = new Transaction(100);
    add(transaction, "SET", "k", "x".repeat(37));
    const used = frameOf("SET", "k", "x".repeat(37)).length;
    const rest = 100 - used;
    const fits = frameOf("GET", "y".repeat(rest - frameOf("GET", "y".repeat(10)).length + 10));
    expect(fits.length).toBe(rest);
    const name = "y".repeat(rest - frameOf("GET", "y".repeat(10)).length + 10);
    expect(refusal(transaction, "GET", name)).toBeNull();
    expect(refusal(transaction, "GET", `${name}y`)).toBe(
      "-ERR proxy: the transaction is larger than limits.maxRequestBytes (100 bytes)\r\n",
    );
  });

  it("counts what was queued only, not what was asked for", () => {
    const transaction = new Transaction(60);
    for (let i = 0; i < 10; i++) expect(refusal(transaction, "GET", "k".repeat(20))).toBeNull();
  });
});

describe("a transaction's unit", () => {
  it("is MULTI, the commands as they were sent, EXEC", () => {
    const transaction = new Transaction(ROOMY);
    add(transaction, "set", "k", "a\r\nb\0\xff");
    add(transaction, "GET", "k");
    expect(transaction.replies).toBe(4);
    const words = decodeAll(transaction.unit()) as string[][];
    expect(words.map((args) => args[0])).toEqual(["MULTI", "set", "GET", "EXEC"]);
    const expected = [
      frameOf("MULTI"),
      frameOf("set", "k", "a\r\nb\0\xff"),
      frameOf("GET", "k"),
      frameOf("EXEC"),
    ];
    expect(transaction.unit()).toEqual(Buffer.concat(expected));
  });

  it("is MULTI and EXEC when nothing was queued", () => {
    const transaction = new Transaction(ROOMY);
    expect([transaction.replies, transaction.unit().toString()]).toEqual([
      2,
      "*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nEXEC\r\n",
    ]);
  });

  it("keeps a command though the buffer it came in is overwritten", () => {
    const transaction = new Transaction(ROOMY);
    const frame = frameOf("GET", "k");
    transaction.add(command("get"), frame);
    frame.fill("#");
    expect(transaction.unit().includes(frameOf("GET", "k"))).toBe(true);
  });
});

describe("whether a transaction may be run twice", () => {
  it.each([
    ["nothing in it", [], true],
    ["reads", ["get", "mget", "dbsize", "info", "eval_ro", "xread"], true],
    ["one write among reads", ["get", "set", "get"], false],
    ["a blocking pop, which does not block in it", ["blpop"], false],
    ["a script", ["get", "eval"], false],
  ] as const)("%s", (_, names, repeatable) => {
    const transaction = new Transaction(ROOMY);
    for (const name of names) transaction.add(command(name), frameOf(name));
    expect(transaction.isRepeatable).toBe(repeatable);
  });

  it("is not spoilt before a command was refused", () => {
    expect(new Transaction(ROOMY).spoilt).toBe(false);
  });
});
