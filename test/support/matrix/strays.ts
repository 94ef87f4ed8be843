/**
 * What a node that is not the master has been asked to do all the same. Replicated commands are counted by
 * commandstats like those of clients; but a node that is a master, or has no link, gets none, and a replica
 * refuses the writes of clients, which is counted apart.
 */
import { expect } from "vitest";
import type { RedisServer } from "../redis.ts";
import { until } from "../wait.ts";

/**
 * Of the clients' writes and reads; what tests, operators and Sentinels use themselves (PUBLISH, EXEC) is not
 * among them.
 */
const WRITES = [
  ...["incr", "set", "rpush", "zadd", "spublish"],
  ...["blpop", "brpop", "blmove", "bzpopmin", "blmpop"],
];
const READS = ["get"];

export interface Asked {
  readonly role: string;
  readonly linkUp: boolean;
  readonly masterPort: number;
  readonly runId: string;
  readonly writes: number;
  readonly reads: number;
  /** Writes that it refused. */
  readonly refused: number;
}

/** In one INFO: role and counts belong together. */
export async function askedOf(server: RedisServer): Promise<Asked> {
  // Sentinels end the connections to a node that they re-point, ours too.
  const info = await until(() => server.info("all"), { what: `INFO of ${server.address}` });
  const stats = (name: string) => info.get(`cmdstat_${name}`) ?? "";
  const sum = (names: readonly string[], field: RegExp) =>
    names.reduce((total, name) => total + Number(field.exec(stats(name))?.[1] ?? 0), 0);
  return {
    role: info.get("role") ?? "",
    linkUp: info.get("master_link_status") === "up",
    masterPort: Number(info.get("master_port") ?? 0),
    runId: info.get("run_id") ?? "",
    writes: sum(WRITES, /^calls=(\d+)/),
    reads: sum(READS, /^calls=(\d+)/),
    refused: sum(WRITES, /rejected_calls=(\d+)/),
  };
}

/** Since `before` nobody has written to it or read from it, as far as can be told while it had no link. */
export function expectNotAsked(server: RedisServer, before: Asked, now: Asked): void {
  if (now.runId !== before.runId) return;
  const who = `${server.address}, which is not the master (${now.role})`;
  expect(now.refused - before.refused, `writes that were refused by ${who}`).toBe(0);
  if (now.linkUp) return;
  expect(now.writes - before.writes, `writes that were run by ${who}`).toBe(0);
  expect(now.reads - before.reads, `reads of ${who}, which has not synced`).toBe(0);
}
