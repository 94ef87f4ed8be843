/** One scenario, played once through one system, with servers of its own. */
import { RawClient } from "../../test/support/client.ts";
import { type RedisServer, startGroup } from "../../test/support/redis.ts";
import { ReplyError } from "../../test/support/resp.ts";
import { type Sentinels, startSentinels } from "../../test/support/sentinel.ts";
import { sleep, until } from "../../test/support/wait.ts";
import { Load } from "./clients.ts";
import { type Figures, figuresOf, type Marks, type Span, type Trace } from "./measure.ts";
import { PauseMeter } from "./pause.ts";
import { SCENARIOS, type Scenario, type ScenarioName, type Stage } from "./scenarios.ts";
import { type System, type SystemName, startSystem } from "./systems.ts";
import { PromotionWatch } from "./watch.ts";

export const WRITERS = 20;
export const READERS = 20;
const PROMOTION_MS_MOST = 30_000;
/** After the scenario: so long for every writer to write again, and then a little for what may still come. */
const RECOVER_MS_MOST = 10_000;
const SETTLE_MS = 1_500;
/** A switch's stall is over so long after the command was answered. */
const AFTER_SWITCH_MS = 200;

export interface Run {
  readonly scenario: ScenarioName;
  readonly system: SystemName;
  readonly figures: Figures;
  readonly trace: Trace;
  readonly marks: Marks;
  /** The longest time the load generator itself stood still after the fault. */
  readonly ownPauseMs: number;
}

const keyOf = (writer: number) => `bench:writer:${writer}`;
const KEYS = Array.from({ length: WRITERS }, (_, id) => keyOf(id));

export async function play(scenarioName: ScenarioName, systemName: SystemName): Promise<Run> {
  const scenario: Scenario = SCENARIOS[scenarioName];
  const group = await startGroup(2, { args: scenario.serverArgs });
  const needsSentinels = scenario.hasSentinels || systemName === "direct";
  let sentinels: Sentinels | undefined;
  let system: System | undefined;
  let load: Load | undefined;
  const times = new Timekeeper();
  try {
    if (needsSentinels) sentinels = await startSentinels(group, { downAfterMs: scenario.downAfterMs });
    const { promoter, settings } = scenario;
    system = await startSystem(systemName, { group, sentinels, promoter, settings });
    // HAProxy believes every node up until it has checked it.
    await sleep(500);
    load = await Load.start({ connect: system.connect, writers: WRITERS, readers: READERS, key: keyOf });
    // Random within two probe intervals: the fault must not always meet the same phase of the checks.
    await sleep(1_000 + Math.random() * 200);
    const master = await scenario.run(stageOf(times, system, group, sentinels));
    await settle(load);
    await sleep(Math.max(0, times.faultAtMs + (scenario.shown?.toMs ?? 0) - performance.now()));
    const endAtMs = performance.now();
    const ownPauseMs = times.pauses?.longestMs ?? 0;
    await load.stop();
    const trace = load.trace(await countersOn(await lastMaster(master, group)));
    const marks = { ...times.marks(), endAtMs };
    const figures = figuresOf(trace, marks, scenario.gapFrom);
    return { scenario: scenarioName, system: systemName, figures, trace, marks, ownPauseMs };
  } finally {
    await load?.stop();
    await times.close();
    await system?.close();
    await sentinels?.close();
    await group.close();
  }
}

/** Remembers when what happened. */
class Timekeeper {
  readonly switches: Span[] = [];
  watch: PromotionWatch | undefined;
  pauses: PauseMeter | undefined;
  faultAtMs = Number.NaN;
  servesAtMs: number | undefined;

  fault(candidates: readonly RedisServer[]): void {
    this.faultAtMs = performance.now();
    this.pauses = new PauseMeter();
    this.watch = new PromotionWatch(candidates, KEYS);
  }

  marks(): Omit<Marks, "endAtMs"> {
    const { promoted, firstWriteAtMs } = this.watch ?? {};
    return {
      faultAtMs: this.faultAtMs,
      switches: this.switches,
      ...(promoted === undefined ? {} : { promotedAtMs: promoted.atMs }),
      ...(firstWriteAtMs === undefined ? {} : { firstWriteAtMs }),
      ...(this.servesAtMs === undefined ? {} : { servesAtMs: this.servesAtMs }),
    };
  }

  async close(): Promise<void> {
    this.pauses?.close();
    await this.watch?.close();
  }
}

function stageOf(
  times: Timekeeper,
  system: System,
  group: Stage["group"],
  sentinels: Sentinels | undefined,
): Stage {
  return {
    system: system.name,
    group,
    get sentinels() {
      if (sentinels === undefined) throw new Error("there are no Sentinels");
      return sentinels;
    },
    fault: (...candidates) => times.fault(candidates),
    async promoted() {
      const options = { deadlineMs: PROMOTION_MS_MOST, everyMs: 2, what: "a promotion" };
      return (await until(() => times.watch?.promoted, options)).node;
    },
    async serves(node) {
      await until(async () => (await node.cli("PING")) === "PONG", { everyMs: 2, what: "the node serving" });
      times.servesAtMs = performance.now();
    },
    switchover: (to) => switchover(system, to),
    async switching(run) {
      const fromMs = performance.now();
      await run();
      times.switches.push({ fromMs, toMs: performance.now() + AFTER_SWITCH_MS });
    },
  };
}

async function switchover({ port, name }: System, to: RedisServer): Promise<void> {
  if (port === undefined) throw new Error(`${name} has no port`);
  const client = await RawClient.connect({ port });
  try {
    const reply = await client.command("PROXY", "SWITCHOVER", "TO", to.address);
    if (reply instanceof ReplyError) throw new Error(`PROXY SWITCHOVER: ${reply.message}`);
  } finally {
    client.close();
  }
}

/** Waits until every writer has got on, unless that takes too long: then its gap stays open. */
async function settle(load: Load): Promise<void> {
  const sinceMs = performance.now();
  const options = { deadlineMs: RECOVER_MS_MOST, what: "all clients writing again" };
  await until(() => load.hasWritten(sinceMs), options).catch(() => undefined);
  await sleep(SETTLE_MS);
}

/**
 * Sentinels promote a second time now and then, two seconds after the first: the master at the end is whoever
 * continues the history of the one that was promoted, and so on.
 */
async function lastMaster(promoted: RedisServer, group: Stage["group"]): Promise<RedisServer> {
  let last = promoted;
  for (const node of group.all.filter((one) => one !== promoted && one.running)) {
    const [own, other] = [await last.info(), await node.info().catch(() => null)];
    const isNewer =
      other?.get("role") === "master" && other.get("master_replid2") === own.get("master_replid");
    const isFollowed = own.get("role") === "slave" && own.get("master_port") === `${node.port}`;
    if (isNewer || isFollowed) last = node;
  }
  return last;
}

async function countersOn(master: RedisServer): Promise<number[]> {
  const values = await master.cli("MGET", ...KEYS);
  if (!Array.isArray(values)) throw new Error(`MGET on the master was answered ${String(values)}`);
  return values.map(Number);
}
