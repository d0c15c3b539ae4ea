import { request as httpRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';

import { pathText } from '../mail/address.ts';
import type { Envelope } from '../mail/envelope.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import type { Clock } from '../ports/clock.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { ScanRequest, SpamScanner } from '../ports/scanner.ts';
import { NeighbourPool, type PoolOptions } from './neighbour-pool.ts';
import { readRspamd } from './rspamd-answer.ts';
import { shownSection } from './shown-section.ts';

export type RspamdAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface RspamdOptions {
  /** At least one; each is a normal worker that could score any message. */
  readonly addresses: readonly RspamdAddress[];
  /** Scans at once with each. */
  readonly maxConcurrent: number;
  /** The longest one of them may take; then the next one is asked. */
  readonly timeoutMs: number;
  /** Octets of an answer. */
  readonly maxResponse: number;
  readonly changed: PoolOptions['changed'];
}

/** Scans that may wait for each one that can be under way. */
const WAITING_PER_SCAN = 20;
/** Recipients named to rspamd. */
const RECIPIENT_LIMIT = 100;
/** Octets of one value that a client chose. */
const VALUE_LIMIT = 320;

/** rspamd's normal workers as a scanner. It is told the envelope in fields of the request and needs no trace field for it. */
export function createRspamd(options: RspamdOptions, clock: Clock): SpamScanner {
  return new Rspamd(options, clock);
}

interface Question {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly headers: OutgoingHttpHeaders;
  /** null: nothing follows. */
  readonly scan: { readonly section: string; readonly request: ScanRequest } | null;
}

interface Answer {
  readonly text: string;
  readonly server: string;
}

class Rspamd implements SpamScanner {
  readonly #options: RspamdOptions;
  readonly #pool: NeighbourPool<RspamdAddress>;

  constructor(options: RspamdOptions, clock: Clock) {
    this.#options = options;
    const { addresses, maxConcurrent: perMember, changed } = options;
    const waiting = addresses.length * perMember * WAITING_PER_SCAN;
    this.#pool = new NeighbourPool(addresses, { perMember, waiting, changed }, clock);
  }

  async scan(request: ScanRequest, signal: AbortSignal): Promise<SpamScan> {
    const section = `${shownSection(request)}\r\n`;
    const headers = { ...envelopeFields(request), 'Content-Length': section.length + request.bodyOctets };
    const question: Question = { method: 'POST', path: '/checkv2', headers, scan: { section, request } };
    return await this.#pool.run(
      (address) => this.#ask(address, question, signal, ({ text, server }) => readRspamd(text, server)),
      signal,
    );
  }

  async ping(signal: AbortSignal): Promise<void> {
    const question: Question = { method: 'GET', path: '/ping', headers: {}, scan: null };
    await this.#pool.probe((address) =>
      this.#ask(address, question, signal, ({ text }) => {
        if (text.trim() !== 'pong') throw new NeighbourError('that is not rspamd');
      }),
    );
  }

  async #ask<T>(
    address: RspamdAddress,
    question: Question,
    signal: AbortSignal,
    read: (answer: Answer) => T,
  ): Promise<T> {
    try {
      return read(await exchange(address, question, this.#options, signal));
    } catch (error) {
      if (error instanceof BodyFault) throw error.cause;
      const where = address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
      throw new NeighbourError(`rspamd at ${where}`, { cause: error });
    }
  }
}

/** The body could not be read: not rspamd's fault. */
class BodyFault extends Error {}

/** One request, one answer, one connection; which is gone when this settles. */
async function exchange(
  address: RspamdAddress,
  { method, path, headers, scan }: Question,
  { timeoutMs, maxResponse }: RspamdOptions,
  signal: AbortSignal,
): Promise<Answer> {
  if (signal.aborted) throw new NeighbourError('given up before it was asked', { cause: signal.reason });
  const where =
    address.kind === 'unix' ? { socketPath: address.path } : { host: address.host, port: address.port };
  const sending = httpRequest({ ...where, method, path, headers, agent: false });
  sending.setNoDelay(true);
  const slow = setTimeout(() => {
    sending.destroy(new NeighbourError(`no answer within ${timeoutMs} ms`));
  }, timeoutMs);
  const abort = (): void => {
    sending.destroy(new NeighbourError('given up', { cause: signal.reason }));
  };
  signal.addEventListener('abort', abort, { once: true });
  try {
    const response = new Promise<IncomingMessage>((resolve, reject) => {
      sending.once('response', resolve);
      sending.on('error', reject);
    });
    send(sending, scan).catch((error: unknown) => sending.destroy(new BodyFault('', { cause: error })));
    const answer = await response;
    const text = await textOf(answer, maxResponse);
    if (answer.statusCode !== 200) throw new NeighbourError(`it answered with status ${answer.statusCode}`);
    const { server } = answer.headers;
    return { text, server: typeof server === 'string' ? server : '' };
  } finally {
    clearTimeout(slow);
    signal.removeEventListener('abort', abort);
    sending.destroy();
  }
}

async function textOf(answer: IncomingMessage, limit: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<unknown>) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError('a stream without encoding gives octets');
    size += chunk.length;
    if (size > limit) throw new NeighbourError(`the answer is longer than ${limit} octets`);
    chunks.push(chunk);
  }
  if (!answer.complete) throw new NeighbourError('it broke off');
  return Buffer.concat(chunks).toString();
}

async function send(sending: ReturnType<typeof httpRequest>, scan: Question['scan']): Promise<void> {
  if (scan !== null) {
    const { section, request } = scan;
    sending.write(section, 'latin1');
    let left = request.bodyOctets;
    for await (const chunk of left > 0 ? request.message.body.chunks() : []) {
      if (left === 0) break;
      const piece = chunk.length > left ? chunk.subarray(0, left) : chunk;
      left -= piece.length;
      if (!sending.write(piece)) await drained(sending);
      if (sending.destroyed) break;
    }
  }
  if (!sending.destroyed) sending.end();
}

/** Room again, or no connection any more. Its deadline is that of the exchange, which ends the connection. */
function drained(sending: ReturnType<typeof httpRequest>): Promise<void> {
  return new Promise((resolve) => {
    if (sending.destroyed) {
      resolve();
      return;
    }
    const done = (): void => {
      sending.off('drain', done);
      sending.off('close', done);
      resolve();
    };
    sending.once('drain', done);
    sending.once('close', done);
  });
}

/** Envelope and client in rspamd's words (its HTTP protocol, "HTTP headers"). */
function envelopeFields({ message, user }: ScanRequest): OutgoingHttpHeaders {
  const { envelope } = message;
  const { client } = envelope;
  const known: Readonly<Record<string, string | null>> = {
    From: `<${pathText(envelope.sender)}>`,
    IP: client.address === '' ? null : client.address,
    Helo: client.helo,
    Hostname: client.name,
    User: client.login,
    'Queue-Id': envelope.queueId,
    'TLS-Version': client.tls?.protocol ?? null,
    'TLS-Cipher': client.tls?.cipher ?? null,
    'Deliver-To': user,
  };
  const fields: OutgoingHttpHeaders = {};
  for (const [name, value] of Object.entries(known)) {
    if (value !== null && value !== '') fields[name] = valueOf(value);
  }
  fields['Rcpt'] = recipientsOf(envelope);
  return fields;
}

function recipientsOf({ recipients }: Envelope): string[] {
  return recipients.slice(0, RECIPIENT_LIMIT).map(({ address }) => valueOf(`<${address.raw}>`));
}

/** What may stand in a field of HTTP. RFC 9110 §5.5. */
function valueOf(text: string): string {
  return text.slice(0, VALUE_LIMIT).replaceAll(/[^\x20-\x7e\x80-\xff]/g, '?');
}
