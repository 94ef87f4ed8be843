/** Which slots of the table of writes (routing/freshness.ts) a request touches. */
import { type Command, WRITE } from "../commands/command.ts";
import { keysOf, touchedByWrite } from "../commands/keys.ts";
import type { Router } from "../routing/router.ts";
import { EVERYTHING, type PlainKind, type Slots } from "../upstream/request.ts";

/**
 * @param args the request's words, the name first.
 * @returns of a write, what it may change; of a read, what it shows: EVERYTHING where its keys are not known.
 */
export function slotsOf(router: Router, command: Command, kind: PlainKind, args: readonly Buffer[]): Slots {
  const { freshness, config } = router;
  const { scriptKeys } = config.reads;
  const keys = kind === WRITE ? touchedByWrite(command, args, scriptKeys) : keysOf(command, args, scriptKeys);
  return typeof keys === "string" ? EVERYTHING : freshness.slotsOf(keys);
}
