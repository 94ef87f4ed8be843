/** A master whose probes are fine while it lets nobody else in. */
import { afterEach, expect, it } from "vitest";
import { RawClient } from "../support/client.ts";
import { ReplyError } from "../support/resp.ts";
import { Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage | undefined;
let admin: RawClient | undefined;

afterEach(async () => {
  admin?.close();
  admin = undefined;
  await stage?.close();
  stage = undefined;
});

it("writes are answered in time, without a flood of dials and lines, and go on afterwards (43)", async () => {
  stage = await Stage.open({ replicas: 0, config: { hold: { maxTime: "2s" } } });
  const { master, proxy } = stage;
  const client = await stage.client();
  expect(await client.command("SET", "k", "v")).toBe("OK");
  admin = await RawClient.connect({ port: master.port });
  await admin.command("CONFIG", "SET", "maxclients", "1");
  const before = proxy.logs.length;
  for (const line of String(await admin.command("CLIENT", "LIST")).split("\n")) {
    const id = /^id=(\d+) .* name=holdfast /.exec(line)?.[1];
    if (id !== undefined) await admin.command("CLIENT", "KILL", "ID", id);
  }
  const startMs = performance.now();
  const reply = await client.command("SET", "k", "w");
  expect(reply instanceof ReplyError && reply.word).toBe("MASTERDOWN");
  expect(performance.now() - startMs).toBeGreaterThan(1_900);
  expect(performance.now() - startMs).toBeLessThan(4_000);
  const held = proxy.logs.slice(before).filter(({ msg }) => msg === "writes are held");
  expect(held.length).toBeGreaterThan(1);
  expect(held.length).toBeLessThan(30);
  await admin.command("CONFIG", "SET", "maxclients", "1000");
  await until(async () => (await client.command("SET", "k", "x")) === "OK", { what: "writes going on" });
});
