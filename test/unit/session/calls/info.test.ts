import { describe, expect, it } from "vitest";
import { InfoCall, wantsProxySection, withSection } from "../../../../src/session/calls/info.ts";

const SECTION = "# Proxy\r\nproxy_epoch:1\r\n";

const args = (text: string) => text.split(" ").map((word) => Buffer.from(word));
const bulk = (text: string) => `$${text.length}\r\n${text}\r\n`;
const verbatim = (text: string) => `=${text.length + 4}\r\ntxt:${text}\r\n`;

describe("INFO", () => {
  it.each([
    ["INFO", true],
    ["info", true],
    ["INFO all", true],
    ["INFO everything", true],
    ["INFO default", true],
    ["INFO proxy", true],
    ["INFO PrOxY", true],
    ["INFO cpu proxy keyspace", true],
    ["INFO cpu all", true],
    ["INFO cpu", false],
    ["INFO replication server", false],
    ["INFO modules", false],
    ["INFO nosuchsection", false],
    ["INFO proxy_", false],
    ["INFO everythingelse", false],
  ])("%s gets the proxy's section: %s", (text, wants) => {
    expect(wantsProxySection(args(text))).toBe(wants);
  });

  it.each([
    ["a bulk string", bulk("# CPU\r\na:1\r\n"), bulk(`# CPU\r\na:1\r\n\r\n${SECTION}`)],
    ["a verbatim string", verbatim("# CPU\r\na:1\r\n"), verbatim(`# CPU\r\na:1\r\n\r\n${SECTION}`)],
    ["an empty bulk string", bulk(""), bulk(SECTION)],
    ["an empty verbatim string", verbatim(""), verbatim(SECTION)],
  ])(
    "adds the section to %s, with a blank line before it where there is something before it",
    (_, reply, with_) => {
      expect(withSection(Buffer.from(reply), SECTION).toString()).toBe(with_);
    },
  );

  it.each(["-NOPERM no\r\n", "-LOADING wait\r\n", "$-1\r\n", "_\r\n", "+OK\r\n"])(
    "leaves any other reply as it is: %j",
    (reply) => {
      expect(withSection(Buffer.from(reply), SECTION).toString()).toBe(reply);
    },
  );

  it("says what is true when the reply is there, also when it is asked again elsewhere", () => {
    let epoch = 1;
    const frame = Buffer.from("*1\r\n$4\r\nINFO\r\n");
    const call = new InfoCall(frame, () => `# Proxy\r\nproxy_epoch:${epoch}\r\n`);
    expect(call.requestFor().equals(frame)).toBe(true);
    epoch = 2;
    expect(call.requestFor().equals(frame)).toBe(true);
    expect(call.replyFor(Buffer.from(bulk(""))).toString()).toContain("proxy_epoch:2");
  });
});
