import type { Publication, Standing } from '../adapters/key-publication.ts';
import type { Role } from '../adapters/key-store.ts';
import { printable } from '../mail/reply.ts';
import { recordLines, recordName, type RecordForm } from '../mail/dkim-record.ts';
import type { ViewedDomain, ViewedKey } from './keys-view.ts';

/** The words of `postern keys`. What name servers say is shown as printable ASCII. */

/** Of the records that are printed, in seconds. */
const TTL = 3600;

const WORD_LIMIT = 320;

const ROLE_WORDS = {
  next: 'next',
  private: 'signs',
  old: 'old',
  retired: 'retired',
} as const satisfies Record<Role, string>;

/** `20261121-rsa  signs  RSA 2048 bits  since 2026-11-21` */
export function keyLine(key: ViewedKey): string {
  const what = key.content.ok ? key.content.words : 'unusable';
  const since = key.listed ? 'in a file of its own' : `since ${day(key.since)}`;
  return `  ${key.selector.padEnd(20)} ${ROLE_WORDS[key.role].padEnd(8)} ${what.padEnd(14)} ${since}`;
}

export function keyJson(key: ViewedKey, publication?: Publication): string {
  const { domain, selector, role, since, path, content, listed } = key;
  return JSON.stringify({
    domain,
    selector,
    role: ROLE_WORDS[role],
    since: listed ? null : new Date(since).toISOString(),
    path,
    kind: content.ok ? content.kind : null,
    record: content.ok ? content.text : null,
    wrong: content.ok ? null : content.why,
    ...(publication === undefined ? {} : { published: publication.state, servers: publication.servers }),
  });
}

/** The record of a key, ready to be published. */
export function recordOf({ domain, selector, content }: ViewedKey, form: RecordForm): string {
  if (!content.ok) return '';
  return recordLines({ name: recordName(selector, domain), text: content.text }, form, TTL);
}

export function publicationWords(publication: Publication): string {
  switch (publication.state) {
    case 'everywhere':
      return 'published on all name servers';
    case 'partly':
      return 'not published on all name servers';
    case 'nowhere':
      return 'not published';
    case 'unknown':
      return `not known whether it is published: ${printable(publication.why, WORD_LIMIT)}`;
  }
}

/** A line for each address that was asked. */
export function serverLines({ servers }: Publication): string {
  return servers
    .map(({ server, address, standing }) => {
      const place = address === null ? server : `${server} (${address})`;
      return `    ${printable(place, WORD_LIMIT).padEnd(40)} ${standingWords(standing)}\n`;
    })
    .join('');
}

function standingWords(standing: Standing): string {
  switch (standing.kind) {
    case 'published':
      return 'has it';
    case 'missing':
      return 'has no record';
    case 'revoked':
      return 'has a revoked key (empty p=)';
    case 'mismatch':
      return 'has another key';
    case 'malformed':
      return `has a record that can't be used: ${printable(standing.why, WORD_LIMIT)}`;
    case 'silent':
      return `no answer: ${printable(standing.why, WORD_LIMIT)}`;
  }
}

function day(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}

export function minute(time: number): string {
  return `${new Date(time).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

export function keyOf(
  { keys }: ViewedDomain,
  selector: string,
  roles: readonly Role[],
): ViewedKey | undefined {
  return keys.find((key) => key.selector === selector && roles.includes(key.role));
}
