import { z } from 'zod';

import { startDovecot, type Dovecot } from './neighbours/dovecot.ts';
import { startPostfix, type Postfix } from './neighbours/postfix.ts';
import { sendMail } from './neighbours/smtp-client.ts';
import { startLmtpTap, TAP_STEPS, type LmtpTap, type TapStep } from './players/lmtp-tap.ts';
import { preparePostern, type Postern, type PosternProcess } from './postern.ts';
import { letter, PASSWORD } from './site.ts';

const USERS = ['apolo', 'ares', 'hera', 'hermes', 'zeus'].map((name) => `${name}@olimpus.example`);
/** Postfix takes mail for it; Dovecot does not know it. */
const GHOST = 'ghost@olimpus.example';
const VICTIMS = ['lmtp-filter', 'Dovecot'] as const;
const SENDERS = 6;
const KILL_DEADLINE_MS = 300_000;
/** So often a step is seen before the one at which the victim dies. */
const LATEST_KILL = 60;
const FLUSH_MS = 2000;
const DRAIN_MS = 600_000;
const LARGE = 300_000;

export type Victim = (typeof VICTIMS)[number];

export interface StormOptions {
  readonly messages: number;
  readonly told?: (text: string) => void;
}

/** One message for one recipient. */
export interface Delivery {
  readonly subject: string;
  readonly recipient: string;
  readonly copies: number;
  readonly bounced: boolean;
  readonly queued: boolean;
  /** So often a connection was cut when Dovecot might have had it and Postfix was not told. */
  readonly excuses: number;
}

export interface StormReport {
  readonly kills: readonly { readonly victim: Victim; readonly step: TapStep }[];
  readonly deliveries: readonly Delivery[];
  /** Recipients that lmtp-filter said may get a message twice. */
  readonly possibleDuplicates: number;
  readonly seconds: number;
}

/**
 * Real Postfix, lmtp-filter and Dovecot; while mail flows, lmtp-filter and Dovecot are killed with SIGKILL at every step of the dialogue
 * between them, and started again. In the end each message is accounted for, for each of its recipients.
 */
export async function lmtpStorm({ messages, told = () => {} }: StormOptions): Promise<StormReport> {
  await using cleanup = new AsyncDisposableStack();
  const dovecot = cleanup.use(
    await startDovecot({ users: Object.fromEntries(USERS.map((user) => [user, PASSWORD])) }),
  );
  const tap = cleanup.use(await startLmtpTap(dovecot.lmtpPort));
  const postern = cleanup.use(await preparePostern({ upstream: `127.0.0.1:${tap.port}` }));
  const postfix = cleanup.use(
    await startPostfix({
      domains: ['olimpus.example'],
      mailboxes: [...USERS, GHOST],
      virtualTransport: `postern:${postern.address['lmtp-filter']}`,
      main: { queue_run_delay: '1s', minimal_backoff_time: '1s', maximal_backoff_time: '4s' },
    }),
  );
  const storm = new Storm(postfix, postern, dovecot, tap, await postern.start('lmtp-filter'));
  const begun = performance.now();
  const rounds = TAP_STEPS.flatMap((step) => VICTIMS.map((victim) => ({ step, victim })));
  for (const [index, { step, victim }] of rounds.entries()) {
    const upTo = Math.round((messages * (index + 1)) / rounds.length);
    await storm.round(victim, step, upTo);
    told(`${victim} killed at ${step}; ${upTo} of ${messages} messages sent`);
  }
  return await storm.report(rounds, (performance.now() - begun) / 1000);
}

const PENDING = z.looseObject({
  msg: z.literal('recipients may get this message twice'),
  recipients: z.number(),
});

class Storm {
  readonly #postfix: Postfix;
  readonly #postern: Postern;
  readonly #dovecot: Dovecot;
  readonly #tap: LmtpTap;
  readonly #processes: PosternProcess[];
  readonly #sent = new Map<string, readonly string[]>();
  readonly #excuses = new Map<string, number>();
  #count = 0;

  constructor(postfix: Postfix, postern: Postern, dovecot: Dovecot, tap: LmtpTap, process: PosternProcess) {
    this.#postfix = postfix;
    this.#postern = postern;
    this.#dovecot = dovecot;
    this.#tap = tap;
    this.#processes = [process];
  }

  /** Sends messages until so many are sent in all; somewhere on the way the victim dies. */
  async round(victim: Victim, step: TapStep, upTo: number): Promise<void> {
    // New connections are few: with them the first is the one.
    const early = step === 'connect' || step === 'LHLO';
    const killed = this.#killAt(
      step,
      victim,
      early ? 0 : Math.min(LATEST_KILL, Math.floor((upTo - this.#count) / 3)),
    );
    const senders = Array.from({ length: SENDERS }, async () => {
      while (this.#count < upTo) await this.#send((this.#count += 1));
    });
    await Promise.all([killed, ...senders]);
    if (victim === 'Dovecot') await this.#dovecot.start();
    else this.#processes.push(await this.#postern.start('lmtp-filter'));
  }

  async report(kills: StormReport['kills'], seconds: number): Promise<StormReport> {
    await this.#postfix.flush();
    // What is still there then is accounted for as queued.
    await this.#postfix.waitForQueueEmpty(DRAIN_MS).catch(() => {});
    const copies = new Map<string, number>();
    for (const user of USERS) {
      const listing = await this.#dovecot.doveadm('fetch', '-u', user, 'hdr.subject', 'mailbox', 'INBOX');
      for (const [, subject = ''] of listing.matchAll(/^hdr\.subject: (.*)$/gm))
        count(copies, `${subject} ${user}`);
    }
    const { bounced, numbers } = this.#log();
    const queued = new Set(
      (await this.#postfix.queue()).flatMap(({ queueId, recipients }) =>
        recipients.map(({ address }) => `${numbers.get(queueId) ?? '?'} ${address}`),
      ),
    );
    const deliveries: Delivery[] = [];
    for (const [subject, recipients] of this.#sent) {
      for (const recipient of recipients) {
        const key = `${subject} ${recipient}`;
        deliveries.push({
          subject,
          recipient,
          copies: copies.get(key) ?? 0,
          bounced: bounced.has(key),
          queued: queued.has(key),
          excuses: this.#excuses.get(key) ?? 0,
        });
      }
    }
    return { kills, deliveries, possibleDuplicates: this.#possibleDuplicates(), seconds };
  }

  /** Resolves when it is dead. */
  async #killAt(step: TapStep, victim: Victim, skip: number): Promise<void> {
    const dead = Promise.withResolvers<void>();
    let left = skip;
    this.#tap.onStep = (seen) => {
      if (seen !== step || left-- > 0) return;
      this.#tap.onStep = () => {};
      dead.resolve(this.#kill(victim));
    };
    const late = setTimeout(() => dead.reject(new Error(`${step} was not seen`)), KILL_DEADLINE_MS);
    // Postfix waits longer and longer for a destination that was away.
    const flush = setInterval(() => void this.#postfix.flush(), FLUSH_MS);
    try {
      await dead.promise;
    } finally {
      clearTimeout(late);
      clearInterval(flush);
    }
  }

  /** SIGKILL is sent before this returns. */
  #kill(victim: Victim): Promise<void> {
    const killed = victim === 'Dovecot' ? this.#dovecot.kill() : this.#processes.at(-1)?.kill();
    this.#tap.doubts(({ subject, recipients }) => {
      for (const recipient of recipients) count(this.#excuses, `${subject} ${recipient}`);
    });
    return killed ?? Promise.resolve();
  }

  async #send(number: number): Promise<void> {
    const subject = `number ${number}`;
    const recipients = USERS.filter((_, index) => (number + index) % 5 <= number % 4);
    if (number % 10 === 0) recipients.push(GHOST);
    this.#sent.set(subject, recipients);
    const body = number % 25 === 0 ? 'large\r\n'.repeat(LARGE / 7) : 'Hello from the storm.\r\n'.repeat(90);
    const { outcome } = await sendMail({
      port: this.#postfix.smtpPort,
      from: '',
      to: recipients,
      data: letter({ Subject: subject, 'Message-ID': `<${number}@storm.example>` }, body),
    });
    if (outcome.code !== 250) throw new Error(`Postfix refused ${subject}: ${outcome.text}`);
  }

  /** Whose mail Postfix gave up, and which message a queue id is, by its log. */
  #log(): { readonly bounced: ReadonlySet<string>; readonly numbers: ReadonlyMap<string, string> } {
    const numbers = new Map<string, string>();
    const bounced = new Set<string>();
    for (const line of this.#postfix.log().split('\n')) {
      const [, queueId = '', rest = ''] = /postfix\/[a-z/]+\[\d+\]: ([0-9A-Za-z]+): (.*)$/.exec(line) ?? [];
      const id = /^message-id=<(\d+)@storm\.example>/.exec(rest)?.[1];
      if (id !== undefined) numbers.set(queueId, `number ${id}`);
      const to = /^to=<([^>]+)>.* status=bounced /.exec(rest)?.[1];
      if (to !== undefined) bounced.add(`${numbers.get(queueId) ?? '?'} ${to}`);
    }
    return { bounced, numbers };
  }

  #possibleDuplicates(): number {
    let sum = 0;
    for (const { log } of this.#processes) {
      for (const line of log.text().split('\n')) {
        if (!line.includes('may get this message twice')) continue;
        sum += PENDING.parse(JSON.parse(line)).recipients;
      }
    }
    return sum;
  }
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

/** What is wrong with the account: mail lost, told twice over, or doubled without excuse. */
export function mistakes({ deliveries }: StormReport): string[] {
  return deliveries.flatMap(({ subject, recipient, copies, bounced, queued, excuses }) => {
    // What is queued may have been delivered as well, when the answer was lost.
    const ends = Number(copies > 0 || queued) + Number(bounced);
    const name = `${subject} to ${recipient}`;
    if (ends !== 1)
      return [`${name}: ${copies} copies, ${bounced ? '' : 'not '}bounced, ${queued ? '' : 'not '}queued`];
    if (!queued && bounced !== (recipient === GHOST))
      return [`${name}: ${bounced ? 'bounced' : 'delivered'}`];
    return copies - 1 > excuses ? [`${name}: ${copies} copies with ${excuses} excuses`] : [];
  });
}
