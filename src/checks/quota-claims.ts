import type { Claim, ClaimResult } from '../ports/quota.ts';
import type { CheckTools } from './check.ts';
import { isLimited, obstacle, type LimitedMailbox, type Obstacle } from './quota-room.ts';

/** What one message wants in one mailbox. */
export interface Wish {
  readonly mailbox: string;
  readonly usage: LimitedMailbox;
  /** All that the message wants there, with what it holds already. */
  readonly bytes: number;
  /** What it holds there already. */
  readonly held: number;
}

export interface Answer {
  readonly wish: Wish;
  /** null: the room is held. */
  readonly obstacle: Obstacle | null;
  /** Octets of other mail on its way. */
  readonly inFlight: number;
}

/** An alias for more mailboxes than this is not looked at: its mail is let pass, and Dovecot's answer stands for each of them. */
export const MAILBOX_LIMIT = 100;

/** How full the mailboxes are; those without a limit, and those of whom Dovecot knows nothing, are left out. @throws {NeighbourError} */
export async function limitedAmong(
  mailboxes: readonly string[],
  { quota }: CheckTools,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, LimitedMailbox>> {
  if (quota === null) return new Map();
  const usages = await Promise.all(mailboxes.map((mailbox) => quota.usage(mailbox, signal)));
  const limited = new Map<string, LimitedMailbox>();
  for (const [index, mailbox] of mailboxes.entries()) {
    const usage = usages[index] ?? null;
    if (usage !== null && isLimited(usage)) limited.set(mailbox, usage);
  }
  return limited;
}

/** Holds room where there is any: first without the grace, then with it where nothing else is on its way (see `obstacle`). */
export async function claim(
  wishes: readonly Wish[],
  trace: string,
  holdMs: number,
  { state }: CheckTools,
): Promise<readonly Answer[]> {
  if (wishes.length === 0) return [];
  const plain = await state.reserve(
    trace,
    wishes.map((wish) => claimOf(wish, 0)),
    holdMs,
  );
  const answers: Answer[] = [];
  const tight: Answer[] = [];
  for (const [index, wish] of wishes.entries()) {
    const result = plain[index];
    const answer = answerTo(wish, result);
    answers.push(answer);
    if (answer.obstacle === null && result?.granted !== true) tight.push(answer);
  }
  if (tight.length === 0) return answers;
  const graced = await state.reserve(
    trace,
    tight.map(({ wish }) => claimOf(wish, wish.usage.grace)),
    holdMs,
  );
  const settled = new Map<Answer, Answer>();
  for (const [index, answer] of tight.entries()) {
    const result = graced[index];
    const inFlight = result?.inFlight ?? 0;
    const granted = result?.granted === true;
    // Somebody else was faster.
    if (granted && inFlight > 0) await giveBack(answer.wish, trace, holdMs, state);
    const free = granted && inFlight === 0;
    settled.set(answer, { ...answer, inFlight, obstacle: free ? null : 'busy' });
  }
  return answers.map((answer) => settled.get(answer) ?? answer);
}

function claimOf({ mailbox, usage, bytes }: Wish, grace: number): Claim {
  return { mailbox, bytes, used: usage.used, limit: usage.limit, grace };
}

/** What stands in the way, as far as the claim without grace tells; null also where only the grace is wanting. */
function answerTo(wish: Wish, result: ClaimResult | undefined): Answer {
  const inFlight = result?.inFlight ?? 0;
  if (result?.granted === true) return { wish, obstacle: null, inFlight };
  return { wish, obstacle: obstacle(wish.usage, inFlight, wish.bytes), inFlight };
}

/** Back to what the message held before. @throws {NeighbourError} */
export async function giveBack(
  { mailbox, held }: Wish,
  trace: string,
  holdMs: number,
  state: CheckTools['state'],
): Promise<void> {
  if (held === 0) await state.settle(trace, mailbox, 0);
  else await state.reserve(trace, [unconditional(mailbox, held)], holdMs);
}

/** A claim that is never refused. */
export function unconditional(mailbox: string, bytes: number): Claim {
  return { mailbox, bytes, used: 0, limit: null, grace: 0 };
}
