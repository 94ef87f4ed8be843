/** What is counted of requests that a connection gives back. */
import { afterEach, expect, it } from "vitest";
import { ask } from "../../src/upstream/ask.ts";
import { ANONYMOUS } from "../../src/upstream/profile.ts";
import { type FakeNode, SILENT, startFakeNode } from "../support/fake-node.ts";
import { DataPlane } from "../support/plane.ts";
import { sleep, until } from "../support/wait.ts";

let plane: DataPlane;
const nodes: FakeNode[] = [];

afterEach(async () => {
  plane.close();
  for (const node of nodes.splice(0)) await node.close();
});

it("what a connection gives back unsent is not counted as sent", async () => {
  const node = await startFakeNode(({ name }) => (name === "INCR" ? SILENT : undefined));
  nodes.push(node);
  plane = await new DataPlane().start();
  plane.publish(node.address);
  const { router, counters } = plane;
  const lane = router.masterLane(router.profiles.get(ANONYMOUS, 0, 2));
  if (lane === null) throw new Error("no connection");
  ask(lane, ["INCR", "n"], () => {});
  await until(() => node.received("INCR").length === 1, { what: "INCR being sent" });
  const sent = counters.nodeRequests.get(node.address);
  const given = new Promise((resolve) => ask(lane, ["GET", "n"], resolve));
  lane.retire(1_000);
  expect(await given).toBeNull();
  await sleep(0);
  expect(counters.nodeRequests.get(node.address)).toBe(sent);
  expect(node.received("GET")).toEqual([]);
});
