/**
 * Listens once, before a planned switch, for Sentinels that the proxy was not told of: the edge of
 * foreign-sentinels.ts for all proxies, also those that do not promote and so do not listen all the time.
 */

import type { Redis } from "ioredis";
import { Connection, type Login } from "../../topology/dial.ts";
import type { NodeId } from "../../topology/epoch.ts";
import {
  HELLO_CHANNEL,
  type Hello,
  LISTEN_MS,
  objectionOf,
  readHello,
  readSubscribers,
  SILENCE,
  withHello,
} from "./foreign-sentinels.ts";
import { MARKER_PREFIX, readMarkers } from "./lease.ts";

export interface ListenerOptions extends Login {
  /** For the questions, connecting included, ms. */
  readonly timeoutMs: number;
}

const CONNECTION_NAME = "holdfast-listener";
/** How much later than a replica's the master's answer may be, ms: it may be busy with a script. */
const MASTER_FIRST_MS = 100;

export class Listener {
  readonly #options: ListenerOptions;
  readonly #connections = new Set<Connection>();

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /**
   * Why a Sentinel that watches one of these nodes, the master first, forbids to change roles; null = none
   * does, or it could not be asked. Known within a few ms where nobody subscribes to what they say, else
   * within LISTEN_MS. Never rejects.
   */
  async objection(nodes: readonly NodeId[]): Promise<string | null> {
    const dialled = nodes.map((node) => new Connection(node));
    for (const connection of dialled) this.#connections.add(connection);
    const hangAllUp = (): void => {
      for (const connection of dialled) connection.hangUp();
    };
    const timer = setTimeout(hangAllUp, this.#options.timeoutMs);
    try {
      const asked = dialled.map(async (connection) => {
        return (await this.#maySpeak(connection)) ? connection.redis : null;
      });
      const suspect = await firstToTell(asked);
      if (suspect === null) return null;
      const heard = firstHello(suspect);
      await suspect.subscribe(HELLO_CHANNEL);
      clearTimeout(timer);
      const hello = await heard;
      return hello === null ? null : objectionOf(withHello(SILENCE, hello, 0), 0);
    } catch {
      return null;
    } finally {
      clearTimeout(timer);
      hangAllUp();
      for (const connection of dialled) this.#connections.delete(connection);
    }
  }

  /** Whether anybody but proxies listens there to what Sentinels say, as Sentinels do. */
  async #maySpeak(connection: Connection): Promise<boolean> {
    await connection.enter(this.#options, CONNECTION_NAME);
    const { redis } = connection;
    const [channels, counts] = await Promise.all([
      redis.call("pubsub", ["CHANNELS", `${MARKER_PREFIX}*`]),
      redis.call("pubsub", ["NUMSUB", HELLO_CHANNEL]),
    ]);
    return (readSubscribers(counts) ?? 0) > (readMarkers(channels, "")?.others.length ?? 0);
  }

  close(): void {
    for (const connection of this.#connections) connection.hangUp();
  }
}

/**
 * A node on which somebody subscribes, whichever is the first to tell; null = nobody does, by the master's
 * word. A Sentinel may not know a replica yet, so that of the others counts only where the master is silent.
 */
async function firstToTell(asked: readonly Promise<Redis | null>[]): Promise<Redis | null> {
  const [master, ...others] = asked;
  if (master === undefined) return null;
  const word = (): Promise<null> => new Promise((resolve) => setTimeout(resolve, MASTER_FIRST_MS, null));
  const orMaster = async (other: Promise<Redis | null>): Promise<Redis | null> =>
    (await other) ?? (await Promise.race([master.catch(() => null), word()]));
  return Promise.any([master, ...others.map(orMaster)]);
}

/** Null when there is none within LISTEN_MS, or the connection ends. */
function firstHello(redis: Redis): Promise<Hello | null> {
  return new Promise((resolve) => {
    const finish = (hello: Hello | null): void => {
      clearTimeout(timer);
      resolve(hello);
    };
    const timer = setTimeout(finish, LISTEN_MS, null);
    redis.on("end", () => finish(null));
    redis.on("message", (channel: string, text: string) => {
      const hello = channel === HELLO_CHANNEL ? readHello(text) : null;
      if (hello !== null) finish(hello);
    });
  });
}
