import { createPublicKey, type KeyObject } from 'node:crypto';

import { LRUCache } from 'lru-cache';
import { toALabel } from 'mailauth/lib/tools.js';

import { chooseKeyRecord, parseKeyRecord, type KeyRecord } from '../mail/dkim-key.ts';
import { DnsError, type DnsAnswer, type Resolver } from '../ports/resolver.ts';
import { questionName } from './dns-message.ts';
import { utf8 } from './mail-auth-text.ts';

/** RFC 8301 §3.2: shorter RSA keys are not accepted; verifiers need not know longer ones than 4,096 bits. */
const RSA_BITS_LEAST = 1024;
const RSA_BITS_LIMIT = 4096;

/**
 * Largest public exponent. Nearly all keys have 65,537; one as long as its modulus makes a verification take 9 ms in place of the 0.03
 * to 0.1 that keys within these limits take, so that it can be done in place.
 */
const RSA_EXPONENT_LIMIT = 2n ** 32n - 1n;

/** Octets of p= after decoding: 4,096 bits and an exponent take 550. */
const KEY_DATA_LIMIT = 1024;

/** Keys that are kept, and octets they may take in all. */
const KEYS_KEPT = 4096;
const KEYS_SIZE = 16 * 1024 * 1024;
/** Of a key besides its record. */
const KEY_OVERHEAD = 2048;

/** RFC 8410 §4: what stands before the 32 octets of an Ed25519 key in a SubjectPublicKeyInfo. */
const ED25519_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
const ED25519_LENGTH = 32;

interface PublicKey {
  readonly record: KeyRecord;
  readonly object: KeyObject;
}

export type KeyAnswer =
  | { readonly kind: 'key'; readonly key: PublicKey }
  | { readonly kind: 'unusable'; readonly word: 'permerror' | 'policy'; readonly detail: string }
  /** The DNS did not say. */
  | { readonly kind: 'unknown'; readonly detail: string };

const NO_KEY: KeyAnswer = { kind: 'unusable', word: 'permerror', detail: 'no key' };

/**
 * Public keys from the DNS. What is kept is the key that a record's text stands for, never that a name has it: the name is asked for each
 * time, of a resolver that knows how long its answers may be kept.
 */
export class PublicKeys {
  readonly #resolver: Resolver;
  readonly #byText = new LRUCache<string, KeyAnswer>({
    max: KEYS_KEPT,
    maxSize: KEYS_SIZE,
    sizeCalculation: (_, text) => KEY_OVERHEAD + text.length,
  });

  constructor(resolver: Resolver) {
    this.#resolver = resolver;
  }

  /** At once, without a promise, where the DNS need not be asked. Rejects only for what is no failure of the DNS. */
  find(name: string, signal: () => AbortSignal): KeyAnswer | Promise<KeyAnswer> {
    const known = this.#resolver.cached?.(name, 'TXT') ?? null;
    return known === null ? this.#ask(name, signal()) : this.#read(known);
  }

  async #ask(name: string, signal: AbortSignal): Promise<KeyAnswer> {
    try {
      return this.#read(await this.#resolver.query(name, 'TXT', signal));
    } catch (error) {
      if (!(error instanceof DnsError)) throw error;
      return { kind: 'unknown', detail: `DNS failure: ${error.code === 'aborted' ? 'timeout' : error.code}` };
    }
  }

  #read(answer: DnsAnswer): KeyAnswer {
    if (answer.kind !== 'records') return NO_KEY;
    const text = chooseKeyRecord(answer.records.flatMap((data) => (data.type === 'TXT' ? [data.text] : [])));
    if (text === undefined) return NO_KEY;
    const known = this.#byText.get(text);
    if (known !== undefined) return known;
    const read = publicKeyOf(text);
    this.#byText.set(text, read);
    return read;
  }
}

/** The questions for keys of one message: each name once, all at once, no more than `limit`. */
export class KeyQuestions {
  readonly #keys: PublicKeys;
  readonly #limit: number;
  readonly #signal: AbortSignal;
  readonly #answers = new Map<string, KeyAnswer>();
  readonly #pending: Promise<void>[] = [];
  /** Made when there is something to wait for. */
  #late: AbortController | null = null;
  #broken: { readonly error: unknown } | null = null;
  #asked = 0;

  constructor(keys: PublicKeys, limit: number, signal: AbortSignal) {
    this.#keys = keys;
    this.#limit = limit;
    this.#signal = signal;
  }

  /** Begins to look for a key; `s` and `d` as A-labels. */
  ask(selector: string, domain: string): void {
    const key = keyName(selector, domain);
    if (this.#answers.has(key)) return;
    const name = questionName(key);
    if (name === null) {
      // RFC 1035 §2.3.4: there can be no such name; it is no failure of the DNS.
      this.#answers.set(key, NO_KEY);
      return;
    }
    if (++this.#asked > this.#limit) {
      this.#answers.set(key, {
        kind: 'unusable',
        word: 'permerror',
        detail: `needs one more than ${this.#limit} different keys`,
      });
      return;
    }
    const found = this.#keys.find(name, this.#lateSignal);
    if (!(found instanceof Promise)) {
      this.#answers.set(key, found);
      return;
    }
    this.#answers.set(key, NEVER_ASKED);
    this.#pending.push(
      found.then(
        (answer) => void this.#answers.set(key, answer),
        // A mistake of ours must not pass for one of theirs.
        (error: unknown) => void (this.#broken ??= { error }),
      ),
    );
  }

  /** Waits for all answers, so long at most; what is not there then is not known. Without a promise when they are all there. */
  settle(budgetMs: number): Promise<void> | undefined {
    return this.#pending.length === 0 ? undefined : this.#wait(budgetMs);
  }

  /** After `settle`. */
  answer(selector: string, domain: string): KeyAnswer {
    return this.#answers.get(keyName(selector, domain)) ?? NEVER_ASKED;
  }

  async #wait(budgetMs: number): Promise<void> {
    const timer = setTimeout(() => this.#late?.abort(new Error(`no answer within ${budgetMs} ms`)), budgetMs);
    try {
      await Promise.all(this.#pending);
    } finally {
      clearTimeout(timer);
      this.#signal.removeEventListener('abort', this.#abort);
    }
    this.#signal.throwIfAborted();
    if (this.#broken !== null) throw this.#broken.error;
  }

  readonly #lateSignal = (): AbortSignal => {
    if (this.#late === null) {
      this.#late = new AbortController();
      this.#signal.addEventListener('abort', this.#abort, { once: true });
      if (this.#signal.aborted) this.#abort();
    }
    return this.#late.signal;
  };

  readonly #abort = (): void => this.#late?.abort(this.#signal.reason);
}

const NEVER_ASKED: KeyAnswer = { kind: 'unknown', detail: 'DNS failure: not asked' };

/** U-labels as A-labels, of a domain that has one character for each octet. RFC 8616 §3. */
export function aLabels(domain: string): string {
  return /[\x80-\xff]/.test(domain) ? toALabel(utf8(domain)) : domain;
}

/** RFC 6376 §3.6.2.1. */
function keyName(selector: string, domain: string): string {
  return `${selector}._domainkey.${domain}`;
}

/** The key that the text of a record stands for. */
export function publicKeyOf(text: string): KeyAnswer {
  const record = parseKeyRecord(text);
  if (typeof record === 'string') return unusable(record);
  const data = Buffer.from(record.data, 'base64');
  switch (record.type) {
    case 'ed25519':
      // RFC 8463 §4.2: the 32 octets alone.
      if (data.length !== ED25519_LENGTH) return unusable('invalid public key');
      return { kind: 'key', key: { record, object: spki(Buffer.concat([ED25519_PREFIX, data])) } };
    case 'rsa':
      return rsaKey(record, data);
  }
}

function rsaKey(record: KeyRecord, data: Buffer): KeyAnswer {
  if (data.length > KEY_DATA_LIMIT) return unusable('key too long', 'policy');
  let object: KeyObject;
  try {
    object = isBareRsa(data) ? createPublicKey({ key: data, format: 'der', type: 'pkcs1' }) : spki(data);
  } catch {
    // What a domain publishes can be anything; OpenSSL's words for it help nobody.
    return unusable('unknown key type');
  }
  if (object.asymmetricKeyType !== 'rsa') return unusable('unknown key type');
  const { modulusLength = 0, publicExponent = 0n } = object.asymmetricKeyDetails ?? {};
  if (modulusLength < RSA_BITS_LEAST) return unusable('weak-key', 'policy');
  if (modulusLength > RSA_BITS_LIMIT || publicExponent > RSA_EXPONENT_LIMIT)
    return unusable('key too long', 'policy');
  return { kind: 'key', key: { record, object } };
}

function spki(key: Buffer): KeyObject {
  return createPublicKey({ key, format: 'der', type: 'spki' });
}

/**
 * RFC 6376 §3.6.1 means an RSAPublicKey (RFC 8017 §A.1.1), whose first part is an INTEGER; nearly all publish a SubjectPublicKeyInfo, whose
 * first part is a SEQUENCE.
 */
function isBareRsa(der: Buffer): boolean {
  const length = der[1] ?? 0;
  return der[0] === 0x30 && der[length < 0x80 ? 2 : 2 + (length & 0x7f)] === 0x02;
}

function unusable(detail: string, word: 'permerror' | 'policy' = 'permerror'): KeyAnswer {
  return { kind: 'unusable', word, detail };
}
