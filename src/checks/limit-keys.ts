import { createHash } from 'node:crypto';

import { lowerAscii, settingsKey, type ReversePath } from '../mail/address.ts';
import { KEY_LIMIT } from '../ports/limits.ts';
import type { RcptFacts } from './check.ts';
import type { KeyPart } from './limit-options.ts';
import { networkOf } from './networks.ts';

export interface KeyTerms {
  readonly delimiter: string;
  readonly prefixes: { readonly ipv4: number; readonly ipv6: number };
}

export type KeyFacts = Pick<RcptFacts, 'client' | 'sender' | 'recipient'>;

/** The counter of one limit that this recipient's mail counts under; null: it has none of the values, nothing is counted. */
export function limitKey(parts: readonly KeyPart[], facts: KeyFacts, terms: KeyTerms): string | null {
  const [only] = parts;
  if (only !== undefined && parts.length === 1) {
    const value = valueOf(only, facts, terms);
    return value === null ? null : cut(value);
  }
  const values: string[] = [];
  for (const part of parts) {
    const value = valueOf(part, facts, terms);
    if (value === null) return null;
    // A `|` that somebody chose for a user name must not make another's counter of it.
    values.push(value.replaceAll(/[%|]/g, (character) => (character === '|' ? '%7c' : '%25')));
  }
  return cut(values.join('|'));
}

function valueOf(part: KeyPart, facts: KeyFacts, { delimiter, prefixes }: KeyTerms): string | null {
  const { client, sender, recipient } = facts;
  switch (part) {
    case 'login':
      return client.login === null ? null : lowerAscii(client.login);
    case 'sender':
      return senderKey(sender, delimiter);
    case 'sender-domain':
      return sender.kind === 'null' || sender.address.domain === '' ? null : sender.address.domain;
    case 'client':
      return client.address === '' ? null : lowerAscii(client.address);
    case 'client-net':
      return networkOf(client.address, prefixes);
    case 'recipient':
      return settingsKey(recipient, delimiter);
    case 'recipient-domain':
      return recipient.domain === '' ? null : recipient.domain;
    case 'all':
      return 'all';
  }
}

/** Lower case and without extension, which senders choose anew for each message; null for bounces. */
export function senderKey(sender: ReversePath, delimiter: string): string | null {
  return sender.kind === 'null' ? null : settingsKey(sender.address, delimiter);
}

/** Characters of a digest: 128 bits. */
const DIGEST = 32;

function cut(key: string): string {
  if (key.length <= KEY_LIMIT) return key;
  const digest = createHash('sha256').update(key, 'latin1').digest('hex').slice(0, DIGEST);
  return `${key.slice(0, KEY_LIMIT - DIGEST - 1)}~${digest}`;
}

/** Under which name an account may have a value of its own for a limit counted by these parts; null: under none. */
export function accountName(parts: readonly KeyPart[], facts: KeyFacts, delimiter: string): string | null {
  const { client, sender, recipient } = facts;
  if (parts.includes('login')) return client.login === null ? null : lowerAscii(client.login);
  if (parts.includes('recipient')) return settingsKey(recipient, delimiter);
  if (parts.includes('sender')) return senderKey(sender, delimiter);
  if (parts.includes('recipient-domain')) return `@${recipient.domain}`;
  if (parts.includes('sender-domain') && sender.kind === 'address') return `@${sender.address.domain}`;
  return null;
}
