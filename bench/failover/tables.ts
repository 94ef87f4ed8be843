/** PURE. The results as Markdown. */
import { table } from "../support/report.ts";
import { median } from "../support/stats.ts";
import { type Check, errorsText, judge } from "./judge.ts";
import type { Figures } from "./measure.ts";
import { SCENARIOS, type Scenario, type ScenarioName } from "./scenarios.ts";
import { SYSTEM_TITLES, SYSTEMS, type SystemName } from "./systems.ts";

/** What one run said; one that broke off has only words. */
export interface Outcome {
  readonly scenario: ScenarioName;
  readonly system: SystemName;
  readonly figures?: Figures;
  readonly ownPauseMs?: number;
  readonly failure?: string;
}

export interface Verdict {
  readonly scenario: ScenarioName;
  readonly checks: readonly Check[];
  /** Of the runs that broke off, the first one's words. */
  readonly failure: string | undefined;
  /** How long the load generator itself stood still in one of the runs: a gap may be its own. */
  readonly ownPauseMs: number;
}

const HEAD: readonly string[] = [
  ...["", "", "disconnects", "errors", "write gap", "all writers", "read gap"],
  ...["lost", "read stale", "first write", "repeated"],
];
const BLANK: readonly string[] = HEAD.slice(2).map(() => "–");

/** As README shows it: medians over the runs; systems without a part in a scenario share a line. */
export function resultTable(
  outcomes: readonly Outcome[],
  scenarios: readonly ScenarioName[],
  systems: readonly SystemName[],
): string {
  const rows = scenarios.flatMap((name) => {
    const scenario: Scenario = SCENARIOS[name];
    const mine = outcomes.filter((outcome) => outcome.scenario === name);
    const asked = SYSTEMS.filter((system) => systems.includes(system));
    const absent = asked.filter((system) => !scenario.systems.includes(system));
    const lines = asked
      .filter((system) => scenario.systems.includes(system))
      .map((system) => [nameOf(system), ...cellsOf(mine.filter((outcome) => outcome.system === system))]);
    if (absent.length > 0) lines.unshift([absent.map(nameOf).join("; "), ...BLANK]);
    return lines.map((line, index) => [index === 0 ? scenario.title : "", ...line]);
  });
  return table(HEAD, rows);
}

function nameOf(system: SystemName): string {
  return system === "holdfast" ? `**${SYSTEM_TITLES[system]}**` : SYSTEM_TITLES[system];
}

function cellsOf(outcomes: readonly Outcome[]): string[] {
  const runs = figuresOf(outcomes);
  if (runs.length === 0) return outcomes.length === 0 ? [...BLANK] : BLANK.with(1, "broke off");
  const count = (pick: (run: Figures) => number) => String(Math.round(median(runs.map(pick))));
  const time = (pick: (run: Figures) => number) => {
    const middle = median(runs.map(pick));
    return Number.isNaN(middle) ? "–" : `${middle.toFixed(0)} ms`;
  };
  return [
    count((run) => run.disconnects),
    errorsText(medianErrors(runs)),
    time((run) => run.writeGapMs),
    time((run) => run.systemWriteGapMs),
    time((run) => run.readGapMs),
    count((run) => run.lost),
    count((run) => run.stale),
    time((run) => run.firstWriteMs ?? Number.NaN),
    count((run) => run.unexplained),
  ];
}

/** For each kind of error, its median over the runs; those that are below one are left out. */
function medianErrors(runs: readonly Figures[]): Record<string, number> {
  const words = new Set(runs.flatMap(({ errors }) => Object.keys(errors)));
  const counts = [...words].map((word) => [
    word,
    Math.round(median(runs.map((run) => run.errors[word] ?? 0))),
  ]);
  return Object.fromEntries(counts.filter(([, count]) => Number(count) >= 1));
}

export function verdictsOf(outcomes: readonly Outcome[], scenarios: readonly ScenarioName[]): Verdict[] {
  return scenarios.flatMap((name) => {
    const mine = outcomes.filter(({ scenario, system }) => scenario === name && system === "holdfast");
    if (mine.length === 0) return [];
    const scenario: Scenario = SCENARIOS[name];
    const runs = figuresOf(mine);
    const failure = mine.find((outcome) => outcome.failure !== undefined)?.failure;
    const ownPauseMs = Math.max(...mine.map((outcome) => outcome.ownPauseMs ?? 0));
    const checks = runs.length === 0 ? [] : judge(scenario, runs);
    return [{ scenario: name, checks, failure, ownPauseMs }];
  });
}

/** One line for each scenario; what was missed is in bold with its bound. */
export function verdictTable(verdicts: readonly Verdict[]): string {
  const columns = ["disconnects", "errors", "write gap", "stall", "lost", "read gap", "repeated"] as const;
  const rows = verdicts.map(({ scenario, checks, failure, ownPauseMs }) => {
    const cells = columns.map((what) => {
      const check = checks.find((one) => one.what === what);
      if (check === undefined) return "–";
      return check.isMet ? `${check.measured} (${check.bound})` : `**${check.measured}** (${check.bound})`;
    });
    const isMet = failure === undefined && checks.every((check) => check.isMet);
    cells.push(`${ownPauseMs.toFixed(0)} ms`);
    return [SCENARIOS[scenario].title, ...cells, isMet ? "met" : "**missed**"];
  });
  const failures = verdicts.flatMap(({ scenario, failure }) =>
    failure === undefined ? [] : [`- ${SCENARIOS[scenario].title}: broke off: ${failure}`],
  );
  const text = table(["scenario", ...columns, "own pause", "verdict"], rows);
  return failures.length === 0 ? text : `${text}\n\n${failures.join("\n")}`;
}

function figuresOf(outcomes: readonly Outcome[]): Figures[] {
  return outcomes.flatMap(({ figures }) => (figures === undefined ? [] : [figures]));
}
