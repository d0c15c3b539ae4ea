import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { dovecotLines, sieveText } from '../../../src/cli/wire-dovecot.ts';
import { sieveFiles } from '../../../src/cli/wire-dovecot-sieve.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';

const SIZE = 512 * 1024;

let root: string;
let spool: string;
let config: Config;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'postern-keep-'));
  spool = join(root, 'spool');
  await mkdir(spool);
  const path = join(root, 'postern.toml');
  await writeFile(
    path,
    `[feedback]\nenabled = true\nspool = "${spool}"\nmax_size = "512KiB"\nmax_waiting = "1MiB"\n`,
  );
  const result = await loadConfig(path);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  ({ config } = result);
  const program = sieveFiles(config, 'header').find(({ executable }) => executable === true);
  if (program === undefined) throw new Error('there is no program');
  await writeFile(join(root, program.name), program.content, { mode: 0o755 });
});

afterEach(() => rm(root, { recursive: true }));

/** As Dovecot runs it: its exit code, and whether it took all that was written to it. */
async function keep(label: string, message: string | Buffer): Promise<readonly [number | null, boolean]> {
  const child = spawn(join(root, 'postern-keep'), [label], {
    env: { USER: 'zeus@olimpus.example' },
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve));
  const taken = new Promise<boolean>((resolve) => {
    child.stdin.once('error', () => resolve(false));
    child.stdin.end(message, () => resolve(true));
  });
  return await Promise.all([closed, taken]);
}

test('what it writes is what comes by the socket, for its group to read', async () => {
  expect(await keep('ham', 'Subject: x\n\nbody\n')).toEqual([0, true]);
  const [name = ''] = await readdir(spool);
  expect(name).toMatch(/^\w{16}\.kept$/);
  expect(await readFile(join(spool, name), 'latin1')).toBe(
    'VERSION\tscript\t4\t0\nenv_USER=zeus@olimpus.example\n-\nham\n\nSubject: x\n\nbody\n',
  );
  expect((await stat(join(spool, name))).mode & 0o777).toBe(0o640);
});

test('no more than max_waiting, and of each no more than shows that it is too large', async () => {
  expect(await keep('spam', Buffer.alloc(4 * SIZE))).toEqual([0, true]);
  const [name = ''] = await readdir(spool);
  const head = 'VERSION\tscript\t4\t0\nenv_USER=zeus@olimpus.example\n-\nspam\n\n'.length;
  expect((await stat(join(spool, name))).size).toBe(head + SIZE + 1);
  expect(await keep('spam', 'second')).toEqual([0, true]);
  expect((await keep('spam', 'third'))[0]).toBe(75);
  expect(await readdir(spool)).toHaveLength(2);
});

test('without its folder, or for another word, it fails and leaves nothing', async () => {
  expect((await keep('bacon', 'x'))[0]).toBe(64);
  expect(await readdir(spool)).toEqual([]);
  await rm(spool, { recursive: true });
  expect((await keep('spam', 'x'))[0]).toBe(75);
});

test('Dovecot asks the socket first; the lines name the folder of the program', () => {
  const lines = dovecotLines(config, 'header', '/sieve');
  expect(lines).toContain('  sieve_global_extensions = +vnd.dovecot.execute +vnd.dovecot.environment\n');
  expect(lines).toContain('  sieve_execute_socket_dir = ../postern\n');
  expect(lines).toContain('  sieve_execute_bin_dir = /sieve\n');
  expect(lines).not.toContain('sieve_pipe');
  const [, spam, ham] = sieveFiles(config, 'header').map(({ content }) => content);
  expect(spam).toBe(`require ["imapsieve", "vnd.dovecot.execute"];\n${told('spam', '')}`);
  expect(ham).toContain(`{\n  ${told('ham', '  ').trimEnd()}\n}\n`);
  expect(sieveText(config, 'header')).toContain(
    '# A program: chmod 0755.\n# ---- begin /etc/dovecot/sieve/postern-keep ----\n#   #!/bin/sh\n',
  );
});

function told(label: string, indent: string): string {
  const lines = [
    `if not execute :pipe "feedback" ["${label}"] {`,
    `  execute :pipe "postern-keep" ["${label}"];`,
    '}',
    '',
  ];
  return lines.join(`\n${indent}`);
}
