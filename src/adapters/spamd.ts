import { connect, type Socket } from 'node:net';

import { foldedValue } from '../mail/fold.ts';
import { HeaderList } from '../mail/header.ts';
import type { Body } from '../mail/message.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { ScanRequest, SpamScanner } from '../ports/scanner.ts';
import { Slots } from './slots.ts';
import { readPong, readScan, requestHead } from './spamd-wire.ts';

export interface SpamdOptions {
  readonly address:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  /** Scans at once. More than spamd has children (`--max-children`) would wait there without a word. */
  readonly maxConcurrent: number;
  readonly connectTimeoutMs: number;
  /** Octets of one answer: the header section of the message, and the fields spamd adds. */
  readonly maxResponse: number;
}

/** Scans that may wait for each one that is under way. */
const WAITING_PER_SCAN = 20;

/** SpamAssassin's daemon as a scanner. One connection per request, as its protocol wants it. */
export function createSpamd(options: SpamdOptions): SpamScanner {
  return new Spamd(options);
}

class Spamd implements SpamScanner {
  readonly #options: SpamdOptions;
  readonly #slots: Slots;

  constructor(options: SpamdOptions) {
    this.#options = options;
    this.#slots = new Slots(options.maxConcurrent, options.maxConcurrent * WAITING_PER_SCAN);
  }

  async scan(request: ScanRequest, signal: AbortSignal): Promise<SpamScan> {
    return await this.#slots.run(async () => {
      const section = headerSection(request);
      const { body } = request.message;
      const contentLength = section.length + body.size;
      const head = requestHead({ verb: 'HEADERS', contentLength, user: null });
      return await this.#ask(head + section, body, signal, readScan);
    }, signal);
  }

  /** Not counted among the scans: it tells whether spamd is there when all of them are under way, too. */
  async ping(signal: AbortSignal): Promise<void> {
    const head = requestHead({ verb: 'PING', contentLength: null, user: null });
    await this.#ask(head, null, signal, readPong);
  }

  async #ask<T>(
    head: string,
    body: Body | null,
    signal: AbortSignal,
    read: (answer: string) => T,
  ): Promise<T> {
    const { address } = this.#options;
    const where = address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
    try {
      return read(await exchange(this.#options, head, body, signal));
    } catch (error) {
      if (error instanceof BodyFault) throw error.cause;
      throw new NeighbourError(`spamd at ${where}`, { cause: error });
    }
  }
}

/** What spamd shall see above the body, with the empty line that ends it. */
function headerSection(request: ScanRequest): string {
  const fields = [...request.preamble];
  for (const field of request.message.headers) {
    // spamd ends a line at a bare LF too: such a field must not become two, of which one passes for a field of ours.
    if (!request.hide(field)) fields.push({ ...field, value: foldedValue(field.value) });
  }
  return `${new HeaderList(fields).serialize()}\r\n`;
}

/** The body could not be read: not spamd's fault. */
class BodyFault extends Error {}

/** Sends one request and gives back all of the answer. The socket is gone when this settles. */
async function exchange(
  options: SpamdOptions,
  head: string,
  body: Body | null,
  signal: AbortSignal,
): Promise<string> {
  if (signal.aborted) throw new NeighbourError('given up before it was asked', { cause: signal.reason });
  const { address } = options;
  const socket = connect({
    ...(address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }),
    allowHalfOpen: true,
    noDelay: true,
  });
  const slow = setTimeout(() => {
    socket.destroy(new NeighbourError(`no connection within ${options.connectTimeoutMs} ms`));
  }, options.connectTimeoutMs);
  const abort = (): void => {
    socket.destroy(new NeighbourError('given up', { cause: signal.reason }));
  };
  signal.addEventListener('abort', abort, { once: true });
  socket.once('connect', () => clearTimeout(slow));
  try {
    const answer = answerOf(socket, options.maxResponse);
    // Sent and received at the same time: an answer that comes early, as errors do, ends the exchange.
    send(socket, head, body).catch((error: unknown) => socket.destroy(new BodyFault('', { cause: error })));
    return await answer;
  } finally {
    clearTimeout(slow);
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
}

function answerOf(socket: Socket, limit: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    socket.on('data', (chunk) => {
      size += chunk.length;
      if (size > limit) socket.destroy(new NeighbourError(`the answer is longer than ${limit} octets`));
      else chunks.push(chunk);
    });
    socket.once('end', () => {
      // A child that was killed, a source address that is not allowed (--allowed-ips), or no spamd at all.
      if (size === 0) reject(new NeighbourError('closed the connection without an answer'));
      else resolve(Buffer.concat(chunks).toString('latin1'));
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new NeighbourError('closed the connection')));
  });
}

/** The request, then the end of our side: without it spamd may wait for more. */
async function send(socket: Socket, head: string, body: Body | null): Promise<void> {
  socket.write(head, 'latin1');
  if (body !== null) {
    for await (const chunk of body.chunks()) {
      if (!socket.write(chunk)) await drained(socket);
      if (!socket.writable) return;
    }
  }
  socket.end();
}

/** Room in the socket's buffer again, or no socket any more. Its deadline is that of the exchange, which destroys the socket. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed || !socket.writableNeedDrain) {
      resolve();
      return;
    }
    const done = (): void => {
      socket.off('drain', done);
      socket.off('close', done);
      resolve();
    };
    socket.once('drain', done);
    socket.once('close', done);
  });
}
