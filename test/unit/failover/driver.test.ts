import { describe, expect, it } from "vitest";
import { FailoverDriver } from "../../../src/failover/driver.ts";
import { at } from "../topology/nodes.ts";
import { masterAt, NEVER, replicaAt, sight } from "./sight.ts";

/** A driver before a master a and its replica b; whatever it asks for never ends. */
function driverOf(): FailoverDriver {
  const idle = (): void => {};
  const driver = new FailoverDriver(NEVER, {
    clock: { nowMs: () => 5_000, wallMs: () => 0 },
    setTimer: () => idle,
    group: () => sight([masterAt("a", 4_990), replicaAt("b", 4_990)]),
    ...{ hold: idle, release: idle, renounce: idle, look: idle, run: idle, confirm: idle, askSentinel: idle },
    ...{ tell: idle, onObstacles: idle },
    whenDrained: () => idle,
  });
  driver.looked();
  return driver;
}

describe("a replica may be stopped", () => {
  it("in calm", async () => {
    expect(await driverOf().restartable(at("b"), 1_000)).toMatchObject({ kind: "yes", movedTo: null });
  });

  it("not while it is being made the master", async () => {
    const driver = driverOf();
    void driver.switchover({ to: at("b"), timeoutMs: 1_000 });
    expect(await driver.restartable(at("b"), 1_000)).toEqual({ kind: "no", reason: "a switch is under way" });
    driver.destroy();
  });
});

describe("a proxy that stood still when its planned switch was made", () => {
  it("says all the same what was lost", async () => {
    const idle = (): void => {};
    let nowMs = 5_000;
    let isDone = false;
    let drained = idle;
    const after = () => [
      replicaAt("a", nowMs - 5, { of: "b", replid: "H2" }),
      masterAt("b", nowMs - 5, { replid: "H2", replid2: "H1" }),
    ];
    const before = () => [masterAt("a", nowMs - 5), replicaAt("b", nowMs - 5)];
    const driver = new FailoverDriver(NEVER, {
      clock: { nowMs: () => nowMs, wallMs: () => 0 },
      setTimer: () => idle,
      group: () => (isDone ? sight(after(), { of: "b", replid: "H2", epoch: 2 }) : sight(before())),
      ...{ hold: idle, release: idle, renounce: idle, look: idle, confirm: idle, askSentinel: idle },
      ...{ tell: idle, onObstacles: idle },
      run: (_node, command, done) =>
        command.kind === "failover" && queueMicrotask(() => done({ kind: "done" })),
      whenDrained: (done) => {
        drained = done;
        return idle;
      },
    });
    driver.looked();
    const answer = driver.switchover({ to: at("b"), timeoutMs: 60_000 });
    drained();
    await Promise.resolve();
    nowMs += 61_000;
    isDone = true;
    driver.switched(0);
    driver.looked();
    expect(await answer).toMatchObject({ kind: "done", report: { lostBytes: 0 } });
    driver.destroy();
  });
});
