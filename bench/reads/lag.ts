/** How far replicas are behind, asked of the nodes themselves: nothing the proxy believes comes into it. */

import { RawClient } from "../../test/support/client.ts";
import { parseInfo, type RedisGroup } from "../../test/support/redis.ts";
import { sleep } from "../../test/support/wait.ts";

/** Between two looks. */
const PAUSE_MS = 50;

/**
 * Asks the master for its offset and then every replica until it has applied it: the time from the one
 * question to the other answer is the most that the lag was, round trips included.
 */
export class LagWatch {
  readonly #master: RawClient;
  readonly #replicas: readonly RawClient[];
  #isOver = false;
  #watching: Promise<number[]> = Promise.resolve([]);

  static async start(group: RedisGroup): Promise<LagWatch> {
    const connect = ({ ownPort }: { readonly ownPort: number }) => RawClient.connect({ port: ownPort });
    const watch = new LagWatch(await connect(group.master), await Promise.all(group.replicas.map(connect)));
    watch.#watching = watch.#watch();
    return watch;
  }

  private constructor(master: RawClient, replicas: readonly RawClient[]) {
    this.#master = master;
    this.#replicas = replicas;
  }

  /** Ends the watch. @returns the lags seen, of all replicas, ms. */
  async end(): Promise<readonly number[]> {
    this.#isOver = true;
    const lagsMs = await this.#watching;
    for (const client of [this.#master, ...this.#replicas]) client.close();
    return lagsMs;
  }

  async #watch(): Promise<number[]> {
    const lagsMs: number[] = [];
    while (!this.#isOver) {
      const startMs = performance.now();
      const target = await offsetOf(this.#master, "master_repl_offset");
      const reached = this.#replicas.map(async (replica) => {
        while ((await offsetOf(replica, "slave_repl_offset")) < target) {}
        lagsMs.push(performance.now() - startMs);
      });
      await Promise.all(reached);
      await sleep(PAUSE_MS);
    }
    return lagsMs;
  }
}

async function offsetOf(client: RawClient, field: string): Promise<number> {
  const text = await client.command("INFO", "replication");
  if (typeof text !== "string") throw new Error(`INFO replication was answered ${String(text)}`);
  const offset = Number(parseInfo(text).get(field));
  if (Number.isNaN(offset)) throw new Error(`no ${field} in INFO replication`);
  return offset;
}
