/** What the proxy itself says to a client in the place of a server, behind the replies to all before it. */
import type { Counters } from "../metrics.ts";
import { encodeError } from "../resp/encode.ts";
import type { Flight } from "./flight.ts";

export class Voice {
  /** While something of its own is answered inside of EXEC's reply: what is said. */
  private overheard: Buffer[] | null = null;
  private readonly flight: Flight;
  private readonly counters: Counters;

  constructor(flight: Flight, counters: Counters) {
    this.flight = flight;
    this.counters = counters;
  }

  /** A reply of the proxy's own. */
  say(bytes: Buffer): void {
    this.counters.requests.local++;
    if (this.overheard === null) this.flight.say(bytes);
    else this.overheard.push(bytes);
  }

  /** @returns what is said while `run` runs; the client does not get it. */
  overhear(run: () => void): Buffer {
    const said: Buffer[] = [];
    this.overheard = said;
    try {
      run();
    } finally {
      this.overheard = null;
    }
    return Buffer.concat(said);
  }

  /** An error of the proxy itself: the request was not run. */
  refuse(text: string): void {
    this.flight.say(this.refusal(text));
  }

  /** The same where it stands for a reply. */
  refusal(text: string): Buffer {
    this.counters.requests.refused++;
    this.counters.proxyErrors++;
    return encodeError(text);
  }
}
