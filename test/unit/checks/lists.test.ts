import { describe, expect, test } from 'vitest';

import { CHECKS } from '../../../src/checks/index.ts';
import { listsCheck } from '../../../src/checks/lists.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import {
  MAILBOX_LIMIT,
  RECIPIENT_LIMIT,
  settingsCheck,
  settingsRcptCheck,
} from '../../../src/checks/settings.ts';
import { parseMailbox } from '../../../src/mail/address.ts';
import type { Account, Destination, Directory } from '../../../src/ports/directory.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Finding, Outcome } from '../../../src/verdict/finding.ts';
import { checkTools, NO_DIRECTORY } from '../../support/checks.ts';
import { envelope } from '../../support/mail.ts';
import { found, unavailable } from '../../support/judgement.ts';
import { messageFacts } from './auth-facts.ts';

const NOTHING: Account = { limits: new Map(), senders: [] };

/** Accounts by name, and aliases by address. */
function directoryOf(
  accounts: Readonly<Record<string, Partial<Account>>>,
  aliases: Readonly<Record<string, Destination>> = {},
): Directory {
  return {
    ...NO_DIRECTORY,
    keepsSettings: true,
    destination: ({ raw }) => aliases[raw] ?? { kind: 'unknown' },
    account: (name) => ({ ...NOTHING, ...accounts[name] }),
  };
}

function to(mailboxes: readonly string[], elsewhere = false): Destination {
  return { kind: 'delivered', mailboxes, elsewhere };
}

interface World {
  readonly recipients?: readonly string[];
  readonly headers?: string;
  readonly sender?: string;
  readonly received?: boolean;
  /** Made before: spf, dkim, dmarc. */
  readonly proof?: readonly Outcome[];
  readonly options?: unknown;
}

async function made(directory: Directory, world: World = {}): Promise<readonly Outcome[]> {
  const facts = messageFacts({
    headers: world.headers ?? 'From: Thor <thor@valhalla.example>\r\n',
    received: world.received ?? false,
    envelope: envelope({
      recipients: (world.recipients ?? ['zeus@olimpus.example']).map((address) => `<${address}>`),
      sender: `<${world.sender ?? 'thor@valhalla.example'}>`,
    }),
  });
  const checks = [settingsCheck.bind(world.options ?? {}, 5000), listsCheck.bind({}, 5000)];
  const run = new CheckRun(checks, checkTools({ directory }), 'in');
  run.assume(world.proof ?? []);
  run.startMail(facts);
  run.startMessage(facts);
  return await run.settle();
}

function findings(all: readonly Outcome[], check: string): readonly Finding[] {
  const outcome = all.find((one) => one.check === check);
  return outcome?.kind === 'found' ? outcome.findings : [];
}

function listed(all: readonly Outcome[]): readonly string[] {
  return findings(all, 'lists').map(({ code, recipient }) => `${recipient} ${code}`);
}

const DMARC_PASS = found('dmarc', {
  code: 'dmarc.pass',
  detail: '',
  auth: { method: 'dmarc', result: 'pass', properties: [['header.from', 'valhalla.example']] },
});
const DMARC_FAIL = found('dmarc', { code: 'dmarc.fail', detail: '' });
const DMARC_NONE = found('dmarc', { code: 'dmarc.none', detail: '' });

function spfPass(domain: string): Outcome {
  const properties = [['smtp.mailfrom', `thor@${domain}`]] as const;
  return found('spf', { code: 'spf.pass', detail: '', auth: { method: 'spf', result: 'pass', properties } });
}

function dkimPass(domain: string): Outcome {
  const properties = [['header.d', domain]] as const;
  return found('dkim', {
    code: 'dkim.pass',
    detail: '',
    auth: { method: 'dkim', result: 'pass', properties },
  });
}

async function tagOf(account: Partial<Account>): Promise<unknown> {
  const directory = directoryOf({ 'zeus@olimpus.example': { thresholds: { tag: 1 }, ...account } });
  const options = { subject_tags: { es: '[NO]' } };
  return findings(await made(directory, { options }), 'settings')[0]?.settings?.[0]?.subjectTag;
}

const THOR = ['thor@valhalla.example'];

/** What the lists of an account come to for Thor's letter. */
async function judged(account: Partial<Account>, proof = [DMARC_PASS]): Promise<readonly string[]> {
  return listed(await made(directoryOf({ 'zeus@olimpus.example': account }), { proof }));
}

async function atRcpt(directory: Directory, sender = 'thor@valhalla.example'): Promise<readonly Outcome[]> {
  const check = settingsRcptCheck.bind({}, 3000);
  const { client, direction, sender: path } = envelope({ sender: sender === '<>' ? '<>' : `<${sender}>` });
  const run = new CheckRun([check], checkTools({ directory }), 'in');
  const recipient = parseMailbox('zeus@olimpus.example');
  const identity = { trace: 'abcdefghijklmnop' };
  return await run.rcpt({ client, direction, sender: path, recipient, size: null, identity, accepted: [] });
}

describe('settings', () => {
  test('nothing is found where nothing is set', async () => {
    expect(findings(await made(directoryOf({})), 'settings')).toEqual([]);
  });

  test('user, extension, alias, alias of several, and one that leaves', async () => {
    const directory = directoryOf(
      {
        'zeus@olimpus.example': { thresholds: { reject: 8 }, subjectTag: false },
        'hera@olimpus.example': { language: 'es-mx', rewriteBody: true },
      },
      {
        'info@olimpus.example': to(['zeus@olimpus.example']),
        'all@olimpus.example': to(['zeus@olimpus.example', 'hera@olimpus.example'], true),
      },
    );
    const recipients = ['ZEUS+x@olimpus.example', 'info@olimpus.example', 'all@olimpus.example'];
    const options = { subject_tags: { es: '[NO]', 'es-mx-x': '[X]' } };
    const all = findings(await made(directory, { recipients, options }), 'settings');
    const zeus = { mailbox: 'zeus@olimpus.example', thresholds: { reject: 8 }, subjectTag: '' };
    const hera = { mailbox: 'hera@olimpus.example', subjectTag: '[NO]', rewriteBody: true };
    expect(all.map(({ recipient, settings }) => [recipient, settings])).toEqual([
      [0, [zeus]],
      [1, [zeus]],
      [2, [zeus, hera, { mailbox: null }]],
    ]);
    expect(all[0]?.detail).toBe('zeus@olimpus.example: reject 8, subject tag ""');
  });

  test('behind aliases an address that is a mailbox stands for itself', async () => {
    const directory = directoryOf(
      {
        'zeus@olimpus.example': { thresholds: { tag: 1 } },
        'hera@olimpus.example': { thresholds: { tag: 2 } },
      },
      { 'zeus@olimpus.example': to(['zeus@olimpus.example', 'hera@olimpus.example'], true) },
    );
    const settings = async (received: boolean): Promise<unknown> =>
      findings(await made(directory, { received }), 'settings')[0]?.settings?.map(({ mailbox }) => mailbox);
    expect(await settings(true)).toEqual(['zeus@olimpus.example']);
    expect(await settings(false)).toEqual(['zeus@olimpus.example', 'hera@olimpus.example', null]);
  });

  test('a tag of its own, yes for the site’s, and a language without a tag', async () => {
    expect(await tagOf({ subjectTag: '[Z]', language: 'es' })).toBe('[Z]');
    expect(await tagOf({ subjectTag: true, language: 'es' })).toBe('[NO]');
    expect(await tagOf({ subjectTag: true })).toBeUndefined();
    expect(await tagOf({ language: 'de' })).toBeUndefined();
    expect(await tagOf({ language: 'constructor' })).toBeUndefined();
  });

  test('a directory that is away is for the rule of the check to say; the lists follow it', async () => {
    const away: Directory = {
      ...directoryOf({}),
      account: () => Promise.reject(new NeighbourError('it is away')),
    };
    expect(await made(away)).toMatchObject([
      { kind: 'unavailable', check: 'settings', reason: 'neighbour', detail: 'it is away' },
      { kind: 'unavailable', check: 'lists', reason: 'needs', detail: 'it is away' },
    ]);
    const rules = Object.fromEntries(CHECKS.map(({ name, unavailable: rule }) => [name, rule]));
    expect(rules).toMatchObject({ settings: 'defer', lists: 'ignore', 'settings-rcpt': 'ignore' });
  });

  test('as many recipients, and mailboxes of an alias, as there may be, and one more', async () => {
    const set = { thresholds: { tag: 1 } };
    const everybody: Directory = {
      ...directoryOf({}, {}),
      destination: ({ raw }) =>
        raw.startsWith('all')
          ? to(
              Array.from(
                { length: Number(raw.slice(3, raw.indexOf('@'))) },
                (_, index) => `u${index}@x.example`,
              ),
            )
          : { kind: 'unknown' },
      account: () => ({ ...NOTHING, ...set }),
    };
    const recipients = Array.from({ length: RECIPIENT_LIMIT + 1 }, (_, index) => `u${index}@x.example`);
    expect(findings(await made(everybody, { recipients }), 'settings')).toHaveLength(RECIPIENT_LIMIT);
    const aliases = [MAILBOX_LIMIT, MAILBOX_LIMIT + 1].map((count) => `all${count}@x.example`);
    const [only, ...others] = findings(await made(everybody, { recipients: aliases }), 'settings');
    expect(only?.settings).toHaveLength(MAILBOX_LIMIT);
    expect(others).toEqual([]);
  });

  test('what was found before aliases were followed is not used behind them', () => {
    const kept = found('settings', { code: 'settings.own', detail: '' });
    for (const check of [settingsCheck, listsCheck])
      expect(check.bind({}, 5000).serves?.(kept, messageFacts(), checkTools())).toBe(false);
  });

  test('the same account is asked for once', async () => {
    const asked: string[] = [];
    const directory: Directory = {
      ...directoryOf({}),
      account: (name) => {
        asked.push(name);
        return Promise.resolve(NOTHING);
      },
    };
    await made(directory, {
      recipients: ['zeus+a@olimpus.example', 'Zeus@olimpus.example', 'hera@olimpus.example'],
    });
    expect(asked).toEqual(['zeus@olimpus.example', 'hera@olimpus.example']);
  });
});

describe('an allow list', () => {
  const ZEUS = directoryOf({ 'zeus@olimpus.example': { allow: ['Thor@Valhalla.example'] } });

  test.each([
    ['DMARC passes for From', [DMARC_PASS], 'allow'],
    [
      'there is no policy, and a signature of the domain',
      [DMARC_NONE, dkimPass('valhalla.example')],
      'allow',
    ],
    ['there is no policy, and SPF of the domain', [DMARC_NONE, spfPass('valhalla.example')], 'allow'],
    ['DMARC is not checked, and a signature', [dkimPass('valhalla.example')], 'allow'],
    ['nothing is known', [], 'allow-unproven'],
    ['there is no policy, and nothing else', [DMARC_NONE], 'allow-unproven'],
    ['a signature of somebody else', [DMARC_NONE, dkimPass('loki.example')], 'allow-unproven'],
    ['a signature of a subdomain', [DMARC_NONE, dkimPass('x.valhalla.example')], 'allow-unproven'],
    ['a signature of a domain of one label', [DMARC_NONE, dkimPass('example')], 'allow-unproven'],
    ['DMARC fails, whatever else passes', [DMARC_FAIL, dkimPass('valhalla.example')], 'allow-unproven'],
    ['DMARC fails, with SPF of the envelope', [DMARC_FAIL, spfPass('valhalla.example')], 'allow-unproven'],
    ['DMARC could not be checked', [unavailable('dmarc'), dkimPass('valhalla.example')], 'allow-unproven'],
  ])('%s', async (_, proof, word) => {
    expect(listed(await made(ZEUS, { proof }))).toEqual([`0 lists.${word}`]);
  });

  test('waives the score, and says whose setting it is', async () => {
    const [finding] = findings(await made(ZEUS, { proof: [DMARC_PASS] }), 'lists');
    expect(finding).toEqual({
      code: 'lists.allow',
      detail: 'thor@valhalla.example: proven, and wanted by zeus@olimpus.example',
      recipient: 0,
      setting: 'directory',
      waives: ['spam'],
    });
  });

  test('an entry for another address in From counts for that one alone', async () => {
    const headers = 'From: Loki <loki@loki.example>\r\n';
    // The envelope is Thor's, by SPF, and nobody says that Loki's From is forged.
    expect(listed(await made(ZEUS, { headers, proof: [DMARC_NONE, spfPass('valhalla.example')] }))).toEqual([
      '0 lists.allow',
    ]);
    const forged = { headers: 'From: thor@valhalla.example\r\n', sender: 'loki@loki.example' };
    expect(listed(await made(ZEUS, { ...forged, proof: [DMARC_NONE, spfPass('loki.example')] }))).toEqual([
      '0 lists.allow-unproven',
    ]);
  });
});

describe('lists', () => {
  test.each([
    ['thor@valhalla.example', true],
    ['THOR@VALHALLA.EXAMPLE', true],
    ['@valhalla.example', true],
    ['valhalla.example', true],
    ['*@valhalla.example', true],
    ['*@*.example', true],
    ['.example', true],
    ['*', true],
    ['odin@valhalla.example', false],
    ['@halla.example', false],
    ['halla.example', false],
    ['thor', false],
  ])('block = %s', async (entry, hit) => {
    const all = await made(directoryOf({ 'zeus@olimpus.example': { block: [entry] } }));
    expect(listed(all)).toEqual(hit ? ['0 lists.block'] : []);
  });

  test('letters beyond ASCII are octets, in the list and in the message', async () => {
    const octets = Buffer.from('jörg@bücher.example', 'utf8').toString('latin1');
    for (const entry of [octets, octets.replace('j', '*')]) {
      const all = await made(directoryOf({ 'zeus@olimpus.example': { block: [entry] } }), { sender: octets });
      expect(listed(all)).toEqual(['0 lists.block']);
    }
  });

  test('own ones before those of the domain, and wanted before not wanted', async () => {
    expect(await judged({ allow: THOR, block: ['*'] })).toEqual(['0 lists.allow']);
    expect(await judged({ block: THOR, domainLists: { allow: THOR } })).toEqual(['0 lists.block']);
    expect(await judged({ allow: THOR, domainLists: { block: THOR } })).toEqual(['0 lists.allow']);
    expect(await judged({ domainLists: { block: THOR } })).toEqual(['0 lists.block']);
    // What is not proven lets nothing past a block.
    expect(await judged({ allow: THOR, block: ['*'] }, [DMARC_FAIL])).toEqual(['0 lists.block']);
    expect(await judged({ allow: THOR, domainLists: { block: ['*'] } }, [DMARC_FAIL])).toEqual([
      '0 lists.block',
    ]);
  });

  test('of an alias for several: wanted by one is wanted, blocked by all is blocked', async () => {
    const recipients = ['some@x.example', 'none@x.example', 'away@x.example', 'mixed@x.example'];
    const directory = directoryOf(
      { 'a@x.example': { allow: THOR }, 'b@x.example': { block: THOR }, 'c@x.example': { block: THOR } },
      {
        'some@x.example': to(['a@x.example', 'b@x.example']),
        'none@x.example': to(['b@x.example', 'c@x.example']),
        'away@x.example': to(['b@x.example'], true),
        'mixed@x.example': to(['b@x.example', 'd@x.example']),
      },
    );
    expect(listed(await made(directory, { recipients, proof: [DMARC_PASS] }))).toEqual([
      '0 lists.allow',
      '1 lists.block',
    ]);
  });
});

describe('at RCPT', () => {
  test.each([
    [{ block: ['@valhalla.example'] }, 'thor@valhalla.example', ['settings-rcpt.own', 'settings-rcpt.block']],
    [{ allow: ['@valhalla.example'] }, 'thor@valhalla.example', ['settings-rcpt.own', 'settings-rcpt.allow']],
    [{ block: ['*'] }, '<>', ['settings-rcpt.own']],
    [{ block: ['@loki.example'] }, 'thor@valhalla.example', ['settings-rcpt.own']],
    [{}, 'thor@valhalla.example', []],
  ])('%j and %s: %j', async (account, sender, codes) => {
    const [one] = await atRcpt(directoryOf({ 'zeus@olimpus.example': account }), sender);
    expect(one?.kind === 'found' && one.findings.map(({ code }) => code)).toEqual(codes);
    // policyd decides about one recipient at a time.
    expect(one?.kind === 'found' && one.findings.some(({ recipient }) => recipient !== undefined)).toBe(
      false,
    );
  });
});
