/**
 * Commands that are more than a request and its reply: they change the session, need a connection of their
 * own, or belong to a transaction. Each function returns whether the command was taken; false = the session
 * is blocked and the command will be tried again.
 */
import { arityFits, type Command, MASTER_READ, SPECIAL, WRITE } from "../commands/command.ts";
import { requestArgs } from "../resp/args.ts";
import { encodeError, encodeNullArray, OK, QUEUED } from "../resp/encode.ts";
import type { Lane } from "../upstream/lane.ts";
import type { Bond, PlainKind, Rewrite } from "../upstream/request.ts";
import { BlockingCall, blockIndex, dollarIds, lastIdOf } from "./blocking.ts";
import { ScanCall } from "./scan.ts";
import { MAX_GIVEN, ScriptCall } from "./scripts.ts";
import type { Session } from "./session.ts";
import { auth, client, hello, isAccepted, isDone, reset, say, select } from "./settings.ts";
import { Subscriptions } from "./subscriptions.ts";
import { commandProblem, Transaction, wrongArity, wrongArityText } from "./transaction.ts";
import { MARK, WAIT_CHANNEL, WaitCall } from "./waiting.ts";

/** One command as it lies in a buffer. */
export interface Frame {
  readonly command: Command;
  readonly buf: Buffer;
  readonly start: number;
  readonly end: number;
  /** Nobody else will change the buffer. */
  readonly owned: boolean;
  /** Views into the buffer, the name first. */
  readonly args: Buffer[];
}

export function special(
  session: Session,
  command: Command,
  buf: Buffer,
  start: number,
  end: number,
  owned: boolean,
): boolean {
  const frame: Frame = { command, buf, start, end, owned, args: requestArgs(buf, start) };
  if (!session.profile.accepted && wantsLogin(frame)) {
    const problem = commandProblem(command, frame.args);
    if (problem !== null) return say(session, problem);
    if (!isAccepted(session, frame)) return isDone(session);
  }
  if (session.transaction !== null) return inTransaction(session, session.transaction, frame);
  if (session.hasStream) return inStream(session, frame);
  if (command.kind !== SPECIAL) return sendPlain(session, frame, command.kind);
  if (!arityFits(command.arity, frame.args.length)) return say(session, wrongArity(command.name));
  return handle(session, frame);
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
      return script(session, frame);
    case "wait":
      return wait(session, frame);
    case "proxy":
      return proxy(session, frame);
    case "refused":
      return refused(session, frame);
    case "forbidden":
      session.finish("protocol-error");
      return true;
  }
}

/** A frame that the proxy made itself. */
function wholeOf(buf: Buffer) {
  return { buf, start: 0, end: buf.length, owned: true };
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

/** A special command that turns out to be a plain request. */
function sendPlain(session: Session, frame: Frame, kind: PlainKind): boolean {
  if (session.privateLane !== null) session.releasePrivate();
  if (session.privateLane !== null) return onPrivate(session, frame, kind);
  const lane = session.route(kind);
  if (lane === null) return session.noWay(frame.command, frame.buf, frame.start);
  session.send({ command: frame.command, kind }, lane, frame);
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

/** Where a command goes that is plain but for what becomes of its reply; null = it has no way now. */
function laneFor(session: Session, kind: PlainKind): Lane | null {
  if (session.privateLane === null) return session.route(kind);
  return session.mayUse(session.privateLane) ? session.privateLane : null;
}

// Scripts

function rememberScript(session: Session, body: Buffer | undefined): void {
  if (body !== undefined) session.context.scripts.remember(body);
}

function noteScriptCommand(session: Session, args: readonly Buffer[]): void {
  const word = scriptWord(args);
  if (word === "LOAD") rememberScript(session, args[2]);
  else if (word === "FLUSH") session.context.scripts.clear();
}

function scriptWord(args: readonly Buffer[]): string {
  return args[1]?.toString("latin1", 0, 16).toUpperCase() ?? "";
}

function evalsha(session: Session, frame: Frame): boolean {
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
  return new ScriptCall(frame.buf.subarray(frame.start, frame.end), names, load);
}

function script(session: Session, frame: Frame): boolean {
  switch (scriptWord(frame.args)) {
    case "EXISTS":
      return scriptExists(session, frame);
    case "DEBUG":
      return unsupported(session, frame);
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

// Private connections

/** The session's private connection; where there is none now, the command waits or was answered. */
function privateLane(session: Session, frame: Frame): Lane | "wait" | "answered" {
  const lane = session.openPrivate();
  if (lane === "blocked") return "wait";
  if (lane === "no-master") return session.wait(frame.start) ? "answered" : "wait";
  if (lane !== "no-room") return lane;
  noPrivateRoom(session);
  return "answered";
}

function noPrivateRoom(session: Session): true {
  const most = session.router.config.upstream.maxPrivate;
  session.refuse(`ERR proxy: no more private upstream connections, upstream.maxPrivate (${most})`);
  return true;
}

/** Sends a command on the private connection. @returns null when it was sent, else what to return. */
function sendPrivate(session: Session, frame: Frame, kind: PlainKind, bond: Bond): boolean | null {
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  session.send({ command: frame.command, kind, bond }, lane, frame);
  return null;
}

/** A plain request of a session that has a private connection for something else. */
function onPrivate(session: Session, frame: Frame, kind: PlainKind): boolean {
  return sendPrivate(session, frame, kind, "none") ?? true;
}

/** The connection cannot be shared until the reply is there; what follows waits for it. */
function blocking(session: Session, frame: Frame): boolean {
  if (session.hasLeft) return leave(session);
  const { command } = frame;
  const args = command.name === "xread" ? withPinnedIds(session, frame) : frame.args;
  if (args === null) return isDone(session);
  return issue(
    session,
    command,
    command.plainKind,
    new BlockingCall(command.name, args, session.router.nowMs),
  );
}

/** Sends a call that the server may let wait, in its place among all such calls, or as soon as it can. */
function issue(session: Session, command: Command, kind: PlainKind, rewrite: Rewrite): boolean {
  const lane = session.openPrivate();
  if (lane === "blocked") return false;
  session.lastIds = null;
  if (lane === "no-room") return noPrivateRoom(session);
  const { convoy } = session.router.pool;
  session.callPlace = convoy.takePlace();
  const buf = rewrite.requestFor("");
  const what = { command, kind, bond: "blocking", replies: rewrite.replies, rewrite } as const;
  session.inBlockingCall = true;
  if (lane === "no-master") session.flight.defer(what, buf);
  else {
    convoy.join(lane, session.callPlace);
    session.send(what, lane, wholeOf(buf));
  }
  session.block("drain");
  return true;
}

function wait(session: Session, frame: Frame): boolean {
  if (session.hasLeft) return leave(session);
  // It is about the client's last write, which must be answered.
  if (!session.isDrained()) return false;
  const { command, args } = frame;
  const call = new WaitCall(command.name, args, session.router.nowMs, {
    hasWritten: session.hasWritten,
    isWriteInDoubt: () => session.isWriteInDoubt,
    refuseMark: () => session.refusal(`ERR proxy: ${MARK_NEEDED}`),
  });
  const known = call.knownReply();
  return known !== null ? say(session, known) : issue(session, command, MASTER_READ, call);
}

const MARK_NEEDED = `WAIT and WAITAOF behind a write need the right to PUBLISH to the channel ${WAIT_CHANNEL}`;

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
  const { answer } = session;
  session.answer = null;
  if (answer?.kind === "nobody") {
    session.waitToAsk(frame.start);
    return;
  }
  if (!session.isDrained()) return;
  session.block("answer");
  const questions = keys.map((key) => ["XINFO", "STREAM", key]);
  session.router.askMaster(session.profile, questions, (replies) => {
    session.lastIds = replies === null ? null : replies.map(lastIdOf);
    session.answered({ kind: replies === null ? "nobody" : "yes" });
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

function subscribe(session: Session, frame: Frame): boolean {
  if (session.hasLeft) return leave(session);
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  lane.carriesMessages = true;
  session.subscriptions ??= new Subscriptions();
  const { command } = frame;
  const { replies, undo, bytes } = session.subscriptions.apply(command.name, frame.args);
  const what = bytes === null ? frame : wholeOf(bytes);
  session.send({ command, kind: MASTER_READ, replies, bond: "stream", undo }, lane, what);
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

/** A subscriber's or a monitor's session: the server itself says what is allowed in that mode. */
function inStream(session: Session, frame: Frame): boolean {
  const { command, args } = frame;
  switch (command.handler) {
    case "quit":
      return quit(session);
    case "reset":
      return session.isDrained() && reset(session);
    case "proxy":
      return proxy(session, frame);
    case "refused":
      return refused(session, frame);
    case "subscribe":
      if (!arityFits(command.arity, args.length)) return say(session, wrongArity(command.name));
      return subscribe(session, frame);
    default:
      break;
  }
  if (session.protocol === 2 && session.monitor === null) return onPrivate(session, frame, command.plainKind);
  if (command.kind !== SPECIAL) return onPrivate(session, frame, command.kind);
  if (!arityFits(command.arity, args.length)) return say(session, wrongArity(command.name));
  switch (command.handler) {
    case "hello":
    case "auth":
    case "watch":
    case "unwatch":
    case "multi":
    case "blocking":
    case "xread":
    case "wait":
      // They would need the connection in a state that the messages must not share.
      session.refuse(`ERR proxy: ${command.name.toUpperCase()} is not supported yet while subscribed`);
      return true;
    default:
      return handle(session, frame);
  }
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
    case "blocking":
    case "xread":
    case "unwatch":
      return queue(session, transaction, frame);
    case "eval":
      rememberScript(session, args[1]);
      return queue(session, transaction, frame);
    case "evalsha":
      needScripts(session, transaction, args.slice(1, 2));
      return queue(session, transaction, frame);
    case "scan": {
      // Within a transaction the cursor comes back as the server's own.
      const buf = new ScanCall(args).requestFor(session.router.epoch.history?.replid ?? "");
      return queue(session, transaction, { ...frame, buf, start: 0, end: buf.length });
    }
    case "wait":
      if (session.hasWritten) transaction.needFirst(MARK);
      return queue(session, transaction, frame);
    case "script":
      noteScriptCommand(session, args);
      if (scriptWord(args) === "EXISTS") needScripts(session, transaction, args.slice(2, 2 + MAX_GIVEN));
      if (scriptWord(args) !== "DEBUG") return queue(session, transaction, frame);
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

function needScripts(session: Session, transaction: Transaction, names: readonly Buffer[]): void {
  for (const name of names) {
    const load = session.context.scripts.loadRequest(name.toString("latin1"));
    if (load !== null) transaction.needFirst(load);
  }
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
