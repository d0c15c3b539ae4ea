import { createSocket } from 'node:dgram';
import { randomInt } from 'node:crypto';
import { connect, isIPv6 } from 'node:net';

import { encodeQuery, readResponse, RESPONSE_LIMIT, type Question, type Response } from './dns-message.ts';

export interface DnsServer {
  /** IP address. */
  readonly host: string;
  readonly port: number;
}

/** Packets that answer something else before we stop believing that anything on this socket is true. RFC 5452 §9.2. */
export const STRAY_LIMIT = 16;

const ID_COUNT = 65_536;

/** It did not answer in time, could not be reached, or sent what is no answer. */
interface Silence {
  readonly kind: 'silent';
  readonly why: string;
}

/** What came of asking one server once. */
export type Reply = Exclude<Response, { kind: 'truncated' } | { kind: 'other' }> | Silence;

type Heard = Exclude<Response, { kind: 'other' }> | Silence;

/**
 * Asks one server over UDP, and over TCP when the answer did not fit. Ends with `signal`, as `silent`.
 *
 * Each question has a socket of its own, connected to the server: the kernel gives it a random port and lets nothing in from elsewhere
 * (RFC 5452 §9.1, §9.2).
 */
export async function ask(server: DnsServer, question: Question, signal: AbortSignal): Promise<Reply> {
  let response = await askUdp(server, question, true, signal);
  // RFC 6891 §6.2.2: a server that knows no EDNS.
  if (response.kind === 'formerr') response = await askUdp(server, question, false, signal);
  if (response.kind === 'truncated') response = await askTcp(server, question, signal);
  return response.kind === 'truncated' ? { kind: 'servfail' } : response;
}

/** Asks one server over TCP alone, as when UDP does not get through. Ends with `signal`, as `silent`. */
export async function askOverTcp(server: DnsServer, question: Question, signal: AbortSignal): Promise<Reply> {
  const response = await askTcp(server, question, signal);
  return response.kind === 'truncated' ? { kind: 'servfail' } : response;
}

function askUdp(server: DnsServer, question: Question, edns: boolean, signal: AbortSignal): Promise<Heard> {
  const { promise, resolve } = Promise.withResolvers<Heard>();
  if (signal.aborted) return Promise.resolve({ kind: 'silent', why: whyAborted(signal) });
  const id = randomInt(ID_COUNT);
  const socket = createSocket(isIPv6(server.host) ? 'udp6' : 'udp4');
  let strays = 0;
  let open = true;
  const ended = (heard: Heard): void => {
    if (!open) return;
    open = false;
    signal.removeEventListener('abort', aborted);
    socket.close();
    resolve(heard);
  };
  const aborted = (): void => ended({ kind: 'silent', why: whyAborted(signal) });
  signal.addEventListener('abort', aborted, { once: true });
  socket.on('error', (error) => ended({ kind: 'silent', why: error.message }));
  socket.on('message', (bytes) => {
    const response = readResponse(bytes, id, question);
    if (response.kind !== 'other') ended(response);
    else if (++strays >= STRAY_LIMIT) ended({ kind: 'silent', why: 'too many packets that are no answer' });
  });
  // Not as the callback of `connect`, which is called when there is no way to the server, too, and keeps that from `error`.
  socket.once('connect', () => {
    if (!open) return;
    socket.send(encodeQuery(id, question, edns), (error) => {
      if (error !== null) ended({ kind: 'silent', why: error.message });
    });
  });
  socket.connect(server.port, server.host);
  return promise;
}

/** RFC 7766. One question to a connection. */
function askTcp(server: DnsServer, question: Question, signal: AbortSignal): Promise<Heard> {
  const { promise, resolve } = Promise.withResolvers<Heard>();
  if (signal.aborted) return Promise.resolve({ kind: 'silent', why: whyAborted(signal) });
  const id = randomInt(ID_COUNT);
  const socket = connect({ host: server.host, port: server.port });
  // RFC 1035 §4.2.2: two octets of length stand before the message.
  const received = Buffer.alloc(2 + RESPONSE_LIMIT);
  let length = 0;
  let open = true;
  const ended = (heard: Heard): void => {
    if (!open) return;
    open = false;
    signal.removeEventListener('abort', aborted);
    socket.destroy();
    resolve(heard);
  };
  const aborted = (): void => ended({ kind: 'silent', why: whyAborted(signal) });
  signal.addEventListener('abort', aborted, { once: true });
  socket.on('error', (error) => ended({ kind: 'silent', why: error.message }));
  socket.on('close', () => ended({ kind: 'silent', why: 'the connection was closed before the answer' }));
  socket.on('data', (chunk) => {
    length += chunk.copy(received, length);
    const size = received.readUInt16BE(0);
    if (length < 2) return;
    if (size > RESPONSE_LIMIT) {
      ended({ kind: 'silent', why: `an answer of ${size} octets` });
    } else if (length >= 2 + size) {
      const response = readResponse(received.subarray(2, 2 + size), id, question);
      ended(response.kind === 'other' ? { kind: 'silent', why: 'what came is no answer' } : response);
    }
  });
  const query = encodeQuery(id, question, true);
  const frame = Buffer.alloc(2 + query.length);
  frame.writeUInt16BE(query.length, 0);
  frame.set(query, 2);
  socket.write(frame);
  return promise;
}

function whyAborted(signal: AbortSignal): string {
  return signal.reason instanceof Error ? signal.reason.message : 'given up';
}
