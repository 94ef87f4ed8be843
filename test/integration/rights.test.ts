/** What the proxy's own user must be allowed: exactly the lines of README and nothing else. */
import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { aclRules, needs } from "../support/abilities.ts";
import type { ConfigObject } from "../support/proxy.ts";
import type { RedisGroup } from "../support/redis.ts";
import { ReplyError } from "../support/resp.ts";
import { type Sentinels, startSentinels } from "../support/sentinel.ts";
import { type Fields, fields, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

const README = readFileSync(new URL("../../README.md", import.meta.url), "utf8");

/** The rules of the README's three lines: always, for a planned switch, for promote: self. */
function rules(): [always: string[], switchover: string[], self: string[]] {
  const lines = [...README.matchAll(/^ACL SETUSER holdfast (.*)$/gm)].map(([, rest = ""]) => rest.split(" "));
  const [always, switchover, self] = lines;
  if (lines.length !== 3 || !always || !switchover || !self) throw new Error("README has other lines");
  return [always, switchover, self];
}

let stage: Stage;
let sentinels: Sentinels | undefined;

afterEach(async () => {
  await stage?.close();
  await sentinels?.close();
  sentinels = undefined;
});

async function setUp(lines: readonly (readonly string[])[], failover: ConfigObject = {}): Promise<void> {
  const before = async (group: RedisGroup): Promise<undefined> => {
    for (const server of group.all) {
      for (const words of lines) {
        const reply = await server.cli("ACL", "SETUSER", "holdfast", ...aclRules(...words));
        if (reply instanceof ReplyError) throw reply;
      }
    }
  };
  const upstream = { username: "holdfast", password: "secret" };
  stage = await Stage.open({ before, config: { upstream, failover } });
}

async function switchover(): Promise<Fields> {
  const admin = await stage.client({ protocol: 3 });
  const reply = await admin.command("PROXY", "SWITCHOVER");
  if (reply instanceof ReplyError) throw reply;
  return fields(reply);
}

/** What the servers have refused to the proxy's user. */
async function denied(): Promise<string[]> {
  const running = stage.group.all.filter((server) => server.running);
  const all = await Promise.all(running.map((server) => server.cli("ACL", "LOG")));
  return all.flat().map(String);
}

async function expectAllFollow(): Promise<void> {
  const { master } = await stage.epoch();
  const others = stage.group.all.filter((server) => server.running && server.address !== master);
  for (const server of others) {
    const follows = async () => {
      const info = await server.info();
      return `127.0.0.1:${info.get("master_port")}` === master && info.get("master_link_status") === "up";
    };
    await until(follows, { what: `${server.address} following ${String(master)}` });
  }
}

describe("with the rights README names, and no other", () => {
  it("a promotion by hand is followed", async () => {
    const [always] = rules();
    await setUp([always]);
    await stage.replica(0).promote();
    await stage.untilMaster(stage.replica(0));
    expect(await denied()).toEqual([]);
  });

  it("a planned switch is made, by FAILOVER, and the others follow", async (context) => {
    needs(context, "failover");
    const [always, planned] = rules();
    await setUp([always, planned]);
    expect(await switchover()).toMatchObject({ result: "done", via: "failover", lost_bytes: 0 });
    await expectAllFollow();
    expect(await denied()).toEqual([]);
  });

  it("a Sentinel that the proxy was not told of is heard before a planned switch", async (context) => {
    needs(context, "CLIENT PAUSE … WRITE");
    const [always, planned] = rules();
    await setUp([always, planned]);
    sentinels = await startSentinels(stage.group, { count: 1 });
    await expect(switchover()).rejects.toThrow(/^ERR proxy: Sentinel \S+ watches this group as "mymaster"/);
    expect(await denied()).toEqual([]);
  });

  it("a planned switch is made without FAILOVER, too", async (context) => {
    needs(context, "CLIENT PAUSE … WRITE");
    const [always, planned] = rules();
    await setUp([always, planned, ["-failover"]]);
    expect(await switchover()).toMatchObject({ result: "done", via: "promote", lost_bytes: 0 });
    await expectAllFollow();
    expect((await denied()).filter((entry) => !entry.includes("failover"))).toEqual([]);
  });

  it("a master that crashed is replaced, the other replica and the old master follow", async () => {
    const [always, , self] = rules();
    await setUp([always, self], { promote: "self" });
    await until(async () => (await stage.proxy.metric("holdfast_promoter")) === 1, { what: "the right" });
    const old = stage.master;
    await old.kill();
    await until(async () => (await stage.epoch()).master !== old.address, { what: "another master" });
    expect(await stage.proxy.metric("holdfast_promotions_total")).toBe(1);
    // Users that are typed in do not outlive a restart.
    await old.restart(["--user", "holdfast", ...aclRules(...always, ...self)]);
    await expectAllFollow();
    expect(await denied()).toEqual([]);
  });
});

describe("with promote: self and a master that hangs", () => {
  const failover = { promote: "self", downAfter: "500ms" };
  const hang = async (): Promise<void> => {
    await until(async () => (await stage.proxy.metric("holdfast_promoter")) === 1, { what: "the right" });
    const old = stage.master;
    await old.kill("SIGSTOP");
    try {
      await until(async () => (await stage.epoch()).master !== old.address, { what: "another master" });
    } finally {
      await old.kill("SIGCONT");
    }
    await expectAllFollow();
  };

  it("the rights README names let the replicas be asked whether they reach it", async () => {
    const [always, , self] = rules();
    await setUp([always, self], failover);
    await hang();
    expect(await denied()).toEqual([]);
    expect(stage.proxy.logged("failover").filter(({ what }) => what === "not-asked")).toEqual([]);
  });

  it("without the right to ask them it is replaced all the same, and the log says what is missing", async (context) => {
    needs(context, "ACL -command|subcommand");
    const [always, , self] = rules();
    await setUp([always, self, ["-client|kill"]], failover);
    await hang();
    const [line] = stage.proxy.logged("failover").filter(({ what }) => what === "not-asked");
    expect(line).toMatchObject({ level: "warn", detail: /NOPERM.*client\|kill/ });
  });
});

describe("without the rights to a planned switch", () => {
  it("it is rolled back, and what is missing is said", async (context) => {
    needs(context, "failover");
    const [always] = rules();
    await setUp([always]);
    await expect(switchover()).rejects.toThrow(/rolled back: NOPERM.*; the master is the one of before/);
    expect(await stage.number("switches")).toBe(0);
  });
});
