import { createServer, type Server } from 'node:http';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';

import { openSqliteState } from '../../../src/adapters/state-sqlite.ts';
import { systemClock } from '../../../src/cli/clock.ts';
import { describeQuota, quota, type QuotaReport } from '../../../src/cli/quota.ts';
import { UsageError } from '../../../src/cli/arguments.ts';

let folder: string;
let server: Server;
let written: string;
/** KiB of a limit of 1000, by user. */
let used: Record<string, number>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-quota-cli-'));
  await writeFile(join(folder, 'doveadm.key'), 'secret', { mode: 0o600 });
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const user = /"user":"([^"]*)"/.exec(Buffer.concat(chunks).toString())?.[1] ?? '';
      const value = used[user];
      const storage = { root: 'User quota', type: 'STORAGE', value: String(value), limit: '1000' };
      response.end(
        JSON.stringify([
          value === undefined
            ? ['error', { type: 'exitCode', exitCode: 67 }, 'quota']
            : ['doveadmResponse', [storage], 'quota'],
        ]),
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true });
});

beforeEach(() => {
  used = {};
  written = '';
  for (const stream of [process.stdout, process.stderr]) {
    vi.spyOn(stream, 'write').mockImplementation((text) => {
      written += String(text);
      return true;
    });
  }
});

afterEach(() => {
  vi.restoreAllMocks();
});

async function run(args: readonly string[], toml = ''): Promise<{ code: number; text: string }> {
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const config = join(folder, 'postern.toml');
  await writeFile(
    config,
    [
      'state.folder = "state"',
      'directory.mailbox_domains = ["olimpus.example"]',
      `dovecot.doveadm = "127.0.0.1:${port}"`,
      'dovecot.api_key_file = "doveadm.key"',
      toml,
    ].join('\n'),
  );
  const code = await quota([...args, '--config', config]);
  return { code, text: written };
}

const ZEUS = 'zeus@olimpus.example';

describe('postern quota', () => {
  test('a mailbox with room, with what is on its way', async () => {
    used = { [ZEUS]: 250 };
    {
      await using state = await openSqliteState(join(folder, 'state'), systemClock);
      const claim = { mailbox: ZEUS, bytes: 102_400, used: 0, limit: null, grace: 0 };
      await state.reserve('aaaabbbbccccdddd', [claim], 60_000);
    }
    const { code, text } = await run([ZEUS]);
    expect(code).toBe(0);
    expect(text.replace(/\d+ s more/, 'N s more')).toBe(
      [
        ZEUS,
        '  used        250 KiB (25 %), from doveadm',
        '  limit       1000 KiB, and 100 KiB of grace for the last message',
        '  on its way  100 KiB in 1',
        '              aaaabbbbccccdddd  100 KiB, held for N s more',
        '',
        'A message of 100 KiB now: accepted, as far as quota is concerned',
        '',
      ].join('\n'),
    );
  });

  test('one that is full, as JSON', async () => {
    used = { [ZEUS]: 1000 };
    const { text } = await run([ZEUS, '--size', '10KiB', '--json']);
    const report: unknown = JSON.parse(text);
    expect(report).toMatchObject({
      address: ZEUS,
      size: 10_240,
      code: 'quota.full',
      answer: '452 4.2.2 The mailbox is full, please try again later',
      mailboxes: [{ mailbox: ZEUS, obstacle: 'full', usage: { used: 1_024_000, limit: 1_024_000 } }],
    });
    expect(report).toHaveProperty(['mailboxes', 0, 'fullSince'], expect.any(Number));
  });

  test('as the rules say: for good, in shadow', async () => {
    used = { [ZEUS]: 1000 };
    const long = await run([ZEUS], '[checks.quota]\ntemporary_for = "0s"');
    expect(long.text).toContain('552 5.2.2 The mailbox is full (quota.full-long)');
    written = '';
    const shadow = await run([ZEUS], '[rules]\nquota.full = { action = "defer", shadow = true }');
    expect(shadow.text).toContain('accepted: the rule for quota.full is in shadow (quota.full)');
  });

  test('to look does not make a mailbox full for longer', async () => {
    used = { [ZEUS]: 1000 };
    await using state = await openSqliteState(join(folder, 'state'), systemClock);
    const began = systemClock.now();
    const brief = '[checks.quota]\ntemporary_for = "1s"';
    expect((await run([ZEUS], brief)).text).toContain('452 4.2.2 ');
    expect(await state.noteFull(ZEUS, true)).toBeGreaterThan(began);
    written = '';
    vi.spyOn(systemClock, 'now').mockImplementation(() => Date.now() + 5000);
    expect((await run([ZEUS], brief)).text).toContain('552 5.2.2 ');
    vi.restoreAllMocks();
    await state.noteFull(ZEUS, false);
  });

  test('an alias, when one of its mailboxes must have room, and when all must; postmaster', async () => {
    const table = join(folder, 'aliases');
    await writeFile(
      table,
      `all@olimpus.example ${ZEUS}, hera@olimpus.example\npostmaster@olimpus.example ${ZEUS}\n`,
    );
    used = { [ZEUS]: 1000, 'hera@olimpus.example': 0 };
    const aliases = 'directory.aliases = ["aliases"]';
    expect((await run(['all@olimpus.example'], aliases)).text).toContain('now: accepted');
    expect((await run(['postmaster@olimpus.example'], aliases)).text).toMatch(/now: accepted.*\n$/);
    written = '';
    const all = await run(['all+x@olimpus.example'], `${aliases}\n[checks.quota]\nalias_room = "all"`);
    expect(all.text).toContain('all+x@olimpus.example leads to zeus@olimpus.example, hera@olimpus.example');
    expect(all.text).toContain('now: 452 4.2.2 ');
  });

  test('a user whom Dovecot does not know, and an address that is not ours', async () => {
    const stranger = await run(['hera@olimpus.example']);
    expect(stranger.code).toBe(0);
    expect(stranger.text).toContain('unknown: Dovecot knows no such user');
    written = '';
    const foreign = await run(['odin@valhalla.example']);
    expect(foreign.code).toBe(1);
    expect(foreign.text).toMatch(/leads to no mailbox of ours/);
  });

  test('nobody to ask', async () => {
    const config = join(folder, 'bare.toml');
    await writeFile(config, 'state.folder = "state"\n');
    expect(await quota([ZEUS, '--config', config])).toBe(1);
    expect(written).toMatch(/nobody is named who could tell/);
  });

  test('a key with a line end, and one that others may read', async () => {
    const key = join(folder, 'bad.key');
    await writeFile(key, 'secret\n', { mode: 0o600 });
    const config = join(folder, 'key.toml');
    await writeFile(config, 'dovecot.doveadm = "127.0.0.1:1"\ndovecot.api_key_file = "bad.key"\n');
    expect(await quota([ZEUS, '--config', config])).toBe(1);
    expect(written).toMatch(
      /dovecot\.api_key_file: .*ends with a line end, which Dovecot takes for a part of the key/,
    );
    await rm(key);
    await writeFile(key, 'secret', { mode: 0o644 });
    written = '';
    expect(await quota([ZEUS, '--config', config])).toBe(1);
    expect(written).toMatch(/is open to everybody \(mode 0644\)/);
  });

  test.each([[[]], [['a', 'b']], [['a', '--size', 'large']], [['a', '--nonsense']]])(
    'wrong use: %j',
    async (args) => {
      await expect(quota(args)).rejects.toThrow(UsageError);
    },
  );

  test('an alias in words; nothing of an address can steer a terminal', () => {
    const report: QuotaReport = {
      address: 'all\u001b[2J@olimpus.example',
      size: 1024,
      mailboxes: [{ mailbox: ZEUS, usage: null, inFlight: [], fullSince: null, obstacle: null }],
      elsewhere: true,
      code: null,
      answer: 'accepted',
    };
    expect(describeQuota(report, 0)[0]).toBe(`all?[2J@olimpus.example leads to ${ZEUS}, other hosts`);
  });
});
