/** PURE. The scenarios that tell most, as a picture: answered writes over time. */
import { buckets, lostWrites, type Span } from "./measure.ts";
import type { Run } from "./play.ts";
import { SCENARIO_NAMES, SCENARIOS, type Scenario, type Shown } from "./scenarios.ts";
import { type LegendEntry, type Panel, renderSvg, type Strip } from "./svg.ts";
import { SYSTEM_TITLES, SYSTEMS, type SystemName } from "./systems.ts";

const BUCKET_MS = 10;

/** Undefined when none of these scenarios was run. */
export function pictureOf(runs: readonly Run[]): string | undefined {
  const panels = SCENARIO_NAMES.flatMap((name): Panel[] => {
    const { title, shown }: Scenario = SCENARIOS[name];
    if (shown === undefined) return [];
    const mine = runs.filter(({ scenario }) => scenario === name);
    const strips = SYSTEMS.toReversed().flatMap((system) => stripsOf(mine, shown, system));
    return strips.length === 0 ? [] : [{ title, ...shown, strips }];
  });
  if (panels.length === 0) return undefined;
  const systems = SYSTEMS.toReversed().filter((system) => runs.some((run) => run.system === system));
  const legend: LegendEntry[] = systems.map((name) => ({ label: SYSTEM_TITLES[name], colour: name }));
  legend.push({ label: "answered, and lost later", colour: "lost" });
  return renderSvg(panels, legend, `answered writes per ${BUCKET_MS} ms`);
}

/** Of several runs the one in the middle by its longest gap. */
function stripsOf(runs: readonly Run[], shown: Shown, system: SystemName): Strip[] {
  const mine = runs
    .filter((run) => run.system === system)
    .sort((a, b) => a.figures.writeGapMs - b.figures.writeGapMs);
  const run = mine[Math.floor((mine.length - 1) / 2)];
  return run === undefined ? [] : [stripOf(run, shown)];
}

function stripOf({ trace, marks, system }: Run, { fromMs, toMs }: Shown): Strip {
  const { faultAtMs, promotedAtMs } = marks;
  const span: Span = { fromMs: faultAtMs + fromMs, toMs: faultAtMs + toMs };
  const lost = trace.writers.flatMap(({ writes, final }) => lostWrites(writes, final));
  const isLost = new Set(lost);
  const kept = trace.writers.flatMap(({ writes }) => writes.filter((write) => !isLost.has(write)));
  const countsOf = (writes: readonly { readonly atMs: number }[]) =>
    buckets(
      writes.map(({ atMs }) => atMs),
      span,
      BUCKET_MS,
    );
  return {
    label: SYSTEM_TITLES[system],
    colour: system,
    kept: countsOf(kept),
    lost: countsOf(lost),
    ...(promotedAtMs === undefined ? {} : { promotedMs: promotedAtMs - faultAtMs }),
  };
}
