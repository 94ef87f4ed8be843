/**
 * PURE. What people are told is wrong with the group: by kind and node, each once, and only when it changes.
 */

import type { NodeId } from "./epoch.ts";
import type { Aliases } from "./rules/aliases.ts";
import type { Contact, NodeView, Problem, ProblemKind } from "./rules/model.ts";

/** A problem that the watcher sees, or that the failover machine has. */
interface Named {
  readonly kind: string;
  readonly node: NodeId | null;
}

export type ProblemChange = "raised" | "cleared";

/** Of those with the same kind and node only the last one. */
export function distinct<P extends Named>(problems: readonly P[]): P[] {
  return [...new Map(problems.map((problem) => [keyOf(problem), problem])).values()];
}

/** What is there now and was not before, then what is not there any more; other words are no change. */
export function changesOf<P extends Named>(
  before: readonly P[],
  now: readonly P[],
): (readonly [problem: P, change: ProblemChange])[] {
  return [
    ...without(now, before).map((problem) => [problem, "raised"] as const),
    ...without(before, now).map((problem) => [problem, "cleared"] as const),
  ];
}

export function problemLine({ kind, node, detail }: Named & { readonly detail: string }): string {
  return `${kind} ${node ?? ""}: ${detail}`;
}

/** Nodes that cannot be talked to; a second address of one that can be is none. */
export function nodeProblems(views: readonly NodeView[], aliases: Aliases): Problem[] {
  return views.flatMap(({ id, contact, detail }) => {
    const kind = problemOf(contact);
    return kind === null || aliases.has(id) ? [] : [{ kind, node: id, detail: `${contact}: ${detail}` }];
  });
}

function problemOf(contact: Contact): ProblemKind | null {
  switch (contact) {
    case "never":
    case "answering":
    case "loading":
      return null;
    case "unreachable":
    case "closed":
    case "silent":
      return "node-unreachable";
    case "no-access":
      return "probe-no-access";
    case "nonsense":
      return "node-nonsense";
  }
}

function without<P extends Named>(problems: readonly P[], others: readonly P[]): P[] {
  const keys = new Set(others.map(keyOf));
  return problems.filter((problem) => !keys.has(keyOf(problem)));
}

function keyOf({ kind, node }: Named): string {
  return `${kind} ${node ?? ""}`;
}
