/** The ways to the data that are compared: each with the nodes of one group behind it. */
import type { RedisGroup } from "../../test/support/redis.ts";
import type { Sentinels } from "../../test/support/sentinel.ts";
import { startHaproxyForMaster, startHoldfast } from "../support/systems.ts";
import { type Connect, proxyLink, sentinelLink } from "./clients.ts";

/** `direct`: no proxy, a client library that asks Sentinel. */
export const SYSTEMS = ["direct", "haproxy", "holdfast"] as const;
export type SystemName = (typeof SYSTEMS)[number];

export const SYSTEM_TITLES: Readonly<Record<SystemName, string>> = {
  direct: "ioredis, Sentinel",
  haproxy: "HAProxy",
  holdfast: "Holdfast",
};

export interface System {
  readonly name: SystemName;
  /** Where it takes clients; absent without a proxy. */
  readonly port?: number;
  readonly connect: Connect;
  close(): Promise<void>;
}

/** Who promotes, as Holdfast is told. */
export type Promoter = "never" | "sentinel" | "self";

export interface Setup {
  readonly group: RedisGroup;
  readonly sentinels: Sentinels | undefined;
  readonly promoter: Promoter;
  /** For Holdfast beside its defaults, as environment variables. */
  readonly settings: Readonly<Record<string, string>>;
}

export async function startSystem(name: SystemName, setup: Setup): Promise<System> {
  const { group, sentinels } = setup;
  switch (name) {
    case "direct":
      if (sentinels === undefined) throw new Error("no Sentinel to ask");
      return {
        name,
        connect: (onDisconnect) => sentinelLink(sentinels.all, sentinels.name, onDisconnect),
        close: async () => undefined,
      };
    case "haproxy":
      return { ...throughPort(await startHaproxyForMaster(group.addresses)), name };
    case "holdfast": {
      const settings = { ...promotionSettings(setup), ...setup.settings };
      return { ...throughPort(await startHoldfast(group.addresses, { settings })), name };
    }
  }
}

function throughPort(proxy: { readonly port: number; close(): Promise<void> }): Omit<System, "name"> {
  const { port } = proxy;
  return { port, connect: (onDisconnect) => proxyLink(port, onDisconnect), close: () => proxy.close() };
}

function promotionSettings({ promoter, sentinels }: Setup): Readonly<Record<string, string>> {
  if (promoter === "never") return {};
  const settings = { HOLDFAST_FAILOVER_PROMOTE: promoter };
  if (promoter === "self" || sentinels === undefined) return settings;
  const nodes = sentinels.addresses.join(",");
  return { ...settings, HOLDFAST_SENTINEL_NAME: sentinels.name, HOLDFAST_SENTINEL_NODES: nodes };
}
