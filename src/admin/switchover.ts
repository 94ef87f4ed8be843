/** PROXY SWITCHOVER and PROXY RESTARTABLE: reading what is asked, saying what came of it. */

import type { SwitchoverAnswer, SwitchoverRequest } from "../failover/model.ts";
import type { Planned } from "../failover/plan.ts";
import { encodeError, type Value } from "../resp/encode.ts";
import type { NodeId } from "../topology/epoch.ts";
import { mapOf } from "./overview.ts";

/** What carries it out. */
export interface Switcher {
  switchover(request: SwitchoverRequest): Promise<SwitchoverAnswer>;
  /** What `switchover` would do. */
  plan(request: SwitchoverRequest): Promise<Planned>;
  /** Moves the master role away from a node, if it has it, and says when the node may be stopped. */
  restartable(node: NodeId, timeoutMs: number): Promise<Restartable>;
}

export type Restartable =
  | { readonly kind: "yes"; readonly movedTo: NodeId | null; readonly stallMs: number }
  | { readonly kind: "no"; readonly reason: string };

export interface SwitchoverSettings {
  /** For a request without a TIMEOUT, ms. */
  readonly defaultTimeoutMs: number;
  /** Any is cut to this, ms: what waits longer is answered with an error (`hold.maxTime`). */
  readonly mostTimeoutMs: number;
  /** Reads "host:port"; null = it is not that. */
  readonly parseNode: (text: string) => NodeId | null;
}

interface Asked {
  readonly to: NodeId | null;
  readonly timeoutMs: number;
  readonly isDry: boolean;
}

/** What TIMEOUT may be, ms. */
const TIMEOUT_LEAST_MS = 10;
const TIMEOUT_MOST_MS = 3_600_000;

/** @param words what follows SWITCHOVER. @returns null when they make no sense. */
export function runSwitchover(
  words: readonly string[],
  switcher: Switcher,
  settings: SwitchoverSettings,
): Value | Buffer | Promise<Value | Buffer> {
  const asked = read(words, settings, true);
  if (typeof asked === "string") return refusal(asked);
  const { to, timeoutMs } = asked;
  if (asked.isDry) return switcher.plan({ to, timeoutMs }).then(planValue);
  return switcher.switchover({ to, timeoutMs }).then(answerValue);
}

/** @param words what follows RESTARTABLE. */
export function runRestartable(
  words: readonly string[],
  switcher: Switcher,
  settings: SwitchoverSettings,
): Buffer | Promise<Value | Buffer> {
  const [text = "", ...rest] = words;
  const node = settings.parseNode(text);
  if (node === null) return refusal(`'${printable(text)}' is not host:port`);
  const asked = read(rest, settings, false);
  if (typeof asked === "string") return refusal(asked);
  return switcher.restartable(node, asked.timeoutMs).then((answer) => restartableValue(node, answer));
}

/** @returns why it makes no sense, where it makes none. */
function read(words: readonly string[], settings: SwitchoverSettings, isSwitchover: boolean): Asked | string {
  let to: NodeId | null = null;
  let timeoutMs = settings.defaultTimeoutMs;
  let isDry = false;
  for (let at = 0; at < words.length; ) {
    const word = words[at++]?.toUpperCase();
    if (word === "DRYRUN" && isSwitchover) isDry = true;
    else if (word === "TO" && isSwitchover) {
      const text = words[at++] ?? "";
      to = settings.parseNode(text);
      if (to === null) return `'${printable(text)}' is not host:port`;
    } else if (word === "TIMEOUT") {
      const text = words[at++] ?? "";
      timeoutMs = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
      if (!(timeoutMs >= TIMEOUT_LEAST_MS && timeoutMs <= TIMEOUT_MOST_MS)) {
        return `TIMEOUT takes ${TIMEOUT_LEAST_MS} to ${TIMEOUT_MOST_MS} milliseconds`;
      }
    } else return `'${printable(word ?? "")}' is not understood here. Try PROXY HELP`;
  }
  return { to, timeoutMs: Math.min(timeoutMs, settings.mostTimeoutMs), isDry };
}

function planValue(planned: Planned): Value | Buffer {
  if (planned.kind === "refused") return refusal(`${planned.reason}; nothing was changed`);
  const { from, to, via, steps } = planned.plan;
  return mapOf({ result: "dryrun", from, to, via, steps: [...steps] });
}

function answerValue(answer: SwitchoverAnswer): Value | Buffer {
  switch (answer.kind) {
    case "done": {
      const { from, to, via, stallMs, lostBytes, repointed } = answer.report;
      const fields = { result: "done", from, to, via, stall_ms: Math.round(stallMs), lost_bytes: lostBytes };
      return mapOf({ ...fields, repointed: [...repointed] });
    }
    case "refused":
      return refusal(`${answer.reason}; nothing was changed`);
    case "rolled-back":
      return refusal(`rolled back: ${answer.reason}; the master is the one of before`);
    case "open":
      return refusal(`not finished: ${answer.reason}; see PROXY STATUS`);
  }
}

function restartableValue(node: NodeId, answer: Restartable): Value | Buffer {
  if (answer.kind === "no") return refusal(`not restartable now: ${answer.reason}`);
  const { movedTo, stallMs } = answer;
  return mapOf({ node, restartable: 1, moved_to: movedTo, stall_ms: Math.round(stallMs) });
}

function refusal(why: string): Buffer {
  return encodeError(`ERR proxy: ${why}`);
}

function printable(text: string): string {
  return text.slice(0, 64).replace(/[^\x20-\x7e]/g, "?");
}
