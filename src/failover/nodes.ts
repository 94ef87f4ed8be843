/**
 * Carries out commands of the failover machine on nodes, each over a connection of its own: what an earlier
 * command left behind, or a connection that hangs, never delays the next one. It decides nothing, repeats
 * nothing, and says truthfully whether the node may have got the command.
 */

import { type Address, addressOf } from "../config/address.ts";
import { announcedAddress } from "../topology/address.ts";
import { Connection, isReplyError, type Login, RefusedLogin, setDeadline } from "../topology/dial.ts";
import type { NodeId } from "../topology/epoch.ts";
import { type AttachedReplica, parseReport, type ReportBase } from "../topology/report.ts";
import type { CommandResult, NodeCommand } from "./model.ts";

export interface NodeCommander {
  /**
   * `done` is called exactly once, never before this returns, and not at all after close(). A command that
   * was begun is not taken back by anything but close(), which cannot unsend it either.
   */
  run(node: NodeId, command: NodeCommand, done: (result: CommandResult) => void): void;
  /** Gives up all commands under way; nothing is called back afterwards. */
  close(): void;
}

export interface NodeCommanderOptions extends Login {
  /** For connecting, logging in and the answer together, in ms. */
  readonly timeoutMs: number;
  /**
   * Whether two addresses are known to be one node: a master lists its replicas by the addresses that they
   * announce, which need not be those we know them by. Default: only when they are equal.
   */
  readonly isSame?: (one: NodeId, other: NodeId) => boolean;
  /**
   * Under which address a node reaches the master that it is to follow; null = none is known. Default: the
   * one we know that master by.
   */
  readonly addressFor?: (node: NodeId, master: NodeId) => Address | null;
}

/** In CLIENT LIST of the nodes. */
const CONNECTION_NAME = "holdfast-failover";
const MAX_DETAIL = 200;

export function createNodeCommander(options: NodeCommanderOptions): NodeCommander {
  return new Commander(options);
}

class Commander implements NodeCommander {
  readonly #options: NodeCommanderOptions;
  readonly #errands = new Set<Errand>();
  #closed = false;

  constructor(options: NodeCommanderOptions) {
    this.#options = options;
  }

  run(node: NodeId, command: NodeCommand, done: (result: CommandResult) => void): void {
    if (this.#closed) throw new Error("run() after close()");
    const errand = new Errand(node, command, this.#options, {
      onResult: done,
      onEnd: () => this.#errands.delete(errand),
    });
    this.#errands.add(errand);
    errand.start();
  }

  close(): void {
    this.#closed = true;
    for (const errand of [...this.#errands]) errand.close();
  }
}

interface ErrandEvents {
  onResult(result: CommandResult): void;
  /** Its connection is gone. */
  onEnd(): void;
}

/** The node said no. */
class Refusal extends Error {}

/** One command on one connection. */
class Errand {
  readonly #node: NodeId;
  readonly #command: NodeCommand;
  readonly #options: NodeCommanderOptions;
  readonly #events: ErrandEvents;
  readonly #connection: Connection;
  #cancelDeadline: (() => void) | null = null;
  /** The command itself, as opposed to the login and questions before it, may have reached the node. */
  #sent = false;
  #told = false;
  #over = false;

  constructor(node: NodeId, command: NodeCommand, options: NodeCommanderOptions, events: ErrandEvents) {
    this.#node = node;
    this.#command = command;
    this.#options = options;
    this.#events = events;
    this.#connection = new Connection(node);
  }

  start(): void {
    this.#cancelDeadline = setDeadline(this.#options.timeoutMs, () => this.#overdue());
    void this.#run();
  }

  close(): void {
    this.#told = true;
    this.#end();
  }

  async #run(): Promise<void> {
    const result = await this.#result();
    if (this.#over) return;
    this.#tell(result);
    if (result.kind === "done") await this.#afterwards();
    this.#end();
  }

  async #result(): Promise<CommandResult> {
    try {
      await this.#connection.enter(this.#options, CONNECTION_NAME);
      await this.#carryOut();
      return { kind: "done" };
    } catch (error) {
      return this.#failure(error);
    }
  }

  async #carryOut(): Promise<void> {
    const command = this.#command;
    switch (command.kind) {
      case "promote":
        return await this.#replicaOf("NO", "ONE");
      case "follow":
        return await this.#follow(command.master);
      case "failover": {
        const { host, port } = await this.#asListed(command.to);
        await this.#ask("failover", "TO", host, `${port}`, "TIMEOUT", `${command.timeoutMs}`);
        return;
      }
      case "abort-failover":
        return await this.#askUnless(/no failover in progress/i, "failover", "ABORT");
      case "acknowledge":
        return await this.#acknowledge();
      case "relink":
        await this.#ask("client", "KILL", "TYPE", "master");
        return;
      case "pause-writes":
        await this.#ask("client", "PAUSE", `${command.forMs}`, "WRITE");
        return;
      case "unpause":
        await this.#ask("client", "UNPAUSE");
        return;
      case "keep-role":
        return await this.#askUnless(/without a config file/i, "config", "REWRITE");
    }
  }

  /** What need not be waited for: a restarted node should have the role that it was given. */
  async #afterwards(): Promise<void> {
    switch (this.#command.kind) {
      case "promote":
      case "follow":
        // Without a configuration file, or without the right to it, the role lasts until the restart.
        await this.#ask("config", "REWRITE").catch(() => undefined);
        return;
      case "failover":
      case "abort-failover":
      case "acknowledge":
      case "relink":
      case "pause-writes":
      case "unpause":
      case "keep-role":
        return;
    }
  }

  async #follow(master: NodeId): Promise<void> {
    const { addressFor = (_: NodeId, known: NodeId) => addressOf(known) } = this.#options;
    const address = addressFor(this.#node, master);
    if (address === null) {
      throw new Refusal(`no address is known under which ${this.#node} can reach ${master}`);
    }
    return await this.#replicaOf(address.host, `${address.port}`);
  }

  /** REPLICAOF, which servers before Redis 5 call SLAVEOF. */
  async #replicaOf(...args: readonly string[]): Promise<void> {
    try {
      await this.#ask("replicaof", ...args);
    } catch (error) {
      if (!isReplyError(error) || !/unknown command/i.test(error.message)) throw error;
      await this.#ask("slaveof", ...args);
    }
  }

  /** The replica by the address the master lists it under, which is the only one that FAILOVER takes. */
  async #asListed(to: NodeId): Promise<AttachedReplica> {
    const text = await this.#connection.redis.call("info", "replication");
    const envelope = { node: this.#node, sentAtMs: 0, receivedAtMs: 0 };
    const result = parseReport(envelope, typeof text === "string" ? text : "", NO_BASE);
    if (!result.ok) throw new Refusal(`INFO replication makes no sense: ${result.error}`);
    const { role, replicas } = result.report;
    if (role !== "master") throw new Refusal(`${this.#node} is not a master`);
    const isSame = this.#options.isSame ?? ((one: NodeId, other: NodeId) => one === other);
    const listed = replicas.find((replica) => {
      const id = announcedAddress(this.#node, replica);
      return id !== null && (id === to || isSame(id, to));
    });
    if (listed !== undefined) return listed;
    const names = replicas.map(({ host, port }) => `${host}:${port}`).join(", ") || "none";
    throw new Refusal(`${this.#node} does not list ${to} among its replicas (it lists: ${names})`);
  }

  /**
   * `REPLCONF GETACK *` makes a replica tell its master its offset and has no reply (replication.c,
   * replconfCommand). So the one reply that comes, PONG or a refusal, is that of PING or of REPLCONF, and
   * ioredis gives it to the first of the two promises; the second one is left over.
   */
  async #acknowledge(): Promise<void> {
    const first = this.#ask("replconf", "GETACK", "*");
    this.#connection.redis.call("ping").catch(() => undefined);
    await first;
  }

  async #askUnless(harmless: RegExp, ...call: readonly [string, ...string[]]): Promise<void> {
    try {
      await this.#ask(...call);
    } catch (error) {
      if (!isReplyError(error) || !harmless.test(error.message)) throw error;
    }
  }

  #ask(name: string, ...args: readonly string[]): Promise<unknown> {
    this.#sent = true;
    return this.#connection.redis.call(name, [...args]);
  }

  #failure(error: unknown): CommandResult {
    if (error instanceof Refusal || error instanceof RefusedLogin || isReplyError(error)) {
      return { kind: "refused", error: clip(error.message) };
    }
    const text = clip(this.#connection.causeOf(error).message);
    return { kind: this.#sent ? "unknown" : "unreachable", error: text };
  }

  #overdue(): void {
    const error = `no ${this.#sent ? "answer" : "connection"} within ${this.#options.timeoutMs} ms`;
    this.#tell({ kind: this.#sent ? "unknown" : "unreachable", error });
    this.#end();
  }

  #tell(result: CommandResult): void {
    if (this.#told) return;
    this.#told = true;
    this.#events.onResult(result);
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancelDeadline?.();
    this.#connection.hangUp();
    this.#events.onEnd();
  }
}

/** INFO replication alone is read; who else it is, is not asked. */
const NO_BASE: ReportBase = { runId: "", version: "", loading: false, keys: 0, aof: false };

function clip(text: string): string {
  return text.slice(0, MAX_DETAIL);
}
