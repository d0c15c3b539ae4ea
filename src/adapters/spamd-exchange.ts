import { connect, type Socket } from 'node:net';

import type { Body } from '../mail/message.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';

export type SpamdAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface Exchange {
  readonly address: SpamdAddress;
  readonly connectTimeoutMs: number;
  /** The longest all of it may take. */
  readonly timeoutMs: number;
  /** Octets of the answer. */
  readonly maxResponse: number;
  readonly head: string;
  /** null: nothing follows the head. */
  readonly body: Body | null;
  /** Octets of the body that are sent. */
  readonly bodyOctets: number;
}

/** The body could not be read: not spamd's fault. */
export class BodyFault extends Error {}

/** Sends one request and gives back all of the answer. The socket is gone when this settles. @throws {BodyFault} */
export async function exchange(request: Exchange, signal: AbortSignal): Promise<string> {
  if (signal.aborted) throw new NeighbourError('given up before it was asked', { cause: signal.reason });
  const { address } = request;
  const socket = connect({
    ...(address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }),
    allowHalfOpen: true,
    noDelay: true,
  });
  const unconnected = setTimeout(() => {
    socket.destroy(new NeighbourError(`no connection within ${request.connectTimeoutMs} ms`));
  }, request.connectTimeoutMs);
  const slow = setTimeout(() => {
    socket.destroy(new NeighbourError(`no answer within ${request.timeoutMs} ms`));
  }, request.timeoutMs);
  const abort = (): void => {
    socket.destroy(new NeighbourError('given up', { cause: signal.reason }));
  };
  signal.addEventListener('abort', abort, { once: true });
  socket.once('connect', () => clearTimeout(unconnected));
  try {
    const answer = answerOf(socket, request.maxResponse);
    // Sent and received at the same time: an answer that comes early, as errors do, ends the exchange.
    send(socket, request).catch((error: unknown) => socket.destroy(new BodyFault('', { cause: error })));
    return await answer;
  } finally {
    clearTimeout(unconnected);
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
async function send(socket: Socket, { head, body, bodyOctets }: Exchange): Promise<void> {
  // With the first piece of the body in one segment.
  socket.cork();
  socket.write(head, 'latin1');
  let left = body === null ? 0 : bodyOctets;
  if (body !== null && left > 0) {
    for await (const chunk of body.chunks()) {
      if (left === 0) break;
      const piece = chunk.length > left ? chunk.subarray(0, left) : chunk;
      left -= piece.length;
      const flowing = socket.write(piece);
      socket.uncork();
      if (!flowing) await drained(socket);
      if (!socket.writable) break;
    }
  }
  socket.uncork();
  if (socket.writable) socket.end();
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
