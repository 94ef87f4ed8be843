/** 15: pipelines in which everything that a session can be asked for stands side by side, in any order. */
import type { RawClient } from "../client.ts";
import { type Argument, encodeCommand, type Reply, ReplyError } from "../resp.ts";
import { Actor } from "../stateful.ts";

interface Expected {
  readonly request: readonly Argument[];
  /** Those that are right, ANYTHING if only that one comes matters; none where CLIENT REPLY says so. */
  readonly replies: readonly Reply[];
}

const ANYTHING = "anything";
const SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]";
/** Stands for the script's name. */
const SHA = "<sha>";

type Piece = (tag: string, key: string, client: MixedClient) => Expected[];

const say = (request: readonly Argument[], ...replies: readonly Reply[]): Expected => ({ request, replies });
const ask = (request: string, ...replies: readonly Reply[]): Expected => say(request.split(" "), ...replies);

/** A master that hands over may take seconds before it looks at a call: jobs are waited for longer. */
const PIECES: readonly Piece[] = [
  (tag) => [ask(`ECHO ${tag}`, tag), ask(`PING ${tag}`, tag)],
  (tag, key) => [ask(`SET ${key} ${tag}`, "OK"), ask(`GET ${key}`, tag), ask("SELECT 0", "OK")],
  (tag, key) => [
    ask("MULTI", "OK"),
    ask(`SET ${key} ${tag}`, "QUEUED"),
    ask(`GET ${key}`, "QUEUED"),
    ask("EXEC", ["OK", tag]),
  ],
  (tag, key) => [ask("MULTI", "OK"), ask(`EVALSHA ${SHA} 1 ${key} ${tag}`, "QUEUED"), ask("EXEC", [tag])],
  (tag, key) => [
    ask(`WATCH ${key}:w`, "OK"),
    ask("MULTI", "OK"),
    ask(`SET ${key}:w ${tag}`, "QUEUED"),
    ask("EXEC", ["OK"], null),
  ],
  (tag, key) => [ask(`WATCH ${key}:w`, "OK"), ask(`ECHO ${tag}`, tag), ask("UNWATCH", "OK")],
  // A list of its own: what an uncertain call has left there is in nobody's way.
  (tag) => [ask(`RPUSH ${tag}:l x`, 1), ask(`BLPOP ${tag}:l 8`, [`${tag}:l`, "x"])],
  (_tag, key) => [ask(`BRPOP ${key}:none 0.03`, null)],
  (_tag, key) => [ask(`BLMOVE ${key}:none ${key}:l LEFT LEFT 0.02`, null)],
  (_tag, key) => [ask(`XREAD BLOCK 20 STREAMS ${key}:s $`, null)],
  (tag, key) => [say(["EVAL", SCRIPT, 1, key, tag], tag), ask(`GET ${key}`, tag)],
  (tag, key) => [ask(`EVALSHA ${SHA} 1 ${key} ${tag}`, tag), ask(`GET ${key}`, tag)],
  (tag) => [ask("CLIENT REPLY SKIP"), ask(`ECHO ${tag}`), ask(`ECHO ${tag}`, tag)],
  (tag) => [ask("SELECT 9", "OK"), ask(`SET mixed ${tag}`, "OK"), ask("SELECT 0", "OK")],
  (tag) => [ask("MULTI", "OK"), ask(`ECHO ${tag}`, "QUEUED"), ask("DISCARD", "OK")],
  (_tag, _key, { name }) => [ask("CLIENT GETNAME", name)],
  (_tag, _key, { id }) => [ask("CLIENT ID", id), ask("WAIT 0 100", 0, 1, 2)],
  () => [ask("HELLO 3", ANYTHING), ask("HELLO 2", ANYTHING)],
  () => [ask("NOSUCHCOMMAND", ANYTHING), ask("INCR mixed-list", ANYTHING), ask("DEBUG", ANYTHING)],
  () => [ask("PUBLISH mixed-channel x", 0), ask("TYPE mixed-nothing", "none")],
];

interface MixedClient {
  readonly client: RawClient;
  readonly name: string;
  readonly id: Reply;
}

export class Mixers extends Actor {
  #sha = "";

  async start(): Promise<void> {
    for (const name of ["mixer-one", "mixer-two", "mixer-three"]) {
      const client = await this.load.client();
      await client.command("CLIENT", "SETNAME", name);
      this.#sha = String(await client.command("SCRIPT", "LOAD", SCRIPT));
      const mixed = { client, name, id: await client.command("CLIENT", "ID") };
      let round = 0;
      this.load.loop(name, () => this.#step(mixed, `${name}:${++round}`));
    }
  }

  async #step(mixed: MixedClient, tag: string): Promise<boolean> {
    const pieces = Array.from({ length: 1 + this.load.random(12) }, (_, i) =>
      PIECES[this.load.random(PIECES.length)]!(`${tag}:${i}`, `mixed:${mixed.name}`, mixed),
    );
    const all = pieces.flat();
    const frames = all.map(({ request }) => encodeCommand(request.map((word) => this.#filledIn(word))));
    const cut = this.load.random(frames.length + 1);
    mixed.client.send(Buffer.concat(frames.slice(0, cut)));
    if (cut > 0) await this.load.pause(20);
    mixed.client.send(Buffer.concat(frames.slice(cut)));
    let isWell = true;
    for (const one of all) {
      if (one.replies.length === 0) continue;
      isWell = this.#check(one, await mixed.client.reply()) && isWell;
    }
    if (mixed.client.unclaimed > 0)
      this.load.fault(`${mixed.name}: ${mixed.client.unclaimed} replies too many`);
    return isWell;
  }

  #filledIn(word: Argument): Argument {
    return word === SHA ? this.#sha : word;
  }

  #check({ request, replies }: Expected, reply: Reply): boolean {
    if (replies.includes(ANYTHING)) return true;
    const text = JSON.stringify(reply);
    if (replies.some((right) => JSON.stringify(right) === text)) return true;
    const isUncertain = reply instanceof ReplyError && reply.word === "UNCERTAIN";
    if (isUncertain) return this.load.isWell(`${request}`, reply);
    // What an uncertain or lost write has left shows in the replies behind it, as far as they are about keys.
    const mayDiffer =
      this.load.mayLose > 0 && !(reply instanceof ReplyError) && !FIXED.has(String(request[0]));
    if (!mayDiffer)
      this.load.fault(`mixer: ${request} answered ${reply instanceof ReplyError ? reply.message : text}`);
    return false;
  }
}

/** Commands whose replies do not depend on what is stored. */
const FIXED = new Set([
  "ECHO",
  "PING",
  "MULTI",
  "SELECT",
  "WATCH",
  "UNWATCH",
  "DISCARD",
  "CLIENT",
  "TYPE",
  "SET",
]);
