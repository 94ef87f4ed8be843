import vm from "node:vm";
import { describe, expect, it } from "vitest";
import { STATUS_PAGE } from "../../../src/http/page.ts";

/** As much of an element as the page's script uses. */
class FakeElement {
  className = "";
  colSpan = 1;
  children: FakeElement[] = [];
  parentNode: { tHead: { rows: { cells: { length: number } }[] } } = {
    tHead: { rows: [{ cells: { length: 9 } }] },
  };
  own = "";
  get textContent(): string {
    return this.own + this.children.map((child) => child.textContent).join("|");
  }
  set textContent(text: string) {
    this.own = text;
    this.children = [];
  }
  appendChild(child: FakeElement): void {
    this.children.push(child);
  }
  replaceChildren(...children: FakeElement[]): void {
    this.own = "";
    this.children = children;
  }
}

/** Runs the page's script on answers of /api/status, one per poll; returns what the elements show. */
async function show(...answers: (unknown | Error)[]) {
  const ids = [...STATUS_PAGE.matchAll(/id="(\w+)"/g)].map((match) => match[1] ?? "");
  const elements = new Map(ids.map((id) => [id, new FakeElement()]));
  const script = /<script>([\s\S]*)<\/script>/.exec(STATUS_PAGE)?.[1] ?? "";
  let next: (() => void) | null = null;
  let now = 0;
  const poll = answers.values();
  const context = vm.createContext({
    document: {
      title: "",
      getElementById: (id: string) => elements.get(id) ?? null,
      createElement: () => new FakeElement(),
    },
    performance: { now: () => now },
    AbortSignal: { timeout: () => undefined },
    setTimeout: (callback: () => void) => {
      next = callback;
    },
    fetch: async () => {
      const { value } = poll.next();
      if (value instanceof Error) throw value;
      return { ok: true, json: async () => value };
    },
  });
  vm.runInContext(script, context);
  for (let polled = 0; polled < answers.length; polled++) {
    // The script's promises settle before this one; then it has asked for its next poll.
    await new Promise((resolve) => setImmediate(resolve));
    if (next === null) throw new Error("the page stopped polling");
    const again: () => void = next;
    next = null;
    now += 1_000;
    if (polled + 1 < answers.length) again();
  }
  return (id: string) => {
    const element = elements.get(id);
    if (element === undefined) throw new Error(`no element ${id}`);
    return element;
  };
}

const FULL = {
  version: "1.2.3",
  uptimeSeconds: 125,
  epoch: { number: 7, master: "a:1", holdCause: null, history: { replid: "abcdef0123456789", offset: 1234 } },
  nodes: [
    {
      id: "a:1",
      role: "master",
      reachable: true,
      fit: true,
      reason: "",
      lagMs: 0,
      lagBytes: 0,
      requests: 9,
      reads: 8,
      outstanding: 2,
      slow: false,
    },
    { id: "c:3", role: "replica", reachable: true, fit: true, reason: "fit", slow: true },
    {
      id: "b:2",
      role: "replica",
      reachable: false,
      fit: false,
      reason: "refused",
      lagMs: null,
      lagBytes: null,
    },
  ],
  clients: { connected: 42, paused: null },
  hold: { now: 3, bytes: 2048, held: 10, released: 7, expired: 0, left: 0, failed: 0 },
  reads: { replica: 70, masterNoneFit: 7, freshnessShare: 0.125, hedges: 4 },
  counters: { reads: 100, writes: 50, uncertain: 1 },
  failovers: [
    { at: "2026-01-01T00:00:00Z", epoch: 6, from: "b:2", to: "c:3", reason: "planned", lostBytes: null },
    {
      at: 1_767_225_700_000,
      epoch: 7,
      from: "c:3",
      to: "a:1",
      reason: "crash",
      seenBy: "probe",
      lostBytes: 77,
    },
  ],
  problems: ["b:2 does not answer"],
};

describe("the status page", () => {
  it("shows master, epoch, nodes, numbers, switches and problems", async () => {
    const shown = await show(FULL);
    expect(shown("headline").textContent).toBe("Writes go to a:1");
    expect(shown("state").className).toContain("good");
    expect(shown("detail").textContent).toContain("Epoch 7");
    expect(shown("about").textContent).toBe("version 1.2.3 · up 2 min");
    expect(shown("numbers").textContent).toMatch(/42\|clients connected.*3\|held now, 2.0 kB/);
    expect(shown("numbers").textContent).toMatch(
      /70\|reads of replicas, 4 hedged.*12\.5 %\|of reads to the master/,
    );
    expect(shown("numbers").textContent).toContain("7|reads of the master: no replica fit");
    expect(shown("nodes").children.map((row) => row.children.map((cell) => cell.textContent))).toEqual([
      ["a:1", "master", "in use", "0 ms", "0 B", "9", "8", "2", "–"],
      ["c:3", "replica", "in use, slow", "–", "–", "–", "–", "–", "fit"],
      ["b:2", "replica", "unreachable", "–", "–", "–", "–", "–", "refused"],
    ]);
    expect(shown("failovers").children[0]?.textContent).toContain("c:3 → a:1");
    expect(shown("failovers").children[0]?.textContent).toContain("77 B");
    expect(shown("failovers").children[1]?.textContent).toContain("not known");
    expect(shown("problems").textContent).toBe("b:2 does not answer");
  });

  it("says in words why writes are held", async () => {
    const shown = await show({ epoch: { number: 7, master: "a:1", holdCause: "silent" } });
    expect(shown("headline").textContent).toBe("Writes are held: the master does not answer");
    expect(shown("detail").textContent).toContain("last master a:1");
    expect(shown("state").className).toContain("warn");
  });

  it("computes requests per second from two polls", async () => {
    const later = { ...FULL, counters: { reads: 400, writes: 250 } };
    expect((await show(FULL))("numbers").textContent).toContain("–|requests per second");
    expect((await show(FULL, later))("numbers").textContent).toContain("500|requests per second");
  });

  it.each([
    [{}],
    [null],
    [{ epoch: null, nodes: null, hold: 3, counters: "x", failovers: {}, problems: null }],
    [{ nodes: [null, {}, 3], failovers: [null, {}], problems: [null, 3] }],
  ])("degrades to dashes when fields are absent: %j", async (status) => {
    const shown = await show(status);
    expect(shown("lost").textContent).toBe("");
    expect(shown("headline").textContent).toBe("Writes are held: no master is known");
    expect(shown("numbers").textContent).toContain("–|clients connected");
  });

  it("says that the proxy does not answer, keeps what it showed, and recovers", async () => {
    const gone = await show(FULL, new Error("no connection"));
    expect(gone("lost").textContent).toContain("does not answer (no connection)");
    expect(gone("headline").textContent).toBe("Writes go to a:1");
    const back = await show(FULL, new Error("no connection"), FULL);
    expect([back("lost").textContent, back("lost").className]).toEqual(["", "hidden"]);
  });
});
