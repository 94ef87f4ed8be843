/** PROXY CLIENTS: what each client does at this moment. */
import type { Value } from "../resp/encode.ts";

/** One client. */
export interface ClientReading {
  readonly id: number;
  /** "ip:port". */
  readonly address: string;
  readonly name: string;
  readonly user: string;
  readonly db: number;
  readonly protocol: number;
  /** One word: idle, busy, waiting, slow, held, paused, blocked, subscribed, monitor or leaving. */
  readonly state: string;
  /** How long its oldest held request has waited, ms; 0 = it is not held. */
  readonly heldMs: number;
  /** Requests on the way. */
  readonly inFlight: number;
  /** Bytes it sent that are not taken yet, and bytes it has not taken. */
  readonly inputBytes: number;
  readonly outputBytes: number;
  readonly subscriptions: number;
  /** It has an upstream connection of its own. */
  readonly isPrivate: boolean;
  /** What its reads see. */
  readonly consistency: string;
  readonly lastCommand: string;
  readonly ageSeconds: number;
  readonly idleSeconds: number;
}

/** Clients listed when no LIMIT is given. */
const DEFAULT_LIMIT = 100;

/** @param words what stands behind PROXY CLIENTS. @returns null when they make no sense. */
export function clientsLimit(words: readonly string[]): number | null {
  if (words.length === 0) return DEFAULT_LIMIT;
  const [option = "", limit = ""] = words;
  const fits = words.length === 2 && /^limit$/i.test(option) && /^[1-9]\d{0,8}$/.test(limit);
  return fits ? Number(limit) : null;
}

export function clientsValue(clients: readonly ClientReading[]): Value {
  return clients.map((one) => new Map(Object.entries(fieldsOf(one))));
}

function fieldsOf(one: ClientReading): Readonly<Record<string, Value>> {
  return {
    id: one.id,
    address: one.address,
    name: one.name,
    user: Buffer.from(one.user, "latin1"),
    db: one.db,
    protocol: one.protocol,
    state: one.state,
    held_ms: one.heldMs,
    in_flight: one.inFlight,
    input_bytes: one.inputBytes,
    output_bytes: one.outputBytes,
    subscriptions: one.subscriptions,
    private: one.isPrivate ? "yes" : "no",
    consistency: one.consistency,
    last_command: one.lastCommand,
    age_seconds: one.ageSeconds,
    idle_seconds: one.idleSeconds,
  };
}
