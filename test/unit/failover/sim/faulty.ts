/** Rules that can be broken on purpose, to see that the simulation finds it. */
export interface Faulty {
  /** A write whose connection was lost is sent again. */
  readonly resendsUncertain: boolean;
  /** Writes are not held while a switch is under way. */
  readonly neverHolds: boolean;
  /** Writes are let go as soon as the master was told to hand over. */
  readonly releasesEarly: boolean;
  /** Whatever claims to be a master is taken for it. */
  readonly believesAnybody: boolean;
  /** The most advanced node that answers is promoted, whatever history it has. */
  readonly ignoresHistory: boolean;
  /** Nodes with priority 0 are promoted. */
  readonly ignoresPriority: boolean;
  /** A stray is told to follow also where it is no member of the group. */
  readonly touchesStrangers: boolean;
  /** A hold is not ended when a promotion has failed or succeeded. */
  readonly forgetsRelease: boolean;
}

export const SOUND: Faulty = {
  resendsUncertain: false,
  neverHolds: false,
  releasesEarly: false,
  believesAnybody: false,
  ignoresHistory: false,
  ignoresPriority: false,
  touchesStrangers: false,
  forgetsRelease: false,
};
