import { generateKeyPairSync } from 'node:crypto';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Registry } from 'prom-client';

import type { Publication } from '../../../src/adapters/key-publication.ts';
import {
  KeyLookout,
  LOOK_AGAIN_MS,
  LOOK_EVERY_MS,
  PACE_MS,
  type LookForKey,
} from '../../../src/cli/key-lookout.ts';
import { publicationMetrics, SERIES_LIMIT } from '../../../src/cli/open-lookout.ts';
import { FIRST_LOOK_MS, PublishedKeys } from '../../../src/cli/published-keys.ts';
import type { SigningKey } from '../../../src/ports/signing-keys.ts';
import { metric } from '../../support/metric.ts';
import { heldKeys } from '../../support/signing-keys.ts';

const clock = { now: () => Date.now(), elapsed: () => performance.now() };

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

function keyOf(selector: string, domain = 'olimpus.example'): SigningKey {
  const { privateKey: key } = generateKeyPairSync('ed25519');
  return { domain, selector, subdomains: false, algorithm: 'ed25519-sha256', key };
}

function answer(state: Publication['state']): Publication {
  return state === 'unknown'
    ? { state, why: 'nobody', servers: [], incomplete: true }
    : { state, servers: [], incomplete: false };
}

interface Rig {
  readonly lookout: KeyLookout;
  /** What is said of a selector from now on. */
  readonly states: Map<string, Publication['state'] | 'never' | Error>;
  readonly looks: string[];
  readonly told: string[];
}

function rig(): Rig {
  const states: Rig['states'] = new Map();
  const looks: string[] = [];
  const told: string[] = [];
  const look: LookForKey = ({ selector }, _data, signal) => {
    looks.push(selector);
    const state = states.get(selector) ?? 'everywhere';
    if (state instanceof Error) return Promise.reject(state);
    if (state !== 'never') return Promise.resolve(answer(state));
    return new Promise((resolve) => signal.addEventListener('abort', () => resolve(answer('unknown'))));
  };
  const lookout = new KeyLookout(look, clock, {
    changed: ({ selector }, before, { state }) => told.push(`${selector}: ${before} → ${state}`),
    dropped: ({ selector }) => told.push(`${selector} dropped`),
    failed: ({ selector }) => told.push(`${selector} failed`),
  });
  return { lookout, states, looks, told };
}

describe('the lookout', () => {
  test('looks for a key when it comes, and tells only what has changed', async () => {
    const { lookout, states, looks, told } = rig();
    states.set('a', 'nowhere');
    const key = keyOf('a');
    lookout.add(key);
    lookout.add(key);
    await vi.advanceTimersByTimeAsync(0);
    expect(looks).toEqual(['a']);
    expect(lookout.known(key)).toBe('nowhere');
    await vi.advanceTimersByTimeAsync(LOOK_AGAIN_MS - 1);
    expect(looks).toEqual(['a']);
    states.set('a', 'everywhere');
    await vi.advanceTimersByTimeAsync(1);
    expect(looks).toEqual(['a', 'a']);
    await vi.advanceTimersByTimeAsync(LOOK_EVERY_MS - 1);
    expect(looks).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(1);
    expect(looks).toHaveLength(3);
    expect(told).toEqual(['a: null → nowhere', 'a: nowhere → everywhere']);
    await lookout[Symbol.asyncDispose]();
    await vi.advanceTimersByTimeAsync(2 * LOOK_EVERY_MS);
    expect(looks).toHaveLength(3);
  });

  test('what was known holds while nobody can tell', async () => {
    const { lookout, states, told } = rig();
    const key = keyOf('a');
    lookout.add(key);
    await vi.advanceTimersByTimeAsync(0);
    states.set('a', 'unknown');
    await vi.advanceTimersByTimeAsync(LOOK_EVERY_MS);
    expect(lookout.known(key)).toBe('everywhere');
    expect(told).toEqual(['a: null → everywhere']);
    await lookout[Symbol.asyncDispose]();
  });

  test('another key under the name is another key; the same one read again is the same', async () => {
    const { lookout, looks, told } = rig();
    const key = keyOf('a');
    lookout.add(key);
    await vi.advanceTimersByTimeAsync(PACE_MS);
    const pem = key.key.export({ type: 'pkcs8', format: 'pem' });
    const { createPrivateKey } = await import('node:crypto');
    const again = { ...key, key: createPrivateKey(pem) };
    lookout.add(again);
    expect(lookout.known(again)).toBe('everywhere');
    const other = keyOf('a');
    lookout.add(other);
    expect(lookout.known(other)).toBeNull();
    expect(lookout.known(key)).toBeNull();
    await vi.advanceTimersByTimeAsync(PACE_MS);
    expect(lookout.known(other)).toBe('everywhere');
    expect(looks).toEqual(['a', 'a']);
    expect(told).toEqual(['a: null → everywhere', 'a dropped', 'a: null → everywhere']);
    await lookout[Symbol.asyncDispose]();
  });

  test('many keys are looked for one after the other', async () => {
    const { lookout, looks } = rig();
    for (let index = 0; index < 50; index++) lookout.add(keyOf(`s${index}`));
    await vi.advanceTimersByTimeAsync(10 * PACE_MS);
    expect(looks).toHaveLength(11);
    await lookout[Symbol.asyncDispose]();
  });

  test('no more than four at once, and what hangs is given up', async () => {
    const { lookout, looks, states } = rig();
    for (let index = 0; index < 8; index++) {
      states.set(`s${index}`, 'never');
      lookout.add(keyOf(`s${index}`));
    }
    await vi.advanceTimersByTimeAsync(30_000);
    expect(looks).toHaveLength(4);
    await lookout[Symbol.asyncDispose]();
  });

  test('a key that is gone is forgotten, also while it is looked for', async () => {
    const { lookout, told, states } = rig();
    const key = keyOf('a');
    lookout.add(key);
    await vi.advanceTimersByTimeAsync(0);
    const place = { domain: key.domain, selector: 'a', subdomains: false, path: '/x' };
    lookout.gone({ place });
    lookout.gone({ place });
    states.set('b', 'never');
    lookout.add(keyOf('b'));
    await vi.advanceTimersByTimeAsync(PACE_MS);
    lookout.clear();
    expect(told).toEqual(['a: null → everywhere', 'a dropped', 'b dropped']);
    await lookout[Symbol.asyncDispose]();
    expect(told).toHaveLength(3);
  });

  test('a mistake of ours is told, and the key is looked for again', async () => {
    const { lookout, told, states } = rig();
    states.set('a', new Error('oops'));
    lookout.add(keyOf('a'));
    await vi.advanceTimersByTimeAsync(0);
    states.delete('a');
    await vi.advanceTimersByTimeAsync(LOOK_AGAIN_MS);
    expect(told).toEqual(['a failed', 'a: null → everywhere']);
    await lookout[Symbol.asyncDispose]();
  });
});

async function chosen(
  mode: 'warn' | 'skip' | 'sign',
  states: Record<string, Publication['state']>,
): Promise<unknown> {
  const { lookout, states: said } = rig();
  const keys = Object.entries(states).map(([selector, state]) => {
    said.set(selector, state);
    return keyOf(selector);
  });
  const source = new PublishedKeys(heldKeys(...keys), lookout, mode);
  const found = await source.keysOf('olimpus.example');
  await lookout[Symbol.asyncDispose]();
  return found.kind === 'usable'
    ? { keys: found.keys.map(({ selector }) => selector), leftOut: found.leftOut ?? [] }
    : found;
}

describe('keys that sign', () => {
  test('"skip" leaves out what no server has, and nothing else', async () => {
    const states = { a: 'everywhere', b: 'partly', c: 'nowhere' } as const;
    expect(await chosen('skip', states)).toEqual({ keys: ['a', 'b'], leftOut: ['c'] });
    expect(await chosen('skip', { a: 'nowhere' })).toEqual({ kind: 'unpublished', subdomains: false });
    expect(await chosen('skip', { a: 'unknown' })).toEqual({ keys: ['a'], leftOut: [] });
  });

  test('what is known of a key is asked for once, and nobody waits after that', async () => {
    const { lookout } = rig();
    const source = new PublishedKeys(heldKeys(keyOf('a')), lookout, 'skip');
    expect(source.keysOf('olimpus.example')).toBeInstanceOf(Promise);
    await source.keysOf('olimpus.example');
    expect(source.keysOf('olimpus.example')).toMatchObject({ kind: 'usable' });
    await lookout[Symbol.asyncDispose]();
  });

  test('"warn" and "sign" use them all, at once', async () => {
    for (const mode of ['warn', 'sign'] as const) {
      expect(await chosen(mode, { a: 'nowhere' })).toEqual({ keys: ['a'], leftOut: [] });
    }
  });

  test('other domains have no keys, as before', async () => {
    const { lookout } = rig();
    expect(new PublishedKeys(heldKeys(keyOf('a')), lookout, 'skip').keysOf('hades.example')).toEqual({
      kind: 'none',
    });
    await lookout[Symbol.asyncDispose]();
  });

  test('name servers that do not answer hold up the first message for so long and no longer', async () => {
    const { lookout, states } = rig();
    states.set('a', 'never');
    const source = new PublishedKeys(heldKeys(keyOf('a')), lookout, 'skip');
    let done = false;
    const found = Promise.resolve(source.keysOf('olimpus.example')).then((keys) => {
      done = true;
      return keys;
    });
    await vi.advanceTimersByTimeAsync(FIRST_LOOK_MS - 1);
    expect(done).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect((await found).kind).toBe('usable');
    await lookout[Symbol.asyncDispose]();
  });
});

describe('metrics', () => {
  test('follow what is known, and forget keys that are gone', async () => {
    const registry = new Registry();
    const metrics = publicationMetrics(registry);
    const key = { domain: 'olimpus.example', selector: 'a' };
    const published = () => metric(registry, 'postern_dkim_key_published', key);
    const count = (state: string) => metric(registry, 'postern_dkim_keys', { state });
    expect(await count('everywhere')).toBe(0);
    metrics.set(key, null, 'unknown');
    expect(await published()).toBeUndefined();
    expect(await count('unknown')).toBe(1);
    metrics.set(key, 'unknown', 'partly');
    expect(await published()).toBe(0);
    metrics.set(key, 'partly', 'everywhere');
    expect(await published()).toBe(1);
    expect([await count('unknown'), await count('partly'), await count('everywhere')]).toEqual([0, 0, 1]);
    metrics.set(key, 'everywhere', null);
    expect([await published(), await count('everywhere')]).toEqual([undefined, 0]);
  });

  test('are so many series, however many keys there are', async () => {
    const registry = new Registry();
    const metrics = publicationMetrics(registry);
    for (let index = 0; index <= SERIES_LIMIT; index++) {
      metrics.set({ domain: `d${index}.example`, selector: 'a' }, null, 'everywhere');
    }
    const { values } = (await registry.getSingleMetric('postern_dkim_key_published')?.get()) ?? {
      values: [],
    };
    expect(values).toHaveLength(SERIES_LIMIT);
    expect(await metric(registry, 'postern_dkim_keys', { state: 'everywhere' })).toBe(SERIES_LIMIT + 1);
  });
});
