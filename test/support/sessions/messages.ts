/** 24 to 28: what servers send unasked. */
import type { RawClient } from "../client.ts";
import type { RedisServer } from "../redis.ts";
import type { Reply } from "../resp.ts";
import { Actor } from "../stateful.ts";
import { sleep, until } from "../wait.ts";

const LOOK_MS = 5;

interface Subscriber {
  readonly name: string;
  readonly client: RawClient;
  /** The newest number of each kind of message. */
  readonly last: Map<string, number>;
  confirmations: number;
  readonly expected: number;
  received: number;
}

const SUBSCRIBERS: readonly { name: string; protocol: 2 | 3; requests: readonly string[][] }[] = [
  { name: "subscriber-2", protocol: 2, requests: [["SUBSCRIBE", "numbers", "never"]] },
  {
    name: "subscriber-3",
    protocol: 3,
    requests: [
      ["SUBSCRIBE", "numbers"],
      ["PSUBSCRIBE", "num*"],
    ],
  },
  { name: "psubscriber-2", protocol: 2, requests: [["PSUBSCRIBE", "n?mbers"]] },
  { name: "ssubscriber-2", protocol: 2, requests: [["SSUBSCRIBE", "shard"]] },
  { name: "ssubscriber-3", protocol: 3, requests: [["SSUBSCRIBE", "shard"]] },
];

/** 24, 25, 26: numbers only grow, and nothing is confirmed twice. */
export class Messages extends Actor {
  readonly #subscribers: Subscriber[] = [];
  #number = 0;

  async start(): Promise<void> {
    for (const { name, protocol, requests } of SUBSCRIBERS) {
      const client = await this.load.client({ protocol, deadlineMs: 600_000 });
      const expected = requests.reduce((sum, words) => sum + words.length - 1, 0);
      const subscriber = { name, client, last: new Map(), confirmations: 0, expected, received: 0 };
      this.#subscribers.push(subscriber);
      for (const words of requests) client.send(`${words.join(" ")}\r\n`);
      const next = protocol === 3 ? this.#nextPush(client) : () => client.reply();
      this.load.loop(name, async () => this.#onMessage(subscriber, (await next()) as Reply[]), true);
      if (protocol === 3) this.load.loop(`${name}-asks`, () => this.#ask(client, name));
    }
    const everyone = () =>
      this.#subscribers.every(({ confirmations, expected }) => confirmations === expected);
    await until(everyone, { what: "the confirmations" });
    const publisher = await this.load.client();
    this.load.loop("publisher", () => this.#publish(publisher));
  }

  async #publish(client: RawClient): Promise<boolean> {
    const [command, channel] = this.load.random(2) === 0 ? ["PUBLISH", "numbers"] : ["SPUBLISH", "shard"];
    const reply = await client.command(command!, channel!, ++this.#number);
    if (!this.load.isWell("publisher", reply)) return false;
    if (typeof reply !== "number") this.load.fault(`${command}: ${JSON.stringify(reply)}`);
    return true;
  }

  #nextPush(client: RawClient): () => Promise<readonly Reply[]> {
    return async () => {
      while (client.pushes.length === 0 && !this.load.stopping) await sleep(LOOK_MS);
      return client.pushes.shift() ?? ["none"];
    };
  }

  #onMessage(subscriber: Subscriber, frame: readonly Reply[]): boolean {
    const { name, last } = subscriber;
    const kind = String(frame[0]);
    if (kind.endsWith("subscribe")) {
      if (++subscriber.confirmations > subscriber.expected) this.load.fault(`${name}: ${frame} once more`);
      return false;
    }
    if (kind === "none") return false;
    const number = Number(frame[frame.length - 1]);
    const before = last.get(kind) ?? 0;
    if (!(number > before)) this.load.fault(`${name}: ${frame} after ${before}`);
    last.set(kind, number);
    subscriber.received++;
    return true;
  }

  /** In RESP3 a subscriber may send anything. */
  async #ask(client: RawClient, name: string): Promise<boolean> {
    const tag = `${name}:${this.load.random(1_000_000)}`;
    const replies = await client.pipeline([
      ["ECHO", tag],
      ["SET", name, tag],
      ["GET", name],
    ]);
    if (!this.load.isWell(name, replies[1])) return false;
    return this.load.isExactly(name, replies, [tag, "OK", tag]);
  }

  /** Whoever subscribes hears what is published now. */
  override async audit(): Promise<void> {
    const client = await this.load.client();
    const before = new Map(this.#subscribers.map((one) => [one, one.received]));
    const deaf = () => this.#subscribers.filter((one) => one.received === before.get(one));
    const heard = async () => {
      await client.command("PUBLISH", "numbers", ++this.#number);
      await client.command("SPUBLISH", "shard", ++this.#number);
      return deaf().length === 0;
    };
    await until(heard, { deadlineMs: 5_000, everyMs: 50, what: "messages" }).catch(() => {
      this.load.fault(`hear nothing: ${deaf().map(({ name }) => name)}`);
    });
    this.load.dismiss(client);
  }
}

/** 27: a monitor goes on, and sees a client's marks in their order, each of them once. */
export class Monitor extends Actor {
  #last = 0;
  #number = 0;
  #seen = 0;

  async start(): Promise<void> {
    const marker = await this.load.client();
    const monitor = await this.load.client({ deadlineMs: 600_000 });
    await monitor.command("MONITOR");
    this.load.loop("marker", async () => {
      await this.load.pause(20);
      return this.load.isWell("marker", await marker.command("SET", "monitored", ++this.#number));
    });
    this.load.loop("monitor", async () => this.#onLines(monitor), true);
  }

  async #onLines(client: RawClient): Promise<boolean> {
    // Hundreds of lines come between two marks.
    for (let i = 0; i < 500; i++) {
      const line = String(await client.reply());
      if (!/^\d+\.\d+ \[\d+ .*\] "/.test(line)) this.load.fault(`monitor: ${line}`);
      const mark = / "SET" "monitored" "(\d+)"$/i.exec(line)?.[1];
      if (mark === undefined) continue;
      if (Number(mark) <= this.#last) this.load.fault(`monitor: mark ${mark} after ${this.#last}`);
      this.#last = Number(mark);
      this.#seen++;
      return true;
    }
    return false;
  }

  override async audit(): Promise<void> {
    const client = await this.load.client();
    const before = this.#seen;
    const isSeen = async () => {
      await client.command("SET", "monitored", ++this.#number);
      return this.#seen > before;
    };
    await until(isSeen, { deadlineMs: 5_000, everyMs: 50, what: "a mark" }).catch(() => {
      this.load.fault("monitor: sees nothing any more");
    });
    this.load.dismiss(client);
  }
}

/** 28: a cache that is told of every change: it never keeps an old value for long. */
export class Cache extends Actor {
  #cached: Reply | undefined = undefined;
  #written = 0;

  async start(): Promise<void> {
    const client = await this.load.client({ protocol: 3 });
    this.load.isExactly("tracking", await client.command("CLIENT", "TRACKING", "ON"), "OK");
    const writer = await this.load.client();
    this.load.loop("cached-writer", async () => {
      await this.load.pause(100);
      return this.load.isWell("cached-writer", await writer.command("SET", "cached", ++this.#written));
    });
    this.load.loop("cache", () => this.#refresh(client), true);
  }

  async #refresh(client: RawClient): Promise<boolean> {
    // An invalidation that came before the last reply is of an older value: to ask once more does no harm.
    for (const [kind, keys] of client.pushes.splice(0) as Reply[][]) {
      if (kind !== "invalidate") this.load.fault(`cache: a push of ${String(kind)}`);
      if (keys === null || (keys as Reply[]).includes("cached")) this.#cached = undefined;
    }
    if (this.#cached !== undefined) return false;
    const reply = await client.command("GET", "cached");
    if (!this.load.isWell("cache", reply)) return false;
    this.#cached = reply;
    return true;
  }

  override async audit(master: RedisServer): Promise<void> {
    const value = await master.cli("GET", "cached");
    const isFresh = () => this.#cached === value;
    await until(isFresh, { deadlineMs: 5_000, what: "the cache being fresh" }).catch(() => {
      this.load.fault(`cache: keeps ${String(this.#cached)}, the value is ${String(value)}`);
    });
  }
}
