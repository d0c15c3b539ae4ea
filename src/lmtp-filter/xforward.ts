import { isIP } from 'node:net';

import type { Client } from '../mail/envelope.ts';

/** What Postfix says of the SMTP client that a message came from. Its XFORWARD_README. */
export interface Forwarded {
  readonly client: Client;
  /** `local`: the message came from this machine (sendmail(1), a bounce). null: not said. */
  readonly source: 'local' | 'remote' | null;
  /** Postfix's queue id. */
  readonly queueId: string | null;
}

/** Attributes in our reply to LHLO; all that Postfix knows. */
export const XFORWARD_ATTRIBUTES = 'NAME ADDR PORT PROTO HELO IDENT SOURCE';

export const NOTHING_FORWARDED: Forwarded = Object.freeze({
  client: Object.freeze({
    address: '',
    port: null,
    name: null,
    reverseName: null,
    helo: null,
    tls: null,
    login: null,
  }),
  source: null,
  queueId: null,
});

/** Octets of a decoded value; a HELO name or host name has no more than 255. */
export const VALUE_LIMIT = 512;

/**
 * What is known after one XFORWARD command more; null when the command is malformed. An attribute that is sent again replaces what was
 * known, `[UNAVAILABLE]` and `[TEMPUNAVAIL]` say that nothing is.
 */
export function forward(known: Forwarded, attributes: string): Forwarded | null {
  const words = attributes.split(' ').filter((word) => word !== '');
  if (words.length === 0) return null;
  let result = known;
  for (const word of words) {
    const equals = word.indexOf('=');
    if (equals < 1) return null;
    const value = xtext(word.slice(equals + 1));
    if (value === null) return null;
    const next = withAttribute(result, word.slice(0, equals).toUpperCase(), available(value));
    if (next === null) return null;
    result = next;
  }
  return result;
}

function available(value: string): string | null {
  const upper = value.toUpperCase();
  return value === '' || upper === '[UNAVAILABLE]' || upper === '[TEMPUNAVAIL]' ? null : value;
}

function withAttribute(known: Forwarded, name: string, value: string | null): Forwarded | null {
  const { client } = known;
  switch (name) {
    case 'NAME':
      return { ...known, client: { ...client, name: value } };
    case 'ADDR': {
      const address = value === null ? '' : value.replace(/^IPV6:/i, '');
      return address === '' || isIP(address) !== 0 ? { ...known, client: { ...client, address } } : null;
    }
    case 'PORT': {
      if (value === null) return { ...known, client: { ...client, port: null } };
      const port = /^\d{1,5}$/.test(value) ? Number(value) : Number.NaN;
      return port <= 65_535 ? { ...known, client: { ...client, port } } : null;
    }
    case 'HELO':
      return { ...known, client: { ...client, helo: value } };
    case 'PROTO':
      return known; // SMTP or ESMTP: nothing that a decision needs
    case 'IDENT':
      return { ...known, queueId: value !== null && isQueueId(value) ? value : null };
    case 'SOURCE':
      switch (value?.toUpperCase()) {
        case 'LOCAL':
          return { ...known, source: 'local' };
        case 'REMOTE':
          return { ...known, source: 'remote' };
        case undefined:
          return { ...known, source: null };
        default:
          return null;
      }
    default:
      return null;
  }
}

/** Short ids are hexadecimal, long ones (enable_long_queue_ids) of digits and consonants. */
function isQueueId(text: string): boolean {
  return /^[0-9A-Za-z]{1,64}$/.test(text);
}

/** RFC 3461 §4 xtext: `+` and two hexadecimal digits stand for an octet. null when it is not that, or holds what no value may. */
function xtext(text: string): string | null {
  if (!/^(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-Fa-f]{2})*$/.test(text)) return null;
  const value = text.replaceAll(/\+(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  // A control character in a HELO name would go on into trace fields and logs.
  return value.length > VALUE_LIMIT || /[^\x20-\x7e\x80-\xff]/.test(value) ? null : value;
}
