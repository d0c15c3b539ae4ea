import { LRUCache } from 'lru-cache';

import type { Config, PolicyView } from '../config/config.ts';
import type { Store } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import { Identity } from './identity.ts';
import { contextOf, instanceOf, mailFactsOf, messageKey, queueIdOf, type MailState } from './request.ts';
import { Transaction, type TransactionTools } from './transaction.ts';
import type { Attributes } from './wire.ts';

/** Messages remembered at once. One that is forgotten while its requests still come is checked, and marked, once more. */
export const MESSAGE_LIMIT = 20_000;
/** Memory for them, roughly. A remote party can make a message's texts as long as SMTP lines may be, and its recipients a thousand. */
export const MEMORY_LIMIT = 160 * 1024 ** 2;
/** What a message with one recipient takes besides the texts of its key, which facts and findings hold again: measured with SPF, greylisting, limits and quota. */
const MESSAGE_SIZE = 7168;
const KEY_COPIES = 4;
/** What each further recipient takes. */
const RECIPIENT_SIZE = 2048;
/** A message's size is taken anew when it has so many recipients more. */
const RECIPIENT_STEP = 16;
/** How long a message is remembered after its last request: a large one may take long from RCPT to its end. */
export const MESSAGE_AGE_MS = 3_600_000;

export interface TransactionsTools extends TransactionTools {
  readonly store: Store;
  readonly log: Log;
}

/** One message; what each policy_context that asks about it has found. Most have one. */
interface Message {
  /** The configuration it began with. */
  readonly config: Config;
  readonly identity: Identity;
  readonly transactions: Transaction[];
  /** Recipients whose answers are remembered, as far as its size counts them. */
  recipients: number;
}

/** The messages that requests are about. Several connections and restriction lists ask about one message; it is checked once. */
export class Transactions {
  readonly #tools: TransactionsTools;
  readonly #known: LRUCache<string, Message>;
  readonly #underWay = new Set<Transaction>();

  constructor(tools: TransactionsTools) {
    this.#tools = tools;
    const { clock } = tools.checks;
    this.#known = new LRUCache({
      max: MESSAGE_LIMIT,
      maxSize: MEMORY_LIMIT,
      sizeCalculation: ({ recipients }, key) =>
        MESSAGE_SIZE + KEY_COPIES * key.length + RECIPIENT_SIZE * recipients,
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
    // At MAIL there is no instance yet (it comes once MAIL has passed), so each MAIL is a new message; a peer that tells
    // no instance later has nothing that joins its requests.
    const message =
      state === 'MAIL'
        ? this.#begin(key, attributes, config)
        : instance === ''
          ? this.#begin(null, attributes, config)
          : (this.#again(key) ?? this.#claim(key, attributes) ?? this.#begin(key, attributes, config));
    const view = viewOf(message.config, attributes);
    return message.transactions.find((each) => each.view === view) ?? this.#join(message, view, attributes);
  }

  /** Ends all checks under way. */
  abort(): void {
    for (const transaction of this.#underWay) transaction.abort();
  }

  /** Notes a judgement that is awaited, so that it can be ended. */
  watch(transaction: Transaction, judgement: Promise<unknown>): void {
    this.#underWay.add(transaction);
    const ended = (): boolean => this.#underWay.delete(transaction);
    judgement.then(ended, ended);
  }

  /** A message that is known. Its recipients count for its size some at a time: that costs more than to find it. */
  #again(key: string): Message | undefined {
    const message = this.#known.get(key);
    if (message === undefined) return undefined;
    let recipients = 0;
    for (const transaction of message.transactions) recipients += transaction.recipients;
    if (recipients >= message.recipients + RECIPIENT_STEP) {
      message.recipients = recipients;
      // The same object would keep its size.
      this.#known.delete(key);
      this.#known.set(key, message);
    }
    return message;
  }

  /** The message whose MAIL request had no instance to be known by. */
  #claim(key: string, attributes: Attributes): Message | undefined {
    const early = messageKey(attributes, '');
    const message = this.#known.get(early);
    if (message === undefined) return undefined;
    this.#known.delete(early);
    // The record of MAIL names no recipient; that of the first RCPT will.
    for (const transaction of message.transactions) transaction.recorded = null;
    this.#known.set(key, message);
    return message;
  }

  #begin(key: string | null, attributes: Attributes, config: Config): Message {
    const { store, log } = this.#tools;
    const facts = factsOf(attributes, config, viewOf(config, attributes));
    const patience = config.file.policyd.deadline;
    const instance = instanceOf(attributes);
    const identity = new Identity(facts, instance, queueIdOf(attributes), patience, { store, log });
    const message: Message = { config, identity, transactions: [], recipients: 0 };
    if (key !== null) this.#known.set(key, message);
    return message;
  }

  #join({ config, identity, transactions }: Message, view: PolicyView, attributes: Attributes): Transaction {
    const facts = factsOf(attributes, config, view);
    const transaction = new Transaction(config, view, facts, identity, this.#tools);
    transactions.push(transaction);
    return transaction;
  }
}

/** A context that no `[[policy]]` names is judged by the site's rules. */
function viewOf(config: Config, attributes: Attributes): PolicyView {
  const view = config.views.get(contextOf(attributes)) ?? config.views.get('');
  if (view === undefined) throw new Error('a configuration has rules for the empty policy_context');
  return view;
}

function factsOf(
  attributes: Attributes,
  config: Config,
  { direction }: PolicyView,
): ReturnType<typeof mailFactsOf> {
  const facts = mailFactsOf(attributes, config.file.site.own_networks);
  return direction === null ? facts : { ...facts, direction };
}
