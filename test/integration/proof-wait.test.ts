/** Reads that wait a moment for proof on its way, and whatever else happens to their clients then. */
import { afterEach, beforeEach, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { type ChaosLink, layLink } from "../support/link.ts";
import { fields, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage;
let link: ChaosLink;

/** What the replica gets it gets late, so that proof of it takes its time. */
beforeEach(async () => {
  stage = await Stage.open({
    replicas: 1,
    before: async (group) => {
      link = await layLink(group.master, group.replica(0), { delayMs: 10 });
      return group.addresses;
    },
  });
});

afterEach(async () => {
  await stage.close();
  await link.close();
});

/** Writes a key and reads it, again and again, until told to stop. @returns what it read and is wrong. */
async function writeAndRead(client: RawClient, key: string, isOver: () => boolean): Promise<unknown[]> {
  const wrong: unknown[] = [];
  for (let i = 0; !isOver(); i++) {
    await client.command("SET", key, i);
    for (let read = 0; read < 5; read++) {
      const reads = await client.pipeline([
        ["GET", key],
        ["GET", "nobody's"],
        ["GET", key],
      ]);
      const [first, second, third] = reads.map(String);
      if (first !== String(i) || second !== "null" || third !== String(i)) wrong.push([i, read, reads]);
    }
  }
  return wrong;
}

async function waitingClients(admin: RawClient): Promise<number> {
  const all = (await admin.command("PROXY", "CLIENTS", "LIMIT", 1000)) as Parameters<typeof fields>[0][];
  return all.filter((one) => fields(one).state === "waiting").length;
}

it("7, 15, 44: each is answered, unless its client is killed or has gone", async () => {
  const admin = await stage.client({ protocol: 3 });
  const clients = await stage.clients(10);
  const doomed = [await stage.proxy.connect(), await stage.proxy.connect()];
  const ids = await Promise.all(doomed.map((client) => client.command("CLIENT", "ID").then(String)));
  let isOver = false;
  const all = clients.map((client, i) => writeAndRead(client, `k${i}`, () => isOver));
  const ends = doomed.map((client, i) => writeAndRead(client, `d${i}`, () => isOver).catch(() => "ended"));

  let seen = 0;
  const hasSeen = async (): Promise<boolean> => {
    seen += await waitingClients(admin);
    return seen >= 20;
  };
  await until(hasSeen, { what: "reads that wait for proof" });
  for (const id of ids) expect(await admin.command("CLIENT", "KILL", "ID", id)).toBe(1);
  expect(await Promise.all(ends)).toEqual(["ended", "ended"]);

  // A client that has said all is told all.
  for (let i = 0; i < 20; i++) {
    const client = await stage.proxy.connect();
    await client.command("SET", "last", i);
    const reply = client.command("GET", "last");
    client.socket.end();
    expect(String(await reply)).toBe(String(i));
    await client.untilDisconnected();
  }
  isOver = true;
  expect(await Promise.all(all)).toEqual(clients.map(() => []));
});
