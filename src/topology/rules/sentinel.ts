/**
 * PURE. From what each Sentinel says to one word: the address that a majority of all known Sentinels names as
 * master, and what is wrong with them. What the word may decide is in first-master.ts and succession.ts.
 */

import type { NodeId } from "../epoch.ts";
import type { MetThere } from "./aliases.ts";
import type { Problem } from "./model.ts";

/** How the last question to a Sentinel ended. */
export type SentinelContact =
  | "never" // none has ended yet
  | "answering"
  | "unreachable" // no connection, or no answer in time
  | "no-access" // wrong user, password or certificate, or no right to ask
  | "nonsense"; // an answer that makes no sense

/** What a Sentinel said last. */
export interface SentinelSays {
  /** Monotonic ms at which it was asked. */
  readonly atMs: number;
  /** Null: it does not know the name of the group. */
  readonly master: NodeId | null;
  /** The running instance that it has met there; null = not known. */
  readonly masterRunId: string | null;
  readonly configEpoch: number | null;
  /** It does not trust its own clock and decides nothing. */
  readonly tilt: boolean;
  /** Why no failover could be agreed on, in its own words; null = it could, or it was not asked. */
  readonly noQuorum: string | null;
  /** A command that it refused; null = none. */
  readonly refused: string | null;
}

/** What is known of one Sentinel. */
export interface SentinelView {
  readonly id: NodeId;
  /** As opposed to discovered. */
  readonly configured: boolean;
  /** Its identity, also over restarts; null while it is not known. */
  readonly runId: string | null;
  readonly contact: SentinelContact;
  readonly detail: string;
  /** Null before the first answer. */
  readonly says: SentinelSays | null;
  /** Run ids of the others it knows. */
  readonly others: ReadonlySet<string>;
}

/** The Sentinels' common word, as the epoch rules take it. */
export interface SentinelWord {
  /** The master by the word of a majority of all known Sentinels. */
  readonly agreed: NodeId | null;
  /** The newest configuration epoch among that majority. */
  readonly configEpoch: number | null;
  /** Sentinels whose word counts, to what each names. */
  readonly named: ReadonlyMap<NodeId, NodeId>;
  /** Addresses that they name, to the running instance met there, as far as they are at one. */
  readonly runIds: MetThere;
  /** Sentinels that have a say: the configured ones, and those that most of these know. */
  readonly known: number;
  /** How many of them name `agreed`. */
  readonly agreeing: number;
  /** Each configured one has answered or failed; true when there is none. */
  readonly settled: boolean;
  readonly problems: readonly Problem[];
}

/** Without Sentinel. */
export const NO_SENTINELS: SentinelWord = {
  agreed: null,
  configEpoch: null,
  named: new Map(),
  runIds: new Map(),
  known: 0,
  agreeing: 0,
  settled: true,
  problems: [],
};

/** An older answer does not count, ms. Each Sentinel is asked about once a second. */
export const FRESH_MS = 3_000;

export function combine(name: string, all: readonly SentinelView[], nowMs: number): SentinelWord {
  const voters = votersOf(all);
  const named = new Map<NodeId, NodeId>();
  for (const voter of voters) {
    const master = isHeard(voter, nowMs) ? (voter.says?.master ?? null) : null;
    if (master !== null) named.set(voter.id, master);
  }
  const majority = Math.floor(voters.length / 2) + 1;
  const agreed = [...new Set(named.values())].find((node) => supporters(named, node).length >= majority);
  const agreeing = agreed === undefined ? [] : supporters(named, agreed);
  const epochs = voters
    .filter(({ id }) => agreeing.includes(id))
    .map(({ says }) => says?.configEpoch ?? null)
    .filter((epoch) => epoch !== null);
  return {
    agreed: agreed ?? null,
    configEpoch: epochs.length === 0 ? null : Math.max(...epochs),
    named,
    runIds: runIdsOf(voters.filter((voter) => isHeard(voter, nowMs))),
    known: voters.length,
    agreeing: agreeing.length,
    settled: all.every(({ configured, contact }) => !configured || contact !== "never"),
    problems: [
      ...all.filter((view) => !isSpare(view, voters)).flatMap((view) => problemsOf(name, view)),
      ...quorumProblems(voters, majority, nowMs),
    ],
  };
}

/** A second address, found out by itself, of one that answers at another: nobody needs it. */
function isSpare({ id, configured, runId }: SentinelView, voters: readonly SentinelView[]): boolean {
  return (
    !configured &&
    voters.some((voter) => voter.id !== id && voter.runId === runId && voter.contact === "answering")
  );
}

/**
 * Who has a say. One running Sentinel has one say, whatever its addresses. One that was only discovered has
 * one when more than half of the configured ones that ever answered know it: a single Sentinel cannot bring
 * a majority of its own along.
 */
export function votersOf(all: readonly SentinelView[]): SentinelView[] {
  const witnesses = all.filter(({ configured, says }) => configured && says !== null);
  const hasSay = ({ configured, runId }: SentinelView): boolean =>
    configured ||
    (runId !== null && witnesses.filter(({ others }) => others.has(runId)).length * 2 > witnesses.length);
  const voters = new Map<string, SentinelView>();
  for (const view of all.filter(hasSay)) {
    const key = view.runId ?? view.id;
    const before = voters.get(key);
    if (before === undefined || (before.contact !== "answering" && view.contact === "answering")) {
      voters.set(key, view);
    }
  }
  return [...voters.values()];
}

/** Its word counts: it answers, lately, and trusts itself. */
export function isHeard({ contact, says }: SentinelView, nowMs: number): boolean {
  return contact === "answering" && says !== null && !says.tilt && nowMs - says.atMs <= FRESH_MS;
}

function runIdsOf(heard: readonly SentinelView[]): ReadonlyMap<NodeId, string> {
  const met = new Map<NodeId, Set<string>>();
  for (const { says } of heard) {
    if (says?.master == null || says.masterRunId === null) continue;
    met.set(says.master, (met.get(says.master) ?? new Set()).add(says.masterRunId));
  }
  return new Map([...met].flatMap(([node, [runId, other]]) => (runId && !other ? [[node, runId]] : [])));
}

function supporters(named: ReadonlyMap<NodeId, NodeId>, node: NodeId): NodeId[] {
  return [...named].filter(([, master]) => master === node).map(([sentinel]) => sentinel);
}

function problemsOf(name: string, { id, contact, detail, says }: SentinelView): Problem[] {
  switch (contact) {
    case "never":
      return [];
    case "unreachable":
    case "nonsense":
      return [{ kind: "sentinel-unreachable", node: id, detail: `${contact}: ${detail}` }];
    case "no-access":
      return [{ kind: "sentinel-no-access", node: id, detail }];
    case "answering":
      break;
  }
  const problems: Problem[] = [];
  if (says?.master === null) {
    const words = `it does not know a master named "${name}" (sentinel.name)`;
    problems.push({ kind: "sentinel-unknown-master", node: id, detail: words });
  }
  if (says !== null && says.refused !== null) {
    problems.push({ kind: "sentinel-no-access", node: id, detail: says.refused });
  }
  return problems;
}

/** Nobody could promote now: by their own word, or because most of them are away. */
function quorumProblems(voters: readonly SentinelView[], majority: number, nowMs: number): Problem[] {
  if (voters.length === 0 || voters.some(({ contact }) => contact === "never")) return [];
  const answering = voters.filter(({ contact }) => contact === "answering");
  if (answering.length < majority) {
    const detail = `${answering.length} of ${voters.length} known Sentinels answer, a majority is ${majority}`;
    return [{ kind: "sentinel-no-quorum", node: null, detail }];
  }
  const complaint = answering.find((voter) => isHeard(voter, nowMs) && voter.says?.noQuorum != null);
  if (complaint === undefined) return [];
  const detail = `${complaint.id} says ${complaint.says?.noQuorum}`;
  return [{ kind: "sentinel-no-quorum", node: null, detail }];
}

/** A Sentinel's state in one word, for people and metrics. */
export type SentinelState =
  | "agreeing" // names what the majority names
  | "disagreeing" // names another one, or there is no majority
  | "tilt"
  | "unknown-master"
  | "no-access"
  | "unreachable"; // or not asked yet, or talking nonsense

export function stateOf({ contact, says }: SentinelView, word: SentinelWord): SentinelState {
  if (contact === "no-access") return "no-access";
  if (contact !== "answering" || says === null) return "unreachable";
  if (says.tilt) return "tilt";
  if (says.master === null) return "unknown-master";
  return says.master === word.agreed ? "agreeing" : "disagreeing";
}
