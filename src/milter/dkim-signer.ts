import type { Canonicalization } from '../mail/dkim-body.ts';
import { canonicalField, Folder, signedHeaderData, signedNames } from '../mail/dkim-header.ts';
import type { HeaderField, HeaderList } from '../mail/header.ts';
import { breakLines } from '../mail/line-breaker.ts';
import type { SigningKey } from '../ports/signing-keys.ts';
import { BodyHash } from './body-hash.ts';
import { signature } from './signature.ts';

const FIELD = 'DKIM-Signature';

/** How a signature is made, whatever the key. */
export interface SignatureForm {
  readonly headerCanonicalization: Canonicalization;
  readonly bodyCanonicalization: Canonicalization;
  /** Fields listed once more than they occur. */
  readonly oversign: readonly string[];
  /** Seconds; null: no x=. */
  readonly expire: number | null;
  /** Where the MTA will break long lines; 0: nowhere. */
  readonly lineLimit: number;
}

/**
 * Signs one message. RFC 6376 §5, RFC 8301, RFC 8463.
 *
 * The body is given piece by piece as it comes and is hashed once for all keys. The header section is given at the end, as it will
 * leave: signing is the last thing done to a message.
 */
export class DkimSigner {
  readonly #form: SignatureForm;
  readonly #hash: BodyHash;

  constructor(form: SignatureForm) {
    this.#form = form;
    this.#hash = new BodyHash(form.bodyCanonicalization, form.lineLimit);
  }

  /** The next octets of the body. Keeps nothing of the chunk. */
  body(chunk: Uint8Array): void {
    this.#hash.write(chunk);
  }

  /** One field for each key, in the order of the keys. Ends the body; may be asked again with other header sections. */
  async sign(
    keys: readonly SigningKey[],
    headers: HeaderList,
    timeSeconds: number,
  ): Promise<readonly HeaderField[]> {
    const bodyHash = this.#hash.digest();
    const { oversign, headerCanonicalization, lineLimit } = this.#form;
    const names = signedNames(headers, oversign);
    const sent = lineLimit === 0 ? headers : breakLines(headers, lineLimit);
    const data = signedHeaderData(sent, names, headerCanonicalization);
    const time = Math.floor(timeSeconds);
    return Promise.all(keys.map((key) => this.#field(key, bodyHash, names, data, time)));
  }

  async #field(
    key: SigningKey,
    bodyHash: string,
    names: readonly string[],
    data: string,
    time: number,
  ): Promise<HeaderField> {
    const { headerCanonicalization, bodyCanonicalization, expire } = this.#form;
    // RFC 6376 §3.5. i= is left out, it is @d then; l= is never given: whatever came after that length would look signed (§8.2).
    const value = new Folder(FIELD.length + 1);
    value.add('v=1;', ' ');
    value.add(`a=${key.algorithm};`, ' ');
    value.add(`c=${headerCanonicalization}/${bodyCanonicalization};`, ' ');
    value.add(`d=${key.domain};`, ' ');
    value.add(`s=${key.selector};`, ' ');
    value.add(`t=${time};`, ' ');
    if (expire !== null) value.add(`x=${time + expire};`, ' ');
    addNames(value, names);
    value.add(`bh=${bodyHash};`, ' ');
    value.add('b=', ' ');
    // §3.7: the field itself is hashed last, with an empty b= and without its CRLF.
    const own = canonicalField({ name: FIELD, value: value.text }, headerCanonicalization);
    value.addAnywhere(await signature(key, data + own));
    return { name: FIELD, value: value.text };
  }
}

/** h=, folded between the names. */
export function addNames(value: Folder, names: readonly string[]): void {
  names.forEach((name, index) => {
    const text = name + (index < names.length - 1 ? ':' : ';');
    if (index === 0) value.add(`h=${text}`, ' ');
    else value.add(text, '');
  });
}
