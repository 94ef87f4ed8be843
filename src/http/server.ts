/**
 * The HTTP side: metrics, health, status page. It only reads what its sources tell, takes no input besides
 * the path, and nothing that happens here may reach the proxied traffic: every handler answers or gives up.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { messageOf } from "../errors.ts";
import { STATUS_PAGE } from "./page.ts";
import type { StatusView } from "./status.ts";

export interface HttpSources {
  /** The metrics of this moment as Prometheus text. */
  readonly metrics: { text(): Promise<string>; readonly contentType: string };
  /** Whether writes can be routed now, and a sentence that says why (not). */
  ready(): { readonly ready: boolean; readonly reason: string };
  /** What the status page shows. */
  status(): StatusView;
}

export interface HttpServer {
  /** Listens; resolves with the bound port, rejects when the address cannot be had. */
  start(): Promise<number>;
  /** Stops accepting, finishes the responses under way. Idempotent. */
  close(): Promise<void>;
  /** Cuts everything. Idempotent. */
  destroy(): void;
}

/** Bytes of request line and headers together. */
const MAX_HEADER_BYTES = 8_192;
/** Connections at once: a few scrapers and open status pages. */
const MAX_CONNECTIONS = 128;
/** Time for the headers, and for the whole request, to arrive. */
const HEADERS_TIMEOUT_MS = 5_000;
/** Time a kept connection may idle between requests. */
const KEEP_ALIVE_MS = 15_000;
/** Time without any traffic on a socket, a reader that takes nothing included. */
const SOCKET_TIMEOUT_MS = 30_000;

const PAGE_POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; " +
  "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** One answer, ready to be sent. */
interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const TEXT = "text/plain; charset=utf-8";

export function createHttpServer(
  address: { readonly host: string; readonly port: number },
  sources: HttpSources,
): HttpServer {
  let closing: Promise<void> | null = null;
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: HEADERS_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => void respond(request, response, sources, () => closing !== null),
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.timeout = SOCKET_TIMEOUT_MS;
  server.on("clientError", (_error, socket) => {
    if (socket.writable)
      socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    else socket.destroy();
  });
  return {
    start: () => listen(server, address),
    close: () => {
      closing ??= new Promise((resolve) => server.close(() => resolve()));
      return closing;
    },
    destroy: () => {
      closing ??= new Promise((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
    },
  };
}

function listen(server: Server, address: { readonly host: string; readonly port: number }): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: address.host, port: address.port }, () => {
      server.off("error", reject);
      // An error of the listening socket later on (no file descriptors left) costs a scrape, no more.
      server.on("error", () => {});
      const bound = server.address();
      resolve(typeof bound === "object" && bound !== null ? bound.port : address.port);
    });
  });
}

/** Answers one request. Whatever goes wrong in a source becomes a 500; nothing is thrown. */
async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  sources: HttpSources,
  isClosing: () => boolean,
): Promise<void> {
  response.on("error", () => {});
  let answer: Answer;
  try {
    answer = await route(request, sources);
  } catch (error) {
    answer = { status: 500, type: TEXT, body: `internal error: ${messageOf(error)}\n` };
  }
  const body = Buffer.from(answer.body);
  response.writeHead(answer.status, {
    "content-type": answer.type,
    "content-length": body.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...answer.headers,
    // A body is never read, so the connection it is on cannot be used again. Whether the server is closing
    // is asked now: it may have begun while the answer was made.
    ...(isClosing() || hasBody(request) ? { connection: "close" } : {}),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

async function route(request: IncomingMessage, sources: HttpSources): Promise<Answer> {
  const path = (request.url ?? "/").split("?", 1)[0];
  const handler = handlerOf(path, sources);
  if (handler === null) {
    return { status: 404, type: TEXT, body: "not found: try /, /api/status, /metrics, /livez, /readyz\n" };
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    return { status: 405, type: TEXT, body: "only GET and HEAD\n", headers: { allow: "GET, HEAD" } };
  }
  return handler();
}

function handlerOf(path: string | undefined, sources: HttpSources): (() => Answer | Promise<Answer>) | null {
  switch (path) {
    case "/":
      return () => ({
        status: 200,
        type: "text/html; charset=utf-8",
        body: STATUS_PAGE,
        headers: { "content-security-policy": PAGE_POLICY },
      });
    case "/api/status":
      return () => ({
        status: 200,
        type: "application/json; charset=utf-8",
        body: JSON.stringify(sources.status()),
      });
    case "/metrics":
      return async () => ({
        status: 200,
        type: sources.metrics.contentType,
        body: await sources.metrics.text(),
      });
    case "/livez":
      return () => ({ status: 200, type: TEXT, body: "ok\n" });
    case "/readyz":
      return () => {
        const { ready, reason } = sources.ready();
        return { status: ready ? 200 : 503, type: TEXT, body: `${reason}\n` };
      };
    default:
      return null;
  }
}

function hasBody(request: IncomingMessage): boolean {
  return request.headers["transfer-encoding"] !== undefined || Number(request.headers["content-length"]) > 0;
}
