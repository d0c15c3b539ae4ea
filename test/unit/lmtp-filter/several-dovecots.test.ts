import { expect, test } from 'vitest';

import { UpstreamPool, type UpstreamObserver } from '../../../src/lmtp-filter/upstream.ts';
import { Upstreams } from '../../../src/lmtp-filter/upstreams.ts';
import { settingsKey } from '../../../src/mail/address.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Directory } from '../../../src/ports/directory.ts';
import { NO_DIRECTORY } from '../../support/checks.ts';
import { metric } from '../../support/metric.ts';
import { FakeDovecot } from '../../support/players/fake-dovecot.ts';
import { letter, startFilter, type Running } from './support.ts';

const QUIET: UpstreamObserver = {
  connected: () => {},
  failed: () => {},
  open: () => {},
  health: () => {},
  forget: () => {},
};

function upstreams(ports: readonly number[]): Upstreams {
  return new Upstreams(
    ports.map((port) => {
      const address = { kind: 'tcp', host: '192.0.2.1', port } as const;
      return new UpstreamPool({ address, timeoutMs: 1000, hostname: 'mx', tls: null }, QUIET);
    }),
  );
}

/** Which mailbox goes where. */
function placed(ports: readonly number[], count = 900): Map<string, string> {
  const all = upstreams(ports);
  const mailboxes = Array.from({ length: count }, (_, n) => `user${n}@olimpus.local`);
  return new Map(mailboxes.map((mailbox) => [mailbox, all.poolFor(mailbox).name]));
}

test('each mailbox has one Dovecot, whatever the order they are named in, and all have about as many', () => {
  const before = placed([1, 2, 3]);
  expect(placed([3, 1, 2])).toEqual(before);
  for (const port of [1, 2, 3]) {
    const own = [...before.values()].filter((name) => name === `192.0.2.1:${port}`).length;
    expect(own).toBeGreaterThan(220);
    expect(own).toBeLessThan(380);
  }
});

test('when one is taken away, no mailbox of another moves', () => {
  const before = placed([1, 2, 3]);
  const after = placed([1, 3]);
  const moved = Array.from(before).filter(([mailbox, name]) => after.get(mailbox) !== name);
  expect(moved).toEqual(Array.from(before).filter(([, name]) => name === '192.0.2.1:2'));
});

/** Aliases by address; what is not one is a mailbox of its own. */
function directoryOf(aliases: Readonly<Record<string, string>>): Directory {
  return {
    ...NO_DIRECTORY,
    destination: (address) => ({
      kind: 'delivered',
      mailboxes: [aliases[settingsKey(address)] ?? settingsKey(address)],
      elsewhere: false,
    }),
  };
}

interface Pair extends AsyncDisposable {
  readonly running: Running;
  readonly dovecots: readonly FakeDovecot[];
  /** A user of each. */
  readonly users: readonly string[];
}

async function startPair(aliases: Readonly<Record<string, string>> = {}, keys = ''): Promise<Pair> {
  const dovecots = [await FakeDovecot.open(), await FakeDovecot.open()] as const;
  const directory = directoryOf(aliases);
  const running = await startFilter({ dovecot: dovecots[0], dovecots: [dovecots[1]], directory, keys });
  const pools = dovecots.map(({ port }) => {
    const address = { kind: 'tcp', host: '127.0.0.1', port } as const;
    return new UpstreamPool({ address, timeoutMs: 1000, hostname: 'mx', tls: null }, QUIET);
  });
  const both = new Upstreams(pools);
  const users = dovecots.map((dovecot) => {
    const own = Array.from({ length: 100 }, (_, n) => `u${n}@olimpus.local`).find(
      (user) => both.poolFor(user).name === `127.0.0.1:${dovecot.port}`,
    );
    if (own === undefined) throw new Error('no user of a hundred');
    return own;
  });
  return {
    running,
    dovecots,
    users,
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]();
      await dovecots[1][Symbol.asyncDispose]();
    },
  };
}

async function deliver(running: Running, to: readonly string[]): Promise<readonly string[]> {
  await using client = await running.client();
  client.send(
    `MAIL FROM:<thor@valhalla.local>\r\n${to.map((user) => `RCPT TO:<${user}>\r\n`).join('')}DATA\r\n`,
  );
  expect(await client.reply()).toBe('250 2.1.0 OK');
  const rcpt = await client.replies(to.length);
  const go = await client.reply();
  if (!go.startsWith('354')) return rcpt;
  client.send(`${letter()}.\r\nQUIT\r\n`);
  const rest = await client.rest();
  expect(rest.at(-1)).toBe('221 2.0.0 Bye');
  const dot = rest.slice(0, -1)[Symbol.iterator]();
  return rcpt.map((reply) => (reply.startsWith('2') ? (dot.next().value ?? 'none') : reply));
}

test('recipients of one message go to their own Dovecot, each once, and the replies come in the order of RCPT', async () => {
  await using pair = await startPair();
  const [first = '', second = ''] = pair.users;
  const replies = await deliver(pair.running, [second, first, second]);
  expect(replies.map((reply) => /^250 2\.0\.0 <(.*)> /.exec(reply)?.[1])).toEqual([second, first, second]);
  expect(pair.dovecots.map(({ mails }) => mails.map(({ to }) => to))).toEqual([
    [[`<${first}>`]],
    [[`<${second}>`, `<${second}>`]],
  ]);
});

test('an alias and a subaddress go where the mailbox is', async () => {
  await using pair = await startPair({ 'postmaster@olimpus.local': 'U7@Olimpus.local' });
  const replies = await deliver(pair.running, [
    'postmaster@olimpus.local',
    'u7+list@olimpus.local',
    'u7@olimpus.local',
  ]);
  expect(replies.map((reply) => reply.slice(0, 3))).toEqual(['250', '250', '250']);
  expect(pair.dovecots.map(({ mails }) => mails.length).toSorted((a, b) => a - b)).toEqual([0, 1]);
});

test('one Dovecot that is away keeps nobody else’s mail, and nobody stands in for it', async () => {
  await using pair = await startPair();
  const [first = '', second = ''] = pair.users;
  await pair.dovecots[1]?.[Symbol.asyncDispose]();
  const replies = await deliver(pair.running, [second, first]);
  expect(replies[0]).toMatch(/^451 4\.4\.1 /);
  expect(replies[1]).toMatch(/^250 2\.0\.0 /);
  const { registry } = pair.running.tools;
  const up = (await registry.metrics())
    .split('\n')
    .filter((line) => line.startsWith('postern_lmtp_upstream_up{'));
  expect(up).toEqual([
    `postern_lmtp_upstream_up{upstream="127.0.0.1:${pair.dovecots[0]?.port}"} 1`,
    expect.stringMatching(/ 0$/),
  ]);
});

test('one that is lost after the dot has its recipients deferred, and only they are counted', async () => {
  await using pair = await startPair();
  const [first = '', second = ''] = pair.users;
  const [, other] = pair.dovecots;
  if (other !== undefined) other.fault = ({ step }) => (step === 'dot' ? { after: 'close' } : null);
  const replies = await deliver(pair.running, [first, second]);
  expect(replies[0]).toMatch(/^250 2\.0\.0 /);
  expect(replies[1]).toMatch(/^451 4\.4\.2 /);
  expect(await metric(pair.running.tools.registry, 'postern_lmtp_possible_duplicates_total')).toBe(1);
});

test('where a mailbox is must be known: without the directory its mail waits', async () => {
  const down: Directory = {
    ...NO_DIRECTORY,
    destination: () => Promise.reject(new NeighbourError('the directory is away')),
  };
  await using dovecot = await FakeDovecot.open();
  await using running = await startFilter({ dovecots: [dovecot], directory: down });
  expect(await deliver(running, ['zeus@olimpus.local'])).toEqual([expect.stringMatching(/^451 4\.3\.0 /)]);
  expect(running.dovecot.mails.length + dovecot.mails.length).toBe(0);
});

test('SMTPUTF8 is announced when all have it, and RSET ends the transaction with each', async () => {
  await using pair = await startPair();
  const [, other] = pair.dovecots;
  for (const dovecot of pair.dovecots) dovecot.capabilities = [...dovecot.capabilities, 'SMTPUTF8'];
  await using client = await pair.running.client();
  expect(await client.ask('LHLO x')).toContain('SMTPUTF8');
  await client.ask('MAIL FROM:<thor@valhalla.local>');
  for (const user of pair.users) expect(await client.ask(`RCPT TO:<${user}>`)).toMatch(/^250 /);
  expect(await client.ask('RSET')).toMatch(/^250 /);
  for (const { commands } of pair.dovecots) expect(commands.at(-1)).toBe('RSET');

  await using plain = await startPair();
  const [some] = plain.dovecots;
  if (some !== undefined) some.capabilities = [...some.capabilities, 'SMTPUTF8'];
  await using second = await plain.running.client();
  expect(await second.ask('LHLO x')).not.toContain('SMTPUTF8');
  expect(other?.connections).toBe(1);
});
