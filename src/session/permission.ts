/** Whether a client's user may do what the proxy does in a server's place: the server is asked, each time. */
import { MINUS } from "../resp/bytes.ts";
import type { Answer } from "../routing/router.ts";
import type { Session } from "./session.ts";
import type { Frame } from "./ways.ts";

/**
 * @param ask leads to `session.answered`.
 * @returns the server's reply when the user may; null = the error was said, or the session waits (see
 *   `isDone`).
 */
export function toldBy(session: Session, frame: Frame, ask: () => void): Buffer | null {
  const answer = session.inquiry.take("permission");
  if (answer === null) {
    if (!session.isDrained()) return null;
    session.block("answer");
    ask();
    return null;
  }
  switch (answer.kind) {
    case "yes":
      return answer.reply ?? null;
    case "no":
      session.voice.say(answer.error);
      return null;
    case "nobody":
      session.holding.waitToAsk(frame.start);
      return null;
  }
}

/** @param fault the error that the words of the question lead to; null = they are none. */
export function verdict(told: Buffer | null, fault: string | null): Answer {
  if (told === null) return { kind: "nobody" };
  const isFault = fault !== null && told.toString("latin1") === `-${fault}\r\n`;
  return told[0] === MINUS && !isFault ? { kind: "no", error: told } : { kind: "yes", reply: told };
}

/** For a command that would do harm if it ran: it is queued, which a server allows or not, and never run. */
export function mayQueue(session: Session, frame: Frame, words: readonly string[]): boolean {
  const { router, profile } = session;
  const ask = (): void => {
    const isAsked = router.askQueued(profile, words, (told) =>
      session.answered("permission", verdict(told, null)),
    );
    if (isAsked) return;
    const refusal = router.noPrivateRoom();
    session.answered("permission", refusal === null ? { kind: "nobody" } : { kind: "no", error: refusal });
  };
  return toldBy(session, frame, ask) !== null;
}
