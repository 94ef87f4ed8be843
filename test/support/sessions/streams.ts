/** 23: entries of streams, numbered, read as they come: no gap and no duplicate. */
import type { RawClient } from "../client.ts";
import type { RedisServer } from "../redis.ts";
import { type Reply, ReplyError } from "../resp.ts";
import { Actor } from "../stateful.ts";
import { until } from "../wait.ts";

const CONSUMERS = ["one", "two"];

export class Streams extends Actor {
  /** Acknowledged in this round. */
  readonly #added = new Set<number>();
  readonly #readers: Reader[] = [];
  readonly #taken = new Map<number, string>();
  #number = 0;

  async start(): Promise<void> {
    const writer = await this.load.client();
    await writer.command("XGROUP", "CREATE", "stream", "group", "0", "MKSTREAM");
    for (const protocol of [2, 3] as const) {
      const reader = new Reader(await this.load.client({ protocol }));
      this.#readers.push(reader);
      this.load.loop(`xread-${protocol}`, () => this.#read(reader), true);
    }
    for (const name of CONSUMERS) {
      const client = await this.load.client();
      this.load.loop(`xreadgroup-${name}`, () => this.#take(client, name), true);
    }
    await until(() => this.#readers.every(({ isWaiting }) => isWaiting), { what: "the readers" });
    this.load.loop("xadd", () => this.#add(writer));
  }

  async #add(client: RawClient): Promise<boolean> {
    await this.load.pause(30);
    const number = ++this.#number;
    const isWell = this.load.isWell("xadd", await client.command("XADD", "stream", "*", "n", number));
    if (isWell) this.#added.add(number);
    return isWell;
  }

  async #read(reader: Reader): Promise<boolean> {
    reader.isWaiting = true;
    const block = this.load.random(2) === 0 ? 0 : 200 + this.load.random(1_500);
    const from = reader.lastId;
    const reply = await reader.client.command("XREAD", "BLOCK", block, "STREAMS", "stream", from);
    if (!this.load.isWell("xread", reply) || reply === null) return false;
    for (const { id, number } of entriesIn(reply)) {
      reader.lastId = id;
      if (number <= reader.last) this.load.fault(`xread: entry ${number} after ${reader.last}`);
      for (let missed = reader.last + 1; reader.last > 0 && missed < number; missed++) {
        if (this.#added.has(missed)) reader.missed.add(missed);
      }
      reader.last = number;
    }
    return true;
  }

  async #take(client: RawClient, name: string): Promise<boolean> {
    const words = ["GROUP", "group", name, "COUNT", 3, "BLOCK", 100 + this.load.random(900)] as const;
    const reply = await client.command("XREADGROUP", ...words, "STREAMS", "stream", ">");
    if (!this.load.isWell("xreadgroup", reply) || reply === null) return false;
    for (const { id, number } of entriesIn(reply)) {
      const other = this.#taken.get(number);
      if (other !== undefined && this.load.mayLose === 0) {
        this.load.fault(`xreadgroup: entry ${number} came to ${other} and ${name}`);
      }
      this.#taken.set(number, name);
      const acked = await client.command("XACK", "stream", "group", id);
      if (acked !== 1 && !(acked instanceof ReplyError) && this.load.mayLose === 0) {
        this.load.fault(`XACK of ${id} answered ${String(acked)}`);
      }
      if (acked instanceof ReplyError) this.load.isWell("xack", acked);
    }
    return true;
  }

  override async audit(master: RedisServer): Promise<void> {
    const { load } = this;
    const entries = (await master.cli("XRANGE", "stream", "-", "+")) as Reply[];
    const there = new Set(entries.map((entry) => numberOf((entry as Reply[])[1] as Reply[])));
    const last = Math.max(0, ...there);
    const lost = [...this.#added].filter((number) => !there.has(number));
    if (lost.length > load.mayLose) load.fault(`xadd: entries ${lost} are lost`);
    const hasRead = () => this.#readers.every((reader) => reader.last >= last);
    await until(hasRead, { deadlineMs: 5_000, what: "entries" }).catch(() => {
      load.fault(`xread: read to ${this.#readers.map((reader) => reader.last)}, there are ${last}`);
    });
    for (const reader of this.#readers) {
      const missed = [...reader.missed].filter((number) => there.has(number));
      if (missed.length > 0) load.fault(`xread: missed ${missed}`);
      reader.missed.clear();
    }
    const pending = async () => (await master.cli("XPENDING", "stream", "group", "-", "+", 1_000)) as Reply[];
    const isTaken = (number: number) => this.#taken.has(number) || !there.has(number);
    const notTaken = () => [...this.#added].filter((number) => !isTaken(number));
    await until(() => notTaken().length === 0, { deadlineMs: 3_000, what: "entries" }).catch(async () => {
      // Taken by a call that was lost with its master, they are pending: the application claims them.
      const most = load.round.mayCut ? (await pending()).length : 0;
      if (notTaken().length > most) load.fault(`xreadgroup: ${notTaken()} never came`);
    });
    this.#added.clear();
    await master.cli("XTRIM", "stream", "MAXLEN", 1);
  }
}

class Reader {
  readonly client: RawClient;
  lastId = "$";
  last = 0;
  isWaiting = false;
  /** Acknowledged numbers that were passed over. */
  readonly missed = new Set<number>();

  constructor(client: RawClient) {
    this.client = client;
  }
}

/** Of the only stream: RESP3 has a map where RESP2 has pairs. */
function entriesIn(reply: Reply): { readonly id: string; readonly number: number }[] {
  const first = reply instanceof Map ? [...reply.values()][0] : ((reply as Reply[])[0] as Reply[])[1];
  return (first as Reply[][]).map(([id, fields]) => ({
    id: String(id),
    number: numberOf(fields as Reply[]),
  }));
}

function numberOf(fields: readonly Reply[]): number {
  return Number(fields[1]);
}
