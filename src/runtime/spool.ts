import { randomBytes } from 'node:crypto';
import { open, readdir, stat, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import { noteBuffer } from './buffer-garbage.ts';

/** More was written than the spool may hold. */
export class SpoolFull extends Error {
  readonly limit: number;

  constructor(limit: number) {
    super(`more than ${limit} octets`);
    this.name = 'SpoolFull';
    this.limit = limit;
  }
}

export interface SpoolOptions {
  /** Up to so many octets stay in memory; more go to a file, all of them. */
  readonly memory: number;
  /** Octets in all. */
  readonly limit: number;
  /** Folder of the file; it must exist. */
  readonly folder: string;
}

/** Size of the blocks that small chunks are gathered in, and of one read from the file. */
const BLOCK = 64 * 1024;
const FIRST_BLOCK = 4 * 1024;
/** Smaller chunks are copied into blocks: kept one by one, a message sent in single octets would take a hundred times its size. */
const SMALL = 8 * 1024;

/**
 * Bytes that were received and will be read again, several times and at once if need be: up to `memory` octets are kept in memory,
 * more than that in a file that has no name any more, so that a killed process leaves nothing behind.
 *
 * In the order of the content: `#kept` or the file, then `#block`.
 */
export class Spool implements AsyncDisposable {
  readonly #options: SpoolOptions;
  readonly #kept: Uint8Array[] = [];
  /** Being filled; in memory until it is full. */
  #block: Uint8Array | null = null;
  #filled = 0;
  #size = 0;
  /** Whether `memory` is used up. */
  #spilling = false;
  /** Octets handed to the file. */
  #inFile = 0;
  #file: Promise<FileHandle> | null = null;
  /** The last write to the file; each waits for the one before, and fails when that one did. */
  #writing: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: SpoolOptions) {
    this.#options = options;
  }

  /** Octets written. */
  get size(): number {
    return this.#size;
  }

  /**
   * Takes the chunk over: the caller must not change it any more. A promise is to be awaited before the next write (back-pressure);
   * it rejects when the file can't be written, and so does everything after it.
   *
   * @throws {SpoolFull} when the chunk would pass the limit; nothing of it is kept
   */
  write(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#closed) throw new Error('the spool is closed');
    if (this.#size + chunk.length > this.#options.limit) throw new SpoolFull(this.#options.limit);
    if (chunk.length === 0) return undefined;
    let moved: Promise<void> | undefined;
    if (!this.#spilling && this.#size + chunk.length > this.#options.memory) moved = this.#spill();
    this.#size += chunk.length;
    // A view of a much larger buffer would keep all of that alive.
    if (chunk.length < SMALL || chunk.length * 2 < chunk.buffer.byteLength)
      return this.#gather(chunk) ?? moved;
    const before = this.#endBlock();
    return this.#store(chunk) ?? before;
  }

  /** All that was kept goes to the file: many large messages at once must not take the memory of many small ones on top. */
  #spill(): Promise<void> | undefined {
    void this.#endBlock(); // goes to memory still
    this.#spilling = true;
    let written: Promise<void> | undefined;
    for (const piece of this.#kept.splice(0)) written = this.#store(piece);
    return written;
  }

  /**
   * All that was written until now, from the first octet. Synchronous when all of it is in memory. The chunks are not to be changed.
   */
  chunks(): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
    const head = [...this.#kept];
    const tail = this.#block === null ? [] : [this.#block.subarray(0, this.#filled)];
    return this.#file === null ? [...head, ...tail] : this.#read(head, this.#file, this.#inFile, tail);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#kept.length = 0;
    this.#block = null;
    if (this.#file === null) return;
    // Whoever wrote has been told of a failed open or write; here only the descriptor matters.
    const [opened] = await Promise.allSettled([this.#file, this.#writing]);
    if (opened.status === 'fulfilled') await opened.value.close();
  }

  /** Copies into blocks. */
  #gather(chunk: Uint8Array): Promise<void> | undefined {
    let written: Promise<void> | undefined;
    for (let at = 0; at < chunk.length;) {
      // Blocks grow with the content, so that a short message does not take a whole one.
      this.#block ??= new Uint8Array(Math.min(BLOCK, Math.max(FIRST_BLOCK, this.#size)));
      const part = chunk.subarray(at, at + this.#block.length - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === this.#block.length) written = this.#endBlock();
    }
    return written;
  }

  #endBlock(): Promise<void> | undefined {
    const block = this.#block;
    if (block === null) return undefined;
    const content = block.subarray(0, this.#filled);
    this.#block = null;
    this.#filled = 0;
    return this.#store(content);
  }

  #store(content: Uint8Array): Promise<void> | undefined {
    if (!this.#spilling) {
      this.#kept.push(content);
      return undefined;
    }
    this.#file ??= openNameless(this.#options.folder);
    const file = this.#file;
    const position = this.#inFile;
    this.#inFile += content.length;
    const written = this.#writing.then(async () => writeAll(await file, content, position));
    this.#writing = written;
    // The rejection is the caller's, through `written`; a caller that was cut off before it could await must not bring the process down.
    written.catch(() => {});
    return written;
  }

  async *#read(
    head: readonly Uint8Array[],
    file: Promise<FileHandle>,
    inFile: number,
    tail: readonly Uint8Array[],
  ): AsyncGenerator<Uint8Array> {
    yield* head;
    await this.#writing;
    const handle = await file;
    for (let position = 0; position < inFile;) {
      if (this.#closed) throw new Error('the spool was closed while it was read');
      // A buffer of its own for each read: the reader may hold on to it (a socket that is slow to send).
      const buffer = Buffer.allocUnsafeSlow(Math.min(BLOCK, inFile - position));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0) throw new Error('the spool file is shorter than what was written to it');
      position += bytesRead;
      noteBuffer(buffer.length);
      yield buffer.subarray(0, bytesRead);
    }
    yield* tail;
  }
}

/** Made and unlinked in one go: whatever bears such a name for longer is left over from a process that was killed between the two. */
const NAME = /^spool-[0-9a-f]{24}$/;
const LEFT_OVER_MS = 60_000;

/** Removes what killed processes left behind. Other processes may be making such files meanwhile. */
export async function sweepSpools(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!NAME.test(name)) continue;
    const path = join(folder, name);
    try {
      const { mtimeMs } = await stat(path);
      if (Date.now() - mtimeMs > LEFT_OVER_MS) await unlink(path);
    } catch (error) {
      // Gone meanwhile, as it should be.
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
    }
  }
}

async function openNameless(folder: string): Promise<FileHandle> {
  const path = join(folder, `spool-${randomBytes(12).toString('hex')}`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
  } catch (error) {
    await file.close();
    throw error;
  }
  return file;
}

async function writeAll(file: FileHandle, content: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < content.length;) {
    const { bytesWritten } = await file.write(content, at, content.length - at, position + at);
    at += bytesWritten;
  }
}
