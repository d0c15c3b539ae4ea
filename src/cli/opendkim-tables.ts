import { resolve } from 'node:path';

import { addressPattern } from '../checks/address-pattern.ts';
import { isDomainName } from '../config/values.ts';
import type { DataSet, Element, Place } from './opendkim-conf.ts';

/** One `[[signing.key]]`. */
export interface ImportedKey {
  readonly domain: string;
  readonly selector: string;
  readonly file: string;
}

/** One `[[signing.table]]`. */
export interface ImportedEntry {
  readonly senders: readonly string[];
  /** Names of keys in DNS. */
  readonly keys: readonly string[];
}

export interface ImportedTables {
  readonly keys: readonly ImportedKey[];
  readonly table: readonly ImportedEntry[];
}

export type Report = (place: Place, what: string) => void;

interface KeyLine extends ImportedKey {
  readonly place: Place;
}

/**
 * KeyTable and SigningTable of opendkim.conf(5) as our keys and table: for every sender the same d= and s=, or a report of why not.
 *
 * @param all MultipleSignatures: all lines that fit count, not only the first. Of lines with one key a refile has all, a list that is looked into has
 * the first
 */
export function convertTables(
  keyTable: DataSet,
  signingTable: DataSet,
  all: boolean,
  baseFolder: string,
  report: Report,
): ImportedTables {
  const known = new Map<string, Element>();
  for (const element of keyTable.elements) {
    if (known.has(element.key))
      report(element, `KeyTable: "${element.key}" is there twice, the first one counts`);
    else known.set(element.key, element);
  }
  const keys = new Map<string, ImportedKey>();
  const entries: ImportedEntry[] = [];
  const patterns = new Set<string>();
  for (const element of inOrder(signingTable)) {
    const { key: pattern, value } = element;
    const [name = '', signer] = value.split(':');
    if (signer !== undefined && signer !== '')
      report(element, `SigningTable: the signer "${signer}" (i=) is left out; i= is @d then`);
    const senders = senderPattern(pattern, signingTable.kind);
    if (senders === null) {
      report(
        element,
        `SigningTable: the pattern "${pattern}" has no counterpart; write an entry of [[signing.table]] for it`,
      );
      continue;
    }
    const own = /@([^*@]+)$/.exec(senders)?.[1] ?? null;
    const line = known.get(name === '%' ? (own ?? '%') : name);
    if (line === undefined) {
      report(element, `SigningTable: there is no key "${name}" in the KeyTable`);
      continue;
    }
    const key = keyOf(line, own, baseFolder, report);
    if (key === null) continue;
    const dns = `${key.selector}._domainkey.${key.domain}`;
    const earlier = keys.get(dns);
    if (earlier !== undefined && earlier.file !== key.file) {
      report(key.place, `KeyTable: ${dns} has another file than before, ${earlier.file} is used`);
    } else {
      keys.set(dns, { domain: key.domain, selector: key.selector, file: key.file });
    }
    if (patterns.has(senders) && !(all && signingTable.kind === 'pattern')) {
      report(element, `SigningTable: "${pattern}" is there twice, the first one counts`);
      continue;
    }
    patterns.add(senders);
    entries.push({ senders: [senders], keys: [dns] });
  }
  return {
    keys: [...keys.values()],
    table: joined(entries),
  };
}

/** Neighbours with the same keys, or for the same senders, make one entry; the order stays. */
function joined(entries: readonly ImportedEntry[]): readonly ImportedEntry[] {
  const result: ImportedEntry[] = [];
  for (const entry of entries) {
    const last = result.at(-1);
    if (last?.keys.join(' ') === entry.keys.join(' ')) {
      result[result.length - 1] = { senders: [...last.senders, ...entry.senders], keys: entry.keys };
    } else if (last?.senders.join(' ') === entry.senders.join(' ')) {
      result[result.length - 1] = { senders: last.senders, keys: [...last.keys, ...entry.keys] };
    } else {
      result.push(entry);
    }
  }
  return result;
}

/**
 * The order in which the lines count. A refile's own; else the order of the look-ups, as opendkim 2.11 makes them: user@host, host, then for each
 * parent domain, the longest first, user@.domain and .domain, then user@*, *.
 */
function inOrder({ kind, elements }: DataSet): readonly Element[] {
  if (kind === 'pattern') return elements;
  return elements.toSorted((a, b) => {
    const [one, other] = [rankOf(a.key), rankOf(b.key)];
    return one.rank - other.rank || other.length - one.length || one.bare - other.bare;
  });
}

function rankOf(key: string): { readonly rank: number; readonly length: number; readonly bare: number } {
  const at = key.lastIndexOf('@');
  const [host, bare] = [key.slice(at + 1), at === -1 ? 1 : 0];
  if (host === '*') return { rank: 3 + bare, length: 0, bare };
  if (host.startsWith('.')) return { rank: 2, length: host.length, bare };
  return { rank: bare, length: 0, bare };
}

/** Our pattern for a key of the SigningTable; null: there is none. */
function senderPattern(key: string, kind: DataSet['kind']): string | null {
  const text = key.toLowerCase();
  const pattern = kind === 'pattern' ? wildcardPattern(text) : lookupPattern(text);
  return pattern !== null && addressPattern().safeParse(pattern).success ? pattern : null;
}

/** Keys of a refile are matched against the whole address. */
function wildcardPattern(text: string): string | null {
  if (text.includes('@')) return text.indexOf('@') === text.lastIndexOf('@') ? text : null;
  if (text === '*') return text;
  const [local = '', domain = '', ...more] = text.split('*');
  // Without @ and *, no address is like it; with more than one *, the @ can be under any of them.
  return text.includes('*') && more.length === 0 ? `${local}*@*${domain}` : null;
}

function lookupPattern(text: string): string | null {
  if (text === '*') return text;
  if (text.includes('*')) return /^[^*@]+@\*$/.test(text) ? text : null;
  if (text.startsWith('.')) return `*@*${text}`;
  const at = text.lastIndexOf('@');
  if (at === -1) return `*@${text}`;
  return text[at + 1] === '.' ? `${text.slice(0, at)}@*${text.slice(at + 1)}` : text;
}

/** The key of a line of the KeyTable: domain:selector:file. `%` stands for the sender's domain, which has to be one. */
function keyOf(line: Element, own: string | null, baseFolder: string, report: Report): KeyLine | null {
  const [domain = '', selector = '', ...rest] = line.value.split(':');
  const path = rest.join(':');
  if ((domain === '%' || path.includes('%')) && own === null) {
    report(
      line,
      `KeyTable: "%" can't be filled in for a pattern of many domains; use signing.folder, with a folder for each domain`,
    );
    return null;
  }
  if (!/^\.{0,2}\//.test(path)) {
    report(
      line,
      `KeyTable: the key of "${line.key}" stands in the table itself; write it to a file that only its owner can read`,
    );
    return null;
  }
  const name = (domain === '%' ? (own ?? '') : domain).toLowerCase();
  if (!isDomainName(name) || !isDomainName(selector)) {
    report(line, `KeyTable: "${line.value}" is not domain:selector:file`);
    return null;
  }
  return { domain: name, selector, file: resolve(baseFolder, path.replaceAll('%', own ?? '')), place: line };
}
