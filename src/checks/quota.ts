import { z } from 'zod';

import { lowerAscii, type Address } from '../mail/address.ts';
import type { Destination } from '../ports/directory.ts';
import type { Finding } from '../verdict/finding.ts';
import { admissionCheck, type CheckTools, type RcptFacts } from './check.ts';
import { byteSize, duration } from './options.ts';
import {
  claim,
  giveBack,
  limitedAmong,
  MAILBOX_LIMIT,
  unconditional,
  type Answer,
  type Wish,
} from './quota-claims.ts';
import { quotaFinding } from './quota-finding.ts';
import { quotaLedger, type QuotaLedger } from './quota-ledger.ts';
import { noteRoom, warnOf } from './quota-notes.ts';
import { obstacle, OVERHEAD, type LimitedMailbox } from './quota-room.ts';

const LONGEST_HOLD = 7 * 86_400_000;

/** Of quota and quota-end. */
export const QUOTA_OPTIONS = {
  temporary_for: duration()
    .prefault('7d')
    .describe(
      'How long a mailbox must have been full without a break before its mail is refused for good (quota.full-long in place of quota.full).',
    ),
  largest_message: byteSize()
    .prefault('10240000B')
    .describe(
      "Postfix's message_size_limit: what a message may have whose sender did not announce its size. So much is held for it; where there is not so much room, it gets no second recipient, so that it can still be refused at its end.",
    ),
  alias_room: z
    .enum(['one', 'all'])
    .default('one')
    .describe(
      'When an alias for several mailboxes takes a message: "one": when one of them has room; copies for the others wait in the queue of Postfix, which returns them to the sender when it gives up. "all": when all of them have room, so that nothing is ever returned.',
    ),
  warn_at: z
    .array(z.number().min(1).max(100))
    .max(8)
    .default([80, 95])
    .describe('Percent of its quota at which a notice is sent about a mailbox, each once.')
    .meta({ title: 'list of percentages' }),
  transfer_hold: duration()
    .refine((ms) => ms > 0 && ms <= LONGEST_HOLD, 'expected a duration above "0s" and of at most "7d"')
    .prefault('10m')
    .describe('How long room is held from RCPT on, until the end of the message is there.')
    .meta({ title: 'duration' }),
  hold: duration()
    .refine((ms) => ms > 0 && ms <= LONGEST_HOLD, 'expected a duration above "0s" and of at most "7d"')
    .prefault('1h')
    .describe(
      'How long room is held for a message that was accepted, until lmtp-filter tells that it has reached its mailbox.',
    )
    .meta({ title: 'duration' }),
};

export type QuotaOptions = z.output<z.ZodObject<typeof QUOTA_OPTIONS>>;

/** Whether the mailbox has room for the message, before it is accepted. */
export const quotaCheck = admissionCheck({
  name: 'quota',
  stage: 'admission',
  summary:
    'Room in the mailboxes of a recipient, by what Dovecot knows and what is on its way there. Made when [dovecot] says whom to ask.',
  directions: ['in', 'out'],
  needs: [],
  codes: {
    'quota.full': {
      meaning:
        'The mailbox has no room for this message, an alias none in any of its mailboxes; what is on its way there counts as arrived.',
      action: 'defer',
    },
    'quota.full-long': {
      meaning: 'The same, and the mailbox has been full for longer than temporary_for.',
      action: 'reject',
    },
    'quota.too-large': {
      meaning: 'The message would not fit if the mailbox were empty.',
      action: 'reject',
    },
    'quota.alone': {
      meaning:
        'The sender did not announce the size, and the mailbox of this recipient, or of one before, has room for less than largest_message: it must come alone, so that the message can be refused at its end.',
      action: 'defer',
    },
  },
  // Dovecot decides for itself, and better late than for no mail at all.
  unavailable: 'ignore',
  deadline: '3s',
  options: QUOTA_OPTIONS,
  ready: (tools) => tools.quota !== null,
  async run({ facts, tools, options, signal }) {
    const ledger = quotaLedger(facts.identity);
    const { alone } = ledger;
    if (alone !== null && alone !== facts.recipient.raw && !isSpared(facts.recipient))
      return [besides(alone)];
    const destination = await tools.directory.destination(facts.recipient, signal);
    if (destination.kind === 'unknown') return [];
    const { mailboxes } = destination;
    if (mailboxes.length > MAILBOX_LIMIT) return [];
    const limited = await limitedAmong(mailboxes, tools, signal);
    warnOf(limited, options.warn_at, tools);
    return await new Admission(facts, destination, limited, ledger, options, tools).judge();
  },
  undo({ facts, tools, options }) {
    const { trace } = facts.identity;
    const ledger = quotaLedger(facts.identity);
    const held = ledger.release(facts.recipient.raw);
    for (const mailbox of held?.bytes.keys() ?? []) {
      const left = ledger.inMailbox(mailbox);
      const done =
        left === 0
          ? tools.state.settle(trace, mailbox, 0)
          : tools.state.reserve(trace, [unconditional(mailbox, left)], options.transfer_hold);
      done.catch(() => {}); // what can't be given back lapses by itself
    }
  },
});

/** Addresses whose mail is never refused for want of room. RFC 5321 §4.5.1, RFC 2142 §2. */
const SPARED = new Set(['postmaster', 'abuse']);

export function isSpared(recipient: Address): boolean {
  return SPARED.has(lowerAscii(recipient.local));
}

type Delivered = Extract<Destination, { kind: 'delivered' }>;

/** One recipient that wants room. */
class Admission {
  readonly #facts: RcptFacts;
  readonly #destination: Delivered;
  readonly #limited: ReadonlyMap<string, LimitedMailbox>;
  readonly #ledger: QuotaLedger;
  readonly #options: QuotaOptions;
  readonly #tools: CheckTools;
  /** It is taken, whatever its mailboxes say. */
  readonly #free: boolean;

  constructor(
    facts: RcptFacts,
    destination: Delivered,
    limited: ReadonlyMap<string, LimitedMailbox>,
    ledger: QuotaLedger,
    options: QuotaOptions,
    tools: CheckTools,
  ) {
    this.#facts = facts;
    this.#destination = destination;
    this.#limited = limited;
    this.#ledger = ledger;
    this.#options = options;
    this.#tools = tools;
    const partly = destination.elsewhere || limited.size < destination.mailboxes.length;
    this.#free = isSpared(facts.recipient) || (partly && options.alias_room === 'one');
  }

  async judge(): Promise<readonly Finding[]> {
    const { size } = this.#facts;
    const bytes = (size ?? this.#options.largest_message) + OVERHEAD;
    const answers = await this.#claim(bytes);
    if (this.#suffices(answers.map(granted))) {
      this.#hold(answers, false);
      return [];
    }
    return size === null ? await this.#judgeUnannounced(answers) : [await this.#refuse(answers)];
  }

  /** There is not room for the largest message. A smaller one may come; only its end tells, and can refuse it when nobody else gets it. */
  async #judgeUnannounced(largest: readonly Answer[]): Promise<readonly Finding[]> {
    const least = largest.map(({ wish, inFlight }) => obstacle(wish.usage, inFlight, OVERHEAD) === null);
    if (this.#suffices(least) && this.#facts.accepted.length > 0) {
      await this.#release(largest);
      const [first] = this.#destination.mailboxes;
      return [
        {
          code: 'quota.alone',
          detail: `no size was announced, and ${first ?? 'the mailbox'} has room for less than largest_message, after others were accepted`,
        },
      ];
    }
    const answers = await this.#claim(OVERHEAD);
    if (!this.#suffices(answers.map(granted))) return [await this.#refuse(answers)];
    this.#hold(answers, true);
    return [];
  }

  /** Whether it is taken, by which of its mailboxes that have a limit have room. */
  #suffices(room: readonly boolean[]): boolean {
    if (this.#free || room.length === 0) return true;
    return this.#options.alias_room === 'all' ? !room.includes(false) : room.includes(true);
  }

  async #refuse(answers: readonly Answer[]): Promise<Finding> {
    await this.#release(answers);
    return await quotaFinding(
      answers.filter((answer) => !granted(answer)),
      this.#options,
      this.#tools,
    );
  }

  /** What was granted of it is not wanted after all. */
  async #release(answers: readonly Answer[]): Promise<void> {
    const { trace } = this.#facts.identity;
    const { transfer_hold: holdMs } = this.#options;
    for (const answer of answers) {
      if (granted(answer)) await giveBack(answer.wish, trace, holdMs, this.#tools.state);
    }
  }

  async #claim(bytes: number): Promise<readonly Answer[]> {
    const wishes = Array.from(this.#limited, ([mailbox, usage]): Wish => {
      const held = this.#ledger.inMailbox(mailbox);
      return { mailbox, usage, bytes: held + bytes, held };
    });
    return await claim(wishes, this.#facts.identity.trace, this.#options.transfer_hold, this.#tools);
  }

  #hold(answers: readonly Answer[], alone: boolean): void {
    const bytes = new Map<string, number>();
    for (const { obstacle: why, wish } of answers) {
      if (why === null) bytes.set(wish.mailbox, wish.bytes - wish.held);
    }
    const held = { mailboxes: [...this.#limited.keys()], bytes, free: this.#free };
    this.#ledger.hold(this.#facts.recipient.raw, held, alone);
    this.#ledger.announced = this.#facts.size;
    // Alone it holds no room to speak of: whether there is any, the end tells.
    if (!alone) noteRoom(answers, this.#tools);
  }
}

function granted(answer: Answer): boolean {
  return answer.obstacle === null;
}

function besides(recipient: string): Finding {
  return {
    code: 'quota.alone',
    detail: `no size was announced, and the mailbox of ${recipient}, who was accepted, has room for less than largest_message`,
  };
}
