import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { LIST_FILE_LIMIT, readListFiles } from '../../../src/config/list-files.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { plain, readToml } from '../../../src/config/toml.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-lists-'));
});

afterAll(() => rm(folder, { recursive: true }));

async function expanded(toml: string): Promise<{ value: unknown; wrong: readonly string[] }> {
  const { root } = readToml(toml);
  const problems = await readListFiles('postern.toml', root, folder);
  return {
    value: plain(root),
    wrong: problems.map(
      ({ position, key, wrong }) => `${position?.line}:${position?.column} ${key}: ${wrong}`,
    ),
  };
}

describe('an entry "file:PATH" of a list', () => {
  test('stands for the lines of the file, wherever a list stands', async () => {
    await writeFile(
      join(folder, 'lines'),
      '# spammers\n one@example.org \r\n\n@example.net\n#\ntwo@example.org',
    );
    const lines = ['one@example.org', '@example.net', 'two@example.org'];
    const { value, wrong } = await expanded(
      '[[a.b]]\nc = ["first", "file:lines", "last"]\n[[a.b]]\nc = [["file:lines"]]\nd = "file:lines"\n',
    );
    expect(wrong).toEqual([]);
    expect(value).toEqual({
      a: { b: [{ c: ['first', ...lines, 'last'] }, { c: [lines], d: 'file:lines' }] },
    });
  });

  test('as many lines as a file can have', async () => {
    await writeFile(join(folder, 'many'), 'x\n'.repeat(300_000));
    const { value } = await expanded('a = ["file:many"]');
    expect(value).toEqual({ a: Array.from({ length: 300_000 }, () => 'x') });
  });

  test('a file of the largest size is read, one octet more is a mistake', async () => {
    const line = 'x'.repeat(1023);
    await writeFile(join(folder, 'large'), `${line}\n`.repeat(LIST_FILE_LIMIT / 1024));
    expect((await expanded('a = ["file:large"]')).wrong).toEqual([]);
    await writeFile(join(folder, 'large'), `${line}\n`.repeat(LIST_FILE_LIMIT / 1024) + '\n');
    expect((await expanded('a = ["file:large"]')).wrong).toEqual([
      `1:6 a: "${join(folder, 'large')}" can't be used: it has more than ${LIST_FILE_LIMIT} octets`,
    ]);
  });

  test.each([
    ['absent', 'it does not exist'],
    ['.', 'it is not a regular file'],
    ['latin1', 'it is not UTF-8'],
  ])('%s: %s', async (file, detail) => {
    await writeFile(join(folder, 'latin1'), Buffer.from([0xe9, 0x0a]));
    const { wrong } = await expanded(`a = []\nb.c = ["x", "file:${file}"]`);
    expect(wrong).toHaveLength(1);
    expect(wrong[0]).toMatch(/^2:13 b\.c: /);
    expect(wrong[0]).toContain(detail);
  });

  test('what is wrong with a line is a mistake at the entry', async () => {
    await writeFile(join(folder, 'networks'), '192.0.2.1\n192.0.2.300\n');
    const path = join(folder, 'postern.toml');
    await writeFile(
      path,
      'site.hostname = "mx.example.org"\n[[checks.access.entry]]\naction = "deny"\nclient = ["file:networks"]\n',
    );
    const result = await loadConfig(path);
    expect(result.ok ? [] : result.problems).toMatchObject([
      { position: { line: 4, column: 11 }, wrong: 'found "192.0.2.300"' },
    ]);
    await writeFile(join(folder, 'networks'), '192.0.2.1\n');
    expect((await loadConfig(path)).ok).toBe(true);
  });
});
