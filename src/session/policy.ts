/** Commands that are not passed on, or only where the configuration says so, and the words for it. */
import { WRITE } from "../commands/command.ts";
import { MINUS } from "../resp/bytes.ts";
import { OK } from "../resp/encode.ts";
import { mayQueue } from "./permission.ts";
import type { Session } from "./session.ts";
import { type Frame, isDone, sayLater, sendPrivate } from "./ways.ts";

/**
 * Commands that change the group for everybody. They go, if at all, to the master there is now and to no
 * other: one that waited for a master to come would hit the one that had just taken over. SHUTDOWN waits for
 * the replicas, hence the connection of its own.
 */
export function topology(session: Session, frame: Frame): boolean {
  const words = failoverWords(frame);
  const isSwitch = words !== null && session.router.config.commands.topology === "switchover";
  if (!isSwitch && refusesTopology(session, frame)) return true;
  if (!session.router.writable) {
    session.voice.refuse(`ERR proxy: ${nameOf(frame)} is not held: there is no master now to pass it on to`);
    return true;
  }
  if (isSwitch) return switchOver(session, frame, words);
  const result = sendPrivate(session, frame, WRITE, "node");
  if (result !== null) return result;
  session.block("drain");
  return true;
}

export function refusesTopology(session: Session, frame: Frame): boolean {
  const policy = session.router.config.commands.topology;
  if (policy === "pass") return false;
  const name = nameOf(frame);
  const instead = name === "SHUTDOWN" ? "PROXY RESTARTABLE" : "PROXY SWITCHOVER";
  session.voice.refuse(
    `ERR proxy: ${name} is not passed on (commands.topology: ${policy}): ` +
      `use ${instead}, or send it to the node itself, the proxy follows`,
  );
  return true;
}

/** FAILOVER [TO host port] [TIMEOUT ms] as words of PROXY SWITCHOVER; null = it is, or asks for, more. */
function failoverWords({ command, args }: Frame): readonly string[] | null {
  if (command.name !== "failover") return null;
  const given = args.slice(1).map((arg) => arg.toString("latin1", 0, MAX_WORD));
  const words: string[] = [];
  for (let at = 0; at < given.length; ) {
    const word = given[at++]?.toUpperCase();
    const value = given[at++];
    if (value === undefined) return null;
    if (word === "TIMEOUT") words.push(word, value);
    else if (word === "TO") {
      const port = given[at++];
      if (port === undefined) return null;
      words.push(word, value.includes(":") ? `[${value}]:${port}` : `${value}:${port}`);
    } else return null;
  }
  return words;
}

const MAX_WORD = 300;

/** FAILOVER of a client whose user may run it on the server, as a switch that nobody else notices. */
function switchOver(session: Session, frame: Frame, words: readonly string[]): boolean {
  if (!mayQueue(session, frame, ["FAILOVER"])) return isDone(session);
  session.router.counters.requests.admin++;
  const asked = ["PROXY", "SWITCHOVER", ...words].map((word) => Buffer.from(word, "latin1"));
  const reply = session.context.admin(asked, session.protocol);
  // The server answers OK, whatever the switch has to tell.
  const inShort = (full: Buffer): Buffer => (full[0] === MINUS ? full : OK);
  return sayLater(session, Promise.resolve(reply).then(inShort));
}

/** Whether one of these channels is among those by which proxies tell each other who promotes. */
export function isReserved(names: readonly string[]): boolean {
  return names.some((name) => name.startsWith(RESERVED));
}

/** Whoever is subscribed to such a channel counts as a proxy that promotes: a client could block all. */
export function refuseReserved(session: Session, frame: Frame): true {
  session.voice.refuse(
    `ERR proxy: ${nameOf(frame)}: channels that begin with ${RESERVED} are the proxies' own`,
  );
  return true;
}

const RESERVED = "__holdfast__:";

/** Commands by which a replica gets its master's stream, on a connection that nothing else may use then. */
export function refuseReplication(session: Session, frame: Frame): true {
  session.voice.refuse(
    `ERR proxy: ${nameOf(frame)} is not passed on: ` +
      "it would turn a connection that clients share into a replication link",
  );
  return true;
}

export function refuseUnsafe(session: Session, frame: Frame): true {
  session.voice.refuse(
    `ERR proxy: ${nameOf(frame)} is not passed on: ` +
      "by its flags it changes the connection it comes on, which clients share",
  );
  return true;
}

export function nameOf(frame: Frame): string {
  return frame.command.name.toUpperCase();
}

export function unsupported(session: Session, frame: Frame): true {
  const name = frame.command.name.toUpperCase();
  const subcommand = frame.command.handler === "script" ? " DEBUG" : "";
  session.voice.refuse(`ERR proxy: ${name}${subcommand} is not supported yet`);
  return true;
}
