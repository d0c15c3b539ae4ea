import { createHash } from 'node:crypto';

import { LRUCache } from 'lru-cache';

import type { SigningKey } from '../ports/signing-keys.ts';
import { subjectOf, type DirectorySource, type Row } from './directory-source.ts';
import type { FoundKey } from './key-file.ts';
import { KEY_NAME, KEYS_LIMIT } from './key-folder.ts';

/** Where signing keys are kept besides files: looked up by domain. */
export interface KeySource {
  /** For people. */
  readonly where: string;
  /**
   * One row for each key of the domain: `selector`, `private_key`, and if they are there `algorithm`, `subdomains`. Never waits longer than its own
   * deadline.
   *
   * @throws {NeighbourError}
   */
  rowsOf(domain: string): Promise<readonly Row[]>;
}

/** Reads and judges the text of a private key. @param name of the key, for messages, in which the text is not */
export type ParseKey = (
  text: string,
  name: string,
) =>
  | { readonly ok: true; readonly key: SigningKey['key']; readonly algorithm: SigningKey['algorithm'] }
  | { readonly ok: false; readonly wrong: string; readonly remedy: string };

/** The lookup for signing keys of a directory, over its connections. */
export function directoryKeys(source: DirectorySource): KeySource | null {
  if (!source.has('signing_key')) return null;
  return { where: source.where, rowsOf: (domain) => source.ask('signing_key', subjectOf(`@${domain}`)) };
}

const ALGORITHMS: Readonly<Record<string, SigningKey['algorithm']>> = {
  rsa: 'rsa-sha256',
  'rsa-sha256': 'rsa-sha256',
  ed25519: 'ed25519-sha256',
  'ed25519-sha256': 'ed25519-sha256',
};

const YES = /^(?:1|t|true|y|yes)$/i;
const NO = /^(?:|0|f|false|n|no)$/i;

/** Makes keys of rows. A key that it has read before is the same object again: nothing is parsed twice, and who knows it knows it again. */
export class KeyReader {
  readonly #parse: ParseKey;
  /** By the digest of its text. */
  readonly #known: LRUCache<string, Extract<ReturnType<ParseKey>, { ok: true }>>;

  constructor(parse: ParseKey, entries: number) {
    this.#parse = parse;
    this.#known = new LRUCache({ max: entries });
  }

  /** @param subdomains where a row does not say it */
  read(rows: readonly Row[], domain: string, where: string, subdomains: boolean): readonly FoundKey[] {
    if (rows.length > KEYS_LIMIT) {
      const why = `${domain} has more than ${KEYS_LIMIT} keys in ${where}; take out those that do not sign any more`;
      return [{ place: { domain, selector: '', subdomains }, state: { kind: 'broken', why } }];
    }
    return rows.map((row) => this.#key(row, domain, where, subdomains));
  }

  #key(row: Row, domain: string, where: string, subdomains: boolean): FoundKey {
    const [selector, text, algorithm, below] = ['selector', 'private_key', 'algorithm', 'subdomains'].map(
      (column) => single(row, column),
    );
    // What stands in the wrong column may be the key itself: no value is in a message before it is known to be a selector.
    const named = typeof selector === 'string' && KEY_NAME.test(selector) ? selector : null;
    const spread = below === undefined ? subdomains : typeof below === 'string' && YES.test(below);
    const place = { domain, selector: named ?? '', subdomains: spread };
    const broken = (why: string): FoundKey => ({ place, state: { kind: 'broken', why } });
    if (named === null) {
      return broken(`a key of ${domain} in ${where} has no selector, or one that is no name in DNS`);
    }
    const name = `the key ${place.selector}._domainkey.${domain} in ${where}`;
    if (below === null || (typeof below === 'string' && !YES.test(below) && !NO.test(below)))
      return broken(`${name}: subdomains is neither yes nor no`);
    if (text === null || text === undefined) {
      return broken(`${name} is not there; expected one private_key in its row`);
    }
    const wanted = algorithm === undefined ? null : ALGORITHMS[algorithm?.toLowerCase() ?? ''];
    if (wanted === undefined) return broken(`${name}: algorithm is neither rsa-sha256 nor ed25519-sha256`);
    const reading = this.#read(text, name);
    if (!reading.ok) return broken(`${reading.wrong}; ${reading.remedy}`);
    if (wanted !== null && wanted !== reading.algorithm) {
      return broken(
        `${name} is one for ${reading.algorithm}, and algorithm says otherwise; correct one of them`,
      );
    }
    const { key, algorithm: found } = reading;
    return { place, state: { kind: 'usable', key: { ...place, algorithm: found, key } } };
  }

  #read(text: string, name: string): ReturnType<ParseKey> {
    const digest = createHash('sha256').update(text, 'latin1').digest('base64');
    const known = this.#known.get(digest);
    if (known !== undefined) return known;
    const reading = this.#parse(text, name);
    if (reading.ok) this.#known.set(digest, reading);
    return reading;
  }
}

/** undefined: no value; null: several. */
function single(row: Row, column: string): string | null | undefined {
  const values = (row.get(column) ?? []).map((value) => value.trim()).filter((value) => value !== '');
  return values.length > 1 ? null : values[0];
}
