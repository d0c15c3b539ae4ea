import type { State } from '../ports/state.ts';
import type { CheckTools } from './check.ts';
import type { Answer } from './quota-claims.ts';
import { sizeText, type LimitedMailbox } from './quota-room.ts';
import { Recently } from './recently.ts';

/** How long a mailbox that was noted as not full is not noted so again, by this process. */
const NOTED_MS = 60_000;
/** How long a warning that was given, by whichever process, is not thought of again by this one. */
const WARNED_MS = 3_600_000;
/** A mailbox that stays above a threshold is warned of once, unless no mail comes for so long. */
const WARNING_WINDOW_MS = 7 * 86_400_000;
const MOST = 20_000;

interface Notes {
  readonly notFull: Recently;
  readonly warned: Recently;
}

const notesOf = new WeakMap<State, Notes>();

function notes(state: State): Notes {
  let known = notesOf.get(state);
  if (known === undefined) {
    known = { notFull: new Recently(NOTED_MS, MOST), warned: new Recently(WARNED_MS, MOST) };
    notesOf.set(state, known);
  }
  return known;
}

/** Since when a mailbox that is full has been so, milliseconds since 1970. @throws {NeighbourError} */
export async function fullSince(mailbox: string, { state, clock }: CheckTools): Promise<number> {
  notes(state).notFull.delete(mailbox);
  return (await state.noteFull(mailbox, true)) ?? clock.now();
}

/** The mailboxes that took something are not full any more. Nobody waits for it. */
export function noteRoom(answers: readonly Answer[], { state, clock }: CheckTools): void {
  const { notFull } = notes(state);
  const now = clock.now();
  for (const { obstacle, wish } of answers) {
    const { mailbox } = wish;
    if (obstacle !== null || notFull.has(mailbox, now)) continue;
    notFull.add(mailbox, now);
    // The next message tries again.
    state.noteFull(mailbox, false).catch(() => notFull.delete(mailbox));
  }
}

/** Tells of mailboxes above a threshold, once for all processes that share the state. Nobody waits for it. */
export function warnOf(
  mailboxes: ReadonlyMap<string, LimitedMailbox>,
  thresholds: readonly number[],
  tools: CheckTools,
): void {
  const { warned } = notes(tools.state);
  const now = tools.clock.now();
  for (const [mailbox, usage] of mailboxes) {
    const reached = thresholds.filter((percent) => usage.used * 100 >= usage.limit * percent);
    const highest = Math.max(...reached);
    const key = `${highest} ${mailbox}`;
    if (reached.length === 0 || warned.has(key, now)) continue;
    warned.add(key, now);
    // The next message tries again.
    warn(mailbox, usage, reached, highest, tools).catch(() => warned.delete(key));
  }
}

async function warn(
  mailbox: string,
  usage: LimitedMailbox,
  reached: readonly number[],
  highest: number,
  { state, notifier, clock }: CheckTools,
): Promise<void> {
  // The lower thresholds count as told: on its way down a mailbox passes them without a word.
  const results = await state.seen(
    reached.map((percent) => ({
      kind: 'quota-warning',
      subject: mailbox,
      value: String(percent),
      windowMs: WARNING_WINDOW_MS,
    })),
  );
  if (results[reached.indexOf(highest)]?.fresh !== true) return;
  const { used, limit } = usage;
  const percent = limit === 0 ? 100 : Math.floor((used * 100) / limit);
  notifier.notify({
    event: 'quota',
    time: clock.now(),
    subject: mailbox,
    text: `The mailbox ${mailbox} is ${percent} % full: ${sizeText(used)} of ${sizeText(limit)}.`,
    advice: [`postern quota ${mailbox}`, 'Ask its user to remove mail, or raise its quota.'],
    facts: { mailbox, used, limit, percent, threshold: highest },
  });
}
