/** The commands by which a client says who it is and how it wants to be spoken to. */
import { WRITE } from "../commands/command.ts";
import { encodeError, encodeValue, OK, PONG, type Protocol, RESET, type Value } from "../resp/encode.ts";
import type { Answer } from "../routing/router.ts";
import { ANONYMOUS, type Identity, type Profile } from "../upstream/profile.ts";
import type { Question, Session } from "./session.ts";
import type { Frame } from "./special.ts";

/**
 * Whether a server has accepted connections like this one; asks one if that is not known yet.
 * False with the session blocked = wait; false with the session not blocked = the error was said.
 */
export function isAccepted(session: Session, frame: Frame, profile: Profile = session.profile): boolean {
  const answer = takeAnswer(session, "login");
  if (profile.accepted) return true;
  if (answer === null) {
    if (!session.isDrained()) return false;
    session.block("answer");
    // A server that wants a login refuses HELLO with words of its own.
    const question = frame.command.handler === "hello" && profile.protocol === 2 ? ["HELLO", "2"] : ["PING"];
    session.router.accepts(profile, question, (found) => session.answered("login", found));
    return false;
  }
  switch (answer.kind) {
    case "yes":
      return true;
    case "no":
      session.say(frame.command.handler === "exec" ? abortOf(answer.error) : answer.error);
      return false;
    case "nobody":
      // Health checks are answered while nobody can be asked.
      if (frame.command.name === "ping" && frame.args.length === 1) session.say(PONG);
      else session.waitToAsk(frame.start);
      return false;
  }
}

/** EXEC that is refused says so in its own way (server.c, rejectCommand). */
function abortOf(error: Buffer): Buffer {
  return Buffer.concat([Buffer.from("-EXECABORT Transaction discarded because of: "), error.subarray(1)]);
}

/** What came of the question that the command waited for; null = it has not asked it yet. */
export function takeAnswer(session: Session, question: Question): Answer | null {
  const { answer } = session;
  session.answer = null;
  return answer?.question === question ? answer.answer : null;
}

/** What a function that is not accepted returns: whether the command is done with (its error was said). */
export function isDone(session: Session): boolean {
  return !session.isBlocked;
}

/** A server closes a connection without a login that sends more (networking.c, processMultibulkBuffer). */
const MAX_CREDENTIAL_BYTES = 16_384;
const WRONG_PASS = encodeError("WRONGPASS invalid username-password pair or user is disabled.");

/** Checks credentials with a server. Null: see `isAccepted`. */
function proveIdentity(session: Session, frame: Frame, credentials: readonly Buffer[]): Identity | null {
  const answer = takeAnswer(session, "credentials");
  if (answer === null) {
    if (credentials.some((one) => one.length > MAX_CREDENTIAL_BYTES)) {
      session.say(WRONG_PASS);
      return null;
    }
    if (!session.isDrained()) return null;
    session.block("answer");
    session.router.checkCredentials(
      credentials.map((one) => Buffer.from(one)),
      (found) => session.answered("credentials", found),
    );
    return null;
  }
  switch (answer.kind) {
    case "yes": {
      const password = credentials[credentials.length - 1]!.toString("latin1");
      const username = credentials.length === 2 ? credentials[0]!.toString("latin1") : null;
      return session.router.profiles.identity(username, password);
    }
    case "no":
      session.say(answer.error);
      return null;
    case "nobody":
      session.waitToAsk(frame.start);
      return null;
  }
}

export function auth(session: Session, frame: Frame): boolean {
  if (refuseWhileWatching(session, frame)) return true;
  if (frame.args.length > 3) return say(session, encodeError("ERR syntax error"));
  const identity = proveIdentity(session, frame, frame.args.slice(1));
  if (identity === null) return isDone(session);
  const { db, protocol } = session.profile;
  const profile = session.router.profiles.get(identity, db, protocol);
  profile.accepted = true;
  session.useProfile(profile);
  return say(session, OK);
}

interface HelloOptions {
  readonly protocol: Protocol | null;
  readonly credentials: readonly Buffer[] | null;
  readonly name: string | null;
}

/** HELLO [protover [AUTH username password] [SETNAME clientname]], with Redis's own errors (networking.c). */
function helloOptions(args: readonly Buffer[]): HelloOptions | string {
  if (args.length === 1) return { protocol: null, credentials: null, name: null };
  const version = args[1]!.toString("latin1");
  if (!/^-?\d{1,18}$/.test(version)) return "ERR Protocol version is not an integer or out of range";
  if (version !== "2" && version !== "3") return "NOPROTO unsupported protocol version";
  let credentials: Buffer[] | null = null;
  let name: string | null = null;
  for (let i = 2; i < args.length; ) {
    const word = args[i]!.toString("latin1");
    const left = args.length - i - 1;
    if (word.toUpperCase() === "AUTH" && left >= 2) {
      credentials = [args[i + 1]!, args[i + 2]!];
      i += 3;
    } else if (word.toUpperCase() === "SETNAME" && left >= 1) {
      name = args[i + 1]!.toString("latin1");
      if (!isPrintable(name)) return BAD_NAME;
      i += 2;
    } else return `ERR Syntax error in HELLO option '${word}'`;
  }
  return { protocol: version === "2" ? 2 : 3, credentials, name };
}

/** While keys are watched the private connection cannot become another user's or speak another protocol. */
function refuseWhileWatching(session: Session, frame: Frame): boolean {
  if (session.privateLane === null) return false;
  session.refuse(
    `ERR proxy: ${frame.command.name.toUpperCase()} is not supported yet while keys are watched`,
  );
  return true;
}

export function hello(session: Session, frame: Frame): boolean {
  if (refuseWhileWatching(session, frame)) return true;
  // Messages do not wait for replies: in the new protocol they must not overtake the word that it is spoken.
  if (session.subscriptions !== null && !session.isDrained()) return false;
  const options = helloOptions(frame.args);
  if (typeof options === "string") return say(session, encodeError(options));
  let { identity } = session.profile;
  if (options.credentials !== null) {
    session.provenIdentity ??= proveIdentity(session, frame, options.credentials);
    if (session.provenIdentity === null) return isDone(session);
    identity = session.provenIdentity;
  }
  const profile = session.router.profiles.get(
    identity,
    session.profile.db,
    options.protocol ?? session.protocol,
  );
  if (!isAccepted(session, frame, profile)) {
    if (isDone(session)) session.provenIdentity = null;
    return isDone(session);
  }
  session.provenIdentity = null;
  session.useProfile(profile);
  if (options.name !== null) session.name = options.name;
  return say(session, encodeValue(greeting(session), session.protocol));
}

/** HELLO's reply: the server's own words about itself, the proxy's about this client. */
function greeting(session: Session): ReadonlyMap<string, Value> {
  const { facts } = session.router;
  return new Map<string, Value>([
    ["server", facts?.server ?? "redis"],
    ["version", facts?.version ?? "0.0.0"],
    ["proto", session.protocol],
    ["id", session.id],
    ["mode", "standalone"],
    ["role", "master"],
    ["modules", facts?.modules ?? []],
  ]);
}

export function select(session: Session, frame: Frame): boolean {
  const word = frame.args[1]!.toString("latin1");
  if (!/^(?:0|-?[1-9]\d{0,17})$/.test(word)) {
    return say(session, encodeError("ERR value is not an integer or out of range"));
  }
  const db = Number(word);
  if (db < 0 || db > MAX_DB) return say(session, encodeError("ERR DB index is out of range"));
  const profile = session.router.profiles.get(session.profile.identity, db, session.protocol);
  if (!isAccepted(session, frame, profile)) return isDone(session);
  const { privateLane } = session;
  if (privateLane === null) {
    session.useProfile(profile);
    return say(session, OK);
  }
  // The private connection follows; its server's OK is the client's.
  if (!session.mayUse(privateLane)) return false;
  session.useProfile(profile);
  session.send({ command: frame.command, kind: WRITE }, privateLane, frame);
  return true;
}

/** Beyond any number of databases a server is configured with; it keeps the table of profiles small. */
const MAX_DB = 1_000_000;

/** Everything a new connection would have; the reply comes in RESP2 (networking.c, resetCommand). */
export function reset(session: Session): true {
  session.transaction = null;
  session.watchLost = false;
  session.endSubscriptions();
  session.monitor = null;
  session.dropPrivate();
  session.name = "";
  session.useProfile(session.router.profiles.get(ANONYMOUS, 0, 2));
  return say(session, RESET);
}

export function client(session: Session, frame: Frame): boolean {
  const { args } = frame;
  const word = args[1]!.toString("latin1", 0, 32).toUpperCase();
  switch (word) {
    case "ID":
      return args.length === 2
        ? say(session, encodeValue(session.id, session.protocol))
        : arity(session, "id");
    case "GETNAME":
      if (args.length !== 2) return arity(session, "getname");
      return say(session, encodeValue(session.name === "" ? null : session.name, session.protocol));
    case "SETNAME":
      return args.length === 3 ? setName(session, args[2]!) : arity(session, "setname");
    case "SETINFO":
      return args.length === 4 ? setInfo(session, args[2]!, args[3]!) : arity(session, "setinfo");
    default:
      session.refuse(`ERR proxy: CLIENT ${word.replace(/[^A-Z-]/g, "?")} is not supported yet`);
      return true;
  }
}

const BAD_NAME = "ERR Client names cannot contain spaces, newlines or special characters.";

function setName(session: Session, name: Buffer): true {
  const text = name.toString("latin1");
  if (!isPrintable(text)) return say(session, encodeError(BAD_NAME));
  session.name = text;
  return say(session, OK);
}

/**
 * Libraries tell their name and version on connect; the proxy has no use for them yet but must not refuse.
 */
function setInfo(session: Session, key: Buffer, value: Buffer): true {
  const name = key.toString("latin1", 0, 32).toLowerCase();
  if (name !== "lib-name" && name !== "lib-ver") {
    return say(session, encodeError(`ERR Unrecognized option '${name}'`));
  }
  if (isPrintable(value.toString("latin1"))) return say(session, OK);
  return say(session, encodeError(`ERR ${name} cannot contain spaces, newlines or special characters.`));
}

function isPrintable(text: string): boolean {
  return /^[!-~]*$/.test(text);
}

function arity(session: Session, subcommand: string): true {
  return say(session, encodeError(`ERR wrong number of arguments for 'client|${subcommand}' command`));
}

/** A reply of the proxy's own; the command is taken. */
export function say(session: Session, bytes: Buffer): true {
  session.say(bytes);
  return true;
}
