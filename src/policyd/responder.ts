import type { CheckTools } from '../checks/check.ts';
import { after } from '../checks/soon.ts';
import type { Config } from '../config/config.ts';
import type { Store } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import type { PolicydMetrics } from './metrics.ts';
import { decisionOf, isNews, logFields, type Answered } from './record.ts';
import { renderVerdict } from './render.ts';
import { recipientCountOf, recipientOf, sizeOf, stateOf } from './request.ts';
import type { Judgement, Question, Transaction } from './transaction.ts';
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
        const question = {
          state,
          recipient: recipientOf(attributes),
          recipientCount: recipientCountOf(attributes),
          size: sizeOf(attributes),
        };
        const judgement = transaction.judge(question);
        if (judgement instanceof Promise) this.#transactions.watch(transaction, judgement);
        return after(judgement, (made) => this.#answer(attributes, question, transaction, made, begun));
      }
    }
  }

  #answer(
    attributes: Attributes,
    question: Question,
    transaction: Transaction,
    judgement: Judgement,
    begun: number,
  ): PolicyAction {
    const { verdict, everyone } = judgement;
    const { identity } = transaction;
    const { state } = question;
    const field = identity.fieldSent ? null : transaction.field;
    const action = renderVerdict(verdict, { state, trace: identity.trace, field, everyone });
    if (action.kind === 'PREPEND') identity.fieldSent = true;

    const { clock } = this.#tools.checks;
    const elapsed = clock.elapsed() - begun;
    this.#tools.metrics.answered(state, action, verdict, elapsed);
    const time = clock.now();
    this.#tell({ attributes, question, transaction, judgement, action, time, elapsed });
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
