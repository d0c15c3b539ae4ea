import type { SpamScan } from '../../src/mail/spam-scan.ts';
import type { Finding, Outcome } from '../../src/verdict/finding.ts';
import type { Action, Rule, Rules } from '../../src/verdict/rules.ts';
import type { Verdict } from '../../src/verdict/verdict.ts';

export function found(check: string, ...findings: Finding[]): Outcome {
  return { kind: 'found', check, findings, elapsed: 1 };
}

export function unavailable(check: string): Outcome {
  return { kind: 'unavailable', check, reason: 'neighbour', detail: 'connection refused', elapsed: 1 };
}

export function rule(kind: Exclude<Action['kind'], 'score'>, mode: Rule['mode'] = 'enforce'): Rule {
  return { action: { kind }, mode };
}

export function points(value: number, mode: Rule['mode'] = 'enforce'): Rule {
  return { action: { kind: 'score', points: value }, mode };
}

export function rules(
  values: {
    findings?: Record<string, Rule>;
    unavailable?: Record<string, Rule>;
    waivable?: readonly string[];
    thresholds?: Partial<Rules['thresholds']>;
    subjectTag?: string;
  } = {},
): Rules {
  return {
    findings: new Map(Object.entries(values.findings ?? {})),
    unavailable: new Map(Object.entries(values.unavailable ?? {})),
    waivable: new Set(values.waivable ?? []),
    thresholds: { tag: 5, junk: null, reject: null, discard: null, ...values.thresholds },
    subjectTag: values.subjectTag ?? '[SPAM]',
  };
}

export function accept(values: Partial<Omit<Verdict, 'kind' | 'reply'>> = {}): Verdict {
  return { kind: 'accept', rule: 'default', why: '', score: null, tagged: false, shadow: [], ...values };
}

/** What SpamAssassin 4.0.1 said of GTUBE, byte for byte. */
export const GTUBE_SCAN: SpamScan = {
  score: 1000,
  required: 5,
  rules: ['GTUBE', 'MSGID_SHORT', 'NO_RECEIVED', 'NO_RELAYS', 'TVD_SPACE_RATIO'],
  fields: [
    { name: 'X-Spam-Checker-Version', value: ' SpamAssassin 4.0.1 (2024-03-25) on mx.olimpus.example' },
    { name: 'X-Spam-Flag', value: ' YES' },
    { name: 'X-Spam-Level', value: ` ${'*'.repeat(50)}` },
    {
      name: 'X-Spam-Status',
      value:
        ' Yes, score=1000.0 required=5.0 tests=GTUBE,MSGID_SHORT,\r\n\tNO_RECEIVED,NO_RELAYS,TVD_SPACE_RATIO autolearn=no autolearn_force=no\r\n\tversion=4.0.1',
    },
    {
      name: 'X-Spam-Report',
      value:
        ' \r\n\t* -0.0 NO_RECEIVED Informational: message has no Received headers\r\n\t* 1000 GTUBE BODY: Generic Test for Unsolicited Bulk Email',
    },
  ],
};

/** What it said of a harmless message. */
export const HAM_SCAN: SpamScan = {
  score: 1,
  required: 5,
  rules: ['MSGID_SHORT', 'NO_RECEIVED', 'NO_RELAYS', 'PP_MIME_FAKE_ASCII_TEXT'],
  fields: [
    { name: 'X-Spam-Checker-Version', value: ' SpamAssassin 4.0.1 (2024-03-25) on mx.olimpus.example' },
    { name: 'X-Spam-Level', value: ' *' },
    {
      name: 'X-Spam-Status',
      value:
        ' No, score=1.0 required=5.0 tests=MSGID_SHORT,NO_RECEIVED,\r\n\tNO_RELAYS,PP_MIME_FAKE_ASCII_TEXT autolearn=no autolearn_force=no\r\n\tversion=4.0.1',
    },
  ],
};

export function scanned(scan: SpamScan): Outcome {
  return found('spam', { code: 'spam.scored', detail: `${scan.score} points`, score: scan.score, scan });
}
