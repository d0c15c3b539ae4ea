import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { Examiner } from '../../../../src/adapters/content/examiner.ts';
import { htmlText } from '../../../../src/adapters/content/html-text.ts';
import { DEPTH_LIMIT, PART_LIMIT, TEXT_LIMIT } from '../../../../src/adapters/content/mime-limits.ts';
import { attachment, contentRule, entity, mixed, zipArchive } from '../../../support/mime.ts';

const HEADER_OCTETS = 1 << 20;
const MIB = 1024 * 1024;
/** A guard against quadratic time: linear, these take a tenth of it. */
const PATIENCE_MS = 8000;

const EXAMINER = new Examiner([
  contentRule({
    words: ['top secret', 'confidential*', '绝密'],
    patterns: ['(a+)+$', '\\b(?:[0-9][ -]*?){13,16}\\b', '.*.*=.*x'],
    where: ['subject', 'body', 'attachment-names', 'headers'],
    attachments: {
      extensions: ['exe'],
      types: ['executable'],
      encrypted: ['archive'],
      doubleExtension: true,
      mismatch: true,
    },
  }),
]);

function examine(message: Buffer): ReturnType<Examiner['examine']> {
  return EXAMINER.examine(message, HEADER_OCTETS, [0]);
}

const deep = (levels: number): Buffer => {
  let octets = entity({}, 'x');
  for (let level = 0; level < levels; level++) {
    octets = entity(
      { 'Content-Type': `multipart/mixed; boundary=b${level}` },
      Buffer.concat([Buffer.from(`--b${level}\r\n`), octets, Buffer.from(`\r\n--b${level}--\r\n`)]),
    );
  }
  return octets;
};

const manyParts = (count: number): Buffer => mixed(Array.from({ length: count }, () => entity({}, 'x')));

const part = (length: number): Buffer => {
  const rest = length - 'X: \r\n\r\n'.length;
  return mixed([entity({ X: 'x'.repeat(rest) }, 'top secret')]);
};

describe('takes no longer than its size allows', () => {
  const hostile: Readonly<Record<string, () => Buffer>> = {
    'many parts': () =>
      entity({ 'Content-Type': 'multipart/mixed; boundary=b' }, '--b\r\n\r\n\r\n'.repeat(MIB / 4)),
    'deep parts': () => deep(3000),
    'lines that nearly are boundaries, at every depth': () => {
      const parts = Array.from(
        { length: DEPTH_LIMIT },
        (_, level) => `Content-Type: multipart/mixed; boundary=b\r\n\r\n${level}\r\n--b\r\n`,
      );
      return Buffer.from(parts.join('') + '\r\n--bb'.repeat(MIB / 2));
    },
    'messages in messages': () => Buffer.from('Content-Type: message/rfc822\r\n\r\n'.repeat(50_000)),
    'one long line': () => entity({}, 'a'.repeat(5 * MIB)),
    'spaces only': () => entity({}, ' '.repeat(5 * MIB)),
    'spaces between letters': () => entity({}, ' a'.repeat(2 * MIB)),
    'equals signs in quoted-printable': () =>
      entity({ 'Content-Transfer-Encoding': 'quoted-printable' }, '='.repeat(5 * MIB)),
    'blanks behind an equals sign': () =>
      entity({ 'Content-Transfer-Encoding': 'quoted-printable' }, `=${' '.repeat(5 * MIB)}x`),
    'padding in base64': () => entity({ 'Content-Transfer-Encoding': 'base64' }, 'YQ=='.repeat(MIB)),
    'open tags in HTML': () => entity({ 'Content-Type': 'text/html' }, '<'.repeat(5 * MIB)),
    'open quotes in HTML': () => entity({ 'Content-Type': 'text/html' }, '<a title="'.repeat(MIB / 2)),
    'open comments in HTML': () => entity({ 'Content-Type': 'text/html' }, '<!--'.repeat(MIB)),
    'nested elements in HTML': () =>
      entity({ 'Content-Type': 'text/html' }, '<div style="display:none">'.repeat(MIB / 8)),
    'scripts without an end in HTML': () =>
      entity({ 'Content-Type': 'text/html' }, '<script>'.repeat(MIB / 2)),
    'attributes without an end in HTML': () =>
      entity({ 'Content-Type': 'text/html' }, `<a ${'alt '.repeat(15_000)}>`.repeat(50)),
    'ampersands in HTML': () => entity({ 'Content-Type': 'text/html' }, '&#x'.repeat(MIB)),
    'encoded-words': () => entity({ Subject: '=?utf-8?q?a?= '.repeat(30_000) }, ''),
    'encoded-words that do not end': () => entity({ Subject: '=?utf-8?q?'.repeat(50_000) }, ''),
    parameters: () => mixed([entity({ 'Content-Type': `text/plain; ${'a*0*=x; '.repeat(7000)}` }, '')]),
    'comments in fields': () => mixed([entity({ 'Content-Type': '('.repeat(60_000) }, '')]),
    'quotes in fields': () => mixed([entity({ 'Content-Type': 'a/b; c="'.repeat(7000) }, '')]),
    'letters that become many': () =>
      entity({ 'Content-Type': 'text/plain; charset=utf-8' }, Buffer.from('\ufdfa'.repeat(MIB))),
    'marks that pile up': () =>
      entity(
        { 'Content-Type': 'text/plain; charset=utf-8' },
        Buffer.from(`a${'\u0301\u0327'.repeat(MIB / 2)}`),
      ),
    'marks that pile up between invisible characters': () =>
      entity(
        { 'Content-Type': 'text/plain; charset=utf-8' },
        Buffer.from(`a${'\u0301\u200b\u0327'.repeat(MIB / 2)}`),
      ),
    'UTF-7': () => entity({ 'Content-Type': 'text/plain; charset=utf-7' }, '+AHQ'.repeat(MIB)),
    'what a pattern likes least': () => entity({}, `${'a'.repeat(2 * MIB)}!`),
    'PDF marks in an archive': () =>
      mixed([
        attachment(
          'a.zip',
          zipArchive(
            Array.from({ length: 5000 }, (_, at) => ({
              name: `${at}.zip`,
              octets: Buffer.from('PK\x05\x06'),
            })),
          ),
        ),
      ]),
  };

  test.each(Object.entries(hostile))(
    '%s',
    (_, make) => {
      const message = make();
      const begun = process.cpuUsage();
      examine(message);
      const { user, system } = process.cpuUsage(begun);
      expect((user + system) / 1000).toBeLessThan(PATIENCE_MS);
    },
    60_000,
  );
});

describe('limits', () => {
  test('so many parts, and one more', () => {
    expect(examine(manyParts(PART_LIMIT - 1)).unparsable).toEqual([]);
    expect(examine(manyParts(PART_LIMIT)).unparsable).toEqual([`more than ${PART_LIMIT} parts`]);
  });

  test('what lies beyond them is looked at as it stands', () => {
    const beyond = mixed([
      ...Array.from({ length: PART_LIMIT }, () => entity({}, 'x')),
      entity({}, 'top secret'),
    ]);
    expect(examine(beyond).hits).toHaveLength(1);
  });

  test('so much text, and one character more', () => {
    const plain = new Examiner([contentRule({ words: ['top secret'] })]);
    const tooLarge = (length: number): readonly string[] =>
      plain.examine(entity({}, 'a'.repeat(length)), HEADER_OCTETS, [0]).tooLarge;
    expect(tooLarge(TEXT_LIMIT)).toEqual([]);
    expect(tooLarge(TEXT_LIMIT + 1)).toEqual([`more than ${TEXT_LIMIT} characters of text`]);
  });

  test('so long a header section of a part, and one octet more', () => {
    expect(examine(part(64 * 1024))).toMatchObject({ unparsable: [], hits: [{ rule: 0 }] });
    expect(examine(part(64 * 1024 + 1))).toMatchObject({
      unparsable: ['a part with more than 65536 octets of header fields'],
      hits: [{ rule: 0 }],
    });
  });
});

const fragment = fc.oneof(
  fc.constantFrom(
    '\r\n',
    '\n',
    '\r\n\r\n',
    '--b\r\n',
    '--b--',
    'Content-Type: multipart/mixed; boundary=b\r\n',
    'Content-Type: multipart/digest; boundary="b\r\n',
    'Content-Type: message/rfc822\r\n',
    'Content-Type: text/html; charset=utf-16\r\n',
    'Content-Type: text/plain; charset*0*=utf-7; charset*1=8\r\n',
    "Content-Disposition: attachment; filename*0*=gb18030''%BE; filename*1*=%F8\r\n",
    'Content-Transfer-Encoding: base64\r\n',
    'Content-Transfer-Encoding: quoted-printable\r\n',
    'Content-Transfer-Encoding: x-uue\r\n',
    'Subject: =?utf-8?b?4pyT?= =?x?q?=3F?=\r\n',
    'PK\x03\x04',
    'PK\x05\x06',
    '<div hidden>',
    '</div>',
    '<!--',
    '&#x110000;',
    '=3D=\r\n',
    'dG9wIHNlY3JldA==',
    '\xff\xfe',
    '\0',
  ),
  fc.string({ unit: 'binary', maxLength: 20 }).map((text) => Buffer.from(text, 'utf8').toString('latin1')),
);

test('whatever is put together, nothing fails', () => {
  fc.assert(
    fc.property(fc.array(fragment, { maxLength: 40 }), (pieces) => {
      const answer = examine(Buffer.from(pieces.join(''), 'latin1'));
      for (const text of answer.hits.map(({ detail }) => detail)) expect(text).not.toMatch(/\p{Cc}/u);
    }),
    { numRuns: 3000 },
  );
}, 60_000);

test('HTML that is cut anywhere has all of its text', () => {
  const document = '<p>al<b>pha</b></p><!-- beta --><script>gamma</script><img alt="delta">&amp;epsilon';
  for (let cut = 0; cut <= document.indexOf('epsilon'); cut++) {
    const text = htmlText(document.slice(cut));
    expect(text, `cut at ${cut}`).toContain('epsilon');
    expect(() => htmlText(document.slice(0, cut))).not.toThrow();
  }
});
