import { changesEverything, type Keyed, keysOf, type ScriptKeys } from "../../src/commands/keys.ts";

/** What a write may change, as session/slots.ts counts it: everything, or no other keys than these. */
export function changedKeys(
  command: Keyed,
  args: readonly Buffer[],
  scriptKeys: ScriptKeys,
): readonly Buffer[] | "everything" {
  if (changesEverything(command, args, scriptKeys)) return "everything";
  if (command.changes === "nothing" || command.changes === "functions") return [];
  const keys = keysOf(command, args, scriptKeys);
  return keys === "unknown" ? "everything" : keys;
}
