import { lengthEnd, readLength } from "./bytes.ts";

/**
 * The arguments of a whole request frame, its name first. Views into `buf`: copy what must outlive it.
 * Only for the few commands whose arguments the proxy has to understand.
 */
export function requestArgs(buf: Buffer, start: number): Buffer[] {
  const argc = readLength(buf, start + 1, buf.length);
  const args: Buffer[] = [];
  let p = lengthEnd;
  for (let i = 0; i < argc; i++) {
    const length = readLength(buf, p + 1, buf.length);
    args.push(buf.subarray(lengthEnd, lengthEnd + length));
    p = lengthEnd + length + 2;
  }
  return args;
}

/**
 * Splits an inline command as Redis's sdssplitargs (sds.c) does: blanks separate, "…" with escapes, '…'
 * with \' only. Null when quotes do not close or something follows a closing quote.
 */
export function splitInline(line: Buffer): Buffer[] | null {
  // Redis never runs a line with a NUL in it: it would be taken for the end of what has arrived.
  if (line.includes(0)) return null;
  const args: Buffer[] = [];
  let p = 0;
  for (;;) {
    while (p < line.length && isBlank(line[p]!)) p++;
    if (p >= line.length) return args;
    const out: number[] = [];
    p = readArgument(line, p, out);
    if (p < 0) return null;
    args.push(Buffer.from(out));
  }
}

/** Reads one argument from `p` into `out`; returns the position behind it, -1 when quotes are unbalanced. */
function readArgument(line: Buffer, start: number, out: number[]): number {
  let p = start;
  while (p < line.length) {
    const byte = line[p]!;
    if (byte === 34 || byte === 39) {
      p = byte === 34 ? readDoubleQuoted(line, p + 1, out) : readSingleQuoted(line, p + 1, out);
      // A closing quote must be followed by a blank or nothing at all (sds.c).
      return p >= 0 && p < line.length && !isBlank(line[p]!) ? -1 : p;
    }
    if (endsArgument(byte)) return p;
    out.push(byte);
    p++;
  }
  return p;
}

function readDoubleQuoted(line: Buffer, start: number, out: number[]): number {
  let p = start;
  while (p < line.length) {
    const byte = line[p]!;
    if (byte === 34) return p + 1;
    if (byte !== 92 || p + 1 >= line.length) {
      out.push(byte);
      p++;
      continue;
    }
    const hex = line.toString("latin1", p + 2, p + 4);
    if (line[p + 1] === 120 && /^[0-9a-fA-F]{2}$/.test(hex)) {
      out.push(Number.parseInt(hex, 16));
      p += 4;
    } else {
      out.push(unescaped(line[p + 1]!));
      p += 2;
    }
  }
  return -1;
}

function readSingleQuoted(line: Buffer, start: number, out: number[]): number {
  let p = start;
  while (p < line.length) {
    if (line[p] === 92 && line[p + 1] === 39) {
      out.push(39);
      p += 2;
    } else if (line[p] === 39) {
      return p + 1;
    } else {
      out.push(line[p]!);
      p++;
    }
  }
  return -1;
}

function unescaped(byte: number): number {
  switch (byte) {
    case 110:
      return 10; // \n
    case 114:
      return 13; // \r
    case 116:
      return 9; // \t
    case 98:
      return 8; // \b
    case 97:
      return 7; // \a
    default:
      return byte;
  }
}

/** What ends an argument outside quotes: fewer bytes than those that may stand before it (sds.c). */
function endsArgument(byte: number): boolean {
  return byte === 32 || byte === 10 || byte === 13 || byte === 9;
}

/** isspace() of C: what Redis separates inline arguments by. */
function isBlank(byte: number): boolean {
  return byte === 32 || (byte >= 9 && byte <= 13);
}
