import { lowerAscii, parseMailbox, type Address } from '../mail/address.ts';
import type { Destination } from '../ports/directory.ts';
import { expandSteps, extensionAt } from './virtual-aliases.ts';

/** What has to be known to say where mail goes. Keys are in lower case. */
export interface Question {
  /** `alias`: the targets of a key; `mailbox`: the user whose mailbox an address has; `mailboxes`: whether a domain has them; `domain`: whether it is ours. */
  readonly kind: 'alias' | 'mailbox' | 'mailboxes' | 'domain';
  readonly key: string;
}

/** Targets, or the user; of a domain any list says yes. undefined: no. */
export type Answer = readonly string[] | undefined;

/** A thought that stops at each question until it is answered: the same over tables in memory and over a network. */
export type Steps<T> = Generator<Question, T, Answer>;

const UNKNOWN: Destination = Object.freeze({ kind: 'unknown' });

/** Where mail for an address ends. */
export function* destinationSteps({ local, domain }: Address, delimiter: string): Steps<Destination> {
  if (domain === '' || local === '') return UNKNOWN;
  const addresses = yield* expansion(`${local}@${domain}`, delimiter);
  if (addresses === null) return UNKNOWN;
  const mailboxes = new Set<string>();
  let elsewhere = false;
  for (const address of addresses) {
    const at = address.lastIndexOf('@');
    // Postfix appends $myorigin to what has no domain, which is not for Dovecot's LMTP as we know it.
    if (at === -1) elsewhere = true;
    else {
      const host = lowerAscii(address.slice(at + 1));
      if ((yield { kind: 'mailboxes', key: host }) !== undefined) {
        const [user] = (yield { kind: 'mailbox', key: lowerAscii(address) }) ?? [];
        if (user !== undefined) mailboxes.add(user);
      } else if ((yield { kind: 'domain', key: host }) === undefined) {
        // Its own recipient is not ours at all.
        if (addresses.length > 1 || address !== `${local}@${domain}`) elsewhere = true;
      }
    }
  }
  if (mailboxes.size === 0 && !elsewhere) return UNKNOWN;
  return { kind: 'delivered', mailboxes: [...mailboxes], elsewhere };
}

/** Whether mail to an address ends (also) in the mailbox of a login. @param login in lower case */
export function* ownershipSteps(login: string, address: Address, delimiter: string): Steps<boolean> {
  const bare = withoutExtension(lowerAscii(address.local), delimiter);
  if (`${bare}@${address.domain}` === login) return true;
  if (bare === login && (yield { kind: 'domain', key: address.domain }) !== undefined) return true;
  const destination = yield* destinationSteps(address, delimiter);
  if (destination.kind === 'unknown') return false;
  const { local, domain } = parseMailbox(login);
  return destination.mailboxes.includes(
    domain === '' ? login : `${withoutExtension(local, delimiter)}@${domain}`,
  );
}

/** Answers every question at once. */
export function settleNow<T>(steps: Steps<T>, answer: (question: Question) => Answer): T {
  let step = steps.next();
  while (step.done !== true) step = steps.next(answer(step.value));
  return step.value;
}

/** Answers one question after another. @throws what `answer` does */
export async function settleLater<T>(
  steps: Steps<T>,
  answer: (question: Question) => Promise<Answer> | Answer,
): Promise<T> {
  let step = steps.next();
  while (step.done !== true) {
    const given = answer(step.value);
    step = steps.next(given instanceof Promise ? await given : given);
  }
  return step.value;
}

export function withoutExtension(local: string, delimiter: string): string {
  const cut = extensionAt(local, delimiter);
  return cut === null ? local : local.slice(0, cut);
}

function* expansion(address: string, delimiter: string): Steps<readonly string[] | null> {
  const steps = expandSteps(address, delimiter);
  let step = steps.next();
  while (step.done !== true) step = steps.next(yield { kind: 'alias', key: step.value });
  return step.value;
}
