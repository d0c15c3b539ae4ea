import { generateKeyPairSync, type KeyObject } from 'node:crypto';

import fc from 'fast-check';
import { dkimVerify } from 'mailauth/lib/dkim/verify.js';
import { describe, expect, test } from 'vitest';

import { HeaderList, parseHeaderSection, type HeaderField } from '../../src/mail/header.ts';
import { canonicalField, OCCURRENCES_LIMIT, signedNames } from '../../src/mail/dkim-header.ts';
import { DkimSigner, type SignatureForm } from '../../src/milter/dkim-signer.ts';
import type { SigningKey } from '../../src/ports/signing-keys.ts';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ed25519 = generateKeyPairSync('ed25519');

const RSA: SigningKey = {
  domain: 'example.com',
  selector: 'r1',
  subdomains: false,
  algorithm: 'rsa-sha256',
  key: rsa.privateKey,
};
const ED25519: SigningKey = { ...RSA, selector: 'e1', algorithm: 'ed25519-sha256', key: ed25519.privateKey };

const SIGNING: SignatureForm = {
  headerCanonicalization: 'relaxed',
  bodyCanonicalization: 'relaxed',
  oversign: ['From', 'To', 'Cc', 'Subject', 'Date', 'Reply-To', 'Message-ID', 'MIME-Version', 'Content-Type'],
  expire: null,
  lineLimit: 0,
};
const BOTH = [RSA, ED25519];

const HEADERS = parseHeaderSection(
  'Received: from a by b; now\r\nFrom: Alice <alice@example.com>\r\nTo: bob@example.net\r\nSubject:no space\r\n' +
    'Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\nX-Other: 1\r\n',
);
const BODY = 'Hello  Bob,\t\r\n\r\nbye\r\n\r\n';
const NOW = 1_795_000_000;

function der(key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' });
}

const KEYS: Readonly<Record<string, string>> = {
  'r1._domainkey.example.com': `v=DKIM1; p=${der(rsa.publicKey).toString('base64')}`,
  'e1._domainkey.example.com': `v=DKIM1; k=ed25519; p=${der(ed25519.publicKey).subarray(-32).toString('base64')}`,
};

async function sign(
  body: string,
  headers = HEADERS,
  signing: Partial<SignatureForm> = {},
  cuts: readonly number[] = [],
): Promise<readonly HeaderField[]> {
  const signer = new DkimSigner({ ...SIGNING, ...signing });
  const bytes = Buffer.from(body, 'latin1');
  let begin = 0;
  for (const end of [...cuts.map((at) => at % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
    signer.body(bytes.subarray(begin, end));
    begin = end;
  }
  return signer.sign(BOTH, headers, NOW);
}

/** What mailauth's verifier says, signature by signature. It shares no code with the signer. */
async function verdicts(
  signatures: readonly HeaderField[],
  headers: HeaderList,
  body: string,
): Promise<readonly string[]> {
  const section = new HeaderList([...signatures, ...headers]).serialize();
  const { results } = await dkimVerify(Buffer.from(`${section}\r\n${body}`, 'latin1'), {
    strict: true,
    curTime: new Date(NOW * 1000 + 1000),
    resolver: (name) => Promise.resolve([[KEYS[name] ?? '']]),
  });
  return results.map(
    ({ status }) => `${status.result}${status.comment === undefined ? '' : `: ${status.comment}`}`,
  );
}

function manyTo(count: number): HeaderList {
  const to = Array.from({ length: count }, () => ({ name: 'To', value: ' x' }));
  return new HeaderList([{ name: 'From', value: ' x' }, ...to]);
}

function listedTo(count: number): number {
  return signedNames(manyTo(count), []).filter((name) => name === 'To').length;
}

function tag(field: HeaderField | undefined, name: string): string | undefined {
  const tags = (field?.value ?? '').replaceAll(/[\r\n\t ]/g, '').split(';');
  return tags.find((text) => text.startsWith(`${name}=`))?.slice(name.length + 1);
}

describe('what is signed', () => {
  test('one signature for each key, both valid', async () => {
    const signatures = await sign(BODY);
    expect(signatures.map((field) => [field.name, tag(field, 'a'), tag(field, 's')])).toEqual([
      ['DKIM-Signature', 'rsa-sha256', 'r1'],
      ['DKIM-Signature', 'ed25519-sha256', 'e1'],
    ]);
    expect(tag(signatures[0], 'bh')).toBe(tag(signatures[1], 'bh'));
    expect(await verdicts(signatures, HEADERS, BODY)).toEqual(['pass', 'pass']);
  });

  test('t= is the time, x= comes when signatures expire, l= never', async () => {
    const [forever] = await sign(BODY);
    const [fortnight] = await sign(BODY, HEADERS, { expire: 1_209_600 });
    expect([tag(forever, 't'), tag(forever, 'x'), tag(forever, 'l')]).toEqual([
      String(NOW),
      undefined,
      undefined,
    ]);
    expect([tag(fortnight, 't'), tag(fortnight, 'x')]).toEqual([String(NOW), String(NOW + 1_209_600)]);
  });

  test('h= lists what is there, oversigned names once more, and neither Received nor X-Other', async () => {
    const [field] = await sign(BODY);
    expect(tag(field, 'h')?.split(':')).toEqual([
      'From',
      'From',
      'To',
      'To',
      'Cc',
      'Subject',
      'Subject',
      'Date',
      'Date',
      'Reply-To',
      'Message-ID',
      'Message-ID',
      'MIME-Version',
      'Content-Type',
    ]);
  });

  test('what relays and receivers write is not signed, even if the configuration asks for it', () => {
    const names = [
      'Received',
      'Return-Path',
      'DKIM-Signature',
      'Authentication-Results',
      'X-Spam-Flag',
      'X-Mine',
    ];
    const headers = new HeaderList([...names, 'From'].map((name) => ({ name, value: ' x' })));
    expect(signedNames(headers, names)).toEqual(['X-Mine', 'X-Mine', 'From']);
  });

  test('From is in h= of a message without From', () => {
    expect(signedNames(new HeaderList([{ name: 'to', value: ' x' }]), [])).toEqual(['From', 'To']);
  });

  test('a name that occurs very often is listed up to a limit', () => {
    expect(listedTo(OCCURRENCES_LIMIT)).toBe(OCCURRENCES_LIMIT);
    expect(listedTo(OCCURRENCES_LIMIT + 1)).toBe(OCCURRENCES_LIMIT);
  });

  test('a message with more occurrences than are listed verifies', async () => {
    const to = Array.from({ length: 100 }, (_, index) => ({
      name: 'To',
      value: ` user${index}@example.net`,
    }));
    const headers = new HeaderList([...HEADERS, ...to]);
    expect(await verdicts(await sign(BODY, headers), headers, BODY)).toEqual(['pass', 'pass']);
  });

  test('lines stay below 78 characters', async () => {
    for (const expire of [null, 1_209_600]) {
      for (const field of await sign(BODY, HEADERS, { expire })) {
        const lines = `${field.name}:${field.value}`.split('\r\n');
        expect(Math.max(...lines.map((line) => line.replaceAll('\t', ' '.repeat(8)).length))).toBeLessThan(
          78,
        );
        expect(lines.slice(1).every((line) => /^\t\S/.test(line))).toBe(true);
      }
    }
  });

  test('no more body after the signature, but another header section', async () => {
    const signer = new DkimSigner(SIGNING);
    signer.body(Buffer.from(BODY));
    await signer.sign(BOTH, HEADERS, NOW);
    expect(() => signer.body(Buffer.from('x'))).toThrow('the body has ended');
    const tagged = new HeaderList([...HEADERS, { name: 'Sender', value: ' list@example.com' }]);
    expect(await verdicts(await signer.sign(BOTH, tagged, NOW), tagged, BODY)).toEqual(['pass', 'pass']);
  });
});

describe('what breaks a signature', () => {
  test.each([
    'From',
    'To',
    'Cc',
    'Subject',
    'Date',
    'Reply-To',
    'Message-ID',
    'MIME-Version',
    'Content-Type',
  ])('a second or first %s that is added later, above or below', async (name) => {
    const signatures = await sign(BODY);
    const added = { name, value: ' something else' };
    for (const later of [new HeaderList([added, ...HEADERS]), new HeaderList([...HEADERS, added])]) {
      expect(await verdicts(signatures, later, BODY)).toEqual(['fail: bad signature', 'fail: bad signature']);
    }
  });

  test('a changed body', async () => {
    const results = await verdicts(await sign(BODY), HEADERS, `${BODY}more\r\n`);
    expect(results).toEqual(['fail: body hash did not verify', 'fail: body hash did not verify']);
  });

  test('a trace field above does not', async () => {
    const later = new HeaderList([{ name: 'Received', value: ' from b by c; then' }, ...HEADERS]);
    expect(await verdicts(await sign(BODY), later, BODY)).toEqual(['pass', 'pass']);
  });
});

describe('canonical header fields', () => {
  // RFC 6376 §3.4.5.
  const fields = parseHeaderSection('A: X\r\nB : Y\t\r\n\tZ  \r\n').toArray();

  test('RFC 6376 §3.4.5: the example', () => {
    expect(fields.map((field) => canonicalField(field, 'relaxed'))).toEqual(['a:X', 'b:Y Z']);
    expect(fields.map((field) => canonicalField(field, 'simple'))).toEqual(['A: X', 'B : Y\t\r\n\tZ  ']);
  });

  test.each([
    ['nothing', '', 'a:'],
    ['white space alone', ' \t', 'a:'],
    ['an empty fold', ' x\r\n ', 'a:x'],
    ['bytes that are white space elsewhere', ' \xa0x\xa0', 'a:\xa0x\xa0'],
    ['a LF alone, which can only leave as a line end', ' x\n\ty', 'a:x y'],
  ])('relaxed: %s', (_, value, canonical) => {
    expect(canonicalField({ name: 'A', value }, 'relaxed')).toBe(canonical);
  });
});

describe('against the verifier of mailauth', () => {
  const octets = fc.uint8Array({ maxLength: 30 }).map((bytes) => Buffer.from(bytes).toString('latin1'));
  // A LF alone can't be sent by SMTP, and the verifier takes it for a line end.
  const content = octets.map((text) => text.replaceAll('\n', 'n'));
  const line = fc
    .array(fc.oneof(content, fc.constantFrom(' ', '\t', '  ', '\r', 'word', '')), { maxLength: 8 })
    .map((parts) => `${parts.join('')}\r\n`);
  const body = fc.array(line, { maxLength: 12 }).map((lines) => lines.join(''));

  const name = fc.constantFrom(
    'From',
    'To',
    'Subject',
    'subject',
    'Cc',
    'X-Any',
    'List-Id',
    'Received',
    'References',
  );
  const word = octets.map((text) => text.replaceAll(/[\r\n]/g, 'r'));
  // No continuation line of white space alone: a parser takes it for the end of the header section, or for nothing.
  const value = fc
    .array(
      fc.tuple(
        fc.constantFrom(' ', '\t', '', '\r\n ', '\r\n\t  ', '   '),
        word.map((text) => `${text}.`),
      ),
      {
        maxLength: 5,
      },
    )
    .map((parts) => parts.flat().join(''));
  const section = fc
    .array(fc.record({ name, value }), { maxLength: 8 })
    .map((fields) => new HeaderList([...fields, { name: 'From', value: ' a@example.com' }]));

  for (const headerCanonicalization of ['relaxed', 'simple'] as const) {
    for (const bodyCanonicalization of ['relaxed', 'simple'] as const) {
      test(`${headerCanonicalization}/${bodyCanonicalization}: whatever the message, both signatures are valid`, async () => {
        await fc.assert(
          fc.asyncProperty(
            section,
            body,
            fc.array(fc.nat(), { maxLength: 6 }),
            async (headers, text, cuts) => {
              const signatures = await sign(
                text,
                headers,
                { headerCanonicalization, bodyCanonicalization },
                cuts,
              );
              expect(await verdicts(signatures, headers, text)).toEqual(['pass', 'pass']);
            },
          ),
          { numRuns: 120 },
        );
      });
    }
  }

  test.each([
    ['an empty body', ''],
    ['a body of empty lines', '\r\n\r\n\r\n'],
    ['8-bit octets', 'caf\xe9 \xa0\xff\r\n'],
    ['a CR alone', 'a\rb\r\r\n'],
    ['a body of 200 KiB', 'Lorem  ipsum\tdolor \r\n'.repeat(10_000)],
    ['one line of 200 KiB', `${'x'.repeat(200 * 1024)}\r\n`],
  ])('%s', async (_, text) => {
    for (const bodyCanonicalization of ['relaxed', 'simple'] as const) {
      const signatures = await sign(text, HEADERS, { bodyCanonicalization }, [1, 70_000, 70_001]);
      expect(await verdicts(signatures, HEADERS, text)).toEqual(['pass', 'pass']);
    }
  });
});
