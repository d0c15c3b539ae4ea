import { mkdtemp, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import {
  openDirectory,
  type DirectoryEvents,
  type DirectoryOptions,
  type FileDirectory,
} from '../../../src/adapters/directory-file.ts';
import { parseMailbox } from '../../../src/mail/address.ts';
import type { Clock } from '../../../src/ports/clock.ts';
import type { Destination } from '../../../src/ports/directory.ts';

const NEVER = new AbortController().signal;
const HOUR = 3_600_000;

let folder: string;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-directory-'));
});

afterAll(() => rm(folder, { recursive: true }));

/** Written an hour ago, so that it passes for complete. */
async function file(text: string): Promise<string> {
  const path = join(folder, `table-${(files += 1)}`);
  await put(path, text, HOUR);
  return path;
}

async function put(path: string, text: string, agoMs: number): Promise<void> {
  await writeFile(`${path}.new`, text, 'latin1');
  const time = new Date(Date.now() - agoMs);
  await utimes(`${path}.new`, time, time);
  await rename(`${path}.new`, path);
}

const clock: Clock = { now: () => Date.now(), elapsed: () => performance.now() };

interface Told extends DirectoryEvents {
  readonly lines: string[];
}

function told(): Told {
  const lines: string[] = [];
  return {
    lines,
    loaded(path, faults) {
      lines.push(
        `loaded ${path.slice(folder.length + 1)}${faults === null ? '' : ` without ${faults.count}: ${faults.first}`}`,
      );
    },
    failed(path, why) {
      lines.push(`failed ${path.slice(folder.length + 1)}: ${why.replaceAll(folder, '')}`);
    },
  };
}

function options(values: Partial<DirectoryOptions> = {}): DirectoryOptions {
  return {
    mailboxDomains: [],
    aliasDomains: [],
    mailboxes: [],
    aliases: [],
    accounts: [],
    delimiter: '+',
    ...values,
  };
}

async function opened(values: Partial<DirectoryOptions>, events = told()): Promise<FileDirectory> {
  return await openDirectory(options(values), clock, events);
}

async function to(directory: FileDirectory, address: string): Promise<Destination> {
  return await directory.destination(parseMailbox(address), NEVER);
}

function delivered(mailboxes: readonly string[], elsewhere = false): Destination {
  return { kind: 'delivered', mailboxes, elsewhere };
}

const UNKNOWN: Destination = { kind: 'unknown' };

describe('where mail ends', () => {
  test('with nothing but domains every address in them is a mailbox, without its extension, in lower case', async () => {
    using directory = await opened({ mailboxDomains: ['Olimpus.Example'] });
    expect(await to(directory, 'Zeus+news@OLIMPUS.example')).toEqual(delivered(['zeus@olimpus.example']));
    expect(await to(directory, 'zeus@elsewhere.example')).toEqual(UNKNOWN);
    expect(await to(directory, 'postmaster')).toEqual(UNKNOWN);
    expect(await to(directory, '@olimpus.example')).toEqual(UNKNOWN);
  });

  test('with nothing at all everything is unknown', async () => {
    using directory = await opened({});
    expect(await to(directory, 'zeus@olimpus.example')).toEqual(UNKNOWN);
    expect(await directory.isLocalDomain('olimpus.example', NEVER)).toBe(false);
  });

  test('with a list of mailboxes only those are, and their domains are ours', async () => {
    const mailboxes = [
      await file('zeus@olimpus.example:{PLAIN}x::::::\nada:{PLAIN}y\nlist+own@olimpus.example\n'),
    ];
    using directory = await opened({ mailboxes, mailboxDomains: ['plain.example'] });
    expect(await to(directory, 'zeus+x@olimpus.example')).toEqual(delivered(['zeus@olimpus.example']));
    expect(await to(directory, 'nobody@olimpus.example')).toEqual(UNKNOWN);
    expect(await to(directory, 'list+own@olimpus.example')).toEqual(delivered(['list+own@olimpus.example']));
    // A user without a domain is one of the domains that the configuration names.
    expect(await to(directory, 'ada@plain.example')).toEqual(delivered(['ada']));
    expect(await to(directory, 'ada@olimpus.example')).toEqual(UNKNOWN);
    expect(await directory.isLocalDomain('OLIMPUS.example', NEVER)).toBe(true);
  });

  test('aliases to one, to several, to others and to nobody', async () => {
    const mailboxes = [await file('zeus@olimpus.example\nhera@olimpus.example\n')];
    const aliases = [
      await file(
        [
          'sky@olimpus.example zeus@olimpus.example',
          'all@olimpus.example zeus@olimpus.example,',
          '    hera@olimpus.example, odin@valhalla.example',
          'away@olimpus.example odin@valhalla.example',
          'gone@olimpus.example nobody@olimpus.example',
          'local@olimpus.example root',
          '@hellas.example @olimpus.example',
          'virtual.example anything',
          'info@virtual.example zeus@olimpus.example',
          'loop@olimpus.example pool@olimpus.example',
          'pool@olimpus.example loop@olimpus.example',
        ].join('\n'),
      ),
      await file('sky@olimpus.example hera@olimpus.example\nsecond@olimpus.example hera@olimpus.example\n'),
    ];
    using directory = await opened({ mailboxes, aliases });
    const at = (local: string): Promise<Destination> => to(directory, `${local}@olimpus.example`);
    expect(await at('SKY+x')).toEqual(delivered(['zeus@olimpus.example']));
    expect(await at('all')).toEqual(delivered(['zeus@olimpus.example', 'hera@olimpus.example'], true));
    expect(await at('away')).toEqual(delivered([], true));
    expect(await at('gone')).toEqual(UNKNOWN);
    expect(await at('local')).toEqual(delivered([], true));
    expect(await at('second')).toEqual(delivered(['hera@olimpus.example']));
    expect(await at('loop')).toEqual(UNKNOWN);
    expect(await to(directory, 'zeus@hellas.example')).toEqual(delivered(['zeus@olimpus.example']));
    expect(await to(directory, 'nobody@virtual.example')).toEqual(UNKNOWN);
    expect(await directory.isLocalDomain('hellas.example', NEVER)).toBe(true);
    expect(await directory.isLocalDomain('virtual.example', NEVER)).toBe(true);
    expect(await directory.isLocalDomain('valhalla.example', NEVER)).toBe(false);
  });
});

describe('whose address it is', () => {
  test('its own, with and without extension, its aliases, those of its domain; nobody else’s', async () => {
    const aliases = [
      await file('sky@olimpus.example zeus@olimpus.example\n@hellas.example @olimpus.example\n'),
    ];
    using directory = await opened({ mailboxDomains: ['olimpus.example'], aliases });
    const owns = (login: string, address: string): boolean | Promise<boolean> =>
      directory.owns(login, parseMailbox(address), NEVER);
    expect(await owns('zeus@olimpus.example', 'Zeus@olimpus.example')).toBe(true);
    expect(await owns('Zeus@Olimpus.example', 'zeus+shop@olimpus.example')).toBe(true);
    expect(await owns('zeus@olimpus.example', 'sky@olimpus.example')).toBe(true);
    expect(await owns('zeus@olimpus.example', 'zeus@hellas.example')).toBe(true);
    expect(await owns('hera@olimpus.example', 'sky@olimpus.example')).toBe(false);
    expect(await owns('zeus', 'zeus@olimpus.example')).toBe(true);
    expect(await owns('zeus', 'zeus@elsewhere.example')).toBe(false);
    expect(await owns('zeus@elsewhere.example', 'zeus@elsewhere.example')).toBe(true);
  });
});

describe('what is set for an account', () => {
  test('its own, else what the list says, else that of its domain', async () => {
    const mailboxes = [
      await file(
        'zeus@olimpus.example:x::::::userdb_quota_rule=*:storage=1M\nhera@olimpus.example:x::::::userdb_quota_rule=*:storage=2M\nares@olimpus.example:x\n',
      ),
    ];
    using directory = await opened({
      mailboxes,
      accounts: [
        {
          names: ['@Olimpus.example'],
          quota: 7,
          limits: { hourly: 10, daily: 50 },
          senders: ['@olimpus.example'],
          allow: [],
          block: [],
        },
        {
          names: ['Zeus@olimpus.example', 'ada'],
          quota: null,
          limits: { hourly: 99 },
          senders: ['sky@x'],
          allow: [],
          block: [],
        },
      ],
    });
    expect(await directory.account('ZEUS@olimpus.example', NEVER)).toEqual({
      quota: null,
      limits: new Map([
        ['hourly', 99],
        ['daily', 50],
      ]),
      senders: ['@olimpus.example', 'sky@x'],
    });
    expect((await directory.account('hera@olimpus.example', NEVER)).quota).toBe(2 * 1024 ** 2);
    expect((await directory.account('ares@olimpus.example', NEVER)).quota).toBe(7);
    expect(await directory.account('ada', NEVER)).toMatchObject({ quota: null, senders: ['sky@x'] });
    expect(await directory.account('odin@valhalla.example', NEVER)).toEqual({
      limits: new Map(),
      senders: [],
    });
  });
});

describe('files that change', () => {
  test('are read again once they are complete; mistakes leave what was there', async () => {
    const path = await file('sky@x zeus@x\n');
    const mailboxes = await file('zeus@x\nhera@x\n');
    const events = told();
    using directory = await opened({ mailboxes: [mailboxes], aliases: [path] }, events);
    await put(path, 'sky@x hera@x\nbroken\n', 0);
    await directory.refresh();
    // Younger than a second: whoever writes it may not be done.
    expect(await to(directory, 'sky@x')).toEqual(delivered(['zeus@x']));
    await put(path, 'sky@x hera@x\nbroken\n', HOUR);
    await directory.refresh();
    expect(await to(directory, 'sky@x')).toEqual(delivered(['hera@x']));
    expect(events.lines.at(-1)).toMatch(/^loaded table-\d+ without 1: line 2: a key without a value$/);
    await rm(path);
    await directory.refresh();
    expect(await to(directory, 'sky@x')).toEqual(delivered(['hera@x']));
    expect(events.lines.at(-1)).toMatch(/^failed .*can't be read: ENOENT/);
    await put(mailboxes, 'zeus@x\nhera@x:x::::::userdb_quota_rule=*:storage=1M\n', 2 * HOUR);
    await directory.refresh();
    expect((await directory.account('hera@x', NEVER)).quota).toBe(1024 ** 2);
  });

  test('what can’t be read at the start is a mistake, named', async () => {
    await expect(opened({ aliases: [join(folder, 'absent')] })).rejects.toThrow(/absent can't be read/);
    await expect(opened({ mailboxes: [folder] })).rejects.toThrow(
      expect.objectContaining({ cause: new Error('it is not a regular file') }),
    );
  });

  test('other settings take the place of those there were, unless they can’t be had', async () => {
    using directory = await opened({ mailboxDomains: ['x'] });
    await directory.configure(options({ mailboxDomains: ['y'] }));
    expect(await to(directory, 'zeus@x')).toEqual(UNKNOWN);
    await expect(directory.configure(options({ aliases: [join(folder, 'absent')] }))).rejects.toThrow(
      /absent/,
    );
    expect(await to(directory, 'zeus@y')).toEqual(delivered(['zeus@y']));
  });
});
