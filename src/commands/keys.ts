/**
 * PURE. Which keys a request touches, and whether it may change everything. What is not known for sure is
 * said to be more, never less: a key too many costs a read its replica, a key too few would show old data.
 */

/** Where the search for keys begins (redis.io, "Command key specifications"). */
export type KeySearch =
  /** At this argument; the name is 0. */
  | { readonly kind: "index"; readonly index: number }
  /** Behind this word, in any case, looked for from argument `start` on. Upper case. */
  | { readonly kind: "keyword"; readonly keyword: string; readonly start: number };

/** Which arguments are keys from there on. */
export type KeyRun =
  /**
   * Every `step`-th up to the one `last` behind the first, or, negative, counted from the end (-1 is the last
   * argument). A `limit` of 2 or more: only in the first 1/limit of what follows.
   */
  | { readonly kind: "range"; readonly last: number; readonly step: number; readonly limit: number }
  /** As many as the argument `count` behind the beginning says, every `step`-th from `first` behind it on. */
  | { readonly kind: "keynum"; readonly count: number; readonly first: number; readonly step: number };

export interface KeySpec {
  readonly search: KeySearch;
  readonly run: KeyRun;
}

/** Where a command has its keys. */
export type KeyPlan =
  /** It looks at no data. */
  | { readonly kind: "none" }
  /** It may look at any key: KEYS, or what nobody has described. */
  | { readonly kind: "unknown" }
  | { readonly kind: "specs"; readonly specs: readonly KeySpec[] }
  /** SORT and SORT_RO: patterns name further keys by what is found. */
  | { readonly kind: "sort" }
  /** By the sub-command, lower case. */
  | { readonly kind: "container"; readonly plans: ReadonlyMap<string, KeyPlan> };

/**
 * What a request that may write changes in the data that replicas have: nothing; its keys, or some of them;
 * what a script likes; the functions, with some sub-commands; or it can be anything.
 */
export type Changes = "nothing" | "keys" | "script" | "functions" | "everything";

/** `reads.scriptKeys`: whether scripts touch only the keys that their calls declare. */
export type ScriptKeys = "any" | "declared";

/** What the functions here look at of a Command. */
export interface Keyed {
  readonly keys: KeyPlan;
  readonly changes: Changes;
  readonly script: boolean;
  readonly replicating: ReadonlySet<string> | null;
}

const NO_KEYS: readonly Buffer[] = [];

/**
 * The keys a request reads or writes.
 * @param args the whole request, the name first. What the server would refuse may have any keys here.
 * @returns views into the arguments, doubles included; none = it looks at no data; unknown = at any.
 */
export function keysOf(
  command: Keyed,
  args: readonly Buffer[],
  scriptKeys: ScriptKeys,
): readonly Buffer[] | "unknown" {
  if (command.changes === "everything") return "unknown";
  if (command.script && scriptKeys === "any") return "unknown";
  return keysByPlan(command.keys, args);
}

/** What a write may change: everything, or no other keys than these, which may have more than it changes. */
export function changedKeys(
  command: Keyed,
  args: readonly Buffer[],
  scriptKeys: ScriptKeys,
): readonly Buffer[] | "everything" {
  if (changesEverything(command, args, scriptKeys)) return "everything";
  if (command.changes === "nothing" || command.changes === "functions") return NO_KEYS;
  const keys = keysOf(command, args, scriptKeys);
  return keys === "unknown" ? "everything" : keys;
}

/**
 * Whether a request may change everything, whatever `keysOf` finds in it. If not, it changes no other keys
 * than those, and may change any where `keysOf` says "unknown". Asked of a read, it says no.
 * @param args as in `keysOf`.
 */
export function changesEverything(command: Keyed, args: readonly Buffer[], scriptKeys: ScriptKeys): boolean {
  switch (command.changes) {
    case "nothing":
      return false;
    case "everything":
      return true;
    case "functions":
      return !isHarmlessFunctionCommand(args);
    case "script":
      return scriptKeys === "any" || !namesKeys(command.keys);
    case "keys":
      return changesMoreThanKeys(command, args);
  }
}

/** FUNCTION LOAD and its like reach replicas as writes do, and FCALL_RO there depends on them. */
const HARMLESS_FUNCTION_COMMANDS: ReadonlySet<string> = new Set(["DUMP", "HELP", "KILL", "LIST", "STATS"]);

function isHarmlessFunctionCommand(args: readonly Buffer[]): boolean {
  return HARMLESS_FUNCTION_COMMANDS.has(upperCased(args[1]));
}

function changesMoreThanKeys({ keys, replicating }: Keyed, args: readonly Buffer[]): boolean {
  if (keys.kind !== "container") return !namesKeys(keys);
  const name = upperCased(args[1]).toLowerCase();
  const plan = keys.plans.get(name);
  if (plan === undefined) return true;
  return replicating?.has(name) === true && !namesKeys(plan);
}

/** A write that names no keys is FLUSHALL, or a module's. */
function namesKeys({ kind }: KeyPlan): boolean {
  return kind === "specs" || kind === "sort";
}

function keysByPlan(plan: KeyPlan, args: readonly Buffer[]): readonly Buffer[] | "unknown" {
  switch (plan.kind) {
    case "none":
      return NO_KEYS;
    case "unknown":
      return "unknown";
    case "sort":
      return keysOfSort(args);
    case "specs":
      return keysBySpecs(plan.specs, args) ?? "unknown";
    case "container": {
      const sub = plan.plans.get(upperCased(args[1]).toLowerCase());
      return sub === undefined || sub.kind === "container" ? "unknown" : keysByPlan(sub, args);
    }
  }
}

// SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA] [STORE destination]

function keysOfSort(args: readonly Buffer[]): readonly Buffer[] | "unknown" {
  // In the place of another option's value it is no option; that such a call counts as unknown is no harm.
  for (let i = 2; i < args.length; i++) {
    const word = upperCased(args[i]);
    if (word === "BY" || word === "GET") return "unknown";
  }
  return [...args.slice(1, 2), ...stored(args)];
}

/** Every word behind STORE: one of them is the destination. */
function stored(args: readonly Buffer[]): Buffer[] {
  return args.filter((_, i) => i > 2 && upperCased(args[i - 1]) === "STORE");
}

// By specs (db.c, getKeysUsingKeySpecs)

/** @returns null when they cannot be known. */
function keysBySpecs(specs: readonly KeySpec[], args: readonly Buffer[]): Buffer[] | null {
  const keys: Buffer[] = [];
  for (const { search, run } of specs) {
    const isFound =
      search.kind === "index" ? take(run, args, search.index, keys) : takeBehind(search, run, args, keys);
    if (!isFound) return null;
  }
  return keys;
}

function takeBehind(
  { keyword, start }: Extract<KeySearch, { kind: "keyword" }>,
  run: KeyRun,
  args: readonly Buffer[],
  keys: Buffer[],
): boolean {
  // Of options that are given twice, STORE say, the server heeds the last; a list ends all options.
  const isSingle = run.kind === "range" && run.last === 0;
  for (let i = start; i < args.length; i++) {
    if (upperCased(args[i]) !== keyword) continue;
    if (!take(run, args, i + 1, keys)) return false;
    if (!isSingle) break;
  }
  return true;
}

/** Appends the keys of a run that begins at argument `at`. @returns false when they cannot be known. */
function take(run: KeyRun, args: readonly Buffer[], at: number, keys: Buffer[]): boolean {
  let first = at;
  let last: number;
  switch (run.kind) {
    case "range":
      last = lastOfRange(run, at, args.length);
      break;
    case "keynum": {
      const count = args[at + run.count];
      if (count === undefined) return true;
      const keyCount = countOf(count);
      if (keyCount === null) return false;
      first = at + run.first;
      last = first + (keyCount - 1) * run.step;
      break;
    }
  }
  for (let i = first; i <= last && i < args.length; i += run.step) keys.push(args[i]!);
  return true;
}

function lastOfRange(run: Extract<KeyRun, { kind: "range" }>, first: number, argc: number): number {
  if (run.last >= 0) return first + run.last;
  if (run.limit < 2) return argc + run.last;
  return first + Math.floor((argc - first) / run.limit) + run.last;
}

/** A number of keys; null = it is none, or one that only some servers would take for one ("+1", "01"). */
function countOf(arg: Buffer): number | null {
  const text = arg.length > 9 ? "" : arg.toString("latin1");
  return /^(?:0|[1-9]\d*)$/.test(text) ? Number(text) : null;
}

/** Longest word that means something, bytes. */
const MAX_WORD = 64;

/** "" for what cannot be a word of the language. */
function upperCased(arg: Buffer | undefined): string {
  return arg === undefined || arg.length > MAX_WORD ? "" : arg.toString("latin1").toUpperCase();
}

/** Whether a command has exactly one key, its first argument, whatever follows: nothing has to be decoded. */
export function hasSingleKey({ keys, changes, script }: Omit<Keyed, "replicating">): boolean {
  if (keys.kind !== "specs" || keys.specs.length !== 1 || script) return false;
  const [spec] = keys.specs;
  if (spec === undefined || spec.search.kind !== "index" || spec.search.index !== 1) return false;
  if (changes !== "nothing" && changes !== "keys") return false;
  return spec.run.kind === "range" && spec.run.last === 0;
}
