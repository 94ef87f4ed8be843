/**
 * PURE. The failover machine: what the proxy does about its master, as one function of what it knew, what
 * happened and when.
 *
 *   step(state, event, now, settings) → the next state, and what is to be done
 *
 * It is at most at one thing at a time: a promotion (`failover.promote: self`) or a planned switch; beside
 * it, nodes that stray are made to follow. It never decides who the master is: that is the watcher's.
 */

import { onFollowEnded, takeCare, withMembers, withOrphans } from "./care.ts";
import { hasten, onAskingEnded } from "./hasten.ts";
import { onRelinkEnded } from "./hearsay.ts";
import type { Effect, Event } from "./model.ts";
import { onPauseEnded } from "./pauses.ts";
import { followPromotion, onConfirmed, onPromoteEnded, onStanding } from "./promotion.ts";
import { Draft, type Settings, type State } from "./state.ts";
import {
  heirLeft,
  onAsked,
  onDrained,
  onSwitched,
  onSwitchoverCommandEnded,
  watchSwitchover,
} from "./switchover.ts";

export interface Step {
  readonly state: State;
  readonly effects: readonly Effect[];
}

/** @param nowMs monotonic ms; never less than at the step before. */
export function step(state: State, event: Event, nowMs: number, settings: Settings): Step {
  const draft = new Draft(state, nowMs, settings);
  take(draft, event);
  // The look that it comes with follows: until then the group is the one of before.
  if (event.kind === "switched") return { state: draft.state, effects: draft.effects };
  followPromotion(draft);
  watchSwitchover(draft);
  takeCare(draft);
  hasten(draft);
  return { state: draft.state, effects: draft.effects };
}

/** What the event itself says. */
function take(draft: Draft, event: Event): void {
  switch (event.kind) {
    case "seen": {
      const { group } = event;
      const members = withMembers(draft.state.members, group);
      const isNewHistory = draft.state.group?.master?.replid !== group.master?.replid;
      const orphans = withOrphans(draft.state, group);
      return draft.set({ group, isNewHistory, members, orphans, heir: heirLeft(draft.state.heir, group) });
    }
    case "tick":
      return;
    case "ended":
      onPauseEnded(draft, event.id);
      onPromoteEnded(draft, event.id, event.result);
      onRelinkEnded(draft, event.id, event.result);
      onSwitchoverCommandEnded(draft, event.id, event.result);
      onFollowEnded(draft, event.id, event.result);
      return onAskingEnded(draft, event.id, event.result);
    case "drained":
      return onDrained(draft);
    case "switched":
      return onSwitched(draft, event.lostBytes);
    case "standing":
      return onStanding(draft, event.standing);
    case "confirmed":
      return onConfirmed(draft, event.standing);
    case "asked":
      return onAsked(draft, event.ticket, event.request);
  }
}
