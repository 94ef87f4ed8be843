/**
 * Several proxies that may promote: never do two of them promote different nodes out of one history, but in
 * the situations in which lease.ts does not guarantee it. Each of these is recognised by what really stood on
 * the nodes, and counted; anything else is a fault.
 */

import type { NodeCommand, Standing } from "../../../../src/failover/model.ts";
import { KEEP_MS, MARKER_PREFIX } from "../../../../src/failover/right/lease.ts";
import type { Connection } from "./network.ts";
import type { ModelNode, Unmarking } from "./node.ts";
import type { ModelProxy } from "./proxy.ts";
import type { Timeline } from "./timeline.ts";

/** A time in which a marker stood on a node. */
interface Stand {
  readonly by: Connection;
  readonly fromMs: number;
  untilMs: number;
  end: Ending | null;
}

type Ending = Unmarking | "its proxy ended";

/** Why two promotions were possible: what lease.ts says of each. */
export type Gap =
  | "carried out too late"
  | "two nodes"
  | "restarted"
  | "keep-alive"
  | "broken"
  | "its proxy ended"
  | "its result not seen";

/** A proxy was told that it is the only one. */
interface Right {
  readonly proxy: ModelProxy;
  readonly atMs: number;
  /** The nodes that counted, and when each of them answered. */
  readonly on: ReadonlyMap<string, number>;
  /** Nodes that it knew of. */
  readonly known: number;
}

interface Promotion {
  readonly right: Right;
  readonly node: ModelNode;
  readonly atMs: number;
}

interface Look {
  readonly servedAtMs: number;
  readonly receivedAtMs: number;
  readonly counts: boolean;
}

export interface Judge {
  note(text: string): void;
  count(what: string): void;
  violation(text: string): void;
}

export class Rivals {
  /** Told when one of the situations has come about: people have to decide then. */
  onGap: () => void = () => undefined;
  readonly #time: Timeline;
  readonly #judge: Judge;
  /** By proxy and node. */
  readonly #stands = new Map<string, Stand[]>();
  readonly #looks = new Map<ModelProxy, Map<string, Look>>();
  readonly #askedAtMs = new Map<ModelProxy, number>();
  readonly #rights: Right[] = [];
  /** By the history they were made out of. */
  readonly #promotions = new Map<string, Promotion[]>();

  constructor(time: Timeline, judge: Judge) {
    this.#time = time;
    this.#judge = judge;
  }

  marked(node: string, by: Connection): void {
    const stand: Stand = { by, fromMs: this.#time.nowMs, untilMs: Number.POSITIVE_INFINITY, end: null };
    this.#standsOf(by.from.name, node).push(stand);
  }

  unmarked(node: string, by: Connection, why: Unmarking): void {
    const stand = this.#standsOf(by.from.name, node).find((one) => one.by === by && one.end === null);
    if (stand === undefined) return;
    stand.untilMs = this.#time.nowMs;
    stand.end = by.from.stalledUntilMs === Number.POSITIVE_INFINITY ? "its proxy ended" : why;
  }

  lookedFor(proxy: ModelProxy, node: ModelNode, channels: readonly string[], servedAtMs: number): void {
    const own = channels.filter((channel) => channel.startsWith(MARKER_PREFIX + proxy.markerId));
    const counts = own.length === channels.length && own.length > 0;
    const looks = this.#looks.get(proxy) ?? new Map<string, Look>();
    looks.set(node.name, { servedAtMs, receivedAtMs: this.#time.nowMs, counts });
    this.#looks.set(proxy, looks);
  }

  asksForRight(proxy: ModelProxy): void {
    this.#askedAtMs.set(proxy, this.#time.nowMs);
  }

  gotRight(proxy: ModelProxy, standing: Standing): void {
    this.#judge.count(`right ${standing.kind}`);
    if (standing.kind === "refused") return;
    const sinceMs = this.#askedAtMs.get(proxy) ?? Number.POSITIVE_INFINITY;
    const fresh = [...(this.#looks.get(proxy) ?? [])].filter(
      ([, { counts, servedAtMs }]) => counts && servedAtMs >= sinceMs,
    );
    const on = new Map(fresh.map(([name, { servedAtMs }]) => [name, servedAtMs]));
    const known = proxy.watcher.group().nodes.length;
    this.#rights.push({ proxy, atMs: this.#time.nowMs, on, known });
    const isBlind = [...(this.#looks.get(proxy)?.values() ?? [])].every(
      ({ servedAtMs }) => servedAtMs < sinceMs,
    );
    if (isBlind) this.#judge.violation(`${proxy.name} may promote without having looked`);
  }

  /** A node is about to carry out a promotion that was asked for at `issuedAtMs`. */
  performed(proxy: ModelProxy, node: ModelNode, command: NodeCommand, issuedAtMs: number): void {
    if (command.kind === "follow") this.#judgeFollow(proxy, node);
    const right = this.#rights.find((one) => one.proxy === proxy && one.atMs === issuedAtMs);
    // A planned switch needs no right.
    if (command.kind !== "promote" || right === undefined) return;
    if (node.isMaster || node.isLoading || node.handover !== null) return;
    this.#judge.count("promoted by right");
    const promotion: Promotion = { right, node, atMs: this.#time.nowMs };
    const before = this.#promotions.get(node.replid) ?? [];
    this.#promotions.set(node.replid, [...before, promotion]);
    for (const other of before) {
      const isOther = other.right.proxy !== proxy && other.node !== node;
      // One that was told to follow again is none any more.
      if (isOther && other.node.isMaster) this.#judgeBoth(other, promotion, node.replid);
    }
  }

  /**
   * A proxy without the right did not reach the master that the one with it has made, and takes it for a
   * former one: each of them may make the other's master follow its own, and then there is none.
   */
  #judgeFollow(proxy: ModelProxy, node: ModelNode): void {
    const promotions = [...this.#promotions.values()].flat();
    const isMade = promotions.some((one) => one.node === node && one.right.proxy !== proxy);
    if (!node.isMaster || !isMade || proxy.isSole) return;
    this.#judge.note(`${proxy.name} may not promote, and undoes the promotion of ${node.name}`);
    this.#judge.count("promotion undone by another proxy");
  }

  #judgeBoth(one: Promotion, two: Promotion, history: string): void {
    const [first, second] = one.right.atMs <= two.right.atMs ? [one, two] : [two, one];
    const who = `${first.right.proxy.name} and ${second.right.proxy.name}`;
    const text = `${who} promoted ${first.node.name} and ${second.node.name}, both of ${history}`;
    const gap = this.#gapBetween(first, second);
    if (gap === null) return this.#judge.violation(text);
    this.#judge.note(`${text}: ${gap}`);
    this.#judge.count(`two promotions: ${gap}`);
    this.onGap();
  }

  /** Which of the situations it was; null = none of them. */
  #gapBetween(first: Promotion, second: Promotion): Gap | null {
    if ([first, second].some(({ right, atMs }) => atMs - right.atMs > KEEP_MS)) return "carried out too late";
    const shared = [...second.right.on.keys()].filter((name) => first.right.on.has(name));
    if (shared.length > 0) return this.#whyGone(first, shared, second.right);
    if (first.right.known <= 2 || second.right.known <= 2) return "two nodes";
    // Who has less than half has had its markers on all nodes, and they are gone where the other one looked.
    const isFew = ({ right }: Promotion): boolean => right.on.size <= right.known / 2;
    const gaps = [
      isFew(first) ? this.#whyGone(first, [...second.right.on.keys()], second.right) : null,
      isFew(second) ? this.#whyGone(second, [...first.right.on.keys()], first.right) : null,
    ];
    return gaps.find((gap) => gap !== null) ?? null;
  }

  /** How the markers came to be gone from all these nodes when the other one looked; null = they were not. */
  #whyGone(one: Promotion, nodes: readonly string[], other: Right): Gap | null {
    const gaps = nodes.map((name) => {
      const end = this.#endOf(one.right, name, other.on.get(name) ?? 0);
      // It keeps them for so long, unless it ends.
      if (end !== "taken away") return end;
      return other.atMs - one.right.atMs >= KEEP_MS ? "its result not seen" : null;
    });
    return gaps.includes(null) ? null : (gaps[0] ?? null);
  }

  /** How the marker that counted had ended by then; null = one stood, or never had. */
  #endOf({ proxy, on }: Right, node: string, atMs: number): Ending | null {
    const stands = this.#standsOf(proxy.name, node).filter(({ fromMs }) => fromMs <= atMs);
    if (stands.some(({ untilMs }) => untilMs > atMs)) return null;
    const since = on.get(node) ?? Number.NEGATIVE_INFINITY;
    const ends = stands.filter(({ untilMs }) => untilMs >= since).map(({ end }) => end);
    // One that was being put up anew may have been given up by its proxy meanwhile.
    return ends.findLast((end) => end !== "taken away") ?? ends.at(-1) ?? null;
  }

  #standsOf(proxy: string, node: string): Stand[] {
    const key = `${proxy} ${node}`;
    const found = this.#stands.get(key) ?? [];
    this.#stands.set(key, found);
    return found;
  }
}
