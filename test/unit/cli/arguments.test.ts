import { describe, expect, test } from 'vitest';

import { parseOptions, parseRun, UsageError } from '../../../src/cli/arguments.ts';

describe('postern run', () => {
  test('without words, all daemons are meant', async () => {
    expect(await parseRun([])).toEqual({
      daemons: ['policyd', 'milter', 'lmtp-filter'],
      config: null,
      admin: null,
    });
  });

  test('words and options in any order; daemons come in their own', async () => {
    expect(
      await parseRun(['lmtp-filter', '--config', '/etc/p.toml', 'policyd', '--admin=127.0.0.1:9000']),
    ).toEqual({
      daemons: ['policyd', 'lmtp-filter'],
      config: '/etc/p.toml',
      admin: { kind: 'tcp', host: '127.0.0.1', port: 9000 },
    });
  });

  test.each([
    ['none', 'none'],
    ['unix:/run/postern/admin', { kind: 'unix', path: '/run/postern/admin' }],
  ])('--admin %s', async (text, admin) => {
    expect((await parseRun(['--admin', text])).admin).toEqual(admin);
  });

  test.each([
    [['milterd'], 'no daemon is named "milterd"; there are policyd, milter, lmtp-filter'],
    [['--admin', '9000'], '--admin 9000: expected "host:port", "unix:/absolute/path" or "none"'],
    [['--verbose'], 'unknown option --verbose'],
    [['-v'], 'unknown option -v'],
    [['--config'], 'option --config needs a value'],
    [['--config', '--admin', 'none'], 'option --config needs a value'],
    [['--config', 'a', '--config=b'], 'option --config is given twice'],
  ])('%j is refused', async (args, message) => {
    await expect(parseRun(args)).rejects.toThrow(new UsageError(message, 'run'));
  });
});

test('after "--" everything is a word; a value may begin with "-" behind "="', () => {
  expect(parseOptions('check', ['--config=-odd', '--', '--config'], ['config'])).toEqual({
    positionals: ['--config'],
    values: { config: '-odd' },
  });
});
