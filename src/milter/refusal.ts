import type { Reply } from '../mail/reply.ts';
import type { Verdict } from '../verdict/verdict.ts';

/** A message that can't be judged: what it is larger than, or what failed here. The first reason stands. */
export interface Refusal {
  readonly rule:
    | 'limit:size'
    | 'limit:headers'
    | 'limit:recipients'
    | 'failed:spool'
    | 'failed:quarantine'
    | 'failed:signing'
    | 'failed:internal';
  readonly why: string;
  readonly reply: Reply;
}

// RFC 5321 §4.2.3, RFC 3463 §3.4: message too big for the system.
const TOO_LARGE: Reply = { code: 552, detail: '3.4', text: 'This message is larger than this site accepts' };
const HEADERS_TOO_LARGE: Reply = {
  code: 552,
  detail: '3.4',
  text: 'The header section of this message is too large',
};
// RFC 3463 §3.6: too many recipients. Permanent, since the same recipients would come again.
const TOO_MANY_RECIPIENTS: Reply = { code: 554, detail: '5.3', text: 'This message has too many recipients' };
const NOT_KEPT: Reply = {
  code: 451,
  detail: '3.0',
  text: 'This message could not be taken just now, please try again later',
};
// RFC 3463 §3.8: cryptographic failure.
const NOT_SIGNED: Reply = {
  code: 451,
  detail: '7.5',
  text: 'This message could not be signed just now, please try again later',
};

export function tooLarge(limit: number): Refusal {
  return { rule: 'limit:size', why: `the body has more than ${limit} octets`, reply: TOO_LARGE };
}

export function headersTooLarge(why: string): Refusal {
  return { rule: 'limit:headers', why, reply: HEADERS_TOO_LARGE };
}

export function tooManyRecipients(why: string): Refusal {
  return { rule: 'limit:recipients', why, reply: TOO_MANY_RECIPIENTS };
}

export const NOT_SPOOLED: Refusal = {
  rule: 'failed:spool',
  why: 'the body could not be written to the spool file',
  reply: NOT_KEPT,
};
export const NOT_QUARANTINED: Refusal = {
  rule: 'failed:quarantine',
  why: 'the message could not be put into the quarantine',
  reply: NOT_KEPT,
};
export const UNSIGNED: Refusal = {
  rule: 'failed:signing',
  why: 'the message could not be signed',
  reply: NOT_SIGNED,
};
export const INTERNAL: Refusal = { rule: 'failed:internal', why: 'an unexpected error', reply: NOT_KEPT };

export function refusalVerdict({ rule, why, reply }: Refusal): Verdict {
  const kind = reply.code < 500 ? 'defer' : 'reject';
  return { kind, rule, why, score: null, tagged: false, shadow: [], reply };
}
