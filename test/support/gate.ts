/**
 * A way to a server that can be closed to all but its replicas, which are known by their source address
 * (`bind-source-addr`, from Redis 7 on): a network in which only the proxy is cut off.
 */
import net from "node:net";

/** Where replicas come from; all of 127.0.0.0/8 is this machine. */
export const REPLICA_SOURCE = "127.0.0.2";
/** Arguments of servers whose connections are recognised. */
export const FROM_REPLICA_SOURCE = ["--bind-source-addr", REPLICA_SOURCE];

export class Gate {
  readonly #targetPort: number;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  #isClosedToOthers = false;

  constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#server = net.createServer({ noDelay: true }, (near) => this.#onAccept(near));
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  start(): Promise<this> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen({ host: "127.0.0.1", port: 0 }, () => resolve(this));
    });
  }

  /** From now on only replicas pass; others are cut and, when they come again, get no answer. */
  closeToOthers(): void {
    this.#isClosedToOthers = true;
    for (const socket of this.#sockets) if (socket.remoteAddress !== REPLICA_SOURCE) socket.destroy();
  }

  open(): void {
    this.#isClosedToOthers = false;
    for (const socket of this.#sockets) if (socket.remoteAddress !== REPLICA_SOURCE) socket.destroy();
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #onAccept(near: net.Socket): void {
    this.#sockets.add(near);
    near.on("close", () => this.#sockets.delete(near));
    near.on("error", () => near.destroy());
    if (this.#isClosedToOthers && near.remoteAddress !== REPLICA_SOURCE) return;
    const far = net.connect({ host: "127.0.0.1", port: this.#targetPort, noDelay: true });
    far.on("error", () => near.destroy());
    far.on("close", () => near.destroy());
    near.on("close", () => far.destroy());
    near.pipe(far);
    far.pipe(near);
  }
}
