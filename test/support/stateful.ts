/**
 * Clients whose sessions hold state, each on a bare socket and checking what it is told:
 *
 *   producer, consumer   RPUSH of numbered jobs, BLPOP: no job comes twice
 *   publisher            PUBLISH of numbers, subscribers in RESP2 and RESP3: numbers only grow
 *   watcher              WATCH, GET, MULTI, SET, EXEC: a counter that loses no success
 *   scanner              SCAN over fixed keys: every iteration sees all of them
 *   script               EVALSHA of an INCR: a counter of its own
 */
import { RawClient } from "./client.ts";
import { type Reply, ReplyError } from "./resp.ts";
import { sleep } from "./wait.ts";

const FIXED_KEYS = 500;
const PACE_MS = 5;

export interface Counts {
  acked: number;
  uncertain: number;
}

export class StatefulLoad {
  /** Steps that succeeded, by the name of the loop. */
  readonly steps = new Map<string, number>();
  /** What was not as it should be, in words; UNCERTAIN is as it should be. */
  readonly faults: string[] = [];
  readonly watched: Counts = { acked: 0, uncertain: 0 };
  readonly scripted: Counts = { acked: 0, uncertain: 0 };
  readonly #clients: RawClient[] = [];
  readonly #loops: Promise<void>[] = [];
  readonly #port: number;
  #stopping = false;

  constructor(port: number) {
    this.#port = port;
  }

  async start(): Promise<this> {
    const first = await this.#client();
    const keys = Array.from({ length: FIXED_KEYS }, (_, i) => `fixed:${i}`);
    await first.command("MSET", ...keys.flatMap((key) => [key, "x"]));
    this.#loop("producer", await this.#client(), this.#produce());
    this.#loop("consumer", await this.#client(3), this.#consume());
    this.#loop("publisher", await this.#client(), this.#publish());
    const nextReply = async (client: RawClient) => (await client.reply()) as Reply[];
    this.#loop("subscriber2", await this.#client(2), this.#subscribe(nextReply));
    this.#loop("subscriber3", await this.#client(3), this.#subscribe(this.#nextPush()));
    this.#loop("watcher", await this.#client(), this.#watch());
    this.#loop("scanner", await this.#client(), this.#scan(keys));
    this.#loop("script", await this.#client(), this.#script());
    return this;
  }

  /** Ends the loops; a call that waits is not waited for. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await sleep(1_500);
    for (const client of this.#clients) {
      if (client.disconnected) this.faults.push(`disconnected: ${client.disconnectReason}`);
      client.close();
    }
    await Promise.all(this.#loops);
  }

  async #client(protocol: 2 | 3 = 2): Promise<RawClient> {
    const client = await RawClient.connect({ port: this.#port, protocol, deadlineMs: 60_000 });
    this.#clients.push(client);
    return client;
  }

  #loop(name: string, client: RawClient, step: (client: RawClient) => Promise<boolean>): void {
    const run = async () => {
      while (!this.#stopping) {
        if (await step(client)) this.steps.set(name, (this.steps.get(name) ?? 0) + 1);
        await sleep(PACE_MS);
      }
    };
    const failed = (error: Error) => {
      if (!this.#stopping) this.faults.push(`${name}: ${error.message}`);
    };
    this.#loops.push(run().catch(failed));
  }

  /** Whether a reply is a success; an error other than UNCERTAIN is a fault. */
  #isWell(who: string, reply: Reply): boolean {
    if (!(reply instanceof ReplyError)) return true;
    if (reply.word !== "UNCERTAIN") this.faults.push(`${who}: ${reply.message}`);
    return false;
  }

  #produce() {
    let job = 0;
    return async (client: RawClient) =>
      this.#isWell("producer", await client.command("RPUSH", "jobs", ++job));
  }

  #consume() {
    const seen = new Set<string>();
    return async (client: RawClient) => {
      const reply = await client.command("BLPOP", "jobs", "1");
      if (!this.#isWell("consumer", reply) || reply === null) return false;
      const job = String((reply as Reply[])[1]);
      if (seen.has(job)) this.faults.push(`job ${job} came twice`);
      seen.add(job);
      return true;
    };
  }

  #publish() {
    let number = 0;
    return async (client: RawClient) =>
      this.#isWell("publisher", await client.command("PUBLISH", "numbers", ++number));
  }

  #subscribe(next: (client: RawClient) => Promise<Reply[]>) {
    let last = 0;
    let frames = 0;
    return async (client: RawClient) => {
      if (frames === 0) client.send("SUBSCRIBE numbers\r\n");
      const [kind, , number] = await next(client);
      if (kind === "subscribe" && frames > 0) this.faults.push("a second confirmation");
      frames++;
      if (kind === "subscribe") return false;
      if (Number(number) <= last) this.faults.push(`message ${number} after ${last}`);
      last = Number(number);
      return true;
    };
  }

  /** In RESP3 messages are pushes, which the client collects. */
  #nextPush() {
    let taken = 0;
    return async (client: RawClient) => {
      while (client.pushes.length <= taken && !this.#stopping) await sleep(PACE_MS);
      return (client.pushes[taken++] ?? ["none", "", Number.POSITIVE_INFINITY]) as Reply[];
    };
  }

  #watch() {
    return async (client: RawClient) => {
      await client.command("WATCH", "watched");
      const value = Number((await client.command("GET", "watched")) ?? 0);
      const unit = [["MULTI"], ["SET", "watched", String(value + 1)], ["EXEC"]];
      const reply = (await client.pipeline(unit))[2] as Reply;
      if (!this.#isWell("watcher", reply)) {
        this.watched.uncertain++;
        return false;
      }
      if (reply === null) return false;
      this.watched.acked++;
      return true;
    };
  }

  #scan(keys: readonly string[]) {
    return async (client: RawClient) => {
      const seen = new Set<Reply>();
      let cursor = "0";
      do {
        const reply = await client.command("SCAN", cursor, "MATCH", "fixed:*", "COUNT", "20");
        if (!this.#isWell("scanner", reply)) return false;
        const [next, found] = reply as [string, Reply[]];
        for (const key of found) seen.add(key);
        cursor = next;
      } while (cursor !== "0");
      const missed = keys.filter((key) => !seen.has(key));
      if (missed.length > 0) this.faults.push(`an iteration missed ${missed.length} keys`);
      return true;
    };
  }

  #script() {
    let sha: Reply | null = null;
    return async (client: RawClient) => {
      sha ??= await client.command("SCRIPT", "LOAD", "return redis.call('INCR', KEYS[1])");
      if (sha instanceof ReplyError) sha = null;
      if (sha === null) return false;
      const isWell = this.#isWell("script", await client.command("EVALSHA", String(sha), "1", "scripted"));
      if (isWell) this.scripted.acked++;
      else this.scripted.uncertain++;
      return isWell;
    };
  }
}
