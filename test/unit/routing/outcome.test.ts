import { describe, expect, it } from "vitest";
import {
  type OnUnknown,
  type Outcome,
  outcomeOf,
  REQUEST_CLASSES,
  REQUEST_EVENTS,
  type RequestClass,
  type RequestEvent,
} from "../../../src/routing/outcome.ts";

const POLICIES: readonly OnUnknown[] = ["error", "retry-idempotent", "retry-all"];

/** One letter an outcome, so that the whole table can be seen at once. */
const LETTERS: Readonly<Record<string, Outcome>> = {
  a: "again",
  m: "again-though-it-may-have-run",
  u: "uncertain",
  e: "error",
  n: "null",
  w: "unwatched",
};

/**
 * All of it: three letters a cell, one for each policy (error, retry-idempotent, retry-all); in the
 * second table for what may have run before.
 */
const COLUMNS = "read idem writ publ tran scri call wait watc xwat node";
const CLASS_OF: Readonly<Record<string, RequestClass>> = {
  read: "read",
  idem: "idempotent",
  writ: "write",
  publ: "publish",
  tran: "transaction",
  scri: "script",
  call: "call",
  wait: "waiting-call",
  watc: "watch",
  xwat: "watched",
  node: "node",
};
const FIRST_RUN = `
                    ${COLUMNS}
  not-master        aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  nnn  eee
  loading           aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  nnn  eee
  link-down         aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  nnn  eee
  no-replicas       aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  nnn  eee
  refused-too-often eee  eee  eee  eee  eee  eee  eee  eee  eee  eee  eee
  login             eee  eee  eee  eee  eee  eee  eee  eee  eee  eee  eee
  unsent            aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  nnn  eee
  shut-down         aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  nnn  uuu
  lost              aaa  umm  uum  uum  uum  uum  uum  aaa  www  uuu  uuu
  lost-too-often    eee  uuu  uuu  uuu  uuu  uuu  uuu  uuu  eee  uuu  uuu
  another-master    aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  same-master       aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  same-master-open  aaa  uuu  uuu  uuu  uuu  uuu  uuu  uuu  www  uuu  uuu
  given-up          eee  eee  eee  eee  eee  eee  eee  eee  eee  eee  eee
`;
const SECOND_RUN = `
                    ${COLUMNS}
  not-master        aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  loading           aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  link-down         aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  no-replicas       aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  refused-too-often eee  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu
  login             eee  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu
  unsent            aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  shut-down         aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  lost              aaa  umm  uum  uum  uum  uum  uum  aaa  www  uuu  uuu
  lost-too-often    eee  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu
  another-master    aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  same-master       aaa  aaa  aaa  aaa  aaa  aaa  aaa  aaa  www  uuu  uuu
  same-master-open  aaa  uuu  uuu  uuu  uuu  uuu  uuu  uuu  www  uuu  uuu
  given-up          eee  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu  uuu
`;

interface Row {
  readonly what: RequestClass;
  readonly event: RequestEvent;
  readonly policy: OnUnknown;
  readonly expected: Outcome;
}

function rowsOf(table: string): Row[] {
  const [head = "", ...lines] = table.trim().split("\n");
  const columns = head.trim().split(/\s+/);
  return lines.flatMap((line) => {
    const [event = "", ...cells] = line.trim().split(/\s+/);
    return cells.flatMap((cell, i) =>
      POLICIES.map((policy, k) => ({
        what: CLASS_OF[columns[i] ?? ""] as RequestClass,
        event: event as RequestEvent,
        policy,
        expected: LETTERS[cell[k] ?? ""] as Outcome,
      })),
    );
  });
}

describe.each([
  ["that was sent once", FIRST_RUN, false],
  ["that was lost before and sent again although it may have run", SECOND_RUN, true],
] as const)("a request %s", (_, table, mayHaveRun) => {
  const rows = rowsOf(table);

  it("has an outcome for each class, event and policy, and the table has them all", () => {
    const keys = rows.map(({ what, event, policy }) => `${what} ${event} ${policy}`);
    const all = REQUEST_CLASSES.flatMap((what) =>
      REQUEST_EVENTS.flatMap((event) => POLICIES.map((policy) => `${what} ${event} ${policy}`)),
    );
    expect(keys.toSorted()).toEqual(all.toSorted());
    for (const { expected } of rows) expect(expected).toBeDefined();
  });

  it.each(rows)(
    "$what, $event, $policy → $expected (12, 13, 14, 19)",
    ({ what, event, policy, expected }) => {
      expect(outcomeOf(what, event, policy, mayHaveRun)).toBe(expected);
    },
  );
});

const all = REQUEST_CLASSES.flatMap((what) =>
  REQUEST_EVENTS.flatMap((event) =>
    POLICIES.flatMap((policy) => [false, true].map((mayHaveRun) => ({ what, event, policy, mayHaveRun }))),
  ),
).map((one) => ({ ...one, outcome: outcomeOf(one.what, one.event, one.policy, one.mayHaveRun) }));

describe("what holds for all of them", () => {
  it("nothing with an effect is said not to have run when it may have", () => {
    for (const { what, outcome, mayHaveRun } of all) {
      if (mayHaveRun && what !== "read") expect(["error", "null"]).not.toContain(outcome);
    }
  });

  it("nothing is sent again in doubt unless the configuration wants it", () => {
    for (const { what, policy, outcome } of all) {
      if (outcome !== "again-though-it-may-have-run") continue;
      expect(policy).not.toBe("error");
      if (policy === "retry-idempotent") expect(what).toBe("idempotent");
    }
  });

  it("a script is never sent again in doubt by retry-idempotent, nor what belongs to one node or watch", () => {
    for (const { what, policy, outcome } of all) {
      const isBound = what === "watched" || what === "node";
      if (isBound || (what === "script" && policy !== "retry-all")) {
        expect(outcome).not.toBe("again-though-it-may-have-run");
      }
    }
  });

  it("a read is never uncertain", () => {
    for (const { what, outcome } of all) if (what === "read") expect(outcome).not.toBe("uncertain");
  });
});
