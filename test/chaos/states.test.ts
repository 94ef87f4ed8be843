/**
 * Many clients whose sessions change in every way at once. A failing run prints its seed;
 * HOLDFAST_SEED=<seed> repeats what the clients say, and HOLDFAST_ROUNDS makes it longer.
 */
import { afterEach, expect, it } from "vitest";
import { aclRules, needs } from "../support/abilities.ts";
import { randomFrom, SEED } from "../support/random.ts";
import type { RedisServer } from "../support/redis.ts";
import { report as figure, Stage } from "../support/stage.ts";
import { Astray, type Company, DATABASES, SCRIPT, StateClient, USERS } from "../support/states.ts";
import { sleep, until } from "../support/wait.ts";

const ROUNDS = Number(process.env.HOLDFAST_ROUNDS ?? 8);
const CLIENTS = 16;
const RULES = aclRules("on", ">secret", "~*", "&*", "+@all");

let stage: Stage;
afterEach(() => stage.close());

async function start(switches: boolean): Promise<Company> {
  const config = { limits: { authPause: "10ms" } };
  stage = await Stage.open({ config });
  const admin = await stage.client();
  for (let db = 0; db < DATABASES; db++) {
    await admin.command("SELECT", db);
    await admin.command("SET", "db", db);
    await admin.command("HSET", "hash", "a", "1");
  }
  for (const server of [stage.master, stage.replica(0), stage.replica(1)]) {
    for (const user of USERS) await server.cli("ACL", "SETUSER", user, ...RULES);
  }
  const sha = String(await admin.command("SCRIPT", "LOAD", SCRIPT));
  await admin.command("WAIT", "2", "5000");
  const common = {
    port: stage.proxy.port,
    random: randomFrom(SEED),
    sha,
    switches,
    checked: 0,
    pausedAtMs: 0,
  };
  return { ...common, patienceMs: switches ? 20_000 : 8_000, killed: new Set(), present: new Map() };
}

/** Clients come and go until `isOver`. @returns what was not as it should be. */
async function crowd(company: Company, isOver: () => boolean): Promise<string[]> {
  const faults: string[] = [];
  const visits = async (number: number) => {
    for (let visit = 0; !isOver() && faults.length === 0; visit++) {
      try {
        // Keys of its own each time: what the one before has sent may run later.
        await new StateClient(company, `c${number}.${visit}`).visit();
      } catch (error) {
        if (!((error as Error).cause instanceof Astray)) faults.push((error as Error).message);
      }
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, (_, i) => visits(i)));
  return faults;
}

/** What a server says of those who have gone. */
const NOTHING_LEFT = { names: [], subscribers: "", channels: [], blocked: "0", tracking: "0" };

/** Nothing is left of those who have gone. */
async function expectNothingLeft(master: RedisServer): Promise<void> {
  const gauges = [
    "holdfast_clients",
    "holdfast_held",
    "holdfast_clients_paused",
    'holdfast_upstream_connections{kind="private"}',
  ];
  let values: number[] = [];
  const isQuiet = async () => {
    const metrics = await stage.proxy.metrics();
    values = gauges.map((name) => metrics.get(name) ?? Number.NaN);
    return values.join() === "2,0,0,0";
  };
  await until(isQuiet, { what: "the gauges of an idle proxy" }).catch((error: Error) => {
    throw new Error(`${error.message}: ${gauges.join()} are ${values.join()}`);
  });
  await stage.expectBalancedAccounts();
  // The server hears of an end a little later than the proxy.
  let left: unknown = null;
  const isForgotten = async () => {
    const normal = String(await master.cli("CLIENT", "LIST", "TYPE", "normal")).match(/name=\S*/g) ?? [];
    const clients = await master.info("clients");
    left = {
      names: normal.filter((name) => !/^name=(holdfast|holdfast-probe)?$/.test(name)),
      subscribers: await master.cli("CLIENT", "LIST", "TYPE", "pubsub"),
      channels: await master.cli("PUBSUB", "CHANNELS"),
      blocked: clients.get("blocked_clients"),
      tracking: clients.get("tracking_clients"),
    };
    return JSON.stringify(left) === JSON.stringify(NOTHING_LEFT);
  };
  await until(isForgotten, { deadlineMs: 5_000 }).catch(() => expect(left).toEqual(NOTHING_LEFT));
}

it(`every client of many whose sessions change all the time gets its own replies and no others (1, 15, 34, 35; seed ${SEED})`, {
  timeout: 120_000 + ROUNDS * 5_000,
}, async (context) => {
  needs(context, "ssubscribe");
  const company = await start(false);
  const endMs = performance.now() + ROUNDS * 1_500;
  expect(await crowd(company, () => performance.now() > endMs)).toEqual([]);
  figure(`${company.checked} replies checked, ${company.killed.size} clients killed`);
  expect(company.checked).toBeGreaterThan(ROUNDS * 200);
  await expectNothingLeft(stage.master);
});

it(`the same over switches of every kind (1, 15, 20, 21, 24; seed ${SEED})`, {
  timeout: 180_000 + ROUNDS * 10_000,
}, async (context) => {
  needs(context, "ssubscribe", "failover");
  const company = await start(true);
  let isOver = false;
  const crowded = crowd(company, () => isOver);
  let [master, next, other] = [stage.master, stage.replica(0), stage.replica(1)];
  try {
    for (let i = 0; i < ROUNDS / 2; i++) {
      await sleep(500 + company.random() * 500);
      switch (i % 4) {
        case 0: // the old master is demoted first
          await master.replicaOf(next);
          await sleep(company.random() * 100);
          await next.promote();
          break;
        case 1:
          await master.cli("FAILOVER", "TO", next.host, next.port);
          break;
        case 2:
          await next.promote();
          await stage.untilMaster(next);
          await master.replicaOf(next);
          break;
        default:
          await master.kill("SIGKILL");
          await sleep(company.random() * 200);
          await next.promote();
          await master.restart(["--replicaof", next.host, String(next.port)]);
          for (const user of USERS) await master.cli("ACL", "SETUSER", user, ...RULES);
      }
      await stage.untilMaster(next);
      await other.replicaOf(next);
      await stage.untilReadable(2);
      [master, next, other] = [next, other, master];
    }
  } finally {
    isOver = true;
  }
  expect(await crowded).toEqual([]);
  figure(`${company.checked} replies checked over switches`);
  await expectNothingLeft(master);
});
