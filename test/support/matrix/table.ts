/** What clients noticed, cell by cell. */

export interface Row {
  readonly cell: string;
  readonly seed: number;
  /** Longest time in which no client at all was answered. */
  readonly writeGapMs: number;
  readonly readGapMs: number;
  /** By the proxy: how long there was no master. */
  readonly holdMs: number;
  readonly held: number;
  readonly uncertain: number;
  /** Acknowledged writes that are missing. */
  readonly lost: number;
  /** By the proxy; null = unknown. */
  readonly lostBytes: number | null;
}

const HEAD = ["cell", "seed", "write gap", "read gap", "hold", "held", "uncertain", "lost", "reported bytes"];

/** One line a round, times in ms. */
export function table(rows: readonly Row[]): string {
  const lines = [HEAD, ...rows.map(cellsOf)];
  const widths = HEAD.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines.map((line) => line.map((text, i) => pad(text, i, widths[i] ?? 0)).join("  ")).join("\n");
}

function pad(text: string, column: number, width: number): string {
  return column === 0 ? text.padEnd(width) : text.padStart(width);
}

function cellsOf(row: Row): string[] {
  const { cell, seed, writeGapMs, readGapMs, holdMs, held, uncertain, lost, lostBytes } = row;
  const numbers = [writeGapMs, readGapMs, holdMs, held, uncertain, lost].map((value) => value.toFixed(0));
  return [cell, String(seed), ...numbers, lostBytes === null ? "unknown" : String(lostBytes)];
}
