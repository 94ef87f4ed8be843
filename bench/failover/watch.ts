/** When a promotion happened, seen from outside: the nodes themselves are asked, not the proxy. */
import { RawClient } from "../../test/support/client.ts";
import { parseInfo, type RedisServer } from "../../test/support/redis.ts";
import { sleep } from "../../test/support/wait.ts";

const EVERY_MS = 2;

export interface Promoted {
  readonly node: RedisServer;
  /** Not before the true moment by more than one question and its answer, nor after it by more. */
  readonly atMs: number;
}

/** Asks the candidates for their role every 2 ms until one is a master that has executed a client's write. */
export class PromotionWatch {
  promoted: Promoted | undefined;
  firstWriteAtMs: number | undefined;
  #isClosed = false;
  readonly #keys: readonly string[];
  readonly #runs: readonly Promise<void>[];

  /** `keys`: what clients write, so that a change after the promotion shows. */
  constructor(candidates: readonly RedisServer[], keys: readonly string[]) {
    this.#keys = keys;
    this.#runs = candidates.map((node) => this.#watch(node));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#runs);
  }

  async #watch(node: RedisServer): Promise<void> {
    let client: RawClient | undefined;
    let before: string | undefined;
    while (!this.#isClosed && this.firstWriteAtMs === undefined) {
      try {
        client ??= await RawClient.connect({ port: node.port, deadlineMs: 1_000 });
        before = await this.#look(node, client, before);
      } catch {
        // Sentinel closes the connections of the node it promotes.
        client?.close();
        client = undefined;
      }
      await sleep(EVERY_MS);
    }
    client?.close();
  }

  /** `before`: the counters as they were at the promotion; returned when they are known. */
  async #look(node: RedisServer, client: RawClient, before: string | undefined): Promise<string | undefined> {
    const askedAtMs = performance.now();
    const [info, values] = await client.pipeline([
      ["INFO", "replication"],
      ["MGET", ...this.#keys],
    ]);
    const fields = parseInfo(String(info));
    if (fields.get("role") !== "master") return undefined;
    if (this.promoted === undefined) this.promoted = { node, atMs: askedAtMs };
    if (this.promoted.node !== node) return undefined;
    const now = JSON.stringify(values);
    // A write between the promotion and this first look goes unnoticed: the next one is seen instead.
    if (before === undefined) return now;
    if (now !== before) this.firstWriteAtMs = performance.now();
    return before;
  }
}
