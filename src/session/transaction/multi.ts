/** MULTI, what is queued behind it, EXEC and DISCARD; WATCH, which goes before. */
import { arityFits, type Command, MASTER_READ, WRITE } from "../../commands/command.ts";
import { encodeError, encodeNullArray, OK, QUEUED } from "../../resp/encode.ts";
import type { Lane } from "../../upstream/lane.ts";
import { type Bond, EVERYTHING, type PlainKind } from "../../upstream/request.ts";
import { ScanCall } from "../calls/scan.ts";
import { needScripts, noteScriptCommand, rememberScript } from "../calls/script-commands.ts";
import { MAX_GIVEN } from "../calls/scripts.ts";
import { MARK } from "../calls/waiting.ts";
import { mayReplicate } from "../client/pause.ts";
import type { Sending } from "../flight.ts";
import { nameOf, refuseReplication, refuseReserved, refusesTopology, refuseUnsafe } from "../policy.ts";
import { publishesReserved } from "../pubsub/subscribe.ts";
import type { Session } from "../session.ts";
import { reset } from "../settings.ts";
import { slotsOfUnit } from "../slots.ts";
import {
  type Frame,
  forbidden,
  laneFor,
  privateLane,
  quit,
  say,
  sendPrivate,
  subcommandOf,
  wholeOf,
} from "../ways.ts";
import { queueOwn } from "./own.ts";
import { Transaction, wrongArity, wrongArityText } from "./transaction.ts";

export function multi(session: Session): boolean {
  session.transaction = new Transaction(session.context.limits.maxRequestBytes);
  return say(session, OK);
}

export function inTransaction(session: Session, transaction: Transaction, frame: Frame): boolean {
  const { command, args } = frame;
  if (endsWatch(command) && !isPrivateQuiet(session)) return false;
  if (command.handler !== "none" && !arityFits(command.arity, args.length)) {
    return wrongWords(session, transaction, command);
  }
  switch (command.handler) {
    case "exec":
      return exec(session, transaction, frame);
    case "discard":
      return discard(session);
    case "quit":
      return quit(session);
    case "forbidden":
      return forbidden(session);
    case "reset":
      return reset(session);
    // In Redis these two run at once, and their error leaves the transaction as it is (multi.c); Valkey flags
    // them as commands that may not stand in one, and its refusal spoils it (server.c, processCommand).
    case "multi":
      return command.noMulti ? queue(session, transaction, frame) : say(session, NESTED_MULTI);
    case "watch":
      return command.noMulti ? queue(session, transaction, frame) : say(session, NESTED_WATCH);
    default:
      return queue(session, transaction, frame);
  }
}

const NESTED_MULTI = encodeError("ERR MULTI calls can not be nested");
const NESTED_WATCH = encodeError("ERR WATCH inside MULTI is not allowed");

/** Queues a command, or says why not: Redis's own reasons come first. */
function queue(session: Session, transaction: Transaction, frame: Frame): boolean {
  const { command, args, buf, start, end } = frame;
  const refusal = transaction.refusal(command, args, end - start);
  if (refusal !== null) {
    transaction.spoilt = true;
    return say(session, refusal);
  }
  switch (command.handler) {
    case "counting":
      if (publishesReserved(frame)) {
        transaction.spoilt = true;
        return refuseReserved(session, frame);
      }
      break;
    case "none":
    case "info":
    case "function":
    case "blocking":
    case "xread":
    case "unwatch":
      break;
    case "eval":
      rememberScript(session, args[1]);
      break;
    case "evalsha":
      needScripts(session, transaction, args.slice(1, 2));
      break;
    case "scan": {
      // Within a transaction the cursor comes back as the server's own.
      transaction.add(command, new ScanCall(args).requestFor(session.router.epoch.history?.replid ?? ""));
      return say(session, QUEUED);
    }
    case "wait":
      if (session.flight.hasWritten) transaction.precede(MARK);
      break;
    case "script":
      if (subcommandOf(args) === "DEBUG") return refuseInMulti(session, transaction, frame);
      noteScriptCommand(session, args);
      if (subcommandOf(args) === "EXISTS") needScripts(session, transaction, args.slice(2, 2 + MAX_GIVEN));
      if (subcommandOf(args) === "SHOW") needScripts(session, transaction, args.slice(2, 3));
      break;
    default:
      return queueOwn(session, transaction, frame) || refuseInMulti(session, transaction, frame);
  }
  transaction.add(command, buf.subarray(start, end));
  transaction.mayReplicate ||= mayReplicate(command, args);
  return say(session, QUEUED);
}

/** It would change the connection that all share, or the group. */
function refuseInMulti(session: Session, transaction: Transaction, frame: Frame): true {
  transaction.spoilt = true;
  switch (frame.command.handler) {
    case "replication":
      return refuseReplication(session, frame);
    case "unsafe":
      return refuseUnsafe(session, frame);
    case "topology":
      if (refusesTopology(session, frame)) return true;
      break;
    default:
      break;
  }
  const word =
    frame.command.subcommands === null ? "" : ` ${frame.args[1]?.toString("latin1").toUpperCase()}`;
  session.voice.refuse(`ERR proxy: ${nameOf(frame)}${word} inside MULTI is not supported yet`);
  return true;
}

/** Commands that may end a transaction without sending it, and with it the private connection of WATCH. */
function endsWatch(command: Command): boolean {
  return command.handler === "exec" || command.handler === "discard" || command.handler === "reset";
}

/** Whether the private connection, if there is one, can be let go: nothing on it is unanswered. */
export function isPrivateQuiet(session: Session): boolean {
  return session.privateConnection.lane === null || session.isDrained();
}

/** Any refusal spoils the transaction; refused itself, EXEC ends it (server.c, rejectCommand). */
function wrongWords(session: Session, transaction: Transaction, command: Command): true {
  spoil(session, transaction, command);
  return say(session, wrongWordsOf(command));
}

export function spoil(session: Session, transaction: Transaction | null, command: Command): true {
  if (transaction === null) return true;
  if (command.handler === "exec") discardQuietly(session);
  else transaction.spoilt = true;
  return true;
}

function discard(session: Session): true {
  discardQuietly(session);
  return say(session, OK);
}

function exec(session: Session, transaction: Transaction, frame: Frame): boolean {
  if (transaction.spoilt) {
    discardQuietly(session);
    return say(session, encodeError("EXECABORT Transaction discarded because of previous errors."));
  }
  if (session.privateConnection.watchLost) {
    discardQuietly(session);
    return say(session, encodeNullArray(session.protocol));
  }
  const kind = transaction.isRepeatable ? MASTER_READ : WRITE;
  const lane = laneForUnit(session, transaction, frame, kind);
  if (lane === "wait") return false;
  if (lane === "answered") {
    discardQuietly(session);
    return true;
  }
  const buf = transaction.unit();
  const { replies } = transaction;
  const rewrite = transaction.call(buf);
  const bond = bondOf(session, transaction);
  const { onUnknown } = session.router.config.inFlight;
  const unit = {
    isIdempotent: onUnknown === "retry-idempotent" && transaction.isIdempotent,
    mayReplicate: transaction.mayReplicate,
  };
  const slots = slotsOfUnit(session.router, transaction.queued());
  const what: Sending = { command: frame.command, kind, replies, bond, unit, slots };
  session.transaction = null;
  session.router.counters.requests.transaction++;
  session.send(rewrite === null ? what : { ...what, rewrite }, lane, wholeOf(buf));
  // What follows may see the session as the transaction leaves it.
  if (session.privateConnection.lane !== null || rewrite?.isBarrier === true) session.block("drain");
  return true;
}

function bondOf(session: Session, transaction: Transaction): Bond {
  if (session.privateConnection.watching) return "watched";
  return transaction.changesConnection ? "change" : "none";
}

function laneForUnit(
  session: Session,
  transaction: Transaction,
  frame: Frame,
  kind: PlainKind,
): Lane | "wait" | "answered" {
  if (!transaction.changesConnection) {
    const lane = laneFor(session, kind, EVERYTHING);
    if (lane !== null) return lane;
    return session.noWay(frame.command, frame.buf, frame.start) ? "answered" : "wait";
  }
  const lane = privateLane(session, frame);
  if (typeof lane !== "string") lane.spoilt = true;
  return lane;
}

function discardQuietly(session: Session): void {
  session.transaction = null;
  session.privateConnection.watchLost = false;
  session.privateConnection.forgetWatch();
  session.privateConnection.release();
}

export function watch(session: Session, frame: Frame): boolean {
  const result = sendPrivate(session, frame, MASTER_READ, "watch");
  if (result !== null) return result;
  session.privateConnection.watching = true;
  return true;
}

export function unwatch(session: Session, frame: Frame): boolean {
  if (!session.privateConnection.watching) {
    session.privateConnection.watchLost = false;
    return say(session, OK);
  }
  const result = sendPrivate(session, frame, MASTER_READ, "none");
  if (result !== null) return result;
  session.block("drain");
  return true;
}

/** EXEC is refused in a way of its own (server.c, rejectCommand). */
export function wrongWordsOf(command: Command): Buffer {
  if (command.handler !== "exec") return wrongArity(command.name);
  return encodeError(`EXECABORT Transaction discarded because of: ${wrongArityText(command.name)}`);
}
