/** EVALSHA, SCRIPT and FUNCTION: what a server lacks that clients have sent is brought along. */
import { MASTER_READ, READ, WRITE } from "../../commands/command.ts";
import type { PlainKind } from "../../upstream/request.ts";
import { unsupported } from "../policy.ts";
import type { Session } from "../session.ts";
import { slotsOf } from "../slots.ts";
import type { Transaction } from "../transaction/transaction.ts";
import { type Frame, laneFor, sendPlain, sendPrivate, subcommandOf, takeCaching, wholeOf } from "../ways.ts";
import { ScriptCall } from "./scripts.ts";

export function rememberScript(session: Session, body: Buffer | undefined): void {
  if (body !== undefined) session.context.scripts.remember(body);
}

export function noteScriptCommand(session: Session, args: readonly Buffer[]): void {
  const word = subcommandOf(args);
  if (word === "LOAD") rememberScript(session, args[2]);
  else if (word === "FLUSH") session.context.scripts.clear();
}

/**
 * What is said about a script that keeps the server busy: on the connection that the script came on, which
 * may be the shared one, it would wait for the very script it is to end (networking.c, protectClient).
 */
function besideScripts(session: Session, frame: Frame): boolean {
  const result = sendPrivate(session, frame, WRITE, "none");
  if (result !== null) return result;
  session.block("drain");
  return true;
}

export function evalsha(session: Session, frame: Frame): boolean {
  const names = frame.args.slice(1, 2);
  const { plainKind } = frame.command;
  // A script that nobody sent through the proxy only the master may have.
  const isBrought = names.every((name) => session.context.scripts.has(name.toString("latin1")));
  const kind = plainKind === READ && !isBrought ? MASTER_READ : plainKind;
  return sendNaming(session, frame, kind, names);
}

/** Sends a request that names scripts, with those that the server may not have. */
function sendNaming(session: Session, frame: Frame, kind: PlainKind, names: readonly Buffer[]): boolean {
  const { command } = frame;
  const slots = slotsOf(session.router, command, kind, frame.args);
  const lane = laneFor(session, kind, slots);
  if (lane === null) return session.noWay(command, frame.buf, frame.start);
  const load = (name: string): Buffer | null => session.context.scripts.loadRequest(name);
  const bytes = frame.buf.subarray(frame.start, frame.end);
  // CLIENT CACHING goes behind the script's body, which would use it up.
  const rewrite = new ScriptCall(bytes, names, load, takeCaching(session));
  const buf = rewrite.firstFor(lane.scripts);
  const { replies } = rewrite;
  const repair = (): Buffer | null => rewrite.repaired();
  session.send({ command, kind, replies, rewrite, repair, slots }, lane, wholeOf(buf));
  return true;
}

export function script(session: Session, frame: Frame): boolean {
  switch (subcommandOf(frame.args)) {
    case "EXISTS":
      // A server that came to be the master only now has what the one before had.
      return sendNaming(session, frame, MASTER_READ, frame.args.slice(2));
    case "SHOW":
      // Valkey's: the body of one script.
      return sendNaming(session, frame, MASTER_READ, frame.args.slice(2, 3));
    case "DEBUG":
      return unsupported(session, frame);
    case "KILL":
      return besideScripts(session, frame);
    default:
      noteScriptCommand(session, frame.args);
      return sendPlain(session, frame, WRITE);
  }
}

export function functionCommand(session: Session, frame: Frame): boolean {
  const word = subcommandOf(frame.args);
  if (word === "KILL" || word === "STATS") return besideScripts(session, frame);
  return sendPlain(session, frame, WRITE);
}

export function needScripts(session: Session, transaction: Transaction, names: readonly Buffer[]): void {
  for (const name of names) {
    const load = session.context.scripts.loadRequest(name.toString("latin1"));
    if (load !== null) transaction.precede(load);
  }
}
