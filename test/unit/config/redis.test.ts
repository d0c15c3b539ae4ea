import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { formatProblem } from '../../../src/config/errors.ts';
import { loadConfig, type LoadResult } from '../../../src/config/load.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-redis-config-'));
  const put = (name: string, text: string, mode = 0o600): Promise<void> =>
    writeFile(join(folder, name), text, { mode });
  await put('redis.password', 'open sesame\n');
  await put('open.password', 'open sesame\n', 0o644);
  await put('empty.password', '\n');
  await put('ca.pem', '-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n', 0o644);
});

afterAll(() => rm(folder, { recursive: true }));

async function load(lines: readonly string[]): Promise<LoadResult> {
  const path = join(folder, 'postern.toml');
  await writeFile(path, ['[state.redis]', ...lines, ''].join('\n'));
  return loadConfig(path);
}

test('no Redis unless there is an address, and then no file of it is read', async () => {
  const result = await load(['password_file = "absent"', 'tls_ca_file = "absent"']);
  expect(result.ok && result.config.file.state.redis).toMatchObject({ address: null, timeout: 250 });
  expect(result.ok && result.config.redis).toEqual({ password: null, sentinelPassword: null, ca: null });
});

test('everything that can be said', async () => {
  const result = await load([
    'address = "redis.example.org:6380"',
    'username = "postern"',
    'password_file = "redis.password"',
    'database = 3',
    'tls = true',
    'tls_ca_file = "ca.pem"',
    'prefix = "mail:"',
    'timeout = "1s"',
    'history_entries = 1000',
    'handover = "1m"',
  ]);
  if (!result.ok) throw new Error(result.problems.map(formatProblem).join('\n'));
  expect(result.config.file.state.redis).toEqual({
    address: { kind: 'tcp', host: 'redis.example.org', port: 6380 },
    addresses: [],
    cluster: false,
    sentinels: [],
    master: null,
    sentinel_password_file: null,
    username: 'postern',
    password_file: 'redis.password',
    database: 3,
    tls: true,
    tls_ca_file: 'ca.pem',
    prefix: 'mail:',
    timeout: 1000,
    history_entries: 1000,
    handover: 60_000,
  });
  expect((await load(['address = "127.0.0.1:6379"', 'history_entries = 999'])).ok).toBe(false);
  expect((await load(['address = "127.0.0.1:6379"', 'handover = "59s"'])).ok).toBe(false);
  expect(result.config.redis.password).toBe('open sesame');
  expect(result.config.redis.ca).toContain('BEGIN CERTIFICATE');
});

test('a Cluster, and Sentinels with a password of their own', async () => {
  const cluster = await load(['addresses = ["192.0.2.1:7000", "[2001:db8::1]:7000"]', 'cluster = true']);
  expect(cluster.ok && cluster.config.file.state.redis).toMatchObject({
    cluster: true,
    addresses: [
      { host: '192.0.2.1', port: 7000 },
      { host: '2001:db8::1', port: 7000 },
    ],
  });
  const watched = await load([
    'sentinels = ["192.0.2.1:26379"]',
    'master = "mail"',
    'sentinel_password_file = "redis.password"',
  ]);
  expect(watched.ok && watched.config.file.state.redis).toMatchObject({ master: 'mail' });
  expect(watched.ok && watched.config.redis).toMatchObject({
    sentinelPassword: 'open sesame',
    password: null,
  });
});

describe('mistakes', () => {
  const ADDRESS = 'address = "127.0.0.1:6379"';
  test.each([
    [['address = "redis://127.0.0.1"'], /^2:\d+ state\.redis\.address: .*expected "host:port"/],
    [['url = "redis://127.0.0.1"'], /^2:1 state\.redis\.url: /],
    [[ADDRESS, 'password = "x"'], /^3:1 state\.redis\.password: .*did you mean "password_file"/],
    [[ADDRESS, 'password_file = "absent"'], /^3:\d+ state\.redis\.password_file: .*does not exist/],
    [[ADDRESS, 'password_file = "open.password"'], /^3:\d+ .*open to everybody \(mode 0644\)/],
    [[ADDRESS, 'password_file = "empty.password"'], /^3:\d+ .*does not hold one line of text/],
    [[ADDRESS, 'username = "postern"'], /^3:\d+ state\.redis\.username: .*without a password/],
    [['address = "unix:/run/redis.sock"', 'tls = true'], /^3:\d+ state\.redis\.tls: .*not encrypted/],
    [[ADDRESS, 'tls_ca_file = "ca.pem"'], /^3:\d+ state\.redis\.tls_ca_file: .*without TLS/],
    [[ADDRESS, 'tls = true', 'tls_ca_file = "absent"'], /^4:\d+ state\.redis\.tls_ca_file: .*does not exist/],
    [[ADDRESS, 'tls = true', 'tls_ca_file = "redis.password"'], /^4:\d+ .*holds no certificate/],
    [[ADDRESS, 'prefix = "{mail}:"'], /^3:\d+ state\.redis\.prefix: .*without \{ and \}/],
    [[ADDRESS, 'addresses = ["127.0.0.1:1"]', 'cluster = true'], /^3:\d+ .*addresses: .*set one of them/],
    [['addresses = ["127.0.0.1:1"]'], /^2:\d+ state\.redis\.addresses: .*set cluster = true/],
    [['addresses = ["unix:/a"]', 'cluster = true'], /^2:\d+ .*addresses: .*expected "host:port"/],
    [['cluster = true'], /^2:\d+ state\.redis\.cluster: .*without a node/],
    [[ADDRESS, 'cluster = true', 'database = 1'], /^4:\d+ state\.redis\.database: .*one database/],
    [['sentinels = ["127.0.0.1:1"]'], /^2:\d+ state\.redis\.sentinels: .*set master/],
    [[ADDRESS, 'sentinels = ["127.0.0.1:1"]', 'master = "m"'], /^3:\d+ .*sentinels: .*and an address/],
    [[ADDRESS, 'master = "m"'], /^3:\d+ state\.redis\.master: .*set sentinels/],
    [[ADDRESS, 'database = -1'], /^3:\d+ state\.redis\.database: /],
    [[ADDRESS, 'timeout = "0s"'], /^3:\d+ state\.redis\.timeout: .*above "0s"/],
  ])('%j', async (lines, says) => {
    const result = await load(lines);
    if (result.ok) throw new Error('no mistake was found');
    const [problem = '', ...more] = result.problems.map((each) =>
      formatProblem(each)
        .replace(/^.*?postern\.toml:/, '')
        .replace(/^(\d+:\d+):?/, '$1'),
    );
    expect(problem).toMatch(says);
    expect(more).toEqual([]);
    expect(problem).not.toContain('sesame');
  });
});
