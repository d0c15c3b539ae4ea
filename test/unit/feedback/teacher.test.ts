import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { LessonFolder } from '../../../src/adapters/lesson-folder.ts';
import { Collector, NotTaught } from '../../../src/feedback/collector.ts';
import { feedbackMetrics, type FeedbackMetrics } from '../../../src/feedback/metrics.ts';
import { Teacher } from '../../../src/feedback/teacher.ts';
import type { Lesson, SpamTeacher } from '../../../src/ports/lessons.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Label } from '../../../src/ports/store.ts';
import { openLog } from '../../../src/runtime/telemetry.ts';
import { metric } from '../../support/metric.ts';

const WEEK = 7 * 86_400_000;

let root: string;
let lessons: LessonFolder;
let registry: Registry;
let metrics: FeedbackMetrics;
let now: number;
let room: number;
/** What the scanner was taught, as `label message`. */
let taught: string[];
let teach: SpamTeacher['teach'];
let teacher: Teacher;
const log = openLog('silent');

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'postern-teacher-'));
  room = 1024 ** 2;
  lessons = await LessonFolder.open(join(root, 'lessons'), {
    limit: () => room,
    unreadable: () => undefined,
  });
  registry = new Registry();
  metrics = feedbackMetrics(registry);
  now = 1_795_280_764_000;
  taught = [];
  teach = ({ label, message }) => {
    taught.push(`${label} ${message}`);
    return Promise.resolve('learned');
  };
  const pupil: SpamTeacher = { teach: (given, signal) => teach(given, signal) };
  const clock = { now: () => now };
  teacher = new Teacher({ queue: lessons, pupil: () => pupil, clock, metrics, log });
});

afterEach(async () => {
  await teacher.stop(AbortSignal.timeout(5000));
  vi.useRealTimers();
  await rm(root, { recursive: true });
});

function lesson(message: string, differs: Partial<Lesson> = {}): Lesson {
  return { message, user: 'zeus', label: 'spam', time: now, content: Buffer.from('x'), ...differs };
}

function ends(result: string): Promise<number | undefined> {
  return metric(registry, 'postern_feedback_lessons_total', { result });
}

describe('the teacher', () => {
  test('teaches all that waits, and what comes meanwhile', async () => {
    await lessons.add(lesson('a'));
    const first = teach;
    teach = async (given, signal) => {
      if (taught.length === 0) {
        await lessons.add(lesson('b', { label: 'ham' }));
        teacher.wake();
      }
      return await first(given, signal);
    };
    teacher.wake();
    await expect.poll(() => taught).toEqual(['spam a', 'ham b']);
    await expect.poll(() => lessons.waiting()).toEqual([]);
    await expect.poll(() => ends('learned')).toBe(2);
  });

  test('leaves a message that fails for later, and goes on with the others', async () => {
    for (const message of ['poison', 'b', 'c']) await lessons.add(lesson(message));
    const works = teach;
    teach = (given, signal) =>
      given.message === 'poison' ? Promise.reject(new NeighbourError('child died')) : works(given, signal);
    teacher.wake();
    await expect.poll(() => taught.toSorted()).toEqual(['spam b', 'spam c']);
    await expect.poll(() => ends('failed')).toBe(1);
    expect(await lessons.waiting()).toHaveLength(1);
    // The next attempt comes by itself.
    teach = works;
    await expect.poll(() => taught, { timeout: 10_000 }).toContain('spam poison');
  });

  test('rests after three failures in a row, whatever comes meanwhile', async () => {
    let attempts = 0;
    teach = () => {
      attempts++;
      return Promise.reject(new NeighbourError('refused'));
    };
    for (const message of ['a', 'b', 'c', 'd', 'e']) await lessons.add(lesson(message));
    teacher.wake();
    await expect.poll(() => ends('failed')).toBe(3);
    teacher.wake();
    expect(attempts).toBe(3);
    await expect.poll(async () => (await lessons.waiting()).length).toBe(5);
  });

  test('gives a message up after a week of failures, not sooner', async () => {
    await lessons.add(lesson('at-a-week', { time: now - WEEK }));
    await lessons.add(lesson('older', { time: now - WEEK - 1 }));
    teach = () => Promise.reject(new NeighbourError('refused'));
    teacher.wake();
    await expect.poll(() => ends('given-up')).toBe(1);
    await expect.poll(() => ends('failed')).toBe(1);
    await expect.poll(async () => (await lessons.waiting()).length).toBe(1);
  });

  test('that must stop at once leaves the message waiting', async () => {
    await lessons.add(lesson('a'));
    const begun = Promise.withResolvers<void>();
    teach = (_, signal) => {
      begun.resolve();
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(new NeighbourError('given up')));
      });
    };
    teacher.wake();
    await begun.promise;
    await teacher.stop(AbortSignal.abort(new Error('now')));
    expect(await lessons.waiting()).toHaveLength(1);
    expect(await ends('failed')).toBe(0);
  });
});

describe('the collector', () => {
  let labels: Label[];
  let failure: Error | null;
  let teaches: boolean;

  beforeEach(() => {
    labels = [];
    failure = null;
    teaches = true;
  });

  function collector(): Collector {
    return new Collector({
      store: {
        label(label) {
          if (failure !== null) return Promise.reject(failure);
          labels.push(label);
          return Promise.resolve();
        },
      },
      queue: lessons,
      clock: { now: () => now },
      metrics,
      log,
      teaches: () => teaches,
      authservId: () => 'mx.example.org',
      onLesson: () => undefined,
    });
  }

  const mail = {
    label: 'ham',
    user: 'zeus',
    octets: Buffer.from('Message-ID: <a@b>\n\nbody'),
    complete: true,
  } as const;

  test('keeps label and lesson', async () => {
    await collector().take(mail);
    expect(labels).toEqual([{ message: '<a@b>', user: 'zeus', label: 'ham', time: now }]);
    const [name = ''] = await lessons.waiting();
    const content = Buffer.from('Message-ID: <a@b>\r\n\r\nbody');
    expect(await lessons.take(name)).toEqual({
      message: '<a@b>',
      user: 'zeus',
      label: 'ham',
      time: now,
      content,
    });
  });

  test('of a message that is too large keeps the label', async () => {
    await collector().take({ ...mail, complete: false });
    expect(labels).toHaveLength(1);
    expect(await lessons.waiting()).toEqual([]);
    expect(await ends('too-large')).toBe(1);
  });

  test('keeps the label where nobody learns', async () => {
    teaches = false;
    await collector().take(mail);
    expect(labels).toHaveLength(1);
    expect(await lessons.waiting()).toEqual([]);
  });

  test('keeps the lesson of a message without a name, each once', async () => {
    const nameless = { ...mail, octets: Buffer.from('Subject: x\n\nbody') };
    await collector().take(nameless);
    await collector().take(nameless);
    expect(labels).toEqual([]);
    expect(await lessons.waiting()).toHaveLength(1);
  });

  test('says that there is no room, with the label kept', async () => {
    room = 0;
    await expect(collector().take(mail)).rejects.toThrow(NotTaught);
    expect(labels).toHaveLength(1);
    expect(await ends('no-room')).toBe(1);
  });

  test('says that the store failed, with the lesson kept', async () => {
    failure = new Error('disk full');
    await expect(collector().take(mail)).rejects.toThrow('disk full');
    expect(await lessons.waiting()).toHaveLength(1);
  });
});
