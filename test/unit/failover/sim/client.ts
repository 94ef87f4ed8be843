/** A client: writes one thing after another, and reads what it wrote. */
import type { ModelProxy } from "./proxy.ts";
import type { Write } from "./router.ts";
import type { World } from "./world.ts";

export class Client {
  readonly #world: World;
  readonly #proxy: ModelProxy;
  #last: Write | null = null;

  constructor(world: World, proxy: ModelProxy) {
    this.#world = world;
    this.#proxy = proxy;
  }

  start(): void {
    this.#think();
  }

  #think(): void {
    const { time } = this.#world;
    time.after(time.between(10, 60), () => this.#write(), this.#proxy);
  }

  #write(): void {
    const { checks } = this.#world;
    const write: Write = {
      ...{
        id: checks.writes.length + 1,
        proxy: this.#proxy.name,
        outcome: "open",
        ackedAtMs: 0,
        ackedIn: "",
      },
      ...{ isGivenUp: false, givenUpAtMs: 0, done: () => this.#answered(write) },
    };
    checks.writes.push(write);
    this.#proxy.router.write(write);
  }

  #answered(write: Write): void {
    const { checks, time } = this.#world;
    if (write.outcome === "uncertain") checks.count("uncertain");
    else this.#last = write;
    if (time.chance(0.5)) time.after(time.between(0, 20), () => this.#read(), this.#proxy);
    else this.#think();
  }

  /** From a replica, if one provably has what was written last, if need be a little later. */
  #read(isAgain = false): void {
    const { checks, time } = this.#world;
    const last = this.#last;
    const { epoch, options } = this.#proxy;
    const sinceMs = options.faulty.readsUnproven ? Number.NEGATIVE_INFINITY : (last?.ackedAtMs ?? 0);
    const readable = epoch.readable.find(({ provenAtMs }) => provenAtMs >= sinceMs);
    if (readable === undefined && !isAgain) {
      this.#proxy.watcher.seekProof();
      time.after(time.between(1, 10), () => this.#read(true), this.#proxy);
      return;
    }
    if (last !== null && readable !== undefined && last.ackedIn !== "") {
      this.#proxy.router.read(readable.id, (node) => {
        // A node that lost the history since it was looked at is not ours to know of.
        const isJudged = !node.isLoading && node.replid === epoch.history?.replid;
        return isJudged ? checks.readAt(node, last) : () => undefined;
      });
    }
    this.#think();
  }
}
