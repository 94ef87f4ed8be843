/** Which slots of the table of writes (routing/freshness.ts) a request touches. */
import { type Command, WRITE } from "../commands/command.ts";
import { keysOf, touchedByWrite } from "../commands/keys.ts";
import type { Router } from "../routing/router.ts";
import { EVERYTHING, type PlainKind, type Slots } from "../upstream/request.ts";

/**
 * What a request may change or show: the replies of writes tell of keys they leave as they are, too (SORT and
 * GEORADIUS that store nothing, the length of what SUNIONSTORE has found).
 * @param args the request's words, the name first.
 * @returns EVERYTHING where its keys are not known.
 */
export function slotsOf(router: Router, command: Command, kind: PlainKind, args: readonly Buffer[]): Slots {
  const { freshness, config } = router;
  const { scriptKeys } = config.reads;
  if (kind === WRITE && touchedByWrite(command, args, scriptKeys) === "everything") return EVERYTHING;
  const keys = keysOf(command, args, scriptKeys);
  return typeof keys === "string" ? EVERYTHING : freshness.slotsOf(keys);
}
