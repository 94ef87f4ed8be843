import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CHUNK_BYTES, type Chunk, ChunkPool, copyBytes } from "../../../src/upstream/chunk.ts";

describe("the pool of chunks", () => {
  it("gives an empty chunk with room for what was asked, held once", () => {
    const pool = new ChunkPool();
    for (const bytes of [0, 1, CHUNK_BYTES]) {
      const chunk = pool.take(bytes);
      expect(chunk.buffer.length).toBe(CHUNK_BYTES);
      expect(chunk).toMatchObject({ used: 0, flushed: 0, refs: 1, pooled: true });
    }
  });

  it("gives a chunk of its own to a request that does not fit, and does not keep it", () => {
    const pool = new ChunkPool();
    const large = pool.take(CHUNK_BYTES + 1);
    expect([large.buffer.length, large.pooled]).toEqual([CHUNK_BYTES + 1, false]);
    pool.release(large);
    expect(pool.take(1)).not.toBe(large);
    expect(pool.take(CHUNK_BYTES + 1)).not.toBe(large);
  });

  it("uses a chunk again once nothing holds it, as if it were new", () => {
    const pool = new ChunkPool();
    const chunk = pool.take(10);
    chunk.used = 500;
    chunk.flushed = 400;
    chunk.refs += 2;
    pool.release(chunk);
    pool.release(chunk);
    expect(pool.take(10)).not.toBe(chunk);
    pool.release(chunk);
    const again = pool.take(10);
    expect(again).toBe(chunk);
    expect(again).toMatchObject({ used: 0, flushed: 0, refs: 1 });
  });

  it("never gives one chunk to two, in any order of taking and releasing", () => {
    const step = fc.record({ take: fc.boolean(), which: fc.nat(50) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const pool = new ChunkPool();
        const held: Chunk[] = [];
        for (const { take, which } of steps) {
          if (take || held.length === 0) {
            const chunk = pool.take(which);
            expect(held).not.toContain(chunk);
            held.push(chunk);
          } else pool.release(held.splice(which % held.length, 1)[0]!);
        }
      }),
    );
  });

  it("keeps 4 MB of them and no more", () => {
    const pool = new ChunkPool();
    const taken = Array.from({ length: 100 }, () => pool.take(1));
    for (const chunk of taken) pool.release(chunk);
    const known = new Set(taken);
    const again = Array.from({ length: 100 }, () => pool.take(1));
    expect(again.filter((chunk) => known.has(chunk))).toHaveLength((4 << 20) / CHUNK_BYTES);
  });
});

describe("copying bytes", () => {
  it("copies exactly the range, short or long, and touches nothing else", () => {
    const source = Buffer.from(Array.from({ length: 300 }, (_, i) => i % 256));
    for (let length = 0; length <= 200; length++) {
      const target = Buffer.alloc(320, 0xee);
      copyBytes(source, 17, 17 + length, target, 5);
      const expected = Buffer.alloc(320, 0xee);
      expected.set(source.subarray(17, 17 + length), 5);
      expect(target.equals(expected)).toBe(true);
    }
  });
});
