import type { Socket } from "node:net";
import fc from "fast-check";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { READ, WRITE } from "../../../src/commands/command.ts";
import { CommandTable } from "../../../src/commands/table.ts";
import { addressOf } from "../../../src/config/address.ts";
import { dial } from "../../../src/net.ts";
import type { NodeId } from "../../../src/topology/epoch.ts";
import { Turn } from "../../../src/turn.ts";
import { ChunkPool } from "../../../src/upstream/chunk.ts";
import { Lane, type LaneContext } from "../../../src/upstream/lane.ts";
import { NodeMeter } from "../../../src/upstream/meter.ts";
import { ANONYMOUS, Profile } from "../../../src/upstream/profile.ts";
import { Nobody, Request } from "../../../src/upstream/request.ts";
import { SeveredConnections } from "../../../src/upstream/severed.ts";

vi.mock("../../../src/net.ts", () => ({ dial: vi.fn() }));

const NODE = "a:1" as NodeId;
const GET = Buffer.from("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
const COMMAND = new CommandTable().lookup(GET, 8, 11);
const REPLY = Buffer.from("$1\r\nx\r\n");

/** A client's session that takes whatever comes, and counts it. */
class Client extends Nobody {
  override readonly exceptional = false;
  override readonly movable = true;
  answers = 0;
  losses = 0;

  override settled(): void {
    this.answers++;
  }

  override lost(): void {
    this.losses++;
  }
}

let nowMs = 0;
let meter = new NodeMeter();
const client = new Client();

function laneFor(role: "reader" | "master" = "reader", isPrivate = false): Lane {
  const socket = { write: () => true, writableLength: 0, destroy: () => undefined, destroyed: false };
  vi.mocked(dial).mockReturnValue(socket as unknown as Socket);
  const fail = (error: unknown): never => {
    throw error;
  };
  const nothing = (): void => undefined;
  const context: LaneContext = {
    settings: {
      ...{ connectTimeoutMs: 1_000, requestTimeoutMs: 0, hedgeMs: 0, keepAliveMs: 0 },
      ...{ maxUnsentBytes: 1_000_000, maxInFlight: 1_000, maxReplyBytes: 1_000_000 },
    },
    chunks: new ChunkPool(),
    turn: new Turn(fail),
    keeper: {
      ...{ laneLost: nothing, laneOpened: nothing, laneSent: nothing, laneClosed: nothing },
      laneFault: (_, error) => fail(error),
    },
    severed: new SeveredConnections(() => undefined),
    nowMs: () => nowMs,
    meterOf: () => meter,
  };
  const profile = new Profile(ANONYMOUS, 0, 2);
  const target = { node: NODE, address: addressOf(NODE), role, epoch: 1, replid: null, profile, isPrivate };
  return new Lane(target, context);
}

/** One that the server has let in. */
function openLane(): Lane {
  const lane = laneFor();
  const accepted = Buffer.from("+OK\r\n+OK\r\n");
  lane.onData(accepted, accepted.length);
  expect(lane.isOpen).toBe(true);
  return lane;
}

function push(lane: Lane, kind: typeof READ | typeof WRITE = READ): Request {
  const chunk = lane.room(GET.length);
  const request = new Request(client, COMMAND, kind, chunk, chunk.used, chunk.used + GET.length, 1);
  lane.push(request);
  return request;
}

/** The answer to its first request, which was written before. */
function answer(lane: Lane): void {
  lane.flush();
  lane.onData(REPLY, REPLY.length);
}

beforeEach(() => {
  nowMs = 0;
  meter = new NodeMeter();
  Object.assign(client, { answers: 0, losses: 0 });
});

describe("40: what is on the way to a node", () => {
  it.each<[string, (lane: Lane) => void, number]>([
    ["is answered", (lane) => answer(lane), 2],
    ["is lost with the connection", (lane) => lane.onClose(), 0],
    ["is given back because nothing more is written", (lane) => lane.retire(1_000), 0],
    ["is given back though it was written", (lane) => [lane.flush(), lane.retire(0)], 0],
    ["waits for the last answers of a connection that ends", (lane) => [lane.flush(), lane.retire(9)], 3],
    ["is of no interest to anybody", (lane) => lane.destroy(), 0],
    // Its answer is still to come, and the node has to do with it.
    ["is sent elsewhere instead", (lane) => lane.giveBack(() => true), 3],
  ])("counts until it %s", (_, end, left) => {
    const lane = openLane();
    for (let i = 0; i < 3; i++) push(lane);
    expect(meter.outstanding).toBe(3);
    end(lane);
    expect(meter.outstanding).toBe(left);
    lane.destroy();
    expect(meter.outstanding).toBe(0);
  });

  it("does not count over a private connection", () => {
    const lane = laneFor("master", true);
    push(lane);
    expect(meter.outstanding).toBe(0);
    lane.destroy();
    expect(meter.outstanding).toBe(0);
  });

  it("counts over all shared connections together", () => {
    const lanes = [openLane(), laneFor("master")];
    for (const lane of lanes) push(lane);
    expect(meter.outstanding).toBe(2);
    for (const lane of lanes) lane.destroy();
  });

  it("is even in the end, whatever happens", () => {
    const event = fc.constantFrom(
      "read",
      "write",
      "answer",
      "flush",
      "give-back",
      "disown",
      "retire",
      "close",
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), (events) => {
        meter = new NodeMeter();
        const lane = openLane();
        let last: Request | null = null;
        for (const one of events) {
          if (lane.isClosed) break;
          if (one === "read" || one === "write") {
            if (!lane.isRetiring) last = push(lane, one === "read" ? READ : WRITE);
          } else if (one === "answer") {
            if (lane.inFlight > 0) answer(lane);
          } else if (one === "flush") lane.flush();
          else if (one === "give-back") lane.giveBack((request) => request.kind === READ);
          else if (one === "disown") {
            if (last?.kind === READ) lane.disown(last);
          } else if (one === "retire") lane.retire(1_000);
          else lane.onClose();
          expect(meter.outstanding).toBe(lane.inFlight);
        }
        lane.destroy();
        expect(meter.outstanding).toBe(0);
      }),
      { numRuns: 500 },
    );
  });
});

describe("40: how long a node takes", () => {
  it("is told by one read of eight, one at a time", () => {
    const lane = openLane();
    push(lane);
    expect(lane.sampledSinceMs).toBe(0);
    nowMs = 10;
    push(lane);
    expect(lane.sampledSinceMs).toBe(0);
    answer(lane);
    expect(meter.p99Ms(1)).toBeGreaterThan(8);
    expect(lane.sampledSinceMs).toBeNull();
    for (let i = 0; i < 7; i++) push(lane);
    expect(lane.sampledSinceMs).toBeNull();
    push(lane);
    expect(lane.sampledSinceMs).toBe(10);
    expect(meter.p99Ms(2)).toBeNull();
    lane.destroy();
  });

  it("is not told by a write, nor by a master's connection, nor by one that is not let in yet", () => {
    const lanes = [openLane(), laneFor("master"), laneFor()];
    push(lanes[0]!, WRITE);
    push(lanes[1]!);
    push(lanes[2]!);
    expect(lanes.map((lane) => lane.sampledSinceMs)).toEqual([null, null, null]);
    push(lanes[0]!);
    expect(lanes[0]!.sampledSinceMs).toBe(0);
    for (const lane of lanes) lane.destroy();
  });

  it("is told as well by a read whose answer nobody waits for any more", () => {
    const lane = openLane();
    const request = push(lane);
    expect(lane.disown(request)).toBe(true);
    expect(lane.disown(request)).toBe(false);
    nowMs = 10;
    answer(lane);
    expect(client.answers).toBe(0);
    expect(meter.p99Ms(1)).toBeGreaterThan(8);
    lane.destroy();
  });

  it("is not told by a read that is given back", () => {
    const lane = openLane();
    push(lane);
    lane.retire(1_000);
    expect([lane.sampledSinceMs, client.losses]).toEqual([null, 1]);
    expect(meter.p99Ms(1)).toBeNull();
  });
});
