import { z } from 'zod';

import type { NamedFiles } from './named-files.ts';
import { readServerFiles, redisInUse, redisServer, type RedisSettings } from './redis.ts';
import { printable, socketAddress, waitingTime } from './values.ts';

/** `[signing.redis]`: signing keys in two hashes of Redis, as rspamd has them. */
export const keysRedis = z
  .strictObject({
    enabled: z.boolean().default(false).describe('Whether signing keys are looked for in Redis.'),
    address: socketAddress()
      .nullable()
      .default(null)
      .describe('Where Redis listens: "host:port" or "unix:/path".')
      .meta({
        examples: ['127.0.0.1:6379'],
        defaultText: 'that of [state.redis], over the same connection',
      }),
    ...redisServer,
    timeout: waitingTime().prefault('250ms').describe('The longest one answer may take.'),
    keys: printable(1, 256)
      .default('DKIM_PRIV_KEYS')
      .describe('Hash with the private keys: field SELECTOR.DOMAIN, PEM or the base64 of it.'),
    selectors: printable(1, 256)
      .default('DKIM_SELECTORS')
      .describe('Hash that says which keys sign: field DOMAIN, one selector or several with spaces between.'),
  })
  .prefault({})
  .describe(
    'Signing keys in Redis. They are looked for where there is no file; [directory.cache] says how long they are remembered.',
  );

export interface KeysRedisFiles {
  readonly password: string | null;
  /** PEM. */
  readonly ca: string | null;
}

/** Reads the files of `[signing.redis]` and says what does not go together. */
export async function readKeysRedisFiles(
  settings: z.output<typeof keysRedis>,
  state: RedisSettings,
  files: NamedFiles,
): Promise<KeysRedisFiles> {
  const { enabled, address, username, password_file: passwordFile } = settings;
  const place = ['signing', 'redis'];
  if (!enabled) return { password: null, ca: null };
  if (address === null && !redisInUse(state))
    files.say([...place, 'enabled'], 'there is no Redis to ask', 'add address = "host:port"');
  if (address === null && (username !== null || passwordFile !== null)) {
    const key = username === null ? 'password_file' : 'username';
    files.say([...place, key], 'this is for a server of its own', 'add address = "host:port"');
  }
  return await readServerFiles(settings, place, files);
}
