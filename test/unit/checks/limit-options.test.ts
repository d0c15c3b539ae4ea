import { expect, test } from 'vitest';
import { z } from 'zod';

import { limitsCheck } from '../../../src/checks/limits.ts';
import { periodText } from '../../../src/checks/limit-options.ts';

const LIMIT = { name: 'x', per: ['login'], most: 10, period: '1h' };

function bind(...limit: object[]): () => unknown {
  return () => limitsCheck.bind({ limit }, 1);
}

test.each([
  { name: 'a' },
  { name: 'a'.repeat(40) },
  { name: 'a-1-b' },
  { most: 1 },
  { most: 2 ** 50 },
  { of: 'bytes', most: '500MiB' },
  { of: 'bytes', most: 500 },
  { period: '1s' },
  { period: '366d' },
  { per: ['login', 'client', 'sender', 'recipient'] },
  { per: ['all'] },
  { text: 'x'.repeat(200) },
  { algorithm: 'bucket', of: 'connections', action: 'hold', direction: 'in' },
])('%j is a limit', (values) => {
  expect(bind({ ...LIMIT, ...values })).not.toThrow();
});

test.each([
  { name: '' },
  { name: 'a'.repeat(41) },
  { name: 'A' },
  { name: '-a' },
  { name: 'a.b' },
  { name: 'a b' },
  { most: 0 },
  { most: 1.5 },
  { most: 2 ** 50 + 1 },
  { most: '10' },
  { most: '-1B' },
  { most: '2MiB' },
  { of: 'bytes', most: '0B' },
  { of: 'recipients', most: '1KiB' },
  { period: '999ms' },
  { period: '367d' },
  { period: 3600 },
  { per: [] },
  { per: ['login', 'login'] },
  { per: ['login', 'all'] },
  { per: ['nobody'] },
  { per: 'login' },
  { of: 'letters' },
  { action: 'discard' },
  { text: '' },
  { text: 'x'.repeat(201) },
  { text: 'a\r\nb' },
  { logins: 'zeus' },
  { clients: ['example.org'] },
  { unknown: true },
])('%j is a mistake', (values) => {
  expect(bind({ ...LIMIT, ...values })).toThrow(z.ZodError);
});

test.each(['name', 'per', 'most', 'period'])('%s must be said', (key) => {
  const { [key]: _, ...rest } = { ...LIMIT } as Record<string, unknown>;
  expect(bind(rest)).toThrow(z.ZodError);
});

test('two limits with one name', () => {
  expect(bind(LIMIT, { ...LIMIT, name: 'y' })).not.toThrow();
  expect(bind(LIMIT, { ...LIMIT, most: 5 })).toThrow('expected different names');
});

function many(count: number): object[] {
  return Array.from({ length: count }, (_, index) => ({ ...LIMIT, name: `l${index}` }));
}

test('as many limits as are taken, and one more', () => {
  expect(bind(...many(100))).not.toThrow();
  expect(bind(...many(101))).toThrow(z.ZodError);
});

test.each([
  [1000, '1s'],
  [90_000, '90s'],
  [3_600_000, '1h'],
  [5_400_000, '90m'],
  [86_400_000, '1d'],
  [1500, '1500ms'],
])('%i ms is %s', (ms, text) => {
  expect(periodText(ms)).toBe(text);
});
