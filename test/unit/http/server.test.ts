import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { createHttpServer, type HttpServer, type HttpSources } from "../../../src/http/server.ts";
import type { StatusView } from "../../../src/http/status.ts";

const STATUS: StatusView = {
  version: "1.2.3",
  uptimeSeconds: 5,
  epoch: { number: 1, master: "a:1", holdCause: null, history: null },
  nodes: [],
  sentinels: [],
  clients: { connected: 2, paused: null },
  hold: { now: 0, bytes: 0, held: 0, released: 0, expired: 0, left: 0, failed: 0 },
  reads: {
    replica: 1,
    masterFreshness: 0,
    masterNoneFit: 0,
    masterPolicy: 0,
    freshnessShare: 0,
    hedges: 0,
    hedgesWon: 0,
  },
  counters: { reads: 1, writes: 2, uncertain: 0 },
  failovers: [],
  problems: [],
};

const running: HttpServer[] = [];
afterEach(() => {
  for (const server of running.splice(0)) server.destroy();
});

async function serve(sources: Partial<HttpSources> = {}) {
  const server = createHttpServer(
    { host: "127.0.0.1", port: 0 },
    {
      metrics: { text: async () => "a_metric 1\n", contentType: "text/plain; version=0.0.4" },
      ready: () => ({ ready: true, reason: "writes go to a:1" }),
      status: () => STATUS,
      ...sources,
    },
  );
  running.push(server);
  const port = await server.start();
  return {
    server,
    port,
    get: (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${port}${path}`, init),
  };
}

/** Sends raw bytes and returns everything that comes back until the server closes. */
function raw(port: number, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(request));
    socket.setEncoding("utf8");
    socket.on("data", (chunk) => {
      answer += chunk;
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(answer));
  });
}

describe("paths", () => {
  it("/metrics is the text of the metrics with its content type", async () => {
    const response = await (await serve()).get("/metrics?x=1");
    expect([response.status, response.headers.get("content-type"), await response.text()]).toEqual([
      200,
      "text/plain; version=0.0.4",
      "a_metric 1\n",
    ]);
  });

  it("/livez is 200 even when the proxy is not ready", async () => {
    const { get } = await serve({ ready: () => ({ ready: false, reason: "no master" }) });
    expect((await get("/livez")).status).toBe(200);
  });

  it("/readyz is 200 or 503 and says why", async () => {
    let ready = true;
    const { get } = await serve({
      ready: () => ({ ready, reason: ready ? "fine" : "the master is silent" }),
    });
    expect((await get("/readyz")).status).toBe(200);
    ready = false;
    const response = await get("/readyz");
    expect([response.status, await response.text()]).toEqual([503, "the master is silent\n"]);
  });

  it("/api/status is the status as JSON", async () => {
    const response = await (await serve()).get("/api/status");
    expect(response.headers.get("content-type")).toContain("application/json");
    expect(await response.json()).toEqual(STATUS);
  });

  it("/ is a page that loads nothing from elsewhere", async () => {
    const response = await (await serve()).get("/");
    const page = await response.text();
    expect(response.headers.get("content-type")).toContain("text/html");
    expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(page).not.toMatch(/https?:\/\/|src=|@import|innerHTML/);
    expect(page).toContain("/api/status");
  });

  it("anything else is 404, anything but GET and HEAD is 405", async () => {
    const { get } = await serve();
    expect((await get("/nothing")).status).toBe(404);
    expect((await get("/metrics/")).status).toBe(404);
    const response = await get("/metrics", { method: "POST", body: "x" });
    expect([response.status, response.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
  });

  it("HEAD has the headers and no body", async () => {
    const response = await (await serve()).get("/metrics", { method: "HEAD" });
    expect([response.status, response.headers.get("content-length"), await response.text()]).toEqual([
      200,
      "11",
      "",
    ]);
  });
});

describe("what goes wrong", () => {
  it.each([
    ["/metrics", { metrics: { text: () => Promise.reject(new Error("broken")), contentType: "x" } }],
    [
      "/api/status",
      {
        status: () => {
          throw new Error("broken");
        },
      },
    ],
    [
      "/readyz",
      {
        ready: () => {
          throw new Error("broken");
        },
      },
    ],
  ] satisfies [string, Partial<HttpSources>][])(
    "a source of %s that throws is a 500, and the next request works",
    async (path, sources) => {
      const { get } = await serve(sources);
      const response = await get(path);
      expect([response.status, await response.text()]).toEqual([500, "internal error: broken\n"]);
      expect((await get("/livez")).status).toBe(200);
    },
  );

  it("a body is not read: the answer comes at once and the connection closes", async () => {
    const { port } = await serve();
    const answer = await raw(port, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    expect(answer).toMatch(/^HTTP\/1\.1 405 /);
    expect(answer.toLowerCase()).toContain("connection: close");
  });

  it("headers beyond the limit are refused", async () => {
    const { port } = await serve();
    const answer = await raw(port, `GET / HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(9_000)}\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  });

  it("nonsense is answered 400 and the server goes on", async () => {
    const { port, get } = await serve();
    expect(await raw(port, "\x00\x01nonsense\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect((await get("/livez")).status).toBe(200);
  });

  it("start rejects when the port is taken", async () => {
    const { port } = await serve();
    const second = createHttpServer({ host: "127.0.0.1", port }, { ...({} as HttpSources) });
    await expect(second.start()).rejects.toMatchObject({ code: "EADDRINUSE" });
    await second.close();
  });
});

describe("the end", () => {
  it("close finishes the response under way and accepts no more", async () => {
    let finish = (_text: string): void => {};
    let asked = (): void => {};
    const underWay = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const text = () => {
      asked();
      return new Promise<string>((resolve) => {
        finish = resolve;
      });
    };
    const { server, get } = await serve({ metrics: { text, contentType: "text/plain" } });
    const response = get("/metrics");
    await underWay;
    const closed = server.close();
    await expect(get("/livez")).rejects.toThrow();
    finish("late\n");
    expect(await (await response).text()).toBe("late\n");
    await closed;
    await server.close();
  });

  it("destroy cuts what hangs, twice if need be", async () => {
    let asked = (): void => {};
    const underWay = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const text = () => {
      asked();
      return new Promise<string>(() => {});
    };
    const { server, get } = await serve({ metrics: { text, contentType: "text/plain" } });
    const response = get("/metrics");
    response.catch(() => {});
    await underWay;
    server.destroy();
    server.destroy();
    await expect(response).rejects.toThrow();
    await server.close();
  });
});
