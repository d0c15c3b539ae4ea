import type { AccountState } from '../ports/accounts.ts';
import type { Clock } from '../ports/clock.ts';
import type { Notice, Notifier } from '../ports/notifier.ts';
import { shellWord } from './shell-word.ts';

/** Something that an account's owner is unlikely to have done. */
export interface Suspicion {
  readonly login: string;
  /** One line for people: what was seen. */
  readonly why: string;
  readonly facts: Notice['facts'];
  /** How long the account stays under observation, milliseconds. */
  readonly forMs: number;
  /** Whether somebody is told, when this is news. */
  readonly notify: boolean;
}

/**
 * Puts an account under observation, and tells of it once: not when it is observed already, or worse. Nothing is taken from the account.
 * True when it was news.
 */
export async function observeAccount(
  { state, notifier, clock }: { state: AccountState; notifier: Notifier; clock: Clock },
  { login, why, facts, forMs, notify }: Suspicion,
): Promise<boolean> {
  const now = clock.now();
  const raised = await state.raiseStanding({
    login,
    kind: 'observe',
    why,
    by: 'postern',
    since: now,
    until: now + forMs,
  });
  if (raised && notify) {
    const word = shellWord(login);
    notifier.notify({
      event: 'account',
      time: now,
      subject: login,
      text: `${login} is under observation: ${why}`,
      advice: [
        'Ask the owner. When it was not the owner, change the password, then end the open sessions.',
        'postern sender list',
        ...(word === null ? [] : [`postern sender block ${word}`, `postern sender release ${word}`]),
      ],
      facts,
    });
  }
  return raised;
}
