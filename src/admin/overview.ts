/** What there is to know about the proxy, for PROXY … and for /api/status: the same facts in two forms. */
import type { StatusView } from "../http/status.ts";
import type { Counters, NodeReading } from "../metrics.ts";
import type { Value } from "../resp/encode.ts";
import type { Epoch } from "../topology/epoch.ts";
import type { NodeStatus, SentinelStatus } from "../topology/status.ts";
import type { FailoverRecord } from "./failovers.ts";

export type CommandArgs = readonly Buffer[];

export interface OverviewSources {
  readonly version: string;
  readonly counters: Counters;
  epoch(): Epoch;
  nodes(): readonly NodeStatus[];
  /** Requests given to each node over shared connections and not answered; a node without any may lack. */
  outstanding(): ReadonlyMap<string, number>;
  /** Whether a node answers clearly later than the other replicas. */
  isSlow(node: string): boolean;
  problems(): readonly string[];
  /** Empty without Sentinel. */
  sentinels(): readonly SentinelStatus[];
  failovers(): readonly FailoverRecord[];
  uptimeSeconds(): number;
  /** What CLIENT PAUSE has stopped; null = nothing. */
  paused(): { readonly level: "write" | "all"; readonly leftMs: number; readonly waiting: number } | null;
  /** This proxy may replace a master that is gone. */
  isPromoter(): boolean;
  /** It was told to end and lets the clients have their replies. */
  isStopping(): boolean;
}

export class Overview {
  private readonly from: OverviewSources;

  constructor(sources: OverviewSources) {
    this.from = sources;
  }

  /** Whether writes can be routed now, and why not. */
  ready(): { readonly ready: boolean; readonly reason: string } {
    const { master, holdCause } = this.from.epoch();
    if (this.from.isStopping()) return { ready: false, reason: "the proxy is stopping" };
    const problems = this.from
      .problems()
      .map((problem) => `; ${problem}`)
      .join("");
    if (master === null) return { ready: false, reason: `no master has been found yet${problems}` };
    if (holdCause !== null) return { ready: false, reason: `writes are held: ${holdCause}${problems}` };
    return { ready: true, reason: `writes go to ${master}${problems}` };
  }

  /** The nodes as the metrics want them: each running node once. */
  readings(): NodeReading[] {
    const outstanding = this.from.outstanding();
    return this.ownNodes().map((node) => ({
      id: node.id,
      role: node.said?.role ?? "unknown",
      reachable: node.reachable,
      fit: node.isMaster ? this.from.epoch().holdCause === null : node.fit === "fit",
      lagMs: node.lagMs,
      lagBytes: node.lagBytes,
      outstanding: outstanding.get(node.id) ?? 0,
      slow: this.from.isSlow(node.id),
    }));
  }

  private ownNodes(): NodeStatus[] {
    return this.from.nodes().filter((node) => node.aliasOf === null);
  }

  view(): StatusView {
    const { counters } = this.from;
    const epoch = this.from.epoch();
    return {
      version: this.from.version,
      uptimeSeconds: this.from.uptimeSeconds(),
      epoch: {
        number: epoch.number,
        master: epoch.master,
        holdCause: epoch.holdCause,
        history: epoch.history,
      },
      nodes: this.readings().map((reading, index) => ({
        ...reading,
        reason: this.reason(this.ownNodes()[index]),
        requests: counters.nodeRequests.get(reading.id) ?? 0,
        reads: counters.nodeReads.get(reading.id) ?? 0,
      })),
      reads: {
        replica: counters.reads.replica,
        masterFreshness: counters.reads.freshness,
        masterNoneFit: counters.reads["none-fit"],
        masterPolicy: counters.reads.policy,
        freshnessShare: counters.freshnessShare,
        hedges: counters.hedges,
        hedgesWon: counters.hedgesWon,
      },
      sentinels: this.from.sentinels().map(({ lastSeenAgoMs, ...sentinel }) => ({
        ...sentinel,
        seenMsAgo: lastSeenAgoMs === null ? null : Math.round(lastSeenAgoMs),
      })),
      clients: { connected: counters.clientsNow, paused: this.paused() },
      hold: {
        now: counters.heldNow,
        bytes: counters.heldBytesNow,
        held: counters.held,
        ...counters.holdEnded,
      },
      counters: {
        reads: counters.requests.read,
        writes: counters.requests.write,
        local: counters.requests.local,
        transactions: counters.requests.transaction,
        refused: counters.requests.refused,
        uncertain: counters.uncertain,
        resentReads: counters.resentReads,
        resentWrites: counters.resentWrites,
        resentUnknown: counters.resentUnknown,
        freshnessReads: counters.freshnessReads,
        proxyErrors: counters.proxyErrors,
      },
      failovers: this.from.failovers().map((record) => ({
        at: new Date(record.atMs).toISOString(),
        epoch: record.epochNumber,
        from: record.from,
        to: record.to,
        reason: record.reason,
        seenBy: record.seenBy,
        holdMs: record.holdMs,
        sessionsHeld: record.sessionsHeld,
        uncertain: record.uncertain,
        lostBytes: record.lostBytes,
        doubtMs: record.doubt.ms,
        doubtClients: record.doubt.clients,
      })),
      problems: this.from.problems(),
    };
  }

  private paused(): StatusView["clients"]["paused"] {
    const paused = this.from.paused();
    if (paused === null) return null;
    const { level, leftMs, waiting } = paused;
    return { what: level, until: timeText(Date.now() + leftMs), waiting };
  }

  private reason(node: NodeStatus | undefined): string {
    if (node === undefined) return "";
    if (node.isMaster) return this.from.epoch().holdCause ?? "master";
    return node.fit;
  }

  // For PROXY …

  status(): Value {
    const view = this.view();
    return mapOf({
      version: view.version,
      uptime_seconds: Math.floor(view.uptimeSeconds),
      epoch: view.epoch.number,
      master: view.epoch.master,
      writable: view.epoch.holdCause === null ? 1 : 0,
      hold_cause: view.epoch.holdCause,
      readable_nodes: this.from.epoch().readable.length,
      clients: view.clients.connected,
      clients_paused: view.clients.paused?.what ?? null,
      clients_paused_until: view.clients.paused?.until ?? null,
      clients_paused_now: view.clients.paused?.waiting ?? 0,
      held_now: view.hold.now,
      held_bytes: view.hold.bytes,
      held: view.hold.held,
      released: view.hold.released,
      expired: view.hold.expired,
      left: view.hold.left,
      failed: view.hold.failed,
      reads: view.counters.reads ?? 0,
      writes: view.counters.writes ?? 0,
      reads_replica: view.reads.replica,
      reads_master_freshness: view.reads.masterFreshness,
      reads_master_none_fit: view.reads.masterNoneFit,
      reads_master_policy: view.reads.masterPolicy,
      freshness_share: view.reads.freshnessShare === null ? null : rounded(view.reads.freshnessShare),
      hedges: view.reads.hedges,
      hedges_won: view.reads.hedgesWon,
      uncertain: view.counters.uncertain ?? 0,
      resent_reads: view.counters.resentReads ?? 0,
      resent_writes: view.counters.resentWrites ?? 0,
      resent_unknown: view.counters.resentUnknown ?? 0,
      switches: this.from.counters.switches,
      promoter: this.from.isPromoter() ? 1 : 0,
      ...this.sentinelFields(),
      problems: view.problems,
    });
  }

  /** How many Sentinels have a say, how many of them name the master of their majority, and which one. */
  private sentinelFields() {
    const sentinels = this.from.sentinels().filter(({ counts }) => counts);
    const agreeing = sentinels.filter(({ state }) => state === "agreeing");
    return {
      sentinels: sentinels.length,
      sentinels_agreeing: agreeing.length,
      sentinel_master: agreeing[0]?.master ?? null,
    };
  }

  /** The section that INFO gets, in INFO's own form (server.c, genRedisInfoString). */
  infoSection(): string {
    const { counters } = this.from;
    const { number, master, holdCause } = this.from.epoch();
    const fields = {
      version: this.from.version,
      uptime_in_seconds: Math.floor(this.from.uptimeSeconds()),
      epoch: number,
      master: master ?? "",
      writable: master !== null && holdCause === null ? 1 : 0,
      connected_clients: counters.clientsNow,
      held_clients: counters.heldNow,
      switches: counters.switches,
      lost_bytes: counters.lostBytes,
      uncertain: counters.uncertain,
    };
    const lines = Object.entries(fields).map(([name, value]) => `proxy_${name}:${value}\r\n`);
    return `# Proxy\r\n${lines.join("")}`;
  }

  nodes(): Value {
    const { counters } = this.from;
    const outstanding = this.from.outstanding();
    return this.ownNodes().map((node) =>
      mapOf({
        node: node.id,
        role: node.said?.role ?? null,
        is_master: node.isMaster ? 1 : 0,
        contact: node.contact,
        fit: node.isMaster ? 0 : node.fit === "fit" ? 1 : 0,
        reason: this.reason(node),
        lag_ms: node.lagMs === null ? null : Math.round(node.lagMs),
        lag_bytes: node.lagBytes,
        link: node.said === null || node.said.role === "master" ? null : node.said.linkUp ? "up" : "down",
        offset: node.said?.appliedOffset ?? null,
        replid: node.said?.replid ?? null,
        run_id: node.said?.runId ?? null,
        server_version: node.said?.version ?? null,
        seen_ms_ago: node.lastSeenAgoMs === null ? null : Math.round(node.lastSeenAgoMs),
        requests: counters.nodeRequests.get(node.id) ?? 0,
        reads: counters.nodeReads.get(node.id) ?? 0,
        outstanding: outstanding.get(node.id) ?? 0,
        slow: this.from.isSlow(node.id) ? 1 : 0,
        problem: node.lastProblem === null || node.reachable ? null : node.lastProblem.detail,
      }),
    );
  }

  epoch(): Value {
    const epoch = this.from.epoch();
    return mapOf({
      number: epoch.number,
      master: epoch.master,
      hold_cause: epoch.holdCause,
      replid: epoch.history?.replid ?? null,
      offset: epoch.history?.offset ?? null,
      readable: epoch.readable.map((node) => node.id),
    });
  }

  /** Newest first. */
  failovers(): Value {
    return this.from
      .failovers()
      .map((record) =>
        mapOf({
          at: new Date(record.atMs).toISOString(),
          epoch: record.epochNumber,
          from: record.from,
          to: record.to,
          reason: record.reason,
          seen_by: record.seenBy,
          detail: record.detail,
          hold_ms: record.holdMs,
          sessions_held: record.sessionsHeld,
          uncertain: record.uncertain,
          lost_bytes: record.lostBytes,
          doubt_ms: record.doubt.ms,
          doubt_clients: record.doubt.clients,
        }),
      )
      .reverse();
  }
}

export function mapOf(fields: Readonly<Record<string, Value>>): ReadonlyMap<string, Value> {
  return new Map(Object.entries(fields));
}

/** A share with as many digits as mean something. */
function rounded(share: number): number {
  return Math.round(share * 10_000) / 10_000;
}

/** A date has an end, a pause need not have one before it. */
const LAST_DATE_MS = 8.64e15;

function timeText(atMs: number): string {
  return new Date(Math.min(atMs, LAST_DATE_MS)).toISOString();
}
