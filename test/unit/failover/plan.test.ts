import { describe, expect, it } from "vitest";
import type { PromoteMode } from "../../../src/failover/model.ts";
import { objectionToPause, planSwitchover } from "../../../src/failover/plan.ts";
import type { NodeId } from "../../../src/topology/epoch.ts";
import type { NodeView } from "../../../src/topology/rules/model.ts";
import { at, unanswered } from "../topology/nodes.ts";
import {
  DONE,
  lost,
  masterAt,
  refusedWith,
  replicaAt,
  type SightOptions,
  sight,
  UNKNOWN,
  UNREACHABLE,
} from "./sight.ts";

interface Asked extends SightOptions {
  readonly to?: NodeId | null;
  readonly timeoutMs?: number;
  readonly mode?: PromoteMode;
}

const A = masterAt("a", 3_000);
const B = replicaAt("b", 3_000);
const C = replicaAt("c", 3_000);

function plan(views: readonly NodeView[], asked: Asked = {}) {
  const { to = null, timeoutMs = 2_000, mode = "never", ...options } = asked;
  return planSwitchover(sight(views, options), { to, timeoutMs }, mode);
}

function reasonOf(views: readonly NodeView[], asked: Asked = {}): string {
  const planned = plan(views, asked);
  if (planned.kind !== "refused") throw new Error(`planned: ${JSON.stringify(planned)}`);
  return planned.reason;
}

describe("a planned switch is refused", () => {
  it("before anything was seen, and without a master", () => {
    const request = { to: null, timeoutMs: 1_000 };
    const none = { kind: "refused", reason: "no master has been found yet" };
    expect(planSwitchover(null, request, "self")).toEqual(none);
    expect(planSwitchover({ ...sight([A, B]), master: null }, request, "self")).toEqual(none);
  });

  const onB = { to: at("b") };
  const rows: [reason: string, views: readonly NodeView[], asked?: Asked][] = [
    ["the master a:6379 is not well: silent", [A, B], { hold: "silent" }],
    ["the master a:6379 does not answer", [lost(A, "silent"), B]],
    ["the master a:6379 does not answer", [B]],
    [
      "a FAILOVER is under way on the servers already",
      [masterAt("a", 3_000, { failoverState: "waiting-for-sync" }), B],
    ],
    ["z:6379 is not a node of this group", [A, B], { to: at("z") }],
    ["a:6379 cannot take over: it is the master already", [A, B], { to: at("a") }],
    ["b:6379 cannot take over: it does not answer", [A, lost(B, "unreachable")], onB],
    ["b:6379 cannot take over: it does not answer", [A, unanswered("b", "never")], onB],
    ["b:6379 cannot take over: it claims to be a master itself", [A, masterAt("b", 3_000)], onB],
    ["b:6379 cannot take over: it is loading its data", [A, replicaAt("b", 1, { loading: true })], onB],
    [
      "b:6379 cannot take over: it is being synchronised",
      [A, replicaAt("b", 1, { syncInProgress: true })],
      onB,
    ],
    [
      "b:6379 cannot take over: it is not in sync with the master's history",
      [A, replicaAt("b", 3_000, { replid: "X" })],
      onB,
    ],
    [
      "b:6379 cannot take over: its replica-priority is 0: never promote",
      [A, replicaAt("b", 3_000, { priority: 0 })],
      onB,
    ],
    ["b:6379 cannot take over: it follows another node", [A, replicaAt("b", 3_000, { of: "c" }), C], onB],
    [
      "b:6379 cannot take over: its link to the master is down",
      [A, replicaAt("b", 1, { linkUp: false })],
      onB,
    ],
    [
      "b:6379 cannot take over: it lags behind by 2000 ms",
      [A, replicaAt("b", 1, { appliedOffset: 95 })],
      onB,
    ],
    [
      "b:6379 cannot take over: it lags behind by an unknown time",
      [A, replicaAt("b", 1, { appliedOffset: 49 })],
      onB,
    ],
    ["no replica can take over: there is no other node", [A]],
    [
      "no replica can take over: b:6379: it does not answer; c:6379: its replica-priority is 0: never promote",
      [A, lost(B, "silent"), replicaAt("c", 1, { priority: 0 })],
    ],
    [
      "Sentinel chooses the new master itself: leave out TO (2 replicas can take over)",
      [A, B, C],
      { to: at("b"), mode: "sentinel" },
    ],
  ];
  it.each(rows)("%s", (reason, views, asked = {}) => {
    expect(reasonOf(views, asked)).toBe(reason);
  });
});

describe("a planned switch is planned", () => {
  it("to the fittest replica, by the server's own FAILOVER", () => {
    const views = [A, B, replicaAt("c", 3_000, { appliedOffset: 105 })];
    expect(plan(views)).toMatchObject({ plan: { from: at("a"), to: at("c"), via: "failover" } });
  });

  it("to the replica that is named, also by its second address", () => {
    const second = { ...C, id: at("second") };
    const group = [A, B, C, second];
    expect(plan(group, { to: at("c") })).toMatchObject({ plan: { to: at("c") } });
    expect(plan(group, { to: at("second") })).toMatchObject({ plan: { to: at("c") } });
  });

  it("to a replica that lags no longer than half of the time", () => {
    const lagging = replicaAt("b", 3_000, { appliedOffset: 95 });
    expect(plan([A, lagging], { timeoutMs: 4_000 })).toMatchObject({ kind: "plan" });
    expect(plan([A, lagging], { timeoutMs: 3_999 })).toMatchObject({ kind: "refused" });
  });

  it.each([
    ["5.0.14", "promote"],
    ["6.0.20", "promote"],
    ["6.2.0", "failover"],
    ["7.2.4", "failover"],
    ["10.0.0", "failover"],
    ["", "promote"],
  ] as const)("on version '%s' via %s", (version, via) => {
    expect(plan([masterAt("a", 3_000, { version }), B])).toMatchObject({ plan: { via, to: at("b") } });
  });

  it("with Sentinel by Sentinel, which chooses; TO is taken where there is but one", () => {
    expect(plan([A, B, C], { mode: "sentinel" })).toMatchObject({ plan: { to: null, via: "sentinel" } });
    const one = [A, B, replicaAt("c", 3_000, { priority: 0 })];
    expect(plan(one, { mode: "sentinel", to: at("b") })).toMatchObject({
      plan: { to: at("b"), via: "sentinel" },
    });
  });

  it("with its steps in words", () => {
    const planned = plan([A, B]);
    if (planned.kind !== "plan") throw new Error(planned.reason);
    expect(planned.plan.steps.join("\n")).toContain("FAILOVER TO b:6379 on a:6379");
  });
});

describe("a switch without FAILOVER", () => {
  const OLD = "ERR Unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP";

  it("is refused where the master cannot pause writes alone, and it is said what can", () => {
    expect(objectionToPause(at("a"), refusedWith(OLD))).toBe(
      `writes cannot be paused on a:6379, and those of others would be lost (${OLD}): ` +
        "FAILOVER and CLIENT PAUSE … WRITE need Redis 6.2",
    );
  });

  it("is refused where we have no right to pause", () => {
    expect(objectionToPause(at("a"), refusedWith("NOPERM no CLIENT"))).toBe(
      "writes cannot be paused on a:6379, and those of others would be lost (NOPERM no CLIENT)",
    );
  });

  it.each([DONE, UNKNOWN, UNREACHABLE])("is not objected to on %o", (result) => {
    expect(objectionToPause(at("a"), result)).toBeNull();
  });
});
