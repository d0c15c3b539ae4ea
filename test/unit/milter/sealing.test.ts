import { generateKeyPairSync } from 'node:crypto';

import { expect, test } from 'vitest';

import { messageCheck, type CheckDefinition } from '../../../src/checks/check.ts';
import type { Directory } from '../../../src/ports/directory.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import { arcWithMailauth } from '../../support/arc-oracle.ts';
import { checkTools, NO_DIRECTORY } from '../../support/checks.ts';
import { metric } from '../../support/metric.ts';
import { applyAsPostfix, MilterClient, type MilterMail } from '../../support/players/milter-client.ts';
import { mail, startMilter, stubChecks, testTools, type Running } from './support.ts';

const RSA = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ED25519 = generateKeyPairSync('ed25519');
const FILES = {
  'rsa.private': String(RSA.privateKey.export({ type: 'pkcs8', format: 'pem' })),
  'ed.private': String(ED25519.privateKey.export({ type: 'pkcs8', format: 'pem' })),
};
const RECORD = `v=DKIM1; k=rsa; p=${RSA.publicKey.export({ type: 'spki', format: 'der' }).toString('base64')}`;
const KEYS = ['ed', 'rsa']
  .map(
    (name) => `[[signing.key]]\ndomain = "olimpus.example"\nselector = "${name}"\nfile = "${name}.private"\n`,
  )
  .join('');
const ARC = `directory.mailbox_domains = ["olimpus.example"]\n[arc]\ndomain = "Olimpus.example"\n`;

/** away@ is an alias to another site; relayed.example is in none of our domains. */
const DIRECTORY: Directory = {
  ...NO_DIRECTORY,
  destination: ({ local, domain }) =>
    domain === 'olimpus.example'
      ? {
          kind: 'delivered',
          mailboxes: local === 'away' ? [] : ['zeus@olimpus.example'],
          elsewhere: local === 'away',
        }
      : { kind: 'unknown' },
  isLocalDomain: (domain) => domain === 'olimpus.example',
};

type Word = 'pass' | 'fail' | 'none' | 'temperror';

/** Stands for the verification, and says what the test says. */
function arcCheck(word: () => Word | null): CheckDefinition {
  const info = { meaning: 'A stand-in.', action: 'ignore' } as const;
  return messageCheck({
    name: 'arc',
    stage: 'message',
    summary: 'A stand-in.',
    directions: ['in'],
    needs: [],
    codes: { 'arc.pass': info, 'arc.fail': info, 'arc.none': info, 'arc.temperror': info },
    unavailable: 'ignore',
    deadline: '5s',
    options: {},
    run: () => {
      const found = word();
      if (found === null) throw new NeighbourError('no name server answers');
      const auth = { method: 'arc', result: found, properties: [] } as const;
      return [{ code: `arc.${found}`, detail: '', auth }];
    },
  });
}

interface Rig extends AsyncDisposable {
  readonly running: Running;
  word: Word | null;
  /** The message as it leaves. */
  pass(changes?: Partial<MilterMail>): Promise<Buffer>;
  refused(changes?: Partial<MilterMail>): Promise<string>;
  sealed(result: string): Promise<number | undefined>;
}

async function startRig(toml = `${ARC}${KEYS}`, directory: Directory = DIRECTORY): Promise<Rig> {
  const checks = stubChecks();
  const state: { word: Word | null } = { word: 'none' };
  const tools = { ...testTools(), checks: checkTools({ directory }) };
  const running = await startMilter({
    toml,
    files: FILES,
    tools,
    checks: { ...checks, definitions: [...checks.definitions, arcCheck(() => state.word)] },
  });
  const client = await MilterClient.open(running.target);
  const first = mail();
  await client.begin(first);
  const answer = async (changes: Partial<MilterMail>) => {
    const message = mail({ to: ['<away@olimpus.example>'], ...changes });
    return { message, ...(await client.message(message)) };
  };
  return {
    running,
    get word() {
      return state.word;
    },
    set word(word) {
      state.word = word;
    },
    async pass(changes = {}) {
      const { message, verdict, edits } = await answer(changes);
      expect(verdict).toBe('c');
      const section = applyAsPostfix(message.headers, edits, true)
        .map(([name, value]) => `${name}:${value}\r\n`)
        .join('');
      return Buffer.concat([Buffer.from(`${section}\r\n`, 'latin1'), message.body]);
    },
    async refused(changes = {}) {
      return (await answer(changes)).text;
    },
    sealed: (result) => metric(tools.registry, 'postern_milter_seals_total', { result }),
    async [Symbol.asyncDispose]() {
      client.quit();
      await running[Symbol.asyncDispose]();
    },
  };
}

function judge(message: Buffer): Promise<string> {
  return arcWithMailauth(message, (name) =>
    Promise.resolve([[name === 'rsa._domainkey.olimpus.example' ? RECORD : '']]),
  );
}

/** The message taken apart, as it would come to the next site. */
function next(message: Buffer, change: (text: string) => string = (text) => text): Partial<MilterMail> {
  const text = change(message.toString('latin1'));
  const end = text.indexOf('\r\n\r\n');
  const headers = text
    .slice(0, end)
    .split(/\r\n(?![ \t])/)
    .map((line): [string, string] => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1).replaceAll('\r\n', '\n')];
    });
  return { headers, body: Buffer.from(text.slice(end + 4), 'latin1') };
}

function names(message: Buffer): string[] {
  return next(message).headers?.map(([name]) => name) ?? [];
}

function field(message: Buffer, name: string): string {
  return next(message).headers?.find(([own]) => own === name)?.[1] ?? '';
}

test('forwarded mail gets a set: results, message signature and seal on top', async () => {
  await using rig = await startRig();
  const message = await rig.pass({ body: Buffer.alloc(200_000, 'A line of some length. \r\n') });
  expect(names(message).slice(0, 3)).toEqual([
    'ARC-Seal',
    'ARC-Message-Signature',
    'ARC-Authentication-Results',
  ]);
  expect(field(message, 'ARC-Seal')).toMatch(/^ i=1; a=rsa-sha256; cv=none; d=olimpus\.example; s=rsa;/);
  expect(field(message, 'ARC-Authentication-Results')).toBe(' i=1; mx.olimpus.example;\n\tarc=none');
  expect(field(message, 'ARC-Message-Signature')).not.toMatch(/Authentication-Results|ARC-Seal/i);
  expect(await judge(message)).toBe('pass');
  expect(await rig.sealed('sealed')).toBe(1);
});

test('further sets: i= counts on, and the whole chain is sealed', async () => {
  await using rig = await startRig();
  let message = await rig.pass();
  rig.word = 'pass';
  for (const instance of [2, 3, 4]) {
    message = await rig.pass(next(message));
    expect(field(message, 'ARC-Seal')).toMatch(new RegExp(`^ i=${instance}; a=rsa-sha256; cv=pass;`));
    expect(await judge(message)).toBe('pass');
  }
  // An older set is covered by the newer seals.
  const changed = message.toString('latin1').replace(/(ARC-Authentication-Results: i=2; )mx/, '$1my');
  expect(await judge(Buffer.from(changed, 'latin1'))).toBe('fail');
});

test('a DKIM signature that the message has is signed, with all its occurrences', async () => {
  await using rig = await startRig();
  const signature = ' v=1; a=rsa-sha256; d=valhalla.example; s=x; h=From; bh=x; b=y';
  const headers: MilterMail['headers'] = [
    ['DKIM-Signature', signature],
    ['DKIM-Signature', signature],
    ...mail().headers,
  ];
  const message = await rig.pass({ headers });
  expect(field(message, 'ARC-Message-Signature').match(/DKIM-Signature/g)).toHaveLength(2);
  expect(await judge(message)).toBe('pass');
});

test('a chain that fails is sealed as failed, with a seal over its own set, and never again', async () => {
  await using rig = await startRig();
  const broken = next(await rig.pass(), (text) => text.replace('Hello', 'Changed'));
  rig.word = 'fail';
  const message = await rig.pass(broken);
  expect(field(message, 'ARC-Seal')).toMatch(/^ i=2; a=rsa-sha256; cv=fail;/);
  expect(await judge(message)).toBe('fail');
  const once = await rig.pass(next(message));
  expect(names(once).filter((name) => name === 'ARC-Seal')).toHaveLength(2);
  expect([await rig.sealed('sealed'), await rig.sealed('ended')]).toEqual([2, 1]);
});

test.each<[string, number, string]>([
  ['49 sets are one too few', 49, 'sealed'],
  ['50 sets are the most', 50, 'full'],
])('%s', async (_, count, result) => {
  await using rig = await startRig();
  rig.word = 'pass';
  const sets = Array.from({ length: count }, (__, index): [string, string][] => [
    ['ARC-Seal', ` i=${count - index}; cv=pass; b=x`],
    ['ARC-Message-Signature', ` i=${count - index}; b=x`],
    ['ARC-Authentication-Results', ` i=${count - index}; a.example; none`],
  ]).flat();
  const message = await rig.pass({ headers: [...sets, ...mail().headers] });
  expect(names(message).filter((name) => name === 'ARC-Seal')).toHaveLength(50);
  expect(await rig.sealed(result)).toBe(1);
});

test.each<[Word | null]>([['temperror'], [null], ['none']])(
  'a chain of which nobody knows what became (%s) is left as it is',
  async (word) => {
    await using rig = await startRig();
    const message = await rig.pass();
    rig.word = word;
    expect(names(await rig.pass(next(message))).filter((name) => name === 'ARC-Seal')).toHaveLength(1);
    expect(await rig.sealed('unverified')).toBe(1);
  },
);

test.each<[string, Partial<MilterMail>, boolean]>([
  ['an alias that leaves', { to: ['<away@olimpus.example>'] }, true],
  ['one of several recipients leaves', { to: ['<zeus@olimpus.example>', '<away@olimpus.example>'] }, true],
  ['a domain that is not ours', { to: ['<a@relayed.example>'] }, true],
  ['a mailbox of ours', { to: ['<zeus@olimpus.example>'] }, false],
  ['a user of this host', { to: ['<postmaster>'] }, false],
  ['mail of our own users', { login: 'zeus@olimpus.example' }, false],
])('%s', async (_, changes, sealed) => {
  await using rig = await startRig();
  expect(names(await rig.pass(changes)).includes('ARC-Seal')).toBe(sealed);
  expect(await rig.sealed('sealed')).toBe(sealed ? 1 : 0);
});

test('seal = "incoming": all mail from outside', async () => {
  await using rig = await startRig(
    `arc.seal = "incoming"\narc.domain = "olimpus.example"\n${KEYS}`,
    NO_DIRECTORY,
  );
  expect(names(await rig.pass({ to: ['<zeus@olimpus.example>'] }))).toContain('ARC-Seal');
});

function errors({ running }: Rig): number {
  return running.tools.lines.filter(({ msg }) => msg === 'message could not be signed').length;
}

const NOT_RSA = `[arc]\ndomain = "olimpus.example"\nselector = "ed"\nseal = "incoming"\n`;
const DOWN: Directory = { ...DIRECTORY, destination: () => Promise.reject(new NeighbourError('down')) };

test.each<[string, string, Directory, number]>([
  ['no RSA key', NOT_RSA, DIRECTORY, 0],
  ['the directory does not answer', ARC, DOWN, 1],
])('%s: goes on without a seal, or is deferred', async (_, toml, directory, logged) => {
  await using skipping = await startRig(`${toml}without_key = "skip"\n${KEYS}`, directory);
  expect(names(await skipping.pass())).not.toContain('ARC-Seal');
  expect([await skipping.sealed('skipped'), errors(skipping)]).toEqual([1, logged]);
  await using deferring = await startRig(`${toml}without_key = "defer"\n${KEYS}`, directory);
  expect(await deferring.refused()).toMatch(/^451 4\.7\.5 /);
  expect([await deferring.sealed('failed'), errors(deferring)]).toEqual([1, logged]);
});
