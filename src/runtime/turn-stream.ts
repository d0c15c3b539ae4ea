import { writeSync } from 'node:fs';

/** Text that waits for the end of the turn, at most; above it, it is written at once. */
const WAITING_LIMIT = 65_536;
/** How long a full pipe is waited for before its reader counts as stuck. */
const STUCK_MS = 10_000;
const PAUSE_MS = 5;

/**
 * Writes lines to a file descriptor: those of one turn of the event loop in one write(2), which costs more than making a line. It writes at
 * the end of the turn, so a crash of this process loses nothing (`flush` at exit), and a SIGKILL no more than the turn it came in.
 */
export class TurnStream {
  readonly #descriptor: number;
  readonly #onLoss: (error: Error) => void;
  #waiting = '';
  #turn: NodeJS.Immediate | null = null;
  #losing = false;

  /** `onLoss` is told when lines begin to be lost: nobody reads them any more, or the disk is full. Mail does not stop for that. */
  constructor(descriptor: number, onLoss: (error: Error) => void) {
    this.#descriptor = descriptor;
    this.#onLoss = onLoss;
  }

  write(line: string): void {
    this.#waiting += line;
    if (this.#waiting.length >= WAITING_LIMIT) this.flushSync();
    else this.#turn ??= setImmediate(() => this.flushSync());
  }

  /** Writes what waits. The name is that which pino calls after a fatal line. */
  flushSync(): void {
    if (this.#turn !== null) clearImmediate(this.#turn);
    this.#turn = null;
    if (this.#waiting === '') return;
    const bytes = Buffer.from(this.#waiting);
    this.#waiting = '';
    try {
      writeAll(this.#descriptor, bytes);
      this.#losing = false;
    } catch (error) {
      if (!this.#losing) this.#onLoss(error instanceof Error ? error : new Error('unknown error'));
      this.#losing = true;
    }
  }
}

/** Node sets pipes to not block: a reader that is slow is waited for, as a write that blocks would. */
function writeAll(descriptor: number, bytes: Buffer): void {
  let written = 0;
  let patience = STUCK_MS / PAUSE_MS;
  while (written < bytes.length) {
    try {
      written += writeSync(descriptor, bytes, written);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN') || patience-- <= 0)
        throw error;
      Atomics.wait(PAUSE, 0, 0, PAUSE_MS);
    }
  }
}

const PAUSE = new Int32Array(new SharedArrayBuffer(4));
