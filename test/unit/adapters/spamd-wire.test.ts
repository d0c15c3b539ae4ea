import { describe, expect, it } from 'vitest';

import {
  readPong,
  readScan as readAnswer,
  requestHead,
  type SpamcAnswer,
} from '../../../src/adapters/spamd-wire.ts';
import type { SpamScan } from '../../../src/mail/spam-scan.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import { GTUBE_SCAN } from '../../support/judgement.ts';

const STATUS = ' No, score=1.0 required=5.0 tests=A_1,\r\n\tB_2,C_3 autolearn=no version=4.0.1';

const SENT: SpamcAnswer = { verb: 'HEADERS', section: '', preamble: '', bodyOctets: 0 };

function readScan(text: string, sent: Partial<SpamcAnswer> = {}): SpamScan {
  return readAnswer(text, { ...SENT, ...sent });
}

function answer(section: string, spam = 'False ; 1.0 / 5.0'): string {
  return `SPAMD/1.1 0 EX_OK\r\nContent-length: ${section.length}\r\nSpam: ${spam}\r\n\r\n${section}`;
}

describe('requestHead', () => {
  it('writes names as spamd wants them', () => {
    expect(requestHead({ verb: 'HEADERS', contentLength: 12, user: 'zeus@olimpus.example' })).toBe(
      'HEADERS SPAMC/1.5\r\nContent-length: 12\r\nUser: zeus@olimpus.example\r\n\r\n',
    );
    expect(requestHead({ verb: 'PING', contentLength: null, user: null })).toBe('PING SPAMC/1.5\r\n\r\n');
    expect(requestHead({ verb: 'HEADERS', contentLength: 0, user: null })).toContain('Content-length: 0\r\n');
  });

  it('lets no user name end its line', () => {
    expect(
      requestHead({ verb: 'HEADERS', contentLength: 1, user: 'a\r\nSet: local\0\u{10a}\xe9' }),
    ).toContain('User: a??Set: local??\xe9\r\n');
  });
});

describe('readScan', () => {
  it('reads what spamd 4.0.1 said of GTUBE', () => {
    // Recorded with report_safe 0 and rewrite_header Subject [SPAM].
    const own = GTUBE_SCAN.fields.map(({ name, value }) => `${name}:${value}\r\n`).join('');
    const message = `${own}From: a@example.org\r\nSubject: [SPAM] hello\r\nX-Spam-Prev-Subject: hello\r\n\r\n`;
    expect(readScan(answer(message, 'True ; 1000.0 / 5.0'))).toEqual(GTUBE_SCAN);
  });

  it.each([
    ['True ; 15.0 / 5.0', 15, 5],
    ['False ; -1.0 / 5.0', -1, 5],
    ['False ; -0.0 / 5.0', 0, 5],
    ['Yes ; 1002.3 / 8', 1002.3, 8],
    ['No ; 0 / -3.5', 0, -3.5],
  ])('reads the score of "%s"', (spam, score, required) => {
    expect(readScan(answer('\r\n', spam))).toEqual({ score, required, rules: [], fields: [] });
  });

  it('takes the rules from X-Spam-Status', () => {
    expect(readScan(answer(`X-Spam-Status:${STATUS}\r\n\r\n`)).rules).toEqual(['A_1', 'B_2', 'C_3']);
  });

  it.each([
    [' No, score=0.0 required=5.0 tests=none autolearn=no', []],
    [' No, score=0.0 required=5.0 tests=', []],
    [' No, score=0.0 required=5.0', []],
    [' No, tests=A', ['A']],
    [' No, tests=A,B c,D', ['A', 'B']],
    [' No, tests=A,(evil),B', ['A', 'B']],
  ])('finds the rules in "%s"', (status, rules) => {
    expect(readScan(answer(`X-Spam-Status:${status}\r\n\r\n`)).rules).toEqual(rules);
  });

  it('takes no more than 500 rules', () => {
    const names = Array.from({ length: 501 }, (_, index) => `R${index}`);
    expect(readScan(answer(`X-Spam-Status: No, tests=${names.join(',')}\r\n\r\n`)).rules).toEqual(
      names.slice(0, 500),
    );
  });

  it('takes nothing but X-Spam-* fields: with report_safe 1 the others are those of a wrapper', () => {
    const section = `Received: from localhost by mx\r\nX-Spam-Flag: YES\r\nX-Spam-Prev-Subject: x\r\nSubject: [SPAM] x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="x"\r\nX-Spam-Status:${STATUS}\r\n\r\nThis is a multi-part message in MIME format.\r\nX-Spam-Level: *\r\n`;
    expect(readScan(answer(section)).fields).toEqual([
      { name: 'X-Spam-Flag', value: ' YES' },
      { name: 'X-Spam-Status', value: STATUS },
    ]);
  });

  it('takes the first of two fields of one name', () => {
    expect(readScan(answer('X-Spam-Flag: YES\r\nx-spam-flag: NO\r\n\r\n')).fields).toEqual([
      { name: 'X-Spam-Flag', value: ' YES' },
    ]);
  });

  it('reads line ends as the message had them', () => {
    const section = `X-Spam-Status:${STATUS}\r\nFrom: x\r\n\r\n`.replaceAll('\r\n', '\n');
    expect(readScan(answer(section)).fields).toEqual([{ name: 'X-Spam-Status', value: STATUS }]);
  });

  it.each([
    ['nothing', ''],
    ['another language', 'HTTP/1.1 400 Bad Request\r\n\r\n'],
    ['a greeting', '220 mx ESMTP\r\n'],
    ['half a status line', 'SPAMD/1.1 0'],
    [
      'an error',
      'SPAMD/1.0 76 Bad header line: (Content-Length mismatch: Expected 10 bytes, got 9 bytes)\r\n',
    ],
    ['a timeout of its own', 'SPAMD/1.0 79 Timeout: (30 second timeout while trying to HEADERS)\r\n'],
    ['a head without end', 'SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: True ; 1.0 / 5.0\r\n'],
    ['no head', 'SPAMD/1.1 0 EX_OK\r\n\r\n'],
    ['no Spam line', 'SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n'],
    ['no length', 'SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1.0 / 5.0\r\n\r\n'],
    ['fewer octets than announced', answer('x').slice(0, -1)],
    ['more octets than announced', `${answer('x')}x`],
    ['a length that is none', answer('').replace(': 0', ': -0')],
    ['a score that is none', answer('', 'True ; high / 5.0')],
    ['an endless score', answer('', `True ; ${'9'.repeat(400)} / 5.0`)],
    ['an answer that is neither', answer('', 'Maybe ; 1.0 / 5.0')],
    ['two scores', answer('').replace('Spam:', 'Spam: False ; 0.0 / 5.0\r\nSpam:')],
    ['a line that is no field', answer('').replace('Spam:', 'nothing\r\nSpam:')],
    [
      'too many fields',
      answer('').replace('Spam:', `${Array.from({ length: 63 }, (_, n) => `X${n}: 1\r\n`).join('')}Spam:`),
    ],
  ])('does not believe %s', (_, text) => {
    expect(() => readScan(text)).toThrow(NeighbourError);
  });

  it('takes a head of just as many fields as allowed', () => {
    const more = Array.from({ length: 62 }, (_, n) => `X${n}: 1\r\n`).join('');
    expect(readScan(answer('').replace('Spam:', `${more}Spam:`)).score).toBe(1);
  });

  it('says what spamd said, harmless and short', () => {
    const text = `SPAMD/1.0 76 ${'\x1b'.repeat(300)}\r\n`;
    expect(() => readScan(text)).toThrow(/^spamd answered 76 \?{197}\.\.\.$/);
  });
});

describe('readPong', () => {
  it('takes PONG', () => {
    expect(() => readPong('SPAMD/1.5 0 PONG\r\n')).not.toThrow();
  });

  it.each(['', 'SPAMD/1.5 0 PANG\r\n', 'SPAMD/1.0 76 PONG\r\n', 'PONG\r\n'])('and not %j', (text) => {
    expect(() => readPong(text)).toThrow(NeighbourError);
  });
});

function symbols(text: string): SpamScan {
  return readScan(answer(text, 'True ; 7.1 / 5.0'), { verb: 'SYMBOLS' });
}

describe('the answer to SYMBOLS', () => {
  it('is the rules, and no fields', () => {
    expect(symbols('A_1,B,C')).toEqual({ score: 7.1, required: 5, rules: ['A_1', 'B', 'C'], fields: [] });
    expect(symbols('').rules).toEqual([]);
    expect(symbols('none').rules).toEqual([]);
    expect(symbols('A\r\n').rules).toEqual(['A']);
    expect(symbols('A,<b>,C').rules).toEqual(['A', 'C']);
  });

  it('is read up to 500 rules', () => {
    const names = Array.from({ length: 501 }, (_, index) => `R${index}`);
    expect(symbols(names.slice(0, 500).join(',')).rules).toHaveLength(500);
    expect(symbols(names.join(',')).rules).toHaveLength(500);
  });
});

describe('the answer to PROCESS', () => {
  const preamble = 'X-Envelope-From: <thor@valhalla.example>\r\nX-Envelope-To: <hidden@olimpus.example>\r\n';
  const own = 'Subject: hail\r\nFrom: thor@valhalla.example\r\n';
  const body = 'Hail!\r\n';
  const sent = { verb: 'PROCESS', section: preamble + own, preamble, bodyOctets: body.length } as const;
  const spamFields = `X-Spam-Flag: YES\r\nX-Spam-Status:${STATUS}\r\n`;
  const wrapper = (original: string, more = ''): string =>
    `Received: from localhost by mx\r\n\twith SpamAssassin\r\n${more}Subject: [SPAM] hail\r\n${spamFields}` +
    `Content-Type: multipart/mixed; boundary="B"\r\n\r\n--B\r\n\r\nreport\r\n--B\r\nContent-Type: message/rfc822\r\n\r\n${original}\r\n--B--\r\n\r\n`;
  const process = (content: string, values: Partial<SpamcAnswer> = {}): SpamScan =>
    readScan(answer(content, 'True ; 7.1 / 5.0'), { ...sent, ...values });

  it('has no new body when the body is as it was', () => {
    const scan = process(`${spamFields}${preamble}${own}\r\n${body}`);
    expect(scan).not.toHaveProperty('rewriting');
    expect(scan).toMatchObject({ score: 7.1, rules: ['A_1', 'B_2', 'C_3'] });
  });

  it('has the report, in which nothing is left of what SpamAssassin was told', () => {
    const { rewriting, fields } = process(wrapper(`${preamble}${own}\r\n${body}`, preamble));
    expect(rewriting?.fields.map(({ name }) => name)).toEqual([
      'Received',
      'Subject',
      'X-Spam-Flag',
      'X-Spam-Status',
      'Content-Type',
    ]);
    expect(rewriting?.body).toBe(
      `--B\r\n\r\nreport\r\n--B\r\nContent-Type: message/rfc822\r\n\r\n${own}\r\n${body}\r\n--B--\r\n\r\n`,
    );
    expect(fields.map(({ name }) => name)).toEqual(['X-Spam-Flag', 'X-Spam-Status']);
  });

  it.each([
    ['is not in it', 'Subject: another\r\n\r\nHail!\r\n'],
    ['is only quoted in it', `> ${preamble}${own}\r\n${body}`],
    ['is cut off in it', `${preamble}${own}\r\nHail`],
  ])('leaves the body alone when the original %s', (_, original) => {
    const scan = process(wrapper(original).replace(/\r\n--B--[^]*$/, ''));
    expect(scan).not.toHaveProperty('rewriting');
    expect(scan.fields).toHaveLength(2);
  });

  it('may have no body at all', () => {
    expect(process('X-Spam-Flag: YES\r\n', { bodyOctets: 0 })).not.toHaveProperty('rewriting');
    expect(process('X-Spam-Flag: YES\r\n\r\n', { bodyOctets: 0 }).fields).toHaveLength(1);
  });
});
