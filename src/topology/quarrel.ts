/**
 * A node that answers probes and lets no other connection live (maxclients, a firewall) would be
 * believed and suspected by turns, as fast as it can be dialled: it is suspected longer and longer.
 */

/** A node suspected again so soon after a probe cleared it, ms, is in a quarrel; so often it is none yet. */
const AGAIN_MS = 1_000;
const FREE_TIMES = 3;
/** How long a suspicion counts, ms: doubled each time, at most so long. */
const FIRST_MS = 5;
const MOST_MS = 500;

/** Between the traffic to one node and its probes. */
export class Quarrel {
  /** In a row. */
  #times = 0;
  #lastMs = 0;
  /** Monotonic ms at which the last suspicion ceases to count by itself. */
  #untilMs = Number.NEGATIVE_INFINITY;

  /**
   * Traffic says that the node cannot be talked to. @param isOpen that was known already, and no probe has
   * contradicted it since. @returns for how long, in ms, that counts whatever its probes say.
   */
  contradict(isOpen: boolean, nowMs: number): number {
    const isAgain = nowMs - this.#untilMs < AGAIN_MS;
    if (isOpen) return isAgain ? this.#lastMs : 0;
    this.#times = isAgain ? this.#times + 1 : 0;
    this.#lastMs = this.#times < FREE_TIMES ? 0 : Math.min(MOST_MS, FIRST_MS * 2 ** this.#times);
    this.#untilMs = nowMs + this.#lastMs;
    return this.#lastMs;
  }
}
