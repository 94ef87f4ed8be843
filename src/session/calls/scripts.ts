/**
 * Bodies of scripts that clients have sent, so that a node that does not have one can be given it: the cache
 * of scripts is a server's own, it is not replicated (since Redis 7.0) and gone after a switch.
 */
import { createHash } from "node:crypto";
import { encodeNullArray, encodeRequest, type Protocol } from "../../resp/encode.ts";
import type { Rewrite } from "../../upstream/request.ts";

/** Names noted for one connection at most; beyond it they are given anew. */
const MAX_NOTED = 10_000;

/** Scripts given to a server before one request at most; of more names the server knows what it knows. */
export const MAX_GIVEN = 128;

/**
 * A request that names scripts, EVALSHA or SCRIPT EXISTS, on its way. The bodies go before it through each
 * connection once, so that nothing that the client has sent behind it can overtake it because the server
 * lacked the script.
 */
export class ScriptCall implements Rewrite {
  replies: number;
  private readonly frame: Buffer;
  /** Replies to what goes right before the call. */
  private readonly before: number;
  private readonly names: readonly string[];
  private readonly load: (name: string) => Buffer | null;

  /**
   * @param frame the request as the client sent it; copied.
   * @param load the request that gives the script of a name to a server; null when it is not known.
   * @param before a request that belongs right before the call; null = none.
   */
  constructor(
    frame: Buffer,
    names: readonly Buffer[],
    load: (name: string) => Buffer | null,
    before: Buffer | null = null,
  ) {
    this.frame = before === null ? Buffer.from(frame) : Buffer.concat([before, frame]);
    this.before = before === null ? 0 : 1;
    this.replies = 1 + this.before;
    this.names = names.slice(0, MAX_GIVEN).map((name) => name.toString("latin1").toLowerCase());
    this.load = load;
  }

  /** The request for a connection whose server was given these scripts. */
  firstFor(given: Set<string>): Buffer {
    if (given.size >= MAX_NOTED) given.clear();
    const loads: Buffer[] = [];
    for (const name of this.names) {
      const load = given.has(name) ? null : this.load(name);
      if (load === null) continue;
      loads.push(load);
      given.add(name);
    }
    return this.behind(loads);
  }

  requestFor(): Buffer {
    return this.behind(this.names.map(this.load).filter((load) => load !== null));
  }

  private behind(loads: readonly Buffer[]): Buffer {
    this.replies = loads.length + 1 + this.before;
    return loads.length === 0 ? this.frame : Buffer.concat([...loads, this.frame]);
  }

  /** What to send when the server lacks the script all the same; null = nobody has sent it. */
  repaired(): Buffer | null {
    const bytes = this.requestFor();
    return this.bringsScript ? bytes : null;
  }

  private get bringsScript(): boolean {
    return this.replies > 1 + this.before;
  }

  readonly deadlineMs = null;

  nullReply(protocol: Protocol): Buffer {
    return encodeNullArray(protocol);
  }

  replyFor(reply: Buffer): Buffer {
    return reply;
  }
}

/** What a server answers to EVALSHA of a script it does not have (script.c); the second is Valkey's. */
const NOSCRIPT: ReadonlySet<string> = new Set([
  "-NOSCRIPT No matching script. Please use EVAL.\r\n",
  "-NOSCRIPT No matching script.\r\n",
]);

/** The longer of them, bytes. */
const LONGEST_NOSCRIPT = 48;

/** Names of scripts are SHA1 digests in lower case hex. */
const SHA1_DIGITS = 40;

export class Scripts {
  /** Oldest use first. */
  private readonly bodies = new Map<string, Buffer>();
  private bytes = 0;
  private readonly maxBytes: number;

  /** @param maxBytes of all bodies together; the least recently used ones go first. */
  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** Remembers a body that a client sent. */
  remember(body: Buffer): void {
    if (body.length > this.maxBytes) return;
    const name = createHash("sha1").update(body).digest("hex");
    if (this.touch(name) !== null) return;
    this.bodies.set(name, Buffer.from(body));
    this.bytes += body.length;
    for (const [oldest, old] of this.bodies) {
      if (this.bytes <= this.maxBytes) break;
      this.bodies.delete(oldest);
      this.bytes -= old.length;
    }
  }

  /** The request that gives a server the script; null when it is not known. */
  loadRequest(name: string): Buffer | null {
    if (name.length !== SHA1_DIGITS) return null;
    const body = this.touch(name.toLowerCase());
    return body === null ? null : encodeRequest(["SCRIPT", "LOAD", body]);
  }

  has(name: string): boolean {
    return this.bodies.has(name.toLowerCase());
  }

  private touch(name: string): Buffer | null {
    const body = this.bodies.get(name);
    if (body === undefined) return null;
    this.bodies.delete(name);
    this.bodies.set(name, body);
    return body;
  }

  /** A client has flushed the scripts: what was forgotten on purpose is not brought back. */
  clear(): void {
    this.bodies.clear();
    this.bytes = 0;
  }
}

export function isNoScript(buf: Buffer, start: number, end: number): boolean {
  return end - start <= LONGEST_NOSCRIPT && NOSCRIPT.has(buf.toString("latin1", start, end));
}

/** What a replica says to a script or function that may write, before it runs. */
export function isReadOnly(buf: Buffer, start: number, end: number): boolean {
  return buf.toString("latin1", start, Math.min(end, start + READONLY.length)) === READONLY;
}

const READONLY = "-READONLY ";
