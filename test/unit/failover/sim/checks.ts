/** What must hold whatever happens; who breaks it is written down with the time. */
import type { NodeCommand, PromoteMode, Standing, SwitchoverAnswer } from "../../../../src/failover/model.ts";
import type { Epoch, NodeId } from "../../../../src/topology/epoch.ts";
import type { SwitchFacts } from "../../../../src/topology/watcher.ts";
import type { ModelNode } from "./node.ts";
import { nodeNamed } from "./prober.ts";
import type { Asked, ModelProxy, Witness } from "./proxy.ts";
import { Rivals } from "./rivals.ts";
import type { Write } from "./router.ts";
import type { Timeline } from "./timeline.ts";

/** How long after a planned switch nodes are made to follow, at most, ms. */
const DUTY_MS = 35_000;
const LOG_LINES = 400;

interface Past {
  /** By epoch number, with the ms of its acceptance. */
  readonly masters: Map<number, { readonly id: NodeId; readonly sinceMs: number }>;
  /** When the last switch that was rolled back was asked for, and when that was said. */
  askedMs: number;
  rolledBackMs: number;
  keptUntilMs: number | null;
}

export class Checks implements Witness {
  readonly counts = new Map<string, number>();
  readonly violations: string[] = [];
  readonly lines: string[] = [];
  readonly writes: Write[] = [];
  readonly rivals: Rivals;
  readonly #time: Timeline;
  readonly #nodes: ReadonlyMap<string, ModelNode>;
  readonly #members: ReadonlySet<string>;
  readonly #modes: ReadonlySet<PromoteMode>;
  /** Faults come at the worst moments, too: when a node was just asked for something, or made the master. */
  onMoment: (proxy: ModelProxy, node: ModelNode, what: NodeCommand["kind"] | "accepted") => void = () =>
    undefined;
  /** A proxy has got an answer to the question who else is there. */
  onLook: (proxy: ModelProxy) => void = () => undefined;
  readonly #past = new Map<ModelProxy, Past>();
  /** See watchGap. */
  gapMs = 0;
  #watched: { readonly proxy: ModelProxy; readonly number: number; readonly fromMs: number } | null = null;

  constructor(
    time: Timeline,
    nodes: ReadonlyMap<string, ModelNode>,
    members: ReadonlySet<string>,
    modes: ReadonlySet<PromoteMode>,
  ) {
    this.#time = time;
    this.#nodes = nodes;
    this.#members = members;
    this.#modes = modes;
    this.rivals = new Rivals(time, this);
  }

  note(text: string): void {
    if (this.lines.length >= LOG_LINES * 2) this.lines.splice(0, LOG_LINES);
    this.lines.push(`${this.#time.nowMs.toFixed(1).padStart(9)} ${text}`);
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  violation(text: string): void {
    this.note(`VIOLATION ${text}`);
    this.violations.push(text);
  }

  watchGap(proxy: ModelProxy): void {
    this.#watched = { proxy, number: proxy.epoch.number, fromMs: this.#time.nowMs };
    this.gapMs = Number.POSITIVE_INFINITY;
  }

  #endGap(proxy: ModelProxy, epoch: Epoch): void {
    const watched = this.#watched;
    if (watched?.proxy !== proxy || epoch.holdCause !== null || epoch.number <= watched.number) return;
    this.gapMs = this.#time.nowMs - watched.fromMs;
    this.#watched = null;
  }

  #pastOf(proxy: ModelProxy): Past {
    let past = this.#past.get(proxy);
    if (past === undefined) {
      const never = Number.NEGATIVE_INFINITY;
      past = { masters: new Map(), askedMs: never, rolledBackMs: never, keptUntilMs: null };
      this.#past.set(proxy, past);
    }
    return past;
  }

  // Epochs

  epoch(proxy: ModelProxy, before: Epoch, epoch: Epoch, keptUntilMs: number | null): void {
    const { masters } = this.#pastOf(proxy);
    this.#endGap(proxy, epoch);
    const { number, master, holdCause } = epoch;
    if (before.master !== master || before.holdCause !== holdCause) {
      this.note(`${proxy.name}: epoch ${number} ${master ?? ""} ${holdCause ?? "writable"}`);
    }
    if (number < before.number) this.violation(`${proxy.name}: the epoch went back`);
    if (master !== null) {
      const known = masters.get(number);
      if (known === undefined) masters.set(number, { id: master, sinceMs: this.#time.nowMs });
      else if (known.id !== master) this.violation(`epoch ${number} has two masters`);
    }
    if (keptUntilMs !== null && before.master !== null) this.#judgeLoss(proxy, epoch, keptUntilMs);
  }

  /** What was answered before `keptUntilMs` must be there; what is missing of the rest is given up. */
  #judgeLoss(proxy: ModelProxy, epoch: Epoch, keptUntilMs: number): void {
    const node = epoch.master === null ? undefined : nodeNamed(this.#nodes, epoch.master);
    if (node === undefined || node.replid !== epoch.history?.replid) return;
    const there = new Set(node.log.map(({ write }) => write));
    let lost = 0;
    for (const write of this.writes) {
      if (write.proxy !== proxy.name || write.outcome !== "acked" || write.isGivenUp) continue;
      if (there.has(write.id)) continue;
      if (write.ackedAtMs < keptUntilMs && write.ackedIn !== "") {
        this.violation(`write ${write.id} was answered before ${keptUntilMs} and is not in ${epoch.master}`);
      }
      write.isGivenUp = true;
      write.givenUpAtMs = this.#time.nowMs;
      lost++;
    }
    if (lost > 0) {
      this.count("switches that lost something");
      this.note(`${proxy.name}: ${lost} answered writes are not in ${epoch.master}`);
    }
  }

  changed(proxy: ModelProxy, facts: SwitchFacts): void {
    this.count(`accepted ${facts.reason}`);
    if (facts.lostBytes === null) this.count("loss unknown");
    else if (facts.lostBytes > 0) this.count("loss reported");
    const { to, reason, lostBytes } = facts;
    this.note(`${proxy.name}: ${to} accepted: ${reason}, lost ${lostBytes ?? "unknown"}`);
    const node = nodeNamed(this.#nodes, to);
    if (facts.from !== null && node !== undefined && !this.#members.has(node.name)) {
      this.violation(`${to}, which is no member, was accepted as the master`);
    }
    if (facts.from !== null && node !== undefined) this.onMoment(proxy, node, "accepted");
  }

  // Writes

  sent(proxy: ModelProxy, write: Write, node: NodeId, number: number): void {
    const { epoch } = proxy;
    if (number !== epoch.number || node !== epoch.master || epoch.holdCause !== null) {
      this.violation(`write ${write.id} was sent to ${node} of epoch ${number}, which is not to be written`);
    }
    const name = nodeNamed(this.#nodes, node)?.name ?? "";
    if (!this.#members.has(name)) this.violation(`write ${write.id} was sent to ${node}, no member`);
  }

  acked(_proxy: ModelProxy, write: Write): void {
    if (write.ackedIn === "") this.count("answered after a switch");
  }

  // Commands

  command(proxy: ModelProxy, node: NodeId, command: NodeCommand): void {
    this.count(`command ${command.kind}`);
    this.note(`${proxy.name}: asks ${node} for ${command.kind}`);
    const model = nodeNamed(this.#nodes, node);
    if (model === undefined || !this.#members.has(model.name)) {
      this.violation(`${node} is no member and was asked for ${command.kind}`);
    }
    const isAsked = proxy.asked > 0 || this.#time.nowMs - proxy.lastAskedMs < DUTY_MS;
    // A replica may be asked for its word at any time: that changes nothing.
    const isHarmless = command.kind === "acknowledge";
    if (proxy.mode !== "self" && !isAsked && !isHarmless)
      this.violation(`${command.kind} although nobody asked`);
    if (model === undefined) return;
    if (command.kind === "promote") this.#judgePromotion(proxy, model);
    this.onMoment(proxy, model, command.kind);
  }

  #judgePromotion(proxy: ModelProxy, node: ModelNode): void {
    const believed = proxy.epoch.history?.replid ?? "";
    if (node.priority === 0) this.violation(`${node.name} has priority 0 and was to be promoted`);
    const belongs = node.replid === believed || node.replid2 === believed;
    const { report } = proxy.watcher.group().nodes.find(({ id }) => id === node.id) ?? { report: null };
    // What it has become since it was looked at cannot be known.
    if (!belongs && report?.replid !== believed) {
      this.violation(`${node.name} has another history and was to be promoted`);
    }
    if (!proxy.isHolding) this.violation(`${node.name} is promoted without a hold`);
    else if (proxy.epoch.holdCause === null) this.violation(`${node.name} is promoted while writes go on`);
  }

  performed(proxy: ModelProxy, node: ModelNode, command: NodeCommand, issuedAtMs: number): void {
    const { askedMs, rolledBackMs } = this.#pastOf(proxy);
    const isPromotion = command.kind === "promote" || command.kind === "failover";
    if (isPromotion && issuedAtMs >= askedMs && issuedAtMs < rolledBackMs) {
      this.violation(`${node.name} carries out ${command.kind} of a switch that was said to be rolled back`);
    }
    this.rivals.performed(proxy, node, command, issuedAtMs);
  }

  lookedFor(proxy: ModelProxy, node: ModelNode, channels: readonly string[], servedAtMs: number): void {
    this.onLook(proxy);
    this.rivals.lookedFor(proxy, node, channels, servedAtMs);
  }

  asksForRight(proxy: ModelProxy): void {
    this.rivals.asksForRight(proxy);
  }

  gotRight(proxy: ModelProxy, standing: Standing): void {
    this.rivals.gotRight(proxy, standing);
  }

  // Planned switches

  answered(proxy: ModelProxy, asked: Asked, answer: SwitchoverAnswer): void {
    this.count(`answer ${answer.kind}`);
    switch (answer.kind) {
      case "done": {
        const { to, lostBytes } = answer.report;
        this.note(`${proxy.name}: switchover done: ${to}, lost ${lostBytes ?? "unknown"}`);
        if (lostBytes !== 0) return this.count("done with a loss");
        const fromMs = asked.atMs;
        const accepted = [...this.#pastOf(proxy).masters.values()].find(
          ({ id, sinceMs }) => id === to && sinceMs >= fromMs,
        );
        // What is lost once it is the master is another loss: while it settles it may crash.
        const untilMs = accepted?.sinceMs ?? Number.POSITIVE_INFINITY;
        const isOfSwitch = (ms: number): boolean => ms >= fromMs && ms <= untilMs;
        const lost = this.writes.filter(
          (one) =>
            one.proxy === proxy.name && one.ackedIn !== "" && one.isGivenUp && isOfSwitch(one.givenUpAtMs),
        );
        if (lost.length > 0) this.violation(`a planned switch that lost nothing lost ${lost.length} writes`);
        return;
      }
      case "rolled-back":
        this.note(`${proxy.name}: switchover rolled back: ${answer.reason}`);
        Object.assign(this.#pastOf(proxy), { askedMs: asked.atMs, rolledBackMs: this.#time.nowMs });
        if (proxy.epoch.master !== asked.from) this.violation("rolled back, and the master is another one");
        return;
      case "open":
      case "refused":
        this.note(`${proxy.name}: switchover ${answer.kind}: ${answer.reason}`);
        if (/^the master is .* while it handed over$/.test(answer.reason))
          this.count("given up: handing over");
        if (/ was told to become the master$/.test(answer.reason)) this.count("given up: promoting");
        return;
    }
  }

  // Reads

  /**
   * A read that was routed to a replica shows what its client wrote before.
   * @returns to be called when its answer is here.
   */
  readAt(node: ModelNode, write: Write): () => void {
    const isThere = node.has(write.id);
    return () => {
      this.count("reads from a replica");
      if (isThere || write.isGivenUp) return;
      this.violation(`${node.name} was read and does not have write ${write.id}`);
    };
  }

  // The end

  /** @param isWell the proxies agree on a master; else what it has now is not what they stand for. */
  atTheEnd(proxies: readonly ModelProxy[], isWell: boolean): void {
    for (const proxy of proxies) {
      const master = proxy.epoch.master === null ? undefined : nodeNamed(this.#nodes, proxy.epoch.master);
      if (master !== undefined && isWell) this.#compare(proxy, master);
      if (proxy.asked > 0) this.violation(`${proxy.name}: ${proxy.asked} planned switches without an answer`);
      if (proxy.isHolding) this.violation(`${proxy.name} holds for ever`);
    }
  }

  /** acked ≤ final ≤ acked + uncertain, write by write. */
  #compare(proxy: ModelProxy, master: ModelNode): void {
    const times = new Map<number, number>();
    for (const { write } of master.log) times.set(write, (times.get(write) ?? 0) + 1);
    for (const write of this.writes) {
      if (write.proxy !== proxy.name) continue;
      const ran = times.get(write.id) ?? 0;
      if (ran > 1) this.violation(`write ${write.id} ran ${ran} times`);
      const mustBeThere = write.outcome === "acked" && !write.isGivenUp && write.ackedIn !== "";
      if (ran === 0 && mustBeThere)
        this.violation(`write ${write.id} was answered and is lost without a word`);
    }
  }

  get modes(): ReadonlySet<PromoteMode> {
    return this.#modes;
  }
}
