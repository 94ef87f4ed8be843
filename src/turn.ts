/**
 * Collects what one turn of the event loop leaves to do: sessions that may go on, and connections whose
 * output is to be written. All requests that become ready in one turn leave in one write per node, all
 * replies in one write per client.
 */

/** Goes on with work it had to leave. */
export interface Wakeable {
  wakeQueued: boolean;
  wake(): void;
}

/** Writes what it has collected. */
export interface Flushable {
  flushQueued: boolean;
  flush(): void;
}

export class Turn {
  private wakeables: Wakeable[] = [];
  private flushables: Flushable[] = [];
  private scheduled = false;
  private readonly onFault: (error: unknown) => void;
  private readonly run = (): void => {
    this.scheduled = false;
    this.wakeAll();
    this.flushAll();
  };

  /** @param onFault is told when a wake or a flush threw: a bug; the others go on. */
  constructor(onFault: (error: unknown) => void) {
    this.onFault = onFault;
  }

  wakeLater(item: Wakeable): void {
    if (item.wakeQueued) return;
    item.wakeQueued = true;
    this.wakeables.push(item);
    this.schedule();
  }

  flushLater(item: Flushable): void {
    if (item.flushQueued) return;
    item.flushQueued = true;
    this.flushables.push(item);
    this.schedule();
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    // The check phase comes right after the reads of this turn (libuv, design.html).
    setImmediate(this.run);
  }

  /** One pass: what is woken by a wake waits for the next turn, so that no two sessions can spin. */
  private wakeAll(): void {
    const items = this.wakeables;
    if (items.length === 0) return;
    this.wakeables = [];
    for (const item of items) {
      item.wakeQueued = false;
      try {
        item.wake();
      } catch (error) {
        this.onFault(error);
      }
    }
  }

  private flushAll(): void {
    const items = this.flushables;
    this.flushables = [];
    for (const item of items) {
      item.flushQueued = false;
      try {
        item.flush();
      } catch (error) {
        this.onFault(error);
      }
    }
  }
}
