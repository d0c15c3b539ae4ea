import { Redis } from 'ioredis';

import { NeighbourError } from '../ports/neighbour-error.ts';
import { NotSent, type RedisCalls, type Script } from './redis-calls.ts';
import type { Node } from './redis-slots.ts';

/** One server, or the one that Sentinels call the master. */
type RedisAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  | {
      readonly kind: 'sentinel';
      readonly sentinels: readonly Node[];
      readonly master: string;
      /** Of the Sentinels; null: none is asked for. */
      readonly password: string | null;
    };

export interface RedisOptions {
  readonly address: RedisAddress;
  /** null: the server's default user. */
  readonly username: string | null;
  /** null: none is asked for. */
  readonly password: string | null;
  readonly database: number;
  /** null: not encrypted; `ca`: certificates that are trusted, PEM, null: those of the system. */
  readonly tls: { readonly ca: string | null } | null;
  /** What all keys start with. Without braces, which would take a key's place in a Cluster away from us. */
  readonly prefix: string;
  /** The longest one call may take. */
  readonly timeoutMs: number;
  /** The longest time between two attempts to connect; when not given, two seconds, or half of one where another server takes over. */
  readonly longestBackoffMs?: number;
  /** Milliseconds added to the server's time: for tests, which own the time. */
  readonly offset?: () => number;
}

/** What the connection comes to: one call for each change. */
export interface RedisEvents {
  up(): void;
  down(why: string): void;
}

/** ioredis's own words, which it gives no code or class. */
const NO_CONNECTION = 'no connection: ';
const TIMED_OUT = 'Command timed out';
const CONNECT_TIMEOUT_MS = 1000;
const LONGEST_BACKOFF_MS = 2000;
/** Where another server takes over: how long that goes unnoticed at most. */
export const FAILOVER_BACKOFF_MS = 500;
/** Keys that one step of a scan looks at: about a millisecond of Redis. */
const SCANNED = 1000;
/** A server that hangs is noticed after this, even when nobody asks it anything. */
const PING_EVERY_MS = 10_000;

/** Another node of the Cluster has the slot; this one did not run the script. */
export class Redirected extends NeighbourError {
  /** `ask`: this once, because the slot is on its way there. */
  readonly kind: 'moved' | 'ask';
  /** Host empty: that of the node which said so. */
  readonly node: Node;

  constructor(message: string, kind: 'moved' | 'ask', node: Node, options: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.node = node;
  }
}

/**
 * One connection. A call is answered within its time or rejects, and is never made twice: a script that was sent before the connection broke may have
 * counted, so it counts as failed and is not sent again.
 */
export class RedisClient implements RedisCalls {
  readonly prefix: string;
  readonly cluster = false;
  readonly #redis: Redis;
  readonly #where: string;
  readonly #sentinels: boolean;
  readonly #timeoutMs: number;
  readonly #offset: () => number;
  readonly #events: RedisEvents;
  readonly #pings: NodeJS.Timeout;
  #state: 'starting' | 'up' | 'down' | 'closing' = 'starting';
  /** This connection is being closed because it is no good. */
  #givenUp = false;
  #gathering = false;
  #underWay = 0;
  #idle: (() => void) | null = null;
  /** Why there is no connection, as far as known. */
  #why = 'not connected yet';

  constructor(options: RedisOptions, events: RedisEvents) {
    const { address, username, password, database, tls, prefix, timeoutMs } = options;
    this.prefix = prefix;
    this.#where = addressText(address);
    this.#sentinels = address.kind === 'sentinel';
    this.#timeoutMs = timeoutMs;
    this.#offset = options.offset ?? noOffset;
    this.#events = events;
    const longestBackoff =
      options.longestBackoffMs ?? (this.#sentinels ? FAILOVER_BACKOFF_MS : LONGEST_BACKOFF_MS);
    this.#redis = new Redis({
      ...whereTo(address, tls),
      ...(username === null ? {} : { username }),
      ...(password === null ? {} : { password }),
      ...(tls === null ? {} : { tls: tls.ca === null ? {} : { ca: tls.ca } }),
      db: database,
      connectionName: 'postern',
      disableClientInfo: true,
      // Scripts answer with integers, texts and arrays of these, to which RESP3 adds nothing.
      protocol: 2,
      lazyConnect: true,
      connectTimeout: CONNECT_TIMEOUT_MS,
      commandTimeout: timeoutMs,
      // When we close, nothing is wanted any more of what is under way.
      disconnectTimeout: 0,
      enableOfflineQueue: false,
      // 0: what was sent is rejected when the connection breaks. (autoResendUnfulfilledCommands = false leaves it unsettled in 6.0.0: ioredis #2193.)
      maxRetriesPerRequest: 0,
      retryStrategy: (attempt) => Math.min(50 * 2 ** Math.min(attempt - 1, 10), longestBackoff),
    });
    this.#redis.on('error', (error: Error) => this.#failed(error));
    this.#redis.on('close', () => this.#closed());
    this.#redis.on('ready', () => this.#ready());
    this.#pings = setInterval(() => void this.ping().catch(told), PING_EVERY_MS).unref();
  }

  /** The first attempt to connect has ended, well or not; further ones follow by themselves. */
  async start(): Promise<void> {
    // With Sentinels the attempt goes on for as long as none of them is there; its first error is an end as well.
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#sentinels) this.#redis.once('error', () => resolve());
    this.#redis.connect().then(resolve, resolve);
    await promise;
  }

  /** Whether calls are sent. */
  get up(): boolean {
    return this.#state === 'up';
  }

  place(): number {
    return 0;
  }

  async ping(): Promise<void> {
    const answer = await this.#asked(this.#redis.ping());
    if (answer !== 'PONG') throw this.nonsense();
  }

  /** Runs a script in one round trip. */
  async run({ sha, lua }: Script, keys: readonly string[], given: readonly string[]): Promise<unknown> {
    const offset = this.#offset();
    this.#underWay++;
    this.#gather();
    try {
      return await this.#redis.evalsha(sha, keys.length, ...keys, offset, ...given);
    } catch (error) {
      // The server was started anew, or its scripts were flushed. It did not run this one: asking again counts nothing twice.
      if (error instanceof Error && error.message.startsWith('NOSCRIPT')) {
        return await this.#asked(this.#redis.eval(lua, keys.length, ...keys, offset, ...given));
      }
      throw this.#error(error);
    } finally {
      this.#done();
    }
  }

  /** As `run`, of a slot that is on its way to this node. */
  async runAsking({ lua }: Script, keys: readonly string[], given: readonly string[]): Promise<unknown> {
    // They go out one after the other; the first is for the second alone.
    const asking = this.#redis.asking();
    const answer = this.#redis.eval(lua, keys.length, ...keys, this.#offset(), ...given);
    const [, answered] = await this.#asked(Promise.all([asking, answer]));
    return answered;
  }

  /** CLUSTER SLOTS. */
  async slots(): Promise<unknown> {
    return await this.#asked(this.#redis.cluster('SLOTS'));
  }

  async *keys(start: string): AsyncGenerator<readonly string[]> {
    const pattern = `${start.replaceAll(/[\\*?[\]]/g, '\\$&')}*`;
    let cursor = '0';
    do {
      const [next, found] = await this.#asked(this.#redis.scan(cursor, 'MATCH', pattern, 'COUNT', SCANNED));
      if (!isText(next)) throw this.nonsense();
      cursor = next;
      yield this.#list(found);
    } while (cursor !== '0');
  }

  async highest(key: string, from: number, to: number): Promise<readonly string[]> {
    return this.#list(await this.#asked(this.#redis.zrevrange(key, from, to)));
  }

  async members(key: string): Promise<readonly string[]> {
    return this.#list(await this.#asked(this.#redis.smembers(key)));
  }

  /** The texts that keys hold, in their order; null: nothing. */
  async texts(keys: readonly string[]): Promise<readonly (string | null)[]> {
    this.#gather();
    return this.#texts(await this.#asked(this.#redis.mget(...keys)), keys.length);
  }

  async fields(key: string, names: readonly string[]): Promise<readonly (string | null)[]> {
    this.#gather();
    return this.#texts(await this.#asked(this.#redis.hmget(key, ...names)), names.length);
  }

  /** INFO, by name. */
  async info(): Promise<ReadonlyMap<string, string>> {
    const text: unknown = await this.#asked(this.#redis.info());
    if (!isText(text)) throw this.nonsense();
    const named = text.split('\r\n').flatMap((line): [string, string][] => {
      const [, name, value] = /^(\w+):(.*)$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value]];
    });
    return new Map(named);
  }

  /** A setting of redis.conf; null: this user may not ask for it, or there is none of that name. */
  async setting(name: string): Promise<string | null> {
    try {
      const answer = this.#list(await this.#asked(this.#redis.config('GET', name)));
      return answer[1] ?? null;
    } catch (error) {
      // Who serves many may also have taken the command away.
      const why = error instanceof NeighbourError && error.cause instanceof Error ? error.cause.message : '';
      if (/^(?:NOPERM|ERR unknown command)/.test(why)) return null;
      throw error;
    }
  }

  /** It answered something that our scripts don't answer. */
  nonsense(): NeighbourError {
    return this.#error(new Error('it answered what no script of ours answers'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#state = 'closing';
    clearInterval(this.#pings);
    // Each of them has its deadline.
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.#why = 'it was closed here';
    this.#redis.disconnect();
  }

  /** What the types of ioredis promise, a server that is not Redis need not keep. */
  #list(answer: unknown): readonly string[] {
    if (!Array.isArray(answer) || !answer.every(isText)) throw this.nonsense();
    return answer;
  }

  #texts(answer: unknown, count: number): readonly (string | null)[] {
    if (!Array.isArray(answer) || answer.length !== count || !answer.every(isTextOrNull)) {
      throw this.nonsense();
    }
    return answer;
  }

  async #asked<T>(answer: Promise<T>): Promise<T> {
    this.#underWay++;
    try {
      return await answer;
    } catch (error) {
      throw this.#error(error);
    } finally {
      this.#done();
    }
  }

  /** What is asked in one turn goes out in one write: with many callers, writes are what a call costs most. */
  #gather(): void {
    if (this.#gathering || this.#redis.status !== 'ready') return;
    this.#gathering = true;
    const { stream } = this.#redis;
    stream.cork();
    // Not at the next tick: that comes after each connection which had something to read, and would gather the calls of one.
    setImmediate(() => {
      this.#gathering = false;
      stream.uncork();
    });
  }

  #done(): void {
    this.#underWay--;
    if (this.#underWay === 0) this.#idle?.();
  }

  #error(error: unknown): NeighbourError {
    const why = this.#reason(error);
    const message = `redis at ${this.#where}`;
    const cause = new Error(why);
    if (!(error instanceof Error)) return new NeighbourError(message, { cause });
    // A server that was the master and is a replica now: who is the master is asked anew.
    if (error.message === TIMED_OUT || error.message.startsWith('READONLY ')) this.#giveUp(why);
    const [, kind, host = '', port] = /^(MOVED|ASK) \d+ (.*):(\d+)$/.exec(error.message) ?? [];
    if (kind === undefined) {
      return why.startsWith(NO_CONNECTION)
        ? new NotSent(message, { cause })
        : new NeighbourError(message, { cause });
    }
    const node = { host, port: Number(port) };
    return new Redirected(message, kind === 'ASK' ? 'ask' : 'moved', node, { cause });
  }

  /** A new connection, whose answers are those to our questions. On one where an answer is late, calls would pile up in memory; so would what it sends. */
  #giveUp(why: string): void {
    const { status } = this.#redis;
    if (this.#givenUp || (status !== 'ready' && status !== 'connect')) return;
    this.#givenUp = true;
    this.#why = why;
    this.#redis.disconnect(true);
  }

  /** Words for an operator. Only the text of an error is passed on: ioredis hangs the command with its arguments on it. */
  #reason(error: unknown): string {
    if (!(error instanceof Error)) return 'failed without a word';
    if (error.message === TIMED_OUT) return `no answer within ${this.#timeoutMs} ms`;
    if (error.name === 'MaxRetriesPerRequestError') return `connection lost before the answer: ${this.#why}`;
    if (error.message.startsWith("Stream isn't writeable") || error.message === 'Connection is closed.') {
      return `${NO_CONNECTION}${this.#why}`;
    }
    return error.message;
  }

  /**
   * Besides what closes the connection by itself: an answer that nobody asked for, or a database number that the server does not have, after which ioredis
   * would go on, in database 0.
   */
  #failed(error: Error): void {
    this.#why = 'errors' in error && Array.isArray(error.errors) ? causes(error.errors) : this.#reason(error);
    this.#giveUp(this.#why);
    // No Sentinel is there, or none knows the master: there is no connection that could close.
    if (this.#sentinels && this.#redis.status === 'connecting') this.#closed();
  }

  #closed(): void {
    this.#givenUp = false;
    if (this.#state !== 'up' && this.#state !== 'starting') return;
    this.#state = 'down';
    this.#events.down(this.#why);
  }

  #ready(): void {
    if (this.#state === 'closing') return;
    this.#state = 'up';
    this.#why = 'the server closed it';
    this.#events.up();
  }
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string';
}

function addressText(address: RedisAddress): string {
  switch (address.kind) {
    case 'tcp':
      return `${address.host}:${address.port}`;
    case 'unix':
      return address.path;
    case 'sentinel':
      return `master ${address.master}`;
  }
}

function whereTo(address: RedisAddress, tls: RedisOptions['tls']) {
  switch (address.kind) {
    case 'tcp':
      return { host: address.host, port: address.port };
    case 'unix':
      return { path: address.path };
    case 'sentinel':
      return {
        sentinels: address.sentinels.map(({ host, port }) => ({ host, port })),
        name: address.master,
        // Refuses a server that is a replica by now, whatever the Sentinel said.
        role: 'master' as const,
        sentinelCommandTimeout: CONNECT_TIMEOUT_MS,
        // Never gives up: an end here would be one for good.
        sentinelRetryStrategy: () => FAILOVER_BACKOFF_MS,
        ...(address.password === null ? {} : { sentinelPassword: address.password }),
        ...(tls === null
          ? {}
          : { enableTLSForSentinelMode: true, sentinelTLS: tls.ca === null ? {} : { ca: tls.ca } }),
      };
  }
}

function noOffset(): number {
  return 0;
}

/** A name with several addresses fails with one error for each. */
function causes(errors: readonly unknown[]): string {
  return errors.map((error) => (error instanceof Error ? error.message : 'unknown')).join(', ');
}

/** What went wrong was told as an event already. */
function told(): void {}
