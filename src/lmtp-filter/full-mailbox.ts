import type { Clock } from '../ports/clock.ts';
import type { Store } from '../ports/store.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import type { Log } from '../runtime/telemetry.ts';
import { STORE_DEADLINE_MS } from './origin.ts';
import type { UpstreamReply } from './reply-decoder.ts';

/** Tries of one message for one recipient that are looked at. Postfix makes some 120 in its five days. */
const TRIES = 2000;

// RFC 3463 §3.3: X.2.2, mailbox full.
const FULL = /^[45]\.2\.2\b/;

/** Whether Dovecot says that the mailbox is full. */
export function isFull({ code, lines }: UpstreamReply): boolean {
  return code >= 400 && FULL.test(lines[0] ?? '');
}

export interface FullMailbox {
  readonly queueId: string | null;
  /** As it is recorded. */
  readonly recipient: string;
  /** How long it is tried again, from the first try on; milliseconds. 0: Dovecot decides. */
  readonly wait: number;
}

export interface FullMailboxTools {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * What is said of mail that was accepted when there was room: 4xx for a while, as room may be made, and then 5xx, whichever of both
 * Dovecot says. Its other words stay. Without a queue id nobody knows how long it has been tried, and Dovecot decides.
 */
export async function fullMailboxReply(
  reply: UpstreamReply,
  { queueId, recipient, wait }: FullMailbox,
  { store, clock, log }: FullMailboxTools,
): Promise<UpstreamReply> {
  if (queueId === null || wait === 0) return reply;
  try {
    const filter = { queueId, recipient, daemon: 'lmtp-filter', backscatter: true, limit: TRIES } as const;
    const tries = await withinDeadline(store.history(filter), STORE_DEADLINE_MS, 'the store');
    // Newest first. A queue id is given again some day: a try that ended is another message's.
    const ended = tries.findIndex((one) => !one.reply.startsWith('4'));
    const first = (ended === -1 ? tries : tries.slice(0, ended)).at(-1);
    const over = first !== undefined && clock.now() - first.time >= wait;
    return worded(reply, over ? 5 : 4);
  } catch (error) {
    const fields = { daemon: 'lmtp-filter', qid: queueId, err: error };
    log.warn(fields, 'how long mail waits for room in a mailbox could not be read, it waits on');
    return worded(reply, 4);
  }
}

/** 452 4.2.2 or 552 5.2.2. */
function worded({ lines }: UpstreamReply, kind: 4 | 5): UpstreamReply {
  return { code: kind === 4 ? 452 : 552, lines: lines.map((line) => line.replace(FULL, `${kind}.2.2`)) };
}
