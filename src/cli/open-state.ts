import { openSqliteState } from '../adapters/state-sqlite.ts';
import type { Config } from '../config/config.ts';
import type { State } from '../ports/state.ts';
import type { Log } from '../runtime/telemetry.ts';
import { systemClock } from './clock.ts';

/** The state that a configuration names, for daemons and commands alike. @throws {StoreUnusable} */
export function openState({ file }: Config, log: Log | null = null): Promise<State & AsyncDisposable> {
  return openSqliteState(
    file.state.folder,
    systemClock,
    log === null
      ? {}
      : { failed: (error) => log.error({ why: error.message }, 'the state could not be tidied') },
  );
}
