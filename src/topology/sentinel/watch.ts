/**
 * Watches over the Sentinels: asks each one again and again, hears their events, and makes of both two
 * things: hints (nodes that are worth a look now) and one word (what a majority names). It believes nothing
 * and changes nothing; what follows from it the epoch rules decide, after the nodes themselves were asked.
 *
 *   start(), close()   begin and end
 *   hurry()            ask soon, and often for a while: writes are held
 *   failover()         ask one of them to promote a replica
 *   word(), view()     what they say together; each of them, for people and metrics
 */

import { type Clock, type SetTimer, systemTimer } from "../../clock.ts";
import type { NodeId } from "../epoch.ts";
import {
  combine,
  isHeard,
  type SentinelSays,
  type SentinelView,
  type SentinelWord,
  stateOf,
  votersOf,
} from "../rules/sentinel.ts";
import type { SentinelStatus } from "../status.ts";
import {
  type Instance,
  readAddress,
  readEvent,
  readInstances,
  readMaster,
  readRunId,
  readTilt,
} from "./answers.ts";
import type { Answer, AskOutcome, LinkFactory, SentinelLink } from "./asking.ts";

export interface SentinelOptions {
  /** The group's name there. */
  readonly name: string;
  readonly seeds: readonly NodeId[];
  /** Between two questions while something is going on, in ms. */
  readonly intervalMs: number;
}

export interface SentinelCallbacks {
  /** Nodes worth a look now; `denseMs` > 0: a promotion may come within so many ms. */
  onHint(nodes: readonly NodeId[], denseMs: number): void;
  /** What they say together, after each answer. */
  onWord(word: SentinelWord): void;
}

export interface SentinelParts {
  readonly clock: Clock;
  readonly createLink: LinkFactory;
  /** Writes are held now. */
  readonly isHeld: () => boolean;
  /** In [0, 1). */
  readonly random?: () => number;
  readonly setTimer?: SetTimer;
}

export type FailoverAnswer =
  | { readonly ok: true }
  /** mayHaveBegun: no answer came, so it may run. */
  | { readonly ok: false; readonly reason: string; readonly mayHaveBegun: boolean };

/** Between two questions to a Sentinel in calm, ms. */
const CALM_MS = 1_000;
/** Questions are dense for so long after a hint, ms. */
const HURRY_MS = 3_000;
/** A failover that runs: selection, promotion; longer when the Sentinels must agree first. ms. */
const DENSE_RUNNING_MS = 10_000;
const DENSE_DONE_MS = 2_000;
/** Everything else (other Sentinels, replicas, TILT) is asked at most so often, ms; CKQUORUM more rarely. */
const FULL_EVERY_MS = 900;
const QUORUM_EVERY_MS = 5_000;
/** Nodes that Sentinels name are hinted at again after so long, ms: they may have been forgotten. */
const HINT_AGAIN_MS = 30_000;
/** Questions to one Sentinel are at least so far apart, ms, whatever it says. */
const ASK_GAP_MS = 20;
/** Hints of one Sentinel's events are at least so far apart, ms. */
const EVENT_GAP_MS = 5;
/** Nodes remembered as hinted at, for each Sentinel. */
const MAX_HINTED = 256;
const MAX_BACKOFF_MS = 2_000;
/** Behind the first answer of several Sentinels the others are waited for so long, ms. */
const LATE_MS = 50;
/** Two addresses of one running Sentinel: the second one is asked so rarely, ms. */
const ALIAS_MS = 10_000;
const MAX_SENTINELS = 32;
/** A discovered Sentinel that does not answer and that no other one knows is forgotten, ms. */
const FORGET_MS = 60_000;

interface Entry {
  view: SentinelView;
  readonly link: SentinelLink;
  asking: boolean;
  /** Asked for while a question was on its way. */
  again: boolean;
  failures: number;
  /** Monotonic ms, these and the next ones; -Infinity = never. */
  fullAtMs: number;
  quorumAtMs: number;
  hintedAtMs: number;
  eventAtMs: number;
  /** Of the last event's hint, ms. */
  eventDenseMs: number;
  askedAtMs: number;
  /** When another one last named it. */
  wantedAtMs: number;
  /** Nodes it named, that were hinted at. */
  hinted: Set<NodeId>;
  /** It has no SENTINEL REPLICAS (before Redis 5). */
  saysSlaves: boolean;
  cancel: (() => void) | null;
}

export class SentinelWatch {
  readonly #options: SentinelOptions;
  readonly #callbacks: SentinelCallbacks;
  readonly #clock: Clock;
  readonly #createLink: LinkFactory;
  readonly #isHeld: () => boolean;
  readonly #random: () => number;
  readonly #setTimer: SetTimer;
  /** In the order in which the addresses became known. */
  readonly #entries = new Map<NodeId, Entry>();
  #hurryUntilMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(options: SentinelOptions, callbacks: SentinelCallbacks, parts: SentinelParts) {
    this.#options = options;
    this.#callbacks = callbacks;
    this.#clock = parts.clock;
    this.#createLink = parts.createLink;
    this.#isHeld = parts.isHeld;
    this.#random = parts.random ?? Math.random;
    this.#setTimer = parts.setTimer ?? systemTimer;
  }

  start(): void {
    for (const id of this.#options.seeds) this.#watch(id, null);
    this.#tell();
  }

  close(): void {
    this.#closed = true;
    for (const entry of this.#entries.values()) this.#end(entry);
  }

  hurry(): void {
    if (this.#closed) return;
    this.#hurryUntilMs = this.#clock.nowMs() + HURRY_MS;
    for (const entry of this.#entries.values()) {
      // Who does not answer keeps its own, longer pauses.
      if (entry.failures === 0) this.#askIn(entry, 0);
    }
  }

  view(): SentinelStatus[] {
    const word = this.word();
    const nowMs = this.#clock.nowMs();
    const voters = new Set(votersOf(this.#views()).map(({ id }) => id));
    return [...this.#entries.values()].map(({ view }) => ({
      id: view.id,
      configured: view.configured,
      counts: voters.has(view.id),
      state: stateOf(view, word),
      detail: view.contact === "answering" ? (view.says?.refused ?? "") : view.detail,
      master: view.says?.master ?? null,
      configEpoch: view.says?.configEpoch ?? null,
      lastSeenAgoMs: view.says === null ? null : nowMs - view.says.atMs,
    }));
  }

  /** What they say together, now. */
  word(): SentinelWord {
    return combine(this.#options.name, this.#views(), this.#clock.nowMs());
  }

  /** Asks one that agrees with the majority for SENTINEL FAILOVER; it answers before anything happens. */
  async failover(): Promise<FailoverAnswer> {
    const word = this.word();
    const nowMs = this.#clock.nowMs();
    const agreeing = [...this.#entries.values()].filter(
      ({ view }) => word.agreed !== null && word.named.get(view.id) === word.agreed && isHeard(view, nowMs),
    );
    if (word.agreed === null) {
      return { ok: false, reason: "no majority of the Sentinels names a master", mayHaveBegun: false };
    }
    const entry = await this.#firstToName(word.agreed, agreeing);
    if (entry === null) {
      return { ok: false, reason: "none of the Sentinels that agreed answers", mayHaveBegun: false };
    }
    const outcome = await entry.link.ask([["sentinel", "failover", this.#options.name]]);
    if (!outcome.ok) {
      const reason = `${entry.view.id}: ${outcome.detail}; whether it began is not known`;
      return { ok: false, reason, mayHaveBegun: true };
    }
    const [answer] = outcome.answers;
    // What one refuses, another one would refuse, too.
    if (answer?.ok !== true) {
      const reason = `${entry.view.id}: ${answer?.error ?? "no answer"}`;
      return { ok: false, reason, mayHaveBegun: false };
    }
    this.#callbacks.onHint([], DENSE_RUNNING_MS);
    this.hurry();
    return { ok: true };
  }

  /**
   * The first in the list of those that name this master once more; null = none does. One that hangs since it
   * was heard last might begin a failover whenever it goes on, and nobody would know. In the order of the
   * list, because who began the last failover knows whether it is over.
   */
  async #firstToName(master: NodeId, entries: readonly Entry[]): Promise<Entry | null> {
    const naming = new Set<Entry>();
    const asked = entries.map(async (entry) => {
      const outcome = await entry.link.ask([["sentinel", "get-master-addr-by-name", this.#options.name]]);
      const [answer] = outcome.ok ? outcome.answers : [];
      if (answer?.ok !== true || readAddress(entry.view.id, answer.value) !== master) throw new Error();
      naming.add(entry);
    });
    const isLate = Promise.any(asked).then(() => new Promise<void>((end) => this.#setTimer(end, LATE_MS)));
    await Promise.race([Promise.allSettled(asked), isLate.catch(() => {})]);
    return entries.find((entry) => naming.has(entry)) ?? null;
  }

  #views(): SentinelView[] {
    return [...this.#entries.values()].map(({ view }) => view);
  }

  #tell(): void {
    if (!this.#closed) this.#callbacks.onWord(this.word());
  }

  /** `runId` of a discovered one; null = configured. */
  #watch(id: NodeId, runId: string | null): void {
    if (this.#entries.has(id) || this.#entries.size >= MAX_SENTINELS) return;
    const link = this.#createLink(id, {
      onMessage: (channel, text) => this.#onMessage(id, channel, text),
      onClosed: () => this.#onClosed(id),
    });
    const entry: Entry = {
      view: {
        id,
        configured: runId === null,
        runId,
        contact: "never",
        detail: "",
        says: null,
        others: new Set(),
      },
      link,
      asking: false,
      again: false,
      failures: 0,
      fullAtMs: Number.NEGATIVE_INFINITY,
      quorumAtMs: Number.NEGATIVE_INFINITY,
      hintedAtMs: Number.NEGATIVE_INFINITY,
      eventAtMs: Number.NEGATIVE_INFINITY,
      eventDenseMs: 0,
      askedAtMs: Number.NEGATIVE_INFINITY,
      wantedAtMs: this.#clock.nowMs(),
      hinted: new Set(),
      saysSlaves: false,
      cancel: null,
    };
    this.#entries.set(id, entry);
    void this.#ask(entry);
  }

  #end(entry: Entry): void {
    entry.cancel?.();
    entry.cancel = null;
    entry.link.close();
  }

  #askIn(entry: Entry, delayMs: number): void {
    if (entry.asking) {
      entry.again ||= delayMs === 0;
      return;
    }
    entry.cancel?.();
    const leastMs = entry.askedAtMs + ASK_GAP_MS - this.#clock.nowMs();
    entry.cancel = this.#setTimer(() => void this.#ask(entry), Math.max(0, leastMs, delayMs));
  }

  async #ask(entry: Entry): Promise<void> {
    if (entry.asking || this.#closed) return;
    entry.cancel?.();
    entry.cancel = null;
    entry.asking = true;
    entry.again = false;
    const atMs = this.#clock.nowMs();
    entry.askedAtMs = atMs;
    const isFull = atMs - entry.fullAtMs >= FULL_EVERY_MS;
    const asksQuorum = isFull && atMs - entry.quorumAtMs >= QUORUM_EVERY_MS;
    const outcome = await entry.link.ask(this.#questions(entry, isFull, asksQuorum));
    entry.asking = false;
    if (this.#closed || this.#entries.get(entry.view.id) !== entry) return;
    if (isFull) entry.fullAtMs = atMs;
    if (asksQuorum) entry.quorumAtMs = atMs;
    this.#onOutcome(entry, atMs, isFull, outcome);
    this.#forget();
    this.#tell();
    this.#askIn(entry, entry.again ? 0 : this.#pauseMs(entry));
  }

  #questions(entry: Entry, isFull: boolean, asksQuorum: boolean): string[][] {
    const { name } = this.#options;
    const about = (question: string) => ["sentinel", question, name];
    const short = [about("get-master-addr-by-name"), about("master")];
    if (!isFull) return short;
    const replicas = about(entry.saysSlaves ? "slaves" : "replicas");
    const full = [...short, ["sentinel", "myid"], ["info", "sentinel"], about("sentinels"), replicas];
    return asksQuorum ? [...full, about("ckquorum")] : full;
  }

  #pauseMs(entry: Entry): number {
    const { intervalMs } = this.#options;
    if (entry.failures > 0) {
      const pauseMs = Math.min(MAX_BACKOFF_MS, 100 * 2 ** Math.min(entry.failures - 1, 10));
      return pauseMs * (0.75 + 0.5 * this.#random());
    }
    const isAlias = !entry.view.configured && !votersOf(this.#views()).some(({ id }) => id === entry.view.id);
    if (isAlias) return ALIAS_MS;
    const isOdd = this.#isHeld() || this.#clock.nowMs() < this.#hurryUntilMs;
    return (isOdd ? Math.min(intervalMs, CALM_MS) : CALM_MS) * (0.9 + 0.2 * this.#random());
  }

  #onOutcome(entry: Entry, atMs: number, isFull: boolean, outcome: AskOutcome): void {
    if (!outcome.ok) {
      entry.failures++;
      entry.fullAtMs = Number.NEGATIVE_INFINITY;
      entry.view = { ...entry.view, contact: outcome.kind, detail: outcome.detail };
      return;
    }
    const [address, master, myId, info, sentinels, replicas, quorum] = outcome.answers;
    const refusal = outcome.answers.find((answer) => isRefusal(answer));
    const refused = refusal === undefined || refusal.ok ? entry.link.deaf : refusal.error;
    const named = address?.ok === true ? readAddress(entry.view.id, address.value) : "nonsense";
    if (named === "nonsense") {
      entry.failures++;
      const detail = address?.ok === false ? address.error : "its answer is no address";
      const contact = address !== undefined && isRefusal(address) ? "no-access" : "nonsense";
      entry.view = { ...entry.view, contact, detail };
      return;
    }
    entry.failures = 0;
    const before = entry.view.says;
    const about = master?.ok === true ? readMaster(entry.view.id, master.value) : null;
    const says: SentinelSays = {
      atMs,
      master: named,
      // While a failover runs it names the promoted node, and describes the one before.
      masterRunId: about !== null && about.node === named ? about.runId : null,
      configEpoch: about?.configEpoch ?? null,
      tilt: (isFull && info?.ok === true ? readTilt(info.value) : null) ?? before?.tilt ?? false,
      noQuorum: quorum === undefined ? (before?.noQuorum ?? null) : complaintOf(quorum),
      refused: isFull ? refused : (refused ?? before?.refused ?? null),
    };
    entry.view = { ...entry.view, contact: "answering", detail: "", says };
    const others = sentinels?.ok === true ? readInstances(entry.view.id, sentinels.value) : null;
    if (isFull) this.#learn(entry, myId?.ok === true ? readRunId(myId.value) : null, others);
    if (replicas?.ok === false && /unknown/i.test(replicas.error)) entry.saysSlaves = true;
    const listed = replicas?.ok === true ? readInstances(entry.view.id, replicas.value) : null;
    this.#hint(entry, before, named, listed);
  }

  /** Who it is, and which others it knows. */
  #learn(entry: Entry, runId: string | null, others: readonly Instance[] | null): void {
    const known = others?.flatMap((other) => (other.runId === null ? [] : [other.runId]));
    entry.view = {
      ...entry.view,
      runId: runId ?? entry.view.runId,
      others: known === undefined ? entry.view.others : new Set(known),
    };
    for (const other of others ?? []) {
      if (other.runId === null) continue;
      const twins = [...this.#entries.values()].filter(({ view }) => view.runId === other.runId);
      // Where it answers at one address, it is not looked for at the others.
      const isAnswering = twins.some(({ view }) => view.contact === "answering");
      for (const twin of twins) {
        if (!isAnswering || twin.view.contact === "answering") twin.wantedAtMs = this.#clock.nowMs();
      }
      // One that moved has a new address; one that answers has none.
      if (twins.every(({ view }) => view.contact !== "answering" && view.contact !== "never")) {
        this.#watch(other.node, other.runId);
      }
    }
  }

  /** The nodes it names are looked at when they are new, and at once when it names another master. */
  #hint(entry: Entry, before: SentinelSays | null, named: NodeId | null, listed: Instance[] | null): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs - entry.hintedAtMs >= HINT_AGAIN_MS) {
      entry.hinted = new Set();
      entry.hintedAtMs = nowMs;
    }
    const replicas = (listed ?? []).filter(({ flags }) => !flags.includes("s_down"));
    const nodes = [...(named === null ? [] : [named]), ...replicas.map(({ node }) => node)];
    const fresh = nodes.filter((node) => !entry.hinted.has(node));
    const isAnother = before !== null && named !== null && before.master !== named;
    for (const node of fresh) entry.hinted.add(node);
    if (isAnother) this.#callbacks.onHint([named], DENSE_DONE_MS);
    if (fresh.length > 0) this.#callbacks.onHint(fresh, 0);
  }

  #onMessage(id: NodeId, channel: string, text: string): void {
    const entry = this.#entries.get(id);
    if (this.#closed || entry === undefined) return;
    const event = readEvent(id, this.#options.name, channel, text);
    if (event === null) return;
    if (event.kind === "tilt") {
      entry.fullAtMs = Number.NEGATIVE_INFINITY;
      this.#askIn(entry, 0);
      return;
    }
    const nowMs = this.#clock.nowMs();
    const denseMs = { running: DENSE_RUNNING_MS, done: DENSE_DONE_MS, look: 0 }[event.kind];
    const saysNothingNew =
      denseMs <= entry.eventDenseMs && event.nodes.every((node) => entry.hinted.has(node));
    if (nowMs - entry.eventAtMs < EVENT_GAP_MS && saysNothingNew) return;
    entry.eventAtMs = nowMs;
    entry.eventDenseMs = denseMs;
    if (entry.hinted.size > MAX_HINTED) entry.hinted.clear();
    for (const node of event.nodes) entry.hinted.add(node);
    this.#callbacks.onHint(event.nodes, denseMs);
    if (event.kind !== "look") this.hurry();
  }

  #onClosed(id: NodeId): void {
    const entry = this.#entries.get(id);
    if (!this.#closed && entry !== undefined) this.#askIn(entry, 0);
  }

  #forget(): void {
    const nowMs = this.#clock.nowMs();
    for (const [id, entry] of this.#entries) {
      if (entry.view.configured || entry.failures === 0 || nowMs - entry.wantedAtMs < FORGET_MS) continue;
      this.#end(entry);
      this.#entries.delete(id);
    }
  }
}

/** An error other than that it does not know the name, the command, or a quorum. */
function isRefusal(answer: Answer): boolean {
  return !answer.ok && /^(?:NOAUTH|NOPERM|WRONGPASS|DENIED)\b/.test(answer.error);
}

function complaintOf(quorum: Answer): string | null {
  return !quorum.ok && quorum.error.startsWith("NOQUORUM") ? quorum.error : null;
}
