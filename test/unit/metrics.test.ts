import { describe, expect, it } from "vitest";
import {
  CLOSE_REASONS,
  Counters,
  createMetrics,
  HOLD_OUTCOMES,
  type MetricSources,
  metricsList,
  type NodeReading,
  PROMOTION_RESULTS,
  REQUEST_CLASSES,
  SENTINEL_STATES,
  SWITCHOVER_RESULTS,
} from "../../src/metrics.ts";

const MASTER: NodeReading = {
  id: "a:1",
  role: "master",
  reachable: true,
  fit: true,
  lagMs: 0,
  lagBytes: 0,
  outstanding: 3,
  slow: true,
};
const LOST: NodeReading = {
  id: "b:2",
  role: "unknown",
  reachable: false,
  fit: false,
  lagMs: null,
  lagBytes: null,
  outstanding: 0,
  slow: false,
};

function sources(nodes: readonly NodeReading[] = [], number = 0, writable = false): MetricSources {
  const isPromoter = () => false;
  return { epoch: () => ({ number, writable }), isPromoter, nodes: () => nodes, sentinels: () => [] };
}

/** Series and their values: 'holdfast_requests_total{class="read"}' → 1. */
async function scrape(counters: Counters, from: MetricSources = sources()): Promise<Map<string, number>> {
  return series(await createMetrics(counters, from).text());
}

function series(text: string): Map<string, number> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [
      line.slice(0, line.lastIndexOf(" ")),
      Number(line.slice(line.lastIndexOf(" ") + 1)),
    ]),
  );
}

describe("the scrape", () => {
  it("has every closed series at zero before anything happened", async () => {
    const found = await scrape(new Counters());
    const expected = [
      ...CLOSE_REASONS.map((reason) => `holdfast_clients_closed_total{reason="${reason}"}`),
      ...REQUEST_CLASSES.map((kind) => `holdfast_requests_total{class="${kind}"}`),
      ...PROMOTION_RESULTS.map((result) => `holdfast_promotions_total{result="${result}"}`),
      ...SWITCHOVER_RESULTS.map((result) => `holdfast_switchovers_total{result="${result}"}`),
      ...HOLD_OUTCOMES.map((outcome) => `holdfast_holds_ended_total{outcome="${outcome}"}`),
      'holdfast_resent_total{class="write"}',
      'holdfast_upstream_connections{kind="private"}',
      ...SENTINEL_STATES.map((state) => `holdfast_sentinels{state="${state}"}`),
      ...metricsList()
        .filter((metric) => metric.labels.length === 0)
        .map((metric) => metric.name),
    ];
    for (const name of expected) expect([name, found.get(name)]).toEqual([name, 0]);
  });

  it("every counter field moves its own series and no other", async () => {
    const moved = new Map<string, string>();
    const before = await scrape(new Counters());
    for (const [label, bump] of bumps()) {
      const counters = new Counters();
      bump(counters);
      const after = await scrape(counters);
      const changed = [...after].filter(([name, value]) => isOwn(name) && value !== (before.get(name) ?? 0));
      expect(
        changed.map(([, value]) => value),
        label,
      ).toEqual([7]);
      moved.set(changed[0]?.[0] ?? "", label);
    }
    const unmoved = [...before.keys()].filter((name) => isOwn(name) && !moved.has(name));
    const known = SENTINEL_STATES.map((state) => `holdfast_sentinels{state="${state}"}`);
    const told = ["holdfast_epoch", "holdfast_writable", ...known, "holdfast_promoter"];
    expect(unmoved).toEqual(told);
  });

  it("copies values at each scrape and does not add them up", async () => {
    const counters = new Counters();
    const metrics = createMetrics(counters, sources());
    counters.requests.read = 5;
    await metrics.text();
    counters.requests.read = 6;
    expect(series(await metrics.text()).get('holdfast_requests_total{class="read"}')).toBe(6);
  });

  it("shows epoch and nodes as the sources tell them", async () => {
    const found = await scrape(new Counters(), sources([MASTER, LOST], 4, true));
    const shown = (name: string) => found.get(`holdfast_${name}`);
    expect([shown("epoch"), shown("writable")]).toEqual([4, 1]);
    expect([shown('node_up{node="a:1"}'), shown('node_up{node="b:2"}')]).toEqual([1, 0]);
    expect([shown('node_fit{node="a:1"}'), shown('node_fit{node="b:2"}')]).toEqual([1, 0]);
    expect(shown('node_role{node="a:1",role="master"}')).toBe(1);
    expect(shown('node_role{node="a:1",role="replica"}')).toBe(0);
    expect(shown('node_role{node="b:2",role="unknown"}')).toBe(1);
  });

  it("says whether this proxy may promote", async () => {
    const may = await scrape(new Counters(), { ...sources(), isPromoter: () => true });
    expect(may.get("holdfast_promoter")).toBe(1);
    expect((await scrape(new Counters())).get("holdfast_promoter")).toBe(0);
  });

  it("counts Sentinels by state", async () => {
    const states = ["agreeing", "tilt", "agreeing"] as const;
    const from = { ...sources(), sentinels: () => states.map((state) => ({ state })) };
    const found = await scrape(new Counters(), from);
    const shown = (state: string) => found.get(`holdfast_sentinels{state="${state}"}`);
    expect([shown("agreeing"), shown("tilt"), shown("unreachable")]).toEqual([2, 1, 0]);
  });

  it("shows what each node owes and whether it is slow", async () => {
    const found = await scrape(new Counters(), sources([MASTER, LOST]));
    const shown = (name: string, node: string) => found.get(`holdfast_node_${name}{node="${node}"}`);
    expect([shown("outstanding", "a:1"), shown("outstanding", "b:2")]).toEqual([3, 0]);
    expect([shown("slow", "a:1"), shown("slow", "b:2")]).toEqual([1, 0]);
  });

  it("says who served the reads, and why the master did", async () => {
    const counters = new Counters();
    expect(counters.freshnessShare).toBeNull();
    counters.reads.replica = 5;
    counters.addMasterRead("freshness");
    counters.addMasterRead("none-fit");
    counters.addMasterRead("policy");
    const found = await scrape(counters);
    const shown = (by: string, why: string) =>
      found.get(`holdfast_reads_total{served_by="${by}",reason="${why}"}`);
    expect(shown("replica", "fit")).toBe(5);
    expect(["freshness", "none-fit", "policy"].map((why) => shown("master", why))).toEqual([1, 1, 1]);
    expect(found.get("holdfast_freshness_reads_total")).toBe(1);
    expect(counters.freshnessShare).toBe(1 / 8);
  });

  it("leaves out a lag that is not known instead of calling it zero", async () => {
    const found = await scrape(new Counters(), sources([MASTER, LOST]));
    expect(found.get('holdfast_node_lag_ms{node="a:1"}')).toBe(0);
    expect(found.has('holdfast_node_lag_ms{node="b:2"}')).toBe(false);
    expect(found.has('holdfast_node_lag_bytes{node="b:2"}')).toBe(false);
  });

  it("a node that left the group disappears, one that came is at zero", async () => {
    const counters = new Counters();
    counters.addNodeRequests("a:1", 3, 2);
    counters.addNodeRequests("gone:1", 3, 3);
    let nodes = [MASTER, LOST];
    const metrics = createMetrics(counters, { ...sources(), nodes: () => nodes });
    const first = await metrics.text();
    expect(series(first).get('holdfast_node_requests_total{node="a:1"}')).toBe(3);
    expect(series(first).get('holdfast_node_requests_total{node="b:2"}')).toBe(0);
    expect(series(first).get('holdfast_node_reads_total{node="a:1"}')).toBe(2);
    expect(series(first).get('holdfast_node_reads_total{node="b:2"}')).toBe(0);
    expect(first).not.toContain("gone:1");
    nodes = [LOST];
    expect(await metrics.text()).not.toContain("a:1");
  });

  it("has the metrics of the process under our prefix, and everything is under our prefix", async () => {
    const found = await scrape(new Counters());
    expect(found.has("holdfast_process_cpu_seconds_total")).toBe(true);
    expect([...found.keys()].filter((name) => !name.startsWith("holdfast_"))).toEqual([]);
  });

  it("two processes' worth of metrics do not meet in a global registry", () => {
    expect(() => [
      createMetrics(new Counters(), sources()),
      createMetrics(new Counters(), sources()),
    ]).not.toThrow();
  });
});

describe("counters", () => {
  it("forget a node that left", () => {
    const counters = new Counters();
    counters.addNodeRequests("a:1", 2);
    counters.addNodeRequests("a:1", 3, 1);
    expect([counters.nodeRequests.get("a:1"), counters.nodeReads.get("a:1")]).toEqual([5, 1]);
    counters.forgetNode("a:1");
    expect([counters.nodeRequests.size, counters.nodeReads.size]).toEqual([0, 0]);
  });
});

describe("the list of metrics", () => {
  it("is the list of what is scraped, with type and help", async () => {
    const text = await createMetrics(new Counters(), sources([MASTER])).text();
    const own = text.split("\n").filter((line) => line.startsWith("# TYPE ") && isOwn(line.slice(7)));
    expect(own.toSorted()).toEqual(
      metricsList()
        .map((metric) => `# TYPE ${metric.name} ${metric.type}`)
        .toSorted(),
    );
    for (const metric of metricsList()) expect(metric.help, metric.name).toMatch(/^[A-Z0-9].*\.$/);
  });

  it("calls counters …_total and nothing else", () => {
    for (const metric of metricsList()) {
      expect([metric.name, metric.name.endsWith("_total")]).toEqual([metric.name, metric.type === "counter"]);
    }
  });
});

function isOwn(name: string): boolean {
  return !/^holdfast_(?:process|nodejs)_/.test(name);
}

/** One step for each number of the counters: sets it to 7. Found by looking, so none is forgotten. */
function bumps(): [label: string, bump: (counters: Counters) => void][] {
  return Object.entries(new Counters()).flatMap(
    ([field, value]): [string, (counters: Counters) => void][] => {
      if (typeof value === "number") return [[field, (counters) => Object.assign(counters, { [field]: 7 })]];
      if (value instanceof Map) return [];
      return Object.keys(value).map((key) => [
        `${field}.${key}`,
        (counters) => Object.assign(Reflect.get(counters, field), { [key]: 7 }),
      ]);
    },
  );
}
