/**
 * node-redis as applications use it, through switches: commands that pipeline by themselves on a shared
 * client, WATCH and blocking calls on clients of a pool. None of their connections may notice a switch.
 */
import { type CommandParser, createClient, createClientPool, defineScript, WatchError } from "redis";
import { expect } from "vitest";
import { itNoticesNoSwitch } from "./support/trial.ts";
import { type Library, Work } from "./support/work.ts";

const ADD_ONE = defineScript({
  NUMBER_OF_KEYS: 1,
  SCRIPT: "return redis.call('INCR', KEYS[1])",
  parseCommand: (parser: CommandParser, key: string) => parser.pushKey(key),
  transformReply: (reply: number) => reply,
});

const EVENTS = ["error", "end", "reconnecting"] as const;

function options(port: number, protocol: 2 | 3) {
  const socket = { host: "127.0.0.1", port };
  return { socket, RESP: protocol, scripts: { addOne: ADD_ONE } };
}

/** Two users of WATCH and one that waits, each with a client for as long as it needs one. */
const POOL = { minimum: 3, maximum: 3, acquireTimeout: 30_000 };

class NodeRedis implements Library {
  readonly incidents: string[] = [];
  readonly #shared;
  readonly #subscriber;
  readonly #pool;

  constructor(port: number, protocol: 2 | 3) {
    this.#shared = createClient(options(port, protocol));
    this.#subscriber = createClient(options(port, protocol));
    this.#pool = createClientPool(options(port, protocol), POOL);
    for (const event of EVENTS) {
      for (const client of [this.#shared, this.#subscriber, this.#pool])
        client.on(event, (detail: unknown) => this.incidents.push(`${event} ${detail ?? ""}`.trim()));
    }
  }

  async connect(): Promise<this> {
    await Promise.all([this.#shared.connect(), this.#subscriber.connect(), this.#pool.connect()]);
    return this;
  }

  incr(key: string) {
    return this.#shared.incr(key);
  }

  get(key: string) {
    return this.#shared.get(key);
  }

  script(key: string) {
    return this.#shared.addOne(key);
  }

  push(list: string, job: string) {
    return this.#shared.rPush(list, job);
  }

  publish(channel: string, text: string) {
    return this.#shared.publish(channel, text);
  }

  setAll(keys: readonly string[]) {
    return this.#shared.mSet(keys.map((key) => [key, "x"] as [string, string]));
  }

  scan(match: string): AsyncIterable<string[]> {
    return this.#shared.scanIterator({ MATCH: match, COUNT: 50 });
  }

  increase(key: string): Promise<boolean> {
    return this.#pool.execute(async (client) => {
      await client.watch(key);
      const value = Number(await client.get(key));
      try {
        const next = String(value + 1);
        const results = await client.multi().set(key, next).get(key).exec();
        expect(results).toEqual(["OK", next]);
        return true;
      } catch (error) {
        if (error instanceof WatchError) return false;
        throw error;
      }
    });
  }

  async pop(list: string, timeoutS: number): Promise<string | null> {
    const popped = await this.#pool.execute((client) => client.blPop(list, timeoutS));
    return popped?.element ?? null;
  }

  subscribe(channel: string, onMessage: (text: string) => void) {
    return this.#subscriber.subscribe(channel, onMessage);
  }

  async close(): Promise<void> {
    for (const client of [this.#shared, this.#subscriber, this.#pool]) {
      client.removeAllListeners();
      client.on("error", () => {});
      client.destroy();
    }
  }
}

itNoticesNoSwitch("node-redis", (stage, name) =>
  Promise.all(
    ([2, 3] as const).map(async (protocol) => {
      const library = await new NodeRedis(stage.proxy.port, protocol).connect();
      return new Work(library, `${name} RESP${protocol}`, library.incidents).start();
    }),
  ),
);
