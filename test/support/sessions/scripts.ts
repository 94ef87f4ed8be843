/** 29 to 33: iterations, scripts, functions, and WAIT. */
import type { RawClient } from "../client.ts";
import type { RedisServer } from "../redis.ts";
import { type Reply, ReplyError } from "../resp.ts";
import { Actor, Tally } from "../stateful.ts";

const ITEMS = Array.from({ length: 600 }, (_, i) => `item:${i}`);
/** Of its own, so that an iteration is over soon. */
const SCAN_DB = 5;

interface Iteration {
  readonly name: string;
  readonly words: (cursor: string) => string[];
}

const ITERATIONS: readonly Iteration[] = [
  { name: "scan", words: (cursor) => ["SCAN", cursor, "MATCH", "item:*"] },
  { name: "hscan", words: (cursor) => ["HSCAN", "hash", cursor] },
  { name: "sscan", words: (cursor) => ["SSCAN", "set", cursor] },
  { name: "zscan", words: (cursor) => ["ZSCAN", "zset", cursor] },
];

/** 29: an iteration sees everything that is there all the time. */
export class Iterations extends Actor {
  async start(): Promise<void> {
    const first = await this.load.client();
    const filled = await first.pipeline([
      ["SELECT", SCAN_DB],
      ["MSET", ...ITEMS.flatMap((item) => [item, "x"])],
      ["HSET", "hash", ...ITEMS.flatMap((item) => [item, "x"])],
      ["SADD", "set", ...ITEMS],
      ["ZADD", "zset", ...ITEMS.flatMap((item, i) => [i, item])],
    ]);
    this.load.isExactly("filling", filled, ["OK", "OK", ITEMS.length, ITEMS.length, ITEMS.length]);
    this.load.dismiss(first);
    for (const iteration of ITERATIONS) {
      const client = await this.load.client();
      await client.command("SELECT", SCAN_DB);
      this.load.loop(iteration.name, () => this.#step(client, iteration));
    }
  }

  async #step(client: RawClient, { name, words }: Iteration): Promise<boolean> {
    const seen = new Set<Reply>();
    let cursor = "0";
    do {
      const reply = await client.command(...words(cursor), "COUNT", 40);
      if (!this.load.isWell(name, reply)) return false;
      const [next, found] = reply as [string, Reply[]];
      for (const item of found) seen.add(item);
      cursor = next;
      await this.load.pause(30);
    } while (cursor !== "0");
    const missed = ITEMS.filter((item) => !seen.has(item));
    if (missed.length > 0) this.load.fault(`${name}: missed ${missed.length} of ${ITEMS.length}`);
    return missed.length === 0;
  }
}

const COUNT_UP = "local n = redis.call('INCR', KEYS[1]) return {n, ARGV[1]}";

/** 30, 31: scripts by their name and by their text, alone and inside MULTI: counters of their own. */
export class Scripts extends Actor {
  readonly #tallies = new Map<string, Tally>();
  #sha = "";

  async start(): Promise<void> {
    const client = await this.load.client();
    this.#sha = String(await client.command("SCRIPT", "LOAD", COUNT_UP));
    this.load.dismiss(client);
    const loops = { eval: this.#eval, evalsha: this.#evalsha, "evalsha-multi": this.#evalshaInMulti };
    for (const [name, step] of Object.entries(loops)) {
      const tally = new Tally(this.load, name);
      this.#tallies.set(name, tally);
      const own = await this.load.client();
      this.load.loop(name, () => step.call(this, own, tally));
    }
    const asker = await this.load.client();
    this.load.loop("script-exists", async () => {
      const reply = await asker.command("SCRIPT", "EXISTS", this.#sha, "0".repeat(40));
      return this.load.isExactly("script-exists", reply, [1, 0]);
    });
  }

  #settle(tally: Tally, reply: Reply | undefined, tag: string): boolean {
    const [value, echo] = Array.isArray(reply) ? reply : [];
    return tally.settle(reply, value) && this.load.isExactly("script", echo, tag);
  }

  async #eval(client: RawClient, tally: Tally): Promise<boolean> {
    const tag = `eval:${this.load.random(1_000_000)}`;
    return this.#settle(tally, await client.command("EVAL", COUNT_UP, 1, "eval", tag), tag);
  }

  async #evalsha(client: RawClient, tally: Tally): Promise<boolean> {
    const [one, two] = [`sha:${this.load.random(1_000_000)}`, `sha:${this.load.random(1_000_000)}`];
    const [first, echo, second] = await client.pipeline([
      ["EVALSHA", this.#sha, 1, "evalsha", one],
      ["ECHO", one],
      ["EVALSHA", this.#sha, 1, "evalsha", two],
    ]);
    const isFirst = this.#settle(tally, first, one);
    this.load.isExactly("ECHO between scripts", echo, one);
    return this.#settle(tally, second, two) && isFirst;
  }

  async #evalshaInMulti(client: RawClient, tally: Tally): Promise<boolean> {
    await client.command("MULTI");
    await this.load.pause(20);
    await client.command("EVALSHA", this.#sha, 1, "evalsha-multi", "tag");
    await this.load.pause(20);
    const reply = await client.command("EXEC");
    if (!Array.isArray(reply)) return tally.settle(reply, Number.NaN);
    const [inner] = reply;
    if (inner instanceof ReplyError) {
      this.load.fault(`evalsha in multi: ${inner.message}`);
      return false;
    }
    return this.#settle(tally, inner, "tag");
  }

  override async audit(master: RedisServer): Promise<void> {
    for (const [name, tally] of this.#tallies) tally.audit(Number((await master.cli("GET", name)) ?? 0));
  }
}

/** 31, 32: a library that is replaced again and again, and one of its functions. */
export class Functions extends Actor {
  readonly #tally = new Tally(this.load, "fcall");
  #version = 0;
  /** Older ones must not come any more. */
  #least = 0;

  async start(): Promise<void> {
    const client = await this.load.client();
    this.load.loop("fcall", () => this.#step(client));
  }

  async #step(client: RawClient): Promise<boolean> {
    const { load } = this;
    if (this.#version === 0 || load.random(5) === 0) {
      const reply = await client.command("FUNCTION", "LOAD", "REPLACE", library(++this.#version));
      if (!load.isWell("FUNCTION LOAD", reply)) return false;
      load.isExactly("FUNCTION LOAD", reply, "holdfast_test");
      this.#least = this.#version;
    }
    const reply = await client.command("FCALL", "count_up", 1, "fcall", "tag");
    const [value, tag, version] = Array.isArray(reply) ? reply : [];
    if (!this.#tally.settle(reply, value)) return false;
    if (load.mayLose > 0) this.#least = Math.min(this.#least, Number(version));
    if (Number(version) < this.#least || Number(version) > this.#version) {
      load.fault(`fcall: version ${String(version)} is not in ${this.#least} to ${this.#version}`);
    }
    return load.isExactly("fcall", tag, "tag");
  }

  override async audit(master: RedisServer): Promise<void> {
    this.#tally.audit(Number((await master.cli("GET", "fcall")) ?? 0));
    const text = JSON.stringify(await master.cli("FUNCTION", "LIST", "WITHCODE"));
    this.#least = Number(/version (\d+)/.exec(text)?.[1] ?? 0);
  }
}

function library(version: number): string {
  return `#!lua name=holdfast_test
-- version ${version}
redis.register_function('count_up', function(keys, args)
  return {redis.call('INCR', keys[1]), args[1], ${version}}
end)`;
}

/** 33: what WAIT counted is there after the switch. */
export class Waiter extends Actor {
  /** Numbers that all replicas have, and that one has: which may be the one that is not promoted. */
  readonly #everywhere = new Set<string>();
  readonly #somewhere = new Set<string>();
  #number = 0;

  async start(): Promise<void> {
    const client = await this.load.client();
    this.load.loop("wait", () => this.#step(client));
  }

  async #step(client: RawClient): Promise<boolean> {
    const number = String(++this.#number);
    const isWritten = this.load.isWell("waiter", await client.command("RPUSH", "waited", number));
    const wanted = 1 + this.load.random(2);
    const count = await client.command("WAIT", wanted, 50 + this.load.random(500));
    if (!this.load.isWell("WAIT", count)) return false;
    if (typeof count !== "number" || count < 0 || count > 2) this.load.fault(`WAIT: ${String(count)}`);
    if (!isWritten || typeof count !== "number") return false;
    if (count >= 2) this.#everywhere.add(number);
    else if (count === 1) this.#somewhere.add(number);
    return count >= wanted;
  }

  override async audit(master: RedisServer): Promise<void> {
    const there = new Set((await master.cli("LRANGE", "waited", 0, -1)) as Reply[]);
    const missing = (numbers: ReadonlySet<string>) => [...numbers].filter((number) => !there.has(number));
    const lost = missing(this.#everywhere);
    if (this.load.mayLose === 0) lost.push(...missing(this.#somewhere));
    if (lost.length > 0) this.load.fault(`WAIT counted replicas that have ${lost}, which are lost`);
    if (there.size < this.#everywhere.size) this.load.fault("WAIT: the list is shorter than it says");
    this.#everywhere.clear();
    this.#somewhere.clear();
    await master.cli("DEL", "waited");
  }
}
