/** Probes as the real ones behave, over the model's network. */
import type { NodeId } from "../../../../src/topology/epoch.ts";
import type {
  NodeProbe,
  ProbeEvents,
  ProbeFailureKind,
  ProbeOutcome,
} from "../../../../src/topology/probing.ts";
import type { NodeReport } from "../../../../src/topology/report.ts";
import { Connection, type Network } from "./network.ts";
import type { ModelNode } from "./node.ts";
import type { Party } from "./timeline.ts";

export const PROBE_TIMEOUT_MS = 1_000;

interface Running {
  readonly startedAtMs: number;
  readonly done: (outcome: ProbeOutcome) => void;
  cancelTimer: () => void;
}

export class ModelProbe implements NodeProbe {
  readonly #network: Network;
  readonly #party: Party;
  readonly #node: ModelNode | undefined;
  readonly #events: ProbeEvents;
  #connection: Connection | null = null;
  #running: Running | null = null;

  constructor(network: Network, party: Party, node: ModelNode | undefined, events: ProbeEvents) {
    this.#network = network;
    this.#party = party;
    this.#node = node;
    this.#events = events;
  }

  probe(_full: boolean, done: (outcome: ProbeOutcome) => void): void {
    const { time } = this.#network;
    const running: Running = { startedAtMs: time.nowMs, done, cancelTimer: () => undefined };
    this.#running = running;
    // A late timer still lets an answer in that lies in the socket: see #overdue of the real probe.
    const overdue = (): void => void time.after(0.01, () => this.#fail(running, "timeout"), this.#party);
    running.cancelTimer = time.after(PROBE_TIMEOUT_MS, overdue, this.#party);
    const node = this.#node;
    if (node === undefined) return void time.after(1, () => this.#fail(running, "unreachable"), this.#party);
    const connection = this.#connection;
    if (connection !== null) return this.#ask(connection, running);
    const dialled: Connection = new Connection(this.#network, this.#party, node, () => this.#lost(dialled));
    this.#connection = dialled;
    dialled.open(() => this.#ask(dialled, running));
  }

  #ask(connection: Connection, running: Running): void {
    if (this.#running !== running) return;
    const sentAtMs = this.#network.time.nowMs;
    connection.send<NodeReport>(
      (node, answer) => answer(node.report(sentAtMs)),
      (report) => {
        if (this.#running !== running) return;
        const receivedAtMs = this.#network.time.nowMs;
        this.#settle(running, { ok: true, report: { ...report, receivedAtMs } });
      },
    );
  }

  #lost(connection: Connection): void {
    if (this.#connection !== connection) return;
    this.#connection = null;
    const running = this.#running;
    if (running === null) return this.#events.onClosed();
    this.#fail(running, connection.isOpen ? "closed" : "unreachable");
  }

  #fail(running: Running, kind: ProbeFailureKind): void {
    if (this.#running !== running) return;
    this.#connection?.close();
    this.#connection = null;
    this.#settle(running, { ok: false, kind, detail: kind, startedAtMs: running.startedAtMs });
  }

  #settle(running: Running, outcome: ProbeOutcome): void {
    running.cancelTimer();
    this.#running = null;
    running.done(outcome);
  }

  close(): void {
    this.#running?.cancelTimer();
    this.#running = null;
    this.#connection?.close();
    this.#connection = null;
  }
}

export function nodeNamed(nodes: ReadonlyMap<string, ModelNode>, id: NodeId): ModelNode | undefined {
  return nodes.get(id.split(":")[0] ?? "");
}
