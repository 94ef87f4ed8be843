import { arityFits, type Command, isRepeatable } from "../../commands/command.ts";
import { areIdempotentTogether } from "../../commands/idempotence.ts";
import { requestArgs } from "../../resp/args.ts";
import { encodeError, encodeRequest } from "../../resp/encode.ts";
import { type Step, StepsCall } from "./steps.ts";

/**
 * MULTI … EXEC, queued here and sent as one unit, so that a switch in between is never seen: a queue on a
 * node that is demoted would be lost. The checks at queue time are Redis's own (server.c, processCommand).
 */
export class Transaction {
  /** A command in it writes or may replicate: CLIENT PAUSE … WRITE stops its EXEC. */
  mayReplicate = false;
  /** A command was refused when it was queued: EXEC answers EXECABORT. */
  spoilt = false;
  private readonly frames: Buffer[] = [];
  private readonly commands: Command[] = [];
  /** Commands among them, and besides them, that concern the session itself; null = none. */
  private steps: Step[] | null = null;
  private hasScript = false;
  /** What a replica does at once and tells its own subscribers: to run it again would tell them twice. */
  private publishes = false;
  /** It leaves its connection with another user, database or protocol. */
  changesConnection = false;
  /** Requests that go out before the unit, to be sure of what it needs. */
  private readonly before: Buffer[] = [];
  private bytes = 0;
  private repeatable = true;
  private readonly maxBytes: number;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** Whether all it does can be done twice without harm. */
  get isRepeatable(): boolean {
    return this.repeatable;
  }

  /** Whether all it does leaves the same behind when it is done twice. */
  get isIdempotent(): boolean {
    if (this.steps !== null || this.before.length > 0) return false;
    return areIdempotentTogether(this.writes());
  }

  private *writes(): Iterable<Queued> {
    for (const one of this.queued()) if (!isRepeatable(one.command.plainKind)) yield one;
  }

  /** What the server runs of it. */
  *queued(): Iterable<Queued> {
    for (const [i, frame] of this.frames.entries()) {
      const command = this.commands[i];
      if (command !== undefined) yield { command, args: requestArgs(frame, 0) };
    }
  }

  /** Commands queued. */
  get size(): number {
    return this.frames.length;
  }

  /** Bytes of what is queued. */
  get length(): number {
    return this.bytes;
  }

  /** Why a command cannot be queued, as an error reply; null = it can. */
  refusal(command: Command, args: readonly Buffer[], bytes: number): Buffer | null {
    const problem = commandProblem(command, args);
    if (problem !== null) return problem;
    if (command.noMulti) return NOT_IN_MULTI;
    if (this.bytes + bytes > this.maxBytes) {
      return encodeError(
        `ERR proxy: the transaction is larger than limits.maxRequestBytes (${this.maxBytes} bytes)`,
      );
    }
    return null;
  }

  /** Queues a copy of the frame. */
  add(command: Command, frame: Buffer): void {
    this.frames.push(Buffer.from(frame));
    this.commands.push(command);
    this.bytes += frame.length;
    this.repeatable &&= isRepeatable(command.plainKind);
    this.hasScript ||= command.script;
    this.publishes ||= command.name === "publish" || command.name === "spublish";
  }

  /** Goes out before the unit; its reply is not the client's. */
  precede(request: Buffer): void {
    this.before.push(request);
    this.bytes += request.length;
  }

  /**
   * Queues a command that the server runs and that changes the connection it runs on.
   * @param run gets the server's reply to it, and says what the client is to see.
   */
  addChange(command: Command, frame: Buffer, run: (reply: Buffer) => Buffer): void {
    const at = this.frames.length;
    this.add(command, frame);
    this.changesConnection = true;
    this.addStep({ at, isSent: true, run: (reply) => run(reply ?? Buffer.alloc(0)) });
  }

  /** Queues a command of `bytes` that is the proxy's own. @param run makes its reply. */
  addLocal(bytes: number, run: () => Buffer): void {
    this.bytes += bytes;
    this.addStep({ at: this.frames.length, isSent: false, run });
  }

  private addStep(step: Step): void {
    this.steps ??= [];
    this.steps.push(step);
  }

  /** Replies that the unit gets. */
  get replies(): number {
    return this.before.length + this.frames.length + 2;
  }

  /** What becomes of the unit's reply; null = nothing, it is passed on. */
  call(unit: Buffer): StepsCall | null {
    const mayBeRefused = this.hasScript && !this.publishes;
    if (this.steps === null && !mayBeRefused) return null;
    return new StepsCall(unit, this.replies, this.frames.length, this.steps ?? [], mayBeRefused);
  }

  /** The unit that is sent: MULTI, the commands, EXEC. */
  unit(): Buffer {
    return Buffer.concat([...this.before, MULTI, ...this.frames, EXEC]);
  }
}

export interface Queued {
  readonly command: Command;
  readonly args: readonly Buffer[];
}

/** Valkey 9.1 puts the command's name into it. */
const NOT_IN_MULTI = encodeError("ERR Command not allowed inside a transaction");

const MULTI = encodeRequest(["MULTI"]);
const EXEC = encodeRequest(["EXEC"]);

/** What Redis finds wrong with a command before it looks at anything else; null = nothing. */
export function commandProblem(command: Command, args: readonly Buffer[]): Buffer | null {
  if (!command.known) return unknownCommand(args);
  if (!arityFits(command.arity, args.length)) return wrongArity(command.name);
  return command.subcommands === null ? null : subcommandProblem(command, args.length, args);
}

export function wrongArity(name: string): Buffer {
  return encodeError(`ERR ${wrongArityText(name)}`);
}

export function wrongArityText(name: string): string {
  return `wrong number of arguments for '${name}' command`;
}

/** Redis's own words for a sub-command it does not have, or with too few or too many words. */
function subcommandProblem(command: Command, argc: number, args: readonly Buffer[]): Buffer | null {
  const word = args[1]?.toString("latin1", 0, MAX_SHOWN);
  if (word === undefined) return null;
  const arity = command.subcommands?.get(word.toLowerCase());
  if (arity === undefined) {
    return latin1Error(`ERR unknown subcommand '${word}'. Try ${command.name.toUpperCase()} HELP.`);
  }
  return arityFits(arity, argc) ? null : wrongArity(`${command.name}|${word.toLowerCase()}`);
}

/**
 * Longest name and longest list of arguments shown in the error, as in Redis (server.c,
 * commandCheckExistence).
 */
const MAX_SHOWN = 128;

/** Redis's own words for a command it does not have. */
export function unknownCommand(args: readonly Buffer[]): Buffer {
  const name = args[0]?.toString("latin1", 0, MAX_SHOWN) ?? "";
  let shown = "";
  for (const arg of args.slice(1)) {
    if (shown.length >= MAX_SHOWN) break;
    shown += `'${arg.toString("latin1", 0, MAX_SHOWN - shown.length)}' `;
  }
  return latin1Error(`ERR unknown command '${name}', with args beginning with: ${shown}`);
}

/** A client's bytes are shown as they came. */
export function latin1Error(text: string): Buffer {
  return Buffer.from(`-${text.replace(/[\r\n]/g, " ")}\r\n`, "latin1");
}
