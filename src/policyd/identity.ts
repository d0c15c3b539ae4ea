import type { MailFacts, MessageIdentity } from '../checks/check.ts';
import type { Soon } from '../checks/soon.ts';
import { pathText } from '../mail/address.ts';
import { sessionKey } from '../mail/envelope.ts';
import type { Store, TraceId } from '../ports/store.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import type { Log } from '../runtime/telemetry.ts';
import { newTraceId } from '../runtime/trace-id.ts';

/** The longest a message waits for its trace id; then it goes by one that no other daemon knows. */
export const TRACE_DEADLINE_MS = 500;

/** One message to all restriction lists and policy contexts that ask about it. */
export class Identity implements MessageIdentity {
  #trace = newTraceId();
  /** The header field has been put in front of the message. */
  fieldSent = false;
  /** Settled once `trace` stays as it is. */
  readonly known: Soon<void> = undefined;

  constructor(
    facts: MailFacts,
    instance: string,
    queueId: string | null,
    patienceMs: number,
    { store, log }: { readonly store: Store; readonly log: Log },
  ) {
    const keys = {
      session: sessionKey(facts.client),
      sender: pathText(facts.sender),
      instance: instance === '' ? null : instance,
      queueId,
    };
    const opened = store.openTrace(keys, this.#trace);
    if (opened instanceof Promise) {
      this.known = this.#await(opened, Math.min(TRACE_DEADLINE_MS, patienceMs), log);
    } else {
      this.#trace = opened;
    }
  }

  get trace(): string {
    return this.#trace;
  }

  /** Mail does not stop for the record: without the store's answer the message goes by the fresh id. */
  async #await(opened: Promise<TraceId>, patienceMs: number, log: Log): Promise<void> {
    try {
      this.#trace = await withinDeadline(opened, patienceMs, 'the store');
    } catch (error) {
      log.warn({ trace: this.#trace, err: error }, 'trace could not be opened in the store');
    }
  }
}
