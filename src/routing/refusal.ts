/**
 * PURE. What an error reply says of its request: whether a server has refused it before it ran anything,
 * and for which cause, as far as that is about the node. What follows from that decides outcome.ts.
 */
import { lengthEnd, MINUS, readLength, STAR } from "../resp/bytes.ts";
import { ReplyFramer } from "../resp/reply.ts";
import type { NotRunCause, Request } from "../upstream/request.ts";

const OF_REPLICA = "cannot be used with replica instances. Please also note that";
const IF_WRITABLE = "if a replica is configured to be writable (which is not the default)";
const LOCAL_WRITES = "to replicas are just local and are not propagated.\r\n";

/**
 * Error replies a server gives before it runs anything (Redis server.c, processCommand), with their exact
 * texts, because a script can answer any text of its own. "slave" stands for "replica" in servers before
 * 5.
 */
const NOT_RUN_TEXTS: readonly (readonly [string, NotRunCause])[] = [
  ["-READONLY You can't write against a read only replica.\r\n", "not-master"],
  ["-READONLY You can't write against a read only slave.\r\n", "not-master"],
  ["-READONLY Can not run script with write flag on readonly replica\r\n", "not-master"],
  [
    "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n",
    "not-master",
  ],
  ["-LOADING Redis is loading the dataset in memory\r\n", "loading"],
  ["-LOADING Valkey is loading the dataset in memory\r\n", "loading"],
  // Asked of a node that is a replica now (replication.c, waitCommand and waitaofCommand).
  [`-ERR WAIT ${OF_REPLICA} since Redis 4.0 ${IF_WRITABLE} writes ${LOCAL_WRITES}`, "not-master"],
  [`-ERR WAIT ${OF_REPLICA} ${IF_WRITABLE} writes ${LOCAL_WRITES}`, "not-master"], // Valkey
  [`-ERR WAITAOF ${OF_REPLICA} writes ${LOCAL_WRITES}`, "not-master"],
  // Also where a new master's replicas have not found it yet (min-replicas-to-write).
  ["-NOREPLICAS Not enough good replicas to write.\r\n", "no-replicas"],
  ["-NOREPLICAS Not enough good slaves to write.\r\n", "no-replicas"],
  ["-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", "link-down"],
];

const EXECABORT = "-EXECABORT Transaction discarded because of";

/** Longest text above, bytes, with room for what EXECABORT puts before it. */
const LONGEST = 300;

/** Reads an error reply: null when it does not say that the node was the wrong one for the request. */
export function notRunCause(buf: Buffer, start: number, end: number): NotRunCause | null {
  if (end - start > LONGEST) return null;
  const text = buf.toString("latin1", start, end);
  if (text.startsWith(EXECABORT)) return execAbortCause(text);
  for (const [known, cause] of NOT_RUN_TEXTS) if (text === known) return cause;
  return null;
}

/**
 * First words of the errors that a server gives before it runs anything (server.c, processCommand; eval.c for
 * the last): they say nothing of a run before.
 */
const REFUSALS: ReadonlySet<string> = new Set([
  ...["READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "MISCONF", "OOM", "BUSY", "NOAUTH", "NOPERM"],
  ...["EXECABORT", "NOSCRIPT"],
]);

const LONGEST_WORD = 12;

/** Whether an error reply says that this time nothing ran; a script's own may claim it, too. */
export function isRefusal(buf: Buffer, start: number, end: number): boolean {
  if (buf[start] !== MINUS) return false;
  const [word = ""] = buf
    .toString("latin1", start + 1, Math.min(end, start + LONGEST_WORD))
    .split(/[ \r]/, 1);
  return REFUSALS.has(word);
}

/** EXEC's own check wraps the error: "EXECABORT Transaction discarded because of: READONLY …" (multi.c). */
function execAbortCause(text: string): NotRunCause | null {
  const wrapped = text.slice(EXECABORT.length);
  for (const [known, cause] of NOT_RUN_TEXTS) if (wrapped === `: ${known.slice(1)}`) return cause;
  return null;
}

/** Whether EXECABORT says only that a command was refused when it was queued. */
export function isPreviousErrors(buf: Buffer, start: number, end: number): boolean {
  if (end - start > LONGEST) return false;
  return buf.toString("latin1", start, end) === `${EXECABORT} previous errors.\r\n`;
}

/**
 * What an error reply says of its request, as far as the node's state is concerned; null = it is the
 * answer. A transaction that was refused at its end because of a command refused at queue time for such a
 * reason did not run either.
 */
export function refusalCause(request: Request, buf: Buffer, start: number, end: number): NotRunCause | null {
  const cause = notRunCause(buf, start, end);
  // A script may have made it up, and nothing tells later whether it did.
  if (cause === "no-replicas" && request.command.script) return null;
  if (cause !== null) return cause;
  if (request.command.script && isScriptOnReplica(buf, start, end)) return "not-master";
  return request.queueRefusal !== null && isPreviousErrors(buf, start, end) ? request.queueRefusal : null;
}

/**
 * A script that does not declare what it does is let in by a replica and refused at its first write, so
 * nothing
 * of it was written (script.c, scriptVerifyWriteCommandAllow; Valkey 9.1 leaves the script's name out; the
 * second form is that of servers before 7).
 */
const SCRIPT_ON_REPLICA = [
  /^-READONLY You can't write against a read only replica\. script: (.{1,200}, )?on @user_\w+:\d+\.\r\n$/,
  /^-ERR Error running script \(call to f_\w{40}\): [^\r\n]{1,64} -READONLY You can't write [^\r\n]+\r\n$/,
];

/** Longest text of these, bytes. */
const LONGEST_OF_SCRIPT = 320;

function isScriptOnReplica(buf: Buffer, start: number, end: number): boolean {
  if (end - start > LONGEST_OF_SCRIPT) return false;
  const text = buf.toString("latin1", start, end);
  return SCRIPT_ON_REPLICA.some((form) => form.test(text));
}

/**
 * What EXEC's reply says of a transaction with scripts in it. Unlike a write, a script does not make a
 * replica refuse the whole of it: the script runs and is refused at its first write (server.c,
 * processCommand looks at the flags of the commands only). So where one was refused nothing was written.
 */
export function unitRefusal(reply: Buffer): NotRunCause | null {
  if (reply[0] !== STAR || !reply.includes(READONLY_ELEMENT)) return null;
  const elements = readLength(reply, 1, reply.length);
  const framer = new ReplyFramer();
  let pos = lengthEnd;
  for (let i = 0; i < elements; i++) {
    const end = framer.next(reply, pos, reply.length);
    if (reply[pos] === MINUS && isRefusedScript(reply, pos, end)) return "not-master";
    pos = end;
  }
  return null;
}

/** In all of these errors; "Can not run script with write flag on readonly replica" is a function's. */
const READONLY_ELEMENT = "-READONLY ";

function isRefusedScript(buf: Buffer, start: number, end: number): boolean {
  return notRunCause(buf, start, end) === "not-master" || isScriptOnReplica(buf, start, end);
}

/**
 * Whether a refused script's error must be taken as its own: the same master is verified again in the same
 * epoch, so either the script made the error up or the refusal was real and passed; repeating could run it
 * twice, so its error is the answer.
 */
export function isOwnError(request: Request, epoch: number): boolean {
  const { command, refusal } = request;
  if (refusal === null || request.refusedInEpoch !== epoch) return false;
  return command.script || refusal[0] === STAR;
}

/** A request refused this often gets the server's refusal as its answer: the nodes do not agree with us. */
const MAX_REFUSALS = 32;

export function isRefusedTooOften(request: Request): boolean {
  return request.refusals >= MAX_REFUSALS;
}
