/**
 * PURE. Durations and sizes as people write them in the configuration, and back.
 *
 * A duration is a whole number with a unit (`250ms`, `3s`, `5m`, `1h`) or a bare 0, and becomes milliseconds.
 * A size is a whole number of bytes, or one with a unit (`64kb`, `1mb`, `2gb`; 1kb = 1024 bytes), and becomes
 * bytes. Anything else is refused with a sentence that says what is wrong, never guessed at: a bare `30`
 * could be seconds or milliseconds.
 */

/** A parsed value, or what is wrong with the text (a sentence without a full stop). */
export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problem: string };

const MS_PER = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;
const BYTES_PER = { b: 1, kb: 1_024, mb: 1_048_576, gb: 1_073_741_824 } as const;

/** Parses a duration into milliseconds. */
export function parseDuration(input: unknown): Parsed<number> {
  if (input === 0 || input === "0") return { ok: true, value: 0 };
  if (typeof input === "number") return { ok: false, problem: `${input} has no unit (ms, s, m or h)` };
  if (typeof input !== "string") return { ok: false, problem: `${typeName(input)} is not a duration` };
  const text = input.trim();
  const match = /^(\d+)(ms|s|m|h)$/.exec(text);
  if (match === null) return { ok: false, problem: durationProblem(text) };
  return whole(text, Number(match[1]), MS_PER[match[2] as keyof typeof MS_PER]);
}

/** Parses a size into bytes. */
export function parseSize(input: unknown): Parsed<number> {
  if (typeof input === "number") {
    if (Number.isSafeInteger(input) && input >= 0) return { ok: true, value: input };
    return { ok: false, problem: `${input} is not a whole number of bytes` };
  }
  if (typeof input !== "string") return { ok: false, problem: `${typeName(input)} is not a size` };
  const text = input.trim().toLowerCase();
  const match = /^(\d+)(b|kb|mb|gb)?$/.exec(text);
  if (match === null) return { ok: false, problem: sizeProblem(input.trim()) };
  return whole(text, Number(match[1]), BYTES_PER[(match[2] ?? "b") as keyof typeof BYTES_PER]);
}

/** Writes milliseconds in the largest unit that loses nothing: 1500 becomes `1500ms`, 60000 `1m`. */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0";
  for (const unit of ["h", "m", "s"] as const) {
    if (ms % MS_PER[unit] === 0) return `${ms / MS_PER[unit]}${unit}`;
  }
  return `${ms}ms`;
}

/** Writes bytes in the largest unit that loses nothing: 1536 stays `1536`, 65536 becomes `64kb`. */
export function formatSize(bytes: number): string {
  if (bytes === 0) return "0";
  for (const unit of ["gb", "mb", "kb"] as const) {
    if (bytes % BYTES_PER[unit] === 0) return `${bytes / BYTES_PER[unit]}${unit}`;
  }
  return `${bytes}`;
}

/** What a value is, in words for a mistake report; never the value itself. */
export function typeName(value: unknown): string {
  if (value === null || value === undefined) return "an empty value";
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "object":
      return "a group of keys";
    case "number":
    case "bigint":
      return "a number";
    case "boolean":
      return "true/false";
    default:
      return "a text";
  }
}

function whole(text: string, count: number, factor: number): Parsed<number> {
  const value = count * factor;
  if (Number.isSafeInteger(value)) return { ok: true, value };
  return { ok: false, problem: `"${text}" is too large a number` };
}

function durationProblem(text: string): string {
  if (text === "") return "it is empty";
  if (/^\d+$/.test(text)) return `"${text}" has no unit (ms, s, m or h)`;
  if (/^-\d/.test(text)) return `"${text}" is negative`;
  if (/^\d+\.\d+/.test(text)) return `"${text}" is not a whole number: use a smaller unit`;
  const unit = /^\d+\s*(\D.*)$/.exec(text)?.[1];
  if (unit !== undefined) return `"${text}" has an unknown unit or a space in it`;
  return `"${text}" is not a duration`;
}

function sizeProblem(text: string): string {
  if (text === "") return "it is empty";
  if (/^-\d/.test(text)) return `"${text}" is negative`;
  if (/^\d+\.\d+/.test(text)) return `"${text}" is not a whole number: use a smaller unit`;
  if (/^\d+\s*\D/.test(text)) return `"${text}" has an unknown unit or a space in it`;
  return `"${text}" is not a size`;
}
