import type { Sealing } from '../config/signing.ts';
import { sealedSets, type ArcFields } from '../mail/arc-fields.ts';
import { authResultsField, type AuthResult } from '../mail/auth-results.ts';
import {
  canonicalField,
  Folder,
  OCCURRENCES_LIMIT,
  signedHeaderData,
  signedNames,
} from '../mail/dkim-header.ts';
import { foldedValue, wrapLines } from '../mail/fold.ts';
import type { HeaderField, HeaderList } from '../mail/header.ts';
import type { SigningKey } from '../ports/signing-keys.ts';
import { addNames } from './dkim-signer.ts';
import { signature } from './signature.ts';

const RESULTS = 'ARC-Authentication-Results';
const MESSAGE = 'ARC-Message-Signature';
const SEAL = 'ARC-Seal';

/** What one more set is made of. */
export interface NewSet {
  readonly chain: ArcFields;
  /** cv=: what became of the chain so far. */
  readonly validation: 'none' | 'pass' | 'fail';
  readonly results: readonly AuthResult[];
  readonly authservId: string;
  readonly headers: HeaderList;
  /** Base64, of the relaxed body. */
  readonly bodyHash: string;
  readonly oversign: Sealing['oversign'];
  readonly timeSeconds: number;
}

/** One more ARC set: results, message signature, seal. RFC 8617 §5.1. */
export async function arcSet(set: NewSet, key: SigningKey): Promise<readonly HeaderField[]> {
  const instance = set.chain.highest + 1;
  const results = resultsField(set, instance);
  const message = await messageSignature(set, instance, key);
  const seal = await sealField(set, instance, key, [results, message]);
  return [results, message, seal];
}

/** §4.1.1 */
function resultsField({ authservId, results }: NewSet, instance: number): HeaderField {
  const { value } = authResultsField(authservId, results);
  return { name: RESULTS, value: wrapLines(RESULTS, foldedValue(` i=${instance};${value}`)) };
}

/** §4.1.2: a DKIM signature without v=, which covers neither Authentication-Results nor the ARC fields, and all signatures that there are. */
async function messageSignature(set: NewSet, instance: number, key: SigningKey): Promise<HeaderField> {
  const { headers, oversign, bodyHash } = set;
  const signatures = Math.min(headers.all('DKIM-Signature').length, OCCURRENCES_LIMIT);
  const names = [
    ...signedNames(headers, oversign),
    ...Array.from({ length: signatures }, () => 'DKIM-Signature'),
  ];
  const value = opened(MESSAGE, instance, key);
  value.add('c=relaxed/relaxed;', ' ');
  addSigner(value, set, key);
  addNames(value, names);
  value.add(`bh=${bodyHash};`, ' ');
  return closed(MESSAGE, value, signedHeaderData(headers, names, 'relaxed'), key);
}

/** §4.1.3, §5.1.1; §5.1.2: of a failed chain the seal covers its own set alone. */
async function sealField(
  set: NewSet,
  instance: number,
  key: SigningKey,
  own: readonly HeaderField[],
): Promise<HeaderField> {
  const earlier = set.validation === 'fail' ? '' : sealedSets(set.chain);
  const value = opened(SEAL, instance, key);
  value.add(`cv=${set.validation};`, ' ');
  addSigner(value, set, key);
  const data = own.map((field) => `${canonicalField(field, 'relaxed')}\r\n`).join('');
  return closed(SEAL, value, earlier + data, key);
}

function opened(name: string, instance: number, { algorithm }: SigningKey): Folder {
  const value = new Folder(name.length + 1);
  value.add(`i=${instance};`, ' ');
  value.add(`a=${algorithm};`, ' ');
  return value;
}

function addSigner(value: Folder, { timeSeconds }: NewSet, { domain, selector }: SigningKey): void {
  value.add(`d=${domain};`, ' ');
  value.add(`s=${selector};`, ' ');
  value.add(`t=${Math.floor(timeSeconds)};`, ' ');
}

/** RFC 6376 §3.7: the field itself is hashed last, with an empty b= and without its CRLF. */
async function closed(name: string, value: Folder, data: string, key: SigningKey): Promise<HeaderField> {
  value.add('b=', ' ');
  const own = canonicalField({ name, value: value.text }, 'relaxed');
  value.addAnywhere(await signature(key, data + own));
  return { name, value: value.text };
}
