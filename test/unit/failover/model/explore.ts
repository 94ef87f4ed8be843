/** Breadth first over everything that can happen, each state once. */
import { isForPeople, isOver, type Move, movesFrom } from "./actions.ts";
import { keyOf } from "./key.ts";
import { Findings, Model, type Setup, type World } from "./world.ts";

export interface Exploration {
  readonly states: number;
  readonly moves: number;
  /** False: there are more states than were allowed. */
  readonly isWhole: boolean;
  readonly found: Findings;
  /** The names of moves to the first state that breaks a rule, and the rules that it breaks. */
  readonly broken: { readonly path: readonly string[]; readonly rules: readonly string[] } | null;
  /** The way to a state from which a job, or a hold, is never over; null = there is none. */
  readonly stuck: readonly string[] | null;
  /** The way to a state from which, without another fault, no master is to be written any more. */
  readonly dead: readonly string[] | null;
}

export function explore(setup: Setup, most: number): Exploration {
  const found = new Findings();
  const model = new Model(setup, found);
  const first = model.first();
  const known = new Map<string, number>([[keyOf(model, first), 0]]);
  const cameFrom: number[] = [-1];
  const cameBy: string[] = ["start"];
  /** Ways without a fault, for the search backwards. */
  const edges: number[][] = [[]];
  const isIdle: boolean[] = [isAtRest(first)];
  const isWell: boolean[] = [true];
  let queue: (readonly [number, World])[] = [[0, first]];
  let moves = 0;
  let isWhole = true;
  let broken: Exploration["broken"] = null;
  const pathTo = (state: number): string[] => {
    const path: string[] = [];
    for (let at = state; at > 0; at = cameFrom[at]!) path.push(cameBy[at]!);
    return path.reverse();
  };
  const visit = (state: number, move: Move, next: (readonly [number, World])[]): void => {
    moves++;
    const key = keyOf(model, move.to);
    let id = known.get(key);
    if (id === undefined) {
      if (known.size >= most) {
        isWhole = false;
        return;
      }
      id = known.size;
      known.set(key, id);
      cameFrom.push(state);
      cameBy.push(move.name);
      edges.push([]);
      isIdle.push(isAtRest(move.to));
      isWell.push(isOver(model, move.to) || isForPeople(move.to) || model.canWrite(move.to));
      next.push([id, move.to]);
    }
    if (!move.isFault && id !== state) edges[id]!.push(state);
  };
  while (queue.length > 0 && broken === null) {
    const next: (readonly [number, World])[] = [];
    for (const [state, world] of queue) {
      const all = movesFrom(model, world);
      for (const move of all) visit(state, move, next);
      if (found.violations.length === 0 || broken !== null) continue;
      broken = { path: pathTo(state), rules: [...new Set(found.violations)] };
    }
    queue = next;
  }
  const noWay = (isGood: readonly boolean[]): string[] | null => {
    const state = firstWithoutWay(edges, isGood);
    return state === null ? null : pathTo(state);
  };
  const hasAll = isWhole && broken === null;
  return {
    ...{ states: known.size, moves, isWhole, found, broken },
    stuck: hasAll ? noWay(isIdle) : null,
    dead: hasAll ? noWay(isWell) : null,
  };
}

function isAtRest({ machine, isHolding, asked }: World): boolean {
  return machine.job.kind === "none" && !isHolding && asked !== "open";
}

/** The first state from which no good one can be reached; `edges` lead backwards. */
function firstWithoutWay(edges: readonly (readonly number[])[], isGood: readonly boolean[]): number | null {
  const reaches = [...isGood];
  const stack = isGood.flatMap((good, state) => (good ? [state] : []));
  for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
    for (const before of edges[state]!) {
      if (reaches[before]) continue;
      reaches[before] = true;
      stack.push(before);
    }
  }
  const bad = reaches.indexOf(false);
  return bad === -1 ? null : bad;
}
