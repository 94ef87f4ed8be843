/** PURE. Redis's patterns: `*`, `?`, `[a-z]`, `[^…]` and `\` (util.c, stringmatchlen). */

/** @param pattern latin1 text, as `text`: each character is a byte. */
export function globMatches(pattern: string, text: string): boolean {
  // Not even a star matches nothing at all: Redis looks at the pattern only while there is text.
  if (text === "") return pattern === "";
  let p = 0;
  let t = 0;
  let starAt = -1;
  let starText = 0;
  while (t < text.length) {
    if (pattern[p] === "*") {
      starAt = p++;
      starText = t;
      continue;
    }
    const next = p < pattern.length ? matchOne(pattern, p, text.charCodeAt(t)) : -1;
    if (next >= 0) {
      p = next;
      t++;
    } else if (starAt >= 0) {
      // The last star takes one more; what an earlier one took need not be tried again.
      p = starAt + 1;
      t = ++starText;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p >= pattern.length;
}

/** Matches one byte with what stands at `p`. @returns what follows in the pattern, -1 = no match. */
function matchOne(pattern: string, p: number, byte: number): number {
  switch (pattern[p]) {
    case "?":
      return p + 1;
    case "[":
      return matchClass(pattern, p + 1, byte);
    case "\\":
      if (p + 1 < pattern.length) return pattern.charCodeAt(p + 1) === byte ? p + 2 : -1;
      break;
    default:
      break;
  }
  return pattern.charCodeAt(p) === byte ? p + 1 : -1;
}

/** A class that is not closed ends with the pattern, as in Redis. */
function matchClass(pattern: string, from: number, byte: number): number {
  const isNegated = pattern[from] === "^";
  let found = false;
  let p = isNegated ? from + 1 : from;
  for (; p < pattern.length && pattern[p] !== "]"; p++) {
    if (pattern[p] === "\\" && p + 1 < pattern.length) {
      p++;
      found ||= pattern.charCodeAt(p) === byte;
    } else if (pattern[p + 1] === "-" && p + 2 < pattern.length) {
      const [low = 0, high = 0] = [pattern.charCodeAt(p), pattern.charCodeAt(p + 2)].sort((a, b) => a - b);
      found ||= byte >= low && byte <= high;
      p += 2;
    } else found ||= pattern.charCodeAt(p) === byte;
  }
  return found === isNegated ? -1 : Math.min(p + 1, pattern.length);
}
