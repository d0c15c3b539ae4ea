import type { WithoutKey } from '../config/signing.ts';
import type { HeaderField } from '../mail/header.ts';
import type { DomainKeys } from '../ports/signing-keys.ts';
import { DkimSigner, type SignatureForm } from './dkim-signer.ts';
import { BrokenKey, type FinishContext, type Finisher } from './finisher.ts';
import type { MilterMetrics } from './metrics.ts';

/** DKIM signatures on one message, with keys that may be known only while its body comes. */
export class DkimFinisher implements Finisher {
  readonly withoutKey: WithoutKey;
  readonly #keys: Promise<DomainKeys>;
  readonly #metrics: MilterMetrics;
  readonly #form: SignatureForm;
  #signer: DkimSigner | null;

  constructor(
    form: SignatureForm & { readonly withoutKey: WithoutKey },
    keys: Promise<DomainKeys>,
    metrics: MilterMetrics,
  ) {
    this.withoutKey = form.withoutKey;
    this.#keys = keys;
    this.#metrics = metrics;
    this.#form = form;
    this.#signer = new DkimSigner(form);
    void this.#look();
  }

  /** Once the keys are known: without any, there is nothing to hash the body for. */
  async #look(): Promise<void> {
    try {
      if ((await this.#keys).kind !== 'usable') this.#signer = null;
    } catch {
      // finish() meets the same error, and whoever asked for it is told there.
      this.#signer = null;
    }
  }

  body(chunk: Uint8Array): void {
    this.#signer?.body(chunk);
  }

  async finish({ headers, newBody, timeSeconds }: FinishContext): Promise<readonly HeaderField[]> {
    const choice = await this.#keys;
    switch (choice.kind) {
      case 'none':
        this.#metrics.signature('none');
        return [];
      case 'unpublished':
        // signing.unpublished = "skip"; who keeps watch has told the operator.
        this.#metrics.signature('unpublished');
        return [];
      case 'broken':
        throw new BrokenKey(choice.why);
      case 'usable': {
        const signer = newBody === null ? this.#signer : this.#signerOf(newBody);
        const fields = (await signer?.sign(choice.keys, headers, timeSeconds)) ?? [];
        if (fields.length === 0) throw new Error('the signer made no signature');
        this.#metrics.signature('signed');
        return fields;
      }
    }
  }

  #signerOf(body: string): DkimSigner {
    const signer = new DkimSigner(this.#form);
    signer.body(Buffer.from(body, 'latin1'));
    return signer;
  }

  failed(): void {
    this.#metrics.signature(this.withoutKey === 'defer' ? 'failed' : 'skipped');
  }
}
