/** SIGTERM of the master: Redis 7 stops writing first, and waits for its replicas. */
import { afterEach, describe, expect, it } from "vitest";
import { RawClient } from "../support/client.ts";
import type { RedisServer } from "../support/redis.ts";
import { encodeCommand, type Reply, ReplyError } from "../support/resp.ts";
import { errorText, report, Stage } from "../support/stage.ts";
import { sleep, until, within } from "../support/wait.ts";

let stage: Stage;
afterEach(() => stage.close());

const UNCERTAIN = /^UNCERTAIN /;

interface Books {
  readonly acked: number[];
  readonly uncertain: number[];
  readonly errors: string[];
}

/** Clients that count, each for itself, in pipelines with reads, transactions and scripts between. */
class Load {
  readonly books: Books;
  #stop = false;
  readonly #working: Promise<void>[];

  constructor(clients: readonly RawClient[]) {
    this.books = { acked: clients.map(() => 0), uncertain: clients.map(() => 0), errors: [] };
    this.#working = clients.map((client, i) => this.#work(client, i));
  }

  async stop(): Promise<Books> {
    this.#stop = true;
    await Promise.all(this.#working);
    return this.books;
  }

  async #work(client: RawClient, i: number): Promise<void> {
    const key = `n:${i}`;
    const unit = [["MULTI"], ["INCR", key], ["EXEC"]];
    const script = ["EVAL", "return redis.call('incr', KEYS[1])", "1", key];
    while (!this.#stop) {
      const commands = [["INCR", key], ["GET", key], ["INCR", key], ...unit, script, ["ECHO", "x"]];
      const replies = await client.pipeline(commands);
      for (const at of [0, 2, 5, 6]) this.#note(i, replies[at] as Reply);
      for (const at of [1, 3, 4, 7]) if (replies[at] instanceof ReplyError) this.#fail(replies[at] as Reply);
      // Counted up by one each time, so a reply out of its order is seen.
      const counted = [replies[0], replies[2], (replies[5] as Reply[])[0], replies[6]];
      const steps = counted.map((count) => Number(count) - Number(replies[0]));
      const isSure = this.books.uncertain[i] === 0;
      if (isSure && steps.join() !== "0,1,2,3") this.books.errors.push(`counted ${counted.join()}`);
      if (client.unclaimed > 0) this.books.errors.push("a reply too many");
      await sleep(1);
    }
  }

  #note(i: number, reply: Reply): void {
    const { acked, uncertain } = this.books;
    if (!(reply instanceof ReplyError)) acked[i] = (acked[i] ?? 0) + 1;
    else if (UNCERTAIN.test(reply.message)) uncertain[i] = (uncertain[i] ?? 0) + 1;
    else this.#fail(reply);
  }

  #fail(reply: Reply): void {
    this.books.errors.push(reply instanceof ReplyError ? reply.message : String(reply));
  }
}

async function offset(server: RedisServer): Promise<number> {
  return Number((await server.info()).get("master_repl_offset"));
}

const ROUNDS = Number(process.env.ROUNDS ?? 3);

describe("SIGTERM of a loaded master, then a promotion by hand (50)", () => {
  it.each(Array.from({ length: ROUNDS }, (_, i) => i + 1))(
    "round %i: where its pause was seen nothing is lost, doubled or uncertain",
    async (round) => {
      stage = await Stage.open();
      const load = new Load(await stage.clients(8));
      await until(() => load.books.acked.every((count) => count > 8), { what: "every client counting" });
      // At another point of the seconds in which replicas acknowledge each time.
      await sleep(100 + ((round * 137) % 1_000));
      const ended = stage.master.kill("SIGTERM");
      await until(async () => (await stage.status()).writable === 0, {
        what: "writes being held",
        everyMs: 1,
      });
      const wasSeen = (await stage.status()).hold_cause === "shutting-down";
      if (wasSeen) {
        // Reads go on at the replicas.
        const reader = await stage.client();
        expect(await within(reader.command("EXISTS", "none"), 1_000, "a read")).toBe(0);
      }
      await ended;
      const paused = /Waiting for replicas before shutting down/.test(stage.master.output);
      const [first, second] = [stage.replica(0), stage.replica(1)];
      const isFirst = (await offset(first)) >= (await offset(second));
      const next = isFirst ? first : second;
      await next.promote();
      await (isFirst ? second : first).replicaOf(next);
      await stage.untilMaster(next);
      await sleep(50);
      const { acked, uncertain, errors } = await load.stop();
      const final = await Promise.all(acked.map(async (_, i) => Number(await next.cli("GET", `n:${i}`))));
      const doubts = uncertain.reduce((sum, one) => sum + one, 0);
      const resent = await stage.number("resent_writes");
      report(
        `round ${round}: ${paused ? "paused" : "no pause"}, ${wasSeen ? "seen" : "not seen"}, ` +
          `${acked.reduce((sum, one) => sum + one, 0)} counted, ${resent} sent again, ${doubts} uncertain`,
      );
      if (wasSeen) {
        expect({ errors, doubts }).toEqual({ errors: [], doubts: 0 });
        expect(final).toEqual(acked);
        expect(resent + (await stage.accounts()).held, "somebody had to wait").toBeGreaterThan(0);
      }
      for (const [i, count] of final.entries()) {
        expect(count).toBeGreaterThanOrEqual(acked[i] ?? 0);
        expect(count).toBeLessThanOrEqual((acked[i] ?? 0) + (uncertain[i] ?? 0));
      }
    },
  );
});

/** One replica stands still, so that the master has somebody to wait for; the probes come by rarely. */
async function withLaggingReplica(): Promise<RawClient> {
  stage = await Stage.open({ config: { probe: { interval: "1s", timeout: "1s" } } });
  const client = await stage.client();
  await stage.replica(1).kill("SIGSTOP");
  expect(await client.command("SET", "n", "1")).toBe("OK");
  return client;
}

/** SHUTDOWN on a connection of its own; returns once the master has stopped, known to no proxy yet. */
async function shutDown(): Promise<RawClient> {
  const direct = await RawClient.connect({ port: stage.master.port });
  direct.send(encodeCommand(["SHUTDOWN", "NOSAVE"]));
  const isStopping = async () => (await stage.master.info("server")).has("shutdown_in_milliseconds");
  await until(isStopping, { what: "the master stopping", everyMs: 1 });
  return direct;
}

/** The requests were written to the node, unless the proxy came to know first and held them. */
async function untilTaken(before: number): Promise<void> {
  const taken = async () =>
    (await stage.sentTo(stage.master)) > before || Number((await stage.status()).held_now) > 0;
  await until(taken, { what: "the requests being taken", everyMs: 1 });
}

it("writes on the way are answered when another is promoted while the old master still waits to end (50)", async () => {
  const client = await withLaggingReplica();
  const before = await stage.sentTo(stage.master);
  const direct = await shutDown();
  const sent = client.command("INCR", "n");
  await untilTaken(before);
  await stage.untilCause("shutting-down");
  await stage.replica(0).untilCaughtUp(stage.master);
  await stage.replica(0).promote();
  expect(await within(sent, 5_000, "its reply")).toBe(2);
  expect(await stage.replica(0).cli("GET", "n")).toBe("2");
  expect(await stage.status()).toMatchObject({ uncertain: 0 });
  await stage.replica(1).kill("SIGCONT");
  direct.close();
});

it("SHUTDOWN ABORT: writes go on at the same master, what waited there runs once (50)", async () => {
  const client = await withLaggingReplica();
  const other = await stage.client();
  const before = await stage.sentTo(stage.master);
  const direct = await shutDown();
  const shutdown = direct.reply();
  const sent = client.command("INCR", "n");
  await untilTaken(before);
  await stage.untilCause("shutting-down");
  const held = other.command("INCR", "n");
  await stage.untilHeld();
  expect(await stage.master.cli("SHUTDOWN", "ABORT")).toBe("OK");
  expect(errorText(await shutdown)).toMatch(/^ERR Errors trying to SHUTDOWN/);
  expect([await sent, await held].toSorted()).toEqual([2, 3]);
  expect(await stage.master.cli("GET", "n")).toBe("3");
  expect(await stage.number("epoch")).toBe(1);
  await stage.replica(1).kill("SIGCONT");
  direct.close();
});

it("what the pause does not stop may have run: behind a write that waits it is UNCERTAIN, the write is sent again (50)", async () => {
  const client = await withLaggingReplica();
  const before = await stage.sentTo(stage.master);
  const direct = await shutDown();
  const replies = client.pipeline([
    ["INCR", "n"],
    ["CONFIG", "SET", "lua-time-limit", "4000"],
  ]);
  await untilTaken(before);
  const wasHeld = Number((await stage.status()).held_now) > 0;
  await stage.untilCause("shutting-down");
  // It was asked for after all that the connection has brought.
  await stage.untilReport(stage.master);
  await stage.master.kill("SIGKILL");
  await stage.replica(0).promote();
  const [incremented, configured] = await replies;
  expect(incremented).toBe(2);
  if (wasHeld) expect(configured).toBe("OK");
  else expect(errorText(configured)).toMatch(UNCERTAIN);
  expect(await stage.replica(0).cli("GET", "n")).toBe("2");
  await stage.replica(1).kill("SIGCONT");
  direct.close();
});

it("where no replica lags the master ends without a pause: what was on the way is UNCERTAIN (12, 50)", async () => {
  stage = await Stage.open({ config: { probe: { interval: "1s", timeout: "1s" } } });
  const client = await stage.client();
  expect(await client.command("SET", "n", "1")).toBe("OK");
  const before = await stage.sentTo(stage.master);
  await stage.master.cli("CONFIG", "SET", "shutdown-timeout", "0");
  await stage.master.kill("SIGSTOP");
  const sent = client.command("INCR", "n");
  await untilTaken(before);
  // Both are there when it wakes: it ends at the latest a tenth of a second later.
  const ended = stage.master.kill("SIGTERM");
  await stage.master.kill("SIGCONT");
  await ended;
  const reply = await within(sent, 1_000, "its reply");
  if (reply !== 2) expect(errorText(reply)).toMatch(UNCERTAIN);
  expect(stage.master.output).not.toMatch(/Waiting for replicas before shutting down/);
  expect(await stage.status()).toMatchObject({ resent_writes: 0 });
});
