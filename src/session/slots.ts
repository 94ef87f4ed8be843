/** Which slots of the table of writes (routing/freshness.ts) a request touches. */
import { type Command, READ, WRITE } from "../commands/command.ts";
import { keysOf, touchedByWrite } from "../commands/keys.ts";
import type { Router } from "../routing/router.ts";
import { EVERYTHING, NOTHING, type PlainKind, type Slots } from "../upstream/request.ts";

/**
 * @param args the request's words, the name first.
 * @returns of a write, what it may change; of a read, what it shows: EVERYTHING where its keys are not known.
 */
export function slotsOf(router: Router, command: Command, kind: PlainKind, args: readonly Buffer[]): Slots {
  const { freshness, config } = router;
  const { scriptKeys } = config.reads;
  if (kind === WRITE) {
    const touched = touchedByWrite(command, args, scriptKeys);
    return touched === "everything" ? EVERYTHING : freshness.slotsOf(touched);
  }
  if (command.script && scriptKeys === "any") return EVERYTHING;
  const keys = keysOf(command, args);
  if (keys === "unknown") return EVERYTHING;
  // KEYS and its like show all there is.
  if (keys.length === 0) return kind === READ && command.showsData ? EVERYTHING : NOTHING;
  return freshness.slotsOf(keys);
}
