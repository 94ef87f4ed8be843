/**
 * PURE. How many clients a message reaches. A server counts connections, and all subscribers of one user
 * share one: its numbers are put right for the clients of this proxy. (Those of another proxy count as the
 * one connection that they are to the server.)
 */
import { COLON, DOLLAR, lengthEnd, MINUS, readLength, STAR } from "../../resp/bytes.ts";
import { globMatches } from "./glob.ts";
import type { Hub } from "./hub.ts";
import type { Family } from "./topics.ts";

/** Clients beyond the first that hear of a name: the server knows of the first. */
export function unseen(hubs: Iterable<Hub>, family: Family, name: string): number {
  let count = 0;
  for (const hub of hubs) if (hub.isAtMaster) count += beyondFirst(hub.subscribersOf(family, name));
  return count;
}

/** The same for everybody whom a message to a channel reaches, by its name or by a pattern. */
export function unseenReceivers(hubs: Iterable<Hub>, channel: string): number {
  let count = unseen(hubs, "channels", channel);
  for (const hub of hubs) {
    if (!hub.isAtMaster) continue;
    for (const pattern of hub.names("patterns")) {
      if (globMatches(pattern, channel)) count += beyondFirst(hub.subscribersOf("patterns", pattern));
    }
  }
  return count;
}

function beyondFirst(subscribers: number): number {
  return Math.max(0, subscribers - 1);
}

/** PUBLISH's reply, an integer, with so many more. */
export function withMore(reply: Buffer, more: number): Buffer {
  if (reply[0] !== COLON || more === 0) return reply;
  return Buffer.from(`:${Number(reply.toString("latin1", 1)) + more}\r\n`);
}

/**
 * The reply to PUBSUB NUMSUB, an array of names and numbers, with more for each name.
 * @param moreOf gets a name, latin1 text.
 */
export function numsubWithMore(reply: Buffer, moreOf: (name: string) => number): Buffer {
  if (reply[0] !== STAR || reply[1] === MINUS) return reply;
  const elements = readLength(reply, 1, reply.length);
  let pos = lengthEnd;
  const parts: string[] = [reply.toString("latin1", 0, pos)];
  for (let i = 0; i + 1 < elements && reply[pos] === DOLLAR; i += 2) {
    const length = readLength(reply, pos + 1, reply.length);
    const name = reply.toString("latin1", lengthEnd, lengthEnd + length);
    const number = lengthEnd + length + 2;
    const end = reply.indexOf("\r\n", number) + 2;
    const count = Number(reply.toString("latin1", number + 1, end));
    parts.push(reply.toString("latin1", pos, number), `:${count + moreOf(name)}\r\n`);
    pos = end;
  }
  parts.push(reply.toString("latin1", pos));
  return Buffer.from(parts.join(""), "latin1");
}
