/** What single replies and ends of connections mean that real servers give only by chance. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { type FakeConnection, type FakeNode, resp, SILENT, startFakeNode } from "../support/fake-node.ts";
import { DataPlane } from "../support/plane.ts";
import type { Reply } from "../support/resp.ts";
import { errorText } from "../support/stage.ts";
import { until, within } from "../support/wait.ts";

const NOREPLICAS = "NOREPLICAS Not enough good replicas to write.";
const UNCERTAIN = /^UNCERTAIN /;

let plane: DataPlane;
let node: FakeNode;
let client: RawClient;

beforeEach(async () => {
  node = await startFakeNode();
  plane = await new DataPlane().start();
  plane.publish(node.address);
  client = await plane.client();
});

afterEach(async () => {
  plane.close();
  await node.close();
  expect(plane.faults).toEqual([]);
});

describe("a write that the master was sent and did not answer before it ended (50)", () => {
  /** INCR is taken and never answered; everything else is as ever. */
  async function sent(): Promise<{ reply: Promise<Reply>; connection: FakeConnection }> {
    expect(await client.command("SET", "k", "v")).toBe("OK");
    const taken: FakeConnection[] = [];
    node.handler = ({ name, connection }) => {
      if (name !== "INCR") return undefined;
      taken.push(connection);
      return SILENT;
    };
    const reply = client.command("INCR", "n");
    await until(() => taken.length > 0, { what: "INCR being sent" });
    return { reply, connection: taken[0] as FakeConnection };
  }

  function goOn(): void {
    node.handler = ({ name }) => (name === "INCR" ? resp.integer(1) : undefined);
    plane.publish(node.address);
  }

  it("is sent again when it was seen stopping after the last that came through the connection", async () => {
    const { reply, connection } = await sent();
    plane.publishStop(node.address, performance.now());
    connection.socket.end();
    await until(() => plane.evidence.length > 0, { what: "the end being seen" });
    goOn();
    expect(await reply).toBe(1);
    expect(plane.counters.uncertain).toBe(0);
  });

  it("is UNCERTAIN when something came after that: more may have been on its way", async () => {
    const beforeMs = performance.now();
    const { reply, connection } = await sent();
    plane.publishStop(node.address, beforeMs);
    connection.socket.end();
    expect(errorText(await within(reply, 5_000, "its answer"))).toMatch(UNCERTAIN);
  });

  it("is UNCERTAIN when the connection broke: what was sent before need not have arrived", async () => {
    const { reply, connection } = await sent();
    plane.publishStop(node.address, performance.now());
    connection.socket.resetAndDestroy();
    expect(errorText(await within(reply, 5_000, "its answer"))).toMatch(UNCERTAIN);
  });

  it("is UNCERTAIN when the master was seen writing again in between", async () => {
    const { reply, connection } = await sent();
    plane.publishStop(node.address, performance.now());
    plane.publish(node.address);
    connection.socket.end();
    expect(errorText(await within(reply, 5_000, "its answer"))).toMatch(UNCERTAIN);
  });
});

it("a write to a master that was silent, then unreachable, is UNCERTAIN at the switch: nobody waits for it (12, 40)", async () => {
  const next = await startFakeNode();
  // Who waits for it waits for longer than the answer may take here.
  const own = await new DataPlane({ upstream: { retireTimeout: "1m" } }).start();
  try {
    own.publish(node.address);
    const client = await own.client();
    next.info.set("master_replid", "b".repeat(40));
    expect(await client.command("SET", "k", "v")).toBe("OK");
    node.handler = ({ name }) => (name === "INCR" ? SILENT : undefined);
    const reply = client.command("INCR", "n");
    await until(() => node.received("INCR").length > 0, { what: "INCR being sent" });
    for (const cause of ["silent", "connection-lost"] as const) own.publish(node.address, cause);
    own.publish(next.address, null, 2, "b".repeat(40));
    expect(errorText(await within(reply, 5_000, "its answer"))).toMatch(UNCERTAIN);
    expect(own.faults).toEqual([]);
  } finally {
    own.close();
    await next.close();
  }
});

it.each([
  NOREPLICAS,
  "OOM command not allowed when used memory > 'maxmemory'.",
  "NOPERM this user has no permissions to run the 'incr' command",
])(
  "a write that was lost and sent again is UNCERTAIN when the new master refuses it: %s (14)",
  async (error) => {
    const own = new DataPlane({ inFlight: { onUnknown: "retry-all" }, failover: { settleTime: 0 } });
    const next = await startFakeNode(({ name }) => (name === "INCR" ? resp.error(error) : undefined));
    try {
      await own.start();
      own.publish(node.address);
      const writer = await own.client();
      node.handler = ({ name, connection }) => {
        if (name !== "INCR") return undefined;
        own.publish(node.address, "connection-lost");
        connection.socket.end();
        return SILENT;
      };
      const reply = writer.command("INCR", "n");
      await until(() => own.evidence.length > 0, { what: "the end being seen" });
      next.info.set("master_replid", "b".repeat(40));
      own.publish(next.address, null, 2, "b".repeat(40));
      expect(errorText(await within(reply, 5_000, "its answer"))).toMatch(UNCERTAIN);
      expect(errorText(await writer.command("INCR", "n")), "what was not lost gets the error").toBe(error);
      expect(own.counters).toMatchObject({ uncertain: 1, resentUnknown: 1 });
      expect(own.faults).toEqual([]);
    } finally {
      own.close();
      await next.close();
    }
  },
);

describe("NOREPLICAS of a new master (10)", () => {
  it("is the answer where a later write of the pipeline ran: nothing runs behind it", async () => {
    node.handler = ({ name, args }) => {
      if (name !== "SET") return undefined;
      return args[1] === "first" ? resp.error(NOREPLICAS) : resp.ok;
    };
    const replies = await client.pipeline([
      ["SET", "first", "1"],
      ["GET", "first"],
      ["SET", "second", "2"],
      ["ECHO", "x"],
    ]);
    expect(replies.map((reply) => (reply instanceof Error ? reply.message : reply))).toEqual([
      NOREPLICAS,
      null,
      "OK",
      "x",
    ]);
    expect(node.received("SET").map((args) => args[1])).toEqual(["first", "second"]);
  });

  it("waits where what stands behind it was refused, too, for another reason", async () => {
    let refusals = 2;
    node.handler = ({ name, args }) => {
      if (name !== "SET") return undefined;
      if (args[1] === "second") return resp.error("OOM command not allowed when used memory > 'maxmemory'.");
      return refusals-- > 0 ? resp.error(NOREPLICAS) : undefined;
    };
    const [first, second] = await client.pipeline([
      ["SET", "first", "1"],
      ["SET", "second", "2"],
    ]);
    expect([first, errorText(second as Reply)]).toEqual(["OK", expect.stringMatching(/^OOM /)]);
    expect(node.received("SET").map((args) => args[1])).toEqual(["first", "second", "first", "first"]);
  });

  it("waits where nothing ran behind it, and keeps what follows in order", async () => {
    let refusals = 3;
    node.handler = ({ name }) => (name === "SET" && refusals-- > 0 ? resp.error(NOREPLICAS) : undefined);
    const replies = client.pipeline([
      ["SET", "k", "1"],
      ["ECHO", "x"],
    ]);
    expect(await replies).toEqual(["OK", "x"]);
    expect(node.received("SET")).toHaveLength(4);
  });
});
