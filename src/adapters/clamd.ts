import { connect, type Socket } from 'node:net';

import type { Clock } from '../ports/clock.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { VirusScan, VirusScanner } from '../ports/virus-scanner.ts';
import { ClamdScan } from './clamd-scan.ts';
import { ANSWER_LIMIT, chunkHead, INSTREAM, PING, readPong, readScanAnswer } from './clamd-wire.ts';
import { BrokeOff, NeighbourPool, type PoolOptions } from './neighbour-pool.ts';

export type ClamdAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface ClamdOptions {
  /** At least one; each a clamd with the same signatures. */
  readonly addresses: readonly ClamdAddress[];
  /** Scans at once with each of them. More than clamd has threads (MaxThreads) would wait there without a word. */
  readonly maxConcurrent: number;
  readonly connectTimeoutMs: number;
  /** One of them, by its place in `addresses`, began to fail, or works again. */
  readonly changed: PoolOptions['changed'];
}

/** Scans that may wait for each one that can be under way. */
const WAITING_PER_SCAN = 20;

/** clamd answers at once, or waits for more. */
const SECOND_LOOK_MS = 1000;

/** One or several clamds as a scanner. One connection for each message. */
export function createClamd(options: ClamdOptions, clock: Clock): VirusScanner {
  return new Clamd(options, clock);
}

class Clamd implements VirusScanner {
  readonly #connectTimeoutMs: number;
  readonly #pool: NeighbourPool<ClamdAddress>;

  constructor({ addresses, maxConcurrent, connectTimeoutMs, changed }: ClamdOptions, clock: Clock) {
    this.#connectTimeoutMs = connectTimeoutMs;
    const waiting = addresses.length * maxConcurrent * WAITING_PER_SCAN;
    this.#pool = new NeighbourPool(addresses, { perMember: maxConcurrent, waiting, changed }, clock);
  }

  begin(patienceMs: number, signal: AbortSignal): VirusScan {
    const scan = new ClamdScan(patienceMs, signal);
    void this.#serve(scan);
    return scan;
  }

  /** Asks all of them, so that those that failed are known to be back. Not counted among the scans. */
  async ping(signal: AbortSignal): Promise<void> {
    await this.#pool.probe((address) => this.#ping(address, signal));
  }

  /** Finds one that takes the connection. From then on the scan is with that one: what it was given is not kept. */
  async #serve(scan: ClamdScan): Promise<void> {
    try {
      await this.#pool.run((address) => this.#with(address, scan), scan.signal);
    } catch (error) {
      scan.fail(error);
    }
  }

  /** @throws {NeighbourError} when nothing was given to it yet; {BrokeOff} afterwards */
  async #with(address: ClamdAddress, scan: ClamdScan): Promise<void> {
    const socket = await told(address, () => this.#connected(address, scan.signal));
    const end = await scan.use(socket);
    switch (end.kind) {
      case 'answered':
      case 'dropped':
        break;
      case 'broke':
        // A clamd that has had enough (StreamMaxLength) says so and closes; when that meets what is on its way to it, its words are lost with the
        // connection. It is asked once more, on a connection that it is sent nothing on but how much it was.
        if (wasReset(end.error) && (await this.#isTooMuch(address, scan.octets, scan.signal)))
          scan.answer({ kind: 'too-large' });
        else throw new BrokeOff(`clamd at ${whereabouts(address)}`, { cause: end.error });
    }
  }

  async #isTooMuch(address: ClamdAddress, octets: number, scanSignal: AbortSignal): Promise<boolean> {
    const signal = AbortSignal.any([scanSignal, AbortSignal.timeout(SECOND_LOOK_MS)]);
    try {
      using socket = owned(await this.#connected(address, signal));
      const answer = answerTo(socket.it, Buffer.concat([INSTREAM, chunkHead(octets)]), signal);
      return readScanAnswer(await answer).kind === 'too-large';
    } catch {
      // No answer is one too: it waits for the octets. Why the scan broke is told in any case.
      return false;
    }
  }

  async #ping(address: ClamdAddress, signal: AbortSignal): Promise<void> {
    await told(address, async () => {
      using socket = owned(await this.#connected(address, signal));
      readPong(await answerTo(socket.it, PING, signal));
    });
  }

  #connected(address: ClamdAddress, signal: AbortSignal): Promise<Socket> {
    const connectTimeoutMs = this.#connectTimeoutMs;
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(new NeighbourError('given up before it was asked', { cause: signal.reason }));
        return;
      }
      const socket = connect({
        ...(address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }),
        allowHalfOpen: true,
        noDelay: true,
      });
      const slow = setTimeout(() => {
        socket.destroy(new NeighbourError(`no connection within ${connectTimeoutMs} ms`));
      }, connectTimeoutMs);
      const abort = (): void => {
        socket.destroy(new NeighbourError('given up', { cause: signal.reason }));
      };
      signal.addEventListener('abort', abort, { once: true });
      const over = (): void => {
        clearTimeout(slow);
        signal.removeEventListener('abort', abort);
      };
      socket.once('error', (error) => {
        over();
        reject(error);
      });
      socket.once('connect', () => {
        over();
        resolve(socket);
      });
    });
  }
}

/** @throws {NeighbourError} that names the server */
async function told<T>(address: ClamdAddress, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new NeighbourError(`clamd at ${whereabouts(address)}`, { cause: error });
  }
}

/** The other side closed while it was sent something. */
function wasReset(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EPIPE' || error.code === 'ECONNRESET');
}

function whereabouts(address: ClamdAddress): string {
  return address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
}

function owned(socket: Socket): Disposable & { readonly it: Socket } {
  return { it: socket, [Symbol.dispose]: () => socket.destroy() };
}

/** What it answers to one request, without the NUL. */
function answerTo(socket: Socket, request: Buffer, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    signal.addEventListener('abort', () => reject(new NeighbourError('no answer in time')), { once: true });
    socket.on('error', reject);
    socket.on('close', () => reject(new NeighbourError('closed the connection without an answer')));
    socket.on('end', () => reject(new NeighbourError('closed the connection without an answer')));
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      const end = text.indexOf('\0');
      if (end !== -1) resolve(text.slice(0, end));
      else if (text.length > ANSWER_LIMIT) reject(new NeighbourError('the answer is too long'));
    });
    if (signal.aborted) reject(new NeighbourError('no answer in time'));
    socket.write(request);
  });
}
