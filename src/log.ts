/**
 * The log: lines on standard output, written synchronously so that none is lost when the process ends.
 * Nothing is logged per request above debug. Fields named like a password are never written.
 */

import pino from "pino";

/** What the rest of the program logs through. Fields first, then one sentence. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  /** A log that adds these fields to every line. */
  child(fields: Record<string, unknown>): Log;
}

export type LogLevel = "debug" | "info" | "warn" | "error";

export interface LogOptions {
  readonly level: LogLevel;
  /** One JSON object a line, or one readable line. */
  readonly format: "json" | "text";
}

/** Where finished lines go, newline included. */
export interface LogDestination {
  write(line: string): void;
}

const SECRET_FIELDS = ["password", "passwords", "requirepass", "masterauth", "secret"];
/** Secret fields at the top and up to three levels down, as in { config: { upstream: { password } } }. */
const REDACTED_PATHS = ["", "*.", "*.*.", "*.*.*."].flatMap((above) =>
  SECRET_FIELDS.map((field) => above + field),
);

/** `destination` is for tests; without it lines go to standard output. */
export function createLog(options: LogOptions, destination: LogDestination = standardOutput()): Log {
  const errors = { err: pino.stdSerializers.err, error: pino.stdSerializers.err };
  return pino(
    {
      level: options.level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: errors,
      redact: { paths: REDACTED_PATHS, censor: "[secret]" },
    },
    options.format === "json" ? destination : readable(destination),
  );
}

/** A log that says nothing, for tests and tools. */
export const SILENT_LOG: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => SILENT_LOG,
};

function standardOutput(): LogDestination {
  const stream = pino.destination({ fd: 1, sync: true });
  // A full disk or a reader that went away must not end the proxy: the lines are lost instead.
  stream.on("error", () => {});
  return stream;
}

/** Turns pino's JSON lines into `time LEVEL message key=value …`. */
function readable(destination: LogDestination): LogDestination {
  return { write: (line) => destination.write(`${formatLine(line)}\n`) };
}

/** Exported for its test. One JSON line of pino as one readable line, without the newline. */
export function formatLine(json: string): string {
  const { time, level, msg, pid: _pid, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const head = `${String(time)} ${String(level).toUpperCase().padEnd(5)} ${oneLine(String(msg ?? ""))}`;
  const rest = Object.entries(fields).map(([key, value]) => `${key}=${formatValue(value)}`);
  return [head, ...rest].join(" ");
}

/** Plain words as they are; anything with a space, quote, = or control character in quotes. */
function formatValue(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  if (typeof value === "string" && !/^[\w.:/@+[\]-]+$/.test(text)) return JSON.stringify(text);
  return text;
}

/** Control characters escaped, so that a message can neither break the line nor reach the terminal. */
function oneLine(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`);
}
