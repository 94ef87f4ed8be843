import { describe, expect, it } from "vitest";
import type { NodeId } from "../../../../src/topology/epoch.ts";
import type { SentinelWord } from "../../../../src/topology/rules/sentinel.ts";
import type {
  Answer,
  AskOutcome,
  LinkEvents,
  SentinelLink,
} from "../../../../src/topology/sentinel/asking.ts";
import { SentinelWatch } from "../../../../src/topology/sentinel/watch.ts";
import { at, hex } from "../nodes.ts";
import { FakeTime } from "../time.ts";

/** What a Sentinel answers to one call; null = its connection fails. */
type Behaviour = (call: readonly string[]) => Answer | null;

const value = (reply: unknown): Answer => ({ ok: true, value: reply });
const error = (text: string): Answer => ({ ok: false, error: text });

function instance(name: string, flags = "slave", run = name): string[] {
  return ["ip", name, "port", "6379", "runid", hex(run), "flags", flags];
}

interface Told {
  readonly master?: string | null;
  /** Whom SENTINEL MASTER is about; default the same. */
  readonly described?: string;
  readonly replicas?: readonly string[][];
  readonly others?: readonly string[];
  readonly quorum?: Answer;
  readonly failover?: Answer;
  readonly tilt?: boolean;
  readonly old?: boolean;
}

/** A Sentinel `name` of the group a (master), b and c, and of the Sentinels s, t and u. */
function telling(name: string, told: Told = {}): Behaviour {
  const { master = "a", others = ["s", "t", "u"], described = master ?? "" } = told;
  return ([command, question]) => {
    if (command === "info") return value(`sentinel_tilt:${told.tilt === true ? 1 : 0}\r\n`);
    switch (question) {
      case "get-master-addr-by-name":
        return value(master === null ? null : [master, "6379"]);
      case "master":
        if (master === null) return error("ERR No such master with that name");
        return value(["config-epoch", "4", "ip", described, "port", "6379", "runid", hex(described)]);
      case "myid":
        return value(hex(name));
      case "sentinels":
        return value(others.filter((other) => other !== name).map((other) => instance(other, "sentinel")));
      case "replicas":
        if (told.old === true) return error("ERR Unknown sentinel subcommand 'replicas'");
        return value(told.replicas ?? [instance("b"), instance("c")]);
      case "slaves":
        return value([instance("b"), instance("c")]);
      case "ckquorum":
        return told.quorum ?? value("OK 3 usable Sentinels");
      case "failover":
        return told.failover ?? value("OK");
      default:
        throw new Error(`not expected: ${command} ${question}`);
    }
  };
}

class Scene {
  readonly time = new FakeTime();
  readonly behaviours = new Map<NodeId, Behaviour>();
  /** Those that stand still: what they are asked they never answer. */
  readonly hanging = new Set<NodeId>();
  readonly events = new Map<NodeId, LinkEvents>();
  readonly asked: { node: NodeId; questions: string[]; atMs: number }[] = [];
  readonly hints: { nodes: readonly string[]; denseMs: number }[] = [];
  readonly watch: SentinelWatch;
  word: SentinelWord | null = null;
  held = false;
  closed = 0;

  constructor(seeds: readonly string[] = ["s", "t", "u"]) {
    this.watch = new SentinelWatch(
      { name: "mymaster", seeds: seeds.map(at), intervalMs: 100 },
      {
        onHint: (nodes, denseMs) => this.hints.push({ nodes: nodes.map((node) => node[0]!), denseMs }),
        onWord: (word) => {
          this.word = word;
        },
      },
      {
        clock: { nowMs: () => this.time.nowMs, wallMs: () => 1e12 },
        createLink: (sentinel, events) => this.#link(sentinel, events),
        isHeld: () => this.held,
        random: () => 0.5,
        setTimer: this.time.set,
      },
    );
  }

  #link(node: NodeId, events: LinkEvents): SentinelLink {
    this.events.set(node, events);
    return {
      deaf: null,
      ask: async (calls): Promise<AskOutcome> => {
        const questions = calls.map(([command, question]) => (command === "info" ? "info" : question!));
        this.asked.push({ node, questions, atMs: this.time.nowMs });
        if (this.hanging.has(node)) return new Promise(() => {});
        const answers = calls.map(this.behaviours.get(node) ?? (() => null));
        const whole = answers.filter((answer) => answer !== null);
        if (whole.length === answers.length) return { ok: true, answers: whole };
        return { ok: false, kind: "unreachable", detail: "as told" };
      },
      close: () => {
        this.closed++;
      },
    };
  }

  tells(name: string, told: Told = {}): void {
    this.behaviours.set(at(name), telling(name, told));
  }

  event(name: string, channel: string, text: string): void {
    this.events.get(at(name))!.onMessage(channel, text);
  }

  askedSince(name: string, sinceMs: number): number {
    return this.asked.filter(({ node, atMs }) => node === at(name) && atMs >= sinceMs).length;
  }

  states(): Record<string, string> {
    return Object.fromEntries(this.watch.view().map(({ id, state }) => [id[0]!, state]));
  }
}

/** Three Sentinels that agree, watched for a while. */
async function calm(seeds?: readonly string[]): Promise<Scene> {
  const scene = new Scene(seeds);
  for (const name of ["s", "t", "u"]) scene.tells(name);
  scene.watch.start();
  // Between two questions.
  await scene.time.passWithPromises(5_500);
  scene.hints.length = 0;
  return scene;
}

const SLAVE = "slave b:6379 b 6379 @ mymaster a 6379";

describe("questions", () => {
  it("are asked about once a second in calm, all of them", async () => {
    const scene = await calm();
    const sinceMs = scene.time.nowMs;
    await scene.time.passWithPromises(10_000);
    for (const name of ["s", "t", "u"]) expect(scene.askedSince(name, sinceMs)).toBeCloseTo(10, -1);
    const kinds = new Set(scene.asked.flatMap(({ questions }) => questions));
    expect([...kinds].sort()).toEqual(
      ["ckquorum", "get-master-addr-by-name", "info", "master", "myid", "replicas", "sentinels"].sort(),
    );
  });

  it("are asked about every probe interval while writes are held, and from the first moment on", async () => {
    const scene = await calm();
    const sinceMs = scene.time.nowMs;
    scene.held = true;
    scene.watch.hurry();
    await scene.time.passWithPromises(50);
    expect(scene.askedSince("s", sinceMs)).toBe(1);
    await scene.time.passWithPromises(2_950);
    expect(scene.askedSince("s", sinceMs)).toBeGreaterThan(25);
  });

  it("to one that does not answer are asked more and more rarely, and it is found again", async () => {
    const scene = await calm();
    scene.behaviours.delete(at("u"));
    await scene.time.passWithPromises(10_000);
    const sinceMs = scene.time.nowMs;
    await scene.time.passWithPromises(10_000);
    expect(scene.askedSince("u", sinceMs)).toBeLessThanOrEqual(6);
    expect(scene.askedSince("u", sinceMs)).toBeGreaterThanOrEqual(4);
    expect(scene.states()).toEqual({ s: "agreeing", t: "agreeing", u: "unreachable" });
    scene.tells("u");
    await scene.time.passWithPromises(2_500);
    expect(scene.states().u).toBe("agreeing");
  });

  it("are never asked without a pause, whatever a Sentinel shouts", async () => {
    const scene = await calm();
    const sinceMs = scene.time.nowMs;
    for (let i = 0; i < 1_000; i++) {
      scene.event("s", "+tilt", "#tilt mode entered");
      await scene.time.passWithPromises(1);
    }
    expect(scene.askedSince("s", sinceMs)).toBeLessThanOrEqual(52);
  });

  it("about replicas are asked in the old words of an old Sentinel", async () => {
    const scene = new Scene(["s"]);
    scene.tells("s", { old: true, others: [] });
    scene.watch.start();
    await scene.time.passWithPromises(3_000);
    expect(scene.asked.at(-1)?.questions).toContain("slaves");
    expect(scene.hints.flatMap(({ nodes }) => nodes).sort()).toEqual(["a", "b", "c"]);
  });

  it("end when it is closed", async () => {
    const scene = await calm();
    scene.watch.close();
    const { length } = scene.asked;
    scene.watch.hurry();
    await scene.time.passWithPromises(10_000);
    expect([scene.asked.length, scene.closed, scene.time.pending]).toEqual([length, 3, 0]);
  });
});

describe("other Sentinels", () => {
  it("are found from one, and have a say", async () => {
    const scene = new Scene(["s"]);
    for (const name of ["s", "t", "u"]) scene.behaviours.set(at(name), telling(name));
    scene.watch.start();
    await scene.time.passWithPromises(1_500);
    expect(scene.word).toMatchObject({
      agreed: at("a"),
      configEpoch: 4,
      known: 3,
      agreeing: 3,
      settled: true,
    });
  });

  it("are bounded in number, and forgotten when they are gone and nobody knows them", async () => {
    const many = Array.from({ length: 60 }, (_, i) => `s${i}`);
    const scene = new Scene(["s"]);
    scene.tells("s", { others: many });
    scene.watch.start();
    await scene.time.passWithPromises(3_000);
    expect(scene.watch.view().length).toBe(32);
    scene.tells("s", { others: [] });
    await scene.time.passWithPromises(70_000);
    expect(scene.watch.view().map(({ id }) => id)).toEqual([at("s")]);
    expect(scene.closed).toBe(31);
  });

  it("at an address that does not answer are no problem, and are forgotten, while they answer at another", async () => {
    const scene = await calm();
    // Away for a moment, s is looked for where it announces itself, which leads nowhere from here.
    scene.behaviours.delete(at("s"));
    for (const name of ["t", "u"]) {
      const others = [instance(name === "t" ? "u" : "t", "sentinel"), instance("x", "sentinel", "s")];
      scene.behaviours.set(at(name), (call) =>
        call[1] === "sentinels" ? value(others) : telling(name)(call),
      );
    }
    await scene.time.passWithPromises(3_000);
    expect(scene.watch.view().map(({ id }) => id)).toContain(at("x"));
    expect(scene.word?.problems.map(({ kind }) => kind)).toContain("sentinel-unreachable");
    scene.tells("s");
    await scene.time.passWithPromises(5_000);
    expect(scene.word).toMatchObject({ known: 3, agreeing: 3, problems: [] });
    await scene.time.passWithPromises(70_000);
    expect(scene.watch.view().map(({ id }) => id)).toEqual([at("s"), at("t"), at("u")]);
  });
});

describe("hints", () => {
  it("name all nodes once, and no replica that is down", async () => {
    const scene = new Scene();
    const replicas = [instance("b"), instance("c", "slave,s_down,disconnected")];
    for (const name of ["s", "t", "u"]) scene.tells(name, { replicas });
    scene.watch.start();
    await scene.time.passWithPromises(5_000);
    expect(scene.hints).toEqual(["s", "t", "u"].map(() => ({ nodes: ["a", "b"], denseMs: 0 })));
    scene.hints.length = 0;
    scene.tells("s");
    await scene.time.passWithPromises(1_500);
    expect(scene.hints).toEqual([{ nodes: ["c"], denseMs: 0 }]);
  });

  it("follow an answer with another master, and have the nodes looked at densely", async () => {
    const scene = await calm();
    scene.tells("s", { master: "b" });
    await scene.time.passWithPromises(1_200);
    expect(scene.hints[0]).toEqual({ nodes: ["b"], denseMs: 2_000 });
    expect(scene.states()).toEqual({ s: "disagreeing", t: "agreeing", u: "agreeing" });
  });

  it.each([
    ["+selected-slave", SLAVE, ["b", "a"], 10_000],
    ["+try-failover", "master mymaster a 6379", ["a"], 10_000],
    ["+promoted-slave", SLAVE, ["b", "a"], 2_000],
    ["+switch-master", "mymaster a 6379 b 6379", ["b", "a"], 2_000],
    ["+sdown", "master mymaster a 6379", ["a"], 0],
  ])("come with %s at once, and everybody is asked", async (channel, text, nodes, denseMs) => {
    const scene = await calm();
    const sinceMs = scene.time.nowMs;
    scene.event("t", channel, text);
    expect(scene.hints).toEqual([{ nodes, denseMs }]);
    await scene.time.passWithPromises(50);
    expect(scene.askedSince("s", sinceMs)).toBe(denseMs > 0 ? 1 : 0);
  });

  it("do not come of events of another group", async () => {
    const scene = await calm();
    scene.event("t", "+switch-master", "other a 6379 b 6379");
    expect(scene.hints).toEqual([]);
  });

  it("that a promotion is expected are not lost behind one that says less", async () => {
    const scene = await calm();
    scene.event("t", "+sdown", "master mymaster a 6379");
    scene.event("t", "+try-failover", "master mymaster a 6379");
    scene.event("t", "+odown", "master mymaster a 6379");
    expect(scene.hints.map(({ denseMs }) => denseMs)).toEqual([0, 10_000]);
  });

  it("are not more than one every few ms, however many events there are", async () => {
    const scene = await calm();
    for (let i = 0; i < 1_000; i++) scene.event("t", "+sdown", "master mymaster a 6379");
    expect(scene.hints.length).toBe(1);
  });
});

describe("what they say", () => {
  it("counts for three seconds only", async () => {
    const scene = await calm();
    scene.behaviours.clear();
    await scene.time.passWithPromises(1_500);
    expect(scene.word).toMatchObject({ agreed: null, agreeing: 0, known: 3 });
    expect(scene.word?.problems.map(({ kind }) => kind)).toContain("sentinel-no-quorum");
  });

  it("includes that a failover could not be agreed on, and that it is over", async () => {
    const scene = await calm();
    const quorum = error("NOQUORUM 1 usable Sentinels");
    for (const name of ["s", "t", "u"]) scene.tells(name, { quorum });
    await scene.time.passWithPromises(6_000);
    expect(scene.word?.problems).toMatchObject([{ kind: "sentinel-no-quorum", node: null }]);
    for (const name of ["s", "t", "u"]) scene.tells(name);
    await scene.time.passWithPromises(6_000);
    expect(scene.word?.problems).toEqual([]);
  });

  it("has who was met at the address, and not the one before while a failover runs", async () => {
    const scene = await calm();
    expect(scene.word?.runIds).toEqual(new Map([[at("a"), hex("a")]]));
    for (const name of ["s", "t", "u"]) scene.tells(name, { master: "b", described: "a" });
    await scene.time.passWithPromises(2_000);
    expect(scene.word).toMatchObject({ agreed: at("b"), runIds: new Map() });
  });

  it("does not count in TILT", async () => {
    const scene = await calm();
    scene.tells("s", { tilt: true });
    scene.event("s", "+tilt", "#tilt mode entered");
    await scene.time.passWithPromises(50);
    expect(scene.states().s).toBe("tilt");
    expect(scene.word).toMatchObject({ agreed: at("a"), agreeing: 2 });
  });

  it.each([
    [error("NOPERM this user has no permissions to run the 'sentinel' command"), "no-access"],
    [error("NOAUTH Authentication required."), "no-access"],
    [error("ERR unknown command 'sentinel'"), "unreachable"],
    [value("a word"), "unreachable"],
  ])("that is %j instead of an address makes its state %s", async (answer, state) => {
    const scene = await calm();
    scene.behaviours.set(at("s"), () => answer);
    await scene.time.passWithPromises(1_500);
    expect(scene.states().s).toBe(state);
    expect(scene.word).toMatchObject({ agreed: at("a"), agreeing: 2 });
  });

  it("without a right to the rest counts, and what is refused is a problem", async () => {
    const scene = await calm();
    const whole = telling("s");
    scene.behaviours.set(at("s"), (call) =>
      call[1] === "sentinels" ? error("NOPERM no permissions to run 'sentinel|sentinels'") : whole(call),
    );
    await scene.time.passWithPromises(1_500);
    expect(scene.states().s).toBe("agreeing");
    expect(scene.word?.problems).toMatchObject([{ kind: "sentinel-no-access", node: at("s") }]);
  });
});

describe("a failover on request", () => {
  it("is asked of one that agrees, and then looked out for", async () => {
    const scene = await calm();
    scene.tells("s", { master: "b" });
    await scene.time.passWithPromises(1_500);
    scene.hints.length = 0;
    expect(await scene.watch.failover()).toEqual({ ok: true });
    const asked = scene.asked.filter(({ questions }) => questions.includes("failover"));
    expect(asked.map(({ node }) => node)).toEqual([at("t")]);
    expect(scene.hints).toEqual([{ nodes: [], denseMs: 10_000 }]);
  });

  it.each([
    ["hangs", (scene: Scene) => scene.hanging.add(at("s"))],
    ["is gone", (scene: Scene) => scene.behaviours.delete(at("s"))],
    ["names another one now", (scene: Scene) => scene.tells("s", { master: "b" })],
  ])("is not asked of one that %s since it was heard last: whoever answers is asked", async (_, change) => {
    const scene = await calm();
    change(scene);
    const answer = scene.watch.failover();
    await scene.time.passWithPromises(100);
    expect(await answer).toEqual({ ok: true });
    const asked = scene.asked.filter(({ questions }) => questions.includes("failover"));
    expect(asked.map(({ node }) => node)).toEqual([at("t")]);
  });

  it("is asked of nobody when none of those that agreed answers any more", async () => {
    const scene = await calm();
    scene.behaviours.clear();
    expect(await scene.watch.failover()).toMatchObject({
      ok: false,
      reason: "none of the Sentinels that agreed answers",
      mayHaveBegun: false,
    });
    expect(scene.asked.filter(({ questions }) => questions.includes("failover"))).toEqual([]);
  });

  it("that is refused says in whose words", async () => {
    const scene = await calm();
    for (const name of ["s", "t", "u"])
      scene.tells(name, { failover: error("NOGOODSLAVE No suitable replica") });
    expect(await scene.watch.failover()).toEqual({
      ok: false,
      reason: `${at("s")}: NOGOODSLAVE No suitable replica`,
      mayHaveBegun: false,
    });
    expect(scene.asked.filter(({ questions }) => questions.includes("failover"))).toHaveLength(1);
  });

  it("is not asked of anybody without a majority, or twice when the connection is lost", async () => {
    const scene = await calm();
    const whole = telling("s");
    scene.behaviours.set(at("s"), (call) => (call[1] === "failover" ? null : whole(call)));
    expect(await scene.watch.failover()).toMatchObject({
      ok: false,
      reason: expect.stringContaining("not known"),
      mayHaveBegun: true,
    });
    expect(scene.asked.filter(({ questions }) => questions.includes("failover"))).toHaveLength(1);
    scene.behaviours.clear();
    await scene.time.passWithPromises(4_000);
    expect(await scene.watch.failover()).toMatchObject({
      ok: false,
      reason: expect.stringContaining("majority"),
    });
  });
});
