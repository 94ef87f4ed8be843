/**
 * Listens once, before a planned switch, for Sentinels that the proxy was not told of: the edge of
 * foreign-sentinels.ts for all proxies, also those that do not promote and so do not listen all the time.
 */

import type { Login } from "../../topology/dial.ts";
import type { NodeId } from "../../topology/epoch.ts";
import {
  HELLO_CHANNEL,
  type Hello,
  LISTEN_MS,
  objectionOf,
  readHello,
  SILENCE,
  withHello,
} from "./foreign-sentinels.ts";
import { askPresence } from "./presence.ts";
import { PromoterLine } from "./promoter-line.ts";

export interface ListenerOptions extends Login {
  /** For the questions, connecting included, ms. */
  readonly timeoutMs: number;
}

/** How much later than a replica's the master's answer may be, ms: it may be busy with a script. */
const MASTER_FIRST_MS = 100;

interface Call {
  readonly line: PromoterLine;
  /** Aborted when the connection has ended. */
  readonly ended: AbortSignal;
}

export class Listener {
  readonly #options: ListenerOptions;
  readonly #calls = new Set<Call>();

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /**
   * Why a Sentinel that watches one of these nodes, the master first, forbids to change roles; null = none
   * does, or it could not be asked. Known within a few ms where nobody subscribes to what they say, else
   * within LISTEN_MS. Never rejects.
   */
  async objection(nodes: readonly NodeId[]): Promise<string | null> {
    const calls = nodes.map((node) => this.#dial(node));
    const hangAllUp = (): void => {
      for (const { line } of calls) line.hangUp();
    };
    const timer = setTimeout(hangAllUp, this.#options.timeoutMs);
    try {
      const suspect = await firstToTell(calls.map(whoMaySpeak));
      if (suspect === null) return null;
      const heard = firstHello(suspect);
      await heard.subscribed;
      clearTimeout(timer);
      const hello = await heard.hello;
      return hello === null ? null : objectionOf(withHello(SILENCE, hello, 0), 0);
    } catch {
      return null;
    } finally {
      clearTimeout(timer);
      hangAllUp();
      for (const call of calls) this.#calls.delete(call);
    }
  }

  #dial(node: NodeId): Call {
    const ended = new AbortController();
    const line = new PromoterLine(node, this.#options, () => ended.abort(), "holdfast-listener");
    const call: Call = { line, ended: ended.signal };
    this.#calls.add(call);
    return call;
  }

  close(): void {
    for (const { line } of this.#calls) line.hangUp();
  }
}

/** The call, where anybody but proxies listens to what Sentinels say, as Sentinels do; null = nobody does. */
async function whoMaySpeak(call: Call): Promise<Call | null> {
  await call.line.open();
  const { subscribers, others } = await askPresence(call.line, "");
  return subscribers > others.length ? call : null;
}

/**
 * A node on which somebody subscribes, whichever is the first to tell; null = nobody does, by the master's
 * word. A Sentinel may not know a replica yet, so that of the others counts only where the master is silent.
 */
async function firstToTell(asked: readonly Promise<Call | null>[]): Promise<Call | null> {
  const [master, ...others] = asked;
  if (master === undefined) return null;
  const word = (): Promise<null> => new Promise((resolve) => setTimeout(resolve, MASTER_FIRST_MS, null));
  const orMaster = async (other: Promise<Call | null>): Promise<Call | null> =>
    (await other) ?? (await Promise.race([master.catch(() => null), word()]));
  return Promise.any([master, ...others.map(orMaster)]);
}

/** What is heard first: null when there is nothing within LISTEN_MS, or the connection ends. */
function firstHello({ line, ended }: Call) {
  let subscribed: Promise<unknown> = Promise.resolve();
  const hello = new Promise<Hello | null>((resolve) => {
    const finish = (heard: Hello | null): void => {
      clearTimeout(timer);
      resolve(heard);
    };
    const timer = setTimeout(finish, LISTEN_MS, null);
    ended.addEventListener("abort", () => finish(null));
    subscribed = line.subscribe([HELLO_CHANNEL], (channel, text) => {
      const heard = channel === HELLO_CHANNEL ? readHello(text) : null;
      if (heard !== null) finish(heard);
    });
  });
  return { subscribed, hello };
}
