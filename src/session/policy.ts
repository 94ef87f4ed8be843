/** Commands that are not passed on, or only where the configuration says so, and the words for it. */
import { WRITE } from "../commands/command.ts";
import type { Session } from "./session.ts";
import { type Frame, sendPrivate } from "./ways.ts";

/**
 * Commands that change the group for everybody. They go, if at all, to the master there is now and to no
 * other: one that waited for a master to come would hit the one that had just taken over. SHUTDOWN waits for
 * the replicas, hence the connection of its own.
 */
export function topology(session: Session, frame: Frame): boolean {
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

export function refusesTopology(session: Session, frame: Frame): boolean {
  if (session.router.config.commands.topology === "pass") return false;
  session.refuse(
    `ERR proxy: ${nameOf(frame)} is not passed on (commands.topology: refuse): ` +
      "send it to the node itself, the proxy follows",
  );
  return true;
}

/** Commands by which a replica gets its master's stream, on a connection that nothing else may use then. */
export function refuseReplication(session: Session, frame: Frame): true {
  session.refuse(
    `ERR proxy: ${nameOf(frame)} is not passed on: ` +
      "it would turn a connection that clients share into a replication link",
  );
  return true;
}

export function refuseUnsafe(session: Session, frame: Frame): true {
  session.refuse(
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
  session.refuse(`ERR proxy: ${name}${subcommand} is not supported yet`);
  return true;
}
