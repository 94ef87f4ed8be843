/**
 * What can happen to a group. Each one makes sure that it really happened, and leaves a master and its
 * replicas behind, whoever put things right.
 */
import { expect } from "vitest";
import type { Way } from "../link.ts";
import { type Reply, ReplyError } from "../resp.ts";
import { OPERATIONS } from "../switches.ts";
import { sleep } from "../wait.ts";
import type { Field } from "./field.ts";
import { askedOf } from "./strays.ts";

/** The master dies; later it starts again as the master it was configured to be. */
export async function crash(field: Field): Promise<void> {
  const old = field.group.master;
  await field.crash(old);
  await field.untilHolding();
  await field.readsGoOn();
  const next = await field.succession();
  await field.pause();
  await old.restart(field.serverArgs);
  await field.follow(old, next);
}

/** It dies and is back before anybody has missed it, with all its data. */
export async function quickRestart(field: Field): Promise<void> {
  const { master } = field.group;
  const before = await askedOf(master);
  await save(field);
  await master.restart();
  expect((await askedOf(master)).runId, "another process").not.toBe(before.runId);
  expect(Number(await master.cli("DBSIZE")), "keys after the restart").toBeGreaterThan(0);
  await field.untilHolding();
}

/** Everything acknowledged is in the file; those who write wait from now on. */
async function save({ group: { master } }: Field): Promise<void> {
  await master.cli("CLIENT", "PAUSE", 10_000, "WRITE");
  expect(await master.cli("SAVE")).toBe("OK");
}

/**
 * It dies and is back at once, but without any data. Its replicas cannot reach it yet, else they would lose
 * theirs.
 */
export async function restartEmpty(field: Field): Promise<void> {
  await restartWithout(field, async () => {
    await field.wipe(field.group.master);
  });
}

/** It dies and is back at once, with what it was a while ago. */
export async function restartRolledBack(field: Field): Promise<void> {
  const { master } = field.group;
  expect(await master.cli("SAVE")).toBe("OK");
  await field.writesGoOn();
  await field.untilSeen(master);
  await restartWithout(field, async () => undefined);
}

async function restartWithout(field: Field, whileDown: () => Promise<void>): Promise<void> {
  const old = field.group.master;
  const before = await askedOf(old);
  await field.link(old).refuse();
  await field.crash(old);
  await whileDown();
  await old.restart();
  const now = await askedOf(old);
  expect(now.runId, "another process").not.toBe(before.runId);
  await field.untilHolding();
  if (field.mode === "observe") await field.stage.untilCause("history-refused");
  const next = await field.succession(false);
  await field.link(old).accept();
  await field.follow(old, next);
}

/** It stands still, but not for long enough that anybody may be promoted. */
export async function shortHang(field: Field): Promise<void> {
  const { master } = field.group;
  await master.kill("SIGSTOP");
  try {
    await field.stage.untilCause("silent");
    await field.untilHolding();
    await field.readsGoOn();
  } finally {
    await master.kill("SIGCONT");
  }
}

/** It stands still until it is replaced, and wakes up then. */
export async function hang(field: Field): Promise<void> {
  const old = field.group.master;
  await old.kill("SIGSTOP");
  try {
    await field.untilHolding();
    await field.readsGoOn();
    await field.succession();
    await field.pause();
  } finally {
    await old.kill("SIGCONT");
  }
  await field.follow(old, field.group.master);
}

/** It is told to end while clients write: it waits for its replicas first, if it may. */
export async function terminate(field: Field): Promise<void> {
  const old = field.group.master;
  const ended = old.kill("SIGTERM");
  const next = field.mode === "observe" ? await afterEnd(field, ended) : await field.succession();
  await ended;
  expect(old.output).toContain("SIGTERM");
  await field.pause();
  await old.restart(field.serverArgs);
  await field.follow(old, next);
}

async function afterEnd(field: Field, ended: Promise<void>) {
  await ended;
  await field.untilHolding();
  return field.succession();
}

/** Nobody reaches the master any more, or hears of it, and no connection ends; later the line is mended. */
export function partition(...ways: readonly Way[]): (field: Field) => Promise<void> {
  return async (field) => {
    const old = field.group.master;
    const link = field.link(old);
    link.stall(...ways);
    expect(old.running).toBe(true);
    await field.untilHolding();
    await field.readsGoOn();
    const next = await field.succession();
    await field.pause();
    link.resume();
    // What was under way is delivered, late.
    await sleep(100);
    await field.follow(old, next);
  };
}

/** The machine is gone, and nobody is left there to say so. */
export async function powerOff(field: Field): Promise<void> {
  const old = field.group.master;
  const link = field.link(old);
  link.stall();
  const { open } = link;
  await field.crash(old);
  expect(link.open, "connections that nobody has ended").toBeGreaterThanOrEqual(open);
  await field.untilHolding();
  await field.readsGoOn();
  const next = await field.succession();
  await old.restart(field.serverArgs);
  link.resume();
  await field.follow(old, next);
}

/** A replica dies and copies everything anew when it is back. */
export async function loseReplica(field: Field): Promise<void> {
  const { stage, group } = field;
  const [one] = group.replicas;
  const fullSyncs = async () => Number((await group.master.info("stats")).get("sync_full"));
  const before = await fullSyncs();
  await field.crash(one);
  await stage.untilReadable(1);
  await field.readsGoOn();
  await field.writesGoOn();
  await field.pause();
  await field.wipe(one);
  await one.restart([...field.serverArgs, "--replicaof", `127.0.0.1 ${group.master.port}`]);
  await one.untilLinkUp();
  expect(await fullSyncs(), "full resynchronisations").toBe(before + 1);
}

/** The next master dies as soon as the last node follows it. */
export async function crashTwice(field: Field): Promise<void> {
  const { group } = field;
  const first = group.master;
  await field.crash(first);
  await field.untilHolding();
  const second = await field.succession();
  const [last] = group.replicas;
  await last.untilCaughtUp(second);
  await field.untilSeen(second);
  await field.crash(second);
  const third = await field.succession();
  expect(third).toBe(last);
  for (const old of [first, second]) {
    await old.restart(field.serverArgs);
    await field.follow(old, third);
  }
}

/** All die and all are back, with all their data. */
export async function allDown(field: Field): Promise<void> {
  const { group } = field;
  await save(field);
  for (const replica of group.replicas) {
    await replica.untilCaughtUp(group.master);
    expect(await replica.cli("SAVE")).toBe("OK");
  }
  // Once more: its offset has moved on meanwhile, for its replicas are told that it lives.
  expect(await group.master.cli("SAVE")).toBe("OK");
  await field.crash(group.master, ...group.replicas);
  await field.untilHolding();
  if (field.mode !== "sentinel") await field.pause(600);
  await group.master.restart();
  const follow = ["--replicaof", `127.0.0.1 ${group.master.port}`];
  await Promise.all(group.replicas.map((replica) => replica.restart([...field.serverArgs, ...follow])));
}

/** All die and all are back as masters of other data: nobody can know what is true. An operator says it. */
export async function noCommonTruth(field: Field): Promise<void> {
  const { stage, group } = field;
  const all = [group.master, ...group.replicas];
  await field.crash(...all);
  for (const server of all) {
    await field.wipe(server);
    await server.restart(field.serverArgs);
    await server.cli("SET", "own", server.port);
  }
  const client = await stage.client();
  const startedAtMs = performance.now();
  const reply: Reply = await client.command("INCR", "n");
  const waitedMs = performance.now() - startedAtMs;
  expect(reply, "a write without a master").toBeInstanceOf(ReplyError);
  expect((reply as ReplyError).word).toBe("MASTERDOWN");
  expect(waitedMs, "hold.maxTime").toBeGreaterThan(0.8 * NO_TRUTH_HOLD_MS);
  expect(waitedMs).toBeLessThan(3 * NO_TRUTH_HOLD_MS);
  for (const server of all) {
    const { role, writes, reads } = await askedOf(server);
    // SET own is the test's.
    expect({ role, writes, reads }, `${server.address}, never guessed`).toEqual({
      role: "master",
      writes: 1,
      reads: 0,
    });
  }
  await field.endLoad();
  expect(await stage.adopt(group.master.address)).toBe("OK");
  for (const replica of group.replicas) await replica.replicaOf(group.master);
  expect(await client.command("INCR", "n"), "a write after ADOPT").toBe(1);
}

export const NO_TRUTH_HOLD_MS = 2_000;

// Planned, or by hand

export async function promoteByHand(field: Field): Promise<void> {
  await OPERATIONS.promoteWhileTheMasterLives.run(field);
}

export async function demoteFirst(field: Field): Promise<void> {
  await OPERATIONS.demoteFirst.run(field);
  await field.untilHolding();
}

export async function failover(field: Field): Promise<void> {
  await OPERATIONS.failover.run(field);
}

export async function failoverGivenUp(field: Field): Promise<void> {
  const { master } = field.group;
  await OPERATIONS.failoverGivenUp.run(field);
  expect(master.output).toMatch(/failover.*(abort|timed out|timeout)/i);
}

export async function sentinelFailover(field: Field): Promise<void> {
  const old = field.group.master;
  await field.sentinelFailover();
  await field.follow(old, field.group.master);
}

export async function switchover(field: Field): Promise<void> {
  const old = field.group.master;
  await field.switchover();
  for (const replica of field.group.replicas) await field.follow(replica, field.group.master);
  expect((await old.info()).get("role"), "the former master").toBe("slave");
}
