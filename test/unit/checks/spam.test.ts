import { describe, expect, it } from 'vitest';

import type { AnyBoundCheck, CheckTools } from '../../../src/checks/check.ts';
import { CHECKS } from '../../../src/checks/index.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import { spamCheck, spamFinding } from '../../../src/checks/spam.ts';
import type { Message } from '../../../src/mail/message.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { ScanRequest, SpamScanner } from '../../../src/ports/scanner.ts';
import type { Finding, Outcome } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { found, GTUBE_SCAN, HAM_SCAN } from '../../support/judgement.ts';
import { client, envelope, message } from '../../support/mail.ts';

const NOW = Date.UTC(2026, 10, 21, 10, 0, 0);

function scanner(requests: ScanRequest[] = []): SpamScanner {
  return {
    scan: async (request) => {
      requests.push(request);
      return GTUBE_SCAN;
    },
    ping: async () => {},
  };
}

async function run(
  checked: Message,
  values: Partial<CheckTools> = {},
  options: unknown = {},
  assumed: readonly Outcome[] = [],
): Promise<readonly Outcome[]> {
  const check: AnyBoundCheck = spamCheck.bind(options, 1000);
  const tools = checkTools({ clock: { now: () => NOW, elapsed: () => 0 }, ...values });
  const { client: from, direction, sender } = checked.envelope;
  const checks = new CheckRun([check], tools, direction);
  checks.assume(assumed);
  checks.startMessage({ client: from, direction, sender, message: checked });
  return await checks.settle();
}

async function requestFor(checked: Message): Promise<ScanRequest> {
  const requests: ScanRequest[] = [];
  const outcomes = await run(checked, { scanner: scanner(requests) });
  expect(outcomes).toMatchObject([{ kind: 'found' }]);
  const [request] = requests;
  if (request === undefined) throw new Error('nothing was scanned');
  return request;
}

/** What is asked for with everything switched on that could be. */
async function wanted(
  values: Partial<Message>,
  options: object,
  assumed: readonly Outcome[] = [],
): Promise<string | undefined> {
  const requests: ScanRequest[] = [];
  const all = { rewrite_body: true, logins: true, own_networks: true, ...options };
  await run({ ...message(), ...values }, { scanner: scanner(requests) }, all, assumed);
  return requests[0]?.wanted;
}

/** What is set for each recipient in turn. */
function settings(...rewriteBody: readonly boolean[]): readonly Outcome[] {
  const findings = rewriteBody.map((one, recipient): Finding => ({
    code: 'settings.own',
    detail: '',
    recipient,
    settings: [{ mailbox: `u${recipient}@x.example`, rewriteBody: one }],
  }));
  return [found('settings', ...findings)];
}

describe('the spam check', () => {
  it('is the last of the list, so that ties go to what is known for certain', () => {
    expect(CHECKS.at(-1)).toBe(spamCheck);
  });

  it('gives the scanner’s score as a fact', async () => {
    expect(await run(message(), { scanner: scanner() })).toEqual([
      { kind: 'found', check: 'spam', findings: [spamFinding(GTUBE_SCAN)], elapsed: 0 },
    ]);
  });

  it('takes no part without a scanner, or in mail that goes out', async () => {
    expect(await run(message())).toEqual([]);
    expect(await run(message({ envelope: envelope({ direction: 'out' }) }), { scanner: scanner() })).toEqual(
      [],
    );
  });

  it('is unavailable when the scanner is', async () => {
    const failing: SpamScanner = { ...scanner(), scan: () => Promise.reject(new NeighbourError('down')) };
    expect(await run(message(), { scanner: failing })).toMatchObject([
      { kind: 'unavailable', reason: 'neighbour', detail: 'down' },
    ]);
  });

  it('scans messages up to max_size and says so of larger ones', async () => {
    const requests: ScanRequest[] = [];
    // "A: 1" with its line end and colon, as it is counted: name, colon, value, CRLF.
    const fits = message({ headers: 'A: 1\r\n', body: 'x'.repeat(1024 - 6) });
    const over = message({ headers: 'A: 1\r\n', body: 'x'.repeat(1024 - 5) });
    const options = { max_size: '1KiB' };
    expect(await run(fits, { scanner: scanner(requests) }, options)).toMatchObject([
      { findings: [{ code: 'spam.scored' }] },
    ]);
    expect(await run(over, { scanner: scanner(requests) }, options)).toMatchObject([
      {
        findings: [
          {
            code: 'spam.too-large',
            detail: 'message of 1025 octets is larger than max_size, 1024 octets',
          },
        ],
      },
    ]);
    expect(requests).toHaveLength(1);
  });

  it('scans the first max_size octets of a larger one when it is told to', async () => {
    const requests: ScanRequest[] = [];
    const options = { max_size: '1KiB', truncate: true };
    const over = message({ headers: 'A: 1\r\n', body: 'x'.repeat(1024 - 5) });
    expect(await run(over, { scanner: scanner(requests) }, options)).toMatchObject([
      { findings: [{ code: 'spam.truncated' }, { code: 'spam.scored' }] },
    ]);
    expect(requests).toMatchObject([{ bodyOctets: 1024 - 6 }]);
    const fits = message({ headers: 'A: 1\r\n', body: 'x'.repeat(1024 - 6) });
    expect(await run(fits, { scanner: scanner(requests) }, options)).toMatchObject([
      { findings: [{ code: 'spam.scored' }] },
    ]);
    const allHeaders = message({ headers: `A: ${'x'.repeat(1024 - 4)}\r\n`, body: '' });
    expect(await run(allHeaders, { scanner: scanner(requests) }, options)).toMatchObject([
      { findings: [{ code: 'spam.too-large' }] },
    ]);
    expect(requests).toHaveLength(2);
  });

  it.each([
    ['none', undefined, ['zeus+tag@olimpus.example'], null],
    ['none', 'site', ['zeus@olimpus.example'], 'site'],
    ['recipient', undefined, ['Zeus+tag@Olimpus.example'], 'zeus@olimpus.example'],
    ['recipient', undefined, ['zeus@olimpus.example', 'ZEUS+a@olimpus.example'], 'zeus@olimpus.example'],
    ['recipient', undefined, ['zeus@olimpus.example', 'hera@olimpus.example'], null],
    ['recipient', 'site', ['zeus@olimpus.example', 'hera@olimpus.example'], 'site'],
    ['domain', 'site', ['zeus@olimpus.example', 'hera@olimpus.example'], 'olimpus.example'],
    ['domain', 'site', ['zeus@olimpus.example', 'thor@valhalla.example'], 'site'],
    ['domain', 'site', [], 'site'],
  ])('user = %j with default_user %j, for %j: %j', async (user, fallback, to, whose) => {
    const requests: ScanRequest[] = [];
    const checked = message({ envelope: envelope({ recipients: to.map((path) => `<${path}>`) }) });
    const options = fallback === undefined ? { user } : { user, default_user: fallback };
    await run(checked, { scanner: scanner(requests) }, options);
    expect(requests).toMatchObject([{ user: whose }]);
  });

  it('scans what goes out when it is told to, by login or by network, and asks for the score alone', async () => {
    const login = envelope({ direction: 'out', client: client({ login: 'zeus' }) });
    const network = envelope({ direction: 'out', client: client({ login: null }) });
    const scanned = async (options: object): Promise<string[]> => {
      const requests: ScanRequest[] = [];
      for (const from of [login, network])
        await run(message({ envelope: from }), { scanner: scanner(requests) }, options);
      return requests.map(({ message: { envelope: of }, wanted: what }) => `${of.client.login} ${what}`);
    };
    expect(await scanned({})).toEqual([]);
    expect(await scanned({ logins: true })).toEqual(['zeus score']);
    expect(await scanned({ own_networks: true })).toEqual(['null score']);
    expect(await scanned({ logins: true, own_networks: true })).toEqual(['zeus score', 'null score']);
  });

  it('wants a new body of incoming mail that was scanned whole', async () => {
    expect(await wanted({}, {})).toBe('rewriting');
    expect(await wanted({}, { rewrite_body: false })).toBe('fields');
    expect(await wanted({ received: true }, {})).toBe('rewriting');
    expect(await wanted({ envelope: envelope({ direction: 'out' }) }, {})).toBe('score');
    const large = message({ body: 'x'.repeat(2000) });
    expect(await wanted(large, { max_size: '1KiB', truncate: true })).toBe('fields');
  });

  it('wants one for the milter when all recipients do, for lmtp-filter when one does', async () => {
    const two = envelope({ recipients: ['<a@x.example>', '<b@x.example>'] });
    const both = { envelope: two };
    const behind = { envelope: two, received: true };
    expect(await wanted(both, {}, settings(true, true))).toBe('rewriting');
    expect(await wanted(both, {}, settings(true, false))).toBe('fields');
    expect(await wanted(behind, {}, settings(true, false))).toBe('rewriting');
    expect(await wanted(behind, {}, settings(false, false))).toBe('fields');
    const off = { rewrite_body: false };
    // The MTA was not told that the milter may replace bodies.
    expect(await wanted(both, off, settings(true, true))).toBe('fields');
    expect(await wanted(behind, off, settings(false, true))).toBe('rewriting');
    // Whose preferences decide is not one question for two users.
    expect(await wanted(both, { user: 'recipient' })).toBe('fields');
  });

  it('serves again for recipients who have the same user', () => {
    const check = spamCheck.bind({ user: 'recipient' }, 1000);
    const serves = (user: string | null, recipients: string[], changes: object = {}): boolean | undefined => {
      const scan = { ...HAM_SCAN, ...(user === null ? {} : { user }), ...changes };
      const checked = message({ envelope: envelope({ recipients }) });
      const { client: from, direction, sender } = checked.envelope;
      const facts = { client: from, direction, sender, message: checked };
      return check.serves?.(found('spam', spamFinding(scan)), facts, checkTools());
    };
    expect(serves('a@x.example', ['<a+b@x.example>', '<A@x.example>'])).toBe(true);
    expect(serves(null, ['<a@x.example>'])).toBe(false);
    expect(serves('a@x.example', ['<b@x.example>'])).toBe(false);
    expect(serves('a@x.example', ['<a@x.example>', '<b@x.example>'])).toBe(false);
    // A report can't be scanned for what it is about.
    expect(serves(null, ['<a@x.example>'], { rewritten: true })).toBe(true);
  });

  it('scans once for each user behind the milter, and says whose points they are', async () => {
    const requests: ScanRequest[] = [];
    const recipients = ['<a@x.example>', '<b@x.example>', '<a+c@x.example>'];
    const checked = message({ envelope: envelope({ recipients }), received: true });
    const [outcome] = await run(checked, { scanner: scanner(requests) }, { user: 'recipient' });
    expect(requests.map(({ user }) => user)).toEqual(['a@x.example', 'b@x.example']);
    expect(
      outcome?.kind === 'found' && outcome.findings.map((one) => [one.recipient, one.scan?.user]),
    ).toEqual([
      [0, 'a@x.example'],
      [2, 'a@x.example'],
      [1, 'b@x.example'],
    ]);
  });

  it.each([
    ['reject', 'spam.action-reject'],
    ['add header', 'spam.action-add-header'],
    ['soft reject', 'spam.action-soft-reject'],
    ['rewrite subject', 'spam.action-rewrite-subject'],
    ['greylist', 'spam.action-greylist'],
    ['quarantine', 'spam.action-other'],
  ])('gives what the scanner would do as a finding of its own: %s', async (action, code) => {
    const own: SpamScanner = { ...scanner(), scan: async () => ({ ...HAM_SCAN, action }) };
    expect(await run(message(), { scanner: own })).toMatchObject([
      { findings: [{ code: 'spam.scored' }, { code, detail: `the scanner says "${action}"` }] },
    ]);
    expect(Object.keys(spamCheck.codes)).toContain(code);
    expect(spamCheck.codes[code]?.action).toBe('ignore');
  });

  it('shows no field to the scanner that claims what only a scanner, the envelope or we can know', async () => {
    const { hide } = await requestFor(message());
    const hidden = [
      'X-Spam-Flag',
      'x-spam-prev-subject',
      'X-Envelope-From',
      'x-ENVELOPE-to',
      'X-Postern-Trace',
    ];
    const shown = ['Subject', 'Received', 'X-Spam', 'X-Envelope', 'Return-Path', ''];
    expect(hidden.filter((name) => !hide({ name, value: '' }))).toEqual([]);
    expect(shown.filter((name) => hide({ name, value: '' }))).toEqual([]);
  });
});

describe('what is shown above the message', () => {
  it('is envelope and last hop at the milter, which is not shown the MTA’s Received field', async () => {
    const checked = message({
      envelope: envelope({ recipients: ['<zeus@olimpus.example>', '<hera@olimpus.example>'] }),
    });
    expect((await requestFor(checked)).preamble).toEqual([
      { name: 'X-Envelope-From', value: ' <thor@valhalla.example>' },
      { name: 'X-Envelope-To', value: ' <zeus@olimpus.example>' },
      { name: 'X-Envelope-To', value: ' <hera@olimpus.example>' },
      {
        name: 'Received',
        value:
          ' from odin.valhalla.example (odin.valhalla.example [192.0.2.20])\r\n\tby mx.olimpus.example (Postfix) with ESMTP id 4ABCdef123z;\r\n\tSat, 21 Nov 2026 10:00:00 +0000\r\n\t(envelope-from <thor@valhalla.example>)',
      },
    ]);
  });

  it('is the sender alone where that field is shown', async () => {
    const checked = message({ received: true, envelope: envelope({ sender: '<>' }) });
    expect((await requestFor(checked)).preamble).toEqual([{ name: 'X-Envelope-From', value: ' <>' }]);
  });

  it.each([
    ['a client without a name', { name: null }, 'from odin.valhalla.example (unknown [192.0.2.20])'],
    ['IPv6', { address: '2001:db8::1' }, '[IPv6:2001:db8::1])'],
    ['TLS', { tls: { protocol: 'TLSv1.3', cipher: 'x', bits: 256 } }, ' with ESMTPS id '],
    [
      'a login',
      { login: 'th(o)r' },
      ' [192.0.2.20])\r\n\t(Authenticated sender: th?o?r)\r\n\tby mx.olimpus.example ',
    ],
    [
      'a login over TLS',
      { tls: { protocol: 'TLSv1.3', cipher: 'x', bits: 256 }, login: 'thor' },
      ' with ESMTPSA id ',
    ],
    [
      'a client without HELO',
      { helo: null },
      'from unknown (odin.valhalla.example [192.0.2.20])\r\n\tby mx.olimpus.example (Postfix) with SMTP id ',
    ],
    ['an address literal', { helo: '[192.0.2.20]' }, 'from [192.0.2.20] ('],
    ['an IPv6 literal', { helo: '[IPv6:2001:db8::1]' }, 'from [IPv6:2001:db8::1] ('],
    ['an empty HELO', { helo: '' }, 'from unknown ('],
  ])('tells of %s', async (_, values, part) => {
    const { preamble } = await requestFor(message({ envelope: envelope({ client: client(values) }) }));
    expect(preamble.at(-1)?.value).toContain(part);
  });

  it('has no last hop to tell of for a client without an address', async () => {
    const { preamble } = await requestFor(
      message({ envelope: envelope({ client: client({ address: '' }), queueId: null }) }),
    );
    expect(preamble.at(-1)?.value).toMatch(/^ by mx\.olimpus\.example \(Postfix\) with ESMTP;\r\n\t/);
  });

  it('can not be broken out of by what the client chose', async () => {
    const evil = 'x]) by mx.olimpus.example; (\r\nX-Injected: 1\r\n\r\nbody \\ "é" <a@b>';
    const checked = message({
      envelope: envelope({
        sender: `<${evil}@${evil}>`,
        recipients: [`<${evil}>`],
        client: client({ helo: evil, name: evil, address: evil }),
        queueId: evil,
      }),
    });
    const { preamble } = await requestFor(checked);
    for (const { value } of preamble) expect(value.replaceAll(/\r\n\t/g, '')).toMatch(/^[ -~]*$/);
    for (const { value } of preamble.slice(0, -1)) expect(value).toMatch(/^ <[^<>]*>$/);
    const received = preamble.at(-1)?.value ?? '';
    expect(received.replaceAll(/[^()[\]]/g, '')).toBe('([])()()');
    expect(received.match(/;/g)).toEqual([';']);
  });

  it('is bounded', async () => {
    const recipients = Array.from({ length: 101 }, (_, index) => `<${index}@olimpus.example>`);
    const long = 'x'.repeat(5000);
    const checked = message({
      envelope: envelope({ recipients, sender: `<${long}>`, client: client({ helo: long, name: long }) }),
    });
    const { preamble } = await requestFor(checked);
    expect(preamble.filter(({ name }) => name === 'X-Envelope-To')).toHaveLength(100);
    for (const { name, value } of preamble)
      for (const line of `${name}:${value}`.split('\r\n')) expect(line.length).toBeLessThanOrEqual(998);
  });
});

describe('spamFinding', () => {
  it('shows score, threshold and rules', () => {
    expect(spamFinding(HAM_SCAN)).toEqual({
      code: 'spam.scored',
      detail: '1.0 of 5.0 points (MSGID_SHORT,NO_RECEIVED,NO_RELAYS,PP_MIME_FAKE_ASCII_TEXT)',
      score: 1,
      scan: HAM_SCAN,
    });
  });

  it('shows no more than twenty rules', () => {
    const rules = Array.from({ length: 22 }, (_, index) => `R${index}`);
    expect(spamFinding({ ...HAM_SCAN, rules }).detail).toMatch(/R19 and 2 more\)$/);
    expect(spamFinding({ ...HAM_SCAN, rules: rules.slice(0, 20) }).detail).toMatch(/R19\)$/);
    expect(spamFinding({ ...HAM_SCAN, rules: [] }).detail).toBe('1.0 of 5.0 points (no rule hit)');
  });
});
