/**
 * The master crashes or hangs in the middle of a planned switch, in every phase of it, where the proxy
 * promotes: when the switch is answered, and when a replica is told to take over.
 */
import { describe, expect, it } from "vitest";
import type { Effect } from "../../../src/failover/model.ts";
import type { NodeView } from "../../../src/topology/rules/model.ts";
import { at } from "../topology/nodes.ts";
import { DONE, lost, masterAt, NEVER, Play, replicaAt, SELF, UNKNOWN, UNREACHABLE } from "./sight.ts";

type Fault = "crash" | "hang";
type Run = Extract<Effect, { kind: "run" }>;

const TIMEOUT_MS = 20_000;
/** Such switches are over before their master counts as gone, or before an heir has been waited for. */
const SHORT_MS = 500;
const USUAL_MS = 2_000;
const PATIENT = { ...SELF, downAfterMs: 10_000 };
/** The master is lost then. */
const LOST_MS = 1_100;
const STEP_MS = 10;
/** How long a probe or a command waits for an answer. */
const SILENT_MS = 1_000;
const HANDING = { failoverState: "waiting-for-sync" as const };
/** The heir lacks something still. */
const BUSY = { masterReplOffset: 114, appliedOffset: 114 };
const OLD_SERVER = { version: "6.0.16" };

interface Loss {
  readonly fault: Fault;
  /** The heir is not heard of from the same time on. */
  readonly isHeirSilent?: boolean;
  /** Of equals the operator would have the third. */
  readonly isThirdPreferred?: boolean;
  /** What the master said last. */
  readonly word?: object;
}

const well = (sentAtMs: number, word = {}): NodeView[] => [
  ...[masterAt("a", sentAtMs, word), replicaAt("b", sentAtMs), replicaAt("c", sentAtMs)],
];
const asked = (settings = SELF, word = {}, timeoutMs = TIMEOUT_MS) =>
  new Play(settings).see(996, well(995, word)).ask(1_000, { timeoutMs });
const failover = (settings = SELF, timeoutMs = TIMEOUT_MS) => asked(settings, {}, timeoutMs).drained(1_004);
const handing = (settings = SELF, timeoutMs = TIMEOUT_MS) =>
  failover(settings, timeoutMs).ended(1_006, "failover").see(1_090, well(1_089, HANDING));
const shortly = () => handing(SELF, SHORT_MS);
const usually = () => handing(SELF, USUAL_MS);
const patiently = () => handing(PATIENT, USUAL_MS);
const aborting = () => {
  const gone = lost(replicaAt("b", 1_000), "unreachable");
  return handing().see(1_095, [masterAt("a", 1_094, HANDING), gone, replicaAt("c", 1_094)]);
};
const pausing = () => asked(SELF, OLD_SERVER).drained(1_004);
const comparing = () => pausing().ended(1_006, "pause-writes").see(1_020, well(1_003));
const promoting = () => comparing().see(1_090, well(1_008));

function runsOf({ all }: Play): Run[] {
  return all.flatMap((effect) => (effect.kind === "run" ? [effect] : []));
}

function promotionsOf(play: Play): Run[] {
  return runsOf(play).filter(({ command }) => command.kind === "promote");
}

/** What the nodes answer from then on. */
class Nodes {
  readonly #play: Play;
  readonly #loss: Loss;
  readonly #endsAtMs = new Map<number, number>();
  readonly #ended = new Set<number>();
  #hasAskedReplicas = false;

  constructor(play: Play, loss: Loss) {
    this.#play = play;
    this.#loss = loss;
  }

  answer(nowMs: number): void {
    for (const { id, node, command } of runsOf(this.#play)) {
      if (this.#ended.has(id)) continue;
      if (command.kind === "relink") this.#hasAskedReplicas = true;
      const isSilent = this.#isSilent(node.slice(0, 1));
      const endsAtMs = this.#endsAtMs.get(id) ?? (isSilent ? nowMs + SILENT_MS : nowMs);
      this.#endsAtMs.set(id, endsAtMs);
      if (nowMs < endsAtMs) continue;
      this.#ended.add(id);
      const isGone = node === at("a") && !isSilent;
      // What was under way when it crashed may have been carried out.
      const result = isSilent ? UNKNOWN : isGone ? (nowMs === LOST_MS ? UNKNOWN : UNREACHABLE) : DONE;
      this.#play.do(nowMs, { kind: "ended", id, result });
    }
  }

  #isSilent(node: string): boolean {
    return (
      (node === "a" && this.#loss.fault === "hang") || (node === "b" && this.#loss.isHeirSilent === true)
    );
  }

  look(nowMs: number): void {
    const { fault, isHeirSilent, isThirdPreferred, word } = this.#loss;
    const isKnown = fault === "crash" || nowMs >= LOST_MS + SILENT_MS;
    const hold = !isKnown ? null : fault === "crash" ? "connection-lost" : "silent";
    const master = masterAt("a", LOST_MS - 5, word);
    const linkUp = fault === "hang" && !this.#hasAskedReplicas;
    const heir = isHeirSilent
      ? lost(replicaAt("b", LOST_MS - 5), "silent")
      : replicaAt("b", nowMs - 1, { linkUp });
    const seen = isKnown ? lost(master, fault === "crash" ? "unreachable" : "silent") : master;
    const priority = isThirdPreferred ? 1 : 100;
    this.#play.see(nowMs, [seen, heir, replicaAt("c", nowMs - 1, { linkUp, priority })], { hold });
  }
}

/** @returns phase, answer and when, who was told to take over after that and when; ms after the loss. */
function lose(play: Play, loss: Loss): string {
  const { phase } = play;
  const told = promotionsOf(play).length;
  const nodes = new Nodes(play, loss);
  let answered = "never";
  for (let nowMs = LOST_MS; nowMs < LOST_MS + 2 * TIMEOUT_MS; nowMs += STEP_MS) {
    nodes.answer(nowMs);
    nodes.look(nowMs);
    if (answered === "never" && play.answers.length > 0) {
      answered = `${play.answers[0]?.kind} after ${nowMs - LOST_MS}`;
    }
    if (play.phase === "confirming") play.confirmed(nowMs);
    const order = promotionsOf(play)[told];
    if (order !== undefined) {
      return `${phase}: ${answered}, ${order.node.slice(0, 1)} after ${nowMs - LOST_MS}`;
    }
  }
  return `${phase}: ${answered}, nobody`;
}

/** Every phase: what the master is told, and how long it takes. Times in ms after the loss. */
const ROWS: readonly (readonly [make: () => Play, loss: Loss, ending: string])[] = [
  [asked, { fault: "crash" }, "draining: rolled-back after 0, b after 260"],
  [asked, { fault: "hang" }, "draining: rolled-back after 1000, b after 3000"],
  // FAILOVER is not answered.
  [failover, { fault: "crash" }, "handing-over: open after 0, b after 260"],
  [failover, { fault: "hang" }, "handing-over: open after 3000, b after 3000"],
  [handing, { fault: "crash", word: HANDING }, "handing-over: open after 0, b after 260"],
  [handing, { fault: "hang", word: HANDING }, "handing-over: open after 3000, b after 3000"],
  [handing, { fault: "crash", isHeirSilent: true, word: HANDING }, "handing-over: open after 0, c after 260"],
  // The master may go on with it: the heir is waited for, for as long as for any that was told.
  [
    handing,
    { fault: "hang", isHeirSilent: true, word: HANDING },
    "handing-over: open after 5000, c after 5000",
  ],
  // The switch is over before that: the heir is the heir still.
  [
    shortly,
    { fault: "hang", isThirdPreferred: true, word: HANDING },
    "handing-over: open after 2400, b after 3000",
  ],
  [
    shortly,
    { fault: "hang", isHeirSilent: true, word: HANDING },
    "handing-over: open after 2400, c after 5000",
  ],
  [
    usually,
    { fault: "hang", isHeirSilent: true, word: HANDING },
    "handing-over: open after 3900, c after 5000",
  ],
  [
    patiently,
    { fault: "hang", isThirdPreferred: true, word: HANDING },
    "handing-over: open after 3900, b after 10000",
  ],
  [
    patiently,
    { fault: "hang", isHeirSilent: true, word: HANDING },
    "handing-over: open after 3900, c after 12000",
  ],
  [aborting, { fault: "crash", word: HANDING }, "aborting: open after 260, b after 260"],
  [aborting, { fault: "hang", word: HANDING }, "aborting: open after 3000, b after 3000"],
  [pausing, { fault: "crash" }, "pausing: rolled-back after 0, b after 260"],
  [pausing, { fault: "hang" }, "pausing: rolled-back after 1000, b after 3000"],
  [comparing, { fault: "crash", word: BUSY }, "comparing: rolled-back after 0, b after 260"],
  [comparing, { fault: "hang", word: BUSY }, "comparing: rolled-back after 1000, b after 3000"],
  // The order that was given is that of the promotion: its end is waited for, then the next one is told.
  [promoting, { fault: "crash", isHeirSilent: true }, "promoting: open after 260, c after 3010"],
  [promoting, { fault: "hang", isHeirSilent: true }, "promoting: open after 3000, c after 3010"],
];

describe("a planned switch whose master is lost is answered, and a replica takes over, as if there was none", () => {
  it.each(ROWS)("%#: %o %o %s", (make, loss, ending) => {
    expect(lose(make(), loss)).toBe(ending);
  });
});

/** At `nowMs`, of the hang of LOST_MS. */
function hanging(
  nowMs: number,
  heir = replicaAt("b", nowMs - 1),
  third = replicaAt("c", nowMs - 1),
): NodeView[] {
  return [lost(masterAt("a", LOST_MS - 5, HANDING), "silent"), heir, third];
}

describe("while a master that hangs hands over", () => {
  const silent = { hold: "silent" as const };
  const SWITCHED = { of: "b", replid: "H2", epoch: 2 };

  it("it is waited for as long as replicas hear from it", () => {
    const play = handing().see(2_100, hanging(2_100), silent).see(3_950, hanging(3_950), silent);
    expect(play.runs.filter((run) => run.endsWith("relink"))).toEqual(["b: relink", "c: relink"]);
    play.relinked(3_955);
    // Their links are made anew: it is there, only not for us.
    play.see(4_150, hanging(4_150), silent).see(4_300, hanging(4_300), silent);
    expect([play.phase, play.answers]).toEqual(["handing-over", []]);
  });

  it("and the heir takes over by it, the switch is done, and nobody else is told", () => {
    const play = handing().see(2_100, hanging(2_100), silent);
    const b = masterAt("b", 2_149, { replid: "H2", replid2: "H1" });
    play.see(2_150, hanging(2_150, b), SWITCHED);
    expect([play.phase, play.isHolding]).toEqual(["settling", false]);
    expect(play.see(4_200, hanging(4_200, b), SWITCHED).answers).toMatchObject([{ kind: "done" }]);
    expect(play.allRuns).not.toContain("c: promote");
  });

  it("people are told of the master when the switch is given up, not before", () => {
    const play = handing();
    const told: string[] = [];
    for (let nowMs = 2_100; play.phase !== "confirming"; nowMs += 10) {
      const down = { linkUp: false };
      play.see(
        nowMs,
        hanging(nowMs, replicaAt("b", nowMs - 1, down), replicaAt("c", nowMs - 1, down)),
        silent,
      );
      told.push(...play.told.map((what) => `${what} ${nowMs}`));
    }
    expect(told).toEqual(["master-suspected 4100", "switchover-open 4100"]);
  });

  it("of equals the heir is promoted, whatever else speaks for another one", () => {
    const down = { linkUp: false };
    const preferred = { ...down, priority: 1 };
    const play = handing();
    for (let nowMs = 2_100; play.phase !== "confirming"; nowMs += 10) {
      const nodes = hanging(nowMs, replicaAt("b", nowMs - 1, down), replicaAt("c", nowMs - 1, preferred));
      play.see(nowMs, nodes, silent);
    }
    expect(play.confirmed(4_110).runs).toEqual(["b: promote"]);
  });

  it("but one that has more is", () => {
    const down = { linkUp: false };
    const more = { ...down, appliedOffset: 120, receivedOffset: 120 };
    const play = handing();
    for (let nowMs = 2_100; play.phase !== "confirming"; nowMs += 10) {
      play.see(
        nowMs,
        hanging(nowMs, replicaAt("b", nowMs - 1, down), replicaAt("c", nowMs - 1, more)),
        silent,
      );
    }
    expect(play.confirmed(4_110).runs).toEqual(["c: promote"]);
  });

  it("where nobody promotes, the time of the switch counts as before", () => {
    const play = handing(NEVER);
    play.see(4_500, hanging(4_500, replicaAt("b", 4_499, { linkUp: false })), silent);
    expect([play.phase, play.answers]).toEqual(["handing-over", []]);
  });
});

describe("after a switch that was over before its end was known", () => {
  /** The master says that it hands over still, and hangs only then. */
  const open = () => {
    const play = shortly().see(1_500, well(1_499, HANDING)).ended(1_510, "abort-failover", UNKNOWN);
    play.see(3_500, well(3_499, HANDING));
    expect([play.phase, play.answers]).toMatchObject(["none", [{ kind: "open" }]]);
    return play;
  };
  const promotedIn = (play: Play): string[] => {
    const preferred = { linkUp: false, priority: 1 };
    for (let nowMs = 4_600; play.phase !== "confirming" && nowMs < 9_000; nowMs += 10) {
      const heir = replicaAt("b", nowMs - 1, { linkUp: false });
      const views = [lost(masterAt("a", 3_600), "silent"), heir, replicaAt("c", nowMs - 1, preferred)];
      play.see(nowMs, views, { hold: "silent" });
    }
    return play.confirmed(play.nowMs + 1).runs;
  };

  it("the heir stays the heir, also if the master is missed later", () => {
    expect(promotedIn(open().see(3_600, well(3_599, HANDING)))).toEqual(["b: promote"]);
  });

  it("until the master is seen to hand over no more", () => {
    expect(promotedIn(open().see(3_600, well(3_599)))).toEqual(["c: promote"]);
  });

  it("nobody else is told while the heir is not heard, also if it falls silent at the last moment", () => {
    const play = open();
    const down = { linkUp: false };
    const hold = { hold: "silent" as const };
    const master = lost(masterAt("a", 3_499, HANDING), "silent");
    let nowMs = 4_500;
    for (; play.phase !== "confirming"; nowMs += 10) {
      const others = [replicaAt("b", nowMs - 1, down), replicaAt("c", nowMs - 1, down)];
      play.see(nowMs, [master, ...others], hold);
    }
    const silent = lost(replicaAt("b", nowMs - 20, down), "silent");
    play.see(nowMs, [master, silent, replicaAt("c", nowMs - 1, down)], hold);
    expect(play.confirmed(nowMs + 1).runs).toEqual([]);
    play.see(nowMs + 2_100, [master, silent, replicaAt("c", nowMs + 2_099, down)], hold);
    expect(play.confirmed(nowMs + 2_101).runs).toEqual(["c: promote"]);
  });
});

describe("an heir that was told by a switch, of a master that is gone", () => {
  const down = { linkUp: false };
  const crashed = (nowMs: number, heir: NodeView): NodeView[] => [
    ...[lost(masterAt("a", LOST_MS - 5), "unreachable"), heir, replicaAt("c", nowMs - 1, down)],
  ];
  const held = { hold: "connection-lost" as const };
  /** b hangs with the order; nobody knows whether it has read it. */
  const left = () => {
    const play = promoting();
    const silent = lost(replicaAt("b", 1_095), "silent");
    play.see(1_100, crashed(1_100, silent), held).see(1_110, crashed(1_110, silent), held);
    return play.see(1_400, crashed(1_400, silent), held);
  };

  it("is that of the promotion: writes stay held, and it is not told again", () => {
    const play = left();
    expect([play.phase, play.isHolding]).toEqual(["promoting", true]);
    const reason = "the master is crashed (connection-lost), and b:6379 was told to become the master";
    expect(play.answers).toEqual([{ kind: "open", reason }]);
    const b = masterAt("b", 1_499, { replid: "H2", replid2: "H1" });
    play.see(1_500, crashed(1_500, b), { of: "b", replid: "H2", epoch: 2 });
    expect([play.phase, play.isHolding]).toEqual(["none", false]);
    expect(play.told).toContain("promoted");
    expect(play.allRuns.filter((run) => run.endsWith("promote"))).toEqual(["b: promote"]);
  });

  it("that answers and has not obeyed is told again, as any candidate is", () => {
    const play = left().ended(2_090, "promote", UNKNOWN);
    play.see(2_100, crashed(2_100, replicaAt("b", 2_099, down)), held);
    expect([play.phase, play.isHolding]).toEqual(["none", false]);
    expect(play.told).toContain("promotion-failed");
  });
});
