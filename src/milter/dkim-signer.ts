import { createHash, sign as signWithCallback } from 'node:crypto';
import { promisify } from 'node:util';

import type { Signing, SigningKey } from '../config/config.ts';
import { BodyCanonicalizer } from '../mail/dkim-body.ts';
import type { HeaderField, HeaderList } from '../mail/header.ts';
import { canonicalField, Folder, signedHeaderData, signedNames } from './dkim-header.ts';

const FIELD = 'DKIM-Signature';

// The form with a callback: it works on another thread, so that the loop does not wait for RSA.
const signAside = promisify(signWithCallback);

/**
 * Signs one message. RFC 6376 §5, RFC 8301, RFC 8463.
 *
 * The body is given piece by piece as it comes and is hashed once for all keys. The header section is given at the end, as it will
 * leave: signing is the last thing done to a message.
 */
export class DkimSigner {
  readonly #signing: Signing;
  readonly #keys: readonly SigningKey[];
  readonly #hash = createHash('sha256');
  readonly #body: BodyCanonicalizer;
  #bodyHash: string | null = null;

  constructor(signing: Signing, keys: readonly SigningKey[]) {
    this.#signing = signing;
    this.#keys = keys;
    this.#body = new BodyCanonicalizer(signing.bodyCanonicalization, (bytes) => {
      this.#hash.update(bytes);
    });
  }

  /** The next octets of the body. Keeps nothing of the chunk. */
  body(chunk: Uint8Array): void {
    if (this.#bodyHash !== null) throw new Error('the body has ended');
    this.#body.write(chunk);
  }

  /** One field for each key, in the order of the keys. Ends the body; may be asked again with other header sections. */
  async sign(headers: HeaderList, timeSeconds: number): Promise<readonly HeaderField[]> {
    const bodyHash = this.#endBody();
    const names = signedNames(headers, this.#signing.oversign);
    const data = signedHeaderData(headers, names, this.#signing.headerCanonicalization);
    const time = Math.floor(timeSeconds);
    return Promise.all(this.#keys.map((key) => this.#field(key, bodyHash, names, data, time)));
  }

  #endBody(): string {
    if (this.#bodyHash !== null) return this.#bodyHash;
    this.#body.end();
    this.#bodyHash = this.#hash.digest('base64');
    return this.#bodyHash;
  }

  async #field(
    key: SigningKey,
    bodyHash: string,
    names: readonly string[],
    data: string,
    time: number,
  ): Promise<HeaderField> {
    const { headerCanonicalization, bodyCanonicalization, expire } = this.#signing;
    // RFC 6376 §3.5. i= is left out, it is @d then; l= is never given: whatever came after that length would look signed (§8.2).
    const value = new Folder(FIELD.length + 1);
    value.add('v=1;', ' ');
    value.add(`a=${key.algorithm};`, ' ');
    value.add(`c=${headerCanonicalization}/${bodyCanonicalization};`, ' ');
    value.add(`d=${key.domain};`, ' ');
    value.add(`s=${key.selector};`, ' ');
    value.add(`t=${time};`, ' ');
    if (expire !== null) value.add(`x=${time + expire};`, ' ');
    names.forEach((name, index) => {
      const text = name + (index < names.length - 1 ? ':' : ';');
      if (index === 0) value.add(`h=${text}`, ' ');
      else value.add(text, '');
    });
    value.add(`bh=${bodyHash};`, ' ');
    value.add('b=', ' ');
    // §3.7: the field itself is hashed last, with an empty b= and without its CRLF.
    const own = canonicalField({ name: FIELD, value: value.text }, headerCanonicalization);
    value.addAnywhere(await signature(key, Buffer.from(data + own, 'latin1')));
    return { name: FIELD, value: value.text };
  }
}

async function signature(key: SigningKey, data: Buffer): Promise<string> {
  switch (key.algorithm) {
    case 'rsa-sha256':
      return (await signAside('sha256', data, key.key)).toString('base64');
    case 'ed25519-sha256':
      // RFC 8463 §3: what Ed25519 signs is the SHA-256 of the data.
      return (await signAside(null, createHash('sha256').update(data).digest(), key.key)).toString('base64');
  }
}
