import { describe, expect, it } from "vitest";
import { areIdempotentTogether, isIdempotent } from "../../../src/commands/idempotence.ts";
import { CommandTable } from "../../../src/commands/table.ts";

const table = new CommandTable();

function ask(text: string): boolean {
  const words = text.split(" ").map((word) => Buffer.from(word));
  const name = words[0] ?? Buffer.alloc(0);
  return isIdempotent(table.lookup(name, 0, name.length), () => words);
}

describe("a write that leaves the same behind when it runs twice (14)", () => {
  it.each([
    ...[
      "SET k v",
      "set k v EX 10",
      "SET k v PXAT 1 KEEPTTL",
      "MSET a 1 b 2",
      "SETEX k 10 v",
      "SETRANGE k 0 v",
    ],
    ...["DEL a b", "UNLINK a", "PERSIST a", "EXPIRE k 10", "PEXPIREAT k 1", "SETBIT k 7 1"],
    ...["HSET h f v", "HMSET h f v", "HDEL h f", "SADD s a b", "SREM s a", "LSET l 0 v"],
    ...["ZADD z 1 a", "ZADD z inf a 2 b", "ZREM z a", "ZREMRANGEBYSCORE z 0 1", "GEOADD g 1 2 m"],
    ...["PFADD p a", "PFMERGE p q", "XACK s g 1-1", "XDEL s 1-1"],
    ...["SUNIONSTORE d a b", "ZRANGESTORE d s 0 1", "BITOP AND d a b"],
    ...["LTRIM l 0 99", "LTRIM l 0 -1", "LTRIM l -100 -1"],
  ])("%s", (text) => {
    expect(ask(text)).toBe(true);
  });
});

describe("a write that may not", () => {
  it.each([
    ...["INCR k", "INCRBYFLOAT k 1", "APPEND k v", "GETSET k v", "GETDEL k", "SETNX k v", "MSETNX k v"],
    ...["SET k v NX", "SET k v XX", "SET k v GET", "SET k v EX 10 NX", "SET k v IFEQ w", "SET k"],
    ...["LPUSH l v", "RPOP l", "LREM l 1 v", "LTRIM l 1 -1", "LTRIM l 0 -2", "LTRIM l -5 3", "LTRIM l x y"],
    ...["LTRIM l 0", "SPOP s", "SMOVE a b m", "HINCRBY h f 1", "HSETNX h f v", "ZINCRBY z 1 m"],
    ...["ZADD z NX 1 a", "ZADD z incr 1 a", "ZADD z GT CH 1 a", "ZPOPMIN z", "ZREMRANGEBYRANK z 0 0"],
    ...["EXPIRE k 10 NX", "EXPIRE k 10 GT", "RENAME a b", "COPY a b", "MOVE k 1", "XADD s * f v"],
    ...["SDIFFSTORE d d a", "ZUNIONSTORE d 2 d a", "BITOP NOT k k", "GEOADD g XX 1 2 m"],
    ...["EVAL x 0", "FCALL f 0", "PUBLISH c m", "SCRIPT FLUSH", "FLUSHALL", "RESTORE k 0 v", "NOSUCH k"],
    ...["BLPOP k 0", "XREADGROUP GROUP g c STREAMS s >"],
  ])("%s", (text) => {
    expect(ask(text)).toBe(false);
  });
});

describe("writes that run as one unit, and once more as one (14, 19)", () => {
  const together = (text: string): boolean =>
    areIdempotentTogether(
      text.split("; ").map((line) => {
        const args = line.split(" ").map((word) => Buffer.from(word));
        const name = args[0] ?? Buffer.alloc(0);
        return { command: table.lookup(name, 0, name.length), args };
      }),
    );

  it.each([
    ...["SET a 1; HSET h f v", "HSET k f v; EXPIRE k 10", "HSET a f v; EXPIRE a 9; HSET b f v; EXPIRE b 9"],
    ...[
      "DEL k; SADD k a b",
      "SADD s x; SUNIONSTORE d s t; EXPIRE d 10",
      "ZADD z 1 a; ZREMRANGEBYSCORE z 0 1",
    ],
    ...["BITOP OR d a b; SET c 1", "PFADD q x; PFMERGE p q"],
  ])("leave the same behind: %s", (text) => expect(together(text)).toBe(true));

  it.each([
    // A key that was not there gets a time to live the second time.
    "EXPIRE k 10; HSET k f v",
    "SUNIONSTORE d s t; SADD s x",
    "BITOP OR d a b; MSET c 1 b 2",
    "PFMERGE p q; PFADD q x",
    "LSET l 0 a; LTRIM l -2 -1",
    "EXPIRE k 10; UNLINK a k",
    `EXPIRE ${"k".repeat(1025)} 10; SET a 1`,
    "SET a 1; INCR n",
  ])("may not: %s", (text) => expect(together(text)).toBe(false));
});
