/**
 * CLIENT: about the proxy's clients, in Redis's words (networking.c, clientCommand). What concerns others the
 * server's ACL must allow: it is asked each time, as the user, with a form of the command that does nothing.
 */
import { arityFits, MASTER_READ } from "../../commands/command.ts";
import { encodeText, encodeValue, OK } from "../../resp/encode.ts";
import { mayQueue, toldBy, verdict } from "../permission.ts";
import type { Session } from "../session.ts";
import { BAD_NAME, follow, isPrintable } from "../settings.ts";
import { caching, getRedir, tracking, trackingInfo } from "../tracking/tracking.ts";
import { commandProblem, latin1Error, wrongArity } from "../transaction/transaction.ts";
import { type Frame, isDone, say } from "../ways.ts";
import { factsOf } from "./facts.ts";
import {
  harmlessKill,
  isInteger,
  isKilled,
  isListed,
  killFilter,
  lineOf,
  listFilter,
  NO_ID,
} from "./list.ts";
import { PAUSE_ALL, PAUSE_WRITES } from "./pause.ts";

interface Subcommand {
  /** As in COMMAND; for as long as no server has told its own. */
  readonly arity: number;
  /** @returns whether the command was taken; false = the session is blocked. */
  readonly run: (session: Session, words: readonly string[], frame: Frame) => boolean;
}

/** By name; `words` is what stands behind the name. */
const SUBCOMMANDS: ReadonlyMap<string, Subcommand> = new Map<string, Subcommand>([
  ["id", { arity: 2, run: (session) => value(session, session.id) }],
  ["info", { arity: 2, run: info }],
  ["getname", { arity: 2, run: (session) => value(session, session.name === "" ? null : session.name) }],
  ["setname", { arity: 3, run: setName }],
  ["setinfo", { arity: 4, run: setInfo }],
  ["reply", { arity: 3, run: reply }],
  // Valkey's: the proxy never sends a client elsewhere, whatever it could do (REDIRECT).
  ["capa", { arity: -3, run: (session) => say(session, OK) }],
  ["no-touch", { arity: 3, run: noTouch }],
  ["no-evict", { arity: 3, run: noEvict }],
  ["list", { arity: -2, run: list }],
  ["kill", { arity: -3, run: kill }],
  ["pause", { arity: -3, run: pause }],
  ["unpause", { arity: 2, run: unpause }],
  ["unblock", { arity: -3, run: unblock }],
  ["tracking", { arity: -3, run: (session, _words, frame) => tracking(session, frame) }],
  ["caching", { arity: 3, run: (session, _words, frame) => caching(session, frame) }],
  ["trackinginfo", { arity: 2, run: (session, _words, frame) => trackingInfo(session, frame) }],
  ["getredir", { arity: 2, run: getRedir }],
]);

export function client(session: Session, frame: Frame): boolean {
  const { command, args } = frame;
  const problem = commandProblem(command, args);
  if (problem !== null) return say(session, problem);
  const name = args[1]!.toString("latin1", 0, 32).toLowerCase();
  const subcommand = SUBCOMMANDS.get(name);
  if (subcommand === undefined) {
    session.voice.refuse(
      `ERR proxy: CLIENT ${name.toUpperCase().replace(/[^A-Z-]/g, "?")} is not supported yet`,
    );
    return true;
  }
  session.lastCommand = `client|${name}`;
  if (!arityFits(subcommand.arity, args.length)) return say(session, wrongArity(`client|${name}`));
  const words = args.slice(2).map((arg) => arg.toString("latin1"));
  return subcommand.run(session, words, frame);
}

// What concerns the client alone

function value(session: Session, what: string | number | null): true {
  return say(session, encodeValue(what, session.protocol));
}

function info(session: Session): true {
  return say(session, encodeText(`${lineOf(factsOf(session), knowsLibraries(session))}\n`, session.protocol));
}

/** Whether the server has CLIENT SETINFO, and with it the fields that it sets. */
function knowsLibraries(session: Session): boolean {
  const name = Buffer.from("client");
  return session.context.table.lookup(name, 0, name.length).subcommands?.has("setinfo") === true;
}

function setName(session: Session, [name = ""]: readonly string[]): true {
  if (!isPrintable(name)) return error(session, BAD_NAME);
  session.name = name;
  return say(session, OK);
}

function setInfo(session: Session, [option = "", text = ""]: readonly string[]): true {
  const key = option.toLowerCase();
  if (key !== "lib-name" && key !== "lib-ver") return error(session, `ERR Unrecognized option '${option}'`);
  if (!isPrintable(text)) {
    return error(session, `ERR ${option} cannot contain spaces, newlines or special characters.`);
  }
  const { name = "", version = "" } = session.library ?? {};
  session.library = key === "lib-name" ? { name: text, version } : { name, version: text };
  return say(session, OK);
}

/** The mode changes when all that came before it is answered, so that no request needs a mode of its own. */
function reply(session: Session, [mode = ""]: readonly string[]): boolean {
  if (!session.isDrained()) return false;
  const { flight } = session;
  switch (mode.toLowerCase()) {
    case "on":
      session.skip = "no";
      flight.muted = false;
      return say(session, OK);
    case "off":
      session.skip = "no";
      flight.muted = true;
      return true;
    case "skip":
      // Where there are no replies anyway there is nothing to be skipped.
      if (!flight.muted || session.skip === "taken") session.skip = "next";
      flight.muted = true;
      return true;
    default:
      return error(session, SYNTAX_ERROR);
  }
}

function onOrOff(word: string): boolean | null {
  if (/^on$/i.test(word)) return true;
  return /^off$/i.test(word) ? false : null;
}

// What concerns others

const SYNTAX_ERROR = "ERR syntax error";
const BAD_TIMEOUT = "ERR timeout is not an integer or out of range";

/** The proxy evicts nobody: the flag is shown and does nothing else. */
function noEvict(session: Session, [mode = ""]: readonly string[], frame: Frame): boolean {
  if (allowed(session, frame, ["NO-EVICT", "x"], SYNTAX_ERROR) === null) return isDone(session);
  const on = onOrOff(mode);
  if (on === null) return error(session, SYNTAX_ERROR);
  session.noEvict = on;
  return say(session, OK);
}

/** The session's requests go through connections of which the server knows the same. */
function noTouch(session: Session, [mode = ""]: readonly string[], frame: Frame): boolean {
  const { lane: privateLane } = session.privateConnection;
  if (privateLane !== null && !session.lanes.mayUse(privateLane)) return false;
  if (allowed(session, frame, ["NO-TOUCH", "x"], SYNTAX_ERROR) === null) return isDone(session);
  const on = onOrOff(mode);
  if (on === null) return error(session, SYNTAX_ERROR);
  follow(session, { noTouch: on });
  if (privateLane === null) return say(session, OK);
  // The private connection follows; its server's OK is the client's.
  privateLane.spoilt = true;
  session.send({ command: frame.command, kind: MASTER_READ, bond: "change" }, privateLane, frame);
  return true;
}

function list(session: Session, words: readonly string[], frame: Frame): boolean {
  const filter = listFilter(words);
  // The server says itself what is wrong, or knows more of it than the proxy does.
  const question = filter.kind === "wrong" ? words : ["ID", NO_ID];
  if (allowed(session, frame, ["LIST", ...question]) === null) return isDone(session);
  if (filter.kind === "wrong") return notKnown(session, "LIST");
  const { sessions } = session.context;
  const lines = new Map<Session, string>();
  const chosen = filter.kind === "ids" ? found(sessions, filter.ids) : sessions.values();
  const withLibraries = knowsLibraries(session);
  const most = Math.min(session.router.config.limits.outputBufferBytes, MAX_LIST_BYTES);
  let text = "";
  for (const one of chosen) {
    let line = lines.get(one);
    if (line === undefined) {
      const facts = factsOf(one);
      if (filter.kind === "type" && !isListed(facts, filter.type)) continue;
      line = `${lineOf(facts, withLibraries)}\n`;
      lines.set(one, line);
    }
    text += line;
    if (text.length <= most) continue;
    session.voice.refuse(
      `ERR proxy: the list is larger than limits.outputBufferBytes or 64 MB (${most} bytes)`,
    );
    return true;
  }
  return say(session, encodeText(text, session.protocol));
}

/** No list of clients is as long; one that names the same client again and again could be. */
const MAX_LIST_BYTES = 64 * 1024 * 1024;

function* found(sessions: ReadonlyMap<number, Session>, ids: readonly number[]): Generator<Session> {
  for (const id of ids) {
    const session = sessions.get(id);
    if (session !== undefined) yield session;
  }
}

function notKnown(session: Session, name: string): true {
  session.voice.refuse(`ERR proxy: an option of CLIENT ${name} is not known to the proxy`);
  return true;
}

function kill(session: Session, words: readonly string[], frame: Frame): boolean {
  if (allowed(session, frame, ["KILL", ...harmlessKill(words)]) === null) return isDone(session);
  const filter = killFilter(words);
  if (filter === null) return notKnown(session, "KILL");
  const victims = [...session.context.sessions.values()].filter((one) =>
    isKilled(factsOf(one), filter, one === session),
  );
  for (const one of victims) if (one !== session) one.destroy("operator");
  if (words.length > 1) say(session, encodeValue(victims.length, session.protocol));
  else if (victims.length > 0) say(session, OK);
  else error(session, "ERR No such client");
  // Killing oneself answers first.
  if (victims.includes(session)) session.finish("operator");
  return true;
}

function pause(session: Session, words: readonly string[], frame: Frame): boolean {
  if (allowed(session, frame, ["PAUSE", "x"], BAD_TIMEOUT) === null) return isDone(session);
  const [time = "", mode = "all"] = words;
  if (words.length > 2) return wrongWords(session, frame);
  const level = mode.toLowerCase() === "all" ? PAUSE_ALL : PAUSE_WRITES;
  if (level === PAUSE_WRITES && mode.toLowerCase() !== "write") {
    return error(session, "ERR CLIENT PAUSE mode must be WRITE or ALL");
  }
  if (!isInteger(time)) return error(session, BAD_TIMEOUT);
  const ms = Number(time);
  if (ms < 0) return error(session, "ERR timeout is negative");
  if (ms + Date.now() > 2 ** 63) return error(session, "ERR timeout is out of range");
  session.context.pause.start(level, ms);
  return say(session, OK);
}

/** It has no form that does nothing. */
function unpause(session: Session, _words: readonly string[], frame: Frame): boolean {
  if (!mayQueue(session, frame, ["CLIENT", "UNPAUSE"])) return isDone(session);
  session.context.pause.end();
  return say(session, OK);
}

/**
 * A call that waits at the server is ended by the server, which alone knows whether it still waits; one that
 * waits here for a master is ended here.
 */
function unblock(session: Session, words: readonly string[], frame: Frame): boolean {
  const [id = "", ...rest] = words;
  const target = isInteger(id) ? session.context.sessions.get(Number(id)) : undefined;
  const numberThere = isInteger(id) ? String(target === undefined ? 0 : serverIdOf(target)) : id;
  const question = rest.length > 1 ? ["0"] : [numberThere, ...rest];
  const told = allowed(session, frame, ["UNBLOCK", ...question]);
  if (told === null) return isDone(session);
  if (rest.length > 1) return wrongWords(session, frame);
  const how = rest[0]?.toUpperCase() === "ERROR" ? "ERROR" : "TIMEOUT";
  const isFound = !told.equals(NONE) || target?.flight.unblock(how) === true;
  return value(session, isFound ? 1 : 0);
}

const NONE = Buffer.from(":0\r\n");

/** The number at the master of the connection on which a session waits; 0 = it does not wait there. */
function serverIdOf(session: Session): number {
  const { privateConnection, router } = session;
  const { lane: privateLane, inBlockingCall } = privateConnection;
  if (privateLane === null || !inBlockingCall) return 0;
  const isThere = router.writable && privateLane.target.node === router.epoch.master;
  if (!isThere) return 0;
  // The question takes its time: the connection must not be waiting for somebody else by then.
  privateLane.spoilt = true;
  return privateLane.serverId ?? 0;
}

function wrongWords(session: Session, frame: Frame): true {
  const word = frame.args[1]!.toString("latin1", 0, 128);
  return error(
    session,
    `ERR unknown subcommand or wrong number of arguments for '${word}'. Try CLIENT HELP.`,
  );
}

/** `text` may hold words of the client. */
function error(session: Session, text: string): true {
  return say(session, latin1Error(text));
}

// Asking the server

/**
 * Asks a server, as the user, CLIENT with words that do nothing.
 * @param fault the error that the words lead to; null = they are none. A server looks at rights before it
 * finds fault with words (server.c, processCommand); any other error is the client's answer.
 * @returns its reply when the user may; null = the error was said, or the session waits (see `isDone`).
 */
function allowed(
  session: Session,
  frame: Frame,
  words: readonly string[],
  fault: string | null = null,
): Buffer | null {
  const question = ["CLIENT", ...words].map((word) => Buffer.from(word, "latin1"));
  return toldBy(session, frame, () =>
    session.router.askAsUser(session.profile, question, (told) =>
      session.answered("permission", verdict(told, fault)),
    ),
  );
}
