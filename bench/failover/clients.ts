/** The applications: clients that write and read back, clients that read, and what they write down. */
import { Redis } from "ioredis";
import { RawClient } from "../../test/support/client.ts";
import { type Reply, ReplyError } from "../../test/support/resp.ts";
import { sleep, until } from "../../test/support/wait.ts";
import type { Trace, Write } from "./measure.ts";

/** Between two steps of a client; random around it, so that the clients do not go in step. */
const PACE_MS = 5;
/** An application that could not connect tries again so much later. */
const RECONNECT_MS = 50;
/** A client that is still waiting for an answer so long after the end is cut off. */
const STOP_MS_MOST = 1_000;

/** What came of one command. */
type Answer =
  | { readonly kind: "value"; readonly value: Reply }
  /** `isOpen`: the command may have run. */
  | { readonly kind: "error"; readonly word: string; readonly isOpen: boolean }
  /** The connection ended first: the command may have run. */
  | { readonly kind: "cut" }
  /** There was no connection to send it on. */
  | { readonly kind: "unreachable" };

/** One application's way to the data. */
export interface Link {
  write(...args: string[]): Promise<Answer>;
  read(...args: string[]): Promise<Answer>;
  close(): void;
}

/** Called for each connection that the other side ended. */
export type OnDisconnect = () => void;
export type Connect = (onDisconnect: OnDisconnect) => Promise<Link>;

/** A bare socket to one port, opened anew when it was closed. */
export async function proxyLink(port: number, onDisconnect: OnDisconnect): Promise<Link> {
  let client: RawClient | undefined = await RawClient.connect({ port });
  const dropped = () => {
    client?.close();
    client = undefined;
    onDisconnect();
  };
  const call = async (...args: string[]): Promise<Answer> => {
    // Closed while nothing was on the way.
    if (client?.disconnected) dropped();
    try {
      client ??= await RawClient.connect({ port });
    } catch {
      return { kind: "unreachable" };
    }
    try {
      const reply = await client.command(...args);
      if (!(reply instanceof ReplyError)) return { kind: "value", value: reply };
      return { kind: "error", word: reply.word, isOpen: reply.word === "UNCERTAIN" };
    } catch {
      dropped();
      return { kind: "cut" };
    }
  };
  return { write: call, read: call, close: () => client?.close() };
}

export interface SentinelAddress {
  readonly host: string;
  readonly port: number;
}

/** ioredis as its manual says: it asks Sentinel for the master to write to and for a replica to read from. */
export async function sentinelLink(
  sentinels: readonly SentinelAddress[],
  name: string,
  onDisconnect: OnDisconnect,
): Promise<Link> {
  const connect = (role: "master" | "slave") =>
    untilReady(new Redis({ sentinels: [...sentinels], name, role }), onDisconnect);
  const [master, replica] = await Promise.all([connect("master"), connect("slave")]);
  return {
    write: (...args) => callWith(master, args),
    read: (...args) => callWith(replica, args),
    close() {
      master.disconnect();
      replica.disconnect();
    },
  };
}

async function untilReady(redis: Redis, onDisconnect: OnDisconnect): Promise<Redis> {
  let isConnected = false;
  redis.on("connect", () => {
    isConnected = true;
  });
  // It says "close" after each failed attempt too: that is not another disconnect.
  redis.on("close", () => {
    if (isConnected) onDisconnect();
    isConnected = false;
  });
  // What fails is seen at the commands.
  redis.on("error", () => undefined);
  await until(() => redis.status === "ready", { what: "a connection by Sentinel" });
  return redis;
}

async function callWith(redis: Redis, args: readonly string[]): Promise<Answer> {
  const [command = "", ...rest] = args;
  try {
    return { kind: "value", value: (await redis.call(command, rest)) as Reply };
  } catch (error) {
    const { name, message } = error as Error;
    // Its own errors (it has given up) leave open whether the command ran.
    const isReply = name === "ReplyError";
    const word = isReply || name === "Error" ? message.split(" ", 1)[0] : name;
    return { kind: "error", word: word ?? "", isOpen: !isReply };
  }
}

export interface LoadOptions {
  readonly connect: Connect;
  readonly writers: number;
  readonly readers: number;
  /** The key of a writer's counter. */
  readonly key: (writer: number) => string;
}

interface Writer {
  readonly writes: Write[];
  uncertain: number;
}

/** All clients at work. */
export class Load {
  readonly #options: LoadOptions;
  readonly #links: Link[] = [];
  readonly #writers: Writer[] = [];
  readonly #readers: number[][] = [];
  readonly #errors: Record<string, number> = {};
  #runs: Promise<void>[] = [];
  #disconnects = 0;
  #stale = 0;
  #isStopping = false;

  static async start(options: LoadOptions): Promise<Load> {
    const load = new Load(options);
    try {
      await load.#start();
      return load;
    } catch (error) {
      await load.stop();
      throw error;
    }
  }

  private constructor(options: LoadOptions) {
    this.#options = options;
  }

  /** Whether every writer has had a write answered since then. */
  hasWritten(sinceMs: number): boolean {
    return this.#writers.every(({ writes }) => (writes.at(-1)?.atMs ?? 0) > sinceMs);
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    const timer = setTimeout(() => this.#close(), STOP_MS_MOST);
    await Promise.all(this.#runs);
    clearTimeout(timer);
    this.#close();
  }

  /** What was written down; `finals` are the counters as they are after the end, one for each writer. */
  trace(finals: readonly number[]): Trace {
    return {
      writers: this.#writers.map((writer, id) => ({ ...writer, final: finals[id] ?? 0 })),
      readers: this.#readers,
      disconnects: this.#disconnects,
      errors: this.#errors,
      stale: this.#stale,
    };
  }

  async #start(): Promise<void> {
    const { connect, writers, readers } = this.#options;
    const onDisconnect = () => {
      if (!this.#isStopping) this.#disconnects++;
    };
    const all = Array.from({ length: writers + readers }, async () => {
      this.#links.push(await connect(onDisconnect));
    });
    await Promise.all(all);
    this.#runs = this.#links.map((link, id) =>
      id < writers ? this.#write(link, id) : this.#read(link, (id - writers) % writers),
    );
  }

  #close(): void {
    for (const link of this.#links) link.close();
  }

  /** Writes and at once reads back what it wrote. */
  async #write(link: Link, id: number): Promise<void> {
    const writer: Writer = { writes: [], uncertain: 0 };
    this.#writers[id] = writer;
    const key = this.#options.key(id);
    while (!this.#isStopping) {
      const written = await link.write("INCR", key);
      if (written.kind === "value") {
        const value = Number(written.value);
        writer.writes.push({ atMs: performance.now(), value });
        const read = await link.read("GET", key);
        if (read.kind !== "value") await this.#failed(read);
        else if (Number(read.value) < value) this.#stale++;
      } else {
        if (written.kind === "cut" || (written.kind === "error" && written.isOpen)) writer.uncertain++;
        await this.#failed(written);
      }
      await sleep(Math.random() * 2 * PACE_MS);
    }
  }

  async #read(link: Link, id: number): Promise<void> {
    const answered: number[] = [];
    this.#readers.push(answered);
    while (!this.#isStopping) {
      const answer = await link.read("GET", this.#options.key(id));
      if (answer.kind === "value") answered.push(performance.now());
      else await this.#failed(answer);
      await sleep(Math.random() * 2 * PACE_MS);
    }
  }

  async #failed(answer: Exclude<Answer, { kind: "value" }>): Promise<void> {
    if (answer.kind !== "error") await sleep(RECONNECT_MS);
    // Closing the links at the end fails what is on the way.
    else if (!this.#isStopping) this.#errors[answer.word] = (this.#errors[answer.word] ?? 0) + 1;
  }
}
