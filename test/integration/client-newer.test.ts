/** Parts of CLIENT that only servers from 7.2 on have, beside a stand-in for one. */
import { afterEach, expect, it } from "vitest";
import { type FakeNode, type Handler, resp, startFakeNode } from "../support/fake-node.ts";
import { type ProxyProcess, startProxy } from "../support/proxy.ts";
import { errorText } from "../support/stage.ts";
import { until } from "../support/wait.ts";

let node: FakeNode;
let proxy: ProxyProcess;

afterEach(async () => {
  await proxy?.close();
  await node?.close();
});

const row = (name: string, arity: number, flags: readonly string[], subcommands: readonly string[] = []) =>
  resp.array([
    ...[resp.bulk(name), resp.integer(arity), resp.array(flags.map(resp.simple))],
    ...[resp.integer(0), resp.integer(0), resp.integer(0), resp.array([]), resp.array([]), resp.array([])],
    resp.array(subcommands),
  ]);

/** COMMAND of a server that has what 7.0 has not. */
const COMMANDS = resp.array([
  row(
    "client",
    -2,
    [],
    [
      ...[row("client|no-touch", 3, []), row("client|setinfo", 4, []), row("client|info", 2, [])],
      ...[row("client|kill", -3, []), row("client|list", -2, []), row("client|id", 2, [])],
    ],
  ),
  row("get", 2, ["readonly"]),
  row("watch", -2, ["fast"]),
  row("unwatch", 1, ["fast"]),
  row("ping", -1, ["fast"]),
]);

const NO_RIGHT = resp.error("NOPERM this user has no permissions to run the 'client|no-touch' command");

async function start(special: Handler = () => undefined): Promise<void> {
  node = await startFakeNode((command) => {
    const answer = special(command);
    if (answer !== undefined) return answer;
    const { name, args } = command;
    if (name === "COMMAND") return COMMANDS;
    if (name !== "CLIENT") return undefined;
    switch (`${args[1]?.toUpperCase()} ${args[2]}`) {
      case "NO-TOUCH x":
        return resp.error("ERR syntax error");
      case "KILL ID":
        return resp.integer(0);
      case "LIST ID":
        return resp.bulk("");
      default:
        return undefined;
    }
  });
  proxy = await startProxy({ nodes: [node.address] });
}

/** Whether each connection that was asked for this key had been told NO-TOUCH before. */
function untouched(key: string): boolean[] {
  const said = (commands: readonly string[][]) =>
    commands.some((args) => args.join(" ") === "CLIENT NO-TOUCH ON");
  const asked = (commands: readonly string[][]) => commands.some((args) => args[1] === key);
  return [...node.connections]
    .filter(({ commands }) => asked(commands))
    .map(({ commands }) => said(commands));
}

it("CLIENT NO-TOUCH holds on every connection that carries the client's requests, and on no other's (1, 34)", async () => {
  await start();
  const one = await proxy.connect();
  const other = await proxy.connect();
  await other.command("GET", "before");
  expect(await one.command("CLIENT", "NO-TOUCH", "ON")).toBe("OK");
  expect(errorText(await one.command("CLIENT", "NO-TOUCH", "maybe"))).toBe("ERR syntax error");
  expect(await one.command("GET", "mine")).toBeNull();
  expect(await other.command("GET", "theirs")).toBeNull();
  expect([untouched("mine"), untouched("theirs")]).toEqual([[true], [false]]);
  expect(String(await one.command("CLIENT", "INFO"))).toContain(" flags=T ");
  // Through the loss of all connections, too.
  await node.stop();
  await node.start();
  await until(async () => (await one.command("GET", "again")) === null, { what: "the read" });
  expect(untouched("again")).toEqual([true]);
  await one.command("SELECT", "3");
  await one.command("GET", "elsewhere");
  expect(untouched("elsewhere")).toEqual([true]);
  expect(await one.command("CLIENT", "NO-TOUCH", "OFF")).toBe("OK");
  await one.command("GET", "off");
  expect(untouched("off")).toEqual([false]);
  expect(String(await one.command("CLIENT", "INFO"))).toContain(" flags=N ");
  for (const client of [one, other]) client.close();
});

it("CLIENT NO-TOUCH beside a watch stays with its client: the connection is not handed on (1, 20, 34)", async () => {
  await start(({ name }) => (name === "WATCH" || name === "UNWATCH" ? resp.ok : undefined));
  const one = await proxy.connect();
  const other = await proxy.connect();
  expect(await one.command("WATCH", "mine")).toBe("OK");
  expect(await one.command("CLIENT", "NO-TOUCH", "ON")).toBe("OK");
  expect(untouched("mine")).toEqual([true]);
  expect(await one.command("UNWATCH")).toBe("OK");
  expect(await other.command("WATCH", "theirs")).toBe("OK");
  expect(untouched("theirs")).toEqual([false]);
});

it("CLIENT NO-TOUCH of a user who may not is refused, and nothing changes (34)", async () => {
  await start(({ args }) => (args[1]?.toUpperCase() === "NO-TOUCH" ? NO_RIGHT : undefined));
  const one = await proxy.connect();
  expect(errorText(await one.command("CLIENT", "NO-TOUCH", "ON"))).toMatch(/^NOPERM /);
  expect(await one.command("GET", "mine")).toBeNull();
  expect(String(await one.command("CLIENT", "INFO"))).toContain(" flags=N ");
  one.close();
});

it("the library that CLIENT SETINFO told stands in the line, and MAXAGE spares the young (34)", async () => {
  await start();
  const one = await proxy.connect();
  const young = await proxy.connect();
  expect(await one.command("CLIENT", "SETINFO", "lib-name", "ioredis")).toBe("OK");
  expect(await one.command("CLIENT", "SETINFO", "LIB-VER", "6.0.0")).toBe("OK");
  expect(errorText(await one.command("CLIENT", "SETINFO", "Lib-Name", "a b"))).toBe(
    "ERR Lib-Name cannot contain spaces, newlines or special characters.",
  );
  expect(errorText(await one.command("CLIENT", "SETINFO", "x", "y"))).toBe("ERR Unrecognized option 'x'");
  expect(String(await one.command("CLIENT", "INFO"))).toMatch(/ resp=2 lib-name=ioredis lib-ver=6\.0\.0\n$/);
  expect(await one.command("CLIENT", "KILL", "MAXAGE", "1000")).toBe(0);
  expect(errorText(await one.command("CLIENT", "KILL", "NAME", "x"))).toMatch(
    /^ERR proxy: an option of CLIENT KILL/,
  );
  expect(await young.command("PING")).toBe("PONG");
  // Whatever was asked, the server was never asked to kill a client of its own.
  const kills = node.commands.filter((args) => args[1] === "KILL");
  expect(kills.map((args) => args.slice(2, 4))).toEqual(kills.map(() => ["ID", "9223372036854775807"]));
  expect(kills).toHaveLength(2);
  for (const client of [one, young]) client.close();
});
