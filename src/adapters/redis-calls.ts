import { createHash } from 'node:crypto';

import { NeighbourError } from '../ports/neighbour-error.ts';

/** There was no connection: Redis has certainly not done it. */
export class NotSent extends NeighbourError {}

/** A script as Redis knows it: by the digest of its text. */
export interface Script {
  readonly lua: string;
  readonly sha: string;
}

/** What is asked of Redis, be it one server or a Cluster. A call is answered within its time or rejects, and is never made twice. */
export interface RedisCalls {
  readonly prefix: string;
  /** All keys of one call have to be in one slot. */
  readonly cluster: boolean;
  /** Calls whose keys have the same place can be one call. */
  place(key: string): number;
  ping(): Promise<void>;
  /** Runs a script in one round trip. */
  run(script: Script, keys: readonly string[], given: readonly string[]): Promise<unknown>;
  /** The members of a sorted set, by rank, the highest score first. */
  highest(key: string, from: number, to: number): Promise<readonly string[]>;
  members(key: string): Promise<readonly string[]>;
  /** The values of fields of a hash, in their order; null: there is no such field. */
  fields(key: string, names: readonly string[]): Promise<readonly (string | null)[]>;
  /** All keys that begin so, some at a time; one may come twice. */
  keys(start: string): AsyncGenerator<readonly string[]>;
  /** It answered something that our scripts don't answer. */
  nonsense(): NeighbourError;
  /** When what is under way has ended. */
  [Symbol.asyncDispose](): Promise<void>;
}

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

/** Items whose keys can be in one call, as places in `items`, each group in its order. All of them where there is one server. */
export function together<T>(
  client: Pick<RedisCalls, 'cluster' | 'place'>,
  items: readonly T[],
  key: (item: T) => string,
): readonly (readonly number[])[] {
  if (!client.cluster) return [[...items.keys()]];
  const groups = new Map<number, number[]>();
  for (const [index, item] of items.entries()) {
    const place = client.place(key(item));
    const group = groups.get(place);
    if (group === undefined) groups.set(place, [index]);
    else group.push(index);
  }
  return [...groups.values()];
}

/** The items of a group. */
export function picked<T>(items: readonly T[], group: readonly number[]): T[] {
  return group.flatMap((index) => items.slice(index, index + 1));
}

/** A number that a script gave as text, because it may have a fraction or be large; NaN: it is none. */
export function numberIn(word: unknown): number {
  return typeof word === 'string' && /^-?\d/.test(word) ? Number(word) : NaN;
}
