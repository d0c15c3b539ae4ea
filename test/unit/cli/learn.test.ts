import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { UsageError } from '../../../src/cli/arguments.ts';
import { parseLearn } from '../../../src/cli/learn.ts';
import { learnerOf } from '../../../src/cli/open-feedback.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';

const NOTHING = { user: '', messageId: null, files: [], config: null };

describe('the command line', () => {
  test.each([
    [['spam'], { ...NOTHING, label: 'spam' }],
    [['ham', 'a', 'b', '--config', 'x'], { ...NOTHING, label: 'ham', files: ['a', 'b'], config: 'x' }],
    [['ham', '--user', 'zeus@example.org'], { ...NOTHING, label: 'ham', user: 'zeus@example.org' }],
    [['spam', '--message-id', '<a@b>'], { ...NOTHING, label: 'spam', messageId: '<a@b>' }],
  ])('%j', (args, expected) => {
    expect(parseLearn(args)).toEqual(expected);
  });

  test.each([
    [[]],
    [['junk']],
    [['spam', '--user', 'a\nb']],
    [['spam', '--message-id', '']],
    [['spam', 'file', '--message-id', '<a@b>']],
    [['spam', '--all']],
  ])('refused: %j', (args) => {
    expect(() => parseLearn(args)).toThrow(UsageError);
  });
});

async function configOf(lines: string): Promise<Config> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-learn-'));
  try {
    const path = join(folder, 'postern.toml');
    await writeFile(path, lines);
    const result = await loadConfig(path);
    if (!result.ok) throw new Error(JSON.stringify(result.problems));
    return result.config;
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('who learns', () => {
  test.each([
    ['', 'Zeus@Example.org', null],
    ['checks.spam.default_user = "site"', 'zeus@example.org', 'site'],
    ['checks.spam.user = "recipient"', 'Zeus+list@Example.org', 'zeus@example.org'],
    ['checks.spam.user = "recipient"', 'zeus', 'zeus'],
    ['checks.spam = { user = "recipient", default_user = "site" }', '', 'site'],
    ['checks.spam.user = "domain"', 'zeus@Example.org', 'example.org'],
    ['checks.spam = { user = "domain", default_user = "site" }', 'zeus', 'site'],
  ])('%s: of what %j says, %j', async (lines, user, learner) => {
    expect(learnerOf(user, await configOf(lines))).toBe(learner);
  });
});
