/** The matrix: every fault in every mode in which it makes sense, and what clients may notice of it. */
import type { ConfigObject } from "../proxy.ts";
import * as faults from "./faults.ts";
import {
  CRASH_GRACE_MS,
  DOWN_AFTER_MS,
  type Field,
  type Links,
  type Mode,
  PROBE_TIMEOUT_MS,
} from "./field.ts";

/** What this version of the proxy can do. A cell that needs more is skipped, and its name says so. */
export const MODES_BUILT: readonly (Mode | "switchover")[] = ["observe", "sentinel", "self", "switchover"];

/** Everything runs on the same two or three processors: times are held to so many times what is promised. */
const SLACK = 3;
const CRASH_GAP_MS = SLACK * (CRASH_GRACE_MS + 200);
const HANG_GAP_MS = SLACK * (DOWN_AFTER_MS + 300);
/** Told to end, a master first waits for its replicas, which acknowledge once a second. */
const SHUTDOWN_GAP_MS = 1_000 + CRASH_GAP_MS;
const READ_GAP_MS = 2_500;
/**
 * Of acknowledged writes, by a master that is killed between its answers to clients and what it sends to its
 * replicas in the same turn of its event loop: nobody is left who has seen them.
 */
const UNSEEN_MOST = 10;
/** So long may clients be sent to a master that does not answer any more. */
const UNNOTICED_MS = SLACK * (PROBE_TIMEOUT_MS + 100);
/** It is alive and says so while it waits for its replicas. */
const SHUTDOWN_MS = 3_000;

interface Fault {
  /** In words, for the name of the test. */
  readonly what: string;
  /** Of PROMISE.md. */
  readonly rows: string;
  readonly modes: readonly Mode[];
  readonly run: (field: Field) => Promise<void>;
  readonly needs?: "switchover";
  /** Default: none. */
  readonly links?: Links;
  /** How often connections to a master end with requests on them; default 0. */
  readonly cuts?: number;
  /** How long requests may go to a master that does not answer them, ms; default `UNNOTICED_MS`. */
  readonly unnoticedMs?: number;
  /** Of acknowledged writes, by Redis itself; default nothing. */
  readonly loses?: "few" | "all";
  /** Default 1. */
  readonly switches?: number;
  /** Without any answer to a write, when the proxy promotes. */
  readonly selfGapMs?: number;
  /** All nodes are down at once: reads wait, too. */
  readonly allDown?: boolean;
  readonly errors?: readonly string[];
  readonly config?: ConfigObject;
  /** Without queues and subscribers. */
  readonly plain?: boolean;
}

const ALL: readonly Mode[] = ["observe", "sentinel", "self"];
const LINKED_HANG = {
  modes: ALL,
  links: "nodes",
  cuts: 1,
  loses: "few",
  selfGapMs: HANG_GAP_MS,
} as const;

export const FAULTS = {
  "manual-dead": {
    what: "the master is killed, an operator promotes a replica",
    rows: "3, 4, 6, 8, 12, 16, 17, 21, 24, 40",
    modes: ["observe"],
    run: faults.crash,
    cuts: 1,
    loses: "few",
  },
  "manual-live": {
    what: "a replica is promoted by hand while the master lives on",
    rows: "9, 16, 21, 24, 40, 48",
    modes: ["observe", "self"],
    run: faults.promoteByHand,
    loses: "all",
  },
  "demote-first": {
    what: "the master is demoted by hand before a replica is promoted",
    rows: "8, 9, 15, 18, 21",
    modes: ["observe", "self"],
    run: faults.demoteFirst,
  },
  failover: {
    what: "FAILOVER",
    rows: "8, 9, 11, 21, 37",
    modes: ["observe", "self"],
    run: faults.failover,
  },
  "failover-aborted": {
    what: "FAILOVER that is given up",
    rows: "11, 21, 38",
    modes: ALL,
    run: faults.failoverGivenUp,
    switches: 0,
  },
  "sentinel-failover": {
    what: "SENTINEL FAILOVER",
    rows: "4, 9, 16, 21, 24, 40, 48",
    modes: ["sentinel"],
    run: faults.sentinelFailover,
    cuts: 2,
    loses: "all",
  },
  switchover: {
    what: "PROXY SWITCHOVER",
    rows: "8, 9, 11, 15, 17, 18, 21, 24, 49",
    modes: ALL,
    needs: "switchover",
    run: faults.switchover,
  },
  sigkill: {
    what: "the master is killed",
    rows: "3, 4, 6, 8, 12, 16, 17, 21, 24, 40",
    modes: ["sentinel", "self"],
    run: faults.crash,
    cuts: 1,
    loses: "few",
    selfGapMs: CRASH_GAP_MS,
  },
  "restart-data": {
    what: "the master is killed and back at once with all its data",
    rows: "6, 8, 12, 13, 21, 24",
    modes: ALL,
    run: faults.quickRestart,
    cuts: 1,
    switches: 0,
  },
  "restart-empty": {
    what: "the master is killed and back at once without data",
    rows: "6, 8, 40, 41",
    modes: ALL,
    run: faults.restartEmpty,
    links: "replication",
    cuts: 1,
    loses: "few",
    selfGapMs: CRASH_GAP_MS,
  },
  "restart-rolled-back": {
    what: "the master is killed and back at once with older data",
    rows: "6, 8, 40, 41",
    modes: ALL,
    run: faults.restartRolledBack,
    links: "replication",
    cuts: 1,
    loses: "few",
    selfGapMs: CRASH_GAP_MS,
  },
  "short-hang": {
    what: "the master stands still for less than it takes to be replaced",
    rows: "6, 8, 13, 21, 24",
    modes: ALL,
    run: faults.shortHang,
    switches: 0,
    config: { probe: { timeout: "200ms" } },
  },
  sigstop: {
    what: "the master stands still, is replaced, and wakes up",
    rows: "6, 8, 12, 16, 21, 24, 40",
    modes: ALL,
    run: faults.hang,
    cuts: 1,
    loses: "few",
    selfGapMs: HANG_GAP_MS,
  },
  sigterm: {
    what: "the master ends on SIGTERM while clients write",
    rows: "8, 11, 12, 21, 24, 50",
    modes: ALL,
    run: faults.terminate,
    cuts: 1,
    unnoticedMs: SHUTDOWN_MS,
    selfGapMs: SHUTDOWN_GAP_MS,
  },
  "black-hole": {
    ...LINKED_HANG,
    what: "nothing reaches the master or comes from it any more, and no connection ends",
    rows: "4, 6, 8, 12, 16, 21, 24, 40",
    run: faults.partition("up", "down"),
  },
  "half-open-requests": {
    ...LINKED_HANG,
    what: "nothing reaches the master any more",
    rows: "4, 6, 8, 12, 16, 21, 24, 40",
    run: faults.partition("up"),
  },
  "half-open-replies": {
    ...LINKED_HANG,
    what: "nothing comes from the master any more",
    rows: "4, 6, 8, 12, 16, 21, 24, 40",
    run: faults.partition("down"),
  },
  "power-off": {
    ...LINKED_HANG,
    what: "the master is gone and no connection ends",
    rows: "4, 6, 8, 12, 16, 21, 24, 40",
    run: faults.powerOff,
  },
  "replica-loss": {
    what: "a replica dies and is back without data",
    rows: "3, 4, 24, 47",
    modes: ALL,
    run: faults.loseReplica,
    switches: 0,
  },
  "two-in-a-row": {
    what: "the master dies and the next one, too",
    rows: "8, 12, 16, 21, 24, 46",
    modes: ALL,
    run: faults.crashTwice,
    cuts: 2,
    loses: "few",
    switches: 2,
  },
  "all-down": {
    what: "all nodes die and are back with their data",
    rows: "8, 12, 13, 21, 24",
    modes: ALL,
    run: faults.allDown,
    cuts: 1,
    switches: 0,
    allDown: true,
  },
  "no-common-truth": {
    what: "all nodes die and are back with different data, an operator decides",
    rows: "41, 42, 43",
    modes: ["observe", "self"],
    run: faults.noCommonTruth,
    cuts: 1,
    loses: "all",
    switches: 0,
    allDown: true,
    errors: ["MASTERDOWN"],
    config: { hold: { maxTime: `${faults.NO_TRUTH_HOLD_MS}ms` } },
    plain: true,
  },
} as const satisfies Readonly<Record<string, Fault>>;

export type FaultName = keyof typeof FAULTS;

export interface Cell {
  /** `fault/mode`. */
  readonly name: string;
  readonly fault: Fault;
  readonly mode: Mode;
  readonly isBuilt: boolean;
}

/** All cells, fault by fault. */
export const CELLS: readonly Cell[] = Object.entries<Fault>(FAULTS).flatMap(([name, fault]) =>
  fault.modes.map((mode) => ({
    name: `${name}/${mode}`,
    fault,
    mode,
    isBuilt: [mode, fault.needs ?? mode].every((need) => MODES_BUILT.includes(need)),
  })),
);

/** Those that tell most in little time. */
export const SHORT: ReadonlySet<string> = new Set([
  ...[
    "manual-live/observe",
    "manual-dead/observe",
    "failover/observe",
    "restart-data/observe",
    "sigstop/observe",
  ],
  ...["half-open-replies/observe", "no-common-truth/observe"],
  ...["sigkill/sentinel", "half-open-requests/sentinel"],
  ...["sigkill/self", "black-hole/self", "restart-empty/self", "all-down/self", "switchover/self"],
]);

export { READ_GAP_MS, UNNOTICED_MS, UNSEEN_MOST };
