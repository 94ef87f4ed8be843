/**
 * What one client is subscribed to. The messages come from a hub, which many clients share; what a client is
 * told about its subscriptions is said here, in Redis's words (pubsub.c).
 */
import { PLUS } from "../../resp/bytes.ts";
import type { Protocol } from "../../resp/encode.ts";
import type { Subscriber } from "./fanout.ts";
import type { Hub, Topic } from "./hub.ts";
import { confirmation, type Family } from "./topics.ts";

/** What a subscription counts for besides its name, bytes: the entries in the tables. */
const ENTRY_BYTES = 128;

export class Subscriptions {
  private readonly subscriber: Subscriber;
  private readonly topics: Readonly<Record<Family, Map<string, Topic>>> = {
    channels: new Map(),
    patterns: new Map(),
    shards: new Map(),
  };
  /** What they count for against limits.subscriptionBytes. */
  bytes = 0;

  constructor(subscriber: Subscriber) {
    this.subscriber = subscriber;
  }

  get size(): number {
    return this.count("channels") + this.count("patterns") + this.count("shards");
  }

  count(family: Family): number {
    return this.topics[family].size;
  }

  /** Names of each family. */
  get counts(): Readonly<Record<Family, number>> {
    const { channels, patterns, shards } = this.topics;
    return { channels: channels.size, patterns: patterns.size, shards: shards.size };
  }

  /** What subscribing to these names would add to `bytes`. */
  costOf(family: Family, names: readonly string[]): number {
    let bytes = 0;
    for (const name of names) if (!this.topics[family].has(name)) bytes += name.length + ENTRY_BYTES;
    return bytes;
  }

  /** @returns the confirmations, in the order of the topics. */
  add(command: string, topics: readonly Topic[], protocol: Protocol): Buffer {
    const said: Buffer[] = [];
    for (const topic of topics) {
      const { family, name } = topic;
      const mine = this.topics[family];
      // Known from when the client was another user (AUTH), a name stays with that one's hub.
      const known = mine.get(name);
      if (known === undefined) {
        mine.set(name, topic);
        this.bytes += name.length + ENTRY_BYTES;
        topic.subscribers.add(this.subscriber);
      } else if (known !== topic) topic.hub.leave(topic, this.subscriber);
      said.push(confirmation(command, name, this.shownCount(family), protocol));
    }
    return Buffer.concat(said);
  }

  /** Whose servers count the client for these names, or without names for all of a family. */
  hubsOf(family: Family, named: readonly string[]): Set<Hub> {
    const hubs = new Set<Hub>();
    for (const name of named.length === 0 ? this.topics[family].keys() : named) {
      const topic = this.topics[family].get(name);
      if (topic !== undefined) hubs.add(topic.hub);
    }
    return hubs;
  }

  /** Ends some, or without names all of a family. @returns the confirmations. */
  remove(command: string, family: Family, named: readonly string[], protocol: Protocol): Buffer {
    const mine = this.topics[family];
    const names = named.length === 0 ? [...mine.keys()] : named;
    if (names.length === 0) return confirmation(command, null, this.shownCount(family), protocol);
    const said: Buffer[] = [];
    for (const name of names) {
      const topic = mine.get(name);
      if (topic !== undefined) {
        mine.delete(name);
        this.bytes -= name.length + ENTRY_BYTES;
        topic.hub.leave(topic, this.subscriber);
      }
      said.push(confirmation(command, name, this.shownCount(family), protocol));
    }
    return Buffer.concat(said);
  }

  /** Sharded channels are counted apart from the other two (pubsub.c, clientSubscriptionsCount). */
  private shownCount(family: Family): number {
    return family === "shards" ? this.count("shards") : this.count("channels") + this.count("patterns");
  }

  /** The client has left: nobody is told. */
  clear(): void {
    for (const mine of Object.values(this.topics)) {
      for (const topic of mine.values()) topic.hub.leave(topic, this.subscriber);
      mine.clear();
    }
    this.bytes = 0;
  }
}

/**
 * Whether a frame on a monitor's connection is a line of the monitor: "+1339518083.107412 [0 …"
 * (monitor.c).
 */
export function isMonitorLine(buf: Buffer, start: number, end: number): boolean {
  return (
    buf[start] === PLUS && /^\+\d+\.\d+ \[/.test(buf.toString("latin1", start, Math.min(end, start + 32)))
  );
}
