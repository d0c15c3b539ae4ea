import { beforeAll, describe, expect, test } from 'vitest';

import { createMailAuth } from '../../../src/adapters/mail-auth.ts';
import { parseHeaderSection, type HeaderList } from '../../../src/mail/header.ts';
import type { ArcResult, DkimResult } from '../../../src/ports/mail-auth.ts';
import { arcSealed, dkimSigned, ed25519Key, mailauthVerdict, rsaKey } from '../../support/mailauth-oracle.ts';
import { mutated, seeded } from '../../support/mutate.ts';
import { Zone } from '../../support/zone.ts';

const NOW = new Date();
/** Our verifier allows clocks to differ by that much, mailauth's is told to. RFC 6376 §3.5 (x=). */
const SKEW_MS = 300_000;
const NEVER = new AbortController().signal;
const RSA = rsaKey();
const ED25519 = ed25519Key();
const ZONE = new Zone({
  'r._domainkey.example.com': { TXT: [RSA.record] },
  'e._domainkey.example.com': { TXT: [ED25519.record] },
  'l._domainkey.lists.example': { TXT: [RSA.record] },
  'm._domainkey.relay.example': { TXT: [ED25519.record] },
});

const PLAIN = [
  'From: A <a@example.com>',
  'To: b@example.net',
  'Subject: hi  there',
  '\tfolded ',
  'X-Twice: one',
  'x-twice:two',
  '',
  'Hello  you \t',
  '',
  'line\t two',
  '',
  '',
].join('\r\n');

/** Signed in each way, and sealed none, once and twice. */
async function corpus(): Promise<readonly string[]> {
  const made: string[] = [];
  for (const canonicalization of [
    'relaxed/relaxed',
    'simple/simple',
    'relaxed/simple',
    'simple/relaxed',
  ] as const) {
    const length = canonicalization === 'simple/relaxed' ? { length: 10 } : {};
    const author = { domain: 'example.com', canonicalization } as const;
    const once = await dkimSigned(PLAIN, { ...author, selector: 'r', key: RSA, ...length });
    const twice = await dkimSigned(once, { ...author, selector: 'e', key: ED25519 });
    const list = { domain: 'lists.example', selector: 'l', key: RSA };
    const listed = await arcSealed(twice, list, 'lists.example; dkim=pass header.d=example.com', 'none');
    const relay = { domain: 'relay.example', selector: 'm', key: ED25519 };
    made.push(twice, listed, await arcSealed(listed, relay, 'relay.example; arc=pass', 'pass'));
  }
  return made;
}

interface Ours {
  readonly dkim: readonly DkimResult[];
  readonly arc: ArcResult;
}

async function ours(headers: HeaderList, body: string): Promise<Ours> {
  const clock = { now: () => NOW.getTime(), elapsed: () => 0 };
  const auth = createMailAuth(ZONE, { hostname: 'mx.example', clock });
  const [dkim, arc] = [auth.dkim(headers, NEVER), auth.arc(headers, NEVER)];
  const octets = Buffer.from(body, 'latin1');
  for (let at = 0; at < octets.length; at += 7) {
    for (const each of [dkim, arc]) await each.write(octets.subarray(at, at + 7));
  }
  return { dkim: await dkim.end(1000), arc: await arc.end(1000) };
}

/** Header section (with its last line end) and body; null when it is none that an MTA hands on: RFC 5322 §2.2, RFC 5321 §2.3.8. */
function parts(message: string): { readonly headers: HeaderList; readonly body: string } | null {
  const end = message.indexOf('\r\n\r\n');
  if (end === -1) return null;
  const section = message.slice(0, end + 2);
  if (/\0|(?:^|[^\r])\n|\r(?!\n)/.test(section)) return null;
  const headers = parseHeaderSection(section);
  const whole = headers.toArray().every(({ name, value }) => name !== '' && !/\r\n(?![ \t])/.test(value));
  return whole ? { headers, body: message.slice(end + 4) } : null;
}

/** RFC 6376 §3.2: a tag's value has no control characters but those of a fold; mailauth reads on. */
function hasControl(headers: HeaderList): boolean {
  const fields = [
    ...headers.all('DKIM-Signature'),
    ...headers.all('ARC-Seal'),
    ...headers.all('ARC-Message-Signature'),
  ];
  return fields.some(({ value }) => /[^\t\r\n -~\x80-\xff]/.test(value));
}

/** RFC 6376 §3.4.3, §3.4.4: a line ends with CRLF; mailauth takes an LF alone for a line end, as files have it. */
function hasBareLf(body: string): boolean {
  return /(?:^|[^\r])\n/.test(body);
}

let MESSAGES: readonly string[] = [];
beforeAll(async () => {
  MESSAGES = await corpus();
});

describe('our verifier and mailauth', () => {
  test('agree that what was signed is valid', async () => {
    for (const message of MESSAGES) {
      const read = parts(message);
      if (read === null) throw new Error('no message');
      const { dkim, arc } = await ours(read.headers, read.body);
      const expected = message.includes(' l=10;') ? ['pass', 'policy'] : ['pass', 'pass'];
      expect(dkim.map(({ result }) => result)).toEqual(expected);
      expect(arc.result).toBe(message.startsWith('ARC-') ? 'pass' : 'none');
    }
  });

  test(
    'agree on messages that were changed, but where the RFC says otherwise',
    { timeout: 120_000 },
    async () => {
      const random = seeded(6376);
      const seen = new Map<string, number>();
      let compared = 0;
      for (let round = 0; compared < 400; round++) {
        const original = Buffer.from(MESSAGES[round % MESSAGES.length] ?? '', 'latin1');
        const read = parts(mutated(original, random).toString('latin1'));
        if (read === null || hasControl(read.headers) || hasBareLf(read.body)) continue;
        compared++;
        const { headers, body } = read;
        const [mine, theirs] = [
          await ours(headers, body),
          await mailauthVerdict(`${headers.serialize()}\r\n${body}`, ZONE, new Date(NOW.getTime() - SKEW_MS)),
        ];
        const message = `${headers.serialize()}
${body}`;
        expect({ message, dkim: mine.dkim.map(({ result }) => result), arc: mine.arc.result }).toEqual({
          message,
          dkim: theirs.dkim.map(({ word }) => word),
          arc: theirs.arc,
        });
        for (const { result } of mine.dkim) seen.set(result, (seen.get(result) ?? 0) + 1);
        seen.set(`arc ${mine.arc.result}`, (seen.get(`arc ${mine.arc.result}`) ?? 0) + 1);
      }
      // The changes reached every branch, or they would have shown nothing.
      expect([...seen.keys()]).toEqual(
        expect.arrayContaining(['pass', 'fail', 'neutral', 'policy', 'arc pass', 'arc fail', 'arc none']),
      );
    },
  );

  test('RFC 6376 §3.2: a control character in a tag', async () => {
    const read = parts((MESSAGES[0] ?? '').replace(/ s=e;/, ' s=e; n=a\x7fb;'));
    if (read === null) throw new Error('no message');
    const [top] = (await ours(read.headers, read.body)).dkim;
    expect(top).toMatchObject({ result: 'neutral', auth: { comment: 'signature syntax error' } });
  });
});
