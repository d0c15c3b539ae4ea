import { generateKeyPairSync } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { createMailAuth } from '../../src/adapters/mail-auth.ts';
import { arcCheck } from '../../src/checks/arc.ts';
import type { Decision } from '../../src/ports/store.ts';
import { arcWithMailauth } from '../support/arc-oracle.ts';
import { checkTools } from '../support/checks.ts';
import { applyAsPostfix } from '../support/players/milter-client.ts';
import { Zone } from '../support/zone.ts';
import {
  packet,
  RawPeer,
  startMilter,
  stubChecks,
  testTools,
  TRACE,
  words,
  type Running,
} from '../unit/milter/support.ts';

/**
 * What Postfix 3.7.11 sent, packet by packet, to a milter that answered `flags`; one JSON string of latin1 a line. Only the flags of the
 * offer are replaced, so that our answer leads to the conversation that was recorded.
 */
async function recorded(name: string, flags: number): Promise<Buffer[]> {
  const text = await readFile(join(import.meta.dirname, 'data', `milter-${name}.txt`), 'utf8');
  const lines = text.split('\n').filter((line) => line !== '');
  const packets = lines.map((line) => String(JSON.parse(line)));
  const [offer = '', ...rest] = packets;
  const version = offer.charCodeAt(4);
  return [
    packet('O', words(version, 0x1ff, flags)),
    ...rest.map((text_) => packet(text_.slice(0, 1), text_.slice(1))),
  ];
}

/** Bits of the answer that say that an event gets no reply. */
const NO_REPLY: Readonly<Record<string, number>> = {
  L: 0x80,
  C: 0x1000,
  H: 0x2000,
  M: 0x4000,
  R: 0x8000,
  T: 0x10000,
  U: 0x20000,
  N: 0x40000,
  B: 0x80000,
};
const NOT_WANTED: Readonly<Record<string, number>> = { U: 0x100, T: 0x200 };

interface Replayed {
  /** Version, actions and protocol flags that we answered. */
  readonly terms: readonly number[];
  /** Each reply with the event that it answered. */
  readonly replies: readonly string[];
}

/** Plays Postfix: sends what it sent, and waits where it waits. */
async function replay(running: Running, packets: readonly Buffer[]): Promise<Replayed> {
  using peer = await RawPeer.open(running.target);
  const replies: string[] = [];
  let terms: readonly number[] = [];
  let flags = 0;
  for (const bytes of packets) {
    const code = bytes.toString('latin1', 4, 5);
    if ((flags & (NOT_WANTED[code] ?? 0)) !== 0) continue;
    peer.send(bytes);
    if ('DAQ'.includes(code) || (flags & (NO_REPLY[code] ?? 0)) !== 0) continue;
    for (;;) {
      const reply = await peer.next();
      if (reply === null) throw new Error(`closed after ${code}`);
      if (code === 'O') {
        const answer = Buffer.from(reply, 'latin1');
        terms = [answer.readUInt32BE(1), answer.readUInt32BE(5), answer.readUInt32BE(9)];
        flags = terms[2] ?? 0;
        break;
      }
      replies.push(`${code} ${reply}`);
      if ('cartdy'.includes(reply.charAt(0))) break;
    }
  }
  expect(await peer.next()).toBeNull(); // QUIT, and nothing more came
  return { terms, replies };
}

function edit(value: string): string {
  return `E i\0\0\0\0X-Postern-Trace\0${value}\0`;
}

const summary = ({ sender, recipients, client, helo, login, direction, queueId, size }: Decision): unknown => ({
  sender, recipients, client, helo, login, direction, queueId, size,
}); // prettier-ignore

test('Postfix with milter_protocol = 6: six messages of one session', async () => {
  const checks = stubChecks();
  await using running = await startMilter({ checks });
  const { terms, replies } = await replay(running, await recorded('v6', 0));

  expect(terms).toEqual([6, 0x31, 0]);
  const finals = replies.filter((reply) => reply.startsWith('E '));
  expect(finals).toEqual(Array.from({ length: 5 }, () => [edit(TRACE), 'E c']).flat());
  expect(replies.filter((reply) => !reply.startsWith('E ')).every((reply) => reply.endsWith(' c'))).toBe(
    true,
  );

  const [first, second] = running.tools.store.decisions;
  expect(first && summary(first)).toEqual({
    sender: 'thor@valhalla.local',
    recipients: ['zeus@olimpus.local', 'dioses@olimpus.local', 'hera+tag@olimpus.local'],
    client: '192.0.2.20',
    helo: 'odin.valhalla.local',
    login: null,
    direction: 'in',
    queueId: '4570524C478',
    size: 187,
  });
  expect(second).toMatchObject({ sender: '', queueId: '4A51B24C479', recipients: ['zeus@olimpus.local'] });

  const [facts] = checks.asked.message;
  expect(facts?.client).toEqual({
    address: '192.0.2.20',
    port: 40_327,
    name: 'odin.valhalla.local',
    reverseName: 'odin.valhalla.local',
    helo: 'odin.valhalla.local',
    tls: null,
    login: null,
  });
  expect(facts?.message.envelope.senderParameters).toEqual([
    'SIZE=1234',
    'BODY=8BITMIME',
    'RET=HDRS',
    'ENVID=env-1',
  ]);
  expect(facts?.message.envelope.recipients[0]?.parameters).toEqual([
    'NOTIFY=SUCCESS,FAILURE',
    'ORCPT=rfc822;zeus@olimpus.local',
  ]);
  expect(facts?.message.headers.toArray().slice(0, 3)).toEqual([
    { name: 'From', value: ' Thor <thor@valhalla.local>' },
    { name: 'To', value: ' zeus@olimpus.local' },
    { name: 'Subject', value: ' one' },
  ]);
  expect(facts?.message.received).toBe(false);
  // The address is UTF-8 on the wire and stays what it is, octet by octet.
  expect(running.tools.store.decisions.map(({ sender }) => sender)).toContain(
    Buffer.from('thör@valhalla.local').toString('latin1'),
  );
});

test('Postfix with milter_protocol = 2: every header and body chunk is answered, the queue id comes with the first header', async () => {
  await using running = await startMilter();
  const packets = await recorded('v2', 0x7f);
  const { terms, replies } = await replay(running, packets);
  expect(terms).toEqual([2, 0x31, 0]);
  const answered = packets.filter((bytes) => 'CHMRLNBE'.includes(bytes.toString('latin1', 4, 5)));
  expect(replies.filter((reply) => reply.endsWith(' c'))).toHaveLength(answered.length);
  expect(running.tools.store.decisions.map(({ queueId }) => queueId)).toEqual([
    '34E1824C490',
    '3BAF724C493',
    expect.any(String),
    expect.any(String),
    expect.any(String),
  ]);
});

test('STARTTLS: the macros that came with the second HELO hold for the message', async () => {
  const checks = stubChecks();
  await using running = await startMilter({ checks });
  await replay(running, await recorded('starttls', 0));
  expect(checks.asked.mail[0]?.client.tls).toEqual({
    protocol: 'TLSv1.3',
    cipher: 'TLS_AES_256_GCM_SHA384',
    bits: 256,
  });
  expect(running.tools.store.decisions).toHaveLength(1);
});

test('submission: outgoing, with login, from an unverified address', async () => {
  await using running = await startMilter();
  const { replies } = await replay(running, await recorded('submission', 0));
  expect(replies.slice(-2)).toEqual([edit(TRACE), 'E c']);
  expect(running.tools.store.decisions.map(summary)).toEqual([
    expect.objectContaining({
      login: 'zeus@olimpus.local',
      direction: 'out',
      client: '192.0.2.67',
      queueId: '69D5524C4AA',
    }),
  ]);
});

test('sendmail(1): no brackets, no port, queue id at MAIL, no ABORT', async () => {
  // Even where nobody counts the loopback network among his own.
  await using running = await startMilter({ toml: 'site.own_networks = []' });
  await replay(running, await recorded('sendmail', 0));
  expect(running.tools.store.decisions.map(summary)).toEqual([
    expect.objectContaining({
      sender: 'zeus@olimpus.local',
      recipients: ['hera@olimpus.local', 'thor@valhalla.local'],
      direction: 'out',
      queueId: '0D79E24C4A2',
    }),
  ]);
  expect(running.tools.store.joined[0]?.session).toBeNull();
});

test('a notification of Postfix itself: null sender, never looked at', async () => {
  const checks = stubChecks();
  await using running = await startMilter({ checks });
  const { replies } = await replay(running, await recorded('bounce', 0));
  expect(replies.at(-1)).toBe('E c');
  expect(running.tools.store.decisions.map(summary)).toEqual([
    expect.objectContaining({ sender: '', recipients: ['thor@valhalla.local'], queueId: '4B61424C4B4' }),
  ]);
  expect(checks.asked.message).toHaveLength(0);
});

test('a client of IPv6 whose name does not agree: the PTR name is kept as unverified', async () => {
  const checks = stubChecks();
  await using running = await startMilter({ checks });
  await replay(running, await recorded('ipv6', 0));
  expect(checks.asked.mail[0]?.client).toMatchObject({
    address: '2001:db8::20',
    port: 51_483,
    name: null,
    reverseName: 'odin.valhalla.local',
  });
});

test('quarantine: one reason, then CONTINUE', async () => {
  const checks = stubChecks();
  checks.message = () => Promise.resolve([{ code: 'spam.odd', detail: 'odd' }]);
  await using running = await startMilter({ checks });
  const { replies } = await replay(running, await recorded('quarantine', 0));
  expect(replies.slice(-2)).toEqual([`E qspam.odd (${TRACE})\0`, 'E c']);
});

test('SMFIP_HDR_LEADSPC: values come and go with their white space', async () => {
  const checks = stubChecks();
  await using running = await startMilter({ checks });
  const { terms, replies } = await replay(running, await recorded('leading-space', 0x100000));
  expect(terms).toEqual([6, 0x31, 0x100000]);
  expect(replies.slice(-2)).toEqual([edit(` ${TRACE}`), 'E c']);
  for (const { value } of checks.asked.message[0]?.message.headers ?? []) expect(value).toMatch(/^ \S/);
});

test('SMFIP_NR_*: silence up to the end of the message (this session was recorded without DATA)', async () => {
  await using running = await startMilter();
  const { terms, replies } = await replay(running, await recorded('no-replies', 0xffe80));
  expect(terms).toEqual([6, 0x31, 0xcf080]);
  expect(replies).toEqual([edit(TRACE), 'E c']);
});

/** Of the seal in the recorded message, which dkimpy's arcsign made. */
const SEAL_KEY =
  'v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEArSIqKumWcT40YE93hztF95/uflBpYiC6WaspJ4IJJQlksH4PPI4LYOjl7G/oSBnWIPxtTR2gSIn6RMIwytmE6a1xqsUikeRLlpmHZY8EFFV80u3ueP/PQD4C0K1WvIdI1g2CfGfKJIAd8OvJJwXE0ZjLG1coBjirHPHul26EGCOWkOV3lAdYieBAIcM7B81vNT/dOpFrnExi/OUgSB0a80EPM4+gA2LiN17pLsJ/YGQUXFl+C901kRuZ/QmAoEEsONyI1yk18bhAbtOva4lT/IouY1TovqVp5MbVpM/TUhCepZE1cw5Y2QSOclZEFRLWRgk/Ly4sdc5+zyFAKAYMEwIDAQAB';

test('a message with an ARC chain: verified from the fields as Postfix shows them, and sealed on top', async () => {
  const seal = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const own = seal.publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  const texts = {
    'arc._domainkey.valhalla.example': SEAL_KEY,
    'seal._domainkey.olimpus.example': `v=DKIM1; k=rsa; p=${own}`,
  };
  const zone = new Zone(
    Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, { TXT: [text] }])),
  );
  const clock = { now: () => 1_795_290_800_000, elapsed: () => performance.now() };
  const mailAuth = createMailAuth(zone, { hostname: 'mx.olimpus.example', clock });
  const checks = stubChecks();
  await using running = await startMilter({
    toml: `[arc]
domain = "olimpus.example"
seal = "incoming"
without_key = "defer"
[[signing.key]]
domain = "olimpus.example"
selector = "seal"
file = "seal.private"
`,
    files: { 'seal.private': String(seal.privateKey.export({ type: 'pkcs8', format: 'pem' })) },
    tools: { ...testTools(), checks: checkTools({ clock, mailAuth }) },
    checks: { ...checks, definitions: [...checks.definitions, arcCheck] },
  });
  const packets = await recorded('arc', 0x100000);
  const { replies } = await replay(running, packets);

  const inserted = replies
    .filter((reply) => reply.startsWith('E i'))
    .map((reply) => {
      const [name = '', value = ''] = reply.slice('E i\0\0\0\0'.length).split('\0');
      return { action: 'insert', index: reply.charCodeAt(6), name, value } as const;
    });
  // Each above the one before: the set of RFC 8617 §4.1 on top, its seal first.
  expect(inserted.map(({ index, name }) => [index, name])).toEqual([
    [0, 'X-Postern-Trace'],
    [0, 'Authentication-Results'],
    [0, 'ARC-Authentication-Results'],
    [0, 'ARC-Message-Signature'],
    [0, 'ARC-Seal'],
  ]);
  const value = (name: string): string => inserted.find((each) => each.name === name)?.value ?? '';
  expect(value('Authentication-Results')).toMatch(/^ mx\.olimpus\.example;\s+arc=pass/);
  expect(value('ARC-Seal')).toMatch(/^ i=2; .*cv=pass/s);

  const sent = packets.map((bytes) => bytes.toString('latin1', 4));
  const headers = sent
    .filter((text) => text.startsWith('L'))
    .map((text): [string, string] => {
      const [name = '', field = ''] = text.slice(1).split('\0');
      return [name, field.replaceAll('\n', '\r\n')];
    });
  const body = sent.find((text) => text.startsWith('B'))?.slice(1) ?? '';
  const section = applyAsPostfix(headers, inserted, true).map(([name, text]) => `${name}:${text}\r\n`);
  const left = Buffer.from(`${section.join('')}\r\n${body}`, 'latin1');
  expect(
    await arcWithMailauth(left, (name) =>
      Promise.resolve(Object.entries(texts).flatMap(([of, text]) => (of === name ? [[text]] : []))),
    ),
  ).toBe('pass');
});
