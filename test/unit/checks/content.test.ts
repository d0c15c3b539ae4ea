import { describe, expect, it } from 'vitest';
import { z } from 'zod';

import { contentCheck } from '../../../src/checks/content.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import type { Envelope } from '../../../src/mail/envelope.ts';
import type { ContentAnswer, ContentQuestion, ContentScanner } from '../../../src/ports/content-scanner.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { rejection } from '../../../src/verdict/replies.ts';
import { checkTools } from '../../support/checks.ts';
import { client, envelope, message } from '../../support/mail.ts';

const CLEAN: ContentAnswer = { hits: [], unparsable: [], tooLarge: [] };

function scanner(answer: ContentAnswer | Error, seen: ContentQuestion[] = []): ContentScanner {
  return {
    scan(question) {
      seen.push(question);
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
  };
}

/** A scanner for which every rule that is wanted hits. */
const GREEDY: ContentScanner = {
  scan: ({ wanted }) =>
    Promise.resolve({ ...CLEAN, hits: wanted.map((rule) => ({ rule, detail: 'found' })) }),
};

async function run(
  contentScanner: ContentScanner | null,
  options: unknown,
  sent: Envelope = envelope(),
  body = 'Hail!\r\n',
): Promise<readonly Outcome[]> {
  const { client: from, direction, sender } = sent;
  const checks = new CheckRun([contentCheck.bind(options, 1000)], checkTools({ contentScanner }), direction);
  checks.startMessage({ client: from, direction, sender, message: message({ envelope: sent, body }) });
  return await checks.settle();
}

/** Codes, with the recipient that they concern. */
async function found(rules: readonly object[], sent?: Envelope): Promise<readonly string[]> {
  const [outcome] = await run(GREEDY, { rule: rules }, sent);
  if (outcome === undefined) return [];
  if (outcome.kind !== 'found') return ['unavailable'];
  return outcome.findings.map(({ code, recipient = '' }) => `${code}${recipient}`);
}

const WORDS = { words: ['top secret'] };

const directions = (...wanted: string[]): readonly string[] =>
  contentCheck.bind({ rule: wanted.map((direction) => ({ name: direction, ...WORDS, direction })) }, 1000)
    .directions;

const outgoing = (login: string | null, sender: string): Envelope =>
  envelope({ direction: 'out', client: client({ login }), sender });

const to = (...recipients: string[]): Envelope => envelope({ recipients });

describe('the content check', () => {
  it('without rules is not made', async () => {
    expect(await run(null, {})).toEqual([]);
    expect(contentCheck.bind({}, 1000).directions).toEqual([]);
  });

  it('is made in the directions that rules are for', async () => {
    expect(directions('out')).toEqual(['out']);
    expect(directions('in', 'out')).toEqual(['in', 'out']);
    expect(directions('both')).toEqual(['in', 'out']);
  });

  it('has a code for each rule, with its action and its copies', () => {
    const rule = { name: 'secrets', ...WORDS, action: 'quarantine', copy_to: ['audit@olimpus.example'] };
    expect(contentCheck.bind({ rule: [rule] }, 1000).codes).toMatchObject({
      'content.secrets': { action: 'quarantine', copyTo: ['audit@olimpus.example'] },
      'content.unparsable': { action: 'ignore' },
      'content.too-large': { action: 'ignore' },
    });
    expect(rejection('content.secrets')).toMatchObject({ code: 550, detail: '7.1' });
    expect(rejection('content.secrets').text).not.toContain('secrets');
  });

  it('takes only the rules that are for the message', async () => {
    const rules = [
      { name: 'out', ...WORDS, direction: 'out' },
      { name: 'in', ...WORDS, direction: 'in' },
      { name: 'staff', ...WORDS, logins: ['zeus@olimpus.example', '@delphi.example'] },
      { name: 'others', ...WORDS, logins: ['!zeus@olimpus.example'] },
      { name: 'olimpus', ...WORDS, domains: ['olimpus.example'] },
      { name: 'below', ...WORDS, domains: ['*.olimpus.example'] },
    ];
    expect(await found(rules, outgoing('Zeus@olimpus.example', '<zeus@OLIMPUS.example>'))).toEqual([
      'content.out',
      'content.staff',
      'content.olimpus',
    ]);
    expect(await found(rules, outgoing('pythia@delphi.example', '<a@b.olimpus.example>'))).toEqual([
      'content.out',
      'content.staff',
      'content.others',
      'content.below',
    ]);
    expect(await found(rules, outgoing(null, '<>'))).toEqual(['content.out', 'content.others']);
    expect(await found(rules)).toEqual(['content.in', 'content.others', 'content.olimpus']);
  });

  it('concerns those recipients whose domain it is, or the message when it is that of all', async () => {
    const rules = [{ name: 'a', ...WORDS, domains: ['olimpus.example'] }];
    expect(await found(rules, to('<zeus@olimpus.example>', '<hera@olimpus.example>'))).toEqual(['content.a']);
    expect(await found(rules, to('<x@elsewhere.example>', '<hera@Olimpus.example>'))).toEqual(['content.a1']);
    expect(await found(rules, to('<x@elsewhere.example>'))).toEqual([]);
  });

  it('asks nothing where no rule is for the message', async () => {
    const seen: ContentQuestion[] = [];
    const rule = { name: 'a', ...WORDS, logins: ['zeus@olimpus.example'] };
    expect(await run(scanner(CLEAN, seen), { rule: [rule] })).toMatchObject([
      { kind: 'found', findings: [] },
    ]);
    expect(seen).toEqual([]);
  });

  it('gives so much of the body, and says when there was more', async () => {
    const seen: ContentQuestion[] = [];
    const options = { rule: [{ name: 'a', ...WORDS }], max_size: '1KiB' };
    expect(await run(scanner(CLEAN, seen), options, envelope(), 'x'.repeat(1024))).toMatchObject([
      { findings: [] },
    ]);
    expect(await run(scanner(CLEAN, seen), options, envelope(), 'x'.repeat(1025))).toMatchObject([
      {
        findings: [
          {
            code: 'content.too-large',
            detail: 'a body of 1025 octets, of which 1024 (max_size) were looked at',
          },
        ],
      },
    ]);
    expect(seen.map(({ bodyOctets }) => bodyOctets)).toEqual([1024, 1024]);
  });

  it('gives the scanner the same rules for every message of a configuration', async () => {
    const seen: ContentQuestion[] = [];
    const checks = [contentCheck.bind({ rule: [{ name: 'a', ...WORDS }] }, 1000)];
    for (let round = 0; round < 2; round++) {
      const sent = message();
      const checking = new CheckRun(checks, checkTools({ contentScanner: scanner(CLEAN, seen) }), 'in');
      const { client: from, direction, sender } = sent.envelope;
      checking.startMessage({ client: from, direction, sender, message: sent });
      await checking.settle();
    }
    expect(seen[0]?.rules).toBe(seen[1]?.rules);
  });

  it('tells what could not be looked at', async () => {
    const answer = { ...CLEAN, unparsable: ['one', 'two'], tooLarge: ['three'] };
    expect(await run(scanner(answer), { rule: [{ name: 'a', ...WORDS }] })).toMatchObject([
      {
        findings: [
          { code: 'content.too-large', detail: 'three' },
          { code: 'content.unparsable', detail: 'one; two' },
        ],
      },
    ]);
  });

  it('is unavailable when the scanner fails, or there is none', async () => {
    const options = { rule: [{ name: 'a', ...WORDS }] };
    expect(await run(scanner(new NeighbourError('lost')), options)).toMatchObject([
      { kind: 'unavailable', reason: 'neighbour' },
    ]);
    expect(await run(null, options)).toMatchObject([{ kind: 'unavailable', reason: 'needs' }]);
    expect(contentCheck.unavailable).toBe('defer');
  });
});

describe('a rule is', () => {
  const bad: Readonly<Record<string, object>> = {
    'without anything to look for': { name: 'a' },
    'with an empty list of words': { name: 'a', words: [] },
    "of the check's own name": { name: 'unparsable', ...WORDS },
    'with a name in upper case': { name: 'A', ...WORDS },
    'with a word of which nothing is to be seen': { name: 'a', words: ['\u200b'] },
    'with a word that is a star': { name: 'a', words: ['*'] },
    'with a star in the middle': { name: 'a', words: ['top*secret'] },
    'with a word of 201 characters': { name: 'a', words: ['x'.repeat(201)] },
    'with a pattern that is none': { name: 'a', patterns: ['('] },
    'with a pattern that looks around': { name: 'a', patterns: ['(?=a)'] },
    'with a pattern that goes back': { name: 'a', patterns: ['(a)\\1'] },
    'with a pattern that matches nothing': { name: 'a', patterns: ['a*'] },
    'with a pattern of 1001 characters': { name: 'a', patterns: ['x'.repeat(1001)] },
    'with a pattern that unfolds without end': { name: 'a', patterns: ['(?:(?:a{1,30}){1,30}){1,30}b'] },
    'with an extension that has a dot': { name: 'a', extensions: ['.exe'] },
    'with a type that nobody knows': { name: 'a', types: ['poem'] },
    'with a copy to nobody': { name: 'a', ...WORDS, copy_to: ['audit'] },
    'with a copy that would be two': {
      name: 'a',
      ...WORDS,
      copy_to: ['a@b.example>\r\nRCPT TO:<c@d.example'],
    },
    'with 101 matches': { name: 'a', ...WORDS, min_matches: 101 },
  };

  it.each(Object.entries(bad))('refused %s', (_, rule) => {
    expect(() => contentCheck.bind({ rule: [rule] }, 1000)).toThrow(z.ZodError);
  });

  it.each<[string, object]>([
    ['with words alone', { name: 'a', words: ['*secret*', '绝密', 'x'.repeat(200)] }],
    ['with a pattern alone', { name: 'a', patterns: ['x'.repeat(1000)] }],
    ['with an extension alone', { name: 'a', extensions: ['EXE'] }],
    ['with a double extension alone', { name: 'a', double_extension: true }],
    ['with 100 matches', { name: 'unread', ...WORDS, min_matches: 100 }],
  ])('taken %s', (_, rule) => {
    expect(() => contentCheck.bind({ rule: [rule] }, 1000)).not.toThrow();
  });

  it('refused with the name of another', () => {
    const rule = { name: 'a', ...WORDS };
    expect(() => contentCheck.bind({ rule: [rule, rule] }, 1000)).toThrow(z.ZodError);
  });
});
