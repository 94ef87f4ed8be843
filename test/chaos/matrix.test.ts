/**
 * Every fault in every mode, each at a moment nobody chose, with all kinds of clients at work: what they were
 * told is compared with what is on the master, and who was asked with who should have been.
 *
 *   npm run chaos                      all cells, a table of what clients noticed at the end
 *   HOLDFAST_CELL=sigstop/observe      this cell only, also `sigstop` or `/observe`
 *   HOLDFAST_ROUNDS=5                  each cell so many times
 *   HOLDFAST_SEED=123                  the same moments again, as printed by a round that failed
 */
import { afterAll, expect, it } from "vitest";
import { needs } from "../support/abilities.ts";
import { CELLS, type Cell, READ_GAP_MS, SHORT, UNNOTICED_MS, UNSEEN_MOST } from "../support/matrix/cells.ts";
import { Field } from "../support/matrix/field.ts";
import { VISIT_EVERY_MS } from "../support/matrix/pulse.ts";
import { type Row, table } from "../support/matrix/table.ts";
import { type Allowance, judge } from "../support/matrix/verdict.ts";
import { SEED } from "../support/random.ts";
import { report as figure } from "../support/stage.ts";

const ROUNDS = Number(process.env.HOLDFAST_ROUNDS ?? 1);
const ONLY = process.env.HOLDFAST_CELL;
const ARE_ALL = process.env.HOLDFAST_CELLS === "all";
const ROUND_MS = 90_000;

const rows: Row[] = [];

afterAll(() => {
  if (rows.length > 0) process.stderr.write(`\n${table(rows)}\n`);
});

function isChosen({ name }: Cell): boolean {
  if (ONLY === undefined) return ARE_ALL || SHORT.has(name);
  return name === ONLY || name.startsWith(`${ONLY}/`) || (ONLY.startsWith("/") && name.endsWith(ONLY));
}

function allowanceOf({ fault, mode }: Cell): Allowance {
  return {
    cuts: fault.cuts ?? 0,
    visitors: (fault.unnoticedMs ?? UNNOTICED_MS) / VISIT_EVERY_MS,
    errors: fault.errors ?? [],
    mayLose: fault.loses !== undefined,
    unseen: fault.loses === "few" ? UNSEEN_MOST : 0,
    switches: fault.switches ?? 1,
    writeGapMs: mode === "self" ? (fault.selfGapMs ?? null) : null,
    readGapMs: fault.allDown ? null : READ_GAP_MS,
  };
}

async function runCell(cell: Cell, seed: number): Promise<void> {
  const { fault, mode, name } = cell;
  const field = await Field.open({
    mode,
    seed,
    links: fault.links ?? "none",
    config: fault.config ?? {},
    errors: fault.errors ?? [],
    sessions: fault.plain !== true,
  });
  try {
    await field.warmUp();
    field.sessions.begin(name, { mayCut: (fault.cuts ?? 0) > 0, mayLose: fault.loses ?? "nothing" });
    await field.pause();
    await fault.run(field);
    await field.settle();
    const outcome = await field.outcome();
    const { lostBytes, errors, lost } = outcome;
    const accounts = await field.stage.expectBalancedAccounts();
    if (fault.errors === undefined) expect(accounts.expired + accounts.failed, "holds that failed").toBe(0);
    const [last] = await field.stage.failovers();
    rows.push({
      ...{ cell: name, lost, lostBytes, writeGapMs: outcome.writeGapMs, readGapMs: outcome.readGapMs },
      ...{ holdMs: Number(last?.hold_ms ?? 0), held: accounts.held },
      uncertain: (errors.get("UNCERTAIN") ?? 0) + outcome.visitorsUncertain,
    });
    expect(judge(outcome, allowanceOf(cell))).toEqual([]);
  } catch (error) {
    figure(field.stage.proxy.tail(60));
    figure(
      `HOLDFAST_SEED=${seed} HOLDFAST_CELL=${name} failed; clients: ${field.sessions.faults.join("; ")}`,
    );
    throw error;
  } finally {
    await field.close();
  }
}

for (const cell of CELLS.filter(isChosen)) {
  const { fault, name, isBuilt } = cell;
  const title = `${name}: ${fault.what} (${fault.rows}; HOLDFAST_SEED=${SEED})`;
  it.skipIf(!isBuilt)(title, { timeout: ROUNDS * ROUND_MS }, async (context) => {
    // Some of its clients do.
    needs(context, "ssubscribe");
    for (let round = 0; round < ROUNDS; round++) await runCell(cell, SEED + round);
  });
}
