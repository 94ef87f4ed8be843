import { describe, expect, it } from "vitest";
import type { Epoch, EvidenceKind, NodeId } from "../../../src/topology/epoch.ts";
import type {
  NodeProbe,
  ProbeEvents,
  ProbeFailureKind,
  ProbeOutcome,
} from "../../../src/topology/probing.ts";
import type { NodeReport } from "../../../src/topology/report.ts";
import { type SwitchFacts, Watcher, type WatcherOptions } from "../../../src/topology/watcher.ts";
import { at, naming, replicaReport, report, type Word } from "./nodes.ts";
import { FakeTime } from "./time.ts";

const INTERVAL_MS = 100;
const TIMEOUT_MS = 1_000;

type Behaviour = ((nowMs: number) => NodeReport) | ProbeFailureKind;

/** Nodes that answer after 1 ms as they are told to be; timeouts take the whole time-out. */
class FakeNodes {
  readonly behaviours = new Map<NodeId, Behaviour>();
  readonly events = new Map<NodeId, ProbeEvents>();
  readonly started: { node: NodeId; full: boolean; atMs: number }[] = [];
  closed = 0;
  readonly #time: FakeTime;

  constructor(time: FakeTime) {
    this.#time = time;
  }

  readonly create = (node: NodeId, events: ProbeEvents): NodeProbe => {
    this.events.set(node, events);
    return {
      probe: (full, done) => {
        const startedAtMs = this.#time.nowMs;
        this.started.push({ node, full, atMs: startedAtMs });
        const behaviour = this.behaviours.get(node) ?? "unreachable";
        const answer = (): ProbeOutcome =>
          typeof behaviour === "function"
            ? { ok: true, report: behaviour(startedAtMs) }
            : { ok: false, kind: behaviour, detail: "as told", startedAtMs };
        this.#time.set(() => done(answer()), behaviour === "timeout" ? TIMEOUT_MS : 1);
      },
      close: () => {
        this.closed++;
      },
    };
  };

  countSince(node: NodeId, sinceMs: number): number {
    return this.started.filter((probe) => probe.node === node && probe.atMs >= sinceMs).length;
  }
}

class Scene {
  readonly time = new FakeTime();
  readonly nodes = new FakeNodes(this.time);
  readonly epochs: Epoch[] = [];
  readonly switches: SwitchFacts[] = [];
  readonly returns: SwitchFacts[] = [];
  readonly problems: string[] = [];
  readonly watcher: Watcher;

  constructor(options: Partial<WatcherOptions> = {}) {
    this.watcher = new Watcher(
      {
        seeds: [at("a"), at("b"), at("c")],
        intervalMs: INTERVAL_MS,
        timeoutMs: TIMEOUT_MS,
        maxLagMs: 10_000,
        ...options,
      },
      {
        onEpoch: (epoch) => this.epochs.push(epoch),
        onSwitch: (facts) => this.switches.push(facts),
        onReturn: (facts) => this.returns.push(facts),
        onProblem: (problem, change) =>
          this.problems.push(`${change} ${problem.kind} ${problem.node?.[0] ?? ""}`.trim()),
        onFacts: () => {},
      },
      {
        clock: { nowMs: () => this.time.nowMs, wallMs: () => 1e12 + this.time.nowMs },
        createProbe: this.nodes.create,
        random: () => 0.5,
        setTimer: this.time.set,
      },
    );
  }

  master(name: string, word: Word = {}): void {
    this.nodes.behaviours.set(at(name), (nowMs) => report(name, nowMs, word));
  }

  replica(name: string, word: Word & { of?: string } = {}): void {
    this.nodes.behaviours.set(at(name), (nowMs) => replicaReport(name, nowMs, word));
  }

  fails(name: string, kind: ProbeFailureKind): void {
    this.nodes.behaviours.set(at(name), kind);
  }

  evidence(kind: EvidenceKind, name: string): void {
    this.watcher.evidence({ kind, node: at(name), epoch: this.epoch.number });
  }

  get epoch(): Epoch {
    return this.watcher.current();
  }
}

/** a is the master, b and c its replicas, and probing has become calm. */
function calm(options: Partial<WatcherOptions> = {}): Scene {
  const scene = new Scene(options);
  scene.master("a");
  scene.replica("b");
  scene.replica("c");
  scene.watcher.start();
  scene.time.pass(4_000);
  expect(scene.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
  expect(scene.epoch.readable).toHaveLength(2);
  return scene;
}

describe("evidence", () => {
  it("holds before the call returns, and probes at once; the answer ends the hold", () => {
    const scene = calm();
    const startedAtMs = scene.time.nowMs;
    scene.evidence("connection-lost", "a");
    expect(scene.epoch.holdCause).toBe("connection-lost");
    expect(scene.epochs.at(-1)).toBe(scene.epoch);
    scene.time.pass(0);
    // A probe of the very same millisecond proves nothing yet; the next one comes 5 ms later at the earliest.
    scene.time.pass(30);
    expect(scene.epoch.holdCause).toBeNull();
    expect(scene.nodes.countSince(at("a"), startedAtMs)).toBeGreaterThan(0);
    expect(scene.nodes.started.find(({ atMs }) => atMs >= startedAtMs)?.full).toBe(true);
  });

  it("in a storm starts no more than one round per 5 ms", () => {
    const scene = calm();
    const startedAtMs = scene.time.nowMs;
    for (let i = 0; i < 200; i++) {
      scene.evidence("connection-lost", "a");
      scene.time.pass(0.25);
    }
    expect(scene.nodes.countSince(at("a"), startedAtMs)).toBeLessThanOrEqual(11);
  });

  it("about a replica stops reads from it before the call returns", () => {
    const scene = calm();
    scene.evidence("connection-lost", "b");
    expect(scene.epoch.readable.map(({ id }) => id)).toEqual([at("c")]);
    expect(scene.epoch.holdCause).toBeNull();
    scene.time.pass(50);
    expect(scene.epoch.readable).toHaveLength(2);
  });

  it("about an unknown node or from an old epoch changes nothing; the latter starts a probe", () => {
    const scene = calm();
    const before = scene.epoch;
    const startedAtMs = scene.time.nowMs;
    scene.watcher.evidence({ kind: "not-master", node: at("z"), epoch: 1 });
    expect(scene.nodes.countSince(at("a"), startedAtMs)).toBe(0);
    scene.watcher.evidence({ kind: "not-master", node: at("a"), epoch: 0 });
    expect(scene.epoch).toBe(before);
    expect(scene.nodes.countSince(at("a"), startedAtMs)).toBe(1);
  });
});

describe("the rate of probes", () => {
  it("is one per interval while all is well", () => {
    const scene = calm();
    const startedAtMs = scene.time.nowMs;
    scene.time.pass(1_000);
    expect(scene.nodes.countSince(at("a"), startedAtMs)).toBe(10);
  });

  it("is five per interval while there is no master, and a promotion is seen within 25 ms (12)", () => {
    const scene = calm();
    scene.fails("a", "unreachable");
    scene.fails("c", "unreachable");
    scene.time.pass(1_000);
    expect(scene.epoch.holdCause).toBe("connection-lost");
    // Every write waits for the master to be back; another dead node is dialled once per interval at most.
    expect(scene.nodes.countSince(at("a"), scene.time.nowMs - 1_000)).toBeGreaterThan(40);
    expect(scene.nodes.countSince(at("c"), scene.time.nowMs - 1_000)).toBeLessThanOrEqual(13);
    const promotedAtMs = scene.time.nowMs;
    scene.master("b", { replid: "H2", replid2: "H1" });
    for (let passed = 0; scene.epoch.number === 1 && passed < 100; passed++) scene.time.pass(1);
    expect(scene.time.nowMs - promotedAtMs).toBeLessThanOrEqual(25);
    expect(scene.switches[1]).toMatchObject({
      epochNumber: 2,
      from: at("a"),
      to: at("b"),
      reason: "promoted",
    });
    const outageMs = scene.switches[1]!.atMs - scene.switches[1]!.masterGoneAtMs!;
    expect(outageMs).toBeGreaterThan(850);
    expect(outageMs).toBeLessThan(1_050);
  });

  it("dials at once when a probe's connection ends: crashes are seen in milliseconds", () => {
    const scene = calm();
    scene.time.pass(50);
    scene.fails("a", "unreachable");
    scene.nodes.events.get(at("a"))?.onClosed();
    scene.time.pass(8);
    expect(scene.epoch.holdCause).toBe("connection-lost");
  });

  it("dials a node that hung up during a probe again at once: that alone tells whether it is gone", () => {
    const scene = calm();
    scene.fails("a", "closed");
    scene.evidence("connection-lost", "a");
    scene.time.pass(2);
    scene.master("a");
    scene.time.pass(10);
    expect(scene.epoch.holdCause).toBeNull();
  });
});

describe("while proof is sought", () => {
  const PROOF_MS = 20;
  const provenAt = (scene: Scene, name: string) =>
    scene.epoch.readable.find(({ id }) => id === at(name))?.provenAtMs ?? Number.NEGATIVE_INFINITY;

  /** The master writes a byte a ms; replicas have what was written `lagMs` ago. */
  function writing(lagMs: number, options: Partial<WatcherOptions> = {}): Scene {
    const scene = calm({ proofIntervalMs: PROOF_MS, ...options });
    const written = (nowMs: number) => Math.floor(nowMs);
    scene.nodes.behaviours.set(at("a"), (nowMs) => report("a", nowMs, { masterReplOffset: written(nowMs) }));
    for (const name of ["b", "c"]) {
      scene.nodes.behaviours.set(at(name), (nowMs) =>
        replicaReport(name, nowMs, { appliedOffset: Math.max(0, written(nowMs - lagMs)) }),
      );
    }
    scene.time.pass(350);
    return scene;
  }

  it("one round is enough: the master is asked at once, and the replicas as soon as it has answered", () => {
    const scene = writing(0);
    const soughtMs = scene.time.nowMs;
    scene.watcher.seekProof();
    scene.time.pass(3);
    expect(scene.nodes.started.filter(({ atMs }) => atMs >= soughtMs)).toMatchObject([
      { node: at("a"), atMs: soughtMs },
      { node: at("b"), atMs: soughtMs + 1 },
      { node: at("c"), atMs: soughtMs + 1 },
    ]);
    expect([provenAt(scene, "b"), provenAt(scene, "c")]).toEqual([soughtMs, soughtMs]);
  });

  it("a proof is as old as the question to the master, however late its answer is seen", () => {
    const scene = writing(0);
    const soughtMs = scene.time.nowMs;
    scene.watcher.seekProof();
    scene.time.pass(10);
    expect(provenAt(scene, "b")).toBe(soughtMs);
  });

  it("nothing more is asked once all that may be read have given it", () => {
    const scene = writing(0);
    scene.watcher.seekProof();
    scene.time.pass(5);
    const laterMs = scene.time.nowMs;
    scene.time.pass(1_000);
    expect(scene.nodes.countSince(at("a"), laterMs)).toBeLessThanOrEqual(11);
    expect(scene.nodes.countSince(at("b"), laterMs)).toBeLessThanOrEqual(11);
  });

  it("it is given up after three intervals when the replicas lag, and goes on while it is asked for", () => {
    const scene = writing(5_000);
    const soughtMs = scene.time.nowMs;
    scene.watcher.seekProof();
    scene.time.pass(95);
    expect(scene.nodes.countSince(at("b"), soughtMs)).toBeGreaterThanOrEqual(3);
    expect(scene.nodes.countSince(at("b"), soughtMs)).toBeLessThanOrEqual(6);
    const busyMs = scene.time.nowMs;
    for (let passed = 0; passed < 1_000; passed++) {
      scene.watcher.seekProof();
      scene.time.pass(1);
    }
    expect(scene.nodes.countSince(at("a"), busyMs)).toBeGreaterThan(45);
    expect(scene.nodes.countSince(at("b"), busyMs)).toBeGreaterThan(45);
    scene.time.pass(100);
    const idleMs = scene.time.nowMs;
    scene.time.pass(1_000);
    expect(scene.nodes.countSince(at("b"), idleMs)).toBeLessThanOrEqual(11);
  });

  it("the master is asked no more often than the interval says, besides its ordinary probes", () => {
    const scene = writing(0);
    const sinceMs = scene.time.nowMs;
    for (let passed = 0; passed < 4_000; passed++) {
      scene.watcher.seekProof();
      scene.time.pass(0.25);
    }
    const count = scene.nodes.countSince(at("a"), sinceMs);
    expect(count).toBeGreaterThan(45);
    expect(count).toBeLessThanOrEqual(1_000 / PROOF_MS + 1_000 / INTERVAL_MS + 2);
  });

  it("a replica whose probe was on its way when the master answered is asked once more", () => {
    const scene = writing(0);
    // An ordinary round asks all at the same time.
    const before = scene.nodes.started.length;
    while (scene.nodes.started.length === before) scene.time.pass(0.5);
    const roundMs = scene.nodes.started[before]!.atMs;
    expect(scene.nodes.countSince(at("b"), roundMs)).toBe(1);
    scene.watcher.seekProof();
    scene.time.pass(5);
    expect(scene.nodes.countSince(at("b"), roundMs)).toBe(2);
    expect(provenAt(scene, "b")).toBe(roundMs);
  });

  it("rounds of their own keep their times: every node is asked at every interval", () => {
    const scene = writing(5_000);
    scene.fails("c", "unreachable");
    for (let passed = 0; passed < 3_000; passed++) {
      scene.watcher.seekProof();
      scene.time.pass(1);
    }
    for (const name of ["a", "b", "c"]) {
      const times = scene.nodes.started.filter(({ node }) => node === at(name)).map(({ atMs }) => atMs);
      const late = times.slice(-20);
      const gaps = late.slice(1).map((atMs, index) => atMs - late[index]!);
      expect(Math.max(...gaps)).toBeLessThanOrEqual(INTERVAL_MS * 1.1 + 2);
      // A node that does not answer is not dialled for proof.
      if (name === "c") expect(Math.min(...gaps)).toBeGreaterThanOrEqual(INTERVAL_MS * 0.8);
    }
  });

  it("that is ended by close() leaves no timer", () => {
    const scene = writing(5_000);
    scene.watcher.seekProof();
    scene.watcher.destroy();
    scene.watcher.seekProof();
    const before = scene.nodes.started.length;
    scene.time.pass(2_000);
    expect(scene.nodes.started).toHaveLength(before);
    expect(scene.time.pending).toBe(0);
  });

  it("without a master nothing more is asked than otherwise", () => {
    const scene = writing(5_000);
    scene.fails("a", "unreachable");
    scene.time.pass(200);
    const dialled = (seeks: boolean): number => {
      const sinceMs = scene.time.nowMs;
      for (let passed = 0; passed < 1_000; passed++) {
        if (seeks) scene.watcher.seekProof();
        scene.time.pass(1);
      }
      return scene.nodes.countSince(at("a"), sinceMs);
    };
    expect(dialled(true)).toBe(dialled(false));
  });

  it("a master that stands still for writes is proven all the same: nothing has to be written (7)", () => {
    const scene = calm({ proofIntervalMs: PROOF_MS });
    const soughtMs = scene.time.nowMs;
    scene.watcher.seekProof();
    scene.time.pass(5);
    expect(provenAt(scene, "b")).toBe(soughtMs);
    scene.time.pass(1_000);
    expect(provenAt(scene, "b")).toBeGreaterThan(scene.time.nowMs - INTERVAL_MS * 1.1 - 5);
  });
});

describe("a replica that stands still", () => {
  it("falls behind by what the master goes on to write, before its probe is given up (47)", () => {
    const scene = calm({ maxLagMs: 400, timeoutMs: 5_000 });
    scene.nodes.behaviours.set(at("a"), (nowMs) =>
      report("a", nowMs, { masterReplOffset: Math.floor(nowMs) }),
    );
    scene.replica("c", { appliedOffset: 1_000_000 });
    scene.time.pass(300);
    scene.replica("b", { appliedOffset: Math.floor(scene.time.nowMs) });
    scene.time.pass(120);
    expect(scene.epoch.readable.map(({ id }) => id)).toContain(at("b"));
    scene.fails("b", "timeout");
    const stoppedMs = scene.time.nowMs;
    while (scene.epoch.readable.some(({ id }) => id === at("b"))) scene.time.pass(5);
    expect(scene.time.nowMs - stoppedMs).toBeLessThan(700);
    expect(scene.watcher.nodes().find(({ id }) => id === at("b"))).toMatchObject({
      contact: "answering",
      fit: "lagging-time",
    });
  });

  it("is not read from the moment on at which its connection ends, until it has answered (47)", () => {
    const scene = calm();
    scene.time.pass(50);
    scene.nodes.events.get(at("b"))?.onClosed();
    expect(scene.epoch.readable.map(({ id }) => id)).toEqual([at("c")]);
    scene.time.pass(10);
    expect(scene.epoch.readable.map(({ id }) => id)).toEqual([at("b"), at("c")]);
    expect(scene.epochs.every(({ holdCause, number }) => number === 0 || holdCause === null)).toBe(true);
  });
});

describe("answers", () => {
  it("that come within a moment are judged together, whichever is first (42)", () => {
    const scene = calm();
    scene.fails("a", "timeout");
    scene.time.pass(2_000);
    scene.master("b", { replid: "H2", replid2: "H1" });
    scene.master("c", { replid: "H3", replid2: "H1" });
    scene.time.pass(200);
    expect(scene.epoch).toMatchObject({ number: 1, holdCause: "no-common-truth" });
    expect(scene.problems).toContain("raised no-common-truth");
  });

  it("BUSY says that the node lives, and nothing else", () => {
    const scene = calm();
    scene.fails("a", "busy");
    scene.time.pass(1_000);
    expect(scene.epoch.holdCause).toBeNull();
    scene.evidence("connection-lost", "a");
    scene.time.pass(1_000);
    expect(scene.epoch.holdCause).toBe("connection-lost");
  });
});

describe("a stall of our own process", () => {
  it("makes no node silent: time-outs that passed while we did not run are not judged", () => {
    const scene = calm();
    for (const name of ["a", "b", "c"]) scene.fails(name, "timeout");
    scene.time.pass(150); // probes are under way
    scene.master("a");
    scene.replica("b");
    scene.replica("c");
    const before = scene.epochs.length;
    scene.time.nowMs += 3_000; // everything stands still, then all timers are overdue
    scene.time.pass(50);
    expect(scene.epochs.slice(before).map(({ holdCause }) => holdCause)).toEqual([]);
    expect(scene.epoch.holdCause).toBeNull();
    expect(scene.problems).toContain("raised stalled");
    scene.time.pass(1_000);
    expect(scene.epoch.holdCause).toBeNull();
    expect(scene.problems).toContain("cleared stalled");
  });

  it("does not hide a node that stays silent afterwards", () => {
    const scene = calm();
    scene.fails("a", "timeout");
    scene.time.pass(150);
    scene.time.nowMs += 3_000;
    scene.time.pass(1_500);
    expect(scene.epoch.holdCause).toBe("silent");
  });
});

describe("problems", () => {
  it("are told once when they come and once when they go", () => {
    const scene = calm();
    scene.fails("b", "no-access");
    scene.time.pass(2_000);
    scene.replica("b");
    scene.time.pass(500);
    expect(scene.problems).toEqual(["raised probe-no-access b", "cleared probe-no-access b"]);
    expect(scene.watcher.problems()).toEqual([]);
  });

  it("name a claimant that is refused, as long as it claims", () => {
    const scene = calm();
    scene.master("c", { replid: "X", run: "c2" });
    scene.time.pass(1_000);
    expect(scene.watcher.problems()).toMatchObject([{ kind: "claimant-refused", node: at("c") }]);
    expect(scene.problems).toEqual(["raised claimant-refused c"]);
  });
});

describe("hints", () => {
  it("that a promotion is expected have all nodes asked every 10 to 20 ms, for that long", () => {
    const scene = calm();
    const sinceMs = scene.time.nowMs;
    scene.watcher.hint([at("b")], 1_000);
    scene.time.pass(1_000);
    expect(scene.nodes.countSince(at("b"), sinceMs)).toBeGreaterThan(50);
    expect(scene.nodes.countSince(at("c"), sinceMs)).toBeGreaterThan(50);
    scene.time.pass(200);
    const laterMs = scene.time.nowMs;
    scene.time.pass(1_000);
    expect(scene.nodes.countSince(at("b"), laterMs)).toBeLessThan(15);
  });

  it("leave room for the nodes that the group itself names", () => {
    const scene = calm({ maxNodes: 8 });
    scene.watcher.hint(["u", "v", "w", "x", "y", "z"].map(at));
    expect(scene.watcher.nodes().map(({ id }) => id[0])).toEqual(["a", "b", "c", "u", "v", "w"]);
  });
});

describe("the Sentinels' word", () => {
  it("takes effect at once, and its problems are told like all others", () => {
    const scene = calm();
    scene.fails("a", "unreachable");
    scene.master("b", { replid: "H2", replid2: "H1", secondReplOffset: 101 });
    scene.master("c", { replid: "H3", replid2: "H1", secondReplOffset: 101 });
    scene.time.pass(300);
    expect(scene.epoch).toMatchObject({ number: 1, holdCause: "no-common-truth" });
    const problem = { kind: "sentinel-unreachable", node: at("s"), detail: "gone" } as const;
    scene.watcher.listen({ ...naming("c"), problems: [problem] });
    scene.time.pass(5);
    expect(scene.epoch).toMatchObject({ number: 2, master: at("c"), holdCause: null });
    expect(scene.switches.at(-1)).toMatchObject({ reason: "sentinel", lostBytes: 0 });
    expect(scene.problems).toContain("raised sentinel-unreachable s");
    scene.watcher.listen(naming("c"));
    scene.time.pass(50);
    expect(scene.problems).toContain("cleared sentinel-unreachable s");
  });
});

describe("the set of nodes", () => {
  const listing = (names: readonly string[]) =>
    names.map((host) => ({ host, port: 6379, state: "online", offset: 1, lag: 0 }));

  it("grows by what the group says, up to its bound", () => {
    const scene = new Scene({ seeds: [at("b")], maxNodes: 3 });
    scene.replica("b");
    scene.master("a", { replicas: listing(["b", "c", "d"]) });
    scene.replica("c");
    scene.watcher.start();
    scene.time.pass(500);
    expect(scene.watcher.nodes().map(({ id }) => id)).toEqual([at("b"), at("a"), at("c")]);
    expect(scene.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    expect(scene.problems).toEqual(["raised too-many-nodes d"]);
  });

  it("forgets a discovered node that is gone and that nobody mentions; configured ones never", () => {
    const scene = calm({ forgetAfterMs: 5_000 });
    scene.master("a", { replicas: listing(["d"]) });
    scene.replica("d");
    scene.time.pass(300);
    expect(scene.epoch.readable).toHaveLength(3);
    scene.fails("d", "unreachable");
    scene.fails("c", "unreachable");
    scene.time.pass(10_000);
    expect(scene.watcher.nodes()).toHaveLength(4); // still listed by its master
    scene.master("a");
    scene.time.pass(6_000);
    expect(scene.watcher.nodes().map(({ id }) => id)).toEqual([at("a"), at("b"), at("c")]);
    expect(scene.nodes.closed).toBe(1);
  });

  it("takes hints", () => {
    const scene = new Scene({ seeds: [] });
    scene.master("a");
    scene.watcher.start();
    scene.time.pass(500);
    expect(scene.epoch.number).toBe(0);
    scene.watcher.hint([at("a")]);
    scene.time.pass(10);
    expect(scene.epoch).toMatchObject({ number: 1, master: at("a") });
  });

  it("is described with what each said and why it is not read", () => {
    const scene = calm();
    scene.replica("c", { linkUp: false, syncInProgress: true, appliedOffset: 40 });
    scene.fails("b", "unreachable");
    scene.time.pass(300);
    expect(scene.watcher.nodes()).toMatchObject([
      { id: at("a"), isMaster: true, reachable: true, fit: "is-master", said: { role: "master" } },
      {
        id: at("b"),
        reachable: false,
        contact: "unreachable",
        fit: "unreachable",
        lastProblem: { detail: "as told" },
      },
      { id: at("c"), reachable: true, fit: "syncing", lagBytes: 60 },
    ]);
  });
});

describe("adopting", () => {
  it("makes a refused master the master again, and is told as a return", () => {
    const scene = calm();
    scene.master("a", { replid: "X", run: "a2", keys: 0, masterReplOffset: 0 });
    scene.time.pass(500);
    expect(scene.epoch.holdCause).toBe("history-refused");
    expect(scene.watcher.adopt(at("z"))).toEqual({ ok: false, reason: "unknown-node" });
    expect(scene.watcher.adopt(at("a"))).toEqual({ ok: true });
    expect(scene.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    expect(scene.returns).toMatchObject([{ reason: "operator", lostBytes: null, epochNumber: 1 }]);
    expect(scene.problems.at(-1)).toBe("cleared history-refused a");
  });
});

describe("the end", () => {
  it("leaves no timer, no probe and no callback, however often it is called", async () => {
    const scene = calm();
    const before = scene.epochs.length;
    scene.evidence("connection-lost", "b");
    scene.watcher.destroy();
    await scene.watcher.close();
    scene.time.pass(5_000);
    scene.watcher.evidence({ kind: "connection-lost", node: at("a"), epoch: 1 });
    scene.watcher.hint([at("z")]);
    expect(scene.epochs.length).toBe(before + 1);
    expect(scene.time.pending).toBe(0);
  });

  it("may come from within a callback", () => {
    const scene = calm();
    const { watcher } = scene;
    scene.epochs.push = () => {
      watcher.destroy();
      return 0;
    };
    scene.evidence("connection-lost", "a");
    scene.time.pass(1_000);
    expect(scene.time.pending).toBe(0);
  });
});

describe("a belief of before a restart", () => {
  /** What a watcher believed that has seen a as the master of b and c. */
  function believed() {
    const scene = new Scene();
    scene.master("a");
    scene.replica("b");
    scene.replica("c");
    scene.watcher.start();
    scene.time.pass(500);
    const { epoch, ...rest } = scene.watcher.belief();
    expect(epoch).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    scene.watcher.destroy();
    return { ...rest, epoch: { ...epoch, holdCause: "no-master-yet", readable: [] } } as const;
  }

  it("is published at the start as one that is held, and verified by the first probes (51)", () => {
    const scene = new Scene({ belief: believed() });
    scene.master("a");
    scene.replica("b");
    scene.replica("c");
    scene.watcher.start();
    expect(scene.epochs).toMatchObject([{ number: 1, master: at("a"), holdCause: "no-master-yet" }]);
    scene.time.pass(5);
    expect(scene.epochs[1]).toMatchObject({ number: 1, master: at("a"), holdCause: null });
    expect(scene.switches).toEqual([]);
    expect(scene.returns).toEqual([]);
  });

  it("keeps its master watched, also when it is not configured any more", () => {
    const scene = new Scene({ belief: believed(), seeds: [at("b")] });
    scene.fails("a", "unreachable");
    scene.replica("b", { linkUp: false });
    scene.watcher.start();
    scene.time.pass(100_000);
    expect(scene.watcher.views().map(({ id }) => id)).toContain(at("a"));
    expect(scene.epoch).toMatchObject({ master: at("a"), holdCause: "connection-lost" });
    scene.replica("b", { of: "c", replid: "H2", replid2: "H1", secondReplOffset: 101 });
    scene.master("c", { replid: "H2", replid2: "H1", secondReplOffset: 101 });
    scene.time.pass(2_000);
    expect(scene.switches).toMatchObject([
      { from: at("a"), to: at("c"), reason: "promoted", epochNumber: 2 },
    ]);
  });

  it("makes an empty master of the same address no master (41)", () => {
    const scene = new Scene({ belief: believed() });
    scene.master("a", { run: "a2", replid: "NEW", keys: 0 });
    scene.fails("b", "unreachable");
    scene.fails("c", "unreachable");
    scene.watcher.start();
    scene.time.pass(5_000);
    expect(scene.epoch).toMatchObject({ number: 1, master: at("a"), holdCause: "history-refused" });
    expect(scene.problems).toContain("raised history-refused a");
  });
});
