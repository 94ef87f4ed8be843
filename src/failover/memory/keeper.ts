/**
 * Keeps what is known of the group over restarts of the proxy (`failover.stateFile`): reads it at the start,
 * writes it when it changes. Without a file, or with one that cannot be used, there is nothing to recall;
 * none of its failures stops the proxy.
 *
 *   belief, members   what a former process knew
 *   start(group)      look at the group again and again, and write what is new
 *   remember()        look now: the master is another one
 *   close()           write what is new and wait for the disk; destroy() does not
 */

import type { Clock } from "../../clock.ts";
import type { NodeId } from "../../topology/epoch.ts";
import { problemLine } from "../../topology/problems.ts";
import type { Belief, NodeView } from "../../topology/rules/model.ts";
import type { NewsLog } from "../news.ts";
import {
  beliefOf,
  type GroupMemory,
  isDifferent,
  isMemoryOf,
  MAX_MEMORY_TEXT,
  memoryOf,
  readMemory,
  writeMemory,
} from "./memory.ts";
import { readStateFile, StateFile, type WriteText } from "./state-file.ts";

/** What is known now. */
export interface Known {
  belief(): Belief;
  views(): readonly NodeView[];
}

export interface KeeperOptions {
  /** Undefined = nothing is kept. */
  readonly path: string | undefined;
  /** The nodes that are configured. */
  readonly seeds: readonly NodeId[];
  readonly clock: Clock;
  readonly log: NewsLog;
  /** Between two looks, ms; default 1000. */
  readonly everyMs?: number;
  /** How a text gets into the file; tests bring their own. */
  readonly write?: WriteText;
}

const EVERY_MS = 1_000;

export class Keeper {
  private readonly options: KeeperOptions;
  private readonly file: StateFile | null;
  private readonly recalled: GroupMemory | null;
  /** What stands in the file, or is on its way there. */
  private written: GroupMemory | null;
  private group: Known | null = null;
  private timer: NodeJS.Timeout | null = null;

  constructor(options: KeeperOptions) {
    this.options = options;
    const { path, write } = options;
    const events = { onProblem: (error: string | null) => this.onProblem(error) };
    this.file = path === undefined ? null : new StateFile(path, events, write);
    this.recalled = path === undefined ? null : this.recall(path);
    this.written = this.recalled;
  }

  /** What to begin with; undefined = nothing is known. */
  get belief(): Belief | undefined {
    return this.recalled === null ? undefined : beliefOf(this.recalled);
  }

  /** Addresses that were members of the group. */
  get members(): readonly NodeId[] {
    return this.recalled?.members ?? [];
  }

  /** For people, a line each. */
  problems(): string[] {
    const problem = this.file?.problem ?? null;
    return problem === null
      ? []
      : [problemLine({ kind: "state-file-not-written", node: null, detail: problem })];
  }

  start(group: Known): void {
    if (this.file === null) return;
    this.group = group;
    this.timer = setInterval(() => this.remember(), this.options.everyMs ?? EVERY_MS);
  }

  /** Writes what is known, if it is not what was written; again after a failure. */
  remember(): void {
    if (this.file === null || this.group === null) return;
    const { seeds, clock } = this.options;
    const memory = memoryOf(this.group.belief(), this.group.views(), seeds, clock.wallMs());
    if (memory === null) return;
    if (this.file.problem === null && !isDifferent(this.written, memory)) return;
    this.written = memory;
    this.file.save(writeMemory(memory));
  }

  async close(): Promise<void> {
    this.remember();
    this.destroy();
    await this.file?.flush();
  }

  destroy(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.group = null;
  }

  private recall(stateFile: string): GroupMemory | null {
    const { log, seeds } = this.options;
    const refuse = (error: string): null => {
      log.warn({ stateFile, error }, "the state file is not used: starting without a memory of the group");
      return null;
    };
    const stored = readStateFile(stateFile, MAX_MEMORY_TEXT);
    if (stored.kind === "none") return null;
    if (stored.kind === "error") return refuse(stored.error);
    const result = readMemory(stored.text);
    if (!result.ok) return refuse(result.error);
    const { memory } = result;
    if (!isMemoryOf(memory, seeds)) return refuse("it is about other nodes than those configured");
    const { epoch, master, savedAtMs } = memory;
    const savedAt = new Date(savedAtMs).toISOString();
    log.info({ stateFile, epoch, master: master.id, savedAt }, "the group is remembered");
    return memory;
  }

  private onProblem(error: string | null): void {
    const { log, path: stateFile } = this.options;
    if (error === null) log.info({ stateFile }, "the state file is written again");
    else log.warn({ stateFile, error }, "the state file cannot be written: a restart forgets the group");
  }
}
