import { printable } from '../mail/reply.ts';
import { COMMAND_LIMIT } from './wire.ts';
import type { Problem } from './command.ts';
import { REPLY_LINE_LIMIT, type UpstreamReply } from './reply-decoder.ts';
import type { UpstreamError } from './upstream-error.ts';
import { XFORWARD_ATTRIBUTES } from './xforward.ts';

/** Our own words, one line each. RFC 5321 §4.2, RFC 3463, RFC 2033. */
export const SAY = {
  ok: '250 2.0.0 OK',
  sender: '250 2.1.0 OK',
  bye: '221 2.0.0 Bye',
  go: '354 End data with <CR><LF>.<CR><LF>',
  cannotVerify: '252 2.5.2 Cannot VRFY user, but will take a message for it',
  overlong: `500 5.5.2 Line too long, ${COMMAND_LIMIT} octets are taken`,
  lhloFirst: '503 5.5.1 LHLO first',
  mailFirst: '503 5.5.1 MAIL first',
  nested: '503 5.5.1 There is a transaction already',
  // RFC 2033 §4.2: DATA without an accepted recipient fails with 503.
  noRecipients: '503 5.5.1 No valid recipients',
  xforwardLate: '503 5.5.1 XFORWARD is for before MAIL',
  badXforward: '501 5.5.4 XFORWARD with arguments that are not understood',
  badParameterValue: '501 5.5.4 Parameter with a value that is not understood',
  unsupportedParameter: '555 5.5.4 Unsupported parameter',
  // RFC 6531 §3.5
  noSmtputf8: '553 5.6.7 The mail store does not take internationalized addresses',
  needsSmtputf8: '553 5.6.7 An address with characters beyond ASCII needs SMTPUTF8',
  // RFC 1870 §6.1
  tooLarge: '552 5.3.4 Message size exceeds the limit',
  headerTooLarge: '552 5.3.4 Header section exceeds the limit',
  tooManyRecipients: '452 4.5.3 Too many recipients',
  looping: '554 5.4.6 Too many hops, this message seems to go in a circle',
  noSpool: '452 4.3.1 The message could not be stored, please try again later',
  nowhere: '451 4.3.0 It is not known now where this mailbox is, please try again later',
  internal: '451 4.3.0 Internal error, please try again later',
  stopping: '421 4.3.2 Service is being restarted, please try again',
  stoppingHere: '451 4.3.2 Service is being restarted, please try again',
  clientLeft: '451 4.4.2 The client left before the message was delivered',
  full: '421 4.3.2 Too many connections, please try again later',
  idle: '421 4.4.2 Nothing was heard for too long',
  tooManyErrors: '421 4.7.0 Too many commands that are not understood',
  quarantined: '250 2.0.0 Message is in the quarantine as',
  notQuarantined: '451 4.3.0 The message could not be put into the quarantine, please try again later',
  discarded: '250 2.0.0 Message discarded by the rules of this site',
  unavailable: '451 4.4.1 The mail store cannot be reached, please try again later',
  // RFC 3463 §3.8: X.7.5, cryptographic failure
  unproven: '451 4.7.5 The mail store could not prove who it is, please try again later',
  lost: '451 4.4.2 The connection to the mail store was lost, please try again later',
  slow: '451 4.4.2 The mail store did not answer in time, please try again later',
  nonsense: '451 4.3.0 The mail store answered what was not understood, please try again later',
} as const satisfies Record<string, string>;

const PROBLEMS: Readonly<Record<Problem, string>> = {
  unknown: '500 5.5.1 Unknown command',
  characters: '500 5.5.2 Command with characters that no command has',
  arguments: '501 5.5.4 Arguments are not understood',
  path: '501 5.5.4 The path is not understood',
  parameters: '501 5.5.4 Parameters are not understood',
};

export function problem(kind: Problem): string {
  return PROBLEMS[kind];
}

/** With the trace, so that whoever reads it in Postfix's log can have it explained. */
export function traced(line: string, trace: string): string {
  return `${line} (${trace})`;
}

export function greeting(name: string): string {
  return `220 ${name} LMTP Postern ready`;
}

/**
 * What is announced: only what both we and the server behind us can (RFC 5321 §2.2). SIZE is ours: Postfix bounces by itself what is
 * larger, as it would for our 552, but without sending it. No DSN: Dovecot has none, and then Postfix writes the notifications.
 */
export function lhloReply(name: string, size: number, smtputf8: boolean): string {
  const lines = [
    name,
    'PIPELINING',
    'ENHANCEDSTATUSCODES',
    '8BITMIME',
    `SIZE ${size}`,
    ...(smtputf8 ? ['SMTPUTF8'] : []),
    `XFORWARD ${XFORWARD_ATTRIBUTES}`,
  ];
  return lines.map((line, i) => `250${i === lines.length - 1 ? ' ' : '-'}${line}`).join('\r\n');
}

/**
 * Dovecot's words, unchanged but for octets that would not be text. 421 would say that we close the connection to Postfix, which then
 * gives up the recipients behind this one: 451 says the same of this one alone.
 */
export function relayed({ code, lines }: UpstreamReply): string {
  const shown = code === 421 ? 451 : code;
  const last = lines.length - 1;
  return lines
    .map((line, i) => `${shown}${i === last ? ' ' : '-'}${printable(line, REPLY_LINE_LIMIT)}`)
    .join('\r\n');
}

/** What the client is told when the mail store failed. */
export function upstreamFailure(error: UpstreamError): string {
  switch (error.failure) {
    case 'connect':
      return SAY.unavailable;
    case 'tls':
      return SAY.unproven;
    case 'lost':
      return SAY.lost;
    case 'timeout':
      return SAY.slow;
    case 'protocol':
      return SAY.nonsense;
  }
}
