import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';

import fc from 'fast-check';
import { dkimSign } from 'mailauth/lib/dkim/sign.js';
import { describe, expect, test } from 'vitest';

import { BODY_HASHES_LIMIT } from '../../../src/adapters/body-hashes.ts';
import { SIGNATURES_LIMIT } from '../../../src/adapters/dkim-verifier.ts';
import {
  HEADER_FIELDS_LIMIT,
  HEADER_OCTETS_LIMIT,
  SIGNATURE_LENGTH_LIMIT,
} from '../../../src/adapters/signature-check.ts';
import { createMailAuth, DMARC_QUERIES_LIMIT, FROM_LIMIT } from '../../../src/adapters/mail-auth.ts';
import type { SigningKey } from '../../../src/ports/signing-keys.ts';
import { NULL_PATH } from '../../../src/mail/address.ts';
import { HeaderList, parseHeaderSection, type HeaderField } from '../../../src/mail/header.ts';
import type { Message } from '../../../src/mail/message.ts';
import { DkimSigner } from '../../../src/milter/dkim-signer.ts';
import type { DkimResult, MailAuth } from '../../../src/ports/mail-auth.ts';
import { message } from '../../support/mail.ts';
import { arcSealed } from '../../support/mailauth-oracle.ts';
import { Zone, type ZoneEntry } from '../../support/zone.ts';

const NOW = 1_795_000_000;
const BUDGET = 5000;
const NEVER = new AbortController().signal;

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const weak = generateKeyPairSync('rsa', { modulusLength: 768 });
const ed25519 = generateKeyPairSync('ed25519');

const RSA: SigningKey = {
  domain: 'example.com',
  selector: 'r',
  subdomains: false,
  algorithm: 'rsa-sha256',
  key: rsa.privateKey,
};
const ED25519: SigningKey = { ...RSA, selector: 'e', algorithm: 'ed25519-sha256', key: ed25519.privateKey };

function base64(key: KeyObject): string {
  return key.export({ type: 'spki', format: 'der' }).toString('base64');
}

const RSA_RECORD = `v=DKIM1; p=${base64(rsa.publicKey)}`;
const ED25519_RECORD = `v=DKIM1; k=ed25519; p=${ed25519.publicKey.export({ type: 'spki', format: 'der' }).subarray(-32).toString('base64')}`;

const KEYS: Readonly<Record<string, ZoneEntry>> = {
  'r._domainkey.example.com': { TXT: [RSA_RECORD] },
  'e._domainkey.example.com': { TXT: [ED25519_RECORD] },
};

const HEADERS = 'From: Alice <alice@example.com>\r\nTo: bob@example.net\r\nSubject: hello\r\n';
const BODY = 'Hello  Bob,\t\r\n\r\nbye\r\n';

function authOf(zone: Zone, now = NOW): MailAuth {
  return createMailAuth(zone, {
    hostname: 'mx.postern.example',
    clock: { now: () => now * 1000, elapsed: () => 0 },
  });
}

interface Signed {
  readonly keys?: readonly SigningKey[];
  readonly headers?: string;
  readonly body?: string;
  readonly expire?: number;
  readonly canonicalization?: readonly ['relaxed' | 'simple', 'relaxed' | 'simple'];
}

async function signed(values: Signed = {}): Promise<Message> {
  const { keys = [RSA], headers = HEADERS, body = BODY, expire = null } = values;
  const [headerCanonicalization, bodyCanonicalization] = values.canonicalization ?? ['relaxed', 'relaxed'];
  const signer = new DkimSigner({
    headerCanonicalization,
    bodyCanonicalization,
    oversign: ['From'],
    expire,
    lineLimit: 0,
  });
  signer.body(Buffer.from(body, 'latin1'));
  const fields = parseHeaderSection(headers);
  return withFields(message({ headers, body }), await signer.sign(keys, fields, NOW));
}

function withFields(to: Message, fields: readonly HeaderField[]): Message {
  return { ...to, headers: new HeaderList([...fields, ...to.headers]) };
}

/** As the check does: the body piece by piece. */
async function verifyDkim(
  auth: MailAuth,
  { headers, body }: Message,
  signal: AbortSignal,
  budget = BUDGET,
): Promise<readonly DkimResult[]> {
  const verification = auth.dkim(headers, signal);
  for await (const chunk of body.chunks()) await verification.write(chunk);
  return verification.end(budget);
}

interface Verified {
  readonly zone?: Readonly<Record<string, ZoneEntry>>;
  readonly now?: number;
  readonly budget?: number;
}

async function verified(
  mail: Message,
  { zone = KEYS, now, budget }: Verified = {},
): Promise<readonly DkimResult[]> {
  return verifyDkim(authOf(new Zone(zone), now), mail, NEVER, budget);
}

async function words(mail: Message, values: Verified = {}): Promise<readonly string[]> {
  return (await verified(mail, values)).map(({ result, auth }) => `${result}: ${auth.comment ?? ''}`);
}

/** A signature that is whole but for its value, with tags changed, added, or (null) left out. */
function signatureField(tags: Readonly<Record<string, string | null>>, body = BODY): HeaderField {
  const hash = tags['a']?.endsWith('sha1') === true ? 'sha1' : 'sha256';
  const canonical = body.replaceAll(/[ \t]+(?=\r\n)/g, '').replaceAll(/[ \t]+/g, ' ');
  const all: Record<string, string | null> = {
    v: '1',
    a: 'rsa-sha256',
    c: 'relaxed/relaxed',
    d: 'example.com',
    s: 'r',
    h: 'From:To',
    bh: createHash(hash).update(canonical).digest('base64'),
    b: 'AAAA',
    ...tags,
  };
  const list = Object.entries(all).flatMap(([name, value]) => (value === null ? [] : [`${name}=${value}`]));
  return { name: 'DKIM-Signature', value: ` ${list.join('; ')}` };
}

/** One that is so long. */
function signatureOf(length: number): HeaderField {
  const short = signatureField({ n: '' });
  return signatureField({ n: 'x'.repeat(length - `${short.name}:${short.value}`.length) });
}

function emptyFields(count: number): HeaderField[] {
  return Array.from({ length: count }, () => ({ name: 'X', value: '' }));
}

/** A message whose From is so long. */
function fromOf(length: number): Message {
  const address = ' <a@example.com>';
  return message({ headers: `From:${'x'.repeat(length - address.length)}${address}\r\n` });
}

/** A domain whose tree walk shares no more than `example.com` with that of another. */
function deepName(index: number): string {
  return `x.y.z.${['a', 'b', 'c', 'd', 'e'].map((label) => `${label}${index}`).join('.')}.example.com`;
}

function keyOf(index: number): string {
  return `k${index}`;
}

const PLAIN = message({ headers: HEADERS, body: BODY });

describe('DKIM: signatures that are valid', () => {
  test.each(['relaxed', 'simple'] as const)(
    'header %s, body relaxed and simple, RSA and Ed25519',
    async (header) => {
      for (const body of ['relaxed', 'simple'] as const) {
        const mail = await signed({ keys: [RSA, ED25519], canonicalization: [header, body] });
        expect(await words(mail)).toEqual(['pass: ', 'pass: ']);
      }
    },
  );

  test('what is reported of one', async () => {
    const mail = await signed();
    const b = /b=([^;]{8})[^;]*$/.exec(mail.headers.first('DKIM-Signature')?.value ?? '')?.[1];
    expect(await verified(mail)).toEqual([
      {
        result: 'pass',
        domain: 'example.com',
        selector: 'r',
        detail: 'd=example.com s=r',
        auth: {
          method: 'dkim',
          result: 'pass',
          properties: [
            ['header.d', 'example.com'],
            ['header.i', '@example.com'],
            ['header.s', 'r'],
            ['header.a', 'rsa-sha256'],
            ['header.b', b],
          ],
        },
      },
    ]);
  });

  test('RFC 8463 §A.3: the example, both signatures', async () => {
    const mail = message({
      headers: [
        'DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;',
        ' d=football.example.com; i=@football.example.com;',
        ' q=dns/txt; s=brisbane; t=1528637909; h=from : to :',
        ' subject : date : message-id : from : subject : date;',
        ' bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;',
        ' b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus',
        ' Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==',
        'DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;',
        ' d=football.example.com; i=@football.example.com;',
        ' q=dns/txt; s=test; t=1528637909; h=from : to : subject :',
        ' date : message-id : from : subject : date;',
        ' bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;',
        ' b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3',
        ' DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz',
        ' dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=',
        'From: Joe SixPack <joe@football.example.com>',
        'To: Suzie Q <suzie@shopping.example.net>',
        'Subject: Is dinner ready?',
        'Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)',
        'Message-ID: <20030712040037.46341.5F8J@football.example.com>',
        '',
      ].join('\r\n'),
      body: 'Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n',
    });
    const zone = {
      'brisbane._domainkey.football.example.com': {
        TXT: ['v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo='],
      },
      'test._domainkey.football.example.com': {
        TXT: [
          'v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB',
        ],
      },
    };
    expect(await words(mail, { zone })).toEqual(['pass: ', 'pass: ']);
  });

  test('the key is found among other TXT records', async () => {
    const zone = { 'r._domainkey.example.com': { TXT: ['v=spf1 -all', RSA_RECORD] } };
    expect(await words(await signed(), { zone })).toEqual(['pass: ']);
  });

  test('a body in pieces, from a file', async () => {
    const body = 'line of text \r\n'.repeat(30_000);
    const mail = await signed({ body });
    const bytes = Buffer.from(body);
    const chunks = async function* (): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.length; at += 10_007) yield bytes.subarray(at, at + 10_007);
    };
    const streamed: Message = { ...mail, body: { size: bytes.length, chunks } };
    expect(await words(streamed)).toEqual(['pass: ']);
  });

  test('the loop turns while a large body is hashed', async () => {
    const mail = await signed({ body: 'x'.repeat(1024 * 1024) });
    let turns = 0;
    let done = false;
    const turn = (): void => {
      turns++;
      if (!done) setImmediate(turn);
    };
    setImmediate(turn);
    expect(await words(mail)).toEqual(['pass: ']);
    done = true;
    expect(turns).toBeGreaterThan(8);
  });
});

describe('DKIM: signatures that are not', () => {
  test('an unsigned message has no result, and needs no body for it', async () => {
    const unsigned = authOf(new Zone(KEYS)).dkim(PLAIN.headers, NEVER);
    expect(unsigned.needsBody).toBe(false);
    expect(await unsigned.end(BUDGET)).toEqual([]);
    expect(authOf(new Zone(KEYS)).dkim((await signed()).headers, NEVER).needsBody).toBe(true);
  });

  test('a changed body, a changed header field', async () => {
    const mail = await signed();
    expect(await words({ ...mail, body: message({ body: 'other\r\n' }).body })).toEqual([
      'fail: body hash did not verify',
    ]);
    const changed = mail.headers
      .toArray()
      .map((field) => (field.name === 'To' ? { ...field, value: ' eve' } : field));
    expect(await words({ ...mail, headers: new HeaderList(changed) })).toEqual(['fail: bad signature']);
  });

  test.each<readonly [string, string, Readonly<Record<string, string | null>>]>([
    ['no v=', 'neutral: signature missing required tag', { v: null }],
    ['no d=', 'neutral: signature missing required tag', { d: null }],
    ['no bh=', 'neutral: signature missing required tag', { bh: null }],
    ['another version', 'neutral: incompatible version', { v: '2' }],
    ['an unknown algorithm', 'neutral: unknown algorithm', { a: 'rsa-md5' }],
    ['an unknown canonicalization', 'neutral: unknown canonicalization', { c: 'nowsp' }],
    ['another way to get keys', 'neutral: unsupported query method', { q: 'http' }],
    ['From is not signed', 'neutral: From field not signed', { h: 'To:Subject' }],
    ['i= outside of d=', 'neutral: domain mismatch', { i: '@example.net' }],
    ['d= is no domain', 'neutral: signature syntax error', { d: 'exa mple.com' }],
    ['a tag twice', 'neutral: signature syntax error', { x: '1; x=2' }],
    ['x= before t=', 'neutral: invalid expiration', { t: String(NOW), x: String(NOW - 1) }],
    ['rsa-sha1', 'policy: weak algorithm', { a: 'rsa-sha1' }],
    ['a wrong value', 'fail: bad signature', {}],
    ['a key of another kind', 'permerror: inappropriate key algorithm', { a: 'ed25519-sha256' }],
    ['no such key', 'permerror: no key', { s: 'none' }],
    ['a key name too long for the DNS', 'permerror: no key', { s: `${'a.'.repeat(120)}a` }],
  ])('%s: %s', async (_, expected, tags) => {
    expect(await words(withFields(PLAIN, [signatureField(tags)]))).toEqual([expected]);
  });

  test.each<readonly [string, string, ZoneEntry]>([
    ['revoked', 'permerror: invalid public key', { TXT: ['v=DKIM1; p='] }],
    [
      'of another version',
      'permerror: unknown key version',
      { TXT: [`v=DKIM2; p=${base64(rsa.publicKey)}`] },
    ],
    ['that is no base64', 'permerror: invalid public key', { TXT: ['v=DKIM1; p=***'] }],
    [
      'for another service',
      'permerror: key not for email',
      { TXT: [`v=DKIM1; s=tlsrpt; p=${base64(rsa.publicKey)}`] },
    ],
    [
      'for another hash',
      'permerror: inappropriate hash algorithm',
      { TXT: [`v=DKIM1; h=sha1; p=${base64(rsa.publicKey)}`] },
    ],
    ['of 768 bits', 'policy: weak-key', { TXT: [`v=DKIM1; p=${base64(weak.publicKey)}`] }],
    ['of no TXT record', 'permerror: no key', { A: ['192.0.2.1'] }],
    [
      'that is a test',
      'neutral: bad signature, but the key is a test (t=y)',
      { TXT: [`v=DKIM1; t=y; p=${base64(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey)}`] },
    ],
    ['the DNS fails on', 'temperror: DNS failure: servfail', 'servfail'],
    ['the DNS times out on', 'temperror: DNS failure: timeout', 'timeout'],
  ])('a key %s: %s', async (_, expected, entry) => {
    expect(await words(await signed(), { zone: { 'r._domainkey.example.com': entry } })).toEqual([expected]);
  });

  test('a valid signature of a key that is a test is valid', async () => {
    const zone = { 'r._domainkey.example.com': { TXT: [`v=DKIM1; t=y; p=${base64(rsa.publicKey)}`] } };
    expect(await words(await signed(), { zone })).toEqual(['pass: ']);
  });

  test('expired, with some minutes for clocks that differ', async () => {
    const mail = await signed({ expire: 3600 });
    expect(await words(mail, { now: NOW + 3600 + 300 })).toEqual(['pass: ']);
    expect(await words(mail, { now: NOW + 3600 + 301 })).toEqual(['neutral: expired']);
  });

  test('text after the signed part (l=) is not signed', async () => {
    const privateKey = rsa.privateKey.export({ type: 'pkcs8', format: 'pem' });
    const { signatures } = await dkimSign(Buffer.from(`${HEADERS}\r\n${BODY}`), {
      canonicalization: 'relaxed/relaxed',
      signingDomain: 'example.com',
      selector: 'r',
      privateKey,
      signatureData: [{ signingDomain: 'example.com', selector: 'r', privateKey, maxBodyLength: 10_000 }],
    });
    const mail = message({ headers: `${signatures}${HEADERS}`, body: BODY });
    expect(mail.headers.first('DKIM-Signature')?.value).toMatch(/ l=\d+;/);
    expect(await words(mail)).toEqual(['pass: ']);
    const longer = message({ headers: `${signatures}${HEADERS}`, body: `${BODY}<h1>more</h1>\r\n` });
    expect(await words(longer)).toEqual(['policy: 15 octets of the body are not signed (l=)']);
  });
});

describe('DKIM: limits', () => {
  test('so many signatures, the topmost; no more DNS questions than that', async () => {
    const many = Array.from({ length: SIGNATURES_LIMIT + 1 }, (_, index) =>
      signatureField({ s: keyOf(index) }),
    );
    const zone = new Zone({});
    const results = await verifyDkim(authOf(zone), withFields(PLAIN, many), NEVER);
    const expected = many.slice(0, SIGNATURES_LIMIT).map((_, index) => keyOf(index));
    expect(results.map(({ selector }) => selector)).toEqual(expected);
    expect(zone.asked).toEqual(expected.map((selector) => `TXT ${selector}._domainkey.example.com`));
  });

  test('a key that several signatures name is asked for once', async () => {
    const zone = new Zone(KEYS);
    const mail = await signed();
    const [field] = mail.headers;
    await verifyDkim(authOf(zone), withFields(mail, field === undefined ? [] : [field, field]), NEVER);
    expect(zone.asked).toEqual(['TXT r._domainkey.example.com']);
  });

  test('so many different hashes of the body', async () => {
    const many = Array.from({ length: BODY_HASHES_LIMIT + 1 }, (_, index) =>
      signatureField({ l: String(index) }),
    );
    const results = await words(withFields(PLAIN, many));
    expect(results.slice(0, -1).every((word) => word === 'fail: body hash did not verify')).toBe(true);
    expect(results.at(-1)).toBe(
      `neutral: needs one more than ${BODY_HASHES_LIMIT} different hashes of the body`,
    );
  });

  test('a signature field of so many octets', async () => {
    const [fits, over] = [SIGNATURE_LENGTH_LIMIT, SIGNATURE_LENGTH_LIMIT + 1].map(signatureOf);
    if (fits === undefined || over === undefined) throw new Error('no field');
    expect(await words(withFields(PLAIN, [fits]))).toEqual(['fail: bad signature']);
    expect(await words(withFields(PLAIN, [over]))).toEqual([
      `neutral: longer than ${SIGNATURE_LENGTH_LIMIT} octets`,
    ]);
  });

  test('a header section of so many fields', async () => {
    const mail = await signed();
    const room = HEADER_FIELDS_LIMIT - mail.headers.length;
    expect(await words(withFields(mail, emptyFields(room)))).toEqual(['pass: ']);
    expect(await words(withFields(mail, emptyFields(room + 1)))).toEqual([
      `permerror: the header section has more than ${HEADER_FIELDS_LIMIT} fields`,
    ]);
  });

  test('a header section of so many octets', async () => {
    const mail = await signed();
    const room = HEADER_OCTETS_LIMIT - mail.headers.serialize().length - 'X:\r\n'.length;
    expect(await words(withFields(mail, [{ name: 'X', value: 'x'.repeat(room) }]))).toEqual(['pass: ']);
    expect(await words(withFields(mail, [{ name: 'X', value: 'x'.repeat(room + 1) }]))).toEqual([
      `permerror: the header section has more than ${HEADER_OCTETS_LIMIT} octets`,
    ]);
  });

  test('a name server that never answers makes a temperror when the budget is used up, for all keys at once', async () => {
    const zone = Object.fromEntries(
      Array.from({ length: 8 }, (_, index) => [`${keyOf(index)}._domainkey.example.com`, 'never' as const]),
    );
    const fields = Array.from({ length: 8 }, (_, index) => signatureField({ s: keyOf(index) }));
    const begun = performance.now();
    const results = await words(withFields(PLAIN, fields), { zone, budget: 100 });
    expect(new Set(results)).toEqual(new Set(['temperror: DNS failure: timeout']));
    expect(performance.now() - begun).toBeLessThan(700);
  });

  test('the signal ends it: before, while a key is waited for, while the body is read', async () => {
    const reason = new Error('the message is gone');
    const mail = await signed();
    await expect(verifyDkim(authOf(new Zone(KEYS)), mail, AbortSignal.abort(reason))).rejects.toBe(reason);
    const waiting = new AbortController();
    const silent = authOf(new Zone({ 'r._domainkey.example.com': 'never' }));
    const asked = verifyDkim(silent, mail, waiting.signal);
    waiting.abort(reason);
    await expect(asked).rejects.toBe(reason);
    const reading = new AbortController();
    const chunks = function* (): Generator<Uint8Array> {
      yield Buffer.from('x');
      reading.abort(reason);
      yield Buffer.from('x');
    };
    await expect(
      verifyDkim(authOf(new Zone(KEYS)), { ...mail, body: { size: 2, chunks } }, reading.signal),
    ).rejects.toBe(reason);
  });

  test('whatever a signature says, there is a result', async () => {
    const piece = fc.oneof(
      fc.constantFrom(
        'v=1',
        'a=rsa-sha256',
        'd=example.com',
        's=r',
        'h=from',
        'bh=',
        'b=AAAA',
        'l=99999999999999999999',
        'c=',
        'x=',
        'i=@',
        't=s',
        'q=dns/txt',
        '=',
        'd=\xfc.example',
        'v=1\r\n ',
      ),
      fc.string({ unit: 'binary-ascii', maxLength: 12 }).map((text) => text.replaceAll(/[\r\n]/g, '')),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async (pieces) => {
        const field = { name: 'DKIM-Signature', value: ` ${pieces.join(';')}` };
        const results = await verified(withFields(PLAIN, [field]));
        expect(results.map(({ result }) => result)).not.toContain('pass');
        expect(results).toHaveLength(1);
      }),
      { numRuns: 400 },
    );
  });
});

describe('SPF', () => {
  test('the signal ends it', async () => {
    const abort = new AbortController();
    const query = { identity: 'helo', client: '192.0.2.1', helo: 'example.com', sender: NULL_PATH } as const;
    const asked = authOf(new Zone({ 'example.com': 'never' })).spf(query, abort.signal, BUDGET);
    abort.abort(new Error('the message is gone'));
    await expect(asked).rejects.toThrow('the message is gone');
  });

  test('an error of our own is not a result', async () => {
    const broken = { query: () => Promise.reject(new TypeError('a bug')) };
    const auth = createMailAuth(broken, {
      hostname: 'mx.example',
      clock: { now: () => 0, elapsed: () => 0 },
    });
    const query = { identity: 'helo', client: '192.0.2.1', helo: 'example.com', sender: NULL_PATH } as const;
    await expect(auth.spf(query, NEVER, BUDGET)).rejects.toThrow('a bug');
    await expect(verifyDkim(auth, await signed(), NEVER)).rejects.toThrow('a bug');
    const all = { headers: PLAIN.headers, spfDomains: [], dkimDomains: [] };
    await expect(auth.dmarc(all, NEVER, BUDGET)).rejects.toThrow('a bug');
  });
});

describe('DMARC: limits', () => {
  test('From of so many octets', async () => {
    const zone = { '_dmarc.example.com': { TXT: ['v=DMARC1; p=reject'] } };
    const ask = (mail: Message): Promise<{ readonly result: string; readonly detail: string }> =>
      authOf(new Zone(zone)).dmarc({ headers: mail.headers, spfDomains: [], dkimDomains: [] }, NEVER, BUDGET);
    expect((await ask(fromOf(FROM_LIMIT))).result).toBe('fail');
    expect(await ask(fromOf(FROM_LIMIT + 1))).toMatchObject({
      result: 'permerror',
      detail: `From is longer than ${FROM_LIMIT} octets`,
    });
  });

  test('no more DNS questions than that, whatever there is to align', async () => {
    const zone = new Zone({ '_dmarc.example.com': { TXT: ['v=DMARC1; p=reject'] } });
    const dkimDomains = Array.from({ length: 10 }, (_, index) => deepName(index));
    const query = { headers: PLAIN.headers, spfDomains: [], dkimDomains };
    expect((await authOf(zone).dmarc(query, NEVER, BUDGET)).result).toBe('pass');
    expect(zone.asked).toHaveLength(DMARC_QUERIES_LIMIT);
  });

  test('a name server that never answers makes a temperror; the signal ends it', async () => {
    const auth = authOf(new Zone({ '_dmarc.example.com': 'never' }));
    const query = { headers: PLAIN.headers, spfDomains: [], dkimDomains: [] };
    expect((await auth.dmarc(query, NEVER, 50)).result).toBe('temperror');
    const abort = new AbortController();
    const asked = auth.dmarc(query, abort.signal, BUDGET);
    abort.abort(new Error('the message is gone'));
    await expect(asked).rejects.toThrow('the message is gone');
  });
});

async function verifyBoth(auth: MailAuth, { headers, body }: Message): Promise<void> {
  const verifications = [auth.dkim(headers, NEVER), auth.arc(headers, NEVER)];
  for await (const chunk of body.chunks())
    for (const verification of verifications) await verification.write(chunk);
  for (const verification of verifications) await verification.end(BUDGET);
}

/** Milliseconds of CPU, of the second time: the first compiles. */
async function cost(mail: Message): Promise<number> {
  let spent = 0;
  for (let round = 0; round < 2; round++) {
    const auth = authOf(new Zone(KEYS));
    const before = process.cpuUsage();
    await verifyBoth(auth, mail);
    const { user, system } = process.cpuUsage(before);
    spent = (user + system) / 1000;
  }
  return spent;
}

describe('DKIM and ARC: what a message can cost', () => {
  const LIMIT_MS = 1000;

  test('thousands of signatures', async () => {
    const many = Array.from({ length: 10_000 }, (_, index) =>
      signatureField({ s: keyOf(index), l: String(index) }),
    );
    expect(await cost(withFields(PLAIN, many))).toBeLessThan(LIMIT_MS);
  });

  test('l= of all lengths over a large body: each octet is made canonical once, and hashed no more often than that', async () => {
    const body = 'line of  text \r\n'.repeat(65_536);
    const plain = await cost(message({ headers: HEADERS, body }));
    const many = Array.from({ length: 500 }, (_, index) => signatureField({ l: String(1_000_000 - index) }));
    const mail = withFields(message({ headers: HEADERS, body }), many);
    expect(await cost(mail)).toBeLessThan(plain + LIMIT_MS);
  });

  test('a header section at its limits, all of it signed by each of so many signatures', async () => {
    const names = Array.from({ length: 1000 }, () => 'X').join(':');
    const field = { name: 'X', value: ` ${'x '.repeat(250)}` };
    const fields = Array.from({ length: HEADER_FIELDS_LIMIT - 3 - SIGNATURES_LIMIT }, () => field);
    const signatures = Array.from({ length: SIGNATURES_LIMIT }, () => signatureField({ h: `From:${names}` }));
    expect(await cost(withFields(PLAIN, [...signatures, ...fields]))).toBeLessThan(LIMIT_MS);
  });

  test('a header section far beyond its limits', async () => {
    const fields = Array.from({ length: 10_000 }, () => ({ name: 'DKIM-Signature', value: ' '.repeat(400) }));
    expect(await cost(withFields(PLAIN, fields))).toBeLessThan(LIMIT_MS);
  });

  test.each([' ', ';', '=', 'a=b;', '\r\n ', '(', 'i=1;'])('fields full of %j', async (text) => {
    const value = text.repeat(400_000 / text.length);
    const fields = ['DKIM-Signature', 'ARC-Seal', 'ARC-Message-Signature', 'ARC-Authentication-Results'].map(
      (name) => ({ name, value }),
    );
    expect(await cost(withFields(PLAIN, fields))).toBeLessThan(LIMIT_MS);
  });

  test('two From fields: a signature of one says nothing of the other, and DMARC takes neither', async () => {
    const mail = withFields(await signed(), [{ name: 'From', value: ' eve@evil.example' }]);
    // RFC 6376 §5.4.2: the lowest is the one that was signed; oversigned (§8.15), one more breaks the signature.
    expect(await words(mail)).toEqual(['fail: bad signature']);
    const query = { headers: mail.headers, spfDomains: ['evil.example'], dkimDomains: ['example.com'] };
    expect(await authOf(new Zone({})).dmarc(query, NEVER, BUDGET)).toMatchObject({
      result: 'permerror',
      detail: 'the message has 2 From fields',
    });
  });
});

describe('DKIM and ARC of one message', () => {
  test('share the body, whichever of them is given it first, in whatever pieces', async () => {
    const mail = await signed({ body: 'line of text \r\n'.repeat(20_000) });
    const set = await arcSealed(
      `${mail.headers.serialize()}\r\n${'line of text \r\n'.repeat(20_000)}`,
      {
        domain: 'example.com',
        selector: 'r',
        key: { algorithm: 'rsa-sha256', privateKey: rsa.privateKey, record: RSA_RECORD },
      },
      'example.com; none',
      'none',
    );
    const end = set.indexOf('\r\n\r\n');
    const headers = parseHeaderSection(set.slice(0, end + 2));
    const body = Buffer.from(set.slice(end + 4), 'latin1');
    const auth = authOf(new Zone(KEYS));
    const [one, other] = [auth.dkim(headers, NEVER), auth.arc(headers, NEVER)];
    // The whole at once to one of them, while the other gets it in pieces.
    const whole = one.write(body);
    for (let at = 0; at < body.length; at += 7919) await other.write(body.subarray(at, at + 7919));
    await whole;
    expect((await one.end(BUDGET)).map(({ result }) => result)).toEqual(['pass']);
    expect((await other.end(BUDGET)).result).toBe('pass');
  });

  test('one of them that is given up does not hinder the other', async () => {
    const mail = await signed();
    const gone = new AbortController();
    const auth = authOf(new Zone(KEYS));
    const arc = auth.arc(mail.headers, gone.signal);
    const dkim = auth.dkim(mail.headers, NEVER);
    await arc.write(Buffer.from(BODY.slice(0, 5), 'latin1'));
    gone.abort(new Error('given up'));
    await dkim.write(Buffer.from(BODY, 'latin1'));
    expect((await dkim.end(BUDGET)).map(({ result }) => result)).toEqual(['pass']);
  });

  test('another message with the same header section is read anew', async () => {
    const mail = await signed();
    const auth = authOf(new Zone(KEYS));
    expect((await verifyDkim(auth, mail, NEVER)).map(({ result }) => result)).toEqual(['pass']);
    const changed = { ...mail, body: message({ body: 'other\r\n' }).body };
    expect((await verifyDkim(auth, changed, NEVER)).map(({ result }) => result)).toEqual(['fail']);
  });
});
