/** One hub for each user that has subscribers. */
import type { Router, RoutingObserver } from "../../routing/router.ts";
import type { Identity } from "../../upstream/profile.ts";
import { Hub } from "./hub.ts";

export class Hubs implements RoutingObserver {
  private readonly router: Router;
  private readonly byIdentity = new Map<Identity, Hub>();

  constructor(router: Router) {
    this.router = router;
    router.observers.add(this);
  }

  get(identity: Identity): Hub {
    let hub = this.byIdentity.get(identity);
    if (hub === undefined) {
      // Names of channels know no database, and RESP2 has all that is needed.
      const profile = this.router.profiles.get(identity, 0, 2);
      hub = new Hub(profile, this.router, () => this.byIdentity.delete(identity));
      this.byIdentity.set(identity, hub);
    }
    return hub;
  }

  get isEmpty(): boolean {
    return this.byIdentity.size === 0;
  }

  [Symbol.iterator](): Iterator<Hub> {
    return this.byIdentity.values();
  }

  onRouting(): void {
    for (const hub of this.byIdentity.values()) hub.reconsider();
  }

  destroy(): void {
    this.router.observers.delete(this);
    for (const hub of [...this.byIdentity.values()]) hub.destroy();
  }
}
