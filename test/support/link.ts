/**
 * A TCP link that misbehaves on demand, to be put between the proxy and a node (or a client and the proxy).
 *
 *   near side ──▶ ┌ up   ┐ ──▶ far side (the target)
 *             ◀── └ down ┘ ◀──
 *
 * Each arrow is a `Direction`: a queue of chunks that are written when they are due, in order, unless
 * the link is stalled.
 */
import net from "node:net";
import type { RedisServer } from "./redis.ts";

/** From the near side to the far side, or back. */
export type Way = "up" | "down";

export interface LinkOptions {
  /** Milliseconds each chunk takes, each way. */
  readonly delayMs?: number;
  /** Pass everything on in pieces of so many bytes, each in a write of its own. */
  readonly sliceBytes?: number;
}

export class ChaosLink {
  readonly #target: { readonly host: string; readonly port: number };
  readonly #connections = new Set<Connection>();
  #server: net.Server | undefined;
  #port = 0;
  #accepted = 0;
  #stalled: ReadonlySet<Way> = new Set();
  #delayMs: number;
  #sliceBytes: number;

  constructor(target: { host: string; port: number }, options: LinkOptions = {}) {
    this.#target = target;
    this.#delayMs = options.delayMs ?? 0;
    this.#sliceBytes = options.sliceBytes ?? 0;
  }

  get port(): number {
    return this.#port;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Connections open now. */
  get open(): number {
    return this.#connections.size;
  }

  /** Connections accepted since the start. */
  get accepted(): number {
    return this.#accepted;
  }

  get delayMs(): number {
    return this.#delayMs;
  }

  get sliceBytes(): number {
    return this.#sliceBytes;
  }

  get stalled(): boolean {
    return this.#stalled.size > 0;
  }

  stalls(way: Way): boolean {
    return this.#stalled.has(way);
  }

  async start(): Promise<this> {
    await this.#listen(0);
    return this;
  }

  /** From now on each chunk takes so long, each way. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** From now on bytes go out in pieces of `bytes`; 0 ends it. */
  slice(bytes: number): void {
    this.#sliceBytes = bytes;
  }

  /**
   * A black hole: connections stay open and are still accepted, but nothing passes, no FIN either. One way
   * only is a half-open link: `up` swallows what is asked, `down` what is answered.
   */
  stall(...ways: readonly Way[]): void {
    this.#stalled = new Set(ways.length === 0 ? (["up", "down"] as const) : ways);
  }

  /** The same for the connection accepted last alone. */
  stallNewest(): void {
    const newest = [...this.#connections].at(-1);
    if (newest === undefined) throw new Error("no connection to stall");
    newest.stalled = true;
  }

  /** Ends a stall: what was swallowed meanwhile is delivered, late. */
  resume(): void {
    this.#stalled = new Set();
    for (const connection of this.#connections) connection.stalled = false;
    for (const connection of this.#connections) connection.pump();
  }

  /** Ends all open connections in an orderly way (FIN to both sides). */
  cut(): void {
    for (const connection of this.#connections) connection.end();
  }

  /** Breaks all open connections (RST to both sides). */
  reset(): void {
    for (const connection of this.#connections) connection.reset();
  }

  /** New connections are refused from now on; open ones are left alone. */
  async refuse(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    // Resolves only when all connections have ended, but stops listening at once.
    server?.close();
  }

  /** Accepts connections again on the same port. */
  async accept(): Promise<void> {
    if (this.#server === undefined) await this.#listen(this.#port);
  }

  async close(): Promise<void> {
    await this.refuse();
    for (const connection of this.#connections) connection.destroy();
  }

  #listen(port: number): Promise<void> {
    const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (near) => this.#onAccept(near));
    this.#server = server;
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: "127.0.0.1", port }, () => {
        this.#port = (server.address() as net.AddressInfo).port;
        resolve();
      });
    });
  }

  #onAccept(near: net.Socket): void {
    this.#accepted++;
    const far = net.connect({ ...this.#target, allowHalfOpen: true, noDelay: true });
    const connection = new Connection(this, near, far, () => this.#connections.delete(connection));
    this.#connections.add(connection);
  }
}

/** Starts a link to a port of this machine (or a host's). */
export function startLink(port: number, options: LinkOptions = {}, host = "127.0.0.1"): Promise<ChaosLink> {
  return new ChaosLink({ host, port }, options).start();
}

/** One through which `replica` follows `master` from now on; it does so when this returns. */
export async function layLink(
  master: RedisServer,
  replica: RedisServer,
  options: LinkOptions = {},
): Promise<ChaosLink> {
  const link = await startLink(master.ownPort, options);
  try {
    await replica.cli("REPLICAOF", "127.0.0.1", link.port);
    await replica.untilLinkUp();
    return link;
  } catch (error) {
    await link.close();
    throw error;
  }
}

class Connection {
  readonly #near: net.Socket;
  readonly #far: net.Socket;
  readonly #up: Direction;
  readonly #down: Direction;
  stalled = false;

  constructor(link: ChaosLink, near: net.Socket, far: net.Socket, onClosed: () => void) {
    this.#near = near;
    this.#far = far;
    this.#up = new Direction(link, this, "up", near, far);
    this.#down = new Direction(link, this, "down", far, near);
    for (const [socket, other] of [[near, far] as const, [far, near] as const]) {
      // A broken side breaks the other one too, but a stalled link hides that like everything else.
      socket.on("error", () => {
        if (!link.stalled && !this.stalled) other.resetAndDestroy();
      });
      socket.on("close", () => {
        if (near.destroyed && far.destroyed) onClosed();
      });
    }
  }

  pump(): void {
    this.#up.pump();
    this.#down.pump();
  }

  end(): void {
    this.#near.end();
    this.#far.end();
  }

  reset(): void {
    this.#near.resetAndDestroy();
    this.#far.resetAndDestroy();
  }

  destroy(): void {
    this.#near.destroy();
    this.#far.destroy();
  }
}

/** `null` is the end of the stream (FIN). */
interface Parcel {
  readonly bytes: Buffer | null;
  readonly dueMs: number;
}

/** How much one direction keeps before it stops reading, as a real link would. */
const QUEUE_BYTES_MAX = 4 * 1024 * 1024;

class Direction {
  readonly #link: ChaosLink;
  readonly #connection: Connection;
  readonly #way: Way;
  readonly #from: net.Socket;
  readonly #to: net.Socket;
  readonly #queue: Parcel[] = [];
  #queuedBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Waiting for the next turn of the event loop or for room in the socket. */
  #isWaiting = false;

  constructor(link: ChaosLink, connection: Connection, way: Way, from: net.Socket, to: net.Socket) {
    this.#link = link;
    this.#connection = connection;
    this.#way = way;
    this.#from = from;
    this.#to = to;
    from.on("data", (chunk: Buffer) => this.#enqueue(chunk));
    from.on("end", () => this.#enqueue(null));
    to.on("close", () => clearTimeout(this.#timer));
  }

  /** Passes on what is due. */
  pump(): void {
    clearTimeout(this.#timer);
    const isStalled = this.#link.stalls(this.#way) || this.#connection.stalled;
    while (!isStalled && !this.#isWaiting && !this.#to.destroyed) {
      const parcel = this.#queue[0];
      if (parcel === undefined) break;
      const waitMs = parcel.dueMs - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.pump(), waitMs);
        break;
      }
      this.#passOn(parcel);
    }
    if (this.#queuedBytes < QUEUE_BYTES_MAX) this.#from.resume();
  }

  #enqueue(bytes: Buffer | null): void {
    this.#queue.push({ bytes, dueMs: performance.now() + this.#link.delayMs });
    this.#queuedBytes += bytes?.length ?? 0;
    if (this.#queuedBytes >= QUEUE_BYTES_MAX) this.#from.pause();
    this.pump();
  }

  #passOn(parcel: Parcel): void {
    this.#queue.shift();
    const { bytes } = parcel;
    if (bytes === null) {
      this.#to.end();
      return;
    }
    const sliceBytes = this.#link.sliceBytes;
    const isWhole = sliceBytes === 0 || bytes.length <= sliceBytes;
    const piece = isWhole ? bytes : bytes.subarray(0, sliceBytes);
    if (!isWhole) this.#queue.unshift({ bytes: bytes.subarray(sliceBytes), dueMs: 0 });
    this.#queuedBytes -= piece.length;
    if (!this.#to.write(piece)) this.#waitFor((resume) => this.#to.once("drain", resume));
    else if (sliceBytes > 0) this.#waitFor(setImmediate);
  }

  #waitFor(event: (resume: () => void) => void): void {
    this.#isWaiting = true;
    event(() => {
      this.#isWaiting = false;
      this.pump();
    });
  }
}
