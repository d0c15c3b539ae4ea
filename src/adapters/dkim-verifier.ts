import { setImmediate as nextTurn } from 'node:timers/promises';

import type { SignedFields } from '../mail/dkim-header.ts';
import { parseSignature, type Signature } from '../mail/dkim-signature.ts';
import type { HeaderField, HeaderList } from '../mail/header.ts';
import { withoutBlanks, type TagList } from '../mail/tag-list.ts';
import type { BodyVerification, DkimResult, DkimResultWord } from '../ports/mail-auth.ts';
import { BODY_HASHES_LIMIT, type BodyFeeder, type BodyHashes, type BodySum } from './body-hashes.ts';
import { aLabels, KeyQuestions, type PublicKeys } from './dkim-keys.ts';
import {
  judgeSignature,
  LARGE_HEADER,
  measureHeaders,
  SIGNATURE_LENGTH_LIMIT,
  type Judgement,
} from './signature-check.ts';

/** Signatures that are looked at, from the top: the newest. RFC 6376 §6.1 lets a verifier set a limit; each costs a DNS question. */
export const SIGNATURES_LIMIT = 8;

const FIELD = 'DKIM-Signature';

/** RFC 6008 §4: octets of b= that tell signatures apart. */
const VALUE_SHOWN = 8;

/** What verifications of one message have in common. */
export interface VerifiedMessage {
  readonly headers: HeaderList;
  readonly fields: SignedFields;
  readonly hashes: BodyHashes;
}

interface Candidate {
  readonly field: HeaderField;
  readonly list: TagList;
  /** What it comes to already; else what is to be verified. */
  readonly state: Judgement | { readonly signature: Signature; readonly body: BodySum };
}

/** Verifies the DKIM signatures of one message while its body comes. RFC 6376 §6. */
export class DkimVerification implements BodyVerification<readonly DkimResult[]> {
  readonly #message: VerifiedMessage;
  readonly #candidates: readonly Candidate[];
  /** Of the header section as a whole; null: none. */
  readonly #fault: string | null;
  readonly #large: boolean;
  readonly #keys: KeyQuestions;
  readonly #body: BodyFeeder;
  readonly #signal: AbortSignal;
  /** Seconds. */
  readonly #now: number;

  constructor(message: VerifiedMessage, keys: PublicKeys, now: number, signal: AbortSignal) {
    signal.throwIfAborted();
    this.#message = message;
    this.#signal = signal;
    this.#now = now;
    const found = message.headers.all(FIELD).slice(0, SIGNATURES_LIMIT);
    const { octets, fault } =
      found.length === 0 ? { octets: 0, fault: null } : measureHeaders(message.headers);
    this.#fault = fault;
    this.#large = octets > LARGE_HEADER;
    this.#keys = new KeyQuestions(keys, SIGNATURES_LIMIT, signal);
    this.#candidates = fault === null ? found.map((field) => this.#prepare(field)) : [];
    this.#body = message.hashes.feeder(signal);
  }

  get needsBody(): boolean {
    return this.#candidates.some(({ state }) => 'signature' in state);
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    return this.#body.write(chunk);
  }

  end(budgetMs: number): readonly DkimResult[] | Promise<readonly DkimResult[]> {
    this.#signal.throwIfAborted();
    this.#body.end();
    if (this.#fault !== null) return [unread('permerror', this.#fault)];
    const waiting = this.#keys.settle(budgetMs);
    if (waiting === undefined && !this.#large) return this.#candidates.map((each) => this.#result(each));
    return this.#results(waiting);
  }

  async #results(waiting: Promise<void> | undefined): Promise<readonly DkimResult[]> {
    await waiting;
    const results: DkimResult[] = [];
    for (const candidate of this.#candidates) {
      results.push(this.#result(candidate));
      if (this.#large) await nextTurn();
      this.#signal.throwIfAborted();
    }
    return results;
  }

  #prepare(field: HeaderField): Candidate {
    if (`${field.name}${field.gap ?? ''}:`.length + field.value.length > SIGNATURE_LENGTH_LIMIT)
      return without(field, `longer than ${SIGNATURE_LENGTH_LIMIT} octets`);
    const read = parseSignature(field.value, 'dkim', aLabels);
    const { list } = read;
    if (read.kind === 'fault') return { field, list, state: { word: 'neutral', detail: read.detail } };
    const { signature } = read;
    const body = this.#message.hashes.want(signature.bodyCanonicalization, signature.bodyLength);
    if (body === null) {
      const detail = `needs one more than ${BODY_HASHES_LIMIT} different hashes of the body`;
      return { field, list, state: { word: 'neutral', detail } };
    }
    this.#keys.ask(signature.selector, signature.domain);
    return { field, list, state: { signature, body } };
  }

  #result({ field, list, state }: Candidate): DkimResult {
    if (!('signature' in state)) return resultOf(state, list, null);
    const { signature } = state;
    const key = this.#keys.answer(signature.selector, signature.domain);
    const judged = judgeSignature({ ...state, field, key, fields: this.#message.fields, now: this.#now });
    return resultOf(judged, list, signature);
  }
}

/** A signature that is not even read. */
function without(field: HeaderField, detail: string): Candidate {
  return { field, list: { tags: new Map(), valid: false }, state: { word: 'neutral', detail } };
}

function resultOf({ word, detail }: Judgement, { tags }: TagList, signature: Signature | null): DkimResult {
  const domain = signature?.domain ?? aLabels(tags.get('d') ?? '');
  const selector = tags.get('s') ?? '';
  const identity = signature?.identity ?? tags.get('i') ?? (domain === '' ? '' : `@${domain}`);
  const value = withoutBlanks(tags.get('b') ?? '').slice(0, VALUE_SHOWN);
  // RFC 8601 §2.7.1, RFC 6008 §4.
  const properties = [
    ['header.d', domain],
    ['header.i', identity],
    ['header.s', selector],
    ['header.a', tags.get('a') ?? ''],
    ['header.b', value],
  ] as const;
  const comment = detail === '' ? {} : { comment: detail };
  return {
    result: word,
    domain: domain.toLowerCase(),
    selector,
    detail: `d=${domain} s=${selector}${detail === '' ? '' : `: ${detail}`}`,
    auth: {
      method: 'dkim',
      result: word,
      ...comment,
      properties: properties.filter(([, text]) => text !== ''),
    },
  };
}

/** A message of which no signature was read. */
function unread(word: DkimResultWord, detail: string): DkimResult {
  return {
    result: word,
    domain: '',
    selector: '',
    detail,
    auth: { method: 'dkim', result: word, comment: detail, properties: [] },
  };
}
