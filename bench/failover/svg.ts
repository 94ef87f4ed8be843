/** PURE. A picture of answered writes over time: a panel for each scenario, in it a strip for each system. */

export interface Strip {
  readonly label: string;
  /** Names a colour: see STYLE. */
  readonly colour: string;
  /** Answered writes of each bucket, those that were lost later apart. */
  readonly kept: readonly number[];
  readonly lost: readonly number[];
  /** When the new master was promoted, in ms after the fault. */
  readonly promotedMs?: number;
}

export interface Panel {
  readonly title: string;
  /** What happened at 0. */
  readonly fault: string;
  /** Of the first bucket's beginning and the last one's end, in ms after the fault. */
  readonly fromMs: number;
  readonly toMs: number;
  readonly strips: readonly Strip[];
}

export interface LegendEntry {
  readonly label: string;
  readonly colour: string;
}

const WIDTH = 900;
const COLUMNS = 2;
const LEFT = 46;
const RIGHT = 12;
const TOP = 34;
/** Of a panel: its title and what happened; for each strip a line of text and the strip; the axis. */
const TITLE_HEIGHT = 40;
const LABEL_HEIGHT = 16;
const STRIP_HEIGHT = 48;
const AXIS_HEIGHT = 50;
const PANEL_WIDTH = WIDTH / COLUMNS;
const PLOT_WIDTH = PANEL_WIDTH - LEFT - RIGHT;
/** Of a label that stands left or right of its mark. */
const SIDE_SHARE = 0.7;
/** The scale ends at a multiple of it. */
const ROUND = 10;
const TICKS_ABOUT = 5;

const STYLE = `
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #3d444d; }
  .title { font-weight: 600; font-size: 13px; fill: #1f2328; }
  .small { font-size: 11px; }
  .axis { stroke: #9198a1; stroke-width: 1; fill: none; }
  .grid { stroke: #d1d9e0; stroke-width: 1; fill: none; }
  .mark { stroke: #59636e; stroke-width: 1.2; stroke-dasharray: 4 3; fill: none; }
  .promoted { stroke: #1f2328; stroke-width: 1.4; fill: none; }
  .holdfast { fill: #1a7fd4; } .haproxy { fill: #bf8700; } .direct { fill: #8250df; } .lost { fill: #e5484d; }
  @media (prefers-color-scheme: dark) {
    text { fill: #b7bfc8; }
    .title { fill: #f0f6fc; }
    .grid { stroke: #3d444d; } .axis { stroke: #656c76; }
    .mark { stroke: #9198a1; } .promoted { stroke: #f0f6fc; }
    .holdfast { fill: #4c9ff0; } .haproxy { fill: #d29922; }
    .direct { fill: #a98bf0; } .lost { fill: #ff6a69; }
  }`;

/** The whole file. `unit`: what the heights count. */
export function renderSvg(panels: readonly Panel[], legend: readonly LegendEntry[], unit: string): string {
  const highest = Math.max(1, ...panels.flatMap(({ strips }) => strips.flatMap(totals)));
  const most = Math.ceil(highest / ROUND) * ROUND;
  const rows = Array.from({ length: Math.ceil(panels.length / COLUMNS) }, (_, row) =>
    panels.slice(row * COLUMNS, (row + 1) * COLUMNS),
  );
  const parts: string[] = [legendOf(legend)];
  let y = TOP;
  for (const row of rows) {
    for (const [column, panel] of row.entries()) {
      parts.push(group(column * PANEL_WIDTH + LEFT, y, panelOf(panel, most, unit)));
    }
    y += Math.max(...row.map(heightOf));
  }
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}"`;
  const title = `${unit} before and after a failover`;
  return [
    `${head} role="img" aria-label="${escaped(title)}">`,
    `<style>${STYLE}\n</style>`,
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

function heightOf({ strips }: Panel): number {
  return TITLE_HEIGHT + strips.length * (LABEL_HEIGHT + STRIP_HEIGHT) + AXIS_HEIGHT;
}

function legendOf(entries: readonly LegendEntry[]): string {
  let x = LEFT;
  const parts = entries.map(({ label, colour }) => {
    const part = `<rect class="${colour}" x="${x}" y="8" width="11" height="11"/>${text(x + 16, 18, label)}`;
    // The width of a letter is not known here: 7 units are enough for all but the widest.
    x += 16 + label.length * 7 + 20;
    return part;
  });
  return parts.join("\n");
}

function panelOf(panel: Panel, most: number, unit: string): string {
  const { fromMs, toMs, strips } = panel;
  const xOf = (ms: number) => ((ms - fromMs) / (toMs - fromMs)) * PLOT_WIDTH;
  const bottom = TITLE_HEIGHT + strips.length * (LABEL_HEIGHT + STRIP_HEIGHT);
  const parts = [
    text(0, 12, panel.title, "title"),
    markText(xOf(0), 32, panel.fault),
    ...strips.map((strip, index) =>
      group(0, TITLE_HEIGHT + index * (LABEL_HEIGHT + STRIP_HEIGHT), stripOf(strip, most, xOf)),
    ),
    line("mark", xOf(0), 36, xOf(0), bottom),
    ...ticks(fromMs, toMs).flatMap((ms) => [
      line("axis", xOf(ms), bottom, xOf(ms), bottom + 4),
      text(xOf(ms), bottom + 16, String(ms / 1_000), "small", "middle"),
    ]),
    text(PLOT_WIDTH / 2, bottom + 31, "seconds after the fault", "small", "middle"),
  ];
  const middle = (TITLE_HEIGHT + LABEL_HEIGHT + bottom) / 2;
  parts.push(
    `<g transform="translate(-32 ${middle}) rotate(-90)">${text(0, 0, unit, "small", "middle")}</g>`,
  );
  return parts.join("\n");
}

function stripOf(strip: Strip, most: number, xOf: (ms: number) => number): string {
  const base = LABEL_HEIGHT + STRIP_HEIGHT;
  const yOf = (count: number) => base - (count / most) * (STRIP_HEIGHT - 4);
  const parts = [
    text(PLOT_WIDTH, 11, strip.label, "small", "end"),
    line("grid", 0, yOf(most), PLOT_WIDTH, yOf(most)),
    text(-6, yOf(most) + 4, String(most), "small", "end"),
    text(-6, base, "0", "small", "end"),
  ];
  // The lost ones show above those that were kept; where there are none, nothing may shine through.
  if (strip.lost.some((count) => count > 0)) {
    const behind = totals(strip).map((total, index) => (strip.lost[index] ? total : 0));
    parts.push(area("lost", behind, yOf));
  }
  parts.push(area(strip.colour, strip.kept, yOf), line("axis", 0, base, PLOT_WIDTH, base));
  if (strip.promotedMs !== undefined) {
    const x = xOf(strip.promotedMs);
    parts.push(line("promoted", x, 2, x, base), markText(x, 11, "promoted"));
  }
  return parts.join("\n");
}

function totals({ kept, lost }: Strip): number[] {
  return kept.map((count, index) => count + (lost[index] ?? 0));
}

/** Steps over the whole width; buckets narrower than a unit are drawn as the mean of those that share it. */
function area(colour: string, counts: readonly number[], yOf: (count: number) => number): string {
  const shared = Math.max(1, Math.ceil(counts.length / PLOT_WIDTH));
  const columns = Array.from({ length: Math.ceil(counts.length / shared) }, (_, index) => {
    const some = counts.slice(index * shared, (index + 1) * shared);
    return some.reduce((sum, count) => sum + count, 0) / some.length;
  });
  const width = (PLOT_WIDTH / counts.length) * shared;
  const steps = columns.map((count, index) => {
    const end = Math.min(PLOT_WIDTH, (index + 1) * width);
    return `V${fixed(yOf(count))}H${fixed(end)}`;
  });
  return `<path class="${colour}" d="M0 ${fixed(yOf(0))}${steps.join("")}V${fixed(yOf(0))}Z"/>`;
}

/** Round times of the span, about five. */
export function ticks(fromMs: number, toMs: number): number[] {
  const rough = (toMs - fromMs) / TICKS_ABOUT;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough) ?? rough;
  const first = Math.ceil(fromMs / step);
  return Array.from({ length: Math.floor(toMs / step) - first + 1 }, (_, index) => (first + index) * step);
}

/** Beside a vertical mark, on the side where there is room. */
function markText(x: number, y: number, label: string): string {
  const isRight = x < PLOT_WIDTH * SIDE_SHARE;
  return text(isRight ? x + 4 : x - 4, y, label, "small", isRight ? "start" : "end");
}

function text(x: number, y: number, content: string, kind = "", anchor = "start"): string {
  const kindText = kind === "" ? "" : ` class="${kind}"`;
  return `<text${kindText} x="${fixed(x)}" y="${fixed(y)}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

function line(kind: string, x1: number, y1: number, x2: number, y2: number): string {
  return `<path class="${kind}" d="M${fixed(x1)} ${fixed(y1)}L${fixed(x2)} ${fixed(y2)}"/>`;
}

function group(x: number, y: number, content: string): string {
  return `<g transform="translate(${fixed(x)} ${fixed(y)})">\n${content}\n</g>`;
}

function fixed(value: number): string {
  return String(Number(value.toFixed(1)));
}

function escaped(content: string): string {
  return content
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
