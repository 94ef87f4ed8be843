/** What a client is sent without asking: messages of what it is subscribed to, and invalidation messages. */
import type { CloseReason } from "../metrics.ts";
import type { Protocol } from "../resp/encode.ts";
import type { Router } from "../routing/router.ts";
import type { Profile } from "../upstream/profile.ts";
import type { Flight } from "./flight.ts";
import type { Output } from "./output.ts";
import type { Subscriber } from "./pubsub/fanout.ts";
import type { Subscriptions } from "./pubsub/subscriptions.ts";
import { Invalidations, type InvalidationTarget } from "./tracking/invalidations.ts";
import type { Voice } from "./voice.ts";

/** The session whose client gets them. */
export interface MessagesHost {
  readonly isClosed: boolean;
  /** Who the session is to servers. */
  readonly profile: Profile;
  /** Ends it at once. */
  destroy(reason: CloseReason): void;
}

export class Messages implements Subscriber, InvalidationTarget {
  /** Null while the client is subscribed to nothing. */
  subscriptions: Subscriptions | null = null;
  /** Gets invalidation messages of other clients; null unless some redirect theirs to this one. */
  private invalidations: Invalidations | null = null;
  private readonly host: MessagesHost;
  private readonly router: Router;
  private readonly output: Output;
  private readonly flight: Flight;
  private readonly voice: Voice;

  constructor(
    host: MessagesHost,
    { router, output, flight, voice }: { router: Router; output: Output; flight: Flight; voice: Voice },
  ) {
    this.host = host;
    this.router = router;
    this.output = output;
    this.flight = flight;
    this.voice = voice;
  }

  get profile(): Profile {
    return this.host.profile;
  }

  get protocol(): Protocol {
    return this.host.profile.protocol;
  }

  get isSubscriber(): boolean {
    return this.subscriptions !== null;
  }

  /** Keeps what the client is subscribed to, if it is to anything. */
  keep(subscriptions: Subscriptions): void {
    const isSubscriber = subscriptions.size > 0;
    this.subscriptions = isSubscriber ? subscriptions : null;
    this.output.isSubscriber = isSubscriber;
  }

  /** The client is subscribed to nothing any more, and nobody tells it so. */
  endSubscriptions(): void {
    this.subscriptions?.clear();
    this.subscriptions = null;
    this.output.isSubscriber = false;
  }

  /** A confirmation counts as a message: CLIENT REPLY OFF does not silence it (pubsub.c). */
  confirm(bytes: Buffer): void {
    if (this.flight.muted) this.deliverShared(bytes);
    else this.voice.say(bytes);
  }

  deliver(buf: Buffer, start: number, end: number): void {
    if (!this.host.isClosed) this.output.copy(buf, start, end);
  }

  deliverShared(bytes: Buffer): void {
    if (!this.host.isClosed) this.output.own(bytes);
  }

  accessRevoked(): void {
    this.host.destroy("access-revoked");
  }

  /** The connection that other clients' invalidation messages for this one come through. */
  takeInvalidations(): Invalidations {
    this.invalidations ??= new Invalidations(this, this.router);
    return this.invalidations;
  }

  /** The session has ended. */
  end(): void {
    this.endSubscriptions();
    this.invalidations?.destroy();
  }
}
