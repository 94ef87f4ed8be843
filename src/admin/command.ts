/** PROXY …: what the proxy tells about itself, on the port the clients use. */

import { encodeError, encodeValue, type Protocol, type Value } from "../resp/encode.ts";
import { type ClientReading, clientsLimit, clientsValue } from "./clients.ts";
import type { CommandArgs, Overview } from "./overview.ts";
import { runRestartable, runSwitchover, type Switcher, type SwitchoverSettings } from "./switchover.ts";

const HELP: readonly string[] = [
  "PROXY <subcommand>. Subcommands are:",
  "STATUS",
  "    The state of the proxy: epoch, master, clients, held sessions, counters.",
  "NODES",
  "    One entry a node: role, whether it may be read and why (not), lag, offsets, history.",
  "EPOCH",
  "    The belief all routing uses: number, master, history, nodes fit to read.",
  "FAILOVERS",
  "    The last switches: when, from, to, why, how long writes were held, what was lost.",
  "CLIENTS [LIMIT <count>]",
  "    One entry a client, oldest first, 100 if no limit is given: state, held time, requests, bytes.",
  "CONSISTENCY [session|proxy|eventual|strong|default]",
  "    What the reads of this client see, until it says otherwise or RESET; without a word: what that is now.",
  "ADOPT <host:port>",
  "    Accept this node as the master although its history does not continue the known one.",
  "SWITCHOVER [TO <host:port>] [TIMEOUT <ms>] [DRYRUN]",
  "    Make another node the master, without an error or a lost write; answers when it is done. DRYRUN: only",
  "    say what would be done. TIMEOUT: how long writes may be held before it is rolled back.",
  "RESTARTABLE <host:port> [TIMEOUT <ms>]",
  "    Move the master role away from this node if it has it, and say when the node may be stopped.",
  "HELP",
  "    Print this help.",
];

export class AdminCommand {
  private readonly overview: Overview;
  /** @returns null when done, else why not. */
  private readonly adopt: (node: string) => string | null;
  /** The oldest clients, so many at most. */
  private readonly clients: (limit: number) => readonly ClientReading[];

  private readonly switcher: Switcher;
  private readonly switchovers: SwitchoverSettings;

  constructor(options: {
    overview: Overview;
    switcher: Switcher;
    switchovers: SwitchoverSettings;
    adopt: (node: string) => string | null;
    clients: (limit: number) => readonly ClientReading[];
  }) {
    this.overview = options.overview;
    this.adopt = options.adopt;
    this.clients = options.clients;
    this.switcher = options.switcher;
    this.switchovers = options.switchovers;
  }

  /**
   * @param args the command's name first; valid for as long as the answer takes.
   * @returns the encoded reply; a promise of it where that takes time.
   */
  run(args: CommandArgs, protocol: Protocol): Buffer | Promise<Buffer> {
    const subcommand = args[1]?.toString("latin1", 0, 32).toUpperCase() ?? "";
    const value = hasItsWords(subcommand, args) ? this.answer(subcommand, args) : null;
    if (value instanceof Promise) return value.then((later) => encode(later, protocol));
    if (value !== null) return encode(value, protocol);
    const shown = subcommand.replace(/[^A-Z]/g, "?");
    return encodeError(
      `ERR proxy: unknown subcommand or wrong number of arguments for '${shown}'. Try PROXY HELP.`,
    );
  }

  private answer(subcommand: string, args: CommandArgs): Value | Buffer | Promise<Value | Buffer> {
    switch (subcommand) {
      case "HELP":
        return HELP;
      case "STATUS":
        return this.overview.status();
      case "NODES":
        return this.overview.nodes();
      case "EPOCH":
        return this.overview.epoch();
      case "FAILOVERS":
        return this.overview.failovers();
      case "CLIENTS": {
        const limit = clientsLimit(wordsOf(args));
        return limit === null ? null : clientsValue(this.clients(limit));
      }
      case "ADOPT": {
        const problem = this.adopt(args[2]?.toString("latin1", 0, 300) ?? "");
        return problem === null ? Buffer.from("+OK\r\n") : encodeError(`ERR proxy: ${problem}`);
      }
      case "SWITCHOVER":
        return runSwitchover(wordsOf(args), this.switcher, this.switchovers);
      case "RESTARTABLE":
        return runRestartable(wordsOf(args), this.switcher, this.switchovers);
      default:
        return null;
    }
  }
}

/** What follows the sub-command. */
function wordsOf(args: CommandArgs): string[] {
  return args.slice(2).map((arg) => arg.toString("latin1", 0, 300));
}

function encode(value: Value | Buffer, protocol: Protocol): Buffer {
  return Buffer.isBuffer(value) ? value : encodeValue(value, protocol);
}

/** Whether a sub-command has as many words as it takes. */
function hasItsWords(subcommand: string, args: CommandArgs): boolean {
  switch (subcommand) {
    case "ADOPT":
      return args.length === 3;
    case "CLIENTS":
      return args.length === 2 || args.length === 4;
    case "SWITCHOVER":
      return args.length <= 7;
    case "RESTARTABLE":
      return args.length === 3 || args.length === 5;
    default:
      return args.length === 2;
  }
}
