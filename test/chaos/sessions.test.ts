/**
 * Sessions of every kind through switches of every kind that people and accidents make, in one proxy process:
 * all work all the time, the fault comes at a random moment, and after each round the books of every client
 * are compared with the new master. A failing run prints its seed; HOLDFAST_SEED=<seed> repeats the same
 * switches and pauses, HOLDFAST_ROUNDS makes it longer.
 */
import { afterEach, expect, it } from "vitest";
import { randomFrom, SEED } from "../support/random.ts";
import { Constant, Identities, Silent, Unblocked, USER_ARGS } from "../support/sessions/clients.ts";
import { Cache, Messages, Monitor } from "../support/sessions/messages.ts";
import { Mixers } from "../support/sessions/mixer.ts";
import { Jobs } from "../support/sessions/queues.ts";
import { Functions, Iterations, Scripts, Waiter } from "../support/sessions/scripts.ts";
import { Streams } from "../support/sessions/streams.ts";
import { Meddler, Pairs, Selector, Watchers } from "../support/sessions/transactions.ts";
import { report as figure, Stage } from "../support/stage.ts";
import { StatefulLoad } from "../support/stateful.ts";
import { type Chaos, chaosOn, OPERATIONS, type OperationName, untilWell } from "../support/switches.ts";
import { until } from "../support/wait.ts";

const SWITCHES: readonly OperationName[] = [
  "promoteWhileTheMasterLives",
  "demoteFirst",
  "failover",
  "killAndPromote",
  "hangAndPromote",
];
const ACTORS = [
  ...[Pairs, Selector, Watchers, Meddler, Mixers, Jobs, Streams, Messages, Monitor, Cache],
  ...[Iterations, Scripts, Functions, Waiter, Identities, Constant, Unblocked, Silent],
];
const ROUNDS = Number(process.env.HOLDFAST_ROUNDS ?? 10);
const SERVER_ARGS = ["--repl-diskless-sync", "no", ...USER_ARGS];

let stage: Stage | undefined;
let load: StatefulLoad | undefined;

afterEach(async () => {
  await load?.stop();
  await stage?.close();
});

/** Every kind once, in any order, then as chance will have it. */
function plan(random: () => number): OperationName[] {
  const names: OperationName[] = [];
  const left = [...SWITCHES];
  while (names.length < ROUNDS) {
    const from = left.length > 0 ? left : SWITCHES;
    const name = from[Math.floor(random() * from.length)]!;
    if (left.includes(name)) left.splice(left.indexOf(name), 1);
    names.push(name);
  }
  return names;
}

function progressOf(stateful: StatefulLoad, ...loops: readonly string[]): () => Promise<void> {
  const count = () => loops.reduce((sum, name) => sum + (stateful.steps.get(name) ?? 0), 0);
  return async () => {
    const target = count() + 10;
    await until(() => count() >= target, { what: `steps of ${loops}` });
  };
}

async function openChaos(random: () => number): Promise<{ chaos: Chaos; stateful: StatefulLoad }> {
  stage = await Stage.open({ redis: { args: SERVER_ARGS }, config: { probe: { timeout: "500ms" } } });
  load = await new StatefulLoad({ port: stage.proxy.port, random: randomFrom(SEED + 1) }, ACTORS).start();
  const chaos = chaosOn(stage, random, {
    serverArgs: SERVER_ARGS,
    readsGoOn: progressOf(load, "hscan", "meddler", "constant"),
    writesGoOn: progressOf(load, "eval", "evalsha", "silent"),
  });
  return { chaos, stateful: load };
}

it(`sessions of every kind through ${ROUNDS} switches at random moments: no disconnect, every reply right, ` +
  `nothing lost or doubled that Redis keeps (1, 2, 15, 17 to 36; HOLDFAST_SEED=${SEED})`, {
  timeout: 40_000 + ROUNDS * 12_000,
}, async () => {
  const random = randomFrom(SEED);
  const done: string[] = [];
  try {
    const { chaos, stateful } = await openChaos(random);
    await stateful.allGoOn();
    for (const name of plan(random)) {
      done.push(name);
      stateful.begin(name, OPERATIONS[name]);
      await chaos.pause(400);
      await OPERATIONS[name].run(chaos);
      await untilWell(chaos);
      await stateful.allGoOn();
      await stateful.audit(chaos.group.master);
      expect(stateful.faults, `after ${done.join(", ")}`).toEqual([]);
    }
    const uncertain = await chaos.stage.proxy.metric("holdfast_uncertain_total");
    const steps = [...stateful.steps.values()].reduce((sum, one) => sum + one, 0);
    const gapMs = await chaos.stage.proxy.metric("holdfast_subscription_gap_ms_total");
    figure(
      `seed ${SEED}: ${done.join(", ")}: ${steps} steps, ${stateful.uncertain} uncertain, ` +
        `${gapMs.toFixed(0)} ms without subscriptions`,
    );
    // Of clients that want no replies nobody counts them but the proxy.
    expect(uncertain).toBeGreaterThanOrEqual(stateful.uncertain);
    const accounts = await chaos.stage.expectBalancedAccounts();
    expect(accounts.expired + accounts.failed).toBe(0);
  } catch (error) {
    figure(`HOLDFAST_SEED=${SEED} HOLDFAST_ROUNDS=${ROUNDS} failed after ${done.join(", ")}`);
    throw error;
  }
});
