/**
 * Clients whose sessions hold state, each on a bare socket and checking what it is told; what they do stands
 * in sessions/. They work all the time, and of what happens to the group they know only what it may do to
 * them.
 */
import { RawClient } from "./client.ts";
import type { RedisServer } from "./redis.ts";
import { type Reply, ReplyError } from "./resp.ts";
import type { Operation } from "./switches.ts";
import { sleep, until } from "./wait.ts";

const PACE_MS = 5;

/** Acknowledged writes of one client; a crash may take some although none was on its way for long. */
const MAY_LOSE = { nothing: 0, few: 5, all: Number.POSITIVE_INFINITY } as const;

export interface StatefulOptions {
  readonly port: number;
  /** From 0 up to 1. */
  readonly random: () => number;
}

export interface Round extends Pick<Operation, "mayCut" | "mayLose"> {
  readonly name: string;
}

const QUIET: Round = { name: "nothing", mayCut: false, mayLose: "nothing" };

interface Loop {
  readonly name: string;
  /** Takes what others make: goes on while they pause. */
  readonly drains: boolean;
  isAtGate: boolean;
}

export type ClientOptions = Omit<Parameters<typeof RawClient.connect>[0], "port">;

export abstract class Actor {
  readonly load: StatefulLoad;

  constructor(load: StatefulLoad) {
    this.load = load;
  }

  /** Connects its clients and sets them to work. */
  abstract start(): Promise<void>;

  /** Compares what the clients were told with what is on the master, while nobody makes anything. */
  audit(_master: RedisServer): Promise<void> {
    return Promise.resolve();
  }
}

export class StatefulLoad {
  /** Steps that succeeded, by the name of the loop. */
  readonly steps = new Map<string, number>();
  /** What was not as it should be, in words. */
  readonly faults: string[] = [];
  /** Replies of UNCERTAIN, all in all. */
  uncertain = 0;
  /** What is happening to the group. */
  round = QUIET;
  readonly #options: StatefulOptions;
  readonly #clients: RawClient[] = [];
  readonly #actors: Actor[];
  readonly #loops: Loop[] = [];
  readonly #runs: Promise<void>[] = [];
  #paused = false;
  #stopping = false;

  constructor(options: StatefulOptions, actors: readonly (new (load: StatefulLoad) => Actor)[]) {
    this.#options = options;
    this.#actors = actors.map((One) => new One(this));
  }

  get stopping(): boolean {
    return this.#stopping;
  }

  async start(): Promise<this> {
    for (const actor of this.#actors) await actor.start();
    return this;
  }

  /** Ends the loops; a call that waits is not waited for. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const client of this.#clients) {
      if (client.disconnected) this.faults.push(`disconnected: ${client.disconnectReason}`);
      client.close();
    }
    await Promise.all(this.#runs);
  }

  // What happens

  begin(name: string, operation: Pick<Operation, "mayCut" | "mayLose">): void {
    this.round = { name, mayCut: operation.mayCut, mayLose: operation.mayLose };
  }

  /** None is stuck. */
  async allGoOn(): Promise<void> {
    const before = new Map(this.steps);
    const stuck = () =>
      this.#loops
        .map(({ name }) => name)
        .filter((name) => (this.steps.get(name) ?? 0) <= (before.get(name) ?? 0));
    const { name } = this.round;
    try {
      await until(() => stuck().length === 0, { deadlineMs: 15_000, what: `all going on after ${name}` });
    } catch (error) {
      const faults = this.faults.join("\n");
      throw new Error(`${(error as Error).message}; stuck: ${stuck()}\n${faults}`, { cause: error });
    }
  }

  /** Everybody stops for a moment and the books are compared with the master. */
  async audit(master: RedisServer): Promise<void> {
    this.#paused = true;
    const busy = () => this.#loops.filter(({ drains, isAtGate }) => !drains && !isAtGate);
    await until(() => busy().length === 0, { deadlineMs: 30_000, what: "all pausing" }).catch(() => {
      const names = busy().map(({ name }) => name);
      throw new Error(`after ${this.round.name} these have no reply: ${names}\n${this.faults.join("\n")}`);
    });
    for (const actor of this.#actors) await actor.audit(master);
    for (const client of this.#clients) {
      if (client.disconnected) this.fault(`disconnected: ${client.disconnectReason}`);
    }
    this.#paused = false;
    this.round = QUIET;
  }

  // For the actors

  fault(text: string): void {
    if (!this.#stopping && this.faults.length < 100) this.faults.push(`${this.round.name}: ${text}`);
  }

  /** Acknowledged writes of one client that this round may have lost, and that may come twice then. */
  get mayLose(): number {
    return MAY_LOSE[this.round.mayLose];
  }

  async client(options: ClientOptions = {}): Promise<RawClient> {
    const client = await RawClient.connect({ deadlineMs: 60_000, ...options, port: this.#options.port });
    this.#clients.push(client);
    return client;
  }

  /** Its end by its own wish. */
  dismiss(client: RawClient): void {
    if (client.unclaimed > 0) this.fault(`${client.unclaimed} replies too many`);
    if (client.disconnected) this.fault(`disconnected: ${client.disconnectReason}`);
    client.close();
    this.#clients.splice(this.#clients.indexOf(client), 1);
  }

  random(below: number): number {
    return Math.floor(this.#options.random() * below);
  }

  /** 0 to `mostMs`, and often not at all. */
  async pause(mostMs: number): Promise<void> {
    if (this.random(2) === 0) await sleep(this.random(mostMs + 1));
  }

  /** `step` says whether it succeeded; it is repeated until the end. */
  loop(name: string, step: () => Promise<boolean>, drains = false): void {
    const loop: Loop = { name, drains, isAtGate: false };
    this.#loops.push(loop);
    const run = async () => {
      while (!this.#stopping) {
        if (this.#paused && !drains) {
          loop.isAtGate = true;
          await sleep(PACE_MS);
          continue;
        }
        loop.isAtGate = false;
        if (await step()) this.steps.set(name, (this.steps.get(name) ?? 0) + 1);
        await sleep(PACE_MS);
      }
    };
    this.#runs.push(
      run().catch((error: Error) => {
        loop.isAtGate = true;
        this.fault(`${name} ended: ${error.stack}`);
      }),
    );
  }

  /** Whether a reply is a success; UNCERTAIN is none, other errors are faults, and so it is without a cut. */
  isWell(who: string, reply: Reply | undefined): boolean {
    if (!(reply instanceof ReplyError)) return true;
    if (reply.word !== "UNCERTAIN") this.fault(`${who}: ${reply.message}`);
    else {
      this.uncertain++;
      if (!this.round.mayCut) this.fault(`${who}: UNCERTAIN without a lost connection`);
    }
    return false;
  }

  /** As `isWell`, and the reply is exactly this. */
  isExactly(who: string, reply: Reply | undefined, expected: Reply): boolean {
    if (!this.isWell(who, reply)) return false;
    const [got, wanted] = [JSON.stringify(reply), JSON.stringify(expected)];
    if (got !== wanted) this.fault(`${who}: ${got} instead of ${wanted}`);
    return got === wanted;
  }
}

/** A counter on the server and what its clients know of it. */
export class Tally {
  acked = 0;
  uncertain = 0;
  #base = 0;
  readonly #name: string;
  readonly #load: StatefulLoad;

  constructor(load: StatefulLoad, name: string) {
    this.#load = load;
    this.#name = name;
  }

  /** An increment was answered, or may have run. @returns whether it was a success. */
  count(reply: Reply | undefined): boolean {
    const isWell = this.#load.isWell(this.#name, reply);
    if (isWell) this.acked++;
    else this.uncertain++;
    return isWell;
  }

  /** As `count`, for the only client of the counter: its reply holds the `value`. */
  settle(reply: Reply | undefined, value: Reply | undefined = reply): boolean {
    if (!this.count(reply)) return false;
    const least = this.#base + this.acked - this.#load.mayLose;
    const most = this.#base + this.acked + this.uncertain;
    const isPossible = typeof value === "number" && value >= least && value <= most;
    if (!isPossible) this.#load.fault(`${this.#name}: ${String(value)} is not in ${least} to ${most}`);
    return isPossible;
  }

  /** Where it stands, and from where it is counted from now on. */
  audit(final: number): void {
    const least = this.#base + this.acked - this.#load.mayLose;
    const most = this.#base + this.acked + this.uncertain;
    if (final < least || final > most) {
      this.#load.fault(`${this.#name}: ended at ${final}, not in ${least} to ${most}`);
    }
    this.#base = final;
    this.acked = 0;
    this.uncertain = 0;
  }
}
