/** A port before a server, at which a test sees what is sent to it before the server does. */
import net from "node:net";

export interface Tap {
  readonly port: number;
  close(): void;
}

/** @param onBytes gets what the near side sends; that is passed on when it has ended. */
export async function startTap(targetPort: number, onBytes: (text: string) => Promise<void>): Promise<Tap> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((near) => {
    const far = net.connect(targetPort, "127.0.0.1");
    const end = (): void => {
      for (const socket of [near, far]) {
        socket.destroy();
        sockets.delete(socket);
      }
    };
    for (const socket of [near, far]) sockets.add(socket.on("close", end).on("error", end));
    near.on("data", (bytes) => {
      near.pause();
      void onBytes(bytes.toString("latin1")).then(() => {
        far.write(bytes);
        near.resume();
      });
    });
    far.on("data", (bytes) => near.write(bytes));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const close = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { port: address.port, close };
}
