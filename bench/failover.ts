/**
 * What 40 clients see of a failover: through Holdfast, through HAProxy that follows `role:master`, and with a
 * client library that asks Sentinel itself.
 *
 *   npm run bench:failover -- [--quick] [--runs 5] [--scenarios planned,restart] [--systems haproxy,holdfast]
 *
 * The scenarios are in failover/scenarios.ts. Every run has servers of its own. The clients connect again
 * when they are disconnected, as applications do. All systems in all scenarios: about five minutes a run.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { pictureOf } from "./failover/picture.ts";
import { play, READERS, type Run, WRITERS } from "./failover/play.ts";
import { SCENARIO_NAMES, SCENARIOS, type ScenarioName } from "./failover/scenarios.ts";
import { SYSTEMS, type SystemName } from "./failover/systems.ts";
import { type Outcome, resultTable, verdictsOf, verdictTable } from "./failover/tables.ts";
import { progress, publish, setting } from "./support/report.ts";
import { shuffled } from "./support/stats.ts";

const PICTURE = fileURLToPath(new URL("results/failover.svg", import.meta.url));
/** Of a choice of scenarios or systems: not what README shows. */
const PART = fileURLToPath(new URL("results/failover-part.svg", import.meta.url));

interface Options {
  readonly runs: number;
  readonly scenarios: readonly ScenarioName[];
  readonly systems: readonly SystemName[];
}

async function main(): Promise<void> {
  const options = readOptions();
  const about = setting();
  const outcomes: Outcome[] = [];
  const runs: Run[] = [];
  for (let number = 1; number <= options.runs; number++) {
    for (const scenario of options.scenarios) {
      const systems: readonly SystemName[] = SCENARIOS[scenario].systems;
      for (const system of shuffled(options.systems.filter((name) => systems.includes(name)))) {
        progress(`Run ${number} of ${options.runs}: ${scenario}, ${system}`);
        outcomes.push(await tryOnce(scenario, system, runs));
      }
    }
  }
  const verdicts = verdictsOf(outcomes, options.scenarios);
  const body = [
    explanation(options),
    resultTable(outcomes, options.scenarios, options.systems),
    "## Bounds",
    "Holdfast's worst run against what is promised. *Own pause*: how long the load generator itself stood still.",
    verdictTable(verdicts),
  ].join("\n\n");
  publish("failover", about, body, { options, verdicts, outcomes });
  const picture = pictureOf(runs);
  if (picture !== undefined) writeFileSync(isAll(options) ? PICTURE : PART, picture);
}

/** A run that breaks off is a result too. */
async function tryOnce(scenario: ScenarioName, system: SystemName, runs: Run[]): Promise<Outcome> {
  try {
    const run = await play(scenario, system);
    runs.push(run);
    return { scenario, system, figures: run.figures, ownPauseMs: run.ownPauseMs };
  } catch (error) {
    const failure = (error as Error).message.replaceAll(/\s+/g, " ").slice(0, 300);
    progress(`  broke off: ${failure}`);
    return { scenario, system, failure };
  }
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      runs: { type: "string" },
      scenarios: { type: "string" },
      systems: { type: "string" },
    },
  });
  return {
    runs: Number(values.runs ?? (values.quick ? 1 : 5)),
    scenarios: chosen("scenarios", SCENARIO_NAMES, values.scenarios),
    systems: chosen("systems", SYSTEMS, values.systems),
  };
}

/** Those of the names that the option lists, all without it; throws at one that there is not. */
function chosen<T extends string>(
  option: string,
  names: readonly T[],
  list: string | undefined,
): readonly T[] {
  if (list === undefined) return names;
  const wanted = list.split(",");
  const strange = wanted.filter((name) => !names.some((known) => known === name));
  if (strange.length > 0)
    throw new Error(`--${option}: no ${strange.join(", ")}; there are ${names.join(", ")}`);
  return names.filter((name) => wanted.includes(name));
}

function isAll({ scenarios, systems }: Options): boolean {
  return scenarios.length === SCENARIO_NAMES.length && systems.length === SYSTEMS.length;
}

function explanation({ runs }: Options): string {
  return [
    `Medians of ${runs} ${runs === 1 ? "run" : "runs"}. ${WRITERS} clients write and at once read back what they wrote, ${READERS} read; one`,
    "master, two replicas, probes and checks every 100 ms. *Write gap*, *read gap*: the longest time in which",
    "some one client got no answer, from the fault on; *all writers*: in which none of those that write did.",
    "*Lost*: acknowledged writes that the master at the end does not have. *Read stale*: reads right after an",
    "own write that showed an older value. *First write*: from the promotion, as the promoted node itself tells",
    "it, to the first write of a client that it executed. *Repeated*: increments that nobody asked for. A",
    "system without figures has no part in the scenario: Sentinel would undo what is done by hand, and without",
    "Sentinel nobody but Holdfast promotes. In the *planned switch* each has its own: `PROXY SWITCHOVER`,",
    "`FAILOVER` typed at the master (HAProxy), `SENTINEL FAILOVER`.",
  ].join("\n");
}

await main();
