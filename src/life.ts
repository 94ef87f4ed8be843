/** A proxy as a process: starts it, ends it by signals, and keeps it alive through a bug. */
import type { Log } from "./log.ts";

export interface Living {
  start(): Promise<void>;
  /** Finishes what was accepted. */
  close(): Promise<void>;
  /** Ends everything at once. */
  destroy(): void;
}

/** SIGTERM and SIGINT end it in order, exit code 0; a second one at once. */
export async function live(proxy: Living, log: Log): Promise<void> {
  let stopping = false;
  const stop = (signal: string): void => {
    if (stopping) process.exit(1);
    stopping = true;
    log.info({ signal }, "stopping");
    proxy.close().then(
      () => {
        log.info({}, "stopped");
        process.exit(0);
      },
      (error: unknown) => {
        log.error({ err: error }, "could not stop in order");
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  // A bug must not cost all clients their connections; where it happened its connection is closed already.
  process.on("uncaughtException", (error) => log.error({ err: error }, "a bug: uncaught"));
  process.on("unhandledRejection", (error) => log.error({ err: error }, "a bug: unhandled rejection"));
  try {
    await proxy.start();
  } catch (error) {
    log.error({ err: error }, "cannot start");
    proxy.destroy();
    process.exit(1);
  }
}
