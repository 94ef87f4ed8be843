/**
 * PURE. CLIENT PAUSE and CLIENT UNPAUSE of a master that hands over, one after the other. Each goes over a
 * connection of its own, so of two that are under way at one time either may be carried out first: an UNPAUSE
 * before the PAUSE that it was to end leaves writes standing for as long as that one lasts, and one that
 * comes behind the PAUSE of the next switch ends that.
 *
 * One that is not answered in time may still lie unread where the node hangs. What is sent after it has ended
 * comes after it there, too: the login of the later connection is answered in a later turn of the server. But
 * as long as the node hangs that login is not answered, so the UNPAUSE is never sent, and not tried again: a
 * PAUSE that lay unread is carried out when the node wakes up, for its whole time, also after the switch was
 * rolled back. It ends by itself (see the callers for how long it is at most), and nothing is lost by it.
 */

import type { NodeId } from "../topology/epoch.ts";
import type { Draft, Pausing } from "./state.ts";

/** @returns the number by which the end of the command will be told. */
export function pause(draft: Draft, node: NodeId, forMs: number): number {
  const command = draft.run(node, { kind: "pause-writes", forMs });
  set(draft, node, { command, isToLift: false });
  return command;
}

/** Ends the pause, at once or as soon as it is known to have begun. */
export function lift(draft: Draft, node: NodeId): void {
  const before = draft.state.pauses.get(node);
  if (before !== undefined) return set(draft, node, { ...before, isToLift: true });
  set(draft, node, { command: draft.run(node, { kind: "unpause" }), isToLift: false });
}

/** Whatever came of it: a PAUSE that was refused, or not sent, may have been to prolong another one. */
export function onPauseEnded(draft: Draft, id: number): void {
  for (const [node, { command, isToLift }] of draft.state.pauses) {
    if (command !== id) continue;
    draft.set({ pauses: new Map([...draft.state.pauses].filter(([one]) => one !== node)) });
    if (isToLift) lift(draft, node);
  }
}

function set(draft: Draft, node: NodeId, pausing: Pausing): void {
  draft.set({ pauses: new Map(draft.state.pauses).set(node, pausing) });
}
