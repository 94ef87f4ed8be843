/**
 * The one place that touches sockets: listening and dialling with a single read buffer for all connections.
 *
 * Node can hand every read of a socket to a callback in a buffer of ours (`onread`), which saves an
 * allocation and a stream event per read. An accepted socket has no such option: its handle is given to a
 * new socket that has. What a handler does not consume during the call it must copy: the next read of any
 * connection overwrites the buffer.
 */
import net from "node:net";
import type { Address } from "./config/address.ts";

/** What one connection reports. No method may throw for reasons that lie with the peer. */
export interface StreamHandler {
  /** Bytes [0, end) of `buf` arrived; they are valid during this call only. */
  onData(buf: Buffer, end: number): void;
  /** The peer will send nothing more; it may still read. */
  onEnd(): void;
  /** The connection is gone, exactly once. */
  onClose(): void;
  /** A handler threw: a bug of ours. The connection is destroyed right after this call. */
  onFault(error: unknown): void;
}

/** libuv offers 64 KB for each read; more would not be used. */
const readBuffer = Buffer.allocUnsafeSlow(64 * 1024);

const handlers = new WeakMap<net.Socket, StreamHandler>();

function onEnd(this: net.Socket): void {
  guarded(this, (handler) => handler.onEnd());
}

function onClose(this: net.Socket): void {
  guarded(this, (handler) => handler.onClose());
}

/** The close that follows tells the handler; the cause of a broken connection is the kernel's business. */
function onError(): void {}

function guarded(socket: net.Socket, call: (handler: StreamHandler) => void): void {
  const handler = handlers.get(socket);
  if (handler === undefined) return;
  try {
    call(handler);
  } catch (error) {
    handler.onFault(error);
    socket.destroy();
  }
}

function attach(socket: net.Socket, handler: StreamHandler): void {
  handlers.set(socket, handler);
  socket.on("end", onEnd);
  socket.on("close", onClose);
  socket.on("error", onError);
}

/** A socket's handler is known only after the socket exists, the read option must exist before it. */
function readOption(holder: { socket: net.Socket | null; handler: StreamHandler | null }): net.OnReadOpts {
  return {
    buffer: readBuffer,
    callback: (bytes) => {
      const { handler, socket } = holder;
      if (handler === null) return true;
      try {
        handler.onData(readBuffer, bytes);
      } catch (error) {
        handler.onFault(error);
        socket?.destroy();
      }
      return true;
    },
  };
}

interface SocketInternals {
  _handle: unknown;
}

/** Moves an accepted socket's handle to a socket that reads into the shared buffer. */
function adopt(accepted: net.Socket, makeHandler: (socket: net.Socket) => StreamHandler): void {
  const internals = accepted as unknown as SocketInternals;
  const handle = internals._handle;
  if (handle === null || handle === undefined) return void accepted.destroy();
  internals._handle = null;
  const holder: { socket: net.Socket | null; handler: StreamHandler | null } = {
    socket: null,
    handler: null,
  };
  const options = { handle, allowHalfOpen: true, onread: readOption(holder) };
  const socket = new net.Socket(options as unknown as net.SocketConstructorOpts);
  holder.socket = socket;
  holder.handler = makeHandler(socket);
  attach(socket, holder.handler);
}

/** Accepts clients on one address. */
export class Listener {
  private readonly server: net.Server;
  private readonly address: Address;

  constructor(address: Address, makeHandler: (socket: net.Socket) => StreamHandler) {
    this.address = address;
    this.server = net.createServer(
      { pauseOnConnect: true, allowHalfOpen: true, noDelay: true, keepAlive: true },
      (socket) => adopt(socket, makeHandler),
    );
  }

  /** @returns the port it listens on; rejects when the address cannot be had. */
  start(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.server.once("error", reject);
      this.server.listen({ host: this.address.host, port: this.address.port, backlog: 4096 }, () => {
        this.server.off("error", reject);
        // EMFILE and the like: the client is refused by the kernel, the listener lives on.
        this.server.on("error", () => {});
        resolve((this.server.address() as net.AddressInfo).port);
      });
    });
  }

  /** Stops accepting; connections that exist are not touched. */
  close(): void {
    this.server.close();
  }
}

export interface DialOptions {
  readonly address: Address;
  /** Idle time in ms before TCP keep-alive probes start; 0 = off. */
  readonly keepAliveMs: number;
  onConnect(): void;
}

/** Opens a connection to a node. Failure to connect arrives as `onClose` without `onConnect`. */
export function dial(options: DialOptions, handler: StreamHandler): net.Socket {
  const holder: { socket: net.Socket | null; handler: StreamHandler | null } = { socket: null, handler };
  const socket = net.connect({
    host: options.address.host,
    port: options.address.port,
    noDelay: true,
    keepAlive: options.keepAliveMs > 0,
    keepAliveInitialDelay: options.keepAliveMs,
    onread: readOption(holder),
  });
  holder.socket = socket;
  attach(socket, handler);
  socket.once("connect", () => guarded(socket, () => options.onConnect()));
  return socket;
}
