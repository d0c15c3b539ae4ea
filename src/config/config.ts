import type { AnyBoundCheck } from '../checks/check.ts';
import type { Direction } from '../mail/envelope.ts';
import type { Policy } from '../verdict/rules.ts';
import type { DirectoryFiles } from './directory-files.ts';
import type { KeysRedisFiles } from './keys-redis.ts';
import type { RedisFiles } from './redis.ts';
import type { ConfigFile } from './schema.ts';
import type { Sealing, Signing } from './signing.ts';
import type { UpstreamTls } from './upstream.ts';
import type { WebhookHeader } from './webhook-header.ts';

/** What holds for the requests of one policy_context. */
export interface PolicyView {
  /** The context's name; empty: requests without one, and with one that no `[[policy]]` names. */
  readonly context: string;
  /** Checks that policyd makes, with their options, in the order of the check list. */
  readonly checks: readonly AnyBoundCheck[];
  readonly policy: Policy;
  /** In place of what login and network say; null: they say it. */
  readonly direction: Direction | null;
}

export interface Logins {
  /** What X-API-Key must say; null: nothing. */
  readonly apiKey: string | null;
}

export interface Notices {
  /** null: the webhook gets none. */
  readonly webhookHeader: WebhookHeader | null;
}

/**
 * The configuration as the daemons use it: one frozen value. A session keeps the value it began with; a reload makes a new one.
 */
export interface Config {
  /** Path of the file; null: embedded defaults. */
  readonly path: string | null;
  /** What the file says, defaults filled in. */
  readonly file: ConfigFile;
  readonly authservId: string;
  /** Of incoming mail. */
  readonly policy: Policy;
  /** Of outgoing mail, in milter and lmtp-filter; the same object when it does not differ. */
  readonly outgoingPolicy: Policy;
  /** Enabled checks of milter and lmtp-filter with their options, in the order of the check list. */
  readonly checks: readonly AnyBoundCheck[];
  /** policyd's: by policy_context. `''` is always there. */
  readonly views: ReadonlyMap<string, PolicyView>;
  readonly signing: Signing;
  /** null: nothing is sealed (ARC). */
  readonly sealing: Sealing | null;
  readonly notices: Notices;
  readonly logins: Logins;
  readonly redis: RedisFiles;
  /** What the files of [signing.redis] hold. */
  readonly keysRedis: KeysRedisFiles;
  /** What the files of [directory.sql] and [directory.ldap] hold. */
  readonly directory: DirectoryFiles;
  /** Of lmtp-filter's connections to Dovecot. */
  readonly upstreamTls: UpstreamTls;
}
