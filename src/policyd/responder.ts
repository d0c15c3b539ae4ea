import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import type { Store } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import type { PolicydMetrics } from './metrics.ts';
import { decisionOf, isNews, logFields, type Answered } from './record.ts';
import { renderVerdict } from './render.ts';
import { recipientCountOf, recipientOf, stateOf, type MailState } from './request.ts';
import type { Evidence, Transaction } from './transaction.ts';
import { Transactions } from './transactions.ts';
import { DUNNO, type Attributes, type PolicyAction } from './wire.ts';

export interface ResponderTools {
  readonly checks: CheckTools;
  readonly store: Store;
  readonly log: Log;
  readonly metrics: PolicydMetrics;
}

/** Request in, action out. Knows nothing of connections. */
export class Responder {
  readonly #tools: ResponderTools;
  readonly #transactions: Transactions;
  #config: Config;

  constructor(config: Config, tools: ResponderTools) {
    this.#config = config;
    this.#tools = tools;
    const { checks, store, log, metrics } = tools;
    this.#transactions = new Transactions({ checks, store, log, observe: metrics.outcome });
  }

  /** Messages that begin from now on are judged by the new value. */
  reload(config: Config): void {
    this.#config = config;
  }

  /** Ends all checks under way. */
  abort(): void {
    this.#transactions.abort();
  }

  /** The answer; a promise only while checks are under way. */
  answer(attributes: Attributes): PolicyAction | Promise<PolicyAction> {
    const { clock } = this.#tools.checks;
    const begun = clock.elapsed();
    const state = stateOf(attributes);
    switch (state) {
      case 'CONNECT':
      case 'EHLO':
      case 'HELO':
      case 'VRFY':
      case 'ETRN':
      case 'unknown':
        // No message yet, or none at all: there is nothing to judge.
        this.#tools.metrics.answered(state, DUNNO, null, clock.elapsed() - begun);
        return DUNNO;
      case 'MAIL':
      case 'RCPT':
      case 'DATA':
      case 'END-OF-MESSAGE': {
        const transaction = this.#transactions.find(state, attributes, this.#config);
        const { evidence } = transaction;
        return evidence === null
          ? this.#later(state, attributes, transaction, begun)
          : this.#judge(state, attributes, transaction, evidence, begun);
      }
    }
  }

  async #later(
    state: MailState,
    attributes: Attributes,
    transaction: Transaction,
    begun: number,
  ): Promise<PolicyAction> {
    return this.#judge(state, attributes, transaction, await transaction.gathered(), begun);
  }

  #judge(
    state: MailState,
    attributes: Attributes,
    transaction: Transaction,
    evidence: Evidence,
    begun: number,
  ): PolicyAction {
    const recipient = recipientOf(attributes);
    const question = { state, recipient, recipientCount: recipientCountOf(attributes) };
    const { verdict, everyone } = transaction.judge(question, evidence);
    const field = transaction.fieldSent ? null : evidence.field;
    const action = renderVerdict(verdict, { state, trace: evidence.trace, field, everyone });
    if (action.kind === 'PREPEND') transaction.fieldSent = true;

    const { clock } = this.#tools.checks;
    const elapsed = clock.elapsed() - begun;
    this.#tools.metrics.answered(state, action, verdict, elapsed);
    const time = clock.now();
    this.#tell({ attributes, question, transaction, evidence, verdict, action, time, elapsed });
    return action;
  }

  #tell(answered: Answered): void {
    const { log, store } = this.#tools;
    if (isNews(answered)) {
      store.record(decisionOf(answered));
      log.info(logFields(answered), 'request answered');
    } else if (log.isLevelEnabled('debug')) {
      log.debug(logFields(answered), 'request answered again');
    }
  }
}
