/** What becomes of the session when a transaction has run in which commands about the session stand. */
import { encodeError, OK, QUEUED } from "../../resp/encode.ts";
import { client } from "../client/command.ts";
import type { Session } from "../session.ts";
import { followAuth, followHello, followSelect, logsIn } from "../settings.ts";
import { type Frame, say, subcommandOf } from "../ways.ts";
import type { Transaction } from "./transaction.ts";

/** Sub-commands of CLIENT that have no effect but on the session's own name. */
const CLIENT_IN_MULTI: ReadonlySet<string> = new Set(["ID", "GETNAME", "SETNAME", "SETINFO"]);

/** Redis's own words (replication.c, monitorCommand; pubsub.c, ssubscribeCommand). */
const NO_MONITOR = encodeError("ERR MONITOR isn't allowed for DENY BLOCKING client");
const NO_SSUBSCRIBE = encodeError("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");

/**
 * Queues a command that concerns the session itself. @returns false when it cannot stand inside MULTI: also a
 * login where a wrong one gets no reply behind EXEC's, which then would never end (upstream/logins.ts).
 */
export function queueOwn(session: Session, transaction: Transaction, frame: Frame): boolean {
  const { command, buf, start, end } = frame;
  const args = frame.args.map((arg) => Buffer.from(arg));
  const change = (follow: (session: Session, args: readonly Buffer[]) => void): void =>
    transaction.addChange(command, buf.subarray(start, end), (reply) => {
      if (reply.equals(OK)) follow(session, args);
      return reply;
    });
  const local = (run: () => void): void =>
    transaction.addLocal(end - start, () => session.voice.overhear(run));
  switch (command.handler) {
    case "select":
      change(followSelect);
      break;
    case "auth":
      if (session.router.mayLoseLogins) return false;
      change(followAuth);
      break;
    case "hello":
      if (session.router.mayLoseLogins && logsIn(args)) return false;
      transaction.addChange(command, buf.subarray(start, end), (reply) => followHello(session, args, reply));
      break;
    case "debug":
      transaction.addChange(command, buf.subarray(start, end), (reply) => reply);
      break;
    case "client":
      if (!CLIENT_IN_MULTI.has(subcommandOf(args))) return false;
      local(() => client(session, { ...frame, args }));
      break;
    case "monitor":
      local(() => session.voice.say(NO_MONITOR));
      break;
    case "subscribe":
      if (command.name !== "ssubscribe") return false;
      local(() => session.voice.say(NO_SSUBSCRIBE));
      break;
    default:
      return false;
  }
  return say(session, QUEUED);
}
