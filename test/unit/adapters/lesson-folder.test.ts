import { mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { LessonFolder } from '../../../src/adapters/lesson-folder.ts';
import { LessonsFull, type Lesson } from '../../../src/ports/lessons.ts';

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'postern-lessons-'));
});

afterEach(() => rm(root, { recursive: true }));

const LESSON: Lesson = {
  message: 'f7kqs4namvixbdph',
  user: 'zeus@example.org',
  label: 'spam',
  time: 1_795_280_764_000,
  content: Buffer.from('Subject: \xe9\r\n\r\nbody\n', 'latin1'),
};

interface Opened {
  readonly folder: LessonFolder;
  readonly unreadable: string[];
}

async function open(limit = 1024 ** 2): Promise<Opened> {
  const unreadable: string[] = [];
  const folder = await LessonFolder.open(join(root, 'lessons'), {
    limit: () => limit,
    unreadable: (name) => void unreadable.push(name),
  });
  return { folder, unreadable };
}

async function only(folder: LessonFolder): Promise<string> {
  const [name = '', ...more] = await folder.waiting();
  expect(more).toEqual([]);
  expect(name).not.toBe('');
  return name;
}

test('a lesson is there for whoever opens the folder next, for nobody else, until it is done', async () => {
  await (await open()).folder.add(LESSON);
  const { folder } = await open();
  expect(folder.count).toBe(1);
  const name = await only(folder);
  expect((await stat(join(root, 'lessons', name))).mode & 0o777).toBe(0o600);
  expect((await stat(join(root, 'lessons'))).mode & 0o777).toBe(0o700);
  expect(await folder.take(name)).toEqual(LESSON);
  expect(await folder.waiting()).toEqual([]);
  expect(folder.octets).toBe(0);
  await folder.done(name);
  expect(await readdir(join(root, 'lessons'))).toEqual([]);
});

test('the last word about a message stands; other users and other messages have their own', async () => {
  const { folder } = await open();
  await folder.add(LESSON);
  await folder.add({ ...LESSON, label: 'ham' });
  const name = await only(folder);
  expect((await folder.take(name))?.label).toBe('ham');
  await folder.putBack(name);
  await folder.add({ ...LESSON, user: 'hera@example.org' });
  await folder.add({ ...LESSON, message: '<a@b>' });
  expect(await folder.waiting()).toHaveLength(3);
  await folder.drop(LESSON);
  expect(await folder.waiting()).toHaveLength(2);
  expect(folder.count).toBe(2);
});

test('what is put back gives way to what came meanwhile', async () => {
  const { folder } = await open();
  await folder.add(LESSON);
  const name = await only(folder);
  await folder.take(name);
  await folder.add({ ...LESSON, label: 'ham' });
  await folder.putBack(name);
  expect((await folder.take(await only(folder)))?.label).toBe('ham');
  await folder.done(name);
  expect(await readdir(join(root, 'lessons'))).toEqual([]);
});

test('what a killed process had taken out waits again', async () => {
  const { folder } = await open();
  await folder.add(LESSON);
  await folder.take(await only(folder));
  await writeFile(join(root, 'lessons', '.new-0011223344556677'), 'half');
  const next = (await open()).folder;
  expect(await next.waiting()).toEqual([]);
  await next.recover(Date.now());
  expect(await next.take(await only(next))).toEqual(LESSON);
  expect(await readdir(join(root, 'lessons'))).toContain('.new-0011223344556677');
  await next.recover(Date.now() + 3_600_001);
  expect(await readdir(join(root, 'lessons'))).not.toContain('.new-0011223344556677');
});

test('there is room up to the limit, and for what takes the place of something', async () => {
  const { folder } = await open(2 * 4096);
  await folder.add(LESSON);
  await folder.add({ ...LESSON, user: 'hera@example.org' });
  expect(folder.octets).toBe(2 * 4096);
  await expect(folder.add({ ...LESSON, user: 'ares@example.org' })).rejects.toThrow(LessonsFull);
  await folder.add({ ...LESSON, label: 'ham' });
  expect(folder.octets).toBe(2 * 4096);
  expect(await folder.waiting()).toHaveLength(2);
});

test('room is counted while many come at once', async () => {
  const { folder } = await open(3 * 4096);
  const ends = await Promise.allSettled(
    Array.from({ length: 10 }, (_, user) => folder.add({ ...LESSON, user: String(user) })),
  );
  expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(3);
  expect(await folder.waiting()).toHaveLength(3);
});

test('what comes and goes while the folder is looked through is counted right', async () => {
  const { folder } = await open();
  await Promise.all(Array.from({ length: 50 }, (_, user) => folder.add({ ...LESSON, user: `a${user}` })));
  const [first = ''] = await folder.waiting();
  await Promise.all([
    folder.waiting(),
    folder.take(first),
    ...Array.from({ length: 50 }, (_, user) => folder.add({ ...LESSON, user: `b${user}` })),
  ]);
  expect(folder.count).toBe(99);
  expect(folder.octets).toBe(99 * 4096);
});

test('a folder that is gone fails, and takes no room', async () => {
  const { folder } = await open();
  await rename(join(root, 'lessons'), join(root, 'elsewhere'));
  await expect(folder.add(LESSON)).rejects.toThrow('ENOENT');
  expect(folder.octets).toBe(0);
});

test('a file that is no lesson is told of and removed; others are let alone', async () => {
  const { folder, unreadable } = await open();
  const name = `${'0'.repeat(32)}.lesson`;
  await writeFile(join(root, 'lessons', name), '{"version":2}\nx');
  await writeFile(join(root, 'lessons', 'README'), 'not ours');
  expect(await folder.waiting()).toEqual([name]);
  expect(await folder.take(name)).toBeNull();
  expect(unreadable).toEqual([name]);
  expect(await readdir(join(root, 'lessons'))).toEqual(['README']);
  expect(await folder.take(name)).toBeNull();
});
