#!/usr/bin/env node
/**
 * The composition root: builds the parts, wires the two planes together, starts and stops them. Nothing
 * imports this file.
 *
 *   control plane: watcher → epochs, switches, problems
 *   data plane:    clients → sessions → router → lanes
 *   seam:          epochs down (router.setEpoch), evidence up (watcher.evidence)
 */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { Chronicle, lineOf } from "./admin/chronicle.ts";
import { AdminCommand } from "./admin/command.ts";
import { doubtOf, Failovers, type SwitchNews } from "./admin/failovers.ts";
import { Overview } from "./admin/overview.ts";
import { packageVersion, parseCli } from "./cli.ts";
import { systemClock } from "./clock.ts";
import { CommandTable } from "./commands/table.ts";
import { addressOf } from "./config/address.ts";
import type { NamedFiles } from "./config/load.ts";
import type { Config } from "./config/schema.ts";
import { tolerableMs } from "./failover/candidate.ts";
import { FailoverControl } from "./failover/control.ts";
import { Keeper } from "./failover/memory/keeper.ts";
import type { CommandResult } from "./failover/model.ts";
import { FailoverNews } from "./failover/news.ts";
import { createHttpServer, type HttpServer } from "./http/server.ts";
import { live } from "./life.ts";
import { createLog, type Log } from "./log.ts";
import { Counters, createMetrics } from "./metrics.ts";
import { Router } from "./routing/router.ts";
import { Clients } from "./session/clients.ts";
import { parseNodeId } from "./topology/address.ts";
import type { Epoch, NodeId } from "./topology/epoch.ts";
import { createProbeFactory } from "./topology/probe.ts";
import type { NodeFacts } from "./topology/probing.ts";
import { type ProblemChange, problemLine } from "./topology/problems.ts";
import type { Problem } from "./topology/rules/model.ts";
import type { SentinelWord } from "./topology/rules/sentinel.ts";
import { createLinkFactory } from "./topology/sentinel/link.ts";
import { SentinelWatch } from "./topology/sentinel/watch.ts";
import { type SwitchFacts, Watcher } from "./topology/watcher.ts";
import { Turn } from "./turn.ts";

/** Connecting to a Sentinel takes this long at most, ms: another one can be asked. */
const SENTINEL_CONNECT_MS = 500;

/** How often counters of nodes that left the group are dropped, ms. */
const FORGET_MS = 60_000;

/** A planned switch holds writes for this part of `hold.maxTime` at most: none of them expires in it. */
const SWITCH_HOLD_PART = 0.9;

/** Nobody is waited for longer than `failover.downAfter`: then it counts as gone. */
function probeTimeoutMs({ failover, probe }: Config): number {
  if (failover.promote !== "self") return probe.timeout;
  return Math.max(probe.interval, Math.min(probe.timeout, failover.downAfter));
}

class Holdfast {
  private readonly config: Config;
  private readonly log: Log;
  private readonly counters = new Counters();
  private readonly table = new CommandTable();
  private readonly keeper: Keeper;
  private readonly watcher: Watcher;
  /** Null when no Sentinels are configured. */
  private readonly sentinels: SentinelWatch | null;
  private readonly router: Router;
  private readonly clients: Clients;
  private readonly failovers: Failovers;
  private readonly chronicle: Chronicle;
  private readonly failover: FailoverControl;
  private readonly http: HttpServer | null;
  private readonly startedAtMs = systemClock.nowMs();
  private stopping = false;
  private forgetTimer: NodeJS.Timeout | null = null;

  constructor(config: Config, files: NamedFiles, log: Log) {
    this.config = config;
    this.log = log;
    const onFault = (error: unknown): void => log.error({ err: error }, "a bug: one connection was closed");
    const { stateFile: path } = config.failover;
    this.keeper = new Keeper({ path, seeds: config.nodes, clock: systemClock, log });
    this.watcher = this.buildWatcher();
    this.sentinels = this.buildSentinels(files);
    this.router = new Router({
      config,
      counters: this.counters,
      turn: new Turn(onFault),
      nowMs: systemClock.nowMs,
      addressOf,
      onEvidence: (evidence) => this.watcher.evidence(evidence),
      onProofWanted: () => this.watcher.seekProof(),
      onFault,
    });
    this.failover = this.buildFailover();
    this.failovers = new Failovers({
      keep: config.failovers.keep,
      counters: this.counters,
      progress: {
        heldNow: () => this.counters.heldNow,
        retiringNow: () => this.router.pool.retiring,
        lossKnownAtMs: () => this.watcher.lossKnownAtMs(),
        nowMs: systemClock.nowMs,
      },
      onFinished: (record) => log.warn(lineOf(record), record.from === record.to ? "return" : "switch"),
    });
    this.chronicle = new Chronicle(log, this.counters, this.failovers);
    const overview = this.buildOverview();
    const admin = new AdminCommand({
      overview,
      switcher: this.failover,
      switchovers: {
        ...{ defaultTimeoutMs: config.failover.switchTime, parseNode: parseNodeId },
        mostTimeoutMs: Math.ceil(SWITCH_HOLD_PART * config.hold.maxTime),
      },
      adopt: (node) => this.adopt(node),
      clients: (limit) => this.clients.list(limit),
    });
    this.clients = new Clients({
      router: this.router,
      table: this.table,
      admin: (args, protocol) => admin.run(args, protocol),
      infoSection: () => overview.infoSection(),
      onFault,
    });
    this.http = config.http === null ? null : this.buildHttp(config.http, overview);
  }

  private buildWatcher(): Watcher {
    const { failover, nodes, probe, reads, upstream } = this.config;
    const timeoutMs = probeTimeoutMs(this.config);
    const options = {
      seeds: nodes,
      intervalMs: probe.interval,
      timeoutMs,
      ...{ maxLagMs: reads.maxLag, maxLagBytes: reads.maxLagBytes, proofIntervalMs: reads.proofInterval },
      rememberMs: 2 * tolerableMs(failover.downAfter),
      belief: this.keeper.belief,
    };
    const callbacks = {
      onEpoch: (epoch: Epoch, keptUntilMs: number | null) => this.onEpoch(epoch, keptUntilMs),
      onSwitch: (facts: SwitchFacts) => this.onSwitch(facts),
      onReturn: (facts: SwitchFacts) => this.onReturn(facts),
      onLoss: (epoch: number, lostBytes: number) => this.chronicle.lost(epoch, lostBytes),
      onProblem: (problem: Problem, change: ProblemChange) => this.chronicle.problem(problem, change),
      onFacts: (facts: NodeFacts) => this.onFacts(facts),
      onLooked: () => this.failover.looked(),
      onProofAsked: (atMs: number) => this.router.proofs.asked(atMs),
    };
    const { username, password } = upstream;
    const createProbe = createProbeFactory({
      username,
      password,
      timeoutMs,
      clock: systemClock,
    });
    return new Watcher(options, callbacks, { clock: systemClock, createProbe });
  }

  private buildFailover(): FailoverControl {
    const { failover, listen, probe, sentinel, upstream } = this.config;
    // What FAILOVER did behind Sentinel's back, Sentinel would take for an outage and fail over once more.
    const isSentinels = failover.promote === "never" && sentinel.nodes.length > 0;
    const news = new FailoverNews(this.log, this.counters, systemClock.nowMs);
    return new FailoverControl({
      mode: isSentinels ? "sentinel" : failover.promote,
      ...{ downAfterMs: failover.downAfter, crashGraceMs: failover.crashGrace },
      ...{ commandTimeoutMs: probe.timeout, username: upstream.username, password: upstream.password },
      clock: systemClock,
      watcher: this.watcher,
      whenDrained: (done) => this.router.whenMasterDrained(done),
      askSentinel: () => this.askSentinel(),
      members: this.keeper.members,
      onRenounced: () => this.keeper.remember(),
      label: `${hostname()}:${listen[0]?.port ?? 0}`,
      ...{ tell: news.tell, onAnswer: news.onAnswer },
      onObstacle: (obstacle, change) => this.chronicle.problem(obstacle, change),
    });
  }

  /** For a planned switch where Sentinel promotes. */
  private async askSentinel(): Promise<CommandResult> {
    if (this.sentinels === null) return { kind: "refused", error: "no Sentinel is configured" };
    const answer = await this.sentinels.failover();
    if (answer.ok) return { kind: "done" };
    return { kind: answer.mayHaveBegun ? "unknown" : "refused", error: answer.reason };
  }

  private buildSentinels(files: NamedFiles): SentinelWatch | null {
    const { probe, sentinel } = this.config;
    const { name, nodes, username, password } = sentinel;
    if (name === undefined || nodes.length === 0) return null;
    const [ca, cert, key] = ["sentinel.tlsCa", "sentinel.tlsCert", "sentinel.tlsKey"].map((path) =>
      files.get(path),
    );
    const createLink = createLinkFactory({
      username,
      password,
      tls: sentinel.tls === "on" ? { ca, cert, key } : null,
      connectTimeoutMs: Math.min(SENTINEL_CONNECT_MS, probe.timeout),
      timeoutMs: probe.timeout,
    });
    const options = { name, seeds: nodes, intervalMs: probe.interval };
    const callbacks = {
      onHint: (named: readonly NodeId[], denseMs: number) => this.watcher.hint(named, denseMs),
      onWord: (word: SentinelWord) => this.watcher.listen(word),
    };
    const isHeld = (): boolean => this.watcher.current().holdCause !== null;
    return new SentinelWatch(options, callbacks, { clock: systemClock, createLink, isHeld });
  }

  private buildOverview(): Overview {
    return new Overview({
      version: packageVersion(),
      counters: this.counters,
      epoch: () => this.watcher.current(),
      nodes: () => this.watcher.nodes(),
      outstanding: () => this.router.pool.outstanding(),
      isSlow: (node) => this.router.isSlow(node),
      problems: () => this.problems(),
      sentinels: () => this.sentinels?.view() ?? [],
      failovers: () => this.failovers.records,
      paused: () => this.clients.paused(),
      isPromoter: () => this.failover.isPromoter,
      isStopping: () => this.stopping,
      uptimeSeconds: () => (systemClock.nowMs() - this.startedAtMs) / 1000,
    });
  }

  private problems(): string[] {
    return [
      ...this.watcher.problems().map(problemLine),
      ...this.failover.problems(),
      ...this.keeper.problems(),
    ];
  }

  private buildHttp(address: { host: string; port: number }, overview: Overview): HttpServer {
    const metrics = createMetrics(this.counters, {
      epoch: () => ({ number: this.router.epoch.number, writable: this.router.writable }),
      isPromoter: () => this.failover.isPromoter,
      nodes: () => overview.readings(),
      sentinels: () => this.sentinels?.view().filter(({ counts }) => counts) ?? [],
    });
    return createHttpServer(address, {
      metrics,
      ready: () => overview.ready(),
      status: () => overview.view(),
    });
  }

  // From the control plane

  private onEpoch(epoch: Epoch, keptUntilMs: number | null): void {
    const before = this.router.epoch;
    this.chronicle.epoch(before, epoch);
    if (before.holdCause === null && epoch.holdCause !== null) this.sentinels?.hurry();
    this.router.setEpoch(epoch, keptUntilMs);
  }

  private onSwitch(facts: SwitchFacts): void {
    this.keeper.remember();
    if (facts.from !== null) this.failover.switched(facts.lostBytes);
    this.chronicle.switched(this.newsOf(facts));
  }

  private onReturn(facts: SwitchFacts): void {
    this.keeper.remember();
    this.chronicle.returned(this.newsOf(facts));
  }

  private newsOf({ keptUntilMs, ...facts }: SwitchFacts): SwitchNews {
    return { ...facts, doubt: doubtOf(keptUntilMs, this.clients.writersSince(keptUntilMs)) };
  }

  private onFacts(facts: NodeFacts): void {
    const { server, version, modules, commands } = facts;
    this.router.met({ server: server ?? "redis", version, modules });
    const learnt = this.table.learn(commands);
    this.log.info(
      { node: facts.node, server, version, commands: learnt ? this.table.size : null },
      "node met",
    );
  }

  private adopt(text: string): string | null {
    const node = parseNodeId(text);
    if (node === null) return "not host:port";
    const answer = this.watcher.adopt(node);
    if (answer.ok) this.log.warn({ node }, "adopted as master by an operator");
    return answer.ok ? null : `${node} cannot be adopted: ${answer.reason}`;
  }

  // Life

  async start(): Promise<void> {
    this.router.start();
    const ports = await this.clients.start();
    const httpPort = this.http === null ? null : await this.http.start();
    this.keeper.start(this.watcher);
    this.watcher.start();
    this.failover.start();
    this.sentinels?.start();
    // Discovered ones too: the configured ones may all be gone.
    this.watcher.hint(this.keeper.members);
    this.forgetTimer = setInterval(() => this.forgetNodes(), FORGET_MS);
    const { listen, http, nodes, sentinel } = this.config;
    const told = this.sentinels === null ? { nodes } : { nodes, sentinels: sentinel.nodes };
    this.log.info({ listen: listen.map((one, i) => `${one.host}:${ports[i]}`), ...told }, "listening");
    if (http !== null) this.log.info({ http: `${http.host}:${httpPort}` }, "metrics, health and status page");
  }

  private forgetNodes(): void {
    const known = new Set<string>(this.watcher.nodes().map((node) => node.id));
    for (const node of this.counters.nodeRequests.keys())
      if (!known.has(node)) this.counters.forgetNode(node);
  }

  /** Finishes what was accepted, within the deadline, then ends everything. */
  async close(): Promise<void> {
    this.stopping = true;
    await this.clients.close(this.config.limits.drainTime);
    await this.http?.close();
    const isWritten = this.keeper.close();
    this.destroy();
    await isWritten;
  }

  destroy(): void {
    if (this.forgetTimer !== null) clearInterval(this.forgetTimer);
    this.keeper.destroy();
    this.failovers.finish();
    this.clients.destroy();
    this.failover.destroy();
    this.router.destroy();
    this.sentinels?.close();
    this.watcher.destroy();
    this.http?.destroy();
  }
}

const asked = parseCli(process.argv.slice(2), process.env, (path) => readFileSync(path, "utf8"));
if (asked.kind === "run") {
  const log = createLog(asked.config.log);
  await live(new Holdfast(asked.config, asked.files, log), log);
} else {
  (asked.exitCode === 0 ? process.stdout : process.stderr).write(asked.text);
  process.exitCode = asked.exitCode;
}
