/** What operators and accidents do to a group, at moments nobody chose, and what clients may notice of it. */
import { expect } from "vitest";
import type { RedisServer } from "./redis.ts";
import { calls, type Stage } from "./stage.ts";
import { sleep, until } from "./wait.ts";

/** Who is what, as the operator who does all this believes. */
export interface Group {
  master: RedisServer;
  /** The first one is the next to be promoted. */
  replicas: [RedisServer, RedisServer];
}

export interface Chaos {
  readonly stage: Stage;
  readonly group: Group;
  /** Arguments for a server that is started again. */
  readonly serverArgs: readonly string[];
  /** At any phase against the probes: 0 to `mostMs`. */
  pause(mostMs?: number): Promise<void>;
  chance(): boolean;
  /** Waits until clients that only read have got on, or those that write. */
  readsGoOn(): Promise<void>;
  writesGoOn(): Promise<void>;
  /** Makes a node that a switch left behind follow the new master; without it, the operator does. */
  follow?(replica: RedisServer, master: RedisServer): Promise<void>;
}

/** What operations need, on a stage with a master and two replicas. */
export function chaosOn(
  stage: Stage,
  random: () => number,
  load: Pick<Chaos, "serverArgs" | "readsGoOn" | "writesGoOn">,
): Chaos {
  const { master } = stage;
  return {
    ...load,
    stage,
    group: { master, replicas: [stage.replica(0), stage.replica(1)] },
    pause: (mostMs = 300) => sleep(random() * mostMs),
    chance: () => random() < 0.5,
  };
}

export interface Operation {
  /** A connection to the master is lost: what was on it may have run. */
  readonly mayCut: boolean;
  /**
   * What Redis itself may lose of each client's acknowledged writes: nothing; the few that were answered but
   * not yet on their way to a replica; or all that a master has answered beside another one.
   */
  readonly mayLose: "nothing" | "few" | "all";
  readonly run: (chaos: Chaos) => Promise<void>;
}

const KNOWN = { mayCut: false, mayLose: "nothing" } as const;
const CRASH = { mayCut: true, mayLose: "few" } as const;
const TWO_MASTERS = { mayCut: false, mayLose: "all" } as const;

/** Each one leaves a master, its replicas and nothing else behind. */
export const OPERATIONS = {
  killAndPromote: { ...CRASH, run: killAndPromote },
  shutDownAndPromote: { ...CRASH, run: shutDownAndPromote },
  demoteFirst: { ...KNOWN, run: demoteFirst },
  promoteWhileTheMasterLives: { ...TWO_MASTERS, run: promoteWhileTheMasterLives },
  failover: { ...KNOWN, run: failover },
  failoverGivenUp: { ...KNOWN, run: failoverGivenUp },
  killReplica: { ...KNOWN, run: killReplica },
  killAllConnections: { ...KNOWN, run: killAllConnections },
  hangMaster: { ...CRASH, run: hangMaster },
  hangAndPromote: { mayCut: true, mayLose: "all", run: hangAndPromote },
} as const satisfies Readonly<Record<string, Operation>>;

export type OperationName = keyof typeof OPERATIONS;

async function killAndPromote(chaos: Chaos): Promise<void> {
  const { group } = chaos;
  const [next] = group.replicas;
  await group.master.kill("SIGKILL");
  await chaos.pause();
  await chaos.readsGoOn();
  await next.promote();
  await chaos.pause();
  await moveOver(chaos, async (old) => {
    // By mistake as a master first, now and then.
    if (chaos.chance()) {
      await old.restart(chaos.serverArgs);
      await chaos.writesGoOn();
      const writes = await calls(old, "incr", "set", "exec");
      expect(writes, "writes on the old master, started as a master by mistake").toBe(0);
      await old.replicaOf(next);
    } else await old.restart([...chaos.serverArgs, "--replicaof", `127.0.0.1 ${next.port}`]);
  });
}

async function shutDownAndPromote(chaos: Chaos): Promise<void> {
  const { group, serverArgs } = chaos;
  await group.master.cli("SHUTDOWN", "NOSAVE").catch(() => undefined);
  await until(() => !group.master.running, { what: "the end of the master" });
  await chaos.pause();
  await group.replicas[0].promote();
  const follow = ["--replicaof", `127.0.0.1 ${group.replicas[0].port}`];
  await moveOver(chaos, (old) => old.restart([...serverArgs, ...follow]));
}

async function demoteFirst(chaos: Chaos): Promise<void> {
  const { group } = chaos;
  const [next] = group.replicas;
  // What is not on the replica yet would be lost by Redis itself.
  await group.master.cli("CLIENT", "PAUSE", 10_000, "WRITE");
  await next.untilCaughtUp(group.master);
  await group.master.replicaOf(next);
  await group.master.cli("CLIENT", "UNPAUSE");
  await chaos.pause();
  await next.promote();
  await moveOver(chaos, async () => undefined);
}

async function promoteWhileTheMasterLives(chaos: Chaos): Promise<void> {
  const { group } = chaos;
  const [next] = group.replicas;
  await next.promote();
  await chaos.stage.untilMaster(next);
  await chaos.pause();
  await moveOver(chaos, (old) => follow(chaos, old, next));
}

async function failover(chaos: Chaos): Promise<void> {
  const { group } = chaos;
  const [next] = group.replicas;
  expect(await group.master.cli("FAILOVER", "TO", "127.0.0.1", next.port)).toBe("OK");
  // The master waits for an acknowledgement of its very last byte, and acknowledgements come once a second.
  const isPromoted = async () => (await next.info()).get("role") === "master";
  await until(isPromoted, { deadlineMs: 40_000, what: "the end of FAILOVER" });
  await chaos.stage.untilMaster(next);
  await moveOver(chaos, async () => undefined);
}

async function failoverGivenUp(chaos: Chaos): Promise<void> {
  const { group } = chaos;
  const [next] = group.replicas;
  await next.kill("SIGSTOP");
  try {
    await chaos.writesGoOn();
    expect(await group.master.cli("FAILOVER", "TO", "127.0.0.1", next.port, "TIMEOUT", 300)).toBe("OK");
    await until(async () => (await group.master.info()).get("master_failover_state") === "no-failover");
  } finally {
    await next.kill("SIGCONT");
  }
}

async function killReplica(chaos: Chaos): Promise<void> {
  const { group } = chaos;
  const [one] = group.replicas;
  await one.kill("SIGKILL");
  await chaos.pause();
  await one.restart([...chaos.serverArgs, "--replicaof", `127.0.0.1 ${group.master.port}`]);
  if (chaos.chance()) group.replicas.reverse();
}

async function killAllConnections(chaos: Chaos): Promise<void> {
  for (const server of chaos.group.replicas) await server.cli("CLIENT", "KILL", "TYPE", "normal");
  await chaos.pause(50);
  for (const server of chaos.group.replicas) await server.cli("CLIENT", "KILL", "TYPE", "normal");
}

async function hangMaster(chaos: Chaos): Promise<void> {
  const { group } = chaos;
  await group.master.kill("SIGSTOP");
  try {
    await chaos.pause(900);
    await chaos.readsGoOn();
  } finally {
    await group.master.kill("SIGCONT");
  }
}

async function hangAndPromote(chaos: Chaos): Promise<void> {
  const { group } = chaos;
  const [next] = group.replicas;
  await group.master.kill("SIGSTOP");
  try {
    await chaos.pause(900);
    await next.promote();
    await chaos.stage.untilMaster(next);
    await chaos.pause();
  } finally {
    await group.master.kill("SIGCONT");
  }
  await chaos.pause();
  await moveOver(chaos, (old) => old.replicaOf(next));
}

function follow(chaos: Chaos, replica: RedisServer, master: RedisServer): Promise<void> {
  return chaos.follow === undefined ? replica.replicaOf(master) : chaos.follow(replica, master);
}

/** The next one is the master: the others follow it. */
async function moveOver(chaos: Chaos, bringBack: (old: RedisServer) => Promise<unknown>): Promise<void> {
  const { group } = chaos;
  const [next, other] = group.replicas;
  const old = group.master;
  await follow(chaos, other, next);
  await chaos.stage.untilMaster(next);
  await bringBack(old);
  group.master = next;
  group.replicas = chaos.chance() ? [other, old] : [old, other];
}

/** The group is as the operator wants it, and the proxy knows. */
export async function untilWell({ stage, group }: Chaos): Promise<void> {
  await stage.untilMaster(group.master);
  for (const replica of group.replicas) {
    await replica.untilLinkUp();
    // A link that is up may be waiting for the first acknowledgement: what is lost then, Redis loses.
    await replica.untilCaughtUp(group.master);
  }
  await stage.untilReadable(2);
}
