/**
 * Commands that are more than a request and its reply: they change the session, need a connection of their
 * own, or belong to a transaction. Each function returns whether the command was taken; false = the session
 * is blocked and the command will be tried again.
 */
import { arityFits, type Command, MASTER_READ, READ, SPECIAL, WRITE } from "../commands/command.ts";
import { requestArgs } from "../resp/args.ts";
import { encodeError } from "../resp/encode.ts";
import { InfoCall, wantsProxySection } from "./calls/info.ts";
import { ScanCall } from "./calls/scan.ts";
import { evalsha, functionCommand, rememberScript, script } from "./calls/script-commands.ts";
import { blocking, leave, wait, xread } from "./calls/waiting-commands.ts";
import { client } from "./client/command.ts";
import { isStopped, NOT_PAUSED } from "./client/pause.ts";
import { consistency, isConsistency } from "./consistency.ts";
import { refuseReplication, refuseReserved, refuseUnsafe, topology } from "./policy.ts";
import { counting, inSubscriberMode, publishesReserved, subscribe } from "./pubsub/subscribe.ts";
import type { Session } from "./session.ts";
import { auth, hello, isAccepted, reset, select } from "./settings.ts";
import {
  inTransaction,
  isPrivateQuiet,
  multi,
  spoil,
  unwatch,
  watch,
  wrongWordsOf,
} from "./transaction/multi.ts";
import { commandProblem, wrongArity } from "./transaction/transaction.ts";
import {
  type Frame,
  forbidden,
  isDone,
  onPrivate,
  privateLane,
  quit,
  say,
  sayLater,
  sendPlain,
  sendRewritten,
  takeCaching,
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
  if (taken) session.inquiry.clear();
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
  if (session.inquiry.isConfirmed) return true;
  if (!session.profile.accepted && wantsLogin(frame)) {
    const problem = commandProblem(command, frame.args);
    if (problem !== null) return say(session, problem);
    if (!isAccepted(session, frame)) return isDone(session) && spoil(session, session.transaction, command);
  }
  if (session.context.pause.level !== NOT_PAUSED && commandProblem(command, frame.args) === null) {
    if (!isLetPass(session, frame)) return isDone(session);
  }
  if (session.transaction !== null) return inTransaction(session, session.transaction, frame);
  if (session.messages.subscriptions !== null && session.protocol === 2 && !isAlwaysAllowed(frame)) {
    return inSubscriberMode(session, frame);
  }
  if (session.privateConnection.monitor !== null) return inMonitor(session, frame);
  if (command.kind !== SPECIAL) return sendPlain(session, frame, command.kind);
  if (!arityFits(command.arity, frame.args.length)) return say(session, wrongWordsOf(command));
  return handle(session, frame);
}

/**
 * Whether CLIENT PAUSE lets the next command pass; if not, it waits for the end of the pause. A proxy that
 * shuts down does not wait: then the error was said.
 */
function isLetPass(session: Session, { command, args }: Frame): boolean {
  const { holding, transaction, voice } = session;
  const { pause } = session.context;
  if (!isStopped(pause.level, command, args, transaction?.mayReplicate === true)) return true;
  if (session.isDraining) {
    voice.say(holding.masterDown("clients are paused, and the proxy is shutting down"));
    return false;
  }
  holding.end("released");
  pause.add(session);
  session.block("client-pause");
  // A client that will send nothing more and waits is as good as gone.
  if (session.hasLeft) session.destroy("client");
  return false;
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
      return xread(session, frame);
    case "eval":
      rememberScript(session, frame.args[1]);
      return sendPlain(session, frame, frame.command.plainKind);
    case "evalsha":
      return evalsha(session, frame);
    case "scan":
      return sendRewritten(session, frame, new ScanCall(frame.args));
    case "script":
      return script(session, frame);
    case "function":
      return functionCommand(session, frame);
    case "wait":
      return wait(session, frame);
    case "proxy":
      return isConsistency(frame) ? consistency(session, frame) : proxy(session, frame);
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
      return forbidden(session);
  }
}

function isHelp(frame: Frame): boolean {
  return frame.args.length === 2 && /^help$/i.test(frame.args[1]!.toString("latin1", 0, 8));
}

function proxy(session: Session, frame: Frame): true {
  session.router.counters.requests.admin++;
  // It may look at its words when the buffer that they came in is used again.
  const args = frame.args.map((arg) => Buffer.from(arg));
  const reply = session.context.admin(args, session.protocol);
  if (Buffer.isBuffer(reply)) return say(session, reply);
  return sayLater(session, reply);
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

function info(session: Session, frame: Frame): boolean {
  if (!wantsProxySection(frame.args)) return sendPlain(session, frame, frame.command.plainKind);
  const bytes = frame.buf.subarray(frame.start, frame.end);
  return sendRewritten(session, frame, new InfoCall(bytes, session.context.infoSection));
}

function sendCounting(session: Session, frame: Frame): boolean {
  if (publishesReserved(frame)) return refuseReserved(session, frame);
  const rewrite = counting(session, frame);
  if (rewrite === null) return sendPlain(session, frame, frame.command.plainKind);
  return sendRewritten(session, frame, rewrite);
}

function monitor(session: Session, frame: Frame): boolean {
  if (session.hasLeft) return leave(session);
  // A monitor that asks again is told nothing (replication.c, monitorCommand): no reply would ever come.
  if (session.privateConnection.monitor !== null) return session.isDrained();
  const lane = privateLane(session, frame);
  if (lane === "wait") return false;
  if (lane === "answered") return true;
  lane.carriesMessages = true;
  const { command } = frame;
  session.privateConnection.monitor = command;
  const undo = (): void => {
    session.privateConnection.monitor = null;
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
      session.voice.refuse(`ERR proxy: ${command.name.toUpperCase()} is not supported yet by a monitor`);
      return true;
    default:
      return handle(session, frame);
  }
}
