import { COLON, MINUS, PLUS } from "../resp/bytes.ts";
import { encodeRequest } from "../resp/encode.ts";
import type { NodeId } from "../topology/epoch.ts";

/**
 * Connections to the master that ended for us while the server may still hold writes of theirs: bytes
 * that lie in its socket, or on a link that stands still, run there whenever it reads them, also behind
 * what the client writes next. So the next connection to the same running master has the server end them
 * (CLIENT KILL ID) before it carries anything of a client.
 */

/** open: nobody has asked for its end; spared: asked for, and refused (the user may not). */
export type SeveredState = "open" | "asked" | "ended" | "spared";

export interface Severed {
  readonly node: NodeId;
  /** The master's history: with another one it is another process, or was a replica since. */
  readonly replid: string | null;
  /** The connection's number there; null = not known, so nobody can ask for its end. */
  readonly serverId: number | null;
  /** "asked": by a connection that is being opened, for which others wait. */
  state: SeveredState;
  /** Questions about it through connections that are open; nobody waits for them: they may stand still. */
  questions: number;
}

/** Remembered at most; beyond it the oldest are left to themselves. */
const MAX_SEVERED = 256;

/** Servers answer this to CLIENT KILL in its old form; what is gone runs nothing. */
const GONE = "-ERR No such client";

export class SeveredConnections {
  private list: Severed[] = [];
  private waiting: (() => void)[] = [];
  private readonly onEnded: () => void;

  /** @param onEnded what a connection had left behind at the server may have run there, until now. */
  constructor(onEnded: () => void) {
    this.onEnded = onEnded;
  }

  add(target: { node: NodeId; replid: string | null }, serverId: number | null): Severed {
    const { node, replid } = target;
    const one: Severed = {
      node,
      replid,
      serverId,
      state: serverId === null ? "spared" : "open",
      questions: 0,
    };
    if (serverId !== null) this.list.push(one);
    if (this.list.length > MAX_SEVERED) this.list.shift();
    return one;
  }

  /**
   * Those whose end the caller is to ask for; it tells what came of it with `settle`.
   * @param again also those for which that was refused: another user may have the right.
   */
  take(node: NodeId, replid: string, again: boolean): Severed[] {
    const taken = this.list.filter(
      (one) => isOf(one, node, replid) && (one.state === "open" || (again && one.state === "spared")),
    );
    for (const one of taken) one.state = "asked";
    return taken;
  }

  /** Whether somebody has asked for the end of one, and has no answer yet. */
  isAsking(node: NodeId, replid: string): boolean {
    return this.list.some((one) => isOf(one, node, replid) && one.state === "asked");
  }

  /** @param reply the server's; null = it could not be asked. */
  settle(one: Severed, reply: Buffer | null): void {
    if (one.state !== "ended") one.state = reply === null ? "open" : isEnd(reply) ? "ended" : "spared";
    if (one.state === "ended") this.onEnded();
    this.list = this.list.filter(({ state }) => state !== "ended");
    const { waiting } = this;
    this.waiting = [];
    for (const run of waiting) run();
  }

  /** The same for a question through a connection that is open. */
  answered(one: Severed, reply: Buffer | null): void {
    one.questions--;
    if (reply !== null && one.state !== "asked") this.settle(one, reply);
    else if (reply !== null && isEnd(reply)) this.settle(one, reply);
  }

  /** Calls once when one of them is settled. */
  whenSettled(run: () => void): void {
    this.waiting.push(run);
  }

  /** The master is another process, or has another history: their numbers mean nothing there. */
  clear(): void {
    this.list = [];
  }
}

function isOf(one: Severed, node: NodeId, replid: string): boolean {
  return one.node === node && one.replid === replid;
}

/** CLIENT KILL ID answers how many it has ended: 0 = it was gone. */
function isEnd(reply: Buffer): boolean {
  if (reply[0] === MINUS) return reply.toString("latin1", 0, GONE.length) === GONE;
  return reply[0] === COLON || reply[0] === PLUS;
}

export function killRequest({ serverId }: Severed): readonly string[] {
  return ["CLIENT", "KILL", "ID", String(serverId)];
}

export function killRequests(all: readonly Severed[]): Buffer {
  return Buffer.concat(all.map((one) => encodeRequest(killRequest(one))));
}
