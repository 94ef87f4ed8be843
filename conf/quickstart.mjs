/**
 * The quickstart: three real Redis servers, two of them replicas of the first, and Holdfast in front of them.
 *
 *   node conf/quickstart.mjs [--base PORT]
 *
 * Runs until Ctrl-C (or SIGTERM, SIGHUP), then ends what it started and nothing else. It uses no packages, so
 * that it can be read as a recipe.
 */
import { spawn } from "node:child_process";
import { createWriteStream, mkdirSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HOST = "127.0.0.1";
const CHECKOUT = fileURLToPath(new URL("..", import.meta.url));
const DATA = path.join(CHECKOUT, "quickstart-data");
const DEFAULT_BASE = 6379;
const USAGE = "Usage: npm run quickstart [-- --base PORT]   (uses PORT to PORT+4)";

/** What we started, by name, in the order of starting. */
const children = new Map();
let isEnding = false;

async function main() {
  const ports = layout(baseFromArguments());
  await insistOnFreePorts(ports);
  mkdirSync(DATA, { recursive: true });
  for (const node of ports.nodes) await startRedis(node);
  const [master, ...replicas] = ports.nodes;
  for (const replica of replicas) await ask(replica.port, `SLAVEOF ${HOST} ${master.port}`);
  for (const replica of replicas) {
    await until(async () => (await ask(replica.port, "INFO replication")).includes("master_link_status:up"), {
      what: `the replica on ${replica.port} reaching its master`,
    });
  }
  say(`Redis: master on ${master.port}, replicas on ${replicas.map((node) => node.port).join(" and ")}.`);
  await startHoldfast(ports);
  say(whatToTry(ports));
}

// ---- ports ----------------------------------------------------------------------------------------

function baseFromArguments() {
  let base;
  try {
    ({ base } = parseArgs({ options: { base: { type: "string" } } }).values);
  } catch (error) {
    throw new Failure(`${error.message}\n${USAGE}`, 2);
  }
  if (base === undefined) return DEFAULT_BASE;
  const port = Number(base);
  if (!Number.isInteger(port) || port < 1 || port > 65_531)
    throw new Failure(`Not a port: ${base}\n${USAGE}`, 2);
  return port;
}

/** Which port is whose, and with which arguments each node starts. */
function layout(base) {
  const nodes = [1, 2, 3].map((index) => {
    const conf = `conf/redis-${DEFAULT_BASE + index}.conf`;
    const port = base + index;
    if (base === DEFAULT_BASE) return { port, args: [conf] };
    // Other ports than the file says, and so other names for its files.
    const files = ["--pidfile", `redis-${port}.pid`, "--logfile", `redis-${port}.log`];
    return { port, args: [conf, "--port", String(port), ...files, "--dbfilename", `dump-${port}.rdb`] };
  });
  return { proxy: base, nodes, http: base === DEFAULT_BASE ? 9121 : base + 4 };
}

async function insistOnFreePorts(ports) {
  const taken = await takenPorts(ports);
  if (taken.length === 0) return;
  const [which, verb] = taken.length === 1 ? ["Port", "is"] : ["Ports", "are"];
  throw new Failure(
    `${which} ${taken.join(", ")} ${verb} in use by another program. Nothing was started.\n` +
      `Stop that program, or use other ports: npm run quickstart -- --base ${await freeBase()}`,
  );
}

async function freeBase() {
  for (let base = 7000; base < 60_000; base += 100) {
    if ((await takenPorts(layout(base))).length === 0) return base;
  }
  return "PORT";
}

async function takenPorts({ proxy, nodes, http }) {
  const taken = [];
  for (const port of [proxy, ...nodes.map((node) => node.port), http]) {
    if (!(await canListen(port))) taken.push(port);
  }
  return taken;
}

function canListen(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: HOST, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

// ---- processes ------------------------------------------------------------------------------------

async function startRedis({ port, args }) {
  // Every quickstart begins empty: what is left here could be older than what its replicas have.
  rmSync(path.join(DATA, `dump-${port}.rdb`), { force: true });
  const child = start(`Redis on ${port}`, "redis-server", args);
  const log = path.join(DATA, `redis-${port}.log`);
  child.once("exit", () => {
    if (!isEnding) say(`The Redis on ${port} has ended. (Its log: ${path.relative(CHECKOUT, log)})`);
  });
  const answers = () => !isRunning(child) || ask(port, "PING").then((reply) => reply.startsWith("+PONG"));
  await until(answers, { what: `Redis on ${port} answering` });
  if (!isRunning(child)) throw new Failure(`Redis on ${port} did not start:\n${child.output}${tail(log)}`);
}

async function startHoldfast({ proxy, nodes, http }) {
  const args = ["dist/main.js", "--listen", `${HOST}:${proxy}`, "--http", `${HOST}:${http}`];
  args.push("--nodes", nodes.map((node) => `${HOST}:${node.port}`).join(","));
  let isReported = false;
  const child = start("Holdfast", process.execPath, args);
  const log = path.join(DATA, `holdfast-${proxy}.log`);
  const file = createWriteStream(log);
  child.stdout.pipe(file, { end: false });
  createInterface({ input: child.stdout }).on("line", (line) => isReported && say(readable(line)));
  child.stderr.pipe(file, { end: false });
  child.once("close", (code, signal) => {
    file.end(() => giveUp(new Failure(`Holdfast has ended (${signal ?? code}):\n${tail(log)}`)));
  });
  const isReady = async () => (await fetch(`http://${HOST}:${http}/readyz`)).ok;
  await until(isReady, { what: "Holdfast being ready" });
  isReported = true;
  say(
    `Holdfast: clients on ${proxy}, status on http://${HOST}:${http}/ ` +
      `(log: ${path.relative(CHECKOUT, log)}).`,
  );
}

/** Starts a child out of reach of the terminal's Ctrl-C: we alone end it, in our order. */
function start(name, command, args) {
  const child = spawn(command, args, { cwd: CHECKOUT, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  children.set(name, child);
  child.output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (text) => {
      child.output = (child.output + text).slice(-10_000);
    });
  }
  child.once("error", (error) => giveUp(new Failure(`Could not start ${command}: ${error.message}`)));
  return child;
}

function isRunning(child) {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}

/** Ends what we started: the proxy before its nodes, replicas before their master, with time to finish. */
async function endAll() {
  for (const [name, child] of [...children].reverse()) await end(name, child);
}

async function end(name, child) {
  if (!isRunning(child)) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  // A stopped process takes its SIGTERM only when it goes on.
  child.kill("SIGCONT");
  const timer = setTimeout(() => {
    say(`${name} does not end; killing it.`);
    child.kill("SIGKILL");
  }, 15_000);
  await gone;
  clearTimeout(timer);
}

async function onSignal(signal) {
  if (isEnding) process.exit(1);
  isEnding = true;
  say(`\n${signal}: ending what the quickstart started …`);
  await endAll();
  for (const name of children.keys()) {
    const port = Number(/\d+$/.exec(name)?.[0]);
    if (port && !(await canListen(port))) {
      say(
        `The Redis now on ${port} was started by hand and still runs; ` +
          `to end it: redis-cli -p ${port} shutdown`,
      );
    }
  }
  process.exit(0);
}

/** Nothing of ours outlives us, whatever ends us. */
function killAll() {
  for (const child of children.values()) if (isRunning(child)) child.kill("SIGKILL");
}

// ---- talking --------------------------------------------------------------------------------------

/** Sends one inline command and resolves with its reply as text; for simple and bulk replies. */
function ask(port, command) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: HOST, timeout: 5_000 });
    let text = "";
    socket.setEncoding("utf8").write(`${command}\r\n`);
    socket.on("data", (chunk) => {
      text += chunk;
      const length = /^\$(\d+)\r\n/.exec(text);
      const isWhole = length
        ? text.length >= length[0].length + Number(length[1]) + 2
        : text.endsWith("\r\n");
      if (isWhole) socket.destroy();
      if (isWhole && text.startsWith("-"))
        reject(new Error(`${command} on ${port}: ${text.slice(1).trim()}`));
      else if (isWhole) resolve(text);
    });
    socket.on("timeout", () => socket.destroy(new Error(`no answer on ${port} to ${command}`)));
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`${port} closed the connection`)));
  });
}

async function until(condition, { what, deadlineMs = 20_000 }) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const isMet = await Promise.resolve()
      .then(condition)
      .catch(() => false);
    if (isMet) return;
    if (Date.now() > end) throw new Error(`Not within ${deadlineMs / 1000} s: ${what}.`);
    await sleep(50);
  }
}

function whatToTry({ proxy, nodes, http }) {
  const [first, second, third] = nodes.map((node) => node.port);
  const startFirst = `redis-server ${nodes[0].args.join(" ")}`;
  const step = (command, what) => `  ${command.padEnd(44)} ${what}`;
  const note = (what) => step("", what);
  return [
    "",
    `Try this in another terminal, in ${CHECKOUT.replace(/\/$/, "")}.`,
    "Leave the first client open throughout.",
    "",
    step(`redis-cli -p ${proxy}`, "a client of the proxy; in it:"),
    step("  SET name chaoge", "goes to the master"),
    step("  GET name", "comes from a replica"),
    step(`redis-cli -p ${second} GET name`, "the replica has it"),
    step(`redis-cli -p ${first} INFO replication`, `who is who (also on ${second} and ${third})`),
    "",
    step(`redis-cli -p ${first} SHUTDOWN`, "the master goes: writes through the proxy wait, reads go on;"),
    step("  SET name again", "this one waits"),
    step(`redis-cli -p ${second} SLAVEOF NO ONE`, "a new master: the waiting write is answered at once"),
    step(`redis-cli -p ${third} SLAVEOF ${HOST} ${second}`, "the other node follows it, reads spread again"),
    "",
    `  ${startFirst} --replicaof ${HOST} ${second} --daemonize yes`,
    note("the old master comes back as a replica and serves reads"),
    note("(without --replicaof, a master by mistake: it never gets a write)"),
    "",
    step(`redis-cli -p ${proxy} PROXY STATUS`, "what the proxy believes; PROXY FAILOVERS: what happened"),
    step(`curl http://${HOST}:${http}/metrics`, `or the status page: http://${HOST}:${http}/`),
    "",
    "Ctrl-C ends the proxy and the three Redis servers.",
    "",
  ].join("\n");
}

/** A JSON line of Holdfast's log for people: `16:45:16 Holdfast: master found master=… epoch=1`. */
function readable(line) {
  try {
    const { level, time, pid, msg, ...details } = JSON.parse(line);
    const shown = Object.entries(details).map(([key, value]) => ` ${key}=${JSON.stringify(value)}`);
    return `${new Date(time).toTimeString().slice(0, 8)} Holdfast: ${msg}${shown.join("")}`;
  } catch {
    return line;
  }
}

function tail(file) {
  try {
    return readFileSync(file, "utf8").split("\n").slice(-20).join("\n");
  } catch {
    return "";
  }
}

function say(text) {
  process.stdout.write(`${text}\n`);
}

/** Why the quickstart cannot go on, for whoever typed it. */
class Failure extends Error {
  constructor(text, code = 1) {
    super(text);
    this.code = code;
  }
}

async function giveUp(error) {
  if (isEnding) return;
  isEnding = true;
  process.stderr.write(`${error.message}\n`);
  await endAll();
  process.exit(error instanceof Failure ? error.code : 1);
}

process.on("exit", killAll);
// The terminal may be gone before we are: what we say then is said to nobody.
process.stdout.on("error", () => {});
process.stderr.on("error", () => {});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => onSignal(signal));
main().catch(giveUp);
