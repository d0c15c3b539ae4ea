import type { RedisOptions } from '../../src/adapters/redis-client.ts';

/** A Redis that asks for no password. Where it is, and how long a call may take, differs. */
export const PLAIN_REDIS = {
  username: null,
  password: null,
  database: 0,
  tls: null,
  prefix: 'postern:',
} satisfies Omit<RedisOptions, 'address' | 'timeoutMs'>;
