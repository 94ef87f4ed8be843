/** `failover.promote: self` against real servers: the proxy replaces a master that is gone. */
import { afterEach, describe, expect, it } from "vitest";
import { fields, Stage } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";
import { startWorkload } from "../support/workload.ts";

const SELF = { failover: { promote: "self", crashGrace: "250ms", downAfter: "1s" } };

describe("failover.promote: self", () => {
  let stage: Stage;

  afterEach(async () => {
    await stage?.close();
  });

  it("a crashed master is replaced after crashGrace, and follows when it is back", async () => {
    stage = await Stage.open({ config: SELF });
    const load = await startWorkload({ port: stage.proxy.port });
    await sleep(500 + Math.random() * 100);
    load.resetGaps();
    const { master } = stage;
    await master.kill("SIGKILL");
    await load.next("writer");
    await sleep(300);
    const gaps = load.report();
    await master.restart();
    await until(async () => (await master.info()).get("master_link_status") === "up", { deadlineMs: 10_000 });
    await sleep(300);
    const report = await load.stop();
    const { master: now } = fields(await (await stage.client({ protocol: 3 })).command("PROXY", "STATUS"));
    await load.audit(Number(String(now).split(":")[1]));
    expect(report).toMatchObject({ disconnects: 0, mismatches: [] });
    expect(gaps.kinds.writer.longestClientGapMs).toBeLessThan(1000);
  });
});
