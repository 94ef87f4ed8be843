/**
 * The numbers the proxy keeps about itself.
 *
 * `Counters` is what the running code increments: plain number fields, nothing else on the hot path.
 * `createMetrics` copies them into Prometheus text when somebody scrapes, and only then. Label sets are
 * closed (reasons, classes, kinds) or bounded by the source (nodes), and every closed series starts at 0.
 */

import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";

/** Why a client's connection ended. */
export const CLOSE_REASONS = [
  "client", // it closed, or its connection broke
  "protocol-error",
  "output-limit", // it did not take its replies: limits.outputBufferBytes
  "subscriber-limit", // it did not take its messages: limits.subscriberBufferBytes
  "idle", // limits.idleTimeout
  "request-limit", // limits.maxRequestBytes or limits.maxRequestArgs
  "shutdown",
  "operator", // CLIENT KILL and the like
  "access-revoked", // the server does not let its user read a channel any more
] as const;
export type CloseReason = (typeof CLOSE_REASONS)[number];

/** How a promotion by the proxy ended, and a planned switch. */
export const PROMOTION_RESULTS = ["done", "failed"] as const;
export const SWITCHOVER_RESULTS = ["done", "refused", "rolled_back", "open"] as const;

/** What kind of request a client sent. */
export const REQUEST_CLASSES = [
  "read",
  "write",
  "local", // answered by the proxy itself
  "transaction", // MULTI … EXEC as one unit
  "admin", // PROXY …
  "refused", // answered with an error of the proxy, not run
] as const;
export type RequestClass = (typeof REQUEST_CLASSES)[number];

/**
 * Where a read went that a replica may serve: to one; or to the master, because no replica was proven fresh
 * enough for the session, because none was fit, or because only the master was meant to be asked.
 */
export const READ_WAYS = ["replica", "freshness", "none-fit", "policy"] as const;
export type ReadWay = (typeof READ_WAYS)[number];

/** How a hold ended. */
export const HOLD_OUTCOMES = ["released", "expired", "left", "failed"] as const;
export type HoldOutcome = (typeof HOLD_OUTCOMES)[number];

export const UPSTREAM_KINDS = ["lane", "private"] as const;
export type UpstreamKind = (typeof UPSTREAM_KINDS)[number];

/** What open upstream connections are for; idle = private ones kept for the next session that needs one. */
export const UPSTREAM_USES = ["lane", "private", "idle"] as const;
export type UpstreamUse = (typeof UPSTREAM_USES)[number];

/**
 * All counters of one process. Fields only grow (since the start) unless they end in `Now`. Increment them in
 * place: `counters.requests.read++`, `counters.closed["output-limit"]++`.
 */
export class Counters {
  /** Clients connected at this moment. */
  clientsNow = 0;
  /**
   * Clients not read from at this moment: they do not take replies, a node is slow, or they are held or
   * stopped by CLIENT PAUSE and sent more than they may have waiting.
   */
  clientsPausedNow = 0;
  /** Connections accepted, those refused by `limits.maxClients` not included. */
  accepted = 0;
  /** Connections refused because `limits.maxClients` was reached. */
  refused = 0;
  readonly closed: Record<CloseReason, number> = zeros(CLOSE_REASONS);
  /** AUTH and HELLO … AUTH with credentials that were refused. */
  authFailures = 0;

  readonly requests: Record<RequestClass, number> = zeros(REQUEST_CLASSES);
  /** Bytes received from clients. */
  bytesIn = 0;
  /** Bytes written to clients. */
  bytesOut = 0;
  /** Errors of the proxy itself (`-ERR proxy: …`, `-MASTERDOWN …`, `-UNCERTAIN …`) sent to clients. */
  proxyErrors = 0;

  /** Requests written to each node. Count a whole flush at once with `addNodeRequests`. */
  readonly nodeRequests = new Map<string, number>();
  /** The same, of reads that a replica may serve. */
  readonly nodeReads = new Map<string, number>();
  /** All of those, by the way they went. */
  readonly reads: Record<ReadWay, number> = zeros(READ_WAYS);
  /** Reads sent to the master because no replica was provably fresh enough for the session. */
  freshnessReads = 0;
  /** Reads sent to a second node because the first one took its time; those that answered first. */
  hedges = 0;
  hedgesWon = 0;

  /** Sessions that began to be held; = released + expired + left + failed + held now. */
  held = 0;
  /** How holds ended: a master came, `hold.maxTime` ran out, the client left, anything else. */
  readonly holdEnded: Record<HoldOutcome, number> = zeros(HOLD_OUTCOMES);
  heldNow = 0;
  /** Bytes the held sessions have waiting at this moment. */
  heldBytesNow = 0;
  /** Requests refused because `hold.maxBytes` was reached. */
  holdFull = 0;

  /** Requests answered UNCERTAIN. */
  uncertain = 0;
  /** Reads sent again because their connection was lost. */
  resentReads = 0;
  /** Calls that were waiting when their connection was lost, and were issued again. */
  blockingReissued = 0;
  /** Writes sent again because they provably did not run. */
  resentWrites = 0;
  /** Writes sent again although they may have run (`inFlight.onUnknown`). */
  resentUnknown = 0;

  /** Times all subscriptions of a user were moved to another connection. */
  subscriptionMoves = 0;
  /** Time in which messages may have been missed because of these moves, ms. */
  subscriptionGapMs = 0;

  readonly upstreamOpened: Record<UpstreamKind, number> = zeros(UPSTREAM_KINDS);
  /** Upstream connections that ended without our doing. */
  readonly upstreamLost: Record<UpstreamKind, number> = zeros(UPSTREAM_KINDS);
  readonly upstreamNow: Record<UpstreamUse, number> = zeros(UPSTREAM_USES);

  /** Times the master became another one. */
  switches = 0;
  /** Acknowledged replication bytes that switches lost, as far as known. */
  lostBytes = 0;
  /** Switches of which it is not known how much they lost. */
  switchesLossUnknown = 0;
  /** Nodes that claimed to be master and were not believed (each claim once). */
  refusedClaims = 0;

  /** Attempts to replace a master that was gone (`failover.promote: self`). */
  readonly promotions: Record<(typeof PROMOTION_RESULTS)[number], number> = zeros(PROMOTION_RESULTS);
  /** Planned switches that were asked for. */
  readonly switchovers: Record<(typeof SWITCHOVER_RESULTS)[number], number> = zeros(SWITCHOVER_RESULTS);
  /** How long writes stood still in those that were done: all together, and the longest. */
  switchoverStallSeconds = 0;
  switchoverStallSecondsMax = 0;
  /** Nodes that were told to follow the master, and do. */
  repointed = 0;

  /** Adds requests written to a node. @param reads how many of them a replica may serve. */
  addNodeRequests(node: string, requests: number, reads = 0): void {
    this.nodeRequests.set(node, (this.nodeRequests.get(node) ?? 0) + requests);
    if (reads > 0) this.nodeReads.set(node, (this.nodeReads.get(node) ?? 0) + reads);
  }

  /** Counts a read that goes to the master. */
  addMasterRead(why: Exclude<ReadWay, "replica">): void {
    this.reads[why]++;
    if (why === "freshness") this.freshnessReads++;
  }

  /** The share of all reads that the freshness rule has sent to the master, 0 to 1; null = no reads yet. */
  get freshnessShare(): number | null {
    const { reads } = this;
    const all = reads.replica + reads.freshness + reads["none-fit"] + reads.policy;
    return all === 0 ? null : reads.freshness / all;
  }

  /** Drops what was counted for a node that left the group, so that the map stays as small as the group. */
  forgetNode(node: string): void {
    this.nodeRequests.delete(node);
    this.nodeReads.delete(node);
  }
}

/** What the metrics say about one node. */
export interface NodeReading {
  /** "host:port". */
  readonly id: string;
  readonly role: NodeRole;
  /** It answers probes. */
  readonly reachable: boolean;
  /** It may be read (a replica) or written (the master). */
  readonly fit: boolean;
  /** How far behind the master it is; null when not known. */
  readonly lagMs: number | null;
  readonly lagBytes: number | null;
  /** Requests that it was given over shared connections and has not answered. */
  readonly outstanding: number;
  /** It answers clearly later than the other replicas. */
  readonly slow: boolean;
}

/** A Sentinel's state; "agreeing" = it names the master that the majority of them names. */
export const SENTINEL_STATES = [
  "agreeing",
  "disagreeing",
  "tilt",
  "unknown-master",
  "no-access",
  "unreachable",
] as const;
export type SentinelState = (typeof SENTINEL_STATES)[number];

export const NODE_ROLES = ["master", "replica", "unknown"] as const;
export type NodeRole = (typeof NODE_ROLES)[number];

/** Where the scrape gets what is not counted but known by the topology. */
export interface MetricSources {
  /** `writable`: there is a verified master and nothing speaks against it. */
  epoch(): { readonly number: number; readonly writable: boolean };
  /** This proxy may replace a master that is gone. */
  isPromoter(): boolean;
  /** The nodes of the group; only these appear with a `node` label. */
  nodes(): readonly NodeReading[];
  /** The Sentinels that have a say; empty when none are configured. */
  sentinels(): readonly { readonly state: SentinelState }[];
}

export interface Metrics {
  /** The Prometheus text of this moment. */
  text(): Promise<string>;
  readonly contentType: string;
}

/** One metric as documented. */
export interface MetricDoc {
  readonly name: string;
  readonly type: "counter" | "gauge";
  readonly labels: readonly string[];
  readonly help: string;
}

/** Everything the scrape reads. */
interface Readings {
  readonly counters: Counters;
  readonly sources: MetricSources;
}

/** One sample: the label values in the order of the metric's labels, and the number. */
type Sample = readonly [labels: readonly string[], value: number];

interface MetricRow extends MetricDoc {
  /** The samples of this moment; called at each scrape. */
  readonly read: (from: Readings) => readonly Sample[];
}

const PREFIX = "holdfast_";

/** A metric without labels. */
function single(
  name: string,
  help: string,
  read: (counters: Counters, sources: MetricSources) => number,
): MetricRow {
  return rowOf(name, [], help, ({ counters, sources }) => [[[], read(counters, sources)]]);
}

/** A metric with one label whose values are a closed set: one series per value, zero included. */
function byLabel(
  name: string,
  label: string,
  help: string,
  read: (counters: Counters) => Readonly<Record<string, number>>,
): MetricRow {
  return rowOf(name, [label], help, ({ counters }) =>
    Object.entries(read(counters)).map(([value, number]) => [[value], number]),
  );
}

/** A metric with one series per node; a node whose value is not known (null) has none. */
function byNode(
  name: string,
  help: string,
  read: (node: NodeReading, counters: Counters) => number | null,
): MetricRow {
  return rowOf(name, ["node"], help, ({ counters, sources }) =>
    sources.nodes().flatMap((node) => {
      const value = read(node, counters);
      return value === null ? [] : [[[node.id], value] as const];
    }),
  );
}

function rowOf(name: string, labels: readonly string[], help: string, read: MetricRow["read"]): MetricRow {
  // Only what grows is a total.
  return { name: PREFIX + name, type: name.endsWith("_total") ? "counter" : "gauge", labels, help, read };
}

const CLIENT_ROWS: readonly MetricRow[] = [
  single("clients", "Clients connected now.", (counters) => counters.clientsNow),
  single(
    "clients_paused",
    "Clients not read from now: they do not take replies, a node is slow, or they are held or paused and sent much.",
    (counters) => counters.clientsPausedNow,
  ),
  single("clients_accepted_total", "Client connections accepted.", (counters) => counters.accepted),
  single(
    "clients_refused_total",
    "Client connections refused because limits.maxClients was reached.",
    (counters) => counters.refused,
  ),
  byLabel(
    "clients_closed_total",
    "reason",
    `Client connections ended, by reason: ${CLOSE_REASONS.join(", ")}.`,
    (counters) => counters.closed,
  ),
  single("auth_failures_total", "Logins of clients that were refused.", (counters) => counters.authFailures),
  byLabel(
    "requests_total",
    "class",
    `Requests of clients, by class: ${REQUEST_CLASSES.join(", ")}.`,
    (counters) => counters.requests,
  ),
  single("client_received_bytes_total", "Bytes received from clients.", (counters) => counters.bytesIn),
  single("client_sent_bytes_total", "Bytes written to clients.", (counters) => counters.bytesOut),
  single(
    "proxy_errors_total",
    "Errors of the proxy itself sent to clients.",
    (counters) => counters.proxyErrors,
  ),
];

const HOLD_ROWS: readonly MetricRow[] = [
  single("held", "Sessions held now.", (counters) => counters.heldNow),
  single("held_bytes", "Bytes held sessions have waiting now.", (counters) => counters.heldBytesNow),
  single("holds_total", "Sessions that began to be held.", (counters) => counters.held),
  byLabel(
    "holds_ended_total",
    "outcome",
    "Holds ended: released (a master came), expired (hold.maxTime), left (the client), failed (any other).",
    (counters) => counters.holdEnded,
  ),
  single(
    "hold_full_total",
    "Requests refused because hold.maxBytes was reached.",
    (counters) => counters.holdFull,
  ),
  single(
    "uncertain_total",
    "Requests answered UNCERTAIN: they may or may not have run.",
    (counters) => counters.uncertain,
  ),
  byLabel(
    "resent_total",
    "class",
    "Requests sent again after their connection was lost: reads, and writes that provably did not run.",
    (counters) => ({ read: counters.resentReads, write: counters.resentWrites }),
  ),
  single(
    "resent_unknown_total",
    "Writes sent again although they may have run, as inFlight.onUnknown says.",
    (counters) => counters.resentUnknown,
  ),
  single(
    "blocking_reissued_total",
    "Calls that were waiting when their connection was lost, and were issued again.",
    (counters) => counters.blockingReissued,
  ),
];

const SUBSCRIPTION_ROWS: readonly MetricRow[] = [
  single(
    "subscription_moves_total",
    "Times the subscriptions of a user's clients were moved to another upstream connection.",
    (counters) => counters.subscriptionMoves,
  ),
  single(
    "subscription_gap_ms_total",
    "Milliseconds in which messages may have been missed because of these moves.",
    (counters) => counters.subscriptionGapMs,
  ),
];

const UPSTREAM_ROWS: readonly MetricRow[] = [
  byLabel(
    "upstream_connections",
    "kind",
    "Upstream connections open now: lane (shared), private, or idle (private ones kept for the next client).",
    (counters) => counters.upstreamNow,
  ),
  byLabel(
    "upstream_opened_total",
    "kind",
    "Upstream connections opened.",
    (counters) => counters.upstreamOpened,
  ),
  byLabel(
    "upstream_lost_total",
    "kind",
    "Upstream connections that ended without the proxy closing them.",
    (counters) => counters.upstreamLost,
  ),
  byNode(
    "node_requests_total",
    "Requests written to the node.",
    (node, counters) => counters.nodeRequests.get(node.id) ?? 0,
  ),
  byNode(
    "node_reads_total",
    "Reads written to the node that a replica may serve.",
    (node, counters) => counters.nodeReads.get(node.id) ?? 0,
  ),
  byNode(
    "node_outstanding",
    "Requests given to the node over shared connections and not answered now.",
    (node) => node.outstanding,
  ),
  byNode("node_slow", "1 when the node answers clearly later than the other replicas, else 0.", (node) =>
    flag(node.slow),
  ),
  rowOf(
    "reads_total",
    ["served_by", "reason"],
    "Reads that a replica may serve, by who got them: replica (fit); master (freshness, none-fit, policy).",
    ({ counters }) =>
      READ_WAYS.map((way): Sample => {
        const labels = way === "replica" ? ["replica", "fit"] : ["master", way];
        return [labels, counters.reads[way]];
      }),
  ),
  single(
    "hedges_total",
    "Reads sent to a second node because the first one took its time.",
    (counters) => counters.hedges,
  ),
  single(
    "hedges_won_total",
    "Of these, answered first by the second node.",
    (counters) => counters.hedgesWon,
  ),
  single(
    "freshness_reads_total",
    "Reads sent to the master because no replica was provably fresh enough for the session.",
    (counters) => counters.freshnessReads,
  ),
];

const TOPOLOGY_ROWS: readonly MetricRow[] = [
  single(
    "epoch",
    "Number of the current epoch; 0 until the first master was found.",
    (_, sources) => sources.epoch().number,
  ),
  single("writable", "1 when there is a verified master that takes writes, else 0.", (_, sources) =>
    flag(sources.epoch().writable),
  ),
  single("switches_total", "Times the master became another one.", (counters) => counters.switches),
  single(
    "lost_bytes_total",
    "Replication bytes lost in switches, as far as known.",
    (counters) => counters.lostBytes,
  ),
  single(
    "switches_loss_unknown_total",
    "Switches of which it is not known how much they lost.",
    (counters) => counters.switchesLossUnknown,
  ),
  single(
    "refused_claims_total",
    "Nodes that claimed to be master and were not believed.",
    (counters) => counters.refusedClaims,
  ),
  byNode("node_up", "1 when the node answers probes, else 0.", (node) => flag(node.reachable)),
  byNode("node_fit", "1 when the node may serve requests, else 0.", (node) => flag(node.fit)),
  byNode("node_lag_ms", "Milliseconds the node is behind the master, if known.", (node) => node.lagMs),
  byNode("node_lag_bytes", "Bytes the node is behind the master, if known.", (node) => node.lagBytes),
  rowOf(
    "node_role",
    ["node", "role"],
    `1 for the role the node says it has (${NODE_ROLES.join(", ")}), 0 for the others.`,
    ({ sources }) =>
      sources
        .nodes()
        .flatMap((node) => NODE_ROLES.map((role): Sample => [[node.id, role], flag(node.role === role)])),
  ),
  rowOf(
    "sentinels",
    ["state"],
    `Sentinels that have a say, by state: ${SENTINEL_STATES.join(", ")}.`,
    ({ sources }) => {
      const states = sources.sentinels().map(({ state }) => state);
      return SENTINEL_STATES.map(
        (state): Sample => [[state], states.filter((other) => other === state).length],
      );
    },
  ),
];

const FAILOVER_ROWS: readonly MetricRow[] = [
  byLabel(
    "promotions_total",
    "result",
    "Replicas this proxy told to replace a master that was gone (failover.promote: self): done, failed.",
    (counters) => counters.promotions,
  ),
  byLabel(
    "switchovers_total",
    "result",
    "Planned switches asked for: done, refused (nothing was begun), rolled_back, open (its end was not seen in time).",
    (counters) => counters.switchovers,
  ),
  single(
    "switchover_stall_seconds_total",
    "Seconds for which writes stood still in planned switches that were done.",
    (counters) => counters.switchoverStallSeconds,
  ),
  single(
    "switchover_stall_seconds_max",
    "The longest of these stalls since the start.",
    (counters) => counters.switchoverStallSecondsMax,
  ),
  single(
    "repointed_total",
    "Nodes that were told to follow the master, and do.",
    (counters) => counters.repointed,
  ),
  single("promoter", "1 when this proxy may replace a master that is gone, else 0.", (_, sources) =>
    flag(sources.isPromoter()),
  ),
];

const ROWS: readonly MetricRow[] = [
  ...CLIENT_ROWS,
  ...HOLD_ROWS,
  ...SUBSCRIPTION_ROWS,
  ...UPSTREAM_ROWS,
  ...TOPOLOGY_ROWS,
  ...FAILOVER_ROWS,
];

/**
 * Publishes the counters and the sources, and the usual metrics of a Node process (`holdfast_process_…`,
 * `holdfast_nodejs_…`), in a registry of their own. Create it once per process: the process metrics keep an
 * observer of the garbage collector alive.
 */
export function createMetrics(counters: Counters, sources: MetricSources): Metrics {
  const registry = new Registry();
  const from: Readings = { counters, sources };
  for (const row of ROWS) publish(row, from, registry);
  collectDefaultMetrics({ register: registry, prefix: PREFIX });
  return { text: () => registry.metrics(), contentType: registry.contentType };
}

/** Every metric of the proxy itself, for the documentation. */
export function metricsList(): readonly MetricDoc[] {
  return ROWS.map(({ name, type, labels, help }) => ({ name, type, labels, help }));
}

function publish(row: MetricRow, from: Readings, registry: Registry): void {
  const about = { name: row.name, help: row.help, labelNames: [...row.labels], registers: [registry] };
  switch (row.type) {
    case "counter": {
      const collect = function (this: Counter): void {
        this.reset();
        for (const [labels, value] of row.read(from)) this.labels(...labels).inc(value);
      };
      new Counter({ ...about, collect });
      return;
    }
    case "gauge": {
      const collect = function (this: Gauge): void {
        this.reset();
        for (const [labels, value] of row.read(from)) this.labels(...labels).set(value);
      };
      new Gauge({ ...about, collect });
      return;
    }
  }
}

function flag(value: boolean): number {
  return value ? 1 : 0;
}

function zeros<T extends string>(keys: readonly T[]): Record<T, number> {
  return Object.fromEntries(keys.map((key) => [key, 0])) as Record<T, number>;
}
