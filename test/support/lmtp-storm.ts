import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import { z } from 'zod';

import { startDovecot, type Dovecot } from './neighbours/dovecot.ts';
import { startPostfix, type Postfix } from './neighbours/postfix.ts';
import { sendMail } from './neighbours/smtp-client.ts';
import { startLmtpTap, type LmtpTap } from './players/lmtp-tap.ts';
import { preparePostern, type Postern, type PosternProcess } from './postern.ts';
import { letter, PASSWORD } from './site.ts';
import { GHOST, type Delivery, type StormReport } from './storm/account.ts';
import { askedServer, type StormName } from './storm/asked.ts';
import { keyOf, PostfixLedger, storedMail } from './storm/ledger.ts';
import { mountSmallDisk } from './small-disk.ts';
import { fileVictim, lmtpVictim, type Victim } from './storm/victims.ts';

const USERS = ['apolo', 'ares', 'hera', 'hermes', 'zeus'].map((name) => `${name}@olimpus.example`);
const SENDERS = 6;
/** Messages that are with Postfix at once: what waits longer would come later and later (maximal_backoff_time), and at the end all together. */
const IN_FLIGHT = 200;
/** Messages for one kill, when all steps were seen once. */
const ROUND = 100;
/** So often a step is seen before the one at which the victim dies. */
const LATEST_KILL = 60;
const FLUSH_MS = 2000;
const LOOK_MS = 50;
/** When nothing has left the queue for so long, nothing will. */
const STALL_MS = 120_000;
/** For the store's writer to notice. */
const SAYING_MS = 60_000;
const LARGE = 300_000;

export interface StormOptions {
  readonly messages: number;
  /** Default: `dialogue`. */
  readonly storm?: StormName;
  readonly told?: (text: string) => void;
}

/**
 * Real Postfix, lmtp-filter and Dovecot; while mail flows, the victims are killed with SIGKILL at every step of their dialogue, and started
 * again. In the end each message is accounted for, for each of its recipients.
 */
export async function lmtpStorm(options: StormOptions): Promise<StormReport> {
  const { messages, storm: name = 'dialogue', told = () => {} } = options;
  await using cleanup = new AsyncDisposableStack();
  const dovecot = cleanup.use(
    await startDovecot({ users: Object.fromEntries(USERS.map((user) => [user, PASSWORD])) }),
  );
  const tap = cleanup.use(await startLmtpTap(dovecot.lmtpSocket));
  const { ask, spamdPort, config } = await askedServer(name, cleanup);
  const postern = cleanup.use(
    await preparePostern({
      // A port could be another's by the time lmtp-filter is started again.
      unix: true,
      upstream: `127.0.0.1:${tap.port}`,
      ...(spamdPort === null ? {} : { spamdPort }),
      config,
    }),
  );
  const folder = join(postern.folder, 'state');
  if (name === 'files') cleanup.use(await mountSmallDisk(folder, '128m'));
  const postfix = cleanup.use(
    await startPostfix({
      domains: ['olimpus.example'],
      mailboxes: [...USERS, GHOST],
      virtualTransport: `postern:${postern.address['lmtp-filter']}`,
      main: { queue_run_delay: '1s', minimal_backoff_time: '1s', maximal_backoff_time: '4s' },
    }),
  );
  const ledger = cleanup.use(new PostfixLedger(join(postfix.folder, 'mail.log')));
  const storm = new Storm(postfix, postern, dovecot, tap, ledger, await postern.start('lmtp-filter'));
  const victims =
    ask === null
      ? name === 'files'
        ? [fileVictim(tap, folder, (pattern) => storm.says(pattern))]
        : storm.ends()
      : [ask];
  const begun = performance.now();
  const steps = [...new Set(victims.flatMap((victim) => victim.steps))];
  const rounds = steps.flatMap((step) => victims.map((victim) => ({ step, victim })));
  const kills: { readonly victim: string; readonly step: string }[] = [];
  // Each once at least, and then all over again.
  for (let index = 0; index < rounds.length || storm.count < messages; index += 1) {
    const round = rounds[index % rounds.length];
    if (round === undefined) throw new Error('nobody is to be killed');
    const { step, victim } = round;
    const share = Math.round((messages * (index + 1)) / rounds.length);
    await storm.round(victim, step, Math.min(messages, index < rounds.length ? share : storm.count + ROUND));
    kills.push({ victim: victim.name, step });
    told(`${victim.name}: ${step}; ${storm.count} of ${messages} messages sent`);
  }
  return await storm.report(messages, kills, begun);
}

const PENDING = z.looseObject({
  msg: z.literal('recipients may get this message twice'),
  qid: z.string(),
  recipients: z.number(),
});

class Storm {
  readonly #postfix: Postfix;
  readonly #postern: Postern;
  readonly #dovecot: Dovecot;
  readonly #tap: LmtpTap;
  readonly #ledger: PostfixLedger;
  readonly #processes: PosternProcess[];
  readonly #sent = new Map<string, readonly string[]>();
  readonly #excuses = new Map<string, number>();
  readonly #silent = new Map<string, number>();
  #dead: Victim | null = null;
  #count = 0;

  constructor(
    postfix: Postfix,
    postern: Postern,
    dovecot: Dovecot,
    tap: LmtpTap,
    ledger: PostfixLedger,
    process: PosternProcess,
  ) {
    this.#postfix = postfix;
    this.#postern = postern;
    this.#dovecot = dovecot;
    this.#tap = tap;
    this.#ledger = ledger;
    this.#processes = [process];
  }

  /** Messages that were sent. */
  get count(): number {
    return this.#count;
  }

  /** Resolves when lmtp-filter says so from now on. */
  async says(pattern: RegExp): Promise<void> {
    const process = this.#processes.at(-1);
    await process?.waitForLog(pattern, { after: process.log.mark(), deadlineMs: SAYING_MS });
  }

  /** The two ends of the dialogue. */
  ends(): readonly Victim[] {
    const kill = (silent: boolean, killed: () => Promise<void> | undefined) => (): Promise<void> => {
      const dead = killed();
      // SIGKILL was sent; what is on its way now is in doubt.
      this.#tap.doubts(({ subject, recipients }) => {
        for (const recipient of recipients) {
          count(this.#excuses, keyOf(subject, recipient));
          if (silent) count(this.#silent, keyOf(subject, recipient));
        }
      });
      return dead ?? Promise.resolve();
    };
    return [
      lmtpVictim(
        'lmtp-filter',
        this.#tap,
        kill(true, () => this.#processes.at(-1)?.kill()),
        async () => void this.#processes.push(await this.#postern.start('lmtp-filter')),
      ),
      lmtpVictim(
        'Dovecot',
        this.#tap,
        kill(false, () => this.#dovecot.kill()),
        async () => {
          await this.#unlock();
          await this.#dovecot.start();
        },
      ),
    ];
  }

  /**
   * Who died last comes back; messages are sent until so many are sent in all, or no more can wait for somebody who is dead; somewhere on the
   * way the victim dies.
   */
  async round(victim: Victim, step: string, upTo: number): Promise<void> {
    let dead = false;
    // It can't die before it lives again.
    if (this.#dead === victim) await this.#revive();
    // Before anybody else comes back: with that come the new connections that some steps are about.
    const struck = victim
      .strike(step, Math.min(LATEST_KILL, Math.floor((upTo - this.#count + this.#ledger.inFlight()) / 3)))
      .then(() => (dead = true));
    // It is awaited below, unless something else has ended the storm.
    struck.catch(() => {});
    await this.#revive();
    this.#dead = victim;
    // Postfix waits longer and longer for a destination that was away.
    const flush = setInterval(() => void this.#postfix.flush(), FLUSH_MS);
    try {
      await Promise.all([struck, this.#sendUpTo(upTo, () => dead)]);
    } finally {
      clearInterval(flush);
    }
  }

  async #revive(): Promise<void> {
    const dead = this.#dead;
    this.#dead = null;
    await dead?.heal();
  }

  async #sendUpTo(upTo: number, isEnough: () => boolean): Promise<void> {
    const sender = async (): Promise<void> => {
      while (this.#count < upTo) {
        if (this.#ledger.inFlight() < IN_FLIGHT) await this.#send((this.#count += 1));
        else if (isEnough()) return;
        else await wait(LOOK_MS);
      }
    };
    await Promise.all(Array.from({ length: SENDERS }, sender));
  }

  /** A Dovecot that was killed leaves locks in mailboxes, which stop the next one for two minutes. */
  async #unlock(): Promise<void> {
    for (const user of USERS) await rm(join(this.#maildir(user), 'dovecot-uidlist.lock'), { force: true });
  }

  #maildir(user: string): string {
    const [local = '', domain = ''] = user.split('@');
    return join(this.#dovecot.folder, 'mail', domain, local, 'Maildir');
  }

  /** Sends the rest, with nobody dead, and says what became of all. */
  async report(upTo: number, kills: StormReport['kills'], begun: number): Promise<StormReport> {
    await this.#revive();
    const flush = setInterval(() => void this.#postfix.flush(), FLUSH_MS);
    try {
      await this.#sendUpTo(upTo, () => false);
      await this.#drain();
    } finally {
      clearInterval(flush);
    }
    const copies = new Map<string, number>();
    const scanned = new Map<string, number>();
    for (const user of USERS) {
      for await (const mail of storedMail(this.#maildir(user))) {
        count(copies, keyOf(mail.subject, user));
        if (mail.scanned) count(scanned, keyOf(mail.subject, user));
      }
    }
    const { bounced, putOff } = this.#ledger;
    const queued = new Set(
      (await this.#postfix.queue()).flatMap(({ queueId, recipients }) =>
        recipients.map(({ address }) => keyOf(this.#ledger.subjectOf(queueId) ?? '?', address)),
      ),
    );
    const deliveries: Delivery[] = [];
    for (const [subject, recipients] of this.#sent) {
      for (const recipient of recipients) {
        const key = keyOf(subject, recipient);
        deliveries.push({
          subject,
          recipient,
          copies: copies.get(key) ?? 0,
          scanned: scanned.get(key) ?? 0,
          bounced: bounced.has(key),
          queued: queued.has(key),
          putOff: putOff.has(key),
          excuses: this.#excuses.get(key) ?? 0,
          silent: this.#silent.get(key) ?? 0,
        });
      }
    }
    const seconds = (performance.now() - begun) / 1000;
    const log = this.#processes.map((process) => process.log.text()).join('\n');
    return { kills, deliveries, possibleDuplicates: this.#possibleDuplicates(log), seconds, log };
  }

  /** Until the queue is empty, or nothing leaves it any more: what is still there then is accounted for as queued. */
  async #drain(): Promise<void> {
    let left = this.#ledger.inFlight();
    let changed = performance.now();
    while (left > 0 && performance.now() - changed < STALL_MS) {
      await wait(LOOK_MS);
      const now = this.#ledger.inFlight();
      if (now === left) continue;
      left = now;
      changed = performance.now();
    }
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

  #possibleDuplicates(log: string): ReadonlyMap<string, number> {
    const told = new Map<string, number>();
    for (const line of log.split('\n')) {
      if (!line.includes('may get this message twice')) continue;
      const { qid, recipients } = PENDING.parse(JSON.parse(line));
      const subject = this.#ledger.subjectOf(qid) ?? '?';
      told.set(subject, (told.get(subject) ?? 0) + recipients);
    }
    return told;
  }
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
