import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { loadConfig, type LoadResult } from '../../../src/config/load.ts';
import { usesTls } from '../../../src/config/upstream.ts';
import { formatSocketAddress, parseSocketAddress } from '../../../src/config/values.ts';

let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-upstream-'));
  await writeFile(join(folder, 'ca.pem'), '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n');
  await writeFile(join(folder, 'empty.pem'), 'nothing\n');
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function load(...lines: readonly string[]): Promise<LoadResult> {
  const path = join(folder, 'postern.toml');
  await writeFile(path, `[lmtp-filter]\n${lines.join('\n')}\n`);
  return loadConfig(path);
}

async function mistake(...lines: readonly string[]): Promise<string> {
  const result = await load(...lines);
  if (result.ok) throw new Error('expected a mistake');
  return result.problems.map(({ position, key, wrong }) => `${position?.line} ${key}: ${wrong}`).join('\n');
}

test('one Dovecot, or a list of them, with the certificates they must show', async () => {
  const one = await load('upstream = "127.0.0.1:24"');
  expect(one.ok && one.config.file['lmtp-filter'].upstream.map(formatSocketAddress)).toEqual([
    '127.0.0.1:24',
  ]);
  const several = await load(
    'upstream = ["dovecot1.example.org:24", "[2001:db8::1]:24"]',
    'upstream_ca_file = "ca.pem"',
    'upstream_tls_name = "dovecot.example.org"',
  );
  expect(several.ok && several.config.file['lmtp-filter'].upstream.map(formatSocketAddress)).toEqual([
    'dovecot1.example.org:24',
    '[2001:db8::1]:24',
  ]);
  expect(several.ok && several.config.upstreamTls.ca).toContain('BEGIN CERTIFICATE');
});

test.each([
  [['upstream = []'], /^2 lmtp-filter\.upstream: /],
  [['upstream = 24'], /^2 lmtp-filter\.upstream: /],
  [['upstream = ["127.0.0.1:24", "nonsense"]'], /^2 lmtp-filter\.upstream: /],
  [['upstream = ["192.0.2.1:24", "192.0.2.1:24"]'], /^2 lmtp-filter\.upstream: .*192\.0\.2\.1:24.* twice/],
  [
    ['upstream = ["192.0.2.1:24", "127.0.0.1:8891"]'],
    /^2 lmtp-filter\.upstream: mail would be delivered to milter\.listen/,
  ],
  [['upstream_ca_file = "ca.pem"'], /^2 lmtp-filter\.upstream_ca_file: .*without TLS/],
  [['upstream = "192.0.2.1:24"', 'upstream_ca_file = "absent"'], /^3 .*does not exist/],
  [['upstream = "192.0.2.1:24"', 'upstream_ca_file = "empty.pem"'], /^3 .*holds no certificate/],
  [['full_mailbox_wait = "31d"'], /^2 lmtp-filter\.full_mailbox_wait: /],
])('%j is a mistake', async (lines, expected) => {
  expect(await mistake(...lines)).toMatch(expected);
});

test.each([
  ['unix:/run/dovecot/lmtp', false, false],
  ['127.0.0.1:24', false, true],
  ['127.9.9.9:24', false, true],
  ['[::1]:24', false, true],
  ['localhost:24', false, true],
  ['localhost.example.org:24', true, true],
  ['192.0.2.1:24', true, true],
  ['dovecot.example.org:24', true, true],
])('%s is encrypted by "remote": %s, by "always": %s', (text, remote, always) => {
  const address = parseSocketAddress(text);
  if (address === null) throw new Error('no address');
  expect([usesTls(address, 'remote'), usesTls(address, 'always'), usesTls(address, 'never')]).toEqual([
    remote,
    always,
    false,
  ]);
});
