import { describe, expect, it } from "vitest";
import { ANONYMOUS, Profile, Profiles } from "../../../src/upstream/profile.ts";

describe("an identity", () => {
  it("is one object for the same credentials and another one for any other", () => {
    const profiles = new Profiles();
    const all = [
      profiles.identity(null, "p"),
      profiles.identity("", "p"),
      profiles.identity("null", "p"),
      profiles.identity("u", "p"),
      profiles.identity("u", "q"),
      profiles.identity("u", ""),
      // Whatever joins the two words into a key must keep them apart.
      profiles.identity("a,b", "c"),
      profiles.identity("a", "b,c"),
      profiles.identity('a","b', "c"),
      profiles.identity("a", 'b","c'),
    ];
    expect(new Set(all).size).toBe(all.length);
    expect(profiles.identity("u", "p")).toBe(all[3]);
    expect(profiles.identity(null, "p")).toBe(all[0]);
    expect(all[3]).toEqual({ username: "u", password: "p" });
  });
});

describe("a profile", () => {
  it("is one object for user, database, protocol and NO-TOUCH (1), and another one when any of them differs", () => {
    const profiles = new Profiles();
    const alice = profiles.identity("alice", "p");
    const all = [ANONYMOUS, alice].flatMap((identity) =>
      [0, 1, 2, 3, 15, 1_000_000].flatMap((db) =>
        ([2, 3] as const).flatMap((protocol) =>
          [false, true].map((noTouch) => {
            const profile = profiles.get(identity, db, protocol, noTouch);
            expect(profile).toMatchObject({ identity, db, protocol, noTouch, users: 0, accepted: false });
            expect(profiles.get(identity, db, protocol, noTouch)).toBe(profile);
            return profile;
          }),
        ),
      ),
    );
    expect(new Set(all).size).toBe(48);
    expect(new Set(profiles)).toEqual(new Set(all));
  });

  it("is new after it was forgotten, and the others stay", () => {
    const profiles = new Profiles();
    const alice = profiles.identity("alice", "p");
    const first = profiles.get(alice, 0, 2);
    const second = profiles.get(alice, 0, 3);
    profiles.forget(first);
    expect([...profiles]).toEqual([second]);
    expect(profiles.get(alice, 0, 3)).toBe(second);
    expect(profiles.get(alice, 0, 2)).not.toBe(first);
  });

  it("takes its credentials with it when it was the last one that had them", () => {
    const profiles = new Profiles();
    const alice = profiles.identity("alice", "secret");
    const bob = profiles.identity("bob", "secret");
    const first = profiles.get(alice, 0, 2);
    const second = profiles.get(alice, 5, 2);
    profiles.get(bob, 0, 2);
    profiles.forget(first);
    expect(profiles.identity("alice", "secret")).toBe(alice);
    profiles.forget(second);
    expect(profiles.identity("alice", "secret")).not.toBe(alice);
    expect(profiles.identity("bob", "secret")).toBe(bob);
  });

  it("of nobody can be forgotten and made again", () => {
    const profiles = new Profiles();
    const nobody = profiles.get(ANONYMOUS, 0, 2);
    profiles.forget(nobody);
    profiles.forget(nobody);
    expect([...profiles]).toEqual([]);
    expect(profiles.get(ANONYMOUS, 0, 2)).not.toBe(nobody);
  });

  it("that was never known is forgotten without a trace", () => {
    const profiles = new Profiles();
    const known = profiles.get(ANONYMOUS, 0, 2);
    profiles.forget(new Profile({ username: "x", password: "y" }, 0, 2));
    expect([...profiles]).toEqual([known]);
  });
});
