import { z } from 'zod';

import { duration } from '../checks/options.ts';
import type { NamedFiles } from './named-files.ts';
import { filePath, printable, socketAddress, waitingTime, type SocketAddress } from './values.ts';

/** More are not needed to find the others. */
const ADDRESSES_LIMIT = 100;

const SAFE_PREFIX = /^[^{}]*$/;

/** How one server is reached; in `[state.redis]` all nodes and masters are so. */
export const redisServer = {
  username: printable(1, 128)
    .nullable()
    .default(null)
    .describe('User of its access list.')
    .meta({ examples: ['postern'], defaultText: 'the default user of Redis' }),
  password_file: filePath()
    .nullable()
    .default(null)
    .describe(
      'File with its password, one line. Only its owner may read it (mode 0600). "credential:NAME": a credential of systemd.',
    )
    .meta({ examples: ['redis.password'], defaultText: 'none' }),
  database: z
    .int()
    .min(0)
    .max(100_000)
    .default(0)
    .describe('Number of its database.')
    .meta({ title: 'number' }),
  tls: z
    .boolean()
    .default(false)
    .describe(
      'Whether the connection is encrypted. The certificate must be for the name that is connected to: in a Cluster, and behind Sentinels, the one that the servers announce.',
    ),
  tls_ca_file: filePath()
    .nullable()
    .default(null)
    .describe('File with the certificates that sign that of Redis, PEM.')
    .meta({ examples: ['redis-ca.pem'], defaultText: 'those that Node.js trusts' }),
} as const;

const SHORTEST_HANDOVER_MS = 60_000;

/** `[state.redis]`: the state of several hosts. */
export const redis = z
  .strictObject({
    address: socketAddress()
      .nullable()
      .default(null)
      .describe('Where Redis listens, when it is one server: "host:port" or "unix:/path".')
      .meta({
        examples: ['127.0.0.1:6379'],
        defaultText: 'none: the state is in SQLite, in the state folder',
      }),
    addresses: z
      .array(socketAddress())
      .max(ADDRESSES_LIMIT)
      .default([])
      .describe('Nodes of a Cluster, "host:port". One that answers tells of all others.')
      .meta({ examples: [['192.0.2.11:6379', '192.0.2.12:6379']] }),
    cluster: z.boolean().default(false).describe('Whether `addresses` are nodes of a Redis Cluster.'),
    sentinels: z
      .array(socketAddress())
      .max(ADDRESSES_LIMIT)
      .default([])
      .describe('Sentinels, "host:port", that know which server is the master.')
      .meta({ examples: [['192.0.2.21:26379', '192.0.2.22:26379']] }),
    master: printable(1, 128)
      .nullable()
      .default(null)
      .describe('What the Sentinels call the servers.')
      .meta({ examples: ['mymaster'], defaultText: 'none' }),
    sentinel_password_file: filePath()
      .nullable()
      .default(null)
      .describe('File with the password of the Sentinels, as `password_file`.')
      .meta({ examples: ['sentinel.password'], defaultText: 'none' }),
    ...redisServer,
    prefix: printable(0, 64)
      .refine(
        (text) => SAFE_PREFIX.test(text),
        'expected a text without { and }, which mean something to a Cluster',
      )
      .default('postern:')
      .describe('What all keys begin with. The same on all hosts that share the state.'),
    timeout: waitingTime()
      .prefault('250ms')
      .describe('The longest one call may take; then the check that made it counts as unavailable.'),
    history_entries: z
      .int()
      .min(1000)
      .max(1_000_000_000)
      .default(500_000)
      .describe(
        'Decisions that are kept, of all hosts together; of too many the oldest go, before `history_age`. Redis needs about a kilobyte for each. The same on all hosts.',
      )
      .meta({ title: 'number' }),
    handover: duration()
      .refine((ms) => ms >= SHORTEST_HANDOVER_MS, 'expected at least "1m"')
      .prefault('2h')
      .meta({ title: 'duration' })
      .describe(
        "How long a message's trace, and what the milter found out about it, are kept for lmtp-filter since they were last needed: longer than Postfix's maximal_backoff_time (4000 s), so that mail which is tried again is not checked again.",
      ),
  })
  .prefault({})
  .describe('Redis, which keeps state and record for several hosts; see docs/state.md and docs/scaling.md.');

export type RedisSettings = z.output<typeof redis>;

/** What the files of `[state.redis]` hold. */
export interface RedisFiles {
  readonly password: string | null;
  readonly sentinelPassword: string | null;
  /** PEM. */
  readonly ca: string | null;
}

const NO_FILES: RedisFiles = { password: null, sentinelPassword: null, ca: null };

/** Whether the state is in Redis. */
export function redisInUse({ address, addresses, cluster, sentinels }: RedisSettings): boolean {
  return address !== null || addresses.length > 0 || cluster || sentinels.length > 0;
}

/** Reads the files of `[state.redis]`, when Redis is used, and says what does not go together. */
export async function readRedisFiles(settings: RedisSettings, files: NamedFiles): Promise<RedisFiles> {
  if (!redisInUse(settings)) return NO_FILES;
  const place = ['state', 'redis'];
  for (const { key, wrong, remedy } of placeMistakes(settings)) files.say([...place, key], wrong, remedy);
  const sentinelKey = [...place, 'sentinel_password_file'];
  const sentinelPassword = await files.password(sentinelKey, settings.sentinel_password_file);
  return { sentinelPassword, ...(await readServerFiles(settings, place, files)) };
}

/** The files of how one server is reached. @param place of its table */
export async function readServerFiles(
  settings: z.output<z.ZodObject<typeof redisServer>> & { readonly address: SocketAddress | null },
  place: readonly string[],
  files: NamedFiles,
): Promise<{ readonly password: string | null; readonly ca: string | null }> {
  const { address, username, password_file, tls, tls_ca_file } = settings;
  const password = await files.password([...place, 'password_file'], password_file);
  if (username !== null && password_file === null)
    files.say([...place, 'username'], 'a user without a password', 'set password_file as well');
  if (tls && address?.kind === 'unix') {
    const remedy = 'expected false, or "host:port" as the address';
    files.say([...place, 'tls'], 'a unix socket is not encrypted', remedy);
  }
  return { password, ca: await files.certificates([...place, 'tls_ca_file'], tls_ca_file, tls) };
}

/** What does not go together of where Redis is. */
function* placeMistakes(
  settings: RedisSettings,
): Generator<{ readonly key: keyof typeof settings; readonly wrong: string; readonly remedy: string }> {
  const { address, addresses, cluster, sentinels, master, sentinel_password_file, database } = settings;
  if (address !== null && addresses.length > 0) {
    yield { key: 'addresses', wrong: 'address and addresses', remedy: 'set one of them' };
  }
  if (addresses.length > 0 && !cluster) {
    yield {
      key: 'addresses',
      wrong: 'several servers that are no Cluster',
      remedy: 'set cluster = true as well',
    };
  }
  if (cluster && sentinels.length === 0 && address?.kind !== 'tcp' && addresses.length === 0) {
    yield { key: 'cluster', wrong: 'a Cluster without a node', remedy: 'set addresses, each "host:port"' };
  }
  if (cluster && database !== 0) {
    yield { key: 'database', wrong: 'a Cluster has one database', remedy: 'expected 0' };
  }
  if (sentinels.length > 0 && (address !== null || addresses.length > 0 || cluster)) {
    yield { key: 'sentinels', wrong: 'Sentinels and an address', remedy: 'set sentinels and master alone' };
  }
  if (sentinels.length > 0 && master === null) {
    yield { key: 'sentinels', wrong: 'Sentinels without a name to ask for', remedy: 'set master as well' };
  }
  if (sentinels.length === 0 && (master !== null || sentinel_password_file !== null)) {
    const key = master === null ? 'sentinel_password_file' : 'master';
    yield { key, wrong: 'nobody to ask', remedy: 'set sentinels as well' };
  }
  for (const [key, list] of [
    ['addresses', addresses],
    ['sentinels', sentinels],
  ] as const) {
    if (list.some(({ kind }) => kind === 'unix')) {
      yield { key, wrong: 'a unix socket', remedy: 'expected "host:port"' };
    }
  }
}

/** Those that have a port. */
export function withPort(
  addresses: readonly SocketAddress[],
): readonly { readonly host: string; readonly port: number }[] {
  return addresses.flatMap((address) =>
    address.kind === 'tcp' ? [{ host: address.host, port: address.port }] : [],
  );
}
