import { createHash } from 'node:crypto';

import { Redis } from 'ioredis';

import { NeighbourError } from '../ports/neighbour-error.ts';

export interface RedisOptions {
  readonly address:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
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
  /** Milliseconds added to the server's time: for tests, which own the time. */
  readonly offset?: () => number;
}

/** What the connection comes to: one call for each change. */
export interface RedisEvents {
  up(): void;
  down(why: string): void;
}

/** A script as Redis knows it: by the digest of its text. */
export interface Script {
  readonly lua: string;
  readonly sha: string;
}

/** ioredis's own words, which it gives no code or class. */
const TIMED_OUT = 'Command timed out';
const CONNECT_TIMEOUT_MS = 1000;
const LONGEST_BACKOFF_MS = 2000;
/** A server that hangs is noticed after this, even when nobody asks it anything. */
const PING_EVERY_MS = 10_000;

/** What every script starts with. Redis runs one script at a time, and its clock is the one that all hosts share. */
const PRELUDE = `
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])
`;

/** `now` is the time in milliseconds; what the caller gives starts with ARGV[2]. */
export function script(body: string): Script {
  const lua = PRELUDE + body;
  return { lua, sha: createHash('sha1').update(lua).digest('hex') };
}

/**
 * One connection. A call is answered within its time or rejects, and is never made twice: a script that was sent before the connection broke may have
 * counted, so it counts as failed and is not sent again.
 */
export class RedisClient implements AsyncDisposable {
  readonly prefix: string;
  readonly #redis: Redis;
  readonly #where: string;
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
    this.#where = address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
    this.#timeoutMs = timeoutMs;
    this.#offset = options.offset ?? noOffset;
    this.#events = events;
    this.#redis = new Redis({
      ...(address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }),
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
      retryStrategy: (attempt) => Math.min(50 * 2 ** Math.min(attempt - 1, 10), LONGEST_BACKOFF_MS),
    });
    this.#redis.on('error', (error: Error) => this.#failed(error));
    this.#redis.on('close', () => this.#closed());
    this.#redis.on('ready', () => this.#ready());
    this.#pings = setInterval(() => void this.ping().catch(told), PING_EVERY_MS).unref();
  }

  /** The first attempt to connect has ended, well or not; further ones follow by themselves. */
  async start(): Promise<void> {
    await this.#redis.connect().catch(told);
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

  /** The members of a sorted set, by rank, the highest score first. */
  async highest(key: string, from: number, to: number): Promise<readonly string[]> {
    return this.#list(await this.#asked(this.#redis.zrevrange(key, from, to)));
  }

  async members(key: string): Promise<readonly string[]> {
    return this.#list(await this.#asked(this.#redis.smembers(key)));
  }

  /** The texts that keys hold, in their order; null: nothing. */
  async texts(keys: readonly string[]): Promise<readonly (string | null)[]> {
    this.#gather();
    const answer: unknown = await this.#asked(this.#redis.mget(...keys));
    if (!Array.isArray(answer) || answer.length !== keys.length || !answer.every(isTextOrNull)) {
      throw this.nonsense();
    }
    return answer;
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
    if (error instanceof Error && error.message === TIMED_OUT) this.#giveUp(why);
    return new NeighbourError(`redis at ${this.#where}`, { cause: new Error(why) });
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
      return `no connection: ${this.#why}`;
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

/** The longest part of a key that is written out. */
const PART_LIMIT = 320;
const DIGEST_LENGTH = 43;

/** A text as part of a key or as a member: written out for people, and of bounded length; long ones stay apart by a digest. */
export function bounded(text: string): string {
  if (text.length <= PART_LIMIT) return text;
  const digest = createHash('sha256').update(text).digest('base64url');
  return `${text.slice(0, PART_LIMIT - DIGEST_LENGTH)}${digest}`;
}

/** A number that a script gave as text, because it may have a fraction or be large; NaN: it is none. */
export function numberIn(word: unknown): number {
  return typeof word === 'string' && /^-?\d/.test(word) ? Number(word) : NaN;
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string';
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
