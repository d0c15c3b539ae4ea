import { expect, test } from 'vitest';

import { settle } from '../../../src/cli/restart.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';

async function defaults(): Promise<Config> {
  const result = await loadConfig(null);
  if (!result.ok) throw new Error('the defaults must be in order');
  return result.config;
}

const ALL = ['policyd', 'milter', 'lmtp-filter'] as const;

test('nothing changed, nothing waits', async () => {
  const running = await defaults();
  const again = await defaults();
  const settled = settle(running, again, ALL);
  expect(settled.waiting).toEqual([]);
  expect(settled.config).toEqual(again);
});

test('what was settled at the start keeps its value and is named; the rest is taken over', async () => {
  const running = await defaults();
  const { file } = running;
  const next: Config = {
    ...running,
    authservId: 'new.example',
    file: {
      ...file,
      state: {
        folder: '/elsewhere',
        history_age: 1000,
        history_max_size: 20_000_000,
        when_lost: 'local',
        redis: { ...file.state.redis, prefix: 'other:' },
      },
      policyd: { ...file.policyd, listen: { kind: 'unix', path: '/p' }, mode: 0o600, deadline: 1 },
      milter: { ...file.milter, max_connections: 1, group: '5' },
      admin: { ...file.admin, listen: { kind: 'unix', path: '/a' } },
      dns: { ...file.dns, timeout: 1, servers: [{ kind: 'tcp', host: '192.0.2.1', port: 53 }] },
    },
  };
  const { config, waiting } = settle(running, next, ALL);
  expect(waiting).toEqual([
    'state.folder',
    'state.when_lost',
    'state.redis',
    'policyd.listen',
    'policyd.mode',
    'milter.group',
    'milter.max_connections',
    'admin.listen',
    'dns.servers',
    'dns.timeout',
  ]);
  expect(config.authservId).toBe('new.example');
  expect(config.file).toEqual({
    ...file,
    state: { ...file.state, history_age: 1000, history_max_size: 20_000_000 },
    policyd: { ...file.policyd, deadline: 1 },
  });
  expect(
    Object.isFrozen(config) && Object.isFrozen(config.file) && Object.isFrozen(config.file.policyd),
  ).toBe(true);
});

test('a daemon that does not run here has nothing to wait for', async () => {
  const running = await defaults();
  const next = {
    ...running,
    file: { ...running.file, milter: { ...running.file.milter, max_connections: 1 } },
  };
  expect(settle(running, next, ['policyd']).waiting).toEqual([]);
});

test('where feedback is taken is settled in the process of lmtp-filter; what is done with it is not', async () => {
  const running = await defaults();
  const { file } = running;
  const feedback = { ...file.feedback, enabled: true, mode: 0o600, max_size: 2048, max_waiting: 2 ** 20 };
  const next: Config = { ...running, file: { ...file, feedback } };
  const { config, waiting } = settle(running, next, ['lmtp-filter']);
  expect(waiting).toEqual(['feedback.enabled', 'feedback.mode']);
  expect(config.file.feedback).toEqual({ ...file.feedback, max_size: 2048, max_waiting: 2 ** 20 });
  expect(settle(running, next, ['policyd']).waiting).toEqual([]);
});
