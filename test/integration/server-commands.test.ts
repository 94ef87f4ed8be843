/** Commands about the server itself: they go to the master, under the client's own rights. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import type { Reply } from "../support/resp.ts";
import { errorText, Stage } from "../support/stage.ts";

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open({ replicas: 1 });
});
afterAll(() => stage.close());

/** Sections of an INFO, by title: each line by line. */
function sections(text: Reply): Map<string, string[]> {
  expect(String(text)).toMatch(/\r\n$/);
  const parts = String(text).replace(/\r\n$/, "").split("\r\n\r\n");
  return new Map(parts.map((part) => part.split("\r\n")).map(([title = "", ...lines]) => [title, lines]));
}

describe("INFO", () => {
  it.each(["INFO", "info all", "INFO EVERYTHING", "INFO default", "INFO cpu Proxy"])(
    "%s has the server's sections and the proxy's behind them",
    async (line) => {
      const client = await stage.client();
      const args = line.split(" ");
      const found = sections(await client.command(...args));
      const own = line.endsWith("Proxy") ? ["INFO", "cpu"] : args;
      const direct = sections(await stage.master.cli(...(own as [string])).then((text) => `${text}\r\n`));
      expect([...found.keys()]).toEqual([...direct.keys(), "# Proxy"]);
      const fields = Object.fromEntries(found.get("# Proxy")!.map((one) => one.split(/:(.*)/)));
      expect(fields).toMatchObject({
        proxy_epoch: "1",
        proxy_master: stage.master.address,
        proxy_writable: "1",
        proxy_held_clients: "0",
        proxy_switches: "0",
        proxy_lost_bytes: "0",
      });
      expect(Number(fields.proxy_connected_clients)).toBeGreaterThan(1);
    },
  );

  it("INFO proxy is the proxy's section alone, a verbatim string in RESP3", async () => {
    const two = (await (await stage.client()).rawCommand("INFO", "proxy")).toString();
    expect(two).toMatch(/^\$\d+\r\n# Proxy\r\nproxy_version:/);
    const three = (await (await stage.client({ protocol: 3 })).rawCommand("INFO", "proxy")).toString();
    expect(three).toMatch(/^=\d+\r\ntxt:# Proxy\r\nproxy_version:/);
  });

  it("is asked of the server: a user without the right to it gets NOPERM, not the section", async () => {
    const client = await userWith("noinfo", "+@all", "-info");
    for (const args of [["INFO"], ["INFO", "proxy"], ["INFO", "cpu"]] as const) {
      expect(errorText(await client.command(...args))).toMatch(/^NOPERM .*'info'/);
    }
  });

  it("keeps its place in a pipeline, and inside MULTI is the server's own", async () => {
    const client = await stage.client();
    const piped = await client.pipeline([
      ["SET", "i", "1"],
      ["INFO", "proxy"],
      ["GET", "i"],
      ["INFO", "cpu"],
    ]);
    expect([piped[0], String(piped[1]).slice(0, 7), piped[2]]).toEqual(["OK", "# Proxy", "1"]);
    expect(sections(piped[3]!).has("# Proxy")).toBe(false);
    const multi = await client.pipeline([["MULTI"], ["INFO", "proxy"], ["INFO", "cpu"], ["EXEC"]]);
    const [proxy, cpu] = multi[3] as [string, string];
    expect([proxy, cpu.slice(0, 5)]).toEqual(["", "# CPU"]);
  });
});

/** A client of a user with these rights, on all nodes. */
async function userWith(name: string, ...rules: string[]): Promise<RawClient> {
  for (const server of stage.group.all) {
    await server.cli("ACL", "SETUSER", name, "reset", "on", `>${name}`, "~*", "&*", ...rules);
  }
  const client = await stage.client();
  expect(await client.command("AUTH", name, name)).toBe("OK");
  return client;
}
