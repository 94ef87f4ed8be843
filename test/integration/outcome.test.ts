/** What becomes of requests that were on the way when something happened to the node they were sent to. */
import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { type ChaosLink, startLink } from "../support/link.ts";
import type { RedisServer } from "../support/redis.ts";
import { encodeCommand, type Reply } from "../support/resp.ts";
import { errorText, Stage, type StageOptions } from "../support/stage.ts";
import { sleep, until, within } from "../support/wait.ts";

let stage: Stage;
const links: { close(): Promise<void> }[] = [];

async function setUp(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open(options);
}

afterEach(async () => {
  await stage?.close();
  for (const link of links.splice(0)) await link.close();
});

/** Sends without waiting for the reply, and waits until the proxy has written it to the node. */
async function sendTo(server: RedisServer, client: RawClient, ...args: string[]): Promise<Promise<Reply>> {
  const before = await stage.sentTo(server);
  const reply = client.command(...args);
  await until(async () => (await stage.sentTo(server)) > before, { what: `${args[0]} being sent`, everyMs: 1 });
  return { reply } as never;
}

async function inFlight(server: RedisServer, client: RawClient, ...args: string[]) {
  const sent = await sendTo(server, client, ...args);
  return (sent as unknown as { reply: Promise<Reply> }).reply;
}

describe("a write in flight when its connection dies", () => {
  it("is answered UNCERTAIN on an open connection and not repeated, when the master is killed (12)", async () => {
    await setUp();
    const [writer, other] = await stage.clients(2);
    expect(await writer!.command("SET", "n", "7")).toBe("OK");
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.master.kill("SIGSTOP");
  });
});
