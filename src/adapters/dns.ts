import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';

import { LRUCache } from 'lru-cache';

import type { Clock } from '../ports/clock.ts';
import { DnsError, type DnsAnswer, type RecordType, type Resolver } from '../ports/resolver.ts';
import { questionName, type Question } from './dns-message.ts';
import { ask, type DnsServer, type Reply } from './dns-transport.ts';
import { Slots } from './slots.ts';

export type { DnsServer } from './dns-transport.ts';

export interface ResolverOptions {
  /** Asked in this order. */
  readonly servers: readonly DnsServer[];
  /** The longest one server may take for one question. */
  readonly timeoutMs: number;
  /** Answers kept; 0: none. */
  readonly cacheEntries: number;
}

/** Questions under way at once, each with a socket; more wait, and more than that are failed at once. */
const SOCKETS_LIMIT = 256;
const WAITING_LIMIT = 10_000;

/** Servers tried for one question. With a single server it is asked twice: packets get lost. */
const ATTEMPTS_LIMIT = 3;
const ATTEMPTS_LEAST = 2;

/** RFC 2308 §7.1 allows five minutes; a few seconds keep a message's checks from asking for the same thing again. */
const FAILURE_KEPT_MS = 5000;

/** Octets an answer takes on average, for the cache's bound in memory: a few addresses, or one SPF record. */
const ENTRY_SIZE = 512;
const ENTRY_OVERHEAD = 160;

type Result =
  | { readonly kind: 'answer'; readonly answer: DnsAnswer }
  | { readonly kind: 'failed'; readonly error: DnsError };

interface Kept {
  readonly result: Result;
  /** Of the clock's `elapsed`. */
  readonly until: number;
}

/** A question under way, and how many wait for its answer. */
interface Flight {
  readonly result: Promise<Result>;
  readonly abort: AbortController;
  waiting: number;
}

/** Asks the name servers and keeps what they say for as long as they allow. RFC 1034 §5.3.1: a stub resolver. */
export function createResolver(options: ResolverOptions, clock: Clock): Resolver & AsyncDisposable {
  return new StubResolver(options, clock);
}

class StubResolver implements Resolver, AsyncDisposable {
  readonly #options: ResolverOptions;
  readonly #clock: Clock;
  readonly #cache: LRUCache<string, Kept> | null;
  readonly #flights = new Map<string, Flight>();
  readonly #slots = new Slots(SOCKETS_LIMIT, WAITING_LIMIT);
  #closed = false;

  constructor(options: ResolverOptions, clock: Clock) {
    if (options.servers.length === 0) throw new Error('there is no name server to ask');
    this.#options = options;
    this.#clock = clock;
    this.#cache =
      options.cacheEntries === 0
        ? null
        : new LRUCache({
            max: options.cacheEntries,
            maxSize: options.cacheEntries * ENTRY_SIZE,
            sizeCalculation: sizeOf,
          });
  }

  async query(name: string, type: RecordType, signal: AbortSignal): Promise<DnsAnswer> {
    const asked = questionName(name);
    if (asked === null) throw new DnsError('badname', `there can be no name ${JSON.stringify(name)}`);
    if (signal.aborted) throw new DnsError('aborted', 'given up before it was asked');
    if (this.#closed) throw new DnsError('aborted', 'the resolver is closed');
    const key = `${type} ${asked}`;
    const result = this.#kept(key) ?? (await this.#join(key, { name: asked, type }, signal));
    switch (result.kind) {
      case 'answer':
        return result.answer;
      case 'failed':
        throw new DnsError(result.error.code, result.error.message);
    }
  }

  cached(name: string, type: RecordType): DnsAnswer | null {
    const result = this.#kept(`${type} ${name}`);
    return result?.kind === 'answer' ? result.answer : null;
  }

  /** Ends all questions under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const flights = [...this.#flights.values()];
    for (const flight of flights) flight.abort.abort(new Error('the resolver is closed'));
    await Promise.all(flights.map((flight) => flight.result));
  }

  #kept(key: string): Result | null {
    const kept = this.#cache?.get(key);
    if (kept === undefined) return null;
    const left = kept.until - this.#clock.elapsed();
    if (left <= 0) {
      this.#cache?.delete(key);
      return null;
    }
    const { result } = kept;
    if (result.kind === 'failed') return result;
    return { kind: 'answer', answer: { ...result.answer, ttl: Math.ceil(left / 1000) } };
  }

  #keep(key: string, result: Result): void {
    const kept = result.kind === 'answer' ? result.answer.ttl * 1000 : FAILURE_KEPT_MS;
    const lasting = result.kind === 'answer' || ['servfail', 'refused'].includes(result.error.code);
    if (lasting && kept > 0) this.#cache?.set(key, { result, until: this.#clock.elapsed() + kept });
  }

  /** Waits for the one question under way; whoever goes away leaves it to the others, the last one ends it. */
  async #join(key: string, question: Question, signal: AbortSignal): Promise<Result> {
    const flight = this.#flights.get(key) ?? this.#start(key, question);
    flight.waiting++;
    const gone = Promise.withResolvers<Result>();
    const leave = (): void => {
      gone.resolve({ kind: 'failed', error: new DnsError('aborted', `gave up on ${key}`) });
    };
    signal.addEventListener('abort', leave, { once: true });
    try {
      return await Promise.race([flight.result, gone.promise]);
    } finally {
      signal.removeEventListener('abort', leave);
      if (--flight.waiting === 0 && this.#flights.get(key) === flight) {
        // Nobody may join what is being given up.
        this.#flights.delete(key);
        flight.abort.abort(new Error('nobody waits for it'));
      }
    }
  }

  #start(key: string, question: Question): Flight {
    const abort = new AbortController();
    const result = this.#resolve(question, abort.signal).then((settled) => {
      if (this.#flights.get(key)?.abort === abort) this.#flights.delete(key);
      this.#keep(key, settled);
      return settled;
    });
    const flight: Flight = { result, abort, waiting: 0 };
    this.#flights.set(key, flight);
    return flight;
  }

  async #resolve(question: Question, signal: AbortSignal): Promise<Result> {
    try {
      return await this.#slots.run(() => this.#askServers(question, signal), signal);
    } catch (error) {
      const why = error instanceof Error ? error.message : 'failed';
      return failed(signal.aborted ? 'aborted' : 'timeout', question, why);
    }
  }

  async #askServers(question: Question, signal: AbortSignal): Promise<Result> {
    const { servers, timeoutMs } = this.#options;
    const attempts = Math.min(Math.max(servers.length, ATTEMPTS_LEAST), ATTEMPTS_LIMIT);
    let last: Result = failed('timeout', question, 'was not asked');
    for (let attempt = 0; attempt < attempts; attempt++) {
      const server = servers[attempt % servers.length];
      if (server === undefined) break;
      const reply = await within(timeoutMs, signal, (limit) => ask(server, question, limit));
      if (signal.aborted) return failed('aborted', question, 'given up');
      switch (reply.kind) {
        case 'answer':
          return reply;
        case 'servfail':
        case 'formerr':
          last = failed('servfail', question, `${server.host} says it can't tell`);
          break;
        case 'refused':
          last = failed('refused', question, `${server.host} refuses to tell`);
          break;
        case 'silent':
          last = failed('timeout', question, `${server.host}: ${reply.why}`);
          break;
      }
      // The same server would say the same.
      if (reply.kind !== 'silent' && servers.length === 1) return last;
    }
    return last;
  }
}

function failed(code: DnsError['code'], question: Question, why: string): Result {
  return { kind: 'failed', error: new DnsError(code, `${question.name} ${question.type}: ${why}`) };
}

/** Runs `work` with a signal that aborts after `ms`, or with `signal`. */
async function within(
  ms: number,
  signal: AbortSignal,
  work: (limit: AbortSignal) => Promise<Reply>,
): Promise<Reply> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(new Error(`no answer within ${ms} ms`)), ms);
  const abort = (): void => limit.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await work(limit.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

function sizeOf({ result }: Kept, key: string): number {
  let size = ENTRY_OVERHEAD + key.length;
  if (result.kind === 'answer' && result.answer.kind === 'records') {
    for (const record of result.answer.records) {
      size += ENTRY_OVERHEAD + (record.type === 'MX' ? record.exchange.length : record.text.length);
    }
  }
  return size;
}

const DNS_PORT = 53;

/** The servers of a resolv.conf(5); that of this host, when none is named. */
export async function systemServers(path = '/etc/resolv.conf'): Promise<readonly DnsServer[]> {
  let text = '';
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    // resolv.conf(5): a host without the file asks the name server on itself.
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
  const servers: DnsServer[] = [];
  for (const line of text.split('\n')) {
    const host = /^\s*nameserver\s+(\S+)/.exec(line)?.[1];
    if (host !== undefined && isIP(host) !== 0) servers.push({ host, port: DNS_PORT });
  }
  return servers.length > 0 ? servers.slice(0, ATTEMPTS_LIMIT) : [{ host: '127.0.0.1', port: DNS_PORT }];
}
