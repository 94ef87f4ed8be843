/**
 * A small text that outlives the process, in one file. Replaced as a whole: a reader finds the text of before
 * or the new one, also after a loss of power. Errors are told once and never thrown; the proxy goes on.
 */

import { readFileSync, statSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf } from "../../errors.ts";

/** What stood in the file at the start. */
export type StoredText =
  | { readonly kind: "none" }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "error"; readonly error: string };

/** Reads the file; for the start only, since it waits for the disk. At most `maxBytes` are looked at. */
export function readStateFile(path: string, maxBytes: number): StoredText {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return { kind: "none" };
    if (!stat.isFile()) return { kind: "error", error: "it is not a file" };
    if (stat.size > maxBytes) return { kind: "error", error: `it has ${stat.size} bytes` };
    return { kind: "text", text: readFileSync(path, "utf8") };
  } catch (error) {
    return { kind: "error", error: messageOf(error) };
  }
}

export interface StateFileEvents {
  /** Writing began to fail, or works again (null). Not called again while that lasts. */
  onProblem(error: string | null): void;
}

/** How a text gets into a file; tests bring their own. */
export type WriteText = (path: string, text: string) => Promise<void>;

export class StateFile {
  readonly #path: string;
  readonly #events: StateFileEvents;
  readonly #write: WriteText;
  /** The newest text that is not written yet. */
  #next: string | null = null;
  #writing: Promise<void> | null = null;
  #problem: string | null = null;

  constructor(path: string, events: StateFileEvents, write: WriteText = replaceFile) {
    this.#path = path;
    this.#events = events;
    this.#write = write;
  }

  /** Why the last write failed; null when it did not. */
  get problem(): string | null {
    return this.#problem;
  }

  /** One write is under way at most; of the texts that come meanwhile the newest is written after it. */
  save(text: string): void {
    this.#next = text;
    this.#writing ??= this.#run();
  }

  /** Settles when everything saved so far is written, or could not be. Never rejects. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #run(): Promise<void> {
    while (this.#next !== null) {
      const text = this.#next;
      this.#next = null;
      const error = await this.#write(this.#path, text).then(
        () => null,
        (reason: unknown) => messageOf(reason),
      );
      const changed = (error === null) !== (this.#problem === null);
      this.#problem = error;
      if (changed) this.#events.onProblem(error);
    }
    this.#writing = null;
  }
}

/**
 * Writes beside the file, then renames: both within one folder, else the rename would be a copy. The folder
 * is synced too, because the name is kept there. Only its owner may read it.
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`;
  try {
    const file = await open(temporary, "w", 0o600);
    try {
      await file.writeFile(text, "utf8");
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
  await syncFolder(dirname(path));
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
