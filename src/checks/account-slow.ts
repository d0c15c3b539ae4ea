import type { Hit, HitResult } from '../ports/limits.ts';
import type { CheckTools, MessageIdentity, RcptFacts } from './check.ts';
import { giveBack } from './limits.ts';

/** Counter of recipients of logins that are slowed down. */
export const SLOW_COUNTER = 'account-slow';

const PERIOD_MS = 3_600_000;

/** What was counted for the recipients of a message, as the client wrote them: each counts once and can be given back. */
const counted = new WeakMap<MessageIdentity, Map<string, Hit>>();

/** Counts one more recipient of a slow login; null: this one is counted already. */
export async function countSlow(
  login: string,
  most: number,
  { identity, recipient }: RcptFacts,
  { state }: CheckTools,
): Promise<HitResult | null> {
  let hits = counted.get(identity);
  if (hits === undefined) counted.set(identity, (hits = new Map<string, Hit>()));
  if (hits.has(recipient.raw)) return null;
  const hit: Hit = {
    limit: SLOW_COUNTER,
    key: login,
    algorithm: 'window',
    most,
    periodMs: PERIOD_MS,
    cost: 1,
    enforced: true,
  };
  const [result] = await state.hit([hit]);
  // Who is over the limit was not counted.
  if (result?.within === true) hits.set(recipient.raw, hit);
  return result ?? null;
}

/** Gives back what was counted for this recipient, if anything was. */
export function giveBackSlow({ identity, recipient }: RcptFacts, tools: CheckTools): void {
  const hits = counted.get(identity);
  const hit = hits?.get(recipient.raw);
  if (hits === undefined || hit === undefined) return;
  hits.delete(recipient.raw);
  giveBack(tools, [hit]);
}
