/** Encoding of what the proxy says itself: replies to clients and requests to nodes. */

export type Protocol = 2 | 3;

/** A value to be encoded; a `Map` becomes a map in RESP3 and a flat array in RESP2. */
export type Value =
  | string
  | number
  | bigint
  | boolean
  | null
  | Buffer
  | readonly Value[]
  | ReadonlyMap<string, Value>;

export const OK = Buffer.from("+OK\r\n");
export const QUEUED = Buffer.from("+QUEUED\r\n");
export const RESET = Buffer.from("+RESET\r\n");
export const PONG = Buffer.from("+PONG\r\n");

/** An error reply. The text is made one line: CR and LF in it would break the framing. */
export function encodeError(text: string): Buffer {
  return Buffer.from(`-${text.replace(/[\r\n]/g, " ")}\r\n`);
}

export function encodeNull(protocol: Protocol): Buffer {
  return Buffer.from(protocol === 3 ? "_\r\n" : "$-1\r\n");
}

/** The null that EXEC answers when a watched key changed (networking.c, addReplyNullArray). */
export function encodeNullArray(protocol: Protocol): Buffer {
  return Buffer.from(protocol === 3 ? "_\r\n" : "*-1\r\n");
}

/** A text for people, a byte a character (networking.c, addReplyVerbatim). */
export function encodeText(latin1: string, protocol: Protocol): Buffer {
  const head = protocol === 3 ? `=${latin1.length + 4}\r\ntxt:` : `$${latin1.length}\r\n`;
  return Buffer.from(`${head}${latin1}\r\n`, "latin1");
}

/** Encodes any value as a reply; strings become bulk strings. */
export function encodeValue(value: Value, protocol: Protocol): Buffer {
  const parts: (string | Buffer)[] = [];
  append(parts, value, protocol);
  return Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)));
}

function append(parts: (string | Buffer)[], value: Value, protocol: Protocol): void {
  if (value === null) parts.push(protocol === 3 ? "_\r\n" : "$-1\r\n");
  else if (typeof value === "string") parts.push(`$${Buffer.byteLength(value)}\r\n${value}\r\n`);
  else if (typeof value === "number" || typeof value === "bigint") parts.push(number(value, protocol));
  else if (typeof value === "boolean") parts.push(boolean(value, protocol));
  else if (Buffer.isBuffer(value)) parts.push(`$${value.length}\r\n`, value, "\r\n");
  else if (value instanceof Map) appendMap(parts, value, protocol);
  else appendArray(parts, value as readonly Value[], protocol);
}

function number(value: number | bigint, protocol: Protocol): string {
  if (typeof value === "bigint" || Number.isSafeInteger(value)) return `:${value}\r\n`;
  const text = Number.isFinite(value) ? String(value) : infinity(value);
  return protocol === 3 ? `,${text}\r\n` : `$${text.length}\r\n${text}\r\n`;
}

function infinity(value: number): string {
  if (Number.isNaN(value)) return "nan";
  return value > 0 ? "inf" : "-inf";
}

function boolean(value: boolean, protocol: Protocol): string {
  if (protocol === 3) return value ? "#t\r\n" : "#f\r\n";
  return value ? ":1\r\n" : ":0\r\n";
}

function appendMap(parts: (string | Buffer)[], map: ReadonlyMap<string, Value>, protocol: Protocol): void {
  parts.push(protocol === 3 ? `%${map.size}\r\n` : `*${map.size * 2}\r\n`);
  for (const [key, value] of map) {
    append(parts, key, protocol);
    append(parts, value, protocol);
  }
}

function appendArray(parts: (string | Buffer)[], list: readonly Value[], protocol: Protocol): void {
  parts.push(`*${list.length}\r\n`);
  for (const value of list) append(parts, value, protocol);
}

/** A request as an array of bulk strings. */
export function encodeRequest(args: readonly (string | Buffer)[]): Buffer {
  const parts: Buffer[] = [Buffer.from(`*${args.length}\r\n`)];
  for (const arg of args) {
    const bytes = typeof arg === "string" ? Buffer.from(arg) : arg;
    parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from("\r\n"));
  }
  return Buffer.concat(parts);
}
