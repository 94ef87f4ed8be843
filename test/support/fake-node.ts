/**
 * A scriptable stand-in for a Redis node: a handler says what each command is answered, so that a test can
 * bring about what a real server does only by chance (or never should).
 */
import net from "node:net";
import { Decoder, type Reply, ReplyError } from "./resp.ts";

/**
 * Answers one command. A string or buffer is sent as it is (raw RESP); `"silent"` sends nothing at all;
 * `undefined` lets the fake answer as a plain master or replica would (see `FakeNode.info`).
 */
export type Handler = (command: FakeCommand) => Answer | Promise<Answer>;
export type Answer = string | Buffer | undefined | typeof SILENT;
export const SILENT = Symbol("silent");

export interface FakeCommand {
  /** Upper case. */
  readonly name: string;
  /** All arguments, the name first, as they were sent. */
  readonly args: readonly string[];
  readonly connection: FakeConnection;
}

export interface FakeConnection {
  /** 1, 2, 3, … in the order of their arrival. */
  readonly id: number;
  readonly socket: net.Socket;
  readonly commands: string[][];
}

/** RESP2 replies, encoded. */
export const resp = {
  ok: "+OK\r\n",
  nil: "$-1\r\n",
  simple: (text: string): string => `+${text}\r\n`,
  error: (text: string): string => `-${text}\r\n`,
  integer: (value: number | bigint): string => `:${value}\r\n`,
  bulk: (text: string): string => `$${Buffer.byteLength(text)}\r\n${text}\r\n`,
  /** Of encoded elements. */
  array: (items: readonly string[]): string => `*${items.length}\r\n${items.join("")}`,
};

export class FakeNode {
  /** What INFO answers; change it at any time. */
  readonly info: Map<string, string>;
  readonly connections = new Set<FakeConnection>();
  /** Every command of every connection, in the order of arrival. */
  readonly commands: string[][] = [];
  handler: Handler;
  #server: net.Server | undefined;
  #port = 0;
  #lastId = 0;

  constructor(handler: Handler = () => undefined) {
    this.handler = handler;
    this.info = new Map([
      ["redis_version", "7.0.15"],
      ["run_id", "f".repeat(40)],
      ["loading", "0"],
      ["role", "master"],
      ["connected_slaves", "0"],
      ["master_failover_state", "no-failover"],
      ["master_replid", "a".repeat(40)],
      ["master_replid2", "0".repeat(40)],
      ["master_repl_offset", "0"],
      ["second_repl_offset", "-1"],
    ]);
  }

  get port(): number {
    return this.#port;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Listens; after `stop` again on the same port. */
  async start(): Promise<this> {
    const server = net.createServer({ noDelay: true }, (socket) => this.#onConnection(socket));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: "127.0.0.1", port: this.#port }, resolve);
    });
    this.#port = (server.address() as net.AddressInfo).port;
    return this;
  }

  /** Ends as a crashed server would: nobody listens, all connections are reset. */
  async stop(): Promise<void> {
    this.#server?.close();
    this.#server = undefined;
    for (const connection of this.connections) connection.socket.resetAndDestroy();
    this.connections.clear();
  }

  close(): Promise<void> {
    return this.stop();
  }

  /** Commands received with this name (upper case). */
  received(name: string): string[][] {
    return this.commands.filter((args) => args[0]?.toUpperCase() === name);
  }

  #onConnection(socket: net.Socket): void {
    const connection: FakeConnection = { id: ++this.#lastId, socket, commands: [] };
    this.connections.add(connection);
    const decoder = new Decoder();
    // Answers leave in the order of their commands, also when a handler takes its time.
    let previous: Promise<void> = Promise.resolve();
    socket.on("data", (chunk: Buffer) => {
      for (const { value } of decoder.push(chunk)) {
        const args = toArguments(value);
        connection.commands.push(args);
        this.commands.push(args);
        previous = previous.then(() => this.#answer(args, connection));
      }
    });
    socket.on("error", () => {});
    socket.on("close", () => this.connections.delete(connection));
  }

  async #answer(args: readonly string[], connection: FakeConnection): Promise<void> {
    const name = (args[0] ?? "").toUpperCase();
    const answer = (await this.handler({ name, args, connection })) ?? this.#defaultAnswer(name, args);
    if (answer !== SILENT && !connection.socket.destroyed) connection.socket.write(answer);
  }

  #defaultAnswer(name: string, args: readonly string[]): string {
    switch (name) {
      case "PING":
        return resp.simple("PONG");
      case "INFO":
        return resp.bulk([...this.info].map(([key, value]) => `${key}:${value}\r\n`).join(""));
      case "AUTH":
      case "SELECT":
      case "READONLY":
      case "CLIENT":
      case "SET":
        return resp.ok;
      case "ECHO":
        return resp.bulk(args[1] ?? "");
      case "GET":
        return resp.nil;
      case "COMMAND":
        return resp.array([]);
      default:
        return resp.error(`ERR unknown command '${args[0] ?? ""}', with args beginning with: `);
    }
  }
}

/** A fake node, started. */
export function startFakeNode(handler?: Handler): Promise<FakeNode> {
  return new FakeNode(handler).start();
}

function toArguments(value: Reply): string[] {
  if (!Array.isArray(value)) throw new ReplyError("a fake node only takes requests as arrays");
  return value.map(String);
}
