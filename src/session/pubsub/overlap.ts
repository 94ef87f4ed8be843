/**
 * Messages of one topic that came from a feed while another one was being subscribed. The old node may be a
 * replica of the new one by then: what is published between the subscription at the new node and the moment
 * its confirmation is read here comes through both, in the same order.
 */

/** Through both feeds a message comes at the same time, but for the way over the old node, ms. */
export const SPAN_MS = 100;

/** Messages remembered at most, and their bytes; older ones are forgotten. */
const MAX_MESSAGES = 1_000;
const MAX_BYTES = 1024 * 1024;

export class Overlap {
  private messages: { readonly bytes: Buffer; readonly atMs: number }[] = [];
  private bytes = 0;

  /** @param message copied. */
  add(message: Buffer, atMs: number): void {
    this.messages.push({ bytes: Buffer.from(message), atMs });
    this.bytes += message.length;
    while (this.messages.length > MAX_MESSAGES || this.bytes > MAX_BYTES) {
      this.bytes -= this.messages.shift()?.bytes.length ?? 0;
    }
  }

  /** Whether a message of the new feed came from the old one already; what came before it is forgotten. */
  has(message: Buffer, nowMs: number): boolean {
    const isSame = (one: { readonly bytes: Buffer; readonly atMs: number }): boolean =>
      nowMs - one.atMs <= SPAN_MS && one.bytes.equals(message);
    const at = this.messages.findIndex(isSame);
    if (at < 0) return false;
    for (const { bytes } of this.messages.splice(0, at + 1)) this.bytes -= bytes.length;
    return true;
  }

  isOver(nowMs: number): boolean {
    const last = this.messages[this.messages.length - 1];
    return last === undefined || nowMs - last.atMs > SPAN_MS;
  }
}
