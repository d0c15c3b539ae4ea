import type { Clock } from '../ports/clock.ts';
import type {
  Decision,
  HistoryFilter,
  KeptFacts,
  Label,
  Store,
  TraceId,
  TraceKeys,
  Trimmed,
} from '../ports/store.ts';
import { awaitFacts } from './kept-facts.ts';
import type { RedisCalls } from './redis-calls.ts';
import { RedisClient, type RedisOptions } from './redis-client.ts';
import { RedisCluster, type ClusterOptions } from './redis-cluster.ts';
import { RedisHistory } from './redis-history.ts';
import { RedisLabels } from './redis-labels.ts';
import { errorOf, RedisRecorder } from './redis-recorder.ts';
import { RedisTraces } from './redis-traces.ts';
import type { WriterEvents } from './sqlite-writer.ts';

export interface RedisStoreOptions {
  readonly redis: RedisOptions | ClusterOptions;
  /** What decisions of this host are marked with. */
  readonly host: string;
  /** Decisions of all hosts that are kept; of too many the oldest go. */
  readonly most: number;
  /** How long traces and facts are kept after somebody has looked at them. */
  readonly keepMs: number;
}

/** Traces and facts that are being written at once. */
export const MAX_UNDER_WAY = 5000;
/** Lost traces are told of together. */
const TELL_MS = 1000;

/**
 * The store of several hosts. Does not fail when Redis is not there: calls reject until it is, and decisions wait. Its connection is its own: long answers
 * of the history hold up no limit. What becomes of the connection is told by that of the state, which is to the same servers.
 */
export async function openRedisStore(
  options: RedisStoreOptions,
  clock: Clock,
  events: WriterEvents,
): Promise<Store & AsyncDisposable> {
  const { redis } = options;
  const link = { up: (): void => store?.connected(), down: (): void => undefined };
  const client = 'seeds' in redis ? new RedisCluster(redis, link) : new RedisClient(redis, link);
  let store: RedisStore | null = null;
  await client.start();
  store = new RedisStore(client, options, clock, events);
  return store;
}

class RedisStore implements Store, AsyncDisposable {
  readonly #client: RedisCalls;
  readonly #clock: Clock;
  readonly #events: WriterEvents;
  readonly #traces: RedisTraces;
  readonly #history: RedisHistory;
  readonly #labels: RedisLabels;
  readonly #recorder: RedisRecorder;
  readonly #underWay = new Set<Promise<void>>();
  #lostTraces = 0;
  #whyLost = '';
  #telling: NodeJS.Timeout | null = null;
  #ending = false;

  constructor(
    client: RedisCalls,
    { host, most, keepMs }: RedisStoreOptions,
    clock: Clock,
    events: WriterEvents,
  ) {
    this.#client = client;
    this.#clock = clock;
    this.#events = events;
    this.#traces = new RedisTraces(client, keepMs);
    this.#history = new RedisHistory(client, most);
    this.#labels = new RedisLabels(client);
    this.#recorder = new RedisRecorder(this.#history, host, events);
  }

  openTrace(keys: TraceKeys, fresh: TraceId): TraceId | Promise<TraceId> {
    if (keys.queueId !== null) return this.#traces.open(keys, fresh, this.#clock.now());
    this.#unwaited(() => this.#traces.opened(keys, fresh, this.#clock.now()));
    return fresh;
  }

  /** Redis is there again. */
  connected(): void {
    this.#recorder.tryAgain();
  }

  joinTrace(keys: TraceKeys, fresh: TraceId): Promise<TraceId> {
    return this.#traces.join(keys, fresh, this.#clock.now());
  }

  keepFacts(trace: TraceId, queueId: string, facts: KeptFacts): void {
    this.#unwaited(() => this.#traces.keep(trace, queueId, facts, this.#clock.now()));
  }

  keptFacts(trace: TraceId, queueId: string): Promise<KeptFacts | null> {
    return awaitFacts(() => this.#traces.kept(trace, queueId, this.#clock.now()));
  }

  record(decision: Decision): void {
    this.#recorder.record(decision);
  }

  async flush(): Promise<void> {
    await Promise.all(this.#underWay);
    await this.#recorder.flush();
  }

  async history(filter: HistoryFilter): Promise<readonly Decision[]> {
    return await this.#labels.with(await this.#history.find(filter));
  }

  label(label: Label): Promise<void> {
    return this.#labels.put(label);
  }

  async expire(before: number): Promise<number> {
    const ending = (): boolean => this.#ending;
    const removed = await this.#history.expire(before, ending);
    await this.#labels.expire(before, ending);
    await this.#traces.expire(before, this.#clock.now());
    return removed;
  }

  /** Each part of the history has at most so many decisions, of which the oldest go as new ones come. */
  trim(): Promise<Trimmed> {
    return Promise.resolve({ octets: null, decisions: 0 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true;
    try {
      await this.flush();
    } catch {
      // The failure was told of, and what it means is told below.
    }
    const lost = this.#recorder.close();
    if (lost > 0) this.#events.lost(lost, 'they could not be written before the end');
    this.#tellLostTraces();
    await this.#client[Symbol.asyncDispose]();
  }

  /** Writes what nobody waits for. */
  #unwaited(write: () => Promise<unknown>): void {
    if (this.#underWay.size >= MAX_UNDER_WAY) {
      this.#traceLost(`${MAX_UNDER_WAY} traces and facts are being written`);
      return;
    }
    const written = this.#written(write);
    this.#underWay.add(written);
    void written.then(() => this.#underWay.delete(written));
  }

  /** Never rejects: nobody waits for it. */
  async #written(write: () => Promise<unknown>): Promise<void> {
    try {
      await write();
    } catch (error) {
      this.#traceLost(errorOf(error).message);
    }
  }

  #traceLost(why: string): void {
    this.#lostTraces++;
    this.#whyLost = why;
    this.#telling ??= setTimeout(() => this.#tellLostTraces(), TELL_MS).unref();
  }

  #tellLostTraces(): void {
    if (this.#telling !== null) clearTimeout(this.#telling);
    this.#telling = null;
    if (this.#lostTraces === 0) return;
    this.#events.tracesLost(this.#lostTraces, this.#whyLost);
    this.#lostTraces = 0;
  }
}
