import { isDeepStrictEqual } from 'node:util';

import type { Config } from '../config/config.ts';
import type { DaemonName } from './arguments.ts';

/** What was settled when the process started: sockets, the state folder, the resolver. */
interface Settled {
  readonly config: Config;
  /** Keys whose new value waits for the next start. */
  readonly waiting: readonly string[];
}

/** Whoever asks Dovecot keeps connections and what it was told. */
const DOVECOT_KEYS = [
  'doveadm',
  'api_key_file',
  'timeout',
  'max_connections',
  'limits_cache',
  'quota_grace',
  'username',
  'quota_clone',
] as const;

const SOCKET_KEYS = ['listen', 'mode', 'group', 'max_connections'] as const;
const WORKER_KEYS = [...SOCKET_KEYS, 'workers'] as const;

/**
 * The new configuration as this process can use it: what can only change with a restart keeps its old value, so that no part of the
 * process sees a state folder or an address that another part does not use.
 */
export function settle(running: Config, next: Config, daemons: readonly DaemonName[]): Settled {
  const waiting: string[] = [];
  const keep = <T extends object>(
    table: string,
    keys: readonly (keyof T & string)[],
    before: T,
    after: T,
  ): T => {
    const kept = { ...after };
    for (const key of keys) {
      if (isDeepStrictEqual(before[key], after[key])) continue;
      waiting.push(`${table}.${key}`);
      kept[key] = before[key];
    }
    return Object.freeze(kept);
  };
  const [was, is] = [running.file, next.file];
  const workers = <N extends 'milter' | 'lmtp-filter'>(name: N): Config['file'][N] =>
    daemons.includes(name) ? keep(name, WORKER_KEYS, was[name], is[name]) : is[name];
  const file = Object.freeze({
    ...is,
    state: keep('state', ['folder', 'when_lost', 'redis'], was.state, is.state),
    policyd: daemons.includes('policyd') ? keep('policyd', SOCKET_KEYS, was.policyd, is.policyd) : is.policyd,
    logins: daemons.includes('policyd')
      ? keep('logins', ['enabled', ...SOCKET_KEYS], was.logins, is.logins)
      : is.logins,
    feedback: daemons.includes('lmtp-filter')
      ? keep('feedback', ['enabled', 'spool', ...SOCKET_KEYS], was.feedback, is.feedback)
      : is.feedback,
    milter: workers('milter'),
    'lmtp-filter': workers('lmtp-filter'),
    admin: keep('admin', ['listen', 'mode', 'group'], was.admin, is.admin),
    dovecot: keep('dovecot', DOVECOT_KEYS, was.dovecot, is.dovecot),
    dns: keep('dns', ['servers', 'timeout', 'cache_entries'], was.dns, is.dns),
  });
  return { config: Object.freeze({ ...next, file }), waiting };
}
