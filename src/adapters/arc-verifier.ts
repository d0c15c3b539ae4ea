import { setImmediate as nextTurn } from 'node:timers/promises';

import { readArcChain, type ArcChain, type ArcSet } from '../mail/arc-chain.ts';
import { canonicalField, signatureFieldData } from '../mail/dkim-header.ts';
import type { HeaderField } from '../mail/header.ts';
import type { ArcHop, ArcResult, BodyVerification } from '../ports/mail-auth.ts';
import type { BodyFeeder, BodySum } from './body-hashes.ts';
import { aLabels, KeyQuestions, type PublicKeys } from './dkim-keys.ts';
import type { VerifiedMessage } from './dkim-verifier.ts';
import {
  isSigned,
  judgeSignature,
  keyFault,
  measureHeaders,
  SIGNATURE_LENGTH_LIMIT,
  type Judgement,
} from './signature-check.ts';

/** Different keys of one chain; a seal and a message signature mostly share one. A message that was relayed through more is hardly met. */
export const ARC_KEYS_LIMIT = 16;

/** Seals that are verified before others get their turn. */
const SEALS_AT_ONCE = 8;

const PASS: Judgement = { word: 'pass', detail: '' };

/** Validates the ARC chain of one message while its body comes. RFC 8617 §5.2. */
export class ArcVerification implements BodyVerification<ArcResult> {
  readonly #message: VerifiedMessage;
  readonly #chain: ArcChain;
  /** Of the message signatures, by instance; null: one more hash than there may be. */
  readonly #bodies = new Map<number, BodySum | null>();
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
    this.#keys = new KeyQuestions(keys, ARC_KEYS_LIMIT, signal);
    this.#chain = this.#read();
    if (this.#chain.kind === 'chain') this.#prepare(this.#chain.sets);
    this.#body = message.hashes.feeder(signal);
  }

  get needsBody(): boolean {
    return this.#chain.kind === 'chain';
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    return this.#body.write(chunk);
  }

  end(budgetMs: number): ArcResult | Promise<ArcResult> {
    this.#signal.throwIfAborted();
    this.#body.end();
    switch (this.#chain.kind) {
      case 'none':
        return { result: 'none', detail: 'the message has no ARC chain', hops: [], oldestPass: null };
      case 'broken':
        return { result: 'fail', detail: this.#chain.detail, hops: [], oldestPass: null };
      case 'chain':
        return this.#validated(this.#chain.sets, budgetMs);
    }
  }

  #read(): ArcChain {
    const chain = readArcChain(this.#message.headers, aLabels);
    if (chain.kind !== 'chain') return chain;
    const { fault } = measureHeaders(this.#message.headers);
    return fault === null ? chain : { kind: 'broken', detail: fault };
  }

  /** Asks for all keys at once. The newest first: where there are too many, they are what matters. */
  #prepare(sets: readonly ArcSet[]): void {
    for (const { instance, signature, seal, message } of sets.toReversed()) {
      if (signature !== null && message.value.length <= SIGNATURE_LENGTH_LIMIT) {
        const { bodyCanonicalization, bodyLength } = signature;
        this.#bodies.set(instance, this.#message.hashes.want(bodyCanonicalization, bodyLength));
        this.#keys.ask(signature.selector, signature.domain);
      }
      this.#keys.ask(seal.selector, seal.domain);
    }
  }

  async #validated(sets: readonly ArcSet[], budgetMs: number): Promise<ArcResult> {
    await this.#keys.settle(budgetMs);
    const hops = sets.map(hopOf).toReversed();
    const newest = this.#newest(sets);
    const sealed = newest.word === 'pass' || newest.word === 'temperror' ? await this.#seals(sets) : PASS;
    // A part that is known to be wrong decides; what is not known could have made no difference.
    const [worst] = [newest, sealed].toSorted((one, other) => rank(other) - rank(one));
    if (worst === undefined || worst.word === 'pass') {
      const oldestPass = await this.#oldestPass(sets);
      return { result: 'pass', detail: `${sets.length} sealed: ${sealers(hops)}`, hops, oldestPass };
    }
    const result = worst.word === 'temperror' ? 'temperror' : 'fail';
    return { result, detail: worst.detail, hops, oldestPass: null };
  }

  /** §5.2 step 4. */
  #newest(sets: readonly ArcSet[]): Judgement {
    const set = sets.at(-1);
    return set === undefined ? PASS : this.#messageSignature(set);
  }

  #messageSignature({ instance, message, signature }: ArcSet): Judgement {
    const of = `i=${instance} ARC-Message-Signature`;
    const body = this.#bodies.get(instance);
    if (signature === null || body === null || body === undefined)
      return { word: 'neutral', detail: `${of}: can't be verified` };
    const judged = judgeSignature({
      signature,
      field: message,
      body,
      key: this.#keys.answer(signature.selector, signature.domain),
      fields: this.#message.fields,
      now: this.#now,
    });
    return { word: judged.word, detail: `${of}: ${judged.detail} (d=${signature.domain})` };
  }

  /** §5.2 step 6: each seal covers all sets up to its own. */
  async #seals(sets: readonly ArcSet[]): Promise<Judgement> {
    let data = '';
    let unknown: Judgement | null = null;
    for (const { instance, results, message, seal } of sets) {
      data += `${canonical(results)}\r\n${canonical(message)}\r\n`;
      const judged = this.#seal(instance, seal, data + signatureFieldData(seal.field, 'relaxed'));
      if (judged.word === 'temperror') unknown ??= judged;
      else if (judged.word !== 'pass') return judged;
      data += `${canonical(seal.field)}\r\n`;
      if (instance % SEALS_AT_ONCE === 0) await nextTurn();
      this.#signal.throwIfAborted();
    }
    return unknown ?? PASS;
  }

  #seal(instance: number, { algorithm, domain, selector, value }: ArcSet['seal'], data: string): Judgement {
    const found = this.#keys.answer(selector, domain);
    const fault = (word: Judgement['word'], why: string): Judgement => ({
      word,
      detail: `i=${instance} ARC-Seal: ${why} (d=${domain})`,
    });
    switch (found.kind) {
      case 'unknown':
        return fault('temperror', found.detail);
      case 'unusable':
        return fault(found.word, found.detail);
      case 'key': {
        const wrong = keyFault(algorithm, found.key.record);
        if (wrong !== null) return fault('permerror', wrong);
        return isSigned(algorithm, data, found.key.object, value) ? PASS : fault('fail', 'bad signature');
      }
    }
  }

  /** §5.2 step 5. */
  async #oldestPass(sets: readonly ArcSet[]): Promise<number> {
    let oldest = sets.length;
    for (const set of sets.toReversed().slice(1)) {
      if (this.#messageSignature(set).word !== 'pass') return oldest;
      oldest = set.instance;
      if (oldest % SEALS_AT_ONCE === 0) await nextTurn();
      this.#signal.throwIfAborted();
    }
    return 0;
  }
}

/** §4.1.3: seals always see relaxed header fields. */
function canonical(field: HeaderField): string {
  return canonicalField(field, 'relaxed');
}

function hopOf({ instance, results, signature, seal }: ArcSet): ArcHop {
  return {
    instance,
    sealer: seal.domain.toLowerCase(),
    signer: signature?.domain.toLowerCase() ?? '',
    results: results.value,
  };
}

function sealers(hops: readonly ArcHop[]): string {
  return hops
    .slice(0, ARC_KEYS_LIMIT)
    .map(({ instance, sealer }) => `i=${instance} ${sealer}`)
    .join(', ');
}

function rank({ word }: Judgement): number {
  if (word === 'pass') return 0;
  return word === 'temperror' ? 1 : 2;
}
