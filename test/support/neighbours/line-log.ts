import { type FSWatcher, closeSync, openSync, readSync, watch } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { DEFAULT_DEADLINE_MS, withDeadline } from './deadline.ts';

const MAX_LINES = 50_000;
const EXCERPT_LINES = 40;
const READ_SIZE = 65_536;

export interface WaitOptions {
  /** Only lines from this `mark()` on count; without it, lines already there count too. */
  readonly after?: number;
  readonly deadlineMs?: number;
  /** Ends the wait with an error. */
  readonly signal?: AbortSignal;
}

interface Waiter {
  readonly pattern: RegExp;
  readonly after: number;
  readonly resolve: (line: string) => void;
  readonly reject: (error: Error) => void;
}

/** The last lines of what a neighbour says, and a way to wait for one of them. */
export class LineLog {
  readonly #name: string;
  readonly #lines: string[] = [];
  readonly #waiters = new Set<Waiter>();
  readonly #decoder = new StringDecoder('utf8');
  #dropped = 0;
  #partial = '';
  #ended: string | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  append(chunk: Uint8Array): void {
    const pieces = (this.#partial + this.#decoder.write(Buffer.from(chunk))).split('\n');
    this.#partial = pieces.pop() ?? '';
    for (const line of pieces) this.#add(line);
  }

  /** No more lines will come: whoever waits hears so at once. */
  end(reason: string): void {
    this.#ended = reason;
    for (const waiter of this.#waiters) waiter.reject(this.#endedError(waiter.pattern));
    this.#waiters.clear();
  }

  /** Lines will come again, from a new process with the same log. */
  reopen(): void {
    this.#ended = undefined;
  }

  text(): string {
    return [...this.#lines, this.#partial].join('\n');
  }

  /** The place after the last line so far. */
  mark(): number {
    return this.#dropped + this.#lines.length;
  }

  async waitFor(pattern: RegExp, options: WaitOptions = {}): Promise<string> {
    const after = options.after ?? 0;
    const found = this.#lines.find((line, index) => this.#dropped + index >= after && matches(pattern, line));
    if (found !== undefined) return found;
    if (this.#ended !== undefined) throw this.#endedError(pattern);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const waiter: Waiter = { pattern, after, resolve, reject };
    this.#waiters.add(waiter);
    const abort = () => reject(new Error(`no longer waiting for ${String(pattern)}`));
    options.signal?.addEventListener('abort', abort, { once: true });
    try {
      const what = `${String(pattern)} in the log of ${this.#name}`;
      return await withDeadline(promise, options.deadlineMs ?? DEFAULT_DEADLINE_MS, what, () =>
        this.excerpt(),
      );
    } finally {
      this.#waiters.delete(waiter);
      options.signal?.removeEventListener('abort', abort);
    }
  }

  excerpt(): string {
    return `last lines of ${this.#name}:\n${this.#lines.slice(-EXCERPT_LINES).join('\n')}${this.#partial}`;
  }

  #add(line: string): void {
    const position = this.mark();
    this.#lines.push(line);
    if (this.#lines.length > MAX_LINES) {
      this.#lines.splice(0, MAX_LINES / 2);
      this.#dropped += MAX_LINES / 2;
    }
    for (const waiter of this.#waiters) {
      if (position >= waiter.after && matches(waiter.pattern, line)) waiter.resolve(line);
    }
  }

  #endedError(pattern: RegExp): Error {
    return new Error(`${this.#name} ended (${this.#ended}) without ${String(pattern)}\n${this.excerpt()}`);
  }
}

// Not test(): a pattern with the g flag would remember its place.
function matches(pattern: RegExp, line: string): boolean {
  return line.search(pattern) !== -1;
}

export interface LogTail extends Disposable {
  /** Takes in what has been written so far, without waiting for the kernel to say so. */
  poll(): void;
}

/** Feeds a growing file into a log. */
export function tailFile(path: string, log: LineLog): LogTail {
  const file = openSync(path, 'a+');
  const buffer = Buffer.alloc(READ_SIZE);
  let offset = 0;
  let open = true;
  function poll(): void {
    if (!open) return;
    let length: number;
    do {
      length = readSync(file, buffer, 0, READ_SIZE, offset);
      offset += length;
      log.append(buffer.subarray(0, length));
    } while (length > 0);
  }
  const watcher: FSWatcher = watch(path, poll);
  return {
    poll,
    [Symbol.dispose]() {
      if (!open) return;
      poll();
      open = false;
      watcher.close();
      closeSync(file);
    },
  };
}
