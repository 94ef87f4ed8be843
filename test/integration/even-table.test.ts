/** Whatever becomes of the connections, the table of writes on the way is even once all is answered. */
import { afterEach, expect, it } from "vitest";
import { encodeRequest } from "../../src/resp/encode.ts";
import type { HoldCause } from "../../src/topology/epoch.ts";
import { ask } from "../../src/upstream/ask.ts";
import { ANONYMOUS } from "../../src/upstream/profile.ts";
import { EVERYTHING } from "../../src/upstream/request.ts";
import type { RawClient } from "../support/client.ts";
import {
  type Answer,
  type FakeCommand,
  type FakeNode,
  resp,
  SILENT,
  startFakeNode,
} from "../support/fake-node.ts";
import { DataPlane } from "../support/plane.ts";
import { randomFrom, SEED } from "../support/random.ts";
import { sleep, until } from "../support/wait.ts";

let plane: DataPlane;
const nodes: FakeNode[] = [];

afterEach(async () => {
  plane.close();
  for (const node of nodes.splice(0)) await node.close();
});

const REQUESTS = [
  ["SET", "a", "1"],
  ["MSET", "a", "1", "b", "2", "a", "3"],
  ["FLUSHALL"],
  ["EVAL", "return 1", "0"],
  ["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "1", "a"],
  ["PUBLISH", "c", "m"],
  ["GET", "a"],
  ["KEYS", "*"],
  ["GEORADIUS", "a", "1", "1", "1", "km"],
  ["MULTI"],
  ["EXEC"],
  ["WATCH", "a"],
  ["UNWATCH"],
  ["BLPOP", "q", "0.1"],
  ["XREAD", "BLOCK", "50", "STREAMS", "s", "0"],
  ["SET", "large", "x".repeat(20_000)],
  ["CLIENT", "REPLY", "SKIP"],
  ["SELECT", "1"],
];

const ERRORS = [
  "READONLY You can't write against a read only replica.",
  "LOADING Redis is loading the dataset in memory",
  "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
  "NOREPLICAS Not enough good replicas to write.",
  "NOSCRIPT No matching script. Please use EVAL.",
  "WRONGTYPE Operation against a key holding the wrong kind of value",
];

it(`connections that end in all ways, seed ${SEED} (7)`, async () => {
  const random = randomFrom(SEED);
  const below = (count: number): number => Math.floor(random() * count);
  let isCalm = false;
  const answer = ({ name, connection }: FakeCommand): Answer => {
    if (["INFO", "AUTH", "SELECT", "HELLO", "READONLY", "CLIENT", "ROLE"].includes(name)) return undefined;
    if (name === "MULTI") return resp.ok;
    if (name === "EXEC") return resp.array([]);
    if (isCalm) return resp.ok;
    switch (below(12)) {
      case 0:
        return SILENT;
      case 1:
        connection.socket.destroy();
        return SILENT;
      case 2:
        connection.socket.resetAndDestroy();
        return SILENT;
      case 3:
      case 4:
        return resp.error(ERRORS[below(ERRORS.length)] ?? "ERR");
      case 5:
        return resp.ok.slice(0, 3);
      default:
        return resp.ok;
    }
  };
  for (let i = 0; i < 3; i++) nodes.push(await startFakeNode(answer));
  plane = await new DataPlane({
    hold: { maxTime: "300ms" },
    upstream: { retireTimeout: "20ms", requestTimeout: "200ms", connectTimeout: "200ms" },
    inFlight: { onUnknown: "retry-all" },
    reads: { consistency: "proxy" },
  }).start();
  let number = 1;
  const publish = (holdCause: HoldCause | null): void => {
    const master = nodes[number % nodes.length];
    const replid = String(number % 10).repeat(40);
    master?.info.set("master_replid", replid);
    plane.publish(master?.address ?? "", holdCause, number, replid);
  };
  publish(null);
  const clients: RawClient[] = [];
  const { freshness } = plane.router;
  let wasUneven = 0;
  for (let round = 0; round < 400; round++) {
    if (clients.length < 8) clients.push(await plane.client());
    const client = clients[below(clients.length)];
    for (let count = 1 + below(6); count > 0; count--)
      client?.send(encodeRequest(REQUESTS[below(REQUESTS.length)] ?? []));
    if (!freshness.isQuietAt(Number.POSITIVE_INFINITY)) wasUneven++;
    switch (below(20)) {
      case 0:
        number++;
        publish(null);
        break;
      case 1:
        publish("silent");
        break;
      case 2:
        publish("shutting-down");
        break;
      case 3:
        for (const { socket } of nodes[number % 3]?.connections ?? []) socket.resetAndDestroy();
        break;
      case 4:
        clients.splice(below(clients.length), 1)[0]?.close();
        break;
      case 5:
        await sleep(below(30));
        break;
      default:
        publish(null);
    }
    await sleep(below(3));
  }
  expect(wasUneven, "writes were on the way").toBeGreaterThan(0);
  isCalm = true;
  publish(null);
  await until(() => freshness.isQuietAt(Number.POSITIVE_INFINITY), { what: "nothing on the way" });
  // One more write shows whether any slot is still waited for, or was given up once too often.
  freshness.sent(0);
  for (let slot = 1; slot < 16_384; slot++)
    expect(freshness.mayServe(slot, Number.POSITIVE_INFINITY)).toBe(true);
  expect(freshness.mayServe(0, Number.POSITIVE_INFINITY)).toBe(false);
  freshness.done(0, 0);
  freshness.sent(EVERYTHING);
  expect(freshness.mayServe(1, Number.POSITIVE_INFINITY)).toBe(false);
  freshness.done(EVERYTHING, 0);
  expect(plane.faults).toEqual([]);
}, 60_000);

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
