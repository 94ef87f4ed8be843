/** The lines of promoters.ts and listener.ts: a connection of ioredis each. */

import { Connection, type Login } from "../../topology/dial.ts";
import type { NodeId } from "../../topology/epoch.ts";
import type { Line } from "./promoters.ts";

/** In CLIENT LIST of the nodes. */
type ConnectionName = "holdfast-promoter" | "holdfast-listener";

export class PromoterLine implements Line {
  readonly #connection: Connection;
  readonly #login: Login;
  readonly #name: ConnectionName;

  /** @param onEnd told once, never before this returns; maybe after hangUp(), too. */
  constructor(node: NodeId, login: Login, onEnd: () => void, name: ConnectionName = "holdfast-promoter") {
    this.#login = login;
    this.#name = name;
    this.#connection = new Connection(node, onEnd);
  }

  open(): Promise<void> {
    return this.#explain(this.#connection.enter(this.#login, this.#name));
  }

  subscribe(
    channels: readonly string[],
    onMessage: (channel: string, text: string) => void,
  ): Promise<unknown> {
    const { redis } = this.#connection;
    redis.on("message", onMessage);
    return this.#explain(redis.subscribe(...channels));
  }

  channels(pattern: string): Promise<unknown> {
    return this.#explain(this.#connection.redis.call("pubsub", ["CHANNELS", pattern]));
  }

  subscribers(channel: string): Promise<unknown> {
    return this.#explain(this.#connection.redis.call("pubsub", ["NUMSUB", channel]));
  }

  hangUp(): void {
    this.#connection.hangUp();
  }

  async #explain<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw this.#connection.causeOf(error);
    }
  }
}
