/**
 * INFO with a section of the proxy's own. Whoever watches a server through INFO finds the proxy where the
 * rest is; the server is asked all the same, so that its ACL holds and its words are its own.
 */
import { DOLLAR, EQUALS, lengthEnd, readLength } from "../../resp/bytes.ts";
import { ChangedReply } from "../../upstream/request.ts";

/** Sections that stand for several, the proxy's among them (server.c, genInfoSectionDict); and its name. */
const WITH_PROXY = new Set(["all", "everything", "default", "proxy"]);

/** Whether INFO with these arguments (the command's name first) is to have the proxy's section. */
export function wantsProxySection(args: readonly Buffer[]): boolean {
  return args.length === 1 || args.slice(1).some((arg) => WITH_PROXY.has(sectionName(arg)));
}

function sectionName(arg: Buffer): string {
  return arg.length <= "everything".length ? arg.toString("latin1").toLowerCase() : "";
}

/** One INFO on its way whose reply gets the section. */
export class InfoCall extends ChangedReply {
  /**
   * @param frame the request as the client sent it; copied.
   * @param section the proxy's section as it is when the reply is there, without the blank line before it.
   */
  constructor(frame: Buffer, section: () => string) {
    super(frame, (reply) => withSection(reply, section()));
  }
}

/**
 * INFO's reply with one more section behind the server's own: a bulk string, or a verbatim string, whose
 * length counts its "txt:" too (networking.c, addReplyVerbatim). Any other reply is an error and stays.
 */
export function withSection(reply: Buffer, section: string): Buffer {
  const type = reply[0];
  if (type !== DOLLAR && type !== EQUALS) return reply;
  const length = readLength(reply, 1, reply.length);
  if (length < 0) return reply;
  const body = reply.subarray(lengthEnd, lengthEnd + length);
  const format = type === EQUALS ? "txt:".length : 0;
  const added = Buffer.from((body.length > format ? "\r\n" : "") + section);
  const head = Buffer.from(`${String.fromCharCode(type)}${body.length + added.length}\r\n`);
  return Buffer.concat([head, body, added, Buffer.from("\r\n")]);
}
