import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { openSqliteState } from '../../../src/adapters/state-sqlite.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { Attempt } from '../../../src/policyd/logins-request.ts';
import type { Notice } from '../../../src/ports/notifier.ts';
import type { State } from '../../../src/ports/state.ts';
import { FakeClock } from '../../support/decisions.ts';

export const SECRET = '0123456789abcdef0123456789abcdef';

export interface LoginsGiven extends AsyncDisposable {
  readonly config: Config;
  readonly state: State;
  readonly clock: FakeClock;
  readonly notices: Notice[];
  readonly notifier: { notify(notice: Notice): void };
}

/** `[logins]` switched on with a secret, and a real state of its own. `text` goes below the table's own keys. */
export async function givenLogins(text = ''): Promise<LoginsGiven> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-logins-'));
  await writeFile(join(folder, 'logins.key'), `X-API-Key: ${SECRET}`, { mode: 0o600 });
  const path = join(folder, 'postern.toml');
  // A test is not about how busy its machine is, unless it says so.
  const deadline = text.includes('deadline =') ? '' : 'deadline = "1s"\n';
  await writeFile(path, `[logins]\nenabled = true\napi_key_file = "logins.key"\n${deadline}${text}\n`);
  const loaded = await loadConfig(path);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const clock = new FakeClock();
  const state = await openSqliteState(folder, clock);
  const notices: Notice[] = [];
  return {
    config: loaded.config,
    state,
    clock,
    notices,
    notifier: { notify: (notice) => void notices.push(notice) },
    async [Symbol.asyncDispose]() {
      await state[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    },
  };
}

let serial = 0;

/** A login that is being tried, with a password of its own unless the test names one. */
export function attempt(differs: Partial<Attempt> = {}): Attempt {
  serial += 1;
  return {
    login: 'zeus@olimpus.example',
    remote: '192.0.2.7',
    protocol: 'imap',
    session: `session-${serial}`,
    device: '',
    passwordMark: serial.toString(16).padStart(4, '0'),
    ...differs,
  };
}
