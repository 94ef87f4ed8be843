/** Commands about the server itself: they go to the master, under the client's own rights. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { EVERY_CHANNEL } from "../support/abilities.ts";
import { RawClient as Client } from "../support/client.ts";
import type { RedisServer } from "../support/redis.ts";
import { type Reply, ReplyError } from "../support/resp.ts";
import { calls, errorText, Stage } from "../support/stage.ts";
import { until } from "../support/wait.ts";

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

/** A client of a user with these rights, on all nodes. */
async function userOn(stage: Stage, name: string, ...rules: string[]): Promise<Client> {
  for (const server of stage.group.all) {
    await server.cli("ACL", "SETUSER", name, "reset", "on", `>${name}`, "~*", ...EVERY_CHANNEL, ...rules);
  }
  const client = await stage.client();
  expect(await client.command("AUTH", name, name)).toBe("OK");
  return client;
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
    const client = await userOn(stage, "noinfo", "+@all", "-info");
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

describe("a script that never ends", () => {
  it.each([
    ["SCRIPT KILL", ["EVAL", "while true do end", "0"]],
    ["FUNCTION KILL", ["FCALL", "forever", "0"]],
  ] as const)(
    "is ended by %s of another client of the same user, though both share a connection",
    async (kill, run) => {
      const [runner, killer, neighbour] = (await stage.clients(3)) as [Client, Client, Client];
      expect(await killer.command("CONFIG", "SET", "busy-reply-threshold", "100")).toBe("OK");
      expect(await killer.command("FUNCTION", "LOAD", "REPLACE", FOREVER)).toBe("forever");
      const late = `late-${run[0]}`;
      await stage.master.cli("ACL", "SETUSER", late, "on", ">late", "~*", ...EVERY_CHANNEL, "+@all");
      const running = runner.command(...run);
      const isBusy = async () =>
        errorOrNull(await ask(stage.master.port, "GET", "x"))?.startsWith("BUSY") === true;
      await until(isBusy, { what: "the server being busy" });
      const waiting = neighbour.command("SET", "neighbour", "1");
      // Nobody has come as this user before: Redis lets it in all the same.
      const hello = await (await stage.client()).command("HELLO", "3", "AUTH", late, "late");
      expect(hello).toBeInstanceOf(Map);
      if (run[0] === "FCALL") {
        expect(JSON.stringify(await killer.command("FUNCTION", "STATS"))).toContain("forever");
      }
      expect(await killer.command(...kill.split(" "))).toBe("OK");
      expect(errorText(await running)).toMatch(/script killed by user/i);
      expect(await waiting).toBe("OK");
      expect(await killer.command("SET", "k", "1")).toBe("OK");
    },
    15_000,
  );
});

const FOREVER = `#!lua name=forever
redis.register_function("forever", function() while true do end end)`;

function errorOrNull(reply: Reply): string | null {
  return reply instanceof ReplyError ? reply.message : null;
}

/** One command on a node itself. */
async function ask(port: number, ...args: string[]): Promise<Reply> {
  const client = await Client.connect({ port });
  try {
    return await client.command(...args);
  } finally {
    client.close();
  }
}

describe("commands that change the group", () => {
  const COMMANDS: readonly [string, ...string[]][] = [
    ["REPLICAOF", "NO", "ONE"],
    ["SLAVEOF", "NO", "ONE"],
    ["FAILOVER"],
    ["SHUTDOWN", "NOSAVE"],
  ];

  it.each(COMMANDS.map((args) => [args.join(" "), args] as const))(
    "%s: refused by default, with what to do instead and the setting (36)",
    async (_name, args) => {
      const client = await stage.client();
      const text = errorText(await client.command(...args));
      expect(text).toMatch(new RegExp(`^ERR proxy: ${args[0]} .*commands\\.topology.*the node itself`));
      expect(await calls(stage.master, args[0].toLowerCase())).toBe(0);
    },
  );

  it("are refused for their words first, as by Redis, alone and inside MULTI (36)", async () => {
    const commands = [["REPLICAOF", "a"], ["SYNC", "a"], ["PSYNC", "a"], ["SLAVEOF"]];
    const client = await stage.client();
    const direct = await Client.connect({ port: stage.master.port });
    for (const one of commands) {
      expect(await client.command(...one)).toEqual(await direct.command(...one));
      const unit = [["MULTI"], one, ["EXEC"]];
      expect(await client.pipeline(unit)).toEqual(await direct.pipeline(unit));
    }
    // Valkey 9.1 names the command there.
    const textOf = (reply: unknown) => String(reply).replace(/Command '\w+' not/, "Command not");
    for (const one of [["SHUTDOWN"], ["SYNC"], ["SAVE"]]) {
      const unit = [["MULTI"], one, ["EXEC"]];
      expect((await client.pipeline(unit)).map(textOf)).toEqual((await direct.pipeline(unit)).map(textOf));
    }
    direct.close();
  });

  it.each([["SYNC"], ["PSYNC", "?", "-1"], ["REPLCONF", "capa", "eof"]])(
    "%s never gets on a shared connection (36)",
    async (...args) => {
      const client = await stage.client();
      expect(errorText(await client.command(...args))).toMatch(/^ERR proxy: .*replication link$/);
    },
  );
});

describe("commands.topology: pass", () => {
  let passing: Stage;

  beforeEach(async () => {
    passing = await Stage.open({ replicas: 2, config: { commands: { topology: "pass" } } });
  });
  afterEach(() => passing.close());

  it("FAILOVER of a client is a switch for all (36, 37)", async () => {
    const client = await passing.client();
    const other = await passing.client();
    const to = ["FAILOVER", "TO", "127.0.0.1", String(passing.replica(0).port)];
    expect(await client.command(...to)).toBe("OK");
    await passing.untilMaster(passing.replica(0));
    expect(await other.command("SET", "k", "1")).toBe("OK");
    expect(await client.command("GET", "k")).toBe("1");
  });

  it("SHUTDOWN ends the master, its outcome is UNCERTAIN, and nobody else is asked to end (36)", async () => {
    const client = await passing.client();
    const sent = client.pipeline([
      ["SHUTDOWN", "NOSAVE"],
      ["SHUTDOWN", "NOSAVE"],
      ["SET", "k", "1"],
    ]);
    await passing.untilCause("connection-lost");
    await passing.replica(0).promote();
    const [first, second, third] = await sent;
    expect(errorText(first)).toMatch(/^UNCERTAIN /);
    expect(errorText(second)).toMatch(/^ERR proxy: SHUTDOWN is not held/);
    expect(third).toBe("OK");
    expect((await passing.replica(0).info()).get("role")).toBe("master");
  });

  it("asks for the client's own rights, and inside MULTI stays refused (36)", async () => {
    const client = await userOn(passing, "plain", "+@all", "-@dangerous");
    for (const args of [["FAILOVER"], ["REPLICAOF", "NO", "ONE"], ["SHUTDOWN"]]) {
      expect(errorText(await client.command(...args))).toMatch(/^NOPERM /);
    }
    const admin = await passing.client();
    const unit = await admin.pipeline([["MULTI"], ["REPLICAOF", "NO", "ONE"], ["EXEC"]]);
    expect(errorText(unit[1])).toMatch(/^ERR proxy: REPLICAOF inside MULTI/);
    expect(errorText(unit[2])).toMatch(/^EXECABORT /);
  });
});

describe("commands.topology: switchover", () => {
  let switching: Stage;

  beforeEach(async () => {
    switching = await Stage.open({ replicas: 2, config: { commands: { topology: "switchover" } } });
  });
  afterEach(() => switching.close());

  it("FAILOVER of a client is a planned switch, answered OK when it is done; nobody notices (36)", async () => {
    const client = await switching.client();
    const other = await switching.client();
    const [b, c] = [switching.replica(0), switching.replica(1)];
    const to = ["FAILOVER", "TO", "127.0.0.1", String(b.port), "TIMEOUT", "1500"];
    expect(await client.pipeline([["SET", "k", "1"], to, ["INCR", "k"]])).toEqual(["OK", "OK", 2]);
    expect((await switching.epoch()).master).toBe(b.address);
    expect(await other.command("INCR", "k")).toBe(3);
    expect(await client.command("failover")).toBe("OK");
    expect((await switching.epoch()).master).not.toBe(b.address);
    expect(await switching.number("uncertain")).toBe(0);
    expect(await switching.proxy.metric("holdfast_switchovers_total")).toBe(2);
    await c.kill();
    const why = async () => errorText(await client.command("FAILOVER", "TO", "127.0.0.1", String(c.port)));
    expect(await why()).toMatch(/^ERR proxy: .*cannot take over: .*; nothing was changed/);
    expect(errorText(await client.command("FAILOVER", "TIMEOUT", "0"))).toMatch(/^ERR proxy: TIMEOUT takes/);
  });

  it("the rest is refused, with what to use instead (36)", async () => {
    const client = await switching.client();
    const refused: readonly (readonly [instead: string, command: [string, ...string[]]])[] = [
      ["PROXY SWITCHOVER", ["FAILOVER", "ABORT"]],
      ["PROXY SWITCHOVER", ["FAILOVER", "TO", "127.0.0.1", "1", "FORCE", "TIMEOUT", "100"]],
      ["PROXY SWITCHOVER", ["FAILOVER", "TO", "127.0.0.1"]],
      ["PROXY SWITCHOVER", ["REPLICAOF", "NO", "ONE"]],
      ["PROXY SWITCHOVER", ["SLAVEOF", "NO", "ONE"]],
      ["PROXY RESTARTABLE", ["SHUTDOWN"]],
    ];
    for (const [instead, command] of refused) {
      const text = errorText(await client.command(...command));
      expect(text).toMatch(
        new RegExp(`^ERR proxy: ${command[0]} .*\\(commands\\.topology: switchover\\): use ${instead}, or`),
      );
    }
    const unit = await client.pipeline([["MULTI"], ["FAILOVER"], ["EXEC"]]);
    expect(errorText(unit[1])).toMatch(/^ERR proxy: FAILOVER .*PROXY SWITCHOVER/);
    expect(errorText(unit[2])).toMatch(/^EXECABORT /);
    expect(await switching.number("switches")).toBe(0);
  });

  it("only for whom the server lets run FAILOVER (36)", async () => {
    const client = await userOn(switching, "plain", "+@all", "-failover");
    expect(errorText(await client.command("FAILOVER"))).toMatch(/^NOPERM .*failover/);
    expect(await switching.number("switches")).toBe(0);
    const admin = await userOn(switching, "boss", "-@all", "+failover", "+multi");
    expect(await admin.command("FAILOVER")).toBe("OK");
    expect(await switching.number("switches")).toBe(1);
  });

  it("without a master it is refused at once: it waits for nobody (36)", async () => {
    const client = await switching.client();
    await switching.master.kill();
    await switching.untilCause("connection-lost");
    expect(errorText(await client.command("FAILOVER"))).toMatch(/^ERR proxy: FAILOVER is not held/);
  });
});

describe("commands about the server", () => {
  /** Each with the class of rights it needs; none of them may run anywhere but on the master. */
  const COMMANDS = [
    "ROLE",
    "TIME",
    "LASTSAVE",
    "CONFIG GET maxmemory",
    "ACL WHOAMI",
    "ACL LIST",
    "SLOWLOG LEN",
    "LATENCY LATEST",
    "MEMORY USAGE k",
    "OBJECT ENCODING k",
    "DEBUG SLEEP 0",
    "SWAPDB 1 2",
    "MODULE LIST",
    "FUNCTION LIST",
    "FCALL echo 1 k",
    "EVAL return(redis.call('type',KEYS[1]).ok) 1 k",
    "EVALSHA_RO 0000000000000000000000000000000000000000 1 k",
    "COMMAND COUNT",
    "INFO server",
    "DBSIZE",
    "BGREWRITEAOF",
    "WATCH k",
    "PUBSUB NUMPAT",
  ];
  /** Any node answers it alike; the probes ask for it too; it is replicated. */
  const ELSEWHERE_TOO = ["command", "info", "swapdb"];

  beforeAll(async () => {
    expect(await stage.master.cli("FUNCTION", "LOAD", "REPLACE", ECHO)).toBe("echo");
    expect(await stage.master.cli("SET", "k", "v")).toBe("OK");
    await stage.replica(0).untilCaughtUp(stage.master);
  });

  it.each(COMMANDS)("%s runs on the master alone, under the client's own rights", async (line) => {
    const args = line.split(" ");
    const name = args[0]!.toLowerCase();
    const [allowed, denied] = [
      await userOn(stage, "allowed", "-@all", `+${name}`, "+type"),
      await userOn(stage, "denied", "+@all", `-${name}`),
    ];
    expect(errorText(await denied.command(...args))).toMatch(new RegExp(`^NOPERM .*'${name}`));
    const before = await callsOf(stage.replica(0), name);
    const beforeOnMaster = await callsOf(stage.master, name);
    const error = errorOrNull(await allowed.command(...args));
    expect(error ?? "").not.toMatch(/^(NOPERM|ERR proxy|UNCERTAIN)/);
    if (error === null && name !== "command") {
      expect(await callsOf(stage.master, name)).toBeGreaterThan(beforeOnMaster);
    }
    if (ELSEWHERE_TOO.includes(name)) return;
    expect(await callsOf(stage.replica(0), name)).toBe(before);
  });

  it("ACL WHOAMI says who the client is, of its own connection and of others' alike", async () => {
    const [one, two] = [await userOn(stage, "one", "+@all"), await userOn(stage, "two", "+@all")];
    const nobody = await stage.client();
    for (const [client, name] of [
      [one, "one"],
      [two, "two"],
      [nobody, "default"],
      [one, "one"],
    ] as const) {
      expect(await client.command("ACL", "WHOAMI")).toBe(name);
    }
  });

  it("the read-only variants refuse to write, and say so as Redis does", async () => {
    const client = await stage.client();
    const set = "return redis.call('set', KEYS[1], 'x')";
    expect(errorText(await client.command("EVAL_RO", set, "1", "k"))).toMatch(
      /Write commands are not allowed/,
    );
    const sha = (await client.command("SCRIPT", "LOAD", set)) as string;
    expect(errorText(await client.command("EVALSHA_RO", sha, "1", "k"))).toMatch(
      /Write commands are not allowed/,
    );
    expect(errorText(await client.command("FCALL_RO", "echo", "1", "k"))).toMatch(/write flag/i);
    expect(await client.command("FCALL_RO", "echo_ro", "1", "k")).toBe("k");
    expect(await client.command("FCALL", "echo", "1", "k")).toBe("k");
    expect(await client.command("GET", "k")).toBe("v");
  });
});

const ECHO = `#!lua name=echo
redis.register_function("echo", function(keys) return keys[1] end)
redis.register_function{ function_name = "echo_ro", callback = function(keys) return keys[1] end, flags = { "no-writes" } }`;

/** Runs of a command and of all its sub-commands, refused ones left out. */
async function callsOf(server: RedisServer, name: string): Promise<number> {
  let sum = 0;
  for (const [key, value] of await server.info("commandstats")) {
    if (key !== `cmdstat_${name}` && !key.startsWith(`cmdstat_${name}|`)) continue;
    sum += Number(/^calls=(\d+)/.exec(value)?.[1] ?? 0);
  }
  return sum;
}

it("functions that a client has loaded are there after a switch, and run during it (31, 32)", async () => {
  const other = await Stage.open({ replicas: 1 });
  try {
    const client = await other.client();
    const library = `#!lua name=counter
redis.register_function("bump", function(keys) return redis.call("INCR", keys[1]) end)`;
    expect(await client.command("FUNCTION", "LOAD", library)).toBe("counter");
    expect(await client.command("FCALL", "bump", "1", "n")).toBe(1);
    await other.replica(0).untilCaughtUp(other.master);
    await other.master.kill("SIGKILL");
    await other.untilCause("connection-lost");
    const waiting = client.pipeline([
      ["FCALL", "bump", "1", "n"],
      ["FUNCTION", "LOAD", "REPLACE", library],
    ]);
    await other.untilHeld();
    await other.replica(0).promote();
    expect(await waiting).toEqual([2, "counter"]);
    expect(await client.command("FCALL", "bump", "1", "n")).toBe(3);
  } finally {
    await other.close();
  }
});
