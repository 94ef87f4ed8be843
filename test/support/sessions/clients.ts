/** 1, 2, 15, 34, 35: who the clients are, and how they want to be spoken to. */
import type { RawClient } from "../client.ts";
import type { RedisServer } from "../redis.ts";
import { type Reply, ReplyError } from "../resp.ts";
import { Actor, Tally } from "../stateful.ts";
import { sleep } from "../wait.ts";

/** For the servers, which do not tell each other of users. */
export const USER_ARGS = ["alice", "bob"].flatMap((name) => [
  "--user",
  name,
  ...["on", ">secret", `~${name}:*`, "+@all", "-@dangerous", "resetchannels"],
]);

/** Clients of users with rights to their own keys only, each in a database of its own. */
export class Identities extends Actor {
  #visitors = 0;

  async start(): Promise<void> {
    const clients = [
      { user: "alice", protocol: 2, db: 7 },
      { user: "alice", protocol: 3, db: 8 },
      { user: "bob", protocol: 3, db: 7 },
      { user: "bob", protocol: 2, db: 0 },
    ] as const;
    for (const { user, protocol, db } of clients) {
      const name = `${user}-${protocol}-${db}`;
      const client = await this.load.client();
      await this.#introduce(client, name, user, protocol, db);
      this.load.loop(name, () => this.#step(client, name, user));
    }
    this.load.loop("visitor", () => this.#visit());
  }

  async #introduce(
    client: RawClient,
    name: string,
    user: string,
    protocol: number,
    db: number,
  ): Promise<void> {
    const hello = await client.command("HELLO", protocol, "AUTH", user, "secret", "SETNAME", name);
    this.load.isWell(`HELLO of ${name}`, hello);
    this.load.isExactly(`SELECT of ${name}`, await client.command("SELECT", db), "OK");
  }

  async #step(client: RawClient, name: string, user: string): Promise<boolean> {
    const other = user === "alice" ? "bob" : "alice";
    const tag = `${name}:${this.load.random(1_000_000)}`;
    const replies = await client.pipeline([
      ["ECHO", tag],
      ["SET", `${user}:${name}`, tag],
      ["GET", `${user}:${name}`],
      ["GET", `${other}:x`],
      ["SET", `${other}:x`, tag],
      ["ACL", "WHOAMI"],
      ["CLIENT", "GETNAME"],
      ["MULTI"],
      ["GET", `${user}:${name}`],
      ["EXEC"],
      ["PING", tag],
    ]);
    const isSet = replies[1] === "OK";
    const words = replies.map((reply) => (reply instanceof ReplyError ? reply.word : reply));
    const value = isSet ? tag : words[2];
    const expected = [tag, "OK", value, "NOPERM", "NOPERM", user, name, "OK", "QUEUED", [value], tag];
    // What may have an effect may have had it: both SETs, and ACL whatever it says.
    for (const i of [1, 4, 5]) {
      if (words[i] === "UNCERTAIN" && this.load.isWell(name, replies[i]) === false) expected[i] = "UNCERTAIN";
    }
    return this.load.isExactly(name, words as Reply[], expected as Reply[]) && isSet;
  }

  /** 2: comes at any time, says who it is, does something and goes. */
  async #visit(): Promise<boolean> {
    const client = await this.load.client();
    const name = `visitor-${++this.#visitors}`;
    await this.#introduce(client, name, "bob", 2 + this.load.random(2), this.load.random(9));
    const isDone = await this.#step(client, name, "bob");
    this.load.dismiss(client);
    await this.load.pause(100);
    return isDone;
  }
}

/** 34: stays the client that it is. */
export class Constant extends Actor {
  async start(): Promise<void> {
    const client = await this.load.client();
    await client.command("CLIENT", "SETNAME", "constant");
    const id = await client.command("CLIENT", "ID");
    this.load.loop("constant", async () => {
      const replies = await client.pipeline([
        ["CLIENT", "ID"],
        ["CLIENT", "GETNAME"],
        ["CLIENT", "LIST", "ID", String(id)],
      ]);
      const line = String(replies[2]);
      if (!line.startsWith(`id=${String(id)} `) || !line.includes(" name=constant ")) {
        this.load.fault(`CLIENT LIST: ${line}`);
      }
      return this.load.isExactly("constant", replies.slice(0, 2), [id, "constant"]);
    });
  }
}

/** 21, 34: waiting calls that another client ends. */
export class Unblocked extends Actor {
  #ended = 0;

  async start(): Promise<void> {
    const waiting = await this.load.client();
    const other = await this.load.client();
    const id = String(await waiting.command("CLIENT", "ID"));
    this.load.loop("unblocked", async () => {
      const how = this.load.random(2) === 0 ? "TIMEOUT" : "ERROR";
      let isAnswered = false;
      const answer = waiting.command("BLPOP", "never", 0).finally(() => {
        isAnswered = true;
      });
      answer.catch(() => {});
      await this.load.pause(300);
      // As long as the call is on its way, there is nothing to end.
      while ((await this.#unblock(other, id, how)) === 0 && !isAnswered) await sleep(5);
      const before = this.#ended;
      const late = setTimeout(() => {
        if (this.#ended !== before) return;
        // Killed between its two answers, a server has told only who asked: the call waits at the next one.
        if (this.load.round.mayCut) void this.#unblock(other, id, how);
        else this.load.fault(`CLIENT UNBLOCK ${how} answered 1, and the call waits on`);
      }, LATE_MS);
      const reply = await answer.finally(() => clearTimeout(late));
      this.#ended++;
      const text = reply instanceof ReplyError ? reply.message : reply;
      const expected = how === "ERROR" ? "UNBLOCKED client unblocked via CLIENT UNBLOCK" : null;
      if (reply instanceof ReplyError && reply.word === "UNCERTAIN") {
        return this.load.isWell("unblocked", reply);
      }
      return this.load.isExactly("unblocked", text, expected);
    });
  }

  async #unblock(client: RawClient, id: string, how: string): Promise<number> {
    const reply = await client.command("CLIENT", "UNBLOCK", id, how);
    this.load.isWell("CLIENT UNBLOCK", reply);
    return Number(reply);
  }
}

const LATE_MS = 3_000;

/** 35: replies that nobody wants do not come, and the next one is the right one. */
export class Silent extends Actor {
  readonly #tally = new Tally(this.load, "silent");

  async start(): Promise<void> {
    const client = await this.load.client();
    this.load.loop("silent", () => this.#step(client));
  }

  async #step(client: RawClient): Promise<boolean> {
    const { load } = this;
    const tag = `silent:${load.random(1_000_000)}`;
    const isOff = load.random(2) === 0;
    client.send(`CLIENT REPLY ${isOff ? "OFF" : "SKIP"}\r\n`);
    const times = isOff ? 1 + load.random(4) : 1;
    for (let i = 0; i < times; i++) {
      client.send("INCR silent\r\n");
      // Nobody is told whether it ran.
      if (load.round.mayCut) this.#tally.uncertain++;
      else this.#tally.acked++;
      await load.pause(20);
    }
    if (isOff) load.isExactly("CLIENT REPLY ON", await client.command("CLIENT", "REPLY", "ON"), "OK");
    const value = await client.command("GET", "silent");
    if (client.unclaimed > 0) load.fault(`silent: ${client.unclaimed} replies too many`);
    if (load.mayLose === 0 && !/^\d+$/.test(String(value)))
      load.fault(`silent: GET answered ${String(value)}`);
    return load.isExactly("silent", await client.command("ECHO", tag), tag);
  }

  override async audit(master: RedisServer): Promise<void> {
    this.#tally.audit(Number((await master.cli("GET", "silent")) ?? 0));
  }
}
