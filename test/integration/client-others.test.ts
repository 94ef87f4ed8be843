/** CLIENT commands that concern other clients: PAUSE, UNBLOCK, rights; and all of it through a switch. */
import { afterEach, expect, it } from "vitest";
import type { RawClient } from "../support/client.ts";
import { errorText, Stage } from "../support/stage.ts";
import { sleep, until } from "../support/wait.ts";

let stage: Stage;
afterEach(() => stage.close());

/** The master is killed and the first replica promoted. */
async function switchOver(): Promise<void> {
  await stage.master.kill("SIGKILL");
  await stage.untilCause("connection-lost");
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
}

async function untilPaused(count: number): Promise<void> {
  const what = `${count} clients waiting for the end of the pause`;
  await until(async () => (await stage.number("clients_paused_now")) === count, { what });
}

async function untilBlocked(count: number): Promise<void> {
  const blocked = async () => (await stage.master.info("clients")).get("blocked_clients");
  await until(async () => (await blocked()) === String(count), { what: `${count} calls waiting` });
}

it("CLIENT PAUSE WRITE stops writes of all clients and nothing else, until UNPAUSE; no server hears of it (36)", async () => {
  stage = await Stage.open();
  const [boss, writer, second, reader] = (await stage.clients(4)) as [
    RawClient,
    RawClient,
    RawClient,
    RawClient,
  ];
  expect(await boss.command("SET", "k", "0")).toBe("OK");
  await second.pipeline([["MULTI"], ["APPEND", "k", "2"]]);
  expect(await boss.command("CLIENT", "PAUSE", "60000", "WRITE")).toBe("OK");
  const endsAtMs = Date.parse(String((await stage.status()).clients_paused_until));
  expect((await stage.status()).clients_paused).toBe("write");
  expect(Math.abs(endsAtMs - Date.now() - 60_000)).toBeLessThan(5_000);
  writer.send("APPEND k 1\r\nGET k\r\n");
  await untilPaused(1);
  second.send("EXEC\r\n");
  await untilPaused(2);
  // Reads, empty transactions, and what would be refused anyway are answered at once.
  expect(await reader.command("GET", "k")).toBe("0");
  expect(await reader.command("EVAL_RO", "return 1", "0")).toBe(1);
  expect(await reader.pipeline([["MULTI"], ["GET", "k"], ["EXEC"]])).toEqual(["OK", "QUEUED", ["0"]]);
  expect(errorText(await reader.command("SET", "k"))).toContain("wrong number of arguments");
  expect(errorText(await reader.command("NOSUCH"))).toContain("unknown command");
  expect(await reader.command("FUNCTION", "LIST")).toEqual([]);
  // The server itself takes writes.
  expect(await stage.master.cli("SET", "direct", "1")).toBe("OK");
  expect(writer.unclaimed + second.unclaimed).toBe(0);
  expect(await boss.command("CLIENT", "UNPAUSE")).toBe("OK");
  expect([await writer.reply(), await writer.reply(), await second.reply()]).toEqual([2, "01", [3]]);
  expect(await reader.command("GET", "k")).toBe("012");
  expect(await stage.status()).toMatchObject({ clients_paused: null, clients_paused_until: null });
  expect((await stage.accounts()).held).toBe(0);
});

it.each([
  ["PUBLISH", ["PUBLISH", "c", "m"], 0],
  ["PFCOUNT", ["PFCOUNT", "h"], 0],
  ["EVAL", ["EVAL", "return 7", "0"], 7],
  ["a queued write", ["SET", "q", "1"], "QUEUED"],
] as const)("CLIENT PAUSE WRITE stops %s as Redis does (36)", async (_name, args, reply) => {
  stage = await Stage.open({ replicas: 0 });
  const [boss, one] = (await stage.clients(2)) as [RawClient, RawClient];
  if (reply === "QUEUED") expect(await one.command("MULTI")).toBe("OK");
  expect(await boss.command("CLIENT", "PAUSE", "60000", "WRITE")).toBe("OK");
  const answer = one.command(...args);
  await untilPaused(1);
  expect(await boss.command("CLIENT", "UNPAUSE")).toBe("OK");
  expect(await answer).toBe(reply);
});

it("CLIENT PAUSE ALL stops everything but PROXY and ends by itself; a shorter one does not shorten it (36)", async () => {
  stage = await Stage.open({ replicas: 0 });
  const [boss, one] = (await stage.clients(2)) as [RawClient, RawClient];
  const startedMs = performance.now();
  expect(await boss.command("CLIENT", "PAUSE", "2500")).toBe("OK");
  boss.send("CLIENT UNPAUSE\r\n");
  one.send("PING\r\nRESET\r\nSET k v\r\n");
  await untilPaused(2);
  expect((await stage.status()).clients_paused).toBe("all");
  expect(errorText(await (await stage.client()).command("NOSUCH"))).toContain("unknown command");
  expect([await one.reply(), await one.reply(), await one.reply()]).toEqual(["PONG", "RESET", "OK"]);
  expect(performance.now() - startedMs).toBeGreaterThan(2_450);
  expect(await boss.reply()).toBe("OK");
  // The stricter level stays, and so does the later end.
  const againMs = performance.now();
  await boss.pipeline([
    ["CLIENT", "PAUSE", "1000", "WRITE"],
    ["CLIENT", "PAUSE", "1", "ALL"],
  ]);
  expect(await one.command("PING")).toBe("PONG");
  expect(performance.now() - againMs).toBeGreaterThan(950);
});

it("who leaves while paused is dropped with what it sent; who sends much is not read any further (36, 44)", async () => {
  stage = await Stage.open({ replicas: 0, config: { limits: { maxUnsentBytes: "64kb" } } });
  const [boss, sender] = (await stage.clients(2)) as [RawClient, RawClient];
  const leaver = await stage.proxy.connect();
  expect(await boss.command("CLIENT", "PAUSE", "60000", "WRITE")).toBe("OK");
  leaver.send("SET left 1\r\n");
  await untilPaused(1);
  leaver.socket.end();
  await untilPaused(0);
  const writes = 3_000;
  const value = "x".repeat(1_000);
  for (let i = 0; i < writes; i++) sender.send(`RPUSH many ${value}\r\n`);
  await untilPaused(1);
  await until(async () => (await stage.proxy.metric("holdfast_clients_paused")) === 1, {
    what: "reading to pause",
  });
  expect(await boss.command("CLIENT", "UNPAUSE")).toBe("OK");
  for (let i = 1; i <= writes; i++) expect(await sender.reply()).toBe(i);
  expect(await boss.command("EXISTS", "left")).toBe(0);
});

it("a pause outlasts hold.maxTime and a switch; what it stopped runs on the new master (36)", async () => {
  stage = await Stage.open({ config: { hold: { maxTime: "500ms" } } });
  const [boss, writer, reader] = (await stage.clients(3)) as [RawClient, RawClient, RawClient];
  expect(await boss.command("CLIENT", "PAUSE", "60000", "WRITE")).toBe("OK");
  writer.send("SET k v\r\n");
  await untilPaused(1);
  await switchOver();
  await sleep(700);
  expect(await reader.command("GET", "k")).toBeNull();
  expect(writer.unclaimed).toBe(0);
  expect(await boss.command("CLIENT", "UNPAUSE")).toBe("OK");
  expect(await writer.reply()).toBe("OK");
  expect(await stage.replica(0).cli("GET", "k")).toBe("v");
});

it("a proxy that shuts down while its clients are paused says so, runs nothing and ends well (36)", async () => {
  stage = await Stage.open({ replicas: 0 });
  const [boss, writer, blocked] = (await stage.clients(3)) as [RawClient, RawClient, RawClient];
  expect(await boss.command("CLIENT", "PAUSE", "600000", "WRITE")).toBe("OK");
  writer.send("SET k v\r\n");
  blocked.send("BLPOP q 0\r\n");
  await untilPaused(2);
  const startedMs = performance.now();
  const [reply] = await Promise.all([writer.reply(), stage.proxy.close()]);
  expect(errorText(reply)).toMatch(/^MASTERDOWN proxy: not run: clients are paused/);
  expect(performance.now() - startedMs).toBeLessThan(3_000);
  expect(await stage.master.cli("EXISTS", "k")).toBe(0);
  stage.forgetClients();
});

it("CLIENT UNBLOCK ends the waiting call of another client, and only that (21, 34)", async () => {
  stage = await Stage.open({ replicas: 0 });
  const [boss, waiter] = (await stage.clients(2)) as [RawClient, RawClient];
  const id = String(await waiter.command("CLIENT", "ID"));
  const unblock = (...how: string[]) => boss.command("CLIENT", "UNBLOCK", id, ...how);
  expect(await unblock()).toBe(0);
  expect(await boss.command("CLIENT", "UNBLOCK", "123456")).toBe(0);
  for (const [how, isMeant] of [
    [[], (reply: unknown) => reply === null],
    [["timeout"], (reply: unknown) => reply === null],
    [["ERROR"], (reply: unknown) => String(reply).includes("UNBLOCKED client unblocked via CLIENT UNBLOCK")],
  ] as const) {
    waiter.send("BLPOP q 0\r\n");
    await untilBlocked(1);
    expect(await unblock(...how)).toBe(1);
    const reply = await waiter.reply();
    expect(isMeant(reply), String(reply)).toBe(true);
    expect(await unblock(...how)).toBe(0);
  }
  // A call that was served is not ended: nothing is lost.
  waiter.send("BLPOP q 0\r\n");
  await untilBlocked(1);
  const [pushed, freed] = await boss.pipeline([
    ["RPUSH", "q", "job"],
    ["CLIENT", "UNBLOCK", id],
  ]);
  expect([pushed, freed]).toEqual([1, 0]);
  expect(await waiter.reply()).toEqual(["q", "job"]);
});

it.each([
  ["TIMEOUT", null],
  ["ERROR", "UNBLOCKED client unblocked via CLIENT UNBLOCK"],
])("CLIENT UNBLOCK %s of a call that waits for a master is answered here (21, 34)", async (how, text) => {
  stage = await Stage.open();
  const [boss, waiter] = (await stage.clients(2)) as [RawClient, RawClient];
  const id = String(await waiter.command("CLIENT", "ID"));
  waiter.send("BLMOVE q done LEFT RIGHT 0\r\n");
  await untilBlocked(1);
  await sleep(250);
  await stage.master.kill("SIGKILL");
  await stage.untilHeld();
  expect(await boss.command("CLIENT", "UNBLOCK", id, how)).toBe(1);
  const reply = await waiter.reply();
  expect(text === null ? reply : errorText(reply)).toBe(text);
  expect(await boss.command("CLIENT", "UNBLOCK", id, how)).toBe(0);
  await stage.replica(0).promote();
  expect(await waiter.command("SET", "k", "v")).toBe("OK");
});

it("the server's rights hold for what concerns others, as they are at that moment (34)", async () => {
  stage = await Stage.open({ replicas: 0 });
  const rights = (...rules: string[]) => stage.master.cli("ACL", "SETUSER", "eve", ...rules);
  await rights("on", ">pw", "~*", "&*", "+@all", "-client");
  const eve = await stage.client();
  const other = await stage.client();
  expect(await eve.command("AUTH", "eve", "pw")).toBe("OK");
  const id = String(await other.command("CLIENT", "ID"));
  other.send("BLPOP q 0\r\n");
  await untilBlocked(1);
  const asked: (readonly string[])[] = [
    ["CLIENT", "LIST"],
    ["CLIENT", "LIST", "ID", id],
    ["CLIENT", "KILL", "ID", id],
    ["CLIENT", "KILL", "127.0.0.1:1"],
    ["CLIENT", "PAUSE", "60000", "WRITE"],
    ["CLIENT", "UNPAUSE"],
    ["CLIENT", "UNBLOCK", id],
    ["CLIENT", "NO-EVICT", "ON"],
  ];
  const noRight = (args: readonly string[]) =>
    `NOPERM this user has no permissions to run the 'client|${args[1]!.toLowerCase()}' command`;
  for (const args of asked) expect(errorText(await eve.command(...args))).toBe(noRight(args));
  expect((await stage.status()).clients_paused).toBeNull();
  // What concerns the client alone is its own business.
  expect(await eve.command("CLIENT", "SETNAME", "eve")).toBe("OK");
  expect(await eve.command("CLIENT", "GETNAME")).toBe("eve");
  expect(String(await eve.command("CLIENT", "INFO"))).toContain(" name=eve ");
  // Once she may, she may; once she may not any more, she may not.
  await rights("+client|unblock", "+client|list", "+client|unpause");
  expect(await eve.command("CLIENT", "UNBLOCK", id)).toBe(1);
  expect(await other.reply()).toBeNull();
  expect(String(await eve.command("CLIENT", "LIST", "ID", id))).toContain(`id=${id} `);
  expect(await eve.command("CLIENT", "UNPAUSE")).toBe("OK");
  await rights("-client|list", "-client|unpause");
  for (const args of [
    ["CLIENT", "LIST"],
    ["CLIENT", "UNPAUSE"],
  ]) {
    expect(errorText(await eve.command(...args))).toBe(noRight(args));
  }
  // Without MULTI nobody can tell whether she may unpause; the server's own pause is never lifted.
  await rights("+client|unpause", "-multi");
  const startedMs = performance.now();
  await stage.master.cli("CLIENT", "PAUSE", "1500", "WRITE");
  expect(errorText(await eve.command("CLIENT", "UNPAUSE"))).toContain("NOPERM");
  await rights("+multi");
  expect(await eve.command("CLIENT", "UNPAUSE")).toBe("OK");
  expect(await other.command("SET", "k", "v")).toBe("OK");
  expect(performance.now() - startedMs).toBeGreaterThan(1_450);
  expect(other.disconnected).toBe(false);
});

it("CLIENT ID, name, flags and REPLY OFF stay the same through a crash and a promotion (1, 34, 35)", async () => {
  stage = await Stage.open();
  const [one, silent, boss] = (await stage.clients(3)) as [RawClient, RawClient, RawClient];
  const id = await one.command("CLIENT", "ID");
  await one.pipeline([
    ["CLIENT", "SETNAME", "w"],
    ["CLIENT", "NO-EVICT", "ON"],
  ]);
  silent.send("CLIENT REPLY OFF\r\nSET before 1\r\n");
  await until(async () => (await boss.command("GET", "before")) === "1", { what: "the silent write" });
  await stage.replica(0).untilCaughtUp(stage.master);
  await stage.master.kill("SIGKILL");
  await stage.untilCause("connection-lost");
  silent.send("SET during 1\r\nNOSUCH\r\n");
  await stage.untilHeld();
  await stage.replica(0).promote();
  await stage.untilMaster(stage.replica(0));
  silent.send("GET before\r\n");
  await until(async () => (await stage.replica(0).cli("GET", "during")) === "1", { what: "the held write" });
  expect(await one.command("CLIENT", "ID")).toBe(id);
  expect(String(await one.command("CLIENT", "INFO"))).toMatch(
    new RegExp(`^id=${String(id)} .* name=w .* flags=e `),
  );
  expect(silent.unclaimed).toBe(0);
  silent.send("CLIENT REPLY ON\r\nPING\r\n");
  expect([await silent.reply(), await silent.reply()]).toEqual(["OK", "PONG"]);
});

it("CLIENT LIST and KILL work while there is no master (6, 34)", async () => {
  stage = await Stage.open();
  const [boss, writer] = (await stage.clients(2)) as [RawClient, RawClient];
  const victim = await stage.proxy.connect();
  const id = String(await victim.command("CLIENT", "ID"));
  await writer.command("SET", "k", "1");
  await stage.master.kill("SIGKILL");
  await stage.untilCause("connection-lost");
  victim.send("SET never 1\r\n");
  await stage.untilHeld();
  expect(String(await boss.command("CLIENT", "LIST", "ID", id))).toContain(" cmd=set ");
  expect(await boss.command("CLIENT", "KILL", "ID", id)).toBe(1);
  await victim.untilDisconnected();
  await stage.replica(0).promote();
  expect(await writer.command("EXISTS", "never")).toBe(0);
  await stage.expectBalancedAccounts();
});

it("a list that names one client thousands of times is bounded by name (34)", async () => {
  stage = await Stage.open({ replicas: 0, config: { limits: { outputBufferBytes: "1mb" } } });
  const one = await stage.client();
  const id = String(await one.command("CLIENT", "ID"));
  const many = (count: number) =>
    one.command("CLIENT", "LIST", "ID", ...Array.from({ length: count }, () => id));
  expect(String(await many(1_000)).split("\n")).toHaveLength(1_001);
  expect(errorText(await many(20_000))).toMatch(/^ERR proxy: .*limits\.outputBufferBytes/);
  expect(await one.command("PING")).toBe("PONG");
});

it("UNPAUSE without room for a private connection names upstream.maxPrivate (34)", async () => {
  stage = await Stage.open({ replicas: 0, config: { upstream: { maxPrivate: 1 } } });
  const [boss, waiter] = (await stage.clients(2)) as [RawClient, RawClient];
  waiter.send("BLPOP q 0\r\n");
  await untilBlocked(1);
  expect(errorText(await boss.command("CLIENT", "UNPAUSE"))).toMatch(
    /^ERR proxy: .*upstream\.maxPrivate \(1\)/,
  );
  await boss.command("RPUSH", "q", "job");
  expect(await waiter.reply()).toEqual(["q", "job"]);
  // What it was asked on is given back each time.
  for (let i = 0; i < 3; i++) {
    await until(async () => (await boss.command("CLIENT", "UNPAUSE")) === "OK", { what: "room" });
  }
});
