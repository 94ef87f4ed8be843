/** Faults at moments nobody chose, which can be chosen again. */

/** Of this run; HOLDFAST_SEED=<seed> repeats one. It belongs into the name of every test that uses it. */
export const SEED = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1_000_000);

/** Numbers from 0 up to 1, the same for a seed everywhere (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
