/**
 * Commands that are more than a request and its reply: they change the session, need a connection of their
 * own, or belong to a transaction. Each function returns whether the command was taken; false = the session
 * is blocked and the command will be tried again.
 */
import { arityFits, type Command, MASTER_READ, READ, SPECIAL, WRITE } from "../commands/command.ts";
import { requestArgs } from "../resp/args.ts";
import { encodeError, encodeNullArray, OK, QUEUED } from "../resp/encode.ts";
import type { Lane } from "../upstream/lane.ts";
import type { Bond, PlainKind, Rewrite } from "../upstream/request.ts";
import { BlockingCall, blockIndex, dollarIds, lastIdOf } from "./blocking.ts";
import { client } from "./client-command.ts";
import { mayReplicate, NOT_PAUSED } from "./client-pause.ts";
import type { Sending } from "./flight.ts";
import { InfoCall, wantsProxySection } from "./info.ts";
import { queueOwn } from "./own.ts";
import { ScanCall } from "./scan.ts";
import { MAX_GIVEN, ScriptCall } from "./scripts.ts";
import type { Session } from "./session.ts";
import { auth, hello, isAccepted, reset, select } from "./settings.ts";
import { counting, inSubscriberMode, subscribe } from "./subscribe.ts";
import { commandProblem, Transaction, wrongArity, wrongArityText } from "./transaction.ts";
import { MARK, WAIT_CHANNEL, WaitCall } from "./waiting.ts";
import {
  type Frame,
  isDone,
  laneFor,
  onPrivate,
  privateLane,
  refusePrivate,
  say,
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
  const frame: Frame = { command, buf, start, end, owned, args: requestArgs(buf, start) };
  const taken = session.skip === "no" ? take(session, frame) : takeSkipped(session, frame);
  // What CLIENT CACHING was about is done with (networking.c, resetClient).
  if (taken && command.handler !== "client" && session.transaction === null) takeCaching(session);
  return taken;
}

/** The command behind CLIENT REPLY SKIP, which gets no reply, or the one behind that, which gets its own. */
function takeSkipped(session: Session, frame: Frame): boolean {
  if (session.skip === "taken") return session.isSkipOver() && take(session, frame);
  session.skip = "taken";
  const taken = take(session, frame);
  if (!taken) session.skip = "next";
  return taken;
}

function take(session: Session, frame: Frame): boolean {
  const { command } = frame;
  if (session.isConfirmed) {
    session.isConfirmed = false;
    return true;
  }
  if (!session.profile.accepted && wantsLogin(frame)) {
    const problem = commandProblem(command, frame.args);
    if (problem !== null) return say(session, problem);
    if (!isAccepted(session, frame)) return isDone(session) && spoil(session, session.transaction, command);
  }
  if (session.context.pause.level !== NOT_PAUSED && commandProblem(command, frame.args) === null) {
    if (!session.isLetPass(command, frame.args)) return isDone(session);
  }
  if (session.transaction !== null) return inTransaction(session, session.transaction, frame);
  if (session.subscriptions !== null && session.protocol === 2 && !isAlwaysAllowed(frame)) {
    return inSubscriberMode(session, frame);
  }
  if (session.monitor !== null) return inMonitor(session, frame);
  if (command.kind !== SPECIAL) return sendPlain(session, frame, command.kind);
  if (!arityFits(command.arity, frame.args.length)) return say(session, wrongWordsOf(command));
  return handle(session, frame);
}

/** EXEC is refused in a way of its own (server.c, rejectCommand). */
function wrongWordsOf(command: Command): Buffer {
  if (command.handler !== "exec") return wrongArity(command.name);
  return encodeError(`EXECABORT Transaction discarded because of: ${wrongArityText(command.name)}`);
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
      return isHelp(frame) ? sendPlain(session, frame, READ) : client(session, frame);
    case "info":
      return info(session, frame);
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
      return script(session, frame);
    case "function":
      return isWord(frame.args[1], "KILL") || isWord(frame.args[1], "STATS")
        ? besideScripts(session, frame)
        : sendPlain(session, frame, WRITE);
    case "wait":
      return wait(session, frame);
    case "proxy":
      return proxy(session, frame);
    case "topology":
      return topology(session, frame);
    case "replication":
      return refuseReplication(session, frame);
    case "debug":
    case "unlisted":
      return onOwnConnection(session, frame);
    case "unsafe":
      return refuseUnsafe(session, frame);
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

function isHelp(frame: Frame): boolean {
  return frame.args.length === 2 && /^help$/i.test(frame.args[1]!.toString("latin1", 0, 8));
}

function proxy(session: Session, frame: Frame): true {
  session.router.counters.requests.admin++;
  return say(session, session.context.admin(frame.args, session.protocol));
}

/**
 * Commands that change the group for everybody. They go, if at all, to the master there is now and to no
 * other: one that waited for a master to come would hit the one that had just taken over. SHUTDOWN waits for
 * the replicas, hence the connection of its own.
 */
function topology(session: Session, frame: Frame): boolean {
  if (refusesTopology(session, frame)) return true;
  if (!session.router.writable) {
    session.refuse(`ERR proxy: ${nameOf(frame)} is not held: there is no master now to pass it on to`);
    return true;
  }
  const result = sendPrivate(session, frame, WRITE, "node");
  if (result !== null) return result;
  session.block("drain");
  return true;
}

function refusesTopology(session: Session, frame: Frame): boolean {
  if (session.router.config.commands.topology === "pass") return false;
  session.refuse(
    `ERR proxy: ${nameOf(frame)} is not passed on (commands.topology: refuse): ` +
      "send it to the node itself, the proxy follows",
  );
  return true;
}

/** Commands by which a replica gets its master's stream, on a connection that nothing else may use then. */
function refuseReplication(session: Session, frame: Frame): true {
  session.refuse(
    `ERR proxy: ${nameOf(frame)} is not passed on: ` +
      "it would turn a connection that clients share into a replication link",
  );
  return true;
}

/** Nobody can tell what it does to its connection: it gets one of its own, which nobody uses after it. */
function onOwnConnection(session: Session, frame: Frame): boolean {
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  lane.spoilt = true;
  session.send({ command: frame.command, kind: WRITE, bond: "change" }, lane, frame);
  session.block("drain");
  return true;
}

function refuseUnsafe(session: Session, frame: Frame): true {
  session.refuse(
    `ERR proxy: ${nameOf(frame)} is not passed on: ` +
      "by its flags it changes the connection it comes on, which clients share",
  );
  return true;
}

function nameOf(frame: Frame): string {
  return frame.command.name.toUpperCase();
}

function unsupported(session: Session, frame: Frame): true {
  const name = frame.command.name.toUpperCase();
  const subcommand = frame.command.handler === "script" ? " DEBUG" : "";
  session.refuse(`ERR proxy: ${name}${subcommand} is not supported yet`);
  return true;
}

function info(session: Session, frame: Frame): boolean {
  const { command, args } = frame;
  if (!wantsProxySection(args)) return sendPlain(session, frame, command.plainKind);
  const lane = laneFor(session, command.plainKind);
  if (lane === null) return session.noWay(command, frame.buf, frame.start);
  const rewrite = new InfoCall(frame.buf.subarray(frame.start, frame.end), session.context.infoSection);
  session.send({ command, kind: command.plainKind, rewrite }, lane, wholeOf(rewrite.requestFor()));
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
  const word = scriptWord(args);
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
  // CLIENT CACHING goes behind the script's body, which would use it up.
  return new ScriptCall(frame.buf.subarray(frame.start, frame.end), names, load, takeCaching(session));
}

function script(session: Session, frame: Frame): boolean {
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

// Private connections

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
  if (lane === "no-room") return refusePrivate(session);
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
  if (session.takeAnswer("last-ids")?.kind === "nobody") {
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
  // A monitor that asks again is told nothing (replication.c, monitorCommand): no reply would ever come.
  if (session.monitor !== null) return session.isDrained();
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
    case "wait":
      session.refuse(`ERR proxy: ${command.name.toUpperCase()} is not supported yet by a monitor`);
      return true;
    default:
      return handle(session, frame);
  }
}

function isWord(arg: Buffer | undefined, word: string): boolean {
  return arg !== undefined && arg.length === word.length && arg.toString("latin1").toUpperCase() === word;
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
    default:
      return queue(session, transaction, frame);
  }
}

/** Queues a command, or says why not: Redis's own reasons come first. */
function queue(session: Session, transaction: Transaction, frame: Frame): boolean {
  const { command, args, buf, start, end } = frame;
  const refusal = transaction.refusal(command, args, end - start);
  if (refusal !== null) {
    transaction.spoilt = true;
    return say(session, refusal);
  }
  switch (command.handler) {
    case "none":
    case "counting":
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
      if (session.hasWritten) transaction.precede(MARK);
      break;
    case "script":
      if (isWord(args[1], "DEBUG")) return refuseInMulti(session, transaction, frame);
      noteScriptCommand(session, args);
      if (scriptWord(args) === "EXISTS") needScripts(session, transaction, args.slice(2, 2 + MAX_GIVEN));
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
  session.refuse(`ERR proxy: ${nameOf(frame)}${word} inside MULTI is not supported yet`);
  return true;
}

function needScripts(session: Session, transaction: Transaction, names: readonly Buffer[]): void {
  for (const name of names) {
    const load = session.context.scripts.loadRequest(name.toString("latin1"));
    if (load !== null) transaction.precede(load);
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
  spoil(session, transaction, command);
  return say(session, wrongWordsOf(command));
}

function spoil(session: Session, transaction: Transaction | null, command: Command): true {
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
  if (session.watchLost) {
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
  const what: Sending = { command: frame.command, kind, replies, bond };
  session.transaction = null;
  session.router.counters.requests.transaction++;
  session.send(rewrite === null ? what : { ...what, rewrite }, lane, wholeOf(buf));
  // What follows may see the session as the transaction leaves it.
  if (session.privateLane !== null || rewrite?.isBarrier === true) session.block("drain");
  return true;
}

function bondOf(session: Session, transaction: Transaction): Bond {
  if (session.watching) return "watched";
  return transaction.changesConnection ? "change" : "none";
}

function laneForUnit(
  session: Session,
  transaction: Transaction,
  frame: Frame,
  kind: PlainKind,
): Lane | "wait" | "answered" {
  if (!transaction.changesConnection) {
    const lane = laneFor(session, kind);
    if (lane !== null) return lane;
    return session.noWay(frame.command, frame.buf, frame.start) ? "answered" : "wait";
  }
  const lane = privateLane(session, frame);
  if (typeof lane !== "string") lane.spoilt = true;
  return lane;
}

function discardQuietly(session: Session): void {
  session.transaction = null;
  session.watchLost = false;
  session.forgetWatch();
  session.releasePrivate();
}
