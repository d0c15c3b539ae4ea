import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { holdMessages } from '../support/players/milter-hold.ts';
import { preparePostern, type Postern } from '../support/postern.ts';

const MIB = 1024 * 1024;
const CONNECTIONS = 16;
const SIZE = 32 * MIB;

/** Bodies have to be kept: what SPF finds is put into the quarantine folder. */
const CONFIG = `
clamd.enabled = false
quarantine.where = "folder"
rules."spf.fail" = "quarantine"
unavailable.spf = "ignore"
[checks]
spf.deadline = "1s"
dkim.enabled = false
arc.enabled = false
dmarc.enabled = false
`;

async function memory(pid: number, field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1');
  const kibibytes = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1];
  return Number(kibibytes) / 1024;
}

/** Files of the state folder that the process has open and that have no name: their modes. */
async function spools(pid: number): Promise<number[]> {
  const modes: number[] = [];
  for (const descriptor of await readdir(`/proc/${pid}/fd`)) {
    const path = join(`/proc/${pid}/fd`, descriptor);
    const target = await readlink(path).catch(() => '');
    if (/\/state\/spool-[0-9a-f]+ \(deleted\)$/.test(target)) modes.push((await stat(path)).mode & 0o777);
  }
  return modes;
}

async function namedSpools(postern: Postern): Promise<string[]> {
  const names = await readdir(join(postern.folder, 'state'));
  return names.filter((name) => name.startsWith('spool'));
}

test('sixteen messages of 32 MiB at once: memory does not grow with them, their files are private, nameless and gone afterwards', async () => {
  await using postern = await preparePostern({ config: CONFIG });
  const milter = await postern.start('milter');
  const before = await memory(milter.pid, 'VmRSS');
  const verdicts = await holdMessages(
    { port: postern.port.milter, connections: CONNECTIONS, size: SIZE, direction: 'in' },
    async () => {
      await expect
        .poll(() => spools(milter.pid), { timeout: 20_000 })
        .toEqual(Array.from({ length: CONNECTIONS }, () => 0o600));
      expect(await namedSpools(postern)).toEqual([]);
    },
  );
  expect(verdicts).toEqual(Array.from({ length: CONNECTIONS }, () => 'c'));
  // Half of what the bodies alone would take.
  expect((await memory(milter.pid, 'VmHWM')) - before).toBeLessThan((CONNECTIONS * SIZE) / MIB / 2);
  await expect.poll(() => spools(milter.pid), { timeout: 20_000 }).toEqual([]);
});

test('connections that break, and a process that is killed, leave no file', async () => {
  await using postern = await preparePostern({ config: CONFIG });
  const milter = await postern.start('milter');
  const given = { port: postern.port.milter, connections: 4, size: 4 * MIB, direction: 'in' } as const;
  const broken = new Error('hung up');
  const hangUp = (): Promise<never> => Promise.reject(broken);
  await expect(holdMessages(given, hangUp)).rejects.toBe(broken);
  await expect.poll(() => spools(milter.pid), { timeout: 20_000 }).toEqual([]);
  expect(await namedSpools(postern)).toEqual([]);

  await expect(
    holdMessages(given, async () => {
      await expect.poll(() => spools(milter.pid), { timeout: 20_000 }).toHaveLength(4);
      milter.signal('SIGKILL');
      throw broken;
    }),
  ).rejects.toBe(broken);
  expect(await namedSpools(postern)).toEqual([]);
});
