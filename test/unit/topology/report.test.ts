import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseReport } from "../../../src/topology/report.ts";
import { at, hex } from "./nodes.ts";

const ENVELOPE = { node: at("a"), sentAtMs: 10, receivedAtMs: 12 };

const BASE_TEXT = [
  "# Server",
  "redis_version:7.0.15",
  `run_id:${hex("run")}`,
  "# Persistence",
  "loading:0",
  "async_loading:0",
  "# Keyspace",
  "db0:keys=3,expires=0,avg_ttl=0",
  "db5:keys=4,expires=1,avg_ttl=7",
];

const MASTER_TEXT = [
  "# Replication",
  "role:master",
  "connected_slaves:2",
  "slave0:ip=10.0.0.2,port=6380,state=online,offset=1400,lag=1",
  "slave1:ip=10.0.0.3,port=6381,state=wait_bgsave,offset=0,lag=0,type=replica",
  "master_failover_state:no-failover",
  `master_replid:${hex("H2")}`,
  `master_replid2:${hex("H1")}`,
  "master_repl_offset:1414",
  "second_repl_offset:1001",
];

const REPLICA_TEXT = [
  "# Replication",
  "role:slave",
  "master_host:127.0.0.1",
  "master_port:6380",
  "master_link_status:up",
  "master_last_io_seconds_ago:0",
  "master_sync_in_progress:0",
  "slave_read_repl_offset:1500",
  "slave_repl_offset:1400",
  "slave_priority:50",
  "slave_read_only:1",
  "connected_slaves:0",
  `master_replid:${hex("H2")}`,
  `master_replid2:${"0".repeat(40)}`,
  "master_repl_offset:1414",
  "second_repl_offset:-1",
];

function parse(lines: readonly string[]) {
  return parseReport(ENVELOPE, lines.join("\r\n"), null);
}

function replace(lines: readonly string[], field: string, value: string): string[] {
  return lines.map((line) => (line.startsWith(`${field}:`) ? `${field}:${value}` : line));
}

describe("how long a link has been down", () => {
  const down = replace(REPLICA_TEXT, "master_link_status", "down");
  const rows: [text: string, lines: readonly string[], expected: number | null][] = [
    ["in seconds", [...down, "master_link_down_since_seconds:7"], 7_000],
    ["-1 when it never was up", [...down, "master_link_down_since_seconds:-1"], null],
    ["not at all while it is up", REPLICA_TEXT, null],
  ];
  it.each(rows)("is told %s", (_, lines, expected) => {
    const result = parse([...BASE_TEXT, ...lines]);
    expect(result.ok && result.report.linkDownForMs).toBe(expected);
  });
});

describe("a report", () => {
  it("of a master has its history, the one it continues, its replicas and all keys", () => {
    const result = parse([...BASE_TEXT, ...MASTER_TEXT]);
    expect(result).toEqual({
      ok: true,
      report: {
        ...ENVELOPE,
        runId: hex("run"),
        version: "7.0.15",
        loading: false,
        keys: 7,
        aof: false,
        role: "master",
        replid: hex("H2"),
        replid2: hex("H1"),
        secondReplOffset: 1001,
        masterReplOffset: 1414,
        appliedOffset: 1414,
        receivedOffset: 1414,
        heardSecondsAgo: null,
        masterAddress: null,
        linkUp: false,
        linkDownForMs: null,
        syncInProgress: false,
        readOnly: true,
        priority: 100,
        failoverState: "no-failover",
        shutdownInMs: null,
        replicas: [
          { host: "10.0.0.2", port: 6380, state: "online", offset: 1400, lag: 1 },
          { host: "10.0.0.3", port: 6381, state: "wait_bgsave", offset: 0, lag: 0 },
        ],
      },
    });
  });

  it("of a replica has what it applied, not what it received", () => {
    const result = parse([...BASE_TEXT, ...REPLICA_TEXT]);
    expect(result.ok && result.report).toMatchObject({
      role: "replica",
      appliedOffset: 1400,
      receivedOffset: 1500,
      heardSecondsAgo: 0,
      masterReplOffset: 1414,
      masterAddress: { host: "127.0.0.1", port: 6380 },
      linkUp: true,
      replid2: null,
      secondReplOffset: null,
      priority: 50,
    });
  });

  it("of INFO replication alone is completed with what was learnt before on the connection", () => {
    const base = { runId: hex("run"), version: "8.0.1", loading: false, keys: 9, aof: true };
    const result = parseReport(ENVELOPE, MASTER_TEXT.join("\r\n"), base);
    expect(result.ok && result.report).toMatchObject({ ...base, masterReplOffset: 1414 });
    expect(parse(MASTER_TEXT)).toEqual({ ok: false, error: "run_id is missing" });
  });

  it("says whether the node was told to end, also without the rest (50)", () => {
    const told = (line: string) => parse([...BASE_TEXT, ...MASTER_TEXT, line]);
    const ends = (line: string) => {
      const result = told(line);
      return result.ok ? result.report.shutdownInMs : result.error;
    };
    expect(ends("")).toBeNull();
    expect(ends("shutdown_in_milliseconds:9950")).toBe(9950);
    expect(ends("shutdown_in_milliseconds:-3")).toBe(0);
    expect(ends("shutdown_in_milliseconds:soon")).toBe('shutdown_in_milliseconds is "soon"');
    const base = { runId: hex("run"), version: "8.0.1", loading: false, keys: 9, aof: true };
    const brief = ["shutdown_in_milliseconds:10", ...MASTER_TEXT].join("\r\n");
    const result = parseReport(ENVELOPE, brief, base);
    expect(result.ok && result.report).toMatchObject({ ...base, shutdownInMs: 10 });
  });

  it("says Valkey's own version, not the one it tells old clients", () => {
    const result = parse([...BASE_TEXT, "valkey_version:8.1.0", ...MASTER_TEXT]);
    expect(result.ok && result.report.version).toBe("8.1.0");
  });

  it("counts asynchronous loading as loading", () => {
    const result = parse(replace([...BASE_TEXT, ...MASTER_TEXT], "async_loading", "1"));
    expect(result.ok && result.report.loading).toBe(true);
  });
});

describe("nonsense is an error value:", () => {
  const cases: [string, string][] = [
    ["role", "sentinel"],
    ["master_replid", "xyz"],
    ["master_replid", "0".repeat(40)],
    ["master_replid2", hex("H1").toUpperCase().replace("4", "G")],
    ["master_repl_offset", "-5"],
    ["master_repl_offset", "1e3"],
    ["master_repl_offset", "99999999999999999999"],
    ["second_repl_offset", ""],
    ["run_id", "7"],
    ["loading", "maybe"],
    ["db0", "keys=-1"],
    ["slave0", "ip=x,port=http,state=online,offset=1,lag=0"],
  ];
  it.each(cases)("%s:%s", (field, value) => {
    const result = parse(replace([...BASE_TEXT, ...MASTER_TEXT], field, value));
    expect(result).toEqual({ ok: false, error: expect.stringContaining(field) });
  });

  it.each(["master_host", "master_link_status", "slave_repl_offset", "master_sync_in_progress"])(
    "a replica without %s",
    (field) => {
      const lines = [...BASE_TEXT, ...REPLICA_TEXT].filter((line) => !line.startsWith(`${field}:`));
      expect(parse(lines)).toEqual({ ok: false, error: `${field} is missing` });
    },
  );

  it("a text without end, or without end of fields", () => {
    expect(parseReport(ENVELOPE, "x".repeat(2 ** 21), null).ok).toBe(false);
    const many = Array.from({ length: 5_000 }, (_, index) => `field${index}:1`);
    expect(parse([...BASE_TEXT, ...MASTER_TEXT, ...many]).ok).toBe(false);
  });

  it("any text at all, without ever throwing", () => {
    const lines = [...BASE_TEXT, ...MASTER_TEXT, ...REPLICA_TEXT];
    const mutated = fc.array(
      fc.oneof(
        fc.constantFrom(...lines),
        fc.string(),
        fc.constantFrom(...lines).map((line) => line.slice(0, -1)),
      ),
    );
    fc.assert(
      fc.property(mutated, (text) => {
        const result = parseReport(ENVELOPE, text.join("\n"), null);
        if (result.ok) expect(result.report.replid).toMatch(/^[0-9a-f]{40}$/);
        else expect(result.error).not.toBe("");
      }),
    );
  });
});
