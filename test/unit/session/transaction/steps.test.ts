import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeValue, type Value } from "../../../../src/resp/encode.ts";
import { runSteps, type Step, StepsCall } from "../../../../src/session/transaction/steps.ts";

const value: fc.Arbitrary<Value> = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.string(),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 4 }),
  ),
})).value;

/** A queued command: its reply, and who makes it. */
const queued = fc.record({ value, by: fc.constantFrom("server", "seen", "proxy") });

describe("commands about the session inside MULTI", () => {
  it("get their places in EXEC's reply, whatever stands around them", () => {
    fc.assert(
      fc.property(fc.array(queued, { maxLength: 12 }), fc.constantFrom(2, 3), (commands, protocol) => {
        const encoded = commands.map((one) => encodeValue(one.value, protocol as 2 | 3));
        const sent = encoded.filter((_, i) => commands[i]!.by !== "proxy");
        const ran: number[] = [];
        const steps: Step[] = [];
        let at = 0;
        commands.forEach(({ by }, i) => {
          const mine = encoded[i]!;
          const run = (reply: Buffer | null): Buffer => {
            ran.push(i);
            expect(reply === null ? null : reply.equals(mine)).toBe(by === "proxy" ? null : true);
            return mine;
          };
          if (by !== "server") steps.push({ at, isSent: by === "seen", run });
          if (by !== "proxy") at++;
        });
        const reply = Buffer.concat([Buffer.from(`*${sent.length}\r\n`), ...sent]);
        const whole = Buffer.concat([Buffer.from(`*${encoded.length}\r\n`), ...encoded]);
        expect(runSteps(reply, sent.length, steps).equals(whole)).toBe(true);
        expect(ran).toEqual(commands.flatMap(({ by }, i) => (by === "server" ? [] : [i])));
      }),
    );
  });

  it("may change what the client sees of the server's reply to them", () => {
    const step: Step = { at: 1, isSent: true, run: () => Buffer.from(":9\r\n") };
    const reply = Buffer.from("*3\r\n:1\r\n$2\r\nno\r\n:3\r\n");
    expect(runSteps(reply, 3, [step]).toString()).toBe("*3\r\n:1\r\n:9\r\n:3\r\n");
  });

  it.each([
    ["a watched key changed", "*-1\r\n"],
    ["a watched key changed, RESP3", "_\r\n"],
    ["it was refused", "-EXECABORT Transaction discarded because of previous errors.\r\n"],
    ["it is no reply to this transaction", "*1\r\n+OK\r\n"],
  ])("do not run when the transaction did not: %s", (_, text) => {
    const step: Step = {
      at: 0,
      isSent: false,
      run: () => {
        throw new Error("ran");
      },
    };
    expect(runSteps(Buffer.from(text), 2, [step]).toString()).toBe(text);
  });

  it("run once, on the reply that counts, however often the unit is sent", () => {
    let runs = 0;
    const step: Step = {
      at: 0,
      isSent: false,
      run: () => {
        runs++;
        return Buffer.from("+OK\r\n");
      },
    };
    const unit = Buffer.from("the unit");
    const call = new StepsCall(unit, 2, 0, [step], false);
    expect([call.requestFor(), call.requestFor(), runs]).toEqual([unit, unit, 0]);
    expect(call.replyFor(Buffer.from("*0\r\n")).toString()).toBe("*1\r\n+OK\r\n");
    expect([runs, call.replies]).toEqual([1, 2]);
  });
});
