import { setTimeout as wait } from 'node:timers/promises';

import type { Clock } from '../ports/clock.ts';
import type { Notice, Notifier } from '../ports/notifier.ts';
import { NoticeChannel, NoticeRefused, type Deliver, type Wait } from './notice-channel.ts';
import type { MailOptions } from './notice-mail.ts';
import { webhookDelivery, type WebhookOptions } from './notice-webhook.ts';

export type ChannelName = 'mail' | 'webhook';

export interface NotifierOptions {
  /** null: no mail. */
  readonly mail: MailOptions | null;
  /** null: no webhook. */
  readonly webhook: WebhookOptions | null;
  /** The longest one attempt may take, milliseconds. */
  readonly timeoutMs: number;
  /** What was told is not told again for so long, milliseconds. */
  readonly repeatMs: number;
  /** So many notices within an hour; more are only logged. */
  readonly perHour: number;
}

export interface NotifierEvents {
  /** A notice that is told, whatever channels there are. */
  told(notice: Notice): void;
  /** A notice that is not told: the same was lately, or there were too many. */
  heldBack(notice: Notice, why: 'repeated' | 'too-many'): void;
  sent(notice: Notice, channel: ChannelName): void;
  lost(notice: Notice, channel: ChannelName, why: string): void;
  delayed(notice: Notice, channel: ChannelName, why: string, waitMs: number): void;
}

export interface RunningNotifier extends Notifier, AsyncDisposable {
  /** Other settings from now on, for what waits too. */
  configure(options: NotifierOptions): void;
}

const HOUR_MS = 3_600_000;
/** Different notices about one subject within `repeatMs`: an account goes through stages, a mailbox through thresholds. */
export const SUBJECT_LIMIT = 5;
/** Subjects that are remembered. */
export const REMEMBERED = 5000;

const patience: Wait = (ms, signal) => wait(ms, undefined, { signal, ref: false });

/** Tells people, and never makes mail wait for that. */
export function openNotifier(
  options: NotifierOptions,
  clock: Clock,
  events: NotifierEvents,
  pause: Wait = patience,
): RunningNotifier {
  return new ChannelNotifier(options, clock, events, pause);
}

class ChannelNotifier implements RunningNotifier {
  #options: NotifierOptions;
  #mail: Deliver | null = null;
  #webhook: Deliver | null = null;
  readonly #events: NotifierEvents;
  readonly #memory: Memory;
  readonly #channels: Readonly<Record<ChannelName, NoticeChannel>>;

  constructor(options: NotifierOptions, clock: Clock, events: NotifierEvents, pause: Wait) {
    this.#options = options;
    this.#events = events;
    this.#memory = new Memory(clock);
    const channel = (name: ChannelName, deliver: () => Deliver | null): NoticeChannel =>
      new NoticeChannel(
        () => deliver() ?? switchedOff,
        () => this.#options.timeoutMs,
        {
          sent: (notice) => events.sent(notice, name),
          lost: (notice, why) => events.lost(notice, name, why),
          delayed: (notice, why, waitMs) => events.delayed(notice, name, why, waitMs),
        },
        () => clock.elapsed(),
        pause,
      );
    this.#channels = {
      mail: channel('mail', () => this.#mail),
      webhook: channel('webhook', () => this.#webhook),
    };
    this.configure(options);
  }

  configure(options: NotifierOptions): void {
    this.#options = options;
    this.#mail = options.mail === null ? null : byMail(options.mail);
    this.#webhook = options.webhook === null ? null : webhookDelivery(options.webhook);
  }

  notify(notice: Notice): void {
    const { repeatMs, perHour } = this.#options;
    const judged = this.#memory.judge(notice, repeatMs, perHour);
    if (judged !== 'new') {
      this.#events.heldBack(notice, judged);
      return;
    }
    this.#events.told(notice);
    if (this.#mail !== null) this.#channels.mail.push(notice);
    if (this.#webhook !== null) this.#channels.webhook.push(notice);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(Object.values(this.#channels).map((channel) => channel[Symbol.asyncDispose]()));
  }
}

/** What writes and sends mail is loaded with the first notice: most processes never have one. */
function byMail(options: MailOptions): Deliver {
  return async (notice, signal) => {
    const { mailDelivery } = await import('./notice-mail.ts');
    await mailDelivery(options)(notice, signal);
  };
}

/** A reload took the channel away while notices waited for it. */
const switchedOff: Deliver = () =>
  Promise.reject(new NoticeRefused('the configuration has no such channel any more'));

interface Told {
  readonly since: number;
  readonly texts: Set<string>;
}

/** What was told lately, so that neither a flood nor a notice that causes itself fills somebody's mailbox. */
class Memory {
  readonly #clock: Clock;
  readonly #told = new Map<string, Told>();
  #hour = 0;
  #thisHour = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  judge(
    { event, subject, text }: Notice,
    repeatMs: number,
    perHour: number,
  ): 'new' | 'repeated' | 'too-many' {
    const now = this.#clock.elapsed();
    const key = `${event}\0${subject}`;
    let told = this.#told.get(key);
    if (told !== undefined && now - told.since >= repeatMs) told = undefined;
    if (told !== undefined && (told.texts.has(text) || told.texts.size >= SUBJECT_LIMIT)) return 'repeated';
    const hour = Math.floor(now / HOUR_MS);
    if (hour !== this.#hour) [this.#hour, this.#thisHour] = [hour, 0];
    if (this.#thisHour >= perHour) return 'too-many';
    this.#thisHour += 1;
    if (told === undefined) this.#remember(key, { since: now, texts: new Set([text]) });
    else told.texts.add(text);
    return 'new';
  }

  #remember(key: string, told: Told): void {
    this.#told.delete(key);
    this.#told.set(key, told);
    if (this.#told.size <= REMEMBERED) return;
    for (const [oldest] of this.#told) {
      this.#told.delete(oldest);
      break;
    }
  }
}
