/**
 * Questions of which a server gets the next only when the one before is answered. AUTH needs it: with wrong
 * credentials it gets no reply at all from Redis 7.2 and later while another reply of the same connection
 * has yet to be written (acl.c, addAuthErrReply), and each reply behind it would be taken for the one before.
 */
interface Question {
  readonly args: readonly (string | Buffer)[];
  readonly answer: (reply: Buffer | null) => void;
}

/** @typeParam L the connection that carries them. */
export class OneByOne<L> {
  private readonly laneNow: () => L | null;
  private readonly ask: (lane: L, args: Question["args"], answer: Question["answer"]) => void;
  /** A client asks one thing at a time: `limits.maxClients` bounds them. */
  private readonly waiting: Question[] = [];
  /** The connection that has a question to answer; null = none. */
  private busy: L | null = null;

  /**
   * @param laneNow the connection to ask through now; null = nobody can be asked. Where it is another than
   * before, nothing waits for the old one any more but what that was asked.
   * @param ask calls back once: with the reply, or with null when the connection was lost.
   */
  constructor(
    laneNow: () => L | null,
    ask: (lane: L, args: Question["args"], answer: Question["answer"]) => void,
  ) {
    this.laneNow = laneNow;
    this.ask = ask;
  }

  /** @param answer gets null when nobody could be asked, or the connection was lost. */
  put(args: Question["args"], answer: Question["answer"]): void {
    this.waiting.push({ args, answer });
    this.goOn();
  }

  private goOn(): void {
    while (this.waiting.length > 0) {
      const lane = this.laneNow();
      if (lane !== null && lane === this.busy) return;
      const question = this.waiting.shift();
      if (question === undefined) return;
      if (lane === null) {
        question.answer(null);
        continue;
      }
      this.busy = lane;
      this.ask(lane, question.args, (reply) => {
        if (this.busy === lane) this.busy = null;
        question.answer(reply);
        this.goOn();
      });
    }
  }
}
