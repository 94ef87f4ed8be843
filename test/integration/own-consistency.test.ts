/** PROXY CONSISTENCY: each client says itself what its reads see. */
import { afterEach, describe, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { type ChaosLink, layLink } from "../support/link.ts";
import type { Reply } from "../support/resp.ts";
import { calls, errorText, fields, resetCalls, Stage, type StageOptions } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await stage.close();
});

/** One replica, whose replication stands still from now on: it has n = 1, the master n = 2. */
async function openLagging(options: StageOptions = {}): Promise<ChaosLink> {
  let link!: ChaosLink;
  stage = await Stage.open({
    ...options,
    replicas: 1,
    before: async (group) => {
      link = await layLink(group.master, group.replica(0));
      return group.addresses;
    },
  });
  cleanups.push(() => link.close());
  await stage.master.cli("SET", "n", "1");
  await until(async () => (await stage.replica(0).cli("GET", "n")) === "1");
  link.stall();
  await stage.master.cli("SET", "n", "2");
  return link;
}

async function consistencyOf(client: RawClient): Promise<Reply> {
  const told = (await client.command("PROXY", "CONSISTENCY")) as Reply[];
  expect(told).toHaveLength(4);
  expect([told[0], told[2]]).toEqual(["consistency", "default"]);
  return told[1] as Reply;
}

const set = (client: RawClient, mode: string) => client.command("PROXY", "CONSISTENCY", mode);

describe("PROXY CONSISTENCY", () => {
  it("tells and sets what this client alone sees; RESET and default put it back (7)", async () => {
    stage = await Stage.open({ replicas: 0, config: { reads: { consistency: "eventual" } } });
    const [client, other] = (await stage.clients(2)) as [RawClient, RawClient];
    const three = await stage.client({ protocol: 3 });
    expect(fields(await three.command("PROXY", "CONSISTENCY"))).toEqual({
      consistency: "eventual",
      default: "eventual",
    });
    for (const mode of ["session", "strong", "eventual"]) {
      expect(await client.command("proxy", "Consistency", mode.toUpperCase())).toBe("OK");
      expect(await consistencyOf(client)).toBe(mode);
      expect(await consistencyOf(other)).toBe("eventual");
    }
    expect([await set(client, "strong"), await consistencyOf(client)]).toEqual(["OK", "strong"]);
    expect([await set(client, "default"), await consistencyOf(client)]).toEqual(["OK", "eventual"]);
    await set(client, "strong");
    expect([await client.command("RESET"), await consistencyOf(client)]).toEqual(["RESET", "eventual"]);
  });

  it("nonsense is refused and changes nothing; HELP and CLIENTS know it", async () => {
    stage = await Stage.open({ replicas: 0 });
    const client = await stage.client();
    await set(client, "strong");
    for (const words of [["often"], [""], ["s\r\nx"], ["strong", "now"]]) {
      const error = errorText(await client.command("PROXY", "CONSISTENCY", ...words));
      expect(error).toMatch(/^ERR proxy: .*(?:strong or default|Try PROXY HELP\.)$/);
    }
    expect(await consistencyOf(client)).toBe("strong");
    expect(String(await client.command("PROXY", "HELP"))).toContain(
      "CONSISTENCY [session|proxy|eventual|strong|",
    );
    const id = await client.command("CLIENT", "ID");
    const three = await stage.client({ protocol: 3 });
    const listed = ((await three.command("PROXY", "CLIENTS")) as Reply[]).map(fields);
    expect(listed.find((one) => one.id === id)).toMatchObject({ consistency: "strong" });
  });

  it("goes as the other subcommands do: not inside MULTI, but as a subscriber", async () => {
    stage = await Stage.open({ replicas: 0 });
    const client = await stage.client();
    const replies = await client.pipeline([["MULTI"], ["PROXY", "CONSISTENCY", "strong"], ["EXEC"]]);
    expect(errorText(replies[1])).toMatch(/inside MULTI is not supported/);
    expect(errorText(replies[2])).toMatch(/^EXECABORT /);
    expect(await consistencyOf(client)).toBe("session");
    await client.command("SUBSCRIBE", "c");
    expect([await set(client, "strong"), await consistencyOf(client)]).toEqual(["OK", "strong"]);
  });

  it("is what reads go by, for what is behind it in a pipeline and for nothing before (7)", async () => {
    await openLagging();
    const client = await stage.client();
    const get = ["GET", "n"];
    const to = (mode: string) => ["PROXY", "CONSISTENCY", mode];
    expect(await client.pipeline([get, to("strong"), get, get, to("eventual"), get])).toEqual([
      "1",
      "OK",
      "2",
      "2",
      "OK",
      "1",
    ]);
    // What it has seen it does not un-see.
    expect(await client.pipeline([to("strong"), get, to("session"), get])).toEqual(["OK", "2", "OK", "2"]);
    expect(await stage.replica(0).cli("GET", "n"), "the replica still lags").toBe("1");
  });

  it("a client that has read nothing may go by another rule without a master (6)", async () => {
    await openLagging({ config: { reads: { consistency: "strong" } } });
    const client = await stage.client();
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    expect(
      await client.pipeline([
        ["PROXY", "CONSISTENCY", "session"],
        ["GET", "n"],
      ]),
    ).toEqual(["OK", "1"]);
  });

  it("a read that is lost is sent again by the rule that it came under (4, 7)", async () => {
    const link = await openLagging();
    const client = await stage.client();
    await set(client, "strong");
    expect(await client.command("GET", "n")).toBe("2");
    await stage.master.kill("SIGSTOP");
    const replies = client.pipeline([
      ["GET", "n"],
      ["PROXY", "CONSISTENCY", "eventual"],
      ["GET", "n"],
    ]);
    await stage.untilCause("silent");
    await stage.untilHeld();
    link.resume();
    await stage.master.kill("SIGCONT");
    expect((await replies).slice(0, 2)).toEqual(["2", "OK"]);
  });

  it("survives a switch (7)", async () => {
    stage = await Stage.open({ replicas: 2 });
    const [strong, eventual] = (await stage.clients(2)) as [RawClient, RawClient];
    await set(strong, "strong");
    await set(eventual, "eventual");
    await strong.command("GET", "n");
    await eventual.command("GET", "n");
    const [next, last] = [stage.replica(0), stage.replica(1)];
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    await next.promote();
    await last.replicaOf(next);
    await stage.untilMaster(next);
    await stage.untilReadable(1);
    expect([await consistencyOf(strong), await consistencyOf(eventual)]).toEqual(["strong", "eventual"]);
    await resetCalls(next, last);
    for (let i = 0; i < 5; i++) {
      await strong.command("GET", "n");
      await eventual.command("GET", "n");
    }
    expect([await calls(next, "get"), await calls(last, "get")]).toEqual([5, 5]);
  });
});
