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
    ...readNodesDiffer(config),
    ...userHasPassword(config),
    ...listenersDiffer(config),
    ...httpIsApart(config),
    ...nodesDiffer(config),
    ...nodesAreNotOurselves(config),
    ...sentinelIsWhole(config),
    ...sentinelCanPromote(config),
    ...onlyOnePromotes(config),
    ...sentinelLogsIn(config),
    ...sentinelsDiffer(config),
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

/** Nodes that are not listed in `nodes` may be named all the same: they are found out. */
function readNodesDiffer({ reads }: Config): Finding[] {
  const weighed = reads.weights.map(({ node }) => node);
  return [...listedTwice("reads.prefer", reads.prefer), ...listedTwice("reads.weights", weighed)];
}

function listedTwice(setting: string, nodes: Config["nodes"]): Finding[] {
  return nodes.flatMap((node, item): Finding[] =>
    nodes.indexOf(node) < item ? [{ settings: [setting], item, problem: `${node} is listed twice` }] : [],
  );
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
  return listedTwice("nodes", nodes);
}

function nodesAreNotOurselves(config: Config): Finding[] {
  return [
    ...notOurselves(config, "nodes", config.nodes),
    ...notOurselves(config, "sentinel.nodes", config.sentinel.nodes),
  ];
}

function notOurselves({ listen, http }: Config, setting: string, nodes: Config["nodes"]): Finding[] {
  return nodes.flatMap((node, item): Finding[] => {
    const address = addressOf(node);
    if (listen.some((listener) => reachesListener(listener, address))) {
      const problem = `${node} is where this proxy listens itself: it would talk to itself`;
      return [{ settings: [setting, "listen"], item, problem }];
    }
    if (http !== null && reachesListener(http, address)) {
      return [{ settings: [setting, "http"], item, problem: `${node} is this proxy's own http address` }];
    }
    return [];
  });
}

/** Whatever is said of Sentinel has no meaning without a name to ask for and somebody to ask. */
function sentinelIsWhole({ sentinel }: Config): Finding[] {
  const { name, nodes, tls, ...others } = sentinel;
  const isGiven =
    name !== undefined ||
    nodes.length > 0 ||
    tls === "on" ||
    Object.values(others).some((value) => value !== undefined);
  if (!isGiven) return [];
  const beside = Object.keys(sentinel).map((key) => `sentinel.${key}`);
  const findings: Finding[] = [];
  if (name === undefined) {
    const problem = "the name of the group in Sentinel is missing beside the other settings of sentinel";
    findings.push({ settings: ["sentinel.name", ...beside], problem });
  }
  if (nodes.length === 0) {
    const problem = "the addresses of the Sentinels are missing beside the other settings of sentinel";
    findings.push({ settings: ["sentinel.nodes", ...beside], problem });
  }
  return findings;
}

function sentinelCanPromote({ failover, sentinel }: Config): Finding[] {
  if (failover.promote !== "sentinel" || sentinel.nodes.length > 0) return [];
  return [
    {
      settings: ["failover.promote", "sentinel.nodes"],
      problem: "sentinel needs sentinel.name and sentinel.nodes",
    },
  ];
}

/** Each would promote another node, and make the other's follow it. */
function onlyOnePromotes({ failover, sentinel }: Config): Finding[] {
  if (failover.promote !== "self" || sentinel.nodes.length === 0) return [];
  const problem = "self and Sentinel would both promote: sentinel, or no sentinel.nodes";
  return [{ settings: ["failover.promote", "sentinel.nodes"], problem }];
}

function sentinelLogsIn({ sentinel }: Config): Finding[] {
  const { username, password, tls, tlsCa, tlsCert, tlsKey } = sentinel;
  const findings: Finding[] = [];
  if (username !== undefined && password === undefined) {
    const problem = "a user name needs sentinel.password beside it";
    findings.push({ settings: ["sentinel.username", "sentinel.password"], problem });
  }
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    const problem = "a certificate and its private key (sentinel.tlsKey) belong together";
    findings.push({ settings: ["sentinel.tlsCert", "sentinel.tlsKey"], problem });
  }
  if (tls === "off" && [tlsCa, tlsCert, tlsKey].some((path) => path !== undefined)) {
    const files = ["sentinel.tlsCa", "sentinel.tlsCert", "sentinel.tlsKey"];
    findings.push({
      settings: ["sentinel.tls", ...files],
      problem: "files for TLS are given, but it is off",
    });
  }
  return findings;
}

function sentinelsDiffer({ nodes, sentinel }: Config): Finding[] {
  return sentinel.nodes.flatMap((node, item): Finding[] => {
    if (sentinel.nodes.indexOf(node) < item) {
      return [{ settings: ["sentinel.nodes"], item, problem: `${node} is listed twice` }];
    }
    if (!nodes.includes(node)) return [];
    const problem = `${node} is listed in nodes, too: it is either a Sentinel or a node`;
    return [{ settings: ["sentinel.nodes", "nodes"], item, problem }];
  });
}
