/** PROXY commands whose answer takes time: the client waits in its place, nobody else does. */
import { afterEach, beforeEach, expect, it } from "vitest";
import { encodeError, encodeValue } from "../../src/resp/encode.ts";
import { DataPlane } from "../support/plane.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";
import { encodeCommand } from "../support/resp.ts";
import { errorText } from "../support/stage.ts";
import { until, within } from "../support/wait.ts";

let plane: DataPlane;
let master: RedisServer;
/** The questions that are not answered. */
let asked: { args: string[]; answer: (text: string) => void; fail: (error: Error) => void }[];

beforeEach(async () => {
  master = await startRedis();
  plane = await new DataPlane().start();
  plane.publish(master.address, null, 1, (await master.info()).get("master_replid"));
  asked = [];
  plane.admin = (args, protocol) =>
    new Promise((resolve, reject) => {
      asked.push({
        args: args.map(String),
        answer: (text) => resolve(encodeValue(new Map([["text", text]]), protocol)),
        fail: reject,
      });
    });
});

afterEach(async () => {
  plane.close();
  await master.close();
});

async function untilAsked(count = 1): Promise<void> {
  await until(() => asked.length === count, { what: `${count} questions` });
}

async function notYet(reply: Promise<unknown>): Promise<void> {
  await expect(within(reply, 50, "a reply")).rejects.toThrow("a reply");
}

it("it is answered in its place in a pipeline: what is behind it waits, other clients do not", async () => {
  const [client, other] = [await plane.client(), await plane.client()];
  client.send(
    Buffer.concat(
      [
        ["SET", "k", "1"],
        ["PROXY", "SLOW", "now"],
        ["INCR", "k"],
      ].map(encodeCommand),
    ),
  );
  await untilAsked();
  expect(await client.reply()).toBe("OK");
  client.send(encodeCommand(["INCR", "k"]));
  const next = client.reply();
  await notYet(next);
  expect(await other.command("GET", "k")).toBe("1");
  // The buffer that its words came in was used for other clients' requests since.
  expect(asked[0]?.args).toEqual(["PROXY", "SLOW", "now"]);
  asked[0]?.answer("done");
  expect(await next).toEqual(["text", "done"]);
  expect([await client.reply(), await client.reply()]).toEqual([2, 3]);
  expect(plane.faults).toEqual([]);
});

it("it is answered in the protocol that the client spoke when it asked", async () => {
  const [two, three] = [await plane.client(2), await plane.client(3)];
  const replies = Promise.all([two.command("PROXY", "SLOW"), three.command("PROXY", "SLOW")]);
  await untilAsked(2);
  for (const { answer } of asked) answer("x");
  expect(await replies).toEqual([["text", "x"], new Map([["text", "x"]])]);
});

it("behind a request that has to be sent again, it is answered after that one", async () => {
  const client = await plane.client();
  await master.cli("CLIENT", "PAUSE", "10000", "WRITE");
  const set = client.command("SET", "k", "1");
  const slow = client.command("PROXY", "SLOW");
  const echo = client.command("ECHO", "behind");
  await untilAsked();
  await master.cli("SLAVEOF", "127.0.0.1", "1");
  await master.cli("CLIENT", "UNPAUSE");
  await until(() => plane.evidence.length > 0, { what: "the write being refused" });
  plane.publish(master.address, "role-changed", 1, (await master.info()).get("master_replid"));
  asked[0]?.answer("done");
  await notYet(Promise.race([set, slow, echo]));
  await master.promote();
  plane.publish(master.address, null, 2, (await master.info()).get("master_replid"));
  expect(await set).toBe("OK");
  expect(await slow).toEqual(["text", "done"]);
  expect(await echo).toBe("behind");
});

it("a client that leaves meanwhile, or wants no reply, gets none", async () => {
  const [gone, mute] = [await plane.client(), await plane.client()];
  gone.send(encodeCommand(["PROXY", "SLOW"]));
  await untilAsked(1);
  gone.socket.resetAndDestroy();
  await until(() => plane.counters.clientsNow === 1, { what: "the client being gone" });
  mute.send(Buffer.concat([["CLIENT", "REPLY", "SKIP"], ["PROXY", "SLOW"], ["PING"]].map(encodeCommand)));
  await untilAsked(2);
  const pong = mute.reply();
  await notYet(pong);
  for (const { answer } of asked) answer("done");
  expect(await pong).toBe("PONG");
  expect(plane.faults).toEqual([]);
});

it("an answer that fails is reported as a bug, and the client is told so on an open connection", async () => {
  const client = await plane.client();
  const slow = client.command("PROXY", "SLOW");
  const behind = client.command("PING");
  await untilAsked();
  const bug = new Error("a bug");
  asked[0]?.fail(bug);
  expect(errorText(await slow)).toMatch(/^ERR proxy: not answered/);
  expect(await behind).toBe("PONG");
  expect(plane.faults).toEqual([bug]);
});

it("an answer that is there at once is given at once, and inside MULTI it is refused as ever", async () => {
  const client = await plane.client();
  plane.admin = () => encodeError("ERR proxy: no");
  expect(errorText(await client.command("PROXY", "X"))).toBe("ERR proxy: no");
  await client.command("MULTI");
  expect(errorText(await client.command("PROXY", "X"))).toMatch(/inside MULTI is not supported/);
});
