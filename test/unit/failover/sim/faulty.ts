/** Rules that can be broken on purpose, to see that the simulation finds it. */
export interface Faulty {
  /** A write whose connection was lost is sent again. */
  readonly resendsUncertain: boolean;
  /** Writes are not held while a switch is under way. */
  readonly neverHolds: boolean;
  /** Writes are let go as soon as a node was told something. */
  readonly releasesEarly: boolean;
  /** A hold is not ended. */
  readonly forgetsRelease: boolean;
  /** Reads go to any replica, whatever it has applied. */
  readonly readsUnproven: boolean;
  /** The most advanced node that answers is promoted, whatever history it has. */
  readonly ignoresHistory: boolean;
  /** Nodes with priority 0 are promoted. */
  readonly ignoresPriority: boolean;
  /** It marks where another proxy is. */
  readonly marksBesideOthers: boolean;
  /** It does not step back for an older one. */
  readonly neverStepsBack: boolean;
  /** It promotes beside a younger one. */
  readonly ignoresYounger: boolean;
  /** Any one node is enough for being sole. */
  readonly needsNoMajority: boolean;
  /** It does not look anew before it promotes. */
  readonly looksOnce: boolean;
  /** It takes its markers away while a promotion may be under way. */
  readonly withdrawsEarly: boolean;
}

export const SOUND: Faulty = {
  resendsUncertain: false,
  neverHolds: false,
  releasesEarly: false,
  forgetsRelease: false,
  readsUnproven: false,
  ignoresHistory: false,
  ignoresPriority: false,
  marksBesideOthers: false,
  neverStepsBack: false,
  ignoresYounger: false,
  needsNoMajority: false,
  looksOnce: false,
  withdrawsEarly: false,
};
