import { dirname } from 'node:path';

import { Doveadm } from '../adapters/doveadm.ts';
import { DovecotQuota, LOOK_RESULTS } from '../adapters/dovecot-quota.ts';
import { QuotaClone } from '../adapters/quota-clone.ts';
import type { RedisClient } from '../adapters/redis-client.ts';
import type { Config } from '../config/config.ts';
import { readSecret, secretPath } from '../config/secret-file.ts';
import type { Clock } from '../ports/clock.ts';
import type { Directory } from '../ports/directory.ts';
import type { QuotaSource } from '../ports/quota.ts';
import { counter } from '../runtime/metrics.ts';
import type { Log, Telemetry } from '../runtime/telemetry.ts';

export interface OpenQuota extends AsyncDisposable {
  /** null: the configuration names nobody who could tell. */
  readonly source: QuotaSource | null;
}

/** Whom to ask how full mailboxes are, by the configuration. @throws {Error} when a file with a secret can't be used */
export async function openSiteQuota(
  config: Config,
  directory: Directory,
  clock: Clock,
  { log, registry }: Telemetry,
): Promise<OpenQuota> {
  await using opened = new AsyncDisposableStack();
  const { dovecot } = config.file;
  const doveadm = await openDoveadm(config);
  if (doveadm !== null) opened.use(doveadm);
  const redis = await openRedis(config, log);
  if (redis !== null) opened.use(redis);
  const owned = opened.move();
  const looks = counter<'result'>(registry, {
    name: 'postern_quota_lookups_total',
    help: 'Looks at how full a mailbox is, by where the answer came from.',
    labels: { result: LOOK_RESULTS },
  });
  const source =
    doveadm === null && redis === null
      ? null
      : new DovecotQuota(
          {
            grace: dovecot.quota_grace,
            localPartOnly: dovecot.username === 'local-part',
            limitsMs: dovecot.limits_cache,
          },
          {
            directory,
            doveadm,
            clone: redis === null ? null : new QuotaClone(redis, dovecot.quota_clone.prefix),
          },
          clock,
          { looked: (result) => looks.inc({ result }) },
        );
  return { source, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

export async function openDoveadm(config: Config): Promise<Doveadm | null> {
  const { doveadm, api_key_file, timeout, max_connections } = config.file.dovecot;
  if (doveadm === undefined) return null;
  if (api_key_file === undefined) throw new Error('dovecot.doveadm needs dovecot.api_key_file');
  const apiKey = await secretOf(config, api_key_file, 'refused', 'dovecot.api_key_file');
  return new Doveadm({ address: doveadm, apiKey, timeoutMs: timeout, maxConcurrent: max_connections });
}

/** Its client is loaded only where it is used, as in open-state.ts. */
async function openRedis(config: Config, log: Log): Promise<RedisClient | null> {
  const { address, database, password_file, timeout } = config.file.dovecot.quota_clone;
  if (address === undefined) return null;
  const password =
    password_file === undefined
      ? null
      : await secretOf(config, password_file, 'allowed', 'dovecot.quota_clone.password_file');
  const { RedisClient: Client } = await import('../adapters/redis-client.ts');
  const client = new Client(
    { address, username: null, password, database, tls: null, prefix: '', timeoutMs: timeout },
    {
      up: () => log.info('connected to the Redis of quota_clone'),
      down: (why) => log.error({ why }, 'the Redis of quota_clone is away'),
    },
  );
  await client.start();
  return client;
}

/** @throws {Error} with the key of the configuration */
async function secretOf(
  { path }: Config,
  name: string,
  lineEnd: 'allowed' | 'refused',
  key: string,
): Promise<string> {
  const folder = path === null ? process.cwd() : dirname(path);
  const reading = await readSecret(secretPath(folder, name), lineEnd);
  if (!reading.ok) throw new Error(`${key}: ${reading.wrong}`);
  return reading.secret;
}
