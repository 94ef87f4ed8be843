/**
 * What a session has subscribed to, so that it can be subscribed again on another connection, and how to tell
 * a message from a reply on a connection that carries both.
 */
import { GREATER, lengthEnd, PLUS, readLength, STAR } from "../resp/bytes.ts";
import { encodeRequest } from "../resp/encode.ts";

type Family = "channels" | "patterns" | "shards";

/** The command that subscribes, and the one that ends it. */
const FAMILIES: ReadonlyMap<string, { readonly family: Family; readonly adds: boolean }> = new Map([
  ["subscribe", { family: "channels", adds: true }],
  ["unsubscribe", { family: "channels", adds: false }],
  ["psubscribe", { family: "patterns", adds: true }],
  ["punsubscribe", { family: "patterns", adds: false }],
  ["ssubscribe", { family: "shards", adds: true }],
  ["sunsubscribe", { family: "shards", adds: false }],
]);

const SUBSCRIBE: Readonly<Record<Family, string>> = {
  channels: "SUBSCRIBE",
  patterns: "PSUBSCRIBE",
  shards: "SSUBSCRIBE",
};

/** The first word of what a server sends by itself to a subscriber (pubsub.c). */
const MESSAGES = new Set(["message", "pmessage", "smessage"]);

/** A command that was applied to the subscriptions. */
export interface Change {
  /** Confirmations the server sends: one a name, one at least. */
  readonly replies: number;
  /** Takes it back: the server refused it. */
  readonly undo: () => void;
  /** What to send instead; null = the request as it is. */
  readonly bytes: Buffer | null;
}

export class Subscriptions {
  private readonly names: Readonly<Record<Family, Set<string>>> = {
    channels: new Set(),
    patterns: new Set(),
    shards: new Set(),
  };

  get size(): number {
    return this.names.channels.size + this.names.patterns.size + this.names.shards.size;
  }

  /** Names of each family. */
  get counts(): Readonly<Record<Family, number>> {
    const { channels, patterns, shards } = this.names;
    return { channels: channels.size, patterns: patterns.size, shards: shards.size };
  }

  /** Applies (P|S)(UN)SUBSCRIBE. @param args the command's name first. */
  apply(name: string, args: readonly Buffer[]): Change {
    const how = FAMILIES.get(name);
    if (how === undefined) return { replies: 1, undo: () => {}, bytes: null };
    const set = this.names[how.family];
    const named = args.slice(1).map((arg) => arg.toString("latin1"));
    // Without names everything of the family ends.
    const given = named.length === 0 && !how.adds ? [...set] : named;
    const changed = given.filter((one) => set.has(one) !== how.adds);
    for (const one of given) how.adds ? set.add(one) : set.delete(one);
    const undo = (): void => {
      for (const one of changed) how.adds ? set.delete(one) : set.add(one);
    };
    // Named one by one, so that a server that never heard of them confirms as many when it is sent again.
    const bytes =
      named.length === 0 && given.length > 0
        ? encodeRequest([name, ...given.map((one) => Buffer.from(one, "latin1"))])
        : null;
    // Nothing is confirmed as well.
    return { replies: Math.max(1, given.length), undo, bytes };
  }

  /** The requests that subscribe to everything again, and the confirmations each of them brings. */
  requests(): { readonly bytes: Buffer; readonly replies: number }[] {
    const requests: { bytes: Buffer; replies: number }[] = [];
    for (const family of ["channels", "patterns", "shards"] as const) {
      const names = [...this.names[family]];
      if (names.length === 0) continue;
      const args = [SUBSCRIBE[family], ...names.map((name) => Buffer.from(name, "latin1"))];
      requests.push({ bytes: encodeRequest(args), replies: names.length });
    }
    return requests;
  }
}

/**
 * Whether a frame on a subscriber's connection is a message and not a reply. In RESP2 both are arrays: ask
 * only while there are subscriptions, when a server answers nothing else that looks like one.
 */
export function isMessage(buf: Buffer, start: number, end: number): boolean {
  const type = buf[start];
  if (type !== GREATER && type !== STAR) return false;
  if (readLength(buf, start + 1, end) < 3) return type === GREATER;
  const bulk = lengthEnd;
  const length = readLength(buf, bulk + 1, end);
  if (length < 0) return false;
  const word = buf.toString("latin1", lengthEnd, lengthEnd + length);
  return MESSAGES.has(word) || (type === GREATER && !word.endsWith("subscribe"));
}

/**
 * Whether a frame on a monitor's connection is a line of the monitor: "+1339518083.107412 [0 …"
 * (monitor.c).
 */
export function isMonitorLine(buf: Buffer, start: number, end: number): boolean {
  return (
    buf[start] === PLUS && /^\+\d+\.\d+ \[/.test(buf.toString("latin1", start, Math.min(end, start + 32)))
  );
}
