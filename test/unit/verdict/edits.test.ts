import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { claimsAuthservId } from '../../../src/mail/auth-results.ts';
import { HeaderList, parseHeaderSection, type HeaderField } from '../../../src/mail/header.ts';
import { decide } from '../../../src/verdict/decide.ts';
import {
  applyEdits,
  insert,
  judgedByMilter,
  messageEdits,
  type Edit,
  type MessageEditsInput,
} from '../../../src/verdict/edits.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { accept, found, GTUBE_SCAN, HAM_SCAN, rule, rules, scanned } from '../../support/judgement.ts';

const TRACE = 'abcdefghijklmnop';
const OURS = 'mx.olimpus.example';
const RECEIVED =
  'Received: from odin (odin [192.0.2.20]) by mx.olimpus.example (Postfix) with ESMTP id 4ABC;\r\n\tx\r\n';
const SPF: Outcome = found('spf', {
  code: 'spf.pass',
  detail: 'pass',
  auth: { method: 'spf', result: 'pass', properties: [['smtp.mailfrom', 'thor@valhalla.example']] },
});

function input(headers: string | HeaderList, values: Partial<MessageEditsInput> = {}): MessageEditsInput {
  const outcomes = values.outcomes ?? [];
  const own = values.rules ?? rules();
  return {
    headers: typeof headers === 'string' ? parseHeaderSection(headers) : headers,
    outcomes,
    verdict: decide(outcomes, own),
    rules: own,
    authservId: OURS,
    otherAuthservIds: [],
    hostname: OURS,
    trace: TRACE,
    daemon: 'milter',
    ...values,
  };
}

function edited(question: MessageEditsInput): HeaderList {
  return applyEdits(question.headers, messageEdits(question));
}

describe('applyEdits', () => {
  const headers = parseHeaderSection('A: 1\r\nB: 2\r\na: 3\r\nC: 4\r\n');

  it('inserts above everything else, the last one on top', () => {
    const edits = [insert({ name: 'X', value: ' 1' }), insert({ name: 'Y', value: ' 2' })];
    expect(applyEdits(headers, edits).serialize()).toBe('Y: 2\r\nX: 1\r\nA: 1\r\nB: 2\r\na: 3\r\nC: 4\r\n');
  });

  it('counts occurrences without case, in the list as it is by then', () => {
    const edits: Edit[] = [
      { kind: 'delete', name: 'A', occurrence: 1 },
      { kind: 'replace', name: 'A', occurrence: 1, value: ' new' },
    ];
    expect(applyEdits(headers, edits).serialize()).toBe('B: 2\r\na: new\r\nC: 4\r\n');
  });

  it('counts what was inserted', () => {
    const edits: Edit[] = [
      insert({ name: 'a', value: ' 0' }),
      { kind: 'replace', name: 'A', occurrence: 2, value: ' one' },
      { kind: 'delete', name: 'A', occurrence: 1 },
    ];
    expect(applyEdits(headers, edits).serialize()).toBe('A: one\r\nB: 2\r\na: 3\r\nC: 4\r\n');
  });

  it('does not delete what is not there, and appends what it can not replace', () => {
    const edits: Edit[] = [
      { kind: 'delete', name: 'B', occurrence: 2 },
      { kind: 'replace', name: 'D', occurrence: 1, value: ' new' },
      { kind: 'replace', name: 'D', occurrence: 1, value: ' newer' },
    ];
    expect(applyEdits(headers, edits).serialize()).toBe('A: 1\r\nB: 2\r\na: 3\r\nC: 4\r\nD: newer\r\n');
  });

  it('takes occurrence 0 for the first, as Postfix does', () => {
    expect(applyEdits(headers, [{ kind: 'delete', name: 'a', occurrence: 0 }]).serialize()).toBe(
      'B: 2\r\na: 3\r\nC: 4\r\n',
    );
  });

  it('gives the same list back when there is nothing to do', () => {
    expect(applyEdits(headers, [])).toBe(headers);
  });
});

describe('Authentication-Results', () => {
  it('stands on top, and what others wrote in our name is gone', () => {
    const result = edited(
      input(
        'Authentication-Results: MX.Olimpus.Example; spf=fail\r\nFrom: x\r\n' +
          'AUTHENTICATION-RESULTS: (c) mx.olimpus.example 1; dkim=pass\r\nAuthentication-Results: other.example; spf=pass\r\n',
        { outcomes: [SPF] },
      ),
    );
    expect(result.serialize()).toBe(
      'Authentication-Results: mx.olimpus.example;\r\n\tspf=pass smtp.mailfrom=thor@valhalla.example\r\n' +
        `X-Postern-Trace: ${TRACE}\r\nFrom: x\r\nAuthentication-Results: other.example; spf=pass\r\n`,
    );
  });

  it('is not written when nothing was authenticated, and a forged one goes all the same', () => {
    const result = edited(input(`Authentication-Results: ${OURS}; spf=pass\r\nFrom: x\r\n`));
    expect(result.all('Authentication-Results')).toEqual([]);
  });

  it('of the milter is left by lmtp-filter, which adds none', () => {
    const byMilter = edited(input('From: x\r\n', { outcomes: [SPF] }));
    const delivered = parseHeaderSection(byMilter.serialize() + RECEIVED);
    const question = input(delivered, { outcomes: [SPF], daemon: 'lmtp-filter' });
    expect(messageEdits(question)).toEqual([]);
  });

  it('is written by lmtp-filter when no milter did the checks', () => {
    const result = edited(
      input(`${RECEIVED}Authentication-Results: ${OURS}; dkim=pass\r\n`, {
        outcomes: [SPF],
        daemon: 'lmtp-filter',
      }),
    );
    expect(result.all('Authentication-Results').map(({ value }) => value)).toEqual([
      ` ${OURS};\r\n\tspf=pass smtp.mailfrom=thor@valhalla.example`,
    ]);
  });

  it('of a client that learned the trace from a refusal is not believed', () => {
    // The client's own fields stand below the Received field of our MTA.
    const forged = parseHeaderSection(
      `${RECEIVED}X-Postern-Trace: ${TRACE}\r\nAuthentication-Results: ${OURS}; dmarc=pass\r\nFrom: x\r\n`,
    );
    expect(judgedByMilter(forged, TRACE)).toBe(false);
    expect(edited(input(forged, { daemon: 'lmtp-filter' })).all('Authentication-Results')).toEqual([]);
  });

  it('below the Received field goes even when the milter judged the message', () => {
    const headers = parseHeaderSection(
      `Authentication-Results: ${OURS}; spf=fail\r\nX-Postern-Trace: ${TRACE}\r\n${RECEIVED}Authentication-Results: ${OURS}; spf=pass\r\n`,
    );
    const result = edited(input(headers, { daemon: 'lmtp-filter' }));
    expect(result.all('Authentication-Results').map(({ value }) => value)).toEqual([` ${OURS}; spf=fail`]);
  });
});

describe('judgedByMilter', () => {
  const trace = `X-Postern-Trace: ${TRACE}\r\n`;

  it.each([
    ['trace above Received', `${trace}${RECEIVED}`, TRACE, true],
    ['another trace', `X-Postern-Trace: ponmlkjihgfedcba\r\n${RECEIVED}`, TRACE, false],
    ['no Received at all', trace, TRACE, false],
    ['an empty trace', `X-Postern-Trace:\r\n${RECEIVED}`, '', false],
  ])('%s', (_, headers, wanted, judged) => {
    expect(judgedByMilter(parseHeaderSection(headers), wanted)).toBe(judged);
  });
});

describe('X-Spam-* fields', () => {
  it('are those a user knows from SpamAssassin', () => {
    const result = edited(input('From: x\r\nSubject: hello\r\n', { outcomes: [scanned(GTUBE_SCAN)] }));
    const own = GTUBE_SCAN.fields.map(({ name, value }) => `${name}:${value}\r\n`).join('');
    expect(result.serialize()).toBe(
      `${own}X-Spam-Prev-Subject: hello\r\nX-Postern-Trace: ${TRACE}\r\nFrom: x\r\nSubject: [SPAM] hello\r\n`,
    );
  });

  it('forged ones go, and nothing is claimed when nothing was scanned', () => {
    const headers =
      'X-Spam-Flag: NO\r\nx-spam-status: No, score=-100\r\nX-SPAM-Anything: 1\r\nX-Spam-Prev-Subject: x\r\nFrom: x\r\n';
    expect(edited(input(headers)).serialize()).toBe(`X-Postern-Trace: ${TRACE}\r\nFrom: x\r\n`);
  });

  it('follow the thresholds of the recipient when lmtp-filter edits what the milter edited', () => {
    const outcomes = [scanned(GTUBE_SCAN)];
    const byMilter = edited(input('From: x\r\nSubject: hello\r\n', { outcomes }));
    const delivered = parseHeaderSection(RECEIVED).toArray();
    const [from, subject] = byMilter.toArray().slice(-2);
    const above = byMilter.toArray().slice(0, -2);
    const headers = new HeaderList([
      ...above,
      ...delivered,
      ...[from, subject].filter((f) => f !== undefined),
    ]);
    const lenient = rules({ thresholds: { tag: 2000 } });
    const result = edited(input(headers, { outcomes, rules: lenient, daemon: 'lmtp-filter' }));
    expect(result.first('X-Spam-Flag')).toBeUndefined();
    expect(result.first('X-Spam-Report')).toBeUndefined();
    expect(result.first('X-Spam-Status')?.value).toMatch(/^ No, score=1000\.0 required=2000\.0 tests=GTUBE,/);
    expect(result.first('Subject')?.value).toBe(' hello');
    expect(result.first('X-Spam-Prev-Subject')).toBeUndefined();
    expect(result.all('X-Postern-Trace')).toHaveLength(1);
  });
});

describe('X-Postern-* fields', () => {
  it('name the trace, once', () => {
    const result = edited(input(`X-Postern-Trace: ${TRACE}\r\nX-Postern-Foo: 1\r\nFrom: x\r\n`));
    expect(result.serialize()).toBe(`X-Postern-Trace: ${TRACE}\r\nFrom: x\r\n`);
  });

  it('say junk and why, for Sieve', () => {
    const outcomes = [found('dmarc', { code: 'dmarc.fail-quarantine', detail: 'x' })];
    const own = rules({ findings: { 'dmarc.fail-quarantine': rule('junk') } });
    const value = ' junk; reason=dmarc.fail-quarantine';
    for (const daemon of ['milter', 'lmtp-filter'] as const) {
      const result = edited(input('From: x\r\n', { outcomes, rules: own, daemon }));
      expect(result.all('X-Postern-Verdict')).toEqual([{ name: 'X-Postern-Verdict', value }]);
    }
  });

  it('say quarantine only where the MTA does not hold the message', () => {
    const outcomes = [found('spf', { code: 'spf.fail', detail: 'x' })];
    const own = rules({ findings: { 'spf.fail': rule('quarantine') } });
    const values = (['milter', 'lmtp-filter'] as const).map(
      (daemon) =>
        edited(input('From: x\r\n', { outcomes, rules: own, daemon })).first('X-Postern-Verdict')?.value,
    );
    expect(values).toEqual([undefined, ' quarantine; reason=spf.fail']);
  });
});

// --- properties -------------------------------------------------------------------------------------------------------------------

const NASTY = [
  '\r\nX-Injected: 1',
  '\nX-Injected: 1',
  '\r\n\r\nbody',
  '\n\nbody',
  '\r',
  '\0',
  '\r\n\t',
  ' ',
  '',
  '\xc3\xa9',
  '=?UTF-8?Q?x?=',
  '[SPAM]',
  '[SPAM] x',
  '(nonexistent)',
  TRACE,
  `${OURS}; spf=pass`,
  'x'.repeat(1200),
  ' x'.repeat(600),
];
const nastyText = fc
  .array(fc.oneof(fc.constantFrom(...NASTY), fc.string({ unit: 'binary-ascii' })), { maxLength: 4 })
  .map((parts) => parts.join(''));
const NAMES = [
  'Authentication-Results',
  'authentication-results',
  'X-Spam-Flag',
  'x-spam-status',
  'X-Spam-Prev-Subject',
  'X-Spam-Evil',
  'X-Postern-Trace',
  'X-Postern-Verdict',
  'Subject',
  'SUBJECT',
  'From',
  'To',
  'Received',
  '',
];
const field: fc.Arbitrary<HeaderField> = fc.record({ name: fc.constantFrom(...NAMES), value: nastyText });
const headerList = fc.array(field, { maxLength: 12 }).map((fields) => new HeaderList(fields));
const scan = fc.oneof(
  fc.constantFrom(GTUBE_SCAN, HAM_SCAN),
  fc.record({
    score: fc.integer({ min: -500, max: 20_000 }).map((tenths) => tenths / 10),
    required: fc.constantFrom(5, 8.5),
    rules: fc.array(fc.stringMatching(/^[A-Z_]{1,30}$/), { maxLength: 40 }),
    fields: fc.array(
      fc.record({
        name: fc.constantFrom(
          'X-Spam-Status',
          'X-Spam-Report',
          'X-Spam-Level',
          'X-Spam-ASN',
          'X-Spam-Bad:\r\nEvil',
          'Subject',
        ),
        value: nastyText,
      }),
      { maxLength: 5 },
    ),
  }),
);
const question: fc.Arbitrary<MessageEditsInput> = fc
  .record({
    headers: headerList,
    scan: fc.option(scan, { nil: null }),
    spf: fc.boolean(),
    auth: nastyText,
    tag: fc.constantFrom('', '[SPAM]', 'SPAM:', '[M\u00dcLL]', '\r\nX-Injected: 1'),
    threshold: fc.constantFrom(null, 5, 0.1),
    junk: fc.constantFrom(null, 8),
    forced: fc.constantFrom('ignore', 'tag', 'junk', 'quarantine'),
    daemon: fc.constantFrom('milter', 'lmtp-filter'),
  })
  .map(({ headers, scan: made, spf, auth, tag, threshold, junk, forced, daemon }) => {
    const own = rules({
      findings: { 'spf.fail': rule(forced) },
      thresholds: { tag: threshold, junk },
      subjectTag: tag,
    });
    const properties = [['smtp.mailfrom', auth] as const];
    const outcomes: Outcome[] = [];
    if (spf)
      outcomes.push(
        found('spf', {
          code: 'spf.fail',
          detail: auth,
          auth: { method: 'spf', result: 'fail', comment: auth, properties },
        }),
      );
    if (made !== null) outcomes.push(scanned(made));
    return input(headers, { outcomes, rules: own, daemon });
  });

const OUR_NAMES = /^(?:authentication-results|x-spam-.*|x-postern-.*|subject)$/i;

/** Fields that are not our business. */
function others(list: HeaderList): HeaderField[] {
  return list.toArray().filter(({ name }) => !OUR_NAMES.test(name));
}

/** Fields that a reader takes for ours or the scanner's. X-Spam-Prev-Subject may be kept, when it tells the truth. */
function speaksForUs({ name, value }: HeaderField): boolean {
  const lower = name.toLowerCase();
  if (lower === 'authentication-results') return claimsAuthservId(value, [OURS]);
  return lower.startsWith('x-postern-') || (lower.startsWith('x-spam-') && lower !== 'x-spam-prev-subject');
}

/** Deletes as an MTA does that keeps the numbers of deleted fields (Sendmail), everything else as usual. */
function applyKeepingNumbers(headers: HeaderList, edits: readonly Edit[]): string {
  const slots: { field: HeaderField | null; name: string }[] = headers
    .toArray()
    .map((original) => ({ field: original, name: original.name.toLowerCase() }));
  const inserted: HeaderField[] = [];
  for (const edit of edits) {
    const named = slots.filter(({ name }) => name === edit.name.toLowerCase());
    switch (edit.kind) {
      case 'insert':
        inserted.unshift({ name: edit.name, value: edit.value });
        break;
      case 'delete': {
        const slot = named[edit.occurrence - 1];
        if (slot) slot.field = null;
        break;
      }
      case 'replace': {
        const slot = named[edit.occurrence - 1];
        if (slot?.field) slot.field = { ...slot.field, value: edit.value };
        break;
      }
    }
  }
  return new HeaderList([
    ...inserted,
    ...slots.flatMap(({ field: kept }) => (kept === null ? [] : [kept])),
  ]).serialize();
}

describe('messageEdits, for any message, verdict and scan', () => {
  it('never writes a line break that is no fold, a NUL, or a name that is none', () => {
    fc.assert(
      fc.property(question, (asked) => {
        for (const edit of messageEdits(asked)) {
          expect(edit.name).toMatch(/^[!-9;-~]+$/);
          if (edit.kind === 'delete') continue;
          expect(edit.value.replaceAll(/\r\n(?=[\t ])/g, '')).not.toMatch(/[\0\r\n]/);
          expect(edit.value).not.toMatch(/\r\n[\t ]*(?:\r\n|$)/);
        }
      }),
    );
  });

  it('adds no line over 998 octets', () => {
    fc.assert(
      fc.property(question, (asked) => {
        for (const edit of messageEdits(asked)) {
          if (edit.kind !== 'insert' || /subject$/i.test(edit.name)) continue;
          for (const line of `${edit.name}:${edit.value}`.split('\r\n'))
            expect(line.length).toBeLessThanOrEqual(998);
        }
      }),
    );
  });

  it('leaves no field in our name or the scanner’s that is not ours', () => {
    fc.assert(
      fc.property(question, (asked) => {
        const result = edited(asked).toArray();
        const written = messageEdits(asked).filter((edit) => edit.kind === 'insert');
        const judged = asked.daemon === 'lmtp-filter' && judgedByMilter(asked.headers, TRACE);
        const boundary = result.findIndex(({ name }) => name.toLowerCase() === 'received');
        const strangers = result.filter((one, position) => {
          if (judged && position < boundary) return false;
          return (
            speaksForUs(one) && !written.some(({ name, value }) => name === one.name && value === one.value)
          );
        });
        expect(strangers).toEqual([]);
      }),
    );
  });

  it('leaves all other fields as they are, in their order', () => {
    fc.assert(
      fc.property(question, (asked) => {
        expect(others(edited(asked))).toEqual(others(asked.headers));
      }),
    );
  });

  it('changes nothing more when made twice', () => {
    fc.assert(
      fc.property(question, (asked) => {
        const once = edited(asked);
        const twice = edited({ ...asked, headers: once });
        expect(twice.serialize()).toBe(once.serialize());
      }),
    );
  });

  it('means the same to MTAs that close the gap of a deleted field and to those that do not', () => {
    fc.assert(
      fc.property(question, (asked) => {
        const edits = messageEdits(asked);
        expect(applyKeepingNumbers(asked.headers, edits)).toBe(applyEdits(asked.headers, edits).serialize());
      }),
    );
  });

  it('leaves lmtp-filter nothing to do when the milter came to the same verdict', () => {
    // A subject that begins with the tag, and has an octet that can't be written.
    const begun = new HeaderList([{ name: 'Subject', value: '\r\n[SPAM] offer\u0000' }]);
    const spam = { outcomes: [scanned(GTUBE_SCAN)], rules: rules({ subjectTag: '[SPAM]' }) };
    fc.assert(
      fc.property(question, (asked) => {
        // What the milter quarantines never reaches lmtp-filter with the same words.
        fc.pre(asked.verdict.kind !== 'quarantine');
        const milter: MessageEditsInput = { ...asked, daemon: 'milter' };
        const edits = messageEdits(milter);
        const count = edits.filter(({ kind }) => kind === 'insert').length;
        const fields = applyEdits(milter.headers, edits).toArray();
        // The MTA's own Received stands below what the milter inserted, and above all that the client sent.
        const delivered = [
          ...fields.slice(0, count),
          ...parseHeaderSection(RECEIVED),
          ...fields.slice(count),
        ];
        const headers = new HeaderList(delivered);
        expect(messageEdits({ ...asked, headers, daemon: 'lmtp-filter' })).toEqual([]);
      }),
      { examples: [[input(begun, spam)]] },
    );
  });
});

describe('a header section full of forged fields', () => {
  it('is edited in time that grows with its size', () => {
    const forged = Array.from({ length: 20_000 }, (_, index) => ({
      name: index % 2 === 0 ? 'X-Spam-A' : `X-Spam-${index}`,
      value: '',
    }));
    const asked = input(new HeaderList([...forged, { name: 'From', value: ' x' }]), { verdict: accept() });
    const begun = performance.now();
    const result = edited(asked);
    expect(performance.now() - begun).toBeLessThan(2000);
    expect(result.serialize()).toBe(`X-Postern-Trace: ${TRACE}\r\nFrom: x\r\n`);
  });
});
