import { parseForwardPath, settingsKey, type Address } from '../mail/address.ts';
import { unfold, type HeaderList } from '../mail/header.ts';
import type { Message } from '../mail/message.ts';
import type { Store } from '../ports/store.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import type { Log } from '../runtime/telemetry.ts';
import { TRACES_BEFORE } from '../verdict/edits.ts';
import type { Verdict } from '../verdict/verdict.ts';
import type { Sentence } from './judge.ts';
import { STORE_DEADLINE_MS, type Origin } from './origin.ts';

/**
 * So many deliveries to the same mailbox are a circle, whatever brings the message back. One is not: mail that is fetched from another
 * server (fetchmail) may have been delivered to the same address there.
 */
export const ROUNDS = 3;
/** Fields that are looked at. */
const FIELD_LIMIT = 100;
/** Decisions of one pass that are looked at. */
const DECISIONS = 10;

const LOOPING: Verdict = {
  kind: 'reject',
  rule: 'loop',
  why: 'the message was delivered to this mailbox before, and came back',
  score: null,
  tagged: false,
  shadow: [],
  // RFC 3463 §3.5: X.4.6, routing loop detected
  reply: {
    code: 554,
    detail: '4.6',
    text: 'This message was delivered to this mailbox before, and came back',
  },
};

export interface LoopTools {
  readonly store: Store;
  readonly delimiter: string;
  readonly log: Log;
}

/**
 * The sentences, with a refusal for each recipient whose mail goes in a circle: Dovecot's Delivered-To names the mailbox, and the record
 * knows that it delivered one of the traces the message bears (`X-Postern-Before`) there; or it was there ROUNDS times. Either sign alone,
 * once, is no proof.
 *
 * A person who sends a message on (RFC 5322 §3.6.6) puts Resent fields above what happened before, which then does not count.
 */
export async function withoutLoops(
  sentences: readonly Sentence[],
  { envelope, headers }: Message,
  origin: Origin,
  { store, delimiter, log }: LoopTools,
): Promise<readonly Sentence[]> {
  const rounds = deliveries(headers, delimiter);
  if (rounds.size === 0) return sentences;
  const traces = before(headers);
  const judged: Sentence[] = [];
  for (const [position, sentence] of sentences.entries()) {
    const address = envelope.recipients[position]?.address;
    const count = address === undefined ? 0 : (rounds.get(settingsKey(address, delimiter)) ?? 0);
    const looping =
      address !== undefined &&
      count > 0 &&
      (count >= ROUNDS || (await wasDelivered(address, traces, origin, store, log)));
    judged.push(
      looping ? { verdict: LOOPING, edits: null, kept: false, wrapper: null, folder: null } : sentence,
    );
  }
  return judged;
}

/** How often the message was delivered to each mailbox since somebody last sent it. */
function deliveries(headers: HeaderList, delimiter: string): ReadonlyMap<string, number> {
  const rounds = new Map<string, number>();
  if (headers.first('Delivered-To') === undefined) return rounds;
  let seen = 0;
  for (const { name, value } of headers) {
    const lower = name.toLowerCase();
    if (lower.startsWith('resent-') || seen === FIELD_LIMIT) break;
    if (lower !== 'delivered-to') continue;
    seen += 1;
    const mailbox = settingsKey(parseForwardPath(unfold(value).trim()), delimiter);
    rounds.set(mailbox, (rounds.get(mailbox) ?? 0) + 1);
  }
  return rounds;
}

function before(headers: HeaderList): readonly string[] {
  const field = headers.first(TRACES_BEFORE);
  return field === undefined ? [] : (unfold(field.value).match(/\b[a-z2-7]{16}\b/g) ?? []);
}

async function wasDelivered(
  recipient: Address,
  traces: readonly string[],
  { trace: present, queueId }: Origin,
  store: Store,
  log: Log,
): Promise<boolean> {
  try {
    for (const trace of traces) {
      const filter = { trace, recipient: recipient.raw, daemon: 'lmtp-filter', limit: DECISIONS } as const;
      const decisions = await withinDeadline(store.history(filter), STORE_DEADLINE_MS, 'the store');
      if (decisions.some(({ reply }) => reply.startsWith('2'))) return true;
    }
  } catch (error) {
    const fields = { daemon: 'lmtp-filter', trace: present, qid: queueId, err: error };
    log.warn(fields, 'whether the message goes in a circle could not be looked up');
  }
  return false;
}
