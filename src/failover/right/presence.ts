/** The two questions to a node who else is there: proxies that promote, and whoever listens to Sentinels. */

import { HELLO_CHANNEL, readSubscribers } from "./foreign-sentinels.ts";
import { MARKER_PREFIX, type Marker, readMarkers } from "./lease.ts";

/** A connection that can ask them. */
export interface Asker {
  /** PUBSUB CHANNELS. */
  channels(pattern: string): Promise<unknown>;
  /** PUBSUB NUMSUB. */
  subscribers(channel: string): Promise<unknown>;
}

export interface Presence {
  /** The marker of the one who asks stands there. */
  readonly own: boolean;
  readonly others: readonly Marker[];
  /** Who hears what Sentinels say: Sentinels, and every marker. */
  readonly subscribers: number;
}

/** Rejects with what the node says against it, and when its answers, which are untrusted, make no sense. */
export async function askPresence(asker: Asker, ownId: string): Promise<Presence> {
  const [channels, counts] = await Promise.all([
    asker.channels(`${MARKER_PREFIX}*`),
    asker.subscribers(HELLO_CHANNEL),
  ]);
  const markers = readMarkers(channels, ownId);
  if (markers === null) throw new Error("PUBSUB CHANNELS answered no list");
  const subscribers = readSubscribers(counts);
  if (subscribers === null) throw new Error("PUBSUB NUMSUB answered no count");
  return { ...markers, subscribers };
}
