import type { Hit } from '../ports/limits.ts';
import type { State } from '../ports/state.ts';
import type { MessageIdentity } from './check.ts';
import type { Limit } from './limit-options.ts';

/** Something that counts against a limit on behalf of one recipient. */
export interface Charge {
  readonly limit: Limit;
  readonly hit: Hit;
  /** As the client wrote it. */
  readonly recipient: string;
}

/** Charges that are remembered for one message: some limits for each of Postfix's 1,000 recipients. What is beyond can't be given back. */
const CHARGE_LIMIT = 10_000;

/** What one message was counted for, so that nothing is counted twice and everything can be given back. */
export class Ledger {
  #charges: Charge[] = [];
  /** Recipients that were counted one by one; a message can have a thousand. */
  readonly #counted = new Set<string>();
  /** Recipients that were given back at DATA or at the end of the message. */
  #missing = 0;

  /** Whether this is counted already: messages and bytes once for each counter, recipients each once. */
  has(limit: Limit, key: string, recipient: string): boolean {
    if (limit.of === 'recipients') return this.#counted.has(idOf(limit, key, recipient));
    // By name: a reload, and another policy_context, have the limit as another object.
    return this.#charges.some(({ limit: { name }, hit }) => name === limit.name && hit.key === key);
  }

  add(charges: readonly Charge[]): void {
    for (const charge of charges) {
      if (this.#charges.length >= CHARGE_LIMIT) return;
      this.#charges.push(charge);
      const { limit, hit, recipient } = charge;
      if (limit.of === 'recipients') this.#counted.add(idOf(limit, hit.key, recipient));
    }
  }

  /** Forgets what was counted for one recipient, and tells what it was. */
  takeRecipient(recipient: string): readonly Hit[] {
    const taken = this.#charges.filter((charge) => charge.recipient === recipient);
    if (taken.length === 0) return [];
    for (const { limit, hit } of taken) this.#counted.delete(idOf(limit, hit.key, recipient));
    this.#charges = this.#charges.filter((charge) => charge.recipient !== recipient);
    return taken.map(({ hit }) => hit);
  }

  /** Forgets everything, and tells what it was. */
  takeAll(): readonly Hit[] {
    const sums = summed(this.#charges);
    this.#charges = [];
    this.#counted.clear();
    return sums;
  }

  /**
   * What to give back when so many recipients were refused by others after we had accepted them. Which ones they were nobody tells, so counters of
   * single recipients, and of chosen ones, keep them: else bad addresses would make room for others.
   */
  takeMissing(count: number): readonly Hit[] {
    const more = count - this.#missing;
    if (more <= 0) return [];
    this.#missing = count;
    const taken: Charge[] = [];
    const left = new Map<string, number>();
    this.#charges = this.#charges.filter((charge) => {
      const { limit, hit } = charge;
      if (limit.of !== 'recipients' || namesRecipient(limit)) return true;
      const counter = `${hit.limit}\0${hit.key}`;
      const rest = left.get(counter) ?? more;
      if (rest === 0) return true;
      left.set(counter, rest - 1);
      taken.push(charge);
      return false;
    });
    return summed(taken);
  }

  /** Charges of bytes that were counted with another size. */
  sizedOtherwise(size: number): readonly Charge[] {
    return this.#charges.filter(({ limit, hit }) => limit.of === 'bytes' && hit.cost !== size);
  }

  /** From now on the message has this size. */
  resize(size: number): void {
    this.#charges = this.#charges.map((charge) =>
      charge.limit.of === 'bytes' ? { ...charge, hit: { ...charge.hit, cost: size } } : charge,
    );
  }
}

function namesRecipient({ per, recipients }: Limit): boolean {
  return per.includes('recipient') || per.includes('recipient-domain') || recipients.patterns.length > 0;
}

/** One hit for each counter, with all its cost. */
function summed(charges: readonly Charge[]): readonly Hit[] {
  const sums = new Map<string, Hit>();
  for (const { hit } of charges) {
    const id = `${hit.limit}\0${hit.key}`;
    sums.set(id, { ...hit, cost: hit.cost + (sums.get(id)?.cost ?? 0) });
  }
  return [...sums.values()];
}

function idOf({ name }: Limit, key: string, recipient: string): string {
  return `${name}\0${key}\0${recipient}`;
}

const ledgers = new WeakMap<MessageIdentity, Ledger>();

export function ledgerOf(identity: MessageIdentity): Ledger {
  let ledger = ledgers.get(identity);
  if (ledger === undefined) ledgers.set(identity, (ledger = new Ledger()));
  return ledger;
}

/** null: nothing was counted. */
export function knownLedger(identity: MessageIdentity): Ledger | null {
  return ledgers.get(identity) ?? null;
}

/** Sessions that are remembered as counted. */
export const CONNECTION_LIMIT = 20_000;
/** Longer than a session can be silent (smtpd_timeout, 300 s), and shorter than it takes a busy client to come round to the same port. */
const CONNECTION_AGE_MS = 600_000;

/** SMTP sessions that were counted, the one used last at the end. */
export class CountedConnections {
  readonly #seen = new Map<string, number>();

  /** Whether it is counted; then it is remembered for longer. */
  has(id: string, now: number): boolean {
    const time = this.#seen.get(id);
    if (time === undefined || now - time > CONNECTION_AGE_MS) return false;
    this.add(id, now);
    return true;
  }

  add(id: string, now: number): void {
    this.#seen.delete(id);
    this.#seen.set(id, now);
    if (this.#seen.size <= CONNECTION_LIMIT) return;
    for (const [oldest] of this.#seen) {
      this.#seen.delete(oldest);
      break;
    }
  }
}

/** They belong to the process that counts, which has one state. */
const connections = new WeakMap<State, CountedConnections>();

export function countedConnections(state: State): CountedConnections {
  let known = connections.get(state);
  if (known === undefined) connections.set(state, (known = new CountedConnections()));
  return known;
}
