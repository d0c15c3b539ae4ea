import type { KeyObject } from 'node:crypto';

import type { AnyBoundCheck } from '../checks/check.ts';
import type { Policy } from '../verdict/rules.ts';
import type { ConfigFile } from './schema.ts';

/** A private key that signs for one domain. */
export interface SigningKey {
  /** d=, lower case. */
  readonly domain: string;
  /** s= */
  readonly selector: string;
  readonly subdomains: boolean;
  readonly algorithm: 'rsa-sha256' | 'ed25519-sha256';
  readonly key: KeyObject;
}

export interface Signing {
  readonly headerCanonicalization: 'relaxed' | 'simple';
  readonly bodyCanonicalization: 'relaxed' | 'simple';
  readonly oversign: readonly string[];
  /** Seconds; null: no x=. */
  readonly expire: number | null;
  readonly keys: readonly SigningKey[];
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
  readonly policy: Policy;
  /** Enabled checks with their options, in the order of the check list. */
  readonly checks: readonly AnyBoundCheck[];
  readonly signing: Signing;
}
