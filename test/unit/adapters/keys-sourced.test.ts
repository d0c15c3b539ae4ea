import { generateKeyPairSync, type KeyObject } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import type { Row } from '../../../src/adapters/directory-source.ts';
import type { FoundKey } from '../../../src/adapters/key-file.ts';
import { KEYS_LIMIT } from '../../../src/adapters/key-folder.ts';
import { RedisKeys } from '../../../src/adapters/key-redis.ts';
import type { KeySource } from '../../../src/adapters/key-source.ts';
import { SourcedKeys, type SourcedKeysEvents } from '../../../src/adapters/keys-sourced.ts';
import { parseSigningKey } from '../../../src/config/keys.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import { NO_KEYS, type DomainKeys } from '../../../src/ports/signing-keys.ts';

const RSA = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const OTHER = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const ED = generateKeyPairSync('ed25519').privateKey;

function pem(key: KeyObject, type: 'pkcs8' | 'pkcs1' = 'pkcs8'): string {
  return key.export({ type, format: 'pem' }).toString();
}

function base64(key: KeyObject, type: 'pkcs8' | 'pkcs1' = 'pkcs8'): string {
  return key.export({ type, format: 'der' }).toString('base64');
}

/** RFC 8032 §5.1.5: the octets that an Ed25519 key is made of. */
function seed(): string {
  return ED.export({ type: 'pkcs8', format: 'der' }).subarray(-32).toString('base64');
}

function row(columns: Readonly<Record<string, string>>): Row {
  return new Map(Object.entries(columns).map(([name, value]) => [name, [value]]));
}

interface Rig {
  readonly keys: SourcedKeys;
  /** What the source has, by domain. */
  readonly tables: Map<string, readonly Row[]>;
  readonly asked: string[];
  readonly told: string[];
  away: Error | null;
  /** Time passes. */
  readonly pass: (ms: number) => void;
  /** Selectors, or what there is in their place. */
  readonly selectors: (domain: string) => Promise<readonly string[] | string>;
}

function nameOf({ place: { selector, domain } }: FoundKey): string {
  return `${selector} ${domain}`;
}

function rig(
  files: Readonly<Record<string, DomainKeys>> = {},
  subdomains = false,
  entries = 100,
  more: readonly KeySource[] = [],
): Rig {
  let now = 0;
  const tables = new Map<string, readonly Row[]>();
  const asked: string[] = [];
  const told: string[] = [];
  const source: KeySource = {
    where: 'the table',
    async rowsOf(domain) {
      asked.push(domain);
      await Promise.resolve();
      if (made.away !== null) throw made.away;
      return tables.get(domain) ?? [];
    },
  };
  const events: SourcedKeysEvents = {
    loaded: (found, where) => told.push(`loaded ${nameOf(found)} ${where}`),
    broken: (found) => told.push(`broken ${found.state.kind === 'broken' ? found.state.why : ''}`),
    gone: (found) => told.push(`gone ${nameOf(found)}`),
    looked: () => {},
  };
  const keys = new SourcedKeys(
    { keysOf: (domain) => files[domain] ?? NO_KEYS },
    [source, ...more],
    subdomains,
    parseSigningKey,
    { ttlMs: 60_000, negativeMs: 30_000, staleMs: 3_600_000, entries },
    { now: () => now, elapsed: () => now },
    events,
  );
  const made: Rig = {
    keys,
    tables,
    asked,
    told,
    away: null,
    pass(ms) {
      now += ms;
    },
    async selectors(domain) {
      const found = await keys.keysOf(domain);
      return found.kind === 'usable' ? found.keys.map(({ selector }) => selector) : found.kind;
    },
  };
  return made;
}

const ONE = 'olimpus.example';

describe('forms of a key', () => {
  test.each([
    ['PEM', pem(RSA), 'rsa-sha256'],
    ['PEM of RSA alone', pem(RSA, 'pkcs1'), 'rsa-sha256'],
    ['base64', base64(RSA), 'rsa-sha256'],
    ['base64 of RSA alone', base64(RSA, 'pkcs1'), 'rsa-sha256'],
    ['base64 in lines', base64(RSA).replaceAll(/.{64}/g, '$&\r\n'), 'rsa-sha256'],
    ['Ed25519 as PEM', pem(ED), 'ed25519-sha256'],
    ['Ed25519 as base64', base64(ED), 'ed25519-sha256'],
    ['the 32 octets of Ed25519', seed(), 'ed25519-sha256'],
  ])('%s', async (_, text, algorithm) => {
    const { keys, tables } = rig();
    tables.set(ONE, [row({ selector: 'mail', private_key: text })]);
    const found = await keys.keysOf(ONE);
    if (found.kind !== 'usable') throw new Error(JSON.stringify(found));
    expect(found.keys).toMatchObject([{ domain: ONE, selector: 'mail', subdomains: false, algorithm }]);
    expect(found.keys[0]?.key.equals(algorithm === 'rsa-sha256' ? RSA : ED)).toBe(true);
  });

  const SECRET = base64(RSA).slice(100, 140);
  test.each([
    ['nothing', {}, /the key mail\._domainkey\.olimpus\.example in the table is not there/],
    ['half a key', { private_key: base64(RSA).slice(0, 400) }, /is damaged: no key can be read/],
    ['31 octets', { private_key: Buffer.alloc(31).toString('base64') }, /is damaged/],
    ['words', { private_key: 'see the safe: 7!' }, /neither PEM nor base64/],
    ['a public key', { private_key: '-----BEGIN PUBLIC KEY-----\n' }, /holds the public key/],
    ['65,537 octets', { private_key: 'A'.repeat(65_537) }, /more than 65536 octets/],
    ['an algorithm of another kind', { private_key: base64(ED), algorithm: 'rsa' }, /is one for ed25519/],
    ['an unknown algorithm', { private_key: base64(ED), algorithm: 'dsa' }, /neither rsa-sha256 nor/],
    ['subdomains that are not said', { private_key: base64(ED), subdomains: 'perhaps' }, /neither yes nor/],
    ['a selector with a line end', { private_key: base64(RSA), selector: 'a\r\nX: y' }, /has no selector/],
    ['the key as selector', { private_key: 'mail', selector: base64(RSA) }, /has no selector/],
    ['no selector', { private_key: base64(RSA), selector: ' ' }, /has no selector/],
  ])('%s: broken, and nothing of it is told', async (_, columns, why) => {
    const { keys, tables, told } = rig();
    tables.set(ONE, [row({ selector: 'mail', ...columns })]);
    const found = await keys.keysOf(ONE);
    expect(found.kind === 'broken' ? found.why : '').toMatch(why);
    expect(told).toHaveLength(1);
    expect(JSON.stringify(told)).not.toContain(SECRET);
    expect(JSON.stringify(told)).not.toContain('safe');
  });

  test('several values in one column are none', async () => {
    const { keys, tables } = rig();
    tables.set(ONE, [
      new Map([
        ['selector', ['mail']],
        ['private_key', [base64(RSA), base64(ED)]],
      ]),
    ]);
    expect(await keys.keysOf(ONE)).toMatchObject({ kind: 'broken' });
  });

  test.each([
    ['1', true],
    ['t', true],
    ['no', false],
    ['0', false],
  ])('subdomains = %j', async (subdomains, expected) => {
    const { keys, tables } = rig({}, !expected);
    tables.set(ONE, [row({ selector: 'mail', private_key: base64(ED), subdomains })]);
    expect(await keys.keysOf(ONE)).toMatchObject({ keys: [{ subdomains: expected }] });
  });
});

describe('several keys', () => {
  test('a broken one is left out while another can be used', async () => {
    const { selectors, tables, told } = rig();
    const broken = row({ selector: 'b', private_key: 'AAAA' });
    tables.set(ONE, [
      row({ selector: 'a', private_key: pem(RSA) }),
      broken,
      row({ selector: 'c', private_key: seed() }),
    ]);
    expect(await selectors(ONE)).toEqual(['a', 'c']);
    expect(told).toHaveLength(3);
  });

  test(`${KEYS_LIMIT} are taken, one more is a mistake`, async () => {
    const { selectors, tables, told } = rig();
    const many = Array.from({ length: KEYS_LIMIT + 1 }, (_, index) =>
      row({ selector: `s${index}`, private_key: pem(RSA) }),
    );
    tables.set(ONE, many.slice(1));
    tables.set('two.example', many);
    expect(await selectors(ONE)).toHaveLength(KEYS_LIMIT);
    expect(await selectors('two.example')).toBe('broken');
    expect(told.at(-1)).toContain(`more than ${KEYS_LIMIT} keys`);
  });

  test('files come before sources, and a source before the next', async () => {
    const inFile: DomainKeys = {
      kind: 'usable',
      keys: [{ domain: ONE, selector: 'file', subdomains: false, algorithm: 'rsa-sha256', key: RSA }],
    };
    const second: KeySource = {
      where: 'the other table',
      rowsOf: () => Promise.resolve([row({ selector: 'second', private_key: pem(RSA) })]),
    };
    const { selectors, tables, asked } = rig({ [ONE]: inFile }, false, 100, [second]);
    tables.set(ONE, [row({ selector: 'table', private_key: pem(RSA) })]);
    tables.set('two.example', [row({ selector: 'first', private_key: pem(RSA) })]);
    expect(await selectors(ONE)).toEqual(['file']);
    expect(await selectors('two.example')).toEqual(['first']);
    expect(await selectors('three.example')).toEqual(['second']);
    expect(asked).toEqual(['two.example', 'three.example']);
  });
});

describe('what is remembered', () => {
  test('answers at once, for as long as it is new, and asks once for many', async () => {
    const { keys, tables, asked, pass } = rig();
    tables.set(ONE, [row({ selector: 'a', private_key: pem(RSA) })]);
    await Promise.all([keys.keysOf(ONE), keys.keysOf(ONE), keys.keysOf('none.example')]);
    pass(30_000);
    expect(keys.keysOf(ONE)).toMatchObject({ kind: 'usable' });
    expect(keys.keysOf('none.example')).toEqual(NO_KEYS);
    expect(asked).toEqual([ONE, 'none.example']);
    pass(30_001);
    await keys.keysOf(ONE);
    expect(asked).toHaveLength(3);
  });

  test('a key that is read again is the same object, and nothing is told', async () => {
    const { keys, tables, told, pass } = rig();
    tables.set(ONE, [row({ selector: 'a', private_key: pem(RSA) })]);
    const before = await keys.keysOf(ONE);
    pass(60_001);
    const after = await keys.keysOf(ONE);
    if (before.kind !== 'usable' || after.kind !== 'usable') throw new Error('no keys');
    expect(after.keys[0]?.key).toBe(before.keys[0]?.key);
    expect(told).toEqual([`loaded a ${ONE} the table`]);
  });

  test('another key, a broken one, and none are told of', async () => {
    const { selectors, tables, told, pass } = rig();
    for (const text of [pem(RSA), pem(OTHER), 'AAAA', 'AAAA', null]) {
      tables.set(ONE, text === null ? [] : [row({ selector: 'a', private_key: text })]);
      await selectors(ONE);
      pass(60_001);
    }
    expect(told.map((line) => line.split(' ')[0])).toEqual(['loaded', 'loaded', 'broken', 'gone']);
  });

  test('stands in while the source is away; what is not known is not made up', async () => {
    const made = rig();
    made.tables.set(ONE, [row({ selector: 'a', private_key: pem(RSA) })]);
    await made.selectors(ONE);
    made.away = new NeighbourError('away');
    made.pass(61_000);
    expect(await made.selectors(ONE)).toEqual(['a']);
    await expect(made.selectors('two.example')).rejects.toThrow(NeighbourError);
    made.pass(3_600_000);
    await expect(made.selectors(ONE)).rejects.toThrow(NeighbourError);
  });

  test('is bounded, and what is dropped is watched no more', async () => {
    const { keys, tables, told } = rig({}, false, 2);
    for (const domain of ['a.example', 'b.example', 'c.example']) {
      tables.set(domain, [row({ selector: 's', private_key: pem(RSA) })]);
      await keys.keysOf(domain);
    }
    expect(told.at(-1)).toBe('gone s a.example');
    expect(keys.counts).toEqual({ usable: 2, broken: 0 });
    keys.forget();
    expect(told.slice(-2).toSorted()).toEqual(['gone s b.example', 'gone s c.example']);
    expect(keys.counts).toEqual({ usable: 0, broken: 0 });
  });
});

test.each(['', 'a b', "x' OR '1'='1", 'a\u0000b', '*', 'a..b', `${'a.'.repeat(127)}b`, 'm\xfcller.example'])(
  'nobody is asked about %j',
  async (domain) => {
    const { keys, asked } = rig();
    expect(await keys.keysOf(domain)).toEqual(NO_KEYS);
    expect(asked).toEqual([]);
  },
);

function redis(hashes: Readonly<Record<string, Readonly<Record<string, string>>>>): Promise<readonly Row[]> {
  const calls = {
    fields: (key: string, names: readonly string[]) =>
      Promise.resolve(names.map((name) => hashes[key]?.[name] ?? null)),
  };
  return new RedisKeys('Redis', calls, { keys: 'k', selectors: 's' }).rowsOf(ONE);
}

describe('the hashes of Redis', () => {
  test('several selectors of a domain, one without a key', async () => {
    expect(await redis({ s: { [ONE]: 'a, b' }, k: { [`a.${ONE}`]: 'KEY' } })).toEqual([
      new Map([
        ['selector', ['a']],
        ['private_key', ['KEY']],
      ]),
      new Map([
        ['selector', ['b']],
        ['private_key', []],
      ]),
    ]);
  });

  test('no selector: no keys', async () => {
    expect(await redis({ s: {}, k: { [`a.${ONE}`]: 'KEY' } })).toEqual([]);
  });

  test('too many selectors are not asked for', async () => {
    const names = Array.from({ length: KEYS_LIMIT + 1 }, (_, index) => `s${index}`);
    expect(await redis({ s: { [ONE]: names.slice(1).join(' ') } })).toHaveLength(KEYS_LIMIT);
    await expect(redis({ s: { [ONE]: names.join(' ') } })).rejects.toThrow(NeighbourError);
  });
});
