import type { Sealing, WithoutKey } from '../config/signing.ts';
import { INSTANCES_LIMIT } from '../mail/arc-chain.ts';
import { arcFields, type ArcFields } from '../mail/arc-fields.ts';
import type { HeaderField } from '../mail/header.ts';
import { breakLines } from '../mail/line-breaker.ts';
import type { SigningKey, SigningKeys } from '../ports/signing-keys.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import { authResults } from '../verdict/edits.ts';
import type { Outcome } from '../verdict/finding.ts';
import { arcSet, type NewSet } from './arc-sealer.ts';
import { BodyHash } from './body-hash.ts';
import { BrokenKey, type FinishContext, type Finisher } from './finisher.ts';
import type { MilterMetrics } from './metrics.ts';

const KEYS_DEADLINE_MS = 5000;

/** An ARC set on one message that is forwarded; whether it is may be known only while its body comes. */
export class ArcFinisher implements Finisher {
  readonly withoutKey: WithoutKey;
  readonly #sealing: Sealing;
  readonly #authservId: string;
  readonly #wanted: Promise<boolean>;
  readonly #source: SigningKeys;
  readonly #metrics: MilterMetrics;
  #hash: BodyHash | null;

  constructor(
    sealing: Sealing,
    authservId: string,
    wanted: Promise<boolean>,
    source: SigningKeys,
    metrics: MilterMetrics,
  ) {
    this.withoutKey = sealing.withoutKey;
    this.#sealing = sealing;
    this.#hash = new BodyHash('relaxed', sealing.lineLimit);
    this.#authservId = authservId;
    this.#wanted = wanted;
    this.#source = source;
    this.#metrics = metrics;
    void this.#look();
  }

  /** Once it is known whether the message leaves: when it stays, there is nothing to hash the body for. */
  async #look(): Promise<void> {
    try {
      if (!(await this.#wanted)) this.#hash = null;
    } catch {
      // finish() meets the same error, and whoever asked for it is told there.
      this.#hash = null;
    }
  }

  body(chunk: Uint8Array): void {
    this.#hash?.write(chunk);
  }

  async finish({ headers, newBody, outcomes, timeSeconds }: FinishContext): Promise<readonly HeaderField[]> {
    if (!(await this.#wanted) || this.#hash === null) return [];
    const chain = arcFields(headers);
    const state = chainState(chain, outcomes);
    switch (state) {
      case 'ended':
      case 'full':
      case 'unverified':
        this.#metrics.seal(state);
        return [];
      case 'none':
      case 'pass':
      case 'fail': {
        const { oversign, lineLimit } = this.#sealing;
        const fields = await arcSet(
          {
            chain,
            validation: state,
            results: authResults(outcomes),
            authservId: this.#authservId,
            headers: lineLimit === 0 ? headers : breakLines(headers, lineLimit),
            bodyHash: newBody === null ? this.#hash.digest() : hashOf(newBody, lineLimit),
            oversign,
            timeSeconds,
          },
          await this.#key(),
        );
        this.#metrics.seal('sealed');
        return fields;
      }
    }
  }

  failed(): void {
    this.#metrics.seal(this.withoutKey === 'defer' ? 'failed' : 'skipped');
  }

  async #key(): Promise<SigningKey> {
    const { domain, selector } = this.#sealing;
    const answer = this.#source.keysOf(domain);
    const found =
      answer instanceof Promise
        ? await withinDeadline(answer, KEYS_DEADLINE_MS, 'the source of the keys')
        : answer;
    switch (found.kind) {
      case 'none':
        throw new BrokenKey(`there is no key of ${domain}`);
      case 'unpublished':
        throw new BrokenKey(`no key of ${domain} is in DNS`);
      case 'broken':
        throw new BrokenKey(found.why);
      case 'usable': {
        // RFC 8617 knows no other algorithm by name, and verifiers with it no more.
        const key = found.keys.find(
          (one) => one.algorithm === 'rsa-sha256' && (selector === null || one.selector === selector),
        );
        if (key === undefined) throw new BrokenKey(`there is no such RSA key of ${domain}`);
        return key;
      }
    }
  }
}

function hashOf(body: string, lineLimit: number): string {
  const hash = new BodyHash('relaxed', lineLimit);
  hash.write(Buffer.from(body, 'latin1'));
  return hash.digest();
}

/**
 * What a new seal says of the chain so far (cv=), or why there is none to be. `ended`: the last one says that the chain has failed, nobody adds
 * to it. `full`: 50 sets. `unverified`: nobody knows what became of it, and whoever seals answers for what he says.
 */
type ChainState = NewSet['validation'] | 'ended' | 'full' | 'unverified';

function chainState(chain: ArcFields, outcomes: readonly Outcome[]): ChainState {
  if (!chain.present) return 'none';
  // RFC 8617 §5.1.2, §5.1: after cv=fail nothing is added.
  if (chain.ended) return 'ended';
  // §4.2.1
  if (chain.highest >= INSTANCES_LIMIT) return 'full';
  const outcome = outcomes.find(({ check }) => check === 'arc');
  if (outcome?.kind !== 'found') return 'unverified';
  const codes = outcome.findings.map(({ code }) => code);
  if (codes.includes('arc.pass')) return 'pass';
  if (codes.includes('arc.fail')) return 'fail';
  return 'unverified';
}
