import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { EvidenceKind } from "../../../src/topology/epoch.ts";
import type { NodeReport } from "../../../src/topology/report.ts";
import { type Belief, FIRST_BELIEF, type NodeView } from "../../../src/topology/rules/model.ts";
import { decide, suspect } from "../../../src/topology/rules.ts";
import { at, hex, MAX_LAG_MS, report, unanswered, view } from "./nodes.ts";

/** A write of a history, by its number, and when the client had its answer. */
interface Write {
  readonly id: number;
  readonly endOffset: number;
  readonly answeredAtMs: number;
}

/** What a server has: the writes of its history up to its offset. */
interface Data {
  readonly replid: string;
  readonly offset: number;
  readonly writes: readonly Write[];
  readonly replid2: string | null;
  readonly forkOffset: number;
}

interface Server {
  readonly name: string;
  starts: number;
  data: Data;
  /** Whom it follows; null = it is a master. */
  of: Server | null;
  linkUp: boolean;
  /** A snapshot on its disk. */
  saved: Data;
  /** When it was asked, while it has not answered. */
  askedAtMs: number | null;
  /** What it answered, on its way, and how often it had jumped by then. */
  answer: { readonly said: NodeReport; readonly jumps: number } | null;
  /**
   * How often it took over other data as a whole: of another history, or of a replica that
   * has less. No connection ends then, so that is seen only by the next probe: the limit of what is proven.
   */
  jumps: number;
  /** Of those the proxy has seen so many. */
  seenJumps: number;
}

const NAMES = ["a", "b", "c"] as const;
const node = fc.nat(NAMES.length - 1);
const action = fc.oneof(
  {
    weight: 15,
    arbitrary: fc.record({ kind: fc.constant("write" as const), bytes: fc.integer({ min: 1, max: 3 }) }),
  },
  {
    weight: 15,
    arbitrary: fc.record({
      kind: fc.constant("replicate" as const),
      node,
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant("ask" as const), node }) },
  { weight: 10, arbitrary: fc.record({ kind: fc.constant("answer" as const), node }) },
  { weight: 10, arbitrary: fc.record({ kind: fc.constant("hear" as const), node }) },
  { weight: 30, arbitrary: fc.record({ kind: fc.constant("look" as const), node }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("ping" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("save" as const), node }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const), node }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("resync" as const), node }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("follow" as const), node, of: node }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("promote" as const), node }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("cut" as const), node }) },
);
type Action = typeof action extends fc.Arbitrary<infer T> ? T : never;
const script = fc.array(fc.record({ action, passMs: fc.constantFrom(0, 0, 1, 2, 5, 20, 100) }), {
  minLength: 20,
  maxLength: 120,
});

/** A group of servers, a proxy that writes and looks, and what is true. */
class World {
  nowMs = 1_000;
  belief: Belief = FIRST_BELIEF;
  readonly servers: readonly Server[];
  views: NodeView[] = NAMES.map((name) => unanswered(name, "never"));
  proofs = 0;
  switches = 0;
  #histories = 0;
  #writes = 0;

  constructor() {
    const data = { ...this.#newHistory(), offset: 100, writes: [], replid2: null, forkOffset: 0 };
    this.servers = NAMES.map((name) => ({
      ...{
        name,
        starts: 1,
        data,
        saved: data,
        of: null,
        linkUp: false,
        askedAtMs: null,
        answer: null,
        jumps: 0,
        seenJumps: 0,
      },
    }));
    for (const server of this.servers.slice(1)) this.#attach(server, this.servers[0]!);
  }

  play(step: Action, passMs: number): void {
    this.nowMs += passMs;
    switch (step.kind) {
      case "write":
        return this.#write(step.bytes);
      case "ping":
        for (const server of this.servers) if (server.of === null) this.#append(server, 14, []);
        return;
      case "replicate":
        return this.#replicate(this.servers[step.node]!, step.share);
      case "ask":
        return this.#ask(this.servers[step.node]!);
      case "answer":
        return this.#answer(this.servers[step.node]!);
      case "hear":
        return this.#hear(this.servers[step.node]!);
      case "look":
        this.#ask(this.servers[step.node]!);
        this.#answer(this.servers[step.node]!);
        return this.#hear(this.servers[step.node]!);
      case "save":
        this.servers[step.node]!.saved = this.servers[step.node]!.data;
        return;
      case "restart":
        return this.#restart(this.servers[step.node]!);
      case "resync":
        return this.#resync(this.servers[step.node]!);
      case "follow":
        return this.#follow(this.servers[step.node]!, this.servers[step.of]!);
      case "promote":
        return this.#promote(this.servers[step.node]!);
      case "cut":
        return this.#tell("connection-lost", this.servers[step.node]!);
    }
  }

  /** Through the proxy: only to the master of its belief, over a connection that carries its history. */
  #write(bytes: number): void {
    const { master, holdCause, history } = this.belief.epoch;
    const server = this.servers.find(({ name }) => at(name) === master);
    if (server === undefined || holdCause !== null || server.of !== null) return;
    if (hex(server.data.replid) !== history?.replid) return;
    const endOffset = server.data.offset + bytes;
    this.#append(server, bytes, [{ id: ++this.#writes, endOffset, answeredAtMs: this.nowMs }]);
  }

  #append(server: Server, bytes: number, writes: readonly Write[]): void {
    const { data } = server;
    server.data = { ...data, offset: data.offset + bytes, writes: [...data.writes, ...writes] };
  }

  #replicate(server: Server, share: number): void {
    if (server.of === null) return;
    const source = server.of.data;
    if (!server.linkUp || source.replid !== server.data.replid) return this.#attach(server, server.of);
    const offset = server.data.offset + Math.ceil((source.offset - server.data.offset) * share);
    server.data = {
      ...server.data,
      offset,
      writes: source.writes.filter(({ endOffset }) => endOffset <= offset),
    };
  }

  /** PSYNC: goes on where it is, if the other one has that in its history, and else takes over all of it. */
  #attach(server: Server, of: Server): void {
    const { data } = server;
    const source = of.data;
    const shares =
      (data.replid === source.replid && data.offset <= source.offset) ||
      (data.replid === source.replid2 && data.offset <= source.forkOffset);
    if (shares) {
      server.data = {
        ...data,
        replid: source.replid,
        replid2: source.replid2,
        forkOffset: source.forkOffset,
      };
    } else {
      this.#copy(server, of);
    }
    server.of = of;
    server.linkUp = true;
  }

  #resync(server: Server): void {
    if (server.of === null || !server.linkUp) return;
    this.#copy(server, server.of);
  }

  #copy(server: Server, of: Server): void {
    const { data } = server;
    if (data.replid !== of.data.replid || data.offset > of.data.offset) server.jumps++;
    server.data = of.data;
  }

  #follow(server: Server, of: Server): void {
    for (let up: Server | null = of; up !== null; up = up.of) if (up === server) return;
    this.#attach(server, of);
  }

  #promote(server: Server): void {
    const { data } = server;
    if (server.of === null) return;
    server.of = null;
    server.linkUp = false;
    server.data = { ...data, ...this.#newHistory(), replid2: data.replid, forkOffset: data.offset };
  }

  /** From its snapshot; a master has a new history then. */
  #restart(server: Server): void {
    server.starts++;
    server.data = server.saved;
    server.seenJumps = server.jumps;
    if (server.of === null) {
      const { replid, offset } = server.data;
      server.data = { ...server.data, ...this.#newHistory(), replid2: replid, forkOffset: offset };
    }
    for (const other of this.servers) if (other.of === server) other.linkUp = false;
    this.#tell("connection-lost", server);
  }

  /** Connections to it ended: that of the traffic, and that of the probe with what was asked there. */
  #tell(kind: EvidenceKind, { name }: Server): void {
    const server = this.servers.find((one) => one.name === name);
    if (server !== undefined) Object.assign(server, { askedAtMs: null, answer: null });
    const { number } = this.belief.epoch;
    this.belief = suspect(this.belief, { kind, node: at(name), epoch: number }, this.nowMs);
    expect(this.belief.epoch.readable.map(({ id }) => id)).not.toContain(at(name));
  }

  #ask(server: Server): void {
    if (server.answer === null) server.askedAtMs ??= this.nowMs;
  }

  #answer(server: Server): void {
    const { name, data, of, linkUp, starts, askedAtMs } = server;
    if (askedAtMs === null) return;
    server.askedAtMs = null;
    const said = report(name, askedAtMs, {
      ...{
        run: `${name}${starts}`,
        replid: data.replid,
        replid2: data.replid2,
        masterReplOffset: data.offset,
      },
      ...{ secondReplOffset: data.replid2 === null ? null : data.forkOffset + 1 },
      ...(of === null
        ? {}
        : { role: "replica" as const, linkUp, masterAddress: { host: of.name, port: 6379 } }),
    });
    server.answer = { said, jumps: server.jumps };
  }

  #hear(server: Server): void {
    const { answer, name } = server;
    if (answer === null) return;
    server.answer = null;
    server.seenJumps = answer.jumps;
    const said = { ...answer.said, receivedAtMs: this.nowMs };
    this.views = this.views.map((old) => (old.id === at(name) ? view(said) : old));
    const { belief, change } = decide(this.belief, this.views, { nowMs: this.nowMs, maxLagMs: MAX_LAG_MS });
    this.belief = belief;
    if (change?.kind === "switch") this.switches++;
    this.check();
  }

  #newHistory(): { replid: string } {
    return { replid: `H${++this.#histories}` };
  }

  /** Nothing is said to be proven that the node does not have. */
  check(): void {
    const { epoch } = this.belief;
    for (const { id, provenAtMs } of epoch.readable) {
      const server = this.servers.find(({ name }) => at(name) === id)!;
      if (server.jumps > server.seenJumps) continue;
      const has = new Set(server.data.writes.map(({ id: write }) => write));
      const answered = this.#history().filter(({ answeredAtMs }) => answeredAtMs < provenAtMs);
      const missing = answered.filter(({ id: write }) => !has.has(write));
      expect({ id, provenAtMs, missing }).toEqual({ id, provenAtMs, missing: [] });
      if (answered.length > 0) this.proofs++;
    }
  }

  /** The writes of the history that is believed: of all that ever was the same history, the longest. */
  #history(): readonly Write[] {
    const replid = this.belief.epoch.history?.replid;
    const all = this.servers.filter(({ data }) => hex(data.replid) === replid).map(({ data }) => data.writes);
    return all.reduce((longest, writes) => (writes.length > longest.length ? writes : longest), []);
  }
}

describe("a proof", () => {
  it("is never false: over switches, restarts with older data, resyncs and new histories (6, 7)", () => {
    let proofs = 0;
    let switches = 0;
    fc.assert(
      fc.property(script, (steps) => {
        const world = new World();
        for (const [index] of world.servers.entries()) world.play({ kind: "look", node: index }, 1);
        for (const { action: step, passMs } of steps) world.play(step, passMs);
        proofs += world.proofs;
        switches += world.switches;
      }),
      { numRuns: 2_000 },
    );
    // Or the scripts show nothing.
    expect(proofs).toBeGreaterThan(1_000);
    expect(switches).toBeGreaterThan(2_100);
  });
});
