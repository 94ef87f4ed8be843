/** The middle value; of an even number of values the mean of the two in the middle. NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  if (sorted.length === 0) return Number.NaN;
  if (sorted.length % 2 === 1) return sorted[middle] ?? Number.NaN;
  return ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** The median over the rounds of what is measured on `mine`, divided by the same on `others`. */
export function medianRatio<S extends { readonly round: number }>(
  mine: readonly S[],
  others: readonly S[],
  measure: (sample: S) => number,
): number {
  const ratios = mine.map((sample) => {
    const other = others.find(({ round }) => round === sample.round);
    return other === undefined ? Number.NaN : measure(sample) / measure(other);
  });
  return median(ratios);
}

/** The value below which the share `q` (0 to 1) of the values lies. NaN of none. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

/** The same values in random order, so that no system always runs first or after the same other. */
export function shuffled<T>(items: readonly T[], random: () => number = Math.random): T[] {
  const list = [...items];
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [list[i], list[j]] = [list[j] as T, list[i] as T];
  }
  return list;
}

export function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}
