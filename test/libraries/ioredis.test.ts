/** ioredis as applications use it, through switches: none of its connections may notice one. */
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { randomFrom, SEED } from "../support/random.ts";
import { Stage } from "../support/stage.ts";
import { Switches } from "./support/switches.ts";
import { trial } from "./support/trial.ts";
import { type Library, Work } from "./support/work.ts";

let stage: Stage;
let switches: Switches;

beforeAll(async () => {
  stage = await Stage.open();
  switches = new Switches(stage, randomFrom(SEED));
});

afterAll(() => stage?.close());

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

  constructor(protocol: 2 | 3) {
    this.#shared = this.#connect({ protocol, enableAutoPipelining: true }) as Scripted;
    this.#shared.defineCommand("addOne", { numberOfKeys: 1, lua: "return redis.call('INCR', KEYS[1])" });
    this.#rivals = [this.#connect({ protocol }), this.#connect({ protocol })];
    this.#consumer = this.#connect({ protocol });
    this.#subscriber = this.#connect({ protocol });
  }

  #connect(options: Options): Redis {
    const redis = new Redis(stage.proxy.port, "127.0.0.1", options);
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

function users(name: string): Promise<Work[]> {
  return Promise.all(
    ([2, 3] as const).map((protocol) => {
      const library = new Ioredis(protocol);
      return new Work(library, `ioredis RESP${protocol} ${name}`, library.incidents).start();
    }),
  );
}

const CASES = `(1, 3, 7, 8, 12, 15, 17, 20, 21, 24, 26, 29, 30; HOLDFAST_SEED=${SEED})`;

it(`ioredis notices no planned switch, and nothing is uncertain ${CASES}`, async () => {
  await trial(stage, switches, "planned", await users("planned"));
});

it(`ioredis notices no second master; only what that acknowledged is lost ${CASES}`, async () => {
  await trial(stage, switches, "two masters", await users("two masters"));
});

it(`ioredis notices no crash but by UNCERTAIN for what was on the wire ${CASES}`, async () => {
  await trial(stage, switches, "crash", await users("crash"));
});
