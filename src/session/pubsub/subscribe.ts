/** (P|S)SUBSCRIBE and (P|S)UNSUBSCRIBE, and what a subscriber may say in RESP2. */
import { encodeError, encodeValue } from "../../resp/encode.ts";
import { ChangedReply, type Rewrite } from "../../upstream/request.ts";
import { isReserved, refuseReserved } from "../policy.ts";
import type { Session } from "../session.ts";
import { commandProblem } from "../transaction/transaction.ts";
import { type Frame, isDone, say } from "../ways.ts";
import type { Topic } from "./hub.ts";
import { numsubWithMore, unseen, unseenReceivers, withMore } from "./receivers.ts";
import { Subscriptions } from "./subscriptions.ts";
import { type Family, subscribeCommand } from "./topics.ts";

/** A command of the SUBSCRIBE family with the right number of words. */
export function subscribe(session: Session, frame: Frame): boolean {
  const { command, args } = frame;
  const how = subscribeCommand(command.name);
  const names = args.slice(1).map((arg) => arg.toString("latin1"));
  if (how === null) return true;
  if (how.adds) return add(session, frame, how.family, names);
  return remove(session, frame, how.family, names);
}

function remove(session: Session, frame: Frame, family: Family, names: readonly string[]): boolean {
  const subscriptions = session.messages.subscriptions ?? new Subscriptions(session.messages);
  const hubs = subscriptions.hubsOf(family, names);
  const said = subscriptions.remove(frame.command.name, family, names, session.protocol);
  session.messages.keep(subscriptions);
  const settling = [...hubs].filter((hub) => hub.isSettling);
  if (settling.length === 0) {
    session.messages.confirm(said);
    return true;
  }
  // Who publishes after the confirmation must not be told of a receiver that is gone.
  session.block("answer");
  let left = settling.length;
  const settled = (): void => {
    if (--left > 0 || session.isClosed) return;
    session.messages.confirm(said);
    session.inquiry.isConfirmed = true;
    session.answered("subscription", { kind: "yes" });
  };
  for (const hub of settling) hub.whenSettled(settled);
  return false;
}

function add(session: Session, frame: Frame, family: Family, names: readonly string[]): boolean {
  if (session.hasLeft) {
    session.finish("client");
    return true;
  }
  // Messages must not come before the confirmation, and that not before earlier replies.
  if (!session.isDrained()) return false;
  const answer = session.inquiry.take("subscription");
  if (answer?.kind === "no") return say(session, answer.error);
  if (answer?.kind === "nobody") {
    session.holding.waitToAsk(frame.start);
    return isDone(session);
  }
  if (isReserved(names)) return refuseReserved(session, frame);
  const subscriptions = session.messages.subscriptions ?? new Subscriptions(session.messages);
  const most = session.context.limits.subscriptionBytes;
  if (subscriptions.bytes + subscriptions.costOf(family, names) > most) {
    session.voice.refuse(`ERR proxy: too many subscriptions, limits.subscriptionBytes (${most} bytes)`);
    return true;
  }
  const { name } = frame.command;
  const confirm = (topics: readonly Topic[]): void => {
    session.messages.confirm(subscriptions.add(name, topics, session.protocol));
    session.messages.keep(subscriptions);
  };
  const hub = session.context.hubs.get(session.profile.identity);
  const live = hub.liveTopics(family, names);
  if (live !== null) {
    confirm(live);
    return true;
  }
  session.block("answer");
  hub.subscribe(family, names, (topics, found) => {
    if (session.isClosed) for (const topic of topics) hub.leave(topic, session.messages);
    else if (found.kind === "yes") {
      confirm(topics);
      session.inquiry.isConfirmed = true;
    }
    session.answered("subscription", found);
  });
  return false;
}

/** A subscriber that speaks RESP2 could not tell replies from messages (server.c, processCommand). */
export function inSubscriberMode(session: Session, frame: Frame): boolean {
  const { command, args } = frame;
  const problem = commandProblem(command, args);
  if (problem !== null) return say(session, problem);
  if (command.handler === "subscribe") return subscribe(session, frame);
  if (command.name === "ping") {
    if (args.length > 2) return say(session, encodeError("ERR wrong number of arguments for 'ping' command"));
    return say(session, encodeValue(["pong", args[1] ?? ""], 2));
  }
  const word = args[1]?.toString("latin1").toLowerCase() ?? "";
  const name = command.subcommands?.has(word) === true ? `${command.name}|${word}` : command.name;
  const allowed = "(P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET";
  const why = `Can't execute '${name}': only ${allowed} are allowed in this context`;
  // EXEC that is refused says so in its own way (server.c, rejectCommand).
  const isExec = command.handler === "exec";
  return say(
    session,
    encodeError(isExec ? `EXECABORT Transaction discarded because of: ${why}` : `ERR ${why}`),
  );
}

/** PUBLISH or SPUBLISH to a channel that is not for clients. */
export function publishesReserved({ command, args }: Frame): boolean {
  const publishes = command.name === "publish" || command.name === "spublish";
  return publishes && isReserved([args[1]?.toString("latin1", 0, 16) ?? ""]);
}

/** PUBLISH, SPUBLISH and PUBSUB: what they count are clients, of which the server sees only connections. */
export function counting(session: Session, frame: Frame): Rewrite | null {
  const { command, args } = frame;
  const { hubs } = session.context;
  if (hubs.isEmpty) return null;
  const bytes = frame.buf.subarray(frame.start, frame.end);
  const word = args[1]?.toString("latin1") ?? "";
  switch (command.name) {
    case "publish":
      return new ChangedReply(bytes, (reply) => withMore(reply, unseenReceivers(hubs, word)));
    case "spublish":
      return new ChangedReply(bytes, (reply) => withMore(reply, unseen(hubs, "shards", word)));
    default: {
      const family = COUNTED.get(word.toLowerCase());
      if (family === undefined) return null;
      return new ChangedReply(bytes, (reply) => numsubWithMore(reply, (name) => unseen(hubs, family, name)));
    }
  }
}

/** Sub-commands of PUBSUB that count subscribers name by name. */
const COUNTED: ReadonlyMap<string, Family> = new Map<string, Family>([
  ["numsub", "channels"],
  ["shardnumsub", "shards"],
]);
