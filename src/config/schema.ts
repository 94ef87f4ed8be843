/**
 * Every setting there is: its type, default, unit, range and meaning, once. The type `Config`, the checks,
 * the names of the environment variables and the configuration table of the documentation all come from here.
 *
 * Durations arrive as `3s` and leave as milliseconds, sizes arrive as `64kb` and leave as bytes, addresses
 * leave parsed. Relations between settings are in checks.ts.
 */

import { strict as assert } from "node:assert";
import { z } from "zod";
import type { NodeId } from "../topology/epoch.ts";
import { type Address, nodeIdOf, parseAddress } from "./address.ts";
import { formatDuration, formatSize, type Parsed, parseDuration, parseSize, typeName } from "./units.ts";

export type SettingKind =
  | "duration"
  | "size"
  | "count"
  | "choice"
  | "text"
  | "secret"
  | "file" // the path of a file in PEM form, which is read at the start
  | "listeners"
  | "listener"
  | "nodes"
  | "weights";

/** How much one node gets beside the others. */
export interface NodeWeight {
  readonly node: NodeId;
  /** 0 to `MAX_WEIGHT`. */
  readonly weight: number;
}

const MAX_WEIGHT = 1000;

/** What is known about one setting besides its value. */
export interface SettingDoc {
  readonly kind: SettingKind;
  /** As written in a file; null when there is none. */
  readonly default: string | null;
  /** What is allowed, as the end of a sentence. */
  readonly allowed: string;
  /** One line: what it means. */
  readonly doc: string;
}

export interface Setting extends SettingDoc {
  /** Where it stands, joined by dots: "hold.maxTime". */
  readonly path: string;
  /** Validates one raw value on its own. */
  readonly schema: z.ZodType;
}

const docs = z.registry<SettingDoc>();

interface Range {
  readonly default: string;
  readonly min: string;
  readonly max: string;
  /** What 0 means, for a setting whose 0 is outside the range. */
  readonly zero?: string;
  readonly doc: string;
}

function duration(range: Range) {
  return quantity("duration", range, parseDuration, formatDuration, "such as 250ms, 3s, 5m or 1h");
}

function size(range: Range) {
  return quantity("size", range, parseSize, formatSize, "such as 64kb, 1mb or 2gb");
}

function count(range: Range) {
  return quantity("count", range, parseCount, String, "a whole number");
}

function quantity(
  kind: SettingKind,
  range: Range,
  parse: (input: unknown) => Parsed<number>,
  format: (value: number) => string,
  form: string,
) {
  const min = mustParse(parse, range.min);
  const max = mustParse(parse, range.max);
  const zero = range.zero === undefined ? "" : `0 (${range.zero}) or `;
  const allowed = `${zero}${range.min} to ${range.max}, ${form}`;
  const check = (input: unknown): Parsed<number> => {
    const parsed = parse(input);
    if (!parsed.ok || (parsed.value === 0 && range.zero !== undefined)) return parsed;
    if (parsed.value < min) return { ok: false, problem: `${format(parsed.value)} is too small` };
    if (parsed.value > max) return { ok: false, problem: `${format(parsed.value)} is too large` };
    return parsed;
  };
  return leaf(check, { kind, default: range.default, allowed, doc: range.doc });
}

function choice<const T extends string>(options: {
  readonly values: readonly T[];
  readonly default: NoInfer<T>;
  /** Said after the allowed values. */
  readonly note?: string;
  readonly doc: string;
}) {
  const listed = options.values.join(", ");
  const allowed = options.note === undefined ? listed : `${listed} (${options.note})`;
  const check = (input: unknown): Parsed<T> => {
    const found = options.values.find((value) => value === input);
    if (found !== undefined) return { ok: true, value: found };
    const shown = typeof input === "string" ? `"${input}"` : typeName(input);
    return { ok: false, problem: `${shown} is not one of the allowed values` };
  };
  return leaf(check, { kind: "choice", default: options.default, allowed, doc: options.doc });
}

/** A leaf with a default: an absent value is validated as the default text. */
function leaf<T>(parse: (input: unknown) => Parsed<T>, about: SettingDoc) {
  return checked(parse).prefault(about.default).register(docs, about);
}

function checked<T>(parse: (input: unknown) => Parsed<T>) {
  return z.unknown().transform((input, context): T => {
    const parsed = parse(input);
    if (parsed.ok) return parsed.value;
    context.addIssue({ code: "custom", message: parsed.problem });
    return z.NEVER;
  });
}

/** A text that may be absent. A secret's value never appears in a problem. */
function optionalText(kind: "text" | "secret" | "file", doc: string) {
  const check = (input: unknown): Parsed<string> => {
    if (typeof input !== "string") {
      return { ok: false, problem: `${typeName(input)} is not a text: put it in quotes` };
    }
    if (input === "") return { ok: false, problem: "it is empty: give a value or remove the key" };
    return { ok: true, value: input };
  };
  const allowed = kind === "file" ? "the path of a file in PEM form" : "a text that is not empty";
  const about: SettingDoc = { kind, default: null, allowed, doc };
  return checked(check).optional().register(docs, about);
}

/**
 * A list whose items are checked one by one; a single value counts as a list of one. It is empty only when it
 * is absent and has no default.
 */
function list<T>(parseItem: (input: unknown) => Parsed<T>, about: SettingDoc) {
  const schema = z.unknown().transform((input, context): T[] => {
    const items: unknown[] = Array.isArray(input) ? input : [input];
    if (items.length === 0) context.addIssue({ code: "custom", message: "the list is empty" });
    const values: T[] = [];
    for (const [index, item] of items.entries()) {
      const parsed = parseItem(item);
      if (parsed.ok) values.push(parsed.value);
      else
        context.addIssue({
          code: "custom",
          path: Array.isArray(input) ? [index] : [],
          message: parsed.problem,
        });
    }
    return values;
  });
  return about.default === null
    ? schema.default([]).register(docs, about)
    : schema.prefault(about.default).register(docs, about);
}

/** A listener is "host:port" or { address: "host:port" }, which leaves room for options. */
function parseListener(input: unknown): Parsed<Address> {
  if (!isGroup(input)) return parseAddress(input, "listen");
  const strange = Object.keys(input).filter((key) => key !== "address");
  if (strange.length > 0) {
    return { ok: false, problem: `unknown key "${strange.join('", "')}": a listener has only "address"` };
  }
  if (!("address" in input)) return { ok: false, problem: 'the key "address" is missing' };
  return parseAddress(input.address, "listen");
}

function parseHttp(input: unknown): Parsed<Address | null> {
  return input === "off" ? { ok: true, value: null } : parseAddress(input, "listen");
}

function parseNode(input: unknown): Parsed<NodeId> {
  const parsed = parseAddress(input, "dial");
  return parsed.ok ? { ok: true, value: nodeIdOf(parsed.value) } : parsed;
}

/** "host:port=weight"; the address has no = of its own. */
function parseNodeWeight(input: unknown): Parsed<NodeWeight> {
  if (typeof input !== "string") return { ok: false, problem: `${typeName(input)} is not host:port=weight` };
  const at = input.lastIndexOf("=");
  const node = parseNode(at < 0 ? input : input.slice(0, at));
  if (!node.ok) return node;
  if (at < 0) return { ok: false, problem: `"${input}" has no weight: ${node.value}=1` };
  const weight = parseCount(input.slice(at + 1));
  if (!weight.ok) return { ok: false, problem: `the weight of ${node.value} is none: ${weight.problem}` };
  if (weight.value > MAX_WEIGHT) {
    return { ok: false, problem: `the weight of ${node.value}, ${weight.value}, is too large` };
  }
  return { ok: true, value: { node: node.value, weight: weight.value } };
}

/** A whole number; as text only its digits. */
function parseCount(input: unknown): Parsed<number> {
  const value = typeof input === "string" && /^\d+$/.test(input.trim()) ? Number(input) : input;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return { ok: true, value };
  const shown =
    typeof input === "string" ? `"${input}"` : typeof input === "number" ? input : typeName(input);
  return { ok: false, problem: `${shown} is not a whole number` };
}

function mustParse(parse: (input: unknown) => Parsed<number>, text: string): number {
  const parsed = parse(text);
  assert(parsed.ok, `a bound in the schema is malformed: ${text}`);
  return parsed.value;
}

function isGroup(input: unknown): input is Record<string, unknown> {
  return typeof input === "object" && input !== null && !Array.isArray(input);
}

/** A group of settings; one that is absent has all its defaults. */
function group<T extends z.ZodRawShape>(shape: T) {
  return z.strictObject(shape).prefault({} as z.input<z.ZodObject<T, z.core.$strict>>);
}

const upstream = group({
  username: optionalText(
    "text",
    "User the proxy itself logs in with on every node; without it, the default user.",
  ),
  password: optionalText("secret", "Password the proxy itself logs in with on every node."),
  connectTimeout: duration({
    default: "1s",
    min: "10ms",
    max: "1m",
    doc: "How long opening one connection to a node may take, handshake included.",
  }),
  requestTimeout: duration({
    default: "0",
    min: "10ms",
    max: "24h",
    zero: "as long as the server takes",
    doc: "How long a node may take to answer a request before its connection counts as lost.",
  }),
  retireTimeout: duration({
    default: "1s",
    min: "0",
    max: "1m",
    doc: "How long a connection to a former master may still answer what is in flight.",
  }),
  maxLanes: count({
    default: "1024",
    min: "1",
    max: "65536",
    doc: "Shared upstream connections at most, over all nodes.",
  }),
  maxInFlight: count({
    default: "16384",
    min: "16",
    max: "10000000",
    doc: "Unanswered requests on one shared upstream connection, about; beyond it the feeding clients wait.",
  }),
  maxPrivate: count({
    default: "1000",
    min: "0",
    max: "1000000",
    doc: "Private upstream connections at most (WATCH, blocking calls, MONITOR, tracking), over all nodes.",
  }),
  privateIdle: duration({
    default: "10s",
    min: "10ms",
    max: "1h",
    zero: "not at all",
    doc: "How long a private connection is kept for the next client; less than the nodes' own time-out.",
  }),
  keepAlive: duration({
    default: "10s",
    min: "1s",
    max: "1h",
    zero: "off",
    doc: "Idle time after which the kernel starts TCP keep-alive probes on upstream connections.",
  }),
});

const probe = group({
  interval: duration({
    default: "100ms",
    min: "10ms",
    max: "1m",
    doc: "How often every node is asked for its role, history and offset.",
  }),
  timeout: duration({
    default: "1s",
    min: "10ms",
    max: "1m",
    doc: "How long a node may take to answer a probe before it counts as silent.",
  }),
});

const failover = group({
  promote: choice({
    values: ["never", "sentinel", "self"],
    default: "never",
    doc: "Who promotes when the master is gone: never = people; sentinel = Sentinel; self = this proxy.",
  }),
  downAfter: duration({
    default: "3s",
    min: "100ms",
    max: "1h",
    doc: "promote self: how long a master may be silent before it counts as gone.",
  }),
  crashGrace: duration({
    default: "250ms",
    min: "0",
    max: "1m",
    doc: "promote self: how long a master that refuses connections may take to come back.",
  }),
  stateFile: optionalText(
    "text",
    "File in which the history of the group outlives a restart of the proxy; of this proxy alone.",
  ),
  settleTime: duration({
    default: "10s",
    min: "0",
    max: "1m",
    doc: "How long a new master's NOREPLICAS is taken for its replicas still finding it: writes wait.",
  }),
  switchTime: duration({
    default: "2s",
    min: "50ms",
    max: "1m",
    doc: "PROXY SWITCHOVER without TIMEOUT: how long writes may stop at most before it is rolled back.",
  }),
});

const sentinel = group({
  name: optionalText("text", "Name under which Sentinel knows the group (sentinel monitor NAME …)."),
  nodes: list(parseNode, {
    kind: "nodes",
    default: null,
    allowed: "at least one host:port",
    doc: "Sentinels to ask; the others are discovered from them.",
  }),
  username: optionalText(
    "text",
    "User the proxy logs in with on every Sentinel; without it, the default user.",
  ),
  password: optionalText("secret", "Password the proxy logs in with on every Sentinel."),
  tls: choice({
    values: ["off", "on"],
    default: "off",
    doc: "Whether Sentinels are spoken to with TLS.",
  }),
  tlsCa: optionalText("file", "Authorities that sign the Sentinels' certificates, instead of the system's."),
  tlsCert: optionalText("file", "Certificate the proxy shows to Sentinels."),
  tlsKey: optionalText("file", "Private key of that certificate."),
});

const reads = group({
  from: choice({
    values: ["replica", "master", "any"],
    default: "replica",
    doc: "Where reads go: replica = fit replicas, and the master when there is none; any = master too.",
  }),
  consistency: choice({
    values: ["session", "proxy", "eventual", "strong"],
    default: "session",
    doc: "What a read sees: session = own writes; proxy = those of all clients; eventual = any age; strong = master.",
  }),
  maxLag: duration({
    default: "10s",
    min: "100ms",
    max: "24h",
    doc: "A replica further behind the master than this is not read.",
  }),
  maxLagBytes: size({
    default: "64mb",
    min: "1kb",
    max: "1024gb",
    zero: "no bound",
    doc: "A replica that lacks more of the master's replication stream than this is not read.",
  }),
  proofInterval: duration({
    default: "20ms",
    min: "5ms",
    max: "1m",
    doc: "How often, at most, offsets are looked at while reads wait for a replica to have caught up.",
  }),
  proofWait: duration({
    default: "150ms",
    min: "1ms",
    max: "1s",
    zero: "never",
    doc: "How long at most a read waits for its replica's proof that is on its way, before the master is asked.",
  }),
  whenNoneFit: choice({
    values: ["master", "wait", "error"],
    default: "master",
    doc: "from replica, and none is fit: reads go to the master; wait, as writes for a master; get an error.",
  }),
  scriptKeys: choice({
    values: ["any", "declared"],
    default: "any",
    doc: "Keys a script may touch: any = also those its call does not declare; declared = no others.",
  }),
  prefer: list(parseNode, {
    kind: "nodes",
    default: null,
    allowed: "at least one host:port",
    doc: "Nodes that are read before all others, those of the proxy's own zone for one.",
  }),
  weights: list(parseNodeWeight, {
    kind: "weights",
    default: null,
    allowed: `host:port=weight or a list of these, a weight from 0 to ${MAX_WEIGHT}`,
    doc: "What a node gets of the reads beside the others, 1 if not given; 0 = none while there is another.",
  }),
  slowAfter: duration({
    default: "20ms",
    min: "1ms",
    max: "1m",
    zero: "never",
    doc: "A node that answers this late, and 4 times as late as the others, gets an eighth of its reads.",
  }),
  hedge: duration({
    default: "0",
    min: "1ms",
    max: "1m",
    zero: "off",
    doc: "A lone read unanswered for this long goes to another node, too; at most 1 in 10 reads does.",
  }),
});

const pubsub = group({
  from: choice({
    values: ["master", "replica"],
    default: "master",
    doc: "Where subscriptions are: replica = a fit replica, and the master when there is none.",
  }),
});

const hold = group({
  maxTime: duration({
    default: "30s",
    min: "1ms",
    max: "1h",
    doc: "How long a request may wait for a master before it is answered MASTERDOWN.",
  }),
  maxBytes: size({
    default: "256mb",
    min: "64kb",
    max: "64gb",
    doc: "What all held clients together may have waiting.",
  }),
  maxBytesPerClient: size({
    default: "16mb",
    min: "16kb",
    max: "64gb",
    doc: "What one held client may have waiting before reading from it pauses.",
  }),
});

const inFlight = group({
  onUnknown: choice({
    values: ["error", "retry-idempotent", "retry-all"],
    default: "error",
    doc: "A write whose outcome is unknown: error = answer UNCERTAIN; retry-… = send it again, it may run twice.",
  }),
});

const commands = group({
  topology: choice({
    values: ["refuse", "switchover", "pass"],
    default: "refuse",
    doc: "REPLICAOF, FAILOVER, SHUTDOWN of a client: error; FAILOVER as PROXY SWITCHOVER; on to the master.",
  }),
});

const limits = group({
  maxClients: count({
    default: "10000",
    min: "1",
    max: "1000000",
    doc: "Clients connected at once; one more is told so and closed.",
  }),
  maxRequestBytes: size({
    default: "512mb",
    min: "1kb",
    max: "4gb",
    doc: "One request of a client, all its arguments together.",
  }),
  maxRequestArgs: count({
    default: "1048576",
    min: "16",
    max: "1048576",
    doc: "Arguments of one request.",
  }),
  maxPipeline: count({
    default: "1024",
    min: "1",
    max: "1000000",
    doc: "Requests of one client in flight upstream at once; further ones wait unread.",
  }),
  outputBufferBytes: size({
    default: "256mb",
    min: "64kb",
    max: "64gb",
    doc: "Replies one client has not taken yet; beyond it the client is closed.",
  }),
  subscriberBufferBytes: size({
    default: "32mb",
    min: "64kb",
    max: "64gb",
    doc: "Messages and replies one subscriber has not taken yet; beyond it the client is closed.",
  }),
  subscriptionBytes: size({
    default: "16mb",
    min: "1kb",
    max: "1gb",
    doc: "Names one client is subscribed to, 128 bytes added for each; beyond it SUBSCRIBE is refused.",
  }),
  idleTimeout: duration({
    default: "0",
    min: "1s",
    max: "168h",
    zero: "never",
    doc: "A client that asked nothing for this long is closed.",
  }),
  authPause: duration({
    default: "5s",
    min: "10ms",
    max: "1m",
    zero: "no pauses",
    doc: "Longest pause before a client's next login is checked, after several that failed in a row.",
  }),
  drainTime: duration({
    default: "10s",
    min: "0",
    max: "1h",
    doc: "After SIGTERM, how long clients may still get their replies before they are closed.",
  }),
  scriptBytes: size({
    default: "16mb",
    min: "0",
    max: "1gb",
    doc: "Bodies of scripts kept, to give them to a master that lacks one; the least recently used go first.",
  }),
  maxUnsentBytes: size({
    default: "1mb",
    min: "16kb",
    max: "1gb",
    doc: "What may wait to be written to one node or client before reading from who feeds it pauses.",
  }),
});

const failovers = group({
  keep: count({
    default: "100",
    min: "1",
    max: "10000",
    doc: "Records of past switches kept in memory for PROXY FAILOVERS and the status page.",
  }),
});

const log = group({
  level: choice({
    values: ["debug", "info", "warn", "error"],
    default: "info",
    doc: "The least important kind of line that is written.",
  }),
  format: choice({
    values: ["json", "text"],
    default: "json",
    doc: "json = one JSON object a line; text = one readable line.",
  }),
});

export const configSchema = z.strictObject({
  listen: list(parseListener, {
    kind: "listeners",
    default: "127.0.0.1:6379",
    allowed: 'host:port, { address: "host:port" } or a list of these; port 0 = any free one',
    doc: "Where clients connect.",
  }),
  http: leaf(parseHttp, {
    kind: "listener",
    default: "127.0.0.1:9121",
    allowed: "host:port (port 0 = any free one) or off",
    doc: "Where metrics, health and the status page are served; off = nowhere.",
  }),
  nodes: list(parseNode, {
    kind: "nodes",
    default: null,
    allowed: "at least one host:port",
    doc: "Where to start looking for the master and its replicas; not needed with sentinel.nodes.",
  }),
  upstream,
  probe,
  failover,
  sentinel,
  reads,
  pubsub,
  hold,
  inFlight,
  commands,
  limits,
  failovers,
  log,
});

/** The whole configuration as the program uses it: durations in ms, sizes in bytes. */
export type Config = z.output<typeof configSchema>;

/** Every setting in the order of the schema. */
export const SETTINGS: readonly Setting[] = collectSettings(configSchema, "");

/** The names of the groups: "hold", "limits", … */
export const GROUPS: readonly string[] = Object.entries(configSchema.shape)
  .filter(([, schema]) => docs.get(schema) === undefined)
  .map(([key]) => key);

/** A configuration with defaults for whatever is absent. Throws: for tests and tools, not for user input. */
export function configWith(input: Record<string, unknown>): Config {
  return configSchema.parse(input);
}

function collectSettings(schema: z.ZodType, path: string): Setting[] {
  const about = docs.get(schema);
  if (about !== undefined) return [{ ...about, path, schema }];
  const inner = schema instanceof z.ZodPrefault ? schema.unwrap() : schema;
  assert(inner instanceof z.ZodObject, `${path} is neither a setting nor a group of settings`);
  return Object.entries(inner.shape).flatMap(([key, child]) =>
    collectSettings(child as z.ZodType, path === "" ? key : `${path}.${key}`),
  );
}
