import { expect, test } from 'vitest';

import { openDirectory } from '../../../src/adapters/directory-file.ts';
import { SourcedDirectory } from '../../../src/adapters/directory-sourced.ts';
import {
  KEY_LIMIT,
  valuesFor,
  type DirectorySource,
  type Lookup,
  type Row,
  type Subject,
} from '../../../src/adapters/directory-source.ts';
import { statementText } from '../../../src/adapters/sql-source.ts';
import { filterText } from '../../../src/adapters/ldap-source.ts';
import { subjectOf } from '../../../src/adapters/directory-source.ts';
import { parseMailbox } from '../../../src/mail/address.ts';
import fc from 'fast-check';

const NEVER = new AbortController().signal;
const CLOCK = { now: () => 0, elapsed: () => 0 };
const CACHE = { ttlMs: 1000, negativeMs: 1000, staleMs: 0, entries: 100 };

type Table = Readonly<Partial<Record<Lookup, Readonly<Record<string, readonly string[]>>>>>;

/** Tables in memory, asked as a database is. */
class Memory implements DirectorySource {
  readonly where = 'memory';
  readonly asked: string[] = [];
  readonly #tables: Table;

  constructor(tables: Table) {
    this.#tables = tables;
  }

  has(lookup: Lookup): boolean {
    return this.#tables[lookup] !== undefined;
  }

  ask(lookup: Lookup, { address }: Subject): Promise<readonly Row[]> {
    this.asked.push(`${lookup} ${address}`);
    const values = this.#tables[lookup]?.[address];
    return Promise.resolve(values === undefined ? [] : [new Map([['value', values]])]);
  }

  [Symbol.dispose](): void {}
}

async function directoryOver(sources: readonly DirectorySource[], mailboxDomains: readonly string[] = []) {
  const files = await openDirectory(
    {
      mailboxDomains,
      aliasDomains: [],
      mailboxes: [],
      aliases: [],
      accounts: [{ names: ['@x.example'], quota: 7, limits: {}, senders: [], allow: [], block: [] }],
      delimiter: '+',
    },
    CLOCK,
    { loaded() {}, failed() {} },
  );
  return new SourcedDirectory(
    () => files.files,
    sources,
    CACHE,
    CLOCK,
    () => {},
  );
}

test('sources are asked in their order, the first that knows counts, and nobody after it is asked', async () => {
  const first = new Memory({
    mailbox_domain: { '@x.example': ['1'] },
    mailbox: { 'a@x.example': ['first'] },
  });
  const second = new Memory({
    mailbox: { 'a@x.example': ['second'], 'b@x.example': [''] },
    alias: {
      'b@x.example': ['b@x.example'],
      'c@x.example': ['a@x.example, b@x.example'],
      '@x.example': ['a@x.example'],
    },
    account: { 'a@x.example': [] },
  });
  const directory = await directoryOver([first, second]);
  const users = async (address: string): Promise<unknown> => {
    const destination = await directory.destination(parseMailbox(address), NEVER);
    return destination.kind === 'unknown' ? null : destination.mailboxes;
  };
  expect(await users('c@x.example')).toEqual(['first', 'b@x.example']);
  expect(second.asked.filter((line) => line.startsWith('mailbox '))).toEqual(['mailbox b@x.example']);
  expect(await users('nobody@x.example')).toEqual(['first']);
  expect(await users('a@y.example')).toBeNull();
  expect(await directory.account('A@x.example', NEVER)).toMatchObject({ quota: 7 });
});

test('an account is asked for by its name and by @domain: its own settings come before those of the domain', async () => {
  const asked: string[] = [];
  const rows: Readonly<Record<string, Row>> = {
    'zeus@x.example': new Map([
      ['tag', ['3']],
      ['allow', ['a@y.example']],
    ]),
    '@x.example': new Map([
      ['tag', ['9']],
      ['junk', ['6']],
      ['block', ['@y.example']],
    ]),
  };
  const source: DirectorySource = {
    where: 'memory',
    has: (lookup) => lookup === 'account',
    ask: (_, { address }) => {
      asked.push(address);
      return Promise.resolve(rows[address] === undefined ? [] : [rows[address]]);
    },
    [Symbol.dispose]() {},
  };
  const directory = await directoryOver([source]);
  expect(directory.keepsSettings).toBe(true);
  expect(await directory.account('Zeus@x.example', NEVER)).toMatchObject({
    thresholds: { tag: 3, junk: 6 },
    allow: ['a@y.example'],
    domainLists: { block: ['@y.example'] },
  });
  expect(await directory.account('hera@x.example', NEVER)).toMatchObject({ thresholds: { tag: 9, junk: 6 } });
  expect(await directory.account('zeus', NEVER)).not.toHaveProperty('thresholds');
  // The domain once for both.
  expect(asked).toEqual(['zeus@x.example', '@x.example', 'hera@x.example', 'zeus']);
});

test('where nobody lists mailboxes, every address in a mailbox domain may be one', async () => {
  const directory = await directoryOver([new Memory({ alias: {} })], ['x.example']);
  expect(await directory.destination(parseMailbox('a+b@x.example'), NEVER)).toEqual({
    kind: 'delivered',
    mailboxes: ['a@x.example'],
    elsewhere: false,
  });
});

test('aliases end within the limits of Postfix, and when who asked has given up', async () => {
  const circle = Object.fromEntries(
    Array.from({ length: 1001 }, (_, index) => [`n${index}@x.example`, [`n${index + 1}@x.example`]]),
  );
  const directory = await directoryOver([new Memory({ alias: circle })], ['x.example']);
  expect(await directory.destination(parseMailbox('n2@x.example'), NEVER)).toMatchObject({
    mailboxes: ['n1001@x.example'],
  });
  // virtual_alias_recursion_limit
  expect(await directory.destination(parseMailbox('n0@x.example'), NEVER)).toEqual({ kind: 'unknown' });
  const gone = AbortSignal.abort();
  await expect(directory.destination(parseMailbox('n0@x.example'), gone)).rejects.toThrow('given up');
});

test('a key at the limit is asked for, one past it is in no table', async () => {
  const memory = new Memory({ alias: {} });
  const directory = await directoryOver([memory], ['x.example']);
  const at = `${'a'.repeat(KEY_LIMIT - '@x.example'.length)}@x.example`;
  await directory.destination(parseMailbox(at), NEVER);
  await directory.destination(parseMailbox(`b${at}`), NEVER);
  expect(memory.asked).toEqual([`alias ${at}`, 'alias @x.example']);
});

const TEMPLATE = { parts: ['(mail=', ')(uid=', ')'], parameters: ['address', 'local'] } as const;

test('values are never part of a statement', () => {
  const numbered = { placeholder: (index: number) => `$${index + 1}` };
  expect(statementText(TEMPLATE, numbered)).toBe('(mail=$1)(uid=$2)');
});

test('parameters without a value, with control characters, and octets that are no text: nothing is asked', () => {
  for (const key of ['@x.example', 'a\u0000@x.example', 'a\n@x.example', '\u00ff@x.example']) {
    expect([key, valuesFor(TEMPLATE, subjectOf(key))]).toEqual([key, null]);
  }
  expect(valuesFor(TEMPLATE, subjectOf('\u00c3\u00a9@x.example'))).toEqual(['\u00e9@x.example', '\u00e9']);
});

test('whatever a value holds, it means nothing in a filter', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme-ascii' }), (one, other) => {
      const filter = filterText(TEMPLATE, [one, other]);
      expect(filter.match(/[()]/g)?.join('')).toBe('()()');
      const values = /^\(mail=(.*)\)\(uid=(.*)\)$/su.exec(filter)?.slice(1) ?? [];
      // RFC 4515 §3: read back as a server does.
      const decoded = values.map((text) =>
        text.replaceAll(/\\([0-9a-f]{2})/g, (_, hex: string) =>
          String.fromCharCode(Number.parseInt(hex, 16)),
        ),
      );
      expect(decoded).toEqual([one, other]);
      expect(values.join('')).not.toMatch(/\*|\\(?![0-9a-f]{2})/);
      expect(values.join('')).not.toContain('\0');
    }),
  );
});
