import { describe, expect, test } from 'vitest';

import { describeDecision, describeJourney, shown } from '../../../src/evidence/history.ts';
import { decision, FULL_DECISION, MORNING } from '../../support/decisions.ts';

describe('one decision', () => {
  test('says when, who, what and why', () => {
    expect(describeDecision(FULL_DECISION, false)).toEqual([
      '2026-11-21T09:00:00.000Z  milter message  reject (marked as spam)  by dmarc.fail-reject  score 7.3  trace ffffeeeeddddcccc  queue id 4gX1Yz0abcz1',
      '  <Ada@Example.com> -> <bob@example.org>, <carol+lists@example.net>, client 192.0.2.7, helo mx.example.com, login ada',
      '  why: no aligned pass for example.com',
    ]);
  });

  test('with all that was found', () => {
    expect(describeDecision(FULL_DECISION, true).slice(3)).toEqual([
      '  spf: spf.fail, from 192.0.2.7: "-all" \u00e9{00}{0d}{0a} (3 ms)',
      '  dkim: nothing found (0 ms)',
      '  spam: spam.scored 7.3 points for carol+lists@example.net, 7.3 of 5 (801 ms)',
      '  dmarc: unavailable, deadline: no result within 5 ms (5 ms)',
      '  shadow: spf.fail would have been reject',
      '  answer: 550 5.7.26 refused (ffffeeeeddddcccc)',
    ]);
  });

  test('says what users said, in one decision and once in a journey', () => {
    const labels = [
      { message: 'a', user: 'zeus\u001b[2J', label: 'spam', time: MORNING },
      { message: 'a', user: '', label: 'ham', time: MORNING },
    ] as const;
    const shownLabels = [
      '  label: spam, says zeus{1b}[2J (2026-11-21T09:00:00.000Z)',
      '  label: ham, says the operator (2026-11-21T09:00:00.000Z)',
    ];
    expect(describeDecision(decision({ labels }), false).slice(2)).toEqual(shownLabels);
    const journey = describeJourney([decision({ labels }), decision({ labels, daemon: 'lmtp-filter' })]);
    expect(journey.filter((line) => line.includes('label'))).toEqual(shownLabels);
  });

  test('says which host it was, where several share the record', () => {
    const shared = decision({ host: 'mx2.example\u001b' });
    expect(describeDecision(shared, false)[0]).toMatch(/ {2}queue id 4gX1Yz0abcz1 {2}at mx2\.example\{1b\}$/);
    expect(describeJourney([shared]).find((line) => line.includes('milter'))).toMatch(
      / {2}at mx2\.example\{1b\}$/,
    );
  });

  test('leaves out what is not known, and shows the null path', () => {
    const bare = decision({ queueId: null, client: '', helo: null, sender: '', recipients: [] });
    expect(describeDecision(bare, false)).toEqual([
      '2026-11-21T09:00:00.000Z  milter message  accept  by default  trace aaaabbbbccccdddd',
      '  <> -> (no recipients)',
    ]);
  });

  test('names three recipients and counts the rest', () => {
    const crowd = ['a@x.example', 'b@x.example', 'c@x.example', 'd@x.example'];
    expect(describeDecision(decision({ recipients: crowd.slice(0, 3) }), false)[1]).toContain(
      '<c@x.example>,',
    );
    expect(describeDecision(decision({ recipients: crowd }), false)[1]).toContain('<c@x.example> and 1 more');
  });
});

describe('the way of a message', () => {
  const asked = decision({
    daemon: 'policyd',
    stage: 'rcpt',
    queueId: null,
    messageId: null,
    size: null,
    recipients: ['bob@example.org'],
    reply: 'DUNNO',
    time: MORNING,
  });
  const filtered = decision({ time: MORNING + 900, reply: 'accept', score: 2 });
  const delivered = decision({
    daemon: 'lmtp-filter',
    time: MORNING + 1500,
    client: '127.0.0.1',
    recipients: ['bob@example.org'],
    reply: '250 2.0.0 Saved',
  });

  test('in order of time, with what is common to all said once', () => {
    expect(describeJourney([delivered, asked, filtered])).toEqual([
      'trace aaaabbbbccccdddd  incoming',
      '  queue id: 4gX1Yz0abcz1',
      '  client: 192.0.2.7, 127.0.0.1',
      '  helo: mx.example.com',
      '  from: <Ada@Example.com>',
      '  message id: <1@example.com>',
      '  size: 1234 octets',
      '',
      '2026-11-21T09:00:00.000Z  policyd rcpt  accept  by default  after 13 ms',
      '  to: <bob@example.org>',
      '  answer: DUNNO',
      '',
      '2026-11-21T09:00:00.900Z  milter message  accept  by default  score 2  after 13 ms',
      '  to: <bob@example.org>, <carol+lists@example.net>',
      '  answer: accept',
      '',
      '2026-11-21T09:00:01.500Z  lmtp-filter message  accept  by default  after 13 ms',
      '  to: <bob@example.org>',
      '  answer: 250 2.0.0 Saved',
    ]);
  });

  test('of nothing is nothing', () => {
    expect(describeJourney([])).toEqual([]);
  });
});

describe('text from outside', () => {
  test.for([
    ['escape sequences', 'a\u001b[2J\u001b]0;title\u0007', 'a{1b}[2J{1b}]0;title{07}'],
    ['line ends', 'a\r\nb\u2028c\u0085d', 'a{0d}{0a}b{2028}c{85}d'],
    ['C1 controls', '\u009b31m', '{9b}31m'],
    ['DEL', '\u007f', '{7f}'],
    ['bidirectional overrides', 'user\u202emoc.elpmaxe', 'user{202e}moc.elpmaxe'],
    ['zero width and odd spaces', 'a\u200bb\u00a0c\ufeff', 'a{200b}b{a0}c{feff}'],
    ['lone surrogates', 'a\ud800', 'a{d800}'],
    ['UTF-8 as octets', '\u00c3\u00a9t\u00c3\u00a9', '\u00e9t\u00e9'],
    ['UTF-8 that hides a control', 'x\u00c2\u009b1m', 'x{9b}1m'],
    ['latin1', 'caf\u00e9', 'caf\u00e9'],
    ['ordinary text', 'Bob & "Co" <bob@example.org> 100%', 'Bob & "Co" <bob@example.org> 100%'],
  ] as const)('%s', ([, text, expected]) => {
    expect(shown(text)).toBe(expected);
  });

  test('is cut at the limit', () => {
    expect(shown('x'.repeat(300))).toBe('x'.repeat(300));
    expect(shown('x'.repeat(301))).toBe(`${'x'.repeat(300)}...`);
  });

  test('every field of a decision goes through it', () => {
    const evil = '\u001b[31m\r\nX';
    const hostile = decision({
      trace: evil,
      queueId: evil,
      client: evil,
      helo: evil,
      login: evil,
      sender: evil,
      recipients: [evil],
      messageId: evil,
      rule: evil,
      why: evil,
      reply: evil,
      shadow: [{ rule: evil, kind: 'junk' }],
      outcomes: [
        { kind: 'found', check: evil, findings: [{ code: evil, detail: evil, recipient: 0 }], elapsed: 1 },
        { kind: 'unavailable', check: evil, reason: 'failed', detail: evil, elapsed: 1 },
      ],
    });
    const lines = [...describeDecision(hostile, true), ...describeJourney([hostile])];
    // oxlint-disable-next-line no-control-regex -- that none is left is the point
    expect(lines.filter((line) => /[\u0000-\u001f\u007f-\u009f]/.test(line))).toEqual([]);
  });
});
