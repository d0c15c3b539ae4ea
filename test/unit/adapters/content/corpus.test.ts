import { describe, expect, test } from 'vitest';

import { Examiner } from '../../../../src/adapters/content/examiner.ts';
import type { ContentAnswer, TextPlace } from '../../../../src/ports/content-scanner.ts';
import { base64Lines, contentRule, entity, mixed } from '../../../support/mime.ts';

const HEADER_OCTETS = 1 << 20;

const latin = (text: string): string => Buffer.from(text, 'utf8').toString('latin1');

function examine(message: Buffer, words: readonly string[], where?: readonly TextPlace[]): ContentAnswer {
  const rule = contentRule({ words, ...(where === undefined ? {} : { where }) });
  return new Examiner([rule]).examine(message, HEADER_OCTETS, [0]);
}

function finds(message: Buffer, word = 'top secret'): boolean {
  return examine(message, [word]).hits.length === 1;
}

const utf16 = (text: string): Buffer => Buffer.from(text, 'utf16le');
const utf16be = (text: string): Buffer => utf16(text).swap16();

/** 绝密 in GB18030, between ASCII. */
const GB = Buffer.concat([Buffer.from('<p>'), Buffer.from([0xbe, 0xf8, 0xc3, 0xdc]), Buffer.from('</p>')]);

function html(body: string): Buffer {
  return entity({ 'Content-Type': 'text/html; charset=utf-8' }, latin(body));
}

function encoded(octets: Uint8Array, charset: string, type = 'text/plain'): Buffer {
  return entity(
    { 'Content-Type': `${type}; charset=${charset}`, 'Content-Transfer-Encoding': 'base64' },
    base64Lines(octets),
  );
}

const told = (message: Buffer): readonly string[] => examine(message, ['x']).unparsable;

describe('a phrase is found', () => {
  const hidden: Readonly<Record<string, Buffer>> = {
    'in plain text without any MIME': entity({ Subject: 'x' }, 'this is top secret, really'),
    'across a line break': entity({}, 'this is top\r\nsecret'),
    'with bare line feeds all over': Buffer.from(
      'Subject: x\nContent-Type: text/plain\n\nthis is top secret\n',
    ),
    'in upper case': entity({}, 'TOP SECRET'),
    'in base64': encoded(Buffer.from('it is top secret'), 'utf-8'),
    'in base64 with padding in the middle': entity(
      { 'Content-Transfer-Encoding': 'base64' },
      `${Buffer.from('it is to').toString('base64')}\r\n${Buffer.from('p secret').toString('base64')}`,
    ),
    'in base64 among other characters': entity(
      { 'Content-Transfer-Encoding': 'BASE64 (really)' },
      Buffer.from('it is top secret').toString('base64').replaceAll(/(..)/g, '$1-!'),
    ),
    'in quoted-printable': entity(
      { 'Content-Transfer-Encoding': 'quoted-printable' },
      'this is t=6Fp s=\r\nec=   \r\nret',
    ),
    'in uuencode': entity(
      { 'Content-Transfer-Encoding': 'x-uuencode' },
      "begin 644 a.txt\r\n0:70@:7,@=&]P('-E8W)E=   \r\n`\r\nend\r\n",
    ),
    'in UTF-16 with a byte order mark': encoded(
      Buffer.concat([Buffer.from([0xff, 0xfe]), utf16('top secret')]),
      'utf-16',
    ),
    'in big-endian UTF-16 that says so': encoded(utf16be('this is top secret'), 'utf-16be'),
    'in UTF-16 that calls itself US-ASCII': encoded(utf16('this is top secret'), 'us-ascii'),
    'in UTF-16 that calls itself UTF-8': encoded(utf16be('this is top secret'), 'utf-8'),
    'in ASCII that calls itself UTF-16': encoded(Buffer.from('this is top secret'), 'utf-16le'),
    'in UTF-7': entity({ 'Content-Type': 'text/plain; charset=utf-7' }, 'it is +AHQAbwBw- secret'),
    'in a charset that nobody knows': encoded(Buffer.from('top secret'), 'x-klingon'),
    'with letters of full width': encoded(Buffer.from('ｔｏｐ　ｓｅｃｒｅｔ'), 'utf-8'),
    'with invisible characters': encoded(Buffer.from('t\u200bo\u00adp se\u2060cr\ufeffet'), 'utf-8'),
    'in a part of a multipart': mixed([entity({}, 'nothing'), entity({}, 'top secret')]),
    'in what stands before the first part': entity(
      { 'Content-Type': 'multipart/mixed; boundary=b' },
      'top secret\r\n--b\r\n\r\nx\r\n--b--\r\n',
    ),
    'in what stands behind the last part': entity(
      { 'Content-Type': 'multipart/mixed; boundary=b' },
      '--b\r\n\r\nx\r\n--b--\r\ntop secret\r\n',
    ),
    'in a multipart without a boundary': entity({ 'Content-Type': 'multipart/mixed' }, 'top secret'),
    'in a multipart whose boundary is nowhere': entity(
      { 'Content-Type': 'multipart/mixed; boundary=b' },
      '--c\r\n\r\ntop secret\r\n--c--\r\n',
    ),
    'in a multipart that does not end': entity(
      { 'Content-Type': 'multipart/mixed; boundary=b' },
      '--b\r\n\r\ntop secret\r\n',
    ),
    'in a multipart in a multipart': mixed(
      [
        mixed([entity({}, 'x'), entity({}, 'top secret')], {
          'Content-Type': 'multipart/related; boundary="=_b="',
        }),
      ].map((part) =>
        Buffer.from(
          part.toString('latin1').replaceAll('--=_b', '--=_b=').replaceAll('--=_b=--', '--=_b=--'),
          'latin1',
        ),
      ),
    ),
    'behind a boundary in pieces (RFC 2231)': entity(
      { 'Content-Type': 'multipart/mixed; boundary*0="ab"; boundary*1=cd' },
      '--abcd\r\n\r\ntop secret\r\n--abcd--\r\n',
    ),
    'in a message that is attached': mixed([
      entity({ 'Content-Type': 'message/rfc822' }, 'Subject: inner\r\n\r\ntop secret'),
    ]),
    'in a digest': mixed([Buffer.from('\r\nSubject: inner\r\n\r\ntop secret')], {
      'Content-Type': 'multipart/digest; boundary="=_b"',
    }),
    'in a text that is sent as octets': mixed([
      entity({ 'Content-Type': 'application/octet-stream; name=a.bin' }, 'top secret'),
    ]),
    'in the subject as encoded-words': entity({ Subject: '=?utf-8?B?dG9w?= =?us-ascii*en?q?_secret?=' }, ''),
    'in the name of an attachment': mixed([
      entity(
        { 'Content-Disposition': "attachment; filename*0*=utf-8'en'top; filename*1*=%20sec; filename*2=ret" },
        '',
      ),
    ]),
    'in HTML with markup in its words': html('<p>to<b>p</b> se<!-- x -->cr<i></i>et</p>'),
    'in HTML with character references': html('<p>&#116;op&nbsp;&#x73;e&shy;cret</p>'),
    'in HTML that hides letters in between': html(
      'top se<span style="display:none">zz</span>cr<i hidden>q</i>et',
    ),
    'in HTML that hides it': html('<div style="font-size:0px">top secret</div>'),
    'in a comment in HTML': html('<p>x</p><!-- top secret -->'),
    'in an attribute in HTML': html('<img alt="top secret" src=x>'),
    'in HTML that breaks off in a tag': html('<p>x</p><a title="top secret'),
    'in a table in HTML': html('<table><tr><td>top</td><td>secret</td></tr></table>'),
  };

  test.each(Object.entries(hidden))('%s', (_, message) => {
    expect(finds(message)).toBe(true);
  });

  test('in Chinese, in each of its encodings, within a sentence', () => {
    const sentence = '这份绝密文件不得外传';
    expect(finds(encoded(Buffer.from(sentence), 'utf-8'), '绝密')).toBe(true);
    expect(finds(encoded(utf16(sentence), 'utf-16le'), '绝密')).toBe(true);
    expect(finds(encoded(GB, 'GB18030', 'text/html'), '绝密')).toBe(true);
    expect(finds(encoded(GB, '"gb2312"', 'text/html'), '绝密')).toBe(true);
    const meta = Buffer.concat([Buffer.from('<meta charset="gbk">'), GB]);
    expect(finds(entity({ 'Content-Type': 'text/html' }, meta), '绝密')).toBe(true);
    const jis = Buffer.from('\x1b$B5!L)\x1b(B', 'latin1');
    expect(finds(encoded(jis, 'iso-2022-jp'), '機密')).toBe(true);
  });

  test('in a character that two encoded-words share', () => {
    const octets = Buffer.from('绝密');
    const words = [octets.subarray(0, 4), octets.subarray(4)].map(
      (part) => `=?utf-8?b?${part.toString('base64')}?=`,
    );
    expect(finds(entity({ Subject: words.join('\r\n ') }, ''), '绝密')).toBe(true);
  });
});

describe('a phrase is not found', () => {
  const harmless: Readonly<Record<string, Buffer>> = {
    'within longer words': entity({}, 'stop secretary'),
    'across two parts': mixed([entity({}, 'top'), entity({}, 'secret')]),
    'in fields that are not looked at': entity({ Comments: 'top secret' }, ''),
    'in octets that are no text': mixed([entity({ 'Content-Type': 'image/png' }, '\x89PNG\0\0top secret')]),
  };

  test.each(Object.entries(harmless))('%s', (_, message) => {
    expect(finds(message)).toBe(false);
  });
});

test('a rule looks where it is told to', () => {
  const message = mixed(
    [
      entity(
        { 'Content-Disposition': 'attachment; filename="gamma.txt"', 'Content-Type': 'text/plain' },
        'beta',
      ),
    ],
    { Subject: 'alpha', Comments: '=?utf-8?q?delta?=' },
  );
  const places: readonly TextPlace[] = ['subject', 'body', 'attachment-names', 'headers'];
  for (const [index, word] of ['alpha', 'beta', 'gamma', 'delta'].entries()) {
    for (const [at, place] of places.entries()) {
      expect(examine(message, [word], [place]).hits.length, `${word} in ${place}`).toBe(at === index ? 1 : 0);
    }
  }
});

test('what could not be read as it was meant is told', () => {
  expect(told(entity({ 'Content-Type': 'multipart/mixed' }, 'a'))).toEqual([
    'a multipart without a boundary',
  ]);
  expect(told(entity({ 'Content-Type': 'multipart/mixed; boundary=b' }, 'a'))).toEqual([
    'a multipart whose boundary is nowhere',
  ]);
  expect(told(entity({ 'Content-Type': 'multipart/mixed; boundary=b' }, '--b\r\n\r\na'))).toEqual([
    'a multipart that does not end',
  ]);
  expect(told(encoded(Buffer.from([0xe9]), 'x-klingon'))).toEqual(['a charset that nobody knows']);
  expect(told(entity({ 'Content-Transfer-Encoding': 'x-rot13' }, 'a'))).toEqual([
    'a transfer encoding that nobody knows',
  ]);
  expect(told(mixed([entity({}, 'fine')]))).toEqual([]);
});
