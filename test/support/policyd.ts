import { writeFile } from 'node:fs/promises';

import { pino } from 'pino';
import { Registry } from 'prom-client';

import type { CheckDefinition, CheckTools } from '../../src/checks/check.ts';
import { loadConfig } from '../../src/config/load.ts';
import { policyd } from '../../src/policyd/daemon.ts';
import { openListener } from '../../src/runtime/listener.ts';
import { checkTools } from './checks.ts';
import { privateFolder } from './neighbours/folder.ts';
import type { Target } from './players/dial.ts';
import { quietStore, type QuietStore } from './players/quiet-store.ts';

export interface PolicydStage extends AsyncDisposable {
  readonly target: Target;
  readonly store: QuietStore;
}

/** policyd in this process, on a port of its own, with these checks of a configuration and these tools. */
export async function stagePolicyd(
  checks: readonly CheckDefinition[],
  toml: string,
  tools: Partial<CheckTools>,
): Promise<PolicydStage> {
  await using folder = await privateFolder('policyd-stage');
  const path = folder.join('postern.toml');
  await writeFile(path, `site.hostname = "mx.olimpus.example"\n${toml}`);
  const loaded = await loadConfig(path, checks);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const store = quietStore();
  const listener = await openListener({
    address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    mode: 0o600,
    group: null,
    maxConnections: 100,
  });
  policyd(listener, loaded.config, {
    log: pino({ level: 'silent' }),
    registry: new Registry(),
    store,
    checks: checkTools(tools),
  });
  return {
    target: { port: listener.port ?? 0 },
    store,
    [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose](),
  };
}
