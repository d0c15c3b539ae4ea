/** What a directory elsewhere is asked, as Postfix's own tables are: by one key at a time. */
export const LOOKUPS = [
  'mailbox_domain',
  'alias_domain',
  'alias',
  'mailbox',
  'account',
  'signing_key',
] as const;
export type Lookup = (typeof LOOKUPS)[number];

/** Whether the rows of all queries and sources count. Of tables of addresses the first that has the key counts, as in Postfix. */
export function isGathered(lookup: Lookup): boolean {
  return lookup === 'account' || lookup === 'signing_key';
}

/** What a question is about; every part in lower case, one character for each octet. */
export interface Subject {
  /** The whole key: an address, `@domain`, a domain or a login. */
  readonly address: string;
  /** What stands before the last @; the whole key when there is none. */
  readonly local: string;
  /** What stands behind the last @; empty: there is none. */
  readonly domain: string;
  /** The login or mailbox; the whole key too. */
  readonly login: string;
}

export type ParameterName = keyof Subject;

/** A text with places for parameters between its parts: one place fewer than parts. */
export interface Template {
  readonly parts: readonly string[];
  readonly parameters: readonly ParameterName[];
}

/** One row or entry: the values of each column, by its name in lower case. One character for each octet. */
export type Row = ReadonlyMap<string, readonly string[]>;

/** A directory elsewhere. */
export interface DirectorySource extends Disposable {
  /** For people. */
  readonly where: string;
  has(lookup: Lookup): boolean;
  /** Never waits longer than its own deadline. No rows: it does not know the key. @throws {NeighbourError} */
  ask(lookup: Lookup, subject: Subject): Promise<readonly Row[]>;
}

/** What becomes of a source: one call for each change. */
export interface SourceEvents {
  up(): void;
  down(why: string): void;
}

/** No more are made of one answer: as many addresses as Postfix takes of an alias. */
export const ROW_LIMIT = 1000;

/** No address or login in use is longer (RFC 3696 erratum 1690); such a key is in no table, and is not asked for. */
export const KEY_LIMIT = 320;

export function subjectOf(key: string): Subject {
  const at = key.lastIndexOf('@');
  return {
    address: key,
    local: at === -1 ? key : key.slice(0, at),
    domain: at === -1 ? '' : key.slice(at + 1),
    login: key,
  };
}

/**
 * The values of a template's parameters; null: the question need not be asked, because no table holds such a key. Postfix as well leaves out
 * a query for a user when the key has none (mysql_table(5), %u).
 */
export function valuesFor({ parameters }: Template, subject: Subject): readonly string[] | null {
  if (subject.address.length > KEY_LIMIT) return null;
  const values: string[] = [];
  for (const name of parameters) {
    const value = utf8Of(subject[name]);
    if (value === null || value === '') return null;
    values.push(value);
  }
  return values;
}

/** The text of octets; null: it is not UTF-8, or holds control characters, which are in no address (PostgreSQL takes no NUL). */
function utf8Of(octets: string): string | null {
  // oxlint-disable-next-line no-control-regex -- the range of octets, on purpose
  if (/[\u0000-\u001f\u007f]/.test(octets)) return null;
  if (!/[\u0080-\u00ff]/.test(octets)) return octets;
  const text = Buffer.from(octets, 'latin1').toString('utf8');
  return text.includes('\uFFFD') ? null : text;
}

/** A value of an answer as addresses are here: one character for each octet; null: none. */
export function octetsOf(value: unknown): string | null {
  if (typeof value === 'string')
    return /[\u0080-\uffff]/.test(value) ? Buffer.from(value, 'utf8').toString('latin1') : value;
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  if (typeof value === 'boolean') return value ? '1' : '0';
  return Buffer.isBuffer(value) ? value.toString('latin1') : null;
}
