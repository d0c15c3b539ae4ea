import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { loadConfig } from '../../../src/config/load.ts';
import { LARGEST_HEADER_FILE } from '../../../src/config/webhook-header.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-notices-'));
});

afterAll(() => rm(folder, { recursive: true }));

async function load(notices: string): ReturnType<typeof loadConfig> {
  const path = join(folder, 'postern.toml');
  await writeFile(path, `site.hostname = "mx.example.org"\n[notices]\n${notices}\n`);
  return loadConfig(path);
}

async function problemOf(notices: string): Promise<string> {
  const result = await load(notices);
  if (result.ok) throw new Error('this was taken');
  return result.problems.map(({ key, wrong, remedy }) => `${key}: ${wrong}: ${remedy}`).join('\n');
}

test.each([
  '',
  'mail_to = ["postmaster@example.org", "a+b@x.example"]\nmail_from = "postern@example.org"',
  'smtp = "[::1]:25"',
  'webhook = "https://example.org/hook?key=1"',
  'webhook = "http://127.0.0.1:9/"',
  'repeat = "1m"\nper_hour = 1\ntimeout = "1s"',
])('%j is taken', async (notices) => {
  expect(await load(notices)).toMatchObject({ ok: true, config: { notices: { webhookHeader: null } } });
});

test.each([
  ['mail_to = ["a b@x.example"]', 'notices.mail_to'],
  ['mail_to = ["a@x.example\\r\\nDATA"]', 'notices.mail_to'],
  ['mail_to = ["<a@x.example>"]', 'notices.mail_to'],
  [`mail_to = [${Array<string>(21).fill('"a@b.example"').join(', ')}]`, 'notices.mail_to'],
  ['mail_from = "postern"', 'notices.mail_from'],
  ['smtp = "unix:/run/smtp"', 'notices.smtp'],
  ['smtp = "127.0.0.1:0"', 'notices.smtp'],
  ['webhook = "ftp://example.org/"', 'notices.webhook'],
  ['webhook = "https://user:secret@example.org/"', 'notices.webhook'],
  ['webhook = "example.org"', 'notices.webhook'],
  ['repeat = "59s"', 'notices.repeat'],
  ['repeat = "8d"', 'notices.repeat'],
  ['per_hour = 0', 'notices.per_hour'],
])('%s is a mistake', async (notices, key) => {
  expect(await problemOf(notices)).toContain(key);
});

async function header(text: string, mode = 0o600): Promise<string> {
  const path = join(folder, 'header');
  await writeFile(path, text);
  await chmod(path, mode);
  return 'webhook_header_file = "header"';
}

describe('the header file', () => {
  test.each([
    ['Authorization: Bearer ambrosia\n', 'Authorization', 'Bearer ambrosia'],
    ['X-Key:nectar', 'X-Key', 'nectar'],
    ['X-Key: a\r\n', 'X-Key', 'a'],
  ])('%j', async (text, name, value) => {
    expect(await load(await header(text))).toMatchObject({
      ok: true,
      config: { notices: { webhookHeader: { name, value } } },
    });
  });

  test.each([
    ['', 'holds no header field'],
    ['Bearer secret', 'holds no header field'],
    ['X-Key: secret\nX-Other: secret\n', 'holds no header field'],
    ['X-Key: secr\u00e9t', 'holds no header field'],
    ['X Key: secret', 'holds no header field'],
    ['X-Key: ', 'holds no header field'],
    ['Host: secret.example', 'holds the field Host'],
    ['content-length: 3', 'holds the field content-length'],
    [`X-Key: ${'s'.repeat(LARGEST_HEADER_FILE)}`, `more than ${LARGEST_HEADER_FILE} octets`],
  ])('%j is a mistake, and its text is in no message', async (text, wrong) => {
    const problem = await problemOf(await header(text));
    expect(problem).toContain(wrong);
    expect(problem).not.toContain('secret');
  });

  test('the longest file is read', async () => {
    const value = 's'.repeat(LARGEST_HEADER_FILE - 'X-Key: '.length);
    expect(await load(await header(`X-Key: ${value}`))).toMatchObject({
      config: { notices: { webhookHeader: { value } } },
    });
  });

  test.each([
    [0o640, 'open to its group'],
    [0o604, 'open to everybody'],
  ])('with permissions %o it is a mistake', async (mode, wrong) => {
    expect(await problemOf(await header('X-Key: a', mode))).toContain(wrong);
  });

  test('a credential of systemd, whatever its mode', async () => {
    await header('X-Key: nectar', 0o640);
    const named = 'webhook_header_file = "credential:header"';
    expect(await problemOf(named)).toContain('/run/credentials/header');
    vi.stubEnv('CREDENTIALS_DIRECTORY', folder);
    try {
      expect(await load(named)).toMatchObject({
        config: { notices: { webhookHeader: { name: 'X-Key', value: 'nectar' } } },
      });
    } finally {
      vi.unstubAllEnvs();
    }
  });

  test('a file that is not there', async () => {
    expect(await problemOf('webhook_header_file = "nowhere"')).toContain('it does not exist');
  });
});
