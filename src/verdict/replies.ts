import type { Reply } from '../mail/reply.ts';

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
  'spam.score': { code: 550, detail: '7.1', text: 'This message was classified as spam' },
};

const DEFERRALS: Readonly<Record<string, Reply>> = {
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
  'dmarc.temperror': {
    code: 451,
    detail: '7.5',
    text: 'DMARC: the policy could not be read, please try again later',
  },
};

/** The words for a finding that the operator's rule rejects. */
export function rejection(code: string): Reply {
  return REJECTIONS[code] ?? { code: 550, detail: '7.1', text: 'Refused by local policy' };
}

/** The words for a finding, or an unavailable check, that the operator's rule defers. */
export function deferral(code: string): Reply {
  return DEFERRALS[code] ?? TEMPORARY;
}
