/** Subscribers while nodes change their roles, die, stand still or throw them out. */
import { afterEach, describe, expect, it } from "vitest";
import { RawClient } from "../support/client.ts";
import type { RedisServer } from "../support/redis.ts";
import { type Reply, ReplyError } from "../support/resp.ts";
import { report, Stage, type StageOptions } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

let stage: Stage;
let publisher: Publisher | null = null;

afterEach(async () => {
  await publisher?.stop();
  publisher = null;
  for (const server of stage.group.all) if (server.running) await server.kill("SIGCONT");
  await stage.close();
});

async function open(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open(options);
}

/** Publishes 1, 2, 3 … through the proxy, each as soon as the one before is answered. */
class Publisher {
  last = 0;
  /** Numbers whose PUBLISH was answered with an error: they may have been published. */
  readonly uncertain = new Set<number>();
  /** When each was asked for and answered, monotonic ms. */
  readonly asked: number[] = [];
  readonly answered: number[] = [];
  private readonly client: RawClient;
  private readonly channel: string;
  private stopping = false;
  private readonly running: Promise<void>;

  constructor(client: RawClient, channel = "c") {
    this.client = client;
    this.channel = channel;
    this.running = this.run();
  }

  private async run(): Promise<void> {
    while (!this.stopping) {
      const n = ++this.last;
      this.asked[n] = performance.now();
      const reply = await this.client.command("PUBLISH", this.channel, String(n));
      this.answered[n] = performance.now();
      if (reply instanceof ReplyError) this.uncertain.add(n);
      await sleep(1);
    }
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.running;
  }

  /** Waits until so many more are published. */
  async more(count: number): Promise<void> {
    const goal = this.last + count;
    await until(() => this.last > goal, { what: `${count} more messages`, deadlineMs: 30_000 });
  }
}

/** What a subscriber hears, as numbers, and everything else it is told. */
class Listener {
  readonly numbers: number[] = [];
  readonly others: Reply[] = [];
  private readonly client: RawClient;
  private readonly isResp3: boolean;
  private taken = 0;

  static async open(protocol: 2 | 3, command: string, name: string): Promise<Listener> {
    const client = await stage.client(protocol === 3 ? { protocol } : {});
    const listener = new Listener(client, protocol === 3);
    client.send(`${command} ${name}\r\n`);
    await until(() => listener.others.length + listener.look() > 0 && listener.others.length === 1, {
      what: `${command} being confirmed`,
    });
    return listener;
  }

  private constructor(client: RawClient, isResp3: boolean) {
    this.client = client;
    this.isResp3 = isResp3;
    if (!isResp3) void this.readReplies();
  }

  private async readReplies(): Promise<void> {
    try {
      for (;;) this.take(await this.client.reply());
    } catch {
      // The test is over.
    }
  }

  private take(value: Reply): void {
    const words = Array.isArray(value) ? value : [value];
    const isMessage = words[0] === "message" || words[0] === "pmessage" || words[0] === "smessage";
    if (isMessage) this.numbers.push(Number(words[words.length - 1]));
    else this.others.push(value);
  }

  /** @returns how many numbers there are by now. */
  look(): number {
    const { pushes } = this.client;
    while (this.isResp3 && this.taken < pushes.length) this.take([...pushes[this.taken++]!]);
    return this.numbers.length;
  }

  /** Only more and more, no second confirmation, and everything from `from` to `to`. */
  expectInOrder(): void {
    this.look();
    for (let i = 1; i < this.numbers.length; i++) {
      expect(this.numbers[i], `behind ${this.numbers[i - 1]}`).toBeGreaterThan(this.numbers[i - 1]!);
    }
    expect(this.others).toHaveLength(1);
    expect(this.client.disconnected).toBe(false);
  }

  missing(to: number): number[] {
    this.look();
    const heard = new Set(this.numbers);
    const missing: number[] = [];
    for (let n = (this.numbers[0] ?? 0) + 1; n <= to; n++) if (!heard.has(n)) missing.push(n);
    return missing;
  }
}

const KINDS: readonly [2 | 3, string, string][] = [
  [2, "SUBSCRIBE", "c"],
  [3, "SUBSCRIBE", "c"],
  [2, "PSUBSCRIBE", "c*"],
  [3, "PSUBSCRIBE", "?"],
];

async function listeners(): Promise<Listener[]> {
  const all: Listener[] = [];
  for (const kind of KINDS) all.push(await Listener.open(...kind));
  return all;
}

async function numsub(server: RedisServer, channel = "c"): Promise<number> {
  return Number(((await server.cli("PUBSUB", "NUMSUB", channel)) as Reply[])[1]);
}

async function moves(): Promise<number> {
  return stage.proxy.metric("holdfast_subscription_moves_total");
}

async function untilSubscribedAt(server: RedisServer): Promise<void> {
  await until(async () => (await numsub(server)) === 1, {
    what: `the subscription at ${server.address}`,
    deadlineMs: 20_000,
  });
}

/**
 * Whatever `event` does: every subscriber hears what was published, in order and once; what is missing was
 * published within the measured gap, and nothing is once the subscriptions are where `server` says.
 */
async function expectSubscribersGoOn(event: () => Promise<void>, server: () => RedisServer): Promise<void> {
  const all = await listeners();
  const numbers = new Publisher(await stage.client());
  publisher = numbers;
  await numbers.more(30);
  const movesBefore = await moves();
  const gapBefore = await stage.proxy.metric("holdfast_subscription_gap_ms_total");
  await event();
  await until(async () => (await moves()) > movesBefore, { what: "a move", deadlineMs: 20_000 });
  await untilSubscribedAt(server());
  const settled = numbers.last + 1;
  await numbers.more(50);
  await numbers.stop();
  const { last } = numbers;
  for (const one of all) {
    await until(() => one.look() > 0 && one.numbers[one.numbers.length - 1] === last, {
      what: `number ${last}`,
    });
  }
  const gapMs = (await stage.proxy.metric("holdfast_subscription_gap_ms_total")) - gapBefore;
  const spans: number[] = [];
  for (const one of all) {
    one.expectInOrder();
    const missing = one.missing(last).filter((n) => !numbers.uncertain.has(n));
    expect(
      missing.filter((n) => n >= settled),
      "missing after the switch",
    ).toEqual([]);
    const [first, final] = [missing[0], missing[missing.length - 1]];
    // From the first that was not heard to the last: answered, so the server had it.
    if (first !== undefined && final !== undefined)
      spans.push(numbers.answered[final]! - numbers.answered[first]!);
  }
  report(
    `gap ${gapMs.toFixed(1)} ms, missing over ${spans.map((ms) => ms.toFixed(1)).join(", ") || "nothing"} ms`,
  );
  expect(gapMs).toBeGreaterThan(0);
  for (const span of spans) expect(span).toBeLessThanOrEqual(gapMs + 100);
}

describe("24, 25: every subscriber hears everything once and in order", () => {
  it("over a promotion by hand, the old master living on", { timeout: 90_000 }, async () => {
    await open();
    const promoted = stage.replica(0);
    await expectSubscribersGoOn(
      () => promoted.promote(),
      () => promoted,
    );
  });

  it("over a promotion by hand, the old master demoted first", { timeout: 90_000 }, async () => {
    await open();
    const promoted = stage.replica(0);
    const swap = async () => {
      await stage.master.replicaOf(promoted);
      await promoted.promote();
    };
    await expectSubscribersGoOn(swap, () => promoted);
  });

  it("over FAILOVER", { timeout: 90_000 }, async () => {
    await open({ replicas: 1 });
    const failover = async () => {
      expect(await stage.master.cli("FAILOVER")).toBe("OK");
      await stage.untilMaster(stage.replica(0));
    };
    await expectSubscribersGoOn(failover, () => stage.replica(0));
  });

  it("over the master's crash and a promotion", { timeout: 90_000 }, async () => {
    await open();
    const promoted = stage.replica(0);
    const crash = async () => {
      await stage.master.kill("SIGKILL");
      await promoted.promote();
    };
    await expectSubscribersGoOn(crash, () => promoted);
  });

  it("over a master that stands still, and a promotion", { timeout: 90_000 }, async () => {
    await open();
    const promoted = stage.replica(0);
    const hang = async () => {
      await stage.master.kill("SIGSTOP");
      await stage.untilCause("silent");
      await promoted.promote();
    };
    await expectSubscribersGoOn(hang, () => promoted);
    await stage.master.kill("SIGCONT");
  });

  it("over CLIENT KILL TYPE pubsub at the master, as Sentinel does it", { timeout: 90_000 }, async () => {
    await open();
    const kill = async () => {
      expect(await stage.master.cli("CLIENT", "KILL", "TYPE", "pubsub")).toBe(1);
    };
    await expectSubscribersGoOn(kill, () => stage.master);
  });

  it("over all of these one after the other, sharded channels too", { timeout: 120_000 }, async () => {
    await open();
    const sharded = await Listener.open(3, "SSUBSCRIBE", "s");
    const numbers = new Publisher(await stage.client());
    publisher = numbers;
    const all = await listeners();
    await stage.master.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await numbers.more(20);
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    await stage.replica(1).replicaOf(stage.replica(0));
    await stage.replica(1).untilLinkUp();
    await numbers.more(20);
    await stage.replica(0).kill("SIGKILL");
    await stage.replica(1).promote();
    await stage.untilMaster(stage.replica(1));
    await untilSubscribedAt(stage.replica(1));
    const settled = numbers.last + 1;
    await numbers.more(20);
    await numbers.stop();
    const shards = async () => ((await stage.replica(1).cli("PUBSUB", "SHARDNUMSUB", "s")) as Reply[])[1];
    await until(async () => (await shards()) === 1, { what: "the sharded subscription" });
    expect(await (await stage.client()).command("SPUBLISH", "s", "7")).toBe(1);
    await until(() => sharded.look() === 1, { what: "the sharded message" });
    sharded.expectInOrder();
    for (const one of all) {
      await until(() => one.look() > 0 && one.numbers[one.numbers.length - 1] === numbers.last);
      one.expectInOrder();
      expect(one.missing(numbers.last).filter((n) => n >= settled)).toEqual([]);
    }
  });
});

describe("24: a SUBSCRIBE that was on its way", () => {
  it("to a master that stands still is confirmed by the next one", { timeout: 90_000 }, async () => {
    await open();
    const first = await stage.client();
    expect(await first.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
    await stage.master.kill("SIGSTOP");
    const late = await stage.client();
    const confirmed = late.command("SUBSCRIBE", "c", "d", "c");
    await sleep(50);
    expect(late.waiting).toBe(1);
    await stage.untilCause("silent");
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    expect(await confirmed).toEqual(["subscribe", "c", 1]);
    expect([await late.reply(), await late.reply()]).toEqual([
      ["subscribe", "d", 2],
      ["subscribe", "c", 2],
    ]);
    await until(async () => (await numsub(stage.replica(0), "d")) === 1);
    expect(await (await stage.client()).command("PUBLISH", "c", "m")).toBe(2);
    expect(await first.reply()).toEqual(["message", "c", "m"]);
    expect(await late.reply()).toEqual(["message", "c", "m"]);
    await stage.master.kill("SIGCONT");
    // What the old master confirms at last changes nothing.
    expect(await (await stage.client()).command("PUBLISH", "d", "n")).toBe(1);
    expect(await late.reply()).toEqual(["message", "d", "n"]);
    expect(first.unclaimed + late.unclaimed).toBe(0);
  });

  it("while there is no master waits for the next one", { timeout: 90_000 }, async () => {
    await open({ replicas: 1 });
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    const client = await stage.client();
    const confirmed = client.command("SUBSCRIBE", "c");
    await stage.replica(0).promote();
    expect(await confirmed).toEqual(["subscribe", "c", 1]);
    expect(await (await stage.client()).command("PUBLISH", "c", "m")).toBe(1);
    expect(await client.reply()).toEqual(["message", "c", "m"]);
  });

  it("of a client that gave up while there was no master leaves nothing behind", {
    timeout: 90_000,
  }, async () => {
    await open({ replicas: 1 });
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    const client = await stage.proxy.connect();
    client.send("SUBSCRIBE c\r\n");
    await stage.untilHeld();
    client.close();
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    expect(await (await stage.client()).command("SET", "k", "v")).toBe("OK");
    await sleep(300);
    expect(await stage.replica(0).cli("CLIENT", "LIST", "TYPE", "pubsub")).toBe("");
    expect(await stage.proxy.metric('holdfast_upstream_connections{kind="private"}')).toBe(0);
  });
});

it("24: a node that refuses for a while (BUSY) is asked again", { timeout: 90_000 }, async () => {
  await open({ replicas: 0, redis: { args: ["--busy-reply-threshold", "50"] } });
  const client = await stage.client();
  expect(await client.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
  const script = "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 3 do end return 1";
  const direct = await RawClient.connect({ port: stage.master.port });
  // One write: the subscriber's connection is gone, and the script runs before it is back.
  const [killed, ran] = await direct.pipeline([
    ["CLIENT", "KILL", "TYPE", "pubsub"],
    ["EVAL", script, 0],
  ]);
  direct.close();
  expect([killed, ran]).toEqual([1, 1]);
  await untilSubscribedAt(stage.master);
  expect(await (await stage.client()).command("PUBLISH", "c", "m")).toBe(1);
  expect(await client.reply()).toEqual(["message", "c", "m"]);
});

it("24: subscribers move also when upstream.maxPrivate leaves no room beside them", {
  timeout: 90_000,
}, async () => {
  await open({ config: { upstream: { maxPrivate: 1 } } });
  const client = await stage.client();
  expect(await client.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
  await untilSubscribedAt(stage.replica(0));
  expect(await numsub(stage.master)).toBe(0);
  expect(await (await stage.client()).command("PUBLISH", "c", "m")).toBe(1);
  expect(await client.reply()).toEqual(["message", "c", "m"]);
});

describe("24: pubsub.from: replica", () => {
  const where = async () => {
    const alive = stage.group.all.filter((server) => server.running && !stopped.has(server));
    const counts = await Promise.all(alive.map((server) => numsub(server)));
    return alive.filter((_, i) => (counts[i] ?? 0) > 0);
  };
  const stopped = new Set<RedisServer>();

  for (const from of ["replica", "master"] as const) {
    it(`subscribes at a replica, at another one when that is gone, at the master when none is left (reads.from: ${from})`, {
      timeout: 120_000,
    }, async () => {
      stopped.clear();
      await open({
        config: { pubsub: { from: "replica" }, reads: { from, maxLag: "1s" } },
      });
      await until(async () => (await stage.nodes()).filter(({ role }) => role === "replica").length === 2);
      const all = await listeners();
      const numbers = new Publisher(await stage.client());
      publisher = numbers;
      const [first] = await until(async () => {
        const nodes = await where();
        return nodes.length === 1 && nodes;
      });
      expect(stage.group.replicas).toContain(first);
      await numbers.more(20);
      await first!.kill("SIGKILL");
      const second = stage.group.replicas.find((one) => one !== first)!;
      await untilSubscribedAt(second);
      await numbers.more(20);
      await second.kill("SIGSTOP");
      stopped.add(second);
      await untilSubscribedAt(stage.master);
      const settled = numbers.last + 1;
      await numbers.more(20);
      await numbers.stop();
      for (const one of all) {
        await until(() => one.look() > 0 && one.numbers[one.numbers.length - 1] === numbers.last);
        one.expectInOrder();
        expect(one.missing(numbers.last).filter((n) => n >= settled)).toEqual([]);
      }
      // Nobody is published to at the master: its number is its own connection's.
      await second.kill("SIGCONT");
      stopped.delete(second);
      await untilSubscribedAt(second);
      await until(async () => (await numsub(stage.master)) === 0, { what: "the master being left again" });
    });
  }
});
