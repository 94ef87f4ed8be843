/**
 * Changes of the master as people make them, one after another on one stage, each at a random moment; after each
 * of them all three servers are in step again.
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
/** How long a crash stays without a master at most, ms. */
const MOST_OUTAGE_MS = 1_500;

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
    else await old.restart(["--replicaof", `${next.host} ${next.port}`]);
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
        expect(await old.cli("FAILOVER", "TO", next.host, next.port)).toBe("OK");
        return;
      case "promoteWhileTheMasterLives":
        return next.promote();
      case "killAndPromote":
        return this.#killAndPromote(old, next);
      case "hangKillAndPromote": {
        // Something is on the wire for certain.
        await old.kill("SIGSTOP");
        const sent = await this.#stage.sentTo(old);
        await until(async () => (await this.#stage.sentTo(old)) > sent, { what: "requests that hang" });
        return this.#killAndPromote(old, next);
      }
    }
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
