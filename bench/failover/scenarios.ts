/** What happens to the servers, and what clients may notice of it. */
import type { RedisGroup, RedisServer } from "../../test/support/redis.ts";
import type { Sentinels } from "../../test/support/sentinel.ts";
import { sleep, until } from "../../test/support/wait.ts";
import type { GapFrom } from "./measure.ts";
import type { Promoter, SystemName } from "./systems.ts";

/** The stage a scenario is played on: one group behind one system, under load. */
export interface Stage {
  readonly system: SystemName;
  readonly group: RedisGroup;
  /** Throws when the scenario has none. */
  readonly sentinels: Sentinels;
  /** From this moment on it is measured, and these nodes are watched for a promotion. */
  fault(...candidates: RedisServer[]): void;
  /** Waits until one of them is a master. */
  promoted(): Promise<RedisServer>;
  /** Waits until the node answers commands, and remembers when that was. */
  serves(node: RedisServer): Promise<void>;
  /** PROXY SWITCHOVER; throws when it is refused or fails. */
  switchover(to: RedisServer): Promise<void>;
  /** Measures the stall of one switch by itself. */
  switching(run: () => Promise<void>): Promise<void>;
}

/** What Holdfast's clients may notice. Disconnects, and repeated writes: never any. */
export interface Bounds {
  /** `uncertain`: the writes that were on the way are answered UNCERTAIN. */
  readonly errors: "none" | "uncertain";
  readonly gapMs: number;
  /**
   * Acknowledged writes the new master may lack: none; only such as the old one has acknowledged until the
   * promotion could be seen; or what replication, or the server itself, has lost.
   */
  readonly lost: "none" | "until-seen" | "by-redis";
  /** The median of the stalls of many switches. */
  readonly stallMs?: number;
}

export interface Shown {
  /** What happened at 0, in a few words. */
  readonly fault: string;
  /** In ms after the fault. */
  readonly fromMs: number;
  readonly toMs: number;
}

export interface Scenario {
  readonly title: string;
  /** Those for which it means anything. */
  readonly systems: readonly SystemName[];
  /** Sentinels watch the group, whatever stands before it; else only when clients ask them. */
  readonly hasSentinels: boolean;
  /** How long Sentinels wait before a silent master is down for them. */
  readonly downAfterMs: number;
  readonly promoter: Promoter;
  readonly serverArgs: readonly string[];
  /** Holdfast's, as environment variables. */
  readonly settings: Readonly<Record<string, string>>;
  readonly gapFrom: GapFrom;
  readonly bounds: Bounds;
  /** How it is drawn; absent: it is not. */
  readonly shown?: Shown;
  /** Returns the master at the end. */
  readonly run: (stage: Stage) => Promise<RedisServer>;
}

const ALL: readonly SystemName[] = ["direct", "haproxy", "holdfast"];
/** Sentinel would undo what is done by hand: who asks it does not follow a person. */
const PROXIES: readonly SystemName[] = ["haproxy", "holdfast"];

const SHOW_MS = 1_000;
const HANG_MS = 3_000;
const DOWN_AFTER_MS = 1_000;
const CRASH_GRACE_MS = 250;
const SWITCHES = 20;
/** After a switch, so that its stall is over and the next one begins at any phase of the probes. */
const BETWEEN_SWITCHES_MS = 300;

const BASE = {
  systems: PROXIES,
  hasSentinels: false,
  downAfterMs: DOWN_AFTER_MS,
  promoter: "never",
  serverArgs: [],
  settings: {},
  gapFrom: "promotion",
} as const;
/** Somebody promotes: nothing is on the way to a server that is gone. */
const PROMOTED: Bounds = { errors: "none", gapMs: 150, lost: "none" };
const REPLICA = { ...BASE, systems: ALL, gapFrom: "fault" } as const;
const REPLICA_BOUNDS: Bounds = { errors: "none", gapMs: 50, lost: "none" };

export const SCENARIOS = {
  planned: {
    ...BASE,
    title: "planned switch",
    systems: ALL,
    bounds: PROMOTED,
    shown: { fault: "told to switch", fromMs: -500, toMs: 3_000 },
    run: planned,
  },
  "planned-stall": {
    ...BASE,
    title: `${SWITCHES} planned switches`,
    systems: ["holdfast"],
    gapFrom: "fault",
    bounds: { ...PROMOTED, stallMs: 50 },
    run: plannedStall,
  },
  "manual-live": {
    ...BASE,
    title: "by hand, master lives",
    bounds: { ...PROMOTED, lost: "until-seen" },
    shown: { fault: "REPLICAOF NO ONE", fromMs: -500, toMs: 3_000 },
    run: manualLive,
  },
  "manual-dead": {
    ...BASE,
    title: "by hand, master killed",
    bounds: { errors: "uncertain", gapMs: 150, lost: "by-redis" },
    run: manualDead,
  },
  "demote-first": { ...BASE, title: "by hand, demoted first", bounds: PROMOTED, run: demoteFirst },
  "sentinel-failover": {
    ...BASE,
    title: "SENTINEL FAILOVER",
    systems: ALL,
    hasSentinels: true,
    promoter: "sentinel",
    bounds: { ...PROMOTED, lost: "until-seen" },
    shown: { fault: "failover begins", fromMs: -1_000, toMs: 13_000 },
    run: sentinelFailover,
  },
  "sentinel-crash": {
    ...BASE,
    title: "crash, Sentinel",
    systems: ALL,
    hasSentinels: true,
    promoter: "sentinel",
    bounds: { errors: "uncertain", gapMs: 150, lost: "by-redis" },
    shown: { fault: "master killed", fromMs: -500, toMs: 5_000 },
    run: crash,
  },
  "self-crash": {
    ...BASE,
    title: "crash, no Sentinel",
    systems: ["holdfast"],
    promoter: "self",
    settings: { HOLDFAST_FAILOVER_CRASH_GRACE: `${CRASH_GRACE_MS}ms` },
    gapFrom: "fault",
    bounds: { errors: "uncertain", gapMs: CRASH_GRACE_MS + 200, lost: "by-redis" },
    run: crash,
  },
  "self-hang": {
    ...BASE,
    title: "master hangs, no Sentinel",
    systems: ["holdfast"],
    promoter: "self",
    settings: { HOLDFAST_FAILOVER_DOWN_AFTER: `${DOWN_AFTER_MS}ms` },
    gapFrom: "fault",
    bounds: { errors: "uncertain", gapMs: DOWN_AFTER_MS + 300, lost: "by-redis" },
    run: hang,
  },
  restart: {
    ...BASE,
    title: "same master restarts",
    systems: ALL,
    // Longer than it takes to come back: nobody is to be promoted.
    downAfterMs: 5_000,
    serverArgs: ["--appendonly", "yes", "--appendfsync", "always"],
    gapFrom: "serving",
    bounds: { errors: "uncertain", gapMs: 150, lost: "by-redis" },
    run: restart,
  },
  "replica-dies": { ...REPLICA, title: "replica dies", bounds: REPLICA_BOUNDS, run: replicaDies },
  "replica-moves": { ...REPLICA, title: "replica re-pointed", bounds: REPLICA_BOUNDS, run: replicaMoves },
} as const satisfies Readonly<Record<string, Scenario>>;

export type ScenarioName = keyof typeof SCENARIOS;
export const SCENARIO_NAMES = Object.keys(SCENARIOS) as ScenarioName[];

/** As each system has it: its own command, FAILOVER typed by hand, or Sentinel's. */
async function planned(stage: Stage): Promise<RedisServer> {
  const { group, system } = stage;
  const [next, other] = [group.replica(0), group.replica(1)];
  stage.fault(next, other);
  switch (system) {
    case "holdfast":
      await stage.switchover(next);
      return next;
    case "haproxy":
      await mustBeOk(group.master, "FAILOVER", "TO", next.host, next.port);
      await stage.promoted();
      await other.replicaOf(next);
      return next;
    case "direct": {
      await stage.sentinels.failover();
      const promoted = await stage.promoted();
      await untilReplica(group.master);
      return promoted;
    }
  }
}

/** Back and forth between two nodes. */
async function plannedStall(stage: Stage): Promise<RedisServer> {
  const { group } = stage;
  let [master, next] = [group.master, group.replica(0)];
  stage.fault(next);
  for (let number = 0; number < SWITCHES; number++) {
    const to = next;
    await stage.switching(() => stage.switchover(to));
    [master, next] = [next, master];
    await sleep(BETWEEN_SWITCHES_MS + Math.random() * 100);
  }
  return master;
}

async function manualLive(stage: Stage): Promise<RedisServer> {
  const { group } = stage;
  const next = group.replica(0);
  stage.fault(next);
  await next.promote();
  await sleep(SHOW_MS);
  await group.master.replicaOf(next);
  await group.replica(1).replicaOf(next);
  return next;
}

async function manualDead(stage: Stage): Promise<RedisServer> {
  const { group } = stage;
  const next = group.replica(0);
  stage.fault(next);
  await group.master.kill("SIGKILL");
  await sleep(SHOW_MS);
  await next.promote();
  await group.replica(1).replicaOf(next);
  return next;
}

/** As a careful person does it: nothing is written while the roles change. */
async function demoteFirst(stage: Stage): Promise<RedisServer> {
  const { group } = stage;
  const next = group.replica(0);
  stage.fault(next);
  await mustBeOk(group.master, "CLIENT", "PAUSE", 10_000, "WRITE");
  await next.untilCaughtUp(group.master);
  await group.master.replicaOf(next);
  await mustBeOk(group.master, "CLIENT", "UNPAUSE");
  await next.promote();
  await group.replica(1).replicaOf(next);
  return next;
}

/** Sentinel demotes the old master only after four of its hello messages, 8 s. */
async function sentinelFailover(stage: Stage): Promise<RedisServer> {
  stage.fault(...stage.group.replicas);
  await stage.sentinels.failover();
  const promoted = await stage.promoted();
  await untilReplica(stage.group.master);
  return promoted;
}

/** Whoever is to promote does so by itself. */
async function crash(stage: Stage): Promise<RedisServer> {
  stage.fault(...stage.group.replicas);
  await stage.group.master.kill("SIGKILL");
  return stage.promoted();
}

async function hang(stage: Stage): Promise<RedisServer> {
  const { group } = stage;
  stage.fault(...group.replicas);
  await group.master.kill("SIGSTOP");
  await sleep(HANG_MS);
  await group.master.kill("SIGCONT");
  return stage.promoted();
}

async function restart(stage: Stage): Promise<RedisServer> {
  const { master } = stage.group;
  stage.fault();
  await master.kill("SIGKILL");
  await Promise.all([master.start(), stage.serves(master)]);
  return master;
}

async function replicaDies(stage: Stage): Promise<RedisServer> {
  stage.fault();
  await stage.group.replica(1).kill("SIGKILL");
  return stage.group.master;
}

async function replicaMoves(stage: Stage): Promise<RedisServer> {
  stage.fault();
  await stage.group.replica(1).replicaOf(stage.group.replica(0));
  return stage.group.master;
}

async function mustBeOk(node: RedisServer, ...command: (string | number)[]): Promise<void> {
  const reply = await node.cli(...command);
  if (reply !== "OK") throw new Error(`${command.join(" ")} was answered ${String(reply)}`);
}

async function untilReplica(node: RedisServer): Promise<void> {
  const isReplica = async () => (await node.info()).get("role") === "slave";
  await until(isReplica, { deadlineMs: 30_000, everyMs: 50, what: `${node.address} being a replica` });
}
