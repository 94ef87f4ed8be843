/** A person or Sentinel: promotes when nobody else does, sees that all follow, and sees all at once. */
import { perform } from "./commander.ts";
import type { ModelNode } from "./node.ts";
import type { World } from "./world.ts";

const LOOK_MS = 250;

export class Operator {
  readonly #world: World;
  #master: ModelNode | undefined;
  #goneSinceMs = Number.NaN;
  #patienceMs = 0;
  #tidyAtMs = 0;

  constructor(world: World) {
    this.#world = world;
  }

  start(): void {
    const { time, mode, members } = this.#world;
    this.#master = members[0];
    this.#patienceMs = time.between(500, 3_000);
    if (mode === "self") return;
    const look = (): void => {
      this.#look();
      time.after(LOOK_MS, look);
    };
    time.after(LOOK_MS, look);
  }

  #look(): void {
    const { time, members } = this.#world;
    const masters = members.filter((one) => one.isMaster && one.isWell);
    const [only] = masters;
    // Others have switched.
    if (this.#master?.isMaster !== true && only !== undefined && masters.length === 1) this.#master = only;
    const master = this.#master;
    const isHandingOver = members.some(({ handover }) => handover !== null);
    if (master?.isWell === true && (master.isMaster || isHandingOver)) {
      this.#goneSinceMs = Number.NaN;
      if (!isHandingOver && time.nowMs >= this.#tidyAtMs) this.#tidy(master);
      return;
    }
    if (Number.isNaN(this.#goneSinceMs)) this.#goneSinceMs = time.nowMs;
    if (time.nowMs - this.#goneSinceMs >= this.#patienceMs) this.#promote();
  }

  #candidates(): ModelNode[] {
    const { members } = this.#world;
    const fit = members.filter(
      (one) =>
        one.isWell && !one.isMaster && one.priority > 0 && one.link !== "syncing" && one.handover === null,
    );
    return fit.sort((a, b) => b.applied - a.applied);
  }

  #promote(): boolean {
    const { time, checks } = this.#world;
    const [best] = this.#candidates();
    if (best === undefined) return false;
    checks.note(`the operator promotes ${best.name}`);
    checks.count("promoted by the operator");
    this.#master = best;
    this.#goneSinceMs = Number.NaN;
    this.#tidyAtMs = time.nowMs + time.between(100, 2_000);
    return perform(best, { kind: "promote" }) === "ok";
  }

  /** SENTINEL FAILOVER: nothing is paused, the old master is demoted later. */
  failover(): boolean {
    const { time } = this.#world;
    if (this.#candidates().length === 0) return false;
    time.after(time.between(20, 800), () => this.#promote());
    return true;
  }

  /** All follow the master. */
  #tidy(master: ModelNode): void {
    const { members } = this.#world;
    for (const one of members) {
      if (one === master || !one.isWell || one.handover !== null || one.master === master.name) continue;
      perform(one, { kind: "follow", master: master.id });
    }
  }
}
