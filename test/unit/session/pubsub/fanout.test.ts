import fc from "fast-check";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Protocol } from "../../../../src/resp/encode.ts";
import { Fanout, type Subscriber } from "../../../../src/session/pubsub/fanout.ts";
import { Turn } from "../../../../src/turn.ts";

class Client implements Subscriber {
  protocol: Protocol;
  received = "";
  /** Pieces that were not copied for this client alone. */
  readonly shared: Buffer[] = [];
  copies = 0;

  constructor(protocol: Protocol = 2) {
    this.protocol = protocol;
  }

  deliver(buf: Buffer, start: number, end: number): void {
    this.received += buf.toString("latin1", start, end);
    this.copies++;
  }

  deliverShared(bytes: Buffer): void {
    this.received += bytes.toString("latin1");
    this.shared.push(bytes);
  }

  accessRevoked(): void {}
}

const SHARE_BYTES = 64 * 1024;

function message(payload: string, channel = "c"): string {
  return `*3\r\n$7\r\nmessage\r\n$${channel.length}\r\n${channel}\r\n$${payload.length}\r\n${payload}\r\n`;
}

function pushed(payload: string): string {
  return message(payload).replace("*", ">");
}

let fanout: Fanout;
let turn: Turn;
let faults: unknown[];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setImmediate", "clearImmediate"] });
  faults = [];
  turn = new Turn((error) => faults.push(error));
  fanout = new Fanout(turn);
  return () => {
    vi.useRealTimers();
    expect(faults).toEqual([]);
  };
});

/** A message in the read buffer, which the next read overwrites. */
function add(receivers: ReadonlySet<Subscriber>, text: string): void {
  const read = Buffer.from(`##${text}##`, "latin1");
  fanout.add(receivers, read, 2, 2 + text.length);
  read.fill("?");
}

function endTurn(): void {
  vi.runOnlyPendingTimers();
}

describe("messages of one turn", () => {
  it("come when the turn ends, those in a row in one piece", () => {
    const client = new Client();
    const receivers = new Set([client]);
    for (const payload of ["1", "2", "3"]) add(receivers, message(payload));
    expect(client.received).toBe("");
    endTurn();
    expect(client.received).toBe(message("1") + message("2") + message("3"));
    expect([client.copies, client.shared.length]).toEqual([1, 0]);
    endTurn();
    expect(client.copies).toBe(1);
  });

  it("of several topics keep their order for whoever hears of all of them", () => {
    const [both, first, second] = [new Client(), new Client(), new Client()];
    const [one, two] = [new Set([both, first]), new Set([both, second])];
    for (let i = 0; i < 6; i++) add(i % 3 === 0 ? two : one, message(String(i)));
    endTurn();
    expect(both.received).toBe(["0", "1", "2", "3", "4", "5"].map((payload) => message(payload)).join(""));
    expect(first.received).toBe(["1", "2", "4", "5"].map((payload) => message(payload)).join(""));
    expect(second.received).toBe(message("0") + message("3"));
  });

  it("are pushes for RESP3 and arrays for RESP2, payloads that look like arrays untouched", () => {
    const [resp2, resp3] = [new Client(2), new Client(3)];
    const receivers = new Set([resp2, resp3]);
    for (const payload of ["*3\r\n", ">", "*"]) add(receivers, message(payload));
    endTurn();
    expect(resp2.received).toBe(message("*3\r\n") + message(">") + message("*"));
    expect(resp3.received).toBe(pushed("*3\r\n") + pushed(">") + pushed("*"));
  });

  it("come in the protocol that is spoken when they come", () => {
    const client = new Client(2);
    add(new Set([client]), message("x"));
    client.protocol = 3;
    endTurn();
    expect(client.received).toBe(pushed("x"));
  });

  it("do not come to a client that has left in between", () => {
    const [stays, leaves] = [new Client(), new Client(3)];
    const receivers = new Set([stays, leaves]);
    add(receivers, message("x"));
    receivers.delete(leaves);
    endTurn();
    expect([stays.received, leaves.received]).toEqual([message("x"), ""]);
  });

  it("for nobody harm nobody", () => {
    const client = new Client();
    add(new Set<Subscriber>(), message("a"));
    add(new Set([client]), message("b"));
    endTurn();
    expect(client.received).toBe(message("b"));
  });
});

describe("the bytes", () => {
  it("are copied for few and shared by many", () => {
    const text = message("x".repeat(1000));
    const fewest = Math.ceil(SHARE_BYTES / text.length);
    const clients = (count: number) =>
      new Set(Array.from({ length: count }, (_, i) => new Client(i % 2 ? 3 : 2)));
    const [few, many] = [clients(fewest - 1), clients(fewest)];
    add(few, text);
    endTurn();
    add(many, text);
    endTurn();
    for (const client of few) expect([client.copies, client.shared.length]).toEqual([1, 0]);
    for (const client of many) expect([client.copies, client.shared.length]).toEqual([0, 1]);
    // One piece for each protocol, however many clients there are.
    expect(new Set([...many].map(({ shared }) => shared[0])).size).toBe(2);
  });

  it("that are shared stay what they are when more is collected", () => {
    const client = new Client();
    const receivers = new Set([client]);
    const large = message("a".repeat(SHARE_BYTES));
    add(receivers, large);
    endTurn();
    add(receivers, message("b".repeat(SHARE_BYTES)));
    add(receivers, message("c"));
    endTurn();
    expect(client.shared[0]?.toString("latin1") === large).toBe(true);
  });

  it("of a large message come whole, before and after small ones, and keep no memory", () => {
    const client = new Client();
    const receivers = new Set([client]);
    const payloads = [
      "a",
      "b".repeat(1_000_000),
      "c",
      "d".repeat(70_000),
      "e".repeat(60_000),
      "f".repeat(60_000),
    ];
    for (const payload of payloads) add(receivers, message(payload));
    endTurn();
    const expected = payloads.map((payload) => message(payload)).join("");
    expect(client.received === expected).toBe(true);
    const { stage } = fanout as unknown as { stage: Buffer };
    expect(stage.length).toBeLessThanOrEqual(SHARE_BYTES);
  });
});

it("every client gets exactly the messages of its topics, in order, whatever their sizes", () => {
  const step = fc.record({
    topic: fc.nat(3),
    bytes: fc.oneof(fc.nat(50), fc.nat(3000), fc.nat(100_000)),
    ends: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const clients = Array.from({ length: 6 }, (_, i) => new Client(i % 2 ? 3 : 2));
      const topics = [0, 1, 2, 3].map((t) => new Set(clients.filter((_, i) => i % 4 === t || i > t + 2)));
      const expected = clients.map(() => "");
      for (const [n, { topic, bytes, ends }] of steps.entries()) {
        const payload = `${n}:`.padEnd(bytes, "x");
        add(topics[topic]!, message(payload));
        for (const [i, client] of clients.entries()) {
          if (topics[topic]!.has(client))
            expected[i] += client.protocol === 3 ? pushed(payload) : message(payload);
        }
        if (ends) endTurn();
      }
      endTurn();
      for (const [i, client] of clients.entries()) expect(client.received === expected[i]).toBe(true);
    }),
    { numRuns: 100 },
  );
});
