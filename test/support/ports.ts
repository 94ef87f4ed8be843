/**
 * Free TCP ports. They are taken below the range the kernel uses for outgoing connections: from that range a
 * client's own port could take the place of a server that is down, and a client that keeps trying a closed
 * port of that range can even end up connected to itself.
 */
import net from "node:net";

const FIRST = 20_000;
const SLICE = 100;
const SLICES = 120;

/** Every test process walks through a slice of its own, so a server that is down keeps its port to itself. */
const sliceStart = FIRST + (process.pid % SLICES) * SLICE;
let next = 0;

/** A port nobody listens on. Somebody else may still be faster: start, and try another when it is taken. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < SLICE; tries++) {
    const port = sliceStart + (next++ % SLICE);
    if (await canListen(port)) return port;
  }
  throw new Error(`no free port from ${sliceStart} to ${sliceStart + SLICE - 1}`);
}

/** The first of `count` ports in a row that nobody listens on. */
export async function freePortBlock(count: number): Promise<number> {
  for (let tries = 0; tries < SLICE; tries++) {
    const first = await freePort();
    let free = 1;
    while (free < count && (await freePort()) === first + free) free++;
    if (free === count) return first;
  }
  throw new Error(`no ${count} free ports in a row from ${sliceStart} to ${sliceStart + SLICE - 1}`);
}

/** Whether a listener could be opened on the port right now. */
export function canListen(port: number, host = "127.0.0.1"): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
