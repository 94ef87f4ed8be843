/** PURE. What a request is for the rules of `routing/outcome.ts`, from what is known of it. */
import { isRepeatable, WRITE } from "../commands/command.ts";
import { isIdempotent } from "../commands/idempotence.ts";
import { requestArgs } from "../resp/args.ts";
import type { OnUnknown, RequestClass } from "../routing/outcome.ts";
import type { Request } from "../upstream/request.ts";

/**
 * @param policy whether a write leaves the same behind when it runs twice is looked at only where it matters.
 * @param waitedMs since it was given to its connection, ms.
 * @param answersMs a blocking call that was not answered for so long had nothing to be answered with, ms.
 */
export function classOf(
  request: Request,
  policy: OnUnknown,
  waitedMs: number,
  answersMs: number,
): RequestClass {
  const { command, bond, kind, unit } = request;
  if (bond === "watch" || bond === "watched" || bond === "node") return bond;
  if (isRepeatable(kind)) return "read";
  if (bond === "blocking") return waitedMs > answersMs ? "waiting-call" : "call";
  if (command.handler === "exec") return unit?.isIdempotent === true ? "idempotent" : "transaction";
  if (command.script) return "script";
  if (command.name === "publish" || command.name === "spublish") return "publish";
  return policy === "retry-idempotent" && isIdempotentRequest(request) ? "idempotent" : "write";
}

/** Whether a write that goes as it came leaves the same behind when it runs twice. */
function isIdempotentRequest(request: Request): boolean {
  const { command, chunk, start, end, replyCount, rewrite } = request;
  if (replyCount > 1 || rewrite !== null) return false;
  return isIdempotent(command, () => requestArgs(chunk.buffer.subarray(start, end), 0));
}

/** Whether a server that has stopped writing does not run the request; in doubt not. */
export function isPausable({ command, unit, kind }: Request): boolean {
  if (kind !== WRITE || !command.known) return false;
  return command.handler === "exec" ? unit?.mayReplicate === true : command.mayReplicate;
}
