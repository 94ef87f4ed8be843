/** Transactions whose commands come with pauses between them. */
import type { RawClient } from "../client.ts";
import type { RedisServer } from "../redis.ts";
import { type Reply, ReplyError } from "../resp.ts";
import { Actor, Tally } from "../stateful.ts";

const STEP_PAUSE_MS = 40;

/** 17, 18, 19: two counters that are always equal, and a tag, in one transaction. */
export class Pairs extends Actor {
  readonly #tallies = new Map<string, Tally>();

  async start(): Promise<void> {
    for (const name of ["pair-2", "pair-3"]) {
      const client = await this.load.client({ protocol: name === "pair-3" ? 3 : 2 });
      const tally = new Tally(this.load, name);
      this.#tallies.set(name, tally);
      let round = 0;
      this.load.loop(name, () => this.#step(client, name, tally, ++round));
    }
  }

  async #step(client: RawClient, name: string, tally: Tally, round: number): Promise<boolean> {
    const { load } = this;
    const tag = `${name}:${round}`;
    const unit = [["MULTI"], ["INCR", `${name}:a`], ["ECHO", tag], ["INCR", `${name}:b`]];
    for (const [i, command] of unit.entries()) {
      load.isExactly(`${name} ${command}`, await client.command(...command), i === 0 ? "OK" : "QUEUED");
      await load.pause(STEP_PAUSE_MS);
    }
    if (load.random(10) === 0) return load.isExactly(name, await client.command("DISCARD"), "OK");
    const reply = await client.command("EXEC");
    const [a, echo, b] = Array.isArray(reply) ? reply : [];
    if (!tally.settle(reply, a)) return false;
    return load.isExactly(name, [a, echo, b] as Reply[], [a, tag, a] as Reply[]);
  }

  override async audit(master: RedisServer): Promise<void> {
    for (const [name, tally] of this.#tallies) {
      const [a, b] = (await master.cli("MGET", `${name}:a`, `${name}:b`)) as Reply[];
      this.load.isExactly(`${name} after`, b, a as Reply);
      tally.audit(Number(a ?? 0));
    }
  }
}

/** 1, 17, 18, 19: SELECT inside of the transaction, which the session follows only when it ran. */
export class Selector extends Actor {
  readonly #tally = new Tally(this.load, "selector");
  #db = 0;

  async start(): Promise<void> {
    const client = await this.load.client();
    for (const db of DATABASES) {
      await client.command("SELECT", db);
      await client.command("SET", "which", db);
    }
    this.#db = DATABASES.length;
    this.load.loop("selector", () => this.#step(client));
  }

  async #step(client: RawClient): Promise<boolean> {
    const { load } = this;
    const to = String(DATABASES[load.random(DATABASES.length)]);
    const unit = [
      ["GET", "which"],
      ["SELECT", to],
      ["GET", "which"],
      ["SELECT", "0"],
      ["INCR", "selected"],
    ];
    for (const command of [["MULTI"], ...unit, ["SELECT", to]]) {
      await client.command(...command);
      await load.pause(STEP_PAUSE_MS / 2);
    }
    const reply = await client.command("EXEC");
    const from = String(this.#db);
    const [before, , after, , value] = Array.isArray(reply) ? reply : [];
    const isDone = this.#tally.settle(reply, value);
    if (isDone) {
      this.#db = Number(to);
      load.isExactly("selector", [before, after] as Reply[], [from, to]);
    }
    // What may have run has not been followed.
    load.isExactly("selector after", await client.command("GET", "which"), String(this.#db));
    return isDone;
  }

  override async audit(master: RedisServer): Promise<void> {
    this.#tally.audit(Number((await master.cli("GET", "selected")) ?? 0));
  }
}

const DATABASES = [1, 2, 3];

/** 20: increments with WATCH by two clients at once. */
export class Watchers extends Actor {
  readonly #tally = new Tally(this.load, "watched");

  async start(): Promise<void> {
    for (const protocol of [2, 3] as const) {
      const client = await this.load.client({ protocol });
      this.load.loop(`watcher-${protocol}`, () => this.#step(client));
    }
  }

  async #step(client: RawClient): Promise<boolean> {
    const { load } = this;
    load.isExactly("WATCH", await client.command("WATCH", "watched"), "OK");
    await load.pause(STEP_PAUSE_MS);
    const value = await client.command("GET", "watched");
    if (!load.isWell("GET behind WATCH", value)) return false;
    if (load.random(10) === 0) return load.isExactly("UNWATCH", await client.command("UNWATCH"), "OK");
    await load.pause(STEP_PAUSE_MS);
    const unit = [["MULTI"], ["SET", "watched", Number(value) + 1], ["ECHO", "tag"]] as const;
    for (const [i, command] of unit.entries()) {
      load.isExactly(`watcher ${command}`, await client.command(...command), i === 0 ? "OK" : "QUEUED");
      await load.pause(STEP_PAUSE_MS / 2);
    }
    const reply = await client.command("EXEC");
    if (reply === null) return false;
    const isDone = this.#tally.count(reply);
    return isDone && load.isExactly("watcher's EXEC", reply, ["OK", "tag"]);
  }

  override async audit(master: RedisServer): Promise<void> {
    this.#tally.audit(Number((await master.cli("GET", "watched")) ?? 0));
  }
}

/** 15, 36: what would change the group is refused, alone, in a pipeline and inside MULTI; nobody notices. */
export class Meddler extends Actor {
  async start(): Promise<void> {
    const client = await this.load.client();
    let round = 0;
    this.load.loop("meddler", () => this.#step(client, `meddler:${++round}`));
  }

  async #step(client: RawClient, tag: string): Promise<boolean> {
    const { load } = this;
    const command = FORBIDDEN[load.random(FORBIDDEN.length)]!;
    const unit = [["MULTI"], ["ECHO", tag], command, ["EXEC"]];
    const replies = await client.pipeline([["ECHO", tag], command, ["ECHO", tag], ...unit, ["PING", tag]]);
    const words = replies.map((reply) => (reply instanceof ReplyError ? reply.word : reply));
    const expected = [tag, "ERR", tag, "OK", "QUEUED", "ERR", "EXECABORT", tag];
    return load.isExactly(`${command}`, words, expected);
  }
}

const FORBIDDEN: readonly string[][] = [
  ["REPLICAOF", "NO", "ONE"],
  ["SLAVEOF", "127.0.0.1", "1"],
  ["FAILOVER"],
  ["SHUTDOWN", "NOSAVE"],
  ["PSYNC", "?", "-1"],
];
