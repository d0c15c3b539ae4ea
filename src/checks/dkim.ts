import type { DkimResult } from '../ports/mail-auth.ts';
import type { Finding } from '../verdict/finding.ts';
import { bodyCheck } from './check.ts';
import { dnsBudget } from './dns-budget.ts';

/** Who answers for the content of the message. RFC 6376. */
export const dkimCheck = bodyCheck({
  name: 'dkim',
  stage: 'message',
  summary: 'DKIM: whether the signatures of the message are valid, one finding for each.',
  directions: ['in'],
  needs: [],
  codes: {
    'dkim.pass': {
      meaning: 'A signature is valid: its domain answers for this message, which has not been changed since.',
      action: 'ignore',
    },
    'dkim.fail': {
      meaning:
        'A signature is not valid: the message was changed since it was signed, as many mailing lists do, or the signature is forged. RFC 6376 asks not to treat such mail worse than mail without a signature.',
      action: 'ignore',
    },
    'dkim.policy': {
      meaning:
        'A signature is valid but not acceptable: an RSA key below 1024 bits, rsa-sha1, or text that follows the signed part (l=).',
      action: 'ignore',
    },
    'dkim.neutral': {
      meaning:
        'A signature could not be processed: a syntax error, From is not signed, it has expired, or it is one of a domain that only tests DKIM (t=y) and is not valid.',
      action: 'ignore',
    },
    'dkim.temperror': {
      meaning: 'The key could not be fetched in time. Trying again later may help.',
      action: 'ignore',
    },
    'dkim.permerror': {
      meaning:
        'There is no usable key: it is not published, was revoked, is not for mail, or is of another kind than the signature.',
      action: 'ignore',
    },
    'dkim.none': { meaning: 'The message has no DKIM signature.', action: 'ignore' },
  },
  // Nothing is decided on signatures unless a rule says so; DMARC, which rests on them, has its own word for when it can't be made.
  unavailable: 'ignore',
  deadline: '20s',
  options: {},
  read({ facts, tools, signal }) {
    const verification = tools.mailAuth.dkim(facts.headers, signal);
    return {
      needsBody: verification.needsBody,
      write: (chunk) => verification.write(chunk),
      end: ({ deadlineMs }) => {
        const results = verification.end(dnsBudget(deadlineMs));
        return results instanceof Promise ? results.then(findings) : findings(results);
      },
    };
  },
});

function findings(results: readonly DkimResult[]): readonly Finding[] {
  if (results.length === 0) {
    const auth = { method: 'dkim', result: 'none', properties: [] } as const;
    return [{ code: 'dkim.none', detail: 'the message has no DKIM signature', auth }];
  }
  return results.map(({ result, detail, auth }) => ({ code: `dkim.${result}`, detail, auth }));
}
