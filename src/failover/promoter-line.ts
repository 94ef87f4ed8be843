/** The lines of promoters.ts: a connection of ioredis each. */

import type { Redis } from "ioredis";
import { dial, greeting, hangUp, type Login, messageOf, refusedLogin } from "../topology/dial.ts";
import type { NodeId } from "../topology/epoch.ts";
import type { Line } from "./promoters.ts";

/** In CLIENT LIST of the nodes. */
const CONNECTION_NAME = "holdfast-promoter";

export class PromoterLine implements Line {
  readonly #redis: Redis;
  readonly #login: Login;
  /** The reason ioredis gave for a failure, which comes apart from the rejected promise. */
  #lastError = "";

  /** @param onEnd told once, never before this returns; maybe after hangUp(), too. */
  constructor(node: NodeId, login: Login, onEnd: () => void) {
    this.#login = login;
    this.#redis = dial(node);
    this.#redis.on("error", (error: unknown) => {
      this.#lastError ||= messageOf(error);
    });
    this.#redis.on("end", onEnd);
  }

  async open(): Promise<void> {
    await this.#explain(this.#redis.connect());
    const prelude = greeting(this.#login, CONNECTION_NAME);
    const replies = (await this.#explain(this.#redis.pipeline(prelude).exec())) ?? [];
    const refused = refusedLogin(prelude, replies);
    if (refused !== null) throw new Error(refused);
  }

  subscribe(channel: string): Promise<unknown> {
    return this.#explain(this.#redis.subscribe(channel));
  }

  channels(pattern: string): Promise<unknown> {
    return this.#explain(this.#redis.call("pubsub", ["CHANNELS", pattern]));
  }

  hangUp(): void {
    hangUp(this.#redis);
  }

  async #explain<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw this.#lastError === "" ? error : new Error(this.#lastError);
    }
  }
}
