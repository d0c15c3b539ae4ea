import { resolve } from 'node:path';

import { z } from 'zod';

import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';
import { readSecret, secretPath } from './secret-file.ts';
import { filePath, printable, socketAddress, waitingTime } from './values.ts';

const SAFE_PREFIX = /^[^{}]*$/;

/** `[state.redis]`: the state of several hosts. */
export const redis = z
  .strictObject({
    address: socketAddress()
      .nullable()
      .default(null)
      .describe(
        'Where Redis listens: "host:port" or "unix:/path". One server; Sentinel and Cluster are not supported yet.',
      )
      .meta({
        examples: ['127.0.0.1:6379'],
        defaultText: 'none: the state is in SQLite, in the state folder',
      }),
    username: printable(1, 128)
      .nullable()
      .default(null)
      .describe('User of its access list.')
      .meta({ examples: ['postern'], defaultText: 'the default user of Redis' }),
    password_file: filePath()
      .nullable()
      .default(null)
      .describe('File with its password, one line. Only its owner may read it (mode 0600). "credential:NAME": a credential of systemd.')
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
      .describe('Whether the connection is encrypted. The certificate must be for the name in `address`.'),
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
  /** PEM. */
  readonly ca: string | null;
}

export interface RedisMistake {
  readonly key: 'address' | 'username' | 'password_file' | 'tls' | 'tls_ca_file';
  readonly wrong: string;
  readonly remedy: string;
}

const LARGEST_CA_FILE = 1024 ** 2;
const NO_FILES: RedisFiles = { password: null, ca: null };

/** Reads the files, when Redis is used, and says what does not go together. @param folder that the names are relative to */
export async function readRedisFiles(
  settings: z.output<typeof redis>,
  folder: string,
): Promise<{ readonly files: RedisFiles; readonly mistakes: readonly RedisMistake[] }> {
  const { address, username, password_file, tls, tls_ca_file } = settings;
  if (address === null) return { files: NO_FILES, mistakes: [] };
  const mistakes: RedisMistake[] = [];
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
  if (tls && address.kind === 'unix') {
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
  return { files: { password, ca }, mistakes };
}
