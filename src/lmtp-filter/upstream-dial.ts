import { connect, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';

import type { SocketAddress } from '../config/values.ts';
import { UpstreamError } from './upstream-error.ts';

/** How a server proves who it is. */
export interface UpstreamTls {
  /** Name that its certificate must be for; null: the host of the address. */
  readonly name: string | null;
  /** Certificates to trust, PEM; null: those that Node.js trusts. */
  readonly ca: string | null;
}

/** A connection, when it is there. `signal` ends the attempt. @throws {UpstreamError} */
export function dial(address: SocketAddress, timeoutMs: number, signal: AbortSignal): Promise<Socket> {
  const target =
    address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
  return opened(connect(target), 'connect', 'connect', timeoutMs, signal);
}

/**
 * The same connection, encrypted, after the server's certificate was checked; `socket` must not be used any more. RFC 3207 §4.1: a
 * server that can't be verified gets no mail. @throws {UpstreamError}
 */
export function secure(
  socket: Socket,
  address: SocketAddress,
  { name, ca }: UpstreamTls,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const host = address.kind === 'tcp' ? address.host : 'localhost';
  const encrypted = connectTls({
    socket,
    host: name ?? host,
    // RFC 6066 §3: a literal address is no server name.
    ...(name === null && /^[\d.]+$|:/.test(host) ? {} : { servername: name ?? host }),
    ...(ca === null ? {} : { ca }),
    // RFC 8996
    minVersion: 'TLSv1.2',
  });
  return opened(encrypted, 'secureConnect', 'tls', timeoutMs, signal);
}

function opened<S extends Socket>(
  socket: S,
  event: 'connect' | 'secureConnect',
  failure: 'connect' | 'tls',
  timeoutMs: number,
  signal: AbortSignal,
): Promise<S> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', giveUp);
    };
    const fail = (error: Error): void => {
      done();
      socket.destroy();
      reject(new UpstreamError(failure, error.message, { cause: error }));
    };
    const closed = (): void => fail(new Error('connection closed'));
    const giveUp = (): void => fail(new Error('given up'));
    const timer = setTimeout(() => fail(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs);
    signal.addEventListener('abort', giveUp);
    socket.on('error', fail); // stays when it failed: a second error must have a listener too
    socket.once('close', closed);
    socket.once(event, () => {
      done();
      socket.off('error', fail);
      socket.off('close', closed);
      resolve(socket);
    });
    if (signal.aborted) giveUp();
  });
}
