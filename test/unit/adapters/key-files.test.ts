import { generateKeyPairSync } from 'node:crypto';
import { chmod, mkdir, mkdtemp, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { KeyFile } from '../../../src/adapters/key-file.ts';
import { openKeyFiles, type FileKeys, type KeyFilesOptions } from '../../../src/adapters/key-files.ts';
import { DOMAINS_LIMIT, KEYS_LIMIT, listKeyFolder } from '../../../src/adapters/key-folder.ts';
import { systemClock } from '../../../src/cli/clock.ts';
import { readSigningKey } from '../../../src/config/keys.ts';

const PEM = String(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }));
const RSA = String(
  generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs1', format: 'pem' }),
);

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-keys-'));
});

afterEach(() => rm(folder, { recursive: true }));

/** A file that nobody is writing any more. */
async function put(name: string, text: string, mode = 0o600): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text, { mode });
  const past = new Date(Date.now() - 60_000);
  await utimes(path, past, past);
  return path;
}

interface Told {
  readonly keys: FileKeys;
  readonly lines: string[];
}

function named({ place }: KeyFile): string {
  return `${place.selector}.${place.domain}`;
}

async function open(options: Partial<KeyFilesOptions> = { folder }): Promise<Told> {
  const lines: string[] = [];
  const keys = await openKeyFiles(
    { listed: [], folder: null, subdomains: false, ...options },
    readSigningKey,
    systemClock,
    {
      loaded: (file) => lines.push(`loaded ${named(file)}`),
      broken: (file) => lines.push(`broken ${named(file)}`),
      gone: (file) => lines.push(`gone ${named(file)}`),
      folderFailed: (_path, why) => lines.push(`folder ${why.replace(folder, '')}`),
    },
  );
  return { keys, lines };
}

function selectors(keys: FileKeys, domain: string): readonly string[] | string {
  const found = keys.keysOf(domain);
  return found.kind === 'usable' ? found.keys.map(({ selector }) => selector) : found.kind;
}

test('FOLDER/DOMAIN/SELECTOR.private: all keys of a domain, and nothing else that lies about', async () => {
  await put('Olimpus.example/b.private', PEM);
  await put('Olimpus.example/a.private', RSA);
  await put('Olimpus.example/a.txt', 'v=DKIM1');
  await put('Olimpus.example/.hidden.private', PEM);
  await put('lost+found/x.private', PEM);
  await put('README', 'no domain');
  await mkdir(join(folder, 'empty.example'));
  using opened = (await open()).keys;
  expect(selectors(opened, 'olimpus.example')).toEqual(['a', 'b']);
  expect(selectors(opened, 'empty.example')).toBe('none');
  expect(opened.files).toHaveLength(2);
  expect(opened.keysOf('olimpus.example')).toMatchObject({
    keys: [
      { algorithm: 'rsa-sha256', subdomains: false },
      { algorithm: 'ed25519-sha256', subdomains: false },
    ],
  });
});

test('keys that come, change and go are seen without a restart', async () => {
  await put('a.example/s.private', PEM);
  const { keys, lines } = await open();
  using opened = keys;
  const before = opened.keysOf('a.example');
  await put('b.example/s.private', RSA);
  await opened.refresh();
  expect(selectors(opened, 'b.example')).toEqual(['s']);
  // What has not changed is not read again.
  expect(opened.keysOf('a.example')).toEqual(before);
  await put('a.example/s.private', RSA);
  await rm(join(folder, 'b.example'), { recursive: true });
  await opened.refresh();
  expect(opened.keysOf('a.example')).toMatchObject({ keys: [{ algorithm: 'rsa-sha256' }] });
  expect(selectors(opened, 'b.example')).toBe('none');
  await opened.refresh();
  expect(lines).toEqual([
    'loaded s.a.example',
    'loaded s.b.example',
    'loaded s.a.example',
    'gone s.b.example',
  ]);
});

test('a broken key stops its own domain alone, is told of once, and works when it is mended', async () => {
  await put('good.example/s.private', PEM);
  const path = await put('bad.example/s.private', PEM, 0o644);
  const { keys, lines } = await open({ folder, subdomains: true });
  using opened = keys;
  expect(selectors(opened, 'good.example')).toEqual(['s']);
  expect(opened.keysOf('bad.example')).toEqual({
    kind: 'broken',
    subdomains: true,
    why: `"${path}" is open to everybody (mode 0644); take the permissions away: chmod 600`,
  });
  await opened.refresh();
  await opened.refresh();
  expect(lines.filter((line) => line.startsWith('broken'))).toEqual(['broken s.bad.example']);
  await chmod(path, 0o600);
  await opened.refresh();
  expect(selectors(opened, 'bad.example')).toEqual(['s']);
  // A key that was good and is open to others now signs no more.
  await chmod(path, 0o640);
  await opened.refresh();
  expect(selectors(opened, 'bad.example')).toBe('broken');
});

test('a domain with one good key signs with that one', async () => {
  await put('a.example/bad.private', 'no key');
  await put('a.example/good.private', PEM);
  const { keys, lines } = await open();
  using opened = keys;
  expect(selectors(opened, 'a.example')).toEqual(['good']);
  expect(lines).toContain('broken bad.a.example');
});

test('a file that is half written keeps the key that it had, until it is known to be broken', async () => {
  const path = await put('a.example/s.private', PEM);
  const { keys, lines } = await open();
  using opened = keys;
  await writeFile(path, PEM.slice(0, 40));
  await opened.refresh();
  expect(selectors(opened, 'a.example')).toEqual(['s']);
  await put('a.example/s.private', PEM.slice(0, 40));
  await opened.refresh();
  expect(selectors(opened, 'a.example')).toBe('broken');
  expect(lines).toEqual(['loaded s.a.example', 'broken s.a.example']);
});

test('files of their own: one that is not there is broken, and one file may be for several domains', async () => {
  const path = await put('shared.private', PEM);
  const listed = ['a.example', 'b.example'].map((domain) => ({
    domain,
    selector: 's',
    subdomains: false,
    path,
  }));
  const lost = { domain: 'c.example', selector: 's', subdomains: false, path: join(folder, 'lost') };
  using opened = (await open({ listed: [...listed, lost] })).keys;
  expect(['a.example', 'b.example', 'c.example'].map((domain) => selectors(opened, domain))).toEqual([
    ['s'],
    ['s'],
    'broken',
  ]);
  await put('lost', PEM);
  await opened.refresh();
  expect(selectors(opened, 'c.example')).toEqual(['s']);
});

test('a folder that can not be read: no start without it; later, what is known stays', async () => {
  await expect(open({ folder: join(folder, 'nowhere') })).rejects.toThrow("can't be read: ENOENT");
  await put('keys/a.example/s.private', PEM);
  const { keys, lines } = await open({ folder: join(folder, 'keys') });
  using opened = keys;
  await rename(join(folder, 'keys'), join(folder, 'away'));
  await opened.refresh();
  await opened.refresh();
  expect(selectors(opened, 'a.example')).toEqual(['s']);
  expect(lines).toEqual(['loaded s.a.example', "folder /keys can't be read: ENOENT"]);
  await expect(
    opened.configure({ listed: [], folder: join(folder, 'nowhere'), subdomains: false }),
  ).rejects.toThrow("can't be read: ENOENT");
  expect(selectors(opened, 'a.example')).toEqual(['s']);
});

test('so many keys of one domain, no more', async () => {
  for (let count = 0; count < KEYS_LIMIT; count++) await put(`a.example/s${count}.private`, PEM);
  expect((await listKeyFolder(folder, false)).places).toHaveLength(KEYS_LIMIT);
  await put('a.example/one-more.private', PEM);
  const { places, faults } = await listKeyFolder(folder, false);
  expect(places).toEqual([]);
  expect(faults[0]?.why).toContain(`has more than ${KEYS_LIMIT} keys`);
  expect(DOMAINS_LIMIT).toBeGreaterThan(10_000);
});
