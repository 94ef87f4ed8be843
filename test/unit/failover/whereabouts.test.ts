import { describe, expect, it } from "vitest";
import { addressFor } from "../../../src/failover/whereabouts.ts";
import { parseNodeId } from "../../../src/topology/address.ts";
import type { NodeId } from "../../../src/topology/epoch.ts";
import { findAliases } from "../../../src/topology/rules/aliases.ts";
import type { NodeView } from "../../../src/topology/rules/model.ts";
import { report, view } from "../topology/nodes.ts";
import { lost, sight } from "./sight.ts";

function id(text: string): NodeId {
  const node = parseNodeId(text);
  if (node === null) throw new Error(text);
  return node;
}

function pair(text: string): { host: string; port: number } {
  const colon = text.lastIndexOf(":");
  return { host: text.slice(0, colon), port: Number(text.slice(colon + 1)) };
}

/** The running instance `run`, as seen at an address. */
function master(address: string, run: string, ...lists: string[]): NodeView {
  const replicas = lists.map((text) => ({ ...pair(text), state: "online", offset: 0, lag: 0 }));
  return at(address, view({ ...report(run, 1), replicas }));
}

function replica(address: string, run: string, of: string): NodeView {
  return at(address, view({ ...report(run, 1), role: "replica", masterAddress: pair(of) }));
}

function at(address: string, seen: NodeView): NodeView {
  const node = id(address);
  return { ...seen, id: node, report: seen.report === null ? null : { ...seen.report, node } };
}

const FIRST = "10.0.0.1:6379";
const SECOND = "10.0.0.2:6379";
const THIRD = "10.0.0.3:6379";

/** The addresses that the nodes have for each other, at which we found the same processes. */
function alias(address: string, run: string): NodeView {
  return master(address, run);
}

type Row = [title: string, views: readonly NodeView[], node: string, of: string, expected: string | null];

describe("a node is told to follow the master under", () => {
  const rows: Row[] = [
    [
      "our address, where the nodes use the same ones",
      [
        lost(master(FIRST, "a", SECOND, THIRD), "unreachable"),
        master(SECOND, "b"),
        replica(THIRD, "c", FIRST),
      ],
      THIRD,
      SECOND,
      SECOND,
    ],
    [
      "our address, where all of us are on one machine",
      [master("127.0.0.1:1", "a"), replica("127.0.0.1:2", "b", "127.0.0.1:1"), master("127.0.0.1:3", "c")],
      "127.0.0.1:3",
      "127.0.0.1:1",
      "127.0.0.1:1",
    ],
    [
      "the address that its replicas name, where ours means another machine to the node",
      [master("127.0.0.1:6379", "a"), replica(SECOND, "b", FIRST), master(THIRD, "c"), alias(FIRST, "a")],
      THIRD,
      "127.0.0.1:6379",
      FIRST,
    ],
    [
      "the address that the former master listed it under, which is gone",
      [
        lost(master(SECOND, "b", FIRST, THIRD), "unreachable"),
        master("127.0.0.1:6379", "a"),
        replica(THIRD, "c", SECOND),
        alias(FIRST, "a"),
      ],
      THIRD,
      "127.0.0.1:6379",
      FIRST,
    ],
    [
      "no address, where only one is known that means another machine to the node",
      [master("127.0.0.1:6379", "a"), master(SECOND, "b")],
      SECOND,
      "127.0.0.1:6379",
      null,
    ],
    [
      "our address, where nobody has another one",
      [master(FIRST, "a"), master(SECOND, "b")],
      SECOND,
      FIRST,
      FIRST,
    ],
    [
      "the name that we have for it, where the nodes use names",
      [
        lost(master("redis-1:6379", "a", SECOND, THIRD), "unreachable"),
        master("redis-2:6379", "b"),
        replica("redis-3:6379", "c", "redis-1:6379"),
        alias(SECOND, "b"),
      ],
      "redis-3:6379",
      "redis-2:6379",
      "redis-2:6379",
    ],
    [
      "the address that the nodes have for it, where they know nothing of our names",
      [
        lost(master("redis-1:6379", "a", SECOND, THIRD), "unreachable"),
        alias(FIRST, "a"),
        master("redis-2:6379", "b"),
        replica("redis-3:6379", "c", FIRST),
        alias(SECOND, "b"),
      ],
      "redis-3:6379",
      "redis-2:6379",
      SECOND,
    ],
    [
      "the address inside, where ours is a port on the machine of the containers",
      [
        lost(master("127.0.0.1:7001", "a", "172.18.0.3:6379", "172.18.0.4:6379"), "unreachable"),
        master("127.0.0.1:7002", "b"),
        replica("127.0.0.1:7003", "c", "172.18.0.2:6379"),
        alias("172.18.0.3:6379", "b"),
      ],
      "127.0.0.1:7003",
      "127.0.0.1:7002",
      "172.18.0.3:6379",
    ],
    [
      "no loopback address that another machine has for it",
      [
        master("127.0.0.1:6379", "a"),
        replica(SECOND, "b", "127.0.0.1:6380"),
        alias("10.0.0.2:6380", "a"),
        master(THIRD, "c"),
      ],
      THIRD,
      "127.0.0.1:6379",
      "10.0.0.2:6380",
    ],
  ];
  it.each(rows)("%s", (_, views, node, of, expected) => {
    const group = { ...sight([]), aliases: findAliases(views, id(of), new Map()) };
    const nodes = views.filter((seen) => !group.aliases.has(seen.id));
    expect(addressFor({ ...group, nodes }, id(node), id(of))).toEqual(
      expected === null ? null : pair(expected),
    );
  });
});
