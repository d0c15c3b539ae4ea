import { generateKeyPairSync, sign } from 'node:crypto';

import { beforeAll, describe, expect, test } from 'vitest';

import { ARC_KEYS_LIMIT } from '../../../src/adapters/arc-verifier.ts';
import { createMailAuth } from '../../../src/adapters/mail-auth.ts';
import { ARC_OCTETS_LIMIT, INSTANCES_LIMIT } from '../../../src/mail/arc-chain.ts';
import { canonicalField } from '../../../src/mail/dkim-header.ts';
import { HeaderList, parseHeaderSection, type HeaderField } from '../../../src/mail/header.ts';
import type { ArcResult } from '../../../src/ports/mail-auth.ts';
import { arcSealed, ed25519Key, rsaKey } from '../../support/mailauth-oracle.ts';
import { Zone, type ZoneEntry } from '../../support/zone.ts';

const NEVER = new AbortController().signal;
const RSA = rsaKey(1024);
const ED25519 = ed25519Key();
const KEYS: Readonly<Record<string, ZoneEntry>> = {
  's._domainkey.lists.example': { TXT: [RSA.record] },
  's._domainkey.relay.example': { TXT: [ED25519.record] },
};
const PLAIN = 'From: a@example.com\r\nTo: b@example.net\r\nSubject: hi\r\n\r\nHello\r\n';
const LIST = { domain: 'lists.example', selector: 's', key: RSA };
const RELAY = { domain: 'relay.example', selector: 's', key: ED25519 };

let one = '';
let two = '';
beforeAll(async () => {
  one = await arcSealed(PLAIN, LIST, 'lists.example; dmarc=pass header.from=example.com', 'none');
  two = await arcSealed(one, RELAY, 'relay.example; arc=pass', 'pass');
});

async function verified(
  message: string,
  zone: Zone | Readonly<Record<string, ZoneEntry>> = KEYS,
): Promise<ArcResult> {
  const end = message.indexOf('\r\n\r\n');
  return verifiedFields(parseHeaderSection(message.slice(0, end + 2)), message.slice(end + 4), zone);
}

async function verifiedFields(
  headers: HeaderList,
  body: string,
  zone: Zone | Readonly<Record<string, ZoneEntry>>,
): Promise<ArcResult> {
  const auth = createMailAuth(zone instanceof Zone ? zone : new Zone(zone), {
    hostname: 'mx.example',
    clock: { now: () => Date.now(), elapsed: () => 0 },
  });
  const verification = auth.arc(headers, NEVER);
  await verification.write(Buffer.from(body, 'latin1'));
  return verification.end(200);
}

async function words(message: string, zone?: Zone | Readonly<Record<string, ZoneEntry>>): Promise<string> {
  const { result, detail } = await verified(message, zone);
  return `${result}: ${detail}`;
}

/** A seal that is made anew over what is there, so that nothing but what a test changed is wrong. */
function resealed(message: string, change: (value: string) => string): string {
  const end = message.indexOf('\r\n\r\n');
  const fields = parseHeaderSection(message.slice(0, end + 2)).toArray();
  const seal = fields.find(({ name }) => name === 'ARC-Seal');
  if (seal === undefined) throw new Error('not sealed');
  const value = change(seal.value).replace(/b=[^;]*$/, 'b=');
  const data = ['ARC-Authentication-Results', 'ARC-Message-Signature'].map((name) => {
    const field = fields.find((each) => each.name === name);
    return field === undefined ? '' : `${canonicalField(field, 'relaxed')}\r\n`;
  });
  data.push(canonicalField({ name: 'ARC-Seal', value }, 'relaxed'));
  const b = sign('sha256', Buffer.from(data.join(''), 'latin1'), RSA.privateKey).toString('base64');
  const rest: HeaderField[] = fields.map((field) =>
    field === seal ? { name: 'ARC-Seal', value: value + b } : field,
  );
  return `${new HeaderList(rest).serialize()}\r\n${message.slice(end + 4)}`;
}

describe('ARC: chains that are whole', () => {
  test('none at all', async () => {
    expect(await verified(PLAIN)).toEqual({
      result: 'none',
      detail: 'the message has no ARC chain',
      hops: [],
      oldestPass: null,
    });
  });

  test('one set, two sets, RSA and Ed25519; who sealed, the newest first', async () => {
    expect(await verified(one)).toMatchObject({ result: 'pass', oldestPass: 0, hops: [{ instance: 1 }] });
    const { hops, ...told } = await verified(two);
    expect(told).toEqual({
      result: 'pass',
      detail: '2 sealed: i=2 relay.example, i=1 lists.example',
      oldestPass: 0,
    });
    expect(hops.map(({ instance, sealer, signer }) => [instance, sealer, signer])).toEqual([
      [2, 'relay.example', 'relay.example'],
      [1, 'lists.example', 'lists.example'],
    ]);
    expect(hops[1]?.results).toContain('dmarc=pass');
  });

  test('RFC 8617 §5.2 step 5: a message that was changed between the two seals', async () => {
    const changed = one.replace('Subject: hi', 'Subject: [list] hi');
    const sealed = await arcSealed(changed, RELAY, 'relay.example; arc=pass', 'pass');
    expect(await verified(sealed)).toMatchObject({ result: 'pass', oldestPass: 2 });
  });

  test('RFC 8617 §4.2.1: so many sets', { timeout: 60_000 }, async () => {
    let message = one;
    for (let instance = 2; instance <= INSTANCES_LIMIT; instance++) {
      message = await arcSealed(message, LIST, 'lists.example; arc=pass', 'pass');
    }
    expect(await verified(message)).toMatchObject({ result: 'pass', oldestPass: 0 });
    const more = two.replaceAll('i=2;', `i=${INSTANCES_LIMIT + 1};`);
    expect(await words(more)).toBe('fail: ARC-Seal has no instance');
  });

  test('the seal as this test makes it', async () => {
    expect(await words(resealed(one, (value) => value))).toBe('pass: 1 sealed: i=1 lists.example');
    expect(await words(resealed(one, (value) => value.replace('cv=none', 'cv=NONE')))).toMatch(/^pass/);
  });
});

describe('ARC: chains that are not', () => {
  test.each<readonly [string, string, (message: string) => string]>([
    [
      'another body',
      'fail: i=2 ARC-Message-Signature: body hash did not verify (d=relay.example)',
      (m) => m.replace('Hello', 'Help'),
    ],
    [
      'another subject',
      'fail: i=2 ARC-Message-Signature: bad signature (d=relay.example)',
      (m) => m.replace('Subject: hi', 'Subject: ho'),
    ],
    [
      'results that say something else',
      'fail: i=1 ARC-Seal: bad signature (d=lists.example)',
      (m) => m.replace('dmarc=pass', 'dmarc=fail'),
    ],
    [
      'a set without results',
      'fail: i=1 has no ARC-Authentication-Results',
      (m) => m.replace('ARC-Authentication-Results: i=1;', 'X: '),
    ],
    [
      'a set that is missing',
      'fail: i=1 has no ARC-Authentication-Results',
      (m) => m.slice(0, m.indexOf('ARC-Seal: i=1')) + m.slice(m.indexOf('From:')),
    ],
    [
      'a part twice',
      'fail: i=1 has ARC-Authentication-Results twice',
      (m) => `ARC-Authentication-Results: i=1; x; none\r\n${m}`,
    ],
    [
      'results without an instance',
      'fail: ARC-Authentication-Results has no instance',
      (m) => `ARC-Authentication-Results: x; none\r\n${m}`,
    ],
    [
      'an instance of 0',
      'fail: ARC-Authentication-Results has no instance',
      (m) => `ARC-Authentication-Results: i=0; x; none\r\n${m}`,
    ],
    [
      'an instance that is no number',
      'fail: ARC-Seal has no instance',
      (m) => m.replace('ARC-Seal: i=2', 'ARC-Seal: i=two'),
    ],
  ])('%s: %s', async (_, expected, change) => {
    expect(await words(change(two))).toBe(expected);
  });

  test.each<readonly [string, string, (value: string) => string]>([
    ['cv=pass of the first', 'says cv=pass', (value) => value.replace('cv=none', 'cv=pass')],
    ['cv=fail', 'says cv=fail', (value) => value.replace('cv=none', 'cv=fail')],
    ['no cv=', 'has no cv=', (value) => value.replace('cv=none;', '')],
    ['h=', 'has h=', (value) => value.replace('cv=none;', 'cv=none; h=From;')],
    ['rsa-sha1', 'unknown algorithm', (value) => value.replace('rsa-sha256', 'rsa-sha1')],
    ['a tag twice', 'syntax error', (value) => value.replace('cv=none;', 'cv=none; cv=none;')],
    ['d= that is no domain', 'syntax error', (value) => value.replace('d=lists.example', 'd=lists')],
    ['t= that is no time', 'syntax error', (value) => value.replace(/t=\d+/, 't=now')],
  ])('a good seal with %s: %s', async (_, why, change) => {
    expect(await words(resealed(one, change))).toBe(`fail: i=1 ARC-Seal: ${why}`);
  });

  test('RFC 8617 §4.1.2: a message signature that signs seals', async () => {
    const signing = one.replace(/(ARC-Message-Signature:[\s\S]*? h=)/, '$1ARC-Seal:');
    expect(await words(signing)).toBe('fail: i=1 ARC-Message-Signature: signs ARC-Seal');
  });

  test.each<readonly [string, ZoneEntry, string]>([
    ['that is gone', { A: ['192.0.2.1'] }, 'fail: i=1 ARC-Message-Signature: no key (d=lists.example)'],
    [
      'of another kind',
      { TXT: [ED25519.record] },
      'fail: i=1 ARC-Message-Signature: inappropriate key algorithm (d=lists.example)',
    ],
    [
      'the DNS fails on',
      'servfail',
      'temperror: i=1 ARC-Message-Signature: DNS failure: servfail (d=lists.example)',
    ],
    [
      'the DNS is silent on',
      'never',
      'temperror: i=1 ARC-Message-Signature: DNS failure: timeout (d=lists.example)',
    ],
  ])('a key %s', async (_, entry, expected) => {
    expect(await words(one, { 's._domainkey.lists.example': entry })).toBe(expected);
  });

  test('what is wrong decides over what is not known', async () => {
    const zone = { ...KEYS, 's._domainkey.relay.example': 'servfail' } as const;
    expect(await words(two, zone)).toMatch(/^temperror: i=2/);
    expect(await words(two.replace('dmarc=pass', 'dmarc=fail'), zone)).toBe(
      'fail: i=1 ARC-Seal: bad signature (d=lists.example)',
    );
  });
});

/** Sets whose keys all differ, and of which nothing is valid but the form. */
function forged(count: number): string {
  let text = '';
  for (let i = count; i > 0; i--) {
    const by = `i=${i}; a=rsa-sha256; d=d${i}.example; s=s`;
    text += `ARC-Seal: ${by}; cv=${i === 1 ? 'none' : 'pass'}; b=AAAA\r\n`;
    text += `ARC-Message-Signature: ${by}; c=relaxed/relaxed; h=From; bh=AAAA; b=AAAA\r\n`;
    text += `ARC-Authentication-Results: i=${i}; d${i}.example; none\r\n`;
  }
  return text + PLAIN;
}

function arcOctets(message: string): number {
  const fields = parseHeaderSection(message.slice(0, message.indexOf('\r\n\r\n') + 2)).toArray();
  return fields
    .filter(({ name }) => name.startsWith('ARC-'))
    .reduce((sum, { name, value }) => sum + name.length + value.length, 0);
}

/** DER of a positive INTEGER. */
function integer(value: Buffer): Buffer {
  return Buffer.concat([
    Buffer.from([0x02, 0x82, (value.length + 1) >> 8, (value.length + 1) & 255, 0]),
    value,
  ]);
}

describe('ARC: limits', () => {
  test('so many keys are asked for, those of the newest sets', async () => {
    const zone = new Zone({});
    expect(await words(forged(INSTANCES_LIMIT), zone)).toBe(
      `fail: i=${INSTANCES_LIMIT} ARC-Message-Signature: body hash did not verify (d=d${INSTANCES_LIMIT}.example)`,
    );
    expect(zone.asked).toEqual(
      Array.from(
        { length: ARC_KEYS_LIMIT },
        (_, index) => `TXT s._domainkey.d${INSTANCES_LIMIT - index}.example`,
      ),
    );
  });

  test('so many octets of ARC fields', async () => {
    const room = ARC_OCTETS_LIMIT - arcOctets(one);
    const longer = (by: number): string =>
      one.replace('lists.example; dmarc', `lists.example; ${' '.repeat(by)}dmarc`);
    expect(await words(longer(room))).toMatch(/^pass/);
    expect(await words(longer(room + 1))).toBe(
      `fail: the ARC fields have more than ${ARC_OCTETS_LIMIT} octets`,
    );
  });

  test('a public exponent as long as its modulus is not computed with', async () => {
    const { n } = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' });
    const modulus = Buffer.from(n ?? '', 'base64url');
    const body = Buffer.concat([integer(modulus), integer(Buffer.alloc(250, 0x7f))]);
    const der = Buffer.concat([Buffer.from([0x30, 0x82, body.length >> 8, body.length & 255]), body]);
    const zone = { 's._domainkey.lists.example': { TXT: [`p=${der.toString('base64')}`] } };
    expect(await words(one, zone)).toBe('fail: i=1 ARC-Message-Signature: key too long (d=lists.example)');
  });
});
