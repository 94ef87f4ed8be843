/** Which slots of the table of writes (routing/freshness.ts) a request touches. */
import { type Command, WRITE } from "../commands/command.ts";
import { keysOf, touchedByWrite } from "../commands/keys.ts";
import type { Router } from "../routing/router.ts";
import { EVERYTHING, NOTHING, type PlainKind, type Slots } from "../upstream/request.ts";

/**
 * @param args the request's words, the name first.
 * @returns of a write, what it may change; of a read, what it shows: EVERYTHING where its keys are not known.
 *   NOTHING of a write that turns out to be a look at keys that are not known (SORT … BY).
 */
export function slotsOf(router: Router, command: Command, kind: PlainKind, args: readonly Buffer[]): Slots {
  const { freshness, config } = router;
  const { scriptKeys } = config.reads;
  if (kind === WRITE) {
    const touched = touchedByWrite(command, args, scriptKeys);
    if (touched === "everything") return EVERYTHING;
    if (!isMereLook(command, touched)) return freshness.slotsOf(touched);
  }
  const keys = keysOf(command, args, scriptKeys);
  if (keys === "unknown") return kind === WRITE ? NOTHING : EVERYTHING;
  return freshness.slotsOf(keys);
}

/** SORT and GEORADIUS write only where they are told to STORE; else they show what there is. */
function isMereLook(command: Command, touched: readonly Buffer[]): boolean {
  return touched.length === 0 && command.changes === "keys";
}
