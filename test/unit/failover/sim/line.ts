/** What markers are put up and looked for with, over the model's network: see promoter-line.ts. */
import type { Line } from "../../../../src/failover/right/promoters.ts";
import { Connection, type Network } from "./network.ts";
import type { ModelNode } from "./node.ts";
import type { Party } from "./timeline.ts";

export interface LineEvents {
  onEnd(): void;
  /** An answer that the node gave at `servedAtMs` is here. */
  onChannels(channels: readonly string[], servedAtMs: number): void;
}

export class ModelLine implements Line {
  readonly #network: Network;
  readonly #party: Party;
  readonly #connection: Connection | null;
  readonly #events: LineEvents;
  readonly #waiting = new Set<(error: Error) => void>();
  #isOver = false;

  constructor(network: Network, party: Party, node: ModelNode | undefined, events: LineEvents) {
    this.#network = network;
    this.#party = party;
    this.#events = events;
    this.#connection = node === undefined ? null : new Connection(network, party, node, () => this.#lost());
  }

  open(): Promise<void> {
    const connection = this.#connection;
    if (connection === null) this.#network.time.after(1, () => this.#lost(), this.#party);
    return this.#ask<void>((done) => connection?.open(done));
  }

  /** No Sentinel is in these worlds: nothing is said on any channel. */
  subscribe([marker = ""]: readonly string[]): Promise<unknown> {
    const connection = this.#connection;
    return this.#ask<void>((done) =>
      connection?.send<void>((node, answer) => {
        node.subscribe(connection, marker);
        answer();
      }, done),
    );
  }

  channels(): Promise<unknown> {
    const { time } = this.#network;
    return this.#ask<readonly string[]>((done) => {
      let servedAtMs = 0;
      this.#connection?.send<readonly string[]>(
        (node, answer) => {
          servedAtMs = time.nowMs;
          answer(node.channels());
        },
        (channels) => {
          this.#events.onChannels(channels, servedAtMs);
          done(channels);
        },
      );
    });
  }

  /** Every proxy that marks listens to Sentinels with the same connection. */
  subscribers(channel: string): Promise<unknown> {
    return this.#ask<readonly unknown[]>((done) =>
      this.#connection?.send<readonly unknown[]>(
        (node, answer) => answer([channel, node.markers.size]),
        done,
      ),
    );
  }

  hangUp(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#connection?.hangUp();
    this.#rejectAll("Connection is closed.");
  }

  /** Its process is gone: nobody waits for anything any more. */
  die(): void {
    this.#isOver = true;
    this.#connection?.hangUp();
  }

  #ask<T>(run: (done: (answer: T) => void) => void): Promise<T> {
    const { time } = this.#network;
    return new Promise((resolve, reject) => {
      const fail = (error: Error): void => reject(error);
      this.#waiting.add(fail);
      if (this.#isOver) return this.#rejectAll("Connection is closed.");
      run((answer) => {
        this.#waiting.delete(fail);
        time.isStirred = true;
        resolve(answer);
      });
    });
  }

  #lost(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#rejectAll("connect ECONNREFUSED");
    this.#events.onEnd();
  }

  #rejectAll(why: string): void {
    this.#network.time.isStirred = true;
    for (const reject of this.#waiting) reject(new Error(why));
    this.#waiting.clear();
  }
}
