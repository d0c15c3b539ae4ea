import { describe, expect, it } from 'vitest';

import { Slots } from '../../../src/adapters/slots.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';

const never = new AbortController().signal;

interface Job {
  readonly done: Promise<string>;
  readonly begun: () => boolean;
  readonly end: () => void;
  readonly fail: (error: Error) => void;
}

function job(slots: Slots, name: string, signal = never): Job {
  const work = Promise.withResolvers<string>();
  let begun = false;
  const done = slots.run(() => {
    begun = true;
    return work.promise;
  }, signal);
  return { done, begun: () => begun, end: () => work.resolve(name), fail: work.reject };
}

/** Lets everything happen that can happen by itself. */
async function quiet(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('Slots', () => {
  it('runs so many at once, the others in the order in which they came', async () => {
    const slots = new Slots(2, 10);
    const jobs = ['a', 'b', 'c', 'd'].map((name) => job(slots, name));
    await quiet();
    expect(jobs.map(({ begun }) => begun())).toEqual([true, true, false, false]);
    jobs[1]?.end();
    expect(await jobs[1]?.done).toBe('b');
    await quiet();
    expect(jobs.map(({ begun }) => begun())).toEqual([true, true, true, false]);
    for (const each of jobs) each.end();
    expect(await Promise.all(jobs.map(({ done }) => done))).toEqual(['a', 'b', 'c', 'd']);
  });

  it('gives the place of one that failed to the next', async () => {
    const slots = new Slots(1, 10);
    const [first, second] = [job(slots, 'a'), job(slots, 'b')];
    await quiet();
    first.fail(new Error('broken'));
    await expect(first.done).rejects.toThrow('broken');
    second.end();
    expect(await second.done).toBe('b');
  });

  it('lets so many wait and no more', async () => {
    const slots = new Slots(1, 2);
    const jobs = [job(slots, 'a'), job(slots, 'b'), job(slots, 'c')];
    const refused = job(slots, 'd');
    await expect(refused.done).rejects.toThrow(NeighbourError);
    await expect(refused.done).rejects.toThrow('1 requests are under way and 2 wait already');
    expect(refused.begun()).toBe(false);
    for (const each of jobs) each.end();
    await Promise.all(jobs.map(({ done }) => done));
    const later = job(slots, 'e');
    later.end();
    expect(await later.done).toBe('e');
  });

  it('lets one that waits give up, whose place in the queue is free again', async () => {
    const slots = new Slots(1, 1);
    const first = job(slots, 'a');
    const controller = new AbortController();
    const impatient = job(slots, 'b', controller.signal);
    controller.abort(new Error('deadline'));
    await expect(impatient.done).rejects.toMatchObject({
      name: 'NeighbourError',
      cause: new Error('deadline'),
    });
    const patient = job(slots, 'c');
    first.end();
    patient.end();
    expect(await Promise.all([first.done, patient.done])).toEqual(['a', 'c']);
    expect(impatient.begun()).toBe(false);
  });

  it('runs nothing that is given up before it comes', async () => {
    const slots = new Slots(1, 1);
    const gone = job(slots, 'a', AbortSignal.abort(new Error('gone')));
    await expect(gone.done).rejects.toThrow(NeighbourError);
    expect(gone.begun()).toBe(false);
  });

  it('does not mind that a signal aborts when its turn has come', async () => {
    const slots = new Slots(1, 1);
    const controller = new AbortController();
    const first = job(slots, 'a');
    const second = job(slots, 'b', controller.signal);
    first.end();
    await first.done;
    await quiet();
    controller.abort();
    second.end();
    expect(await second.done).toBe('b');
    const third = job(slots, 'c');
    third.end();
    expect(await third.done).toBe('c');
  });
});
