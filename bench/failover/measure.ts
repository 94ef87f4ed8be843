/** PURE. What the clients wrote down, turned into figures. All times are `performance.now()` in ms. */

/** One acknowledged INCR: when its answer came, and what it said. */
export interface Write {
  readonly atMs: number;
  readonly value: number;
}

export interface WriterTrace {
  /** In the order of the answers. */
  readonly writes: readonly Write[];
  /** Increments whose outcome was left open: answered UNCERTAIN, or cut off. */
  readonly uncertain: number;
  /** The counter after the run, on the node that is the master then. */
  readonly final: number;
}

export interface Trace {
  readonly writers: readonly WriterTrace[];
  /** For each client that only reads, when its reads were answered. */
  readonly readers: readonly (readonly number[])[];
  readonly disconnects: number;
  /** Errors by their first word. */
  readonly errors: Readonly<Record<string, number>>;
  /** Reads right after a client's own write that showed an older value. */
  readonly stale: number;
}

export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** What happened to the servers, and when. */
export interface Marks {
  readonly faultAtMs: number;
  /** The new master said so itself; absent when nobody was promoted. */
  readonly promotedAtMs?: number;
  /** The new master has executed a client's write. */
  readonly firstWriteAtMs?: number;
  /** The same master answers again after a restart. */
  readonly servesAtMs?: number;
  /** Switches one after the other: the stall of each is measured by itself. */
  readonly switches: readonly Span[];
  /** The load was told to stop: a gap that is open then ends then. */
  readonly endAtMs: number;
}

export interface Figures {
  readonly disconnects: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly uncertain: number;
  /** The longest time in which some one writer got no answered write, from the fault on. */
  readonly writeGapMs: number;
  /** … in which none of them did. */
  readonly systemWriteGapMs: number;
  /** As `writeGapMs`, counted from when writes could be answered again: see `Scenario.gapFrom`. */
  readonly boundGapMs: number;
  /** The longest time in which some one reader got no answer. */
  readonly readGapMs: number;
  /** Acknowledged writes that the master does not have. */
  readonly lost: number;
  /** From the promotion to the last acknowledgement of a write that was lost; 0 when none came after it. */
  readonly lostAfterMs: number;
  readonly stale: number;
  /** From the promotion to the first write of a client on the new master; absent without a promotion. */
  readonly firstWriteMs?: number;
  /** Increments that nobody asked for: a write was repeated. */
  readonly unexplained: number;
  /** For each of `Marks.switches`, the longest time in which no write was answered. */
  readonly stallsMs: readonly number[];
}

export type GapFrom = "fault" | "promotion" | "serving";

export function figuresOf(trace: Trace, marks: Marks, gapFrom: GapFrom): Figures {
  const all: Span = { fromMs: marks.faultAtMs, toMs: marks.endAtMs };
  const writers = trace.writers.map(({ writes }) => writes.map(({ atMs }) => atMs));
  const together = writers.flat().sort((a, b) => a - b);
  const longestOf = (clients: readonly (readonly number[])[], span: Span) =>
    Math.max(0, ...clients.map((times) => longestGapMs(times, span)));
  const lost = trace.writers.flatMap(({ writes, final }) => lostWrites(writes, final));
  const { promotedAtMs, firstWriteAtMs } = marks;
  const lastLostAtMs = Math.max(...lost.map(({ atMs }) => atMs));
  return {
    disconnects: trace.disconnects,
    errors: trace.errors,
    uncertain: trace.writers.reduce((sum, { uncertain }) => sum + uncertain, 0),
    writeGapMs: longestOf(writers, all),
    systemWriteGapMs: longestGapMs(together, all),
    boundGapMs: longestOf(writers, { ...all, fromMs: gapStart(marks, gapFrom) }),
    readGapMs: longestOf(trace.readers, all),
    lost: lost.length,
    lostAfterMs: promotedAtMs === undefined ? 0 : Math.max(0, lastLostAtMs - promotedAtMs),
    stale: trace.stale,
    ...(promotedAtMs === undefined ? {} : { firstWriteMs: (firstWriteAtMs ?? Number.NaN) - promotedAtMs }),
    unexplained: trace.writers.reduce((sum, writer) => sum + unexplainedOf(writer), 0),
    stallsMs: marks.switches.map((span) => longestGapMs(together, span)),
  };
}

/** A gap is no one's fault before this moment. Without it, the time of the fault. */
function gapStart(marks: Marks, gapFrom: GapFrom): number {
  switch (gapFrom) {
    case "fault":
      return marks.faultAtMs;
    case "promotion":
      return marks.promotedAtMs ?? marks.faultAtMs;
    case "serving":
      return marks.servesAtMs ?? marks.faultAtMs;
  }
}

/** The longest stretch of the span in which none of the times (in order) lies. */
export function longestGapMs(times: readonly number[], { fromMs, toMs }: Span): number {
  let lastMs = fromMs;
  let longestMs = 0;
  for (const time of times) {
    if (time <= fromMs || time > toMs) continue;
    longestMs = Math.max(longestMs, time - lastMs);
    lastMs = time;
  }
  return Math.max(longestMs, toMs - lastMs);
}

/**
 * The acknowledged writes of one counter that its history does not hold. A counter only grows, so a later
 * answer that is not above an earlier one shows that the earlier one was lost.
 */
export function lostWrites(writes: readonly Write[], final: number): Write[] {
  let highest = final;
  const lost: Write[] = [];
  for (const write of writes.toReversed()) {
    if (write.value > highest) lost.push(write);
    else highest = write.value - 1;
  }
  return lost.reverse();
}

function unexplainedOf({ writes, uncertain, final }: WriterTrace): number {
  const kept = writes.length - lostWrites(writes, final).length;
  return Math.max(0, final - kept - uncertain);
}

/** How many of the times fall into each bucket of the span; the last bucket may be cut short. */
export function buckets(times: readonly number[], { fromMs, toMs }: Span, bucketMs: number): number[] {
  const counts = new Array<number>(Math.max(0, Math.ceil((toMs - fromMs) / bucketMs))).fill(0);
  for (const time of times) {
    const index = Math.floor((time - fromMs) / bucketMs);
    if (time < toMs && index in counts) counts[index] = (counts[index] ?? 0) + 1;
  }
  return counts;
}
