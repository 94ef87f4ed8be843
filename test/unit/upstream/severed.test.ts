import { beforeEach, describe, expect, it } from "vitest";
import type { NodeId } from "../../../src/topology/epoch.ts";
import { killRequests, type Severed, SeveredConnections } from "../../../src/upstream/severed.ts";
import { decodeAll } from "../../support/resp.ts";

const NODE = "a:1" as NodeId;
const REPLID = "r".repeat(40);

let severed: SeveredConnections;
beforeEach(() => {
  severed = new SeveredConnections(() => {});
});

function add(serverId: number | null, node = NODE, replid = REPLID): Severed {
  return severed.add({ node, replid }, serverId);
}

function ids(taken: readonly Severed[]): (number | null)[] {
  return taken.map(({ serverId }) => serverId);
}

describe("connections that ended with writes unanswered (12, 13)", () => {
  it("are asked for by the first that comes, and by nobody else meanwhile", () => {
    add(7);
    add(9);
    const taken = severed.take(NODE, REPLID, true);
    expect(ids(taken)).toEqual([7, 9]);
    expect(decodeAll(killRequests(taken))).toEqual([
      ["CLIENT", "KILL", "ID", "7"],
      ["CLIENT", "KILL", "ID", "9"],
    ]);
    expect(severed.take(NODE, REPLID, true)).toEqual([]);
    expect(severed.isAsking(NODE, REPLID)).toBe(true);
  });

  it.each([
    [":1\r\n", "ended"],
    [":0\r\n", "ended"],
    ["+OK\r\n", "ended"],
    ["-ERR No such client\r\n", "ended"],
    ["-NOPERM this user has no permissions to run the 'client|kill' command\r\n", "spared"],
    ["-ERR syntax error\r\n", "spared"],
    [null, "open"],
  ])("are, after %j, %s", (reply, state) => {
    const one = add(7);
    severed.take(NODE, REPLID, true);
    severed.settle(one, reply === null ? null : Buffer.from(reply));
    expect(one.state).toBe(state);
    expect(severed.isAsking(NODE, REPLID)).toBe(false);
    // Who may not kill does not try again; another connection, of another user perhaps, does.
    expect(ids(severed.take(NODE, REPLID, false))).toEqual(state === "open" ? [7] : []);
    severed.settle(one, null);
    expect(ids(severed.take(NODE, REPLID, true))).toEqual(state === "ended" ? [] : [7]);
  });

  it("of another node or another history are not this server's: its numbers are other clients'", () => {
    add(7, "b:2" as NodeId);
    add(8, NODE, "s".repeat(40));
    expect(severed.take(NODE, REPLID, true)).toEqual([]);
    add(9);
    severed.clear();
    expect(severed.take(NODE, REPLID, true)).toEqual([]);
  });

  it("that an open connection asks about are asked about by new ones all the same: it may stand still", () => {
    const one = add(7);
    one.questions++;
    expect(severed.isAsking(NODE, REPLID)).toBe(false);
    expect(ids(severed.take(NODE, REPLID, true))).toEqual([7]);
    severed.answered(one, Buffer.from("-NOPERM no\r\n"));
    expect([one.state, one.questions]).toEqual(["asked", 0]);
    severed.settle(one, null);
    one.questions++;
    severed.answered(one, null);
    expect(one.state).toBe("open");
    one.questions++;
    severed.answered(one, Buffer.from(":1\r\n"));
    expect(one.state).toBe("ended");
  });

  it("whose number is not known cannot be ended", () => {
    expect(add(null).state).toBe("spared");
    expect(severed.take(NODE, REPLID, true)).toEqual([]);
  });

  it("are not more than 256: the oldest are left to themselves", () => {
    for (let id = 1; id <= 300; id++) add(id);
    const taken = ids(severed.take(NODE, REPLID, true));
    expect([taken.length, taken[0], taken.at(-1)]).toEqual([256, 45, 300]);
  });

  it("tell those who wait, once, that something has come of one", () => {
    const one = add(7);
    let told = 0;
    severed.whenSettled(() => told++);
    severed.settle(one, Buffer.from(":1\r\n"));
    severed.settle(one, Buffer.from(":0\r\n"));
    expect([told, one.state]).toEqual([1, "ended"]);
  });
});
