import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { openSqliteState } from '../../src/adapters/state-sqlite.ts';
import { FakeClock } from '../support/decisions.ts';
import { stateSuite } from './state-suite.ts';

stateSuite('SQLite', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'postern-state-'));
  const clock = new FakeClock();
  const state = await openSqliteState(folder, clock);
  return {
    state,
    advance: (ms) => {
      clock.time += ms;
      return Promise.resolve();
    },
    close: async () => {
      await state[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    },
  };
});
