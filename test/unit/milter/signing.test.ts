import { generateKeyPairSync } from 'node:crypto';

import { dkimVerify } from 'mailauth/lib/dkim/verify.js';
import { afterEach, expect, test, vi } from 'vitest';

import { DkimSigner } from '../../../src/milter/dkim-signer.ts';
import { applyAsPostfix, MilterClient, type MilterMail } from '../../support/players/milter-client.ts';
import { metric } from '../../support/metric.ts';
import { mail, startMilter, TRACE, type Running } from './support.ts';

afterEach(() => {
  vi.restoreAllMocks();
});

const RSA = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ED25519 = generateKeyPairSync('ed25519');

const FILES = {
  'rsa.private': String(RSA.privateKey.export({ type: 'pkcs8', format: 'pem' })),
  'ed.private': String(ED25519.privateKey.export({ type: 'pkcs8', format: 'pem' })),
};
const KEYS = ['rsa', 'ed']
  .map(
    (selector) =>
      `[[signing.key]]\ndomain = "olimpus.example"\nselector = "${selector}"\nfile = "${selector}.private"\n`,
  )
  .join('');

/** What is published in DNS. */
const RECORDS = new Map([
  [
    'rsa._domainkey.olimpus.example',
    `v=DKIM1; k=rsa; p=${RSA.publicKey.export({ type: 'spki', format: 'der' }).toString('base64')}`,
  ],
  [
    // RFC 8463 §4: the 32 raw octets, which close the SubjectPublicKeyInfo.
    'ed._domainkey.olimpus.example',
    `v=DKIM1; k=ed25519; p=${ED25519.publicKey.export({ type: 'spki', format: 'der' }).subarray(-32).toString('base64')}`,
  ],
]);

async function verified(header: readonly (readonly [string, string])[], body: Uint8Array): Promise<string[]> {
  const section = header.map(([name, value]) => `${name}:${value}\r\n`).join('');
  const message = Buffer.concat([Buffer.from(`${section}\r\n`, 'latin1'), body]);
  const { results } = await dkimVerify(message, {
    resolver: (name) => Promise.resolve([[RECORDS.get(name) ?? '']]),
  });
  return results.map(({ selector, status }) => `${selector} ${status.result}`).toSorted();
}

function outgoing(changes: Partial<MilterMail> = {}): MilterMail {
  return mail({
    login: 'zeus@olimpus.example',
    from: '<zeus@olimpus.example>',
    headers: [
      ['From', ' Zeus <zeus@olimpus.example>'],
      ['To', ' thor@valhalla.example'],
      ['Subject', ' wide\r\n\tand folded'],
      ['X-Tight', 'tight'],
      ['Date', ' Sat, 21 Nov 2026 09:00:00 +0000'],
    ],
    body: Buffer.from('Hello  there \r\n\r\n'),
    ...changes,
  });
}

function signatures({ tools }: Running, result: string): Promise<number | undefined> {
  return metric(tools.registry, 'postern_milter_signatures_total', { result });
}

test.each([
  [6, 'relaxed/relaxed'],
  [6, 'simple/simple'],
  [2, 'relaxed/relaxed'],
  // The white space after the colon can not be known there, so headers are signed relaxed all the same.
  [2, 'simple/simple'],
] as const)(
  'version %i, %s: the message verifies as Postfix sends it on',
  async (version, canonicalization) => {
    await using running = await startMilter({
      toml: `signing.canonicalization = "${canonicalization}"\n${KEYS}`,
      files: FILES,
    });
    await using client = await MilterClient.open(running.target, version);
    const message = outgoing({ body: Buffer.alloc(200_000, 'A line of some length. \r\n') });
    await client.begin(message);
    for (const one of [message, outgoing()]) {
      const answer = await client.message(one);
      expect(answer.verdict).toBe('c');
      const sent = applyAsPostfix(one.headers, answer.edits, version === 6);
      expect(sent.slice(0, 3).map(([name]) => name)).toEqual([
        'DKIM-Signature',
        'DKIM-Signature',
        'X-Postern-Trace',
      ]);
      expect(await verified(sent, one.body)).toEqual(['ed pass', 'rsa pass']);
      // The edit counts: what was signed is what leaves.
      const changed = sent.map(([name, value]): [string, string] =>
        name === 'Subject' ? [name, `${value}!`] : [name, value],
      );
      expect(await verified(changed, one.body)).not.toContain('rsa pass');
    }
    expect(await signatures(running, 'signed')).toBe(2);
  },
);

test.each<[string, Partial<MilterMail>, string | null]>([
  ['mail from outside', { from: '<zeus@olimpus.example>' }, null],
  ['no key for the author', { headers: [['From', ' zeus@asgard.example']] }, 'zeus@olimpus.example'],
  [
    'two authors',
    { headers: [['From', ' zeus@olimpus.example, thor@valhalla.example']] },
    'zeus@olimpus.example',
  ],
])('%s is not signed', async (_, changes, login) => {
  await using running = await startMilter({ toml: KEYS, files: FILES });
  await using client = await MilterClient.open(running.target);
  const { login: _login, ...rest } = outgoing(changes);
  const message = login === null ? rest : { ...rest, login };
  await client.begin(message);
  const { verdict, edits } = await client.message(message);
  expect([verdict, ...edits.map(({ name }) => name)]).toEqual(['c', 'X-Postern-Trace']);
  expect(await signatures(running, 'none')).toBe(login === null ? 0 : 1);
});

test.each([
  [
    'the signature can not be made',
    () => vi.spyOn(DkimSigner.prototype, 'sign').mockRejectedValue(new Error('no entropy')),
  ],
  ['no signature comes of it', () => vi.spyOn(DkimSigner.prototype, 'sign').mockResolvedValue([])],
  [
    'the body can not be hashed',
    () =>
      vi.spyOn(DkimSigner.prototype, 'body').mockImplementation(() => {
        throw new Error('no memory');
      }),
  ],
])('when %s the message is deferred, never sent unsigned', async (_, breakIt) => {
  await using running = await startMilter({ toml: KEYS, files: FILES });
  await using client = await MilterClient.open(running.target);
  await client.begin(outgoing());
  breakIt();
  expect(await client.message(outgoing())).toMatchObject({
    verdict: 'y',
    text: `451 4.7.5 This message could not be signed just now, please try again later (${TRACE})`,
    edits: [],
  });
  expect(running.tools.store.decisions).toEqual([
    expect.objectContaining({ verdict: 'defer', rule: 'failed:signing' }),
  ]);
  expect(running.tools.lines).toContainEqual(
    expect.objectContaining({ level: 'error', msg: 'message could not be signed' }),
  );
  expect(await signatures(running, 'failed')).toBe(1);
  vi.restoreAllMocks();
  expect((await client.message(outgoing())).verdict).toBe('c');
});

/** A key that is not there. */
const BROKEN = '[[signing.key]]\ndomain = "broken.example"\nselector = "s"\nfile = "nowhere.private"\n';

test.each([
  ['defer', 'failed', 'y'],
  ['skip', 'skipped', 'c'],
] as const)('a broken key: %s its own domain, and sign for all others', async (word, counted, verdict) => {
  await using running = await startMilter({
    toml: `signing.without_key = "${word}"\n${KEYS}${BROKEN}`,
    files: FILES,
  });
  await using client = await MilterClient.open(running.target);
  const broken = outgoing({ headers: [['From', ' a@broken.example']] });
  await client.begin(broken);
  const answer = await client.message(broken);
  expect(answer.verdict).toBe(verdict);
  expect(answer.edits.map(({ name }) => name)).not.toContain('DKIM-Signature');
  expect(await signatures(running, counted)).toBe(1);
  // It was told of when it was read, not for each message.
  expect(running.tools.lines.filter(({ level }) => level === 'error')).toEqual([]);
  const good = await client.message(outgoing());
  expect(good.edits.map(({ name }) => name)).toContain('DKIM-Signature');
  expect(await signatures(running, 'signed')).toBe(1);
});

test('the signing table, through the daemon', async () => {
  const table =
    '[[signing.table]]\nsenders = ["@customer.example"]\nkeys = ["rsa._domainkey.olimpus.example"]\n';
  await using running = await startMilter({ toml: `${KEYS}${table}`, files: FILES });
  await using client = await MilterClient.open(running.target);
  const message = outgoing({ headers: [['From', ' a@customer.example']] });
  await client.begin(message);
  const { edits } = await client.message(message);
  const sent = applyAsPostfix(message.headers, edits, true);
  expect(await verified(sent, message.body)).toEqual(['rsa pass']);
});

test('lines that Postfix will break are signed as it sends them', async () => {
  await using running = await startMilter({ toml: KEYS, files: FILES });
  await using client = await MilterClient.open(running.target);
  const message = outgoing({
    headers: [
      ['From', ' zeus@olimpus.example'],
      ['Subject', ` ${'word '.repeat(300)}`],
    ],
    body: Buffer.from(`${'x'.repeat(1500)}\r\n`),
  });
  await client.begin(message);
  const { edits } = await client.message(message);
  const [ed, rsa, ...rest] = applyAsPostfix(message.headers, edits, true);
  if (ed === undefined || rsa === undefined) throw new Error('no signatures');
  const subject = 'Subject:'.length;
  const sent = rest.map(([name, value]): [string, string] =>
    name === 'Subject'
      ? [name, `${value.slice(0, 998 - subject)}\r\n ${value.slice(998 - subject)}`]
      : [name, value],
  );
  const body = Buffer.from(`${'x'.repeat(998)}\r\n ${'x'.repeat(502)}\r\n`);
  expect(await verified([ed, rsa, ...sent], body)).toEqual(['ed pass', 'rsa pass']);
});
