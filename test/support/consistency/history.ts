/**
 * What many clients did and saw, compact enough for millions of operations. All clients live in this process,
 * so that one clock (`performance.now()`) orders calls and returns of all of them.
 */

/** `erase` is a write after which a read finds nothing. */
export type Kind = "read" | "write" | "erase";

/**
 * `open`: no answer (yet). `error`: answered that it did not run. `uncertain`: nobody knows; it may take
 * effect at any time after its call, or never.
 */
export type Outcome = "open" | "ok" | "error" | "uncertain";

const KINDS: readonly Kind[] = ["read", "write", "erase"];
const OUTCOMES: readonly Outcome[] = ["open", "ok", "error", "uncertain"];

/** Version of a read that found nothing. */
export const NOTHING = -1;
/** Version of a write whose place among the others is not known (yet), and of a key never written. */
export const UNKNOWN = 0;

export interface Operation {
  readonly index: number;
  readonly session: number;
  readonly key: number;
  readonly kind: Kind;
  /** From 1: what the write wrote, or which write the read saw. */
  readonly version: number;
  readonly callMs: number;
  /** Infinity: never answered. */
  readonly returnMs: number;
  readonly outcome: Outcome;
}

/**
 * How the writes of a key are ordered: `counted` = a later write has a higher version (one writer, or the
 * server counts); `register` = versions are only names, several writers at once.
 */
export type KeyOrder = "counted" | "register";

export class History {
  readonly sessions: { readonly name: string; readonly isForeign: boolean }[] = [];
  readonly keys: { readonly name: string; readonly order: KeyOrder }[] = [];
  #length = 0;
  #session = new Int32Array(1024);
  #key = new Int32Array(1024);
  #kind = new Uint8Array(1024);
  #version = new Int32Array(1024);
  #callMs = new Float64Array(1024);
  #returnMs = new Float64Array(1024);
  #outcome = new Uint8Array(1024);

  /** @param isForeign it writes to the master itself, not through the proxy. */
  addSession(name: string, isForeign = false): number {
    return this.sessions.push({ name, isForeign }) - 1;
  }

  addKey(name: string, order: KeyOrder = "counted"): number {
    return this.keys.push({ name, order }) - 1;
  }

  /** Operations so far; their indices are in the order of the calls. */
  get length(): number {
    return this.#length;
  }

  /** @returns the operation's index, to say later how it ended. */
  call(session: number, key: number, kind: Kind, version = UNKNOWN, nowMs = performance.now()): number {
    const index = this.#length++;
    if (index === this.#session.length) this.#grow();
    this.#session[index] = session;
    this.#key[index] = key;
    this.#kind[index] = KINDS.indexOf(kind);
    this.#version[index] = version;
    this.#callMs[index] = nowMs;
    this.#returnMs[index] = Number.POSITIVE_INFINITY;
    this.#outcome[index] = OUTCOMES.indexOf("open");
    return index;
  }

  /** @param version what a read saw, or what the server says a write made. */
  ok(index: number, version?: number, nowMs = performance.now()): void {
    if (version !== undefined) this.#version[index] = version;
    this.#end(index, "ok", nowMs);
  }

  error(index: number, nowMs = performance.now()): void {
    this.#end(index, "error", nowMs);
  }

  uncertain(index: number, nowMs = performance.now()): void {
    this.#end(index, "uncertain", nowMs);
  }

  #end(index: number, outcome: Outcome, nowMs: number): void {
    this.#returnMs[index] = nowMs;
    this.#outcome[index] = OUTCOMES.indexOf(outcome);
  }

  at(index: number): Operation {
    if (index < 0 || index >= this.#length) throw new Error(`no operation ${index}`);
    return {
      index,
      session: this.#session[index]!,
      key: this.#key[index]!,
      kind: KINDS[this.#kind[index]!]!,
      version: this.#version[index]!,
      callMs: this.#callMs[index]!,
      returnMs: this.#returnMs[index]!,
      outcome: OUTCOMES[this.#outcome[index]!]!,
    };
  }

  /** The operations of each key in the order of their calls; one key's objects at a time. */
  *byKey(): Generator<{ readonly key: number; readonly operations: readonly Operation[] }> {
    const starts = new Int32Array(this.keys.length + 1);
    for (let i = 0; i < this.#length; i++) starts[this.#key[i]! + 1]!++;
    for (let key = 0; key < this.keys.length; key++) starts[key + 1]! += starts[key]!;
    const next = starts.slice();
    const sorted = new Int32Array(this.#length);
    for (let i = 0; i < this.#length; i++) sorted[next[this.#key[i]!]!++] = i;
    for (let key = 0; key < this.keys.length; key++) {
      const indices = sorted.subarray(starts[key], starts[key + 1]);
      yield { key, operations: Array.from(indices, (index) => this.at(index)) };
    }
  }

  count(kind: Kind, outcome: Outcome): number {
    const [wantedKind, wantedOutcome] = [KINDS.indexOf(kind), OUTCOMES.indexOf(outcome)];
    let count = 0;
    for (let i = 0; i < this.#length; i++) {
      if (this.#kind[i] === wantedKind && this.#outcome[i] === wantedOutcome) count++;
    }
    return count;
  }

  describe({ index, session, key, kind, version, callMs, returnMs, outcome }: Operation): string {
    const what = version === NOTHING ? "nothing" : `v${version}`;
    const when = `${callMs.toFixed(1)}–${returnMs.toFixed(1)} ms`;
    const who = this.sessions[session]?.name ?? session;
    return `#${index} ${who} ${kind} ${this.keys[key]?.name ?? key} ${what} ${outcome} at ${when}`;
  }

  #grow(): void {
    const wider = <T extends Int32Array | Float64Array | Uint8Array>(column: T, grown: T): T => {
      grown.set(column);
      return grown;
    };
    const size = this.#length * 2;
    this.#session = wider(this.#session, new Int32Array(size));
    this.#key = wider(this.#key, new Int32Array(size));
    this.#kind = wider(this.#kind, new Uint8Array(size));
    this.#version = wider(this.#version, new Int32Array(size));
    this.#callMs = wider(this.#callMs, new Float64Array(size));
    this.#returnMs = wider(this.#returnMs, new Float64Array(size));
    this.#outcome = wider(this.#outcome, new Uint8Array(size));
  }
}
