/** What becomes of requests that were on the way when something happened to the node they were sent to. */
import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { needs } from "../support/abilities.ts";
import { RawClient } from "../support/client.ts";
import { type ChaosLink, startLink } from "../support/link.ts";
import type { RedisServer } from "../support/redis.ts";
import { encodeCommand, type Reply } from "../support/resp.ts";
import { errorText, Stage, type StageOptions } from "../support/stage.ts";
import { sleep, until, within } from "../support/wait.ts";

const UNCERTAIN = /^UNCERTAIN .*may or may not have run/;

/** "At once" on a machine that may stand still for a while; a hold would last for 20 s. */
const AT_ONCE_MS = 3_000;

/** A busy machine makes a node late for a while: here it is read as much as ever. */
const EVEN = { slowAfter: 0 };

let stage: Stage;
const links: { close(): Promise<void> }[] = [];

async function setUp(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open(options);
}

afterEach(async () => {
  await stage?.close();
  for (const link of links.splice(0)) await link.close();
});

interface OnTheWay {
  readonly reply: Promise<Reply>;
}

/** Sends a command and returns once the proxy has written it to the node; its reply comes later. */
async function inFlight(node: RedisServer, client: RawClient, ...args: string[]): Promise<OnTheWay> {
  const before = await stage.sentTo(node);
  const reply = client.command(...args);
  await until(async () => (await stage.sentTo(node)) > before, { what: `${args[0]} being sent`, everyMs: 1 });
  return { reply };
}

async function pending(promise: Promise<unknown>, ms = 50): Promise<void> {
  await expect(within(promise, ms, "a reply")).rejects.toThrow("a reply");
}

function lanesLost(): Promise<number> {
  return stage.proxy.metric("holdfast_upstream_lost_total");
}

/** The proxy's own counters of what it did about lost and refused requests. */
async function counters() {
  const { uncertain, resent_reads, resent_writes } = await stage.status();
  return { uncertain, resent_reads, resent_writes };
}

describe("a write in flight when its connection dies", () => {
  it("is answered UNCERTAIN on an open connection and not repeated, when the master is killed (12)", async () => {
    await setUp();
    const [a, b] = (await stage.clients(2)) as [RawClient, RawClient];
    expect(await a.command("SET", "n", "7")).toBe("OK");
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.master.kill("SIGSTOP");
    const first = await inFlight(stage.master, a, "INCR", "n");
    const second = await inFlight(stage.master, b, "INCR", "n");
    // Behind a write that is on the way, a read of the same client waits for it: it goes the same way.
    const read = await inFlight(stage.master, a, "GET", "n");
    await stage.master.kill("SIGKILL");
    for (const { reply } of [first, second]) {
      expect(errorText(await within(reply, AT_ONCE_MS, "UNCERTAIN at once"))).toMatch(UNCERTAIN);
    }
    await stage.untilCause("connection-lost");
    const held = b.command("INCR", "n");
    await stage.untilHeld();
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    expect(await held).toBe(8);
    expect(["7", "8"]).toContain(await read.reply);
    expect(await a.command("INCR", "n")).toBe(9);
    expect(await stage.replica(0).cli("GET", "n"), "neither of the two was run by anybody").toBe("9");
    expect(await counters()).toMatchObject({ uncertain: 2, resent_writes: 0 });
    expect(await stage.proxy.metric("holdfast_uncertain_total")).toBe(2);
    expect((await stage.failovers())[0]).toMatchObject({ uncertain: 2, to: stage.replica(0).address });
  });

  it("is answered UNCERTAIN also when it did run and only its reply was lost; it runs once (12, 13)", async () => {
    let link!: ChaosLink;
    await setUp({
      before: async (group) => {
        link = await startLink(group.master.port);
        links.push(link);
        return [link.address, ...group.replicas.map(({ address }) => address)];
      },
    });
    const [a, b] = (await stage.clients(2)) as [RawClient, RawClient];
    expect(await a.command("SET", "n", "0")).toBe("OK");
    link.stall("down");
    const reply = a.command("INCR", "n");
    await until(async () => (await stage.master.cli("GET", "n")) === "1", {
      what: "INCR being run",
      everyMs: 1,
    });
    link.reset();
    link.resume();
    expect(errorText(await within(reply, AT_ONCE_MS, "UNCERTAIN at once"))).toMatch(UNCERTAIN);
    // The same master is verified again, without a switch.
    expect(await b.command("INCR", "n")).toBe(2);
    expect(await a.command("GET", "n")).toBe("2");
    expect(await stage.number("epoch")).toBe(1);
    expect(await counters()).toMatchObject({ uncertain: 1, resent_writes: 0 });
  });

  it("is answered UNCERTAIN as soon as a silent master is replaced: what it answers when it wakes up is lost (12, 16, 40)", async () => {
    await setUp({ config: { probe: { timeout: "200ms" }, upstream: { retireTimeout: "20s" } } });
    const client = await stage.client();
    expect(await client.command("SET", "n", "7")).toBe("OK");
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.master.kill("SIGSTOP");
    const { reply } = await inFlight(stage.master, client, "INCR", "n");
    await stage.untilCause("silent");
    // As long as nobody else is the master, it may yet wake up and answer.
    await pending(reply);
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    expect(errorText(await within(reply, AT_ONCE_MS, "UNCERTAIN at once"))).toMatch(UNCERTAIN);
    await stage.master.kill("SIGCONT");
    await until(async () => (await stage.master.cli("GET", "n")) === "8", {
      what: "the old master running it",
    });
    expect(await client.command("INCR", "n"), "on the new master").toBe(8);
    expect((await stage.failovers())[0]).toMatchObject({ lost_bytes: 0, uncertain: 1 });
  });

  it("a whole transaction in flight is one UNCERTAIN (19)", async () => {
    await setUp();
    const client = await stage.client();
    expect(await client.pipeline([["MULTI"], ["INCR", "n"], ["INCR", "m"]])).toEqual([
      "OK",
      "QUEUED",
      "QUEUED",
    ]);
    await stage.master.kill("SIGSTOP");
    const exec = await inFlight(stage.master, client, "EXEC");
    await stage.master.kill("SIGKILL");
    expect(errorText(await exec.reply)).toMatch(UNCERTAIN);
    await stage.replica(0).promote();
    expect(await client.pipeline([["MULTI"], ["INCR", "n"], ["EXEC"]])).toEqual(["OK", "QUEUED", [1]]);
    expect(await counters()).toMatchObject({ uncertain: 1 });
    expect(client.unclaimed).toBe(0);
  });

  it("in a pipeline, every request is answered once and in order: what was answered stays, writes UNCERTAIN, reads re-run (15)", async () => {
    await setUp();
    const client = await stage.client();
    expect(await client.command("SET", "k", "0")).toBe("OK");
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.master.kill("SIGSTOP");
    const before = await stage.sentTo(stage.master);
    const commands: string[][] = [
      ["SET", "k", "1"],
      ["GET", "k"],
      ["ECHO", "one"],
      ["INCR", "k"],
      ["GET", "k"],
      ["ECHO", "two"],
    ];
    const replies = client.pipeline(commands);
    await until(async () => (await stage.sentTo(stage.master)) >= before + commands.length, { everyMs: 1 });
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    await stage.replica(0).promote();
    const [set, get, one, incr, again, two] = await replies;
    expect(errorText(set)).toMatch(UNCERTAIN);
    expect(errorText(incr)).toMatch(UNCERTAIN);
    expect([get, one, again, two]).toEqual(["0", "one", "0", "two"]);
    expect(await client.command("ECHO", "end")).toBe("end");
    expect(client.unclaimed).toBe(0);
    // On a busy machine the next connection may be lost as well, to a node that is being promoted.
    const { uncertain, resent_reads: resentReads } = await counters();
    expect(uncertain).toBe(2);
    expect(Number(resentReads)).toBeGreaterThanOrEqual(4);
  });
});

describe("a write whose bytes never left", () => {
  it("is sent again, not UNCERTAIN, when its connection never came about (12)", async () => {
    let link!: ChaosLink;
    await setUp({
      before: async (group) => {
        link = await startLink(group.master.port);
        links.push(link);
        return [link.address, ...group.replicas.map(({ address }) => address)];
      },
    });
    const client = await stage.client();
    expect(await client.command("INCR", "n")).toBe(1);
    link.reset();
    await until(async () => (await stage.number("held")) + (await lanesLost()) > 0, {
      what: "the loss being noticed",
    });
    await stage.untilMaster({ ...stage.master, address: link.address } as RedisServer);
    // The next connection is opened into a black hole, so that nothing but its greeting can have left.
    const accepted = link.accepted;
    link.stall();
    const reply = client.command("INCR", "n");
    await until(() => link.accepted > accepted, { what: "a new connection to the master", everyMs: 1 });
    await pending(reply);
    const lost = await lanesLost();
    link.reset();
    link.resume();
    expect(await reply).toBe(2);
    expect(await lanesLost()).toBeGreaterThan(lost);
    expect(await counters()).toMatchObject({ uncertain: 0, resent_writes: 1 });
    expect(await client.command("INCR", "n")).toBe(3);
  });
});

describe("a read in flight", () => {
  it("is answered from elsewhere when its replica is killed (3, 4)", async () => {
    await setUp({ config: { reads: EVEN } });
    expect(await stage.master.cli("SET", "k", "value")).toBe("OK");
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    const clients = await stage.clients(16);
    for (const client of clients) expect(await client.command("GET", "k")).toBe("value");
    await stage.replica(0).kill("SIGSTOP");
    const before = await stage.sentTo(stage.replica(0));
    const replies = clients.map((client) =>
      client.pipeline([
        ["GET", "k"],
        ["ECHO", "tag"],
        ["GET", "k"],
      ]),
    );
    await until(async () => (await stage.sentTo(stage.replica(0))) >= before + 9, {
      what: "reads in flight",
    });
    await stage.replica(0).kill("SIGKILL");
    for (const reply of replies) expect(await reply).toEqual(["value", "tag", "value"]);
    expect(Number((await counters()).resent_reads)).toBeGreaterThanOrEqual(6);
    for (const client of clients) expect(client.unclaimed).toBe(0);
  });

  it("is answered from elsewhere when the master that served it is killed (4, 6)", async () => {
    await setUp({ config: { reads: { ...EVEN, from: "any" } } });
    expect(await stage.master.cli("SET", "k", "value")).toBe("OK");
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    await stage.untilReadable(2);
    const clients = await stage.clients(24);
    for (const client of clients) expect(await client.command("GET", "k")).toBe("value");
    await stage.master.kill("SIGSTOP");
    const before = await stage.sentTo(stage.master);
    const replies = clients.map((client) => client.command("GET", "k"));
    await until(async () => (await stage.sentTo(stage.master)) >= before + 2, { what: "reads in flight" });
    await stage.master.kill("SIGKILL");
    for (const reply of replies)
      expect(await within(reply, AT_ONCE_MS, "reads without a master")).toBe("value");
    expect(Number((await counters()).resent_reads)).toBeGreaterThanOrEqual(2);
  });

  it("whose reply came in part is answered whole, from elsewhere (5)", async () => {
    const relays: CuttingRelay[] = [];
    await setUp({
      config: { reads: EVEN },
      before: async (group) => {
        for (const replica of group.replicas) relays.push(await new CuttingRelay(replica.port).start());
        links.push(...relays);
        return [group.master.address, ...relays.map(({ address }) => address)];
      },
    });
    // No two places of it are alike: a splice would show.
    const big = Array.from({ length: 500_000 }, (_, i) => String(i).padStart(8, "0")).join("");
    expect(await stage.master.cli("SET", "big", big)).toBe("OK");
    for (const replica of stage.group.replicas) await replica.untilCaughtUp(stage.master);
    for (const cutAfter of [10, 70_000, 3_000_000]) {
      await stage.untilReadable(2);
      // Of four, none would read there once in 10 000 runs.
      const clients = await stage.clients(8);
      const [relay] = relays as [CuttingRelay];
      const cuts = relay.cuts;
      relay.cutAfter = cutAfter;
      const replies = clients.map((client) =>
        client.pipeline([
          ["ECHO", "before"],
          ["GET", "big"],
          ["ECHO", "after"],
        ]),
      );
      for (const reply of replies) {
        const [before, value, after] = await reply;
        expect([before, after]).toEqual(["before", "after"]);
        expect(value === big, `the value after a cut at ${cutAfter}`).toBe(true);
      }
      expect(relay.cuts, `cuts at ${cutAfter}`).toBeGreaterThan(cuts);
      relay.cutAfter = Number.POSITIVE_INFINITY;
      for (const client of clients) expect(client.unclaimed).toBe(0);
    }
    expect(Number((await counters()).resent_reads)).toBeGreaterThanOrEqual(3);
  });
});

describe("requests that the node refused without running them", () => {
  /** Demotes the master without losing what it acknowledged, before the proxy can know. */
  async function demoteUnseen(): Promise<void> {
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.untilProbed(stage.master);
    await stage.master.replicaOf(stage.replica(0));
  }

  /** With probes this slow, and no reads that wait for a replica, only the traffic can tell the proxy. */
  const BLIND = { probe: { interval: "5s", timeout: "5s" }, reads: { from: "master" } };

  it("a pipeline behind a demotion is re-run in order: no reply is wrong, doubled or missing (9, 15)", async () => {
    await setUp({ config: BLIND });
    const client = await stage.client();
    expect(
      await client.pipeline([
        ["SET", "k", "old"],
        ["SET", "n", "10"],
      ]),
    ).toEqual(["OK", "OK"]);
    await demoteUnseen();
    expect(await stage.number("writable"), "the proxy does not know yet").toBe(1);
    const replies = client.pipeline([
      ["GET", "k"],
      ["SET", "k", "new"], // READONLY
      ["GET", "k"], // answered "old" by the demoted master: must not be passed on
      ["INCR", "n"], // READONLY
      ["GET", "n"],
      ["ECHO", "tag"],
      ["INCR", "n"],
      ["MGET", "k", "n"],
    ]);
    await stage.untilHeld();
    expect(await stage.status()).toMatchObject({ writable: 0, hold_cause: "role-changed" });
    await pending(replies);
    await stage.replica(0).promote();
    expect(await replies).toEqual(["old", "OK", "new", 11, "11", "tag", 12, ["new", "12"]]);
    expect(await client.command("ECHO", "end")).toBe("end");
    expect(client.unclaimed).toBe(0);
    expect(Number((await counters()).resent_writes)).toBeGreaterThanOrEqual(3);
    expect(await counters()).toMatchObject({ uncertain: 0 });
  });

  it("a long mixed pipeline keeps its order through REPLICAOF in its middle, reply by reply (9, 15)", async () => {
    // Rare probes: the refusals are to tell.
    await setUp({ config: { probe: { interval: "1s" } } });
    const client = await stage.client();
    const stream = new Stream(client, 20_000, (i) => [
      ["INCR", "n"],
      ["SET", "k", `v${i}`],
      ["GET", "k"],
      ["ECHO", `e${i}`],
    ]);
    const expected = (i: number) => [i, "OK", `v${i}`, `e${i}`];
    await stream.until(0.2);
    // Towards nobody, and later master again: what it has run stays, so that every value can be foretold.
    expect(await stage.master.cli("REPLICAOF", "127.0.0.1", 1)).toBe("OK");
    await stage.untilHeld();
    const atDemotion = Number(await stage.master.cli("GET", "n"));
    expect(atDemotion, "in the middle of the pipeline").toBeLessThan(stream.rounds);
    await stage.master.promote();
    await stream.expectReplies(expected, `demoted at ${atDemotion}`);
    expect(Number((await counters()).resent_writes), "writes that were refused").toBeGreaterThan(0);
    expect(await counters()).toMatchObject({ uncertain: 0 });
  });

  it("long mixed pipelines of many clients keep their order through FAILOVER (9, 11, 15, 37)", async (context) => {
    needs(context, "failover");
    await setUp();
    const clients = await stage.clients(6);
    const streams = clients.map(
      (client, c) =>
        new Stream(client, 5_000, (i) => [
          ["INCR", `n${c}`],
          ["GET", `n${c}`],
          ["ECHO", `e${i}`],
        ]),
    );
    await streams[0]!.until(0.2);
    expect(await stage.master.cli("FAILOVER", "TO", "127.0.0.1", stage.replica(0).port)).toBe("OK");
    await stage.untilMaster(stage.replica(0));
    for (const [c, stream] of streams.entries()) {
      await stream.expectReplies((i) => [i, String(i), `e${i}`], `client ${c}`);
      expect(await stage.replica(0).cli("GET", `n${c}`)).toBe(String(stream.rounds));
    }
    expect(Number((await counters()).resent_writes), "writes that were refused").toBeGreaterThan(0);
    expect(await counters()).toMatchObject({ uncertain: 0 });
    expect((await stage.failovers())[0]).toMatchObject({ lost_bytes: 0 });
  });

  it("a transaction is queued in the proxy and notices nothing of a switch before EXEC (17)", async () => {
    await setUp();
    const client = await stage.client();
    expect(await client.pipeline([["SET", "n", "1"], ["MULTI"], ["INCR", "n"]])).toEqual([
      "OK",
      "OK",
      "QUEUED",
    ]);
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    expect(await client.command("INCRBY", "n", "10")).toBe("QUEUED");
    const exec = client.command("EXEC");
    await stage.untilHeld();
    await stage.replica(0).promote();
    expect(await exec).toEqual([2, 12]);
    expect(await counters()).toMatchObject({ uncertain: 0 });
  });

  it("a transaction refused because of READONLY at queue time is re-sent as a whole (18)", async () => {
    await setUp({ config: BLIND });
    const client = await stage.client();
    expect(await client.command("SET", "n", "1")).toBe("OK");
    await demoteUnseen();
    const replies = client.pipeline([["MULTI"], ["INCR", "n"], ["GET", "n"], ["EXEC"], ["GET", "n"]]);
    await stage.untilHeld();
    await stage.replica(0).promote();
    expect(await replies).toEqual(["OK", "QUEUED", "QUEUED", [2, "2"], "2"]);
    expect(Number((await counters()).resent_writes)).toBe(1);
    expect(client.unclaimed).toBe(0);
  });

  it("a transaction refused as a whole at EXEC (EXECABORT because of READONLY) is re-sent (18)", async (context) => {
    needs(context, "INFO errorstats");
    await setUp({ config: { probe: { interval: "5s", timeout: "5s" } } });
    const client = await stage.client();
    expect(await client.pipeline([["MULTI"], ["SET", "n", "1"], ["EXEC"]])).toEqual(["OK", "QUEUED", ["OK"]]);
    await stage.replica(0).untilCaughtUp(stage.master);
    // Redis reads a connection piece by piece: the INCR is queued, the demotion runs, EXEC comes after it.
    const padding = "x".repeat(200_000);
    const direct = await RawClient.connect({ port: stage.master.port });
    expect(await direct.command("PING")).toBe("PONG");
    await stage.master.kill("SIGSTOP");
    expect(await client.pipeline([["MULTI"], ["INCR", "n"], ["ECHO", padding]])).toEqual([
      "OK",
      "QUEUED",
      "QUEUED",
    ]);
    const exec = await inFlight(stage.master, client, "EXEC");
    const demotion = encodeCommand(["REPLICAOF", "127.0.0.1", stage.replica(0).port]);
    await new Promise((written) => direct.socket.write(demotion, written));
    await stage.master.kill("SIGCONT");
    expect(await direct.reply()).toBe("OK");
    direct.close();
    await stage.untilHeld();
    // "EXECABORT … because of: READONLY" is counted by the server itself.
    const aborts = (await stage.master.info("errorstats")).get("errorstat_EXECABORT");
    expect(aborts, "the server refused the transaction at EXEC").toBe("count=1");
    await stage.replica(0).promote();
    expect(await exec.reply).toEqual([2, padding]);
    expect(await stage.replica(0).cli("GET", "n")).toBe("2");
    expect(await counters()).toMatchObject({ uncertain: 0, resent_writes: 1 });
  });

  it("requests wait while the master loads its data set, and are answered when it has (9, 13)", async () => {
    await setUp({ replicas: 0, redis: { args: ["--save", "3600", "1"] }, readable: 0 });
    const [a, b] = (await stage.clients(2)) as [RawClient, RawClient];
    for (let i = 0; i < 300; i++) await a.command("SET", `k${i}`, "x".repeat(2_000));
    await a.command("SET", "n", "5");
    await stage.master.cli("SHUTDOWN", "SAVE").catch(() => undefined);
    await until(() => !stage.master.running);
    const slowly = ["--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"];
    const restarted = stage.master.restart(["--save", "3600", "1", ...slowly]);
    await stage.untilCause("loading");
    expect(await stage.status()).toMatchObject({ writable: 0 });
    const [write, read] = [a.command("INCR", "n"), b.command("GET", "k7")];
    await stage.untilHeld(2);
    await pending(Promise.race([write, read]), 100);
    await restarted;
    expect(await write).toBe(6);
    expect(await read).toBe("x".repeat(2_000));
    expect(await stage.epoch()).toMatchObject({ number: 1, hold_cause: null });
    expect(await counters()).toMatchObject({ uncertain: 0 });
  });
});

/**
 * A pipeline that never waits for a reply and is fed bit by bit, so that something can happen in its
 * middle.
 */
class Stream {
  readonly rounds: number;
  readonly #client: RawClient;
  readonly #replies: Promise<Reply>[] = [];
  readonly #sending: Promise<void>;
  #sent = 0;

  constructor(client: RawClient, rounds: number, commands: (round: number) => string[][]) {
    this.#client = client;
    this.rounds = rounds;
    this.#sending = this.#send(commands);
  }

  async #send(commands: (round: number) => string[][]): Promise<void> {
    while (this.#sent < this.rounds) {
      const batch: Buffer[] = [];
      for (let i = 0; i < 20 && this.#sent < this.rounds; i++) {
        for (const command of commands(++this.#sent)) {
          batch.push(encodeCommand(command));
          this.#replies.push(this.#client.reply());
        }
      }
      this.#client.send(Buffer.concat(batch));
      await sleep(1);
    }
  }

  /** Waits until a part of it was sent. */
  async until(part: number): Promise<void> {
    await until(() => this.#sent >= this.rounds * part, { what: `${part} of the pipeline`, everyMs: 1 });
  }

  /** Every reply is there exactly once, in order, and right. */
  async expectReplies(expected: (round: number) => Reply[], what: string): Promise<void> {
    await this.#sending;
    const replies = await Promise.all(this.#replies);
    const size = replies.length / this.rounds;
    for (let i = 1; i <= this.rounds; i++) {
      const got = replies.slice(size * (i - 1), size * i);
      const wanted = expected(i);
      if (got.some((reply, at) => reply !== wanted[at])) {
        expect({ round: i, replies: got }, what).toEqual({ round: i, replies: wanted });
      }
    }
    expect(await this.#client.command("ECHO", "end")).toBe("end");
    expect(this.#client.unclaimed).toBe(0);
  }
}

/**
 * Passes everything on; a connection on which the big value is asked for ends after `cutAfter` bytes of
 * replies.
 */
class CuttingRelay {
  cutAfter = Number.POSITIVE_INFINITY;
  cuts = 0;
  readonly #target: number;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  constructor(target: number) {
    this.#target = target;
    this.#server = net.createServer({ noDelay: true }, (near) => this.#relay(near));
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as net.AddressInfo).port}`;
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return this;
  }

  async close(): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #relay(near: net.Socket): void {
    const far = net.connect({ port: this.#target, host: "127.0.0.1", noDelay: true });
    let brought = Number.NEGATIVE_INFINITY;
    near.on("data", (chunk: Buffer) => {
      if (brought < 0 && chunk.includes("\r\nbig\r\n")) brought = 0;
      far.write(chunk);
    });
    far.on("data", (chunk: Buffer) => {
      if (near.writableEnded) return;
      brought += chunk.length;
      if (brought < this.cutAfter) return void near.write(chunk);
      // In an orderly way, so that all that was passed on arrives.
      near.end(chunk.subarray(0, chunk.length - (brought - this.cutAfter)));
      far.destroy();
      this.cuts++;
    });
    for (const [socket, other] of [[near, far] as const, [far, near] as const]) {
      this.#sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        this.#sockets.delete(socket);
        if (socket === near || !near.writableEnded) other.destroy();
      });
    }
  }
}
