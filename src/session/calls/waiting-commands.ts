/** Commands that the server lets wait: BLPOP and its kin, XREAD with BLOCK, WAIT and WAITAOF. */
import { type Command, MASTER_READ } from "../../commands/command.ts";
import { NOTHING, type PlainKind, type Rewrite, type Slots } from "../../upstream/request.ts";
import type { Session } from "../session.ts";
import { slotsOf } from "../slots.ts";
import { type Frame, isDone, refusePrivate, say, sendPlain, wholeOf } from "../ways.ts";
import { BlockingCall, blockIndex, dollarIds, lastIdOf } from "./blocking.ts";
import { WAIT_CHANNEL, WaitCall } from "./waiting.ts";

/** The connection cannot be shared until the reply is there; what follows waits for it. */
export function blocking(session: Session, frame: Frame): boolean {
  if (session.hasLeft) return leave(session);
  const { command } = frame;
  const args = command.name === "xread" ? withPinnedIds(session, frame) : frame.args;
  if (args === null) return isDone(session);
  const slots = slotsOf(session.router, command, command.plainKind, frame.args);
  const call = new BlockingCall(command.name, args, session.router.nowMs);
  return issue(session, { command, kind: command.plainKind, slots }, call);
}

/** Without BLOCK it does not wait. */
export function xread(session: Session, frame: Frame): boolean {
  if (blockIndex(frame.args) > 0) return blocking(session, frame);
  return sendPlain(session, frame, frame.command.plainKind);
}

/** Sends a call that the server may let wait, in its place among all such calls, or as soon as it can. */
function issue(
  session: Session,
  call: { command: Command; kind: PlainKind; slots: Slots },
  rewrite: Rewrite,
): boolean {
  const lane = session.lanes.openPrivate();
  if (lane === "blocked") return false;
  if (lane === "no-room") return refusePrivate(session);
  session.privateConnection.beginCall();
  const buf = rewrite.requestFor("");
  const what = { ...call, bond: "blocking", replies: rewrite.replies, rewrite } as const;
  if (lane === "no-master") session.flight.defer(what, buf);
  else {
    session.privateConnection.lineUp(lane);
    session.send(what, lane, wholeOf(buf));
  }
  session.block("drain");
  return true;
}

export function wait(session: Session, frame: Frame): boolean {
  if (session.hasLeft) return leave(session);
  // It is about the client's last write, which must be answered.
  if (!session.isDrained()) return false;
  const { command, args } = frame;
  const call = new WaitCall(command.name, args, session.router.nowMs, {
    hasWritten: session.flight.hasWritten,
    isWriteInDoubt: () => session.flight.isWriteInDoubt,
    refuseMark: () => session.voice.refusal(`ERR proxy: ${MARK_NEEDED}`),
  });
  const known = call.knownReply();
  return known !== null
    ? say(session, known)
    : issue(session, { command, kind: MASTER_READ, slots: NOTHING }, call);
}

const MARK_NEEDED = `WAIT and WAITAOF behind a write need the right to PUBLISH to the channel ${WAIT_CHANNEL}`;

/** Streams of one XREAD whose last id is asked for at most; with more of them `$` stays what it is. */
const MAX_PINNED = 128;

/** XREAD's arguments with the ids that `$` stands for now; null = they have to be asked for first. */
function withPinnedIds(session: Session, frame: Frame): Buffer[] | null {
  const dollars = dollarIds(frame.args);
  if (dollars.length === 0 || dollars.length > MAX_PINNED) return frame.args;
  const ids = session.inquiry.lastIds;
  if (ids === null) {
    const keys = dollars.map(({ key }) => Buffer.from(frame.args[key]!));
    askLastIds(session, frame, keys);
    return null;
  }
  const args = [...frame.args];
  for (const [i, { id }] of dollars.entries()) {
    const last = ids[i];
    if (typeof last === "string") args[id] = Buffer.from(last);
  }
  return args;
}

function askLastIds(session: Session, frame: Frame, keys: readonly Buffer[]): void {
  if (session.inquiry.take("last-ids")?.kind === "nobody") {
    session.holding.waitToAsk(frame.start);
    return;
  }
  if (!session.isDrained()) return;
  session.block("answer");
  const questions = keys.map((key) => ["XINFO", "STREAM", key]);
  session.router.askMaster(session.profile, questions, (replies) => {
    session.inquiry.lastIds = replies === null ? null : replies.map(lastIdOf);
    session.answered("last-ids", { kind: replies === null ? "nobody" : "yes" });
  });
}

/** A client that has said all it will say is not kept for what it would wait for. */
export function leave(session: Session): true {
  session.finish("client");
  return true;
}
