import { describe, expect, it } from "vitest";
import { AdminCommand } from "../../../src/admin/command.ts";
import type { Overview } from "../../../src/admin/overview.ts";
import {
  type Restartable,
  runRestartable,
  runSwitchover,
  type Switcher,
} from "../../../src/admin/switchover.ts";
import type { SwitchoverAnswer, SwitchoverRequest } from "../../../src/failover/model.ts";
import type { Planned } from "../../../src/failover/plan.ts";
import { encodeValue, type Value } from "../../../src/resp/encode.ts";
import { parseNodeId } from "../../../src/topology/address.ts";
import type { NodeId } from "../../../src/topology/epoch.ts";

const [A, B, C] = ["10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379"] as [NodeId, NodeId, NodeId];
const SETTINGS = { defaultTimeoutMs: 2_000, mostTimeoutMs: 3_600_000, parseNode: parseNodeId };

/** Remembers what it was asked. */
class Asked implements Switcher {
  readonly requests: (SwitchoverRequest & { dry?: true; node?: NodeId })[] = [];
  answer: SwitchoverAnswer = {
    kind: "done",
    report: { from: A, to: B, via: "failover", stallMs: 12.6, lostBytes: 0, repointed: [C] },
  };
  planned: Planned = { kind: "plan", plan: { from: A, to: null, via: "sentinel", steps: ["one", "two"] } };
  answerRestartable: Restartable = { kind: "yes", movedTo: B, stallMs: 7.4 };

  switchover(request: SwitchoverRequest) {
    this.requests.push(request);
    return Promise.resolve(this.answer);
  }

  plan(request: SwitchoverRequest) {
    this.requests.push({ ...request, dry: true });
    return Promise.resolve(this.planned);
  }

  restartable(node: NodeId, timeoutMs: number) {
    this.requests.push({ node, to: null, timeoutMs });
    return Promise.resolve(this.answerRestartable);
  }
}

async function text(value: Value | Buffer | Promise<Value | Buffer>, protocol: 2 | 3 = 3): Promise<string> {
  const settled = await value;
  return (Buffer.isBuffer(settled) ? settled : encodeValue(settled, protocol)).toString();
}

async function requestOf(...words: string[]) {
  const asked = new Asked();
  await runSwitchover(words, asked, SETTINGS);
  expect(asked.requests).toHaveLength(1);
  return asked.requests[0];
}

describe("PROXY SWITCHOVER reads", () => {
  it.each([["TIMEOUT", "60000"], [], ["TIMEOUT", "901"]])(
    "no longer time than writes may wait: %s %s",
    async (...words) => {
      const asked = new Asked();
      const settings = { ...SETTINGS, mostTimeoutMs: 900 };
      await runSwitchover(words, asked, settings);
      await runRestartable([A, ...words], asked, settings);
      expect(asked.requests).toMatchObject([{ timeoutMs: 900 }, { timeoutMs: 900 }]);
    },
  );

  it.each([
    [[], { to: null, timeoutMs: 2_000 }],
    [["TO", B], { to: B, timeoutMs: 2_000 }],
    [["to", B, "timeout", "50"], { to: B, timeoutMs: 50 }],
    [["Timeout", "10", "To", B], { to: B, timeoutMs: 10 }],
    [["TIMEOUT", "3600000"], { to: null, timeoutMs: 3_600_000 }],
    [["TO", "Localhost:6379"], { to: "localhost:6379", timeoutMs: 2_000 }],
    [["TO", "[::1]:6379"], { to: "[::1]:6379", timeoutMs: 2_000 }],
    [["DRYRUN"], { to: null, timeoutMs: 2_000, dry: true }],
    [["dryrun", "TO", B], { to: B, timeoutMs: 2_000, dry: true }],
    [["TO", B, "DRYRUN", "TIMEOUT", "99"], { to: B, timeoutMs: 99, dry: true }],
  ])("%j", async (words, expected) => {
    expect(await requestOf(...words)).toEqual(expected);
  });
});

describe("PROXY SWITCHOVER refuses, and asks nobody", () => {
  it.each([
    [["TO"], "'' is not host:port"],
    [["TO", "nonsense"], "'nonsense' is not host:port"],
    [["TO", "host:0"], "'host:0' is not host:port"],
    [["TO", "host:65536"], "'host:65536' is not host:port"],
    [["TO", "DRYRUN"], "'DRYRUN' is not host:port"],
    [["TO", "a\r\nb:1"], "'a??b:1' is not host:port"],
    [["TO", "x".repeat(100)], `'${"x".repeat(64)}' is not host:port`],
    [["TIMEOUT"], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["TIMEOUT", "9"], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["TIMEOUT", "3600001"], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["TIMEOUT", "-1"], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["TIMEOUT", "1e3"], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["TIMEOUT", "0x100"], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["TIMEOUT", " 100"], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["TIMEOUT", "2s"], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["TIMEOUT", "9".repeat(30)], "TIMEOUT takes 10 to 3600000 milliseconds"],
    [["NOW"], "'NOW' is not understood here. Try PROXY HELP"],
    [["TO", B, "FORCE"], "'FORCE' is not understood here. Try PROXY HELP"],
    [[""], "'' is not understood here. Try PROXY HELP"],
    [["ü"], "'?' is not understood here. Try PROXY HELP"],
  ])("%j", async (words, error) => {
    const asked = new Asked();
    expect(await text(runSwitchover(words, asked, SETTINGS))).toBe(`-ERR proxy: ${error}\r\n`);
    expect(asked.requests).toEqual([]);
  });
});

describe("PROXY SWITCHOVER answers", () => {
  const answer = async (one: SwitchoverAnswer, protocol: 2 | 3 = 3) => {
    const asked = new Asked();
    asked.answer = one;
    return text(runSwitchover([], asked, SETTINGS), protocol);
  };
  const done = new Asked().answer;

  it("done: a map with RESP3, a flat array with RESP2, with whole milliseconds", async () => {
    const fields =
      "$6\r\nresult\r\n$4\r\ndone\r\n$4\r\nfrom\r\n$13\r\n10.0.0.1:6379\r\n$2\r\nto\r\n$13\r\n10.0.0.2:6379\r\n" +
      "$3\r\nvia\r\n$8\r\nfailover\r\n$8\r\nstall_ms\r\n:13\r\n$10\r\nlost_bytes\r\n:0\r\n" +
      "$9\r\nrepointed\r\n*1\r\n$13\r\n10.0.0.3:6379\r\n";
    expect(await answer(done, 3)).toBe(`%7\r\n${fields}`);
    expect(await answer(done, 2)).toBe(`*14\r\n${fields}`);
  });

  it("done, and what was lost is not known: null", async () => {
    if (done.kind !== "done") throw new Error("done");
    const unknown = { ...done, report: { ...done.report, lostBytes: null } };
    expect(await answer(unknown, 3)).toContain("lost_bytes\r\n_\r\n");
    expect(await answer(unknown, 2)).toContain("lost_bytes\r\n$-1\r\n");
  });

  it("refused, rolled back and open: an error that says what is changed", async () => {
    const reason = "because";
    expect(await answer({ kind: "refused", reason })).toBe("-ERR proxy: because; nothing was changed\r\n");
    expect(await answer({ kind: "rolled-back", reason })).toBe(
      "-ERR proxy: rolled back: because; the master is the one of before\r\n",
    );
    expect(await answer({ kind: "open", reason })).toBe(
      "-ERR proxy: not finished: because; see PROXY STATUS\r\n",
    );
  });

  it("a reason with line ends in one line", async () => {
    const reply = await answer({ kind: "rolled-back", reason: "ERR one\r\n+OK" });
    expect(reply.match(/\r|\n/g)).toEqual(["\r", "\n"]);
    expect(reply.endsWith("\r\n")).toBe(true);
  });

  it("DRYRUN: the plan, or why there is none", async () => {
    const asked = new Asked();
    const reply = await text(runSwitchover(["DRYRUN"], asked, SETTINGS));
    expect(reply).toContain("$6\r\nresult\r\n$6\r\ndryrun\r\n");
    expect(reply).toContain("$2\r\nto\r\n_\r\n");
    expect(reply).toContain("$5\r\nsteps\r\n*2\r\n$3\r\none\r\n$3\r\ntwo\r\n");
    asked.planned = { kind: "refused", reason: "no" };
    expect(await text(runSwitchover(["DRYRUN"], asked, SETTINGS))).toBe(
      "-ERR proxy: no; nothing was changed\r\n",
    );
  });
});

describe("PROXY RESTARTABLE", () => {
  it.each([
    [[B], { node: B, timeoutMs: 2_000 }],
    [[B, "TIMEOUT", "500"], { node: B, timeoutMs: 500 }],
    [[B, "timeout", "500"], { node: B, timeoutMs: 500 }],
  ])("reads %j", async (words, expected) => {
    const asked = new Asked();
    await runRestartable(words, asked, SETTINGS);
    expect(asked.requests).toMatchObject([expected]);
  });

  it.each([
    [[], "'' is not host:port"],
    [["nonsense"], "'nonsense' is not host:port"],
    [[B, "TO", C], "'TO' is not understood here. Try PROXY HELP"],
    [[B, "DRYRUN"], "'DRYRUN' is not understood here. Try PROXY HELP"],
    [[B, "TIMEOUT", "1"], "TIMEOUT takes 10 to 3600000 milliseconds"],
  ])("refuses %j, and asks nobody", async (words, error) => {
    const asked = new Asked();
    expect(await text(runRestartable(words, asked, SETTINGS))).toBe(`-ERR proxy: ${error}\r\n`);
    expect(asked.requests).toEqual([]);
  });

  it("answers with a map, or an error that says why not", async () => {
    const asked = new Asked();
    expect(await text(runRestartable([A], asked, SETTINGS), 2)).toBe(
      "*8\r\n$4\r\nnode\r\n$13\r\n10.0.0.1:6379\r\n$11\r\nrestartable\r\n:1\r\n" +
        "$8\r\nmoved_to\r\n$13\r\n10.0.0.2:6379\r\n$8\r\nstall_ms\r\n:7\r\n",
    );
    asked.answerRestartable = { kind: "no", reason: "nobody can take over" };
    expect(await text(runRestartable([A], asked, SETTINGS))).toBe(
      "-ERR proxy: not restartable now: nobody can take over\r\n",
    );
  });
});

describe("as sub-commands of PROXY", () => {
  const run = async (...words: string[]) => {
    const asked = new Asked();
    const admin = new AdminCommand({
      // None of these words asks for it.
      overview: {} as Overview,
      switcher: asked,
      switchovers: SETTINGS,
      adopt: () => null,
      clients: () => [],
    });
    return (
      await admin.run(
        ["PROXY", ...words].map((word) => Buffer.from(word)),
        3,
      )
    ).toString();
  };

  it("they are found in any case, with as many words as they take", async () => {
    expect(await run("switchover")).toMatch(/^%7\r\n/);
    expect(await run("Switchover", "to", B, "timeout", "100", "dryrun")).toMatch(/^%5\r\n/);
    expect(await run("RESTARTABLE", B)).toMatch(/^%4\r\n/);
    expect(await run("RESTARTABLE", B, "TIMEOUT", "100")).toMatch(/^%4\r\n/);
  });

  it.each([
    [["SWITCHOVER", "TO", B, "TIMEOUT", "100", "DRYRUN", "DRYRUN"]],
    [["RESTARTABLE"]],
    [["RESTARTABLE", B, "TIMEOUT"]],
    [["RESTARTABLE", B, "TIMEOUT", "100", "x"]],
  ])("%j has a wrong number of words", async (words) => {
    expect(await run(...words)).toMatch(/^-ERR proxy: unknown subcommand or wrong number of arguments/);
  });
});
