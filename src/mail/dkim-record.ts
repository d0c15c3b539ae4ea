import { KEY_RECORD_LIMIT } from './dkim-key.ts';

/** RFC 1035 §3.3: octets of one character-string. */
const STRING_LIMIT = 255;

/** What is published of a key, and where. */
export interface PublicRecord {
  /** SELECTOR._domainkey.DOMAIN */
  readonly name: string;
  /** `v=DKIM1; k=…; p=…`, printable ASCII. */
  readonly text: string;
}

/** RFC 6376 §3.6.2.1. */
export function recordName(selector: string, domain: string): string {
  return `${selector}._domainkey.${domain}`;
}

/** RFC 6376 §3.6.1, RFC 8463 §4. */
export function recordText(type: 'rsa' | 'ed25519', data: string): string {
  return `v=DKIM1; k=${type}; p=${data}`;
}

export const RECORD_FORMS = ['bind', 'plain', 'tinydns', 'nsupdate'] as const;

/**
 * How a record is handed over. `bind`: a line of a master file (RFC 1035 §5), for BIND, NSD, Knot and PowerDNS. `plain`: name and value apart, for
 * web panels, which split it themselves. `tinydns`: a line of tinydns-data. `nsupdate`: RFC 2136, with nsupdate(1).
 */
export type RecordForm = (typeof RECORD_FORMS)[number];

/** The lines of a record in one form. `ttl` in seconds. */
export function recordLines({ name, text }: PublicRecord, form: RecordForm, ttl: number): string {
  if (!/^[\x20-\x7e]*$/.test(text) || text.length > KEY_RECORD_LIMIT)
    throw new Error('not the text of a key record');
  switch (form) {
    case 'bind': {
      const strings = quotedStrings(text);
      const data =
        strings.length === 1
          ? strings.join('')
          : `(\n${strings.map((part) => `    ${part}\n`).join('')}    )`;
      return `${name}. ${ttl} IN TXT ${data}\n`;
    }
    case 'plain':
      return `name:  ${name}\ntype:  TXT\nvalue: ${text}\n`;
    case 'tinydns':
      // tinydns-data splits the text itself; a colon ends a field.
      return `'${name}:${text.replaceAll(/[\\:]/g, octal)}:${ttl}\n`;
    case 'nsupdate':
      return `update add ${name}. ${ttl} IN TXT ${quotedStrings(text).join(' ')}\n`;
  }
}

/** As quoted character-strings, none too long. RFC 6376 §3.6.2.2: they are joined again without anything between. */
function quotedStrings(text: string): readonly string[] {
  const strings: string[] = [];
  for (let at = 0; at === 0 || at < text.length; at += STRING_LIMIT) {
    strings.push(`"${text.slice(at, at + STRING_LIMIT).replaceAll(/["\\]/g, '\\$&')}"`);
  }
  return strings;
}

function octal(character: string): string {
  return `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`;
}
