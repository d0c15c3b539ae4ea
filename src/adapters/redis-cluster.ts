import { NeighbourError } from '../ports/neighbour-error.ts';
import { NotSent, type RedisCalls, type Script } from './redis-calls.ts';
import {
  FAILOVER_BACKOFF_MS,
  Redirected,
  RedisClient,
  type RedisEvents,
  type RedisOptions,
} from './redis-client.ts';
import { nodeName, readSlots, slotOf, type Node, type SlotMap } from './redis-slots.ts';

export interface ClusterOptions extends Omit<RedisOptions, 'address'> {
  /** Some of its nodes: one that answers tells of all others. */
  readonly seeds: readonly Node[];
}

/** How often a Cluster is asked who has which slot: when all is well, and while a slot can't be reached. */
const LOOK_EVERY_MS = 10_000;
const SEARCH_EVERY_MS = 200;

/**
 * A Cluster: one connection to each of its nodes, replicas as well, so that a replica which takes over is there at once. Every call goes to the node
 * that has its slot, and to another only when that one said that it did not run it. (The Cluster of ioredis sends calls again on its own, and does
 * not give up a connection whose answers are late; RedisClient, which does, is one connection.)
 */
export class RedisCluster implements RedisCalls {
  readonly prefix: string;
  readonly cluster = true;
  readonly #options: ClusterOptions;
  readonly #events: RedisEvents;
  readonly #where: string;
  readonly #links = new Map<string, RedisClient>();
  readonly #offset: () => number;
  #map: SlotMap = { masters: [], nodes: new Map() };
  #looking: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #looked = -Infinity;
  #state: 'starting' | 'up' | 'down' | 'closing' = 'starting';
  #why = 'not connected yet';

  constructor(options: ClusterOptions, events: RedisEvents) {
    this.prefix = options.prefix;
    this.#options = options;
    this.#events = events;
    this.#offset = options.offset ?? (() => 0);
    this.#where = `cluster ${options.seeds.map(nodeName).join(', ')}`;
  }

  /** The first attempt to find it has ended, well or not; further ones follow by themselves. */
  async start(): Promise<void> {
    await this.#look();
    this.#tell();
    this.#lookLater();
  }

  place(key: string): number {
    return slotOf(key);
  }

  async ping(): Promise<void> {
    await Promise.all(this.#masters().map((name) => this.#link(name).ping()));
    if (this.#map.nodes.size === 0) throw this.#error(this.#why);
  }

  async run(script: Script, keys: readonly string[], given: readonly string[]): Promise<unknown> {
    const slot = slotOf(keys[0] ?? '');
    const link = this.#master(slot);
    try {
      return await link.run(script, keys, given);
    } catch (error) {
      if (!(error instanceof Redirected)) {
        this.#search();
        throw error;
      }
      const other = this.#linkTo(error);
      // On its way: this once. Else for good, and whoever comes next finds it in the map.
      if (error.kind === 'ask') return await other.runAsking(script, keys, given);
      this.#search();
      return await other.run(script, keys, given);
    }
  }

  async highest(key: string, from: number, to: number): Promise<readonly string[]> {
    return await this.#master(slotOf(key)).highest(key, from, to);
  }

  async members(key: string): Promise<readonly string[]> {
    return await this.#master(slotOf(key)).members(key);
  }

  async fields(key: string, names: readonly string[]): Promise<readonly (string | null)[]> {
    return await this.#master(slotOf(key)).fields(key, names);
  }

  async *keys(start: string): AsyncGenerator<readonly string[]> {
    const masters = this.#masters();
    if (masters.length === 0) throw this.#error(this.#why);
    for (const name of masters) yield* this.#link(name).keys(start);
  }

  /** The masters, by name. */
  nodes(): ReadonlyMap<string, RedisClient> {
    return new Map(this.#masters().map((name) => [name, this.#link(name)]));
  }

  nonsense(): NeighbourError {
    return this.#error('it answered what no script of ours answers');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#state = 'closing';
    this.#why = 'it was closed here';
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#looking;
    await Promise.all([...this.#links.values()].map((link) => link[Symbol.asyncDispose]()));
  }

  #masters(): string[] {
    return [...new Set(this.#map.masters)].filter((name) => name !== undefined);
  }

  #master(slot: number): RedisClient {
    const name = this.#map.masters[slot];
    if (name !== undefined) return this.#link(name);
    this.#search();
    const why = this.#map.nodes.size === 0 ? `no connection: ${this.#why}` : `nobody has slot ${slot}`;
    throw new NotSent(`redis ${this.#where}`, { cause: new Error(why) });
  }

  #link(name: string): RedisClient {
    const link = this.#links.get(name);
    if (link === undefined) throw this.#error(`no connection to ${name}`);
    return link;
  }

  /** Whom a node named in its own place. One that is in no map yet can't be asked now; the map is read anew. */
  #linkTo({ node, cause }: Redirected): RedisClient {
    const link = this.#links.get(nodeName(node));
    if (link?.up === true) return link;
    this.#search();
    throw this.#error(cause instanceof Error ? cause.message : 'moved');
  }

  /** Something is not where it was. */
  #search(): void {
    if (this.#state === 'closing' || this.#looking !== null) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => void this.#again(),
      this.#sinceLook() < SEARCH_EVERY_MS ? SEARCH_EVERY_MS : 0,
    );
  }

  #sinceLook(): number {
    return performance.now() - this.#looked;
  }

  #lookLater(): void {
    if (this.#state === 'closing') return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    const after = this.#complete() ? LOOK_EVERY_MS : SEARCH_EVERY_MS;
    this.#timer = setTimeout(() => void this.#again(), after).unref();
  }

  async #again(): Promise<void> {
    await this.#look();
    this.#tell();
    this.#lookLater();
  }

  /** Asks who has which slot: whoever is connected, else those that the configuration names. One at a time. */
  async #look(): Promise<void> {
    this.#looking ??= this.#find().finally(() => {
      this.#looking = null;
      this.#looked = performance.now();
    });
    await this.#looking;
  }

  async #find(): Promise<void> {
    for (const [name, link] of this.#links) {
      if (link.up && (await this.#ask(link, name.slice(0, name.lastIndexOf(':'))))) return;
    }
    for (const seed of this.#options.seeds) {
      if (this.#state === 'closing') return;
      await using link = new RedisClient(this.#of(seed), { up: nothing, down: (why) => (this.#why = why) });
      await link.start();
      if (link.up && (await this.#ask(link, seed.host))) return;
    }
  }

  /** Whether it knew. */
  async #ask(link: RedisClient, host: string): Promise<boolean> {
    let map: SlotMap | null;
    try {
      map = readSlots(await link.slots(), host);
    } catch (error) {
      // The next one is asked; when none knows, this is told as the reason.
      this.#why =
        error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
      return false;
    }
    if (map === null) {
      this.#why = 'it told of no slots';
      return false;
    }
    await this.#take(map);
    return true;
  }

  async #take(map: SlotMap): Promise<void> {
    const masters = new Set(map.masters);
    const started: Promise<void>[] = [];
    for (const [name, node] of map.nodes) {
      if (this.#links.has(name)) continue;
      const link = new RedisClient(this.#of(node), {
        up: () => this.#tell(),
        down: (why) => {
          this.#why = `${name}: ${why}`;
          this.#tell();
          this.#search();
        },
      });
      this.#links.set(name, link);
      const start = link.start();
      // Replicas are not waited for.
      if (masters.has(name)) started.push(start);
    }
    await Promise.all(started);
    this.#map = map;
    for (const [name, link] of this.#links) {
      if (map.nodes.has(name)) continue;
      this.#links.delete(name);
      // Its calls end in their time; nothing else is wanted of it.
      void link[Symbol.asyncDispose]();
    }
  }

  /** Every slot has a master that answers. */
  #complete(): boolean {
    const { masters } = this.#map;
    return (
      masters.length > 0 && masters.every((name) => name !== undefined && this.#links.get(name)?.up === true)
    );
  }

  #tell(): void {
    if (this.#state === 'closing') return;
    const state = this.#complete() ? 'up' : 'down';
    // Before the first look has ended, nothing is known.
    if (state === this.#state || (this.#state === 'starting' && this.#looking !== null)) return;
    this.#state = state;
    if (state === 'up') this.#events.up();
    else this.#events.down(this.#why);
  }

  #of({ host, port }: Node): RedisOptions {
    const { seeds: _, ...options } = this.#options;
    return {
      ...options,
      address: { kind: 'tcp', host, port },
      // A Cluster has this one alone.
      database: 0,
      longestBackoffMs: FAILOVER_BACKOFF_MS,
      offset: this.#offset,
    };
  }

  #error(why: string): NeighbourError {
    return new NeighbourError(`redis ${this.#where}`, { cause: new Error(why) });
  }
}

function nothing(): void {}
