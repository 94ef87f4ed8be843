/** The data plane alone, in the test's own process: the test says what the control plane would. */
import { CommandTable } from "../../src/commands/table.ts";
import { addressOf } from "../../src/config/address.ts";
import { configWith } from "../../src/config/schema.ts";
import { Counters } from "../../src/metrics.ts";
import { OK } from "../../src/resp/encode.ts";
import { Router } from "../../src/routing/router.ts";
import { Clients } from "../../src/session/clients.ts";
import type { SessionContext } from "../../src/session/context.ts";
import type { Epoch, Evidence, NodeId } from "../../src/topology/epoch.ts";
import { Turn } from "../../src/turn.ts";
import { RawClient } from "./client.ts";
import type { ConfigObject } from "./proxy.ts";

export class DataPlane {
  readonly counters = new Counters();
  readonly evidence: Evidence[] = [];
  readonly faults: unknown[] = [];
  readonly router: Router;
  /** What PROXY … answers. */
  admin: SessionContext["admin"] = () => OK;
  readonly #clients: Clients;
  readonly #connected: RawClient[] = [];
  #port = 0;

  constructor(config: ConfigObject = {}) {
    const onFault = (error: unknown) => this.faults.push(error);
    this.router = new Router({
      config: configWith({ nodes: ["127.0.0.1:1"], listen: "127.0.0.1:0", ...config }),
      counters: this.counters,
      turn: new Turn(onFault),
      nowMs: () => performance.now(),
      addressOf,
      onEvidence: (evidence) => this.evidence.push(evidence),
      onFault,
    });
    this.#clients = new Clients({
      router: this.router,
      table: new CommandTable(),
      admin: (args, protocol) => this.admin(args, protocol),
      infoSection: () => "",
      onFault,
    });
  }

  async start(): Promise<this> {
    this.router.start();
    [this.#port = 0] = await this.#clients.start();
    return this;
  }

  /** Publishes an epoch as the watcher would. */
  publish(master: string, holdCause: Epoch["holdCause"] = null, number = 1, replid = "a".repeat(40)): void {
    this.#publish(master, { holdCause, number, stoppedAtMs: null }, replid);
  }

  /** A report that was sent at this moment has shown that the master has stopped writing. */
  publishStop(master: string, stoppedAtMs: number): void {
    this.#publish(master, { holdCause: "shutting-down", number: 1, stoppedAtMs }, "a".repeat(40));
  }

  #publish(master: string, said: Pick<Epoch, "holdCause" | "number" | "stoppedAtMs">, replid: string): void {
    const history = { replid, offset: 0 };
    this.router.setEpoch({ ...said, master: master as NodeId, history, readable: [] }, null);
  }

  async client(protocol: 2 | 3 = 2): Promise<RawClient> {
    const client = await RawClient.connect({ port: this.#port, protocol });
    this.#connected.push(client);
    return client;
  }

  close(): void {
    for (const client of this.#connected) client.close();
    this.#clients.destroy();
    this.router.destroy();
  }
}
