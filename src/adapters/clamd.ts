import { connect, type Socket } from 'node:net';

import { NeighbourError } from '../ports/neighbour-error.ts';
import type { VirusScan, VirusScanner } from '../ports/virus-scanner.ts';
import { ClamdScan } from './clamd-scan.ts';
import { ANSWER_LIMIT, chunkHead, INSTREAM, PING, readPong, readScanAnswer } from './clamd-wire.ts';
import { nextServer, Server } from './server-choice.ts';

export type ClamdAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface ClamdOptions {
  /** Each a clamd with the same signatures. */
  readonly addresses: readonly ClamdAddress[];
  /** Scans at once with each of them. More than clamd has threads (MaxThreads) would wait there without a word. */
  readonly maxConcurrent: number;
  readonly connectTimeoutMs: number;
}

/** Told what becomes of single servers. */
export interface ClamdEvents {
  answered(address: ClamdAddress): void;
  failed(address: ClamdAddress, error: unknown): void;
}

/** clamd answers at once, or waits for more. */
const SECOND_LOOK_MS = 1000;

type ClamdServer = Server<ClamdAddress>;

/** One or several clamds as a scanner. One connection for each message. */
export function createClamd(options: ClamdOptions, events: ClamdEvents): VirusScanner {
  return new Clamd(options, events);
}

class Clamd implements VirusScanner {
  readonly #options: ClamdOptions;
  readonly #events: ClamdEvents;
  readonly #servers: readonly ClamdServer[];

  constructor(options: ClamdOptions, events: ClamdEvents) {
    this.#options = options;
    this.#events = events;
    this.#servers = options.addresses.map((address) => new Server(address, options.maxConcurrent));
  }

  begin(patienceMs: number, signal: AbortSignal): VirusScan {
    const scan = new ClamdScan(patienceMs, signal);
    void this.#serve(scan);
    return scan;
  }

  /** Asks all of them, so that those that failed are known to be back. Not counted among the scans. */
  async ping(signal: AbortSignal): Promise<void> {
    try {
      await Promise.any(this.#servers.map((server) => this.#ping(server, signal)));
    } catch (error) {
      const cause: unknown = error instanceof AggregateError ? error.errors[0] : error;
      throw new NeighbourError('no clamd answers', { cause });
    }
  }

  /** Finds a server that takes the connection. From then on the scan is with that one: what it was given is not kept. */
  async #serve(scan: ClamdScan): Promise<void> {
    const tried = new Set<ClamdServer>();
    let why: unknown = new NeighbourError('no clamd is configured');
    for (let server = this.#next(tried); server !== null && !scan.settled; server = this.#next(tried)) {
      tried.add(server);
      try {
        await this.#with(server, scan);
        return;
      } catch (error) {
        why = new NeighbourError(`clamd at ${whereabouts(server.address)}`, { cause: error });
      }
    }
    scan.fail(why);
  }

  #next(tried: ReadonlySet<ClamdServer>): ClamdServer | null {
    return nextServer(this.#servers, tried, performance.now());
  }

  /** @throws {NeighbourError} when another one may be asked: nothing was given to this one yet */
  async #with(server: ClamdServer, scan: ClamdScan): Promise<void> {
    await server.run(async () => {
      let socket: Socket;
      try {
        socket = await this.#connected(server.address, scan.signal);
      } catch (error) {
        if (!scan.signal.aborted) this.#failed(server, error);
        throw error;
      }
      const end = await scan.use(socket);
      switch (end.kind) {
        case 'answered':
          this.#answered(server);
          break;
        case 'dropped':
          break;
        case 'broke':
          await this.#broke(server, scan, end.error);
          break;
      }
    }, scan.signal);
  }

  /**
   * A clamd that has had enough (StreamMaxLength) says so and closes; when that meets what is on its way to it, its words are lost with the connection.
   * It is asked once more, on a connection that it is sent nothing on but how much it was.
   */
  async #broke(server: ClamdServer, scan: ClamdScan, error: unknown): Promise<void> {
    if (wasReset(error) && (await this.#isTooMuch(server, scan.octets, scan.signal))) {
      scan.answer({ kind: 'too-large' });
      return;
    }
    if (!scan.settled) this.#failed(server, error);
    scan.fail(new NeighbourError(`clamd at ${whereabouts(server.address)}`, { cause: error }));
  }

  async #isTooMuch(server: ClamdServer, octets: number, scanSignal: AbortSignal): Promise<boolean> {
    const signal = AbortSignal.any([scanSignal, AbortSignal.timeout(SECOND_LOOK_MS)]);
    try {
      using socket = owned(await this.#connected(server.address, signal));
      const answer = answerTo(socket.it, Buffer.concat([INSTREAM, chunkHead(octets)]), signal);
      return readScanAnswer(await answer).kind === 'too-large';
    } catch {
      // No answer is one too: it waits for the octets. Why the scan broke is told in any case.
      return false;
    }
  }

  async #ping(server: ClamdServer, signal: AbortSignal): Promise<void> {
    try {
      using socket = owned(await this.#connected(server.address, signal));
      readPong(await answerTo(socket.it, PING, signal));
      this.#answered(server);
    } catch (error) {
      this.#failed(server, error);
      throw new NeighbourError(`clamd at ${whereabouts(server.address)}`, { cause: error });
    }
  }

  #answered(server: ClamdServer): void {
    server.worked();
    this.#events.answered(server.address);
  }

  #failed(server: ClamdServer, error: unknown): void {
    server.failed(performance.now());
    this.#events.failed(server.address, error);
  }

  #connected(address: ClamdAddress, signal: AbortSignal): Promise<Socket> {
    const { connectTimeoutMs } = this.#options;
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
