/** Commands about the session itself, inside MULTI and while keys are watched: over switches, and who may. */
import { afterEach, describe, expect, it } from "vitest";
import { EVERY_CHANNEL } from "../support/abilities.ts";
import { losesWrongLogins } from "../support/redis.ts";
import { ReplyError } from "../support/resp.ts";
import { errorText, Stage, type StageOptions } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let stage: Stage;
afterEach(() => stage.close());

async function open(options: StageOptions = {}): Promise<void> {
  stage = await Stage.open({ replicas: 1, ...options });
}

/** On all nodes: a login is asked of whoever is there. */
async function addUser(name: string, ...rules: string[]): Promise<void> {
  for (const server of stage.group.all) {
    await server.cli("ACL", "SETUSER", name, "reset", "on", `>${name}`, "~*", ...EVERY_CHANNEL, ...rules);
  }
}

async function untilNoPrivate(): Promise<void> {
  const open = async () => (await stage.proxy.metrics()).get('holdfast_upstream_connections{kind="private"}');
  await until(async () => (await open()) === 0, { what: "no private connection left" });
}

describe("SELECT inside MULTI", () => {
  it("is the session's own: its connection ends with it, and nobody else changes the database (17)", async () => {
    await open();
    const [client, other] = [await stage.client(), await stage.client()];
    await other.command("SET", "k", "zero");
    const unit = [["MULTI"], ["SELECT", "3"], ["SET", "k", "three"], ["EXEC"], ["GET", "k"]];
    const opened = await stage.proxy.metric("holdfast_upstream_opened_total");
    const piped = await client.pipeline([...unit, ...unit]);
    expect(piped.slice(5)).toEqual(["OK", "QUEUED", "QUEUED", ["OK", "OK"], "three"]);
    expect(await stage.proxy.metric("holdfast_upstream_opened_total")).toBeGreaterThanOrEqual(opened + 2);
    expect(await other.command("GET", "k")).toBe("zero");
    await untilNoPrivate();
    expect(await client.command("GET", "k")).toBe("three");
  });

  it("waits for a master with its transaction, and takes effect on the new one (17)", async () => {
    await open();
    const client = await stage.client();
    const queued = [["MULTI"], ["SELECT", "3"], ["CLIENT", "SETNAME", "me"], ["SET", "k", "1"]];
    expect(await client.pipeline(queued)).toEqual(["OK", "QUEUED", "QUEUED", "QUEUED"]);
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    const rest = client.pipeline([["EXEC"], ["GET", "k"], ["CLIENT", "GETNAME"]]);
    await stage.untilHeld();
    await stage.replica(0).promote();
    expect(await rest).toEqual([["OK", "OK", "OK"], "1", "me"]);
    await untilNoPrivate();
  });

  it("goes with the whole unit to the new master when the old one refuses it (18)", async () => {
    await open({ config: { probe: { interval: "5s", timeout: "5s" } } });
    const client = await stage.client();
    expect(await client.command("SET", "n", "1")).toBe("OK");
    await stage.replica(0).untilCaughtUp(stage.master);
    expect(await stage.master.cli("REPLICAOF", "127.0.0.1", stage.replica(0).port)).toBe("OK");
    const unit = [["MULTI"], ["SELECT", "3"], ["INCRBY", "n", "7"], ["CLIENT", "SETNAME", "me"], ["EXEC"]];
    const replies = client.pipeline([...unit, ["GET", "n"], ["CLIENT", "GETNAME"]]);
    await stage.untilHeld();
    await stage.replica(0).promote();
    const queued = ["OK", "QUEUED", "QUEUED", "QUEUED"];
    expect(await replies).toEqual([...queued, ["OK", 7, "OK"], "7", "me"]);
    expect(client.unclaimed).toBe(0);
  });

  it("does nothing when the transaction does not run: watched keys lost in a switch (20)", async () => {
    await open();
    const client = await stage.client();
    const queued = [
      ["WATCH", "k"],
      ["MULTI"],
      ["SELECT", "3"],
      ["CLIENT", "SETNAME", "me"],
      ["SET", "k", "1"],
    ];
    await client.pipeline(queued);
    await stage.replica(0).untilCaughtUp(stage.master);
    await stage.master.kill("SIGKILL");
    await stage.untilCause("connection-lost");
    await stage.replica(0).promote();
    expect(await client.pipeline([["EXEC"], ["CLIENT", "GETNAME"], ["SET", "zero", "1"]])).toEqual([
      null,
      null,
      "OK",
    ]);
    const other = await stage.client();
    expect(await other.command("GET", "zero")).toBe("1");
  });
});

describe("logging in while keys are watched", () => {
  it("keeps them watched, for the new user and the new protocol (20)", async () => {
    await open();
    await addUser("member", "+@all");
    const [client, other] = [await stage.client(), await stage.client()];
    for (const login of [
      ["AUTH", "member", "member"],
      ["HELLO", "3", "AUTH", "member", "member"],
    ]) {
      const replies = await client.pipeline([["WATCH", "k"], login]);
      expect([replies[0], replies[1] instanceof ReplyError ? replies[1] : "OK"]).toEqual(["OK", "OK"]);
      expect(await client.pipeline([["MULTI"], ["ACL", "WHOAMI"], ["EXEC"]])).toEqual([
        "OK",
        "QUEUED",
        ["member"],
      ]);
      await client.pipeline([["WATCH", "k"], login]);
      await other.command("INCR", "k");
      expect(await client.pipeline([["MULTI"], ["ACL", "WHOAMI"], ["EXEC"], ["GET", "k"]])).toMatchObject([
        "OK",
        "QUEUED",
        null,
        expect.any(String),
      ]);
      await untilNoPrivate();
    }
  });

  it("gives the new user's rights on every connection, and on a wrong password nothing changes", async () => {
    await open();
    await addUser("member", "+@all", "-set");
    const client = await stage.client();
    await client.command("WATCH", "k");
    expect(errorText(await client.command("AUTH", "member", "wrong"))).toMatch(/^WRONGPASS /);
    expect(
      await client.pipeline([
        ["SET", "free", "1"],
        ["ACL", "WHOAMI"],
      ]),
    ).toEqual(["OK", "default"]);
    expect(await client.command("AUTH", "member", "member")).toBe("OK");
    expect(errorText(await client.command("SET", "k", "1"))).toMatch(/^NOPERM /);
    expect(await client.pipeline([["UNWATCH"], ["ACL", "WHOAMI"]])).toEqual(["OK", "member"]);
    await untilNoPrivate();
    expect(errorText(await client.command("SET", "k", "1"))).toMatch(/^NOPERM /);
  });

  it("inside MULTI follows only a login that the server has accepted", async () => {
    await open();
    await addUser("member", "+@all", "-set");
    const client = await stage.client();
    if (losesWrongLogins()) {
      const login = [["MULTI"], ["AUTH", "member", "wrong"], ["EXEC"], ["ACL", "WHOAMI"]];
      const [, refused, aborted, user] = await client.pipeline(login);
      expect(errorText(refused)).toMatch(/^ERR proxy: AUTH inside MULTI is not supported yet/);
      expect([errorText(aborted), user]).toEqual([expect.stringMatching(/^EXECABORT /), "default"]);
      return;
    }
    const wrong = await client.pipeline([
      ["MULTI"],
      ["AUTH", "member", "wrong"],
      ["EXEC"],
      ["ACL", "WHOAMI"],
    ]);
    expect([errorText((wrong[2] as never[])[0]), wrong[3]]).toEqual([
      expect.stringMatching(/^WRONGPASS /),
      "default",
    ]);
    const right = await client.pipeline([
      ["MULTI"],
      ["AUTH", "member", "member"],
      ["EXEC"],
      ["SET", "k", "1"],
    ]);
    expect([right[2], errorText(right[3])]).toEqual([["OK"], expect.stringMatching(/^NOPERM /)]);
    await untilNoPrivate();
  });
});

describe("AUTH in one write behind the first command of a kind of connection that no server has seen yet", () => {
  it("is answered for its own credentials, not for what was asked before it", async () => {
    await open();
    await addUser("member", "+@all");
    const client = await stage.client();
    const replies = await client.pipeline([
      ["GET", "k"],
      ["AUTH", "member", "wrong"],
      ["ACL", "WHOAMI"],
    ]);
    expect(errorText(replies[1])).toMatch(/^WRONGPASS /);
    expect(replies[2]).toBe("default");
  });
});
