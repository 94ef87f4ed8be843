/** The JSON of /api/status: what the status page, and whoever else asks, gets to see. Names are stable. */
export interface StatusView {
  readonly version: string;
  readonly uptimeSeconds: number;
  readonly epoch: {
    readonly number: number;
    readonly master: string | null;
    /** null while writes may go to the master. */
    readonly holdCause: string | null;
    readonly history: { readonly replid: string; readonly offset: number } | null;
  };
  readonly nodes: readonly NodeStatus[];
  /** Empty when none are configured. */
  readonly sentinels: readonly SentinelStatus[];
  readonly clients: {
    readonly connected: number;
    /** CLIENT PAUSE: what is stopped ("write" or "all"), until when (ISO 8601), and how many wait for it. */
    readonly paused: { readonly what: string; readonly until: string; readonly waiting: number } | null;
  };
  readonly hold: {
    /** Sessions and bytes held at this moment. */
    readonly now: number;
    readonly bytes: number;
    /** Since the start. */
    readonly held: number;
    readonly released: number;
    readonly expired: number;
    readonly left: number;
    readonly failed: number;
  };
  readonly reads: ReadsStatus;
  /** Since the start; the page uses `reads`, `writes` and `uncertain`. */
  readonly counters: Readonly<Record<string, number>>;
  /** Newest first or last: the page sorts by epoch. */
  readonly failovers: readonly FailoverStatus[];
  /** Sentences about what an operator should look at. */
  readonly problems: readonly string[];
}

export interface NodeStatus {
  readonly id: string;
  readonly role: string;
  readonly reachable: boolean;
  readonly fit: boolean;
  /** Why it is (not) fit. */
  readonly reason: string;
  readonly lagMs: number | null;
  readonly lagBytes: number | null;
  /** Requests sent to it since the start, and those of them that a replica may serve. */
  readonly requests: number;
  readonly reads: number;
  /** Requests that it was given over shared connections and has not answered. */
  readonly outstanding: number;
  /** It answers clearly later than the other replicas. */
  readonly slow: boolean;
}

/** Reads that a replica may serve, by where they went since the start. */
export interface ReadsStatus {
  readonly replica: number;
  /** To the master: no replica was proven fresh enough; none was fit; only the master was meant. */
  readonly masterFreshness: number;
  readonly masterNoneFit: number;
  readonly masterPolicy: number;
  /** Of all of them the share that the freshness rule sent to the master, 0 to 1; null = no reads yet. */
  readonly freshnessShare: number | null;
  /** Reads sent to a second node because the first one took its time, and those that it answered first. */
  readonly hedges: number;
  readonly hedgesWon: number;
}

export interface SentinelStatus {
  readonly id: string;
  /** As opposed to discovered. */
  readonly configured: boolean;
  /** Its word counts towards the majority. */
  readonly counts: boolean;
  /** agreeing, disagreeing, tilt, unknown-master, no-access or unreachable. */
  readonly state: string;
  readonly detail: string;
  /** Whom it named last. */
  readonly master: string | null;
  readonly configEpoch: number | null;
  readonly seenMsAgo: number | null;
}

export interface FailoverStatus {
  /** ISO 8601 time, or ms since 1970. */
  readonly at: string | number;
  /** The epoch it led to. */
  readonly epoch: number;
  readonly from: string | null;
  readonly to: string;
  readonly reason: string;
  readonly seenBy: string;
  /** How long writes were held. */
  readonly holdMs: number | null;
  readonly sessionsHeld: number;
  readonly uncertain: number;
  /** null when not known. */
  readonly lostBytes: number | null;
  /** Writes answered in the last so many ms before the switch are not proven to be in the new history. */
  readonly doubtMs: number | null;
  readonly doubtClients: number;
}
