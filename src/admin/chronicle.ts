/** What becomes of the group, for the log, the counters and the records of switches. */
import type { Counters } from "../metrics.ts";
import type { Epoch } from "../topology/epoch.ts";
import type { FailoverRecord, Failovers, SwitchNews } from "./failovers.ts";

type Line = (fields: object, message: string) => void;

export interface ChronicleLog {
  readonly info: Line;
  readonly warn: Line;
}

export class Chronicle {
  private readonly log: ChronicleLog;
  private readonly counters: Counters;
  private readonly failovers: Failovers;

  constructor(log: ChronicleLog, counters: Counters, failovers: Failovers) {
    this.log = log;
    this.counters = counters;
    this.failovers = failovers;
  }

  epoch(before: Epoch, now: Epoch): void {
    const { number: epoch, master, holdCause } = now;
    if (before.holdCause === null && holdCause !== null) this.failovers.mark();
    if (before.holdCause === holdCause || epoch !== before.number || master === null) return;
    if (holdCause === null) this.log.info({ epoch, master }, "writes go on");
    else this.log.warn({ epoch, master, holdCause }, "writes are held");
  }

  /** Another master, or the first one. */
  switched(facts: SwitchNews): void {
    const { from, to: master, epochNumber: epoch, detail } = facts;
    if (from === null) return this.log.info({ master, epoch, detail }, "master found");
    this.counters.switches++;
    this.countLoss(facts);
    this.failovers.add(facts);
  }

  /** A switch turns out to have lost more than was known: so many bytes in all. */
  lost(epoch: number, lostBytes: number): void {
    this.counters.lostBytes += this.failovers.lost(epoch, lostBytes);
    this.log.warn({ epoch, lostBytes }, "the former master took more writes: they are lost");
  }

  /** The same node is the master again, with a new history: recorded where that may have cost something. */
  returned(facts: SwitchNews): void {
    this.countLoss(facts);
    if (facts.lostBytes !== 0 || facts.doubt.clients > 0) this.failovers.add(facts);
    const { to: master, reason, detail, lostBytes, doubt } = facts;
    const cost = { lostBytes, doubtMs: doubt.ms, doubtClients: doubt.clients };
    this.log.warn({ master, reason, detail, ...cost }, "the master is back with a new history");
  }

  problem(
    problem: { readonly kind: string; readonly node: string | null; readonly detail: string },
    change: "raised" | "cleared",
  ): void {
    const { kind, node, detail } = problem;
    if (kind === "claimant-refused" && change === "raised") this.counters.refusedClaims++;
    if (change === "raised") this.log.warn({ kind, node, detail }, "problem");
    else this.log.info({ kind, node }, "problem is over");
  }

  private countLoss({ lostBytes }: SwitchNews): void {
    if (lostBytes === null) this.counters.switchesLossUnknown++;
    else this.counters.lostBytes += lostBytes;
  }
}

/** A finished record as one line of the log. */
export function lineOf(record: FailoverRecord): object {
  const { atMs, epochNumber, from, to, reason, seenBy, detail } = record;
  const { holdMs, sessionsHeld, uncertain, lostBytes, doubt } = record;
  const cost = { holdMs, sessionsHeld, uncertain, lostBytes, doubtMs: doubt.ms, doubtClients: doubt.clients };
  return { at: new Date(atMs).toISOString(), epochNumber, from, to, reason, seenBy, detail, ...cost };
}
