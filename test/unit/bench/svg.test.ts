import { describe, expect, it } from "vitest";
import { type Panel, renderSvg, type Strip, ticks } from "../../../bench/failover/svg.ts";

const STRIP: Strip = { label: "one", colour: "holdfast", kept: [10, 20, 0, 5], lost: [0, 0, 0, 0] };
const PANEL: Panel = { title: "a switch", fault: "killed", fromMs: -500, toMs: 1_500, strips: [STRIP] };
const LEGEND = [{ label: "one", colour: "holdfast" }];

/** The names of all elements; throws where the text is no well-formed XML of the simple kind we write. */
function elements(svg: string): string[] {
  const names: string[] = [];
  const open: string[] = [];
  const TAG = /<(\/?)([a-z]+)((?: [\w:-]+="[^"<]*")*)(\/?)>/g;
  const between = svg.replaceAll(TAG, (_, closing: string, name: string, __, empty: string) => {
    if (closing === "/") {
      if (open.pop() !== name) throw new Error(`</${name}> ends nothing`);
    } else {
      names.push(name);
      if (empty === "") open.push(name);
    }
    return "";
  });
  if (open.length > 0) throw new Error(`open at the end: ${open.join(", ")}`);
  const strange = /<|&(?!amp;|lt;|gt;|quot;)/.exec(between);
  if (strange) throw new Error(`bare ${strange[0]} in ${between.slice(strange.index, strange.index + 40)}`);
  return names;
}

const count = (svg: string, name: string): number => elements(svg).filter((one) => one === name).length;
const areas = (svg: string, colour: string): string[] =>
  [...svg.matchAll(new RegExp(`<path class="${colour}" d="([^"]*)"`, "g"))].map(([, path]) => path ?? "");

describe("the picture", () => {
  it.each(["<svg><g></svg>", "<svg>a & b</svg>", "<svg>1 < 2</svg>", "<svg><path d=1/></svg>"])(
    "would be found malformed: %s",
    (text) => {
      expect(() => elements(text)).toThrow();
    },
  );

  it("is well-formed with any texts", () => {
    const strange = '<&>"';
    const strips = [{ ...STRIP, label: strange, promotedMs: 100 }];
    const panel = { ...PANEL, title: strange, fault: strange, strips };
    const svg = renderSvg([panel, panel, panel], [{ label: strange, colour: "lost" }], strange);
    expect(elements(svg)[0]).toBe("svg");
    expect(svg).toContain("&lt;&amp;&gt;&quot;");
  });

  it("holds no number that is none", () => {
    const empty = { ...PANEL, strips: [{ ...STRIP, kept: [0, 0], lost: [0, 0] }] };
    expect(renderSvg([PANEL, empty], LEGEND, "writes")).not.toMatch(/NaN|Infinity|undefined/);
  });

  it("has an area for each strip, and one more behind it for writes that were lost", () => {
    const lossy: Strip = { ...STRIP, colour: "haproxy", lost: [0, 0, 7, 0] };
    const svg = renderSvg([{ ...PANEL, strips: [STRIP, lossy] }], LEGEND, "writes");
    expect(areas(svg, "holdfast")).toHaveLength(1);
    expect(areas(svg, "haproxy")).toHaveLength(1);
    expect(areas(svg, "lost")).toHaveLength(1);
    expect(svg.indexOf('path class="lost"')).toBeLessThan(svg.indexOf('path class="haproxy"'));
  });

  it("draws each bucket as a step of its own width", () => {
    const [path = ""] = areas(renderSvg([PANEL], LEGEND, "writes"), "holdfast");
    expect(path.match(/H/g)).toHaveLength(4);
    const ends = [...path.matchAll(/H([\d.]+)/g)].map(([, x]) => Number(x));
    expect(ends.at(-1)).toBeCloseTo(2 * (ends[1] ?? 0), 0);
  });

  it("takes the mean of buckets that are narrower than a unit", () => {
    const many = { ...STRIP, kept: new Array<number>(5_000).fill(10), lost: [] };
    const [path = ""] = areas(renderSvg([{ ...PANEL, strips: [many] }], LEGEND, "writes"), "holdfast");
    const heights = new Set([...path.matchAll(/V([\d.]+)H/g)].map(([, y]) => y));
    expect(heights.size).toBe(1);
    expect(path.match(/H/g)?.length).toBeLessThan(500);
  });

  it("marks the fault in each panel, and the promotion in each strip that had one", () => {
    const promoted = { ...STRIP, promotedMs: 200 };
    const svg = renderSvg([{ ...PANEL, strips: [promoted, STRIP, promoted] }, PANEL], LEGEND, "writes");
    expect(svg.match(/class="mark"/g)).toHaveLength(2);
    expect(svg.match(/class="promoted"/g)).toHaveLength(2);
    expect(svg.match(/>promoted</g)).toHaveLength(2);
    expect(svg.match(/>killed</g)).toHaveLength(2);
  });

  it("labels its axes", () => {
    const svg = renderSvg([PANEL], LEGEND, "answered writes per 10 ms");
    expect(svg).toContain(">answered writes per 10 ms</text>");
    expect(svg).toContain(">seconds after the fault</text>");
    expect(count(svg, "text")).toBeGreaterThan(8);
  });
});

describe("the marks of the time axis", () => {
  it.each([
    [-500, 1_500, [-500, 0, 500, 1_000, 1_500]],
    [-500, 3_000, [0, 1_000, 2_000, 3_000]],
    [-1_000, 13_000, [0, 5_000, 10_000]],
    [0, 100, [0, 20, 40, 60, 80, 100]],
  ])("from %i to %i ms", (fromMs, toMs, expected) => {
    expect(ticks(fromMs, toMs).map((ms) => ms + 0)).toEqual(expected);
  });
});
