/** Libraries at work through one kind of switch. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { randomFrom, SEED } from "../../support/random.ts";
import { report as figure, Stage } from "../../support/stage.ts";
import { within } from "../../support/wait.ts";
import { type Book, PATIENCE_MS, type Reported } from "./book.ts";
import { type Kind, Switches } from "./switches.ts";

/** Users of a library, working. */
export interface Users {
  readonly name: string;
  readonly book: Book;
  /** What the library said of its connections besides that they are well; must stay empty. */
  readonly incidents: readonly string[];
  /** The list that jobs go through. */
  readonly list: string;
  /** No new jobs, messages, increments; consumers and subscribers go on. */
  stopProducing(): Promise<void>;
  /** Ends all of it at once, stuck calls too. */
  stop(): Promise<void>;
}

/** How far every kind of work has to go on between two switches, steps. */
const STEPS = 5;
/** For one kind of switch, ms. */
const TRIAL_MS = 240_000;

const CASES = `(1, 3, 7, 8, 12, 15, 17, 20, 21, 24, 26, 29, 30; HOLDFAST_SEED=${SEED})`;

/**
 * The claims about a library, one for each kind of switch, on a stage of their own.
 *
 * @param start puts users of the library to work; `name` makes their keys their own. It may skip the test,
 * saying why.
 */
export function itNoticesNoSwitch(
  library: string,
  start: (stage: Stage, name: string, skip: (why: string) => never) => Promise<readonly Users[]>,
): void {
  let stage: Stage;
  let switches: Switches;

  beforeAll(async () => {
    stage = await Stage.open();
    switches = new Switches(stage, randomFrom(SEED));
  });

  afterAll(() => stage?.close());

  it.for([
    ["planned", "planned switch, and nothing is uncertain"],
    ["two masters", "second master; only what that acknowledged is lost"],
    ["crash", "crash but by UNCERTAIN for what was on the wire"],
  ] as const)(`%s: ${library} notices no %s ${CASES}`, { timeout: TRIAL_MS }, async ([kind], { skip }) => {
    const skipLoudly = (why: string) => {
      figure(why);
      return skip(why);
    };
    // What others have left would be on the way of every iteration.
    await switches.master.cli("FLUSHALL");
    await trial(stage, switches, kind, await start(stage, `${library} ${kind}`, skipLoudly));
  });
}

/** Runs the switches of a kind under the work of all users, and holds the result against their books. */
async function trial(stage: Stage, switches: Switches, kind: Kind, all: readonly Users[]) {
  const calmly = (when: string) =>
    Promise.all(all.map(({ book }) => book.calm(() => book.progress(STEPS, when))));
  try {
    const reported = { lostBytes: 0, doubtClients: 0 };
    await calmly("at first");
    const connections = await accepted(stage);
    for (const name of switches.order(kind)) {
      await switches.run(name);
      await calmly(`after ${name}`);
      const { lostBytes, doubtClients } = await reportedLoss(stage);
      reported.lostBytes += lostBytes;
      reported.doubtClients += doubtClients;
    }
    for (const users of all) {
      await within(users.stopProducing(), PATIENCE_MS, `${users.name}: an answer to every call`);
      await users.book.untilDrained(switches.master, users.list);
      expect(users.incidents, `what ${users.name} noticed`).toEqual([]);
    }
    expect(await accepted(stage), "connections accepted").toBe(connections);
    for (const { name, book } of all) {
      figure(`${name}: ${book.summary()}, ${reported.lostBytes} bytes reported lost`);
      await book.audit(switches.master, kind, reported);
    }
  } finally {
    for (const users of all) await within(users.stop(), PATIENCE_MS, `the end of ${users.name}`);
  }
}

/** Connections the proxy has accepted since its start: a library that connects anew is seen here. */
export function accepted(stage: Stage): Promise<number> {
  return stage.proxy.metric("holdfast_clients_accepted_total");
}

/**
 * What the last switch has lost, as the proxy says: bytes, and clients that were answered in the moments that
 * nothing proves.
 */
export async function reportedLoss(stage: Stage): Promise<Reported> {
  const [record] = await stage.failovers();
  return { lostBytes: Number(record?.lost_bytes ?? 0), doubtClients: Number(record?.doubt_clients ?? 0) };
}
