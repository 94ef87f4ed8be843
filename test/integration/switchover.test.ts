/** PROXY SWITCHOVER and PROXY RESTARTABLE against real servers: planned switches that nobody notices. */
import { afterEach, describe, expect, it } from "vitest";
import { fields, median, Stage } from "../support/stage.ts";

import { sleep } from "../support/wait.ts";
import { startWorkload } from "../support/workload.ts";

describe("PROXY SWITCHOVER", () => {
  let stage: Stage;

  afterEach(async () => {
    await stage?.close();
  });

  it("back and forth twenty times: no error, no lost or doubled write, and writes stand still < 50 ms", async () => {
    stage = await Stage.open();
    const load = await startWorkload({ port: stage.proxy.port, paceMs: 1 });
    const admin = await stage.client({ protocol: 3 });
    const stalls: number[] = [];
    for (let round = 0; round < 20; round++) {
      await sleep(Math.random() * 150);
      const answer = fields(await admin.command("PROXY", "SWITCHOVER"));
      expect(answer, `round ${round}`).toMatchObject({ result: "done", lost_bytes: 0, via: "failover" });
      stalls.push(Number(answer.stall_ms));
    }
    const report = await load.stop();
    const { master } = fields(await admin.command("PROXY", "STATUS"));
    const audit = await load.audit(Number(String(master).split(":")[1]));
    expect(report).toMatchObject({ disconnects: 0, uncertain: 0, mismatches: [] });
    expect([...report.errors]).toEqual([]);
    expect(audit).toMatchObject({ lost: 0, unexplained: 0 });
    expect(median(stalls)).toBeLessThan(50);
  });
});
