import { LRUCache } from 'lru-cache';

import type { Config } from '../config/config.ts';
import { instanceOf, mailFactsOf, messageKey, queueIdOf, type MailState } from './request.ts';
import { Transaction, type TransactionTools } from './transaction.ts';
import type { Attributes } from './wire.ts';

/** Messages remembered at once. One that is forgotten while its requests still come is checked, and marked, once more. */
export const MESSAGE_LIMIT = 20_000;
/** Memory for them, roughly. A remote party can make a message's texts as long as SMTP lines may be. */
export const MEMORY_LIMIT = 96 * 1024 ** 2;
/** What a message takes besides the texts of its key, which facts and findings hold again. */
const MESSAGE_SIZE = 3072;
const KEY_COPIES = 4;
/** How long a message is remembered after its last request: a large one may take long from RCPT to its end. */
export const MESSAGE_AGE_MS = 3_600_000;

/** The messages that requests are about. Several connections and restriction lists ask about one message; it is checked once. */
export class Transactions {
  readonly #tools: TransactionTools;
  readonly #known: LRUCache<string, Transaction>;
  readonly #underWay = new Set<Transaction>();

  constructor(tools: TransactionTools) {
    this.#tools = tools;
    const { clock } = tools.checks;
    this.#known = new LRUCache({
      max: MESSAGE_LIMIT,
      maxSize: MEMORY_LIMIT,
      sizeCalculation: (_transaction, key) => MESSAGE_SIZE + KEY_COPIES * key.length,
      ttl: MESSAGE_AGE_MS,
      ttlResolution: 0,
      updateAgeOnGet: true,
      perf: { now: () => clock.elapsed() },
    });
  }

  /** The message that a request is about. A new one is checked by the rules of `config`. */
  find(state: MailState, attributes: Attributes, config: Config): Transaction {
    const instance = instanceOf(attributes);
    const key = messageKey(attributes, instance);
    // At MAIL there is no instance yet (it comes once MAIL has passed), so each MAIL is a new message.
    if (state === 'MAIL') return this.#begin(key, attributes, config);
    // A peer that tells no instance: nothing joins its requests.
    if (instance === '') return this.#begin(null, attributes, config);
    return this.#known.get(key) ?? this.#claim(key, attributes) ?? this.#begin(key, attributes, config);
  }

  /** Ends all checks under way. */
  abort(): void {
    for (const transaction of this.#underWay) transaction.abort();
  }

  /** The message whose MAIL request had no instance to be known by. */
  #claim(key: string, attributes: Attributes): Transaction | undefined {
    const early = messageKey(attributes, '');
    const transaction = this.#known.get(early);
    if (transaction === undefined) return undefined;
    this.#known.delete(early);
    // The record of MAIL names no recipient; that of the first RCPT will.
    transaction.recorded = null;
    this.#known.set(key, transaction);
    return transaction;
  }

  #begin(key: string | null, attributes: Attributes, config: Config): Transaction {
    const facts = mailFactsOf(attributes, config.file.site.own_networks);
    const transaction = new Transaction(
      config,
      facts,
      instanceOf(attributes),
      queueIdOf(attributes),
      this.#tools,
    );
    if (key !== null) this.#known.set(key, transaction);
    this.#underWay.add(transaction);
    const ended = (): boolean => this.#underWay.delete(transaction);
    transaction.gathered().then(ended, ended);
    return transaction;
  }
}
