/**
 * Many sessions that write and read few hot and many cold keys, one request at a time or several in one
 * write, and remember all of it.
 */
import { randomFrom } from "../random.ts";
import { ReplyError } from "../resp.ts";
import { sleep } from "../wait.ts";
import {
  type Action,
  isList,
  KEY_TYPES,
  type Key,
  type KeyType,
  readAllOf,
  readOf,
  sourceOf,
  writeOf,
} from "./actions.ts";
import { History } from "./history.ts";
import { CUT, Wire, type WireReply } from "./wire.ts";

export interface WorkloadOptions {
  /** The proxy's. */
  readonly port: number;
  /** The master's own, for a writer that goes past the proxy; none without it. */
  readonly foreignPort?: number;
  readonly seed: number;
  /** Default 10: every other one mostly reads. */
  readonly sessions?: number;
  /** How many of each type; those not named: none. Default: see KEYS. */
  readonly keys?: Partial<Readonly<Record<KeyType, number>>>;
  /** Pause of each session between two rounds, ms on average; default 4. */
  readonly paceMs?: number;
  /** Most requests in one write; default 16. */
  readonly pipeline?: number;
  /** Before all keys; default none. Without a colon. */
  readonly prefix?: string;
  /** Share of writes of those that write much; the others write a fiftieth of it. Default 0.1. */
  readonly writes?: number;
}

const KEYS: Readonly<Record<KeyType, number>> = {
  string: 200,
  hash: 50,
  counter: 50,
  list: 20,
  register: 0,
  foreign: 10,
  moved: 1,
};

export interface Report {
  /** Error replies by first word, those of the foreign writer aside: no proxy helps it. */
  readonly errors: ReadonlyMap<string, number>;
  /** Why sessions lost their connection. */
  readonly disconnects: readonly string[];
  /** Replies that are no value of their key; the first ones. */
  readonly garbled: readonly string[];
}

export class ConsistencyWorkload {
  readonly history = new History();
  /** Of sessions, answered without an error. */
  readonly answered = { reads: 0, writes: 0 };
  readonly #options: Required<Omit<WorkloadOptions, "foreignPort">> & { readonly foreignPort: number };
  readonly #keys: Key[] = [];
  readonly #wires: Wire[] = [];
  readonly #errors = new Map<string, number>();
  readonly #disconnects: string[] = [];
  readonly #garbled: string[] = [];
  #foreignPort: number;
  #runs: Promise<void>[] = [];
  #isStopping = false;

  constructor(options: WorkloadOptions) {
    const keys = options.keys ?? KEYS;
    this.#options = {
      ...{ sessions: 10, paceMs: 4, pipeline: 16, writes: 0.1, foreignPort: 0, prefix: "" },
      ...options,
      keys,
    };
    this.#foreignPort = this.#options.foreignPort;
  }

  async start(): Promise<this> {
    const { sessions, port } = this.#options;
    const ids = Array.from({ length: sessions }, (_, i) => this.history.addSession(`session ${i}`));
    this.#layKeys(ids);
    for (const id of ids) {
      const wire = await this.#connect(port);
      this.#runs.push(this.#run(id, wire, randomFrom(this.#options.seed * 1000 + id)));
    }
    for (const key of this.#keys.filter(({ type }) => type === "moved")) {
      this.#runs.push(this.#move(key, await this.#connect(port), await this.#connect(port)));
    }
    if (this.#foreignPort !== 0) this.#runs.push(this.#runForeign());
    return this;
  }

  /** The foreign writer goes on with this server; 0 = it waits. */
  foreignTo(port: number): void {
    this.#foreignPort = port;
  }

  /** Lets all finish what they do. */
  async stop(): Promise<Report> {
    this.#isStopping = true;
    await Promise.all(this.#runs);
    for (const wire of this.#wires) wire.close();
    return this.report();
  }

  report(): Report {
    return { errors: this.#errors, disconnects: this.#disconnects, garbled: this.#garbled };
  }

  /** When each write was answered, ms. */
  answeredMs(): number[] {
    const { history } = this;
    const answered: number[] = [];
    for (let i = 0; i < history.length; i++) {
      const { kind, outcome, returnMs } = history.at(i);
      if (kind !== "read" && outcome === "ok") answered.push(returnMs);
    }
    return answered;
  }

  #layKeys(sessions: readonly number[]): void {
    for (const type of KEY_TYPES) {
      const hasOwner = type === "string" || type === "hash";
      for (let i = 0; i < (this.#options.keys[type] ?? 0); i++) {
        const name = `${this.#options.prefix}${type}:${i}`;
        const id = this.history.addKey(name, type === "register" ? "register" : "counted");
        const owner = hasOwner ? (sessions[i % sessions.length] ?? -1) : -1;
        this.#keys.push({ id, name, type, owner, taken: 0 });
      }
    }
  }

  async #connect(port: number): Promise<Wire> {
    const wire = await Wire.connect(port);
    this.#wires.push(wire);
    return wire;
  }

  async #run(session: number, wire: Wire, random: () => number): Promise<void> {
    const { paceMs, pipeline, writes } = this.#options;
    const share = session % 2 === 0 ? writes : writes / 50;
    const readable = hotFirst(this.#keys, READ_SKEW);
    const writable = hotFirst(
      this.#keys.filter((key) => isWritableBy(key, session)),
      WRITE_SKEW,
    );
    while (!this.#isStopping && !wire.ended) {
      const count = random() < 0.5 ? 1 : 1 + Math.floor(random() * pipeline);
      const actions = Array.from({ length: count }, () =>
        random() < share ? chooseWrite(writable, session, random) : chooseRead(readable, random),
      );
      await this.#perform(session, wire, actions);
      if (paceMs > 0) await sleep(random() * 2 * paceMs);
    }
    if (wire.lost !== "") this.#disconnects.push(`${session}: ${wire.lost}`);
  }

  async #perform(session: number, wire: Wire, actions: readonly Action[]): Promise<void> {
    const calls: { readonly action: Action; readonly indices: readonly number[]; readonly last: number }[] =
      [];
    const commands = actions.flatMap((action) => action.commands);
    let last = -1;
    for (const action of actions) {
      last += action.commands.length;
      const indices = action.effects.map(({ key, kind, version }) =>
        this.history.call(session, key.id, kind, version),
      );
      calls.push({ action, indices, last });
    }
    let next = 0;
    await wire.ask(commands, (reply, index, ms) => {
      const call = calls[next];
      if (call?.last !== index) return;
      next++;
      this.#settle(session, call.action, call.indices, reply, ms);
    });
  }

  #settle(session: number, action: Action, indices: readonly number[], reply: WireReply, ms: number): void {
    const error = reply instanceof ReplyError ? reply : firstError(reply);
    if (error !== null) {
      const isForeign = this.history.sessions[session]?.isForeign === true;
      if (error !== CUT && !isForeign) {
        this.#errors.set(error.word, (this.#errors.get(error.word) ?? 0) + 1);
      }
      const isUncertain = error === CUT || error.word === "UNCERTAIN";
      for (const index of indices) {
        if (isUncertain) this.history.uncertain(index, ms);
        else this.history.error(index, ms);
      }
      return;
    }
    const versions = action.versions(reply);
    for (const [i, index] of indices.entries()) {
      const version = versions[i] ?? null;
      if (version !== null) {
        this.history.ok(index, version, ms);
        this.answered[action.effects[i]?.kind === "read" ? "reads" : "writes"]++;
      } else this.#refuse(action, index, reply, ms);
    }
  }

  /** No error, but no version either: a call that waited in vain, or a reply that is not this request's. */
  #refuse(action: Action, index: number, reply: WireReply, ms: number): void {
    this.history.error(index, ms);
    const isWaiting = action.effects[0]?.key.type === "moved" && reply === null;
    if (isWaiting || this.#garbled.length >= 20) return;
    this.#garbled.push(`${action.commands.at(-1)?.join(" ")} answered ${JSON.stringify(reply)}`);
  }

  /** One session waits for what another one brings, now and then. */
  async #move(key: Key, waiter: Wire, bringer: Wire): Promise<void> {
    const session = this.history.addSession(`waiter of ${key.name}`);
    const bring = async (): Promise<void> => {
      while (!this.#isStopping && !bringer.ended) {
        await bringer.one("LPUSH", sourceOf(key), "x");
        await sleep(20);
      }
    };
    const wait = async (): Promise<void> => {
      while (!this.#isStopping && !waiter.ended) {
        await this.#perform(session, waiter, [writeOf([key], session, Math.random), readOf(key)]);
      }
    };
    await Promise.all([bring(), wait()]);
  }

  async #runForeign(): Promise<void> {
    const session = this.history.addSession("foreign", true);
    const foreign = this.#keys.filter(({ type }) => type === "foreign");
    const keys = hotFirst(foreign, READ_SKEW);
    const random = randomFrom(this.#options.seed * 1000 + 999);
    let port = 0;
    let wire: Wire | null = null;
    while (!this.#isStopping) {
      if (port !== this.#foreignPort || wire === null || wire.ended) {
        wire?.close();
        port = this.#foreignPort;
        wire = port === 0 ? null : await this.#connect(port).catch(() => null);
      }
      if (wire !== null) await this.#perform(session, wire, [chooseWrite(keys, session, random)]);
      await sleep(4);
    }
  }
}

export function startConsistencyWorkload(options: WorkloadOptions): Promise<ConsistencyWorkload> {
  return new ConsistencyWorkload(options).start();
}

/** Keys by how often they are taken: the weights of Zipf, summed up. */
interface Ranking {
  readonly keys: readonly Key[];
  readonly sums: readonly number[];
}

/** Most keys are read far more often than they are written. */
const READ_SKEW = 0.6;
const WRITE_SKEW = 1.2;

/** The first of each type is the hottest. */
function hotFirst(keys: readonly Key[], skew: number): Ranking {
  const rankOf = ({ name }: Key): number => Number(name.split(":")[1]);
  const sorted = [...keys].sort((a, b) => rankOf(a) - rankOf(b));
  let sum = 0;
  const sums = sorted.map((_, i) => {
    sum += 1 / (i + 1) ** skew;
    return sum;
  });
  return { keys: sorted, sums };
}

function take({ keys, sums }: Ranking, random: () => number): Key {
  const at = random() * (sums.at(-1) ?? 0);
  const index = sums.findIndex((sum) => sum >= at);
  const key = keys[Math.max(0, index)];
  if (key === undefined) throw new Error("no key to take");
  return key;
}

function isWritableBy({ type, owner }: Key, session: number): boolean {
  return type !== "foreign" && type !== "moved" && (owner < 0 || owner === session);
}

function chooseWrite(ranking: Ranking, session: number, random: () => number): Action {
  const key = take(ranking, random);
  const others = [take(ranking, random), take(ranking, random)];
  const more = [...new Set(others)].filter((one) => one !== key && one.type === "string");
  return writeOf([key, ...more], session, random);
}

function chooseRead(ranking: Ranking, random: () => number): Action {
  const key = take(ranking, random);
  if (key.type !== "string" || random() > 0.2) return readOf(key);
  const others = [take(ranking, random), take(ranking, random), take(ranking, random)];
  const more = others.filter(({ type }) => type === "string");
  return readAllOf([...new Set([key, ...more])]);
}

/** Of EXEC: one of its replies. */
function firstError(reply: WireReply): ReplyError | null {
  if (!isList(reply)) return null;
  return reply.find((one): one is ReplyError => one instanceof ReplyError) ?? null;
}
