/**
 * What the server under test can do, by its own word: tests of what it lacks are skipped, and say so. Importing this starts a server once.
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
  /** A replica makes a lost link anew at once, not at the next turn of a timer of 1 s. */
  readonly relinksAtOnce: boolean;
}

async function ask(): Promise<Abilities> {
  const server = await startRedis();
  try {
    const commands = await server.cli("COMMAND");
    const settings = await server.cli("CONFIG", "GET", "*");
    if (!Array.isArray(commands) || !Array.isArray(settings)) throw new Error("the server does not tell");
    const names = settings.filter((_, at) => at % 2 === 0).map(String);
    return {
      commands: new Set(commands.map((entry) => String(Array.isArray(entry) ? entry[0] : entry))),
      pausesWrites: !((await server.cli("CLIENT", "PAUSE", 0, "WRITE")) instanceof ReplyError),
      settings: new Set(names),
      // Came with the same version, and cannot be asked for.
      relinksAtOnce: names.includes("shutdown-timeout"),
    };
  } finally {
    await server.close();
  }
}

export const abilities = await ask();

/** A command (`failover`), a setting of CONFIG (`setting shutdown-timeout`), or CLIENT PAUSE … WRITE. */
export type Need = Lowercase<string> | `setting ${string}` | "CLIENT PAUSE … WRITE";

function has(need: Need): boolean {
  if (need === "CLIENT PAUSE … WRITE") return abilities.pausesWrites;
  const [, setting] = /^setting (.*)$/.exec(need) ?? [];
  return setting === undefined ? abilities.commands.has(need) : abilities.settings.has(setting);
}

/** At the beginning of a test: skips it, and says what the server does not know. */
export function needs({ skip }: TestContext, ...needed: readonly Need[]): void {
  const lacking = needed.filter((need) => !has(need));
  skip(lacking.length > 0, `this server has no ${lacking.join(", ")}`);
}
