/** What makes replicas lag, and who replaces a master. Each makes sure that it really happened. */
import { expect } from "vitest";
import { RawClient } from "../client.ts";
import { type Reply, ReplyError } from "../resp.ts";
import { sleep, until } from "../wait.ts";
import type { Trial } from "./trial.ts";

/** Something that makes a replica lag, for about a second. */
export type Lag = (one: Trial) => Promise<void>;

/** The replication of one replica stands still now and then. */
export async function stallOne(one: Trial, index = 0): Promise<void> {
  const link = one.links[index];
  if (link === undefined) throw new Error("no link");
  const replica = one.group.replicas[index];
  if (replica === undefined) throw new Error("no replica");
  for (let round = 0; round < 6; round++) {
    link.stall();
    await one.pause(250);
    await one.writesGoOn();
    expect(await one.behindBytes(replica), "bytes behind").toBeGreaterThan(0);
    expect((await replica.info()).get("master_link_status"), "and still linked").toBe("up");
    link.resume();
    await one.pause(100);
  }
}

export async function stallInTurns(one: Trial): Promise<void> {
  const [first, second] = one.links;
  const { replicas } = one.group;
  for (let round = 0; round < 8; round++) {
    const [link, replica] = round % 2 === 0 ? [first, replicas[0]] : [second, replicas[1]];
    link?.stall();
    await one.pause(150);
    await one.writesGoOn();
    expect(await one.behindBytes(replica), "bytes behind").toBeGreaterThan(0);
    link?.resume();
  }
}

/** Always behind, never without a link. */
export async function slowLink(one: Trial): Promise<void> {
  const [link] = one.links;
  const [replica] = one.group.replicas;
  link?.delay(60);
  let behind = 0;
  for (let look = 0; look < 10; look++) {
    await sleep(100);
    if ((await one.behindBytes(replica)) > 0) behind++;
  }
  link?.delay(0);
  expect(behind, "looks at which it was behind").toBeGreaterThan(5);
}

export async function freezeOne(one: Trial): Promise<void> {
  const { replicas } = one.group;
  for (let round = 0; round < 8; round++) {
    await one.freeze(one.chance() ? replicas[0] : replicas[1], 20 + one.random() * 120);
    await one.pause(80);
  }
}

export async function pauseClients(one: Trial): Promise<void> {
  const [replica] = one.group.replicas;
  for (let round = 0; round < 5; round++) {
    const direct = await RawClient.connect({ port: replica.ownPort });
    expect(await direct.command("CLIENT", "PAUSE", "120", "ALL")).toBe("OK");
    direct.close();
    await sleep(200);
  }
}

/** The foreign writer must not go on writing to the old one. */
export async function withoutForeign(one: Trial, run: () => Promise<unknown>): Promise<void> {
  one.load.foreignTo(0);
  await sleep(20);
  await run();
}

/** A master that died comes back as a replica of the new one. */
export async function crash(one: Trial): Promise<void> {
  const old = one.group.master;
  await old.kill("SIGKILL");
  const next = await one.untilSwitched();
  await one.readsGoOn(100);
  await old.restart([...one.serverArgs, "--replicaof", `127.0.0.1 ${next.port}`]);
}

/** The same, with an operator who promotes. */
export async function crashByHand(one: Trial): Promise<void> {
  const old = one.group.master;
  const [next, other] = one.group.replicas;
  await old.kill("SIGKILL");
  await one.pause();
  await next.promote();
  await other.replicaOf(next);
  await one.untilSwitched();
  await old.restart([...one.serverArgs, "--replicaof", `127.0.0.1 ${next.port}`]);
}

export async function switchover(one: Trial): Promise<void> {
  if (one.links.length > 0) await one.unlink();
  const client = await one.stage.client();
  // It is refused, with nothing done, while no replica is near enough.
  let reply: Reply = null;
  const isDone = async () => {
    reply = await client.command("PROXY", "SWITCHOVER");
    return !(reply instanceof ReplyError);
  };
  await until(isDone, { everyMs: 200, what: "PROXY SWITCHOVER" }).catch((error) => {
    throw new Error(`${(error as Error).message}: ${String(reply)}`);
  });
  await one.untilSwitched();
}
