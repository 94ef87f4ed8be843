/** What all sessions of a process share. */
import type { CommandTable } from "../commands/table.ts";
import type { Protocol } from "../resp/encode.ts";
import type { RequestLimits } from "../resp/request.ts";
import type { Router } from "../routing/router.ts";
import type { Scripts } from "./calls/scripts.ts";
import type { ClientPause } from "./client/pause.ts";
import type { OutputSettings, OutputSlab } from "./output.ts";
import type { Hubs } from "./pubsub/hubs.ts";
import type { Session } from "./session.ts";

export interface SessionContext {
  readonly router: Router;
  readonly table: CommandTable;
  readonly scripts: Scripts;
  readonly hubs: Hubs;
  /** All of them, oldest first. */
  readonly sessions: ReadonlyMap<number, Session>;
  readonly pause: ClientPause;
  readonly slab: OutputSlab;
  readonly output: OutputSettings;
  readonly limits: RequestLimits & { readonly subscriptionBytes: number };
  /** Requests of one client in flight at once. */
  readonly maxPipeline: number;
  /**
   * Input kept while the session cannot go on, before reading pauses, bytes; and the same while it is held.
   */
  readonly maxWaitingBytes: number;
  readonly maxHeldBytes: number;
  /**
   * Answers PROXY …: the admin's reply, encoded; a promise of it where it takes time, which must not fail.
   */
  readonly admin: (args: readonly Buffer[], protocol: Protocol) => Buffer | Promise<Buffer>;
  /** The section that the proxy adds to INFO: lines that end with CRLF, its title first. */
  readonly infoSection: () => string;
  readonly onClose: (session: Session) => void;
  readonly onFault: (error: unknown) => void;
}
