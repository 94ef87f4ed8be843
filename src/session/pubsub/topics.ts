/**
 * PURE. The names that clients subscribe to: what the commands and the messages of Pub/Sub say (pubsub.c).
 */
import { DOLLAR, GREATER, lengthEnd, readLength, STAR } from "../../resp/bytes.ts";
import { encodeNull, type Protocol } from "../../resp/encode.ts";

/** Three spaces of names that know nothing of each other. */
export type Family = "channels" | "patterns" | "shards";

export interface SubscribeCommand {
  readonly family: Family;
  /** It subscribes; else it ends subscriptions. */
  readonly adds: boolean;
}

const COMMANDS: ReadonlyMap<string, SubscribeCommand> = new Map<string, SubscribeCommand>([
  ["subscribe", { family: "channels", adds: true }],
  ["unsubscribe", { family: "channels", adds: false }],
  ["psubscribe", { family: "patterns", adds: true }],
  ["punsubscribe", { family: "patterns", adds: false }],
  ["ssubscribe", { family: "shards", adds: true }],
  ["sunsubscribe", { family: "shards", adds: false }],
]);

/** What a command of the SUBSCRIBE family does; null for any other. */
export function subscribeCommand(name: string): SubscribeCommand | null {
  return COMMANDS.get(name) ?? null;
}

/** The command that subscribes to names of a family. */
export const SUBSCRIBE: Readonly<Record<Family, string>> = {
  channels: "SUBSCRIBE",
  patterns: "PSUBSCRIBE",
  shards: "SSUBSCRIBE",
};

/** The command that ends such subscriptions. */
export const UNSUBSCRIBE: Readonly<Record<Family, string>> = {
  channels: "UNSUBSCRIBE",
  patterns: "PUNSUBSCRIBE",
  shards: "SUNSUBSCRIBE",
};

/**
 * One confirmation, as a client gets it for each name.
 * @param name latin1 text; null = there was nothing to end.
 * @param count what the client is subscribed to from now on.
 */
export function confirmation(
  command: string,
  name: string | null,
  count: number,
  protocol: Protocol,
): Buffer {
  const head = `${protocol === 3 ? ">" : "*"}3\r\n$${command.length}\r\n${command}\r\n`;
  const shown = name === null ? encodeNull(protocol).toString() : `$${name.length}\r\n${name}\r\n`;
  return Buffer.from(`${head}${shown}:${count}\r\n`, "latin1");
}

/** `readMessage` leaves the name of the topic here, latin1 text. */
export let topicName = "";

/** Length of a message's first word, and the letter it begins with. */
const WORDS: ReadonlyMap<number, Family> = new Map<number, Family>([
  [7 * 256 + 109, "channels"], // message
  [8 * 256 + 112, "patterns"], // pmessage
  [8 * 256 + 115, "shards"], // smessage
]);

/**
 * What topic a message is for: family, and name in `topicName`; null when the frame is no message. On a
 * subscriber's connection nothing else begins like one: confirmations have other lengths or letters.
 */
export function readMessage(buf: Buffer, start: number, end: number): Family | null {
  const type = buf[start];
  if ((type !== STAR && type !== GREATER) || readLength(buf, start + 1, end) < 3) return null;
  const word = lengthEnd;
  if (buf[word] !== DOLLAR) return null;
  const length = readLength(buf, word + 1, end);
  const family = WORDS.get(length * 256 + (buf[lengthEnd] ?? 0));
  if (family === undefined) return null;
  const name = lengthEnd + length + 2;
  const bytes = buf[name] === DOLLAR ? readLength(buf, name + 1, end) : -1;
  if (bytes < 0) return null;
  topicName = buf.toString("latin1", lengthEnd, lengthEnd + bytes);
  return family;
}
