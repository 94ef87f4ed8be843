/**
 * A client that sends random sequences of commands that change its session, in random pieces, and knows what
 * each of them must be answered: a reply that is another's, doubled, missing or out of its place is a fault.
 */
import { RawClient } from "./client.ts";
import { losesWrongLogins } from "./redis.ts";
import { type Argument, encodeCommand, type Push, type Reply, ReplyError } from "./resp.ts";
import { sleep, within } from "./wait.ts";

/** Databases that hold `db` with their number as value. */
export const DATABASES = 3;
export const USERS = ["first", "second"] as const;
export const SCRIPT = "return redis.call('GET', KEYS[1])";

type Expected = (reply: Reply) => boolean;

export interface Company {
  readonly port: number;
  readonly random: () => number;
  /** SHA1 of `SCRIPT`, which somebody has loaded. */
  readonly sha: string;
  /** Nodes are switched meanwhile: writes may be lost or UNCERTAIN, watches broken. */
  readonly switches: boolean;
  /** A reply that takes longer is missing, ms. */
  readonly patienceMs: number;
  /** Numbers of the clients that somebody has killed. */
  readonly killed: Set<number>;
  readonly present: Map<number, StateClient>;
  /** When somebody last asked for a pause, ms of `performance.now`. */
  pausedAtMs: number;
  /** Commands answered as they should be. */
  checked: number;
}

interface Step {
  readonly args: readonly Argument[];
  readonly expected: Expected;
}

export class StateClient {
  readonly prefix: string;
  #company: Company;
  #client!: RawClient;
  #id = 0;
  #protocol: 2 | 3 = 2;
  #user = "default";
  #db = 0;
  #name = "";
  #mode: "on" | "off" | "skip" = "on";
  #tracking = false;
  #monitor = false;
  #watching = false;
  #channels = new Set<string>();
  #shards = new Set<string>();
  #counters = new Map<number, number>();
  #tags = 0;
  #bytes: Buffer[] = [];
  #sent: string[] = [];
  #expected: { readonly what: string; readonly fits: Expected }[] = [];
  #pushed: { readonly what: string; readonly fits: Expected }[] = [];

  constructor(company: Company, prefix: string) {
    this.#company = company;
    this.prefix = prefix;
  }

  /** Comes, talks for a while and leaves in one way or another. @throws what was not as it should be. */
  async visit(): Promise<void> {
    const { port, patienceMs, present } = this.#company;
    this.#client = await RawClient.connect({ port, deadlineMs: 4 * patienceMs });
    this.#forget();
    this.#id = (await this.#client.command("CLIENT", "ID")) as number;
    present.set(this.#id, this);
    try {
      const talks = 1 + this.#below(4);
      for (let i = 0; i < talks; i++) await this.#talk();
      await this.#leave();
    } catch (error) {
      if (this.#company.killed.has(this.#id) && this.#client.disconnected) return;
      const trace = this.#sent.slice(-60).join("\n  ");
      throw new Error(`${this.prefix} (id ${this.#id}): ${(error as Error).message}\n  ${trace}`, {
        cause: error,
      });
    } finally {
      present.delete(this.#id);
      this.#client.close();
    }
  }

  #below(count: number): number {
    return Math.floor(this.#company.random() * count);
  }

  #key(name: string): string {
    return `${this.prefix}:${name}`;
  }

  #forget(): void {
    this.#protocol = 2;
    this.#user = "default";
    this.#db = 0;
    this.#name = "";
    this.#mode = "on";
    this.#tracking = false;
    this.#monitor = false;
    this.#watching = false;
    this.#channels.clear();
    this.#shards.clear();
    this.#counters.clear();
    this.#bytes = [];
    this.#sent = [];
    this.#expected = [];
    this.#pushed = [];
  }

  // Talking

  async #talk(): Promise<void> {
    const count = 3 + this.#below(30);
    for (let i = 0; i < count; i++) this.#choose();
    await this.#write();
    // Without this end nobody could tell a reply that is missing from one that is late.
    this.#end();
    await this.#write();
    await this.#check();
  }

  /** Something that is answered in every state. */
  #end(): void {
    if (this.#mode !== "on" && this.#channels.size + this.#shards.size > 0 && this.#protocol === 2)
      this.#reset();
    if (this.#mode === "skip") this.#tag();
    if (this.#mode === "off") this.#on();
    this.#tag();
  }

  async #write(): Promise<void> {
    const all = Buffer.concat(this.#bytes.splice(0));
    for (let at = 0; at < all.length; ) {
      const size = this.#below(3) === 0 ? 1 + this.#below(40) : all.length - at;
      this.#client.send(all.subarray(at, at + size));
      at += size;
      if (this.#below(4) === 0) await sleep(this.#below(4));
    }
  }

  async #check(): Promise<void> {
    const { patienceMs } = this.#company;
    for (const { what, fits } of this.#expected.splice(0)) {
      const reply = await this.#next(what);
      if (!fits(reply)) throw new Error(`${what} was answered ${show(reply)}`);
      this.#company.checked++;
    }
    const end = performance.now() + patienceMs;
    while (this.#confirmed() < this.#pushed.length) {
      if (performance.now() > end)
        throw new Error(`no confirmation: ${this.#pushed[this.#confirmed()]?.what}`);
      await sleep(2);
    }
    this.#checkPushes();
  }

  async #next(what: string): Promise<Reply> {
    for (;;) {
      const reply = await within(this.#client.reply(), this.#company.patienceMs, `reply to ${what}`);
      if (!this.#isMessage(reply)) return reply;
    }
  }

  #isMessage(reply: Reply): boolean {
    if (typeof reply === "string") return /^\d+\.\d+ \[/.test(reply);
    return Array.isArray(reply) && (reply[0] === "message" || reply[0] === "smessage") && reply.length === 3;
  }

  /** A client that has said all it will say is not kept while it is paused or held. */
  async #checkHalfClosed(): Promise<void> {
    try {
      await this.#check();
    } catch (error) {
      const { switches, pausedAtMs } = this.#company;
      const mayBeDropped = switches || performance.now() - pausedAtMs < 3_000;
      if (!mayBeDropped || !this.#client.disconnected) throw error;
    }
  }

  #confirmed(): number {
    return this.#client.pushes.filter(isConfirmation).length;
  }

  #checkPushes(): void {
    for (const push of this.#client.pushes.splice(0)) {
      if (!isConfirmation(push)) {
        if (
          push[0] === "invalidate" ||
          push[0] === "message" ||
          push[0] === "smessage" ||
          push[0] === "server-cpu-usage"
        )
          continue;
        throw new Error(`an unknown push ${show([...push])}`);
      }
      const next = this.#pushed.shift();
      if (next === undefined) throw new Error(`a confirmation too many ${show([...push])}`);
      if (!next.fits([...push])) throw new Error(`${next.what} was confirmed ${show([...push])}`);
    }
  }

  /** Sends a command that is answered unless the client wants no reply. */
  #say(args: readonly Argument[], expected: Expected): void {
    this.#send(args);
    if (this.#mode === "on") this.#expect(args, expected);
    if (this.#mode === "skip") this.#mode = "on";
  }

  #send(args: readonly Argument[]): void {
    this.#bytes.push(encodeCommand(args));
    this.#sent.push(shown(args));
  }

  #expect(args: readonly Argument[], fits: Expected): void {
    this.#expected.push({ what: `#${this.#sent.length} ${shown(args)}`, fits });
  }

  // What it may say

  #choose(): void {
    if (this.#monitor) {
      if (this.#below(3) === 0) this.#reset();
      else this.#tag();
      return;
    }
    if (this.#channels.size + this.#shards.size > 0 && this.#protocol === 2) {
      const choice = this.#below(8);
      if (choice < 3) this.subscribe();
      else if (choice < 6) this.unsubscribe();
      else if (choice === 6) this.#tag();
      else this.#reset();
      return;
    }
    const actions = ACTIONS[this.#below(ACTIONS.length)]!;
    actions.call(this);
  }

  #tag(): void {
    const tag = `${this.prefix}/${++this.#tags}`;
    if (this.#channels.size + this.#shards.size > 0 && this.#protocol === 2) {
      this.#say(["PING", tag], (reply) => same(reply, ["pong", tag]));
    } else this.#say(["ECHO", tag], (reply) => reply === tag);
  }

  #steps(): Step {
    const tag = `${this.prefix}/${++this.#tags}`;
    const db = this.#db;
    const user = this.#user;
    switch (this.#below(6)) {
      case 0:
        return { args: ["ECHO", tag], expected: (reply) => reply === tag };
      case 1:
        return { args: ["GET", "db"], expected: (reply) => reply === String(db) };
      case 2:
        return { args: ["ACL", "WHOAMI"], expected: (reply) => reply === user || this.#mayBeLost(reply) };
      case 3:
        return {
          args: ["EVALSHA", this.#company.sha, 1, "db"],
          expected: (reply) => reply === String(db) || this.#mayBeLost(reply),
        };
      case 4: {
        const protocol = this.#protocol;
        return { args: ["HGETALL", "hash"], expected: (reply) => reply instanceof Map === (protocol === 3) };
      }
      default:
        return this.#increment();
    }
  }

  /** What may write is not repeated over a switch. */
  #mayBeLost(reply: Reply): boolean {
    return this.#company.switches && isUncertain(reply);
  }

  #increment(): Step {
    const now = (this.#counters.get(this.#db) ?? 0) + 1;
    this.#counters.set(this.#db, now);
    const { switches } = this.#company;
    const fits: Expected = (reply) =>
      switches ? typeof reply === "number" || isUncertain(reply) : reply === now;
    return { args: ["INCR", this.#key("n")], expected: fits };
  }

  plain(): void {
    const { args, expected } = this.#steps();
    this.#say(args, expected);
  }

  large(): void {
    const value = "x".repeat(this.#below(4) === 0 ? 1_200_000 : 40_000);
    this.#send(["ECHO", value]);
    if (this.#mode === "on") this.#expected.push({ what: "a large ECHO", fits: (reply) => reply === value });
    if (this.#mode === "skip") this.#mode = "on";
  }

  select(): void {
    this.#db = this.#below(DATABASES);
    this.#say(["SELECT", this.#db], isOk);
  }

  selectNothing(): void {
    this.#say(["SELECT", 999], (reply) => reply instanceof ReplyError && /out of range/.test(reply.message));
  }

  auth(): void {
    this.#user = USERS[this.#below(USERS.length)]!;
    this.#say(["AUTH", this.#user, "secret"], isOk);
  }

  authWrong(): void {
    this.#say(
      ["AUTH", "first", "wrong"],
      (reply) => reply instanceof ReplyError && reply.word === "WRONGPASS",
    );
  }

  hello(): void {
    const protocol = this.#below(2) === 0 ? 2 : 3;
    // Its server could not tell a monitor's or subscriber's mode apart.
    if (this.#tracking && protocol === 2) return;
    if (this.#channels.size + this.#shards.size > 0 && protocol === 2) return;
    const args: Argument[] = ["HELLO", protocol];
    if (this.#below(2) === 0) {
      this.#user = USERS[this.#below(USERS.length)]!;
      args.push("AUTH", this.#user, "secret");
    }
    if (this.#below(3) === 0) {
      this.#name = `${this.prefix}-named`;
      args.push("SETNAME", this.#name);
    }
    this.#protocol = protocol;
    this.#say(args, (reply) => {
      if (protocol === 3)
        return reply instanceof Map && reply.get("proto") === 3 && reply.get("id") === this.#id;
      return Array.isArray(reply) && reply.includes(this.#id);
    });
  }

  name(): void {
    this.#name = `${this.prefix}-${++this.#tags}`;
    this.#say(["CLIENT", "SETNAME", this.#name], isOk);
  }

  identity(): void {
    const name = this.#name === "" ? null : this.#name;
    if (this.#below(2) === 0) this.#say(["CLIENT", "ID"], (reply) => reply === this.#id);
    else this.#say(["CLIENT", "GETNAME"], (reply) => reply === name);
  }

  list(): void {
    const id = this.#id;
    this.#say(
      ["CLIENT", "LIST", "ID", id],
      (reply) => typeof reply === "string" && reply.startsWith(`id=${id} `),
    );
  }

  replyMode(): void {
    if (this.#mode === "off") return this.#on();
    const mode = this.#below(2) === 0 ? "off" : "skip";
    this.#send(["CLIENT", "REPLY", mode]);
    this.#mode = mode;
  }

  #on(): void {
    this.#mode = "on";
    this.#say(["CLIENT", "REPLY", "ON"], isOk);
  }

  multi(): void {
    this.#say(["MULTI"], isOk);
    const before = { db: this.#db, user: this.#user, protocol: this.#protocol, name: this.#name };
    const counters = new Map(this.#counters);
    const replies: Expected[] = [];
    const count = this.#below(6);
    for (let i = 0; i < count; i++) {
      const { args, expected } = this.#queued();
      this.#say(args, (reply) => reply === "QUEUED");
      replies.push(expected);
    }
    const wasWatching = this.#watching && this.#company.switches;
    this.#watching = false;
    // Of an EXEC that gets no reply nobody knows whether a switch broke its WATCH, or left it UNCERTAIN.
    const isUnheard = this.#company.switches && this.#mode !== "on";
    if (isUnheard || this.#below(4) === 0) {
      this.#db = before.db;
      this.#user = before.user;
      this.#protocol = before.protocol;
      this.#name = before.name;
      this.#counters = counters;
      this.#say(["DISCARD"], isOk);
      return;
    }
    const changed = before.db !== this.#db || before.user !== this.#user || before.name !== this.#name;
    this.#say(["EXEC"], (reply) => {
      if (Array.isArray(reply))
        return reply.length === replies.length && replies.every((fits, i) => fits(reply[i]!));
      // Nothing can be said of the state then.
      if ((wasWatching && reply === null) || this.#mayBeLost(reply)) {
        if (changed) throw new Astray();
        return true;
      }
      return false;
    });
  }

  #queued(): Step {
    switch (this.#below(7)) {
      case 0:
        this.#db = this.#below(DATABASES);
        return { args: ["SELECT", this.#db], expected: isOk };
      case 1:
        return { args: ["CLIENT", "ID"], expected: (reply) => reply === this.#id };
      case 2:
        this.#name = `${this.prefix}-${++this.#tags}`;
        return { args: ["CLIENT", "SETNAME", this.#name], expected: isOk };
      case 3:
        // On a master that was just demoted WAIT is refused inside of EXEC, too late to send that again.
        return {
          args: ["WAIT", 0, 0],
          expected: (reply) => typeof reply === "number" || (this.#company.switches && isOfReplica(reply)),
        };
      case 4:
        // There the proxy refuses it.
        if (losesWrongLogins()) return this.#steps();
        this.#user = USERS[this.#below(USERS.length)]!;
        return { args: ["AUTH", this.#user, "secret"], expected: isOk };
      default:
        return this.#steps();
    }
  }

  watch(): void {
    this.#watching = true;
    this.#say(["WATCH", this.#key("watched")], isOk);
  }

  unwatch(): void {
    this.#watching = false;
    this.#say(["UNWATCH"], isOk);
  }

  blocking(): void {
    const args =
      this.#below(2) === 0
        ? ["BLPOP", this.#key("none"), "0.02"]
        : ["XREAD", "BLOCK", 20, "STREAMS", this.#key("none"), "$"];
    this.#say(args, (reply) => {
      if (reply instanceof ReplyError) return reply.word === "UNBLOCKED" || this.#mayBeLost(reply);
      return reply === null;
    });
  }

  wait(): void {
    const isUnblocked: Expected = (reply) => reply instanceof ReplyError && reply.word === "UNBLOCKED";
    this.#say(["WAIT", this.#below(2), 20], (reply) => typeof reply === "number" || isUnblocked(reply));
  }

  scan(): void {
    const own = this.#key("");
    this.#say(["SCAN", 0, "MATCH", `${own}*`, "COUNT", 1000], (reply) => {
      if (!Array.isArray(reply) || reply.length !== 2 || !Array.isArray(reply[1])) return false;
      return reply[1].every((key) => String(key).startsWith(own));
    });
  }

  tracking(): void {
    if (this.#protocol !== 3) return this.plain();
    if (this.#tracking) {
      this.#tracking = false;
      this.#say(["CLIENT", "TRACKING", "OFF"], isOk);
      return;
    }
    this.#tracking = true;
    this.#say(["CLIENT", "TRACKING", "ON", "OPTIN"], isOk);
    this.#caching();
  }

  #caching(): void {
    if (this.#mode === "skip") this.#tag();
    this.#say(["CLIENT", "CACHING", "YES"], isOk);
    this.plain();
  }

  debug(): void {
    this.#say(["DEBUG", "PROTOCOL", "string"], (reply) => reply === "Hello World" || this.#mayBeLost(reply));
  }

  debugPush(): void {
    if (this.#protocol !== 3) return this.debug();
    this.#say(
      ["DEBUG", "PROTOCOL", "attrib"],
      (reply) => reply === "Some real reply following the attribute" || this.#mayBeLost(reply),
    );
  }

  publish(): void {
    const channel = this.#key(`channel${this.#below(2)}`);
    const least = this.#channels.has(channel) ? 1 : 0;
    // Given up just now, a channel may be counted still: that is said through another connection.
    const counted: Expected = (reply) => typeof reply === "number" && reply >= least && reply <= 1;
    const { switches } = this.#company;
    this.#say(["PUBLISH", channel, "text"], (reply) =>
      switches ? typeof reply === "number" || isUncertain(reply) : counted(reply),
    );
  }

  #changeSubscription(adds: boolean): void {
    const isShard = this.#below(3) === 0;
    const mine = isShard ? this.#shards : this.#channels;
    const channel = this.#key(`channel${this.#below(3)}`);
    if (adds) mine.add(channel);
    else mine.delete(channel);
    const command = `${isShard ? "S" : ""}${adds ? "" : "UN"}SUBSCRIBE`;
    this.#confirmedBy([command, channel], [command.toLowerCase(), channel, mine.size]);
  }

  subscribe(): void {
    this.#changeSubscription(true);
  }

  unsubscribe(): void {
    this.#changeSubscription(false);
  }

  /** Confirmations come also to who wants no replies. */
  #confirmedBy(args: readonly string[], confirmation: readonly Reply[]): void {
    this.#send(args);
    const fits: Expected = (reply) => same(reply, confirmation);
    if (this.#protocol === 2) this.#expect(args, fits);
    else this.#pushed.push({ what: `#${this.#sent.length} ${shown(args)}`, fits });
    if (this.#mode === "skip") this.#mode = "on";
  }

  monitor(): void {
    if (this.#tracking || this.#watching || this.#channels.size + this.#shards.size > 0) return;
    if (this.#below(4) > 0 || this.#mode !== "on") return;
    this.#say(["MONITOR"], isOk);
    this.#monitor = true;
  }

  reset(): void {
    this.#reset();
  }

  #reset(): void {
    this.#send(["RESET"]);
    if (this.#mode !== "skip") this.#expect(["RESET"], (reply) => reply === "RESET");
    this.#channels.clear();
    this.#shards.clear();
    this.#protocol = 2;
    this.#user = "default";
    this.#db = 0;
    this.#name = "";
    this.#mode = "on";
    this.#tracking = false;
    this.#monitor = false;
    this.#watching = false;
  }

  pause(): void {
    if (this.#below(6) > 0) return;
    this.#company.pausedAtMs = performance.now();
    this.#say(["CLIENT", "PAUSE", 20, this.#below(2) === 0 ? "ALL" : "WRITE"], isOk);
  }

  kill(): void {
    if (this.#below(8) > 0) return;
    const id = this.#other();
    this.#company.killed.add(id);
    this.#say(["CLIENT", "KILL", "ID", id], (reply) => reply === 0 || reply === 1);
  }

  unblock(): void {
    // FAILOVER pauses the server, and a paused one (7.0) does not survive the end of a call that it has
    // stopped.
    if (this.#company.switches) return this.plain();
    const how = this.#below(2) === 0 ? "TIMEOUT" : "ERROR";
    this.#say(["CLIENT", "UNBLOCK", this.#other(), how], (reply) => reply === 0 || reply === 1);
  }

  #other(): number {
    const others = [...this.#company.present.keys()].filter((id) => id !== this.#id);
    return others[this.#below(others.length)] ?? 1_000_000;
  }

  // Leaving

  async #leave(): Promise<void> {
    const { socket } = this.#client;
    const count = this.#below(12);
    switch (this.#below(5)) {
      case 0:
        return;
      case 1:
        for (let i = 0; i < count; i++) this.#choose();
        await this.#write();
        return;
      case 2:
        for (let i = 0; i < count; i++) this.#choose();
        await this.#write();
        socket.end();
        await sleep(this.#below(20));
        return;
      case 3:
        // All that was asked before the end of the stream is answered.
        this.#reset();
        for (let i = 0; i < count; i++) this.plain();
        await this.#write();
        socket.end();
        return this.#checkHalfClosed();
      default:
        this.#reset();
        for (let i = 0; i < count; i++) this.plain();
        this.#say(["CLIENT", "KILL", "ID", this.#id, "SKIPME", "no"], (reply) => reply === 1);
        await this.#write();
        await this.#check();
        return within(
          new Promise<void>((done) => (socket.destroyed ? done() : socket.once("close", () => done()))),
          this.#company.patienceMs,
          "the end of who has killed itself",
        );
    }
  }
}

/** The model does not know any more what holds: the visit ends. */
export class Astray extends Error {}

const TALK = StateClient.prototype;
const ACTIONS: readonly ((this: StateClient) => void)[] = [
  ...[
    TALK.plain,
    TALK.plain,
    TALK.plain,
    TALK.plain,
    TALK.large,
    TALK.select,
    TALK.select,
    TALK.selectNothing,
  ],
  ...[TALK.auth, TALK.hello, TALK.hello, TALK.name, TALK.identity, TALK.list, TALK.replyMode, TALK.replyMode],
  ...[TALK.multi, TALK.multi, TALK.watch, TALK.watch, TALK.unwatch, TALK.blocking, TALK.blocking, TALK.wait],
  ...[TALK.scan, TALK.tracking, TALK.tracking, TALK.debug, TALK.debugPush, TALK.publish, TALK.subscribe],
  ...[TALK.unsubscribe, TALK.monitor, TALK.reset, TALK.pause, TALK.kill, TALK.unblock, TALK.authWrong],
];

function isOk(reply: Reply): boolean {
  return reply === "OK";
}

function isUncertain(reply: Reply): boolean {
  return reply instanceof ReplyError && reply.word === "UNCERTAIN";
}

function isOfReplica(reply: Reply): boolean {
  return reply instanceof ReplyError && reply.message.startsWith("ERR WAIT cannot be used with replica");
}

function isConfirmation(push: Push): boolean {
  return /subscribe$/.test(String(push[0]));
}

function same(reply: Reply, expected: readonly Reply[]): boolean {
  return (
    Array.isArray(reply) && reply.length === expected.length && reply.every((one, i) => one === expected[i])
  );
}

function shown(args: readonly Argument[]): string {
  return args.map((arg) => String(arg).slice(0, 48)).join(" ");
}

function show(reply: Reply): string {
  if (reply instanceof ReplyError) return `-${reply.message}`;
  if (Array.isArray(reply)) return `[${reply.map(show).join(", ")}]`.slice(0, 600);
  const text = reply instanceof Map ? JSON.stringify([...reply]) : JSON.stringify(reply);
  return (text ?? "nothing").slice(0, 300);
}
