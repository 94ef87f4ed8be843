/**
 * What carries bytes between the parties: connections in order, with delays, that are reset when their server
 * dies, and that deliver late what was sent into a black hole or to a process that stood still.
 */
import type { ModelNode } from "./node.ts";
import type { Party, Timeline } from "./timeline.ts";

export class Network {
  readonly time: Timeline;
  /** Delay of one way, ms. */
  leastMs = 0.1;
  mostMs = 1;
  readonly #cut = new Map<string, { readonly sinceMs: number; readonly waiting: (() => void)[] }>();
  /** Parties whose machine has died, and when: nothing comes from there any more, not even an end. */
  readonly #dead = new Map<string, number>();
  /** By path: when the last connection that ended there is known to have. */
  readonly #endedAtMs = new Map<string, number>();

  constructor(time: Timeline) {
    this.time = time;
  }

  delayMs(): number {
    return this.time.between(this.leastMs, this.mostMs);
  }

  cut(a: string, b: string): void {
    const key = pathOf(a, b);
    if (!this.#cut.has(key)) this.#cut.set(key, { sinceMs: this.time.nowMs, waiting: [] });
  }

  heal(a: string, b: string): void {
    const waiting = this.#cut.get(pathOf(a, b))?.waiting ?? [];
    this.#cut.delete(pathOf(a, b));
    // What a machine has not got rid of dies with it.
    if (this.#dead.has(a) || this.#dead.has(b)) return;
    // In order: a connection delivers what it was given one after the other.
    let atMs = this.time.nowMs;
    for (const run of waiting) {
      atMs = Math.max(atMs, this.time.nowMs + this.delayMs());
      this.time.at(atMs, run);
    }
  }

  ends(a: string, b: string, atMs: number): void {
    this.#endedAtMs.set(pathOf(a, b), Math.max(this.endedAtMs(a, b), atMs));
  }

  endedAtMs(a: string, b: string): number {
    return this.#endedAtMs.get(pathOf(a, b)) ?? Number.NEGATIVE_INFINITY;
  }

  machineDies(name: string): void {
    this.#dead.set(name, this.time.nowMs);
  }

  /** Since when nothing has come through between them; null = it does. */
  silentSinceMs(a: string, b: string): number | null {
    return this.#dead.get(a) ?? this.#dead.get(b) ?? this.#cut.get(pathOf(a, b))?.sinceMs ?? null;
  }

  isCut(a: string, b: string): boolean {
    return this.#cut.has(pathOf(a, b));
  }

  get cuts(): readonly (readonly [string, string])[] {
    return [...this.#cut.keys()].map((key) => key.split("|") as unknown as [string, string]);
  }

  /** Runs now, or once the path is healed: nothing is lost for good that a living peer repeats. */
  pass(a: string, b: string, run: () => void): void {
    const cut = this.#cut.get(pathOf(a, b));
    if (cut === undefined) run();
    else cut.waiting.push(() => this.pass(a, b, run));
  }
}

function pathOf(a: string, b: string): string {
  return a < b ? `${a}|${b}` : `${b}|${a}`;
}

/** What a server does with one request: `answer` may be called later (a paused write). */
export type Serve<T> = (node: ModelNode, answer: (reply: T) => void) => void;

/** A connection from a party to a node. */
export class Connection {
  readonly network: Network;
  readonly from: Party;
  readonly node: ModelNode;
  /** The running instance it was accepted by; -1 = not yet. */
  life = -1;
  isOpen = false;
  /** Ended by either side: nothing more is called back. */
  isOver = false;
  /** The server has given it up, and we were not told. */
  isForgotten = false;
  /** We have given it up, and the server was not told; null = not so. */
  halfOpenSinceMs: number | null = null;
  readonly #onLost: () => void;
  #thereMs = 0;
  #backMs = 0;

  /** @param onLost the server ended it, or refused it; not after close(). */
  constructor(network: Network, from: Party, node: ModelNode, onLost: () => void) {
    this.network = network;
    this.from = from;
    this.node = node;
    this.#onLost = onLost;
  }

  open(done: () => void): void {
    this.#there(() => {
      // The kernel accepts for a process that stands still.
      if (!this.node.isRunning) return this.#reset();
      this.life = this.node.life;
      this.node.connections.add(this);
      // What the process before it had to say has arrived by then.
      this.#backMs = Math.max(this.#backMs, this.network.endedAtMs(this.from.name, this.node.name));
      this.#back(() => {
        this.isOpen = true;
        done();
      });
    });
  }

  /** Sends a request; `done` gets the reply, unless the connection ends before. */
  send<T>(serve: Serve<T>, done: (reply: T) => void): void {
    this.#there(() => {
      const { node } = this;
      if (!node.isRunning || node.life !== this.life || this.isForgotten) return this.#reset();
      node.whenAwake(() => serve(node, (reply) => this.#back(() => done(reply))));
    });
  }

  /** Our side ends it; what was sent is on its way all the same. */
  close(): void {
    this.isOver = true;
    this.node.connections.delete(this);
  }

  /** Our side ends it, and the server hears of that, after all that was sent. */
  hangUp(): void {
    this.close();
    this.#there(() => {
      const { node } = this;
      node.connections.delete(this);
      if (node.isRunning && node.life === this.life) node.whenAwake(() => node.unmark(this, "taken away"));
    });
  }

  /** The server's side ends it, after the replies that it has sent. */
  serverGone(): void {
    this.isForgotten = true;
    this.node.unmark(this, "broken");
    this.#reset();
  }

  /** Something on the way ends it, at once for us: what was sent may have been done, its replies are lost. */
  snap(): void {
    const { network, from } = this;
    network.time.at(
      0,
      () => {
        if (this.isOver) return;
        this.isOver = true;
        this.node.connections.delete(this);
        this.#onLost();
      },
      from,
    );
    // The server may hear of it, too, or only from its keep-alive, and reads what it has not read yet.
    this.halfOpenSinceMs = network.time.nowMs;
    if (this.node.markers.has(this) && network.time.chance(0.5)) this.node.unmark(this, "broken");
  }

  #reset(): void {
    this.#back(() => {
      this.isOver = true;
      this.node.connections.delete(this);
      this.#onLost();
    });
    this.network.ends(this.from.name, this.node.name, this.#backMs);
  }

  #there(run: () => void): void {
    const { network, from, node } = this;
    this.#thereMs = Math.max(this.#thereMs, network.time.nowMs + network.delayMs());
    network.time.at(this.#thereMs, () => network.pass(from.name, node.name, run));
  }

  #back(run: () => void): void {
    const { network, from, node } = this;
    this.#backMs = Math.max(this.#backMs, network.time.nowMs + network.delayMs());
    const arrive = (): void => {
      if (!this.isOver) run();
    };
    const land = (): void => network.pass(from.name, node.name, () => network.time.at(0, arrive, from));
    network.time.at(this.#backMs, land);
  }
}
