/**
 * What of a world makes a difference to what can happen next, as a text. Times become what they are compared
 * with; names that are only ever compared become their order of appearance.
 */
import { goneAtMs } from "../../../../src/failover/diagnosis.ts";
import { lagMs } from "../../../../src/topology/rules/samples.ts";
import type { Model, World } from "./world.ts";

export function keyOf(model: Model, world: World): string {
  const parts = [
    world.nodes.map((node) => ({ ...node, pausedUntilMs: node.pausedUntilMs > world.nowMs })),
    viewsOf(world),
    beliefOf(world),
    machineOf(model, world),
    [Number.isFinite(world.wakeAtMs), world.isHolding, world.isDrainAwaited, world.isConfirming],
    [world.sentinel && [`#${world.sentinel.id}.`, world.sentinel.stage]],
    sentOf(world),
    [world.writes, world.faults, world.isDisturbed, world.isMeddledWith, world.asked, world.promoted],
  ];
  const names = new Map<string, string>();
  return JSON.stringify(parts).replace(/H\d+_|#\d+\./g, (name) => {
    let short = names.get(name);
    if (short === undefined) {
      short = `${name[0]}${names.size}`;
      names.set(name, short);
    }
    return short;
  });
}

/** What is under way is in no order: each of it may end next. */
function sentOf({ sent }: World): unknown {
  const all = sent.map(({ id, node, stage, result, command }) => {
    const about = "master" in command ? command.master : "to" in command ? command.to : "";
    return { id, about: [node, stage, result.kind, command.kind, about] };
  });
  all.sort((a, b) => (`${a.about}` < `${b.about}` ? -1 : `${a.about}` > `${b.about}` ? 1 : a.id - b.id));
  return all.map(({ id, about }) => [`#${id}.`, ...about]);
}

/** Processes and claims that can still be met: a run id never comes back, nor does an id of a history. */
function metAgain(world: World): { readonly instances: unknown; readonly claims: unknown } {
  const { belief, nodes, views } = world;
  const runIds = new Set(nodes.map(({ life }, index) => `${index}.${life}`));
  for (const { report } of views) if (report !== null) runIds.add(report.runId);
  const claims = nodes.map(({ life, replid }, index) => `${index}.${life}:${replid}`);
  for (const { report } of views) if (report !== null) claims.push(`${report.runId}:${report.replid}`);
  return {
    instances: [...belief.instances].filter((one) => runIds.has(one)).sort(),
    claims: claims.map((one) => belief.refusedClaims.has(one)),
  };
}

function viewsOf(world: World): unknown {
  const { outage, job } = world.machine;
  const heardAtMs = world.views.find(({ id }) => id === world.belief.epoch.master)?.report?.receivedAtMs ?? 0;
  return world.views.map(({ id, contact, report }) => {
    if (report === null) return [contact];
    const { sentAtMs, role, replid, replid2, secondReplOffset, appliedOffset, linkUp, runId } = report;
    const suspicion = world.belief.suspicions.find(({ node }) => node === id);
    return [
      ...[contact, role, replid, replid2, secondReplOffset, appliedOffset, linkUp, runId],
      ...[report.masterAddress?.host, report.failoverState],
      ...[outage === null || sentAtMs >= outage.noticedAtMs, sentAtMs <= heardAtMs],
      job.kind === "switchover" || job.kind === "promoting" ? sentAtMs > (job.endedAtMs ?? 0) : true,
      suspicion === undefined || sentAtMs > suspicion.sinceMs,
    ];
  });
}

function beliefOf(world: World): unknown {
  const { belief, views } = world;
  const { instances, claims } = metAgain(world);
  const { epoch, master } = belief;
  const lags = views.map(({ report }) => {
    const lag = master === null || report === null ? null : lagMs(master.samples, report.appliedOffset);
    return lag === null ? null : lag > 50;
  });
  return [
    ...[
      // Compared with that of the question only, and never going back.
      world.asked === "no" || epoch.number === world.askedIn,
      epoch.master,
      epoch.history?.replid,
      epoch.holdCause,
      epoch.readable.map(({ id }) => id),
    ],
    ...[master?.runId, master?.replid, master?.lastSeenOffset, master?.keys, lags],
    ...[instances, claims, belief.gone !== null],
    // As long as the history does not grow, nothing comes of it.
    world.writes.length === 0 ? [] : [...belief.renounced].sort(),
    belief.suspicions.map(({ node, kind }) => [node, kind]),
  ];
}

function machineOf(model: Model, world: World): unknown {
  const { nowMs, machine } = world;
  const { outage, job, heir, care, duty, members, orphans, obstacles, group, asking } = machine;
  const isOver = (atMs: number | undefined): boolean => atMs !== undefined && atMs <= nowMs;
  return [
    jobOf(world),
    heir && [
      ...[heir.from, heir.to],
      world.views.some(({ id, report }) => id === heir.from && (report?.sentAtMs ?? 0) > heir.endedAtMs),
    ],
    outage && [
      ...[outage.master, outage.crashedSinceMs !== null],
      isOver(goneAtMs(model.sight(world), outage, model.settings)),
      isOver(outage.refusal?.untilMs ?? Number.NEGATIVE_INFINITY),
      [...outage.failed].sort().map(([node, untilMs]) => [node, isOver(untilMs)]),
      [...outage.questions].sort().map(([node, { command, isDone, isLeft, endedAtMs }]) => {
        const report = world.views.find(({ id }) => id === node)?.report;
        const isNewer = report !== undefined && report !== null && report.sentAtMs > endedAtMs;
        return [
          node,
          command === null ? null : `#${command}.`,
          isDone,
          isLeft,
          isNewer,
          isOver(endedAtMs + 150),
        ];
      }),
      outage.reachedAtMs > Number.NEGATIVE_INFINITY,
    ],
    [...care].sort().map(([node, { command, nextAtMs, failures }]) => {
      return [node, command === null ? null : `#${command}.`, isOver(nextAtMs), Math.min(failures, 3)];
    }),
    [...asking].sort().map(([node, { command, nextAtMs }]) => [node, command === null, isOver(nextAtMs)]),
    [...machine.renounced].sort().map(([node, { sinceMs }]) => {
      const report = world.views.find(({ id }) => id === node)?.report;
      return [node, report !== undefined && report !== null && report.sentAtMs > sinceMs];
    }),
    [...machine.pauses].sort().map(([node, { command, isToLift }]) => [node, `#${command}.`, isToLift]),
    duty && [[...duty.nodes].sort(), isOver(duty.untilMs)],
    [[...members].sort(), [...orphans].sort(), obstacles.map(({ kind }) => kind), machine.standing.kind],
    [group?.epoch.holdCause, group?.epoch.master, machine.isNewHistory, job.kind],
  ];
}

function jobOf({ nowMs, machine: { job } }: World): unknown {
  const name = (command: number | null): string | null => (command === null ? null : `#${command}.`);
  switch (job.kind) {
    case "none":
      return [];
    case "confirming":
      return [job.candidate];
    case "promoting": {
      const isLate = job.endedAtMs !== null && nowMs >= job.endedAtMs + 2_000;
      return [job.candidate, job.former, name(job.command), job.endedAtMs === null, isLate];
    }
    case "switchover":
      return [
        ...[job.from, job.to, job.via, job.phase, name(job.command), name(job.nudge), nowMs >= job.nudgeAtMs],
        ...[nowMs >= job.deadlineMs, nowMs >= job.deadlineMs + 2_000, job.isHolding],
        [job.lostBytes, job.repointed],
      ];
  }
}
