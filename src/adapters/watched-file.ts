import { constants } from 'node:fs';
import { open, stat } from 'node:fs/promises';

/** The largest file; some million lines. */
const FILE_LIMIT = 128 * 1024 ** 2;

/** A file younger than this may be half written: Postfix looks again, too (dict_thash.c). */
const SETTLED_MS = 1000;

/** One file that another program writes, read again when it has changed. */
export class WatchedFile<T> {
  readonly path: string;
  readonly #parse: (text: string) => Promise<T>;
  readonly #limit: number;
  #stamp = '';
  #content: T | null = null;

  constructor(path: string, parse: (text: string) => Promise<T>, limit = FILE_LIMIT) {
    this.path = path;
    this.#parse = parse;
    this.#limit = limit;
  }

  /** What it held when it was last read; null before the first time. */
  get content(): T | null {
    return this.#content;
  }

  /** Reads it for the first time. @throws {Error} with what is wrong, for people */
  async load(): Promise<T> {
    const { stamp, content } = await this.#read();
    this.#stamp = stamp;
    this.#content = content;
    return content;
  }

  /**
   * Reads it if it is not what it was. true: it has changed; false: it has not, or is being written.
   *
   * @throws {Error} with what is wrong; the content stays what it was
   */
  async refresh(now: number): Promise<boolean> {
    const found = await stat(this.path).catch((error: unknown) => {
      throw new Error(`${this.path} can't be read`, { cause: error });
    });
    if (stampOf(found) === this.#stamp || now - found.mtimeMs < SETTLED_MS) return false;
    await this.load();
    return true;
  }

  async #read(): Promise<{ readonly stamp: string; readonly content: T }> {
    try {
      // Without O_NONBLOCK, opening a named pipe waits for its other end.
      await using file = await open(this.path, constants.O_RDONLY | constants.O_NONBLOCK);
      const found = await file.stat();
      if (!found.isFile()) throw new Error('it is not a regular file');
      if (found.size > this.#limit) throw new Error(`it has more than ${this.#limit} octets`);
      // No more than it had a moment ago, however fast somebody writes.
      const { buffer, bytesRead } = await file.read(Buffer.alloc(found.size), 0, found.size, 0);
      const text = buffer.toString('latin1', 0, bytesRead);
      return { stamp: stampOf(found), content: await this.#parse(text) };
    } catch (error) {
      throw new Error(`${this.path} can't be read`, { cause: error });
    }
  }
}

function stampOf({ ino, size, mtimeMs }: { ino: number; size: number; mtimeMs: number }): string {
  return `${ino} ${size} ${mtimeMs}`;
}
