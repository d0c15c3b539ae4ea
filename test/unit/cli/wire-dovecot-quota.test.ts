import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { dovecotQuotaLines } from '../../../src/cli/wire-dovecot-quota.ts';
import { loadConfig } from '../../../src/config/load.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-wire-quota-'));
});

afterAll(() => rm(folder, { recursive: true }));

async function lines(...toml: readonly string[]): Promise<string> {
  const path = join(folder, 'postern.toml');
  await writeFile(path, toml.join('\n'));
  const result = await loadConfig(path);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return dovecotQuotaLines(result.config).join('\n');
}

test('nothing when nobody is to be asked', async () => {
  expect(await lines()).toBe('');
});

test('quota_clone over TCP, and doveadm with the file of its key', async () => {
  const text = await lines(
    'dovecot.doveadm = "127.0.0.1:8080"',
    'dovecot.api_key_file = "doveadm.key"',
    'dovecot.quota_clone.address = "127.0.0.1:6379"',
  );
  for (const line of [
    'quota_full_tempfail = yes',
    'mail_plugins = $mail_plugins quota quota_clone',
    '  quota_clone_dict = redis:host=127.0.0.1:port=6379:prefix=dovecot-quota/',
    `doveadm_api_key = <${join(folder, 'doveadm.key')}`,
    '    address = 127.0.0.1\n    port = 8080',
  ]) {
    expect(`${text}\n`).toContain(`${line}\n`);
  }
});

test('quota_clone over a socket, with a database and a password; a prefix that Dovecot 2.3 does not take is told', async () => {
  const socket = 'dovecot.quota_clone.address = "unix:/run/redis/redis.sock"';
  const text = await lines(
    socket,
    'dovecot.quota_clone.prefix = ""',
    'dovecot.quota_clone.database = 3',
    'dovecot.quota_clone.password_file = "redis.password"',
  );
  expect(text).toContain('  quota_clone_dict = redis:path=/run/redis/redis.sock:db=3\n');
  expect(text).toContain(join(folder, 'redis.password'));
  expect(text).not.toContain('service doveadm');
  expect(await lines(socket, 'dovecot.quota_clone.prefix = "dq:"')).toContain('takes no colon in prefix');
  expect(text).not.toContain('takes no colon in prefix');
});

test('doveadm over a socket: not with Dovecot 2.3', async () => {
  const text = await lines(
    'dovecot.doveadm = "unix:/run/dovecot/doveadm-http"',
    'dovecot.api_key_file = "k"',
  );
  expect(text).toContain('Dovecot 2.3 takes HTTP over TCP only');
  expect(text).not.toContain('inet_listener');
});
