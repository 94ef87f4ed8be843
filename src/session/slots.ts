/** Which slots of the table of writes (routing/freshness.ts) a request touches. */
import { type Command, WRITE } from "../commands/command.ts";
import { changedKeys, keysOf } from "../commands/keys.ts";
import type { Router } from "../routing/router.ts";
import { EVERYTHING, NOTHING, type PlainKind, type Slots } from "../upstream/request.ts";
import type { Queued } from "./transaction/transaction.ts";

/** What it looks at of the router. */
export type SlotsRouter = Pick<Router, "config" | "freshness">;

/**
 * What a request may change or show: the replies of writes tell of keys they leave as they are, too (SORT and
 * GEORADIUS that store nothing, the length of what SUNIONSTORE has found).
 * @param args the request's words, the name first.
 * @returns EVERYTHING where its keys are not known.
 */
export function slotsOf(
  router: SlotsRouter,
  command: Command,
  kind: PlainKind,
  args: readonly Buffer[],
): Slots {
  const { freshness, config } = router;
  const { scriptKeys } = config.reads;
  const keys = kind === WRITE ? changedKeys(command, args, scriptKeys) : keysOf(command, args, scriptKeys);
  return typeof keys === "string" ? EVERYTHING : freshness.slotsOf(keys);
}

/**
 * What any of the commands of a transaction may change, or show.
 * @param queued those that the server runs.
 */
export function slotsOfUnit(router: SlotsRouter, queued: Iterable<Queued>): Slots {
  const all: number[] = [];
  for (const { command, args } of queued) {
    const slots = slotsOf(router, command, command.plainKind, args);
    if (slots === EVERYTHING) return EVERYTHING;
    if (typeof slots !== "number") all.push(...slots);
    else if (slots >= 0) all.push(slots);
  }
  return all.length === 0 ? NOTHING : all;
}
