/**
 * The check of clients' credentials: AUTH through a connection that is for that alone. A wrong one gets no
 * reply at all from Redis 7.2 and later while another reply of its connection has yet to be written (acl.c,
 * addAuthErrReply), and each reply behind it would be taken for the one before. There the next is sent when
 * the one before is answered.
 */

/** Whether a server is of that kind; Valkey answers every login from 9 on. */
export function losesWrongLogins({ server, version }: { server: string; version: string }): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (server === "valkey" && major >= 9) return false;
  return major > 7 || (major === 7 && minor >= 2);
}

export interface Login {
  /** The arguments of AUTH. */
  readonly credentials: readonly Buffer[];
  /** Whether somebody waits for the answer still. */
  readonly isWanted: () => boolean;
  /** Not called where nobody wants it any more; null = nobody could be asked, or the connection was lost. */
  readonly answer: (reply: Buffer | null) => void;
}

/** @typeParam L a connection. */
export interface LoginsParts<L> {
  /** The connection to ask through now; null = nobody can be asked. */
  readonly lane: () => L | null;
  /** Calls back once, later: with the reply, or with null when it is not to be waited for any more. */
  readonly ask: (lane: L, args: readonly (string | Buffer)[], answer: (reply: Buffer | null) => void) => void;
  /** A reply may yet come there that nobody waits for: nothing may be sent behind it. */
  readonly forsake: (lane: L) => void;
  /** Whether a server that may be asked loses wrong logins. */
  readonly isOneByOne: () => boolean;
}

/** So many may wait before those are sought that nobody wants any more. */
const WAITING_UNSEEN = 1_000;

export class Logins<L> {
  private readonly parts: LoginsParts<L>;
  private waiting: Login[] = [];
  /** At so many that wait, it is looked which of them are wanted still. */
  private mostUnseen = WAITING_UNSEEN;
  /** The connection that has one to answer; null = none. */
  private busy: L | null = null;

  constructor(parts: LoginsParts<L>) {
    this.parts = parts;
  }

  check(login: Login): void {
    if (!this.parts.isOneByOne()) return this.send(this.parts.lane(), login);
    this.waiting.push(login);
    this.forget();
    this.goOn();
  }

  private send(lane: L | null, login: Login): void {
    if (lane === null) return login.answer(null);
    this.parts.ask(lane, ["AUTH", ...login.credentials], login.answer);
  }

  /** Clients that come and go while a server does not answer: their logins are not kept. */
  private forget(): void {
    if (this.waiting.length < this.mostUnseen) return;
    this.waiting = this.waiting.filter(({ isWanted }) => isWanted());
    this.mostUnseen = Math.max(WAITING_UNSEEN, 2 * this.waiting.length);
  }

  private goOn(): void {
    while (this.waiting.length > 0) {
      const lane = this.parts.lane();
      // Where it is another one now, nothing waits for the one before any more.
      if (lane !== null && lane === this.busy) return;
      const login = this.waiting.shift();
      if (login === undefined) return;
      if (!login.isWanted()) continue;
      if (lane === null) login.answer(null);
      else {
        this.busy = lane;
        this.send(lane, { ...login, answer: (reply) => this.answered(lane, login, reply) });
      }
    }
  }

  private answered(lane: L, login: Login, reply: Buffer | null): void {
    const wasBusy = this.busy === lane;
    if (wasBusy) this.busy = null;
    // What is lost is lost for all that waited behind it: they try again as one.
    const lost = reply === null && wasBusy ? this.waiting.splice(0) : [];
    if (reply === null) this.parts.forsake(lane);
    login.answer(reply);
    for (const other of lost) if (other.isWanted()) other.answer(null);
    this.goOn();
  }
}
