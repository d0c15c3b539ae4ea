import { NULL_PATH, parseMailbox, type Address, type ReversePath } from '../mail/address.ts';
import type { Client, TlsInfo } from '../mail/envelope.ts';
import type { MailFacts } from '../checks/check.ts';
import type { Attributes } from './wire.ts';

/** `protocol_state`, SMTPD_POLICY_README. */
export const STATES = [
  'CONNECT',
  'EHLO',
  'HELO',
  'MAIL',
  'RCPT',
  'DATA',
  'END-OF-MESSAGE',
  'VRFY',
  'ETRN',
] as const;

/** States at which a message is known by its sender, so that something can be said about it. */
export const MAIL_STATES = ['MAIL', 'RCPT', 'DATA', 'END-OF-MESSAGE'] as const;

export type MailState = (typeof MAIL_STATES)[number];
/** `unknown`: a state that a later Postfix may add, or none at all. */
export type State = (typeof STATES)[number] | 'unknown';

const STATE_BY_TEXT: ReadonlyMap<string, State> = new Map(STATES.map((state) => [state, state]));

export function stateOf(attributes: Attributes): State {
  return STATE_BY_TEXT.get(attributes.get('protocol_state') ?? '') ?? 'unknown';
}

/** A copy of its own. A value is a slice, and keeps the whole chunk it was cut from in memory for as long as it is kept itself. */
export function detached(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}

/** Postfix's instance attribute: the same in all requests of one message. Empty before MAIL was accepted. */
export function instanceOf(attributes: Attributes): string {
  return attributes.get('instance') ?? '';
}

/**
 * What joins the requests of one message. `instance` alone is unique on one Postfix host only, and nobody answers for its being
 * told truly; with all that the checks look at in the key, one message can't be given the verdict of another.
 */
export function messageKey(attributes: Attributes, instance: string): string {
  let key = instance;
  // No value can hold the LF that parts them.
  for (const name of KEY_ATTRIBUTES) key += `\n${attributes.get(name) ?? ''}`;
  return key;
}

const KEY_ATTRIBUTES = [
  'client_address',
  'client_port',
  'server_address',
  'helo_name',
  'sasl_username',
  'sender',
];

/** The facts a message's checks start from. `own` tells networks whose mail is outgoing. */
export function mailFactsOf(attributes: Attributes, own: { has(address: string): boolean }): MailFacts {
  const client = clientOf(attributes);
  const out = client.login !== null || (client.address !== '' && own.has(client.address));
  return { client, direction: out ? 'out' : 'in', sender: senderOf(attributes) };
}

/** The recipient; null where the request concerns none, or several. */
export function recipientOf(attributes: Attributes): Address | null {
  const text = attributes.get('recipient') ?? '';
  return text === '' ? null : parseMailbox(quoted(text));
}

/** Postfix's policy_context: which of its services asks. Empty when none is set. */
export function contextOf(attributes: Attributes): string {
  return attributes.get('policy_context') ?? '';
}

/** Accepted recipients; told at DATA and END-OF-MESSAGE. */
export function recipientCountOf(attributes: Attributes): number {
  return numberOf(attributes, 'recipient_count') ?? 0;
}

/** Octets: declared with SIZE= up to DATA, counted at END-OF-MESSAGE; null when not declared. */
export function sizeOf(attributes: Attributes): number | null {
  const size = numberOf(attributes, 'size');
  return size === 0 ? null : size;
}

/** null before Postfix has opened a queue file: at the first recipient of every message. */
export function queueIdOf(attributes: Attributes): string | null {
  return valueOf(attributes, 'queue_id');
}

function senderOf(attributes: Attributes): ReversePath {
  const text = attributes.get('sender') ?? '';
  return text === '' ? NULL_PATH : { kind: 'address', address: parseMailbox(detached(quoted(text))) };
}

function clientOf(attributes: Attributes): Client {
  return {
    address: knownOf(attributes, 'client_address') ?? '',
    port: numberOf(attributes, 'client_port'),
    name: knownOf(attributes, 'client_name'),
    reverseName: knownOf(attributes, 'reverse_client_name'),
    helo: keptOf(attributes, 'helo_name'),
    tls: tlsOf(attributes),
    login: keptOf(attributes, 'sasl_username'),
  };
}

function tlsOf(attributes: Attributes): TlsInfo | null {
  const protocol = keptOf(attributes, 'encryption_protocol');
  if (protocol === null) return null;
  return {
    protocol,
    cipher: keptOf(attributes, 'encryption_cipher') ?? '',
    bits: numberOf(attributes, 'encryption_keysize'),
  };
}

function keptOf(attributes: Attributes, name: string): string | null {
  const text = valueOf(attributes, name);
  return text === null ? null : detached(text);
}

/** SMTPD_POLICY_README: an attribute that is not available is empty, or not sent at all. */
function valueOf(attributes: Attributes, name: string): string | null {
  const text = attributes.get(name) ?? '';
  return text === '' ? null : text;
}

/** Postfix writes `unknown` for a client's name, address or port that it does not know. */
function knownOf(attributes: Attributes, name: string): string | null {
  const text = keptOf(attributes, name);
  return text === 'unknown' ? null : text;
}

function numberOf(attributes: Attributes, name: string): number | null {
  const text = attributes.get(name) ?? '';
  if (!/^\d{1,15}$/.test(text)) return null;
  return Number(text);
}

/** RFC 5321 §4.1.2 Dot-string, with the UTF-8 of RFC 6531 §3.3. */
const DOT_STRING = /^[\w!#$%&'*+\-/=?^`{|}~\x80-\xff]+(?:\.[\w!#$%&'*+\-/=?^`{|}~\x80-\xff]+)*$/;

/**
 * Postfix tells mailboxes without the quoting of their local part. It is put back, so that the mailbox reads as it did in MAIL FROM
 * and RCPT TO, which is how the milter and LMTP have it.
 */
function quoted(mailbox: string): string {
  const at = mailbox.lastIndexOf('@');
  const local = at === -1 ? mailbox : mailbox.slice(0, at);
  if (DOT_STRING.test(local)) return mailbox;
  const domain = at === -1 ? '' : mailbox.slice(at);
  return `"${local.replaceAll(/["\\]/g, '\\$&')}"${domain}`;
}
