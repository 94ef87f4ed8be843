/** PROXY CONSISTENCY: what the reads of this session see. */
import { encodeError, encodeValue, OK } from "../resp/encode.ts";
import type { Consistency } from "./reading.ts";
import type { Session } from "./session.ts";
import { type Frame, say, subcommandOf } from "./ways.ts";

/** Whether it is PROXY CONSISTENCY, with as many words as that takes. */
export function isConsistency(frame: Frame): boolean {
  return subcommandOf(frame.args) === "CONSISTENCY" && frame.args.length <= 3;
}

/**
 * Tells the session's consistency, or sets it; `default` = that of the configuration. It survives switches,
 * and RESET puts it back.
 */
export function consistency(session: Session, frame: Frame): boolean {
  const { reading, router } = session;
  const byDefault = router.config.reads.consistency;
  const word = frame.args[2]?.toString("latin1", 0, 16);
  if (word === undefined) {
    const told = new Map([
      ["consistency", reading.consistency],
      ["default", byDefault],
    ]);
    return answer(session, encodeValue(told, session.protocol));
  }
  const wanted = consistencyOf(word, byDefault);
  if (wanted === null) {
    return answer(
      session,
      encodeError("ERR proxy: not a consistency: session, proxy, eventual, strong or default"),
    );
  }
  // A read that is on the way, and is lost, is sent again by the rule that it came under.
  if (wanted !== reading.consistency && !session.isDrained()) return false;
  reading.setConsistency(wanted);
  return answer(session, OK);
}

function answer(session: Session, bytes: Buffer): true {
  session.router.counters.requests.admin++;
  return say(session, bytes);
}

/** @param word as a client writes it. @returns null when it is none. */
export function consistencyOf(word: string, byDefault: Consistency): Consistency | null {
  const lower = word.toLowerCase();
  switch (lower) {
    case "session":
    case "proxy":
    case "eventual":
    case "strong":
      return lower;
    case "default":
      return byDefault;
    default:
      return null;
  }
}
