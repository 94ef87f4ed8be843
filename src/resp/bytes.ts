/** The bytes RESP gives a meaning to, by name. */
export const CR = 13;
export const LF = 10;
export const PLUS = 43; // + simple string
export const COMMA = 44; // , double
export const MINUS = 45; // - error
export const COLON = 58; // : integer
export const DOLLAR = 36; // $ bulk string
export const STAR = 42; // * array
export const UNDERSCORE = 95; // _ null
export const HASH = 35; // # boolean
export const PAREN = 40; // ( big number
export const BANG = 33; // ! bulk error
export const EQUALS = 61; // = verbatim string
export const TILDE = 126; // ~ set
export const PERCENT = 37; // % map
export const PIPE = 124; // | attribute
export const GREATER = 62; // > push

/** `readLength` found no end of the header yet. */
export const NEED_MORE = -2;
/** `readLength` found something that is no length. */
export const BAD_LENGTH = -3;

/** Where the header that `readLength` read last ends (the byte behind its CRLF). */
export let lengthEnd = 0;

/** Longest accepted header: ten digits say more than any bound of ours (Redis caps a bulk at 512 MB). */
const MAX_DIGITS = 10;

/**
 * Reads the decimal length that stands at `pos` and ends with CRLF; its end is left in `lengthEnd`.
 * As strict as Redis's string2ll (util.c): no plus sign, no leading zero, no blank. Any negative number is
 * returned as -1, which is how Redis treats all of them.
 *
 * @returns the length, `NEED_MORE` when the CRLF has not arrived, `BAD_LENGTH` otherwise.
 */
export function readLength(buf: Uint8Array, pos: number, end: number): number {
  let value = 0;
  let p = pos;
  while (p < end) {
    const byte = buf[p]!;
    if (byte >= 48 && byte <= 57) {
      value = value * 10 + (byte - 48);
      p++;
      if (p - pos > MAX_DIGITS) return BAD_LENGTH;
    } else if (byte === CR) {
      if (p === pos || (buf[pos] === 48 && p - pos > 1)) return BAD_LENGTH;
      if (p + 1 >= end) return NEED_MORE;
      if (buf[p + 1] !== LF) return BAD_LENGTH;
      lengthEnd = p + 2;
      return value;
    } else if (byte === MINUS && p === pos) {
      return readNegative(buf, pos, end);
    } else return BAD_LENGTH;
  }
  return NEED_MORE;
}

function readNegative(buf: Uint8Array, pos: number, end: number): number {
  const value = readLength(buf, pos + 1, end);
  if (value === NEED_MORE) return NEED_MORE;
  return value > 0 ? -1 : BAD_LENGTH;
}
