/** Subscribers while nodes change their roles, die, stand still or throw them out. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import {
  type Answer,
  type FakeConnection,
  type FakeNode,
  resp,
  startFakeNode,
} from "../support/fake-node.ts";
import { type ProxyProcess, startProxy } from "../support/proxy.ts";
import type { RedisServer } from "../support/redis.ts";
import { type Reply, ReplyError } from "../support/resp.ts";
import { report, Stage, type StageOptions } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

let stage: Stage;
let isOpen = false;
let publisher: Publisher | null = null;

afterEach(async () => {
  await publisher?.stop();
  publisher = null;
  if (!isOpen) return;
  isOpen = false;
  for (const server of stage.group.all) if (server.running) await server.kill("SIGCONT");
  await stage.close();
});

async function open(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open(options);
  isOpen = true;
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

  /**
   * How much time was between two numbers at the server, ms, at least: the first was there before it was
   * answered, the last not before it was asked for.
   */
  spanMs(first: number, last: number): number {
    return Math.max(0, this.asked[last]! - this.answered[first]!);
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
    if (first !== undefined && final !== undefined) spans.push(numbers.spanMs(first, final));
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
    const isClear = async () => {
      const left = await stage.proxy.metric('holdfast_upstream_connections{kind="private"}');
      return left === 0 && (await stage.replica(0).cli("CLIENT", "LIST", "TYPE", "pubsub")) === "";
    };
    await until(isClear, { what: "nothing being left" });
  });
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
      const lastBefore = numbers.last;
      await second.kill("SIGSTOP");
      stopped.add(second);
      await until(async () => (await moves()) === 2, { what: "the second move" });
      await untilSubscribedAt(stage.master);
      const settled = numbers.last + 1;
      await numbers.more(20);
      await numbers.stop();
      for (const one of all) {
        await until(() => one.look() > 0 && one.numbers[one.numbers.length - 1] === numbers.last);
        one.expectInOrder();
        expect(one.missing(numbers.last).filter((n) => n >= settled)).toEqual([]);
      }
      // What was published while nobody knew that the replica stood still is part of the gap.
      const gapMs = await stage.proxy.metric("holdfast_subscription_gap_ms_total");
      for (const one of all) {
        const missing = one.missing(numbers.last).filter((n) => n >= lastBefore);
        const missingMs = numbers.spanMs(missing[0]!, missing[missing.length - 1]!);
        report(`gap ${gapMs.toFixed(0)} ms, missing ${missing.length} over ${missingMs.toFixed(0)} ms`);
        expect(missing.length).toBeGreaterThan(0);
        expect(missingMs).toBeLessThanOrEqual(gapMs + 200);
      }
      await second.kill("SIGCONT");
      stopped.delete(second);
      await untilSubscribedAt(second);
      await until(async () => (await numsub(stage.master)) === 0, { what: "the master being left again" });
    });
  }
});

describe("24: whatever a node sends on a subscriber's connection", () => {
  let node: FakeNode;
  let proxy: ProxyProcess;
  let client: RawClient;
  /** What SUBSCRIBE is answered; undefined = it is confirmed. */
  let answer: (names: readonly string[]) => Answer;
  let feed: FakeConnection;

  beforeEach(async () => {
    answer = () => undefined;
    node = await startFakeNode(({ name, args, connection }) => {
      if (!/^P?(UN)?SUBSCRIBE$/.test(name)) return undefined;
      feed = connection;
      const names = args.slice(1);
      const word = resp.bulk(name.toLowerCase());
      return (
        answer(names) ?? names.map((one) => resp.array([word, resp.bulk(one), resp.integer(1)])).join("")
      );
    });
    proxy = await startProxy({
      nodes: [node.address],
      config: { limits: { outputBufferBytes: "64kb", maxUnsentBytes: "64kb" } },
    });
    client = await proxy.connect();
    expect(await client.command("SUBSCRIBE", "c")).toEqual(["subscribe", "c", 1]);
  });
  afterEach(async () => {
    client.close();
    await proxy.close();
    await node.close();
    expect(proxy.logged("a bug")).toEqual([]);
  });

  const message = (text: string, channel = "c") =>
    resp.array([resp.bulk("message"), resp.bulk(channel), resp.bulk(text)]);

  it("BUSY and the like are not for ever: the name is asked for again, and the gap goes on", async () => {
    let refusals = 0;
    answer = () => (refusals++ < 2 ? resp.error("BUSY Redis is busy running a script.") : undefined);
    const lost = feed;
    lost.socket.destroy();
    await until(() => refusals === 3, { what: "being asked again" });
    await until(async () => (await proxy.metric("holdfast_subscription_moves_total")) === 1);
    expect(await proxy.metric("holdfast_subscription_gap_ms_total")).toBeGreaterThan(1_500);
    feed.socket.write(message("there"));
    expect(await client.reply()).toEqual(["message", "c", "there"]);
  });

  it("names that are refused are found one by one, and only their subscribers are closed", async () => {
    const loser = await proxy.connect();
    for (const name of ["d", "e"])
      expect((await loser.command("SUBSCRIBE", name)) as Reply[]).toContain(name);
    const gone = loser.untilDisconnected();
    answer = (names) =>
      names.includes("d") ? resp.error("NOPERM No permissions to access a channel") : undefined;
    feed.socket.destroy();
    await gone;
    await until(async () => (await proxy.metric("holdfast_subscription_moves_total")) === 1);
    expect(await proxy.metric('holdfast_clients_closed_total{reason="access-revoked"}')).toBe(1);
    feed.socket.write(message("there"));
    expect(await client.reply()).toEqual(["message", "c", "there"]);
    await until(() => node.received("UNSUBSCRIBE").some((args) => args.includes("e")), {
      what: "e being given up",
    });
  });

  it("messages nobody asked for, cut into bytes, reach nobody else", async () => {
    const bytes = [
      message("x", "nobody's"),
      message("1"),
      ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n2\r\n",
      message("3"),
    ];
    for (const byte of bytes.join("")) {
      feed.socket.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const heard = [await client.reply(), await client.reply()];
    expect(heard).toEqual([
      ["message", "c", "1"],
      ["message", "c", "3"],
    ]);
  });

  for (const [what, bytes] of [
    ["a reply to nothing", "+OK\r\n"],
    ["an error", "-ERR whatever\r\n"],
    ["no frame at all", "?what\r\n"],
    ["a message larger than limits.outputBufferBytes", message("x".repeat(100_000))],
  ] as const) {
    it(`${what}: another connection is made, nobody is closed, the gap is counted`, async () => {
      feed.socket.write(bytes);
      await until(async () => (await proxy.metric("holdfast_subscription_moves_total")) >= 1, {
        what: "a move",
      });
      feed.socket.write(message("there"));
      expect(await client.reply()).toEqual(["message", "c", "there"]);
      expect(client.disconnected).toBe(false);
      expect(await client.command("PING")).toEqual(["pong", ""]);
    });
  }
});
