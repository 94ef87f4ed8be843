/** ioredis as applications use it, through switches: none of its connections may notice one. */
import { Redis } from "ioredis";
import { expect } from "vitest";
import { itNoticesNoSwitch } from "./support/trial.ts";
import { type Library, Work } from "./support/work.ts";

interface Options {
  readonly protocol: 2 | 3;
  readonly enableAutoPipelining?: boolean;
}

type Scripted = Redis & { addOne(key: string): Promise<number> };

const EVENTS = ["close", "end", "reconnecting", "error"] as const;

class Ioredis implements Library {
  readonly incidents: string[] = [];
  readonly #connections: Redis[] = [];
  readonly #shared: Scripted;
  readonly #rivals: Redis[];
  readonly #consumer: Redis;
  readonly #subscriber: Redis;

  constructor(port: number, protocol: 2 | 3) {
    this.#shared = this.#connect(port, { protocol, enableAutoPipelining: true }) as Scripted;
    this.#shared.defineCommand("addOne", { numberOfKeys: 1, lua: "return redis.call('INCR', KEYS[1])" });
    this.#rivals = [this.#connect(port, { protocol }), this.#connect(port, { protocol })];
    this.#consumer = this.#connect(port, { protocol });
    this.#subscriber = this.#connect(port, { protocol });
  }

  #connect(port: number, options: Options): Redis {
    const redis = new Redis(port, "127.0.0.1", options);
    for (const event of EVENTS)
      redis.on(event, (detail: unknown) => this.incidents.push(`${event} ${detail ?? ""}`.trim()));
    this.#connections.push(redis);
    return redis;
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
    return this.#shared.rpush(list, job);
  }

  publish(channel: string, text: string) {
    return this.#shared.publish(channel, text);
  }

  setAll(keys: readonly string[]) {
    return this.#shared.mset(keys.flatMap((key) => [key, "x"]));
  }

  scan(match: string): AsyncIterable<string[]> {
    return this.#shared.scanStream({ match, count: 50 });
  }

  async increase(key: string, who: number): Promise<boolean> {
    const redis = this.#rivals[who]!;
    await redis.watch(key);
    const value = Number(await redis.get(key));
    const results = await redis
      .multi()
      .set(key, value + 1)
      .get(key)
      .exec();
    if (results !== null)
      expect(results).toEqual([
        [null, "OK"],
        [null, String(value + 1)],
      ]);
    return results !== null;
  }

  async pop(list: string, timeoutS: number): Promise<string | null> {
    return (await this.#consumer.blpop(list, timeoutS))?.[1] ?? null;
  }

  subscribe(channel: string, onMessage: (text: string) => void) {
    this.#subscriber.on("message", (_channel: string, text: string) => onMessage(text));
    return this.#subscriber.subscribe(channel);
  }

  async close(): Promise<void> {
    for (const redis of this.#connections) {
      redis.removeAllListeners();
      redis.on("error", () => {});
      redis.disconnect();
    }
  }
}

itNoticesNoSwitch("ioredis", (stage, name) =>
  Promise.all(
    ([2, 3] as const).map((protocol) => {
      const library = new Ioredis(stage.proxy.port, protocol);
      return new Work(library, `${name} RESP${protocol}`, library.incidents).start();
    }),
  ),
);
