import { pathText } from '../mail/address.ts';
import type { Envelope } from '../mail/envelope.ts';
import type { HeaderField } from '../mail/header.ts';
import type { Message } from '../mail/message.ts';
import { printable } from '../mail/reply.ts';

/** Recipients named to the scanner. */
const RECIPIENT_LIMIT = 100;
/** RFC 5321 §4.5.3.1.3: octets of a path, brackets included. */
const PATH_LIMIT = 256;
/** RFC 1035 §2.3.4, and room for brackets. */
const NAME_LIMIT = 260;
const ADDRESS_LITERAL = /^\[(?:IPv6:)?[0-9A-Fa-f:.]{1,45}\]$/;

/**
 * What SpamAssassin has to be told above the message's own fields: the envelope, and, where our MTA's Received field is not shown to us,
 * the last hop. Without that hop it skips everything that rests on the client: DNS lists, reverse name, HELO, SPF.
 *
 * The order counts: SpamAssassin believes X-Envelope-From only when no Received stands above it.
 */
export function scanPreamble(message: Message, hostname: string, now: number): HeaderField[] {
  const { envelope } = message;
  const fields: HeaderField[] = [{ name: 'X-Envelope-From', value: ` <${path(pathText(envelope.sender))}>` }];
  if (message.received) return fields;
  for (const { address } of envelope.recipients.slice(0, RECIPIENT_LIMIT)) {
    fields.push({ name: 'X-Envelope-To', value: ` <${path(address.raw)}>` });
  }
  fields.push({ name: 'Received', value: lastHop(envelope, hostname, now) });
  return fields;
}

/** The Received field as Postfix would write it; SpamAssassin knows its form. RFC 5321 §4.4, RFC 3848. */
export function lastHop(envelope: Envelope, hostname: string, now: number): string {
  const { client } = envelope;
  const protocol =
    client.helo === null
      ? 'SMTP'
      : `ESMTP${client.tls === null ? '' : 'S'}${client.login === null ? '' : 'A'}`;
  const id = envelope.queueId === null ? '' : ` id ${word(envelope.queueId)}`;
  const date = new Date(now).toUTCString().replace('GMT', '+0000');
  // A client without an address (a unix socket) is this host itself.
  const from =
    client.address === ''
      ? ''
      : `from ${word(client.helo ?? 'unknown')} (${word(client.name ?? 'unknown')} [${literal(client.address)}])\r\n\t`;
  // As with smtpd_sasl_authenticated_header.
  const login = client.login === null ? '' : `(Authenticated sender: ${word(client.login)})\r\n\t`;
  return ` ${from}${login}by ${word(hostname)} (Postfix) with ${protocol}${id};\r\n\t${date}\r\n\t(envelope-from <${path(pathText(envelope.sender)).replaceAll(/[[\];]/g, '?')}>)`;
}

function literal(address: string): string {
  const safe = address.replaceAll(/[^0-9A-Fa-f:.]/g, '?').slice(0, NAME_LIMIT);
  return safe.includes(':') ? `IPv6:${safe}` : safe;
}

/** A name that a client chose, harmless within the field: it can't close a comment or bring brackets of its own. */
function word(text: string): string {
  if (ADDRESS_LITERAL.test(text)) return text;
  const safe = printable(text, NAME_LIMIT).replaceAll(/[^!#-'*+\-./0-9:=?A-Z^_`a-z{|}~]/g, '?');
  return safe === '' ? 'unknown' : safe;
}

/** A mailbox, harmless between angle brackets. */
function path(text: string): string {
  return printable(text, PATH_LIMIT).replaceAll(/[<>()\\]/g, '?');
}
