/** Passwords and users: the server decides, the proxy never grants more and never tells. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { EVERY_CHANNEL } from "../support/abilities.ts";
import type { RawClient } from "../support/client.ts";
import { RawClient as Client } from "../support/client.ts";
import { type ProxyProcess, startProxy } from "../support/proxy.ts";
import { type RedisGroup, type RedisServer, serverKind, startGroup, startRedis } from "../support/redis.ts";
import { type Argument, encodeCommand, type Reply, ReplyError } from "../support/resp.ts";
import { until, within } from "../support/wait.ts";

const SECRET = "s3cret-of-the-default-user";
const ALICE = "s3cret-of-alice";
const BOB = "s3cret-of-bob";
const WRONG = "s3cret-that-is-wrong";
const SECRETS = [SECRET, ALICE, BOB, WRONG, "dora's", "eve's"];

/** One command on the node itself, as the default user. */
async function onNode(server: RedisServer, ...command: Argument[]): Promise<Reply> {
  const client = await Client.connect({ port: server.port, deadlineMs: 10_000 });
  try {
    await client.command("AUTH", SECRET);
    return await client.command(...command);
  } finally {
    client.close();
  }
}

/** A group whose links are up before the password is set: until then the launcher can look at it. */
async function startSecretGroup(replicas: number): Promise<RedisGroup> {
  const group = await startGroup(replicas, { args: ["--masteruser", "default", "--masterauth", SECRET] });
  for (const server of group.all) {
    await server.cli(
      "ACL",
      "SETUSER",
      "alice",
      "on",
      `>${ALICE}`,
      "~alice:*",
      ...EVERY_CHANNEL,
      "+@all",
      "-@dangerous",
      "-flushall",
    );
    await server.cli(
      "ACL",
      "SETUSER",
      "bob",
      "on",
      `>${BOB}`,
      "~bob:*",
      ...EVERY_CHANNEL,
      "+@read",
      "+@connection",
      "+@transaction",
    );
    await server.cli("CONFIG", "SET", "requirepass", SECRET);
  }
  return group;
}

function texts(replies: readonly Reply[]): string[] {
  return replies.map((reply) => (reply instanceof ReplyError ? reply.message : JSON.stringify(reply)));
}

function word(reply: Reply | undefined): string {
  return reply instanceof ReplyError ? reply.word : `answered ${JSON.stringify(reply)}`;
}

const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

describe("a server with a password", () => {
  let group: RedisGroup;
  let proxy: ProxyProcess;
  const clients: RawClient[] = [];

  beforeAll(async () => {
    group = await startSecretGroup(1);
    proxy = await startProxy({ nodes: group.addresses, config: { upstream: { password: SECRET } } });
  });

  afterAll(async () => {
    await proxy?.close();
    await group?.close();
  });

  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
  });

  const connect = async (port = proxy.port): Promise<RawClient> => {
    const client = await Client.connect({ port, deadlineMs: 5_000 });
    clients.push(client);
    return client;
  };

  const login = async (user: string, password: string): Promise<RawClient> => {
    const client = await connect();
    expect(await client.command("AUTH", user, password)).toBe("OK");
    return client;
  };

  const REFUSED: readonly (readonly string[])[] = [
    ["PING"],
    ["PING", "hello"],
    ["ECHO", "x"],
    ["GET", "k"],
    ["SET", "k", "v"],
    ["HELLO", "2"],
    ["HELLO", "3"],
    ["HELLO", "3", "SETNAME", "n"],
    ["CLIENT", "ID"],
    ["CLIENT", "GETNAME"],
    ["CLIENT", "SETNAME", "n"],
    ["MULTI"],
    ["EXEC"],
    ["DISCARD"],
    ["WATCH", "k"],
    ["UNWATCH"],
    ["SELECT", "1"],
    ["SELECT", "abc"],
    ["SUBSCRIBE", "c"],
    ["PSUBSCRIBE", "c"],
    ["UNSUBSCRIBE"],
    ["MONITOR"],
    ["BLPOP", "k", "1"],
    ["XREAD", "BLOCK", "10", "STREAMS", "s", "0"],
    ["EVAL", "return 1", "0"],
    ["SCRIPT", "LOAD", "return 1"],
    ["SCAN", "0"],
    ["INFO"],
    ["COMMAND", "COUNT"],
    ["CONFIG", "GET", "requirepass"],
    ["ACL", "WHOAMI"],
    ["WAIT", "0", "0"],
    ["SHUTDOWN"],
    ["REPLICAOF", "NO", "ONE"],
    ["FAILOVER"],
    ["DEBUG", "SLEEP", "0"],
    // Valkey does not say to such a client what it knows.
    ...(serverKind().isValkey ? [] : [["NOSUCHCOMMAND"]]),
  ];

  it.each(REFUSED.map((args) => [args.join(" "), args] as const))(
    "refuses %s from a client that did not log in, in Redis's words",
    async (_name, args) => {
      const direct = await (await connect(group.master.port)).rawCommand(...args);
      const proxied = await (await connect()).rawCommand(...args);
      expect(proxied.toString()).toBe(direct.toString());
      // An unknown command is refused for what it is, everything else for want of a login.
      if (args[0] !== "NOSUCHCOMMAND") expect(direct.toString()).toMatch(/^-.*NOAUTH /);
    },
  );

  it("refuses a client that did not log in again and again, on one connection and in one write", async () => {
    const direct = await (await connect(group.master.port)).pipeline(REFUSED);
    const proxied = await (await connect()).pipeline(REFUSED);
    expect(texts(proxied)).toEqual(texts(direct));
  });

  it("lets nobody who did not log in change what the proxy does", async () => {
    const client = await connect();
    expect(word(await client.command("PROXY", "ADOPT", group.replica(0).address))).toBe("NOAUTH");
  });

  it("answers QUIT and RESET without a login, and says that AUTH was wrong", async () => {
    const client = await connect();
    expect(await client.command("RESET")).toBe("RESET");
    expect(word(await client.command("AUTH", WRONG))).toBe("WRONGPASS");
    expect(word(await client.command("AUTH", "default", WRONG))).toBe("WRONGPASS");
    expect(word(await client.command("AUTH", "nobody", SECRET))).toBe("WRONGPASS");
    expect(word(await client.command("HELLO", 3, "AUTH", "default", WRONG))).toBe("WRONGPASS");
    expect(word(await client.command("GET", "k"))).toBe("NOAUTH");
    expect(await client.command("QUIT")).toBe("OK");
    await client.untilDisconnected();
  });

  it("works after the right AUTH, and a wrong one later takes nothing away", async () => {
    const client = await connect();
    expect(await client.command("AUTH", SECRET)).toBe("OK");
    expect(await client.command("SET", "k", "v")).toBe("OK");
    expect(word(await client.command("AUTH", WRONG))).toBe("WRONGPASS");
    expect(await client.command("GET", "k")).toBe("v");
    expect(await client.command("ACL", "WHOAMI")).toBe("default");
    expect(await client.command("MULTI")).toBe("OK");
    expect(await client.command("GET", "k")).toBe("QUEUED");
    expect(await client.command("EXEC")).toEqual(["v"]);
    expect(await client.command("RESET")).toBe("RESET");
    expect(word(await client.command("GET", "k"))).toBe("NOAUTH");
  });

  it("logs in, names and switches the protocol with one HELLO", async () => {
    const client = await connect();
    const greeting = await client.command("HELLO", 3, "AUTH", "default", SECRET, "SETNAME", "worker");
    expect(greeting).toBeInstanceOf(Map);
    expect((greeting as Map<string, Reply>).get("proto")).toBe(3);
    expect(await client.command("CLIENT", "GETNAME")).toBe("worker");
    expect(await client.command("SET", "k", "v")).toBe("OK");
    expect(await client.rawCommand("GET", "nothing")).toEqual(Buffer.from("_\r\n"));
  });

  it("answers AUTH in its place in a pipeline: what came before it is refused, what follows is done [15]", async () => {
    const client = await connect();
    const replies = await client.pipeline([
      ["GET", "k"],
      ["AUTH", SECRET],
      ["SET", "k", "v"],
      ["GET", "k"],
      ["AUTH", WRONG],
      ["GET", "k"],
    ]);
    expect(replies.map((reply) => (reply instanceof ReplyError ? reply.word : reply))).toEqual([
      "NOAUTH",
      "OK",
      "OK",
      "v",
      "WRONGPASS",
      "v",
    ]);
  });

  it("lets a client that did not log in harm nobody by what Redis cuts such connections for", async () => {
    // Redis limits what it reads before a login: 10 arguments, 16 KB (networking.c, processMultibulkBuffer).
    const root = await login("default", SECRET);
    const bystander = await connect();
    const attacker = await connect();
    const holds = await proxy.metric("holdfast_holds_total");
    const lost = await proxy.metric("holdfast_upstream_lost_total");
    const many = Array.from({ length: 40 }, (_, i) => `k${i}`);
    const refused: string[] = [];
    const long = "x".repeat(20_000);
    for (let round = 0; round < 20; round++) {
      attacker.send(encodeCommand(["GET", long]));
      attacker.send(encodeCommand(["AUTH", "default", long]));
      attacker.send(encodeCommand(["HELLO", 3, "AUTH", "default", long]));
      attacker.send(encodeCommand(["BLPOP", ...many, 1]));
      const sets = bystander.pipeline(Array.from({ length: 20 }, () => ["SET", "k", "v"]));
      attacker.send(encodeCommand(["DEL", ...many]));
      for (const reply of await root.pipeline(Array.from({ length: 20 }, () => ["SET", "k", "v"])))
        expect(reply).toBe("OK");
      for (const reply of await sets) if (word(reply) !== "NOAUTH") refused.push(word(reply));
    }
    expect(refused).toEqual([]);
    expect(bystander.disconnected).toBe(false);
    // Nothing of it looked like an outage: no shared connection was lost, nobody was held.
    expect(await proxy.metric("holdfast_upstream_lost_total")).toBe(lost);
    expect(await proxy.metric("holdfast_holds_total")).toBe(holds);
  });

  it("gives each user exactly its own rights, also at the same time on the same node", async () => {
    const alice = await login("alice", ALICE);
    const bob = await login("bob", BOB);
    const nobody = await connect();
    const root = await login("default", SECRET);
    await root.command("MSET", "alice:k", "a", "bob:k", "b");
    await until(async () => (await onNode(group.replica(0), "GET", "bob:k")) === "b", {
      what: "the replica",
    });
    for (let round = 0; round < 50; round++) {
      const [a, b, n, r] = await Promise.all([
        alice.pipeline([
          ["ACL", "WHOAMI"],
          ["GET", "bob:k"],
          ["SET", "alice:k", "a"],
          ["GET", "alice:k"],
          ["FLUSHALL"],
        ]),
        bob.pipeline([
          ["GET", "alice:k"],
          ["GET", "bob:k"],
          ["SET", "bob:k", "x"],
          ["MULTI"],
          ["GET", "bob:k"],
          ["EXEC"],
        ]),
        nobody.pipeline([
          ["GET", "alice:k"],
          ["SET", "alice:k", "n"],
        ]),
        root.pipeline([
          ["ACL", "WHOAMI"],
          ["GET", "bob:k"],
        ]),
      ]);
      const simple = (replies: Reply[]) =>
        replies.map((reply) => (reply instanceof ReplyError ? reply.word : reply));
      expect(simple(a)).toEqual(["alice", "NOPERM", "OK", "a", "NOPERM"]);
      expect(simple(b)).toEqual(["NOPERM", "b", "NOPERM", "OK", "QUEUED", ["b"]]);
      expect(simple(n)).toEqual(["NOAUTH", "NOAUTH"]);
      expect(simple(r)).toEqual(["default", "b"]);
    }
  });

  it("refuses a transaction with a command the user may not run, and runs none of it [17]", async () => {
    const alice = await login("alice", ALICE);
    await onNode(group.master, "SET", "alice:tx", "0");
    expect(await alice.command("MULTI")).toBe("OK");
    await alice.command("INCR", "alice:tx");
    await alice.command("INCR", "bob:tx");
    expect(word(await alice.command("EXEC"))).toBe("EXECABORT");
    expect(await alice.command("GET", "alice:tx")).toBe("0");
  });

  it("changes the user of a session with AUTH, and only of that one", async () => {
    const first = await login("alice", ALICE);
    const second = await login("alice", ALICE);
    expect(await first.command("AUTH", "bob", BOB)).toBe("OK");
    expect(word(await first.command("GET", "alice:k"))).toBe("NOPERM");
    expect(word(await first.command("SET", "bob:k", "x"))).toBe("NOPERM");
    expect(word(await second.command("GET", "bob:k"))).toBe("NOPERM");
    expect(await second.command("SET", "alice:k", "a")).toBe("OK");
  });

  it("asks the server each time: a password that was changed is not good any more", async () => {
    await onNode(group.master, "ACL", "SETUSER", "carol", "on", ">first", "~*", "+@all");
    await onNode(group.replica(0), "ACL", "SETUSER", "carol", "on", ">first", "~*", "+@all");
    const before = await login("carol", "first");
    expect(await before.command("SET", "k", "v")).toBe("OK");
    for (const server of group.all) await onNode(server, "ACL", "SETUSER", "carol", "resetpass", ">second");
    const after = await connect();
    expect(word(await after.command("AUTH", "carol", "first"))).toBe("WRONGPASS");
    expect(await after.command("AUTH", "carol", "second")).toBe("OK");
    expect(await after.command("SET", "k", "w")).toBe("OK");
  });

  it("each of many that log in at once gets its own answer, wrong ones among them", async () => {
    // From Redis 7.2 on a wrong AUTH behind another one gets no reply, if both came in one piece.
    for (let round = 0; round < 5; round++) {
      const all = await Promise.all(Array.from({ length: 12 }, () => connect()));
      const isRight = (i: number) => i % 3 !== 1;
      const answers = await Promise.all(
        all.map((client, i) => client.command("AUTH", "bob", isRight(i) ? BOB : WRONG)),
      );
      expect(answers.map((answer) => (answer === "OK" ? "OK" : word(answer)))).toEqual(
        all.map((_, i) => (isRight(i) ? "OK" : "WRONGPASS")),
      );
    }
  });

  it("a client that guesses is checked ever more slowly, nobody else is; the right password ends that", async () => {
    const [guesser, other] = [await connect(), await login("default", SECRET)];
    // Nobody from before has logins left to be checked.
    await until(async () => (await proxy.metric("holdfast_clients")) === 2, {
      what: "the others being gone",
    });
    const failuresBefore = await proxy.metric("holdfast_auth_failures_total");
    const fromMs = performance.now();
    const guesses: string[][] = Array.from({ length: 4 }, () => ["AUTH", "alice", WRONG]);
    guesses.push(["HELLO", "3", "AUTH", "alice", WRONG], ["AUTH", "x".repeat(20_000)]);
    let isAnswered = false;
    const answers = guesser.pipeline([...guesses, ["GET", "alice:k"]]).finally(() => {
      isAnswered = true;
    });
    let pings = 0;
    while (!isAnswered) {
      expect(await other.command("PING")).toBe("PONG");
      pings++;
    }
    expect((await answers).map(word)).toEqual([...guesses.map(() => "WRONGPASS"), "NOAUTH"]);
    // Three are free, then 100, 200 and 400 ms.
    expect(performance.now() - fromMs).toBeGreaterThan(690);
    // Were the other one stopped too, it would get one answer between two guesses.
    expect(pings).toBeGreaterThan(20);
    expect(await proxy.metric("holdfast_auth_failures_total")).toBe(failuresBefore + guesses.length);
    expect(await guesser.command("AUTH", "alice", ALICE)).toBe("OK");
    const rightMs = performance.now();
    expect(rightMs - fromMs).toBeGreaterThan(1_480);
    expect(word(await guesser.command("AUTH", "alice", WRONG))).toBe("WRONGPASS");
    expect(await guesser.command("AUTH", "alice", ALICE)).toBe("OK");
    // The next pause would have been of 1600 ms.
    expect(performance.now() - rightMs).toBeLessThan(1_500);
    expect(guesser.disconnected).toBe(false);
  });

  it("a user who is deleted has lost its access, also where its client was idle, until it is there again", async () => {
    const rules = ["on", ">dora's", "~*", ...EVERY_CHANNEL, "+@all"];
    for (const server of group.all) await onNode(server, "ACL", "SETUSER", "dora", ...rules);
    const [idle, busy, other] = [
      await login("dora", "dora's"),
      await login("dora", "dora's"),
      await login("alice", ALICE),
    ];
    expect(await idle.command("SET", "k", "v")).toBe("OK");
    // A private connection is kept for the next client of this user.
    expect(await idle.command("BLPOP", "q", "0.01")).toBeNull();
    for (const server of group.all) await onNode(server, "ACL", "DELUSER", "dora");
    const commands = [
      ["GET", "k"],
      ["SET", "k", "w"],
      ["BLPOP", "q", "0.01"],
      ["CLIENT", "GETNAME"],
      ["MULTI"],
    ];
    for (const client of [idle, busy]) {
      // The server's word, not the proxy's.
      for (const command of commands) expect(word(await client.command(...command))).toBe("WRONGPASS");
      expect(client.disconnected).toBe(false);
    }
    expect(await other.command("SET", "alice:k", "v")).toBe("OK");
    expect(await onNode(group.master, "GET", "k")).toBe("v");
    for (const server of group.all) await onNode(server, "ACL", "SETUSER", "dora", ...rules);
    expect(await busy.command("SET", "k", "w")).toBe("OK");
    expect(await busy.command("BLPOP", "q", "0.01")).toBeNull();
  });

  it("rights that are taken away are gone at once, on every kind of connection", async () => {
    const rules = ["on", ">eve's", "~*", ...EVERY_CHANNEL, "+@all"];
    for (const server of group.all) await onNode(server, "ACL", "SETUSER", "eve", ...rules);
    const eve = await login("eve", "eve's");
    expect(await eve.command("SET", "k", "v")).toBe("OK");
    expect(await eve.command("GET", "k")).toBe("v");
    expect(await eve.command("BLPOP", "q", "0.01")).toBeNull();
    const less = ["-get", "-set", "-blpop"];
    for (const server of group.all) await onNode(server, "ACL", "SETUSER", "eve", ...less);
    for (const command of [
      ["GET", "k"],
      ["SET", "k", "w"],
      ["BLPOP", "q", "0.01"],
    ]) {
      expect(word(await eve.command(...command))).toBe("NOPERM");
    }
    expect(await eve.command("EXISTS", "k")).toBe(1);
  });

  it("never shows a password: not in the log, the status, PROXY or the metrics", async () => {
    const client = await login("default", SECRET);
    // Also where it was wrong, or its user went away.
    const failed = await connect();
    for (const args of [
      ["AUTH", "alice", WRONG],
      ["HELLO", "3", "AUTH", "bob", WRONG],
      ["AUTH", WRONG],
    ]) {
      expect((await failed.rawCommand(...args)).toString()).not.toContain(WRONG);
    }
    const shown = [
      JSON.stringify(proxy.logs),
      proxy.stray,
      await (await proxy.http("/api/status")).text(),
      await (await proxy.http("/metrics")).text(),
      await (await proxy.http("/readyz")).text(),
      await (await proxy.http("/")).text(),
    ];
    for (const subcommand of ["STATUS", "NODES", "EPOCH", "FAILOVERS", "HELP"]) {
      shown.push((await client.rawCommand("PROXY", subcommand)).toString());
    }
    for (const secret of SECRETS) for (const text of shown) expect(text).not.toContain(secret);
    expect(shown[0]).toContain("master found");
    expect(proxy.stray).toBe("");
  });
});

describe("logins and outages", () => {
  const start = async (replicas: number) => {
    const group = await startSecretGroup(replicas);
    cleanups.push(group.close);
    const proxy = await startProxy({ nodes: group.addresses, config: { upstream: { password: SECRET } } });
    cleanups.push(() => proxy.kill());
    const readable = async () =>
      (await proxy.status<{ nodes: { fit: boolean }[] }>()).nodes.filter((node) => node.fit).length;
    await until(async () => (await readable()) === replicas + 1, { what: "all nodes fit" });
    return { group, proxy };
  };

  it("is still its user, in its database and with its name, after a failover [1, 8]", async () => {
    const { group, proxy } = await start(2);
    const alice = await proxy.connect();
    const bob = await proxy.connect();
    const nobody = await proxy.connect();
    await alice.command("HELLO", 3, "AUTH", "alice", ALICE, "SETNAME", "alice-1");
    expect(await alice.command("SELECT", 2)).toBe("OK");
    expect(await alice.command("SET", "alice:k", "before")).toBe("OK");
    expect(await bob.command("AUTH", "bob", BOB)).toBe("OK");

    const [promoted, other] = [group.replica(0), group.replica(1)];
    await group.master.kill("SIGKILL");
    const written = alice.command("SET", "alice:k", "after");
    const refused = bob.command("SET", "bob:k", "x");
    await until(async () => (await proxy.metric("holdfast_held")) >= 1, { what: "the write being held" });
    await onNode(promoted, "SLAVEOF", "NO", "ONE");
    await onNode(other, "SLAVEOF", promoted.host, promoted.port);
    expect(await written).toBe("OK");
    expect(word(await refused)).toBe("NOPERM");
    expect(await alice.command("ACL", "WHOAMI")).toBe("alice");
    expect(await alice.command("CLIENT", "GETNAME")).toBe("alice-1");
    expect(await alice.rawCommand("GET", "alice:nothing")).toEqual(Buffer.from("_\r\n"));
    expect(await alice.command("GET", "alice:k")).toBe("after");
    expect(word(await alice.command("GET", "bob:k"))).toBe("NOPERM");
    expect(word(await bob.command("GET", "alice:k"))).toBe("NOPERM");
    expect(word(await nobody.command("SET", "alice:k", "x"))).toBe("NOAUTH");
    expect([alice.disconnected, bob.disconnected, nobody.disconnected]).toEqual([false, false, false]);
  });

  it("checks AUTH on a replica while there is no master: right is OK, wrong is WRONGPASS, at once [2, 6]", async () => {
    const { group, proxy } = await start(1);
    await onNode(group.master, "SET", "alice:k", "v");
    await until(async () => (await onNode(group.replica(0), "GET", "alice:k")) === "v", {
      what: "the value on the replica",
    });
    await group.master.kill("SIGKILL");
    await until(async () => (await proxy.metric("holdfast_writable")) === 0, {
      what: "the outage being seen",
    });
    const alice = await proxy.connect({ deadlineMs: 3_000 });
    expect(await alice.command("AUTH", "alice", ALICE)).toBe("OK");
    expect(await alice.command("GET", "alice:k")).toBe("v");
    const wrong = await proxy.connect({ deadlineMs: 3_000 });
    expect(word(await wrong.command("AUTH", "alice", WRONG))).toBe("WRONGPASS");
    expect(word(await wrong.command("GET", "alice:k"))).toBe("NOAUTH");
    const three = await proxy.connect({ deadlineMs: 3_000 });
    const greeting = await three.command("HELLO", 3, "AUTH", "bob", BOB);
    expect(greeting).toBeInstanceOf(Map);
  });

  it("holds AUTH and HELLO while no node can be asked, and answers them when one can [2]", async () => {
    const { group, proxy } = await start(0);
    const seen = await proxy.connect();
    expect(await seen.command("AUTH", SECRET)).toBe("OK");
    await group.master.kill("SIGKILL");
    await until(async () => (await proxy.metric("holdfast_writable")) === 0, {
      what: "the outage being seen",
    });
    const right = await proxy.connect();
    const wrong = await proxy.connect();
    const three = await proxy.connect();
    const answers = [
      right.pipeline([
        ["AUTH", SECRET],
        ["SET", "k", "v"],
        ["GET", "k"],
      ]),
      wrong.pipeline([
        ["AUTH", WRONG],
        ["GET", "k"],
      ]),
      three.pipeline([
        ["HELLO", 3, "AUTH", "default", SECRET],
        ["CLIENT", "GETNAME"],
      ]),
    ];
    await until(async () => (await proxy.metric("holdfast_held")) === 3, { what: "all three being held" });
    expect(await seen.command("PROXY", "STATUS")).toContain("held_now");
    // The same history again: the data set was empty, so an empty master is the same master with a new
    // history.
    await group.master.restart(["--requirepass", SECRET]);
    const [first, second, third] = await within(Promise.all(answers), 10_000, "the answers after the outage");
    expect(first).toEqual(["OK", "OK", "v"]);
    expect(second?.map(word)).toEqual(["WRONGPASS", "NOAUTH"]);
    expect(third?.[0]).toBeInstanceOf(Map);
    expect([right.disconnected, wrong.disconnected, three.disconnected, seen.disconnected]).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });
});

describe("the proxy's own login", () => {
  it.each([
    ["wrong", WRONG],
    ["missing", null],
  ] as const)("says on /readyz and in PROXY STATUS that its password is %s", async (_how, password) => {
    const redis = await startRedis({ args: ["--requirepass", SECRET] });
    cleanups.push(() => redis.close());
    const upstream = password === null ? {} : { password };
    const proxy = await startProxy({ nodes: [redis.address], config: { upstream }, waitReady: false });
    cleanups.push(() => proxy.kill());
    const mentions = /password|auth|login|log in/i;
    const text = await until(
      async () => {
        const answer = await proxy.http("/readyz");
        expect(answer.status).toBe(503);
        const body = await answer.text();
        return mentions.test(body) ? body : null;
      },
      { deadlineMs: 5_000, what: "/readyz saying that the login failed" },
    );
    expect(text).toContain(redis.address);
    expect(text).not.toContain(WRONG);
    const client = await proxy.connect();
    const status = (await client.command("PROXY", "STATUS")) as Reply[];
    const problems = JSON.stringify(status[status.indexOf("problems") + 1]);
    expect(problems).toContain(redis.address);
    expect(problems).toMatch(mentions);
    expect(problems).not.toContain(WRONG);
    expect(proxy.logs.some((line) => mentions.test(JSON.stringify({ ...line, upstream: null })))).toBe(true);
    expect(JSON.stringify(proxy.logs)).not.toContain(WRONG);
    // Set right on the node, it is found without a restart.
    if (password !== null) {
      await onNode(redis, "CONFIG", "SET", "requirepass", WRONG);
      await proxy.ready();
      expect(await client.command("AUTH", WRONG)).toBe("OK");
      expect(await client.command("SET", "k", "v")).toBe("OK");
    }
  });
});
