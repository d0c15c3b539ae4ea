import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';

import { TurnStream } from '../../../src/runtime/turn-stream.ts';

let folder: string;
let path: string;
let descriptor: number;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-turn-'));
  path = join(folder, 'log');
  descriptor = openSync(path, 'a');
});

afterEach(async () => {
  closeSync(descriptor);
  await rm(folder, { recursive: true });
});

function opened(losses: string[] = [], where = descriptor): TurnStream {
  return new TurnStream(where, (error) => losses.push(error.message));
}

describe('one turn', () => {
  test('lines wait for its end, and keep their order', async () => {
    const stream = opened();
    stream.write('one\n');
    stream.write('two \u00e9\n');
    expect(readFileSync(path, 'utf8')).toBe('');
    await nextTurn();
    expect(readFileSync(path, 'utf8')).toBe('one\ntwo \u00e9\n');
  });

  test('more than 64 KiB is not kept waiting', () => {
    const stream = opened();
    stream.write('x'.repeat(65_535));
    expect(readFileSync(path, 'utf8')).toHaveLength(0);
    stream.write('y');
    expect(readFileSync(path, 'utf8')).toHaveLength(65_536);
  });

  test('flushSync writes now, and nothing twice', async () => {
    const stream = opened();
    stream.write('now\n');
    stream.flushSync();
    expect(readFileSync(path, 'utf8')).toBe('now\n');
    await nextTurn();
    stream.flushSync();
    expect(readFileSync(path, 'utf8')).toBe('now\n');
  });
});

test('a descriptor that takes nothing is told of once, until it takes something again', () => {
  const losses: string[] = [];
  const closed = openSync(path, 'r');
  const stream = opened(losses, closed);
  for (const line of ['one\n', 'two\n']) {
    stream.write(line);
    stream.flushSync();
  }
  closeSync(closed);
  expect(losses).toEqual([expect.stringContaining('EBADF')]);
});

const TELEMETRY = JSON.stringify(new URL('../../../src/runtime/telemetry.ts', import.meta.url).href);

/** Runs a script in a process of its own; gives what it wrote to its log. */
async function inChild(
  script: string,
  begun?: (child: ChildProcessByStdio<null, Readable, Readable>) => Promise<unknown>,
): Promise<unknown[]> {
  const code = `import { openLog } from ${TELEMETRY}; const log = openLog('info'); ${script}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  await begun?.(child);
  const [out] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => z.object({ msg: z.string() }).parse(JSON.parse(line)).msg);
}

describe('the last lines of a process', () => {
  test('are written when it ends by itself', async () => {
    expect(await inChild(`log.info('last')`)).toEqual(['last']);
  });

  test('are written when it exits in the same turn', async () => {
    expect(await inChild(`log.info('one'); log.info('two'); process.exit(3)`)).toEqual(['one', 'two']);
  });

  test('are written when nobody catches an error', async () => {
    expect(await inChild(`log.info('before'); throw new Error('of nobody')`)).toEqual(['before']);
  });

  test('a fatal line is written at once, even when the process is killed after it', async () => {
    const script = `log.info('before'); log.fatal('dead'); process.kill(process.pid, 'SIGKILL');`;
    expect(await inChild(script)).toEqual(['before', 'dead']);
  });

  test('a reader that is slow to begin loses nothing', async () => {
    const script = `process.stdout; process.stderr.write('begun'); for (let n = 0; n < 4000; n++) log.info('x'.repeat(100)); log.info('end')`;
    const lines = await inChild(script, (child) => once(child.stderr, 'data'));
    expect(lines).toHaveLength(4001);
    expect(lines.at(-1)).toBe('end');
  });
});
