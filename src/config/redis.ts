import { resolve } from 'node:path';

import { z } from 'zod';

import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';
import { readSecret, secretPath } from './secret-file.ts';
import { filePath, printable, socketAddress, waitingTime, type SocketAddress } from './values.ts';

/** More are not needed to find the others. */
const ADDRESSES_LIMIT = 100;

const SAFE_PREFIX = /^[^{}]*$/;

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
  })
  .prefault({})
  .describe('Redis, which keeps the state for several hosts; see docs/state.md.');

/** What the files of `[state.redis]` hold. */
export interface RedisFiles {
  readonly password: string | null;
  readonly sentinelPassword: string | null;
  /** PEM. */
  readonly ca: string | null;
}

export interface RedisMistake {
  readonly key:
    | 'address'
    | 'addresses'
    | 'cluster'
    | 'sentinels'
    | 'master'
    | 'sentinel_password_file'
    | 'database'
    | 'username'
    | 'password_file'
    | 'tls'
    | 'tls_ca_file';
  readonly wrong: string;
  readonly remedy: string;
}

const LARGEST_CA_FILE = 1024 ** 2;
const NO_FILES: RedisFiles = { password: null, sentinelPassword: null, ca: null };

/** Whether the state is in Redis. */
export function redisInUse({ address, addresses, cluster, sentinels }: z.output<typeof redis>): boolean {
  return address !== null || addresses.length > 0 || cluster || sentinels.length > 0;
}

/** Reads the files, when Redis is used, and says what does not go together. @param folder that the names are relative to */
export async function readRedisFiles(
  settings: z.output<typeof redis>,
  folder: string,
): Promise<{ readonly files: RedisFiles; readonly mistakes: readonly RedisMistake[] }> {
  const { address, username, password_file, tls, tls_ca_file } = settings;
  if (!redisInUse(settings)) return { files: NO_FILES, mistakes: [] };
  const mistakes = [...placeMistakes(settings)];
  let sentinelPassword: string | null = null;
  if (settings.sentinel_password_file !== null) {
    const reading = await readSecret(secretPath(folder, settings.sentinel_password_file), 'allowed');
    if (reading.ok) sentinelPassword = reading.secret;
    else
      mistakes.push({
        key: 'sentinel_password_file',
        wrong: reading.wrong,
        remedy: 'expected a file with the password alone',
      });
  }
  let password: string | null = null;
  if (password_file !== null) {
    const reading = await readSecret(secretPath(folder, password_file), 'allowed');
    if (reading.ok) password = reading.secret;
    else
      mistakes.push({
        key: 'password_file',
        wrong: reading.wrong,
        remedy: 'expected a file with the password alone',
      });
  } else if (username !== null) {
    mistakes.push({
      key: 'username',
      wrong: 'a user without a password',
      remedy: 'set password_file as well',
    });
  }
  if (tls && address?.kind === 'unix') {
    mistakes.push({
      key: 'tls',
      wrong: 'a unix socket is not encrypted',
      remedy: 'expected false, or "host:port" as the address',
    });
  }
  let ca: string | null = null;
  if (tls_ca_file !== null) {
    const path = resolve(folder, tls_ca_file);
    const reading = await readSmallFile(path, LARGEST_CA_FILE);
    if (!tls)
      mistakes.push({
        key: 'tls_ca_file',
        wrong: 'certificates for a connection without TLS',
        remedy: 'set tls = true as well',
      });
    else if (!reading.ok) {
      const remedy = 'expected the path of a PEM file';
      mistakes.push({ key: 'tls_ca_file', wrong: `${shown(path)} can't be used: ${reading.detail}`, remedy });
    } else {
      ca = reading.octets.toString('latin1');
      if (!ca.includes('-----BEGIN CERTIFICATE-----')) {
        mistakes.push({
          key: 'tls_ca_file',
          wrong: `${shown(path)} holds no certificate`,
          remedy: 'expected PEM',
        });
      }
    }
  }
  return { files: { password, sentinelPassword, ca }, mistakes };
}

/** What does not go together of where Redis is. */
function* placeMistakes(settings: z.output<typeof redis>): Generator<RedisMistake> {
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
