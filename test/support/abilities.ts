/**
 * What the server under test can do, by its own word. A test of what it lacks is skipped and says so.
 * Importing this starts a server once.
 */
import type { TestContext } from "vitest";
import { startRedis } from "./redis.ts";
import { ReplyError } from "./resp.ts";

interface Abilities {
  /** In small letters. */
  readonly commands: ReadonlySet<string>;
  /** CLIENT PAUSE … WRITE. */
  readonly pausesWrites: boolean;
  /** Settings that CONFIG GET has. */
  readonly settings: ReadonlySet<string>;
  /** Rules like `&channel` and `resetchannels`. */
  readonly channelRules: boolean;
  /** Rules like `-client|kill`. */
  readonly takesAwaySubcommands: boolean;
  /** INFO errorstats. */
  readonly errorStats: boolean;
  /** A master that reads its RDB file remembers the history it had. */
  readonly rdbHistory: boolean;
  /** A replica makes a lost link anew at once, not at the next turn of a timer of 1 s. */
  readonly relinksAtOnce: boolean;
}

async function ask(): Promise<Abilities> {
  const server = await startRedis();
  try {
    const commands = await server.cli("COMMAND");
    const settings = await server.cli("CONFIG", "GET", "*");
    if (!Array.isArray(commands) || !Array.isArray(settings)) throw new Error("the server does not tell");
    const allows = async (rule: string) =>
      !((await server.cli("ACL", "SETUSER", "u", rule)) instanceof ReplyError);
    const names = settings.filter((_, at) => at % 2 === 0).map(String);
    return {
      commands: new Set(commands.map((entry) => String(Array.isArray(entry) ? entry[0] : entry))),
      pausesWrites: !((await server.cli("CLIENT", "PAUSE", 0, "WRITE")) instanceof ReplyError),
      settings: new Set(names),
      channelRules: await allows("resetchannels"),
      takesAwaySubcommands: await allows("-client|kill"),
      errorStats: String(await server.cli("INFO", "errorstats")) !== "",
      // Both, and more below, came with the same version, and cannot be asked for.
      rdbHistory: names.includes("shutdown-timeout"),
      relinksAtOnce: names.includes("shutdown-timeout"),
    };
  } finally {
    await server.close();
  }
}

export const abilities = await ask();

/** Besides a command (`failover`) or a setting of CONFIG (`setting shutdown-timeout`). */
const OTHERS = {
  "CLIENT PAUSE … WRITE": abilities.pausesWrites,
  "ACL &channel": abilities.channelRules,
  "ACL -command|subcommand": abilities.takesAwaySubcommands,
  "INFO errorstats": abilities.errorStats,
  "history in RDB files": abilities.rdbHistory,
  "replica that makes a lost link anew at once": abilities.relinksAtOnce,
  "scripts that are not replicated": abilities.rdbHistory,
  "READONLY as the first word of a script's error": abilities.rdbHistory,
  // Came with the same version.
  "users of Sentinels": abilities.channelRules,
  "SENTINEL MYID": abilities.channelRules,
} as const;

export type Need = Lowercase<string> | `setting ${string}` | keyof typeof OTHERS;

function has(need: Need): boolean {
  for (const [name, isThere] of Object.entries(OTHERS)) if (name === need) return isThere;
  const [, setting] = /^setting (.*)$/.exec(need) ?? [];
  return setting === undefined ? abilities.commands.has(need) : abilities.settings.has(setting);
}

/** The rules of a user, without those of channels where the server has none: all are open there. */
export function aclRules(...rules: readonly string[]): string[] {
  return abilities.channelRules ? [...rules] : rules.filter((rule) => !/^(&|(all|reset)channels)/.test(rule));
}

/** The rule that opens all channels to a user, where the server has such rules. */
export const EVERY_CHANNEL: readonly string[] = aclRules("&*");

/** At the beginning of a test: skips it, and says what the server does not know. */
export function needs({ skip }: TestContext, ...needed: readonly Need[]): void {
  const lacking = needed.filter((need) => !has(need));
  skip(lacking.length > 0, `this server has no ${lacking.join(", ")}`);
}
