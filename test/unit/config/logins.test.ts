import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { dovecotLines, loginLines } from '../../../src/cli/wire-dovecot.ts';
import { loadConfig, type LoadResult } from '../../../src/config/load.ts';

const SECRET = '0123456789abcdef';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-logins-config-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function load(
  text: string,
  header: string | null = `X-API-Key: ${SECRET}`,
  mode = 0o600,
): Promise<LoadResult> {
  const path = join(folder, 'postern.toml');
  const key = join(folder, 'logins.key');
  await writeFile(path, text);
  await rm(key, { force: true });
  if (header !== null) {
    await writeFile(key, header);
    await chmod(key, mode);
  }
  return loadConfig(path);
}

const ON = '[logins]\nenabled = true\napi_key_file = "logins.key"\n';

async function config(text: string): Promise<Extract<LoadResult, { ok: true }>> {
  const result = await load(text);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result;
}

async function problem(text: string, header?: string | null, mode?: number): Promise<unknown> {
  const result = await load(text, header, mode);
  return result.ok ? null : result.problems.map(({ key, wrong, remedy }) => `${key}: ${wrong}; ${remedy}`);
}

describe('the secret', () => {
  test('is read from the header that Dovecot sends', async () => {
    const { config: read, notes } = await config(ON);
    expect(read.logins).toEqual({ apiKey: SECRET });
    expect(notes.filter((note) => note.startsWith('logins'))).toEqual([]);
  });

  test.each([SECRET, 'x'.repeat(256)])('of %j is taken', async (secret) => {
    expect(await load(ON, `X-API-Key: ${secret}`)).toMatchObject({ ok: true });
  });

  test.each([
    [
      'a line end',
      `X-API-Key: ${SECRET}\n`,
      "ends with a line end, at which Dovecot's auth process would abort",
    ],
    ['no header', SECRET, 'does not begin with "X-API-Key: "'],
    ['15 characters', 'X-API-Key: 0123456789abcde', 'holds no secret of 16 to 256 printable characters'],
    ['257 characters', `X-API-Key: ${'x'.repeat(257)}`, 'holds no secret of 16 to 256 printable characters'],
    ['a space', `X-API-Key: ${SECRET} x`, 'holds no secret of 16 to 256 printable characters'],
    ['far too much', 'x'.repeat(300), 'it has more than'],
    ['nothing', null, 'it does not exist'],
  ])('with %s is not, and is in no message', async (_, header, wrong) => {
    const told = JSON.stringify(await problem(ON, header));
    expect(told).toContain('logins.api_key_file: ');
    expect(told).toContain(JSON.stringify(wrong).slice(1, -1));
    expect(told).not.toContain('0123456789');
  });

  test.each([
    [0o640, 'its group'],
    [0o604, 'everybody'],
  ])('that others may read (%o) is not', async (mode, who) => {
    expect(JSON.stringify(await problem(ON, `X-API-Key: ${SECRET}`, mode))).toContain(`is open to ${who}`);
  });

  test('comes as a credential of systemd, whatever its mode', async () => {
    const text = '[logins]\nenabled = true\napi_key_file = "credential:logins.key"\n';
    expect(await problem(text)).toEqual([expect.stringContaining('/run/credentials/logins.key')]);
    vi.stubEnv('CREDENTIALS_DIRECTORY', folder);
    try {
      const loaded = await load(text, `X-API-Key: ${SECRET}`, 0o640);
      if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
      expect(loaded.config.logins).toEqual({ apiKey: SECRET });
      // Dovecot reads the file that systemd makes a copy of for us.
      const lines = loginLines(loaded.config);
      expect(lines).toContain('auth_policy_server_api_header = </etc/dovecot/logins.key\n');
      expect(lines).toContain('LoadCredential=logins.key:/etc/dovecot/logins.key');
    } finally {
      vi.unstubAllEnvs();
    }
  });

  test('is asked for where everybody on the machine could ask', async () => {
    expect(await problem('[logins]\nenabled = true\n')).toEqual([
      'logins.enabled: whoever reaches this TCP port could ask about logins, and make them fail; expected logins.api_key_file, or a unix socket',
    ]);
    expect(await problem('logins.enabled = true\nlogins.listen = "unix:/run/postern/logins"')).toBeNull();
  });

  test('is not looked for while [logins] is off', async () => {
    expect(await problem('logins.api_key_file = "logins.key"', null)).toBeNull();
  });
});

describe('mistakes', () => {
  test.each([
    ['[logins.failures]\naction = "refuse"', 'expected \\"ignore\\" or \\"delay Ns\\"'],
    ['[logins.net-failures]\naction = "delay 0s"', 'with 1 to 30 seconds'],
    ['[logins.net-failures]\naction = "delay 31s"', 'with 1 to 30 seconds'],
    ['[logins.net-failures]\naction = "reject"', '\\"refuse\\"'],
    ['[logins.net-failures]\nlimit = 0', 'logins.net-failures.limit'],
    ['[logins.net-failures]\nperiod = "8d"', 'from \\"1s\\" to \\"7d\\"'],
    ['deadline = "1001ms"', 'Dovecot itself waits 2 s'],
    ['prefix_ipv4 = 33', 'logins.prefix_ipv4'],
    ['listen = "127.0.0.1:10040"', 'policyd.listen listens on 127.0.0.1:10040 already'],
  ])('%j', async (text, wrong) => {
    expect(JSON.stringify(await problem(`${ON}${text}`))).toContain(wrong);
  });

  test.each(['delay 1s', 'delay 30s', 'refuse', 'ignore'])('%j is an action', async (action) => {
    expect(await problem(`${ON}[logins.net-failures]\naction = "${action}"`)).toBeNull();
  });

  test.each([
    ['listen = "192.0.2.1:10041"', 'go over the network in clear'],
    ['unavailable = "refuse"', 'nobody can log in while the state can not be reached'],
    ['[logins.guessed]\nlimit = 11', 'above logins.pair-failures.limit'],
  ])('%j is worth a note', async (text, note) => {
    const { notes } = await config(`${ON}${text}`);
    expect(notes.filter((one) => one.startsWith('logins'))).toEqual([expect.stringContaining(note)]);
  });
});

describe('the lines for Dovecot', () => {
  test('none while [logins] is off', async () => {
    expect(loginLines((await config('')).config)).toBe('');
  });

  test('all of them', async () => {
    const lines = loginLines((await config(ON)).config).split('\n');
    expect(lines.filter((line) => line !== '' && !line.startsWith('#'))).toEqual([
      'auth_policy_server_url = http://127.0.0.1:10041/logins',
      `auth_policy_server_api_header = <${folder}/logins.key`,
      'auth_policy_hash_nonce = </etc/dovecot/auth-policy-nonce',
      'auth_policy_request_attributes = login=%{requested_username} pwhash=%{hashed_password} remote=%{rip} device_id=%{client_id} protocol=%s session_id=%{session} mech=%{mech}',
      'auth_policy_check_after_auth = no',
      'auth_policy_server_timeout_msecs = 500',
    ]);
    expect(lines.join('\n')).not.toContain(SECRET);
    expect(dovecotLines((await config(ON)).config)).not.toContain('auth_policy');
  });

  test.each([
    ['listen = "0.0.0.0:1234"', 'http://127.0.0.1:1234/logins'],
    ['listen = "[::]:1234"', 'http://[::1]:1234/logins'],
    ['listen = "[2001:db8::1]:1234"', 'http://[2001:db8::1]:1234/logins'],
    ['deadline = "900ms"', 'auth_policy_server_timeout_msecs = 1150'],
    ['[logins.new-device]\nnotify = true', 'imap_id_retain = yes'],
  ])('with %j there is %s', async (text, line) => {
    expect(loginLines((await config(`${ON}${text}`)).config)).toContain(line);
  });
});
