/** Short words for the tables: ids, reports and views of made-up nodes. */
import type { NodeId } from "../../../src/topology/epoch.ts";
import type { NodeReport } from "../../../src/topology/report.ts";
import { type Belief, type Contact, FIRST_BELIEF, type NodeView } from "../../../src/topology/rules/model.ts";
import { NO_SENTINELS, type SentinelWord } from "../../../src/topology/rules/sentinel.ts";
import { type Decision, decide } from "../../../src/topology/rules.ts";

export const MAX_LAG_MS = 1_000;

/** The address of a node named by one letter. */
export function at(name: string): NodeId {
  return `${name}:6379` as NodeId;
}

/** A replication id or run id that is recognised in failures. */
export function hex(name: string): string {
  return Buffer.from(name).toString("hex").padEnd(40, "0").slice(0, 40);
}

export type Word = Partial<Omit<NodeReport, "replid" | "replid2" | "runId" | "node">> & {
  readonly replid?: string;
  readonly replid2?: string | null;
  readonly run?: string;
};

/** What a node says; `replid` and `run` are names. By default it is a master with history H1. */
export function report(name: string, sentAtMs: number, word: Word = {}): NodeReport {
  const { replid = "H1", replid2 = null, run = name, ...rest } = word;
  const offset = word.appliedOffset ?? word.masterReplOffset ?? 100;
  return {
    node: at(name),
    sentAtMs,
    receivedAtMs: sentAtMs + 1,
    runId: hex(run),
    version: "7.0.15",
    loading: false,
    keys: 5,
    role: "master",
    replid: hex(replid),
    replid2: replid2 === null ? null : hex(replid2),
    secondReplOffset: replid2 === null ? null : 101,
    masterReplOffset: offset,
    appliedOffset: offset,
    aof: false,
    receivedOffset: offset,
    heardSecondsAgo: null,
    masterAddress: null,
    linkUp: false,
    linkDownForMs: null,
    syncInProgress: false,
    readOnly: true,
    priority: 100,
    failoverState: "no-failover",
    shutdownInMs: null,
    replicas: [],
    ...rest,
  };
}

export function replicaReport(name: string, sentAtMs: number, word: Word & { of?: string } = {}): NodeReport {
  const { of = "a", ...rest } = word;
  return report(name, sentAtMs, {
    role: "replica",
    linkUp: true,
    masterAddress: { host: of, port: 6379 },
    ...rest,
  });
}

export function view(said: NodeReport, contact: Contact = "answering"): NodeView {
  return { id: said.node, seed: true, contact, detail: "", report: said };
}

export function unanswered(name: string, contact: Contact): NodeView {
  return { id: at(name), seed: true, contact, detail: "", report: null };
}

/** Views of masters and replicas that said something at one moment. */
export class Story {
  belief: Belief = FIRST_BELIEF;
  views: readonly NodeView[] = [];
  nowMs = 0;
  /** 0 = no bound. */
  maxLagBytes = 0;
  last: Decision | null = null;
  /** What the Sentinels say from now on. */
  sentinels: SentinelWord = NO_SENTINELS;

  /** One round: these nodes are seen anew, 100 ms after the round before; the others stay as they were. */
  round(...seen: ((nowMs: number) => NodeView)[]): Decision {
    this.nowMs += 100;
    const fresh = seen.map((look) => look(this.nowMs));
    this.views = [
      ...this.views.map((old) => fresh.find(({ id }) => id === old.id) ?? old),
      ...fresh.filter(({ id }) => !this.views.some((old) => old.id === id)),
    ];
    const { nowMs, maxLagBytes, sentinels } = this;
    const moment = { nowMs: nowMs + 2, maxLagMs: MAX_LAG_MS, maxLagBytes, sentinels };
    this.last = decide(this.belief, this.views, moment);
    this.belief = this.last.belief;
    return this.last;
  }

  /** A node that fails to answer keeps its last report. */
  failing(name: string, contact: Contact): (nowMs: number) => NodeView {
    return () => ({
      ...(this.views.find(({ id }) => id === at(name)) ?? unanswered(name, contact)),
      contact,
    });
  }

  get epoch() {
    return this.belief.epoch;
  }

  get readers(): string[] {
    return this.epoch.readable.map(({ id }) => id.split(":")[0]!);
  }

  get problems(): string[] {
    return (this.last?.problems ?? []).map(({ kind, node }) => (node === null ? kind : `${kind} ${node[0]}`));
  }
}

/** All of three Sentinels (s, t, u) name this node. */
export function naming(name: string): SentinelWord {
  const named = new Map([at("s"), at("t"), at("u")].map((sentinel) => [sentinel, at(name)]));
  return { ...NO_SENTINELS, agreed: at(name), configEpoch: 2, named, known: 3, agreeing: 3 };
}

export function master(name: string, word: Word = {}): (nowMs: number) => NodeView {
  return (nowMs) => view(report(name, nowMs, word));
}

export function replica(name: string, word: Word & { of?: string } = {}): (nowMs: number) => NodeView {
  return (nowMs) => view(replicaReport(name, nowMs, word));
}

/** A group a (master, offset 100), b and c (replicas), seen twice. */
export function wellGroup(): Story {
  const story = new Story();
  story.round(master("a"), replica("b"), replica("c"));
  story.round(master("a"), replica("b"), replica("c"));
  return story;
}
