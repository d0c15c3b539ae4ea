import { openNotifier, type NotifierOptions, type RunningNotifier } from '../adapters/notifier.ts';
import type { Config } from '../config/config.ts';
import { logText } from '../mail/reply.ts';
import type { Clock } from '../ports/clock.ts';
import type { Notice } from '../ports/notifier.ts';
import { counter } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';

const EVENTS = ['limit', 'quota', 'account', 'login'] as const satisfies readonly Notice['event'][];
const CHANNELS = ['log', 'mail', 'webhook'] as const;
const RESULTS = ['sent', 'lost', 'delayed', 'repeated', 'too-many'] as const;

/** The notifier of the running process, with what it tells of itself. */
export function openSiteNotifier(config: Config, clock: Clock, registry: Registry, log: Log): SiteNotifier {
  const notices = counter<'event' | 'channel' | 'result'>(registry, {
    name: 'postern_notices_total',
    help: 'Notices by event, channel and result. Channel "log": each notice there was; "repeated" and "too-many" were told to nobody else. "delayed": attempts that failed and are made again.',
    labels: { event: EVENTS, channel: CHANNELS, result: RESULTS },
  });
  const notifier = openNotifier(optionsOf(config), clock, {
    told({ event, subject, text, facts }) {
      notices.inc({ event, channel: 'log', result: 'sent' });
      log.warn({ event, subject: logText(subject), text: logText(text), facts: shown(facts) }, 'notice');
    },
    heldBack({ event, subject, text }, why) {
      notices.inc({ event, channel: 'log', result: why });
      log.info({ event, subject: logText(subject), text: logText(text), why }, 'notice held back');
    },
    sent({ event }, channel) {
      notices.inc({ event, channel, result: 'sent' });
    },
    lost({ event, subject }, channel, why) {
      notices.inc({ event, channel, result: 'lost' });
      log.error(
        { event, subject: logText(subject), channel, why: logText(why) },
        'a notice could not be sent',
      );
    },
    delayed({ event }, channel, why, waitMs) {
      notices.inc({ event, channel, result: 'delayed' });
      log.warn(
        { channel, why: logText(why), seconds: waitMs / 1000 },
        'a notice could not be sent, it is tried again',
      );
    },
  });
  return new SiteNotifier(notifier);
}

export class SiteNotifier implements AsyncDisposable {
  readonly notifier: RunningNotifier;

  constructor(notifier: RunningNotifier) {
    this.notifier = notifier;
  }

  reload(config: Config): void {
    this.notifier.configure(optionsOf(config));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.notifier[Symbol.asyncDispose]();
  }
}

function optionsOf({ file, notices }: Config): NotifierOptions {
  const { hostname } = file.site;
  const { mail_to: to, mail_from: from, smtp, webhook, timeout, repeat, per_hour: perHour } = file.notices;
  return {
    mail:
      to.length === 0 || smtp.kind !== 'tcp'
        ? null
        : { to, from: from ?? `postern@${hostname}`, host: smtp.host, port: smtp.port, hostname },
    webhook: webhook === undefined ? null : { url: webhook, header: notices.webhookHeader, hostname },
    timeoutMs: timeout,
    repeatMs: repeat,
    perHour,
  };
}

function shown(facts: Notice['facts']): Notice['facts'] {
  return Object.fromEntries(
    Object.entries(facts).map(([name, value]) => [name, typeof value === 'string' ? logText(value) : value]),
  );
}
