/**
 * Commands that are more than a request and its reply: they change the session, need a connection of their
 * own, or belong to a transaction. Each function returns whether the command was taken; false = the session
 * is blocked and the command will be tried again.
 */
import { arityFits, type Command, MASTER_READ, SPECIAL, WRITE } from "../commands/command.ts";
import { requestArgs } from "../resp/args.ts";
import { encodeError, encodeNullArray, OK, QUEUED } from "../resp/encode.ts";
import { BlockingCall, blockIndex, dollarIds, lastIdOf } from "./blocking.ts";
import { ScanCall } from "./scan.ts";
import { ScriptCall } from "./scripts.ts";
import type { Session } from "./session.ts";
import { auth, client, hello, isAccepted, isDone, reset, say, select, takeAnswer } from "./settings.ts";
import { counting, inSubscriberMode, subscribe } from "./subscribe.ts";
import { commandProblem, Transaction, wrongArity, wrongArityText } from "./transaction.ts";
import {
  type Frame,
  laneFor,
  onPrivate,
  privateLane,
  sendPlain,
  sendPrivate,
  takeCaching,
  wholeOf,
} from "./ways.ts";

export function special(
  session: Session,
  command: Command,
  buf: Buffer,
  start: number,
  end: number,
  owned: boolean,
): boolean {
  const taken = take(session, { command, buf, start, end, owned, args: requestArgs(buf, start) });
  // What CLIENT CACHING was about is done with (networking.c, resetClient).
  if (taken && command.handler !== "client" && session.transaction === null) takeCaching(session);
  return taken;
}

function take(session: Session, frame: Frame): boolean {
  const { command } = frame;
  if (!session.profile.accepted && wantsLogin(frame)) {
    const problem = commandProblem(command, frame.args);
    if (problem !== null) return say(session, problem);
    if (!isAccepted(session, frame)) return isDone(session);
  }
  if (session.transaction !== null) return inTransaction(session, session.transaction, frame);
  if (session.subscriptions !== null && session.protocol === 2 && !isAlwaysAllowed(frame)) {
    return inSubscriberMode(session, frame);
  }
  if (session.monitor !== null) return inMonitor(session, frame);
  if (command.kind !== SPECIAL) return sendPlain(session, frame, command.kind);
  if (!arityFits(command.arity, frame.args.length)) return say(session, wrongArity(command.name));
  return handle(session, frame);
}

/** Commands that a subscriber may send in RESP2 besides those of the SUBSCRIBE family, and our own. */
function isAlwaysAllowed({ command }: Frame): boolean {
  const { handler } = command;
  return handler === "quit" || handler === "reset" || handler === "forbidden" || handler === "proxy";
}

/** Commands that a client may send before it is known whether the server wants a login from it. */
function wantsLogin(frame: Frame): boolean {
  switch (frame.command.handler) {
    case "hello":
    case "auth":
    case "quit":
    case "reset":
    case "forbidden":
      return false;
    case "proxy":
      return !/^(?:HELP|STATUS)$/i.test(frame.args[1]?.toString("latin1", 0, 16) ?? "");
    default:
      return true;
  }
}

function handle(session: Session, frame: Frame): boolean {
  switch (frame.command.handler) {
    case "none":
      return sendPlain(session, frame, frame.command.plainKind);
    case "hello":
      return hello(session, frame);
    case "auth":
      return auth(session, frame);
    case "select":
      return select(session, frame);
    case "quit":
      return quit(session);
    case "reset":
      return isPrivateQuiet(session) && reset(session);
    case "client":
      return client(session, frame);
    case "multi":
      return multi(session);
    case "exec":
      return say(session, encodeError("ERR EXEC without MULTI"));
    case "discard":
      return say(session, encodeError("ERR DISCARD without MULTI"));
    case "watch":
      return watch(session, frame);
    case "unwatch":
      return unwatch(session, frame);
    case "subscribe":
      return subscribe(session, frame);
    case "counting":
      return sendCounting(session, frame);
    case "monitor":
      return monitor(session, frame);
    case "blocking":
      return blocking(session, frame);
    case "xread":
      return blockIndex(frame.args) > 0
        ? blocking(session, frame)
        : sendPlain(session, frame, frame.command.plainKind);
    case "eval":
      rememberScript(session, frame.args[1]);
      return sendPlain(session, frame, frame.command.plainKind);
    case "evalsha":
      return evalsha(session, frame);
    case "scan":
      return scan(session, frame);
    case "script":
      noteScriptCommand(session, frame.args);
      return isScriptDebug(frame.args) ? unsupported(session, frame) : sendPlain(session, frame, WRITE);
    case "wait":
      return unsupported(session, frame);
    case "proxy":
      return proxy(session, frame);
    case "refused":
      return refused(session, frame);
    case "forbidden":
      session.finish("protocol-error");
      return true;
  }
}

function quit(session: Session): true {
  session.say(OK);
  session.finish("client");
  return true;
}

function proxy(session: Session, frame: Frame): true {
  session.router.counters.requests.admin++;
  return say(session, session.context.admin(frame.args, session.protocol));
}

/** Commands that would change the group or leave it behind the proxy's back. */
function refused(session: Session, frame: Frame): true {
  const name = frame.command.name.toUpperCase();
  session.refuse(`ERR proxy: ${name} is not passed on to shared nodes: send it to the node itself`);
  return true;
}

function unsupported(session: Session, frame: Frame): true {
  const name = frame.command.name.toUpperCase();
  const subcommand = frame.command.handler === "script" ? " DEBUG" : "";
  session.refuse(`ERR proxy: ${name}${subcommand} is not supported yet`);
  return true;
}

function scan(session: Session, frame: Frame): boolean {
  const { command } = frame;
  const lane = laneFor(session, command.plainKind);
  if (lane === null) return session.noWay(command, frame.buf, frame.start);
  const rewrite = new ScanCall(frame.args);
  const buf = rewrite.requestFor(lane.target.replid ?? "");
  session.send({ command, kind: command.plainKind, rewrite }, lane, wholeOf(buf));
  return true;
}

function sendCounting(session: Session, frame: Frame): boolean {
  const { command } = frame;
  const rewrite = counting(session, frame);
  if (rewrite === null) return sendPlain(session, frame, command.plainKind);
  const lane = laneFor(session, command.plainKind);
  if (lane === null) return session.noWay(command, frame.buf, frame.start);
  session.send({ command, kind: command.plainKind, rewrite }, lane, wholeOf(rewrite.requestFor("")));
  return true;
}

// Scripts

function rememberScript(session: Session, body: Buffer | undefined): void {
  if (body !== undefined) session.context.scripts.remember(body);
}

function noteScriptCommand(session: Session, args: readonly Buffer[]): void {
  const word = args[1]?.toString("latin1", 0, 16).toUpperCase();
  if (word === "LOAD") rememberScript(session, args[2]);
  else if (word === "FLUSH") session.context.scripts.clear();
}

function evalsha(session: Session, frame: Frame): boolean {
  const { command } = frame;
  const lane = laneFor(session, command.plainKind);
  if (lane === null) return session.noWay(command, frame.buf, frame.start);
  const name = Buffer.from(frame.args[1] ?? "");
  const load = (): Buffer | null => session.context.scripts.loadRequest(name);
  // Behind the script's body, which would use it up.
  const rewrite = new ScriptCall(
    frame.buf.subarray(frame.start, frame.end),
    name,
    load,
    takeCaching(session),
  );
  const buf = rewrite.firstFor(lane.scripts);
  const { replies } = rewrite;
  const repair = (): Buffer | null => rewrite.repaired();
  session.send({ command, kind: command.plainKind, replies, rewrite, repair }, lane, wholeOf(buf));
  return true;
}

// Private connections

/** The connection cannot be shared until the reply is there; what follows waits for it. */
function blocking(session: Session, frame: Frame): boolean {
  if (session.hasLeft) return leave(session);
  const { command } = frame;
  const args = command.name === "xread" ? withPinnedIds(session, frame) : frame.args;
  if (args === null) return isDone(session);
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  session.lastIds = null;
  if (lane === "answered") return true;
  const rewrite = new BlockingCall(command.name, args, session.router.nowMs);
  const buf = rewrite.requestFor("");
  session.send({ command, kind: command.plainKind, bond: "blocking", rewrite }, lane, wholeOf(buf));
  session.inBlockingCall = true;
  session.block("drain");
  return true;
}

/** Streams of one XREAD whose last id is asked for at most; with more of them `$` stays what it is. */
const MAX_PINNED = 128;

/** XREAD's arguments with the ids that `$` stands for now; null = they have to be asked for first. */
function withPinnedIds(session: Session, frame: Frame): Buffer[] | null {
  const dollars = dollarIds(frame.args);
  if (dollars.length === 0 || dollars.length > MAX_PINNED) return frame.args;
  const ids = session.lastIds;
  if (ids === null) {
    const keys = dollars.map(({ key }) => Buffer.from(frame.args[key]!));
    askLastIds(session, frame, keys);
    return null;
  }
  const args = [...frame.args];
  for (const [i, { id }] of dollars.entries()) {
    const last = ids[i];
    if (typeof last === "string") args[id] = Buffer.from(last);
  }
  return args;
}

function askLastIds(session: Session, frame: Frame, keys: readonly Buffer[]): void {
  if (takeAnswer(session, "last-ids")?.kind === "nobody") {
    session.waitToAsk(frame.start);
    return;
  }
  if (!session.isDrained()) return;
  session.block("answer");
  const questions = keys.map((key) => ["XINFO", "STREAM", key]);
  session.router.askMaster(session.profile, questions, (replies) => {
    session.lastIds = replies === null ? null : replies.map(lastIdOf);
    session.answered("last-ids", { kind: replies === null ? "nobody" : "yes" });
  });
}

/** A client that has said all it will say is not kept for what it would wait for. */
function leave(session: Session): true {
  session.finish("client");
  return true;
}

function watch(session: Session, frame: Frame): boolean {
  const result = sendPrivate(session, frame, MASTER_READ, "watch");
  if (result !== null) return result;
  session.watching = true;
  return true;
}

function unwatch(session: Session, frame: Frame): boolean {
  if (!session.watching) {
    session.watchLost = false;
    return say(session, OK);
  }
  const result = sendPrivate(session, frame, MASTER_READ, "none");
  if (result !== null) return result;
  session.block("drain");
  return true;
}

function monitor(session: Session, frame: Frame): boolean {
  if (session.hasLeft) return leave(session);
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  lane.carriesMessages = true;
  const { command } = frame;
  session.monitor = command;
  const undo = (): void => {
    session.monitor = null;
  };
  session.send({ command, kind: MASTER_READ, bond: "stream", undo }, lane, frame);
  return true;
}

/** A monitor's session: what would need its connection in another state is refused. */
function inMonitor(session: Session, frame: Frame): boolean {
  const { command, args } = frame;
  if (command.kind !== SPECIAL) return onPrivate(session, frame, command.kind);
  if (!arityFits(command.arity, args.length)) return say(session, wrongArity(command.name));
  switch (command.handler) {
    case "reset":
      return session.isDrained() && reset(session);
    case "hello":
    case "auth":
    case "watch":
    case "unwatch":
    case "multi":
    case "blocking":
    case "xread":
      session.refuse(`ERR proxy: ${command.name.toUpperCase()} is not supported yet by a monitor`);
      return true;
    default:
      return handle(session, frame);
  }
}

function isScriptDebug(args: readonly Buffer[]): boolean {
  return args[1] !== undefined && args[1].toString("latin1", 0, 16).toUpperCase() === "DEBUG";
}

// Transactions

function multi(session: Session): boolean {
  session.transaction = new Transaction(session.context.limits.maxRequestBytes);
  return say(session, OK);
}

function inTransaction(session: Session, transaction: Transaction, frame: Frame): boolean {
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
      return handle(session, frame);
    case "reset":
      return reset(session);
    case "multi":
      return say(session, encodeError("ERR MULTI calls can not be nested"));
    case "watch":
      return say(session, encodeError("ERR WATCH inside MULTI is not allowed"));
    case "none":
    case "counting":
    case "blocking":
    case "xread":
    case "unwatch":
      return queue(session, transaction, frame);
    case "eval":
      rememberScript(session, args[1]);
      return queue(session, transaction, frame);
    case "evalsha": {
      const load = session.context.scripts.loadRequest(args[1] ?? Buffer.alloc(0));
      // Inside the transaction its lack could not be repaired.
      if (load !== null) transaction.precede(load);
      return queue(session, transaction, frame);
    }
    case "scan": {
      // Within a transaction the cursor comes back as the server's own.
      const buf = new ScanCall(args).requestFor(session.router.epoch.history?.replid ?? "");
      return queue(session, transaction, { ...frame, buf, start: 0, end: buf.length });
    }
    case "script":
      noteScriptCommand(session, args);
      if (!isScriptDebug(frame.args)) return queue(session, transaction, frame);
      break;
    case "refused":
      transaction.spoilt = true;
      return refused(session, frame);
    default:
      break;
  }
  // It would change the connection that all share.
  transaction.spoilt = true;
  session.refuse(`ERR proxy: ${frame.command.name.toUpperCase()} inside MULTI is not supported yet`);
  return true;
}

/** Commands that may end a transaction without sending it, and with it the private connection of WATCH. */
function endsWatch(command: Command): boolean {
  return command.handler === "exec" || command.handler === "discard" || command.handler === "reset";
}

/** Whether the private connection, if there is one, can be let go: nothing on it is unanswered. */
function isPrivateQuiet(session: Session): boolean {
  return session.privateLane === null || session.isDrained();
}

/** Any refusal spoils the transaction; refused itself, EXEC ends it (server.c, rejectCommand). */
function wrongWords(session: Session, transaction: Transaction, command: Command): true {
  if (command.handler !== "exec") {
    transaction.spoilt = true;
    return say(session, wrongArity(command.name));
  }
  discardQuietly(session);
  return say(
    session,
    encodeError(`EXECABORT Transaction discarded because of: ${wrongArityText(command.name)}`),
  );
}

function queue(session: Session, transaction: Transaction, frame: Frame): true {
  const { command, args, buf, start, end } = frame;
  const refusal = transaction.refusal(command, args, end - start);
  if (refusal !== null) {
    transaction.spoilt = true;
    return say(session, refusal);
  }
  transaction.add(command, buf.subarray(start, end));
  return say(session, QUEUED);
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
  if (session.watchLost) {
    discardQuietly(session);
    return say(session, encodeNullArray(session.protocol));
  }
  const kind = transaction.isRepeatable ? MASTER_READ : WRITE;
  const lane = laneFor(session, kind);
  if (lane === null) {
    if (!session.noWay(frame.command, frame.buf, frame.start)) return false;
    discardQuietly(session);
    return true;
  }
  const buf = transaction.unit();
  const { replies } = transaction;
  const bond = session.watching ? "watched" : "none";
  session.transaction = null;
  session.router.counters.requests.transaction++;
  session.send({ command: frame.command, kind, replies, bond }, lane, wholeOf(buf));
  if (session.privateLane !== null) session.block("drain");
  return true;
}

function discardQuietly(session: Session): void {
  session.transaction = null;
  session.watchLost = false;
  session.forgetWatch();
  session.releasePrivate();
}
