import { fileURLToPath } from "node:url";
import { defineConfig, type TestProjectInlineConfiguration } from "vitest/config";

/** A file for a summary that programs can read, beside the text for people. */
const report = process.env.TEST_REPORT;

/** Every test runs several servers and measures times: more files at once would measure each other. */
const ofServers = {
  pool: "forks",
  maxWorkers: 1,
  fileParallelism: false,
  testTimeout: 60_000,
  hookTimeout: 60_000,
} as const;

/** A server beside the installed one (test/other-server.sh): the main tests of failover run with it, too. */
const otherServer = process.env.TEST_OTHER_SERVER;
const withOtherServer: TestProjectInlineConfiguration = {
  extends: true,
  test: {
    ...ofServers,
    name: "other server",
    include: ["test/chaos/matrix.test.ts", "test/integration/switchover.test.ts"],
    env: { TEST_REDIS_SERVER: otherServer ?? "" },
    sequence: { groupOrder: 3 },
  },
};

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  test: {
    teardownTimeout: 20_000,
    reporters: report ? ["default", ["json", { outputFile: report }]] : ["default"],
    projects: [
      {
        extends: true,
        // They never wait: the time is a bound for one that does not end, however busy the machine is.
        test: { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 120_000 },
      },
      {
        extends: true,
        test: {
          ...ofServers,
          name: "integration",
          include: ["test/integration/**/*.test.ts", "test/chaos/**/*.test.ts"],
          // After the unit tests, not beside them.
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          ...ofServers,
          name: "libraries",
          include: ["test/libraries/**/*.test.ts"],
          sequence: { groupOrder: 2 },
        },
      },
      ...(otherServer ? [withOtherServer] : []),
    ],
  },
});
