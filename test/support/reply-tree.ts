/** A reply taken apart and put together again byte for byte, so that parts of it can be looked at. */

export interface ReplyNode {
  /** The first byte: `+`, `$`, `*`, … */
  readonly type: string;
  /** What a line says, or what a bulk holds; for an aggregate its length. */
  readonly text: string;
  /** Elements of an aggregate, a map's keys and values one after the other. */
  readonly items: readonly ReplyNode[] | null;
}

const BULKS = "$=!";
const AGGREGATES = "*~>%|";

/** @param frame one whole frame, as latin1. */
export function parseReply(frame: string): ReplyNode {
  let at = 0;
  const read = (): ReplyNode => {
    const end = frame.indexOf("\r\n", at);
    const type = frame[at] ?? "";
    const text = frame.slice(at + 1, end);
    at = end + 2;
    const size = Number(text);
    if (BULKS.includes(type) && size >= 0) {
      at += size + 2;
      return { type, text: frame.slice(at - size - 2, at - 2), items: null };
    }
    if (!AGGREGATES.includes(type) || size < 0)
      return { type: type === "$" ? "null" : type, text, items: null };
    const items: ReplyNode[] = [];
    for (let i = 0; i < ("%|".includes(type) ? 2 * size : size); i++) items.push(read());
    return { type, text, items };
  };
  return read();
}

export function printReply(node: ReplyNode): string {
  if (node.items !== null) return `${node.type}${node.text}\r\n${node.items.map(printReply).join("")}`;
  if (node.type === "null") return `$${node.text}\r\n`;
  if (BULKS.includes(node.type)) return `${node.type}${node.text.length}\r\n${node.text}\r\n`;
  return `${node.type}${node.text}\r\n`;
}

/** Changes a reply in some way; equal replies stay equal. */
export type Normaliser = (node: ReplyNode) => ReplyNode;

/** Every part of a reply changed, the inner ones first. */
export function deep(change: Normaliser): Normaliser {
  return (node) => change(node.items === null ? node : { ...node, items: node.items.map(deep(change)) });
}

/** Elements in the order of their bytes, a map's pairs kept together. */
export function sorted(node: ReplyNode): ReplyNode {
  if (node.items === null) return node;
  const size = "%|".includes(node.type) ? 2 : 1;
  return { ...node, items: inGroups(node.items, size) };
}

/** Like `sorted`, for pairs that RESP2 writes as a flat array. */
export function sortedPairs(node: ReplyNode): ReplyNode {
  return node.items === null ? node : { ...node, items: inGroups(node.items, 2) };
}

function inGroups(items: readonly ReplyNode[], size: number): ReplyNode[] {
  const groups: ReplyNode[][] = [];
  for (let i = 0; i < items.length; i += size) groups.push(items.slice(i, i + size));
  const order = (group: readonly ReplyNode[]) => group.map(printReply).join("");
  return groups.toSorted((a, b) => (order(a) < order(b) ? -1 : 1)).flat();
}

/** Only of which kind it is; an error stays as it is. */
export function kindOnly(node: ReplyNode): ReplyNode {
  return node.type === "-" ? node : { type: "+", text: `kind ${node.type}`, items: null };
}

/** What a bulk holds is not compared, only that it is one. */
export const anyBulk: Normaliser = deep((node) =>
  BULKS.includes(node.type) ? { ...node, text: "?" } : node,
);

/** Numbers are not compared, in bulks neither. */
export const anyNumber: Normaliser = deep((node) => {
  const isNumber = /^-?\d+(?:\.\d+)?(?:e[-+]?\d+)?$/.test(node.text) && node.items === null;
  return isNumber && ":,$".includes(node.type) ? { ...node, text: "N" } : node;
});

/** Numbers as large as a time in seconds, ms or µs. */
export const anyTime: Normaliser = deep((node) => {
  if (node.type === ":" && node.text.length >= 10) return { ...node, text: "TIME" };
  return node.type === "$" && /^\d{10,}(?:-\d+)?$/.test(node.text) ? { ...node, text: "TIME" } : node;
});

/** The value behind each of these names. */
export function anyValueOf(...names: readonly string[]): Normaliser {
  return deep((node) => {
    if (node.items === null) return node;
    const { items } = node;
    const isOne = (i: number) => i > 0 && names.includes(items[i - 1]?.text ?? "");
    return { ...node, items: items.map((item, i) => (isOne(i) ? { ...item, text: "?" } : item)) };
  });
}
