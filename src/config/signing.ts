import { resolve } from 'node:path';

import { z } from 'zod';

import { addressPattern, type AddressPattern } from '../checks/address-pattern.ts';
import { duration } from '../checks/options.ts';
import { keyLife } from './key-life.ts';
import { keysRedis } from './keys-redis.ts';
import { domain, fieldName, filePath, isDomainName } from './values.ts';

/** `[signing]` and `[arc]`: with which keys mail is signed and sealed. */

/** What stands between selector and domain in the name of a public key. RFC 6376 §3.6.2.1. */
const KEY_LABEL = '._domainkey.';

const KEY_NAME_FORM =
  'expected a domain, for all of its keys, or the name of one key in DNS, "SELECTOR._domainkey.DOMAIN"';

/** Keys that the signing table names. */
export interface KeyName {
  /** Lower case. */
  readonly domain: string;
  /** null: all keys of the domain. */
  readonly selector: string | null;
}

function keyName(): z.ZodType<KeyName, string> {
  return z
    .string(KEY_NAME_FORM)
    .transform((text, context): KeyName => {
      const name = parseKeyName(text);
      if (name !== null) return name;
      context.addIssue({ code: 'custom', message: KEY_NAME_FORM });
      return z.NEVER;
    })
    .meta({ title: 'domain or key' });
}

/** null: neither a domain nor the name of a key in DNS. */
export function parseKeyName(text: string): KeyName | null {
  const at = text.toLowerCase().indexOf(KEY_LABEL);
  const name = at === -1 ? text : text.slice(at + KEY_LABEL.length);
  const selector = at === -1 ? null : text.slice(0, at);
  if (!isDomainName(name) || (selector !== null && !isDomainName(selector))) return null;
  return { domain: name.toLowerCase(), selector };
}

const WITHOUT_KEY = ['defer', 'skip'] as const;

const key = z.strictObject({
  domain: domain()
    .describe('Signing domain (d=). Mail whose From is in this domain is signed with this key.')
    .meta({ examples: ['example.org'] }),
  selector: domain()
    .describe('Selector (s=): the public key stands in DNS at SELECTOR._domainkey.DOMAIN.')
    .meta({ examples: ['mail'] }),
  file: filePath()
    .describe(
      'File with the private key, PEM: RSA of 2048 bits or more, or Ed25519. Only its owner may read it (mode 0600). Read again when it changes.',
    )
    .meta({ examples: ['mail.private'] }),
  subdomains: z
    .boolean()
    .optional()
    .describe('Whether mail from subdomains is signed with this key too.')
    .meta({ examples: [true], defaultText: 'as in [signing]' }),
});

const tableEntry = z.strictObject({
  senders: z
    .array(addressPattern())
    .min(1)
    .max(10_000)
    .describe(
      'Whose mail this is for: "user@domain", "@domain", "*@*.domain", "*". The first entry that fits is the one.',
    )
    .meta({ examples: [['@customer.example', '*@*.customer.example']] }),
  keys: z
    .array(keyName())
    .min(1)
    .max(16)
    .describe(
      'With which keys it is signed: a domain stands for all of its keys, "SELECTOR._domainkey.DOMAIN" for one.',
    )
    .meta({ examples: [['example.org']] }),
});

export const signingTable = z
  .strictObject({
    canonicalization: z
      .enum(['relaxed/relaxed', 'relaxed/simple', 'simple/relaxed', 'simple/simple'])
      .default('relaxed/relaxed')
      .describe('How header and body are prepared for the signature (c=).'),
    oversign: z
      .array(fieldName())
      .default([
        'From',
        'To',
        'Cc',
        'Subject',
        'Date',
        'Reply-To',
        'Message-ID',
        'MIME-Version',
        'Content-Type',
      ])
      .describe('Fields signed once more than they occur, so that none can be added later.'),
    expire: duration()
      .optional()
      .describe('How long a signature is valid (x=).')
      .meta({ examples: ['14d'], defaultText: 'no limit' }),
    identity: z
      .array(z.enum(['from', 'envelope', 'login']))
      .min(1)
      .default(['from'])
      .describe(
        'Who chooses the key, in this order, the first one that there is a key for: the author ("from"), the envelope sender ("envelope"), the login ("login"). Only a signature of the author\'s own domain counts for DMARC.',
      ),
    subdomains: z
      .boolean()
      .default(false)
      .describe(
        'Whether mail from subdomains that have no keys of their own is signed with those of the parent domain.',
      ),
    folder: filePath()
      .optional()
      .describe(
        'Folder with keys, FOLDER/DOMAIN/SELECTOR.private: what is put there signs within seconds, without a reload, and what is taken away signs no more.',
      )
      .meta({ examples: ['keys'], defaultText: 'none' }),
    line_limit: z
      .int()
      .refine((octets) => octets === 0 || (octets >= 78 && octets <= 1_000_000), 'expected 0, or 78 and more')
      .default(998)
      .describe(
        "Postfix's smtp_line_length_limit (and lmtp_line_length_limit): longer lines are broken there when the message is sent, and are signed and sealed as they will be then; 0: none are.",
      )
      .meta({ title: 'number' }),
    without_key: z
      .enum(WITHOUT_KEY)
      .default('defer')
      .describe(
        'What becomes of a message that should be signed and can\'t be, because its key is broken or whoever has the keys does not answer: "defer" it, or let it go unsigned ("skip"). Mail of other domains is signed all the same.',
      ),
    table_only: z
      .boolean()
      .default(false)
      .describe(
        'Whether only mail of senders in the signing table is signed, as OpenDKIM does it; else all mail of domains that have keys as well.',
      ),
    table_match: z
      .enum(['first', 'all'])
      .default('first')
      .describe(
        "Which entries of the signing table count for a sender: the first one that fits, or all of them together (OpenDKIM's MultipleSignatures).",
      ),
    account_keys: z
      .boolean()
      .default(false)
      .describe(
        'Whether the settings of an account in [directory] may say with which keys its mail is signed: the column signing_keys, in the form of `keys` in [[signing.table]]. The account is the one that `identity` names; entries of the signing table come before it.',
      ),
    ...keyLife,
    key: z
      .array(key)
      .default([])
      .describe('A key in a file. Several keys of one domain give several signatures.'),
    redis: keysRedis,
    table: z
      .array(tableEntry)
      .default([])
      .describe(
        "Signing table: mail that is signed with keys of another domain, or with some of its own domain's only.",
      ),
  })
  .prefault({})
  .describe('DKIM signatures on outgoing mail.');

export const arcTable = z
  .strictObject({
    domain: domain()
      .optional()
      .describe(
        'Domain that seals (d=). It needs an RSA key, as [signing] has it; without this nothing is sealed.',
      )
      .meta({ examples: ['example.org'], defaultText: 'none: nothing is sealed' }),
    selector: domain()
      .optional()
      .describe('Selector (s=) of the key that seals.')
      .meta({ examples: ['arc'], defaultText: 'the first RSA key of the domain' }),
    seal: z
      .enum(['forwarded', 'incoming'])
      .default('forwarded')
      .describe(
        '"forwarded": mail from outside that leaves again, because an alias leads to another site or a recipient is in none of the domains in [directory]. "incoming": all mail from outside.',
      ),
    without_key: z
      .enum(WITHOUT_KEY)
      .default('skip')
      .describe(
        'What becomes of a message that should be sealed and can\'t be: "skip" or "defer", as in [signing].',
      ),
  })
  .prefault({})
  .describe(
    'ARC seals on mail that is forwarded, so that the next site can know what this one has verified. RFC 8617.',
  );

type SigningFile = z.output<typeof signingTable>;
type ArcFile = z.output<typeof arcTable>;

/** A key in a file of its own. */
export interface ListedKey {
  /** d=, lower case. */
  readonly domain: string;
  readonly selector: string;
  readonly subdomains: boolean;
  /** Absolute. */
  readonly path: string;
}

export interface TableEntry {
  readonly senders: readonly AddressPattern[];
  readonly keys: readonly KeyName[];
}

export type WithoutKey = (typeof WITHOUT_KEY)[number];

export interface Signing {
  readonly headerCanonicalization: 'relaxed' | 'simple';
  readonly bodyCanonicalization: 'relaxed' | 'simple';
  readonly oversign: readonly string[];
  /** Seconds; null: no x=. */
  readonly expire: number | null;
  /** Where Postfix breaks long lines; 0: nowhere. */
  readonly lineLimit: number;
  readonly identity: SigningFile['identity'];
  readonly withoutKey: WithoutKey;
  readonly tableOnly: boolean;
  readonly tableMatch: SigningFile['table_match'];
  /** Whether the settings of accounts name keys. */
  readonly accountKeys: boolean;
  readonly table: readonly TableEntry[];
  readonly keys: readonly ListedKey[];
  /** Absolute; null: there is none. */
  readonly folder: string | null;
  /** Whether the keys in the folder are for subdomains too. */
  readonly subdomains: boolean;
  /** Whether there may be a key for anybody. */
  readonly enabled: boolean;
}

export interface Sealing {
  /** Lower case. */
  readonly domain: string;
  /** null: any RSA key. */
  readonly selector: string | null;
  readonly seal: ArcFile['seal'];
  readonly withoutKey: WithoutKey;
  readonly oversign: readonly string[];
  readonly lineLimit: number;
}

/**
 * @param folder that relative paths start from
 * @param elsewhere whether there may be keys that are in no file
 */
export function signingOf(signing: SigningFile, folder: string, elsewhere = signing.redis.enabled): Signing {
  const [header = 'relaxed', body = 'relaxed'] = signing.canonicalization.split('/');
  const keys = signing.key.map(({ domain: name, selector, file, subdomains }) => ({
    domain: name.toLowerCase(),
    selector,
    subdomains: subdomains ?? signing.subdomains,
    path: resolve(folder, file),
  }));
  const keyFolder = signing.folder === undefined ? null : resolve(folder, signing.folder);
  return {
    headerCanonicalization: header === 'simple' ? 'simple' : 'relaxed',
    bodyCanonicalization: body === 'simple' ? 'simple' : 'relaxed',
    oversign: signing.oversign,
    expire: signing.expire === undefined ? null : Math.round(signing.expire / 1000),
    lineLimit: signing.line_limit,
    identity: signing.identity,
    withoutKey: signing.without_key,
    tableOnly: signing.table_only,
    tableMatch: signing.table_match,
    accountKeys: signing.account_keys,
    table: signing.table,
    keys,
    folder: keyFolder,
    subdomains: signing.subdomains,
    enabled: keys.length > 0 || keyFolder !== null || elsewhere,
  };
}

/** null: nothing is sealed. */
export function sealingOf(arc: ArcFile, signing: SigningFile): Sealing | null {
  if (arc.domain === undefined) return null;
  return {
    domain: arc.domain.toLowerCase(),
    selector: arc.selector ?? null,
    seal: arc.seal,
    withoutKey: arc.without_key,
    oversign: signing.oversign,
    lineLimit: signing.line_limit,
  };
}
