/**
 * Changes of the master as people make them, one after another on one stage, each at a random moment; after
 * each of them all three servers are in step again.
 */
import { expect } from "vitest";
import type { RedisServer } from "../../support/redis.ts";
import type { Fields, Stage } from "../../support/stage.ts";
import { sleep, until } from "../../support/wait.ts";

/**
 * What a switch may cost the clients.
 *
 *   planned       nothing: the old master stops first
 *   two masters   what the old one acknowledges until it is told; the proxy reports it
 *   crash         what was on the wire is uncertain
 */
export type Kind = "planned" | "two masters" | "crash";

type Name =
  | "demoteFirst"
  | "failover"
  | "promoteWhileTheMasterLives"
  | "killAndPromote"
  | "hangKillAndPromote";

const NAMES: Readonly<Record<Kind, readonly Name[]>> = {
  planned: ["demoteFirst", "failover"],
  "two masters": ["promoteWhileTheMasterLives"],
  crash: ["killAndPromote", "hangKillAndPromote"],
};

/** How long the group stays as it is between two steps of a switch, ms. */
const MOST_PAUSE_MS = 200;
/**
 * How long a crash stays without a master at most, ms: BullMQ does not wait for a second, see below, of which
 * the machine may take half.
 */
const MOST_OUTAGE_MS = 200;

/**
 * How often a replica reports its offset, ms. FAILOVER pauses writes until the next report; and without a
 * TIMEOUT its master goes on with pings, which change the offset that the report must have (replication.c,
 * replicationCron and updateFailoverStatus). BullMQ gives up a connection that does not answer a short wait
 * for a second, with Redis alone as well: so the pause is kept below half of that, the other half being for a
 * machine that stands still.
 */
const REPORT_MS = 1_000;

export class Switches {
  readonly #stage: Stage;
  readonly #random: () => number;
  #master: RedisServer;
  /** The first one is the next to be promoted. */
  #replicas: [RedisServer, RedisServer];

  constructor(stage: Stage, random: () => number) {
    this.#stage = stage;
    this.#random = random;
    this.#master = stage.master;
    this.#replicas = [stage.replica(0), stage.replica(1)];
  }

  get master(): RedisServer {
    return this.#master;
  }

  /** The switches of a kind, in random order. */
  order(kind: Kind): Name[] {
    const names = [...NAMES[kind]];
    return this.#random() < 0.5 ? names.reverse() : names;
  }

  /** One switch; returns what PROXY FAILOVERS says of it. */
  async run(name: Name): Promise<Fields> {
    const before = await this.#stage.proxy.metric("holdfast_switches_total");
    const [old, [next, other]] = [this.#master, this.#replicas];
    await this.#pause();
    await this.#change(name, old, next);
    await this.#stage.untilMaster(next);
    await this.#pause();
    await other.replicaOf(next);
    if (old.running) await old.replicaOf(next);
    else await old.restart(["--replicaof", "127.0.0.1", `${next.port}`]);
    this.#master = next;
    this.#replicas = this.#random() < 0.5 ? [other, old] : [old, other];
    for (const replica of this.#replicas) {
      await replica.untilLinkUp();
      await replica.untilCaughtUp(next);
    }
    await this.#stage.untilReadable(2);
    expect(await this.#stage.proxy.metric("holdfast_switches_total"), "switches").toBe(before + 1);
    const [record] = await this.#stage.failovers();
    expect(record).toMatchObject({ from: old.address, to: next.address });
    return record!;
  }

  async #change(name: Name, old: RedisServer, next: RedisServer): Promise<void> {
    switch (name) {
      case "demoteFirst":
        // What is not on the replica yet would be lost by Redis itself.
        await old.cli("CLIENT", "PAUSE", 10_000, "WRITE");
        await next.untilCaughtUp(old);
        await old.replicaOf(next);
        await old.cli("CLIENT", "UNPAUSE");
        await this.#pause();
        return next.promote();
      case "failover":
        await this.#untilReport(old, next);
        await sleep(REPORT_MS * (0.7 + 0.2 * this.#random()));
        expect(await old.cli("FAILOVER", "TO", next.host, next.port, "TIMEOUT", 5_000)).toBe("OK");
        return;
      case "promoteWhileTheMasterLives":
        return next.promote();
      case "killAndPromote":
        return this.#killAndPromote(old, next);
      case "hangKillAndPromote": {
        await old.kill("SIGSTOP");
        await this.#untilAllWait(old);
        return this.#killAndPromote(old, next);
      }
    }
  }

  /** The replica reports its offset now: its next report is a whole second away. */
  async #untilReport(master: RedisServer, replica: RedisServer): Promise<void> {
    const line = new RegExp(`port=${replica.port},.*offset=(\\d+)`);
    const offset = async () => {
      const slaves = [...(await master.info())].filter(([key]) => /^slave\d+$/.test(key));
      return slaves.map(([, text]) => line.exec(text)?.[1]).find((found) => found !== undefined);
    };
    const before = await offset();
    await until(async () => (await offset()) !== before, { what: `a report of replica ${replica.port}` });
  }

  /** Nothing more is sent: whoever writes has a write on the wire. */
  async #untilAllWait(server: RedisServer): Promise<void> {
    let last = -1;
    const isQuiet = async () => {
      const before = last;
      last = await this.#stage.sentTo(server);
      return last === before;
    };
    await until(isQuiet, { what: "everybody waiting for a server that hangs", everyMs: 50 });
  }

  async #killAndPromote(old: RedisServer, next: RedisServer): Promise<void> {
    await old.kill("SIGKILL");
    await sleep(this.#random() * MOST_OUTAGE_MS);
    await next.promote();
  }

  #pause(): Promise<void> {
    return sleep(this.#random() * MOST_PAUSE_MS);
  }
}
