/** The commands by which a client says who it is and how it wants to be spoken to. */
import { MASTER_READ } from "../commands/command.ts";
import { MINUS } from "../resp/bytes.ts";
import { encodeError, encodeValue, OK, PONG, type Protocol, RESET, type Value } from "../resp/encode.ts";
import { answerOf } from "../routing/router.ts";
import { ask } from "../upstream/ask.ts";
import type { Lane } from "../upstream/lane.ts";
import { ANONYMOUS, type Identity, type Profile } from "../upstream/profile.ts";
import { Attempts } from "./attempts.ts";
import type { Session } from "./session.ts";
import { type Frame, isDone, say } from "./ways.ts";

/**
 * Whether a server has accepted connections like this one; asks one if that is not known yet.
 * False with the session blocked = wait; false with the session not blocked = the error was said.
 */
export function isAccepted(session: Session, frame: Frame, profile: Profile = session.profile): boolean {
  const answer = session.inquiry.take(profile);
  if (profile.accepted) return true;
  if (answer === null) {
    if (!session.isDrained()) return false;
    session.block("answer");
    // A server that wants a login refuses HELLO with words of its own.
    const question = frame.command.handler === "hello" && profile.protocol === 2 ? ["HELLO", "2"] : ["PING"];
    session.router.accepts(profile, question, (found) => session.answered(profile, found));
    return false;
  }
  switch (answer.kind) {
    case "yes":
      return true;
    case "no":
      session.voice.say(frame.command.handler === "exec" ? abortOf(answer.error) : answer.error);
      return false;
    case "nobody":
      // Health checks are answered while nobody can be asked.
      if (frame.command.name === "ping" && frame.args.length === 1) session.voice.say(PONG);
      else session.holding.waitToAsk(frame.start);
      return false;
  }
}

/** EXEC that is refused says so in its own way (server.c, rejectCommand). */
function abortOf(error: Buffer): Buffer {
  return Buffer.concat([Buffer.from("-EXECABORT Transaction discarded because of: "), error.subarray(1)]);
}

/** A server closes a connection without a login that sends more (networking.c, processMultibulkBuffer). */
const MAX_CREDENTIAL_BYTES = 16_384;
const WRONG_PASS = encodeError("WRONGPASS invalid username-password pair or user is disabled.");

/** Checks credentials with a server. Null: see `isAccepted`. */
function proveIdentity(session: Session, frame: Frame, credentials: readonly Buffer[]): Identity | null {
  const answer = session.inquiry.take("credentials");
  if (answer === null) {
    if (!session.isDrained()) return null;
    const pauseMs = session.attempts?.pauseMs(session.router.nowMs()) ?? 0;
    if (pauseMs > 0) {
      session.pauseFor(pauseMs);
      return null;
    }
    if (credentials.some((one) => one.length > MAX_CREDENTIAL_BYTES)) {
      loginFailed(session);
      session.voice.say(WRONG_PASS);
      return null;
    }
    session.block("answer");
    const args = credentials.map((one) => Buffer.from(one));
    const { lane } = session.privateConnection;
    if (lane !== null) logIn(session, lane, args);
    else askForLogin(session, args);
    return null;
  }
  switch (answer.kind) {
    case "yes":
      session.attempts = null;
      return identityOf(session, credentials);
    case "no":
      loginFailed(session);
      session.voice.say(answer.error);
      return null;
    case "nobody":
      session.holding.waitToAsk(frame.start);
      return null;
  }
}

/** A server, or the proxy in its place, has refused the client's credentials. */
function loginFailed(session: Session): void {
  const { counters, config, nowMs } = session.router;
  counters.authFailures++;
  session.attempts ??= new Attempts();
  session.attempts.fail(nowMs(), config.limits.authPause);
}

function askForLogin(session: Session, credentials: readonly Buffer[]): void {
  const isWanted = (): boolean => !session.isClosed;
  session.router.checkCredentials(credentials, isWanted, (found) => session.answered("credentials", found));
}

/**
 * Logs the private connection in: what it watches stays watched, and its server's answer is the proof. The
 * connection goes on as the same user if the answer is no. A wrong login may get no reply while another one
 * has yet to be written (upstream/logins.ts): what the proxy itself has asked there is waited for. Pushes may
 * come in between all the same, as they may to a client of the server itself.
 */
function logIn(session: Session, lane: Lane, credentials: readonly Buffer[]): void {
  lane.spoilt = true;
  const answer = (reply: Buffer | null): void => session.answered("credentials", answerOf(reply));
  const logInNow = (): void => ask(lane, ["AUTH", ...credentials], answer);
  if (lane.inFlight === 0) return logInNow();
  ask(lane, ["PING"], (reply) => (reply === null ? answer(null) : logInNow()));
}

export function auth(session: Session, frame: Frame): boolean {
  if (frame.args.length > 3) return say(session, encodeError("ERR syntax error"));
  const identity = proveIdentity(session, frame, frame.args.slice(1));
  if (identity === null) return isDone(session);
  follow(session, { identity });
  return say(session, OK);
}

type Change = Partial<Pick<Profile, "identity" | "db" | "protocol" | "noTouch">>;

/** The session's profile but for what changes. */
function profileWith(session: Session, change: Change): Profile {
  const { identity, db, protocol, noTouch } = { ...session.profile, ...change };
  return session.router.profiles.get(identity, db, protocol, noTouch);
}

/** The session goes on with what a server has accepted. */
export function follow(session: Session, change: Change): void {
  const profile = profileWith(session, change);
  profile.accepted = true;
  session.useProfile(profile);
}

/** AUTH inside a transaction was answered OK. */
export function followAuth(session: Session, args: readonly Buffer[]): void {
  follow(session, { identity: identityOf(session, args.slice(1)) });
}

/** SELECT inside a transaction was answered OK. */
export function followSelect(session: Session, args: readonly Buffer[]): void {
  follow(session, { db: Number(args[1]?.toString("latin1")) });
}

/** HELLO inside a transaction was answered. @returns the reply for the client. */
export function followHello(session: Session, args: readonly Buffer[], reply: Buffer): Buffer {
  const options = reply[0] === MINUS ? null : helloOptions(args);
  if (options === null || typeof options === "string") return reply;
  const { credentials, name } = options;
  const identity = credentials === null ? session.profile.identity : identityOf(session, credentials);
  follow(session, { identity, protocol: options.protocol ?? session.protocol });
  if (name !== null) session.name = name;
  return encodeValue(greeting(session), session.protocol);
}

/** @param credentials proven ones: the password, or the user's name and the password. */
function identityOf(session: Session, credentials: readonly Buffer[]): Identity {
  const [first = "", second] = credentials.map((one) => one.toString("latin1"));
  return second === undefined
    ? session.router.profiles.identity(null, first)
    : session.router.profiles.identity(first, second);
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

/** Whether HELLO with these arguments asks for a login. */
export function logsIn(args: readonly Buffer[]): boolean {
  const options = helloOptions(args);
  return typeof options !== "string" && options.credentials !== null;
}

export function hello(session: Session, frame: Frame): boolean {
  // Messages do not wait for replies: in the new protocol they must not overtake the word that it is spoken.
  if (session.messages.subscriptions !== null && !session.isDrained()) return false;
  const options = helloOptions(frame.args);
  if (typeof options === "string") return say(session, encodeError(options));
  let { identity } = session.profile;
  if (options.credentials !== null) {
    session.inquiry.provenIdentity ??= proveIdentity(session, frame, options.credentials);
    if (session.inquiry.provenIdentity === null) return isDone(session);
    identity = session.inquiry.provenIdentity;
  }
  const profile = profileWith(session, { identity, protocol: options.protocol ?? session.protocol });
  if (!isAccepted(session, frame, profile)) {
    if (!isDone(session)) return false;
    // The private connection may be another user's already.
    if (session.inquiry.provenIdentity !== null && session.privateConnection.lane !== null) {
      session.privateConnection.lose();
    }
    return true;
  }
  if (!isUnpledged(session, profile)) return false;
  const { lane } = session.privateConnection;
  if (lane !== null && session.protocol !== profile.protocol) {
    lane.spoilt = true;
    ask(lane, ["HELLO", String(profile.protocol)], () => {});
  }
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
  if (Math.abs(db + 0.5) > 2 ** 31) {
    const range = "value must between -2147483648 and 2147483647";
    return say(session, encodeError(`ERR value is out of range, ${range}`));
  }
  if (db < 0 || db > MAX_DB) return say(session, encodeError("ERR DB index is out of range"));
  const profile = profileWith(session, { db });
  if (!isAccepted(session, frame, profile)) return isDone(session);
  if (!isUnpledged(session, profile)) return false;
  const { lane: privateLane } = session.privateConnection;
  if (privateLane === null) {
    session.useProfile(profile);
    return say(session, OK);
  }
  // The private connection follows; its server's OK is the client's.
  if (!session.lanes.mayUse(privateLane)) return false;
  privateLane.spoilt = true;
  const before = session.profile;
  session.useProfile(profile);
  const undo = (): void => session.useProfile(before);
  // Lost, it must not be sent again on a connection that is shared.
  session.send({ command: frame.command, kind: MASTER_READ, bond: "change", undo }, privateLane, frame);
  session.block("drain");
  return true;
}

/** Beyond any number of databases a server is configured with; it keeps the table of profiles small. */
const MAX_DB = 1_000_000;

/**
 * Whether nothing of the session is on the way that would be sent again, should it have to be, as another
 * user, in another database or protocol than it was meant for; else the session waits for it.
 */
function isUnpledged(session: Session, next: Profile): boolean {
  return next === session.profile || session.isDrained();
}

/** Everything a new connection would have; the reply comes in RESP2 (networking.c, resetCommand). */
export function reset(session: Session): boolean {
  // Replies to what came before it are not to be seen; its own is, unless CLIENT REPLY SKIP is meant for it.
  if (!session.isDrained()) return false;
  if (session.skip === "no") session.flight.muted = false;
  session.transaction = null;
  session.messages.endSubscriptions();
  session.privateConnection.reset();
  session.name = "";
  session.noEvict = false;
  session.reading.setConsistency(session.router.config.reads.consistency);
  session.useProfile(session.router.profiles.get(ANONYMOUS, 0, 2));
  return say(session, RESET);
}

/** networking.c, validateClientName. */
export const BAD_NAME = "ERR Client names cannot contain spaces, newlines or special characters.";

export function isPrintable(text: string): boolean {
  return /^[!-~]*$/.test(text);
}
