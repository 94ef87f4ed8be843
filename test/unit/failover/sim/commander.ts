/** Commands of the failover machine on model nodes: a connection each, and one time-out for all of it. */
import type { CommandResult, NodeCommand } from "../../../../src/failover/model.ts";
import { Connection, type Network } from "./network.ts";
import type { ModelNode, Reply } from "./node.ts";
import type { Party } from "./timeline.ts";

export const COMMAND_TIMEOUT_MS = 1_000;

export function runCommand(
  network: Network,
  party: Party,
  node: ModelNode | undefined,
  command: NodeCommand,
  onPerform: (node: ModelNode) => void,
  done: (result: CommandResult) => void,
): void {
  const { time } = network;
  let isSent = false;
  let isTold = false;
  const tell = (result: CommandResult): void => {
    if (isTold) return;
    isTold = true;
    cancel();
    connection?.close();
    done(result);
  };
  const fail = (error: string): void => tell({ kind: isSent ? "unknown" : "unreachable", error });
  const cancel = time.after(COMMAND_TIMEOUT_MS, () => fail("no answer in time"), party);
  const connection = node === undefined ? null : new Connection(network, party, node, () => fail("closed"));
  if (connection === null) return void time.after(1, () => fail("no such node"), party);
  connection.open(() => {
    isSent = true;
    connection.send<Reply>(
      (served, answer) => {
        onPerform(served);
        answer(perform(served, command));
      },
      (reply) => tell(reply === "ok" ? { kind: "done" } : { kind: "refused", error: reply.error }),
    );
  });
}

export function perform(node: ModelNode, command: NodeCommand): Reply {
  node.group.note(`${node.name} gets ${describe(command)}`);
  if (node.isLoading && command.kind !== "unpause") return { error: "LOADING" };
  switch (command.kind) {
    case "promote": {
      const reply = node.promote();
      if (reply === "ok") node.rewriteConfig();
      return reply;
    }
    case "follow": {
      const reply = node.follow(nameOf(command.master));
      if (reply === "ok") node.rewriteConfig();
      return reply;
    }
    case "failover":
      if (node.group.version < "6.2") return { error: "ERR unknown command 'failover'" };
      return node.failover(nameOf(command.to), command.timeoutMs);
    case "abort-failover":
      return node.abortFailover();
    case "acknowledge":
      node.acknowledge();
      return "ok";
    case "relink":
      node.relink();
      return "ok";
    case "pause-writes":
      return node.pause(command.forMs);
    case "unpause":
      return node.unpause();
    case "keep-role":
      return node.rewriteConfig();
  }
}

function nameOf(id: string): string {
  return id.split(":")[0] ?? "";
}

function describe(command: NodeCommand): string {
  switch (command.kind) {
    case "follow":
      return `REPLICAOF ${nameOf(command.master)}`;
    case "failover":
      return `FAILOVER TO ${nameOf(command.to)} TIMEOUT ${command.timeoutMs}`;
    case "promote":
    case "abort-failover":
    case "acknowledge":
    case "relink":
    case "pause-writes":
    case "unpause":
    case "keep-role":
      return command.kind;
  }
}
