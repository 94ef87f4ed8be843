/**
 * What the command that is next in the input has had to ask a server before it can go on. The command waits,
 * untaken, and runs again from its beginning with what is known by then; all of it is forgotten as soon as
 * the command is done with, however it ended.
 */
import type { Answer } from "../routing/router.ts";
import type { Identity, Profile } from "../upstream/profile.ts";

/** What may have to be asked; a profile stands for whether the server lets it in. */
export type Question = Profile | "credentials" | "last-ids" | "subscription" | "redirect" | "permission";

/** An answer, and to what. */
interface Told {
  readonly question: Question;
  readonly answer: Answer;
}

export class Inquiry {
  /** What was answered last; null when the command has taken that, or nothing was. */
  told: Told | null = null;
  /** What each `$` of the XREAD stands for; one is null where the server must say. Null: not asked yet. */
  lastIds: readonly (string | null)[] | null = null;
  /** Credentials that HELLO … AUTH has proven: the rest of that HELLO has yet to be accepted. */
  provenIdentity: Identity | null = null;
  /**
   * The SUBSCRIBE is confirmed: it is done with, whatever stops it now (CLIENT PAUSE, output that the client
   * does not take).
   */
  isConfirmed = false;

  /** A server has answered, or nobody could be asked. */
  answered(question: Question, answer: Answer): void {
    this.told = { question, answer };
  }

  /**
   * The answer to a question of the command that runs now, once; null = it is not there. One to another
   * question is thrown away: the command that asked had no need of it any more.
   */
  take(question: Question): Answer | null {
    const { told } = this;
    this.told = null;
    return told?.question === question ? told.answer : null;
  }

  /** The command could have taken this answer and has not: it is asked again if need be. */
  outlive(told: Told | null): void {
    if (this.told === told) this.told = null;
  }

  /** The command is done with. */
  clear(): void {
    this.told = null;
    this.lastIds = null;
    this.provenIdentity = null;
    this.isConfirmed = false;
  }
}
