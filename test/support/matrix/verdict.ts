/** PURE. What clients and the proxy say after a fault, and whether it is what this fault may do to them. */

/** What a fault may do. */
export interface Allowance {
  /** How many times connections to a master are lost with requests on them; 0 = no error is allowed. */
  readonly cuts: number;
  /** Clients that come for one write only and may be on their way at a cut. */
  readonly visitors: number;
  /** First words of errors that are allowed besides UNCERTAIN. */
  readonly errors: readonly string[];
  /** Acknowledged writes may be lost, and if so, it is reported. */
  readonly mayLose: boolean;
  /** So many of them without a word: answered in the very turn in which the master was killed. */
  readonly unseen: number;
  /** Switches from one master to another. */
  readonly switches: number;
  /** Longest time without any answer to a write, in ms; null = it is up to others. */
  readonly writeGapMs: number | null;
  /** Longest time without any answer to a read, in ms; null = no node is there to be read. */
  readonly readGapMs: number | null;
}

export interface Outcome {
  readonly disconnects: readonly string[];
  /** First word of each error and how often it came. */
  readonly errors: ReadonlyMap<string, number>;
  /** Clients that may have a write on its way at one moment; each has one at most. */
  readonly writers: number;
  /** UNCERTAIN that clients got who came for one write only. */
  readonly visitorsUncertain: number;
  readonly acked: number;
  /** Acknowledged writes that are missing. */
  readonly lost: number;
  /** Writes that ran and that nobody can explain. */
  readonly unexplained: number;
  readonly details: readonly string[];
  /** Replies that do not fit their request. */
  readonly mismatches: readonly string[];
  /** What clients that hold state complain of. */
  readonly faults: readonly string[];
  /** What the proxy says was lost; null = it says that it does not know. */
  readonly lostBytes: number | null;
  readonly switches: number;
  readonly writeGapMs: number;
  readonly readGapMs: number;
}

/** An own write that is missing from a read: no fault where the write itself was lost. */
const OWN = "behind its own";

/** @returns what is wrong, in words; empty when all is as it may be. */
export function judge(outcome: Outcome, allowed: Allowance): string[] {
  const wrong: string[] = [];
  const complain = (is: boolean, text: string) => {
    if (is) wrong.push(text);
  };
  complain(outcome.acked === 0, "no write was acknowledged: nothing was tested");
  complain(outcome.disconnects.length > 0, `disconnected: ${outcome.disconnects.join("; ")}`);
  wrong.push(...strangeErrors(outcome, allowed));
  complain(outcome.unexplained > 0, `${outcome.unexplained} writes ran twice: ${outcome.details.join("; ")}`);
  wrong.push(...wrongLoss(outcome, allowed));
  const mismatches = outcome.lost > 0 ? outcome.mismatches.filter(isNotOwn) : outcome.mismatches;
  complain(mismatches.length > 0, `wrong replies: ${mismatches.join("; ")}`);
  wrong.push(...outcome.faults);
  complain(
    outcome.switches !== allowed.switches,
    `${outcome.switches} switches instead of ${allowed.switches}`,
  );
  complain(
    isOver(outcome.writeGapMs, allowed.writeGapMs),
    gapText("write", outcome.writeGapMs, allowed.writeGapMs),
  );
  complain(
    isOver(outcome.readGapMs, allowed.readGapMs),
    gapText("read", outcome.readGapMs, allowed.readGapMs),
  );
  return wrong;
}

function strangeErrors(outcome: Outcome, allowed: Allowance): string[] {
  const { errors, writers, visitorsUncertain } = outcome;
  const wrong: string[] = [];
  const mostVisitors = allowed.cuts * allowed.visitors;
  if (visitorsUncertain > mostVisitors) {
    wrong.push(`${visitorsUncertain} UNCERTAIN for visitors, at most ${mostVisitors} were on their way`);
  }
  const mostUncertain = allowed.cuts * writers;
  for (const [word, count] of errors) {
    if (allowed.errors.includes(word)) continue;
    if (word !== "UNCERTAIN") wrong.push(`error ${word}, ${count} times`);
    else if (count > mostUncertain)
      wrong.push(`${count} UNCERTAIN, at most ${mostUncertain} were on their way`);
  }
  return wrong;
}

function wrongLoss({ lost, lostBytes, details }: Outcome, { mayLose, unseen }: Allowance): string[] {
  const what = `${lost} acknowledged writes are missing (${details.join("; ")})`;
  if (lost > unseen && lostBytes === 0) return [`${what}, and the proxy says that nothing was lost`];
  if (mayLose) return [];
  if (lost > 0) return [what];
  return lostBytes === 0 ? [] : [`the proxy says that ${lostBytes ?? "unknown"} bytes were lost, nothing is`];
}

function isNotOwn(mismatch: string): boolean {
  return !mismatch.includes(OWN);
}

function isOver(gapMs: number, mostMs: number | null): boolean {
  return mostMs !== null && gapMs > mostMs;
}

function gapText(what: string, gapMs: number, mostMs: number | null): string {
  return `no ${what} was answered for ${gapMs.toFixed(0)} ms, at most ${mostMs} are allowed`;
}
