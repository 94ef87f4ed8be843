/** PURE. The results as Markdown, and whether the bounds are met. */
import { table, type Verdict, verdictTable } from "../support/report.ts";
import { median } from "../support/stats.ts";
import { CASES, isBoundByOrder, KEYS, type Part, type SystemName, systemsOf } from "./cases.ts";
import { nodeCpuUs, proxyCpuUs, replicaShare, requestsOf, type Sample } from "./measure.ts";

const SESSION_COST_MOST = 0.03;
const REPLICA_SHARE_LEAST = 0.9;

type Pick = (sample: Sample) => number;

/** The samples of one line of a table. */
interface Line {
  readonly about: string;
  readonly system: SystemName;
  /** See the function of that name. */
  readonly isBoundByOrder: boolean;
  readonly samples: readonly Sample[];
}

function linesOf(samples: readonly Sample[], part: Part): Line[] {
  const cases = CASES.filter((each) => each.part === part);
  return cases.flatMap(({ about, load }) =>
    systemsOf(part).map((system) => {
      const isMine = (one: Sample) => one.part === part && one.about === about && one.system === system;
      return { about, system, isBoundByOrder: isBoundByOrder(load), samples: samples.filter(isMine) };
    }),
  );
}

// Figures

/** Of every sample beside the one that was measured in the same turn: (system / other). */
function ratios(samples: readonly Sample[], line: Line, other: SystemName, pick: Pick): number[] {
  return line.samples.flatMap((mine) => {
    const beside = samples.find(
      ({ part, about, round, slice, system }) =>
        part === mine.part &&
        about === mine.about &&
        round === mine.round &&
        slice === mine.slice &&
        system === other,
    );
    return beside === undefined ? [] : [pick(mine) / pick(beside)];
  });
}

function middle({ samples }: Line, pick: Pick): number {
  return median(samples.map(pick));
}

function sum({ samples }: Line, pick: Pick): number {
  return samples.reduce((total, sample) => total + pick(sample), 0);
}

/** "least – most" of several figures. */
function spread(values: readonly number[], text: (value: number) => string): string {
  return `${text(Math.min(...values))} – ${text(Math.max(...values))}`;
}

function percent(share: number, digits = 1): string {
  return `${(share * 100).toFixed(digits)} %`;
}

/** How much more than the other: 1.02 is "+2.0 %". */
function more(ratio: number): string {
  return `${ratio < 1 ? "" : "+"}${percent(ratio - 1)}`;
}

function fixed(value: number, digits = 2): string {
  return Number.isNaN(value) ? "–" : value.toFixed(digits);
}

const perSecond: Pick = (sample) => requestsOf(sample) / sample.seconds;
const proxyCores: Pick = (sample) => sample.proxyCpuSeconds / sample.seconds;
const trafficCores: Pick = (sample) => sample.cpuSeconds / sample.seconds;

/** A figure of every node: "master / replica / replica". */
function ofNodes(line: Line, pick: (sample: Sample, node: number) => number, digits: number): string {
  const count = line.samples[0]?.nodes.length ?? 0;
  const each = Array.from({ length: count }, (_, node) => middle(line, (sample) => pick(sample, node)));
  return each.map((value) => fixed(value, digits)).join(" / ");
}

const nodeReadsPerSecond = (sample: Sample, node: number) =>
  (sample.nodes[node]?.reads ?? Number.NaN) / sample.seconds;

// Bounds

export function judge(samples: readonly Sample[]): Verdict[] {
  return [...judgeCost(samples), ...judgeShare(samples), ...judgeStale(samples), ...judgeErrors(samples)];
}

function judgeCost(samples: readonly Sample[]): Verdict[] {
  const lines = measured(linesOf(samples, "plain"));
  const sessions = lines.filter(({ system }) => system === "session");
  return sessions.map((line) => {
    const alike = lines.find(({ about, system }) => about === line.about && system === "again") ?? line;
    const noise = median(ratios(samples, alike, "eventual", proxyCpuUs));
    const ratio = median(ratios(samples, line, "eventual", proxyCpuUs));
    return {
      what: `plain, ${line.about}: session, CPU per request`,
      bound: `≤ ${more(1 + SESSION_COST_MOST)} of eventual`,
      measured: `${more(ratio)} (two alike: ${more(noise)})`,
      isMet: ratio <= 1 + SESSION_COST_MOST,
    };
  });
}

function judgeShare(samples: readonly Sample[]): Verdict[] {
  const lines = linesOf(samples, "mixed").filter(({ system }) => system === "session");
  const least = percent(REPLICA_SHARE_LEAST, 0);
  return measured(lines).map((line) => {
    const isBeside = line.isBoundByOrder;
    const share = isBeside
      ? median(ratios(samples, line, "eventual", replicaShare))
      : middle(line, replicaShare);
    return {
      what: `mixed, ${line.about}: session, reads served by replicas`,
      bound: isBeside ? `≥ ${least} of eventual's` : `≥ ${least}`,
      measured: percent(share),
      isMet: share >= REPLICA_SHARE_LEAST,
    };
  });
}

function judgeStale(samples: readonly Sample[]): Verdict[] {
  const total = (system: SystemName, pick: Pick) => {
    const mine = samples.filter((sample) => sample.system === system && sample.writes > 0);
    return {
      reads: mine.reduce((all, { reads }) => all + reads, 0),
      stale: mine.reduce((all, one) => all + pick(one), 0),
    };
  };
  const verdict = (what: string, { reads, stale }: { reads: number; stale: number }): Verdict[] =>
    reads === 0 ? [] : [{ what, bound: "0", measured: `${stale} of ${reads}`, isMet: stale === 0 }];
  return [
    ...verdict(
      "session: reads older than an own write",
      total("session", ({ staleOwn }) => staleOwn),
    ),
    ...verdict(
      "strong: reads older than anybody's write",
      total("strong", ({ staleAny }) => staleAny),
    ),
  ];
}

function judgeErrors(samples: readonly Sample[]): Verdict[] {
  const errors = samples.reduce((all, sample) => all + sample.errors, 0);
  return [{ what: "replies that were errors", bound: "0", measured: String(errors), isMet: errors === 0 }];
}

function measured(lines: readonly Line[]): Line[] {
  return lines.filter((line) => line.samples.length > 0);
}

// Tables

function costTable(samples: readonly Sample[], part: Part): string {
  const head = [
    ...["load", "system", "requests/s", "proxy: CPU µs/request", "least – most", "proxy: cores"],
    ...["nodes: reads/s", "nodes: CPU µs/request", "traffic: cores"],
  ];
  const rows = measured(linesOf(samples, part)).map((line) => [
    line.about,
    titleOf(part, line.system),
    fixed(middle(line, perSecond), 0),
    fixed(middle(line, proxyCpuUs)),
    spread(line.samples.map(proxyCpuUs), fixed),
    fixed(middle(line, proxyCores)),
    ofNodes(line, nodeReadsPerSecond, 0),
    ofNodes(line, nodeCpuUs, 2),
    fixed(middle(line, trafficCores)),
  ]);
  return table(head, rows);
}

function ratioTable(samples: readonly Sample[]): string {
  const rows = measured(linesOf(samples, "plain")).flatMap((line) => {
    if (line.system === "eventual") return [];
    const all = ratios(samples, line, "eventual", proxyCpuUs);
    const quarter = (q: number) =>
      all.toSorted((a, b) => a - b)[Math.floor(q * (all.length - 1))] ?? Number.NaN;
    const half = `${more(quarter(0.25))} – ${more(quarter(0.75))}`;
    return [
      [line.about, TITLES[line.system], more(median(all)), half, spread(all, more), String(all.length)],
    ];
  });
  const head = ["load", "system", "CPU per request beside eventual", "middle half", "least – most", "pairs"];
  return table(head, rows);
}

function shareTable(samples: readonly Sample[], part: Part): string {
  const head = [
    ...["load", "system", "requests/s", "by replicas", "least – most", "proxy: CPU µs/request"],
    ...["nodes: reads/s", "lag p50 ms", "lag max ms", "read p50 ms", "read p99 ms", "write p99 ms"],
    ...["stale: own", "stale: any", "traffic: cores"],
  ];
  const rows = measured(linesOf(samples, part)).map((line) => [
    ...[line.about, titleOf(part, line.system), fixed(middle(line, perSecond), 0)],
    percent(middle(line, replicaShare)),
    spread(line.samples.map(replicaShare), (share) => percent(share)),
    fixed(middle(line, proxyCpuUs)),
    ofNodes(line, nodeReadsPerSecond, 0),
    fixed(middle(line, ({ lagP50Ms }) => lagP50Ms)),
    fixed(Math.max(...line.samples.map(({ lagMaxMs }) => lagMaxMs))),
    ...[middle(line, ({ readP50Ms }) => readP50Ms), middle(line, ({ readP99Ms }) => readP99Ms)].map((ms) =>
      fixed(ms),
    ),
    fixed(middle(line, ({ writeP99Ms }) => writeP99Ms)),
    ...[sum(line, ({ staleOwn }) => staleOwn), sum(line, ({ staleAny }) => staleAny)].map(String),
    fixed(middle(line, trafficCores)),
  ]);
  return table(head, rows);
}

const TITLES: Readonly<Record<SystemName, string>> = {
  eventual: "eventual",
  again: "eventual, another process",
  session: "session",
  strong: "strong",
  "no-replica": "no replica (reads.from: master)",
  "one-replica": "one replica",
};

function titleOf(part: Part, system: SystemName): string {
  return part === "scale" && system === "session" ? "two replicas" : TITLES[system];
}

function sectionOf(samples: readonly Sample[], part: Part): string[] {
  switch (part) {
    case "plain":
      return [
        "## Only reads",
        costTable(samples, part),
        "CPU of the proxy per request beside that of `eventual` in the same turn. Another process of " +
          "`eventual` shows by how much two that are alike differ:",
        ratioTable(samples),
      ];
    case "mixed":
      return [
        `## Half writes, half reads, ${KEYS} keys`,
        shareTable(samples, part),
        "In mixed pipelines a read behind a write of the same client goes to the master in every mode: what " +
          "a client has under way is answered in order by one node.",
      ];
    case "back":
      return ["## Every write read back at once by its client", shareTable(samples, part)];
    case "scale":
      return [
        "## Only reads, and more replicas",
        "All processes share the same few cores, so requests per second cannot grow with the replicas " +
          "here. What shows is who works: the reads of each node, and the master's CPU falling to nearly nothing.",
        costTable(samples, part),
      ];
    case "hot":
      return [`## Half writes, half reads, ${KEYS} keys, hot ones (Zipf)`, shareTable(samples, part)];
  }
}

export function render(
  options: { readonly rounds: number; readonly seconds: number; readonly slices: number },
  samples: readonly Sample[],
  verdicts: readonly Verdict[],
): string {
  const others = samples.map(({ otherCores }) => otherCores);
  const what =
    `Medians of ${options.rounds} rounds, ${options.seconds} s for each load (only reads: ` +
    `${options.slices} turns half as long in every round), 50 clients; one master, two replicas, probes every ` +
    "100 ms. Figures of nodes: master / replica / replica; reads are the nodes' own count of GET, CPU of a " +
    "node is per request of the whole load. Lag: from asking the master for its offset to a replica's answer " +
    "that it has applied that. Stale: the value shown was answered before a newer write was sent that had been " +
    "answered (own: to the same client) before the read was sent; of all rounds together. Latencies count from " +
    "when a request was due. Traffic: cores that the clients' process used. Other processes and the hypervisor " +
    `used ${fixed(median(others))} cores, at most ${fixed(Math.max(...others))}.`;
  const parts = [...new Set(samples.map(({ part }) => part))];
  return [
    what,
    ...parts.flatMap((part) => sectionOf(samples, part)),
    "## Bounds",
    verdictTable(verdicts),
  ].join("\n\n");
}
