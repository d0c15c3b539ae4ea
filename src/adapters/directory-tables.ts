import { setImmediate } from 'node:timers/promises';

import { parseAddressList } from './address-list.ts';
import { mailboxEntries } from './passwd-file.ts';
import { postmapEntries } from './postmap-text.ts';

/** The most entries of one file. */
const ENTRY_LIMIT = 2_000_000;

/** So many entries between two turns of the event loop: a large file must not keep mail waiting. */
const ENTRIES_PER_TURN = 2000;

/** What a table of aliases holds. */
export interface AliasTable {
  /** Addresses, and `@domain`, in lower case. The values are as the file has them: most are never looked at. */
  readonly aliases: ReadonlyMap<string, string>;
  /** Domains of which the table says that they are ours: `@domain …`, or the bare name (virtual(5), VIRTUAL ALIAS DOMAINS). */
  readonly domains: ReadonlySet<string>;
  /** Lines that are no entries, and what is wrong with the first of them; null: none. */
  readonly faults: { readonly count: number; readonly first: string } | null;
}

export interface MailboxTable {
  /** By Dovecot's user name in lower case: what the file says of its quota. */
  readonly mailboxes: ReadonlyMap<string, number | null | undefined>;
  readonly domains: ReadonlySet<string>;
}

/** @throws {Error} when it has too many entries */
export async function readAliases(text: string, most = ENTRY_LIMIT): Promise<AliasTable> {
  const aliases = new Map<string, string>();
  const domains = new Set<string>();
  let count = 0;
  let first = '';
  for await (const entry of inTurns(postmapEntries(text), most)) {
    if ('fault' in entry) {
      if (count === 0) first = `line ${entry.line}: ${entry.fault}`;
      count += 1;
      continue;
    }
    const { key, value } = entry;
    const at = key.lastIndexOf('@');
    // A key without a domain is for local(8)'s users, or says that a domain is ours.
    if (at === -1 && key.includes('.')) domains.add(key);
    if (at === 0) domains.add(key.slice(1));
    // postmap(1): of two entries with one key the first stays.
    if (!aliases.has(key)) aliases.set(key, value);
  }
  return { aliases, domains, faults: count === 0 ? null : { count, first } };
}

/** @throws {Error} when it has too many entries */
export async function readMailboxes(text: string, most = ENTRY_LIMIT): Promise<MailboxTable> {
  const mailboxes = new Map<string, number | null | undefined>();
  const domains = new Set<string>();
  for await (const { name, quota } of inTurns(mailboxEntries(text), most)) {
    if (!mailboxes.has(name)) mailboxes.set(name, quota);
    const at = name.lastIndexOf('@');
    if (at !== -1) domains.add(name.slice(at + 1));
  }
  return { mailboxes, domains };
}

/** The addresses of one value; made anew each time, because a site has far more aliases than it has mail for at once. */
export function targetsOf(table: AliasTable, key: string): readonly string[] | undefined {
  const value = table.aliases.get(key);
  return value === undefined ? undefined : parseAddressList(value);
}

async function* inTurns<T>(entries: Iterable<T>, most: number): AsyncGenerator<T> {
  let count = 0;
  for (const entry of entries) {
    count += 1;
    if (count > most) throw new Error(`it has more than ${most} entries`);
    if (count % ENTRIES_PER_TURN === 0) await setImmediate();
    yield entry;
  }
}
