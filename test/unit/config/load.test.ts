import { describe, expect, it } from "vitest";
import { environmentLayer, variableOf } from "../../../src/config/layers.ts";
import { type ConfigInput, loadConfig } from "../../../src/config/load.ts";
import { type Config, configWith, SETTINGS } from "../../../src/config/schema.ts";

const NODES = "nodes: [127.0.0.1:6380]\n";

function load(text: string, more: Partial<ConfigInput> = {}) {
  return loadConfig({ file: { name: "a.yaml", text }, env: {}, flags: {}, ...more });
}

function accepted(text: string, more: Partial<ConfigInput> = {}): Config {
  const result = load(text, more);
  if (!result.ok) throw new Error(result.report);
  return result.config;
}

/** The lines of the report, without its heading. */
function mistakes(text: string, more: Partial<ConfigInput> = {}): string[] {
  const result = load(text, more);
  if (result.ok) throw new Error("accepted");
  return result.report
    .trimEnd()
    .split("\n")
    .slice(1)
    .map((line) => line.trim());
}

describe("values", () => {
  it("what is not given has its default, in ms and bytes", () => {
    expect(accepted(NODES)).toEqual({
      listen: [{ host: "127.0.0.1", port: 6379 }],
      http: { host: "127.0.0.1", port: 9121 },
      nodes: ["127.0.0.1:6380"],
      upstream: {
        connectTimeout: 1_000,
        requestTimeout: 0,
        retireTimeout: 1_000,
        maxLanes: 1_024,
        maxInFlight: 16_384,
        maxPrivate: 1_000,
        privateIdle: 10_000,
        keepAlive: 10_000,
      },
      probe: { interval: 100, timeout: 1_000 },
      failover: {
        promote: "never",
        downAfter: 3_000,
        crashGrace: 250,
        settleTime: 10_000,
        switchTime: 2_000,
      },
      sentinel: { nodes: [], tls: "off" },
      reads: {
        from: "replica",
        consistency: "session",
        maxLag: 10_000,
        maxLagBytes: 67_108_864,
        proofInterval: 20,
        proofWait: 150,
        whenNoneFit: "master",
        scriptKeys: "any",
        prefer: [],
        weights: [],
        slowAfter: 20,
        hedge: 0,
      },
      pubsub: { from: "master" },
      hold: { maxTime: 30_000, maxBytes: 268_435_456, maxBytesPerClient: 16_777_216 },
      inFlight: { onUnknown: "error" },
      commands: { topology: "refuse" },
      limits: {
        maxClients: 10_000,
        maxRequestBytes: 536_870_912,
        maxRequestArgs: 1_048_576,
        maxPipeline: 1_024,
        outputBufferBytes: 268_435_456,
        subscriberBufferBytes: 33_554_432,
        subscriptionBytes: 16_777_216,
        idleTimeout: 0,
        authPause: 5_000,
        drainTime: 10_000,
        scriptBytes: 16 * 1024 * 1024,
        maxUnsentBytes: 1_048_576,
      },
      failovers: { keep: 100 },
      log: { level: "info", format: "json" },
    });
  });

  it("a group with nothing below it has its defaults", () => {
    expect(accepted(`${NODES}hold:\n`).hold.maxTime).toBe(30_000);
  });

  it("listen takes one address, a list, and objects with an address", () => {
    const listed = accepted(`${NODES}listen: [127.0.0.1:1, { address: "[::1]:2" }]`).listen;
    expect(listed).toEqual([
      { host: "127.0.0.1", port: 1 },
      { host: "::1", port: 2 },
    ]);
    expect(accepted(`${NODES}listen: 127.0.0.1:1`).listen).toEqual([{ host: "127.0.0.1", port: 1 }]);
    expect(accepted(`${NODES}listen: { address: 127.0.0.1:1 }`).listen).toEqual([
      { host: "127.0.0.1", port: 1 },
    ]);
  });

  it("weights are a node and a number, one or a list of them, of nodes that need not be listed", () => {
    const two = [
      { node: "[::1]:1", weight: 0 },
      { node: "b:2", weight: 1000 },
    ];
    expect(accepted(`${NODES}reads: { weights: ["[::1]:1=0", B:2 = 1000] }`).reads.weights).toEqual(two);
    expect(accepted(`${NODES}reads: { weights: b:2=1000 }`).reads.weights).toEqual(two.slice(1));
    const env = { HOLDFAST_READS_WEIGHTS: "[::1]:1=0, b:2=1000", HOLDFAST_READS_PREFER: "a:1,b:2" };
    const { weights, prefer } = accepted(NODES, { env }).reads;
    expect([weights, prefer]).toEqual([two, ["a:1", "b:2"]]);
  });

  it("http can be off", () => {
    expect(accepted(`${NODES}http: off`).http).toBeNull();
  });

  it("aliases are followed", () => {
    const config = accepted(`${NODES}probe: { interval: &second 1s, timeout: *second }`);
    expect(config.probe).toEqual({ interval: 1_000, timeout: 1_000 });
  });

  it("flags win over the environment, the environment wins over the file", () => {
    const file = `${NODES}http: 127.0.0.1:1\nlisten: 127.0.0.1:2\nlog: { level: error }`;
    const env = { HOLDFAST_HTTP: "127.0.0.1:3", HOLDFAST_LISTEN: "127.0.0.1:4" };
    const config = accepted(file, { env, flags: { http: ["127.0.0.1:5"] } });
    expect([config.http?.port, config.listen[0]?.port, config.log.level]).toEqual([5, 4, "error"]);
  });

  it("one key of a group from the environment leaves the group's other keys of the file alone", () => {
    const env = { HOLDFAST_HOLD_MAX_TIME: "5s" };
    expect(accepted(`${NODES}hold: { maxBytes: 64mb }`, { env }).hold).toMatchObject({
      maxTime: 5_000,
      maxBytes: 67_108_864,
    });
  });
});

describe("the environment", () => {
  it("has one variable for every setting, and no two share one", () => {
    const names = SETTINGS.map((setting) => variableOf(setting.path));
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain("HOLDFAST_IN_FLIGHT_ON_UNKNOWN");
    expect(names).toContain("HOLDFAST_HOLD_MAX_BYTES_PER_CLIENT");
    const env = Object.fromEntries(names.map((name) => [name, "x"]));
    expect(
      environmentLayer(env)
        .given.map((given) => given.setting.path)
        .toSorted(),
    ).toEqual(SETTINGS.map((setting) => setting.path).toSorted());
  });

  it("separates lists by commas and reads numbers", () => {
    const env = { HOLDFAST_NODES: "a:1, b:2", HOLDFAST_LIMITS_MAX_CLIENTS: "5" };
    const config = accepted("", { env });
    expect([config.nodes, config.limits.maxClients]).toEqual([["a:1", "b:2"], 5]);
  });

  it("a password of digits stays a text", () => {
    const env = { HOLDFAST_UPSTREAM_PASSWORD: "0123" };
    expect(accepted(NODES, { env }).upstream.password).toBe("0123");
  });

  it("an unknown variable is a mistake with the nearest name", () => {
    expect(mistakes(NODES, { env: { HOLDFAST_HOLD_MAXTIME: "1s", HOLDFAST_PROXYSQL: "x" } })).toEqual([
      "HOLDFAST_HOLD_MAXTIME: unknown variable, did you mean HOLDFAST_HOLD_MAX_TIME?",
      "HOLDFAST_PROXYSQL: unknown variable",
    ]);
  });

  it("what Kubernetes adds for a service of our name is not taken for settings", () => {
    const env = {
      HOLDFAST_SERVICE_HOST: "10.0.0.1",
      HOLDFAST_SERVICE_PORT: "6379",
      HOLDFAST_SERVICE_PORT_REDIS: "6379",
      HOLDFAST_PORT: "tcp://10.0.0.1:6379",
      HOLDFAST_PORT_6379_TCP: "tcp://10.0.0.1:6379",
      HOLDFAST_PORT_6379_TCP_ADDR: "10.0.0.1",
      HOLDFAST_METRICS_SERVICE_HOST: "10.0.0.1",
    };
    expect(load(NODES, { env }).ok).toBe(true);
    expect(mistakes(NODES, { env: { HOLDFAST_HTTP_PORT: "9121" } })).toHaveLength(1);
  });

  it("an empty variable counts as not set", () => {
    const env = { HOLDFAST_UPSTREAM_PASSWORD: "", HOLDFAST_HTTP: "" };
    expect(accepted(NODES, { env })).toEqual(accepted(NODES));
  });
});

describe("the report", () => {
  it("lists every mistake with file, line and column, variable or flag", () => {
    const text = [
      "nodes: [127.0.0.1:6380, nonsense]",
      "hold:",
      "  maxTime: 30",
      "  maxbytes: 1mb",
      "probe: 3",
      "limits: { maxRequestBytes: 100 }",
    ].join("\n");
    const env = { HOLDFAST_READS_FROM: "slave" };
    expect(mistakes(text, { env, flags: { "log-level": ["loud"] } })).toEqual([
      'a.yaml:1:25: nodes[1]: "nonsense" has no port; allowed: at least one host:port',
      "a.yaml:3:12: hold.maxTime: 30 has no unit (ms, s, m or h); " +
        "allowed: 1ms to 1h, such as 250ms, 3s, 5m or 1h",
      "a.yaml:4:3: hold.maxbytes: unknown key, did you mean maxBytes?; " +
        "allowed: maxTime, maxBytes, maxBytesPerClient",
      "a.yaml:5:8: probe: a number stands where keys are expected; allowed: interval, timeout",
      "a.yaml:6:28: limits.maxRequestBytes: 100 is too small; " +
        "allowed: 1kb to 4gb, such as 64kb, 1mb or 2gb",
      'HOLDFAST_READS_FROM: reads.from: "slave" is not one of the allowed values; ' +
        "allowed: replica, master, any",
      '--log-level: log.level: "loud" is not one of the allowed values; allowed: debug, info, warn, error',
    ]);
  });

  it("says how many there are", () => {
    expect(load("nodes: 1")).toMatchObject({ report: expect.stringMatching(/^holdfast: 1 mistake in /) });
    expect(load("nodes: 1\nx: 1")).toMatchObject({ report: expect.stringMatching(/^holdfast: 2 mistakes/) });
  });

  it("a mistake in the file is reported although the environment overrides it", () => {
    const env = { HOLDFAST_HOLD_MAX_TIME: "3s" };
    expect(mistakes(`${NODES}hold: { maxTime: soon }`, { env })).toHaveLength(1);
  });

  it.each([
    ["maxLag: 3s", "did you mean reads.maxLag?"],
    ["hold.maxTime: 3s", "did you mean hold.maxTime?"],
    ["Nodes: []", "did you mean nodes?"],
  ])("a misplaced key, %j, is told where it belongs", (text, hint) => {
    expect(mistakes(`${NODES}${text}`)[0]).toContain(hint);
  });

  it("a key given twice is a mistake at its second place", () => {
    expect(mistakes(`${NODES}http: off\nhttp: off`)).toEqual([
      "a.yaml:3:1: http: given twice in this file; allowed: once",
    ]);
  });

  it("YAML that cannot be read is a mistake beside those before it, and hides those behind it", () => {
    const found = mistakes(`http: 1\n${NODES}upstream:\n  password: @x\nunknown: 1\n`);
    expect(found).toHaveLength(2);
    expect(found.join("\n")).toMatch(/a\.yaml:1:7: http: /);
    expect(found.join("\n")).toMatch(/a\.yaml:4:13: not valid YAML: .* must be in quotes/);
  });

  it.each([
    ["nodes: [127.0.0.1:6380", "not valid YAML"],
    ["- 127.0.0.1:6380", "a list stands where keys are expected"],
    ["just words", "a text stands where keys are expected"],
    ["? [a]\n: b", "a key is not a plain name"],
    ["http: *nowhere", "begins with \\*"],
    ["hold: *nowhere", "an alias stands where keys are expected"],
    ["nodes: &a [*a]", "a list is not host:port"],
    ["hold: { maxTime: [3s, 4s] }", "a list is not a duration"],
    ["http:", "it is empty"],
    ["nodes: []", "the list is empty"],
    ["listen: [{ adress: x }]", 'unknown key "adress"'],
    ["failover: { promote: me }", "allowed: never, sentinel, self"],
    ["inFlight: { onUnknown: retry }", "allowed: error, retry-idempotent, retry-all"],
    ["commands: { topology: allow }", "not one of the allowed values; allowed: refuse, switchover, pass"],
    ["limits: { maxClients: 0 }", "0 is too small"],
    ["limits: { maxClients: 1.5 }", "1.5 is not a whole number"],
    ["limits: { idleTimeout: 10ms }", "10ms is too small; allowed: 0 \\(never\\) or 1s"],
  ])("%j is refused in words", (text, words) => {
    expect(mistakes(text).join("\n")).toMatch(new RegExp(words));
  });

  it("missing nodes are told once, with the ways to give them", () => {
    expect(mistakes("")).toEqual([
      "a.yaml: nodes: not given: add it, or sentinel.nodes, or use --nodes or HOLDFAST_NODES; allowed: at least one host:port",
    ]);
  });

  it("nodes are not called missing when the file could not be read to its end", () => {
    expect(mistakes('http: "off\nnodes: [a:1]').join("\n")).not.toContain("not given");
  });
});

describe("passwords", () => {
  it.each([
    ["upstream: { password: 77123 }", "a number"],
    ["upstream: { pasword: s77123 }", "a mistyped key"],
    ["upstream: { password: @77123 }", "not valid YAML"],
    ["upstream: { password: *77123 }", "an alias"],
    ["upstream: { password: !77123 x }", "a tag"],
    ["upstream: 'p77123'", "in the place of the group"],
    ["upstream: { password: [s77123] }", "a list"],
    ["nodes: ['redis://:77123@h:1']", "in an address"],
    ['upstream: { password: "77123', "an open quote"],
  ])("%s is never repeated in the report (%s)", (text) => {
    const result = load(text, { env: { HOLDFAST_PASSWORD: "77123" } });
    expect(result.ok).toBe(false);
    expect(JSON.stringify(result)).not.toContain("77123");
  });
});

describe("relations between settings", () => {
  it.each([
    ["hold: { maxBytes: 1mb }", "1:[0-9]+: hold.maxBytesPerClient: one client may hold 16mb"],
    ["probe: { interval: 2s }", "probe.interval: nodes are asked every 2s"],
    ["reads: { maxLag: 100ms }", "reads.maxLag: 100ms is not longer than probe.interval"],
    ["reads: { prefer: [a:1, A:1] }", "reads.prefer\\[1\\]: a:1 is listed twice"],
    ["reads: { prefer: [a] }", 'reads.prefer\\[0\\]: "a" has no port'],
    ["reads: { weights: [a:1=1, b:1=2, a:1=3] }", "reads.weights\\[2\\]: a:1 is listed twice"],
    ["reads: { weights: [b:1=2, a:1] }", 'reads.weights\\[1\\]: "a:1" has no weight: a:1=1'],
    ["reads: { weights: a:1=x }", 'reads.weights: the weight of a:1 is none: "x" is not a whole number'],
    ["reads: { weights: a:1=1001 }", "reads.weights: the weight of a:1, 1001, is too large"],
    ["reads: { weights: a=1 }", 'reads.weights: "a" has no port'],
    ["reads: { weights: { a: 1 } }", "reads.weights: .* is not host:port=weight"],
    ["limits: { outputBufferBytes: 64kb }", "limits.maxUnsentBytes: 1mb is more than limits.outputBuffer"],
    ["upstream: { username: bob }", "upstream.username: a user name needs upstream.password"],
    ["http: 127.0.0.1:6379", "http: 127.0.0.1:6379 takes the same port as the client port"],
    ["listen: [127.0.0.1:1, 0.0.0.0:1]", "listen\\[1\\]: 0.0.0.0:1 takes the same port as 127.0.0.1:1"],
    ["listen: 0.0.0.0:6380", "nodes\\[0\\]: 127.0.0.1:6380 is where this proxy listens"],
    ["http: 127.0.0.1:6380", "nodes\\[0\\]: 127.0.0.1:6380 is this proxy's own http address"],
  ])("%s is refused", (text, words) => {
    const found = mistakes(`${text}\n${NODES}`);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(new RegExp(words));
  });

  it("a node listed twice is found, also beside a mistaken one, and pointed at", () => {
    expect(mistakes("nodes: [Host:1, bad, host:1]")).toEqual([
      'a.yaml:1:17: nodes[1]: "bad" has no port; allowed: at least one host:port',
      "a.yaml:1:22: nodes[2]: host:1 is listed twice",
    ]);
  });

  it("a relation is not checked against a value that is itself mistaken", () => {
    expect(mistakes(`${NODES}hold: { maxBytes: 1mb, maxBytesPerClient: lots }`)).toHaveLength(1);
  });

  it("the same relations hold for values at their limits", () => {
    expect(load(`${NODES}probe: { interval: 1s }\nhold: { maxBytes: 16mb }`).ok).toBe(true);
  });
});

const SENTINEL = "sentinel: { name: mymaster, nodes: [127.0.0.1:26379, s:26379] }\n";

describe("the settings of Sentinel", () => {
  it("are enough without any nodes, in a file or in the environment", () => {
    const expected = { name: "mymaster", nodes: ["127.0.0.1:26379", "s:26379"], tls: "off" };
    expect(accepted(SENTINEL)).toMatchObject({ nodes: [], sentinel: expected });
    const env = {
      HOLDFAST_SENTINEL_NAME: "mymaster",
      HOLDFAST_SENTINEL_NODES: "127.0.0.1:26379,s:26379",
      HOLDFAST_FAILOVER_PROMOTE: "sentinel",
      HOLDFAST_SENTINEL_TLS: "on",
    };
    expect(accepted("", { env })).toMatchObject({ nodes: [], sentinel: { ...expected, tls: "on" } });
  });

  it.each([
    ["sentinel: { name: m }", "sentinel.nodes: the addresses of the Sentinels are missing"],
    ["sentinel: { nodes: s:1 }", "sentinel.name: the name of the group in Sentinel is missing"],
    ["failover: { promote: sentinel }", "failover.promote: sentinel needs sentinel.name and sentinel.nodes"],
    [
      "failover: { promote: self }\nsentinel: { name: m, nodes: [s:26379] }",
      "failover.promote: self and Sentinel would both promote: sentinel, or no sentinel.nodes",
    ],
    [
      "sentinel: { name: m, nodes: s:1, username: u }",
      "sentinel.username: a user name needs sentinel.password",
    ],
    ["sentinel: { name: m, nodes: s:1, tlsCa: x }", "sentinel.tls: files for TLS are given, but it is off"],
    [
      "sentinel: { name: m, nodes: s:1, tls: on, tlsCert: x }",
      "sentinel.tlsCert: a certificate and its private",
    ],
    ["sentinel: { name: m, nodes: [s:1, S:1] }", "sentinel.nodes\\[1\\]: s:1 is listed twice"],
    ["sentinel: { name: m, nodes: [127.0.0.1:6380] }", "is either a Sentinel or a node"],
    ["sentinel: { name: m, nodes: [127.0.0.1:6379] }", "sentinel.nodes\\[0\\]: .* where this proxy listens"],
    ["sentinel: { name: m, nodes: [127.0.0.1] }", "sentinel.nodes\\[0\\]: .* has no port"],
    ["sentinel: { name: m, nodes: s:1, tls: maybe }", 'sentinel.tls: "maybe" is not one of'],
  ])("%s is refused", (text, words) => {
    const found = mistakes(`${text}\n${NODES}`);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(new RegExp(words));
  });

  it("a group with neither name nor nodes but something else is told what it lacks", () => {
    expect(mistakes(`sentinel: { password: s77123 }\n${NODES}`)).toEqual([
      expect.stringMatching(/sentinel.name: the name/),
      expect.stringMatching(/sentinel.nodes: the addresses/),
    ]);
  });

  it("files that cannot be read, or are none for TLS, are mistakes that do not show what is in them", () => {
    const text =
      "sentinel: { name: m, nodes: s:1, tls: on, tlsCa: ca.pem, tlsCert: gone.pem, tlsKey: odd.pem }\n";
    const readFile = (path: string): string => {
      if (path === "gone.pem") throw new Error("ENOENT: no such file");
      return path === "odd.pem" ? "s77123" : "-----BEGIN CERTIFICATE-----\n";
    };
    const found = mistakes(text, { readFile });
    expect(found).toEqual([
      "a.yaml:1:67: sentinel.tlsCert: gone.pem cannot be read: ENOENT: no such file",
      expect.stringContaining("sentinel.tlsKey: odd.pem is not in PEM form"),
    ]);
    expect(found.join()).not.toContain("77123");
  });

  it("files are handed on with the configuration", () => {
    const text = "sentinel: { name: m, nodes: s:1, tls: on, tlsCa: ca.pem }\n";
    const result = load(text, { readFile: (path) => `-----BEGIN ${path}` });
    expect(result).toMatchObject({ ok: true, files: new Map([["sentinel.tlsCa", "-----BEGIN ca.pem"]]) });
  });
});

describe("settings", () => {
  it("each has a one-line meaning and says what is allowed", () => {
    expect(SETTINGS.length).toBeGreaterThan(25);
    for (const setting of SETTINGS) {
      expect(setting.doc, setting.path).toMatch(/^[^\n]+\.$/);
      expect(setting.allowed, setting.path).not.toBe("");
    }
  });

  it("every default is allowed", () => {
    for (const setting of SETTINGS.filter((one) => one.default !== null)) {
      expect(setting.schema.safeParse(setting.default).success, setting.path).toBe(true);
    }
  });

  it("the schema itself refuses unknown keys", () => {
    expect(() => configWith({ nodes: ["a:1"], cluster: {} })).toThrow();
    expect(() => configWith({ nodes: ["a:1"], hold: { maxtime: "3s" } })).toThrow();
  });
});
