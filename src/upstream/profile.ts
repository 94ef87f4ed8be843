import type { Protocol } from "../resp/encode.ts";
import type { NodeId } from "../topology/epoch.ts";
import type { Lane } from "./lane.ts";

/**
 * Credentials a client proved to know, their bytes as latin1 text; null user and password = a client that did
 * not authenticate.
 */
export interface Identity {
  readonly username: string | null;
  readonly password: string | null;
}

export const ANONYMOUS: Identity = { username: null, password: null };

/**
 * What upstream connections must have in common to be shared: the user, the database, the protocol, and
 * whether what is read counts as used (CLIENT NO-TOUCH).
 */
export class Profile {
  readonly identity: Identity;
  readonly db: number;
  readonly protocol: Protocol;
  readonly noTouch: boolean;
  /** Sessions that use it; unused profiles lose their lanes. */
  users = 0;
  /** The lane to the epoch's master; null until it is needed. */
  master: Lane | null = null;
  /** Another lane to the master, for requests so large that others would wait behind them. */
  bulk: Lane | null = null;
  /** Lanes for reads, by node. */
  readonly readers = new Map<NodeId, Lane>();
  /** Private connections that no session has at the moment, the one used last at the end. */
  readonly idle: Lane[] = [];
  /** A connection like this was accepted by a server at least once. */
  accepted = false;

  constructor(identity: Identity, db: number, protocol: Protocol, noTouch = false) {
    this.identity = identity;
    this.db = db;
    this.protocol = protocol;
    this.noTouch = noTouch;
  }
}

/** One number for what distinguishes the profiles of one user. */
function keyOf(db: number, protocol: Protocol, noTouch: boolean): number {
  return (db * 2 + (noTouch ? 1 : 0)) * 4 + protocol;
}

/** Finds the one profile for a combination. */
export class Profiles {
  private readonly byIdentity = new Map<Identity, Map<number, Profile>>();
  private readonly identities = new Map<string, Identity>();

  /** The one object for these credentials. */
  identity(username: string | null, password: string): Identity {
    const key = JSON.stringify([username, password]);
    let found = this.identities.get(key);
    if (found === undefined) {
      found = { username, password };
      this.identities.set(key, found);
    }
    return found;
  }

  get(identity: Identity, db: number, protocol: Protocol, noTouch = false): Profile {
    let family = this.byIdentity.get(identity);
    if (family === undefined) {
      family = new Map();
      this.byIdentity.set(identity, family);
    }
    const key = keyOf(db, protocol, noTouch);
    let profile = family.get(key);
    if (profile === undefined) {
      profile = new Profile(identity, db, protocol, noTouch);
      family.set(key, profile);
    }
    return profile;
  }

  *[Symbol.iterator](): Generator<Profile> {
    for (const family of this.byIdentity.values()) yield* family.values();
  }

  /** Forgets a profile nobody uses, and the credentials with their last profile. */
  forget(profile: Profile): void {
    const family = this.byIdentity.get(profile.identity);
    if (family === undefined) return;
    family.delete(keyOf(profile.db, profile.protocol, profile.noTouch));
    if (family.size > 0) return;
    this.byIdentity.delete(profile.identity);
    const { username, password } = profile.identity;
    if (password !== null) this.identities.delete(JSON.stringify([username, password]));
  }
}
