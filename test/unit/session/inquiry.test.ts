import { beforeEach, describe, expect, it } from "vitest";
import type { Answer } from "../../../src/routing/router.ts";
import { Inquiry } from "../../../src/session/inquiry.ts";
import { Profiles } from "../../../src/upstream/profile.ts";

const YES: Answer = { kind: "yes" };
const NOBODY: Answer = { kind: "nobody" };

let inquiry: Inquiry;

beforeEach(() => {
  inquiry = new Inquiry();
});

describe("an answer", () => {
  it("is taken once, by the command that asked", () => {
    inquiry.answered("permission", YES);
    expect(inquiry.take("permission")).toBe(YES);
    expect(inquiry.take("permission")).toBeNull();
  });

  it("to another question is thrown away", () => {
    inquiry.answered("credentials", YES);
    expect(inquiry.take("permission")).toBeNull();
    expect(inquiry.take("credentials")).toBeNull();
  });

  it("about one profile is none about another", () => {
    const profiles = new Profiles();
    const [first, second] = [profiles.identity("u", "p"), profiles.identity("u", "q")];
    inquiry.answered(profiles.get(first, 0, 2), YES);
    expect(inquiry.take(profiles.get(second, 0, 2))).toBeNull();
    inquiry.answered(profiles.get(first, 0, 2), YES);
    expect(inquiry.take(profiles.get(first, 0, 2))).toBe(YES);
  });

  it("that was not taken when it could be is asked for again; one that came since stays", () => {
    inquiry.answered("redirect", YES);
    const { told } = inquiry;
    inquiry.outlive(told);
    expect(inquiry.take("redirect")).toBeNull();
    inquiry.answered("redirect", NOBODY);
    inquiry.outlive(told);
    expect(inquiry.take("redirect")).toBe(NOBODY);
  });
});

it("nothing that was learnt for a command is there for the next one", () => {
  inquiry.answered("credentials", YES);
  inquiry.lastIds = ["1-0", null];
  inquiry.provenIdentity = { username: "u", password: "p" };
  inquiry.isConfirmed = true;
  inquiry.clear();
  expect(inquiry).toEqual(new Inquiry());
});
