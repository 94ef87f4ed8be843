/**
 * PURE. What must hold between settings that are each fine on their own. One function per relation; each says
 * what is wrong in one sentence, with the values, and which settings it looked at.
 */

import { addressOf, formatAddress, listenersCollide, reachesListener } from "./address.ts";
import type { Config } from "./schema.ts";
import { formatDuration, formatSize } from "./units.ts";

/** A relation that does not hold. */
export interface Finding {
  /** The settings it is about, the one to point at first. */
  readonly settings: readonly [string, ...string[]];
  /** For a list setting, which item of the first one. */
  readonly item?: number;
  readonly problem: string;
}

export function crossCheck(config: Config): Finding[] {
  return [
    ...holdFitsTogether(config),
    ...unsentFitsOutput(config),
    ...probeFitsTogether(config),
    ...lagIsMeasurable(config),
    ...userHasPassword(config),
    ...listenersDiffer(config),
    ...httpIsApart(config),
    ...nodesDiffer(config),
    ...nodesAreNotOurselves(config),
  ];
}

function holdFitsTogether({ hold }: Config): Finding[] {
  if (hold.maxBytesPerClient <= hold.maxBytes) return [];
  return [
    {
      settings: ["hold.maxBytesPerClient", "hold.maxBytes"],
      problem:
        `one client may hold ${formatSize(hold.maxBytesPerClient)}, ` +
        `more than all clients together (hold.maxBytes: ${formatSize(hold.maxBytes)})`,
    },
  ];
}

function unsentFitsOutput({ limits }: Config): Finding[] {
  if (limits.maxUnsentBytes <= limits.outputBufferBytes) return [];
  return [
    {
      settings: ["limits.maxUnsentBytes", "limits.outputBufferBytes"],
      problem:
        `${formatSize(limits.maxUnsentBytes)} is more than limits.outputBufferBytes ` +
        `(${formatSize(limits.outputBufferBytes)}): a slow client would be closed before it is slowed down`,
    },
  ];
}

function probeFitsTogether({ probe }: Config): Finding[] {
  if (probe.interval <= probe.timeout) return [];
  return [
    {
      settings: ["probe.interval", "probe.timeout"],
      problem:
        `nodes are asked every ${formatDuration(probe.interval)}, which is longer than they have to ` +
        `answer (probe.timeout: ${formatDuration(probe.timeout)})`,
    },
  ];
}

function lagIsMeasurable({ reads, probe }: Config): Finding[] {
  if (reads.maxLag > probe.interval) return [];
  return [
    {
      settings: ["reads.maxLag", "probe.interval"],
      problem:
        `${formatDuration(reads.maxLag)} is not longer than probe.interval ` +
        `(${formatDuration(probe.interval)}): lag cannot be known that finely, no replica would be read`,
    },
  ];
}

function userHasPassword({ upstream }: Config): Finding[] {
  if (upstream.username === undefined || upstream.password !== undefined) return [];
  return [
    {
      settings: ["upstream.username", "upstream.password"],
      problem: "a user name needs upstream.password beside it",
    },
  ];
}

function listenersDiffer({ listen }: Config): Finding[] {
  return listen.flatMap((address, item): Finding[] => {
    const twin = listen.slice(0, item).find((earlier) => listenersCollide(earlier, address));
    if (twin === undefined) return [];
    const problem = `${formatAddress(address)} takes the same port as ${formatAddress(twin)}`;
    return [{ settings: ["listen"], item, problem }];
  });
}

function httpIsApart({ http, listen }: Config): Finding[] {
  const twin = http === null ? undefined : listen.find((address) => listenersCollide(address, http));
  if (http === null || twin === undefined) return [];
  return [
    {
      settings: ["http", "listen"],
      problem: `${formatAddress(http)} takes the same port as the client port ${formatAddress(twin)}`,
    },
  ];
}

function nodesDiffer({ nodes }: Config): Finding[] {
  return nodes.flatMap((node, item): Finding[] =>
    nodes.indexOf(node) < item ? [{ settings: ["nodes"], item, problem: `${node} is listed twice` }] : [],
  );
}

function nodesAreNotOurselves({ nodes, listen, http }: Config): Finding[] {
  return nodes.flatMap((node, item): Finding[] => {
    const address = addressOf(node);
    if (listen.some((listener) => reachesListener(listener, address))) {
      const problem = `${node} is where this proxy listens itself: it would talk to itself`;
      return [{ settings: ["nodes", "listen"], item, problem }];
    }
    if (http !== null && reachesListener(http, address)) {
      return [{ settings: ["nodes", "http"], item, problem: `${node} is this proxy's own http address` }];
    }
    return [];
  });
}
