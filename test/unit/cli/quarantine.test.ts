import { describe, expect, it } from 'vitest';

import type { QuarantineEntry } from '../../../src/adapters/quarantine-folder.ts';
import { UsageError } from '../../../src/cli/arguments.ts';
import {
  describeEntry,
  jsonOf,
  listLine,
  shownMessage,
  type Listed,
} from '../../../src/cli/quarantine-words.ts';
import { parseQuarantine } from '../../../src/cli/quarantine.ts';

const ID = 'f00dcafe'.repeat(4);
const EVIL = '\x1b[31m\x9b2J\u00e4\r\nnext';

const ENTRY: QuarantineEntry = {
  id: ID,
  problem: null,
  envelope: {
    version: 1,
    daemon: 'milter',
    trace: 'aaaabbbbccccdddd',
    queueId: 'QID1',
    time: Date.UTC(2026, 10, 21, 10, 0, 0),
    direction: 'in',
    client: '192.0.2.20',
    helo: EVIL,
    login: EVIL,
    sender: EVIL,
    recipients: [EVIL, 'b@x', 'c@x', 'd@x'],
    rule: 'virus.pua',
    why: EVIL,
    score: 3.5,
    from: EVIL,
    subject: EVIL,
    size: 1234,
  },
};

const LISTED: Listed = { kind: 'folder', entry: ENTRY };

describe('the command line', () => {
  it.each([
    [['list'], { command: 'list', ids: [], json: false, raw: false, config: null }],
    [['list', '--json', '--config', 'x'], { command: 'list', ids: [], json: true, raw: false, config: 'x' }],
    [['show', 'A', '--raw'], { command: 'show', ids: ['A'], json: false, raw: true, config: null }],
    [['release', 'A', 'B'], { command: 'release', ids: ['A', 'B'], json: false, raw: false, config: null }],
    [['delete', 'A'], { command: 'delete', ids: ['A'], json: false, raw: false, config: null }],
  ])('%j', (args, expected) => {
    expect(parseQuarantine(args)).toEqual(expected);
  });

  it.each([
    [[]],
    [['purge']],
    [['list', 'A']],
    [['show']],
    [['show', 'A', 'B']],
    [['release']],
    [['release', 'A', '--raw']],
    [['delete', 'A', '--json']],
    [['list', '--all']],
  ])('%j is not understood', (args) => {
    expect(() => parseQuarantine(args)).toThrow(UsageError);
  });
});

describe('what is printed', () => {
  it('is one line of printable ASCII in the list, with the first recipients', () => {
    expect(listLine(LISTED)).toBe(
      `${ID}  2026-11-21T10:00:00Z       1234  virus.pua  <?[31m?2J???next> -> <?[31m?2J???next> <b@x> <c@x> and 1 more`,
    );
    const broken: Listed = { kind: 'folder', entry: { id: ID, envelope: null, problem: EVIL } };
    expect(listLine(broken)).toBe(`${ID}  can't be read: ?[31m?2J???next`);
    const held = { queueId: 'QID1', time: 0, size: 1, sender: EVIL, recipients: [EVIL] };
    expect(listLine({ kind: 'hold', mail: held })).toMatch(/^QID1 .* on hold in Postfix {2}[ -~]*$/);
  });

  it('is so in JSON and in the details', () => {
    expect(JSON.stringify(jsonOf(LISTED))).toMatch(/^[ -~]*$/);
    expect(jsonOf(LISTED)).toMatchObject({
      id: ID,
      rule: 'virus.pua',
      score: 3.5,
      trace: 'aaaabbbbccccdddd',
    });
    const lines = describeEntry(ENTRY);
    for (const line of lines) expect(line).toMatch(/^[ -~]*$/);
    expect(lines).toContain('rule       virus.pua, by milter');
    expect(lines.filter((line) => line.startsWith('recipient'))).toHaveLength(4);
  });

  it('of a message is a bounded number of lines, each cut and harmless', () => {
    const head = Array.from({ length: 201 }, (_, index) => `A${index}: ${EVIL.replace('\r\n', '')}`);
    const body = Array.from({ length: 41 }, () => 'x'.repeat(201));
    const shown = shownMessage(`${head.join('\r\n')}\r\n\r\n${body.join('\r\n')}`);
    expect(shown).toHaveLength(201 + 1 + 41);
    expect(shown[200]).toBe('...');
    expect(shown.at(-1)).toBe('...');
    for (const line of shown) expect(line).toMatch(/^[ -~]{0,200}$/);
    expect(shownMessage('A: b\r\n\r\nhi\r\n')).toEqual(['A: b', '', 'hi', '']);
    expect(shownMessage('A: b')).toEqual(['A: b', '', '']);
  });
});
