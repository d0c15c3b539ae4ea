import { printable, type Reply } from '../mail/reply.ts';
import type { Explanation } from './finding.ts';

const TEMPORARY: Reply = {
  code: 451,
  detail: '7.0',
  text: 'This message could not be checked just now, please try again later',
};

/** What a refusal says for the finding that caused it. RFC 7372 §3, RFC 8601, RFC 5321 §4.2.2. */
const REJECTIONS: Readonly<Record<string, Reply>> = {
  'spf.fail': {
    code: 550,
    detail: '7.23',
    text: 'SPF: the sending host is not allowed to send for this domain',
  },
  'spf.softfail': {
    code: 550,
    detail: '7.23',
    text: 'SPF: the sending host is probably not allowed to send for this domain',
  },
  'spf.helo-fail': {
    code: 550,
    detail: '7.23',
    text: 'SPF: the sending host is not allowed to use this HELO name',
  },
  'spf.permerror': { code: 550, detail: '7.24', text: 'SPF: the record of the sender domain is broken' },
  'spf.helo-permerror': { code: 550, detail: '7.24', text: 'SPF: the record of the HELO name is broken' },
  'dkim.fail': { code: 550, detail: '7.20', text: 'No DKIM signature of this message is valid' },
  'dkim.none': { code: 550, detail: '7.20', text: 'This message has no DKIM signature' },
  'dkim.permerror': { code: 550, detail: '7.20', text: 'No DKIM signature of this message can be verified' },
  'dkim.policy': { code: 550, detail: '7.21', text: 'No DKIM signature of this message is acceptable' },
  'dkim.neutral': { code: 550, detail: '7.21', text: 'No DKIM signature of this message is acceptable' },
  // RFC 8617 §5.2.2.
  'arc.fail': { code: 550, detail: '7.29', text: 'The ARC chain of this message is broken' },
  'arc.none': { code: 550, detail: '7.29', text: 'This message has no ARC chain' },
  'dmarc.fail': { code: 550, detail: '7.26', text: 'DMARC: neither SPF nor DKIM passes for the From domain' },
  'dmarc.fail-quarantine': {
    code: 550,
    detail: '7.26',
    text: 'DMARC: neither SPF nor DKIM passes for the From domain',
  },
  'dmarc.fail-reject': {
    code: 550,
    detail: '7.26',
    text: 'DMARC: the policy of the From domain is to reject this message',
  },
  'dmarc.both-fail': {
    code: 550,
    detail: '7.26',
    text: 'SPF fails for this message, and no DKIM signature of it is valid',
  },
  'dmarc.none': { code: 550, detail: '7.1', text: 'DMARC: the From domain has no policy' },
  'dmarc.permerror': {
    code: 550,
    detail: '7.1',
    text: 'DMARC: the From field of this message does not name one author domain',
  },
  // RFC 7505 §4.2: 7.27 is for a null MX alone. X.1.8 would be changed by Postfix (smtpd_dsn_fix) at RCPT.
  'mx.null-sender': {
    code: 550,
    detail: '7.27',
    text: 'The sender domain accepts no mail, so it sends none',
  },
  'mx.no-domain': { code: 550, detail: '7.1', text: 'The sender domain does not exist' },
  'mx.none': { code: 550, detail: '7.1', text: 'The sender domain can receive no mail' },
  'mx.bogus': {
    code: 550,
    detail: '7.1',
    text: 'The mail hosts of the sender domain can not be reached from outside',
  },
  'ptr.none': { code: 550, detail: '7.25', text: 'The sending host has no reverse DNS name' },
  'ptr.unverified': {
    code: 550,
    detail: '7.25',
    text: 'The reverse DNS name of the sending host does not lead back to it',
  },
  'ptr.generic': {
    code: 550,
    detail: '7.25',
    text: 'The reverse DNS name of the sending host is that of a dial-up line',
  },
  'helo.syntax': { code: 550, detail: '7.1', text: 'The HELO name is no host name' },
  'helo.own-name': { code: 550, detail: '7.1', text: 'The HELO name is ours' },
  'helo.bare': { code: 550, detail: '7.1', text: 'The HELO name is not fully qualified' },
  'helo.address': { code: 550, detail: '7.1', text: 'The HELO name is an address' },
  'helo.literal': { code: 550, detail: '7.1', text: 'The HELO name is an address' },
  'helo.unknown': { code: 550, detail: '7.1', text: 'The HELO name does not exist' },
  'dnsbl.reject': { code: 554, detail: '7.1', text: 'The sending host or domain is on block lists' },
  access: { code: 554, detail: '7.1', text: 'Access denied' },
  'sender.not-owned': { code: 553, detail: '7.1', text: 'This login may not send as this address' },
  'sender.null': { code: 553, detail: '7.1', text: 'This login may not send mail without a sender' },
  'sender.own-domain': { code: 553, detail: '7.1', text: 'Mail from this domain is taken with a login only' },
  'author.not-owned': { code: 550, detail: '7.1', text: 'This login may not send as the address in From' },
  'quota.full': { code: 552, detail: '2.2', text: 'The mailbox is full' },
  'quota.full-long': { code: 552, detail: '2.2', text: 'The mailbox is full' },
  'quota.too-large': { code: 552, detail: '2.2', text: 'The message is larger than the mailbox may become' },
  'account.block': {
    code: 550,
    detail: '7.1',
    text: 'This account may not send mail, please contact your administrator',
  },
  limits: { code: 550, detail: '7.1', text: 'You have sent too much' },
  // Which signature it was is for the record: whoever sends such mail learns no more than that it was seen.
  virus: { code: 554, detail: '7.1', text: 'This message was refused because of harmful content' },
  // The same: which rule it was is nobody's business but the site's.
  content: {
    code: 550,
    detail: '7.1',
    text: 'This message was refused because its content is not allowed here',
  },
  'spam.score': { code: 550, detail: '7.1', text: 'This message was classified as spam' },
};

const DEFERRALS: Readonly<Record<string, Reply>> = {
  'greylist.wait': { code: 450, detail: '7.1', text: 'Greylisted, please try again later' },
  'mx.no-domain': {
    code: 450,
    detail: '7.1',
    text: 'The sender domain does not exist',
  },
  'mx.temperror': {
    code: 450,
    detail: '7.1',
    text: 'The sender domain could not be looked up, please try again later',
  },
  'helo.temperror': {
    code: 450,
    detail: '7.1',
    text: 'The HELO name could not be looked up, please try again later',
  },
  'quota.full': { code: 452, detail: '2.2', text: 'The mailbox is full, please try again later' },
  'quota.full-long': { code: 452, detail: '2.2', text: 'The mailbox is full, please try again later' },
  'quota.too-large': { code: 452, detail: '2.2', text: 'The mailbox is full, please try again later' },
  // RFC 5321 §4.5.3.1.10: one more recipient than this transaction can take.
  'quota.alone': { code: 452, detail: '5.3', text: 'Please send to this recipient separately' },
  // The same: the rest of the message's recipients could not be refused what may be refused to this one.
  split: { code: 452, detail: '5.3', text: 'Please send to this recipient separately' },
  'account.slow': {
    code: 450,
    detail: '7.1',
    text: 'Too much mail from this account, please try again later',
  },
  limits: { code: 450, detail: '7.1', text: 'Too much mail, please try again later' },
  'spf.temperror': {
    code: 451,
    detail: '7.24',
    text: 'SPF: the record of the sender domain could not be read, please try again later',
  },
  'spf.helo-temperror': {
    code: 451,
    detail: '7.24',
    text: 'SPF: the record of the HELO name could not be read, please try again later',
  },
  'dkim.temperror': {
    code: 451,
    detail: '7.5',
    text: 'DKIM: a key could not be read, please try again later',
  },
  'arc.temperror': {
    code: 451,
    detail: '7.5',
    text: 'ARC: a key could not be read, please try again later',
  },
  'dmarc.temperror': {
    code: 451,
    detail: '7.5',
    text: 'DMARC: the policy could not be read, please try again later',
  },
};

/** The words for a finding that the operator's rule rejects. */
export function rejection(code: string): Reply {
  return (
    REJECTIONS[code] ??
    REJECTIONS[checkOf(code)] ?? { code: 550, detail: '7.1', text: 'Refused by local policy' }
  );
}

/** The words for a finding, or an unavailable check, that the operator's rule defers. */
export function deferral(code: string): Reply {
  return DEFERRALS[code] ?? DEFERRALS[checkOf(code)] ?? TEMPORARY;
}

// With our own words and the trace a line stays below what Postfix passes on.
const EXPLAINER_LIMIT = 80;
const EXPLANATION_LIMIT = 200;

/**
 * The refusal with what the domain has to say about it. RFC 7208 §6.2, §11.5: as the words of the domain, which nobody has to take for ours, and never
 * where a protocol looks for words of its own.
 */
export function explained(reply: Reply, { by, text }: Explanation): Reply {
  const said = `${printable(by, EXPLAINER_LIMIT)} explains: ${printable(text, EXPLANATION_LIMIT)}`;
  return { ...reply, text: `${reply.text}; ${said}` };
}

/** Codes that the operator's configuration makes up (`limits.NAME`) share the words of their check. */
function checkOf(code: string): string {
  const dot = code.indexOf('.');
  return dot === -1 ? code : code.slice(0, dot);
}
