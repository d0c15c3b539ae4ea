import { chmod, link, mkdir, mkdtemp, readdir, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { FeedbackSpool, SPOOL_NAMES } from '../../../src/adapters/feedback-spool.ts';
import { NotTaught, type LabelledMail } from '../../../src/feedback/collector.ts';
import { feedbackMetrics } from '../../../src/feedback/metrics.ts';
import { SCRIPT_HEAD_LIMIT } from '../../../src/feedback/script-request.ts';
import { SPOOL_LOOK_MS, Spooled } from '../../../src/feedback/spooled.ts';
import { openLog } from '../../../src/runtime/telemetry.ts';
import { metric } from '../../support/metric.ts';

const NOW = 1_795_280_764_000;
const MAX_SIZE = 100;
const HEAD = 'VERSION\tscript\t4\t0\nenv_USER=zeus\n-\nspam\n\n';

let root: string;
let folder: string;
let spool: FeedbackSpool;
let registry: Registry;
let taken: LabelledMail[];
let take: (mail: LabelledMail) => Promise<void>;
let spooled: Spooled;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'postern-spool-'));
  folder = join(root, 'spool');
  spool = await FeedbackSpool.open(folder, { now: () => NOW, group: null, open: false });
  registry = new Registry();
  taken = [];
  take = (mail) => {
    taken.push(mail);
    return Promise.resolve();
  };
  spooled = new Spooled({
    spool,
    maxSize: () => MAX_SIZE,
    take: (mail) => take(mail),
    metrics: feedbackMetrics(registry),
    log: openLog('silent'),
  });
});

afterEach(async () => {
  await spooled.stop();
  vi.useRealTimers();
  vi.restoreAllMocks();
  await rm(root, { recursive: true });
});

/** As postern-keep leaves it, so many seconds ago. */
async function keep(name: string, message: string, secondsAgo = 10, head = HEAD): Promise<void> {
  const path = join(folder, name);
  await writeFile(path, `${head}${message}`);
  const time = new Date(NOW - secondsAgo * 1000);
  await utimes(path, time, time);
}

function nameOf(number: number): string {
  return `${String(number).padStart(8, '0')}.kept`;
}

/** A head of so many octets, up to its empty line. */
function padded(length: number): string {
  const filling = length + 2 - HEAD.length - 'env_X=\n'.length;
  return HEAD.replace('-\n', `env_X=${'x'.repeat(filling)}\n-\n`);
}

const texts = (): string[] => taken.map(({ octets }) => Buffer.from(octets).toString());

describe('what waits in the spool', () => {
  test('is taken once, the oldest first, with the time at which it was said', async () => {
    await keep('aaaaaaaa.kept', 'later', 5);
    await keep('bbbbbbbb.kept', 'earlier', 50);
    await keep('cccccccc.kept', 'of tomorrow', -86_400);
    await spooled.takeAll();
    await spooled.takeAll();
    expect(texts()).toEqual(['earlier', 'later', 'of tomorrow']);
    expect(taken.map(({ time }) => time)).toEqual([NOW - 50_000, NOW - 5000, NOW]);
    expect(taken[0]).toMatchObject({ label: 'spam', user: 'zeus', complete: true });
    expect(await readdir(folder)).toEqual([]);
    expect(await metric(registry, 'postern_feedback_spooled_total')).toBe(3);
  });

  test('may be as large as max_size, and of more it is told that it is more', async () => {
    await keep('aaaaaaaa.kept', 'x'.repeat(MAX_SIZE), 2);
    await keep('bbbbbbbb.kept', 'y'.repeat(MAX_SIZE + 1), 1);
    await spooled.takeAll();
    expect(taken.map(({ octets, complete }) => [octets.length, complete])).toEqual([
      [MAX_SIZE, true],
      [MAX_SIZE, false],
    ]);
  });

  test('has a head of no more than the limit', async () => {
    await keep('aaaaaaaa.kept', 'fits', 2, padded(SCRIPT_HEAD_LIMIT));
    await keep('bbbbbbbb.kept', 'does not', 1, padded(SCRIPT_HEAD_LIMIT + 1));
    await keep('cccccccc.kept', '', 1, 'no head at all');
    await spooled.takeAll();
    expect(texts()).toEqual(['fits']);
    expect(await readdir(folder)).toEqual([]);
    expect(await metric(registry, 'postern_feedback_faults_total', { reason: 'protocol' })).toBe(2);
  });

  test('stays when it can not be kept, and goes when only the lesson had no room', async () => {
    await keep('aaaaaaaa.kept', 'first', 2);
    await keep('bbbbbbbb.kept', 'second', 1);
    take = () => Promise.reject(new Error('the disk is full'));
    await spooled.takeAll();
    expect(await readdir(folder)).toHaveLength(2);
    take = ({ octets }) =>
      Buffer.from(octets).toString() === 'first' ? Promise.reject(new NotTaught('full')) : Promise.resolve();
    await spooled.takeAll();
    expect(await readdir(folder)).toEqual([]);
  });

  test('that can not be read keeps nothing else waiting', async () => {
    await keep('aaaaaaaa.kept', 'not for us', 2);
    await keep('bbbbbbbb.kept', 'for us', 1);
    const read = spool.read.bind(spool);
    vi.spyOn(spool, 'read').mockImplementation((name, limit) =>
      name.startsWith('a') ? Promise.reject(new Error('EACCES')) : read(name, limit),
    );
    await spooled.takeAll();
    expect(texts()).toEqual(['for us']);
    expect(await readdir(folder)).toEqual(['aaaaaaaa.kept']);
  });

  test('is looked for again all the time', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    spooled.start();
    await spooled.takeAll();
    await keep('aaaaaaaa.kept', 'while it was busy');
    const came = Promise.withResolvers<LabelledMail>();
    take = (mail) => Promise.resolve(came.resolve(mail));
    vi.advanceTimersByTime(SPOOL_LOOK_MS);
    expect(await came.promise).toMatchObject({ user: 'zeus' });
  });

  test('is a file of its own: no link, no folder, no other name', async () => {
    const secret = join(root, 'secret');
    await writeFile(secret, `${HEAD}secret`);
    await symlink(secret, join(folder, 'aaaaaaaa.kept'));
    await link(secret, join(folder, 'bbbbbbbb.kept'));
    await mkdir(join(folder, 'cccccccc.kept'));
    await writeFile(join(folder, 'readme'), `${HEAD}x`);
    await spooled.takeAll();
    expect(taken).toEqual([]);
    // The second name of the secret is gone, and it itself is not.
    expect((await readdir(folder)).toSorted()).toEqual(['aaaaaaaa.kept', 'cccccccc.kept', 'readme']);
    expect((await stat(secret)).nlink).toBe(1);
  });

  test('of more than anybody should have left, the rest comes with the next look', async () => {
    const numbers = Array.from({ length: SPOOL_NAMES }, (_, number) => number);
    await Promise.all(numbers.map((number) => writeFile(join(folder, nameOf(number)), '')));
    expect(await spool.waiting()).toHaveLength(SPOOL_NAMES);
    await writeFile(join(folder, nameOf(SPOOL_NAMES)), '');
    const first = await spool.waiting();
    expect(first).toHaveLength(SPOOL_NAMES);
    await Promise.all(first.map((each) => spool.remove(each)));
    expect(await spool.waiting()).toHaveLength(1);
  });

  test('what was left half written goes after an hour', async () => {
    await keep('.new-old', 'half', 3601);
    await keep('.new-young', 'half', 3599);
    await spooled.takeAll();
    expect(await readdir(folder)).toEqual(['.new-young']);
  });
});

describe('the folder', () => {
  test.each([
    [false, 0o3770],
    [true, 0o3777],
  ])('is for its group, for all: %s', async (open, mode) => {
    const path = join(root, 'other');
    await FeedbackSpool.open(path, { now: () => NOW, group: null, open });
    expect((await stat(path)).mode & 0o7777).toBe(mode);
    await chmod(path, 0o3730);
    await FeedbackSpool.open(path, { now: () => NOW, group: null, open });
    expect((await stat(path)).mode & 0o7777).toBe(0o3730);
  });

  test('that is none, or has nowhere to be, is told of', async () => {
    const options = { now: () => NOW, group: null, open: false };
    await writeFile(join(root, 'file'), '');
    await symlink(folder, join(root, 'link'));
    for (const name of ['file', 'link'])
      await expect(FeedbackSpool.open(join(root, name), options)).rejects.toThrow('it is no folder; make it');
    await expect(FeedbackSpool.open(join(root, 'a/b'), options)).rejects.toThrow('ENOENT');
  });
});
