import { describe, expect, it } from "vitest";
import { type Command, WRITE } from "../../../src/commands/command.ts";
import { CommandTable } from "../../../src/commands/table.ts";
import {
  isOwnError,
  isPreviousErrors,
  isRefusal,
  isRefusedTooOften,
  notRunCause,
  refusalCause,
  unitRefusal,
} from "../../../src/routing/refusal.ts";
import { Chunk } from "../../../src/upstream/chunk.ts";
import { NOBODY, type NotRunCause, Request } from "../../../src/upstream/request.ts";

const table = new CommandTable();

function command(name: string): Command {
  return table.lookup(Buffer.from(name), 0, name.length);
}

function request(name: string): Request {
  return new Request(NOBODY, command(name), WRITE, new Chunk(Buffer.alloc(0), false), 0, 0, 1);
}

/** Asks about a text that lies somewhere in a read buffer. */
function cause(text: string): NotRunCause | null {
  const buf = Buffer.from(`+OK\r\n${text}-ERR next\r\n`, "latin1");
  return notRunCause(buf, 5, 5 + Buffer.byteLength(text, "latin1"));
}

/** As servers write them: Redis server.c and script.c, Valkey for its own name. */
const TEXTS: readonly (readonly [NotRunCause, string])[] = [
  ["not-master", "READONLY You can't write against a read only replica."],
  ["not-master", "READONLY You can't write against a read only slave."],
  ["not-master", "READONLY Can not run script with write flag on readonly replica"],
  [
    "not-master",
    "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is " +
      "configured to be writable (which is not the default) writes to replicas are just local and are not propagated.",
  ],
  [
    "not-master",
    "ERR WAIT cannot be used with replica instances. Please also note that if a replica is configured to be " +
      "writable (which is not the default) writes to replicas are just local and are not propagated.",
  ],
  [
    "not-master",
    "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local " +
      "and are not propagated.",
  ],
  ["loading", "LOADING Redis is loading the dataset in memory"],
  ["loading", "LOADING Valkey is loading the dataset in memory"],
  ["no-replicas", "NOREPLICAS Not enough good replicas to write."],
  ["no-replicas", "NOREPLICAS Not enough good slaves to write."],
  ["link-down", "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."],
];

const EXECABORT = "-EXECABORT Transaction discarded because of";
const PREVIOUS = `${EXECABORT} previous errors.\r\n`;

describe("an error by which a server refuses a command before it runs anything (14)", () => {
  const asked = (text: string): boolean => isRefusal(Buffer.from(`+OK\r\n${text}`), 5, 5 + text.length);

  it.each([
    ...["-NOREPLICAS Not enough good replicas to write.\r\n", "-NOAUTH Authentication required.\r\n"],
    ...["-OOM command not allowed when used memory > 'maxmemory'.\r\n", "-MISCONF x\r\n", "-NOPERM x\r\n"],
    ...["-BUSY x\r\n", "-EXECABORT x\r\n", "-NOSCRIPT No matching script.\r\n", "-READONLY\r\n"],
  ])("%j", (text) => expect(asked(text)).toBe(true));

  it.each([
    ...["-WRONGTYPE Operation against a key\r\n", "-ERR x\r\n", "+OOM x\r\n", "-BUSYGROUP x\r\n", "-\r\n"],
    ...["-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n", "-BUSYKEY Target key name already exists.\r\n"],
  ])("not %j", (text) => expect(asked(text)).toBe(false));
});

describe("an error reply that says the request did not run", () => {
  it.each(TEXTS)("is read as %s: %s", (expected, text) => {
    expect(cause(`-${text}\r\n`)).toBe(expected);
  });

  it.each(TEXTS)("is read as %s inside EXECABORT: %s", (expected, text) => {
    expect(cause(`${EXECABORT}: ${text}\r\n`)).toBe(expected);
  });
});

const NEAR_MISSES: readonly string[] = [
  ...TEXTS.flatMap(([, text]) => [
    `-${text.split(" ")[0]}\r\n`,
    `-${text.split(" ")[0]} \r\n`,
    `-${text.slice(0, -1)}\r\n`,
    `-${text}x\r\n`,
    `-${text} \r\n`,
    `- ${text}\r\n`,
    `-ERR ${text}\r\n`,
    `-${text.toLowerCase()}\r\n`,
    `-${text} script: 2fa2b029f72572e803ff55a09b1282699aecae6a, on @user_script:1.\r\n`,
    `+${text}\r\n`,
    `-${text}\n`,
    `${EXECABORT} ${text}\r\n`,
    `${EXECABORT}: -${text}\r\n`,
    `${EXECABORT}: ${text}.\r\n`,
    `-EXECABORT ${text}\r\n`,
    `${EXECABORT}: ${EXECABORT.slice(1)}: ${text}\r\n`,
  ]),
  PREVIOUS,
  `${EXECABORT}: OOM command not allowed when used memory > 'maxmemory'.\r\n`,
  "-READONLY my own script says so\r\n",
  "-READONLY You can't write against a read only replica. script: on @user_script:1.\r\n",
  "-LOADING the level, please wait\r\n",
  "-MASTERDOWN proxy: not run: no master within hold.maxTime (30000 ms)\r\n",
  "-NOREPLICAS Not enough good replicas to write. script: 2fa2b029, on @user_script:1.\r\n",
  "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
  "-ERR unknown command 'foo', with args beginning with: \r\n",
  `-READONLY You can't write against a read only replica.${" ".repeat(200)}\r\n`,
];

describe("an error reply that only looks like that", () => {
  it.each([...new Set(NEAR_MISSES)])("is the answer: %j", (text) => {
    expect(cause(text)).toBeNull();
  });
});

describe("EXEC refused because of errors before it", () => {
  const asks = (text: string): boolean => isPreviousErrors(Buffer.from(`:1\r\n${text}`), 4, 4 + text.length);

  it("is told from EXEC refused for a cause of its own", () => {
    expect(asks(PREVIOUS)).toBe(true);
    for (const [, text] of TEXTS) expect(asks(`${EXECABORT}: ${text}\r\n`)).toBe(false);
  });

  it("did not run for the cause that refused the queued command", () => {
    for (const queueRefusal of ["not-master", "loading", "link-down", "no-replicas"] as const) {
      const exec = request("exec");
      exec.queueRefusal = queueRefusal;
      const buf = Buffer.from(`+QUEUED\r\n${PREVIOUS}`);
      expect(refusalCause(exec, buf, 9, buf.length)).toBe(queueRefusal);
    }
  });

  it("that names missing replicas is the answer of a script, which may have made it up (10)", () => {
    const buf = Buffer.from("-NOREPLICAS Not enough good replicas to write.\r\n");
    for (const name of ["eval", "evalsha", "fcall"]) {
      expect([name, refusalCause(request(name), buf, 0, buf.length)]).toEqual([name, null]);
    }
    expect(refusalCause(request("set"), buf, 0, buf.length)).toBe("no-replicas");
  });

  it("is the answer when no queued command was refused for such a cause", () => {
    const buf = Buffer.from(PREVIOUS);
    expect(refusalCause(request("exec"), buf, 0, buf.length)).toBeNull();
  });

  it("names its own cause before that of a queued command", () => {
    const exec = request("exec");
    exec.queueRefusal = "loading";
    const buf = Buffer.from(`${EXECABORT}: ${TEXTS[0]![1]}\r\n`);
    expect(refusalCause(exec, buf, 0, buf.length)).toBe("not-master");
  });

  it("changes nothing about other errors of that transaction", () => {
    const exec = request("exec");
    exec.queueRefusal = "not-master";
    const buf = Buffer.from("-EXECABORT something else\r\n");
    expect(refusalCause(exec, buf, 0, buf.length)).toBeNull();
  });
});

describe("a script that a replica stopped at its first write", () => {
  const sha = "61636018f4e6b5817b89791bbed242f93fa089e3";
  const now = `-READONLY You can't write against a read only replica. script: ${sha}, on @user_script:1.\r\n`;
  const valkey91 = now.replace(`${sha}, `, "");
  const before7 =
    `-ERR Error running script (call to f_${sha}): @user_script:1: @user_script: 1: ` +
    "-READONLY You can't write against a read only replica. \r\n";

  it.each([now, valkey91, before7, now.replace("@user_script", "@user_function")])(
    "did not run (31): %s",
    (text) => {
      const buf = Buffer.from(text);
      expect(refusalCause(request("eval"), buf, 0, buf.length)).toBe("not-master");
      expect(refusalCause(request("fcall"), buf, 0, buf.length)).toBe("not-master");
    },
  );

  it.each([now, before7])("is told from other commands, which cannot answer that: %s", (text) => {
    const buf = Buffer.from(text);
    expect(refusalCause(request("set"), buf, 0, buf.length)).toBeNull();
  });

  it.each([
    `${now.slice(0, -2)} and more\r\n`,
    now.replace("READONLY", "ERR"),
    now.replace(sha, "x".repeat(300)),
    "-ERR something else script: x, on @user_script:1.\r\n",
  ])("is not every error of a script: %s", (text) => {
    const buf = Buffer.from(text);
    expect(refusalCause(request("eval"), buf, 0, buf.length)).toBeNull();
  });
});

describe("a script's refusal", () => {
  const refused = (name: string, inEpoch: number): Request => {
    const one = request(name);
    one.refusal = Buffer.from(`-${TEXTS[0]![1]}\r\n`);
    one.refusedInEpoch = inEpoch;
    return one;
  };

  it.each(["eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"])(
    "is the script's own in the epoch it came in, since the same master was verified again: %s",
    (name) => {
      expect(isOwnError(refused(name, 7), 7)).toBe(true);
    },
  );

  it("was the server's when another master has come since", () => {
    expect(isOwnError(refused("eval", 7), 8)).toBe(false);
  });

  it("is not asked about for a command that runs no script", () => {
    expect(isOwnError(refused("set", 7), 7)).toBe(false);
  });

  it("is none where nothing was refused", () => {
    expect(isOwnError(request("eval"), -1)).toBe(false);
  });
});

describe("a transaction's reply with scripts in it (18)", () => {
  const SCRIPT =
    "-READONLY You can't write against a read only replica. script: 27cc1c15, on @user_script:1.\r\n";
  const FUNCTION = "-READONLY Can not run script with write flag on readonly replica\r\n";

  it.each([
    ["a script refused at its first write", `*2\r\n$1\r\nx\r\n${SCRIPT}`, "not-master"],
    ["a function refused", `*1\r\n${FUNCTION}`, "not-master"],
    ["a script refused behind a nested reply", `*2\r\n*2\r\n:1\r\n*0\r\n${SCRIPT}`, "not-master"],
    ["another error of a script", "*1\r\n-ERR boom\r\n", null],
    ["the text inside of a value", `*1\r\n$${SCRIPT.length - 2}\r\n${SCRIPT}`, null],
    ["the text inside of a nested reply", `*1\r\n*1\r\n${SCRIPT}`, null],
    ["another text that begins alike", "*1\r\n-READONLY made up\r\n", null],
    ["null", "*-1\r\n", null],
    ["an error", SCRIPT, null],
  ])("with %s", (_what, reply, cause) => {
    expect(unitRefusal(Buffer.from(reply))).toBe(cause);
  });

  it("that was taken for a refusal is the answer when the same master is verified again", () => {
    const unit = request("exec");
    unit.refusal = Buffer.from(`*1\r\n${SCRIPT}`);
    unit.refusedInEpoch = 3;
    expect([isOwnError(unit, 3), isOwnError(unit, 4)]).toEqual([true, false]);
  });
});

describe("a request that is refused over and over", () => {
  it("gets the refusal as its answer at the 33rd time", () => {
    const one = request("set");
    one.refusals = 31;
    expect(isRefusedTooOften(one)).toBe(false);
    one.refusals = 32;
    expect(isRefusedTooOften(one)).toBe(true);
  });
});
