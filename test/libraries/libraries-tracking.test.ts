/**
 * Client-side caching (CLIENT TRACKING) as node-redis does it, through switches: what another client has
 * written is seen soon, a switch empties the cache, and the cache works again after it.
 */
import { BasicClientSideCache, createClient } from "redis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type ChaosLink, startLink } from "../support/link.ts";
import { randomFrom, SEED } from "../support/random.ts";
import { report as figure, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";
import { Switches } from "./support/switches.ts";
import { accepted } from "./support/trial.ts";

let stage: Stage;
let switches: Switches;

beforeAll(async () => {
  stage = await Stage.open();
  switches = new Switches(stage, randomFrom(SEED));
});

afterAll(() => stage?.close());

const KEYS = Array.from({ length: 20 }, (_, i) => `cached:${i}`);

class Application {
  /** What the library said of its connections besides that they are well. */
  readonly incidents: string[] = [];
  readonly errors: string[] = [];
  /** How often the cache was emptied by the server's word. */
  flushes = 0;
  readonly #cache = new BasicClientSideCache();
  readonly #reader;
  readonly #writer;
  #last = 0;
  #loop: Promise<void> = Promise.resolve();
  #isBusy = false;

  constructor(port: number) {
    const socket = { host: "127.0.0.1", port };
    this.#reader = createClient({ socket, RESP: 3, clientSideCache: this.#cache });
    this.#writer = createClient({ socket, RESP: 3 });
    for (const client of [this.#reader, this.#writer]) {
      for (const event of ["error", "end", "reconnecting"] as const)
        client.on(event, (detail: unknown) => this.incidents.push(`${event} ${detail ?? ""}`.trim()));
    }
    this.#cache.on("invalidate", (key: unknown) => {
      if (key === null) this.flushes++;
    });
  }

  async start(): Promise<this> {
    await Promise.all([this.#reader.connect(), this.#writer.connect()]);
    return this;
  }

  /** Writes every key anew, not through the client that caches. */
  async write(): Promise<void> {
    for (const key of KEYS) await this.#writer.set(key, ++this.#last);
  }

  /** Reads all keys; returns how many of them the cache had. */
  async hits(): Promise<number> {
    const before = this.#cache.stats().hitCount;
    for (const key of KEYS) await this.#reader.get(key);
    return this.#cache.stats().hitCount - before;
  }

  /** Writes and reads all the time, so that something is being cached whenever a switch comes. */
  goOn(): void {
    this.#isBusy = true;
    const round = async () => {
      await this.write();
      await this.hits();
    };
    const failed = (error: Error) => {
      if (!error.message.startsWith("UNCERTAIN ")) this.errors.push(error.message);
    };
    const loop = async () => {
      while (this.#isBusy) await round().catch(failed);
    };
    this.#loop = loop();
  }

  async pause(): Promise<void> {
    this.#isBusy = false;
    await this.#loop;
  }

  /** Reads what the master has; nothing is written meanwhile that would repair a cache by chance. */
  async untilCurrent(when: string): Promise<void> {
    const truth = await switches.master.cli("MGET", ...KEYS);
    let read: unknown;
    const isCurrent = async () => {
      read = await Promise.all(KEYS.map((key) => this.#reader.get(key)));
      return JSON.stringify(read) === JSON.stringify(truth);
    };
    await until(isCurrent, { deadlineMs: 2_000 }).catch(() => {});
    expect(read, `what is read ${when}`).toEqual(truth);
  }

  close(): void {
    for (const client of [this.#reader, this.#writer]) {
      client.removeAllListeners();
      client.on("error", () => {});
      client.destroy();
    }
  }
}

/** The cache answers reads, and a write by another client ends that. */
async function expectWorkingCache(application: Application, when: string): Promise<void> {
  const isCached = async () => (await application.hits()) === KEYS.length;
  await until(isCached, { what: `all reads answered by the cache ${when}` });
  await application.write();
  await application.untilCurrent(`behind writes ${when}`);
}

const KINDS = ["planned", "two masters", "crash"] as const;
const CLAIM = `node-redis caches nothing old, drops it all at a switch and caches again (HOLDFAST_SEED=${SEED})`;

it.for(KINDS)(`28: %s: ${CLAIM}`, async (kind) => {
  const application = await new Application(stage.proxy.port).start();
  try {
    await application.write();
    await expectWorkingCache(application, "at first");
    const connections = await accepted(stage);
    for (const name of switches.order(kind)) {
      const { flushes } = application;
      application.goOn();
      await switches.run(name);
      await application.pause();
      expect(application.flushes, `flushes by ${name}`).toBeGreaterThan(flushes);
      await application.untilCurrent(`after ${name}`);
      await expectWorkingCache(application, `after ${name}`);
    }
    figure(`client-side caching, ${kind}: ${application.flushes} flushes`);
    expect(application.incidents, "what node-redis noticed").toEqual([]);
    expect(application.errors).toEqual([]);
    expect(await accepted(stage), "connections accepted").toBe(connections);
  } finally {
    application.close();
    await application.pause();
  }
});

/** node-redis behind a link, with one key that it has never read, and another client that writes. */
async function openReader(link: ChaosLink) {
  const cache = new BasicClientSideCache();
  let flushes = 0;
  cache.on("invalidate", (key: unknown) => {
    if (key === null) flushes++;
  });
  const socket = { host: "127.0.0.1", port: link.port };
  const reader = createClient({ socket, RESP: 3, clientSideCache: cache });
  reader.on("error", () => {});
  await reader.connect();
  return { reader, isFlushed: () => flushes > 0 };
}

// node-redis does not mark what it still waits for when it is told to forget everything (cache.js, clear): a
// reply that it reads together with that is kept.
it("28: node-redis does not keep what it reads together with the word to forget everything", async () => {
  // The former master answers late, and is waited for.
  const own = await Stage.open({ replicas: 1, config: { upstream: { retireTimeout: "20s" } } });
  const link = await startLink(own.proxy.port);
  const { reader, isFlushed } = await openReader(link);
  try {
    const [old, next] = [own.master, own.replica(0)];
    const writer = await own.client();
    await writer.command("SET", "k", "old");
    await next.untilCaughtUp(old);
    const sent = await own.sentTo(old);
    await old.cli("CLIENT", "PAUSE", 2_000, "ALL");
    const late = reader.get("k");
    await until(async () => (await own.sentTo(old)) > sent, { what: "the read on its way" });
    await next.promote();
    await own.untilMaster(next);
    expect(await late).toBe("old");
    await until(isFlushed, { what: "the word to forget everything" });
    await writer.command("SET", "k", "new");
    await until(async () => (await reader.get("k")) === "new", { deadlineMs: 2_000, what: "the new value" });
  } finally {
    reader.destroy();
    await link.close();
    await own.close();
  }
});

it("28: node-redis does not keep what it waited for and reads together with the key's invalidation", async () => {
  const own = await Stage.open({ replicas: 1 });
  const link = await startLink(own.proxy.port);
  const { reader, isFlushed } = await openReader(link);
  try {
    const [old, next] = [own.master, own.replica(0)];
    const writer = await own.client();
    await writer.command("SET", "k", "old");
    await next.untilCaughtUp(old);
    const sent = await own.sentTo(old);
    await old.kill("SIGSTOP");
    const held = reader.get("k");
    await until(async () => (await own.sentTo(old)) > sent, { what: "the read on its way" });
    await old.kill("SIGKILL");
    await until(isFlushed, { what: "the word to forget everything" });
    link.stall("down");
    await next.promote();
    const reads = async () => (await next.info("commandstats")).get("cmdstat_get") !== undefined;
    await until(reads, { what: "the read by the new master" });
    await writer.command("SET", "k", "new");
    link.resume();
    expect(await held).toBe("old");
    await until(async () => (await reader.get("k")) === "new", { deadlineMs: 2_000, what: "the new value" });
  } finally {
    reader.destroy();
    await link.close();
    await own.close();
  }
});
