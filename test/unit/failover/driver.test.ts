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
