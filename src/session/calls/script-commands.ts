/** EVALSHA and SCRIPT: what a server lacks that clients have sent is brought along. */
import { MASTER_READ, WRITE } from "../../commands/command.ts";
import { unsupported } from "../policy.ts";
import type { Session } from "../session.ts";
import type { Transaction } from "../transaction/transaction.ts";
import { type Frame, laneFor, sendPlain, sendPrivate, takeCaching, wholeOf } from "../ways.ts";
import { ScriptCall } from "./scripts.ts";

export function rememberScript(session: Session, body: Buffer | undefined): void {
  if (body !== undefined) session.context.scripts.remember(body);
}

export function noteScriptCommand(session: Session, args: readonly Buffer[]): void {
  const word = scriptWord(args);
  if (word === "LOAD") rememberScript(session, args[2]);
  else if (word === "FLUSH") session.context.scripts.clear();
}

/**
 * What is said about a script that keeps the server busy: on the connection that the script came on, which
 * may be the shared one, it would wait for the very script it is to end (networking.c, protectClient).
 */
export function besideScripts(session: Session, frame: Frame): boolean {
  const result = sendPrivate(session, frame, WRITE, "none");
  if (result !== null) return result;
  session.block("drain");
  return true;
}

export function scriptWord(args: readonly Buffer[]): string {
  return args[1]?.toString("latin1", 0, 16).toUpperCase() ?? "";
}

export function evalsha(session: Session, frame: Frame): boolean {
  const { command } = frame;
  const lane = laneFor(session, command.plainKind);
  if (lane === null) return session.noWay(command, frame.buf, frame.start);
  const rewrite = scriptCall(session, frame, frame.args.slice(1, 2));
  const buf = rewrite.firstFor(lane.scripts);
  const { replies } = rewrite;
  const repair = (): Buffer | null => rewrite.repaired();
  session.send({ command, kind: command.plainKind, replies, rewrite, repair }, lane, wholeOf(buf));
  return true;
}

function scriptCall(session: Session, frame: Frame, names: readonly Buffer[]): ScriptCall {
  const load = (name: string): Buffer | null => session.context.scripts.loadRequest(name);
  // CLIENT CACHING goes behind the script's body, which would use it up.
  return new ScriptCall(frame.buf.subarray(frame.start, frame.end), names, load, takeCaching(session));
}

export function script(session: Session, frame: Frame): boolean {
  switch (scriptWord(frame.args)) {
    case "EXISTS":
      return scriptExists(session, frame);
    case "DEBUG":
      return unsupported(session, frame);
    case "KILL":
      return besideScripts(session, frame);
    default:
      noteScriptCommand(session, frame.args);
      return sendPlain(session, frame, WRITE);
  }
}

/** A server that came to be the master only now has what the one before had. */
function scriptExists(session: Session, frame: Frame): boolean {
  const { command } = frame;
  const lane = laneFor(session, MASTER_READ);
  if (lane === null) return session.noWay(command, frame.buf, frame.start);
  const rewrite = scriptCall(session, frame, frame.args.slice(2));
  const buf = rewrite.firstFor(lane.scripts);
  session.send({ command, kind: MASTER_READ, replies: rewrite.replies, rewrite }, lane, wholeOf(buf));
  return true;
}

export function needScripts(session: Session, transaction: Transaction, names: readonly Buffer[]): void {
  for (const name of names) {
    const load = session.context.scripts.loadRequest(name.toString("latin1"));
    if (load !== null) transaction.precede(load);
  }
}
