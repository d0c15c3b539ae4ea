import { spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { text } from 'node:stream/consumers';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';

import { openSqliteHistory, openSqliteStore } from '../../../src/adapters/store-sqlite.ts';
import { StoreUnusable } from '../../../src/adapters/sqlite-schema.ts';
import type { Store } from '../../../src/ports/store.ts';
import { decision, FakeClock, MORNING } from '../../support/decisions.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-sqlite-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

interface Reports {
  readonly failed: string[];
  readonly lost: number[];
}

function open(reports: Reports = { failed: [], lost: [] }, where = folder): Promise<Store & AsyncDisposable> {
  return openSqliteStore(where, new FakeClock(), {
    writeFailed: (error) => reports.failed.push(error.message),
    lost: (count) => reports.lost.push(count),
    tracesLost: (count) => reports.lost.push(count),
  });
}

function file(): string {
  return join(folder, 'postern.sqlite');
}

const KEYS = { session: '192.0.2.1:25', sender: 'a@example.com', instance: 'i', queueId: 'Q' };

const STORE = JSON.stringify(new URL('../../../src/adapters/store-sqlite.ts', import.meta.url).href);
const DECISIONS = JSON.stringify(new URL('../../support/decisions.ts', import.meta.url).href);

/** Runs a script in a process of its own, with `store` open. */
async function inChild(script: string, limits = 'true'): Promise<string> {
  const code = `
    import { openSqliteStore } from ${STORE};
    import { decision, FakeClock } from ${DECISIONS};
    const reports = { failed: [], lost: [] };
    const events = {
      writeFailed: (error) => reports.failed.push(error.message),
      lost: (count) => reports.lost.push(count),
      tracesLost: (count) => reports.lost.push(count),
    };
    const store = await openSqliteStore(${JSON.stringify(folder)}, new FakeClock(), events).catch((error) => {
      console.log(error.name, error.message);
      process.exit();
    });
    ${script}`;
  const child = spawn('bash', [
    '-c',
    `${limits}; exec "$0" --input-type=module -e "$1"`,
    process.execPath,
    code,
  ]);
  const [out, problems] = await Promise.all([text(child.stdout), text(child.stderr)]);
  expect(problems).toBe('');
  return out;
}

describe('the file', () => {
  test('can be read by nobody else, with all that SQLite puts beside it', async () => {
    const before = process.umask(0);
    try {
      const state = join(folder, 'new/state');
      await using store = await open(undefined, state);
      await store.openTrace(KEYS, 'fresh');
      expect((await stat(state)).mode & 0o777).toBe(0o700);
      const names = (await readdir(state)).toSorted((one, other) => one.localeCompare(other));
      expect(names).toEqual(['postern.sqlite', 'postern.sqlite-shm', 'postern.sqlite-wal']);
      for (const name of names) expect((await stat(join(state, name))).mode & 0o777).toBe(0o600);
    } finally {
      process.umask(before);
    }
  });

  test('is whole again in one piece after the end', async () => {
    const store = await open();
    store.record(decision());
    await store[Symbol.asyncDispose]();
    expect(await readdir(folder)).toEqual(['postern.sqlite']);
  });

  test('of a newer version is refused, and left alone', async () => {
    await (await open())[Symbol.asyncDispose]();
    const database = new DatabaseSync(file());
    database.exec('PRAGMA user_version = 99');
    database.close();
    await expect(open()).rejects.toThrow(StoreUnusable);
    await expect(open()).rejects.toThrow(
      'schema version 99, this version of Postern knows 5; use the newer version',
    );
    expect(() => openSqliteHistory(folder)).toThrow('schema version 99');
  });

  test('of another program is refused', async () => {
    const database = new DatabaseSync(file());
    database.exec('CREATE TABLE theirs (x)');
    database.close();
    await expect(open()).rejects.toThrow('it belongs to another program');
    expect(() => openSqliteHistory(folder)).toThrow('it belongs to another program');
  });

  test('that is none', async () => {
    await writeFile(file(), 'x'.repeat(5000));
    await expect(open()).rejects.toThrow(
      `cannot use the store ${file()}: file is not a database; move the file away, a new one is made`,
    );
  });

  test('a folder that can not be made', async () => {
    await writeFile(join(folder, 'in-the-way'), '');
    await expect(open(undefined, join(folder, 'in-the-way/state'))).rejects.toThrow(
      'the state folder must be writable for this user',
    );
  });

  test.skipIf(process.getuid?.() === 0)('a folder that may not be written to', async () => {
    await mkdir(join(folder, 'closed'), { mode: 0o500 });
    await expect(open(undefined, join(folder, 'closed'))).rejects.toThrow('must be writable for this user');
    await chmod(join(folder, 'closed'), 0o700);
  });

  test('a disk that is full when the store is opened', async () => {
    expect(await inChild('', 'ulimit -f 40')).toMatch(/^StoreUnusable .*is the disk full\?$/m);
  });
});

describe('reading beside the daemons', () => {
  test('null when there is nothing', () => {
    expect(openSqliteHistory(folder)).toBeNull();
  });

  test('null when a daemon has just made the file', async () => {
    await writeFile(file(), '');
    expect(openSqliteHistory(folder)).toBeNull();
  });

  test('sees what is written meanwhile and can not write itself', async () => {
    await using store = await open();
    using reader = openSqliteHistory(folder) ?? undefined;
    store.record(decision());
    await store.flush();
    expect(await reader?.history({ limit: 5 })).toEqual([decision()]);
  });
});

/** Sixty messages, each asked about, filtered and recorded. */
function sixtyMessages(name: string): string {
  return `
    const claimed = [];
    for (let n = 0; n < 60; n++) {
      await store.openTrace({ session: 's', sender: 'a', instance: '${name}' + n, queueId: null }, '${name}-' + n);
      claimed.push(await store.joinTrace({ session: 's', sender: 'a', instance: null, queueId: '${name}' + n }, 'none'));
      store.record(decision({ trace: '${name}-' + n, recipients: ['x@y', '${name}@y'] }));
    }
    await store[Symbol.asyncDispose]();
    console.log(JSON.stringify({ reports, claimed }));`;
}

const ANSWER = z.object({
  reports: z.object({ failed: z.array(z.string()), lost: z.array(z.number()) }),
  claimed: z.array(z.string()),
});

describe('several processes', () => {
  test('three that start at once on a new file share it without an error', async () => {
    const answers = await Promise.all(['p', 'q', 'r'].map((name) => inChild(sixtyMessages(name))));
    const told = answers.map((answer) => ANSWER.parse(JSON.parse(answer)));
    for (const { reports } of told) expect(reports).toEqual({ failed: [], lost: [] });
    const claimed = told.flatMap((one) => one.claimed);
    expect(new Set(claimed).size).toBe(180);
    expect(claimed).not.toContain('none');
    await using store = await open();
    expect(await store.history({ limit: 1000 })).toHaveLength(180);
    expect(await store.history({ recipient: 'q@y', limit: 1000 })).toHaveLength(60);
  });

  test('a lock that another process holds is waited for without stopping the event loop', async () => {
    await using store = await open();
    const holder = new DatabaseSync(file());
    holder.exec('BEGIN IMMEDIATE');
    const opened = store.openTrace(KEYS, 'fresh');
    // The loop turns while the store waits.
    await new Promise((resolve) => setImmediate(resolve));
    holder.exec('COMMIT');
    holder.close();
    expect(await opened).toBe('fresh');
  });

  test('a lock that is held for too long is an error, in time for the message to go on', async () => {
    await using store = await open();
    const holder = new DatabaseSync(file());
    holder.exec('BEGIN IMMEDIATE');
    await expect(store.openTrace(KEYS, 'fresh')).rejects.toThrow('database is locked');
    expect(await store.keptFacts('t', 'q')).toBeNull(); // reading needs no lock
    holder.close();
  });
});

describe('faults while running', () => {
  test('a disk that fills up is reported and counted, and nothing else happens', async () => {
    const script = `
      for (let n = 0; n < 30; n++) store.record(decision({ why: 'x'.repeat(2000) }));
      await store.flush();
      for (let n = 0; n < 400; n++) store.record(decision({ why: 'x'.repeat(2000) }));
      await store.flush().then(() => console.log('no error'), () => {});
      const opened = await store.history({ limit: 3 });
      await store[Symbol.asyncDispose]();
      console.log(JSON.stringify({ failed: reports.failed.length > 0, lost: reports.lost.length, read: opened.length }));`;
    const answer = await inChild(script, 'ulimit -f 400');
    expect(JSON.parse(answer)).toEqual({ failed: true, lost: 1, read: 3 });
  });

  test('a decision that can not be stored is lost alone', async () => {
    const reports: Reports = { failed: [], lost: [] };
    await using store = await open(reports);
    store.record(decision({ trace: 'before' }));
    store.record(decision({ elapsed: Number.NaN }));
    store.record(decision({ trace: 'after' }));
    await store.flush();
    const kept = await store.history({ limit: 10 });
    expect(kept.map((one) => one.trace)).toEqual(['after', 'before']);
    expect(reports).toEqual({ failed: [], lost: [1] });
  });

  test('the end comes while old history is removed', async () => {
    const store = await open();
    for (let index = 0; index < 500; index++) store.record(decision({ time: MORNING - 1 }));
    await store.flush();
    const removing = store.expire(MORNING);
    await store[Symbol.asyncDispose]();
    expect(await removing).toBeLessThan(500);
  });
});
