import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { openSqliteStore } from '../../src/adapters/store-sqlite.ts';
import { FakeClock } from '../support/decisions.ts';
import { storeSuite } from './store-suite.ts';

const events = {
  writeFailed: (error: Error): never => {
    throw error;
  },
  lost: (decisions: number, why: string): never => {
    throw new Error(`${decisions} lost: ${why}`);
  },
  tracesLost: (traces: number, why: string): never => {
    throw new Error(`${traces} traces lost: ${why}`);
  },
};

storeSuite('SQLite', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'postern-store-'));
  const clock = new FakeClock();
  const store = await openSqliteStore(folder, clock, events);
  const other = await openSqliteStore(folder, clock, events);
  return {
    store,
    other,
    clock,
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    },
  };
});
