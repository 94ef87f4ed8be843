/** What clients noticed, cell by cell. */

export interface Row {
  readonly cell: string;
  /** Longest time in which no client at all was answered. */
  readonly writeGapMs: number;
  readonly readGapMs: number;
  /** By the proxy: how long there was no master before the last switch. */
  readonly holdMs: number;
  /** Sessions that waited. */
  readonly held: number;
  readonly uncertain: number;
  /** Acknowledged writes that are missing. */
  readonly lost: number;
  /** By the proxy; null = unknown. */
  readonly lostBytes: number | null;
}

const HEAD = [
  ...["cell", "rounds", "write gap", "longest", "read gap", "hold", "held", "uncertain", "lost"],
  "reported bytes",
];

/** One line a cell, times in ms: the median of the rounds for the write gap, the most for all others. */
export function table(rows: readonly Row[]): string {
  const lines = [HEAD, ...[...new Set(rows.map(({ cell }) => cell))].map((cell) => lineOf(cell, rows))];
  const widths = HEAD.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines.map((line) => line.map((text, i) => pad(text, i, widths[i] ?? 0)).join("  ")).join("\n");
}

function pad(text: string, column: number, width: number): string {
  return column === 0 ? text.padEnd(width) : text.padStart(width);
}

function lineOf(cell: string, all: readonly Row[]): string[] {
  const rows = all.filter((row) => row.cell === cell);
  const most = (of: (row: Row) => number) => Math.max(...rows.map(of));
  const writeGaps = rows.map(({ writeGapMs }) => writeGapMs).sort((a, b) => a - b);
  const numbers = [
    rows.length,
    writeGaps[Math.floor(writeGaps.length / 2)] ?? Number.NaN,
    most(({ writeGapMs }) => writeGapMs),
    most(({ readGapMs }) => readGapMs),
    most(({ holdMs }) => holdMs),
    most(({ held }) => held),
    most(({ uncertain }) => uncertain),
    most(({ lost }) => lost),
  ].map((value) => value.toFixed(0));
  const isUnknown = rows.some(({ lostBytes }) => lostBytes === null);
  return [cell, ...numbers, isUnknown ? "unknown" : String(most(({ lostBytes }) => lostBytes ?? 0))];
}
