import { arityFits, type Command, isRepeatable } from "../commands/command.ts";
import { encodeError, encodeRequest } from "../resp/encode.ts";

/**
 * MULTI … EXEC, queued here and sent as one unit, so that a switch in between is never seen: a queue on a
 * node that is demoted would be lost. The checks at queue time are Redis's own (server.c, processCommand).
 */
export class Transaction {
  /** A command was refused when it was queued: EXEC answers EXECABORT. */
  spoilt = false;
  private readonly frames: Buffer[] = [];
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

  /** Why a command cannot be queued, as an error reply; null = it can. */
  refusal(command: Command, args: readonly Buffer[], bytes: number): Buffer | null {
    const problem = commandProblem(command, args);
    if (problem !== null) return problem;
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
    this.bytes += frame.length;
    this.repeatable &&= isRepeatable(command.plainKind);
  }

  /** A request that must run before the unit: it loads a script whose lack could not be repaired inside. */
  needFirst(request: Buffer): void {
    this.before.push(request);
    this.bytes += request.length;
  }

  /** Replies that the unit gets. */
  get replies(): number {
    return this.before.length + this.frames.length + 2;
  }

  /** The unit that is sent: MULTI, the commands, EXEC. */
  unit(): Buffer {
    return Buffer.concat([...this.before, MULTI, ...this.frames, EXEC]);
  }
}

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
function latin1Error(text: string): Buffer {
  return Buffer.from(`-${text.replace(/[\r\n]/g, " ")}\r\n`, "latin1");
}
