/**
 * A data plane as simple as it can be: writes go to the epoch's master over one connection an epoch, or are
 * held; what was lost with its connection is uncertain. Reads go to each node over one connection that lasts
 * as long as its process.
 */
import type { Epoch, Evidence, NodeId } from "../../../../src/topology/epoch.ts";
import { FIRST_EPOCH } from "../../../../src/topology/epoch.ts";
import type { Faulty } from "./faulty.ts";
import { Connection, type Network } from "./network.ts";
import type { ModelNode, WriteReply } from "./node.ts";
import { nodeNamed } from "./prober.ts";
import type { Party } from "./timeline.ts";

export interface Write {
  readonly id: number;
  readonly proxy: string;
  outcome: "open" | "acked" | "uncertain";
  ackedAtMs: number;
  /** The history it was answered in; "" = by a master that was not the epoch's any more. */
  ackedIn: string;
  /** A switch has told that it may be lost. */
  isGivenUp: boolean;
  givenUpAtMs: number;
  done: () => void;
}

export interface RouterEvents {
  evidence(evidence: Evidence): void;
  /** A write is put on the wire. */
  sent(write: Write, node: NodeId, epoch: number): void;
  acked(write: Write): void;
  fault(text: string): void;
}

interface Line {
  readonly node: NodeId;
  readonly epoch: number;
  readonly connection: Connection;
  readonly inFlight: Map<number, Write>;
  isOver: boolean;
}

/** A connection that is read over, and what is on its way there. */
interface Reader {
  readonly connection: Connection;
  readonly reads: Set<Read>;
}

interface Read {
  /** The node answers. @returns what is to be done when the answer is here. */
  readonly serve: (node: ModelNode) => () => void;
}

const RETIRE_MS = 1_000;
const REDIAL_MS = 20;

export class ModelRouter {
  epoch: Epoch = FIRST_EPOCH;
  readonly held: Write[] = [];
  uncertain = 0;
  resent = 0;
  readonly #network: Network;
  readonly #party: Party;
  readonly #nodes: ReadonlyMap<string, ModelNode>;
  readonly #events: RouterEvents;
  readonly #faulty: Faulty;
  readonly #readers = new Map<NodeId, Reader>();
  #line: Line | null = null;
  #redialAtMs = 0;

  constructor(
    network: Network,
    party: Party,
    nodes: ReadonlyMap<string, ModelNode>,
    events: RouterEvents,
    faulty: Faulty,
  ) {
    this.#network = network;
    this.#party = party;
    this.#nodes = nodes;
    this.#events = events;
    this.#faulty = faulty;
  }

  get writable(): boolean {
    return this.epoch.master !== null && this.epoch.holdCause === null;
  }

  setEpoch(epoch: Epoch): void {
    const before = this.epoch;
    this.epoch = epoch;
    const line = this.#line;
    if (line !== null && (epoch.number !== before.number || line.epoch !== epoch.number)) {
      this.#line = null;
      // What is on the way there may still be answered.
      this.#network.time.after(RETIRE_MS, () => this.#end(line), this.#party);
    }
    // Nothing is heard from where nothing is to be read any more.
    for (const [id, { reads }] of this.#readers) {
      if (epoch.readable.every((one) => one.id !== id)) reads.clear();
    }
    this.#flush();
  }

  /** Another process than the one that the connection was opened to never answers. */
  read(id: NodeId, serve: Read["serve"]): void {
    const reader = this.#readers.get(id) ?? this.#dialReader(id);
    const read: Read = { serve };
    reader?.reads.add(read);
    if (reader?.connection.isOpen) this.#ask(reader, read);
  }

  #dialReader(id: NodeId): Reader | null {
    const node = nodeNamed(this.#nodes, id);
    if (node === undefined) return null;
    const reader: Reader = {
      reads: new Set(),
      connection: new Connection(this.#network, this.#party, node, () => {
        this.#readers.delete(id);
        const kind = reader.connection.isOpen ? "connection-lost" : "connect-failed";
        this.#events.evidence({ kind, node: id, epoch: this.epoch.number });
      }),
    };
    this.#readers.set(id, reader);
    reader.connection.open(() => {
      for (const read of reader.reads) this.#ask(reader, read);
    });
    return reader;
  }

  #ask({ connection, reads }: Reader, read: Read): void {
    connection.send<() => void>(
      (node, answer) => answer(read.serve(node)),
      (done) => {
        if (reads.delete(read)) done();
      },
    );
  }

  write(write: Write): void {
    if (this.writable && this.held.length === 0 && this.#send(write)) return;
    this.held.push(write);
  }

  /** Once nothing that was sent to the master is unanswered. */
  whenDrained(done: () => void): () => void {
    const { time } = this.#network;
    const look = (): void => {
      const line = this.#line;
      if (line === null || line.inFlight.size === 0) done();
      else cancel = time.after(1, look, this.#party);
    };
    let cancel = time.after(0, look, this.#party);
    return () => cancel();
  }

  #flush(): void {
    if (!this.writable) return;
    const waiting = this.held.splice(0);
    for (const [i, write] of waiting.entries()) {
      if (this.writable && this.#send(write)) continue;
      this.held.unshift(...waiting.slice(i));
      return;
    }
  }

  #send(write: Write): boolean {
    const line = this.#line ?? this.#dial();
    if (line === null) return false;
    line.inFlight.set(write.id, write);
    if (line.connection.isOpen) this.#put(line, write);
    return true;
  }

  #dial(): Line | null {
    const { time } = this.#network;
    const { master, number } = this.epoch;
    const node = master === null ? undefined : nodeNamed(this.#nodes, master);
    if (master === null || node === undefined) return null;
    if (time.nowMs < this.#redialAtMs) {
      time.at(this.#redialAtMs, () => this.#flush(), this.#party);
      return null;
    }
    this.#redialAtMs = time.nowMs + REDIAL_MS;
    const line: Line = {
      ...{ node: master, epoch: number, inFlight: new Map(), isOver: false },
      connection: new Connection(this.#network, this.#party, node, () => this.#lost(line)),
    };
    this.#line = line;
    line.connection.open(() => {
      if (this.#line !== line) return this.#end(line);
      for (const write of [...line.inFlight.values()]) {
        if (this.writable) this.#put(line, write);
        else this.#putBack(line, write);
      }
    });
    return line;
  }

  #putBack(line: Line, write: Write): void {
    line.inFlight.delete(write.id);
    this.held.push(write);
    if (this.writable) this.#network.time.after(1, () => this.#flush(), this.#party);
  }

  #put(line: Line, write: Write): void {
    this.#events.sent(write, line.node, line.epoch);
    line.connection.send<WriteReply>(
      (node, answer) => node.write(write.id, answer),
      (reply) => this.#answered(line, write, reply),
    );
  }

  #answered(line: Line, write: Write, reply: WriteReply): void {
    if (line.isOver || !line.inFlight.delete(write.id)) return;
    if (reply === "ok") {
      write.outcome = "acked";
      write.ackedAtMs = this.#network.time.nowMs;
      const isCurrent = line.epoch === this.epoch.number;
      write.ackedIn = isCurrent ? `${this.epoch.history?.replid ?? ""}` : "";
      this.#events.acked(write);
      return write.done();
    }
    this.resent++;
    const kind = reply === "READONLY" ? "not-master" : "loading";
    this.held.push(write);
    this.#events.evidence({ kind, node: line.node, epoch: line.epoch });
    if (this.writable) this.#network.time.after(1, () => this.#flush(), this.#party);
  }

  #lost(line: Line): void {
    const wasOpen = line.connection.isOpen;
    if (this.#line === line) this.#line = null;
    this.#end(line);
    this.#events.evidence({
      kind: wasOpen ? "connection-lost" : "connect-failed",
      ...{ node: line.node, epoch: line.epoch },
    });
  }

  /** Nothing more is to be heard from there. */
  #end(line: Line): void {
    if (line.isOver) return;
    line.isOver = true;
    line.connection.close();
    for (const write of line.inFlight.values()) {
      const isUnsent = !line.connection.isOpen;
      if (isUnsent || this.#faulty.resendsUncertain) {
        this.held.push(write);
        continue;
      }
      this.uncertain++;
      write.outcome = "uncertain";
      write.done();
    }
    line.inFlight.clear();
    this.#flush();
  }
}
