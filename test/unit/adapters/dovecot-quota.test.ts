import { beforeEach, describe, expect, test } from 'vitest';

import type { QuotaRoot } from '../../../src/adapters/doveadm.ts';
import { DovecotQuota, USAGE_MS, type Grace } from '../../../src/adapters/dovecot-quota.ts';
import { QuotaClone } from '../../../src/adapters/quota-clone.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import { FakeClock } from '../../support/decisions.ts';

const NEVER = new AbortController().signal;
const ZEUS = 'zeus@olimpus.example';

let clock: FakeClock;
let looks: string[];
let asked: string[];
/** What doveadm says; an error, or nothing for a question that is never answered. */
let roots: readonly QuotaRoot[] | null | Error | undefined;
let cloned: Map<string, string>;
let redisFails: boolean;
let quotas: Map<string, number | null>;

beforeEach(() => {
  clock = new FakeClock();
  looks = [];
  asked = [];
  roots = [root(100, 1000)];
  cloned = new Map();
  redisFails = false;
  quotas = new Map();
});

function root(used: number, limit: number | null, name = 'User quota'): QuotaRoot {
  return { name, used, limit };
}

interface Parts {
  readonly clone?: boolean;
  readonly doveadm?: boolean;
  readonly grace?: Grace;
  readonly localPartOnly?: boolean;
}

function source({
  clone = true,
  doveadm = true,
  grace = { percent: 10 },
  localPartOnly = false,
}: Parts = {}): DovecotQuota {
  const redis = {
    texts(keys: readonly string[]) {
      if (redisFails) return Promise.reject(new NeighbourError('redis is away'));
      return Promise.resolve(keys.map((key) => cloned.get(key) ?? null));
    },
  };
  return new DovecotQuota(
    { grace, localPartOnly, limitsMs: 60_000 },
    {
      directory: {
        account: (name) => {
          const quota = quotas.get(name);
          return { limits: new Map(), senders: [], ...(quota === undefined ? {} : { quota }) };
        },
      },
      clone: clone ? new QuotaClone(redis, 'dq/') : null,
      doveadm: doveadm
        ? {
            quota(user) {
              asked.push(user);
              if (roots === undefined) return new Promise(() => {});
              return roots instanceof Error ? Promise.reject(roots) : Promise.resolve(roots);
            },
          }
        : null,
    },
    clock,
    { looked: (result) => looks.push(result) },
  );
}

async function graceOf(grace: Grace): Promise<number | undefined> {
  return (await source({ clone: false, grace }).usage(ZEUS, NEVER))?.grace;
}

describe('usage', () => {
  test('from Redis, each time; the limit from doveadm, once in a while', async () => {
    const quota = source();
    cloned.set(`dq/${ZEUS}/quota/storage`, '500');
    expect(await quota.usage(ZEUS, NEVER)).toEqual({ used: 500, limit: 1000, grace: 100, source: 'redis' });
    cloned.set(`dq/${ZEUS}/quota/storage`, '600');
    roots = [root(0, 2000)];
    clock.time += 59_000;
    expect(await quota.usage(ZEUS, NEVER)).toMatchObject({ used: 600, limit: 1000 });
    clock.time += 2000;
    expect(await quota.usage(ZEUS, NEVER)).toMatchObject({ used: 600, limit: 2000, grace: 200 });
    expect(asked).toEqual([ZEUS, ZEUS]);
    expect(looks).toEqual(['redis', 'redis', 'redis']);
  });

  test('from doveadm where Redis knows nothing, or no number', async () => {
    const quota = source();
    expect(await quota.usage(ZEUS, NEVER)).toMatchObject({ used: 100, source: 'doveadm' });
    cloned.set(`dq/${ZEUS}/quota/storage`, '-5');
    clock.time += USAGE_MS;
    expect(await quota.usage(ZEUS, NEVER)).toMatchObject({ used: 100 });
    cloned.set(`dq/${ZEUS}/quota/storage`, 'many');
    clock.time += 1;
    expect(await quota.usage(ZEUS, NEVER)).toMatchObject({ used: 100 });
    expect(asked).toHaveLength(2);
    expect(looks).toEqual(['doveadm', 'cache', 'doveadm']);
  });

  test('the limit of the directory needs no question', async () => {
    quotas.set(ZEUS, 700);
    cloned.set(`dq/${ZEUS}/quota/storage`, '500');
    expect(await source().usage(ZEUS, NEVER)).toEqual({ used: 500, limit: 700, grace: 70, source: 'redis' });
    quotas.set(ZEUS, null);
    expect(await source().usage(ZEUS, NEVER)).toMatchObject({ limit: null, grace: 0 });
    expect(asked).toEqual([]);
    quotas.set(ZEUS, 700);
    expect(await source({ clone: false }).usage(ZEUS, NEVER)).toMatchObject({ used: 100, limit: 700 });
  });

  test('an unknown user, a root that is not there, and Redis alone that knows nothing: unknown', async () => {
    roots = null;
    expect(await source().usage(ZEUS, NEVER)).toBeNull();
    cloned.set(`dq/${ZEUS}/quota/storage`, '500');
    expect(await source().usage(ZEUS, NEVER)).toBeNull();
    roots = [];
    expect(await source({ clone: false }).usage(ZEUS, NEVER)).toBeNull();
    cloned.clear();
    expect(await source({ doveadm: false }).usage(ZEUS, NEVER)).toBeNull();
    expect(looks).toEqual(['unknown', 'unknown', 'unknown', 'unknown']);
    cloned.set(`dq/${ZEUS}/quota/storage`, '500');
    expect(await source({ doveadm: false }).usage(ZEUS, NEVER)).toMatchObject({ used: 500, limit: null });
  });

  test('of several roots the one with the least room; Redis has the first', async () => {
    roots = [root(100, 1000), root(900, 1000, 'Shared'), root(5, null, 'None')];
    expect(await source({ clone: false }).usage(ZEUS, NEVER)).toMatchObject({ used: 900, limit: 1000 });
    cloned.set(`dq/${ZEUS}/quota/storage`, '950');
    expect(await source().usage(ZEUS, NEVER)).toMatchObject({ used: 950, limit: 1000 });
  });

  test('grace in octets, or as a share', async () => {
    expect(await graceOf({ octets: 77 })).toBe(77);
    expect(await graceOf({ percent: 33 })).toBe(330);
    expect(await graceOf({ percent: 0 })).toBe(0);
  });

  test('names as Dovecot has them, and a slash as dict-redis.c escapes it', async () => {
    cloned.set('dq/zeus/quota/storage', '500');
    expect(await source({ localPartOnly: true }).usage(ZEUS, NEVER)).toMatchObject({ used: 500 });
    expect(asked).toEqual(['zeus']);
    cloned.set(String.raw`dq/a\-b\\c@x/quota/storage`, '501');
    expect(await source().usage(String.raw`a/b\c@x`, NEVER)).toMatchObject({ used: 501 });
    cloned.set(String.raw`dq/b\c@x/quota/storage`, '502');
    expect(await source().usage(String.raw`b\c@x`, NEVER)).toMatchObject({ used: 502 });
    cloned.set('dq/z\u00e9us@x/quota/storage', '503');
    expect(await source().usage('z\u00c3\u00a9us@x', NEVER)).toMatchObject({ used: 503 });
  });
});

describe('trouble', () => {
  test('while Redis is away doveadm stands in; without it that is told', async () => {
    redisFails = true;
    expect(await source().usage(ZEUS, NEVER)).toMatchObject({ source: 'doveadm' });
    await expect(source({ doveadm: false }).usage(ZEUS, NEVER)).rejects.toThrow('redis is away');
    expect(looks).toEqual(['doveadm', 'failed']);
  });

  test('what Redis has is no number, and nobody else can tell: unavailable', async () => {
    for (const nonsense of ['-5', 'many', '', '1e3', '1'.repeat(16)]) {
      cloned.set(`dq/${ZEUS}/quota/storage`, nonsense);
      await expect(source({ doveadm: false }).usage(ZEUS, NEVER)).rejects.toThrow(NeighbourError);
    }
    cloned.set(`dq/${ZEUS}/quota/storage`, '1'.repeat(15));
    expect(await source({ doveadm: false }).usage(ZEUS, NEVER)).toMatchObject({ used: 111_111_111_111_111 });
    expect(looks).toEqual([...Array.from({ length: 5 }, () => 'failed'), 'redis']);
  });

  test('one question at a time for a user, whoever asks; a failure is told to all of them and not kept', async () => {
    const quota = source({ clone: false });
    roots = new NeighbourError('doveadm is away');
    const both = await Promise.allSettled([quota.usage(ZEUS, NEVER), quota.usage(ZEUS, NEVER)]);
    expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(asked).toHaveLength(1);
    roots = [root(1, 2)];
    expect(await quota.usage(ZEUS, NEVER)).toMatchObject({ used: 1 });
  });

  test('who gives up waits no longer, before and while the question is under way', async () => {
    roots = undefined;
    const quota = source({ clone: false });
    const controller = new AbortController();
    const waiting = quota.usage(ZEUS, controller.signal);
    controller.abort(new Error('deadline'));
    await expect(waiting).rejects.toThrow('given up');
    await expect(quota.usage(ZEUS, controller.signal)).rejects.toThrow('given up');
    expect(asked).toHaveLength(1);
  });
});
