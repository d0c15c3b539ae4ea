import { EventEmitter } from 'node:events';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { Lifecycle } from '../../../src/runtime/lifecycle.ts';

interface Given extends Disposable {
  readonly events: EventEmitter;
  readonly lifecycle: Lifecycle;
  /** Exit codes and last words, in order. */
  readonly said: (string | number)[];
}

function given(graceMs = 1000): Given {
  const events = new EventEmitter();
  const said: (string | number)[] = [];
  const lifecycle = new Lifecycle({
    events,
    exit: (code) => said.push(code),
    fatal: (message, error) =>
      said.push(`${message}: ${error instanceof Error ? error.message : String(error)}`),
    graceMs,
  });
  return { events, lifecycle, said, [Symbol.dispose]: () => lifecycle[Symbol.dispose]() };
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('stop', () => {
  test.for(['SIGTERM', 'SIGINT'] as const)('%s asks for one', async (signal) => {
    using it = given();
    expect(it.lifecycle.stopping).toBe(false);
    it.events.emit(signal);
    expect(await it.lifecycle.stopAsked).toBe(signal);
    expect(it.lifecycle.stopping).toBe(true);
    expect(it.said).toEqual([]);
  });

  test('the second signal ends the process at once', async () => {
    using it = given();
    it.events.emit('SIGTERM');
    it.events.emit('SIGINT');
    expect(await it.lifecycle.stopAsked).toBe('SIGTERM');
    expect(it.said).toEqual([1]);
  });

  test('work that ends in time is not cut off', async () => {
    using it = given();
    const seen = await new Promise<boolean>((resolve, reject) => {
      it.lifecycle
        .finish((signal) => {
          vi.advanceTimersByTime(999);
          resolve(signal.aborted);
          return Promise.resolve();
        })
        .catch(reject);
    });
    expect(seen).toBe(false);
    expect(it.said).toEqual([]);
  });

  test('work that takes too long is told to cut off', async () => {
    using it = given();
    const finished = it.lifecycle.finish(
      (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
    );
    await vi.advanceTimersByTimeAsync(1000);
    await finished;
    expect(it.said).toEqual([]);
  });

  test('work that does not end even then ends the process', async () => {
    using it = given();
    void it.lifecycle.finish(() => new Promise(() => {}));
    await vi.advanceTimersByTimeAsync(3999);
    expect(it.said).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(it.said).toEqual(['the stop did not come to an end: not stopped after 1000 ms', 1]);
  });

  test('something left open after the work ends the process too', async () => {
    using it = given();
    await it.lifecycle.finish(() => Promise.resolve());
    await vi.advanceTimersByTimeAsync(4000);
    expect(it.said.at(-1)).toBe(1);
  });

  test('a failure of the work is passed on', async () => {
    using it = given();
    await expect(it.lifecycle.finish(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
  });
});

describe('reload', () => {
  test('SIGHUP asks for one', () => {
    using it = given();
    let reloads = 0;
    it.lifecycle.onReload(() => {
      reloads++;
      return Promise.resolve();
    });
    expect(reloads).toBe(0);
    it.events.emit('SIGHUP');
    expect(reloads).toBe(1);
  });

  test('a SIGHUP that comes while the process starts is not lost, and does not kill', () => {
    using it = given();
    it.events.emit('SIGHUP');
    it.events.emit('SIGHUP');
    let reloads = 0;
    it.lifecycle.onReload(() => {
      reloads++;
      return Promise.resolve();
    });
    expect(reloads).toBe(1);
  });

  test('one at a time; those that come meanwhile are answered by one more', async () => {
    using it = given();
    const gates: (() => void)[] = [];
    it.lifecycle.onReload(() => new Promise((resolve) => gates.push(resolve)));
    for (let count = 0; count < 5; count++) it.events.emit('SIGHUP');
    expect(gates).toHaveLength(1);
    gates[0]?.();
    await vi.advanceTimersByTimeAsync(0);
    expect(gates).toHaveLength(2);
    gates[1]?.();
    await vi.advanceTimersByTimeAsync(0);
    expect(gates).toHaveLength(2);
    it.events.emit('SIGHUP');
    expect(gates).toHaveLength(3);
  });

  test('none while stopping', () => {
    using it = given();
    let reloads = 0;
    it.lifecycle.onReload(() => {
      reloads++;
      return Promise.resolve();
    });
    it.events.emit('SIGTERM');
    it.events.emit('SIGHUP');
    expect(reloads).toBe(0);
  });

  test('one that breaks down ends the process: part of it may have the new configuration', async () => {
    using it = given();
    it.lifecycle.onReload(() => Promise.reject(new Error('half done')));
    it.events.emit('SIGHUP');
    await vi.advanceTimersByTimeAsync(0);
    expect(it.said).toEqual(['the reload broke down: half done', 70]);
  });
});

describe('errors that nobody caught', () => {
  test.for([
    ['uncaughtException', 'an error was not caught'],
    ['unhandledRejection', 'a rejection was not handled'],
  ] as const)('%s ends the process with its last words', ([event, words]) => {
    using it = given();
    it.events.emit(event, new Error('boom'), 'origin');
    expect(it.said).toEqual([`${words}: boom`, 70]);
  });
});

test('disposing takes all handlers away', () => {
  const it = given();
  expect(new Set(it.events.eventNames())).toEqual(
    new Set(['SIGTERM', 'SIGINT', 'SIGHUP', 'uncaughtException', 'unhandledRejection']),
  );
  it[Symbol.dispose]();
  expect(it.events.eventNames()).toEqual([]);
});
