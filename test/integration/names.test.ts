/** Nodes that the proxy knows by names while they know each other by addresses. */
import { afterEach, expect, it } from "vitest";
import { fields, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage | undefined;

afterEach(async () => {
  await stage?.close();
  stage = undefined;
});

function named(address: string): string {
  return address.replace("127.0.0.1", "localhost");
}

it("a planned switch of nodes that are configured by name is made by FAILOVER", async () => {
  stage = await Stage.open({ before: ({ addresses }) => addresses.map(named) });
  const { group } = stage;
  const client = await stage.client({ protocol: 3 });
  const to = named(group.replica(1).address);
  const report = fields(await client.command("PROXY", "SWITCHOVER", "TO", to));
  expect(report).toMatchObject({ result: "done", from: named(group.master.address), to, via: "failover" });
  expect(await client.command("SET", "k", "v")).toBe("OK");
  for (const server of [group.master, group.replica(0)]) {
    await until(async () => (await server.info()).get("master_port") === `${group.replica(1).port}`);
    await server.untilLinkUp();
  }
});
