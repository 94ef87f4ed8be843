import { COLON, MINUS } from "../resp/bytes.ts";
import { encodeRequest } from "../resp/encode.ts";
import type { Profile } from "./profile.ts";

/**
 * What is said on a new upstream connection before a client's request: who we are, which protocol and
 * database, and, on a connection to the master, whether the process at the other end is the master whose
 * history the epoch has verified. The last closes the gap between the verification and the connection: the
 * address may have been taken by a restarted, empty server in between.
 */

type Step = "must" | "may" | "role" | "id";

/** How a handshake ended. */
export type HandshakeResult =
  | { readonly kind: "accepted" }
  /** The server's own error, for the clients that wait for this connection. */
  | { readonly kind: "refused"; readonly error: Buffer }
  /** It is loading its data set, or it is a replica whose link to the master is down. */
  | { readonly kind: "not-ready"; readonly loading: boolean }
  /** It is not the master we believe in. */
  | { readonly kind: "not-master" };

export class Handshake {
  /** To be written when the connection is open. */
  readonly bytes: Buffer;
  /** The connection's number at the server (CLIENT ID); null = not asked, not told yet, or not allowed. */
  serverId: number | null = null;
  private readonly steps: Step[] = [];
  private readonly replid: string | null;

  /**
   * @param replid the epoch's replication id for a connection to the master, null for one that only reads.
   * @param wantsId whether somebody may have to name the connection to the server later.
   */
  constructor(profile: Profile, replid: string | null, wantsId: boolean) {
    this.replid = replid;
    const requests: Buffer[] = [];
    const say = (step: Step, ...args: (string | Buffer)[]): void => {
      this.steps.push(step);
      requests.push(encodeRequest(args));
    };
    const { username, password } = profile.identity;
    if (password !== null) {
      const credentials = username === null ? [password] : [username, password];
      say("must", "AUTH", ...credentials.map((text) => Buffer.from(text, "latin1")));
    }
    if (profile.protocol === 3) say("must", "HELLO", "3");
    say("may", "CLIENT", "SETNAME", "holdfast");
    // A connection shared by many clients is the biggest one, the first that maxmemory-clients would evict.
    say("may", "CLIENT", "NO-EVICT", "ON");
    if (wantsId) say("id", "CLIENT", "ID");
    if (profile.db !== 0) say("must", "SELECT", String(profile.db));
    if (replid !== null) say("role", "INFO", "replication");
    this.bytes = Buffer.concat(requests);
  }

  /** @returns null while more replies are to come. */
  onReply(reply: Buffer): HandshakeResult | null {
    const step = this.steps.shift();
    const isError = reply[0] === MINUS;
    if (step === "must" && isError) return refusal(reply);
    if (step === "id" && reply[0] === COLON) this.serverId = Number(reply.toString("latin1", 1));
    if (step === "role" && !isError) {
      const text = reply.toString("latin1");
      if (!text.includes("role:master") || !text.includes(`master_replid:${this.replid}`)) {
        return { kind: "not-master" };
      }
    }
    return this.steps.length === 0 ? { kind: "accepted" } : null;
  }
}

/** A server that is loading refuses for a while only: that is no answer to give to a client. */
function refusal(reply: Buffer): HandshakeResult {
  const text = reply.toString("latin1", 0, 16);
  if (text.startsWith("-LOADING")) return { kind: "not-ready", loading: true };
  if (text.startsWith("-MASTERDOWN")) return { kind: "not-ready", loading: false };
  return { kind: "refused", error: Buffer.from(reply) };
}
