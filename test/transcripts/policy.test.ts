import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { dial } from '../support/players/dial.ts';
import { metric } from '../support/metric.ts';
import { spfFinding, startPolicyd, type Running, type Word } from '../unit/policyd/support.ts';

/**
 * What Postfix 3.7.11 sent to a policy server that answered DUNNO, byte for byte. In policy-delay-yes (smtpd_delay_reject=yes, the
 * default) and policy-delay-no the server stands in the client, HELO, sender, recipient, data, end-of-data and ETRN
 * restrictions; an SMTP session of VRFY, ETRN, a message to two recipients and a bounce.
 */
type Transcript = 'policy-delay-yes' | 'policy-delay-no' | 'policy-noptr-ipv6' | 'policy-submission';

async function requestsOf(transcript: Transcript): Promise<Buffer[]> {
  const bytes = await readFile(join(import.meta.dirname, 'data', transcript, 'requests.txt'));
  const requests: Buffer[] = [];
  for (let from = 0; from < bytes.length;) {
    const end = bytes.indexOf('\n\n', from) + 2;
    requests.push(bytes.subarray(from, end));
    from = end;
  }
  return requests;
}

/** The ways the same bytes can come. */
const CUTS = {
  'request by request': (requests: Buffer[]) => requests,
  'in one piece': (requests: Buffer[]) => [Buffer.concat(requests)],
  'byte by byte': (requests: Buffer[]) => Array.from(Buffer.concat(requests), (byte) => Buffer.of(byte)),
} as const;
type Cut = keyof typeof CUTS;
const ALL_CUTS: readonly Cut[] = ['request by request', 'in one piece', 'byte by byte'];

/** The actions, each without its trace id, and with the name and result of a header field only. */
async function replay(running: Running, transcript: Transcript, cut: Cut): Promise<string[]> {
  const socket = await dial(running.target);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  const closed = once(socket, 'close');
  for (const chunk of CUTS[cut](await requestsOf(transcript))) socket.write(chunk);
  socket.end();
  await closed;
  const text = Buffer.concat(chunks).toString('latin1');
  expect(text).toMatch(/^(?:action=[\x20-\x7e]+\n\n)+$/);
  return text
    .split('\n\n')
    .slice(0, -1)
    .map((reply) => /^action=(PREPEND Received-SPF: \w+|\w+(?: \d\.\d\.\d+)?)/.exec(reply)?.[1] ?? reply);
}

async function started(word: Word): Promise<Running> {
  const running = await startPolicyd();
  running.spf.run = (facts) => Promise.resolve([spfFinding(word, facts)]);
  return running;
}

function times(count: number, action: string): string[] {
  return Array.from({ length: count }, () => action);
}

const PASS = 'PREPEND Received-SPF: pass';

describe.for(ALL_CUTS)('%s', (cut) => {
  test.for<[Transcript, Word, string[]]>([
    [
      'policy-delay-yes',
      'pass',
      [...times(6, 'DUNNO'), PASS, ...times(9, 'DUNNO'), PASS, ...times(5, 'DUNNO')],
    ],
    ['policy-delay-yes', 'fail', [...times(6, 'DUNNO'), ...times(16, '550 5.7.23')]],
    [
      'policy-delay-yes',
      'temperror',
      [
        ...times(6, 'DUNNO'),
        ...times(8, 'DEFER_IF_PERMIT 4.7.24'),
        ...times(2, '451 4.7.24'),
        ...times(4, 'DEFER_IF_PERMIT 4.7.24'),
        ...times(2, '451 4.7.24'),
      ],
    ],
    [
      'policy-delay-no',
      'pass',
      [...times(4, 'DUNNO'), PASS, ...times(4, 'DUNNO'), PASS, ...times(3, 'DUNNO')],
    ],
    ['policy-delay-no', 'fail', [...times(4, 'DUNNO'), ...times(9, '550 5.7.23')]],
    ['policy-noptr-ipv6', 'pass', [PASS, PASS]],
    ['policy-submission', 'fail', times(3, 'DUNNO')],
  ])('%s, SPF %s', async ([transcript, word, expected]) => {
    await using running = await started(word);
    expect(await replay(running, transcript, cut)).toEqual(expected);
    // One check for each message from outside.
    const messages = {
      'policy-delay-yes': 2,
      'policy-delay-no': 2,
      'policy-noptr-ipv6': 2,
      'policy-submission': 0,
    };
    expect(running.spf.asked).toHaveLength(messages[transcript]);
  });
});

test('what is recorded of a message to two recipients and a bounce, with seven lists asking', async () => {
  await using running = await started('pass');
  await replay(running, 'policy-delay-yes', 'request by request');
  expect(running.tools.store.decisions).toMatchObject([
    {
      stage: 'rcpt',
      sender: 'thor@valhalla.local',
      recipients: ['zeus@olimpus.local'],
      size: 1000,
      queueId: null,
      helo: 'odin.valhalla.local',
      client: '192.0.2.20',
    },
    { stage: 'rcpt', sender: '', recipients: ['zeus@olimpus.local'], size: null },
  ]);
  expect(running.tools.store.opened).toEqual([
    {
      session: '192.0.2.20:40235',
      sender: 'thor@valhalla.local',
      instance: '2772.6b0151c5.f1a3e.0',
      queueId: null,
    },
    { session: '192.0.2.20:40235', sender: '', instance: '2772.6b0151c6.36be.1', queueId: null },
  ]);
});

test('what is recorded when both recipients, and then the bounce, are refused', async () => {
  await using running = await started('fail');
  await replay(running, 'policy-delay-yes', 'request by request');
  const recorded = running.tools.store.decisions.map(({ stage, recipients }) =>
    [stage, ...recipients].join(' '),
  );
  expect(recorded).toEqual([
    'rcpt zeus@olimpus.local',
    'rcpt hera@olimpus.local',
    'data',
    'end-of-message',
    'rcpt zeus@olimpus.local',
  ]);
});

test('with smtpd_delay_reject=no there is a record of MAIL, and one with the recipient', async () => {
  await using running = await started('pass');
  await replay(running, 'policy-delay-no', 'request by request');
  const recorded = running.tools.store.decisions.map(({ stage, recipients }) =>
    [stage, ...recipients].join(' '),
  );
  expect(recorded).toEqual(['mail', 'rcpt zeus@olimpus.local', 'mail', 'rcpt zeus@olimpus.local']);
});

test('a client without a name, by IPv6; a quoted local part, which Postfix tells unquoted', async () => {
  await using running = await started('pass');
  await replay(running, 'policy-noptr-ipv6', 'request by request');
  expect(running.spf.asked).toMatchObject([
    { client: { address: '2001:db8::66', port: 57_893, name: null, reverseName: null, helo: 'x' } },
    {
      client: { address: '192.0.2.68', name: null, reverseName: 'forged.valhalla.local', helo: 'forged' },
      sender: { address: { raw: '"a b"@valhalla.local', local: 'a b', domain: 'valhalla.local' } },
    },
  ]);
  const recipients = running.tools.store.decisions.map((decision) => decision.recipients);
  expect(recipients).toEqual([['zeus@olimpus.local'], ['hera+tag@olimpus.local']]);
});

test('submitted mail is outgoing, with its login', async () => {
  await using running = await started('fail');
  await replay(running, 'policy-submission', 'request by request');
  expect(running.tools.store.decisions).toMatchObject([
    { direction: 'out', login: 'zeus@olimpus.local', recipients: ['thor@valhalla.local'], verdict: 'accept' },
  ]);
});

test('requests are counted by state', async () => {
  await using running = await started('pass');
  await replay(running, 'policy-delay-no', 'in one piece');
  const counts: Record<string, number | undefined> = {};
  for (const [state, action] of [
    ['CONNECT', 'DUNNO'],
    ['EHLO', 'DUNNO'],
    ['VRFY', 'DUNNO'],
    ['ETRN', 'DUNNO'],
    ['MAIL', 'PREPEND'],
    ['RCPT', 'DUNNO'],
    ['DATA', 'DUNNO'],
    ['END-OF-MESSAGE', 'DUNNO'],
  ] as const) {
    counts[state] = await metric(running.tools.registry, 'postern_policyd_requests_total', { state, action });
  }
  expect(counts).toEqual({
    CONNECT: 1,
    EHLO: 1,
    VRFY: 1,
    ETRN: 1,
    MAIL: 2,
    RCPT: 3,
    DATA: 2,
    'END-OF-MESSAGE': 2,
  });
});
