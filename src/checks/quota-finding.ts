import type { Finding } from '../verdict/finding.ts';
import type { CheckTools } from './check.ts';
import type { Answer } from './quota-claims.ts';
import { fullSince } from './quota-notes.ts';
import { OVERHEAD, sizeText, type Obstacle } from './quota-room.ts';

/** Mailboxes of an alias that a detail names. */
const NAMED = 3;

/** A mailbox without room. */
export interface Refusal {
  readonly obstacle: Obstacle | null;
  /** Since when it has been full, milliseconds since 1970; null: it is not, or not known to be. */
  readonly since: number | null;
}

/**
 * What it means for a recipient that none of its mailboxes has room: the mildest that holds for one of them.
 *
 * @param soon who has been full since a later time is so for now
 */
export function quotaCode(refusals: readonly Refusal[], soon: number): string {
  const full = refusals.filter(({ obstacle }) => obstacle === 'full');
  const forNow = full.some(({ since }) => since === null || since > soon);
  if (forNow || refusals.some(({ obstacle }) => obstacle === 'busy')) return 'quota.full';
  return full.length > 0 ? 'quota.full-long' : 'quota.too-large';
}

/** None of the mailboxes has room; notes those that are full. @throws {NeighbourError} */
export async function quotaFinding(
  answers: readonly Answer[],
  { temporary_for: temporaryFor }: { readonly temporary_for: number },
  tools: CheckTools,
): Promise<Finding> {
  const refusals = await Promise.all(
    answers.map(async ({ obstacle, wish }): Promise<Refusal> => {
      const since = obstacle === 'full' ? await fullSince(wish.mailbox, tools) : null;
      return { obstacle, since };
    }),
  );
  return { code: quotaCode(refusals, tools.clock.now() - temporaryFor), detail: describe(answers) };
}

function describe(answers: readonly Answer[]): string {
  const named = answers.slice(0, NAMED).map(({ wish, inFlight }) => {
    const { used, limit } = wish.usage;
    const other = inFlight === 0 ? '' : ` and ${sizeText(inFlight)} on its way`;
    return `${wish.mailbox} has ${sizeText(used)} of ${sizeText(limit)}${other}, for ${sizeText(wish.bytes - OVERHEAD)}`;
  });
  const more = answers.length - named.length;
  return `${named.join('; ')}${more > 0 ? `; ${more} more` : ''}`;
}
