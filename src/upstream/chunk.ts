/**
 * The in-flight log: requests are written into chunks, and a chunk stays until every request in it is
 * settled, so that a request can be sent again elsewhere without having been kept twice.
 */

/** Size of a common chunk; a request that does not fit gets a chunk of its own. */
export const CHUNK_BYTES = 64 * 1024;

/** Common chunks kept for reuse: 4 MB at most. */
const POOL_SIZE = 64;

export class Chunk {
  readonly buffer: Buffer;
  /** Bytes written into it so far. */
  used = 0;
  /** Bytes already handed to the socket. */
  flushed = 0;
  /** Unsettled requests in it, and 1 more while a connection writes into it. */
  refs = 1;

  /** Whether it may be used again once it is settled; a buffer taken over from elsewhere may not. */
  readonly pooled: boolean;

  constructor(buffer: Buffer, pooled: boolean) {
    this.buffer = buffer;
    this.pooled = pooled;
  }
}

/** For a request whose bytes are not in any chunk yet. */
export const NO_CHUNK = new Chunk(Buffer.alloc(0), false);

export class ChunkPool {
  private readonly free: Chunk[] = [];

  /** An empty chunk with room for `bytes`, held once. */
  take(bytes: number): Chunk {
    if (bytes > CHUNK_BYTES) return new Chunk(Buffer.allocUnsafeSlow(bytes), false);
    const chunk = this.free.pop();
    if (chunk === undefined) return new Chunk(Buffer.allocUnsafeSlow(CHUNK_BYTES), true);
    chunk.used = 0;
    chunk.flushed = 0;
    chunk.refs = 1;
    return chunk;
  }

  release(chunk: Chunk): void {
    chunk.refs--;
    if (chunk.refs > 0 || !chunk.pooled || this.free.length >= POOL_SIZE) return;
    this.free.push(chunk);
  }
}

/** Below this many bytes a loop is faster than the call into the runtime (measured on Node 20). */
const SMALL_COPY = 48;

/** Copies src[start, end) to dst at `at`. */
export function copyBytes(src: Buffer, start: number, end: number, dst: Buffer, at: number): void {
  if (end - start > SMALL_COPY) {
    src.copy(dst, at, start, end);
    return;
  }
  let to = at;
  for (let from = start; from < end; from++) dst[to++] = src[from]!;
}
