/**
 * PURE. What CLIENT LIST and CLIENT INFO say of a client, and which clients the filters of CLIENT LIST and
 * CLIENT KILL mean (networking.c, catClientInfoString, clientCommand). Texts are latin1: a byte a character.
 */

/** What is known of a client at one moment. */
export interface ClientFacts {
  readonly id: number;
  /** "ip:port", IPv6 in brackets. */
  readonly address: string;
  readonly localAddress: string;
  readonly name: string;
  readonly ageSeconds: number;
  readonly idleSeconds: number;
  readonly user: string;
  readonly db: number;
  readonly protocol: number;
  /** Names subscribed to. */
  readonly channels: number;
  readonly patterns: number;
  readonly shards: number;
  readonly isMonitor: boolean;
  readonly isTracking: boolean;
  /** It waits for something: a blocking call, or the end of a pause. */
  readonly isBlocked: boolean;
  /** Its next EXEC answers null. */
  readonly watchLost: boolean;
  readonly noEvict: boolean;
  readonly noTouch: boolean;
  /** Commands queued by MULTI, -1 = no transaction; and their bytes. */
  readonly queued: number;
  readonly queuedBytes: number;
  /** Input not taken yet, and the room behind it, bytes. */
  readonly inputBytes: number;
  readonly inputRoom: number;
  /** Output the client has not taken, bytes. */
  readonly outputBytes: number;
  /** The last command, with its sub-command where that is known: "client|list"; "" = none yet. */
  readonly lastCommand: string;
  /** Who gets its invalidation messages; -1 = it does not track. */
  readonly redirect: number;
  readonly libraryName: string;
  readonly libraryVersion: string;
}

/** Letters in Redis's order; "N" = nothing to be said. */
export function flagsOf(client: ClientFacts): string {
  let flags = client.isMonitor ? "O" : "";
  if (isSubscriber(client)) flags += "P";
  if (client.queued >= 0) flags += "x";
  if (client.isBlocked) flags += "b";
  if (client.isTracking) flags += "t";
  if (client.watchLost) flags += "d";
  if (client.noEvict) flags += "e";
  if (client.noTouch) flags += "T";
  return flags === "" ? "N" : flags;
}

function isSubscriber(client: ClientFacts): boolean {
  return client.channels + client.patterns + client.shards > 0;
}

/**
 * One line without its end, in the form of Redis 7.0. What has no meaning here is 0.
 * @param knowsLibraries the server has CLIENT SETINFO (7.2): the line ends with what that has set.
 */
export function lineOf(client: ClientFacts, knowsLibraries: boolean): string {
  const { inputBytes, inputRoom, outputBytes, queuedBytes } = client;
  const memory = inputBytes + inputRoom + outputBytes + queuedBytes;
  const line =
    `id=${client.id} addr=${client.address} laddr=${client.localAddress} fd=0 name=${client.name}` +
    ` age=${client.ageSeconds} idle=${client.idleSeconds} flags=${flagsOf(client)} db=${client.db}` +
    ` sub=${client.channels} psub=${client.patterns} ssub=${client.shards} multi=${client.queued}` +
    ` qbuf=${inputBytes} qbuf-free=${inputRoom} argv-mem=0 multi-mem=${queuedBytes} rbs=0 rbp=0` +
    ` obl=0 oll=0 omem=${outputBytes} tot-mem=${memory} events=${outputBytes > 0 ? "rw" : "r"}` +
    ` cmd=${client.lastCommand === "" ? "NULL" : client.lastCommand} user=${client.user}` +
    ` redir=${client.redirect} resp=${client.protocol}`;
  if (!knowsLibraries) return line;
  return `${line} lib-name=${client.libraryName} lib-ver=${client.libraryVersion}`;
}

// Filters

/** A proxy has neither masters nor replicas among its clients: the other types of Redis mean nobody. */
export type ClientType = "normal" | "pubsub" | "nobody";

/** null = no type of Redis or Valkey (networking.c, getClientTypeByName). */
export function clientType(word: string): ClientType | null {
  switch (word.toLowerCase()) {
    case "normal":
      return "normal";
    case "pubsub":
      return "pubsub";
    case "master":
    case "primary":
    case "replica":
    case "slave":
      return "nobody";
    default:
      return null;
  }
}

function typeOf(client: ClientFacts): ClientType {
  return isSubscriber(client) ? "pubsub" : "normal";
}

export type ListFilter =
  | { readonly kind: "all" }
  | { readonly kind: "type"; readonly type: ClientType }
  /** In this order, as often as named. */
  | { readonly kind: "ids"; readonly ids: readonly number[] }
  | { readonly kind: "wrong" };

/** @param words what stands behind CLIENT LIST. */
export function listFilter(words: readonly string[]): ListFilter {
  const option = words[0]?.toLowerCase();
  if (option === undefined) return { kind: "all" };
  if (option === "type" && words.length === 2) {
    const type = clientType(words[1]!);
    return type === null ? { kind: "wrong" } : { kind: "type", type };
  }
  if (option !== "id" || words.length < 2) return { kind: "wrong" };
  const ids = words.slice(1);
  return ids.every(isInteger) ? { kind: "ids", ids: ids.map(Number) } : { kind: "wrong" };
}

export function isListed(client: ClientFacts, type: ClientType): boolean {
  return typeOf(client) === type;
}

export interface KillFilter {
  readonly ids: readonly number[] | null;
  readonly type: ClientType | null;
  readonly user: string | null;
  readonly address: string | null;
  readonly localAddress: string | null;
  readonly maxAgeSeconds: number | null;
  /** The client that asks is spared. */
  readonly skipMe: boolean;
}

const EVERYBODY: KillFilter = {
  ids: null,
  type: null,
  user: null,
  address: null,
  localAddress: null,
  maxAgeSeconds: null,
  skipMe: true,
};

/**
 * @param words what stands behind CLIENT KILL, which the server finds in order.
 * @returns null when the server knows an option that is not known here.
 */
export function killFilter(words: readonly string[]): KillFilter | null {
  // The old form; with it one may kill oneself.
  if (words.length === 1) return { ...EVERYBODY, address: words[0]!, skipMe: false };
  let filter = EVERYBODY;
  for (let i = 0; i < words.length; ) {
    const ids = idsAt(words, i);
    if (ids.length > 0) {
      filter = { ...filter, ids: ids.map(Number) };
      i += 1 + ids.length;
      continue;
    }
    const more = killOption(words[i]!, words[i + 1]);
    if (more === null) return null;
    filter = { ...filter, ...more };
    i += 2;
  }
  return filter;
}

/** The last of an option that comes twice counts, as in Redis. */
function killOption(option: string, value: string | undefined): Partial<KillFilter> | null {
  if (value === undefined) return null;
  switch (option.toLowerCase()) {
    case "type": {
      // Whom a type means that only the server knows nobody can say: it must not be taken for everybody.
      const type = clientType(value);
      return type === null ? null : { type };
    }
    case "user":
      return { user: value };
    case "addr":
      return { address: value };
    case "laddr":
      return { localAddress: value };
    case "maxage":
      return { maxAgeSeconds: Number(value) };
    case "skipme":
      return { skipMe: value.toLowerCase() === "yes" };
    default:
      return null;
  }
}

/** The numbers behind an ID at `at`; newer servers take several. */
function idsAt(words: readonly string[], at: number): string[] {
  if (words[at]!.toLowerCase() !== "id") return [];
  const end = words.findIndex((word, i) => i > at && !(isInteger(word) && Number(word) > 0));
  return words.slice(at + 1, end < 0 ? words.length : end);
}

/** A client of a server never has this number, so that a CLIENT KILL with it harms nobody. */
export const NO_ID = "9223372036854775807";

/**
 * CLIENT KILL with the same options, for the server to find fault with, but meaning nobody: all filters must
 * hold, and that of the number cannot, however often it comes.
 */
export function harmlessKill(words: readonly string[]): string[] {
  if (words.length === 1) return ["ID", NO_ID];
  const changed = [...words];
  for (let i = 0; i < words.length; i++) changed.fill(NO_ID, i + 1, i + 1 + idsAt(words, i).length);
  return ["ID", NO_ID, ...changed];
}

/** @param isSelf it is the client that asks. */
export function isKilled(client: ClientFacts, filter: KillFilter, isSelf: boolean): boolean {
  if (isSelf && filter.skipMe) return false;
  const { ids, type, user, address, localAddress, maxAgeSeconds } = filter;
  return (
    (ids === null || ids.includes(client.id)) &&
    (type === null || typeOf(client) === type) &&
    (user === null || client.user === user) &&
    (address === null || client.address === address) &&
    (localAddress === null || client.localAddress === localAddress) &&
    (maxAgeSeconds === null || client.ageSeconds >= maxAgeSeconds)
  );
}

/** What Redis takes for a 64-bit integer (util.c, string2ll). */
export function isInteger(word: string): boolean {
  if (!/^(?:0|-?[1-9]\d{0,18})$/.test(word)) return false;
  const value = BigInt(word);
  return value >= -(2n ** 63n) && value < 2n ** 63n;
}
